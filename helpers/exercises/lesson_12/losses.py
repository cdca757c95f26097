"""Losses of a mixture, and a cousin of DPO."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def mixed_loss(
    losses: list[torch.Tensor], kinds: list[str], weights: dict[str, float]
) -> torch.Tensor:
    """The weighted mean, over the kinds in the batch, of each kind's loss per token: ().

    losses: of each row the losses of its tokens (tokens,); kinds: what each row is.
    """
    total, used = torch.tensor(0.0), 0.0
    for kind, weight in weights.items():
        rows = [row for row, its_kind in zip(losses, kinds, strict=True) if its_kind == kind]
        if rows:
            total = total + weight * torch.cat(rows).mean()
            used += weight
    return total / used


def _batch(seed: int, kinds: list[str], lengths: list[int], weights: dict[str, float]) -> tuple:
    rng = random.Random(seed)
    return [integers(rng, 1, 40, n) / 8 for n in lengths], kinds, weights


def _drawn(rng: random.Random) -> tuple:
    kinds = [rng.choice(("answer", "prose", "pair")) for _ in range(rng.randint(2, 5))]
    weights = {kind: rng.choice((0.5, 1.0, 2.0, 3.0)) for kind in ("answer", "prose", "pair")}
    return _batch(rng.randint(0, 10**6), kinds, [rng.randint(1, 9) for _ in kinds], weights)


OWN, GROUPED = "torch.cat(rows).mean()", "torch.stack([row.mean() for row in rows]).mean()"


def _token_mean(losses: list[torch.Tensor], kinds: list[str], weights: dict[str, float]) -> torch.Tensor:
    part = [(weights[kind] * row.sum(), weights[kind] * len(row)) for row, kind in zip(losses, kinds, strict=True)]
    return sum(loss for loss, _ in part) / sum(count for _, count in part)


def _row_weights(losses: list[torch.Tensor], kinds: list[str], weights: dict[str, float]) -> torch.Tensor:
    return sum(weights[k] * row.mean() for row, k in zip(losses, kinds, strict=True)) / sum(weights[k] for k in kinds)


MIXED_LOSS = Exercise(12, mixed_loss, "★★ A mixture that nobody drowns · 5 min", """
A batch mixes answers of five tokens with pages of prose. In one mean over all tokens the answers hardly count, unless
there are very many of them. Let every *kind* have a mean of its own, over all tokens of its rows together; the result
is the mean of these means by `weights`.

