"""The drawings of the whole course: its picture, a QLoRA layer, the two levers, the formats."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from helpers.drawings.canvas import (
    DARK_ORANGE,
    MID_BLUE,
    PALE_BLUE,
    PALE_GREY,
    PALE_ORANGE,
    alt,
    arrow,
    bits,
    box,
    canvas,
    matrix_pair,
    say,
)
from helpers.floats import FORMATS
from helpers.plots import BLUE, FROZEN, GREY, INK, LINE, ORANGE, PAPER, PURPLE, TRAINED

PARTS = {
    "I · Numbers": ["01  Float formats", "02  Absmax quantization", "03  Block quantization", "04  NF4",
                    "05  Double quantization"],
    "II · Adapters": ["06  LoRA from scratch", "07  How low is low rank?", "08  The PEFT family"],
    "III · QLoRA": ["09  QLoRA from scratch", "10  Fine-tuning Llama-2-7B", "11  Merge, evaluate, share",
                    "12  Three ways to tune", "13  Faster, longer, bigger", "14  Four bits after NF4",
                    "15  Your own fine-tune"],
}


@alt(
    "The course in one picture. Lesson 00 starts with the destination. Part I, Numbers (lessons 01 to 05), shrinks "
    "a weight from 32 bits to 4. Part II, Adapters (06 to 08), freezes a big matrix W and trains two thin ones, "
    "B and A, beside it. Part III, QLoRA (09 to 15), does both at once and fine-tunes Llama-2-7B.")
def course() -> Figure:
    """The README's picture: fewer bits per weight + fewer weights to train = QLoRA, with the lessons under each."""
    fig, ax = canvas(520)
    box(ax, 20, 462, 860, 40, PALE_GREY, PALE_GREY, rounding=8)
    bits(ax, 36, 472, [(1, BLUE)], 20, 20)
    say(ax, 46, 482, "1", 11, PAPER, weight="bold")
    say(ax, 66, 482, "one bit", 11.5, ha="left", weight="bold")
    arrow(ax, (140, 482), (236, 482))
    say(ax, 390, 482, "00  Start here: the destination first", 11.5)
    arrow(ax, (544, 482), (640, 482))
    say(ax, 866, 482, "a fine-tuned 7B model", 11.5, ha="right", weight="bold")

    captions = ("Fewer bits per weight", "Fewer weights to train", "Both at once")
    for i, ((part, lessons), caption) in enumerate(zip(PARTS.items(), captions, strict=True)):
        x = 20 + i * 297
        box(ax, x, 20, 266, 422, PAPER, LINE, 1.4, rounding=10)
        say(ax, x + 18, 418, f"Part {part}", 13, ha="left", weight="bold")
        say(ax, x + 18, 394, caption, 11, GREY, ha="left")
        ax.plot([x + 18, x + 248], [192, 192], color=LINE, linewidth=1.2)
        for row, lesson in enumerate(lessons):
            finale = lesson.startswith("10")
            if finale:
                box(ax, x + 10, 172 - 23 * row - 11, 246, 22, PALE_ORANGE, PALE_ORANGE, rounding=6)
            say(ax, x + 18, 172 - 23 * row, lesson, 10.5, ha="left", weight="bold" if finale else "normal")
    say(ax, 301.5, 296, "+", 24, GREY, weight="bold")
    say(ax, 598.5, 296, "=", 24, GREY, weight="bold")

    rows = [("FP32", [(1, INK), (8, BLUE), (23, MID_BLUE)]), ("BF16", [(1, INK), (8, BLUE), (7, MID_BLUE)]),
            ("INT8", [(8, BLUE)]), ("NF4", [(4, BLUE)])]
    for row, (name, groups) in enumerate(rows):
        bits(ax, 82, 349 - 38 * row, groups, 5.7, 20)
        say(ax, 72, 359 - 38 * row, name, 10.5, ha="right", weight="bold" if name == "NF4" else "normal")
    say(ax, 153, 216, "from 32 bits a weight to 4", 10.5, GREY)

    box(ax, 336, 244, 104, 104, PALE_BLUE, FROZEN, 1.6)
    say(ax, 388, 303, "W", 17, FROZEN, weight="bold")
    say(ax, 388, 277, "frozen", 10.5, FROZEN)
    say(ax, 452, 296, "+", 15, GREY, weight="bold")
    matrix_pair(ax, 464, 256, 80)
    say(ax, 529, 298, "trained", 10.5, DARK_ORANGE)
    say(ax, 450, 216, "0.13 of 16.8 million numbers", 10.5, GREY)

    for i in range(6):
        for j in range(6):
            shade = FROZEN if (3 * i + 5 * j + i * j) % 4 else MID_BLUE
            box(ax, 650 + 11 * i, 263 + 11 * j, 11, 11, shade, PAPER, 0.8)
    say(ax, 683, 246, "4 bits", 10.5, FROZEN)
    say(ax, 730, 296, "+", 15, GREY, weight="bold")
    matrix_pair(ax, 744, 256, 80)
    say(ax, 809, 298, "16 bits", 10.5, DARK_ORANGE)
    say(ax, 747, 216, "Llama-2-7B on a 16 GB GPU", 10.5, GREY)
    return fig


