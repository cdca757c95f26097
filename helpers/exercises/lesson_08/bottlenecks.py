"""Branches beside a frozen weight: what Houlsby's adapter computes, and which branches a matrix can hold."""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional as F

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def bottleneck(x: torch.Tensor, down: torch.Tensor, b: torch.Tensor, up: torch.Tensor,
               c: torch.Tensor) -> torch.Tensor:
    """The adapter's output for x (n, d), with down (m, d), b (m,), up (d, m), c (d,)."""
    return x + F.gelu(x @ down.T + b) @ up.T + c


def _adapter(rng: random.Random, n: int, d: int, m: int) -> tuple[torch.Tensor, ...]:
    return normal(rng, n, d), normal(rng, m, d), normal(rng, m), normal(rng, d, m), normal(rng, d)


X, DOWN, B, UP, C = _adapter(random.Random(1), 2, 3, 2)
ABOVE = (X.abs(), DOWN.abs(), 0 * B, UP, 0 * C)  # nothing negative for GELU to press down, no biases

BOTTLENECK = Exercise(8, bottleneck, "★★ Build: a bottleneck · 5 min", """
Write this formula without modules: from d down to m, GELU (`F.gelu`), up to d again, and the input added. Both ways
have a bias. All matrices lie as in `nn.Linear`: `down` is (m, d), `up` is (d, m).
""",
    cases=(Case((X, DOWN, B, 0 * UP, 0 * C), about="`up` and `c` at zero, as training starts"),
           Case((*ABOVE[:1], 0 * DOWN + 1, 0 * B, UP.abs(), 0 * C), about="a way up that is not zero"),
           Case((*ABOVE[:3], UP.abs(), 0 * C), about="a way down whose numbers differ"),
           Case(ABOVE, about="negative numbers on the way up"),
           Case((*ABOVE[:2], B.abs(), UP, 0 * C), about="a bias b that is not zero"),
           Case((*ABOVE[:4], C), about="a bias c that is not zero"),
           Case((X, DOWN, B, UP, C), about="negative numbers before GELU"),
           Case((50 * X, DOWN, B, UP, C), about="large numbers")),
    hints=("`x @ down.T` has m columns. What comes next, and what last?",
           "narrow = F.gelu(x @ down.T + b); then up again, with its bias.",
           "The skip connection: x + narrow @ up.T + c."),
    mistakes=(
        Mistake("The skip connection is missing: the adapter *adds* to x.", ("x + F", "F")),
        Mistake("The nonlinearity is missing: then up·down is one matrix of rank m, which is LoRA's idea, not this.",
                ("F.gelu", "")),
        Mistake("GELU stands behind `up`. Its place is the narrow one, between down and up.",
                ("gelu(x @ down.T + b)", "gelu((x @ down.T + b)", "+ c", "+ c)")),
        Mistake("A second GELU presses down what leaves the adapter. It stands between down and up only.",
                ("x + F.gelu(x", "x + F.gelu(F.gelu(x", "+ c", "+ c)")),
        Mistake("GELU over the sum presses down the negative half of x itself. It stands between down and up only.",
                ("x + F.gelu(x", "F.gelu(x + F.gelu(x", "+ c", "+ c)"),
                ("x + F.gelu(x", "F.gelu(x + (x", "+ c", "+ c)")),
        Mistake("GELU was taken of x, before the way down. It stands behind it.",
                ("F.gelu(x @ down.T + b)", "(F.gelu(x) @ down.T + b)")),
        Mistake("The bias b came after GELU. It belongs to the way down, and GELU sees it.",
                ("F.gelu(x @ down.T + b)", "(F.gelu(x @ down.T) + b)")),
        Mistake("A bias is missing: b belongs to down, c to up.",
                (" + b", ""), (" + c", ""), (" + b", "", " + c", "")),
        Mistake("That is ReLU. Here GELU is asked for.", ("F.gelu", "torch.relu")),
        Mistake("That is an approximation of GELU, by tanh or by a sigmoid. `F.gelu(...)` alone is the exact one.",
                ("down.T + b)", 'down.T + b, approximate="tanh")'),
                ("F.gelu(x @ down.T + b)", "(x @ down.T + b) * torch.sigmoid(1.702 * (x @ down.T + b))")),
        Mistake("`reshape` and `view` keep the order of the numbers: they fit, but do not transpose.",
                ("down.T", "down.reshape(down.T.shape)", "up.T", "up.reshape(up.T.shape)"),
                ("up.T", "up.reshape(up.T.shape)"), ("down.T", "down.reshape(down.T.shape)")),
    ),
    draw=lambda rng: _adapter(rng, rng.randint(1, 3), rng.randint(1, 5), rng.randint(1, 4)), tolerance=1e-5,
    moral="Leave the nonlinearity out and you could multiply up·down once and merge it. That is the step to LoRA.")


def merge_branch(branch: nn.Module, k: int) -> torch.Tensor | None:
    """The matrix (d, k) that does what the branch does, or None if none does."""
    matrix = branch(torch.eye(k)).T
    x = torch.randn(64, k)
    return matrix if torch.allclose(branch(x), x @ matrix.T, atol=1e-4) else None


