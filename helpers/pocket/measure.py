"""What quantization does to the pocket Llama: measured, recorded in record.json, and recomputed by a test."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import bitsandbytes.functional as bnb
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.codebooks import integer
from helpers.pocket.evaluate import document_losses, exact_match, recall
from helpers.quantization import quantize

LADDER = [("fp32", "nf4"), ("nf4", "fp4 bnb"), ("nf4", "int4"), ("fp4 bnb", "int3"), ("int4", "int3"), ("int3", "int2")]


def through_bitsandbytes(kind: str, double_quant: bool = False) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that takes a weight to 4 bits (`nf4` or `fp4`, blocks of 64) and back with bitsandbytes."""
    def there_and_back(weight: torch.Tensor) -> torch.Tensor:
        codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=double_quant)
        return bnb.dequantize_4bit(codes, state)
    return there_and_back


def through_integers(bits: int, block_size: int | None = 64) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that takes a weight to symmetric integers of `bits` bits and back, in blocks or as one (None)."""
    return lambda weight: quantize(weight, integer(bits), block_size).dequantize()


FORMATS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "fp32": lambda weight: weight,
    "int8 per tensor": through_integers(8, None),
    "nf4": through_bitsandbytes("nf4"),
    "nf4 dq": through_bitsandbytes("nf4", double_quant=True),
    "fp4 bnb": through_bitsandbytes("fp4"),
    "int4": through_integers(4),
    "int4 per tensor": through_integers(4, None),
    "int3": through_integers(3),
    "int2": through_integers(2),
}


def with_weights(model: PreTrainedModel, change: Callable[[torch.Tensor], torch.Tensor]) -> PreTrainedModel:
    """A copy of the model with every linear weight changed, but for the output head, as bitsandbytes leaves it too."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in changed.named_modules():
            if isinstance(module, torch.nn.Linear) and not name.endswith("lm_head"):
                module.weight.copy_(change(module.weight))
    return changed


def paired_difference(a: torch.Tensor, b: torch.Tensor, counts: torch.Tensor) -> tuple[float, float]:
    """Mean loss of b minus that of a in nats per token, and its standard error over documents (ratio estimator).

    a, b: summed losses (documents,); counts: tokens (documents,).
    """
    mean = ((b - a).sum() / counts.sum()).item()
    residual = (b - a) - mean * counts
    return mean, math.sqrt(residual.square().sum().item() * len(a) / (len(a) - 1)) / counts.sum().item()


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict:
    """Perplexity and recall of the model in every format, and each rung of the ladder with its standard error."""
    losses, formats = {}, {}
    for name, change in FORMATS.items():
        changed = with_weights(model, change)
        losses[name], counts = document_losses(changed, tokenizer)
        formats[name] = {"perplexity": math.exp((losses[name].sum() / counts.sum()).item()),
                         "recall": recall(changed, tokenizer)}
    rungs = {}
    for lower, higher in LADDER:
        mean, error = paired_difference(losses[lower], losses[higher], counts)
        rungs[f"{lower} < {higher}"] = {"nats_per_token": mean, "standard_error": error}
    return {"formats": formats, "ladder": rungs, "exact_match": exact_match(model, tokenizer)}
