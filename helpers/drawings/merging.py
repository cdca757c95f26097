"""The drawing of lesson 11: the four ways from a 4-bit base and an adapter to something to share."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.drawings.canvas import MID_BLUE, PALE_GREY, alt, arrow, box, canvas, matrix_pair, say
from helpers.drawings.overview import LINEARS, LORA_R16, OTHERS
from helpers.plots import FROZEN, GREY, INK, LINE, TRAINED

GB = 1e9
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)  # with double quantization, lesson 05
SIZES = {"adapter": 4 * LORA_R16 / GB, "16 bit": 2 * (LINEARS + OTHERS) / GB,
         "4 bit": (LINEARS * NF4_BITS / 8 + 2 * OTHERS) / GB}  # of Llama-2-7B's files


@alt(
    "Four ways to keep a fine-tune, with the size of the file for Llama-2-7B. 1: the adapter kept beside the 4-bit "
    "base; A and B alone are saved, 0.16 GB at r = 16 in fp32. 2: added to the original 16-bit weights, W plus the "
    "update, 13.5 GB. 3: added to the dequantized weights, which it was trained on, 13.5 GB. 4: added to the "
    "dequantized weights and quantized once more, 3.9 GB.")
def merging() -> Figure:
    """Four rows: what the update is added to, what comes out, how large the file is."""
    fig, ax = canvas(452)
    for x, text in ((24, "route"), (274, "what is added to what"), (580, "what is saved"), (876, "Llama-2-7B")):
        say(ax, x, 430, text, 11, GREY, ha="right" if x > 800 else "left")
    rows = (
        ("adapter kept", "beside the base, not added", 4, False, "A and B alone", "adapter", 0),
        ("into the original", "W as published, 16 bit", 16, True, "W + ΔW", "16 bit", 16),
        ("into the dequantized", "the weights it was trained on", 4, True, "dequant(W) + ΔW", "16 bit", 16),
        ("back into 4 bit", "…and quantized once more", 4, True, "Q(dequant(W) + ΔW)", "4 bit", 4),
    )
    for n, (name, note, bits, added, saved, size, out) in enumerate(rows):
        y = 316 - 102 * n
        box(ax, 12, y, 876, 92, PALE_GREY if n % 2 == 0 else "white", LINE, rounding=6)
        say(ax, 24, y + 56, f"{n + 1}  {name}", 12, ha="left", weight="bold")
        say(ax, 42, y + 34, note, 10, GREY, ha="left")
        _weight(ax, 274, y + 16, bits)
        say(ax, 359, y + 46, "+" if added else "|", 16, GREY)
        matrix_pair(ax, 386, y + 20, 52)
        arrow(ax, (492, y + 46), (558, y + 46), GREY)
        if n == 0:
            matrix_pair(ax, 586, y + 20, 52)
        else:
            _weight(ax, 580, y + 16, out, TRAINED)
        say(ax, 690, y + 56, saved, 11, ha="left")
        say(ax, 876, y + 34, f"{SIZES[size]:.2g} GB" if SIZES[size] < 10 else f"{SIZES[size]:.1f} GB", 12, ha="right",
            weight="bold")
    return fig


def _weight(ax: Axes, x: float, y: float, bits: int, edge: str = FROZEN) -> None:
    """A weight matrix: a fine grid in 4 bit, plain in 16."""
    box(ax, x, y, 60, 60, MID_BLUE, edge, 2.4)
    if bits == 4:
        for step in range(10, 60, 10):
            ax.plot([x + step, x + step], [y, y + 60], color="white", linewidth=0.8)
            ax.plot([x, x + 60], [y + step, y + step], color="white", linewidth=0.8)
    say(ax, x + 30, y + 30, f"{bits} bit", 11, INK, weight="bold")
