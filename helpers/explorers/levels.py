"""The explorer of lesson 04: sixteen levels to drag.

All quantization is that of `helpers.quantization` and `helpers.codebooks`; see `helpers.explorers.frame` for what an
explorer is.
"""

from __future__ import annotations

import html
import math
from functools import cache

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.codebooks import FP4_BNB, FP4_E2M1, NF4, integer, lloyd_max
from helpers.explorers.checks import number, one_of, whole
from helpers.explorers.frame import WIDE, Explorer, svg, tag
from helpers.quantization import quantize

BLOCK_SIZE, BLOCKS = 64, 4096
GAP = 0.002  # how near a level may come to its neighbour


@cache
def gaussian_weights() -> torch.Tensor:
    """The weights on which the levels are tried: standard normal, float32 (BLOCKS, BLOCK_SIZE)."""
    return torch.randn(BLOCKS, BLOCK_SIZE, generator=torch.Generator().manual_seed(4))


@cache
def starting_points() -> dict[str, torch.Tensor]:
    """The codebooks to start from, by name: float32 (15 or 16 levels,)."""
    blocks = gaussian_weights()
    scaled = blocks / blocks.abs().amax(dim=1, keepdim=True)
    return {"NF4": NF4, "int4": integer(4), "FP4 E2M1": FP4_E2M1, "FP4 of bitsandbytes": FP4_BNB,
            "Lloyd": lloyd_max(scaled, 4)}


class LevelExplorer(Explorer):
    """Four-bit levels to drag, on Gaussian weights in blocks of 64: bins and errors follow.

        explorer = drag_levels()
        explorer                       # shows it
        explorer.move(8, 0.1)          # the level of code 8
        explorer.reset("Lloyd")
        print(explorer.report())

    `levels` holds what is shown, a float32 tensor, and `start` the name of what it was at first; `shares` (of the
    weights, by code), `mse` (relative to the mean square of the weights), `mae` (in standard deviations) and `entropy`
    (of the codes, in bits) are computed from it. `code` is the level that the slider moves.
    """

    text = "Drag the levels of a codebook here, in JupyterLab or Colab; or from Python as in the next cell."
    css = "levels"

    def __init__(self, start: str = "NF4") -> None:
        self.start, self.levels, self.code = "NF4", NF4.clone(), 8
        again = widgets.Button(description="Reset", layout={"width": "5em"})
        self._build({"start": widgets.Dropdown(options=list(starting_points()), description="Start from"),
                     "again": again},
                    {"code": widgets.IntSlider(8, 0, 15, description="Code", layout=WIDE)},
                    {"level": widgets.FloatSlider(0, min=-1, max=1, step=0.001, readout_format=".3f",
                                                  description="Level", layout=WIDE)})
        again.on_click(lambda button: self.reset())
        self._listen(self.controls["start"], self.reset)
        self._listen(self.controls["code"], lambda code: self._answer(lambda: setattr(self, "code", code)))
        self._listen(self.controls["level"], lambda level: self.move(self.code, level))
        self.reset(start)

    def reset(self, start: str | None = None) -> None:
        """Start again from a codebook: NF4, int4, FP4 E2M1, FP4 of bitsandbytes or Lloyd; None: from the one chosen."""
        def act() -> None:
            self.start = one_of(starting_points())("start", self.start if start is None else start)
            self.levels = starting_points()[self.start].clone()
            self.code = min(self.code, len(self.levels) - 1)
        self._answer(act)

    def move(self, code: int, level: float) -> None:
        """Move the level of a code. It stops at its neighbours and at -1 and 1, and the message says so."""
        def act() -> str:
            last = len(self.levels) - 1
            self.code, wanted = whole(0, last)("code", code), number(-math.inf, math.inf)("level", level)
            lowest = self.levels[self.code - 1].item() + GAP if self.code > 0 else -1.0
            highest = self.levels[self.code + 1].item() - GAP if self.code < last else 1.0
            placed = max(lowest, min(highest, wanted))
            self.levels = self.levels.clone()
            self.levels[self.code] = placed
            where = "the end" if abs(placed) == 1 else "its neighbour"
            return "" if placed == wanted else f"Level {self.code} stops at {where}: {placed:.3f}."
        self._answer(act)

    def report(self) -> str:
        """What is shown, as plain text."""
        fullest, emptiest = 100 * self.shares.max().item(), 100 * self.shares.min().item()
        changed = "" if torch.equal(self.levels, starting_points()[self.start]) else ", changed"
        return "\n".join((f"{self.start}{changed}: {len(self.levels)} levels",
                          f"relative squared error  {self.mse:.5f}", f"mean absolute error     {self.mae:.4f} σ",
                          f"bins                    {emptiest:.1f} % to {fullest:.1f} %",
                          f"codes carry             {self.entropy:.2f} of 4 bits"))

    def _compute(self) -> None:
        weights = gaussian_weights()
        quantized = quantize(weights, self.levels, BLOCK_SIZE)
        error = quantized.dequantize() - weights
        self.mse = (error.square().mean() / weights.square().mean()).item()
        self.mae = (error.abs().mean() / weights.std()).item()
        self.shares = torch.bincount(quantized.codes.flatten().int(), minlength=len(self.levels)) / weights.numel()
        used = self.shares[self.shares > 0]
        self.entropy = -(used * used.log2()).sum().item()

    def _follow(self) -> None:
        self.controls["start"].value = self.start
        self.controls["code"].max = len(self.levels) - 1
        self.controls["code"].value = self.code
        self.controls["level"].value = self.levels[self.code].item()

    def _body(self) -> str:
        return (self._picture()
                + tag("small", "Height: share of the weights. Dashed: one sixteenth. Orange: the chosen code.")
                + tag("pre", html.escape(self.report()), style="margin:4px 0;line-height:1.4;background:none"))

    def _picture(self) -> str:
        """The bins: each level a line, as high as the share of the weights that go to it."""
        x = [10 + 680 * (level + 1) / 2 for level in self.levels.tolist()]
        edges = [x[0], *((a + b) / 2 for a, b in zip(x, x[1:], strict=False)), x[-1]]
        parts = []
        for code, share in enumerate(self.shares.tolist()):
            height, width = min(130.0, 800 * share), max(edges[code + 1] - edges[code] - 1, 0.5)
            parts.append(tag("rect", x=edges[code], y=140 - height, width=width, height=height,
                             fill=plots.ORANGE if code == self.code else plots.SKY))
            parts.append(tag("line", x1=x[code], x2=x[code], y1=132, y2=148, stroke=plots.VERMILION, stroke_width=2))
        even = 140 - 800 / 16
        parts.append(tag("line", x1=10, x2=690, y1=even, y2=even, stroke=plots.GREY, stroke_dasharray="5 4"))
        return svg("0 0 700 150", self.report(), *parts)


drag_levels = LevelExplorer
