"""Codes: the nearest level, what a code tells, and where levels come from."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
from helpers.exercises.compare import equal
from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def nf4_code(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The code of the nearest level: x (n,), sorted levels (k,) -> int64 (n,)."""
    boundaries = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(x, boundaries)


FIVE = torch.tensor([-1.0, -0.25, 0.0, 0.5, 1.0])

NF4_CODE = Exercise(4, nf4_code, "★ The nearest level · 6 min", """
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


def code_entropy(codes: torch.Tensor) -> float:
    """The entropy of the codes in bits: -sum of p * log2(p) over their shares p."""
    p = torch.bincount(codes.flatten()).double() / codes.numel()
    p = p[p > 0]
    return -(p * p.log2()).sum().item()


CODE_ENTROPY = Exercise(4, code_entropy, "★★ How many bits do the codes really carry? · 8 min", """
Sixteen codes, all equally frequent, carry 4 bits each. If some are rare, a code tells less: with the shares p of the
codes it carries $-\\sum p \\log_2 p$ bits. Count the codes, whole numbers from 0 up, and compute that. A code that
does not occur adds nothing.
""",
    cases=((torch.tensor([0, 1, 1, 2, 2, 2, 2, 2]),),
           Case((torch.tensor([[0, 0, 0], [1, 0, 0]]),), "a tensor of more than one dimension"),
           Case((torch.tensor([0, 15, 0, 15, 3]),), "codes that do not occur"),
           Case((torch.tensor([7, 7, 7]),), "one code only, which tells nothing"),
           Case((torch.tensor([3, 100, 255, 255]),), "codes of more than four bits"),
           Case((torch.arange(1000),), "a thousand codes, each of them rare", "0 to 999, each once"),
           Case((torch.arange(2, dtype=torch.uint8).repeat_interleave(256),), "256 of each code, stored as uint8",
                "256 times 0 and 256 times 1, as uint8")),
    hints=("`torch.bincount(codes.flatten())` counts each code; divide by `codes.numel()` for the shares.",
           "0 · log2(0) is NaN for torch. Keep only the shares above 0: `p = p[p > 0]`.",
           "`-(p * p.log2()).sum().item()` is the answer."),
    mistakes=(
        Mistake("That is in nats: `log` is the natural logarithm.", ("log2", "log")),
        Mistake("The sign is missing: logarithms of shares are negative, the entropy is not.", ("-(p", "(p")),
        Mistake("Those are counts, not shares: they do not sum to 1.", (" / codes.numel()", "")),
        Mistake("That counts the distinct codes, rare or not.", lambda codes: float(len(codes.unique()))),
        Mistake("That is log2 of how many codes occur: right only where all are equally frequent.",
                lambda codes: torch.tensor(len(codes.unique())).double().log2().item()),
        Mistake("That is log2 of the largest code plus one, the bits that it takes to write any of them down.",
                lambda codes: (codes.max() + 1).double().log2().item()),
        Mistake("That looks at the fullest code alone.", ("(p * p.log2()).sum()", "p.max().log2()")),
        Mistake("The logarithms are not weighted: a rare code counts as much as a frequent one.", ("p * p", "p")),
        Mistake("That is a mean. The shares are weights already, and the sum is asked.", ("sum", "mean")),
        Mistake("0 · log2(0) is NaN: a code that does not occur is still among the shares.", ("p = p[p > 0]", "")),
        Mistake("Divided by the number of rows: `len` sees one dimension only.", ("codes.numel()", "len(codes)")),
    ),
    draw=lambda rng: (integers(rng, 0, rng.randint(1, 7), rng.randint(1, 4), rng.randint(1, 5)) * rng.choice((1, 2)),),
    close=lambda got, expected: equal(1 + got, 1 + expected, 1e-5),  # also where 0 is expected
    moral="NF4's codes on Gaussian blocks of 64 carry 3.88 bits: not 4, and that is no disaster.")


def normal_levels(bits: int) -> torch.Tensor:
    """The levels of NormalFloat: float64 (2**bits,), from -1 to 1, sorted."""
    bins, half = 2**bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * bins) + 1 / (2 * (bins - 1))) / 2
    above = torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))
    below = -torch.special.ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64))
    return torch.cat([below[1:].flip(0), above]) / above[-1]


NORMAL_LEVELS = Exercise(4, normal_levels, "★★★ NF3, NF5 and the rest of the family · 12 min", """
The recipe is not bound to four bits. Write it for any: zero in the middle, `2**(bits - 1)` steps of equal probability
up to the offset, one step fewer down to its mirror image, then normal quantiles (`torch.special.ndtri`, in float64),
then divided by the largest. The offset is $1 - \\frac12\\left(\\frac1{2n} + \\frac1{2(n-1)}\\right)$ with n = 2**bits.
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
                (q := torch.special.ndtri((torch.arange(2**bits).double() + 0.5) / 2**bits)) / q[-1]),
        Mistake("All levels are there, but not sorted: the lower half runs from zero outwards.", (".flip(0)", "")),
        Mistake("That offset is the one of four bits.", ("bins, half = 2**bits", "bins, half = 16")),
    ),
    draw=lambda rng: (rng.randint(2, 9),),
    tolerance=1e-9,
    moral="`helpers.codebooks.normal_float` is this function; lesson 09 goes down to NF3 and NF2 with it.")
