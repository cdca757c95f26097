"""The explorer of lesson 11: how much of an update survives when it is merged into four-bit weights.

All arithmetic is that of `helpers.quantization`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import html
import math

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.quantization import quantize

SMALLEST, LARGEST = 0.001, 1.0  # ‖ΔW‖ / ‖W‖
STARTS = ("dequantized", "original")
WIDTH, HEIGHT, POINTS = 640, 240, 300


def requantize(weight: torch.Tensor, update: torch.Tensor, start: str = "dequantized") -> tuple[torch.Tensor, float]:
    """Merge `update` into NF4: what the dequantized weight then changed by, and the share of codes that are new.

    weight, update: float (out, in). start: "dequantized" adds the update to the weight as four bits hold it, as PEFT
    does; "original" adds it to `weight` itself.
    """
    before = quantize(weight)
    base = before.dequantize() if start == "dequantized" else weight
    after = quantize(base + update)
    return after.dequantize() - before.dequantize(), (after.codes != before.codes).float().mean().item()


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """1 where both point in one direction, 0 where they have nothing in common; 0 too where one is zero."""
    return ((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-30)).item()


class SurvivalExplorer(Explorer):
    """A weight and an update whose size is set; what is left of it in NF4. Made by `watch_the_update`.

    `size` (‖ΔW‖ / ‖W‖) and `start` are what is set; `got` (out, in), `changed`, `cosine` and `kept` are computed from
    them; `message` is what was wrong, or "".
    """

    def __init__(self, weight: torch.Tensor | None = None, update: torch.Tensor | None = None, size: float = 0.01,
                 start: str = "dequantized") -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = 0.05 * torch.randn(256, 256, generator=generator) if weight is None else weight.detach().float()
        if self.weight.ndim != 2 or not self.weight.norm() > 0:
            raise ValueError(f"weight has shape {tuple(self.weight.shape)}: give a matrix that is not all zero")
        if update is None:
            rows, columns = self.weight.shape
            update = (torch.randn(rows, 8, generator=generator) @ torch.randn(8, columns, generator=generator))
        if update.shape != self.weight.shape or not update.norm() > 0:
            raise ValueError(f"update has shape {tuple(update.shape)}: give one of the weight's shape, "
                             f"{tuple(self.weight.shape)}, not zero")
        self.direction = update.detach().float() * (self.weight.norm() / update.norm().float())  # as large as W
        self.size, self.start, self.message = 0.01, "dequantized", ""
        style = {"description_width": "8em"}
        self.slider = widgets.FloatLogSlider(
            value=0.01, base=10, min=math.log10(SMALLEST), max=math.log10(LARGEST), step=0.02,
            description="‖ΔW‖ / ‖W‖", readout_format=".3f", style=style, layout={"width": "95%"})
        self.choice = widgets.ToggleButtons(options=list(STARTS), value=STARTS[0], description="Added to", style=style)
        self.shown = widgets.HTML()
        self.ui = widgets.VBox([self.slider, self.choice, self.shown])
        self.text = "Move the size of the update here, in JupyterLab or Colab; or from Python as in the next cell."
        self._listening = True
        self.slider.observe(lambda change: self._heard(size=change["new"]), "value")
        self.choice.observe(lambda change: self._heard(start=change["new"]), "value")
        self.set(size, start)

    @property
    def update(self) -> torch.Tensor:
        """The update at the size that is set: (out, in)."""
        return self.size * self.direction

    @property
    def cosine(self) -> float:
        """Of the update asked for and the change that came of it."""
        return cosine(self.got, self.update)

    @property
    def kept(self) -> float:
        """How much of the update is in the change: 1 all of it, 0 nothing (the change's length along the update)."""
        return ((self.got * self.update).sum() / self.update.square().sum()).item()

    def set(self, size: float | None = None, start: str | None = None) -> None:
        """Set the update's size (0.001 to 1 times the weight's) and what it is added to; None keeps what is set."""
        size = self.size if size is None else size
        start = self.start if start is None else start
        number = isinstance(size, int | float) and not isinstance(size, bool)
        if not number or not SMALLEST <= size <= LARGEST * 1.000001:  # NaN is refused too
            self.message = f"A size of {size!r}: take a number from {SMALLEST:g} to {LARGEST:g}."
        elif start not in STARTS:
            self.message = f"Added to {start!r}: take {' or '.join(STARTS)}."
        else:
            self.size, self.start, self.message = float(size), start, ""
        self.got, self.changed = requantize(self.weight, self.update, self.start)
        self._render()

    def report(self) -> str:
        """What is shown, as plain text."""
        return "\n".join(f"{name:<22}{text}" for name, text in self._rows())

    def _rows(self) -> tuple[tuple[str, str], ...]:
        return (("size of the update", f"{100 * self.size:.3g} % of the weight"),
                ("added to", f"the {self.start} weight"),
                ("codes that change", f"{100 * self.changed:.1f} %"), ("cosine", f"{self.cosine + 0.0:.2f}"),
                ("of the update, kept", f"{100 * self.kept:.0f} %"))

    def _heard(self, **change) -> None:
        if self._listening:
            self.set(**change)

    def _cloud(self) -> str:
        """Asked for (across) and got (up), a dot per weight, as SVG: colours that read on light and dark pages."""
        every = max(1, self.weight.numel() // POINTS)
        asked, got = self.update.flatten()[::every][:POINTS], self.got.flatten()[::every][:POINTS]
        reach = 3 * self.update.std()
        x = (WIDTH / 2 * (1 + (asked / reach).clamp(-1, 1))).tolist()
        y = (HEIGHT / 2 * (1 - (got / reach).clamp(-1, 1))).tolist()
        dots = "".join(f'<circle cx="{a:.0f}" cy="{b:.0f}" r="3" fill="{plots.SKY}" fill-opacity=".7"/>'
                       for a, b in zip(x, y, strict=True))
        wish = f'<line x1="0" y1="{HEIGHT}" x2="{WIDTH}" y2="0" stroke="{plots.ORANGE}" stroke-width="2"/>'
        none = f'<line x1="0" y1="{HEIGHT / 2}" x2="{WIDTH}" y2="{HEIGHT / 2}" stroke="currentColor"/>'
        words = "".join(f'<text x="{a}" y="{b}" text-anchor="{side}" font-size="12" fill="currentColor">{text}</text>'
                        for a, b, side, text in ((8, HEIGHT / 2 - 6, "start", "nothing changed"),
                                                 (WIDTH - 8, HEIGHT - 8, "end", "orange: all that was asked for"),
                                                 (WIDTH / 2, HEIGHT + 16, "middle", "change of a weight asked for")))
        return (f'<svg role="img" aria-label="cosine {self.cosine + 0.0:.2f}" '
                f'viewBox="-8 -4 {WIDTH + 16} {HEIGHT + 26}" '
                f'style="width:100%;max-width:{WIDTH}px">{none}{wish}{dots}{words}</svg>')

    def _render(self) -> None:
        self._listening = False
        try:
            self.slider.value, self.choice.value = self.size, self.start
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        rows = "".join(f"<tr><td style='text-align:left;padding-right:1em'>{name}</td>"
                       f"<td style='text-align:left'>{text}</td></tr>" for name, text in self._rows())
        self.shown.value = (f'<div class="survival" aria-live="polite" style="background:rgba(127,127,127,.12);padding:'
                            f'6px 12px;border-left:4px solid {plots.BLUE}">{message}{self._cloud()}'
                            f"<table>{rows}</table></div>")


def watch_the_update(weight: torch.Tensor | None = None, update: torch.Tensor | None = None, size: float = 0.01,
                     start: str = "dequantized") -> SurvivalExplorer:
    """The explorer of lesson 11: an update merged into NF4. Without arguments a random matrix and one of rank 8.

        explorer = watch_the_update()
        explorer                       # shows it
        explorer.set(size=0.1)
        print(explorer.report())
    """
    return SurvivalExplorer(weight, update, size, start)
