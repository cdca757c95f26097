"""The explorer of lesson 05: which card trains which model.

All arithmetic is that of `helpers.memory`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

from functools import lru_cache

import ipywidgets as widgets

from helpers import plots
from helpers.explorers.checks import one_of, whole
from helpers.explorers.frame import Explorer, legend, line, stacked, svg, tag, words
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
    """Memory to fine-tune a Llama by LoRA, as one stacked bar beside the GPUs' sizes.

        explorer = which_card()
        explorer                                             # shows it
        explorer.set("LLaMA-65B", rank=64, checkpointing=False)
        print(explorer.report())

    `model`, `stored`, `rank`, `sequence` and `checkpointing` hold what is shown; `ledger` (bytes), `card` (GB, or None
    where no single one is enough) follow from them.
    """

    text = "Choose a model and see which GPU it needs, in JupyterLab or Colab; or from Python as below."
    css = "ledger"
    may_be = {"model": one_of(MODELS), "stored": one_of(STORED), "rank": whole(1, MOST_RANK),
              "sequence": whole(LEAST_SEQUENCE, MOST_SEQUENCE), "checkpointing": one_of((True, False))}

    def __init__(self, model: str = "Llama-2-7B") -> None:
        self.model, self.stored = MODELS[0], list(STORED)[-1]
        self.rank, self.sequence, self.checkpointing = 16, 512, True
        late = {"continuous_update": False}
        self._build({"model": widgets.Dropdown(options=MODELS, description="Model"),
                     "stored": widgets.Dropdown(options=tuple(STORED), description="Base weights in")},
                    {"rank": widgets.IntSlider(16, 1, MOST_RANK, description="Rank r", **late),
                     "sequence": widgets.IntSlider(512, LEAST_SEQUENCE, MOST_SEQUENCE, 128,
                                                   description="Tokens in a row", **late)},
                    {"checkpointing": widgets.Checkbox(True, description="gradient checkpointing")})
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
        """Change what is shown; None keeps what is there."""
        super().set(model=model, stored=stored, rank=rank, sequence=sequence, checkpointing=checkpointing)

    def report(self) -> str:
        """What is shown, as plain text."""
        settings = (f"{self.model} in {self.stored}, r {self.rank}, {self.sequence:,} tokens, checkpointing "
                    f"{'on' if self.checkpointing else 'off'}")
        rows = [f"{name:12} {count / GIB:8.2f} GiB" for name, count in self.ledger.items()]
        total = f"{'total':12} {self.ledger.total / GIB:8.2f} GiB, and {RESERVE} set aside for CUDA"
        return "\n".join((settings, *rows, total, self.verdict))

    def _body(self) -> str:
        total = f"{self.ledger.total / GIB:.2f} GiB, with {RESERVE} more for CUDA. {self.verdict}."
        entries = [(f"{name} {count / GIB:.2f}", COLOURS[name]) for name, count in self.ledger.items() if count]
        return self._picture() + line(f"GiB: {legend(entries)}") + line(tag("b", total))

    def _picture(self) -> str:
        """One stacked bar with a line for each card."""
        needed = self.ledger.total / GIB + RESERVE
        shown = [card for card in CARDS if card <= needed] + [card for card in CARDS if card > needed][:1]
        scale = 680 / (1.08 * max(needed, *shown))
        parts = [stacked([(f"{name}: {count / GIB:.2f} GiB", count / GIB * scale, COLOURS.get(name, ""))
                          for name, count in (*self.ledger.items(), ("CUDA", RESERVE * GIB))], y=30, height=44)]
        taken = float("inf")  # where the next label to the right begins: small cards go without if there is no room
        for card in reversed(shown):
            x, chosen = 10 + card * scale, card == self.card
            look = {"stroke_width": 3} if chosen else {"stroke_width": 1.2, "stroke_dasharray": "5 4"}
            parts.append(tag("line", x1=x, x2=x, y1=20, y2=86, stroke="currentColor", **look))
            if chosen:
                parts.append(words(f"{card} GB", x, 14, font_size=13, font_weight="bold"))
            elif x + 20 < taken:
                parts.append(words(f"{card} GB", x, 102, font_size=13))
                taken = x - 20
        return svg("0 0 720 108", f"{self.model}: {needed - RESERVE:.1f} GiB. {self.verdict}.", *parts)


which_card = LedgerExplorer
