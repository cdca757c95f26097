"""What the branch is worth as a weight, and adding it to the base once."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def update_weight(A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    """What LoRA adds to the weight, (d, k), from A (r, k) and B (d, r)."""
    r = A.shape[0]
    return alpha / r * B @ A


def _alpha_only(A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return alpha * (B @ A)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers, the same on every machine to the last bit but one."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


A24, B32 = torch.tensor([[1.0, 0, 2, 0], [0, 1, 0, -1]]), torch.tensor([[1.0, 2], [0, 1], [-1, 0]])
BA34 = torch.tensor([[1.0, 2, 2, -2], [0, 1, 0, -1], [-1, 0, -2, 0]])  # B32 @ A24
A88, B88 = draw(8, 8), draw(8, 8, seed=1)

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
    cases=(
        Case((A24, B32, 16.0)),
        Case((A88, B88, 8.0), shown="A (8, 8), B (8, 8), alpha=8.0"),
    ),
    hints=(
        "Which number is the rank, and where do you find it in the shapes of A and B?",
        "h = Wx + (α/r)·BAx: x meets A first, so A stands at the right.",
        "r = A.shape[0], and the update is alpha / r * B @ A.",
    ),
    mistakes=(
        Mistake("The division by r is missing: with rank 8 and alpha 16 the branch counts eight times too much."),
        Mistake("The scale α/r is missing: A and B were trained behind it, so without it the update is too weak.",
                lambda A, B, alpha: B @ A),
        Mistake("The scale is upside down: α over r, not r over α.",
                lambda A, B, alpha: A.shape[0] / alpha * B @ A),
        Mistake("α/√r is rsLoRA's scale, which is another recipe. LoRA's is α/r.",
                lambda A, B, alpha: alpha / A.shape[0] ** 0.5 * B @ A),
        Mistake("That divides by d, the rows of B. The rank is the side that A and B share: A.shape[0].",
                lambda A, B, alpha: alpha / B.shape[0] * B @ A),
        Mistake("That divides by k, the columns of A. The rank is the side that A and B share: A.shape[0].",
                lambda A, B, alpha: alpha / A.shape[1] * B @ A),
        Mistake("Right numbers, but lying on their side: the weight is (d, k), so no transpose is needed.",
                lambda A, B, alpha: (alpha / A.shape[0] * B @ A).T),
        Mistake("α/r is 2 only where alpha is twice the rank. Here alpha is 16 and the rank is 2.",
                lambda A, B, alpha: 2.0 * B @ A),
        Mistake("The update is the matrix product `B @ A`, (d, r) times (r, k), in this order. AB is another matrix.",
                lambda A, B, alpha: alpha / A.shape[0] * A @ B,
                lambda A, B, alpha: alpha / A.shape[0] * (A @ B if A.shape == B.shape else B @ A)),
    ),
    tolerance=0.001,
    moral="Test scales with α different from r: with α = r every one of these mistakes looks right (peft#2489).")
# general: lambda A, B, alpha: torch.zeros(B.shape[0], A.shape[1])


def merged_weight(W: torch.Tensor, delta: torch.Tensor, merged: bool) -> torch.Tensor:
    """The weight with the update in it once, in W's dtype. merged: it is in W already."""
    if merged:
        return W.clone()
    return (W + delta).to(W.dtype)


def _always(W: torch.Tensor, delta: torch.Tensor, merged: bool) -> torch.Tensor:
    return (W + delta).to(W.dtype)


W23, D23 = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[0.5, 0, -1], [0, 0.25, 0]])
W16 = torch.full((1, 3), 256.0, dtype=torch.bfloat16)  # bf16 has steps of 2 here
D32 = torch.tensor([[1.001953125, 3.0, -1.5]])         # the first is 1 in bf16, and 257 a tie

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
    cases=(
        Case((W23, D23, False)),
        Case((W23, D23, True)),
        Case((W16, D32, False)),
    ),
    hints=(
        "What must come back when `merged` is True?",
        "A copy of W: `W.clone()`. Otherwise W + delta.",
        "bf16 + float32 gives float32 by itself; bring the sum back by `.to(W.dtype)`.",
    ),
    mistakes=(
        Mistake("W had the update already, and here it is added once more: that is the bug of the threads."),
        Mistake("The flag is read the wrong way round: merged=False means that the update is not in W yet.",
                lambda W, delta, merged: (W + delta).to(W.dtype) if merged else W.clone()),
        Mistake("The update alone came back. It is added to W, not put in its place.",
                lambda W, delta, merged: W.clone() if merged else delta.to(W.dtype).clone()),
        Mistake("That is unmerging: the update goes in with a plus.",
                lambda W, delta, merged: W.clone() if merged else (W - delta).to(W.dtype)),
        Mistake("The update is in it twice at the first merge already.",
                lambda W, delta, merged: W.clone() if merged else (W + 2 * delta).to(W.dtype)),
        Mistake("The update was taken out again. Asked for is the merged weight, and W is it already.",
                lambda W, delta, merged: (W - delta if merged else W + delta).to(W.dtype)),
        Mistake("The update was rounded to bf16 before the sum: 1.002 became 1, and 257 went down to 256 as "
                "a tie. Add in float32, round once.",
                lambda W, delta, merged: W.clone() if merged else W + delta.to(W.dtype)),
        Mistake("The weight came back in float32: twice the memory. Round it to the dtype of W.",
                lambda W, delta, merged: W.clone() if merged else W + delta),
    ),
    tolerance=0.0,
    moral="A flag beside the weight is all it takes. `helpers.lora.merge` raises an error instead of guessing.")
# general: lambda W, delta, merged: torch.zeros_like(W)
