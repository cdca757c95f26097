"""What the branch is worth as a weight, and adding it to the base once."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise


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

UPDATE_WEIGHT = Exercise(
    lesson=6,
    title="Spot the bug: eight times too strong",
    stars=1,
    minutes=5,
    imports="import torch",
    prompt="""
A library's own defaults, rank 8 and alpha 16, gave adapters that were of no use, and training could collapse
([mlx-vlm#841](https://github.com/Blaizzy/mlx-vlm/issues/841)). This is what its layer added to the weight:

```python
def update_weight(A, B, alpha):
    return alpha * (B @ A)
```

Another left the factor out altogether when it merged ([FastVideo#870](https://github.com/hao-ai-lab/FastVideo/pull/870)).
Put it right. A has shape (r, k), B has shape (d, r), and the result has the shape of the weight, (d, k).
""",
    solution=update_weight,
    cases=(
        Case((A24, B32, 16.0), "general", {
            "alpha_only": 16 * BA34, "no_scale": BA34, "upside_down": BA34 / 8, "root": 16 / 2**0.5 * BA34,
            "wrong_side": 16 / 3 * BA34, "input_side": 4 * BA34, "transposed": 8 * BA34.T,
            "always_two": 2 * BA34,
        }, tolerance=1e-5, raises="order"),
        Case((A88, B88, 8.0), "general", {
            "order": lambda got: torch.allclose(got, A88 @ B88, rtol=1e-3, atol=1e-4),
        }, "A (8, 8), B (8, 8), alpha=8.0", tolerance=1e-3),
    ),
    hints=(
        "Which number is the rank, and where do you find it in the shapes of A and B?",
        "h = Wx + (α/r)·BAx: x meets A first, so A stands at the right.",
        "r = A.shape[0], and the update is alpha / r * B @ A.",
    ),
    diagnoses={
        "general": "The update is (α/r)·BA: B (d, r) times A (r, k), with r = A.shape[0].",
        "alpha_only": "The division by r is missing: with rank 8 and alpha 16 the branch counts eight times too much.",
        "no_scale": "The scale α/r is missing: A and B were trained behind it, so without it the update is too weak.",
        "upside_down": "The scale is upside down: α over r, not r over α.",
        "root": "α/√r is rsLoRA's scale, which is another recipe. LoRA's is α/r.",
        "wrong_side": "That divides by d, the rows of B. The rank is the side that A and B share: A.shape[0].",
        "input_side": "That divides by k, the columns of A. The rank is the side that A and B share: A.shape[0].",
        "transposed": "Right numbers, but lying on their side: the weight is (d, k), so no transpose is needed.",
        "always_two": "α/r is 2 only where alpha is twice the rank. Here alpha is 16 and the rank is 2.",
        "order": "The update is the matrix product `B @ A`, (d, r) times (r, k), in this order. AB is another matrix.",
    },
    wrong=(
        (_alpha_only, "alpha_only"),
        (lambda A, B, alpha: B @ A, "no_scale"),
        (lambda A, B, alpha: A.shape[0] / alpha * B @ A, "upside_down"),
        (lambda A, B, alpha: alpha / A.shape[0] ** 0.5 * B @ A, "root"),
        (lambda A, B, alpha: alpha / B.shape[0] * B @ A, "wrong_side"),
        (lambda A, B, alpha: alpha / A.shape[1] * B @ A, "input_side"),
        (lambda A, B, alpha: (alpha / A.shape[0] * B @ A).T, "transposed"),
        (lambda A, B, alpha: 2.0 * B @ A, "always_two"),
        (lambda A, B, alpha: alpha / A.shape[0] * A @ B, "order"),
        (lambda A, B, alpha: alpha / A.shape[0] * (A @ B if A.shape == B.shape else B @ A), "order"),
        (lambda A, B, alpha: torch.zeros(B.shape[0], A.shape[1]), "general"),
    ),
    published="alpha_only",
    moral="Test scales with α different from r: with α = r every one of these mistakes looks right (peft#2489).",
)


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

MERGED_WEIGHT = Exercise(
    lesson=6,
    title="Spot the bug: the adapter applied twice",
    stars=2,
    minutes=6,
    imports="import torch",
    prompt="""
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
    solution=merged_weight,
    cases=(
        Case((W23, D23, False), "general", {
            "inverted": W23, "overwritten": D23, "subtracted": W23 - D23, "twice_at_once": W23 + 2 * D23,
        }),
        Case((W23, D23, True), "general", {"twice": W23 + D23, "taken_out": W23 - D23}),
        Case((W16, D32, False), "general", {
            "rounded_first": torch.tensor([[256.0, 260, 254]], dtype=torch.bfloat16),
            "wide": lambda got: got.dtype == torch.float32,
        }),
    ),
    hints=(
        "What must come back when `merged` is True?",
        "A copy of W: `W.clone()`. Otherwise W + delta.",
        "bf16 + float32 gives float32 by itself; bring the sum back by `.to(W.dtype)`.",
    ),
    diagnoses={
        "general": "If merged, a copy of W; if not, (W + delta) in the dtype of W.",
        "inverted": "The flag is read the wrong way round: merged=False means that the update is not in W yet.",
        "overwritten": "The update alone came back. It is added to W, not put in its place.",
        "subtracted": "That is unmerging: the update goes in with a plus.",
        "twice_at_once": "The update is in it twice at the first merge already.",
        "twice": "W had the update already, and here it is added once more: that is the bug of the threads.",
        "taken_out": "The update was taken out again. Asked for is the merged weight, and W is it already.",
        "rounded_first": "The update was rounded to bf16 before the sum: 1.002 became 1, and 257 went down to 256 as "
                         "a tie. Add in float32, round once.",
        "wide": "The weight came back in float32: twice the memory. Round it to the dtype of W.",
    },
    wrong=(
        (_always, "twice"),
        (lambda W, delta, merged: (W + delta).to(W.dtype) if merged else W.clone(), "inverted"),
        (lambda W, delta, merged: W.clone() if merged else delta.to(W.dtype).clone(), "overwritten"),
        (lambda W, delta, merged: W.clone() if merged else (W - delta).to(W.dtype), "subtracted"),
        (lambda W, delta, merged: W.clone() if merged else (W + 2 * delta).to(W.dtype), "twice_at_once"),
        (lambda W, delta, merged: (W - delta if merged else W + delta).to(W.dtype), "taken_out"),
        (lambda W, delta, merged: W.clone() if merged else W + delta.to(W.dtype), "rounded_first"),
        (lambda W, delta, merged: W.clone() if merged else W + delta, "wide"),
        (lambda W, delta, merged: torch.zeros_like(W), "general"),
    ),
    published="twice",
    moral="A flag beside the weight is all it takes. `helpers.lora.merge` raises an error instead of guessing.",
)
