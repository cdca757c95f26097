"""The one plotting style of the course, figures with alternative text, and the loss curve of a training run.

    fig = loss_curve(steps, losses)
    show(fig, alt="The loss falls from 5.9 to 0.2 in 300 steps, fast at first.")

Blue is what is frozen, orange what is trained, in every figure of the course.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from PIL import Image

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
    "xtick.labelsize": 10.0, "ytick.labelsize": 10.0, "legend.fontsize": 10.0,
    "legend.frameon": True, "legend.facecolor": PAPER, "legend.edgecolor": "none", "legend.framealpha": 0.9,
    "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK, "axes.edgecolor": GREY,
    "xtick.color": GREY, "ytick.color": GREY, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": LINE, "grid.linewidth": 0.8,
    "axes.prop_cycle": mpl.cycler(color=[BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK]),
    "lines.linewidth": 2.0, "image.cmap": "cividis",
    "svg.fonttype": "path", "svg.hashsalt": "from-bits-to-qlora",  # the same drawing is the same file, everywhere
}


def use_style() -> None:
    """Give every figure from now on the style of the course."""
    mpl.rcParams.update(STYLE)


def png(fig: Figure) -> bytes:
    """The figure as a PNG file with a palette of 256 colours, half the bytes of a plain one.

    The same figure gives the same bytes: no date and no version is written into it.
    """
    rim_words(fig)
    plain, buffer = io.BytesIO(), io.BytesIO()
    fig.savefig(plain, format="png")
    image = Image.open(plain).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def rim_words(fig: Figure) -> None:
    """Give dark words on a grid a rim of paper, so that no gridline strikes through a number."""
    for ax in fig.axes:
        if ax.axison and any(line.get_visible() for line in (*ax.get_xgridlines(), *ax.get_ygridlines())):
            for text in ax.texts:
                if sum(to_rgb(text.get_color())) < 2 and not text.get_path_effects() and not text.get_bbox_patch():
                    text.set_path_effects([withStroke(linewidth=4, foreground=PAPER)])


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
            ax.set_ylim(low / 1.45, high * 1.45)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(0, 1.06 * max([total or 1, *steps]))
    return fig
