"""The drawing of lesson 03: one outlier, and who is hurt by it under one scale, one per row, one per block."""

from __future__ import annotations

from matplotlib.figure import Figure

from helpers.drawings.canvas import PALE_BLUE, alt, box, canvas, say
from helpers.plots import BLUE, GREY, INK, PAPER, VERMILION, YELLOW

ROWS, COLUMNS, BLOCK = 8, 16, 4
OUTLIER = (3, 9)  # row from the top, column


def walls() -> dict[str, int]:
    """How many consecutive weights share a scale under each kind of wall."""
    return {"per tensor": ROWS * COLUMNS, "per channel (row)": COLUMNS, f"per block of {BLOCK}": BLOCK}


@alt(
    "Three copies of a matrix of 8 by 16 weights with one outlier. With one scale for the tensor the other 127 "
    "weights are hurt; with one scale per row, 8 in all, the 15 others in its row; with one scale per block of 4, "
    "32 in all, only its 3 neighbours.")
def blocks() -> Figure:
    """Three copies of a small matrix with one outlier; the weights under its scale are coloured."""
    fig, ax = canvas(268)
    size, outlier = 16, OUTLIER[0] * COLUMNS + OUTLIER[1]
    for panel, (name, share) in enumerate(walls().items()):
        left, top = 30 + 292 * panel, 214
        say(ax, left + COLUMNS * size / 2, 243, name, 12.5, weight="bold")
        for n in range(ROWS * COLUMNS):
            hurt = n // share == outlier // share
            face = VERMILION if n == outlier else YELLOW if hurt else PALE_BLUE
            box(ax, left + n % COLUMNS * size, top - (n // COLUMNS + 1) * size, size, size, face, PAPER, 1.0)
        for first in range(0, ROWS * COLUMNS, share):
            width, height = min(share, COLUMNS), -(-share // COLUMNS)
            box(ax, left + first % COLUMNS * size, top - (first // COLUMNS + height) * size, width * size,
                height * size, "none", BLUE, 1.6)
        scales = ROWS * COLUMNS // share
        say(ax, left + COLUMNS * size / 2, 66, f"{scales} scale{'s' if scales > 1 else ''}, {share - 1} weights hurt",
            12)
    for x, face, text in ((206, VERMILION, "the outlier"), (340, YELLOW, "shares its scale"),
                          (510, PALE_BLUE, "untouched"), (640, PAPER, "one scale")):
        box(ax, x, 20, 16, 16, face, BLUE if face == PAPER else INK, 1.6 if face == PAPER else 0.6)
        say(ax, x + 23, 28, text, 10.5, GREY, ha="left")
    return fig
