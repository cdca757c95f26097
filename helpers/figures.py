"""The one plotting style of the course, figures with alternative text, and the loss curve of a training run.

    fig = loss_curve(steps, losses)
    show(fig, alt="The loss falls from 5.9 to 0.2 in 300 steps, fast at first.")

Blue is what is frozen, orange what is trained, in every figure of the course. `ALT` holds the alternative texts of the
drawings in `figures/`.
"""

from __future__ import annotations

import base64
import io
import math
import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageChops, ImageStat

# Okabe and Ito 2008, "Color Universal Design": eight colours that colour-blind readers can tell apart.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
INK, GREY, LINE, PAPER = "#1F2933", "#5B6670", "#D5DAE0", "#FFFFFF"
FROZEN, TRAINED = BLUE, ORANGE

STYLE = {
    "figure.figsize": (7.2, 3.4), "figure.dpi": 100, "savefig.dpi": 100,  # 720 pixels: the width of a notebook
    "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.transparent": False,
    "figure.constrained_layout.use": True,
    "font.family": ["DejaVu Sans"], "font.size": 11.0,  # the font that matplotlib brings along
    "axes.titlesize": 12.0, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 11.0,
    "xtick.labelsize": 10.0, "ytick.labelsize": 10.0, "legend.fontsize": 10.0, "legend.frameon": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.edgecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": LINE, "grid.linewidth": 0.8,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK]),
    "lines.linewidth": 2.0, "image.cmap": "cividis",
    "svg.fonttype": "path", "svg.hashsalt": "from-bits-to-qlora",  # the same drawing is the same file, everywhere
}

FIGURES = pathlib.Path(__file__).resolve().parent.parent / "figures"

ALT = {
    "course.svg": (
        "The course in one picture. Lesson 00 starts with the destination. Part I, Numbers (lessons 01 to 05), shrinks "
        "a weight from 32 bits to 4. Part II, Adapters (06 to 08), freezes a big matrix W and trains two thin ones, "
        "B and A, beside it. Part III, QLoRA (09 to 13), does both at once and ends with a fine-tuned Llama-2-7B."),
    "qlora.svg": (
        "A linear layer in QLoRA. The input x takes two ways. In the frozen one, W is stored in 4-bit NF4 with a scale "
        "per block of 64, is dequantized to 16 bits for the product only, and gets no gradient. In the trained one, x "
        "goes through A (r by k) and B (d by r), times alpha over r; A and B are stored in 16 or 32 bits and get "
        "gradients. The sum is the output h. Gradients flow back to x through both ways."),
    "levers.svg": (
        "Bars of memory for training Llama-2-7B, without activations. Full fine-tuning in 16 bits: 80.9 GB, of which "
        "53.9 are optimizer. Shrink the weights (NF4, which cannot be trained by itself): 3.9 GB. Train fewer weights "
        "(LoRA, r = 16): 14.0 GB. Both (QLoRA): 4.3 GB, which leaves room for activations on a GPU of 16 GB."),
    "gradients.svg": (
        "Gradient flow through a frozen 4-bit layer, in three bands. Forward: x is multiplied by W, dequantized for "
        "this product, and by A and B; the sum is y. Kept for later: the 4-bit codes, which the model holds anyway, x "
        "and the r values Ax; the dequantized W is thrown away. Backward: the gradient g of y meets W, dequantized a "
        "second time, and B and A, and both parts add up to the gradient of x; B and A get gradients of their own, "
        "from Ax and from x. W gets none."),
    "formats.svg": (
        "Seven float formats as rows of bits: one of sign, then exponent, then mantissa. FP32 1+8+23, TF32 1+8+10, "
        "FP16 1+5+10, BF16 1+8+7, E4M3 1+4+3, E5M2 1+5+2, E2M1 1+2+1. Beside each its largest value (65,504 for FP16, "
        "3.39e38 for BF16, 448 for E4M3, 6 for E2M1), its smallest above zero, and the gap between 1 and the next."),
    "absmax.svg": (
        "The worked vector on a line from -5.4 to 5.4, arrows down to its codes on the int8 line from -127 to 127: 5.4 "
        "to 127, 2.4 to 56, both 1.2 to 28, 0.8 to 19, -0.5 to -12, -3.1 to -73, -4.3 to -101. All are divided by the "
        "scale, 0.04252. Below, a close-up of the codes 26 to 30: 1.2 / scale is 28.22, in the stretch of 28, 0.22 of "
        "a step from its middle; no value is ever more than half a step away."),
    "outliers.svg": (
        "Two histograms over the codes -127 to 127. Above, 4,096 Gaussian weights: a broad bell, 187 of 255 codes in "
        "use, step 0.032 standard deviations. Below, the same with one outlier of 60 standard deviations: a narrow "
        "spike around 0 and the outlier alone at 127, 19 of 255 codes in use, step 0.472; all between are empty."),
    "blocks.svg": (
        "Three copies of a matrix of 8 by 16 weights with one outlier. With one scale for the tensor the other 127 "
        "weights are hurt; with one scale per row, 8 in all, the 15 others in its row; with one scale per block of 4, "
        "32 in all, only its 3 neighbours."),
    "nested_scales.svg": (
        "What is stored of a doubly quantized layer, from top to bottom, with its cost in bits per weight. Blocks of "
        "64 weights as 4-bit codes: 4. Under each block one 8-bit code for its absmax: 8/64 = 0.125. Under every 256 "
        "of these one fp32, the nested absmax: 32/16,384 = 0.002. And once a layer the mean of all absmax and two "
        "codebooks: next to nothing. Together 4.127; with fp32 scales it would be 4.5."),
    "nf4_bins.svg": (
        "The sixteen levels of NF4 on an axis from -1 to 1 under a bell curve: seven below zero, zero itself, eight "
        "above. They lie close together in the middle (0.080 is the first above zero, -0.091 the first below) and far "
        "apart at the ends (0.723, then 1). The bin of each level reaches to the midpoints between it and its "
        "neighbours."),
    "lora.svg": (
        "A layer with LoRA, to scale. W, 4096 by 4096, frozen, is a large square of 16,777,216 numbers. Beside it, "
        "times alpha over r, stand B, 4096 by 16, a vertical hairline that starts at zero, and A, 16 by 4096, a "
        "horizontal hairline that starts random. Together they are 131,072 trained numbers, 0.78 per cent."),
    "merging.svg": (
        "Four ways to keep a fine-tune, with the size of the file for Llama-2-7B. 1: the adapter kept beside the 4-bit "
        "base; A and B alone are saved, 0.16 GB at r = 16 in fp32. 2: added to the original 16-bit weights, W plus the "
        "update, 13.5 GB. 3: added to the dequantized weights, which it was trained on, 13.5 GB. 4: added to the "
        "dequantized weights and quantized once more, 3.9 GB."),
    "family.svg": (
        "Six transformers, each with its trained parts in orange and the weights they have on Llama-2-7B. Everything: "
        "6,738 M. Head only: 131 M. Bottleneck, m = 64, one behind the attention and one behind the MLP: "
        "33.8 M. Prompt, prefix: 20 vectors before the text, 0.08 M, or keys and values in every layer, 5.2 M. "
        "LLaMA-Adapter: 10 vectors a layer behind a gate, 1.31 M. LoRA, DoRA: r = 8 beside all linears, 20.0 M."),
}


