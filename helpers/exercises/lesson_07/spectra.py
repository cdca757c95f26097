"""Counting: the weights of a rank, the energy it keeps, the similarity that chance gives."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def rank_in_budget(shapes: list[tuple[int, int]], budget: int) -> int:
    """The largest r whose As and Bs stay within budget; 0 if not even r = 1 does."""
    weights_per_rank = sum(d + k for d, k in shapes)
    return min(budget // weights_per_rank, *(min(d, k) for d, k in shapes))


FEED_FORWARD = [(320, 128), (320, 128), (128, 320)] * 4  # the pocket Llama's
QUERIES = [(128, 128)] * 4

RANK_IN_BUDGET = Exercise(7, rank_in_budget, "★ What the budget buys · 5 min", """
To compare "LoRA on the queries" with "LoRA on everything" fairly, both must train equally many weights, as in table 5
of the LoRA paper. So which r does a budget buy? `shapes` lists the weight matrices as (d, k); each gets a B (d, r) and
an A (r, k), all with the same r. No r can be above the smaller side of a matrix.
""",
    cases=(
        Case((FEED_FORWARD, 37_888), shown="the pocket Llama's feed-forward, (320, 128) twice and (128, 320) in each of 4 layers; budget=37888"),
        Case((QUERIES, 37_888)),
        Case((QUERIES, 1_000_000)),
        Case((QUERIES, 1_000)),
        Case(([(4096, 4096)] * 64, 8_388_608), shown="64 times (4096, 4096), budget=8388608"),
    ),
    hints=(
        "One more rank adds one row to A and one column to B, in every matrix. How many weights is that?",
        "A row of A has k weights, a column of B has d: every rank costs `sum(d + k for d, k in shapes)`.",
        "`budget // cost` rounds down. Take the `min` of that and of the smaller sides.",
    ),
    mistakes=(
        Mistake("d * k counts the weights of the whole matrix. A and B have d + k for every rank.",
                lambda shapes, budget: budget // sum(d * k for d, k in shapes)),
        Mistake("That counts only one of A and B. Every rank costs a row of A (k) and a column of B (d).",
                lambda shapes, budget: budget // sum(k for d, k in shapes),
                lambda shapes, budget: budget // sum(d for d, k in shapes)),
        Mistake("Rounded up: that r goes over the budget.",
                lambda shapes, budget: -(-budget // sum(d + k for d, k in shapes))),
        Mistake("That spends the whole budget on one matrix. All of them share it.",
                lambda shapes, budget: budget // sum(shapes[0])),
        Mistake("A rank is a whole number: round down with `//`.",
                lambda shapes, budget: budget / sum(d + k for d, k in shapes)),
        Mistake("The budget would pay for more, but no rank is above the smaller side of a matrix.",
                lambda shapes, budget: budget // sum(d + k for d, k in shapes)),
        Mistake("Not even r = 1 fits here: return 0.",
                lambda shapes, budget: max(1, rank_in_budget(shapes, budget))),
    ),
    tolerance=0.0,
    moral="37 for the queries alone, 7 for the feed-forward, 4 for all: the sweep of this lesson spends its budget so.")
# general: lambda shapes, budget: 5


def rank_of_energy(sigma: torch.Tensor, share: float) -> int:
    """The smallest r that holds at least `share` of the energy; sigma (n,) falls."""
    energy = sigma.double().square()
    kept = energy.cumsum(0) / energy.sum()
    return int((kept < share - 1e-12).sum()) + 1


def _count(values: torch.Tensor, share: float) -> int:
    return int((values.cumsum(0) / values.sum() < share - 1e-12).sum()) + 1


FALLING = torch.tensor([5.0, 3.0, 2.0, 1.0, 1.0])

RANK_OF_ENERGY = Exercise(7, rank_of_energy, "★★ How many directions hold the energy · 6 min", """
Tools that shrink an adapter choose its new rank by a rule such as "keep 95 %"
([sd-scripts#243](https://github.com/kohya-ss/sd-scripts/pull/243)); PEFT's `convert_to_lora` has one too. Write the
rule: the smallest r whose first singular values hold at least `share` of the *energy*, that is of the sum of squares.
""",
    cases=(
        Case((FALLING, 0.5)),
        Case((FALLING, 0.9)),
        Case((torch.tensor([2.0, 2.0, 2.0, 2.0]), 0.5)),
        Case((torch.tensor([5.0, 1.0, 0.0, 0.0]), 1.0)),
        Case((torch.tensor([7.0]), 0.3)),
    ),
    hints=(
        "Energy is the sum of the squared singular values. `cumsum` adds them up one by one.",
        "`kept = energy.cumsum(0) / energy.sum()` is the share for r = 1, 2, 3, ...; how many of them are too small?",
        "`int((kept < share).sum())` of them are too small; the next one is the answer.",
    ),
    mistakes=(
        Mistake("Energy is the sum of *squares*: without squaring, small singular values count too much.",
                lambda sigma, share: _count(sigma, share)),
        Mistake("One too few: position 0 of the sums is r = 1.",
                lambda sigma, share: rank_of_energy(sigma, share) - 1),
        Mistake("That asks for the energy left out to be below `share`. What is kept must reach it.",
                lambda sigma, share: int((1 - sigma.square().cumsum(0) / sigma.square().sum() > share).sum()) + 1),
        Mistake("That is a share of the number of singular values, whatever their size.",
                lambda sigma, share: -int(-share * len(sigma) // 1)),
        Mistake("Exactly `share` is enough: two of four equal values hold half.",
                lambda sigma, share: int((sigma.square().cumsum(0) / sigma.square().sum() <= share).sum()) + 1),
        Mistake("Singular values of 0 hold nothing: the smallest r that reaches `share` stops before them.",
                lambda sigma, share: len(sigma) if share == 1 else rank_of_energy(sigma, share)),
    ),
    tolerance=0.0,
    moral="A fair rule for storing an update. This lesson measured that it says little about the rank training needs.")
# general: lambda sigma, share: len(sigma)


def chance_similarity(i: int, j: int, k: int) -> float:
    """The mean of φ between random subspaces of i and of j dimensions, out of k."""
    return max(i, j) / k


CHANCE_SIMILARITY = Exercise(7, chance_similarity, "★★ Alike by chance · 7 min", """
Two adapters share a subspace with φ = 0.5: is that a lot? It depends on what two random ones would share. φ divides
‖XYᵀ‖² by min(i, j), where X holds i orthonormal rows and Y holds j. A random unit vector of k dimensions has, on
average, a share of j / k of its squared length inside the subspace of Y. Put the two together.
""",
    cases=(
        Case((8, 64, 128)),
        Case((64, 8, 128)),
        Case((8, 64, 12_288)),
        Case((128, 5, 128)),
        Case((1, 1, 64)),
    ),
    hints=(
        "‖XYᵀ‖² adds up, over the i rows of X, the squared length that lies in Y's subspace.",
        "On average that is i · j / k. Now divide as φ does.",
        "i · j / min(i, j) is the larger of the two.",
    ),
    mistakes=(
        Mistake("That is the mean of ‖XYᵀ‖². φ divides it by min(i, j), so that it ends at 1.",
                lambda i, j, k: i * j / k),
        Mistake("Divided by the larger of i and j; φ divides by the smaller, and the larger is left.",
                lambda i, j, k: min(i, j) / k),
        Mistake("Only in infinitely many dimensions. In k dimensions two random subspaces always share something.",
                lambda i, j, k: 0.0),
        Mistake("φ adds up *squared* lengths: there is no root to take.",
                lambda i, j, k: (max(i, j) / k) ** 0.5),
        Mistake("Squared once too often: j / k is already the share of the squared length.",
                lambda i, j, k: (max(i, j) / k) ** 2),
        Mistake("φ is 1 only if the smaller subspace lies inside the larger one.",
                lambda i, j, k: 1.0),
        Mistake("φ does not change when X and Y change places. Whichever is larger counts.",
                lambda i, j, k: j / k),
        Mistake("The width k counts: the same ranks mean much less likeness by chance in GPT-3's 12,288.",
                lambda i, j, k: max(i, j) / 128),
    ),
    tolerance=1e-09,
    moral="0.5 here, 0.005 in GPT-3: the same heat map, two different claims. Draw the chance map beside it.")
# general: lambda i, j, k: 1 / k
