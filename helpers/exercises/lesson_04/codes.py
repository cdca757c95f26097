"""Codes and levels: where levels come from, the nearest one, and where they would lie best."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def nf4_code(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The code of the nearest level: x (n,), sorted levels (k,) -> int64 (n,)."""
    boundaries = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(x, boundaries)


FIVE = torch.tensor([-1.0, -0.25, 0.0, 0.5, 1.0])

NF4_CODE = Exercise(4, nf4_code, "★ Build: the nearest level · 4 min", """
Give each value the code of the level that is nearest to it. The levels are sorted but not evenly spaced, and there may
be any number of them. `torch.bucketize(x, boundaries)` counts for each value the boundaries below it.
""",
    cases=((torch.tensor([0.2, 0.3, -0.7, -0.8, 0.7, 0.8]), torch.linspace(-1, 1, 5)),
           Case((torch.tensor([0.2, 0.3, -0.7, -0.6, 0.7, 0.8]), FIVE), "levels that are not evenly spaced"),
           Case((torch.tensor([-1.0, 1.0]), FIVE), "values that are the first and the last level"),
           Case((torch.tensor([-1.5, 0.1, 3.0]), FIVE), "values beyond the ends of the table"),
           Case((torch.tensor([0.044, -0.044, 0.87, -0.9]), NF4), "another number of levels, sixteen"),
           Case((torch.tensor([0.95, 0.3, -0.97]), torch.linspace(-1, 1, 33)), "more than sixteen levels"),
           Case((torch.tensor([2.4, 2.6, 9.0]), torch.tensor([1.0, 2.0, 3.0, 7.0])), "levels that are all positive")),
    hints=("Between two neighbouring levels there is one point where the nearest one changes.",
           "The boundaries are the midpoints: `(levels[1:] + levels[:-1]) / 2`, one fewer than levels.",
           "`torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)` is all."),
    mistakes=(
        Mistake("That rounds up, always: the levels themselves are taken as boundaries.", ("boundaries)", "levels)")),
        Mistake("That rounds down, always: the levels themselves are taken as boundaries.",
                ("boundaries)", "levels, right=True) - 1"), ("boundaries)", "levels, right=True).sub(1).clamp(min=0)")),
        Mistake("Those are bins of equal width, as for integers. These levels are not evenly spaced.",
                lambda x, levels: ((x + 1) / 2 * (len(levels) - 1)).round().long()),
        Mistake("All codes are one too high: the first level has the code 0.", ("boundaries)", "boundaries) + 1")),
        Mistake("Those are levels. Asked for are their codes.",
                ("torch.bucketize(x, boundaries)", "levels[torch.bucketize(x, boundaries)]")),
        Mistake("One end of the table is never reached, as if it had no code.", ("boundaries)", "boundaries[:-1])"),
                ("boundaries)", "boundaries).clamp(1, len(levels) - 2)")),
        Mistake("The table in use is not the one that came in as `levels`.", ("levels[1:] + levels", "NF4[1:] + NF4"),
                ("levels[1:] + levels", "FIVE[1:] + FIVE")),
        Mistake("Two neighbours are added and not halved: the boundary lies between them.", (" / 2", "")),
        Mistake("The distance lacks its magnitude.", lambda x, levels: (x[:, None] - levels).argmin(1)),
    ),
    draw=lambda rng: (1.5 * normal(rng, rng.randint(1, 9)), normal(rng, rng.randint(2, 9)).sort().values),
    moral="This line is the whole of rounding, for any codebook. The codebook is where the thought goes.")


def weighted_levels(
    scaled: torch.Tensor,  # (blocks, block_size), from -1 to 1: weights over their absmax
    absmax: torch.Tensor,  # (blocks,)
    levels: torch.Tensor,  # (k,), sorted
) -> torch.Tensor:
    """The levels after one turn, weighted as told above: float32 (k,)."""
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    share = absmax.square()[:, None].expand_as(scaled)
    moved = levels.clone()
    for code, level in enumerate(levels.tolist()):
        here = codes == code
        if here.any() and level not in (-1, 0, 1):
            moved[code] = (share[here] * scaled[here]).sum() / share[here].sum()
    return moved


