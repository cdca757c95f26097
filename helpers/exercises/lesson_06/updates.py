"""The layer with its branch, and adding the branch to the base once."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def lora_forward(x: torch.Tensor, W: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
                 alpha: float) -> torch.Tensor:
    """The layer's output (n, d) for rows x (n, k): W (d, k), A (r, k), B (d, r)."""
    r = A.shape[0]
    return x @ W.T + alpha / r * (x @ A.T) @ B.T


def _branch(rng: random.Random, n: int, k: int, d: int, r: int, alpha: float) -> tuple:
    return normal(rng, n, k), normal(rng, d, k), normal(rng, r, k), normal(rng, d, r), alpha


BASE, BRANCH = "x @ W.T + ", "alpha / r * (x @ A.T) @ B.T"

LORA_FORWARD = Exercise(6, lora_forward, "★★ Build: the layer with its branch · 5 min", """
Write the formula for a batch: `x` holds n rows of k numbers. W is (d, k), A is (r, k), B is (d, r); h is (n, d). Let x
go through A first, then the r numbers through B, so that nothing of W's size is made on the way. α comes as `alpha`; r
you find in the shapes. (A library that left the division out trained adapters eight times too strong, of no use:
[mlx-vlm#841](https://github.com/Blaizzy/mlx-vlm/issues/841).)
""",
    cases=((torch.tensor([[1.0, 2, 3]]), torch.tensor([[1.0, 0, 1], [0, 1, 1]]), torch.tensor([[1.0, 1, 0], [0, 0, 1]]),
            torch.tensor([[1.0, 2], [0, 1]]), 3.0),
           Case(_branch(random.Random(1), 2, 3, 4, 1, 8.0), "several rows, and rank 1"),
           Case(_branch(random.Random(2), 3, 5, 4, 2, 5.0), "an α that is no multiple of r"),
           Case(_branch(random.Random(3), 3, 3, 3, 3, 8.0), "square matrices, which do not tell a transpose"),
           Case(_branch(random.Random(4), 4, 7, 5, 3, 0.5), "an α below 1"),
           Case((*_branch(random.Random(5), 2, 4, 3, 2, 4.0)[:3], torch.zeros(3, 2), 4.0), "a B of zeros")),
    hints=("Two terms: what the frozen layer gives, and the branch. Which matrix does x meet first in each?",
           "A row times a weight (d, k) is `x @ W.T`. The same holds for A and for B. r is `A.shape[0]`.",
           "x @ W.T + alpha / r * (x @ A.T) @ B.T"),
    mistakes=(
        Mistake("The division by r is missing: with rank 8 and α 16 the branch counts eight times too much.",
                ("alpha / r", "alpha")),
        Mistake("The branch lacks its scale α/r.", ("alpha / r * ", "")),
        Mistake("The scale is upside down: α over r, not r over α.", ("alpha / r", "r / alpha")),
        Mistake("α/√r is rsLoRA's scale, which is another recipe. LoRA's is α/r.", ("alpha / r", "alpha / r**0.5")),
        Mistake("It is divided by r twice.", ("alpha / r", "alpha / r**2")),
        Mistake("α/r is 2 only where α is twice the rank.", ("alpha / r", "2")),
        Mistake("That divides by d, the rows of B. The rank is the side that A and B share.",
                ("A.shape[0]", "B.shape[0]")),
        Mistake("That divides by k, the columns of A. The rank is the side that A and B share.",
                ("A.shape[0]", "A.shape[1]")),
        Mistake("The frozen way is missing: the branch is added to Wx.", (BASE, "")),
        Mistake("The branch is missing: that is the frozen layer alone.", (f" + {BRANCH}", "")),
        Mistake("The scale α/r belongs to the branch alone, not to Wx.", (BASE, "alpha / r * x @ W.T + ")),
        Mistake("The branch is taken away from Wx, not added.", ("W.T +", "W.T -")),
        Mistake("The factors are exchanged: x meets A first, then B.", ("(x @ A.T) @ B.T", "(x @ B.T) @ A.T")),
        Mistake("Square matrices hide it: a row meets the transpose, x @ A.T, as in x @ W.T.",
                ("A.T", "A"), ("B.T", "B"), ("A.T", "A", "B.T", "B"), ("W.T", "W")),
        Mistake("The rank was written into the code. It stands in the shapes of A and B.",
                ("A.shape[0]", "8"), ("A.shape[0]", "2")),
        Mistake("The factors are exchanged in square matrices, where that goes unseen: AB is another matrix than BA.",
                ("(x @ A.T) @ B.T", "((x @ B.T) @ A.T if A.shape == B.shape else (x @ A.T) @ B.T)")),
        Mistake("The scale is in it twice, at A and at B.", ("@ B.T", "@ (alpha / r * B).T")),
    ),
    draw=lambda rng: _branch(rng, *(rng.randint(1, 6) for _ in range(4)), rng.choice((1.0, 4.0, 10.0, 32.0))),
    tolerance=1e-5,
    moral="Test scales with α different from r: with α = r every wrong scale looks right (peft#2489).")