@alt(
    "A linear layer in QLoRA. The input x takes two ways. In the frozen one, W is stored in 4-bit NF4 with a scale "
    "per block of 64, is dequantized to 16 bits for the product only, and gets no gradient. In the trained one, x "
    "goes through A (r by k) and B (d by r), times alpha over r; A and B are stored in 16 or 32 bits and get "
    "gradients. The sum is the output h. Gradients flow back to x through both ways.")
def qlora() -> Figure:
    """A linear layer in QLoRA: what is stored in which type, and where gradients flow."""
    fig, ax = canvas(430)
    say(ax, 24, 402, "h  =  dequantize(W) · x  +  (α / r) · B · A · x", 14, ha="left", weight="bold")

    box(ax, 24, 196, 66, 50, PALE_GREY, GREY, 1.4, rounding=8)
    say(ax, 57, 230, "x", 15, weight="bold")
    say(ax, 57, 209, "16 bit", 10, GREY)
    box(ax, 806, 196, 66, 50, PALE_GREY, GREY, 1.4, rounding=8)
    say(ax, 839, 230, "h", 15, weight="bold")
    say(ax, 839, 209, "16 bit", 10, GREY)

    box(ax, 150, 236, 560, 138, PAPER, FROZEN, 1.4, rounding=10)
    say(ax, 166, 358, "Frozen: no gradient", 11, FROZEN, ha="left", weight="bold")
    box(ax, 166, 252, 234, 90, PALE_BLUE, FROZEN, 1.2, rounding=6)
    say(ax, 283, 325, "W, stored as NF4", 11.5, weight="bold")
    say(ax, 283, 301, "4-bit codes, two in a byte", 10)
    say(ax, 283, 284, "+ an 8-bit scale per 64 codes", 10)
    say(ax, 283, 267, "+ fp32 per 256 scales", 10)
    arrow(ax, (402, 297), (504, 297), FROZEN)
    say(ax, 451, 311, "dequantize", 10.5, FROZEN)
    box(ax, 506, 252, 188, 90, PAPER, FROZEN, 1.2, rounding=6)
    say(ax, 600, 322, "W in bf16, d × k", 11.5, weight="bold")
    say(ax, 600, 297, "made for one product,", 10)
    say(ax, 600, 280, "then thrown away", 10)

    box(ax, 150, 68, 560, 138, PAPER, TRAINED, 1.6, rounding=10)
    say(ax, 166, 190, "Trained: gradients and optimizer states live here only", 11, DARK_ORANGE, "left", "bold")
    for x, name, shape, start in ((166, "A", "r × k", "starts random"), (390, "B", "d × r", "starts at zero")):
        box(ax, x, 84, 136, 88, PALE_ORANGE, TRAINED, 1.4, rounding=6)
        say(ax, x + 68, 154, f"{name},  {shape}", 11.5, weight="bold")
        say(ax, x + 68, 129, "16 or 32 bit", 10)
        say(ax, x + 68, 110, start, 10)
    arrow(ax, (303, 128), (388, 128))
    say(ax, 343, 142, "r values", 10, GREY)
    arrow(ax, (527, 128), (584, 128))
    box(ax, 586, 102, 106, 52, PALE_ORANGE, TRAINED, 1.4, rounding=6)
    say(ax, 639, 128, "× α / r", 12.5, weight="bold")

    ax.plot([90, 118], [221, 221], color=INK, linewidth=1.6)
    ax.plot([118, 118], [128, 305], color=INK, linewidth=1.6)
    arrow(ax, (118, 305), (149, 305))
    arrow(ax, (118, 128), (164, 128))
    circle = mpl.patches.Circle((760, 221), 15, facecolor=PAPER, edgecolor=INK, linewidth=1.6)
    ax.add_patch(circle)
    say(ax, 760, 221, "+", 15, weight="bold")
    ax.plot([711, 760], [305, 305], color=INK, linewidth=1.6)
    arrow(ax, (760, 305), (760, 237))
    ax.plot([693, 760], [128, 128], color=INK, linewidth=1.6)
    arrow(ax, (760, 128), (760, 205))
    arrow(ax, (776, 221), (805, 221))

    arrow(ax, (872, 36), (24, 36), ORANGE, 2.4, dashed=True)
    say(ax, 448, 54, "gradients flow back through both ways: past W, into B and A, on to x", 10.5, DARK_ORANGE)
    say(ax, 448, 17, "W is dequantized once more for this; nothing of it is kept in between", 10, GREY)
    return fig


# Llama-2-7B, in parameters: the linear layers that get quantized, and all others (embedding, head, norms).
LINEARS, OTHERS = 6_476_005_376, 262_410_240
LORA_R16 = 39_976_960  # r = 16 on all linear layers: 32 layers × 16 × (4 × (4096+4096) + 3 × (4096+11008))
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)  # code + 8-bit scale per block of 64 + fp32 per 256 scales


