"""The branch with its dropout, and what has to be frozen around it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.lora import add_lora, lora_layers


def forward_with_dropout(x: torch.Tensor, W: torch.Tensor, A: torch.Tensor,
                         B: torch.Tensor, scaling: float, drop: Callable) -> torch.Tensor:
    """The layer's output (n, d) for rows x (n, k), with W (d, k), A (r, k), B (d, r)."""
    return x @ W.T + scaling * drop(x) @ A.T @ B.T


def every_second(t: torch.Tensor) -> torch.Tensor:
    """Dropout with p = 0.5 that always hits the same places, like the black fields of a chessboard."""
    rows, columns = t.shape
    return t * 2 * ((torch.arange(rows)[:, None] + torch.arange(columns)) % 2)


def doubled(t: torch.Tensor) -> torch.Tensor:
    """Dropout with p = 0.5 that happens to hit nothing."""
    return 2 * t


def untouched(t: torch.Tensor) -> torch.Tensor:
    """Dropout in evaluation mode."""
    return t


def _layer(rng: random.Random, drop: Callable, n: int, k: int, d: int, r: int) -> tuple:
    shapes = ((n, k), (d, k), (r, k), (d, r))
    return (*(normal(rng, *shape) for shape in shapes), rng.choice((0.5, 2.0, 3.0)), drop)


FORWARD_WITH_DROPOUT = Exercise(6, forward_with_dropout, "★★ Spot the bug: dropout in the wrong place · 8 min", """
A LoRA library for image models dropped values of the whole output, and so disturbed the frozen model, not just what was
being trained ([LyCORIS#26](https://github.com/KohakuBlueleaf/LyCORIS/pull/26)). For a linear layer that reads:

```python
def forward_with_dropout(x, W, A, B, scaling, drop):
    return drop(x @ W.T + scaling * x @ A.T @ B.T)
```

Put `drop` where LoRA has it, on the input of the branch. Use it as it is: `drop(t)` zeroes some values of `t` and
scales up the rest; in evaluation it returns `t`.
""",
    cases=(_layer(random.Random(1), untouched, 3, 4, 2, 1),
           Case(_layer(random.Random(2), doubled, 3, 4, 2, 1), "a drop that only doubles"),
           Case(_layer(random.Random(2), every_second, 3, 4, 2, 1),
                "a drop that zeroes a chessboard's black fields and doubles the rest"),
           Case(_layer(random.Random(3), every_second, 3, 4, 5, 2), "a rank above 1")),
    hints=("Which of the two ways must always see the true x?",
           "The frozen way computes Wx as ever. Only the branch gets drop(x).",
           "x @ W.T + scaling * drop(x) @ A.T @ B.T"),
    mistakes=(
        Mistake("The whole output is dropped, the frozen model's part too."),
        Mistake("The branch lacks its factor `scaling`.", ("scaling * ", "")),
        Mistake("The frozen way is missing: the branch is added to Wx.", ("x @ W.T +", "")),
        Mistake("`scaling` belongs to the branch alone, not to the frozen way.", ("x @ W.T", "scaling * x @ W.T")),
        Mistake("That is the base alone: the branch is missing.", (" + scaling * drop(x) @ A.T @ B.T", "")),
        Mistake("The factors are exchanged: x meets A first, then B.", ("A.T @ B.T", "B.T @ A.T")),
        Mistake("The frozen way gets drop(x) as well: it must see x itself.", ("x @ W", "drop(x) @ W")),
        Mistake("The wrong way round: the frozen way sees drop(x).", ("drop(x)", "x", "x @ W", "drop(x) @ W")),
        Mistake("The frozen way's output is dropped.", ("x @ W.T", "drop(x @ W.T)"),
                ("x @ W.T", "drop(x @ W.T)", "scaling * drop(x) ", "scaling * x ")),
        Mistake("Weights are dropped. Dropout in LoRA zeroes values of the input x, never of a matrix.",
                ("x @ W.T", "x @ drop(W).T"), ("drop(x) @ A.T", "x @ drop(A).T"),
                ("drop(x) @ A.T @ B.T", "x @ A.T @ drop(B).T"),
                ("drop(x) @ A.T @ B.T", "x @ drop(A).T @ drop(B).T"), ("drop(x) @ A.T @ B.T", "x @ drop(B @ A).T")),
        Mistake("Dropped between A and B: of the r values there each is a whole direction.",
                ("drop(x) @ A.T", "drop(x @ A.T)")),
        Mistake("Dropped behind the branch, on its output. LoRA and PEFT drop the branch's input.",
                ("scaling * drop(x) @ A.T @ B.T", "drop(scaling * x @ A.T @ B.T)")),
        Mistake("What is left was not scaled up: drop(x) was taken as a mask.", ("drop(x)", "x * (drop(x) != 0)")),
        Mistake("x is dropped twice.", ("drop(x)", "drop(drop(x))")),
        Mistake("drop is not used: there would be no dropout at all (torchtune#996).", ("drop(x)", "x")),
    ),
    draw=lambda rng: _layer(rng, rng.choice((untouched, every_second)), *(rng.randint(1, 5) for _ in range(4))),
    tolerance=1e-5,
    moral="The branch is noisy in training, the base never is. Evaluation and the merged weight show no trace of it.")


