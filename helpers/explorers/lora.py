"""The explorer of lesson 06: how many weights LoRA trains, and what they take.

All arithmetic is that of `helpers.memory`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import html

import ipywidgets as widgets
from transformers import LlamaConfig

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.memory import LLAMAS, Ledger, census, lora_weights
from helpers.pocket import WEIGHTS

MODELS = {"pocket Llama": LlamaConfig.from_pretrained(WEIGHTS), "Llama-2-7B": LLAMAS["Llama-2-7B"]}
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
LAYERS = (*ATTENTION, *FEED_FORWARD)
MOST_RANK = 64
COLOURS = {"adapter": plots.TRAINED, "gradients": plots.PURPLE, "optimizer": "#B8C0C8"}
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


def amount(count: int) -> str:
    """Bytes for a reader: "152.5 MiB"."""
    size, unit = next((size, unit) for size, unit in UNITS if count >= size or size == 1)
    return f"{count / size:,.1f} {unit}" if size > 1 else f"{count} {unit}"


def training_ledger(weights: int) -> Ledger:
    """Bytes that training so many fp32 weights by Adam adds to the model: themselves, gradients, two states each."""
    return Ledger({"adapter": 4 * weights, "gradients": 4 * weights, "optimizer": 8 * weights})


class LoraExplorer(Explorer):
    """Rank, α and places of LoRA against the weights it trains and their bytes. Made by `place_adapters`.

    `model`, `rank`, `alpha` and `layers` (endings of names) hold what is shown; `trained`, `share` (of all weights, in
    0 … 1), `scaling` (α/r) and `ledger` (bytes) follow from them; `message` is what was wrong, or "".
    """

    def __init__(self, model: str = "pocket Llama") -> None:
        self.model, self.rank, self.alpha, self.layers, self.message = "pocket Llama", 8, 16.0, LAYERS, ""
        style, wide = {"description_width": "6em"}, {"width": "26em"}
        self.model_box = widgets.Dropdown(options=tuple(MODELS), description="Model", style=style, layout=wide)
        self.rank_box = widgets.IntSlider(8, 1, MOST_RANK, description="Rank r", continuous_update=False, style=style,
                                          layout=wide)
        self.alpha_box = widgets.FloatText(16, description="Alpha α", style=style, layout={"width": "13em"})
        self.layer_boxes = {name: widgets.Checkbox(True, description=name, indent=False, layout={"width": "8em"})
                            for name in LAYERS}
        self.shown = widgets.HTML()
        row = {"flex_flow": "row wrap"}
        self.ui = widgets.VBox([widgets.HBox([self.model_box, self.rank_box, self.alpha_box], layout=row),
                                widgets.HBox(list(self.layer_boxes.values()), layout=row), self.shown])
        self.text = "Set rank and places of the adapters here, in JupyterLab or Colab; or from Python as below."
        self._listening = True
        for control in (self.model_box, self.rank_box, self.alpha_box, *self.layer_boxes.values()):
            control.observe(self._chosen, "value")
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
        """Change what is shown; None keeps what is there. What is not possible is named, and changes nothing.

        layers: endings such as ["q_proj", "v_proj"], or "all-linear".
        """
        layers = LAYERS if isinstance(layers, str) and layers == "all-linear" else layers
        self.message = _wrong(model, rank, alpha, layers)
        if not self.message:
            self.model = self.model if model is None else model
            self.rank = self.rank if rank is None else rank
            self.alpha = self.alpha if alpha is None else float(alpha)
            self.layers = self.layers if layers is None else tuple(name for name in LAYERS if name in layers)
        self._render()

    def report(self) -> str:
        """What is shown, as plain text."""
        places = "all linear layers" if self.layers == LAYERS else ", ".join(self.layers)
        entries = {**self.ledger, "total": self.ledger.total}
        rows = [f"{name:12} {amount(count):>12}" for name, count in entries.items()]
        return "\n".join((f"{self.model}, r {self.rank}, α {self.alpha:g} (α/r = {self.scaling:g}), on {places}",
                          f"trained      {self.trained:,} weights, {100 * self.share:.3g} % of the model", *rows))

    def _chosen(self, change: dict) -> None:
        if self._listening:
            chosen = [name for name, box in self.layer_boxes.items() if box.value]
            self.set(self.model_box.value, self.rank_box.value, self.alpha_box.value, chosen)

    def _render(self) -> None:
        self._listening = False
        try:
            self.model_box.value, self.rank_box.value, self.alpha_box.value = self.model, self.rank, self.alpha
            for name, box in self.layer_boxes.items():
                box.value = name in self.layers
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        everything = training_ledger(census(MODELS[self.model])[0])
        legend = "".join(
            f'<span style="margin-right:1.2em;white-space:nowrap"><span style="display:inline-block;width:.8em;'
            f'height:.8em;background:{COLOURS[name]}"></span> {name} {amount(count)}</span> '
            for name, count in self.ledger.items())
        self.shown.value = (
            f'<div class="lora-budget" aria-live="polite" style="max-width:720px;padding:6px 0">{message}'
            f'<p style="margin:4px 0"><b>{self.trained:,} trained weights, {100 * self.share:.3g} % of the model</b>; '
            f"the branch counts α/r = {self.scaling:g} times</p>{self._bar(everything)}"
            f'<p style="line-height:1.5;margin:4px 0">{legend}</p><p style="margin:4px 0">Together '
            f"{amount(self.ledger.total)}, the small bar. Training every weight the same way takes "
            f"{amount(everything.total)}, the large one.</p></div>")

    def _bar(self, everything: Ledger) -> str:
        """Two stacked bars in one scale as SVG, 720 wide: what the adapters take, and what all weights would."""
        parts, scale = [], 700 / everything.total
        for y, ledger in ((4, self.ledger), (30, everything)):
            x = 10.0
            for name, count in ledger.items():
                parts.append(f'<rect x="{x:.2f}" y="{y}" width="{count * scale:.2f}" height="20" '
                             f'fill="{COLOURS[name]}"/>')
                x += count * scale
        label = html.escape(f"Adapters {amount(self.ledger.total)}, everything {amount(everything.total)}")
        return f'<svg viewBox="0 0 720 54" width="100%" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _wrong(model: object, rank: object, alpha: object, layers: object) -> str:
    """What is wrong with a setting, or ""."""
    if model is not None and not (isinstance(model, str) and model in MODELS):
        return f"{model!r} is not in the list: take {' or '.join(MODELS)}."
    if rank is not None and not (isinstance(rank, int) and not isinstance(rank, bool) and 1 <= rank <= MOST_RANK):
        return f"rank={rank!r}: take a whole number from 1 to {MOST_RANK}."
    if alpha is not None and not (isinstance(alpha, int | float) and not isinstance(alpha, bool) and 0 < alpha <= 1e6):
        return f"alpha={alpha!r} would switch the branch off, or blow it up: take a number above 0, say twice the rank."
    if layers is None:
        return ""
    if isinstance(layers, str) or not isinstance(layers, list | tuple):
        return f'layers={layers!r}: take "all-linear" or a list of names such as ["q_proj", "v_proj"].'
    if unknown := [name for name in layers if name not in LAYERS]:
        return f"{unknown[0]!r} is no linear layer of a Llama: take some of {', '.join(LAYERS)}."
    return "" if layers else "Without a layer there is nothing to train: choose at least one."


def place_adapters(model: str = "pocket Llama") -> LoraExplorer:
    """The explorer of lesson 06: rank, α and which layers, against what is trained and what that takes.

        explorer = place_adapters()
        explorer                                             # shows it
        explorer.set("Llama-2-7B", rank=64, layers=["q_proj", "v_proj"])
        print(explorer.report())
    """
    return LoraExplorer(model)
