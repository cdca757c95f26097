"""What the branch is worth as a weight, and adding it to the base once."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def update_weight(A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """What LoRA adds to the weight, (d, k), from A (r, k) and B (d, r)."""
    r = A.shape[0]
    return alpha / r * B @ A


def _pair(rng: random.Random, r: int, d: int, k: int) -> tuple[torch.Tensor, ...]:
    return normal(rng, r, k), normal(rng, d, r)


UPDATE_WEIGHT = Exercise(6, update_weight, "★ Spot the bug: eight times too strong · 5 min", """
A library's own defaults, rank 8 and alpha 16, gave adapters that were of no use, and training could collapse
([mlx-vlm#841](https://github.com/Blaizzy/mlx-vlm/issues/841)). This is what its layer added to the weight:

```python
def update_weight(A, B, alpha):
    return alpha * (B @ A)
```

Another left the factor out altogether when it merged ([FastVideo#870](https://github.com/hao-ai-lab/FastVideo/pull/870)).
Put it right. A has shape (r, k), B has shape (d, r), and the result has the shape of the weight, (d, k).
""",
    cases=((*_pair(random.Random(1), 3, 2, 4), 15.0), Case((*_pair(random.Random(2), 2, 3, 5), 5.0), "a rank below d"),
           Case((*_pair(random.Random(3), 3, 3, 3), 8.0), "square matrices, where A @ B has the right shape too"),
           Case((*_pair(random.Random(4), 1, 2, 3), 16.0), "rank 1")),
    hints=("Which number is the rank, and where do you find it in the shapes of A and B?",
           "h = Wx + (α/r)·BAx: x meets A first, so A stands at the right.",
           "r = A.shape[0], and the update is alpha / r * B @ A."),
    mistakes=(
        Mistake("The division by r is missing: with rank 8 and alpha 16 the branch counts eight times too much."),
        Mistake("The scale α/r is missing: A and B were trained behind it.", ("alpha / r * ", "")),
        Mistake("The scale is upside down: α over r, not r over α.", ("alpha / r", "r / alpha")),
        Mistake("α/√r is rsLoRA's scale, which is another recipe. LoRA's is α/r.", ("alpha / r", "alpha / r**0.5")),
        Mistake("It is divided by r twice.", ("alpha / r", "alpha / r**2")),
        Mistake("That divides by d, the rows of B. The rank is the side they share.", ("A.shape[0]", "B.shape[0]")),
        Mistake("That divides by k, the columns of A. The rank is the side they share.", ("A.shape[0]", "A.shape[1]")),
        Mistake("Right numbers, but lying on their side: the weight is (d, k).", ("B @ A", "A.T @ B.T")),
        Mistake("α/r is 2 only where alpha is twice the rank.", ("alpha / r", "2")),
        Mistake("The factors are exchanged: x meets A first, so A stands at the right.", ("B @ A", "A @ B")),
        Mistake("The factors are exchanged in square matrices, where that goes unseen: AB is another matrix than BA.",
                ("B @ A", "(A @ B if A.shape == B.shape else B @ A)")),
    ),
    draw=lambda rng: (*_pair(rng, *(rng.randint(1, 9) for _ in range(3))), rng.choice((1.0, 4.0, 10.0, 32.0))),
    tolerance=1e-5,
    moral="Test scales with α different from r: with α = r every one of these mistakes looks right (peft#2489).")


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


MERGED_WEIGHT = Exercise(6, merged_weight, "★★ Spot the bug: the adapter applied twice · 6 min", """
Save locally, then push to the hub, and the second copy was terrible
([unsloth#289](https://github.com/unslothai/unsloth/issues/289)): both calls merged. In PEFT, too, each call of `merge`
once added the update again ([peft#1355](https://github.com/huggingface/peft/pull/1355)):

```python
def merged_weight(W, delta, merged):
    return (W + delta).to(W.dtype)
```

Write it so that the update is in the result exactly once, whatever was merged before. Return a new tensor in the dtype
of `W`. `delta` is in float32: take the sum there, and round only the result.
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
