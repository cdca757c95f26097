"""Which of A and B moves first, and the gradients of both by hand."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def moves_first(A: torch.Tensor, B: torch.Tensor) -> str:
    """Which matrices get a nonzero gradient in the first step: "A", "B", "AB" or ""."""
    a_moves = bool((B != 0).any())
    b_moves = bool((A != 0).any())
    return "A" * a_moves + "B" * b_moves


def _case(A: list[list[float]], B: list[list[float]], about: str = "") -> Case:
    return Case((torch.tensor(A), torch.tensor(B)), about)


MOVES_FIRST = Exercise(6, moves_first, "★★ Build: who moves first? · 5 min", """
The gradient of the loss comes down through B to A, and x comes up through A to B. For an ordinary input and an ordinary
gradient from above: which of A (r, k) and B (d, r) gets a gradient other than zero in the first step? Return `"A"`,
`"B"`, `"AB"` or `""`. (A video model's script put LoRA in and *then* ran the routine that initializes a new model. Your
function would have told them why nothing was learnt:
[cosmos-predict2.5#15](https://github.com/nvidia-cosmos/cosmos-predict2.5/pull/15).)
""",
    cases=(_case([[1.0, 3.0]], [[0.0], [0.0], [0.0]]), _case([[0.0, 0.0]], [[0.0], [0.0], [0.0]], "two zero matrices"),
           _case([[1.0, 3.0]], [[1.0], [2.0]], "no zero matrix"), _case([[0.0, 0.0]], [[1.0], [2.0]], "a zero A"),
           _case([[1.0, -1.0]], [[0.0], [0.0]], "entries of A that add up to zero"),
           _case([[0.0, 0.0]], [[2.0], [-2.0]], "entries of B that add up to zero"),
           _case([[0.0], [3.0]], [[0.0, 0.0]], "a first row of A that is zero"),
           _case([[0.0], [0.0]], [[0.0, 0.0], [3.0, 0.0]], "a first row of B that is zero"),
           _case([[0.0, 3.0]], [[0.0], [0.0]], "a zero among the entries of A"),
           _case([[0.0, 0.0]], [[0.0], [3.0]], "a zero among the entries of B"),
           _case([[-1.0, -3.0]], [[0.0], [0.0]], "an A without positive entries"),
           _case([[0.0, 0.0]], [[-1.0], [-3.0]], "a B without positive entries"),
           _case([[1e-9, 0.0]], [[0.0], [0.0]], "an A of tiny entries")),
    hints=("The branch is B(Ax). If A is zero, what does B get to see? If B is zero, what comes down to A?",
           "The gradient of B is made of Ax, and that of A of Bᵀg, the gradient from above sent through B.",
           'B moves if A has any nonzero entry; A moves if B has any. `"A" * True + "B" * False` is "A".'),
    mistakes=(
        Mistake("The other way round: a zero B lets no gradient through to A, while B itself sees Ax and moves.",
                lambda A, B: "A" * bool(A.any()) + "B" * bool(B.any())),
        Mistake("Not both: the gradient of one goes through the other, and a zero there lets nothing through.",
                lambda A, B: "AB" * bool(A.any() or B.any())),
        Mistake("One zero matrix does not stop both: the zero one moves, as the other is not zero.",
                lambda A, B: "AB" * bool(A.any() and B.any())),
        Mistake("Both are zero: B sees nothing of x, and A nothing of the gradient. Neither will ever move.",
                lambda A, B: moves_first(A, B) or "AB", lambda A, B: moves_first(A, B) or "B"),
        Mistake("B is taken to move always, as after an ordinary start. It sees Ax, which may be zero.",
                lambda A, B: "B", ("bool((A != 0).any())", "True")),
        Mistake("Both are nonzero, so both get a gradient at once.", lambda A, B: moves_first(A, B).replace("AB", ""),
                lambda A, B: moves_first(A, B).replace("AB", "B"), lambda A, B: moves_first(A, B).replace("AB", "A")),
        Mistake("The entries cancel in a sum, or with an input of ones. For an ordinary one any nonzero entry counts.",
                ("(A != 0)", "A.sum()", "(B != 0)", "B.sum()"), ("(A != 0)", "A.sum(1)", "(B != 0)", "B.sum(0)"),
                ("(A != 0)", "A.sum(1)"), ("(B != 0)", "B.sum(0)")),
        Mistake("A matrix with a zero in it is not a zero matrix: the other entries still let something through.",
                ("any", "all"), ("(A != 0).any", "(A != 0).all"), ("(B != 0).any", "(B != 0).all")),
        Mistake("Negative entries are not zero either.", ("!=", ">"), ("A !=", "A >"), ("B !=", "B >")),
    ),
    draw=lambda rng: (integers(rng, -1, 1, r := rng.randint(1, 2), rng.randint(1, 3)).float() * rng.randint(0, 1),
                      integers(rng, -1, 1, rng.randint(1, 3), r).float() * rng.randint(0, 1)),
    moral="Random and zero: one moves at once, and from the second step on both do. Zero and zero: no gradient, ever.")


def branch_gradients(x: torch.Tensor, g: torch.Tensor, A: torch.Tensor, B: torch.Tensor,
                     scaling: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of A (r, k) and B (d, r), from rows x (n, k) and g (n, d)."""
    dA = scaling * (g @ B).T @ x
    dB = scaling * g.T @ (x @ A.T)
    return dA, dB


def _branch(rng: random.Random, n: int, k: int, d: int, r: int) -> tuple:
    return (normal(rng, n, k), normal(rng, n, d), normal(rng, r, k), normal(rng, d, r), rng.choice((0.5, 1.5, 4.0)))


BRANCH_GRADIENTS = Exercise(6, branch_gradients, "★★★ Backward by hand · 12 min", """
Write the backward pass of LoRA's branch without autograd. The forward pass was `h = x @ W.T + scaling * x @ A.T @ B.T`,
and `g`, of shape (n, d), is the gradient of the loss by `h`. Return the gradients of A and of B as a pair. Can you
do it without anything of W's size, (d, k), on the way? That is why LoRA's own gradients are cheap.
""",
    cases=((torch.tensor([[1.0, -2]]), torch.tensor([[1.0, 0, 2, 1]]), torch.tensor([[1.0, 2]]),
            torch.tensor([[1.0], [-1], [2], [1]]), 3.0),
           Case((torch.tensor([[1.0, -2], [0, 1], [3, 1]]), torch.tensor([[1.0, 0, 2, 1], [-1, 1, 0, 1], [0, 2, 1, 1]]),
                 torch.tensor([[1.0, 2]]), torch.tensor([[1.0], [-1], [2], [1]]), 3.0), "more than one row"),
           Case(_branch(random.Random(1), 5, 4, 3, 2), "a rank above 1"),
           Case(_branch(random.Random(2), 3, 3, 3, 3), "square matrices, which do not tell a transpose")),
    hints=("First with u = x @ A.T, of shape (n, r): the branch is scaling * u @ B.T, a linear layer with weight B.",
           "A linear layer y = u @ B.T has the gradients y_grad.T @ u for B and y_grad @ B for u.",
           "dB = scaling * g.T @ (x @ A.T). For A: (g @ B) is what arrives at u; dA = scaling * (g @ B).T @ x."),
    mistakes=(
        Mistake("The scale is missing in both, though the branch was multiplied by it.", ("scaling * ", "")),
        Mistake("B's gradient is right; A's lacks the scale.", ("scaling * (g", "(g")),
        Mistake("A's gradient is right; B's lacks the scale.", ("scaling * g", "g")),
        Mistake("The two gradients came in the wrong order: A's first.", ("dA, dB", "dB, dA")),
        Mistake("Both are lying on their side: a gradient has the shape of its matrix.", ("dA, dB", "dA.T, dB.T")),
        Mistake("Divided by the number of rows: g belongs to the whole loss already.",
                ("scaling *", "scaling / len(x) *")),
        Mistake("The scale is in it twice: once is enough.", ("scaling *", "scaling**2 *")),
        Mistake("Divided by the scale, which the branch was multiplied by.", ("scaling *", "1 / scaling *")),
        Mistake("The sign is that of the step downhill, not of the gradient.", ("return dA, dB", "return -dA, -dB")),
        Mistake("On the way back g meets B itself, (n, d) @ (d, r), not B.T.", ("(g @ B).T", "(g @ B.T).T")),
        Mistake("B saw x through A.T, not through A: (n, k) @ (k, r).", ("x @ A.T", "x @ A")),
    ),
    draw=lambda rng: _branch(rng, *(rng.randint(1, 6) for _ in range(3)), rng.randint(1, 3)),
    tolerance=1e-5,
    moral="With B = 0 the first line is zero and the second is not: *who moves first?*, as a formula.")
