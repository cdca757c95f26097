"""The explorer of lesson 02: one outlier among many weights, and what absmax quantization makes of the others.

All arithmetic is that of `helpers.quantization`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import html
import math

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.quantization import absmax_quantize

SMALLEST, LARGEST = 1.0, 1000.0  # the outlier, in standard deviations of the other weights
BITS = tuple(range(2, 9))
WIDTH, HEIGHT = 640, 120


class OutlierExplorer(Explorer):
    """Gaussian weights of standard deviation 1, the first of them an outlier. Made by `meet_the_outlier`.

    `outlier` and `bits` are what is set; `codes` int8 (count,) and `scale` come from `absmax_quantize`; `used`,
    `levels`, `zeros` and `error` are computed from them; `message` is what was wrong, or "".
    """

    def __init__(self, outlier: float = 4.0, bits: int = 8, count: int = 4096) -> None:
        if count < 2:
            raise ValueError(f"count={count}: take 2 or more, one of them is the outlier")
        self.weights = torch.randn(count, generator=torch.Generator().manual_seed(0))
        self.outlier, self.bits, self.message = 4.0, 8, ""
        style = {"description_width": "6em"}
        self.slider = widgets.FloatLogSlider(
            value=4.0, base=10, min=math.log10(SMALLEST), max=math.log10(LARGEST), step=0.01, description="Outlier, σ",
            readout_format=".1f", style=style, layout={"width": "95%"})
        self.choice = widgets.ToggleButtons(options=[str(b) for b in BITS], value="8", description="Bits", style=style)
        self.choice.style.button_width = "3em"
        self.shown = widgets.HTML()
        self.ui = widgets.VBox([self.slider, self.choice, self.shown])
        self.text = "Move the outlier and the bits here, in JupyterLab or Colab; or from Python as in the next cell."
        self._listening = True
        self.slider.observe(lambda change: self._heard(outlier=change["new"]), "value")
        self.choice.observe(lambda change: self._heard(bits=int(change["new"])), "value")
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
        outlier = self.outlier if outlier is None else outlier
        bits = self.bits if bits is None else bits
        number = isinstance(outlier, int | float) and not isinstance(outlier, bool)
        if not number or not SMALLEST <= outlier <= LARGEST:  # NaN is refused too
            self.message = f"An outlier of {outlier!r}: take a number from {SMALLEST:g} to {LARGEST:g}."
        elif bits not in BITS or isinstance(bits, bool | float):
            self.message = f"{bits!r} bits: take 2 to 8."
        else:
            self.outlier, self.bits, self.message = float(outlier), bits, ""
        self._quantize()
        self._render()

    def report(self) -> str:
        """What is shown, as plain text."""
        return "\n".join(f"{name:<22}{text}" for name, text in self._rows())

    def _quantize(self) -> None:
        x = self.weights.clone()
        x[0] = self.outlier
        self.codes, self.scale = absmax_quantize(x, self.bits)

    def _rows(self) -> tuple[tuple[str, str], ...]:
        return (("outlier", f"{self.outlier:.3g} σ, one of {len(self.weights):,} weights"),
                ("step", f"{self.scale.item():.3g} σ"), ("codes in use", f"{self.used} of {self.levels}"),
                ("others that became 0", f"{100 * self.zeros:.0f} %"),
                ("error of the others", f"{100 * self.error:.1f} %"))

    def _heard(self, **change) -> None:
        if self._listening:
            self.set(**change)

    def _histogram(self) -> str:
        """The codes and how often each is taken, as SVG: colours that read on light and dark pages."""
        largest = self.levels // 2
        counts = torch.bincount(self.codes.int() + largest, minlength=self.levels).tolist()
        step = WIDTH / self.levels
        bars = "".join(
            f'<rect x="{n * step:.2f}" y="{HEIGHT - max(3, HEIGHT * c / max(counts)):.1f}" width="{0.85 * step:.2f}" '
            f'height="{max(3, HEIGHT * c / max(counts)):.1f}" fill="{plots.SKY}"/>'
            for n, c in enumerate(counts) if c)
        place = (int(self.codes[0]) + largest + 0.5) * step
        mark = f'<path d="M{place:.1f} {HEIGHT - 8} l-5 -12 h10 z" fill="{plots.VERMILION}"/>'
        labels = "".join(f'<text x="{x:.1f}" y="{HEIGHT + 18}" text-anchor="middle" font-size="12" fill="currentColor">'
                         f"{text}</text>" for x, text in (
                             (step / 2, f"−{largest}"), (WIDTH / 2, "0"), (WIDTH - step / 2, largest)))
        return (f'<svg role="img" aria-label="{self.used} of {self.levels} codes in use" '
                f'viewBox="-16 0 {WIDTH + 32} {HEIGHT + 24}" style="width:100%;max-width:{WIDTH}px">{bars}'
                f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}" stroke="currentColor"/>{mark}{labels}</svg>')

    def _render(self) -> None:
        self._listening = False
        try:
            self.slider.value, self.choice.value = self.outlier, str(self.bits)
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        rows = "".join(f"<tr><td style='text-align:left;padding-right:1em'>{name}</td>"
                       f"<td style='text-align:left'>{text}</td></tr>" for name, text in self._rows())
        self.shown.value = (f'<div class="outliers" aria-live="polite" style="background:rgba(127,127,127,.12);padding:'
                            f'6px 12px;border-left:4px solid {plots.BLUE}">{message}{self._histogram()}'
                            f"<table>{rows}</table></div>")


def meet_the_outlier(outlier: float = 4.0, bits: int = 8, count: int = 4096) -> OutlierExplorer:
    """The explorer of lesson 02: `count` weights share one scale, and one of them grows.

        explorer = meet_the_outlier()
        explorer                       # shows it
        explorer.set(outlier=60, bits=8)
        print(explorer.report())
    """
    return OutlierExplorer(outlier, bits, count)
