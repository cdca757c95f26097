"""Which weights matter: GPTQ's compensation, and where AWQ's scale goes."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def compensate(
    weight: torch.Tensor, moment: torch.Tensor, j: int, fixed: torch.Tensor
) -> torch.Tensor:
    """The weight with column j at `fixed`, those behind it moved: float64 (d, k).

    weight float64 (d, k); moment: H, float64 (k, k); fixed: the rounded column j, (d,).
    """
    inverse = torch.linalg.inv(moment[j:, j:])
    moved = weight.clone()
    moved[:, j:] -= (weight[:, j] - fixed)[:, None] * inverse[0] / inverse[0, 0]
    return moved


def _layer(rng: random.Random, d: int, k: int, j: int, mixed: float = 0.5) -> tuple:
    weight = normal(rng, d, k, dtype=torch.float64)
    x = normal(rng, 4 * k, k, dtype=torch.float64)
    x = x + mixed * x.roll(1, 1)
    return weight, x.T @ x / len(x), j, weight[:, j].round()


def _by_hand() -> tuple:
    weight = torch.tensor([[0.75, 2.0]], dtype=torch.float64)
    return weight, torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64), 0, torch.tensor([1.0]).double()


def _alone() -> tuple:
    weight = torch.tensor([[0.75, 2.0, -1.25]], dtype=torch.float64)
    return weight, torch.diag(torch.tensor([1.0, 2.0, 4.0])).double(), 0, torch.tensor([1.0]).double()


INVERSE, STEP = "torch.linalg.inv(moment[j:, j:])", "(weight[:, j] - fixed)[:, None] * inverse[0] / inverse[0, 0]"
COMPENSATE = Exercise(14, compensate, "★★★ Build: what the others make good · 6 min", """
Column j of a weight W (d, k) has just been rounded to `fixed`. The columns before it are done and must not move; those
behind it are still free. With F = {j, j + 1, …}, the columns from j on, equation 2 of GPTQ says how they move best, row
by row; w is the weight in column j, H the moment of the inputs:

$$ \\delta_F = - \\frac{w - \\mathrm{quant}(w)}{[H_F^{-1}]_{jj}} \\cdot (H_F^{-1})_{j,:} $$

