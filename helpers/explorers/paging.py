"""The explorer of lesson 09: a paged optimizer, whose states leave the GPU while a long sequence needs the room.

A simulation: the bytes are the ledger's (`helpers.memory`), the moves are counted here in whole pages. What NVIDIA's
driver really moves, and when, is its own affair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets
import matplotlib as mpl
from matplotlib.figure import Figure

from helpers import plots
from helpers.explorers.checks import one_of, whole
from helpers.explorers.frame import Explorer, legend, line, tag
from helpers.memory import CARDS, GIB, LLAMAS, forecast_training, linear_shapes, skeleton

PAGE = 2 * 2**20  # bytes; the driver's large page
SMALLEST_PAGED = 100_000  # weights: bitsandbytes leaves the states of smaller tensors on the GPU
RESERVE = GIB  # for CUDA itself, as in `helpers.memory.smallest_card`
MODELS = tuple(name for name in LLAMAS if name.startswith("L"))
RANKS = (8, 16, 64)
SHARES = (.2, .3, .15, .55, .25, 1, .2, .35, .7, .15, 1, .25)  # of the longest sequence, step by step


@dataclass(frozen=True)
class Step:
    """One training step in bytes. `needed`: what cannot be paged, activations included; `resident`: optimizer states on
    the GPU during forward and backward; `out` and `back`: what moved. `fits`: False where the GPU is too small even
    with every page gone.
    """

    tokens: int
    needed: int
    resident: int
    out: int
    back: int
    fits: bool


def simulate(memory: int, fixed: int, paged: int, passing: Sequence[int], tokens: Sequence[int] | None = None,
             page: int = PAGE) -> list[Step]:
    """Train step by step on a GPU with `memory` bytes, of which `fixed` are taken for good; `paged` bytes may move.

    passing: bytes that come and go with each step, above all its activations. tokens: of each step, to show.
    In forward and backward as many pages leave as these lack; in the optimizer's step all of them are needed and come
    back, as far as there is room (what has none is read through, and leaves again). Moving to the CPU loses nothing. A
    step that does not fit moves nothing: it ends in "out of memory".
    Raises ValueError for negative bytes and a page below 1.
    """
    if min(memory, fixed, paged, *passing, 0) < 0 or page < 1:
        raise ValueError(f"memory={memory}, fixed={fixed}, paged={paged}, page={page}: bytes are 0 or more, a page 1")
    resident, steps = min(paged, whole_pages(memory - fixed, page)), []
    for n, activation in enumerate(passing):
        room = memory - fixed - activation
        if room < 0:
            steps.append(Step(tokens[n] if tokens else 0, fixed + activation, resident, 0, 0, False))
            continue
        kept = min(resident, whole_pages(room, page))
        after = min(paged, whole_pages(memory - fixed, page))  # the activations are gone
        back, out = paged - kept, resident - kept + paged - after
        steps.append(Step(tokens[n] if tokens else 0, fixed + activation, kept, out, back, True))
        resident = after
    return steps


def whole_pages(room: int, page: int = PAGE) -> int:
    """The bytes of whole pages that fit into `room`; 0 if it is negative."""
    return max(room, 0) // page * page


@lru_cache(maxsize=64)
def ledger(model: str, r: int) -> tuple[int, int]:
    """Bytes of a QLoRA run with Adam in 32 bit: what stays on the GPU, and the optimizer states that can be paged.

    The states of A (r, in) and B (out, r) can be paged where these have SMALLEST_PAGED weights or more.
    """
    entries = forecast_training(LLAMAS[model], r=r, sequence=1)
    sizes = [r * side for shape in linear_shapes(skeleton(LLAMAS[model])).values() for side in shape]
    paged = sum(8 * size for size in sizes if size >= SMALLEST_PAGED)
    return entries.total - entries["activations"] - entries["workspace"] - paged, paged


@lru_cache(maxsize=1024)
def activations(model: str, r: int, checkpointing: bool, tokens: int) -> int:
    """Bytes that come and go in a step with one sequence of `tokens`: activations and workspace of the ledger."""
    entries = forecast_training(LLAMAS[model], r=r, sequence=tokens, checkpointing=checkpointing)
    return entries["activations"] + entries["workspace"]


class PagingExplorer(Explorer):
    """Twelve steps of QLoRA on one GPU, some with long sequences.

        explorer = page_the_optimizer()
        explorer                            # shows it
        explorer.set(longest=1024)          # tokens of the longest sequence
        print(explorer.report())

    `model`, `memory` (GB), `longest` (tokens), `r` and `checkpointing` are what is set. `steps` holds what happened;
    `room`, `fixed` and `paged` are the bytes behind it.
    """

    text = "Choose model, GPU and sequence length here, in JupyterLab or Colab; or from Python as below."
    css, accent, label_width = "paging", plots.ORANGE, "9em"
    may_be = {"model": one_of(MODELS), "memory": one_of(CARDS), "longest": whole(128, 4096), "r": one_of(RANKS),
              "checkpointing": one_of((True, False))}

    def __init__(self, model: str = "LLaMA-65B", memory: int = 48, longest: int = 3072, r: int = 64,
                 checkpointing: bool = True) -> None:
        self.model, self.memory, self.longest, self.r, self.checkpointing = MODELS[0], CARDS[-1], 512, RANKS[-1], True
        self._build({"model": widgets.Dropdown(options=MODELS, description="Model"),
                     "memory": widgets.Dropdown(options=[(f"{gb} GB", gb) for gb in CARDS], description="GPU memory")},
                    {"r": widgets.Dropdown(options=RANKS, description="Rank r"),
                     "longest": widgets.IntSlider(512, 128, 4096, 128, description="Longest (tokens)",
                                                  continuous_update=False)},
                    {"checkpointing": widgets.Checkbox(True, description="gradient checkpointing")})
        self.set(model, memory, longest, r, checkpointing)

    def set(self, model: str | None = None, memory: int | None = None, longest: int | None = None, r: int | None = None,
            checkpointing: bool | None = None) -> None:
        """Simulate with these values (memory in GB); None keeps what is shown."""
        super().set(model=model, memory=memory, longest=longest, r=r, checkpointing=checkpointing)

    def _compute(self) -> None:
        self.fixed, self.paged = ledger(self.model, self.r)
        self.room = self.memory * GIB - RESERVE
        tokens = [round(share * self.longest) for share in SHARES]
        self.steps = simulate(self.room, self.fixed, self.paged,
                              [activations(self.model, self.r, self.checkpointing, n) for n in tokens], tokens)

    @property
    def verdict(self) -> str:
        """What becomes of the run, in a sentence."""
        moved, peak = sum(step.out for step in self.steps), max(step.needed for step in self.steps)
        if not all(step.fits for step in self.steps):
            return f"Out of memory: {peak / GIB:.1f} GiB are needed beside the pages, {self.room / GIB:.0f} are there."
        if peak + self.paged <= self.room:
            return (f"Everything fits: at most {(peak + self.paged) / GIB:.1f} of {self.room / GIB:.0f} GiB. "
                    "No page moves.")
        often = sum(step.out > 0 for step in self.steps)
        return (f"Paging saves the run: in {often} of {len(self.steps)} steps pages leave, "
                f"{moved / GIB:.2f} GiB in all. Unpaged it would have run out of memory.")

    def report(self) -> str:
        """What is shown, as plain text."""
        lines = [f"{self.model}, r = {self.r}, {self.memory} GB, checkpointing "
                 f"{'on' if self.checkpointing else 'off'}: fixed {self.fixed / GIB:.2f} GiB, "
                 f"optimizer pages {self.paged / GIB:.2f} GiB", "step  tokens  needed GiB   out GiB  back GiB"]
        lines += [f"{n:4}  {s.tokens:6}  {s.needed / GIB:10.2f}  " + (
            f"{s.out / GIB:8.2f}  {s.back / GIB:8.2f}" if s.fits else "out of memory")
            for n, s in enumerate(self.steps, start=1)]
        return "\n".join([*lines, self.verdict])

    def figure(self) -> Figure:
        """The steps as stacked bars below the line of the GPU's memory, and what moved."""
        with mpl.rc_context(plots.STYLE):
            fig = Figure(figsize=(7.2, 4.2))
            top, below = fig.subplots(2, sharex=True, height_ratios=(3, 1))
            x, kept = range(1, len(self.steps) + 1), [step.resident / GIB for step in self.steps]
            busy = [step.needed / GIB - self.fixed / GIB for step in self.steps]
            layers = (("fixed (weights, adapters, gradients)", [self.fixed / GIB] * len(x), plots.FROZEN),
                      ("optimizer pages on the GPU", kept, plots.TRAINED), ("activations", busy, plots.GREEN))
            bottom = [0.0] * len(x)
            for label, heights, color in layers:
                top.bar(x, heights, bottom=bottom, color=color, label=label)
                bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
            top.axhline(self.room / GIB, color=plots.INK, linestyle="--", linewidth=1.4, label="the GPU's memory")
            top.set(ylabel="GiB", ylim=(min(self.fixed / GIB * .9, self.room / GIB * .9), None))
            top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
            below.bar(x, [step.out / GIB for step in self.steps], color=plots.VERMILION)
            below.set(xlabel="step", ylabel="GiB out", xticks=list(x))
        return fig

    def _body(self) -> str:
        """The verdict, and for each step its tokens, a bar of what is on the GPU, and what moved."""
        right = {"style": "text-align:right;padding:0 .6em"}
        heads = ("step", "tokens", "on the GPU", "needed GiB", "out GiB", "back GiB")
        rows = tag("tr", "".join(tag("th", name, **right) for name in heads))
        for n, step in enumerate(self.steps, start=1):
            parts = (("fixed", self.fixed, plots.FROZEN), ("pages", step.resident, plots.TRAINED),
                     ("activations", step.needed - self.fixed, plots.GREEN))
            bar = "".join(tag("span", title=name, style="display:inline-block;height:12px;background:"
                              f"{colour};width:{180 * size / self.room:.0f}px") for name, size, colour in parts)
            moved = (f"{step.out / GIB:.2f}", f"{step.back / GIB:.2f}") if step.fits else ("out of memory", "")
            cells = (f"{n}", f"{step.tokens}", bar, f"{step.needed / GIB:.2f}", *moved)
            rows += tag("tr", "".join(tag("td", cell, **(right if cell != bar else {"style": "white-space:nowrap"}))
                                      for cell in cells))
        parts = ((f"fixed {self.fixed / GIB:.2f} GiB", plots.FROZEN),
                 (f"optimizer pages {self.paged / GIB:.2f} GiB", plots.TRAINED), ("activations", plots.GREEN))
        return (line(tag("b", self.verdict)) + line(legend(parts))
                + tag("div", tag("table", rows), style="overflow-x:auto"))


page_the_optimizer = PagingExplorer
