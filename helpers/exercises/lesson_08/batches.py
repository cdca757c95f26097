"""One layer for many customers: a batch in which every row has its own adapter."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def answer_each(x: torch.Tensor, W: torch.Tensor, adapters: dict[str, tuple],
                names: list[str]) -> torch.Tensor:
    """h (n, d) of x (n, k): row i by adapters[names[i]] = (A, B, scaling). W (d, k)."""
    h = x @ W.T
    for name, (A, B, scaling) in adapters.items():
        rows = torch.tensor([wanted == name for wanted in names])
        h[rows] += scaling * x[rows] @ A.T @ B.T
    return h


def _batch(rng: random.Random, names: list[str], d: int, k: int, **adapters: tuple[int, float]) -> tuple:
    """A batch for `names`, in small whole numbers; `adapters` gives rank and scaling by name."""
    def drawn(*shape: int) -> torch.Tensor:
        return integers(rng, -3, 3, *shape).float()
    return drawn(len(names), k), drawn(d, k), {
        name: (drawn(r, k), drawn(d, r), scaling) for name, (r, scaling) in adapters.items()}, names


def _random_batch(rng: random.Random) -> tuple:
    called = rng.sample(["whole", "brief", "plain"], rng.randint(1, 3))
    names = [rng.choice([*called, ""]) for _ in range(rng.randint(1, 6))]
    adapters = {name: (rng.randint(1, 4), rng.choice([0.5, 2.0, 4.0])) for name in called}
    return _batch(rng, names, rng.randint(2, 5), rng.randint(2, 5), **adapters)


def _case(about: str, *names: str, **adapters: tuple[int, float]) -> Case:
    return Case(_batch(random.Random(about), list(names), 2, 3, **adapters), about)


def _once_a_row(x: torch.Tensor, W: torch.Tensor, adapters: dict, names: list[str]) -> torch.Tensor:
    counts = torch.tensor([names.count(name) for name in names])[:, None]
    return x @ W.T + counts * (answer_each(x, W, adapters, names) - x @ W.T)


ROWS = "wanted == name for wanted in names"
LOOP = "    for name, (A, B, scaling)"

ANSWER_EACH = Exercise(8, answer_each, "★★★ Build: one batch, many adapters · 9 min", """
A server keeps one base model and the adapters of many customers, and answers them in *one* batch: the heavy product
x·Wᵀ is taken once for all rows, and each row gets the branch of its own customer. Write that layer. The name `""`
stands for a row that wants the base alone.
""",
    cases=(_case("one row and one adapter", "whole", whole=(1, 1.0)),
           _case("a scaling that is not 1", "whole", whole=(1, 0.5)),
           _case("an adapter of rank 2", "whole", whole=(2, 2.0)),
           _case("several rows for one customer", "whole", "whole", "whole", "whole", whole=(1, 2.0)),
           _case("two customers", "brief", "whole", "whole", "brief", whole=(2, 2.0), brief=(1, 0.5)),
           _case("a row that wants the base alone", "whole", "", "brief", whole=(2, 2.0), brief=(1, 0.5)),
           _case("an adapter that nobody asks for", "brief", "brief", whole=(2, 2.0), brief=(1, 0.5))),
    hints=("Begin with h = x @ W.T for all rows. Then go through the adapters and pick the rows that want each.",
           "`rows = torch.tensor([wanted == name for wanted in names])` is a mask; `h[rows] += ...` writes there only.",
           'What is added: scaling * x[rows] @ A.T @ B.T. Rows with the name "" are in no mask, and stay as they are.'),
    mistakes=(
        Mistake("Every row got every adapter. Row i wants names[i] only.", (ROWS, "True for _ in names")),
        Mistake("All rows got the adapter of the first.", (ROWS, "name == names[0] for _ in names")),
        Mistake("The adapters were handed out in the dictionary's order. `names` says which row wants which.",
                (ROWS, "name == list(adapters)[n % len(adapters)] for n in range(len(names))")),
        Mistake("The rows came back sorted by customer. Row i of the answer belongs to row i of x.",
                ("return h", "return h[sorted(range(len(names)), key=names.__getitem__)]")),
        Mistake("All ended at the first row that wants the base alone: the rows behind it have their adapters.",
                (ROWS, "wanted == name and '' not in names[:n] for n, wanted in enumerate(names)")),
        Mistake("A customer with several rows got its branch several times: once for each row, in all of them.",
                _once_a_row),
        Mistake("The scaling is missing: each adapter has its own.", ("scaling * ", "")),
        Mistake("`scaling` is α/r already, and was divided by r once more.", ("scaling *", "scaling / len(A) *")),
        Mistake("The scaling belongs to the branch only; the base has none.",
                ("+= scaling * x[rows] @ A.T @ B.T", "= scaling * (h[rows] + x[rows] @ A.T @ B.T)")),
        Mistake("The base is missing: each row is x·Wᵀ plus its branch.",
                ("+= scaling", "= scaling"), ("= x @ W.T", "= 0 * x @ W.T")),
        Mistake("The name \"\" stands for no adapter: that row is x·Wᵀ, no more and no less.",
                (LOOP, "    h = h * torch.tensor([[float(bool(name))] for name in names])\n" + LOOP),
                (ROWS, "name == (wanted or list(adapters)[0]) for wanted in names"),
                (LOOP, "    [adapters[name] for name in names]\n" + LOOP)),
    ),
    draw=_random_batch, tolerance=1e-5,
    moral="PEFT does it by `model(..., adapter_names=[...])`. A merged adapter could not: it is in everybody's W.")