$H_F$ are the rows and columns of H from j on, cut out *before* it is inverted: j is their first. δ has
an entry for column j too: it takes w to quant(w). Return the new weight; leave the one given as it is.
""",
    cases=(
        Case(_alone(), about="channels that have nothing in common: nothing to make good"),
        Case(_by_hand(), about="two channels that move together"),
        Case(_layer(random.Random(1), 1, 4, 0), about="the first of four columns"),
        Case(_layer(random.Random(2), 1, 4, 1), about="the second of four columns"),
        Case(_layer(random.Random(3), 3, 5, 2), about="three rows"),
        Case(_layer(random.Random(4), 2, 3, 2), about="the last column"),
    ),
    draw=lambda rng: _layer(rng, rng.randint(1, 3), rng.randint(3, 6), rng.randint(0, 2), rng.choice((0.5, 0.7, -0.5))),
    tolerance=1e-5,
    hints=("`torch.linalg.inv(moment[j:, j:])`: its first row and column belong to column j.",
           "Every row of W has its own error, `weight[:, j] - fixed`; all share the same row of the inverse.",
           "`moved[:, j:] -= error[:, None] * inverse[0] / inverse[0, 0]`, on a clone."),
    mistakes=(
        Mistake("The sign: the others run the same way as the error, which doubles it.",
                ("moved[:, j:] -= " + STEP, "moved[:, j:] += " + STEP + "\n    moved[:, j] = fixed")),
        Mistake("Only column j was set: nothing makes its error good.",
                ("moved[:, j:] -= " + STEP, "moved[:, j] = fixed")),
        Mistake("H was inverted whole and cut afterwards: then the columns that are done would take part.",
                (INVERSE, "torch.linalg.inv(moment)[j:, j:]")),
        Mistake("It is not divided by the inverse's own entry for column j.", (" / inverse[0, 0]", ""),
                ("moved[:, j:] -= " + STEP, "moved[:, j:] -= (weight[:, j] - fixed)[:, None] * inverse[0]\n"
                 "    moved[:, j] = fixed")),
        Mistake("It is divided by H's own entry for column j: the inverse's is another.",
                ("/ inverse[0, 0]", "/ moment[j, j]")),
        Mistake("H was cut one column too late: it begins with column j, not with the one behind it.",
                ("moved[:, j:] -= " + STEP, "inverse = torch.linalg.inv(moment[j + 1:, j + 1:])\n"
                 "    moved[:, j] = fixed\n"
                 "    if len(inverse):\n        moved[:, j + 1:] -= (weight[:, j] - fixed)[:, None] * inverse[0] / "
                 "inverse[0, 0]")),
        Mistake("Only the next column moved: all that are still free make the error good together.",
                ("return moved", "moved[:, j + 2:] = weight[:, j + 2:]\n    return moved"),
                (INVERSE, "torch.linalg.inv(moment[j:j + 2, j:j + 2])", "moved[:, j:] -=", "moved[:, j:j + 2] -=")),
        Mistake("H stands where its inverse belongs.", (INVERSE, "moment[j:, j:]")),
        Mistake("All columns were moved, also those that are done.",
                (INVERSE, "torch.linalg.inv(moment)", "moved[:, j:] -=", "moved -=", "inverse[0] / inverse[0, 0]",
                 "inverse[j] / inverse[j, j]")),
        Mistake("The error is that of the first row of W: each row has its own.",
                ("(weight[:, j] - fixed)[:, None]", "(weight[0, j] - fixed[0])")),
        Mistake("It is squared, or taken without its sign: the error of a weight has one.",
                ("(weight[:, j] - fixed)[:, None]", "(weight[:, j] - fixed).abs()[:, None]"),
                ("(weight[:, j] - fixed)[:, None]", "((weight[:, j] - fixed) ** 2)[:, None]")),
        Mistake("Column j is still what it was: the rest moved, and it did not.",
                ("return moved", "moved[:, j] = weight[:, j]\n    return moved")),
        Mistake("That is the change alone: the new weight is wanted.", ("return moved", "return moved - weight")),
    ),
    moral="Round from left to right and compensate: that is GPTQ. Its Cholesky factor only saves the inversions.")


def fold(
    norm: torch.Tensor, readers: list[torch.Tensor], s: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """AWQ's scale s (k,) put into a norm's weight (k,) and its readers (d, k)."""
    return norm / s, [weight * s for weight in readers]


def _readers(rng: random.Random, k: int, *rows: int) -> tuple:
    powers = 2.0 ** integers(rng, -2, 2, k)
    return integers(rng, 1, 8, k) / 4, [integers(rng, -8, 8, d, k) / 4 for d in rows], powers


FOLD = Exercise(14, fold, "★ Spot the bug: a scale needs all its readers · 4 min", """
AWQ rounds W·diag(s). So that a layer computes what it did, its input must be divided by s, for nothing: in a Llama that
goes into the norm before it, y = W·(g ⊙ x̂), whose weight g is divided. But several matrices read one norm: q, k and v,
or gate and up. One converter divided the norm and scaled some of its readers
([mlx-node#78](https://github.com/mlx-node/mlx-node/pull/78)). In short:

```python
def fold(norm, readers, s):
    return norm / s, [readers[0] * s, *readers[1:]]
```

Return the norm's new weight and the new matrices, so that *every* reader computes what it did before. Rounding comes
later.
""",
    cases=(
        Case((torch.tensor([1.0, 2.0]), [torch.tensor([[1.0, 3.0]])], torch.tensor([2.0, 4.0]))),
        Case((torch.tensor([1.0, 2.0]), [torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, -1.0]])],
              torch.tensor([2.0, 4.0])), about="two readers"),
        Case(_readers(random.Random(1), 3, 3, 2, 4), about="three readers of different sizes, one of them square"),
    ),
    draw=lambda rng: _readers(rng, rng.randint(2, 4), *(rng.randint(1, 4) for _ in range(rng.randint(1, 3)))),
    hints=("Column c of every matrix meets channel c of the norm's output.",
           "What is divided once, in the norm, must be multiplied in all matrices that read it.",
           "`weight * s` scales the columns of a (d, k) matrix."),
    mistakes=(
        Mistake("Only the first reader was scaled: the others get an input divided by s and know nothing of it."),
        Mistake("The norm was multiplied and the readers divided: it is the weights that AWQ makes larger.",
                ("norm / s", "norm * s", "weight * s", "weight / s")),
        Mistake("s was shared out among the readers. They read one and the same input: each needs all of s.",
                ("weight * s", "weight * s ** (1 / len(readers))")),
        Mistake("Both were multiplied: together they must cancel.", ("norm / s", "norm * s")),
        Mistake("The norm is as it was: what the readers gained must be taken from their input.", ("norm / s", "norm")),
        Mistake("The rows were scaled: s belongs to the inputs of a matrix, its columns.",
                ("weight * s for", "(weight.T * s).T if weight.shape[0] == len(s) else weight * s for")),
        Mistake("The last reader was left out.", ("[weight * s for weight in readers]",
                                                  "[weight * s for weight in readers[:-1]] + readers[-1:]")),
        Mistake("The readers are divided like the norm: together they must cancel.", ("weight * s", "weight / s")),
        Mistake("The norm was divided by the square or the root of s: the readers gained s itself, and it must cancel.",
                ("norm / s", "norm / s**2"), ("norm / s", "norm / s.sqrt()")),
        Mistake("One number was made of s, its mean: every channel has a factor of its own.",
                ("weight * s", "weight * s.mean()"), ("norm / s", "norm / s.mean()"),
                ("norm / s", "norm / s.mean()", "weight * s", "weight * s.mean()")),
        Mistake("The norm was divided and then brought back to its old mean or length: so it no longer cancels.",
                ("norm / s", "norm / s * norm.mean() / (norm / s).mean()"),
                ("norm / s", "norm / s * norm.norm() / (norm / s).norm()")),
        Mistake("s was put into every reader by its root only.", ("weight * s", "weight * s.sqrt()")),
        Mistake("The norm was divided once for every reader: they all read the same one.",
                ("norm / s", "norm / s ** len(readers)")),
    ),
    moral="So q, k and v must share one s. Where nothing can take 1/s for nothing, AWQ leaves a layer unscaled.")