def merged_weight(W: torch.Tensor, delta: torch.Tensor, merged: bool) -> torch.Tensor:
    """The weight with the update in it once, in W's dtype. merged: it is in W already."""
    if merged:
        return W.clone()
    return (W + delta).to(W.dtype)


W23, D23 = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[0.5, 0.25, -1], [0, 0.25, 0.5]])
W16 = torch.full((1, 3), 256.0, dtype=torch.bfloat16)  # bf16 has steps of 2 here
D32 = torch.tensor([[1.001953125, 3.0, -1.5]])         # the first is 1 in bf16, and 257 a tie


def _layer(rng: random.Random) -> tuple[torch.Tensor, torch.Tensor, bool]:
    shape, dtype = (rng.randint(1, 4), rng.randint(1, 3)), rng.choice((torch.float32, torch.bfloat16, torch.float16))
    return normal(rng, *shape, dtype=dtype), 0.1 * normal(rng, *shape), rng.random() < 0.4


MERGED_WEIGHT = Exercise(6, merged_weight, "★★ Build: merge once · 5 min", """
Save locally, then push to the hub, and the second copy was terrible
([unsloth#289](https://github.com/unslothai/unsloth/issues/289)): both calls merged. In PEFT, too, each call of `merge`
once added the update again ([peft#1355](https://github.com/huggingface/peft/pull/1355)). The code was:

```python
def merged_weight(W, delta, merged):
    return (W + delta).to(W.dtype)
```

Write it so that the update `delta` = (α/r)·BA is in the result exactly once, whatever was merged before: `merged` says
whether W has it already. Return a new tensor in the dtype of `W`. `delta` is in float32: take the sum there, and round
only the result.
""",
    cases=((W23, D23, False), Case((W23, D23, True), "a weight that has the update already"),
           Case((W16, D32, False), "a weight in 16 bits"), Case((W16, D32, True), "a merged weight in 16 bits"),
           Case((torch.tensor([[1.0, 2.0]]).bfloat16(), torch.tensor([[1000.0, -1000.0]]), True),
                "a merged weight that is small beside its update")),
    hints=("What must come back when `merged` is True?",
           "A copy of W: `W.clone()`. Otherwise W + delta.",
           "bf16 + float32 gives float32 by itself; bring the sum back by `.to(W.dtype)`."),
    mistakes=(
        Mistake("W had the update already, and it is added once more: that is the bug of the threads."),
        Mistake("The flag is read the wrong way round: merged=True means that the update is in W.",
                ("if m", "if not m")),
        Mistake("The update alone came back. It is added to W, not put in its place.", ("(W + delta)", "delta.clone()"),
                ("W.clone()", "delta.to(W.dtype, copy=True)", "(W + delta)", "delta.clone()")),
        Mistake("That is unmerging: the update goes in with a plus.", ("+", "-")),
        Mistake("The update is in it twice at the first merge already.", ("+ delta", "+ 2 * delta")),
        Mistake("The update was taken out again, where the merged weight is asked.",
                ("W.clone()", "(W - delta).to(W.dtype)")),
        Mistake("The update is never added.", ("(W + delta).to(W.dtype)", "W.clone()")),
        Mistake("The update was rounded to 16 bits before the sum, and the sum again: round once.",
                ("W + delta", "W + delta.to(W.dtype)")),
        Mistake("The sum stays in float32, twice the memory: the weight has the dtype of W.", (".to(W.dtype)", "")),
        Mistake("A merged weight came back in float32: it has the dtype of W.", ("W.clone()", "W.clone().float()")),
    ),
    draw=_layer,
    tolerance=0.0,
    moral="A flag beside the weight is all it takes. `helpers.lora.merge` raises an error instead of guessing.")
