"""The canvas of the drawings, 900 units wide, and the shapes and words that are placed on it by hand."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from helpers.plots import INK, LINE, PAPER, STYLE, TRAINED

PALE_BLUE, MID_BLUE, PALE_GREY = "#DCEBF5", "#8CBFE0", "#F2F4F6"
PALE_ORANGE, DARK_ORANGE = "#FCEBC8", "#8A5A00"
DRAWINGS: dict[str, Callable[[], Figure]] = {}  # by the name of the file
ALT: dict[str, str] = {}  # what each shows, in words


def alt(text: str) -> Callable[[Callable[[], Figure]], Callable[[], Figure]]:
    """Mark a function as the drawing `<its name>.svg`, with the text that stands for it where it cannot be seen."""
    def mark(draw: Callable[[], Figure]) -> Callable[[], Figure]:
        DRAWINGS[f"{draw.__name__}.svg"], ALT[f"{draw.__name__}.svg"] = draw, text
        return draw
    return mark


def canvas(height: float) -> tuple[Figure, Axes]:
    """A drawing 900 units wide and `height` high; (0, 0) is the lower left corner. One unit is 0.72 points."""
    with mpl.rc_context({**STYLE, "figure.constrained_layout.use": False}):
        fig = Figure(figsize=(9, height / 100))
        ax = fig.add_axes((0, 0, 1, 1), xlim=(0, 900), ylim=(0, height))
        ax.axis("off")
    return fig, ax


def box(ax: Axes, x: float, y: float, w: float, h: float, face: str = PAPER, edge: str = LINE, line: float = 1.2,
        rounding: float = 0) -> None:
    """A rectangle with its lower left corner at (x, y), its corners rounded on request."""
    style = {"facecolor": face, "edgecolor": edge, "linewidth": line, "clip_on": False}
    if rounding:
        style["boxstyle"] = f"round,pad=0,rounding_size={rounding}"
    ax.add_patch(FancyBboxPatch((x, y), w, h, **style) if rounding else Rectangle((x, y), w, h, **style))


def say(ax: Axes, x: float, y: float, text: str, size: float = 11, color: str = INK, ha: str = "center",
        weight: str = "normal", **more) -> None:
    """Words centred vertically on (x, y)."""
    with mpl.rc_context(STYLE):
        ax.text(x, y, text, fontsize=size, color=color, ha=ha, va="center", weight=weight, **more)


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str = INK, width: float = 1.6,
          dashed: bool = False) -> None:
    """An arrow from `start` to `end`."""
    ax.add_patch(FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=13, color=color, linewidth=width, shrinkA=0, shrinkB=0,
        clip_on=False, linestyle=(0, (4, 3)) if dashed else "-"))


def bits(ax: Axes, x: float, y: float, groups: list[tuple[int, str]], size: float = 7.2, height: float = 17) -> None:
    """A row of bit cells: `groups` of (how many, colour)."""
    for count, color in groups:
        for _ in range(count):
            box(ax, x, y, size, height, color, PAPER, 0.8)
            x += size


def matrix_pair(ax: Axes, x: float, y: float, h: float) -> None:
    """B (d by r, tall) beside A (r by k, wide): the low-rank pair, trained. x is the left edge of B."""
    box(ax, x, y, 15, h, TRAINED, INK, 0.8)
    box(ax, x + 27, y + h - 15, h, 15, TRAINED, INK, 0.8)
    say(ax, x + 7.5, y + h / 2, "B", 12, weight="bold")
    say(ax, x + 27 + h / 2, y + h - 7.5, "A", 12, weight="bold")
