"""What LoRA wins back at 4, 3 and 2 bits on the laptop tier's model: lesson 09's question, with the control it needs.

The linears of the decoder are quantized in blocks of 64 and stay frozen (dequantized once, in float32: the same numbers
as a quantized layer's, faster). LoRA of rank 8 on all of them is trained on plain text and scored on other text of the
same sort. The same is done to the unquantized base, tuned alike: what LoRA gains there is no repair, the model gets
used to the text, and only what a quantized model gains *beyond* that has come back.

The texts are paragraphs of this course's own lessons, copied in November 2026 and never changed since, their SHA-256 in
the record: SmolLM2 is older and cannot have read them. `prose.md` is scored, `more_prose.md`, other paragraphs, trained
on. int3 and int2 are evenly spaced levels, of which int2 has three (`codebooks.integer`); lesson 09's own codebooks of
3 and 2 bits, NormalFloat, were not measured here. 4,096 tokens of training repair what can be had quickly, no more.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.codebooks import NF4, integer
from helpers.experiments import laptop as sweep
from helpers.lora import add_lora, find_targets
from helpers.pocket.evaluate import label_losses
from helpers.pocket.train import Batch
from helpers.quantization import quantize

NAME = "laptop_recovery"
TEXT, MORE = experiments.FOLDER / "prose.md", experiments.FOLDER / "more_prose.md"
CODEBOOKS = {"fp32": None, "NF4": NF4, "int3": integer(3), "int2": integer(2)}
STEPS, BATCH, TOKENS = 16, 2, 128
LADDER = sweep.LADDER[1:]  # 1.35e-2 was added after a first try in 12 steps, where all did better at 4.5e-3 than below
SCORED, TUNED_ON = slice(0, 12), slice(12, 18)  # windows of 256 tokens of TEXT


def windows(tokenizer: PreTrainedTokenizerBase, text: str, tokens: int) -> list[list[int]]:
    """The whole rows of `tokens` ids in a text, one after the other."""
    ids = tokenizer(text)["input_ids"]
    return [ids[start:start + tokens] for start in range(0, len(ids) - tokens + 1, tokens)]


def text_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """STEPS batches of windows of MORE, none of them twice; every token is a label."""
    rows = windows(tokenizer, MORE.read_text(encoding="utf-8"), TOKENS)
    chosen = random.Random(f"text {seed}").sample(rows, STEPS * BATCH)
    for step in range(STEPS):
        ids = torch.tensor(chosen[step * BATCH:(step + 1) * BATCH])
        yield ids, ids


def text_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, float]:
    """Loss per token of TEXT, each window read by itself; for the tuning seed on windows that are not scored."""
    rows = windows(tokenizer, TEXT.read_text(encoding="utf-8"), 256)
    rows = rows[TUNED_ON if seed == sweep.TUNING_SEED else SCORED]
    losses, counts = label_losses(model, rows, rows, budget=2**27)
    return {"loss": losses.sum().item() / counts.sum().item()}


@torch.no_grad()
def prepare(model: PreTrainedModel, base: str, lora: bool) -> PreTrainedModel:
    """The linears as they come back from the codebook called `base` (fp32: as they are), and LoRA or not."""
    if CODEBOOKS[base] is not None:
        for name in find_targets(model):
            weight = model.get_submodule(name).weight
            weight.copy_(quantize(weight, CODEBOOKS[base], 64).dequantize())
    return add_lora(model, r=8, alpha=16) if lora else model


CASES = [*(sweep.Case(base, partial(prepare, base=base, lora=False), text_batches, text_loss, 0, seeds=(0,))
           for base in CODEBOOKS),
         *(sweep.Case(f"{base} + LoRA", partial(prepare, base=base, lora=True), text_batches, text_loss, STEPS,
                      ladder=LADDER) for base in CODEBOOKS)]


def came_back(record: dict, base: str) -> list[float]:
    """For each seed, the share of the loss per token lost by quantization that LoRA brought back.

    Lost: `base` less fp32, both as they are. Left: the same with both trained, from the same seed. 1 - left / lost.
    Raises ValueError for a base that is not in the record.
    """
    lost = sweep.spread(record, base)[1] - sweep.spread(record, "fp32")[1]
    plain, ours = sweep.chosen(record, "fp32 + LoRA"), sweep.chosen(record, f"{base} + LoRA")
    return [1 - (ours[seed]["loss"] - plain[seed]["loss"]) / lost for seed in experiments.SEEDS]


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing of the sweep."""
    sweep.run(NAME, CASES, report, text=f"{TEXT.name} {sweep.sha256(TEXT)}",
              trained_on=f"{MORE.name} {sweep.sha256(MORE)}")
