"""The drawing of lesson 08: where each method of the PEFT family has its trained weights."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon

from helpers.drawings.canvas import DARK_ORANGE, PALE_BLUE, PALE_GREY, PALE_ORANGE, alt, arrow, box, canvas, say
from helpers.memory import LLAMAS
from helpers.plots import FROZEN, GREY, INK, LINE, PAPER, TRAINED

WIDTH = 136  # of a panel


def family_counts() -> dict[str, int]:
    """Trained weights on Llama-2-7B: one adapter size per method, as the drawing names it."""
    c = LLAMAS["Llama-2-7B"]
    d, f, layers, head = c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.vocab_size * c.hidden_size
    every = 2 * head + layers * (4 * d * d + 3 * d * f + 2 * d) + d
    return {"everything": every, "head": head, "bottleneck": layers * 2 * (2 * 64 * d + d + 64),
            "prompt": 20 * d, "prefix": layers * 2 * 20 * d, "llama_adapter": layers * (10 * d + 1),
            "lora": layers * 8 * (4 * 2 * d + 3 * (d + f))}


def block(ax: Axes, x: float, y: float, w: float, name: str, trained: bool, h: float = 34) -> None:
    """A part of the transformer, frozen or trained."""
    box(ax, x, y, w, h, PALE_ORANGE if trained else PALE_BLUE, TRAINED if trained else FROZEN, 2 if trained else 1.2,
        rounding=4)
    say(ax, x + w / 2, y + h / 2, name, 10, weight="bold" if trained else "normal")


def hourglass(ax: Axes, x: float, y: float) -> None:
    """A bottleneck: wide, narrow, wide; (x, y) is its centre."""
    points = [(x - 26, y - 10), (x + 26, y - 10), (x + 7, y), (x + 26, y + 10), (x - 26, y + 10), (x - 7, y)]
    ax.add_patch(Polygon(points, closed=True, facecolor=TRAINED, edgecolor=INK, linewidth=0.8))


def squares(ax: Axes, x: float, y: float, count: int, trained: bool) -> None:
    """A row of vectors, one for each token."""
    for i in range(count):
        box(ax, x + 13 * i, y, 11, 16, TRAINED if trained else PALE_BLUE, INK if trained else FROZEN, 0.8)


def pair(ax: Axes, x: float, y: float) -> None:
    """B and A, small; (x, y) is the lower left corner."""
    box(ax, x, y, 7, 26, TRAINED, INK, 0.8)
    box(ax, x + 10, y + 19, 22, 7, TRAINED, INK, 0.8)


def panel(ax: Axes, x: float, title: str, size: str, count: str, body: bool = False, head: bool = False,
          middle: float = 68) -> None:
    """One transformer, read from below: the text, a layer in its frame, the head; under it what is trained."""
    say(ax, x + WIDTH / 2, 400, title, 10.5, weight="bold")
    box(ax, x + 8, 122, WIDTH - 16, 202, PAPER, LINE, 1.4, rounding=8)
    say(ax, x + WIDTH - 14, 133, "layer", 10, GREY, ha="right")
    for y, name, trained in ((346, "head", head), (240, "MLP", body), (150, "attention", body)):
        block(ax, x + middle - 40, y, 80, name, trained)
    for low, high in ((106, 149), (185, 239), (275, 345)):
        arrow(ax, (x + middle, low), (x + middle, high), GREY, 1.3)
    if body:
        box(ax, x + middle - 32, 82, 64, 28, PALE_ORANGE, TRAINED, 2, rounding=4)
    squares(ax, x + middle - 26, 88, 4, False)
    say(ax, x + WIDTH / 2, 54, size, 10)
    say(ax, x + WIDTH / 2, 32, count, 10.5, DARK_ORANGE, weight="bold")


@alt(
    "Six transformers, each with its trained parts in orange and the weights they have on Llama-2-7B. Everything: "
    "6,738 M. Head only: 131 M. Bottleneck, m = 64, one behind the attention and one behind the MLP: "
    "33.8 M. Prompt, prefix: 20 vectors before the text, 0.08 M, or keys and values in every layer, 5.2 M. "
    "LLaMA-Adapter: 10 vectors a layer behind a gate, 1.31 M. LoRA, DoRA: r = 8 beside all linears, 20.0 M.")
def family() -> Figure:
    """Six transformers side by side: trained parts in orange, frozen ones in blue, with their weights on Llama-2-7B."""
    fig, ax = canvas(424)
    n, xs = family_counts(), [8 + 149 * i for i in range(6)]
    for x in xs:
        box(ax, x, 12, WIDTH, 404, PALE_GREY, PALE_GREY, rounding=8)
    panel(ax, xs[0], "Everything", "all weights", f"{n['everything'] / 1e6:,.0f} M", body=True, head=True)
    panel(ax, xs[1], "Head only", "one matrix", f"{n['head'] / 1e6:.0f} M", head=True)
    panel(ax, xs[2], "Bottleneck", "m = 64", f"{n['bottleneck'] / 1e6:.1f} M")
    for y in (207, 299):
        hourglass(ax, xs[2] + 68, y)
    panel(ax, xs[3], "Prompt, prefix", "20 tokens", f"{n['prompt'] / 1e6:.2f} M, {n['prefix'] / 1e6:.1f} M", middle=80)
    squares(ax, xs[3] + 9, 88, 3, True)
    panel(ax, xs[4], "LLaMA-Adapter", "10 tokens a layer", f"{n['llama_adapter'] / 1e6:.2f} M", middle=80)
    for x in xs[3:5]:
        for y in (150, 168):
            squares(ax, x + 18, y, 1, True)
    ax.plot([xs[4] + 23.5, xs[4] + 23.5, xs[4] + 70], [186, 207, 207], color=INK, linewidth=1.2)
    ax.add_patch(Circle((xs[4] + 80, 207), 10, facecolor=TRAINED, edgecolor=INK, linewidth=0.8))
    say(ax, xs[4] + 80, 207, "g", 10.5, weight="bold")
    panel(ax, xs[5], "LoRA, DoRA", "r = 8, all linears", f"{n['lora'] / 1e6:.1f} M", middle=52)
    for y in (154, 244):
        pair(ax, xs[5] + 95, y)
    return fig
