"""Where levels come from: quantiles of the normal distribution."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise


def normal_levels(bits: int) -> torch.Tensor:
    """The levels of NormalFloat: float64 (2**bits,), from -1 to 1, sorted."""
    bins, half = 2**bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * bins) + 1 / (2 * (bins - 1))) / 2
    above = torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))
    below = -torch.special.ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64))
    return torch.cat([below[1:].flip(0), above]) / above[-1]


def _levels(bits: int, offset: float, above: int, below: int, normalise: bool = True) -> torch.Tensor:
    up = torch.special.ndtri(torch.linspace(0.5, offset, above + 1, dtype=torch.float64))
    down = -torch.special.ndtri(torch.linspace(0.5, offset, below + 1, dtype=torch.float64))
    levels = torch.cat([down[1:].flip(0), up])
    return levels / up[-1] if normalise else levels


def _offset(bits: int) -> float:
    return 1 - (1 / 2 ** (bits + 1) + 1 / (2 ** (bits + 1) - 2)) / 2


def _equation_4(bits: int) -> torch.Tensor:
    q = torch.special.ndtri(torch.arange(2**bits + 1, dtype=torch.float64) / (2**bits + 1))
    return (q[1:] + q[:-1]) / 2


def _bin_middles(bits: int) -> torch.Tensor:
    q = torch.special.ndtri((torch.arange(2**bits, dtype=torch.float64) + 0.5) / 2**bits)
    return q / q[-1]


def _close(other):
    return lambda got: torch.allclose(got.double(), other, rtol=1e-4)


NORMAL_LEVELS = Exercise(
    lesson=4,
    title="NF3, NF5 and the rest of the family",
    stars=3,
    minutes=12,
    imports="import torch",
    prompt="""
The recipe is not bound to four bits. Write it for any: zero in the middle, `2**(bits - 1)` steps of equal probability
up to the offset, one step fewer down to its mirror image, then normal quantiles (`torch.special.ndtri`, in float64),
then divided by the largest. The offset is $1 - \\frac12\\left(\\frac1{2n} + \\frac1{2(n-1)}\\right)$ with n = 2**bits.
""",
    solution=normal_levels,
    cases=(
        Case((4,), "general", {
            "not_normalised": _close(_levels(4, _offset(4), 8, 7, False)),
            "fifteen": lambda got: len(got) == 15,
            "two_zeros": lambda got: len(got) == 17 or int((got == 0).sum()) == 2,
            "mirrored": _close(-_levels(4, _offset(4), 8, 7).flip(0)),
            "to_infinity": lambda got: not got.isfinite().all(),
            "half_offset": lambda got: any(torch.allclose(got.double(), _levels(4, 1 - 1 / n, 8, 7), rtol=1e-4)
                                           for n in (30, 32)),
            "no_zero": lambda got: len(got) == 16 and not (got == 0).any(),
            "unsorted": lambda got: (got.diff() < 0).any() and torch.allclose(
                got.double().sort().values, normal_levels(4), rtol=1e-4),
        }, tolerance=1e-9),
        Case((3,), "general", {"offset_of_four": _close(_levels(3, _offset(4), 4, 3))}, tolerance=1e-9),
        Case((2,), "general", tolerance=1e-9),
        Case((6,), "general", tolerance=1e-9),
    ),
    hints=(
        "Two halves: `torch.linspace(0.5, offset, steps + 1)` are the probabilities, `ndtri` makes levels of them.",
        "The upper half has 2**(bits-1) steps, the lower one fewer. Both begin with the zero: leave one of them out.",
        "`torch.cat([below[1:].flip(0), above]) / above[-1]`, with `below` the negative of its quantiles.",
    ),
    diagnoses={
        "general": "Zero, 2**(bits-1) levels above, one fewer below, all from one offset, divided by the largest.",
        "not_normalised": "The last division is missing. Scaled weights end at 1, so 4 of these 16 codes would never "
                          "be used.",
        "fifteen": "Fifteen levels: both halves have seven. A code is left over, and the upper half gets it.",
        "two_zeros": "Both halves begin with zero, and both zeros are in the table. Leave one out.",
        "mirrored": "Right, but mirrored: it is the *upper* half that has one level more.",
        "to_infinity": "The quantile of probability 0 or 1 is infinite. Stop at the offset, half a bin before.",
        "half_offset": "Half a bin, yes, but of 16 bins or of 15? The offset takes the mean of 1/32 and 1/30.",
        "no_zero": "There is no zero among them, as in the paper's equation 4. Build two halves that meet at 0.",
        "unsorted": "All levels are there, but not sorted: flip the lower half.",
        "offset_of_four": "That offset is the one of four bits. Compute it from `bits`.",
    },
    wrong=(
        (lambda bits: _levels(bits, _offset(bits), 2 ** (bits - 1), 2 ** (bits - 1) - 1, False), "not_normalised"),
        (lambda bits: _levels(bits, _offset(bits), 2 ** (bits - 1) - 1, 2 ** (bits - 1) - 1), "fifteen"),
        (lambda bits: torch.cat([torch.zeros(1).double(), normal_levels(bits)]).sort().values, "two_zeros"),
        (lambda bits: -normal_levels(bits).flip(0), "mirrored"),
        (lambda bits: _levels(bits, 1.0, 2 ** (bits - 1), 2 ** (bits - 1) - 1), "to_infinity"),
        (_equation_4, "to_infinity"),
        (lambda bits: _levels(bits, 1 - 1 / 2 ** (bits + 1), 2 ** (bits - 1), 2 ** (bits - 1) - 1), "half_offset"),
        (_bin_middles, "no_zero"),
        (lambda bits: normal_levels(bits).roll(3), "unsorted"),
        (lambda bits: _levels(bits, _offset(4), 2 ** (bits - 1), 2 ** (bits - 1) - 1), "offset_of_four"),
        (lambda bits: torch.arange(2**bits, dtype=torch.float64) / 2**bits, "general"),
    ),
    moral="`helpers.codebooks.normal_float` is this function; lesson 09 goes down to NF3 and NF2 with it.",
)