TABLE = torch.tensor([-1.0, -0.5, 0.0, 0.4, 1.0])
TWO = torch.tensor([[-1.0, -0.4, 0.1, 0.3], [1.0, 0.6, -0.7, -0.3]])

WEIGHTED_LEVELS = Exercise(4, weighted_levels, "★★★ Lloyd's turn, for the weights themselves · 10 min", """
Lloyd's turn above makes the error of the *scaled* weights small. But a weight comes back as level · absmax, and so its
squared error is absmax² · (scaled - level)²: an error in a block with a large absmax counts for more. BOF4
([arXiv 2505.06653](https://arxiv.org/abs/2505.06653)) makes *that* sum small.

Write one turn of it: each value goes to its nearest level; then each level moves to the *weighted* mean of its values,
every value weighted so that the sum of absmax² · (scaled - level)² is least. The levels -1, 0 and 1 stay where they
are, and so does a level to which no value went.
""",
    cases=(Case((TWO[:1], torch.tensor([1.0]), TABLE), about="one block, of absmax 1"),
           Case((TWO, torch.tensor([1.0, 1.0]), TABLE), about="two blocks of equal absmax"),
           Case((TWO, torch.tensor([1.0, 3.0]), TABLE), about="blocks of different absmax"),
           Case((torch.tensor([[1.0, 0.9, 0.1, 0.4]]), torch.tensor([2.0]), TABLE),
                about="a level to which no value went"),
           Case((torch.tensor([[1.0, 0.3], [-0.6, -1.0], [0.5, 1.0]]), torch.tensor([0.1, 0.2, 0.9]), TABLE),
                about="more blocks than values in a block"),
           Case((TWO, torch.tensor([1.0, 3.0]), torch.tensor([-1.0, 0.0, 0.2, 0.5, 1.0])),
                about="levels of which the middle one is not 0")),
    hints=("Which number l makes Σ a² (x - l)² least? Set the derivative to zero.",
           "l = Σ a² x / Σ a²: the mean of the values, weighted by the *square* of their block's absmax.",
           "`share = absmax.square()[:, None].expand_as(scaled)`; with `here = codes == code`: "
           "`(share[here] * scaled[here]).sum() / share[here].sum()`."),
    mistakes=(
        Mistake("All values count alike: that is Lloyd's turn for the scaled weights.",
                ("absmax.square()[:, None].expand_as(scaled)", "torch.ones_like(scaled)")),
        Mistake("The weight is the absmax, not its square: it is the *squared* error that is to be small.",
                (".square()", "")),
        Mistake("The square was squared once more: the error is absmax² · (scaled - level)².", ("square()", "pow(4)")),
        Mistake("Turned round: blocks with a small absmax count for more.", (".square()", ".square().reciprocal()")),
        Mistake("The weighted sum was divided by the number of values, not by the sum of their weights.",
                ("share[here].sum()", "here.sum()")),
        Mistake("The levels came out in the unit of the weights: they belong to scaled values, from -1 to 1.",
                ("share[here] * scaled[here]", "share[here] * scaled[here] * absmax[:, None].expand_as(scaled)[here]")),
        Mistake("-1, 0 and 1 have moved: an absmax scale needs the ends, and zeros must come back as zeros.",
                (" and level not in (-1, 0, 1)", "")),
        Mistake("The zero has moved: zeros must come back as zeros.", ("(-1, 0, 1)", "(-1, 1)")),
        Mistake("The ends have moved: an absmax scale needs -1 and 1.", ("(-1, 0, 1)", "(0,)")),
        Mistake("The middle level was held: it is 0 that stays, wherever it stands.",
                ("level not in (-1, 0, 1)", "code not in (0, len(levels) // 2, len(levels) - 1)")),
        Mistake("A level without values became 0/0, which is NaN.", ("here.any() and ", "")),
        Mistake("A level without values was set to zero: it stays where it is.",
                ("moved = levels.clone()", "moved = torch.where(torch.isin(levels, torch.tensor([-1.0, 0.0, 1.0])), "
                                           "levels, 0.0)")),
        Mistake("The levels themselves were taken for boundaries.", ("(levels[1:] + levels[:-1]) / 2)", "levels)")),
        Mistake("The median was taken, not the mean.",
                ("(share[here] * scaled[here]).sum() / share[here].sum()", "scaled[here].median()")),
    ),
    draw=lambda rng: (normal(rng, 3, 4).clamp(-1, 1), 0.2 + normal(rng, 3).abs(), TABLE),
    tolerance=1e-5,
    moral="On Gaussian blocks of 64 sixty such turns reach the squared error of plain Lloyd, 0.0080: their absmax are "
          "much alike. The weights count where blocks differ.")