def _branch(seed: int, k: int, m: int, d: int, *between: nn.Module, bias: bool = False) -> nn.Sequential:
    """Down to m and up to d, small whole numbers, with `between` in the middle."""
    rng = random.Random(seed)
    made = nn.Sequential(nn.Linear(k, m, bias=False), *between, nn.Linear(m, d, bias=bias)).requires_grad_(False)
    for parameter in made.parameters():
        parameter.copy_(integers(rng, 1, 3, *parameter.shape) * (1 - 2 * integers(rng, 0, 1, *parameter.shape)))
    return made


def _plain(k: int) -> nn.Sequential:
    """A diagonal matrix as a branch: its transpose is itself."""
    made = nn.Sequential(nn.Linear(k, k, bias=False), nn.Linear(k, k, bias=False)).requires_grad_(False)
    for linear in made:
        linear.weight.copy_(torch.diag(torch.arange(1.0, k + 1)))
    return made


def _drawn(rng: random.Random) -> tuple[nn.Module, int]:
    between = rng.choice([(), (), (nn.GELU(),), (nn.ReLU(),), (nn.Tanh(),)])
    k = rng.randint(1, 4)
    return _branch(rng.randint(0, 999), k, rng.randint(1, 3), rng.randint(1, 4), *between, bias=rng.random() < 0.2), k


TEST = "torch.allclose(branch(x), x @ matrix.T, atol=1e-4)"
DOUBLES = "torch.allclose(branch(2 * x), 2 * branch(x), atol=1e-4)"

MERGE_BRANCH = Exercise(8, merge_branch, "★★★ Merge a black box · 8 min", """
Somebody hands you a trained `branch`, a module that takes (n, k) to (n, d), and asks whether it can be added to the
frozen weight W. You may not look inside: only call it. Return the matrix M (d, k) for which branch(x) = x·Mᵀ for
*every* x, or `None` if there is none. W has no bias beside it, so a bias cannot be merged either. Differences below
1e-4 are rounding. (That f(2x) is 2·f(x) does not prove it, as one of the branches will show you.)
""",
    cases=(Case((_plain(3), 3), shown="a branch that is a diagonal matrix"),
           Case((_branch(1, 3, 2, 3), 3), about="a matrix that is not its own transpose", shown="LoRA, k = 3, d = 3"),
           Case((_branch(2, 4, 2, 3), 4), about="another number of outputs than of inputs", shown="LoRA, k = 4, d = 3"),
           Case((_branch(3, 3, 2, 3, nn.GELU()), 3), about="a bottleneck, which no matrix can hold",
                shown="a bottleneck with GELU, k = 3, d = 3"),
           Case((_branch(4, 3, 2, 3, bias=True), 3), about="a branch with a bias", shown="LoRA and a bias, k = d = 3"),
           Case((_branch(5, 3, 2, 2, nn.ReLU()), 3), about="a branch that doubles with its input and is no matrix",
                shown="a bottleneck with ReLU and no biases, k = 3, d = 2"),
           Case((_branch(6, 1, 1, 1, nn.ReLU()), 1), about="a branch that is a matrix for positive numbers only",
                shown="ReLU between two single weights, k = 1, d = 1"),
           Case((_branch(7, 2, 2, 2, nn.Softshrink(0.5), bias=False), 2), about="a branch that forgets small numbers",
                shown="a soft threshold in the middle, k = 2, d = 2")),
    hints=("If there is such a matrix, which x would show you its columns?",
           "`branch(torch.eye(k))` has one row for each input: the columns of M. Turn it round by `.T`.",
           "Then see whether it holds for other x, negative ones too: "
           "`x = torch.randn(64, k); torch.allclose(branch(x), x @ M.T, atol=1e-4)`."),
    mistakes=(
        Mistake("The matrix is transposed: M is (d, k), and row i of branch(eye) is its *column* i.",
                ("torch.eye(k)).T", "torch.eye(k))", "@ matrix.T", "@ matrix")),
        Mistake("Nothing was tested beyond the unit vectors, from which the matrix was read. Not every branch is one.",
                (f" if {TEST} else None", ""), ("torch.randn(64, k)", "torch.eye(k)")),
        Mistake("Doubling was tested, and ReLU without biases doubles too. Compare with x·Mᵀ on x of both signs.",
                (TEST, DOUBLES), (TEST, f"{DOUBLES} and branch(0 * x).abs().max() == 0")),
        Mistake("Only positive x were tested: ReLU is a matrix there.", ("torch.randn(64, k)", "torch.rand(64, k)")),
        Mistake("Only x = 0 was tested: that finds a bias, no more.", ("torch.randn(64, k)", "torch.zeros(64, k)")),
        Mistake("The bias was taken off first. W has none beside it, so such a branch cannot be merged.",
                ("matrix = branch(torch.eye(k)).T", "bias = branch(torch.zeros(1, k))\n"
                 "    matrix = (branch(torch.eye(k)) - bias).T", "branch(x),", "branch(x) - bias,")),
        Mistake("A branch that is no matrix gets `None`, not a matrix of zeros.", ("else None", "else 0 * matrix")),
        Mistake("`True` or `False` says whether it can be merged. Return the matrix itself.",
                (f"matrix if {TEST} else None", TEST)),
    ),
    draw=_drawn, tolerance=1e-4,
    moral="One call on the unit vectors reads any matrix out of a black box; one call elsewhere says if it was one.")
