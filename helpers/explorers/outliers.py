"""The explorer of lesson 02: one outlier among many weights, and what absmax quantization makes of the others.

All arithmetic is that of `helpers.quantization`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.checks import number, whole
from helpers.explorers.frame import NARROW, WIDE, Explorer, Row, svg, tag, words
from helpers.quantization import absmax_quantize

SMALLEST, LARGEST = 1.0, 1000.0  # the outlier, in standard deviations of the other weights
BITS = tuple(range(2, 9))
WIDTH, HEIGHT = 640, 120


class OutlierExplorer(Explorer):
    """Gaussian weights of standard deviation 1, the first of them an outlier.

        explorer = meet_the_outlier()
        explorer                       # shows it
        explorer.set(outlier=60, bits=8)
        print(explorer.report())

    `outlier` and `bits` are what is set; `codes` int8 (count,) and `scale` come from `absmax_quantize`; `used`,
    `levels`, `zeros` and `error` are computed from them.
    """

    text = "Move the outlier and the bits here, in JupyterLab or Colab; or from Python as in the next cell."
    css = "outliers"
    may_be = {"outlier": number(SMALLEST, LARGEST), "bits": whole(BITS[0], BITS[-1])}

    def __init__(self, outlier: float = 4.0, bits: int = 8, count: int = 4096) -> None:
        if count < 2:
            raise ValueError(f"count={count}: take 2 or more, one of them is the outlier")
        self.weights = torch.randn(count, generator=torch.Generator().manual_seed(0))
        self.outlier, self.bits = 4.0, 8
        self._build({"outlier": widgets.FloatLogSlider(4.0, min=math.log10(SMALLEST), max=math.log10(LARGEST), step=.01,
                                                       description="Outlier, σ", readout_format=".1f", layout=WIDE)},
                    {"bits": widgets.ToggleButtons(options=[(str(b), b) for b in BITS], value=8, description="Bits",
                                                   style={"button_width": "3em"}, layout=NARROW)})
        self.set(outlier, bits)

    @property
    def levels(self) -> int:
        """How many codes there are: 2**bits - 1, from -largest to largest."""
        return 2**self.bits - 1

    @property
    def used(self) -> int:
        """How many codes at least one weight has."""
        return len(self.codes.unique())

    @property
    def zeros(self) -> float:
        """The share of the other weights that became 0."""
        return (self.codes[1:] == 0).float().mean().item()

    @property
    def error(self) -> float:
        """The relative error of the other weights: the norm of their change over their norm."""
        rest = self.weights[1:]
        return ((self.codes[1:] * self.scale - rest).norm() / rest.norm()).item()

    def set(self, outlier: float | None = None, bits: int | None = None) -> None:
        """Move the outlier (1 to 1000 standard deviations) and the bits (2 to 8); None keeps what is set."""
        super().set(outlier=outlier, bits=bits)

    def _compute(self) -> None:
        x = self.weights.clone()
        x[0] = self.outlier
        self.codes, self.scale = absmax_quantize(x, self.bits)

    def _rows(self) -> Iterable[Row]:
        return (("outlier", f"{self.outlier:.3g} σ, one of {len(self.weights):,} weights"),
                ("step", f"{self.scale.item():.3g} σ"), ("codes in use", f"{self.used} of {self.levels}"),
                ("others that became 0", f"{100 * self.zeros:.0f} %"),
                ("error of the others", f"{100 * self.error:.1f} %"))

    def _picture(self) -> str:
        """The codes and how often each is taken, with a mark at the outlier's."""
        largest, step = self.levels // 2, WIDTH / self.levels
        counts = torch.bincount(self.codes.int() + largest, minlength=self.levels)
        heights = (HEIGHT * counts / counts.max()).clamp(min=3).tolist()
        bars = [tag("rect", x=n * step, y=HEIGHT - heights[n], width=0.85 * step, height=heights[n], fill=plots.SKY)
                for n in counts.nonzero().flatten().tolist()]
        axis = tag("line", x1=0, x2=WIDTH, y1=HEIGHT, y2=HEIGHT, stroke="currentColor")
        place = (int(self.codes[0]) + largest + 0.5) * step
        mark = tag("path", d=f"M{place:.1f} {HEIGHT - 8} l-5 -12 h10 z", fill=plots.VERMILION)
        labels = [words(text, x, HEIGHT + 18) for text, x in (
            (f"−{largest}", step / 2), ("0", WIDTH / 2), (str(largest), WIDTH - step / 2))]
        return svg(f"-16 0 {WIDTH + 32} {HEIGHT + 24}", f"{self.used} of {self.levels} codes in use",
                   *bars, axis, mark, *labels)


meet_the_outlier = OutlierExplorer
