"""The explorer of lesson 13: how many GPUs a fine-tune needs, for how long, and for how much money.

Bytes are those of `helpers.memory` and `helpers.parallel.share`. Prices and speeds are the reader's: a default stands
only where it could be cited, with its date; 0 means "not filled in". See `helpers.explorers.frame`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import ipywidgets as widgets

from helpers import plots
from helpers.explorers.checks import number, one_of, whole
from helpers.explorers.frame import Explorer, Row, svg, tag, words
from helpers.memory import GIB, LLAMAS, Ledger, forecast_training
from helpers.parallel.share import per_gpu

MODELS = ("Llama-2-7B", "Llama-2-13B", "Llama-2-70B")
COUNTS = (1, 2, 4, 8, 16)  # GPUs that one rents together
RANK, RESERVE = 16, 1  # of the adapters; GiB set aside for CUDA, as in lesson 05
VAST = "Vast.ai, offers of June 2026, by usagepricing.com"


@dataclass(frozen=True)
class Offer:
    """A kind of GPU: its memory in GB, dollars an hour (0: fill it in) and where that price was seen."""

    memory: int
    price: float
    source: str


GPUS = {"RTX 4090": Offer(24, 0.78, f"0.68 to 0.88: {VAST}"), "A100": Offer(80, 1.19, f"1.17 to 1.21: {VAST}"),
        "H100": Offer(80, 2.95, "median on demand, AIMultiple's index of 20 May 2026"),
        "another": Offer(48, 0.0, "yours")}
# LLaMA-Factory's measurement: 4 bit, r 8, batch 4 x 2, rows of 1,024 tokens. No other pair could be cited.
SPEEDS = {("Llama-2-7B", "A100"): (2415.0, "LLaMA-Factory's table, with Unsloth 3,726")}


@lru_cache(maxsize=256)
def forecast(model: str, length: int) -> Ledger:
    """`forecast_training` in 4 bits with LoRA on all linears, one row at a time; remembered, as it takes a moment."""
    return forecast_training(LLAMAS[model], r=RANK, sequence=length)


class CostExplorer(Explorer):
    """A fine-tune's GPUs, hours and money.

        explorer = what_does_it_cost()
        explorer                                             # shows it
        explorer.set("Llama-2-70B", gpu="H100", speed=400, rows=20_000)
        print(explorer.report())

    `model`, `gpu` (a kind), `memory` (GB), `price` ($ an hour for one), `speed` (tokens a second of one, 0: unknown),
    `kept` (the share of it that each keeps among several), `rows`, `length` (tokens of a row), `epochs` and `offload`
    hold what is shown; `gpus` (how many, None: more than 16), `hours` and `money` (None: unknown) follow from them. A
    new kind of GPU brings its own memory and price, and a new pair of model and GPU its speed.
    """

    text = "Set model, GPU, price and speed, in JupyterLab or Colab; or from Python as below."
    css, column, label_width = "costs", 18, "11em"
    may_be = {"model": one_of(MODELS), "gpu": one_of(GPUS), "memory": whole(4, 1024), "price": number(0, 1000),
              "speed": number(0, 1e7), "kept": number(0.01, 1), "rows": whole(1, 10**9), "length": whole(16, 32_768),
              "epochs": whole(1, 100), "offload": one_of((False, True))}

    def __init__(self, model: str = "Llama-2-7B", gpu: str = "A100") -> None:
        self.model, self.gpu, self.kept, self.rows, self.length, self.epochs = MODELS[0], "A100", 1.0, 10_000, 1024, 1
        self.memory, self.price, self.speed, self.offload = 80, 1.19, 2415.0, False
        late = {"continuous_update": False}
        self._build(
            {"model": widgets.Dropdown(options=MODELS, description="Model, in 4 bits"),
             "gpu": widgets.Dropdown(options=tuple(GPUS), description="GPU")},
            {"memory": widgets.IntText(80, description="GB on each GPU"),
             "price": widgets.FloatText(1.19, step=0.01, description="$ an hour, each")},
            {"speed": widgets.FloatText(2415, step=1, description="tokens/s of one"),
             "kept": widgets.FloatSlider(1, min=0.01, max=1, step=0.01, description="of it kept by each", **late)},
            {"rows": widgets.IntText(10_000, description="rows"),
             "length": widgets.IntText(1024, description="tokens in a row"),
             "epochs": widgets.IntText(1, description="epochs")},
            {"offload": widgets.Checkbox(False, description="parameters in the machine's RAM (from 2 GPUs on)")})
        self.set(model, gpu)

    def set(self, model: str | None = None, gpu: str | None = None, **settings: object) -> None:
        """Change what is shown; None keeps what is there."""
        super().set(model=model, gpu=gpu, **settings)

    def _take(self, settings: dict[str, object]) -> None:
        before = self.model, self.gpu
        unknown = next((name for name in settings if name not in self.may_be), None)
        if unknown:
            raise ValueError(f"{unknown} is no setting: take one of {', '.join(self.may_be)}.")
        super()._take({name: settings.get(name) for name in ("model", "gpu")})
        if self.gpu != before[1]:
            self.memory, self.price = GPUS[self.gpu].memory, GPUS[self.gpu].price
        if (self.model, self.gpu) != before:
            self.speed = SPEEDS.get((self.model, self.gpu), (0.0, ""))[0]
        super()._take({name: value for name, value in settings.items() if name not in ("model", "gpu")})

    def each(self, gpus: int) -> Ledger:
        """Bytes on each of so many."""
        return per_gpu(forecast(self.model, self.length), LLAMAS[self.model], gpus, RANK, self.offload and gpus > 1)

    def _compute(self) -> None:
        self.gpus = next((n for n in COUNTS if self.each(n).total <= (self.memory - RESERVE) * GIB), None)
        known = self.gpus and self.speed
        tokens = self.rows * self.length * self.epochs
        self.hours = tokens / (self.speed * self.gpus * (self.kept if self.gpus > 1 else 1)) / 3600 if known else None
        self.money = self.hours * self.gpus * self.price if known and self.price else None

    def _rows(self) -> Iterator[Row]:
        offer, (cited, where) = GPUS[self.gpu], SPEEDS.get((self.model, self.gpu), (0.0, ""))
        if self.gpus:
            each = f", {self.each(self.gpus).total / GIB:.1f} GiB on each and {RESERVE} for CUDA"
            yield "GPUs, at least", f"{self.gpus} of {self.memory} GB{each}"
        else:
            yield "GPUs, at least", f"more than {COUNTS[-1]} of {self.memory} GB"
        yield "tokens", f"{self.rows * self.length * self.epochs:,}"
        if not self.speed:
            speed = "unknown: nothing was found to cite. Time 20 steps of your own, and set speed"
        else:
            speed = f"{self.speed:,.0f} tokens a second: {where if self.speed == cited else 'yours'}"
        yield "speed", speed
        price = f"${self.price:.2f} an hour: {offer.source if self.price == offer.price else 'yours'}"
        yield "price", price if self.price else "not filled in: set price"
        yield "hours", "unknown" if self.hours is None else f"{self.hours:.2f}"
        yield "money", "unknown" if self.money is None else f"${self.money:.2f}"

    def _picture(self) -> str:
        """A bar for each number of GPUs: the bytes on each, and a line at what a GPU has."""
        most = max(self.memory, *(self.each(n).total / GIB + RESERVE for n in COUNTS))
        parts, scale = [], 560 / (1.05 * most)
        for place, n in enumerate(COUNTS):
            size, y = self.each(n).total / GIB + RESERVE, 24 + 22 * place
            fits = size <= self.memory
            parts += [words(f"{n} ×", 40, y + 13, "end"),
                      tag("rect", x=48, y=y, width=size * scale, height=16, fill=plots.GREEN if fits else plots.GREY),
                      words(f"{size:.0f} GiB{'' if fits else ', too much'}", 54 + size * scale, y + 13, "start")]
        x = 48 + self.memory * scale
        parts += [tag("line", x1=x, x2=x, y1=16, y2=132, stroke="currentColor", stroke_width=2),
                  words(f"{self.memory} GB", x, 12)]
        few = f"{self.gpus} GPU{'s' * (self.gpus != 1)} of {self.memory} GB"
        needed = few if self.gpus else f"more than {COUNTS[-1]} GPUs"
        return svg("0 0 720 140", f"{self.model} needs {needed}.", *parts)


what_does_it_cost = CostExplorer
