"""The explorer of lesson 06: how many weights LoRA trains, and what they take.

All arithmetic is that of `helpers.memory`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import ipywidgets as widgets
from transformers import LlamaConfig

from helpers import plots
from helpers.explorers.checks import number, one_of, said, whole
from helpers.explorers.frame import Explorer, legend, line, stacked, svg, tag
from helpers.memory import GIB, LLAMAS, Ledger, census, lora_weights
from helpers.pocket import WEIGHTS

MODELS = {"pocket Llama": LlamaConfig.from_pretrained(WEIGHTS), "Llama-2-7B": LLAMAS["Llama-2-7B"]}
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
LAYERS = (*ATTENTION, *FEED_FORWARD)
MOST_RANK = 64
COLOURS = {"adapter": plots.TRAINED, "gradients": plots.PURPLE, "optimizer": "#B8C0C8"}
UNITS = ((GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def amount(count: int) -> str:
    """Bytes for a reader: "152.5 MiB"."""
    size, unit = next((size, unit) for size, unit in UNITS if count >= size or size == 1)
    return f"{count / size:,.1f} {unit}" if size > 1 else f"{count} {unit}"


def training_ledger(weights: int) -> Ledger:
    """Bytes that training so many fp32 weights by Adam adds to the model: themselves, gradients, two states each."""
    return Ledger({"adapter": 4 * weights, "gradients": 4 * weights, "optimizer": 8 * weights})


def some_layers(name: str, value: object) -> tuple[str, ...]:
    """Some of LAYERS, in their order: endings of names in a list, or "all-linear" for all."""
    if isinstance(value, str) and value == "all-linear":
        return LAYERS
    if not isinstance(value, list | tuple):
        raise ValueError(f'{name}={said(value)}: take "all-linear" or a list of names such as ["q_proj", "v_proj"].')
    wanted = [one_of(LAYERS)(name, layer) for layer in value]
    if not wanted:
        raise ValueError("Without a layer there is nothing to train: choose at least one.")
    return tuple(layer for layer in LAYERS if layer in wanted)


class LoraExplorer(Explorer):
    """Rank, α and places of LoRA against the weights it trains and their bytes.

        explorer = place_adapters()
        explorer                                             # shows it
        explorer.set("Llama-2-7B", rank=64, layers=["q_proj", "v_proj"])
        print(explorer.report())

    `model`, `rank`, `alpha` and `layers` (endings of names) hold what is shown; `trained`, `share` (of all weights, in
    0 … 1), `scaling` (α/r) and `ledger` (bytes) follow from them.
    """

    text = "Set rank and places of the adapters here, in JupyterLab or Colab; or from Python as below."
    css, accent, label_width = "lora-budget", plots.TRAINED, "6em"
    may_be = {"model": one_of(MODELS), "rank": whole(1, MOST_RANK), "layers": some_layers,
              "alpha": number(1e-6, 1e6, "take a number above 0, say twice the rank")}

    def __init__(self, model: str = "pocket Llama") -> None:
        self.model, self.rank, self.alpha, self.layers = "pocket Llama", 8, 16.0, LAYERS
        self.layer_boxes = {name: widgets.Checkbox(True, description=name, indent=False, layout={"width": "8em"})
                            for name in LAYERS}
        self._build({"model": widgets.Dropdown(options=tuple(MODELS), description="Model"),
                     "rank": widgets.IntSlider(8, 1, MOST_RANK, description="Rank r", continuous_update=False),
                     "alpha": widgets.FloatText(16, description="Alpha α", layout={"width": "13em"})},
                    self.layer_boxes.values())
        for control in self.layer_boxes.values():
            self._listen(control, lambda _: self.set(layers=[name for name, c in self.layer_boxes.items() if c.value]))
        self.set(model)

    @property
    def trained(self) -> int:
        """How many weights are trained."""
        return lora_weights(MODELS[self.model], self.rank, self.layers)

    @property
    def share(self) -> float:
        """Trained weights by those of the model without its adapters."""
        return self.trained / census(MODELS[self.model])[0]

    @property
    def scaling(self) -> float:
        """α/r, by which the branch is multiplied."""
        return self.alpha / self.rank

    @property
    def ledger(self) -> Ledger:
        """Bytes of the adapters in fp32, their gradients and Adam's two states."""
        return training_ledger(self.trained)

    def set(self, model: str | None = None, rank: int | None = None, alpha: float | None = None,
            layers: tuple[str, ...] | list[str] | str | None = None) -> None:
        """Change what is shown; None keeps what is there. layers: such as ["q_proj", "v_proj"], or "all-linear"."""
        super().set(model=model, rank=rank, alpha=alpha, layers=layers)

    def report(self) -> str:
        """What is shown, as plain text."""
        places = "all linear layers" if self.layers == LAYERS else ", ".join(self.layers)
        entries = {**self.ledger, "total": self.ledger.total}
        rows = [f"{name:12} {amount(count):>12}" for name, count in entries.items()]
        return "\n".join((f"{self.model}, r {self.rank}, α {self.alpha:g} (α/r = {self.scaling:g}), on {places}",
                          f"trained      {self.trained:,} weights, {100 * self.share:.3g} % of the model", *rows))

    def _follow(self) -> None:
        super()._follow()
        for name, control in self.layer_boxes.items():
            control.value = name in self.layers

    def _body(self) -> str:
        everything = training_ledger(census(MODELS[self.model])[0])
        trained = tag("b", f"{self.trained:,} trained weights, {100 * self.share:.3g} % of the model")
        together, all_of_it = amount(self.ledger.total), amount(everything.total)
        scale = 700 / everything.total
        bars = [stacked([(name, count * scale, COLOURS[name]) for name, count in ledger.items()], y, height=20)
                for y, ledger in ((4, self.ledger), (30, everything))]
        return (line(f"{trained}; the branch counts α/r = {self.scaling:g} times")
                + svg("0 0 720 54", f"Adapters {together}, everything {all_of_it}", *bars)
                + line(legend((f"{name} {amount(count)}", COLOURS[name]) for name, count in self.ledger.items()))
                + line(f"Together {together}, the small bar. Training every weight the same way takes {all_of_it}, the "
                       "large one."))


place_adapters = LoraExplorer
