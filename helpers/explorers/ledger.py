"""The forecast explorer: which card trains which model.

All arithmetic is that of `helpers.memory`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import html
from functools import lru_cache

import ipywidgets as widgets

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.memory import CARDS, GIB, LLAMAS, Ledger, forecast_training, smallest_card

MODELS = tuple(name for name, config in LLAMAS.items() if hasattr(config, "num_key_value_heads"))
STORED = {"fp32": (32, False), "bf16": (16, False), "NF4": (4, False), "NF4 + double quantization": (4, True)}
COLOURS = {"weights": plots.FROZEN, "scales": plots.SKY, "adapters": plots.TRAINED, "gradients": plots.PURPLE,
           "optimizer": "#B8C0C8", "activations": plots.GREEN, "workspace": plots.GREY}
RESERVE = 1  # GiB for CUDA and the allocator's gaps, as `smallest_card` sets aside
MOST_RANK, LEAST_SEQUENCE, MOST_SEQUENCE = 256, 128, 8192


@lru_cache(maxsize=512)
def forecast(model: str, stored: str, rank: int, sequence: int, checkpointing: bool) -> Ledger:
    """`forecast_training` of a model by name, batch 1, LoRA on all linear layers; remembered, as it takes a moment."""
    bits, double_quant = STORED[stored]
    return forecast_training(LLAMAS[model], r=rank, sequence=sequence, bits=bits, double_quant=double_quant,
                             checkpointing=checkpointing)


class LedgerExplorer(Explorer):
    """Memory to fine-tune a Llama by LoRA, as one stacked bar beside the GPUs' sizes. Made by `which_card`.

    `model`, `stored`, `rank`, `sequence` and `checkpointing` hold what is shown; `ledger` (bytes), `card` (GB, or None
    where no single one is enough) follow from them; `message` is what was wrong, or "".
    """

    def __init__(self, model: str = "Llama-2-7B") -> None:
        self.model, self.stored, self.message = MODELS[0], list(STORED)[-1], ""
        self.rank, self.sequence, self.checkpointing = 16, 512, True
        style, wide = {"description_width": "8em"}, {"width": "26em"}
        self.model_box = widgets.Dropdown(options=MODELS, description="Model", style=style, layout=wide)
        self.stored_box = widgets.Dropdown(options=tuple(STORED), value=self.stored, description="Base weights in",
                                           style=style, layout=wide)
        self.rank_box = widgets.IntSlider(16, 1, MOST_RANK, description="Rank r", continuous_update=False, style=style,
                                          layout=wide)
        self.sequence_box = widgets.IntSlider(512, LEAST_SEQUENCE, MOST_SEQUENCE, 128, description="Tokens in a row",
                                              continuous_update=False, style=style, layout=wide)
        self.checkpointing_box = widgets.Checkbox(True, description="gradient checkpointing", indent=True, style=style)
        self.shown = widgets.HTML()
        self.ui = widgets.VBox([widgets.HBox([self.model_box, self.stored_box], layout={"flex_flow": "row wrap"}),
                                widgets.HBox([self.rank_box, self.sequence_box], layout={"flex_flow": "row wrap"}),
                                self.checkpointing_box, self.shown])
        self.text = "Choose a model and see which GPU it needs, in JupyterLab or Colab; or from Python as below."
        self._listening = True
        for box in (self.model_box, self.stored_box, self.rank_box, self.sequence_box, self.checkpointing_box):
            box.observe(self._chosen, "value")
        self.set(model)

    @property
    def ledger(self) -> Ledger:
        """The forecast in bytes, by what it is for."""
        return forecast(self.model, self.stored, self.rank, self.sequence, self.checkpointing)

    @property
    def card(self) -> int | None:
        """GB of the smallest card that is enough, a gibibyte set aside; None where none is."""
        return smallest_card(self.ledger.total)

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return f"Smallest card: {self.card} GB" if self.card else f"No single card of {max(CARDS)} GB or less is enough"

    def set(self, model: str | None = None, stored: str | None = None, rank: int | None = None,
            sequence: int | None = None, checkpointing: bool | None = None) -> None:
        """Change what is shown; None keeps what is there. What is not possible is named, and changes nothing."""
        self.message = _wrong(model, stored, rank, sequence, checkpointing)
        if not self.message:
            self.model = self.model if model is None else model
            self.stored = self.stored if stored is None else stored
            self.rank = self.rank if rank is None else rank
            self.sequence = self.sequence if sequence is None else sequence
            self.checkpointing = self.checkpointing if checkpointing is None else checkpointing
        self._render()

    def report(self) -> str:
        """What is shown, as plain text."""
        settings = (f"{self.model} in {self.stored}, r {self.rank}, {self.sequence:,} tokens, checkpointing "
                    f"{'on' if self.checkpointing else 'off'}")
        rows = [f"{name:12} {count / GIB:8.2f} GiB" for name, count in self.ledger.items()]
        total = f"{'total':12} {self.ledger.total / GIB:8.2f} GiB, and {RESERVE} set aside for CUDA"
        return "\n".join((settings, *rows, total, self.verdict))

    def _chosen(self, change: dict) -> None:
        if self._listening:
            self.set(self.model_box.value, self.stored_box.value, self.rank_box.value, self.sequence_box.value,
                     self.checkpointing_box.value)

    def _render(self) -> None:
        self._listening = False
        try:
            self.model_box.value, self.stored_box.value = self.model, self.stored
            self.rank_box.value, self.sequence_box.value = self.rank, self.sequence
            self.checkpointing_box.value = self.checkpointing
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        legend = "".join(
            f'<span style="margin-right:1.2em;white-space:nowrap"><span style="display:inline-block;width:.8em;'
            f'height:.8em;background:{COLOURS[name]}"></span> {name} {count / GIB:.2f}</span> '
            for name, count in self.ledger.items() if count)
        self.shown.value = (
            f'<div class="ledger" aria-live="polite" style="max-width:720px;padding:6px 0">{message}{self._bar()}'
            f'<p style="line-height:1.5;margin:4px 0">GiB: {legend}</p><p style="margin:4px 0">'
            f"<b>{self.ledger.total / GIB:.2f} GiB, with {RESERVE} more for CUDA. {self.verdict}.</b></p></div>")

    def _bar(self) -> str:
        """One stacked bar as SVG, 720 wide, with a line for each card; text in the page's own colour."""
        needed = self.ledger.total / GIB + RESERVE
        shown = [card for card in CARDS if card <= needed] + [card for card in CARDS if card > needed][:1]
        scale = 680 / (1.08 * max(needed, *shown))
        parts, x = [], 10.0
        for name, count in (*self.ledger.items(), ("CUDA", RESERVE * GIB)):
            fill = f'fill="{COLOURS[name]}"' if name in COLOURS else 'fill="none" stroke="currentColor"'
            width = count / GIB * scale
            parts.append(f'<rect x="{x:.1f}" y="30" width="{width:.1f}" height="44" {fill}><title>{name}: '
                         f"{count / GIB:.2f} GiB</title></rect>")
            x += width
        taken = float("inf")  # where the next label to the right begins: small cards go without if there is no room
        for card in reversed(shown):
            line, chosen = 10 + card * scale, card == self.card
            look = 'stroke-width="3"' if chosen else 'stroke-width="1.2" stroke-dasharray="5 4"'
            parts.append(f'<line x1="{line:.1f}" x2="{line:.1f}" y1="20" y2="86" stroke="currentColor" {look}/>')
            if chosen or line + 20 < taken:
                weight = ' font-weight="bold"' if chosen else ""
                parts.append(f'<text x="{line:.1f}" y="{14 if chosen else 102}" text-anchor="middle" font-size="13" '
                             f'fill="currentColor"{weight}>{card} GB</text>')
                taken = taken if chosen else line - 20
        label = html.escape(f"{self.model}: {needed - RESERVE:.1f} GiB. {self.verdict}.")
        return f'<svg viewBox="0 0 720 108" width="100%" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _wrong(model: object, stored: object, rank: object, sequence: object, checkpointing: object) -> str:
    """What is wrong with a setting, or ""."""
    if model is not None and model not in MODELS:
        return f"{model!r} is not in the list: take {', '.join(MODELS)}."
    if stored is not None and stored not in tuple(STORED):
        return f"Weights are not stored in {stored!r} here: take {', '.join(STORED)}."
    if rank is not None and not _whole(rank, 1, MOST_RANK):
        return f"rank={rank!r}: take a whole number from 1 to {MOST_RANK}."
    if sequence is not None and not _whole(sequence, LEAST_SEQUENCE, MOST_SEQUENCE):
        return f"sequence={sequence!r}: take a whole number of tokens from {LEAST_SEQUENCE} to {MOST_SEQUENCE:,}."
    if checkpointing is not None and not isinstance(checkpointing, bool):
        return f"checkpointing={checkpointing!r}: it is True or False."
    return ""


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def which_card(model: str = "Llama-2-7B") -> LedgerExplorer:
    """The explorer of lesson 05: what a fine-tune takes, and the smallest card that has it.

        explorer = which_card()
        explorer                                             # shows it
        explorer.set("LLaMA-65B", rank=64, checkpointing=False)
        print(explorer.report())
    """
    return LedgerExplorer(model)