def training_bytes() -> dict[str, dict[str, float]]:
    """Bytes to train Llama-2-7B without activations: weights and gradients in 16 bits, Adam's two states in 32.

    Source of the 2 + 2 + 8 bytes per trained parameter: Dettmers et al. 2023 (QLoRA), whose 780 GB for 65B it gives.
    """
    def trained(n: float) -> dict[str, float]:
        return {"gradients": 2 * n, "optimizer": 8 * n}

    every, nf4 = LINEARS + OTHERS, LINEARS * NF4_BITS / 8 + 2 * OTHERS
    adapters = {"trained weights": 2 * LORA_R16, **trained(LORA_R16)}
    return {
        "Full fine-tuning": {"trained weights": 2 * every, **trained(every)},
        "Shrink: NF4": {"frozen weights": nf4},
        "Train fewer: LoRA": {"frozen weights": 2 * every, **adapters},
        "Both: QLoRA": {"frozen weights": nf4, **adapters},
    }


@alt(
    "Bars of memory for training Llama-2-7B, without activations. Full fine-tuning in 16 bits: 80.9 GB, of which "
    "53.9 are optimizer. Shrink the weights (NF4, which cannot be trained by itself): 3.9 GB. Train fewer weights "
    "(LoRA, r = 16): 14.0 GB. Both (QLoRA): 4.3 GB, which leaves room for activations on a GPU of 16 GB.")
def levers() -> Figure:
    """The two levers on Llama-2-7B: bars of bytes for full fine-tuning, LoRA, NF4 and both."""
    fig, ax = canvas(350)
    scale, left = 640 / 84e9, 196
    colours = {"frozen weights": FROZEN, "trained weights": TRAINED, "gradients": PURPLE, "optimizer": "#B8C0C8"}
    say(ax, 20, 326, "Memory to train Llama-2-7B (activations come on top)", 13, ha="left", weight="bold")
    for x, (name, color) in zip((196, 344, 496, 610), colours.items(), strict=True):
        box(ax, x, 288, 16, 16, color, color)
        say(ax, x + 23, 296, name, 10.5, ha="left")
    for gigabytes, card in ((16, "16 GB GPU"), (80, "80 GB GPU")):
        x = left + gigabytes * 1e9 * scale
        ax.plot([x, x], [36, 272], color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
        say(ax, x, 24, card, 10.5, GREY)
    notes = {"Shrink: NF4": "cannot be trained by itself",
             "Train fewer: LoRA": "0.5 GB of it for 40 million trained weights", "Both: QLoRA": "room for activations"}
    for row, (name, parts) in enumerate(training_bytes().items()):
        y, x = 228 - 58 * row, left
        both = name.startswith("Both")
        say(ax, left - 12, y + 16, name, 11, ha="right", weight="bold" if both else "normal")
        for part, count in parts.items():
            box(ax, x, y, count * scale, 32, colours[part], colours[part], 0)
            x += count * scale
        total = f"{sum(parts.values()) / 1e9:.1f} GB"
        if row == 0:
            say(ax, left + 500, y + 16, total, 12, weight="bold")
        else:
            say(ax, max(x, left + 16e9 * scale) + 14, y + 16, total, 12, ha="left", weight="bold")
            say(ax, max(x, left + 16e9 * scale) + 104, y + 16, notes[name], 10.5, GREY, ha="left")
    return fig


@alt(
    "Seven float formats as rows of bits: one of sign, then exponent, then mantissa. FP32 1+8+23, TF32 1+8+10, "
    "FP16 1+5+10, BF16 1+8+7, E4M3 1+4+3, E5M2 1+5+2, E2M1 1+2+1. Beside each its largest value (65,504 for FP16, "
    "3.39e38 for BF16, 448 for E4M3, 6 for E2M1), its smallest above zero, and the gap between 1 and the next.")
def formats() -> Figure:
    """Seven formats bit by bit, with what their fields buy: the largest and smallest value, the gap at 1."""
    fig, ax = canvas(372)
    for x, name, color in ((96, "sign", INK), (176, "exponent: range", BLUE), (336, "mantissa: precision", MID_BLUE)):
        box(ax, x, 342, 16, 16, color, color)
        say(ax, x + 23, 350, name, 10.5, ha="left")
    for x, head in ((690, "largest"), (778, "smallest"), (866, "gap at 1")):
        say(ax, x, 350, head, 10.5, GREY, ha="right")
    for row, fmt in enumerate(FORMATS):
        y = 292 - 46 * row
        bits(ax, 96, y, [(1, INK), (fmt.exponent_bits, BLUE), (fmt.mantissa_bits, MID_BLUE)], 16, 26)
        say(ax, 84, y + 13, fmt.name.upper().replace("FP8 ", "").replace("FP4 ", ""), 11, ha="right", weight="bold")
        split = f"{fmt.bits} = 1 + {fmt.exponent_bits} + {fmt.mantissa_bits}"
        if fmt.bits < 32:
            say(ax, 104 + 16 * fmt.bits, y + 13, split, 10, GREY, ha="left")
        for x, value in ((690, fmt.max), (778, fmt.min_subnormal), (866, fmt.eps)):
            say(ax, x, y + 13, f"{value:,.0f}" if 6 <= value < 1e5 else f"{value:.3g}", 10.5, ha="right")
    return fig
