"""Which of A and B moves first, and the gradients of both by hand."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise
from helpers.exercises.lesson_06.updates import draw


def moves_first(A: torch.Tensor, B: torch.Tensor) -> str:
    """Which matrices get a nonzero gradient in the first step: "A", "B", "AB" or ""."""
    a_moves = bool((B != 0).any())
    b_moves = bool((A != 0).any())
    return "A" * a_moves + "B" * b_moves


ONE, ZERO = torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2)
COLUMN, NOUGHT = torch.tensor([[1.0], [-1.0], [2.0]]), torch.zeros(3, 1)  # their sums: A 0, B 2

MOVES_FIRST = Exercise(
    lesson=6,
    title="Who moves first?",
    stars=2,
    minutes=6,
    imports="import torch",
    prompt="""
A video model's script put LoRA in and *then* ran the routine that initializes a new model. Both matrices were zero, and
nothing was ever learnt ([cosmos-predict2.5#15](https://github.com/nvidia-cosmos/cosmos-predict2.5/pull/15)). Write the
test that catches it. For an ordinary input and an ordinary gradient from above, which of A (r, k) and B (d, r) gets a
gradient other than zero in the first step? Return `"A"`, `"B"`, `"AB"` or `""`.
""",
    solution=moves_first,
    cases=(
        Case((ONE, NOUGHT), "general", {"swapped": "A", "always_both": "AB", "both_or_none": ""}),
        Case((ZERO, NOUGHT), "dead"),
        Case((ONE, COLUMN), "both", {"by_sum": "A", "only_one": lambda got: got in ("A", "B")}),
        Case((ZERO, COLUMN), "general", {"always_b": "B", "both_or_none": ""}),
    ),
    hints=(
        "The branch is B(Ax). If A is zero, what does B get to see? If B is zero, what comes down to A?",
        "The gradient of B is made of Ax, and that of A of Bᵀg, the gradient from above sent through B.",
        'B moves if A has any nonzero entry; A moves if B has any. `"A" * True + "B" * False` is "A".',
    ),
    diagnoses={
        "general": "A's gradient contains B, and B's contains A: each needs the *other* to be nonzero.",
        "swapped": "The other way round: a zero B lets no gradient through to A, while B itself sees Ax and moves.",
        "always_both": "Not both: a zero B lets no gradient through to A in the first step.",
        "both_or_none": "One zero matrix does not stop both: the zero one moves, as the other is not zero. (If you "
                        "asked autograd: take a loss like h.sum(); h.square() has no gradient at h = 0.)",
        "dead": "Both are zero: B sees nothing of x, and A nothing of the gradient. Neither will ever move.",
        "both": "Both are nonzero, so both get a gradient at once.",
        "by_sum": "A has entries 1 and -1: their sum is 0, but the matrix is not. Ask whether any entry is nonzero.",
        "only_one": "Both are nonzero here, so both move: decide about A and B independently.",
        "always_b": "Here A is the zero one: B sees Ax = 0 and stays, while A gets a gradient through B.",
    },
    wrong=(
        (lambda A, B: "A" * bool(A.any()) + "B" * bool(B.any()), "swapped"),
        (lambda A, B: "AB" if A.any() or B.any() else "", "always_both"),
        (lambda A, B: "AB" if A.any() and B.any() else "", "both_or_none"),
        (lambda A, B: "AB" if not A.any() and not B.any() else moves_first(A, B), "dead"),
        (lambda A, B: "B", "dead"),
        (lambda A, B: "" if A.any() and B.any() else moves_first(A, B), "both"),
        (lambda A, B: "A" * bool(B.sum() != 0) + "B" * bool(A.sum() != 0 or not B.any() and A.any()), "by_sum"),
        (lambda A, B: "B" if A.any() else "A" if B.any() else "", "only_one"),
        (lambda A, B: "AB" if A.any() and B.any() else "B" if A.any() or B.any() else "", "always_b"),
        (lambda A, B: "BA", "general"),
    ),
    moral="Random and zero: one moves at once, and from the second step on both do. Zero and zero: no gradient, ever.",
)


def branch_gradients(x: torch.Tensor, g: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
                     scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of A (r, k) and B (d, r), from rows x (n, k) and g (n, d)."""
    dA = scaling * (g @ B).T @ x
    dB = scaling * g.T @ (x @ A.T)
    return dA, dB


X, G, A, B = draw(5, 4), draw(5, 3, seed=1), draw(2, 4, seed=2), draw(3, 2, seed=3)


def _sign(index: int, value: torch.Tensor):
    """A predicate: the answer's part `index` is `value`, and the other part is right."""
    right = branch_gradients(X, G, A, B, 2.0)
    return lambda got: (torch.allclose(got[index], value, rtol=1e-3, atol=1e-4)
                        and torch.allclose(got[1 - index], right[1 - index], rtol=1e-3, atol=1e-4))


def _both(dA: torch.Tensor, dB: torch.Tensor):
    return lambda got: all(torch.allclose(part, value, rtol=1e-3, atol=1e-4)
                           for part, value in zip(got, (dA, dB), strict=True))


BRANCH_GRADIENTS = Exercise(
    lesson=6,
    title="Backward by hand",
    stars=3,
    minutes=12,
    imports="import torch",
    prompt="""
Write the backward pass of LoRA's branch without autograd. The forward pass was `h = x @ W.T + scaling * x @ A.T @ B.T`,
and `g`, of shape (n, d), is the gradient of the loss by `h`. Return the gradients of A and of B as a pair. Can you
do it without anything of W's size, (d, k), on the way? That is why LoRA's own gradients are cheap.
""",
    solution=branch_gradients,
    cases=(
        Case((X, G, A, B, 2.0), "general", {
            "no_scale": _both((G @ B).T @ X, G.T @ (X @ A.T)),
            "scale_b": _sign(0, (G @ B).T @ X), "scale_a": _sign(1, G.T @ (X @ A.T)),
            "swapped": lambda got: got[0].shape == (3, 2) and got[1].shape == (2, 4),
            "transposed": lambda got: got[0].shape == (4, 2) and got[1].shape == (2, 3),
            "divided": _both(2 / 5 * (G @ B).T @ X, 2 / 5 * G.T @ (X @ A.T)),
            "squared": _both(4 * (G @ B).T @ X, 4 * G.T @ (X @ A.T)),
            "uphill": _both(-2 * (G @ B).T @ X, -2 * G.T @ (X @ A.T)),
        }, "x (5, 4), g (5, 3), A (2, 4), B (3, 2), scaling=2.0", tolerance=1e-3, raises="shapes"),
    ),
    hints=(
        "First with u = x @ A.T, of shape (n, r): the branch is scaling * u @ B.T, a linear layer with weight B.",
        "A linear layer y = u @ B.T has the gradients y_grad.T @ u for B and y_grad @ B for u.",
        "dB = scaling * g.T @ (x @ A.T). For A: (g @ B) is what arrives at u; dA = scaling * (g @ B).T @ x.",
    ),
    diagnoses={
        "general": "dA = s·(gB)ᵀx and dB = s·gᵀ(xAᵀ), with shapes (r, k) and (d, r).",
        "no_scale": "The scale is missing in both: the branch was multiplied by it, so its gradients are too.",
        "scale_b": "B's gradient is right; A's lacks the scale.",
        "scale_a": "A's gradient is right; B's lacks the scale.",
        "swapped": "The two gradients came in the wrong order: A's first.",
        "transposed": "Both are lying on their side: a gradient has the shape of its matrix, A (r, k) and B (d, r).",
        "divided": "Divided by the number of rows: g is the gradient of the whole loss already. Sum over the rows.",
        "squared": "The scale is in it twice: once is enough.",
        "uphill": "The sign is that of the step downhill. Asked for is the gradient; the optimizer subtracts it.",
        "shapes": "Write the shapes beside each factor: g (n, d), B (d, r), x (n, k), A (r, k); neighbours must match.",
    },
    wrong=(
        (lambda x, g, A, B, scaling: ((g @ B).T @ x, g.T @ (x @ A.T)), "no_scale"),
        (lambda x, g, A, B, scaling: ((g @ B).T @ x, scaling * g.T @ (x @ A.T)), "scale_b"),
        (lambda x, g, A, B, scaling: (scaling * (g @ B).T @ x, g.T @ (x @ A.T)), "scale_a"),
        (lambda x, g, A, B, scaling: branch_gradients(x, g, A, B, scaling)[::-1], "swapped"),
        (lambda x, g, A, B, scaling: tuple(part.T for part in branch_gradients(x, g, A, B, scaling)), "transposed"),
        (lambda x, g, A, B, scaling: tuple(part / len(x) for part in branch_gradients(x, g, A, B, scaling)), "divided"),
        (lambda x, g, A, B, scaling: branch_gradients(x, g, A, B, scaling**2), "squared"),
        (lambda x, g, A, B, scaling: branch_gradients(x, -g, A, B, scaling), "uphill"),
        (lambda x, g, A, B, scaling: (scaling * g @ B.T @ x, scaling * g.T @ (x @ A)), "shapes"),
        (lambda x, g, A, B, scaling: (torch.zeros_like(A), torch.zeros_like(B)), "general"),
    ),
    moral="With B = 0 the first line is zero and the second is not: the exercise before this, as a formula.",
)
