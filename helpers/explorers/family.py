"""The explorer of lesson 08: what each method of the PEFT family trains, and what it adds when the model answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import ipywidgets as widgets
from transformers import LlamaConfig

from helpers import plots
from helpers.explorers.checks import one_of, whole
from helpers.explorers.frame import Explorer, Row
from helpers.memory import LLAMAS, linear_shapes, skeleton
from helpers.pocket import WEIGHTS

POCKET = "pocket Llama"
MODELS = (POCKET, "Llama-2-7B")
SIZES = {"everything": "", "head only": "", "bottleneck adapter": "m", "prompt tuning": "virtual tokens",
         "prefix tuning": "virtual tokens", "LLaMA-Adapter": "virtual tokens", "LoRA": "r", "DoRA": "r"}
DEFAULTS = {"m": 32, "virtual tokens": 16, "r": 8, "": 0}
MERGEABLE = {
    "everything": "nothing to merge: it is a whole model of its own",
    "head only": "nothing to merge: it takes the place of the old head",
    "bottleneck adapter": "no: between down and up stands a nonlinearity",
    "prompt tuning": "no: it stands in the input, and takes its place in the context",
    "prefix tuning": "no: it stands in the cache, not in a weight",
    "LLaMA-Adapter": "no: its share depends on the token that looks at it",
    "LoRA": "yes: W + (α/r)·BA, and nothing is added any more",
    "DoRA": "yes: m·(W + ΔW)/‖W + ΔW‖, and nothing is added any more",
}


@dataclass(frozen=True)
class Cost:
    """What a method costs. trained: of `weights` in the model. cached: numbers more in the cache of each conversation.

    per_token: multiply-adds for each generated token on top of `base`, unmerged; biases, softmax, norms do not count.
    """

    trained: int
    per_token: int
    base: int
    cached: int
    weights: int


@cache
def config(model: str) -> LlamaConfig:
    """The config of one of MODELS."""
    return LlamaConfig.from_pretrained(WEIGHTS) if model == POCKET else LLAMAS[model]


@cache
def shapes(model: str) -> tuple[int, tuple[tuple[int, int], ...]]:
    """How many weights the model has, and (out, in) of every linear layer but the head."""
    bare = skeleton(config(model))
    return sum(p.numel() for p in bare.parameters()), tuple(linear_shapes(bare).values())


def limit(method: str, model: str) -> int:
    """The largest size of the method: the smaller side of W for a rank, the width for m, the context for tokens."""
    known = config(model)
    return {"r": known.hidden_size, "m": known.hidden_size, "": 0}.get(SIZES[method], known.max_position_embeddings - 1)


def cost(method: str, size: int = 0, model: str = POCKET) -> Cost:
    """What a method trains and adds. size: r, m or virtual tokens, as SIZES names it; not read for the first two.

    Sources: LoRA Hu et al. 2021, section 4; adapters Houlsby et al. 2019, section 2.1; the others as PEFT 0.21 computes
    them: LLaMA-Adapter projects its virtual tokens and the query again at every step, DoRA multiplies out BA. tests
    compare with the models themselves and with torch's FlopCounterMode. Raises ValueError for what does not exist.
    """
    if method not in SIZES or model not in MODELS:
        raise ValueError(f"{method!r} on {model!r}: take one of {list(SIZES)} on one of {list(MODELS)}")
    if SIZES[method] and not 1 <= size <= limit(method, model):
        raise ValueError(f"{method} with {SIZES[method]} = {size}: take 1 to {limit(method, model)} on this model")
    known, (every, linears) = config(model), shapes(model)
    d, layers, head = known.hidden_size, known.num_hidden_layers, known.vocab_size * known.hidden_size
    base = head + sum(out * into for out, into in linears)
    tokens = 2 * layers * size * d  # a key and a value for each virtual token in every layer
    if method in ("everything", "head only"):
        return Cost(every if method == "everything" else head, 0, base, 0, every)
    if method == "bottleneck adapter":
        return Cost(2 * layers * (2 * size * d + d + size), 2 * layers * 2 * size * d, base, 0, every)
    if method == "prompt tuning":
        return Cost(size * d, tokens, base, tokens, every)
    if method == "prefix tuning":
        return Cost(tokens, tokens, base, tokens, every)
    if method == "LLaMA-Adapter":
        again = layers * (3 * d * d + 2 * size * d * d)  # q, v and o of the token; k and v of the virtual ones
        return Cost(layers * (size * d + 1), again + tokens, base, 0, every)
    thin = size * sum(out + into for out, into in linears)
    if method == "LoRA":
        return Cost(thin, thin, base, 0, every)
    product = size * sum(into * (into + out) for out, into in linears)  # BA, by way of the identity, for its lengths
    return Cost(thin + sum(out for out, _ in linears), thin + product, base, 0, every)


class FamilyExplorer(Explorer):
    """A method, its size and a model, with what is trained and what is added.

        explorer = choose_method("LoRA", 8)
        explorer                                       # shows it
        explorer.set("prompt tuning", 20, "Llama-2-7B")
        print(explorer.report())

    `method`, `size` and `model` hold what is shown, `cost` is computed from them.
    """

    text = "Choose a method, its size and a model here, in JupyterLab or Colab; or as in the next cell."
    css, accent, label_width, column = "family", plots.TRAINED, "7em", 20
    may_be = {"method": one_of(SIZES), "size": whole(0), "model": one_of(MODELS)}

    def __init__(self, method: str = "LoRA", size: int | None = None, model: str = POCKET) -> None:
        self.method, self.size, self.model = "LoRA", DEFAULTS["r"], POCKET
        self._build({"method": widgets.Dropdown(options=list(SIZES), value="LoRA", description="Method"),
                     "size": widgets.IntText(value=self.size, description="Size", continuous_update=False),
                     "model": widgets.Dropdown(options=list(MODELS), description="Model")})
        self.set(method, size, model)

    def set(self, method: str | None = None, size: int | None = None, model: str | None = None) -> None:
        """Show another method, size or model; None keeps it (a new kind of size starts at its default)."""
        def act() -> None:
            before = SIZES[self.method]
            self._take({"method": method, "size": size, "model": model})
            if size is None and SIZES[self.method] != before:
                self.size = DEFAULTS[SIZES[self.method]]
        self._answer(act)

    def _compute(self) -> None:
        self.cost = cost(self.method, self.size, self.model)

    def _rows(self) -> Iterable[Row]:
        c, name = self.cost, SIZES[self.method]
        return (("method", f"{self.method}{f', {name} = {self.size}' if name else ''}, on the {self.model}"),
                ("trained weights", f"{c.trained:,} of {c.weights:,} ({100 * c.trained / c.weights:.3g} %)"),
                ("file, 16 bit", f"{2 * c.trained / 1e6:,.3g} MB"),
                ("added per token", f"{c.per_token:,} multiply-adds, {100 * c.per_token / c.base:.3g} % of the base's"),
                ("added to the cache", f"{c.cached:,} numbers per conversation"),
                ("mergeable", MERGEABLE[self.method]))

    def _follow(self) -> None:
        super()._follow()
        self.controls["size"].description = SIZES[self.method] or "no size"
        self.controls["size"].disabled = not SIZES[self.method]


choose_method = FamilyExplorer