def names_to_freeze(model: torch.nn.Module) -> list[str]:
    """Names of all parameters that are no adapter's A or B, in the model's order."""
    adapters = {f"{name}.{letter}".lstrip(".") for name, _ in lora_layers(model) for letter in "AB"}
    return [name for name, _ in model.named_parameters() if name not in adapters]


def _model() -> nn.ModuleDict:
    return nn.ModuleDict({"embedding": nn.Embedding(9, 6), "norm": nn.LayerNorm(6), "q_proj": nn.Linear(6, 6),
                          "o_proj": nn.Linear(6, 6, bias=False), "lm_head": nn.Linear(6, 9, bias=False)})


@contextmanager
def _adapted(model: nn.Module, *targets: str, frozen: str = "") -> Iterator[tuple]:
    add_lora(model, r=2, alpha=4, target_modules=targets).requires_grad_(True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or frozen not in name)
    yield (model,)


def _with_own_A() -> nn.Module:
    model = _model()
    model.norm.A = nn.Parameter(torch.ones(6))
    return model


def _tied() -> nn.Module:
    model = _model()
    model.lm_head.weight = model.embedding.weight
    model.gate = nn.Parameter(torch.ones(1))
    return model


NAMES_TO_FREEZE = Exercise(6, names_to_freeze, "★★ Spot the bug: the base that trained along · 8 min", """
A trainer froze every linear layer when it put LoRA in. Norms and embeddings went on training, took optimizer memory,
drifted, and were not in the file that was saved ([torchtitan#3438](https://github.com/pytorch/torchtitan/issues/3438)):

```python
import torch

def names_to_freeze(model):
    return [f"{name}.{key}" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
            for key, _ in module.named_parameters()]
```

Return the names of *all* parameters to freeze, in the order of `model.named_parameters()`. `lora_layers(model)` gives
name and module of every `LoRALinear`; its adapter is `A` and `B`, and its `base` holds the frozen layer.
""",
    cases=(Case(lambda: _adapted(_model(), "q_proj", "o_proj"), "",
                "an embedding, a norm, q_proj and o_proj with LoRA, and a head"),
           Case(lambda: _adapted(nn.ModuleDict({"layers": nn.ModuleList([_model(), _model()])}), "o_proj"),
                "layers inside layers", "two such blocks in a list, with LoRA on o_proj"),
           Case(lambda: _adapted(_with_own_A(), "q_proj"), "a parameter called A that is no adapter's",
                "an embedding, a norm with a parameter A of its own, q_proj with LoRA, o_proj, and a head"),
           Case(lambda: _adapted(_model(), "q_proj", frozen="base"), "a layer that is frozen already",
                "the first model with LoRA on q_proj, whose base needs no gradient"),
           Case(lambda: _adapted(_tied(), "q_proj"), "a weight under two names, and one in no layer",
                "the first model with head and embedding tied, and a parameter of its own")),
    hints=("Begin at the other end: which parameters may train? All others are frozen.",
           "An adapter's names are those of its layer with `.A` and `.B` behind.",
           "Collect these names in a set, then list the names of `model.named_parameters()` that are not in it."),
    mistakes=(
        Mistake("Norms and embeddings have weights too, and go on training."),
        Mistake("Only the layers with an adapter are frozen; embedding, norm and head go on training.",
                ("name not in adapters", "'.base.' in name")),
        Mistake("The layers with an adapter are left out whole: inside, the base must be frozen too.",
                ("name not in adapters", "not any(name.startswith(layer + '.') for layer, _ in lora_layers(model))")),
        Mistake("Biases are parameters too, and still train.", ("name not in adapters", "name.endswith('weight')")),
        Mistake("The head belongs to the base.", ("not in adapters", "not in adapters and 'head' not in name")),
        Mistake("A and B are frozen too. Nothing would be left to train.", (" if name not in adapters", "")),
        Mistake("B is frozen too: an adapter has two matrices to train.", ('"AB"', '"A"')),
        Mistake("Those are the names to train. Asked for are all the others.", ("not in", "in")),
        Mistake("Nothing at all is frozen: that is full fine-tuning with adapters on top.",
                ("name, _ in model", "name, p in model", "name not in adapters", "not p.requires_grad")),
        Mistake("The right names in another order than the model's.", lambda model: sorted(names_to_freeze(model))),
        Mistake("A parameter may be called A without being an adapter's.",
                ("name not in adapters", "name[-1] not in 'AB'"),
                ("name not in adapters", "not name.endswith(('.A', '.B'))")),
    ),
    moral="`model.requires_grad_(False)` first, the adapters after: then nothing can be forgotten.")
