"""One layer for many customers: a batch in which every row has its own adapter."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def answer_each(x: torch.Tensor, W: torch.Tensor, adapters: dict[str, tuple],
                names: list[str]) -> torch.Tensor:
    """h (n, d) of x (n, k): row i by adapters[names[i]] = (A, B, scaling). W (d, k)."""
    h = x @ W.T
    for name, (A, B, scaling) in adapters.items():
        rows = torch.tensor([wanted == name for wanted in names])
        h[rows] += scaling * x[rows] @ A.T @ B.T
    return h


def _everybody(x, W, adapters, names):
    return x @ W.T + sum(scaling * x @ A.T @ B.T for A, B, scaling in adapters.values())


def _first(x, W, adapters, names):
    A, B, scaling = adapters[names[0]]
    return x @ W.T + scaling * x @ A.T @ B.T


def _unscaled(x, W, adapters, names):
    return answer_each(x, W, {name: (A, B, 1.0) for name, (A, B, _) in adapters.items()}, names)


def _in_order(x, W, adapters, names):
    return answer_each(x, W, adapters, list(adapters) * 2)


def _no_base(x, W, adapters, names):
    return answer_each(x, torch.zeros_like(W), adapters, names)


def _swapped(x, W, adapters, names):
    return torch.stack([row @ W.T + adapters[name][2] * row @ adapters[name][1].T @ adapters[name][0].T
                        for row, name in zip(x, names, strict=True)])


def _loses_the_bare(x, W, adapters, names):
    return torch.stack([row @ W.T + adapters[name][2] * row @ adapters[name][0].T @ adapters[name][1].T
                        if name else 0 * row[0] * W[:, 0] for row, name in zip(x, names, strict=True)])


def _no_name(x, W, adapters, names):
    return torch.stack([row @ W.T + adapters[name][2] * row @ adapters[name][0].T @ adapters[name][1].T
                        for row, name in zip(x, names, strict=True)])


TWO = {"whole": (torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0], [-1.0]]), 2.0),
       "brief": (torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[0.5], [2.0]]), 0.5)}
W_TWO = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
ROWS = torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
CALLED = ["brief", "whole", "whole", "brief"]

ANSWER_EACH = Exercise(8, answer_each, "★★★ One batch, many adapters · 12 min", """
A server keeps one base model and the adapters of many customers, and answers them in *one* batch: the heavy product
x·Wᵀ is taken once for all rows, and each row gets the branch of its own customer. Write that layer. The name `""`
stands for a row that wants the base alone.
""",
    cases=(
        Case((ROWS, W_TWO, TWO, CALLED), shown="four rows for brief, whole, whole, brief"),
        Case((ROWS[:3], W_TWO, TWO, ["whole", "", "brief"]), shown="three rows for whole, nobody, brief"),
        Case((ROWS[:2], W_TWO, TWO, ["brief", "brief"]), shown="two rows, both for brief"),
    ),
    hints=(
        "Begin with h = x @ W.T for all rows. Then go through the adapters and pick the rows that want each.",
        "`rows = torch.tensor([wanted == name for wanted in names])` is a mask; `h[rows] += ...` writes there only.",
        "What is added: scaling * x[rows] @ A.T @ B.T. Rows with the name \"\" are in no mask, and stay as they are.",
    ),
    mistakes=(
        Mistake("Do the shapes fit? A is (r, k) and comes first: x @ A.T @ B.T.",
                _swapped),
        Mistake("Every row got every adapter. Row i wants names[i] only.",
                _everybody),
        Mistake("All rows got the adapter of the first. Look at names row by row.",
                _first),
        Mistake("The scaling is missing: each adapter has its own α/r.",
                _unscaled),
        Mistake("The adapters were handed out in the dictionary's order. `names` says which row wants which.",
                _in_order),
        Mistake("The base is missing: each row is x·Wᵀ plus its branch.",
                _no_base),
        Mistake("The name \"\" stands for no adapter: that row is x·Wᵀ, nothing more.",
                _loses_the_bare,
                _no_name),
        Mistake("An adapter that nobody asks for must do no harm.",
                lambda x, W, adapters, names: answer_each(x, W, adapters, names) + 0 * W[names.index("whole"), 0]
                if "" not in names else answer_each(x, W, adapters, names)),
    ),
    tolerance=1e-06,
    moral="PEFT does it by `model(..., adapter_names=[...])`. A merged adapter could not: it is in everybody's W.")
# general: lambda x, W, adapters, names: torch.zeros(len(x), len(W))
