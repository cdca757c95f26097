"""The drawing of lesson 09: how a gradient flows through a frozen 4-bit layer, and what is kept for it."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.drawings.canvas import DARK_ORANGE, PALE_BLUE, PALE_GREY, PALE_ORANGE, alt, arrow, box, canvas, say
from helpers.plots import FROZEN, GREY, INK, LINE, ORANGE, PAPER, TRAINED


def chip(ax: Axes, x: float, y: float, text: str, note: str, trained: bool = False, width: float = 150) -> None:
    """A box 46 high, centred on (x, y): blue for what is frozen, orange for what is trained."""
    face, edge = (PALE_ORANGE, TRAINED) if trained else (PALE_BLUE, FROZEN)
    box(ax, x - width / 2, y - 23, width, 46, face, edge, 1.3, rounding=6)
    say(ax, x, y + 9, text, 11.5, weight="bold")
    say(ax, x, y - 10, note, 10, GREY)


def band(ax: Axes, y: float, height: float, name: str, note: str, lower: float = 0) -> None:
    """A band across the drawing with its name on the left, `lower` than its middle."""
    box(ax, 12, y, 876, height, PALE_GREY if name == "Kept" else PAPER, LINE, 1, rounding=8)
    say(ax, 28, y + height / 2 + 9 - lower, name, 12.5, ha="left", weight="bold")
    say(ax, 28, y + height / 2 - 11 - lower, note, 10, GREY, ha="left")


@alt(
    "Gradient flow through a frozen 4-bit layer, in three bands. Forward: x is multiplied by Wᵀ, dequantized "
    "for this product, and by A and B; the sum is y. Kept for later: the 4-bit codes, which the model holds anyway, x "
    "and the r values Ax; the dequantized W is thrown away. Backward: the gradient g of y meets W, dequantized a "
    "second time, and B and A, and both parts add up to the gradient of x; B and A get gradients of their own, "
    "from Ax and from x. W gets none.")
def gradients() -> Figure:
    """Forward, kept, backward: where W is dequantized, what waits in between, which gradients there are."""
    fig, ax = canvas(480)
    band(ax, 324, 144, "Forward", "left to right")
    band(ax, 228, 84, "Kept", "between the two")
    band(ax, 12, 204, "Backward", "right to left", 60)

    say(ax, 172, 396, "x", 15, weight="bold")
    chip(ax, 420, 434, "x · dequant(W)ᵀ", "W made, used, thrown away", width=230)
    chip(ax, 350, 356, "A", "r × k", True, 90)
    chip(ax, 500, 356, "B,  × α / r", "d × r", True, 110)
    for start, end in (((186, 402), (303, 432)), ((186, 390), (303, 358)), ((397, 356), (443, 356))):
        arrow(ax, start, end)
    say(ax, 420, 370, "Ax", 10.5, GREY)
    say(ax, 760, 396, "y", 15, weight="bold")
    arrow(ax, (537, 434), (742, 404))
    arrow(ax, (557, 356), (742, 388))

    chip(ax, 268, 270, "x", "for the gradient of A", True, 170)
    chip(ax, 474, 270, "Ax: r values a token", "for the gradient of B", True, 200)
    chip(ax, 722, 270, "the 4-bit codes", "the model holds them anyway", width=240)

    say(ax, 760, 134, "g", 15, weight="bold")
    say(ax, 760, 112, "gradient of y", 10, GREY)
    chip(ax, 470, 184, "g · dequant(W)", "W made again, thrown away again", width=270)
    arrow(ax, (742, 142), (607, 175), ORANGE, 2)
    chip(ax, 560, 106, "B", "scaled by α / r", True, 124)
    chip(ax, 350, 106, "A", "r × k", True, 90)
    for start, end in (((742, 130), (624, 110)), ((496, 106), (397, 106)), ((303, 108), (208, 132)),
                       ((333, 179), (208, 150))):
        arrow(ax, start, end, ORANGE, 2)
    say(ax, 172, 150, "gradient", 10.5, DARK_ORANGE, weight="bold")
    say(ax, 172, 133, "of x", 10.5, DARK_ORANGE, weight="bold")
    for x, text in ((560, "gradient of B, from Ax"), (350, "gradient of A, from x")):
        arrow(ax, (x, 82), (x, 56), ORANGE, 2)
        say(ax, x, 42, text, 10.5, DARK_ORANGE, weight="bold")
    say(ax, 770, 42, "W: no gradient", 10.5, FROZEN, weight="bold")
    say(ax, 770, 24, "none is computed, none is kept", 10, INK)
    return fig
