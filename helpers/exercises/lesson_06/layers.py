"""The branch with its dropout."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


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


FORWARD_WITH_DROPOUT = Exercise(6, forward_with_dropout, "★★ Spot the bug: dropout in the wrong place · 6 min", """
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
