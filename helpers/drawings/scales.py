"""The drawing of lesson 05: the scales of the scales."""

from __future__ import annotations

from matplotlib.figure import Figure

from helpers.drawings.canvas import MID_BLUE, PALE_BLUE, PALE_GREY, alt, arrow, bits, box, canvas, say
from helpers.plots import BLUE, FROZEN, GREY, INK, LINE, ORANGE, PAPER

BLOCK, NESTED = 64, 256  # weights with one scale, scales with one scale of their own


@alt(
    "What is stored of a doubly quantized layer, from top to bottom, with its cost in bits per weight. Blocks of "
    "64 weights as 4-bit codes: 4. Under each block one 8-bit code for its absmax: 8/64 = 0.125. Under every 256 "
    "of these one fp32, the nested absmax: 32/16,384 = 0.002. And once a layer the mean of all absmax and two "
    "codebooks: next to nothing. Together 4.127; with fp32 scales it would be 4.5.")
def nested_scales() -> Figure:
    """What a doubly quantized layer stores, level by level, and what each level costs per weight."""
    fig, ax = canvas(392)
    code, nested = 8 / BLOCK, 32 / (BLOCK * NESTED)
    say(ax, 24, 371, "What is stored of a layer", 13, ha="left", weight="bold")
    say(ax, 876, 371, "bits per weight", 11, GREY, ha="right")
    lefts = [24, 194, 364]
    for left in lefts:
        bits(ax, left, 306, [(16, MID_BLUE)], 9, 26)
        arrow(ax, (left + 72, 302), (left + 72, 262), GREY)
        box(ax, left + 46, 232, 52, 26, BLUE, BLUE)
        say(ax, left + 72, 245, "8 bit", 10.5, PAPER)
    for y in (319, 245):
        say(ax, 540, y, "…", 16, GREY)
    say(ax, 24, 344, "blocks of 64 weights, each weight a 4-bit code", 10.5, ha="left")
    say(ax, 572, 319, "codes", 11, ha="left", weight="bold")
    say(ax, 572, 245, "absmax", 11, ha="left", weight="bold")

    ax.plot([70, 70, 555, 555], [224, 214, 214, 224], color=GREY, linewidth=1.2)
    arrow(ax, (312, 214), (312, 182), GREY)
    say(ax, 326, 198, "256 of them", 10.5, GREY, ha="left")
    box(ax, 248, 150, 128, 28, ORANGE, ORANGE)
    say(ax, 312, 164, "fp32", 10.5)
    say(ax, 572, 164, "nested absmax", 11, ha="left", weight="bold")

    box(ax, 24, 84, 856, 42, PALE_GREY, LINE, rounding=6)
    once = "once a layer: the mean of all absmax (fp32), 16 levels of NF4, 256 levels of the dynamic map"
    say(ax, 40, 105, once, 10.5, ha="left")
    for y, text in ((319, "4"), (245, f"8 / {BLOCK} = {code:.3f}"), (164, f"32 / {BLOCK * NESTED:,} = {nested:.3f}")):
        say(ax, 876, y, text, 11, ha="right")
    say(ax, 866, 105, "≈ 0", 11, ha="right")
    box(ax, 24, 18, 856, 42, PALE_BLUE, FROZEN, rounding=6)
    say(ax, 40, 39, f"with fp32 scales it would be 4 + 32 / {BLOCK} = {4 + 32 / BLOCK}", 10.5, INK, ha="left")
    say(ax, 866, 39, f"together {4 + code + nested:.3f}", 12, ha="right", weight="bold")
    return fig
