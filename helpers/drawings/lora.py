"""The drawing of lesson 06: a weight matrix and its low-rank pair, to scale."""

from __future__ import annotations

from matplotlib.figure import Figure

from helpers.drawings.canvas import DARK_ORANGE, PALE_BLUE, alt, box, canvas, say
from helpers.plots import FROZEN, GREY, TRAINED

WIDTH, RANK = 4096, 16  # d = k, and r: a square weight of Llama-2-7B


@alt(
    "A layer with LoRA, to scale. W, 4096 by 4096, frozen, is a large square of 16,777,216 numbers. Beside it, "
    "times alpha over r, stand B, 4096 by 16, a vertical hairline that starts at zero, and A, 16 by 4096, a "
    "horizontal hairline that starts random. Together they are 131,072 trained numbers, 0.78 per cent.")
def lora() -> Figure:
    """W, frozen, and beside it B and A, trained, all in the same scale: r = 16 of 4096 is a hair."""
    fig, ax = canvas(432)
    side, frozen, trained = 256, WIDTH * WIDTH, 2 * WIDTH * RANK
    hair = side * RANK / WIDTH  # one unit
    say(ax, 24, 406, "h  =  W x  +  (α / r) · B A x", 14, ha="left", weight="bold")
    say(ax, 876, 406, f"to scale: d = k = {WIDTH}, r = {RANK}", 11, GREY, ha="right")

    bottom, top = 96, 96 + side
    box(ax, 60, bottom, side, side, PALE_BLUE, FROZEN, 1.4)
    say(ax, 60 + side / 2, 246, "W", 26, FROZEN, weight="bold")
    say(ax, 60 + side / 2, 208, "d × k, frozen", 12, FROZEN)
    say(ax, 60 + side / 2, top + 16, f"k = {WIDTH}", 10.5, GREY)
    say(ax, 42, bottom + side / 2, f"d = {WIDTH}", 10.5, GREY, rotation=90)
    say(ax, 60 + side / 2, 70, f"{frozen:,} numbers", 12, weight="bold")

    say(ax, 372, bottom + side / 2, "+", 26, GREY, weight="bold")
    say(ax, 428, bottom + side / 2, "α / r  ×", 13)
    ax.fill_betweenx([bottom, top], 480, 480 + hair, color=TRAINED, linewidth=0)
    say(ax, 498, 190, "B", 20, DARK_ORANGE, ha="left", weight="bold")
    say(ax, 498, 163, "d × r, starts at zero", 11, DARK_ORANGE, ha="left")
    say(ax, 498, 142, f"{WIDTH} × {RANK} = {WIDTH * RANK:,}", 11, ha="left")
    ax.fill_between([560, 560 + side], top - hair, top, color=TRAINED, linewidth=0)
    say(ax, 560 + side / 2, top - 28, "A", 20, DARK_ORANGE, weight="bold")
    say(ax, 560 + side / 2, top - 56, "r × k, starts random", 11, DARK_ORANGE)
    say(ax, 560 + side / 2, top - 77, f"{RANK} × {WIDTH} = {WIDTH * RANK:,}", 11)
    say(ax, 648, 70, f"{trained:,} numbers, trained", 12, DARK_ORANGE, weight="bold")
    say(ax, 450, 26, f"{trained:,} of {frozen:,} = {100 * trained / frozen:.2f} %", 14, weight="bold")
    return fig
