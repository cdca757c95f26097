"""Which of A and B moves first, and the gradients of both by hand."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.exercises.lesson_06.updates import draw


def moves_first(A: torch.Tensor, B: torch.Tensor) -> str:
    """Which matrices get a nonzero gradient in the first step: "A", "B", "AB" or ""."""
    a_moves = bool((B != 0).any())
    b_moves = bool((A != 0).any())
    return "A" * a_moves + "B" * b_moves


ONE, ZERO = torch.tensor([[1.0, -1.0]]), torch.zeros(1, 2)
COLUMN, NOUGHT = torch.tensor([[1.0], [-1.0], [2.0]]), torch.zeros(3, 1)  # their sums: A 0, B 2

MOVES_FIRST = Exercise(6, moves_first, "★★ Who moves first? · 6 min", """
A video model's script put LoRA in and *then* ran the routine that initializes a new model. Both matrices were zero, and
nothing was ever learnt ([cosmos-predict2.5#15](https://github.com/nvidia-cosmos/cosmos-predict2.5/pull/15)). Write the
test that catches it. For an ordinary input and an ordinary gradient from above, which of A (r, k) and B (d, r) gets a
gradient other than zero in the first step? Return `"A"`, `"B"`, `"AB"` or `""`.
""",
    cases=(
        Case((ONE, NOUGHT)),
        Case((ZERO, NOUGHT)),
        Case((ONE, COLUMN)),
        Case((ZERO, COLUMN)),
    ),
    hints=(
        "The branch is B(Ax). If A is zero, what does B get to see? If B is zero, what comes down to A?",
        "The gradient of B is made of Ax, and that of A of Bᵀg, the gradient from above sent through B.",
        'B moves if A has any nonzero entry; A moves if B has any. `"A" * True + "B" * False` is "A".',
    ),
    mistakes=(
        Mistake("The other way round: a zero B lets no gradient through to A, while B itself sees Ax and moves.",
                lambda A, B: "A" * bool(A.any()) + "B" * bool(B.any())),
        Mistake("Not both: a zero B lets no gradient through to A in the first step.",
                lambda A, B: "AB" if A.any() or B.any() else ""),
        Mistake("One zero matrix does not stop both: the zero one moves, as the other is not zero. (If you "
                "asked autograd: take a loss like h.sum(); h.square() has no gradient at h = 0.)",
                lambda A, B: "AB" if A.any() and B.any() else ""),
        Mistake("Both are zero: B sees nothing of x, and A nothing of the gradient. Neither will ever move.",
                lambda A, B: "AB" if not A.any() and not B.any() else moves_first(A, B),
                lambda A, B: "B"),
        Mistake("Both are nonzero, so both get a gradient at once.",
                lambda A, B: "" if A.any() and B.any() else moves_first(A, B)),
        Mistake("A has entries 1 and -1: their sum is 0, but the matrix is not. Ask whether any entry is nonzero.",
                lambda A, B: "A" * bool(B.sum() != 0) + "B" * bool(A.sum() != 0 or not B.any() and A.any())),
        Mistake("Both are nonzero here, so both move: decide about A and B independently.",
                lambda A, B: "B" if A.any() else "A" if B.any() else ""),
        Mistake("Here A is the zero one: B sees Ax = 0 and stays, while A gets a gradient through B.",
                lambda A, B: "AB" if A.any() and B.any() else "B" if A.any() or B.any() else ""),
    ),
    tolerance=0.0,
    moral="Random and zero: one moves at once, and from the second step on both do. Zero and zero: no gradient, ever.")
# general: lambda A, B: "BA"


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


BRANCH_GRADIENTS = Exercise(6, branch_gradients, "★★★ Backward by hand · 12 min", """
Write the backward pass of LoRA's branch without autograd. The forward pass was `h = x @ W.T + scaling * x @ A.T @ B.T`,
and `g`, of shape (n, d), is the gradient of the loss by `h`. Return the gradients of A and of B as a pair. Can you
do it without anything of W's size, (d, k), on the way? That is why LoRA's own gradients are cheap.
""",
    cases=(
        Case((X, G, A, B, 2.0), shown="x (5, 4), g (5, 3), A (2, 4), B (3, 2), scaling=2.0"),
    ),
    hints=(
        "First with u = x @ A.T, of shape (n, r): the branch is scaling * u @ B.T, a linear layer with weight B.",
        "A linear layer y = u @ B.T has the gradients y_grad.T @ u for B and y_grad @ B for u.",
        "dB = scaling * g.T @ (x @ A.T). For A: (g @ B) is what arrives at u; dA = scaling * (g @ B).T @ x.",
    ),
    mistakes=(
        Mistake("The scale is missing in both: the branch was multiplied by it, so its gradients are too.",
                lambda x, g, A, B, scaling: ((g @ B).T @ x, g.T @ (x @ A.T))),
        Mistake("B's gradient is right; A's lacks the scale.",
                lambda x, g, A, B, scaling: ((g @ B).T @ x, scaling * g.T @ (x @ A.T))),
        Mistake("A's gradient is right; B's lacks the scale.",
                lambda x, g, A, B, scaling: (scaling * (g @ B).T @ x, g.T @ (x @ A.T))),
        Mistake("The two gradients came in the wrong order: A's first.",
                lambda x, g, A, B, scaling: branch_gradients(x, g, A, B, scaling)[::-1]),
        Mistake("Both are lying on their side: a gradient has the shape of its matrix, A (r, k) and B (d, r).",
                lambda x, g, A, B, scaling: tuple(part.T for part in branch_gradients(x, g, A, B, scaling))),
        Mistake("Divided by the number of rows: g is the gradient of the whole loss already. Sum over the rows.",
                lambda x, g, A, B, scaling: tuple(part / len(x) for part in branch_gradients(x, g, A, B, scaling))),
        Mistake("The scale is in it twice: once is enough.",
                lambda x, g, A, B, scaling: branch_gradients(x, g, A, B, scaling**2)),
        Mistake("The sign is that of the step downhill. Asked for is the gradient; the optimizer subtracts it.",
                lambda x, g, A, B, scaling: branch_gradients(x, -g, A, B, scaling)),
        Mistake("Write the shapes beside each factor: g (n, d), B (d, r), x (n, k), A (r, k); neighbours must match.",
                lambda x, g, A, B, scaling: (scaling * g @ B.T @ x, scaling * g.T @ (x @ A))),
    ),
    tolerance=0.001,
    moral="With B = 0 the first line is zero and the second is not: the exercise before this, as a formula.")
# general: lambda x, g, A, B, scaling: (torch.zeros_like(A), torch.zeros_like(B))
