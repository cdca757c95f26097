"""The running picture of lessons 01 to 05: the same eight weights through every format, with bits and error.

A lesson shows its rows below those of the lessons before:

    from helpers.drawings import eight
    rows = eight.rows(3)                                             # up to and with lesson 03
    plots.show(eight.figure(rows), alt=eight.alt(rows))

or computes its own by what the student built, on the whole layer, since a scale depends on the weights around:

    codes, scale = absmax_quantize(eight.layer())
    rows = eight.rows(1) | {"int8, one scale": eight.Row(eight.take(codes * scale), bits=8)}

The eight lie side by side in a layer of the pocket Llama. The sixth is the largest of its block of 64. Of all eights of
which that is true these were chosen because their errors have the order of the whole layer's (test_eight.py holds it).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from safetensors import safe_open

from helpers.codebooks import FP4_E2M1 as FP4_LEVELS
from helpers.codebooks import NF4, integer
from helpers.floats import BF16, FP4_E2M1, FP8_E4M3, FP8_E5M2, FP16, FloatFormat, cast
from helpers.plots import BLUE, GREY, INK, LINE, SKY, STYLE
from helpers.pocket import WEIGHTS
from helpers.quantization import absmax_quantize, quantize

NAME = "model.layers.3.mlp.down_proj.weight"
PLACE = (29, slice(40, 48))  # a row of the layer, eight of its columns
LESSONS = (1, 2, 3, 4, 5)
COLUMNS = {1.18: "bits", 1.48: "RMS error"}  # beside the number lines: where they end, in widths of the axes


class Row(NamedTuple):
    """What a format makes of the eight weights.

    values: float32 (8,), the weights as they come back. bits: stored per weight, scales included. lesson: which one
    builds it; None for a row of the reader's own.
    """

    values: torch.Tensor
    bits: float
    lesson: int | None = None

    @property
    def error(self) -> float:
        """Root mean square error of the eight, in the unit of the weights."""
        return (self.values.double() - take(layer()).double()).square().mean().sqrt().item()


@cache
def layer() -> torch.Tensor:
    """All weights of the layer that the eight are from: float32 (128, 320)."""
    with safe_open(WEIGHTS / "model.safetensors", framework="pt") as file:
        return file.get_tensor(NAME)


def take(restored: torch.Tensor) -> torch.Tensor:
    """The eight weights of a layer that was restored from some format: (128, 320) -> float32 (8,).

    Raises ValueError for another shape: the eight can only be found in their own layer.
    """
    if restored.shape != layer().shape:
        raise ValueError(f"restored has shape {tuple(restored.shape)}: give all of eight.layer(), "
                         f"{tuple(layer().shape)}, as it comes back")
    return restored[PLACE].float()


@cache
def _restored() -> dict[str, tuple[torch.Tensor, float, int]]:
    """The whole layer through every format, in the order of the course: what comes back, bits per weight, lesson."""
    weights, found = layer(), {}

    def floats(name: str, fmt: FloatFormat) -> None:
        found[name] = cast(weights, fmt), float(fmt.bits), 1

    def integers(bits: int) -> None:
        codes, scale = absmax_quantize(weights, bits)
        found[f"int{bits}, one scale"] = codes * scale, bits + 32 / weights.numel(), 2

    def blocks(name: str, levels: torch.Tensor, lesson: int, double_quant: bool = False) -> None:
        quantized = quantize(weights, levels, 64, double_quant)
        found[name] = quantized.dequantize(), quantized.bits_per_weight, lesson

    for fmt in (FP16, BF16, FP8_E4M3, FP8_E5M2, FP4_E2M1):
        floats(fmt.name, fmt)
    for bits in (8, 4):
        integers(bits)
    for bits in (8, 4):
        blocks(f"int{bits}, blocks of 64", integer(bits), 3)
    blocks("FP4 E2M1, blocks of 64", FP4_LEVELS, 4)
    blocks("NF4, blocks of 64", NF4, 4)
    blocks("NF4, double quantization", NF4, 5, double_quant=True)
    return found


def rows(up_to: int) -> dict[str, Row]:
    """The rows of lesson 01 up to and with lesson `up_to`, by name, in the order of the course.

    Raises ValueError for a lesson that has no row: 1 to 5 have.
    """
    if up_to not in LESSONS:
        raise ValueError(f"up_to={up_to!r}: lessons 1 to 5 have rows")
    return {name: Row(take(values), bits, lesson) for name, (values, bits, lesson) in _restored().items()
            if lesson <= up_to}


def _newest(rows: Mapping[str, Row]) -> set[str]:
    """The names of the reader's own rows; without any, of the last lesson's."""
    own = {name for name, row in rows.items() if row.lesson is None}
    return own or {name for name, row in rows.items() if row.lesson == max(row.lesson for row in rows.values())}


def figure(rows: Mapping[str, Row]) -> Figure:
    """A number line for each row, top to bottom: ticks where the weights were, dots where they are now.

    The last lesson's rows, or the reader's own, are dark. Raises ValueError where there is no row.
    """
    if not rows:
        raise ValueError("rows is empty: take eight.rows(1) to begin with")
    before, new = take(layer()).tolist(), _newest(rows)
    low, high = (f([*before, *(v for row in rows.values() for v in row.values.tolist())]) for f in (min, max))
    low, high = low - 0.03, high + 0.03
    with mpl.rc_context(STYLE):
        height = 0.85 + 0.32 * len(rows)  # inches; the axes leave room for names, figures and the label below
        fig = Figure(figsize=(7.2, height), layout="none")
        ax = fig.add_axes((0.31, 0.52 / height, 0.45, 1 - 0.6 / height), xlim=(low, high), ylim=(len(rows) - 0.4, -1.1),
                          xlabel="weight")
        ax.grid(visible=False)
        ax.spines["left"].set_visible(False)
        ax.set_yticks(range(len(rows)), list(rows))
        ax.tick_params(axis="y", length=0)
        beside = ax.get_yaxis_transform()  # x in widths of the axes, y in rows
        for x, word in COLUMNS.items():
            ax.text(x, -0.8, word, transform=beside, ha="right", va="center", color=GREY, fontsize=10)
        for y, (name, row) in enumerate(rows.items()):
            ax.plot([low, high], [y, y], color=LINE, linewidth=1, zorder=1)
            ax.vlines(before, y - 0.3, y + 0.3, color=INK, linewidth=0.9, zorder=2)
            ax.plot(row.values.tolist(), [y] * len(row.values), "o", markersize=5.5, markeredgecolor="white",
                    markeredgewidth=0.8, color=BLUE if name in new else SKY, zorder=3)
            for x, text in zip(COLUMNS, (f"{row.bits:.2f}", f"{row.error:.4f}"), strict=True):
                ax.text(x, y, text, transform=beside, ha="right", va="center", fontsize=10)
        for label, name in zip(ax.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if name in new else "normal")
    return fig


def alt(rows: Mapping[str, Row]) -> str:
    """The alternative text of `figure(rows)`, with its numbers."""
    before = sorted(take(layer()).tolist(), key=abs)
    told = "; ".join(f"{name}: {row.bits:.2f} bits, error {row.error:.4f}" for name, row in rows.items())
    return (f"The same eight weights on number lines, seven within ±{abs(before[-2]):.2f} and one of {before[-1]:.2f}: "
            "thin ticks where they were, dots where they are now, with bits per weight and root mean square error. "
            f"{told}.")