def normal_levels(bits: int) -> torch.Tensor:
    """The levels of NormalFloat: float64 (2**bits,), from -1 to 1, sorted."""
    bins, half = 2**bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * bins) + 1 / (2 * (bins - 1))) / 2
    above = torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))
    below = -torch.special.ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64))
    return torch.cat([below[1:].flip(0), above]) / above[-1]


NORMAL_LEVELS = Exercise(4, normal_levels, "★★★ Build: the sixteen levels · 8 min", """
Nothing of the recipe needs four bits: write it for any number. Zero in the middle; `2**(bits - 1)` steps of equal
probability from ½ up to the offset, one step fewer down to its mirror image; of each probability the normal quantile
(`torch.special.ndtri`, in float64); all divided by the largest. The offset is
$1 - \\frac12\\left(\\frac1{2n} + \\frac1{2(n-1)}\\right)$ with n = 2**bits.
""",
    cases=(Case((2,), "two bits: -1, 0, one level between 0 and 1, and 1"), Case((4,), "four bits"),
           Case((3,), "three bits"), Case((6,), "more bits than four")),
    hints=("Two halves: `torch.linspace(0.5, offset, steps + 1)` are the probabilities, `ndtri` makes levels of them.",
           "The upper half has 2**(bits-1) steps, the lower one fewer. Both begin with the zero: leave one out.",
           "`torch.cat([below[1:].flip(0), above]) / above[-1]`, with `below` the negative of its quantiles."),
    mistakes=(
        Mistake("They were not divided by the largest: scaled weights end at 1.", (" / above[-1]", "")),
        Mistake("A level is missing: the upper half has no step more.", ("half + 1", "half")),
        Mistake("Both halves begin with zero, and both zeros are in the table.", ("below[1:]", "below")),
        Mistake("Right, but mirrored: it is the *upper* half that has one level more.",
                ("half + 1", "0 + half", "offset, half,", "offset, half + 1,", "above[-1]", "-below[-1]")),
        Mistake("The steps go up to probability 1 or down to 0, where the quantile is infinite.",
                ("1 - (1 / (2 * bins) + 1 / (2 * (bins - 1))) / 2", "1.0"), lambda bits:
                torch.special.ndtri(torch.arange(2**bits + 1).double() / (2**bits + 1)).unfold(0, 2, 1).mean(1)),
        Mistake("The offset lacks the half bin of n - 1: it is one minus the mean of both.",
                (" + 1 / (2 * (bins - 1))) / 2", ")")),
        Mistake("The offset takes the sum of both half bins, where their mean is asked.", ("- 1))) / 2", "- 1)))")),
        Mistake("There is no zero among them: that is one row of steps.", lambda bits:
                (q := torch.special.ndtri((torch.arange(2**bits).double() + 0.5) / 2**bits)) / q[-1],
                ("return torch.cat([below[1:].flip(0), above])", "above = torch.special.ndtri(torch.linspace("
                 "1 - offset, offset, bins, dtype=torch.float64))\n    return above")),
        Mistake("All levels are there, but not sorted: the lower half runs from zero outwards.", (".flip(0)", "")),
        Mistake("That offset is the one of four bits.", ("bins, half = 2**bits", "bins, half = 16")),
    ),
    draw=lambda rng: (rng.randint(2, 9),),
    tolerance=1e-9,
    moral="`helpers.codebooks.normal_float` is this function; lesson 09 goes down to NF3 and NF2 with it.")
