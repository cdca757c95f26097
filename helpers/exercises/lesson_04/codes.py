"""Codes: the nearest level, and what a code tells."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
from helpers.exercises.engine import Case, Exercise


def nf4_code(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The code of the nearest level: x (n,), sorted levels (k,) -> int64 (n,)."""
    boundaries = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(x, boundaries)


FIVE = torch.tensor([-1.0, -0.25, 0.0, 0.5, 1.0])

NF4_CODE = Exercise(
    lesson=4,
    title="The nearest level",
    stars=1,
    minutes=6,
    imports="import torch",
    prompt="""
Give each value the code of the level that is nearest to it. The levels are sorted but not evenly spaced, and there may
be any number of them. `torch.bucketize(x, boundaries)` counts for each value the boundaries below it.
""",
    solution=nf4_code,
    cases=(
        Case((torch.tensor([0.2, 0.3, -0.9, 0.9]), FIVE), "general", {
            "next_above": torch.tensor([3, 3, 1, 4]), "next_below": torch.tensor([2, 2, 0, 3]),
            "even_bins": torch.tensor([2, 3, 0, 4]), "off_by_one": torch.tensor([3, 4, 1, 5]),
            "values": torch.tensor([0.0, 0.5, -1.0, 1.0]),
        }),
        Case((torch.tensor([0.7, 0.8, -0.6, -0.7]), FIVE), "general", {"even_bins": torch.tensor([3, 4, 1, 1])}),
        Case((torch.tensor([-1.0, 1.0]), FIVE), "general", {"ends": torch.tensor([1, 3])}),
        Case((torch.tensor([0.044, -0.044, 0.87]), NF4), "general", {"always_five": lambda got: got.max() < 5}),
    ),
    hints=(
        "Between two neighbouring levels there is one point where the nearest one changes.",
        "The boundaries are the midpoints: `(levels[1:] + levels[:-1]) / 2`, one fewer than levels.",
        "`torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)` is all.",
    ),
    diagnoses={
        "general": "The boundaries are the midpoints between neighbouring levels: `(levels[1:] + levels[:-1]) / 2`.",
        "next_above": "That rounds up, always. The levels themselves are not the boundaries; their midpoints are.",
        "next_below": "That rounds down, always. The levels themselves are not the boundaries; their midpoints are.",
        "even_bins": "Those are bins of equal width, as for integers. These levels are not evenly spaced.",
        "off_by_one": "All codes are one too high: the first level has the code 0.",
        "values": "Those are the levels. Asked for are their codes, the indices.",
        "ends": "-1 and 1 are levels themselves: their codes are the first and the last.",
        "always_five": "Count the levels that came in: here are sixteen.",
    },
    wrong=(
        (lambda x, levels: torch.bucketize(x, levels), "next_above"),
        (lambda x, levels: torch.bucketize(x, levels, right=True) - 1, "next_below"),
        (lambda x, levels: ((x + 1) / 2 * (len(levels) - 1)).round().long(), "even_bins"),
        (lambda x, levels: nf4_code(x, levels) + 1, "off_by_one"),
        (lambda x, levels: levels[nf4_code(x, levels)], "values"),
        (lambda x, levels: torch.where(x.abs() == 1, nf4_code(x, levels).clamp(1, 3), nf4_code(x, levels)), "ends"),
        (lambda x, levels: nf4_code(x, FIVE), "always_five"),
        (lambda x, levels: torch.zeros(len(x), dtype=torch.int64), "general"),
    ),
    moral="This line is the whole of rounding, for any codebook. The codebook is where the thought goes.",
)


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


CODE_ENTROPY = Exercise(
    lesson=4,
    title="How many bits do the codes really carry?",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
Sixteen codes, all equally frequent, carry 4 bits each. If some are rare, a code tells less: with the shares p of the
codes it carries $-\\sum p \\log_2 p$ bits. Count the codes of a whole-number tensor and compute that. A code that does
not occur adds nothing.
""",
    solution=code_entropy,
    cases=(
        Case((torch.arange(16).repeat(3),), "general", {
            "natural_log": _entropy(torch.full((16,), 1 / 16), torch.log), "negative": -4.0, "not_shares": lambda got:
            abs(got) > 16, "distinct": lambda got: got == 16}, tolerance=1e-5),
        Case((torch.tensor([[0, 0, 0, 1], [0, 0, 0, 1]]),), "general", {
            "count_of_codes": 1.0, "fullest": lambda got: abs(got - 0.4150375) < 1e-6, "per_code": 0.40563906},
            tolerance=1e-5),
        Case((torch.tensor([0, 15, 0, 15]),), "missing_codes", {"empty_bins": lambda got: got != got},
             tolerance=1e-5),
        Case((torch.tensor([7, 7, 7]),), "missing_codes", {"empty_bins": lambda got: got != got}, tolerance=1e-5),
    ),
    hints=(
        "`torch.bincount(codes.flatten())` counts each code; divide by `codes.numel()` for the shares.",
        "0 · log2(0) is NaN for torch. Keep only the shares above 0: `p = p[p > 0]`.",
        "`-(p * p.log2()).sum().item()` is the answer.",
    ),
    diagnoses={
        "general": "Shares first: counts divided by how many codes there are. Then -(p * log2 p), summed up.",
        "natural_log": "That is in nats: `log` is the natural logarithm. Bits need `log2`.",
        "negative": "The sign is missing: logarithms of shares are negative, the entropy is not.",
        "not_shares": "Those are counts. Divide by the number of codes, so that they sum to 1.",
        "distinct": "That counts the distinct codes. Asked is how evenly they are used, in bits.",
        "count_of_codes": "That is log2 of how many codes occur: right only where all are equally frequent.",
        "fullest": "That looks at the fullest code alone. Average -log2(p) over all, each with its share.",
        "per_code": "That is the mean over codes. The sum is asked: p already is the weight of each.",
        "missing_codes": "Not every code occurs here. A code with the share 0 adds nothing to the sum.",
        "empty_bins": "0 · log2(0) came out as NaN. Leave out codes that do not occur before taking the logarithm.",
    },
    wrong=(
        (lambda codes: _entropy(_shares(codes), torch.log), "natural_log"),
        (lambda codes: -code_entropy(codes), "negative"),
        (lambda codes: _entropy(torch.bincount(codes.flatten()).double()), "not_shares"),
        (lambda codes: len(codes.unique()) * 1.0, "distinct"),
        (lambda codes: float(torch.tensor(len(codes.unique())).double().log2()), "count_of_codes"),
        (lambda codes: -_shares(codes).max().log2().item(), "fullest"),
        (lambda codes: code_entropy(codes) / (1 if codes.max() == 15 else len(codes.unique())), "per_code"),
        (lambda codes: code_entropy(codes) + (len(codes.unique()) < int(codes.max()) + 1), "missing_codes"),
        (lambda codes: _entropy(torch.bincount(codes.flatten()).double() / codes.numel()), "empty_bins"),
        (lambda codes: 3.9, "general"),
    ),
    moral="NF4's codes on Gaussian blocks of 64 carry 3.88 bits: not 4, and that is no disaster.",
)
