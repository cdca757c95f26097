"""Where levels come from: quantiles of the normal distribution."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


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


NORMAL_LEVELS = Exercise(4, normal_levels, "★★★ NF3, NF5 and the rest of the family · 12 min", """
The recipe is not bound to four bits. Write it for any: zero in the middle, `2**(bits - 1)` steps of equal probability
up to the offset, one step fewer down to its mirror image, then normal quantiles (`torch.special.ndtri`, in float64),
then divided by the largest. The offset is $1 - \\frac12\\left(\\frac1{2n} + \\frac1{2(n-1)}\\right)$ with n = 2**bits.
""",
    cases=(
        Case((4,)),
        Case((3,)),
        Case((2,)),
        Case((6,)),
    ),
    hints=(
        "Two halves: `torch.linspace(0.5, offset, steps + 1)` are the probabilities, `ndtri` makes levels of them.",
        "The upper half has 2**(bits-1) steps, the lower one fewer. Both begin with the zero: leave one of them out.",
        "`torch.cat([below[1:].flip(0), above]) / above[-1]`, with `below` the negative of its quantiles.",
    ),
    mistakes=(
        Mistake("The last division is missing. Scaled weights end at 1, so 4 of these 16 codes would never "
                "be used.",
                lambda bits: _levels(bits, _offset(bits), 2 ** (bits - 1), 2 ** (bits - 1) - 1, False)),
        Mistake("Fifteen levels: both halves have seven. A code is left over, and the upper half gets it.",
                lambda bits: _levels(bits, _offset(bits), 2 ** (bits - 1) - 1, 2 ** (bits - 1) - 1)),
        Mistake("Both halves begin with zero, and both zeros are in the table. Leave one out.",
                lambda bits: torch.cat([torch.zeros(1).double(), normal_levels(bits)]).sort().values),
        Mistake("Right, but mirrored: it is the *upper* half that has one level more.",
                lambda bits: -normal_levels(bits).flip(0)),
        Mistake("The quantile of probability 0 or 1 is infinite. Stop at the offset, half a bin before.",
                lambda bits: _levels(bits, 1.0, 2 ** (bits - 1), 2 ** (bits - 1) - 1),
                _equation_4),
        Mistake("Half a bin, yes, but of 16 bins or of 15? The offset takes the mean of 1/32 and 1/30.",
                lambda bits: _levels(bits, 1 - 1 / 2 ** (bits + 1), 2 ** (bits - 1), 2 ** (bits - 1) - 1)),
        Mistake("There is no zero among them, as in the paper's equation 4. Build two halves that meet at 0.",
                _bin_middles),
        Mistake("All levels are there, but not sorted: flip the lower half.",
                lambda bits: normal_levels(bits).roll(3)),
        Mistake("That offset is the one of four bits. Compute it from `bits`.",
                lambda bits: _levels(bits, _offset(4), 2 ** (bits - 1), 2 ** (bits - 1) - 1)),
    ),
    tolerance=1e-09,
    moral="`helpers.codebooks.normal_float` is this function; lesson 09 goes down to NF3 and NF2 with it.")
# general: lambda bits: torch.arange(2**bits, dtype=torch.float64) / 2**bits
