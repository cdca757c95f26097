"""The drawings of lesson 02: absmax on the worked vector, and what one outlier does to the codes."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.drawings.canvas import DARK_ORANGE, MID_BLUE, PALE_BLUE, PALE_GREY, alt, arrow, box, canvas, say
from helpers.plots import BLUE, GREY, INK, LINE, PAPER, VERMILION
from helpers.quantization import absmax_quantize

WORKED = (1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4)


@alt(
    "The worked vector on a line from -5.4 to 5.4, arrows down to its codes on the int8 line from -127 to 127: 5.4 "
    "to 127, 2.4 to 56, both 1.2 to 28, 0.8 to 19, -0.5 to -12, -3.1 to -73, -4.3 to -101. All are divided by the "
    "scale, 0.04252. Below, a close-up of the codes 26 to 30: 1.2 / scale is 28.22, in the stretch of 28, 0.22 of "
    "a step from its middle; no value is ever more than half a step away.")
def absmax() -> Figure:
    """The worked vector on the real line, its codes on the line of int8, and a close-up of one rounding."""
    fig, ax = canvas(420)
    codes, scale = absmax_quantize(torch.tensor(WORKED))
    half, middle = 380, 450

    def place(code: float) -> float:
        return middle + half * code / 127

    say(ax, 24, 396, "x", 13, ha="left", weight="bold")
    say(ax, 24, 254, "codes", 13, ha="left", weight="bold")
    ax.plot([place(-127), place(127)], [340, 340], color=INK, linewidth=1.6)
    ax.plot([place(-128), place(127)], [220, 220], color=INK, linewidth=1.6)
    _ticks(ax, [place(code) for code in range(-128, 128)], 220, 225, INK, 0.5)
    _ticks(ax, [place(code) for code in (-127, 0, 127)], 220, 230, INK, 1.2)
    for code in (-127, 0):
        say(ax, place(code), 202, str(code).replace("-", "−"), 10.5, GREY)
    say(ax, place(-127), 362, "−5.4", 10.5, GREY)
    say(ax, middle, 362, "0", 10.5, GREY)
    ax.plot([middle, middle], [336, 344], color=INK, linewidth=1.2)
    lift = {0.8: -11, 1.2: 11}  # neighbours whose labels would touch
    for x, code in sorted(set(zip(WORKED, codes.tolist(), strict=True))):
        at, aside = place(code), lift.get(x, 0)
        arrow(ax, (at, 330), (at, 236), BLUE, 1.3)
        ax.plot([at], [340], "o", color=BLUE, markersize=7)
        name = f"{x}".replace("-", "−") + (" ×2" if x == 1.2 else "")
        say(ax, at + aside, 388 if x == 1.2 else 362, name, 11, weight="bold")
        if x == 1.2:
            ax.plot([at, at + aside], [346, 378], color=LINE, linewidth=1)
        say(ax, at + (14 if x == 1.2 else -14 if x == 0.8 else 0), 184, str(code).replace("-", "−"), 11, BLUE,
            weight="bold")
    say(ax, 816, 292, f"÷ scale = ÷ {scale.item():.5f}", 10.5, GREY, ha="right")
    say(ax, 816, 272, f"= × {1 / scale.item():.2f}", 10.5, GREY, ha="right")
    _close_up(ax, 1.2 / scale.item())
    return fig


def _ticks(ax: Axes, places: list[float], low: float, high: float, color: str, width: float) -> None:
    """Short upright lines, drawn as one."""
    ax.plot([at for place in places for at in (place, place, None)], [low, high, None] * len(places), color=color,
            linewidth=width)


def _close_up(ax: Axes, exact: float) -> None:
    """The codes around `exact` with the stretch of values that each of them takes in."""
    box(ax, 20, 14, 860, 142, PALE_GREY, PALE_GREY, rounding=8)
    say(ax, 36, 136, "Close up: each code takes in what lies within half a step of it", 11, ha="left", weight="bold")
    first, width, left = round(exact) - 2, 158, 58
    for n in range(5):
        near = first + n == round(exact)
        box(ax, left + n * width, 64, width, 22, PALE_BLUE if near else PAPER, LINE, 1.2)
        middle = left + (n + 0.5) * width
        ax.plot([middle] * 2, [60, 90], color=BLUE if near else GREY, linewidth=2 if near else 1.2)
        say(ax, middle, 46, str(first + n), 11, BLUE if near else GREY, weight="bold" if near else "normal")
    at, nearest = left + (exact - first + 0.5) * width, left + 2.5 * width
    ax.plot([at], [75], "o", color=VERMILION, markersize=7)
    say(ax, at + 8, 104, f"1.2 / scale = {exact:.2f}", 10.5, VERMILION, ha="left")
    ax.plot([nearest, at], [75, 75], color=VERMILION, linewidth=2)
    moved = abs(exact - round(exact))
    say(ax, nearest, 27, f"rounding moves it by {moved:.2f} of a step; never by more than 0.5", 10.5, VERMILION)


@alt(
    "Two histograms over the codes -127 to 127. Above, 4,096 Gaussian weights: a broad bell, 187 of 255 codes in "
    "use, step 0.032 standard deviations. Below, the same with one outlier of 60 standard deviations: a narrow "
    "spike around 0 and the outlier alone at 127, 19 of 255 codes in use, step 0.472; all between are empty.")
def outliers() -> Figure:
    """4,096 Gaussian weights in int8, alone and with one outlier of 60 standard deviations among them."""
    fig, ax = canvas(392)
    weights = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    for row, outlier in enumerate((None, 60.0)):
        x = weights.clone()
        if outlier:
            x[0] = outlier
        codes, scale = absmax_quantize(x)
        used, base = len(codes.unique()), 228 - 196 * row
        counts = torch.bincount(codes.int() + 127, minlength=255)
        title = "With one outlier of 60 σ" if outlier else "4,096 Gaussian weights"
        say(ax, 24, base + 142, title, 12.5, ha="left", weight="bold")
        say(ax, 24, base + 121, f"{used} of 255 codes in use", 11.5, DARK_ORANGE if outlier else BLUE, ha="left")
        say(ax, 24, base + 101, f"step {scale.item():.3f} σ", 11.5, GREY, ha="left")
        places = {450 + 3.32 * code: count for code, count in zip(range(-127, 128), counts.tolist(), strict=True)}
        for at, count in places.items():
            if count:
                box(ax, at - 1.66, base, 3.32, max(3, 110 * count / max(places.values())), MID_BLUE, BLUE, 0.4)
        _ticks(ax, [at for at, count in places.items() if not count], base, base + 4, LINE, 1.4)
        ax.plot([24, 876], [base, base], color=INK, linewidth=1.2)
        for code in (-127, 0, 127):
            say(ax, 450 + 3.32 * code, base - 14, str(code).replace("-", "−"), 10.5, GREY)
        if outlier:
            arrow(ax, (450 + 3.32 * 127, base + 40), (450 + 3.32 * 127, base + 8), VERMILION)
            say(ax, 876, base + 54, "the outlier, alone", 10.5, VERMILION, ha="right")
            say(ax, 660, base + 18, "empty: no weight gets these codes", 10.5, GREY)
    return fig
