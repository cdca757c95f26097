"""The explorer of lesson 03: block size against outliers, and where four bits in blocks overtake eight without.

All arithmetic is that of `helpers.quantization`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import ipywidgets as widgets
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from helpers import plots
from helpers.codebooks import NF4, integer
from helpers.explorers.checks import one_of
from helpers.explorers.frame import WIDE, Explorer, Row, image, table
from helpers.quantization import absmax_quantize, quantize

SIDE = 256  # a matrix of 256 × 256 standard normal weights
SIZES = tuple(2**k for k in range(3, 17))  # the last is the whole tensor
MAGNITUDES = (1, 2, 3, 6, 12, 24, 48, 96, 192, 384, 768)  # in standard deviations
COUNTS = (0, 1, 16, 64, 256)
CODEBOOKS = {"NF4": NF4, "int4": integer(4)}


def with_outliers(magnitude: float, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard normal weights float32 (256, 256), `count` of them set to ±magnitude, and the mask of the others.

    The places and signs depend on the seed alone, so that only the size of the outliers changes with `magnitude`.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(SIDE * SIDE, generator=generator)
    where = torch.randperm(SIDE * SIDE, generator=generator)[:count]
    weights[where] = magnitude * weights[where].sign()
    rest = torch.ones(SIDE * SIDE, dtype=torch.bool)
    rest[where] = False
    return weights.view(SIDE, SIDE), rest.view(SIDE, SIDE)


def relative_error(weights: torch.Tensor, restored: torch.Tensor, rest: torch.Tensor) -> float:
    """Root mean square error over root mean square weight, both over the weights in the mask `rest` only."""
    return ((weights - restored)[rest].norm() / weights[rest].norm()).item()


class BlockExplorer(Explorer):
    """Outliers against walls: the error of all *other* weights.

        explorer = wall_in()
        explorer                              # shows it
        explorer.set(magnitude=192)           # outliers of 192 standard deviations
        explorer.set(block_size=4096, code="int4")
        print(explorer.report())

    `magnitude` (standard deviations), `outliers`, `block_size` and `code` hold what is shown; `eight`, `four`, `bits`,
    `hit` and `crossover` are computed from them.
    """

    text = "Move block size and outliers here, in JupyterLab or Colab; or from Python as in the next cell."
    css, label_width, column = "blocks", "9em", 31
    may_be = {"magnitude": one_of(MAGNITUDES), "block_size": one_of(SIZES), "outliers": one_of(COUNTS),
              "code": one_of(CODEBOOKS)}

    def __init__(self, magnitude: float = 48, block_size: int = 64, outliers: int = 64, code: str = "NF4") -> None:
        self.magnitude, self.block_size, self.outliers, self.code = 48, 64, 64, "NF4"
        self._curves: dict[tuple, tuple[float, ...]] = {}
        sizes = [(f"{size}" if size < SIDE**2 else "whole tensor", size) for size in SIZES]
        self._build({"block_size": widgets.SelectionSlider(options=sizes, value=64, description="Block size",
                                                           layout=WIDE)},
                    {"magnitude": widgets.SelectionSlider(options=[(f"{m} σ", m) for m in MAGNITUDES], value=48,
                                                          description="Outliers of size", layout=WIDE)},
                    {"outliers": widgets.Dropdown(options=COUNTS, value=64, description="How many"),
                     "code": widgets.Dropdown(options=list(CODEBOOKS), description="Code in blocks")})
        self.set(magnitude, block_size, outliers, code)

    def set(self, magnitude: float | None = None, block_size: int | None = None, outliers: int | None = None,
            code: str | None = None) -> None:
        """Show other outliers, blocks or another code, of those that the controls offer; None keeps what is shown."""
        super().set(magnitude=magnitude, block_size=block_size, outliers=outliers, code=code)

    def figure(self) -> Figure:
        """Both errors over the size of the outliers, and where they cross."""
        with rc_context(plots.STYLE):
            fig = Figure(figsize=(7.2, 3.0))
            ax = fig.add_subplot(xscale="log", yscale="log", xlabel="size of the outliers (σ of the other weights)",
                                 ylabel="error of the rest", ylim=(5e-3, 1.6))
            ax.plot(MAGNITUDES, self._curve("int8"), color=plots.ORANGE, label="int8, one scale: 8 bits")
            ax.plot(MAGNITUDES, self._curve(self.code), color=plots.BLUE,
                    label=f"{self.code}, {self._walls()}: {self.bits:.2f} bits")
            ax.axvline(self.magnitude, color=plots.GREY, linewidth=1, linestyle="--")
            if self.crossover:
                ax.axvline(self.crossover, color=plots.VERMILION, linewidth=1)
                ax.text(self.crossover * 1.06, 7e-3, f"{self.crossover:.0f} σ", color=plots.VERMILION)
            ticks = [m for m in MAGNITUDES if m not in (2, 768)]
            ax.set_xticks(ticks, [str(m) for m in ticks])
            ax.set_xticks([], minor=True)
            ax.set_yticks([.01, .1, 1], ["0.01", "0.1", "1"])
            ax.legend(loc="upper left")
        return fig

    def _compute(self) -> None:
        """Both errors at this magnitude, the bits stored, the blocks hit, and where the two errors meet."""
        here = MAGNITUDES.index(self.magnitude)
        eight, four = self._curve("int8"), self._curve(self.code)
        self.eight, self.four = eight[here], four[here]
        weights, rest = with_outliers(self.magnitude, self.outliers)
        self.bits = quantize(weights, CODEBOOKS[self.code], self.block_size).bits_per_weight
        whole = rest.view(-1, self.block_size).all(dim=1)  # (blocks,): no outlier in it
        self.blocks, self.hit = len(whole), (~whole).sum().item()
        self.crossover = None
        for n in range(len(MAGNITUDES) - 1):
            before, after = (math.log(eight[k] / four[k]) for k in (n, n + 1))
            if before < 0 <= after:  # straight lines between two points, on logarithmic axes
                step = math.log(MAGNITUDES[n + 1] / MAGNITUDES[n])
                self.crossover = MAGNITUDES[n] * math.exp(step * before / (before - after))

    def _curve(self, code: str) -> tuple[float, ...]:
        """The error of the rest at every magnitude, computed once: `code` in blocks, or "int8" with one scale."""
        key = (code, self.outliers, self.block_size if code in CODEBOOKS else None)
        if key not in self._curves:
            errors = []
            for magnitude in MAGNITUDES:
                weights, rest = with_outliers(magnitude, self.outliers)
                if code in CODEBOOKS:
                    restored = quantize(weights, CODEBOOKS[code], self.block_size).dequantize()
                else:
                    codes, scale = absmax_quantize(weights)
                    restored = codes * scale
                errors.append(relative_error(weights, restored, rest))
            self._curves[key] = tuple(errors)
        return self._curves[key]

    def _walls(self) -> str:
        return "one scale" if self.block_size == SIDE**2 else f"blocks of {self.block_size}"

    def _rows(self) -> Iterable[Row]:
        better = f"{self.code} in blocks" if self.four < self.eight else "int8 per tensor"
        meet = f"at {self.crossover:.0f} σ" if self.crossover else f"nowhere up to {MAGNITUDES[-1]} σ"
        return (("int8 per tensor", f"error of the rest {self.eight:.3f} with 8.00 bits"),
                (f"{self.code}, {self._walls()}", f"error of the rest {self.four:.3f} with {self.bits:.2f} bits"),
                ("blocks with an outlier", f"{self.hit} of {self.blocks} ({self.hit / self.blocks:.1%})"),
                ("smaller error", better), ("the two cross", meet))

    def _body(self) -> str:
        rows = self._rows()
        alt = "The error of the rest grows with the outliers. " + "; ".join(map(": ".join, rows))
        return table(rows) + image(self.figure(), alt)


wall_in = BlockExplorer
