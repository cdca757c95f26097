"""Codes: the nearest level, and what a code tells."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
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
    cases=(
        Case((torch.tensor([0.2, 0.3, -0.9, 0.9]), FIVE)),
        Case((torch.tensor([0.7, 0.8, -0.6, -0.7]), FIVE)),
        Case((torch.tensor([-1.0, 1.0]), FIVE)),
        Case((torch.tensor([0.044, -0.044, 0.87]), NF4)),
    ),
    hints=(
        "Between two neighbouring levels there is one point where the nearest one changes.",
        "The boundaries are the midpoints: `(levels[1:] + levels[:-1]) / 2`, one fewer than levels.",
        "`torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)` is all.",
    ),
    mistakes=(
        Mistake("That rounds up, always. The levels themselves are not the boundaries; their midpoints are.",
                lambda x, levels: torch.bucketize(x, levels)),
        Mistake("That rounds down, always. The levels themselves are not the boundaries; their midpoints are.",
                lambda x, levels: torch.bucketize(x, levels, right=True) - 1),
        Mistake("Those are bins of equal width, as for integers. These levels are not evenly spaced.",
                lambda x, levels: ((x + 1) / 2 * (len(levels) - 1)).round().long()),
        Mistake("All codes are one too high: the first level has the code 0.",
                lambda x, levels: nf4_code(x, levels) + 1),
        Mistake("Those are the levels. Asked for are their codes, the indices.",
                lambda x, levels: levels[nf4_code(x, levels)]),
        Mistake("-1 and 1 are levels themselves: their codes are the first and the last.",
                lambda x, levels: torch.where(x.abs() == 1, nf4_code(x, levels).clamp(1, 3), nf4_code(x, levels))),
        Mistake("Count the levels that came in: here are sixteen.",
                lambda x, levels: nf4_code(x, FIVE)),
    ),
    tolerance=0.0,
    moral="This line is the whole of rounding, for any codebook. The codebook is where the thought goes.")
# general: lambda x, levels: torch.zeros(len(x), dtype=torch.int64)


def code_entropy(codes: torch.Tensor) -> float:
    """The entropy of the codes in bits: -sum of p * log2(p) over their shares p."""
    p = torch.bincount(codes.flatten()).double() / codes.numel()
    p = p[p > 0]
    return -(p * p.log2()).sum().item()


def _entropy(p: torch.Tensor, log=torch.log2) -> float:
    return -(p * log(p)).sum().item()


def _shares(codes: torch.Tensor) -> torch.Tensor:
    p = torch.bincount(codes.flatten()).double() / codes.numel()
    return p[p > 0]


CODE_ENTROPY = Exercise(4, code_entropy, "★★ How many bits do the codes really carry? · 8 min", """
Sixteen codes, all equally frequent, carry 4 bits each. If some are rare, a code tells less: with the shares p of the
codes it carries $-\\sum p \\log_2 p$ bits. Count the codes of a whole-number tensor and compute that. A code that does
not occur adds nothing.
""",
    cases=(
        Case((torch.arange(16).repeat(3),)),
        Case((torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1]]),)),
        Case((torch.tensor([0, 15, 0, 15]),)),
        Case((torch.tensor([7, 7, 7]),)),
    ),
    hints=(
        "`torch.bincount(codes.flatten())` counts each code; divide by `codes.numel()` for the shares.",
        "0 · log2(0) is NaN for torch. Keep only the shares above 0: `p = p[p > 0]`.",
        "`-(p * p.log2()).sum().item()` is the answer.",
    ),
    mistakes=(
        Mistake("That is in nats: `log` is the natural logarithm. Bits need `log2`.",
                lambda codes: _entropy(_shares(codes), torch.log)),
        Mistake("The sign is missing: logarithms of shares are negative, the entropy is not.",
                lambda codes: -code_entropy(codes)),
        Mistake("Those are counts. Divide by the number of codes, so that they sum to 1.",
                lambda codes: _entropy(torch.bincount(codes.flatten()).double())),
        Mistake("That counts the distinct codes. Asked is how evenly they are used, in bits.",
                lambda codes: len(codes.unique()) * 1.0),
        Mistake("That is log2 of how many codes occur: right only where all are equally frequent.",
                lambda codes: float(torch.tensor(len(codes.unique())).double().log2())),
        Mistake("That looks at the fullest code alone. Average -log2(p) over all, each with its share.",
                lambda codes: -_shares(codes).max().log2().item()),
        Mistake("That is the mean over codes. The sum is asked: p already is the weight of each.",
                lambda codes: code_entropy(codes) / (1 if codes.max() == 15 else len(codes.unique()))),
        Mistake("Not every code occurs here. A code with the share 0 adds nothing to the sum.",
                lambda codes: code_entropy(codes) + (len(codes.unique()) < int(codes.max()) + 1)),
        Mistake("0 · log2(0) came out as NaN. Leave out codes that do not occur before taking the logarithm.",
                lambda codes: _entropy(torch.bincount(codes.flatten()).double() / codes.numel())),
    ),
    tolerance=1e-05,
    moral="NF4's codes on Gaussian blocks of 64 carry 3.88 bits: not 4, and that is no disaster.")
# general: lambda codes: 3.9
