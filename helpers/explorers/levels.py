"""Explorers of Part I: sixteen levels to drag.

All quantization is that of `helpers.quantization` and `helpers.codebooks`; see `helpers.explorers` for what an explorer
is.
"""

from __future__ import annotations

import html
import math
from functools import cache

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.codebooks import FP4_BNB, FP4_E2M1, NF4, integer, lloyd_max
from helpers.explorers.frame import Explorer
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
    """Four-bit levels to drag, on Gaussian weights in blocks of 64: bins and errors follow. Made by `drag_levels`.

    `levels` holds what is shown, a float32 tensor; `shares` (of the weights, by code), `mse` (relative to the mean
    square of the weights), `mae` (in standard deviations) and `entropy` (of the codes, in bits) are computed from it.
    `message` is what was wrong, or "".
    """

    def __init__(self, start: str = "NF4") -> None:
        self.name, self.levels, self.message = "NF4", NF4.clone(), ""
        self.start = widgets.Dropdown(options=list(starting_points()), description="Start from")
        self.again = widgets.Button(description="Reset", layout={"width": "5em"})
        self.code = widgets.IntSlider(min=0, max=15, value=8, description="Code")
        self.level = widgets.FloatSlider(min=-1, max=1, step=0.001, readout_format=".3f", description="Level",
                                         layout={"width": "95%"})
        self.shown = widgets.HTML()
        self.ui = widgets.VBox([widgets.HBox([self.start, self.again]), self.code, self.level, self.shown])
        self.text = "Drag the levels of a codebook here, in JupyterLab or Colab; or from Python as in the next cell."
        self._listening = True
        self.start.observe(lambda change: self._heard(lambda: self.reset(change["new"])), "value")
        self.again.on_click(lambda button: self.reset())
        self.code.observe(lambda change: self._heard(self._chosen), "value")
        self.level.observe(lambda change: self._heard(lambda: self.move(self.code.value, change["new"])), "value")
        self._measure()
        self.reset(start)

    def reset(self, start: str | None = None) -> None:
        """Start again from a codebook: NF4, int4, FP4 E2M1, FP4 of bitsandbytes or Lloyd; None: from the one chosen."""
        name = self.start.value if start is None else start
        if name not in starting_points():
            self.message = f"No codebook is called {name!r}. There are: {', '.join(starting_points())}."
            return self._render()
        self.name, self.levels, self.message = name, starting_points()[name].clone(), ""
        self._measure()
        self._render()

    def move(self, code: int, level: float) -> None:
        """Move the level of a code. It stops at its neighbours and at -1 and 1, and the message says so."""
        try:
            code, wanted = int(code), float(level)
        except (TypeError, ValueError):
            self.message = f"{code!r} and {level!r}: give a code from 0 to {len(self.levels) - 1} and a number."
            return self._render()
        if not 0 <= code < len(self.levels) or math.isnan(wanted):
            self.message = (f"Level {code} cannot become {wanted:g}: there are the codes 0 to {len(self.levels) - 1}, "
                            "and levels from -1 to 1.")
            return self._render()
        lowest = self.levels[code - 1].item() + GAP if code > 0 else -1.0
        highest = self.levels[code + 1].item() - GAP if code < len(self.levels) - 1 else 1.0
        placed = max(lowest, min(highest, wanted))
        where = "the end" if abs(placed) == 1 else "its neighbour"
        self.message = "" if placed == wanted else f"Level {code} stops at {where}: {placed:.3f}."
        self.levels[code] = placed
        self._measure()
        self._render(code)

    def report(self) -> str:
        """What is shown, as plain text."""
        fullest, emptiest = 100 * self.shares.max().item(), 100 * self.shares.min().item()
        changed = "" if torch.equal(self.levels, starting_points()[self.name]) else ", changed"
        return "\n".join((f"{self.name}{changed}: {len(self.levels)} levels",
                          f"relative squared error  {self.mse:.5f}", f"mean absolute error     {self.mae:.4f} σ",
                          f"bins                    {emptiest:.1f} % to {fullest:.1f} %",
                          f"codes carry             {self.entropy:.2f} of 4 bits"))

    def _measure(self) -> None:
        weights = gaussian_weights()
        quantized = quantize(weights, self.levels, BLOCK_SIZE)
        error = quantized.dequantize() - weights
        self.mse = (error.square().mean() / weights.square().mean()).item()
        self.mae = (error.abs().mean() / weights.std()).item()
        self.shares = torch.bincount(quantized.codes.flatten().int(), minlength=len(self.levels)) / weights.numel()
        used = self.shares[self.shares > 0]
        self.entropy = -(used * used.log2()).sum().item()

    def _chosen(self) -> None:
        self.message = ""
        self._render()

    def _heard(self, act) -> None:
        if self._listening:
            act()

    def _render(self, code: int | None = None) -> None:
        self._listening = False
        try:
            self.start.value = self.name
            self.code.max = len(self.levels) - 1
            self.code.value = self.code.value if code is None else code
            self.level.value = self.levels[self.code.value].item()
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        self.shown.value = (
            f'<div class="levels" aria-live="polite" style="background:rgba(127,127,127,.12);padding:6px 12px;'
            f'border-left:4px solid {plots.BLUE}">{message}{self._bars()}'
            '<small>Height: share of the weights. Dashed: one sixteenth. Orange: the chosen code.</small>'
            f'<pre style="margin:4px 0;line-height:1.4;background:none">{html.escape(self.report())}</pre></div>')

    def _bars(self) -> str:
        """The bins as an SVG: each level a line, as high as the share of the weights that go to it."""
        x = [10 + 680 * (level + 1) / 2 for level in self.levels.tolist()]
        edges = [x[0], *((a + b) / 2 for a, b in zip(x, x[1:], strict=False)), x[-1]]
        parts = [f'<svg viewBox="0 0 700 150" style="width:100%;max-width:700px" role="img" aria-label="'
                 f'{html.escape(self.report())}">']
        for code, share in enumerate(self.shares.tolist()):
            chosen = code == self.code.value
            height, width = min(130.0, 800 * share), max(edges[code + 1] - edges[code] - 1, 0.5)
            parts.append(
                f'<rect x="{edges[code]:.1f}" y="{140 - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
                f'fill="{plots.ORANGE if chosen else plots.SKY}"/>'
                f'<line x1="{x[code]:.1f}" x2="{x[code]:.1f}" y1="132" y2="148" stroke="{plots.VERMILION}" '
                'stroke-width="2"/>')
        even = 140 - 800 / 16
        parts.append(f'<line x1="10" x2="690" y1="{even}" y2="{even}" stroke="{plots.GREY}" '
                     'stroke-dasharray="5 4"/></svg>')
        return "".join(parts)


def drag_levels(start: str = "NF4") -> LevelExplorer:
    """The explorer of lesson 04: drag the levels of a 4-bit codebook, watch its bins and its error.

        explorer = drag_levels()
        explorer                       # shows it
        explorer.move(8, 0.1)          # the level of code 8
        explorer.reset("Lloyd")
        print(explorer.report())
    """
    return LevelExplorer(start)