A kind that is not in this batch has no mean: leave it out, with its weight.
""",
    cases=(_batch(5, ["answer", "prose"], [2, 7], {"answer": 1.0, "prose": 1.0}),
           Case(_batch(1, ["answer", "answer", "prose"], [2, 4, 7], {"answer": 1.0, "prose": 1.0}),
                about="two rows of one kind, of different length"),
           Case(_batch(1, ["answer", "prose", "answer"], [4, 7, 4], {"answer": 1.0, "prose": 1.0}),
                about="rows of one kind that do not stand side by side"),
           Case(_batch(2, ["prose", "answer"], [6, 2], {"answer": 3.0, "prose": 1.0}), about="weights that differ"),
           Case(_batch(3, ["answer", "answer"], [3, 1], {"answer": 2.0, "prose": 1.0}),
                about="a kind that is not in the batch"),
           Case(_batch(4, ["pair", "prose", "answer", "prose"], [2, 5, 1, 3],
                       {"answer": 1.0, "prose": 0.5, "pair": 2.0}), about="three kinds")),
    hints=("For one kind: gather its rows. What is the mean over all of their tokens?",
           "`torch.cat(rows).mean()` is a mean over tokens, however long each row is.",
           "Add up `weight * mean` and `weight` of the kinds that have rows, then divide one by the other."),
    mistakes=(
        Mistake("That is one mean over all tokens, weighted or not: the longer texts drown the answers again.",
                _token_mean, lambda losses, kinds, weights: torch.cat(losses).mean()),
        Mistake("Each row got its weight: a kind with more rows counts for more than its weight says.", _row_weights,
                ("total + weight *", "total + len(rows) * weight *", "used += weight", "used += len(rows) * weight")),
        Mistake("Within a kind every row counts alike; every token should.", (OWN, GROUPED)),
        Mistake("The weighted sum is not divided by the weights: twice the weights, twice the loss.",
                ("total / used", "total")),
        Mistake("The weight of a kind that is not in the batch is divided by as well.",
                ("total / used", "total / sum(weights.values())")),
        Mistake("Divided twice: by the weights, and by the number of kinds, or of rows, as well.",
                ("total / used", "total / used / len(set(kinds))"), ("total / used", "total / used / len(kinds)")),
        Mistake("Divided by the number of kinds, where the weights should decide.",
                ("total / used", "total / len(set(kinds))"), ("used += weight", "used += 1")),
        Mistake("Not the mean of a kind's tokens, but the one in their middle: the median.",
                (OWN, "torch.cat(rows).median()"), (OWN, "torch.cat(rows).quantile(0.5)")),
        Mistake("The weights went in as their squares or roots: a weight of 3 counts three times as much as one of 1.",
                ("weight * torch", "weight**2 * torch", "used += weight", "used += weight**2"),
                ("weight * torch", "weight**0.5 * torch", "used += weight", "used += weight**0.5")),
        Mistake("Sums in place of means: then a kind counts by its tokens again.", (OWN, "torch.cat(rows).sum()")),
        Mistake("Of a kind with several rows only one was looked at: gather them all.",
                (OWN, "rows[-1].mean()"), (OWN, "rows[0].mean()")),
        Mistake("The weights are not used: every kind counts alike.", ("weight * torch", "torch",
                                                                     "used += weight", "used += 1")),
    ),
    draw=_drawn,
    moral="A sum of losses, each a mean over its own tokens: so the lesson mixes, and a weight means what it says.")


def ipo_losses(
    chosen: torch.Tensor, rejected: torch.Tensor, ref_chosen: torch.Tensor,
    ref_rejected: torch.Tensor, chosen_tokens: torch.Tensor,
    rejected_tokens: torch.Tensor, beta: float,
) -> torch.Tensor:
    """IPO's loss of each pair: (margin per token - 1 / (2·beta))². All tensors (pairs,).

    The first four: log-probabilities of whole answers, sums over their tokens, in nats.
    """
    gained = (chosen - ref_chosen) / chosen_tokens
    lost = (rejected - ref_rejected) / rejected_tokens
    return (gained - lost - 1 / (2 * beta)) ** 2


def _pairs(rng: random.Random, count: int, beta: float) -> tuple:
    sums = [-integers(rng, 8, 160, count) / 8 for _ in range(4)]
    return *sums, integers(rng, 2, 9, count), integers(rng, 10, 30, count), beta


MARGIN = "gained - lost"
IPO_LOSSES = Exercise(12, ipo_losses, "★★★ Spot the bug: the longer answer's margin · 6 min", """
IPO, a cousin of DPO, wants a margin of a certain size, no more: its loss is (margin - 1/(2β))². TRL's first version
gave longer answers another target than short ones
([trl#1265](https://github.com/huggingface/trl/pull/1265), [trl#1677](https://github.com/huggingface/trl/issues/1677)).
In short:

```python
def ipo_losses(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return (margin - 1 / (2 * beta)) ** 2
```

The first four are log-probabilities of whole answers: sums, which grow with every token. Write it so that the margin is
the difference of what each answer gained *per token*, as TRL does today. One loss for each pair.
""",
    cases=((*map(torch.tensor, ([-7.5], [-8.0], [-8.0], [-8.0], [1], [1])), 0.5),
           Case((*map(torch.tensor, ([-6.0], [-9.0], [-8.0], [-8.0], [1], [1])), 0.5),
                about="a margin above the target"),
           Case((*map(torch.tensor, ([-7.0], [-8.0], [-8.0], [-8.0], [4], [4])), 0.5), about="answers of four tokens"),
           Case((*map(torch.tensor, ([-6.0, -4.0], [-20.0, -9.0], [-8.0, -5.0], [-18.0, -8.0], [4, 2], [10, 8])), 0.5),
                about="answers of different lengths"),
           Case(_pairs(random.Random(2), 3, 0.5), about="three pairs"),
           Case(_pairs(random.Random(3), 2, 0.1), about="a beta of 0.1")),
    draw=lambda rng: _pairs(rng, rng.randint(1, 4), rng.choice((0.1, 0.25, 0.5, 2.0))),
    hints=("What each answer gained on the reference is a sum over its own tokens.",
           "Divide each gain by the tokens of *its* answer, before the two are compared.",
           "`gained = (chosen - ref_chosen) / chosen_tokens`, `lost` alike; `(gained - lost - 1 / (2 * beta)) ** 2`."),
    mistakes=(
        Mistake("The margin is a difference of sums: a longer answer gains, or loses, more just by its length."),
        Mistake("Both gains were divided by one number: each answer has a length of its own.",
                ("/ rejected_tokens", "/ chosen_tokens"), ("/ chosen_tokens", "/ rejected_tokens"),
                ("/ chosen_tokens", "/ (chosen_tokens + rejected_tokens)",
                 "/ rejected_tokens", "/ (chosen_tokens + rejected_tokens)"),
                ("/ chosen_tokens", "/ ((chosen_tokens + rejected_tokens) / 2)",
                 "/ rejected_tokens", "/ ((chosen_tokens + rejected_tokens) / 2)")),
        Mistake("Only the reference's log-probabilities were divided: the model's are sums too.",
                ("(chosen - ref_chosen) / chosen_tokens", "chosen - ref_chosen / chosen_tokens",
                 "(rejected - ref_rejected) / rejected_tokens", "rejected - ref_rejected / rejected_tokens")),
        Mistake("Only the model's log-probabilities were divided: the reference's are sums too.",
                ("(chosen - ref_chosen) / chosen_tokens", "chosen / chosen_tokens - ref_chosen",
                 "(rejected - ref_rejected) / rejected_tokens", "rejected / rejected_tokens - ref_rejected")),
        Mistake("The reference is left out: what counts is the gain on it.",
                ("chosen - ref_chosen", "chosen", "rejected - ref_rejected", "rejected")),
        Mistake("The wanted margin is 1 / (2·beta), with that 2 under the line, and beta too.",
                ("1 / (2 * beta)", "1 / beta"), ("1 / (2 * beta)", "1 / 2 * beta")),
        Mistake("Margin and target were both multiplied by β, or by 2β, before squaring: that multiplies the loss by "
                "its square.", (f"({MARGIN} - 1 / (2 * beta)) ** 2", f"(beta * ({MARGIN}) - 1 / 2) ** 2"),
                (f"({MARGIN} - 1 / (2 * beta)) ** 2", f"(2 * beta * ({MARGIN}) - 1) ** 2")),
        Mistake("That is DPO's loss: it wants the margin ever larger. IPO's has a target.",
                (f"({MARGIN} - 1 / (2 * beta)) ** 2", f"-torch.nn.functional.logsigmoid(beta * ({MARGIN}))")),
        Mistake("Margin and target do not have the same sign: the chosen answer should gain, and by 1 / (2·beta).",
                (MARGIN, "lost - gained")),
        Mistake("What the rejected answer gained is taken away from what the chosen one did, not added.",
                (MARGIN, "gained + lost")),
        Mistake("The gains were multiplied by the tokens: per token means divided.",
                (") / chosen_tokens", ") * chosen_tokens", ") / rejected_tokens", ") * rejected_tokens")),
        Mistake("The distance to the target is not squared.", (") ** 2", ")"), (") ** 2", ").abs()")),
    ),
    tolerance=1e-5,
    moral="Which of the two the paper means was argued about; TRL asked its authors: per token.")