def use_style() -> None:
    """Give every figure from now on the style of the course."""
    mpl.rcParams.update(STYLE)


def png(fig: Figure) -> bytes:
    """The figure as a PNG file. The same figure gives the same bytes: no date and no version is written into it."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", metadata={"Software": None})
    return small(buffer.getvalue())


def small(picture: bytes) -> bytes:
    """A PNG with a palette of 256 colours, half the bytes; as it was where an eye would see it, as in a heat map."""
    image, buffer = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    few = image.quantize(256, dither=Image.Dither.NONE)
    off = max(ImageStat.Stat(ImageChops.difference(image, few.convert("RGB"))).rms)
    (few if off <= 2 else image).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def show(fig: Figure, alt: str) -> None:
    """Display a figure as PNG with its alternative text, and close it.

    The text is the figure's `text/plain` (which strict nbval compares; it does not compare pixels) and stands in the
    output's metadata as `image/png: alt`, where nbconvert's template "classic" finds it (its default template "lab"
    and JupyterLab 4.6 itself do not look for one). Raises ValueError if `alt` is empty: say what a reader should see.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(f"alt={alt!r} says nothing: describe in a sentence what the figure shows, with its numbers")
    alt = " ".join(alt.split())
    image = base64.b64encode(png(fig)).decode()
    plt.close(fig)
    display({"image/png": image, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}})


def loss_curve(steps: Sequence[int], losses: Sequence[float], total: int | None = None) -> Figure:
    """The training loss over optimizer steps, on a logarithmic axis, the last value written at its end.

    `total` is the last step that the run will reach: it fixes the x axis while the curve grows. Raises ValueError for
    sequences that differ in length, or a loss that is not finite and positive (a run that broke: look at it there).
    """
    if len(steps) != len(losses):
        raise ValueError(f"{len(steps)} steps but {len(losses)} losses: give one loss per step")
    bad = [(s, x) for s, x in zip(steps, losses, strict=True) if not (math.isfinite(x) and x > 0)]
    if bad:
        raise ValueError(f"loss {bad[0][1]} at step {bad[0][0]}: a logarithmic axis needs finite losses above 0; "
                         "lower the learning rate, or plot the steps before")
    with mpl.rc_context(STYLE):
        fig = Figure(figsize=(7.2, 3.0))
        ax = fig.add_subplot(xlabel="optimizer step", ylabel="loss (nats per token)", yscale="log")
        ax.plot(steps, losses, color=TRAINED, marker="o" if len(steps) < 40 else None, markersize=4)
        if len(steps):
            ax.annotate(f"{losses[-1]:.3g}", (steps[-1], losses[-1]), (6, 6), textcoords="offset points", weight="bold")
            low, high = min(losses), max(losses)
            ticks = [t * 10.0**e for e in range(-6, 5) for t in (1, 2, 3, 5)
                     if low / 1.45 <= t * 10.0**e <= high * 1.45]
            ax.set_ylim(low / 1.45, high * 1.45)
            ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
            ax.set_yticks([], minor=True)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(0, 1.06 * max([total or 1, *steps]))
    return fig


def save_svg(fig: Figure, path: pathlib.Path) -> None:
    """Write a drawing as SVG, byte for byte the same each time: text as outlines, no date, no version."""
    with mpl.rc_context(STYLE):
        fig.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
