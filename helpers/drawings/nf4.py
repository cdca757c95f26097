"""The drawing of lesson 04: the levels of NF4 and their bins under the bell curve they come from."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from helpers.codebooks import NF4
from helpers.drawings.canvas import PALE_BLUE, alt, arrow, canvas, say
from helpers.plots import BLUE, GREY, INK, ORANGE, SKY

OFFSET = 1 - (1 / 32 + 1 / 30) / 2  # the probability below the largest level


@alt(
    "The sixteen levels of NF4 on an axis from -1 to 1 under a bell curve: seven below zero, zero itself, eight "
    "above. They lie close together in the middle (0.080 is the first above zero, -0.091 the first below) and far "
    "apart at the ends (0.723, then 1). The bin of each level reaches to the midpoints between it and its "
    "neighbours.")
def nf4_bins() -> Figure:
    """NF4's sixteen levels on an axis from -1 to 1, the midpoints between them as edges of bins under a bell curve."""
    fig, ax = canvas(330)
    left, right, floor, height = 40, 860, 106, 168

    def across(level: float) -> float:
        return left + (right - left) * (level + 1) / 2

    sigmas = torch.special.ndtri(torch.tensor(OFFSET, dtype=torch.float64)).item()  # where the level 1 lies
    edges = [-1.0, *((NF4[1:] + NF4[:-1]) / 2).tolist(), 1.0]
    for code, (low, high) in enumerate(zip(edges, edges[1:], strict=False)):
        xs = torch.linspace(low, high, 24, dtype=torch.float64)
        ys = floor + height * torch.exp(-(sigmas * xs) ** 2 / 2)
        ax.fill_between(left + (right - left) * (xs + 1) / 2, floor, ys, color=SKY if code % 2 else PALE_BLUE,
                        linewidth=0)
    xs = torch.linspace(-1, 1, 300, dtype=torch.float64)
    ax.plot(across(xs), floor + height * torch.exp(-(sigmas * xs) ** 2 / 2), color=BLUE, linewidth=1.8)
    for code, level in enumerate(NF4.tolist()):
        x, row = across(level), code % 2
        ax.plot([x, x], [floor - 12 - 26 * row, floor + 12], color=ORANGE, linewidth=2.4)
        say(ax, x, floor - 22 - 26 * row, (f"{level:.3f}" if level % 1 else f"{level:.0f}").replace("-", "−"), 10)
    ax.plot([left, right], [floor, floor], color=INK, linewidth=1.2)
    say(ax, left, 312, "NF4: sixteen levels and their bins", 13, ha="left", weight="bold")
    say(ax, left, 24, "seven levels below zero", 11, GREY, ha="left")
    say(ax, across(0), 24, "zero, exactly", 11, GREY)
    say(ax, right, 24, "eight levels above zero", 11, GREY, ha="right")
    boundary = across(edges[14])
    arrow(ax, (boundary, 240), (boundary, floor + height * 0.3), INK)
    say(ax, boundary, 268, "an edge: the midpoint", 10.5)
    say(ax, boundary, 252, "of two levels", 10.5)
    return fig
