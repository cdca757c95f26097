"""The explorer of lesson 11: how much of an update survives when it is merged into four-bit weights.

All arithmetic is that of `helpers.quantization`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.checks import number, one_of
from helpers.explorers.frame import NARROW, WIDE, Explorer, Row, svg, tag, words
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
    """A weight and an update whose size is set; what is left of it in NF4.

        explorer = watch_the_update()
        explorer                       # shows it
        explorer.set(size=0.1)
        print(explorer.report())

    `size` (‖ΔW‖ / ‖W‖) and `start` are what is set; `got` (out, in), `changed`, `cosine` and `kept` are computed from
    them.
    """

    text = "Move the size of the update here, in JupyterLab or Colab; or from Python as in the next cell."
    css = "survival"
    may_be = {"size": number(SMALLEST, LARGEST), "start": one_of(STARTS)}

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
        self.size, self.start = 0.01, "dequantized"
        self._build({"size": widgets.FloatLogSlider(.01, min=math.log10(SMALLEST), max=math.log10(LARGEST), step=.02,
                                                    description="‖ΔW‖ / ‖W‖", readout_format=".3f", layout=WIDE)},
                    {"start": widgets.ToggleButtons(options=list(STARTS), description="Added to", layout=NARROW)})
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
        super().set(size=size, start=start)

    def _compute(self) -> None:
        self.got, self.changed = requantize(self.weight, self.update, self.start)

    def _rows(self) -> Iterable[Row]:
        return (("size of the update", f"{100 * self.size:.3g} % of the weight"),
                ("added to", f"the {self.start} weight"),
                ("codes that change", f"{100 * self.changed:.1f} %"), ("cosine", f"{self.cosine + 0.0:.2f}"),
                ("of the update, kept", f"{100 * self.kept:.0f} %"))

    def _picture(self) -> str:
        """Asked for (across) and got (up), a dot per weight."""
        every = max(1, self.weight.numel() // POINTS)
        asked, got = self.update.flatten()[::every][:POINTS], self.got.flatten()[::every][:POINTS]
        reach = 3 * self.update.std()
        x = (WIDTH / 2 * (1 + (asked / reach).clamp(-1, 1))).tolist()
        y = (HEIGHT / 2 * (1 - (got / reach).clamp(-1, 1))).tolist()
        dots = [tag("circle", cx=round(a), cy=round(b), r=3, fill=plots.SKY, fill_opacity=".7")
                for a, b in zip(x, y, strict=True)]
        wish = tag("line", x1=0, y1=HEIGHT, x2=WIDTH, y2=0, stroke=plots.ORANGE, stroke_width=2)
        none = tag("line", x1=0, y1=HEIGHT / 2, x2=WIDTH, y2=HEIGHT / 2, stroke="currentColor")
        return svg(f"-8 -4 {WIDTH + 16} {HEIGHT + 26}", f"cosine {self.cosine + 0.0:.2f}", none, wish, *dots,
                   words("nothing changed", 8, HEIGHT / 2 - 6, "start"),
                   words("orange: all that was asked for", WIDTH - 8, HEIGHT - 8, "end"),
                   words("change of a weight asked for", WIDTH / 2, HEIGHT + 16))


watch_the_update = SurvivalExplorer
