"""Rows of unequal length: packed without a gap, and the mean over all of their labels."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def packed_positions(lengths: list[int]) -> torch.Tensor:
    """Positions of packed documents, int64 (1, tokens): 0, 1, 2, ... anew in each."""
    return torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0)


PACKED_POSITIONS = Exercise(13, packed_positions, "★ Where does a document begin? · 6 min", """
Documents of `lengths` tokens stand one after the other in a single row, without padding. Give the model the position of
each token *within its own document*: for lengths [3, 2] that is [[0, 1, 2, 0, 1]]. The result is int64 of shape
(1, tokens): one row. From the zeros the model will know where a document begins.
""",
    cases=(([3, 2],),
           Case(([4],), about="a single document"),
           Case(([3, 2, 4],), about="a third document"),
           Case(([1, 1, 3],), about="documents of one token"),
           Case(([2, 2, 2],), about="documents of equal length"),
           Case(([5, 1, 4, 2],), about="four documents")),
    hints=("`torch.arange(n)` is 0, 1, ..., n - 1: the positions of one document.",
           "One after the other: `torch.cat` of one arange for each length.",
           "`.unsqueeze(0)` (or `[None]`) makes one row of it: (1, tokens)."),
    mistakes=(
        Mistake("Positions run on through all documents: the model takes them for a single one.",
                ("torch.cat([torch.arange(n) for n in lengths])", "torch.arange(sum(lengths))")),
        Mistake("Every document was taken to be as long as the first.",
                ("torch.cat([torch.arange(n) for n in lengths])", "(torch.arange(sum(lengths)) % lengths[0])"),
                ("torch.arange(n)", "torch.arange(lengths[0])")),
        Mistake("Positions begin at 1. The first token of a document has position 0: the zeros mark the beginnings.",
                ("torch.arange(n)", "torch.arange(1, n + 1)")),
        Mistake("Those are the numbers of the documents, not the places of tokens in them.",
                ("torch.cat([torch.arange(n) for n in lengths])",
                 "torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))")),
        Mistake("The batch's dimension is missing: the model wants one row, (1, tokens).", (".unsqueeze(0)", "")),
        Mistake("That is one column. One row was asked for.", (".unsqueeze(0)", ".unsqueeze(1)")),
        Mistake("One token too many in each document: a document of n tokens ends at position n - 1.",
                ("torch.arange(n)", "torch.arange(n + 1)")),
        Mistake("Those are the places where documents begin. Every token has a position.",
                ("torch.cat([torch.arange(n) for n in lengths])",
                 "torch.tensor([0, *lengths[:-1]]).cumsum(0)")),
        Mistake("Counted backwards: the first token of a document has position 0.",
                ("torch.arange(n)", "torch.arange(n - 1, -1, -1)")),
    ),
    draw=lambda rng: ([rng.randint(1, 6) for _ in range(rng.randint(1, 5))],),
    moral="TRL's collator makes them so with padding_free=True; transformers builds the walls from the zeros.")


def accumulated_loss(losses: list[torch.Tensor],
                     labels: list[torch.Tensor]) -> torch.Tensor:
    """The mean loss per label over all micro-batches together; -100 is no label."""
    total = sum(loss[label != -100].sum() for loss, label in zip(losses, labels, strict=True))
    return total / sum((label != -100).sum() for label in labels)


TOTAL = "loss[label != -100].sum() for loss, label in zip(losses, labels, strict=True)"


def _micro(rng: random.Random, *shapes: tuple[int, int], kept: float = 0.6) -> tuple:
    labels = [torch.tensor([[rng.randint(0, 9) if n == 0 or rng.random() < kept else -100 for n in range(columns)]
                            for _ in range(rows)]) for rows, columns in shapes]
    return [normal(rng, *shape).abs() for shape in shapes], labels


def _weighed(losses: list, labels: list, weight: Callable[[torch.Tensor], int]) -> torch.Tensor:
    means = [loss[label != -100].mean().nan_to_num() for loss, label in zip(losses, labels, strict=True)]
    return sum(mean * weight(loss) for mean, loss in zip(means, losses, strict=True)) / sum(map(weight, losses))


def _given(losses: list, labels: list, about: str = "") -> Case:
    return Case(([torch.tensor(loss) for loss in losses], [torch.tensor(label) for label in labels]), about)


ACCUMULATED_LOSS = Exercise(13, accumulated_loss, "★★ Spot the bug: the mean of means · 8 min", """
In October 2024 somebody trained with `gradient_accumulation_steps=32` and with one batch of 32, and got another,
worse model from the first ([trl#2175](https://github.com/huggingface/trl/issues/2175)). Many trainers had the same
line, transformers' among them
([transformers#34191](https://github.com/huggingface/transformers/pull/34191)):

```python
def accumulated_loss(losses, labels):
    means = [loss[label != -100].mean() for loss, label in zip(losses, labels)]
    return sum(means) / len(means)
```

`losses` has a tensor (rows, tokens) for each micro-batch, with the loss of every token; `labels`, of the same shapes,
is -100 where a token does not count. Return what *one* large batch would have as its loss.
""",
    cases=(_given([[[1.0, 2.0]], [[6.0, 4.0]]], [[[3, 3]], [[3, 3]]]),
           _given([[[1.0, 2.0]], [[6.0, 9.0]]], [[[3, 3]], [[3, -100]]], "micro-batches with unequally many labels"),
           _given([[[1.0, 2.0, 3.0]], [[8.0]]], [[[3, 3, 3]], [[3]]], "micro-batches of unequal length"),
           _given([[[1.0], [5.0]], [[8.0], [2.0]]], [[[3], [-100]], [[-100], [-100]]], "a micro-batch without a label"),
           _given([[[1.0, 4.0]], [[2.0, 3.0]]], [[[0, -100]], [[0, 0]]], "the token 0 as a label")),
    hints=("Which tokens weigh how much in the published line? Take a micro-batch with 1 label and one with 99.",
           "In one large batch every label weighs the same: all losses added up, divided by the number of all labels.",
           "`loss[label != -100].sum()` of every micro-batch; divide once, at the end, by the number of labels."),
    mistakes=(
        Mistake("A mean of means: a label in a micro-batch with few of them weighs more than others.", None,
                (".sum() for loss, label", ".mean() for loss, label",
                 "sum((label != -100).sum() for label in labels)", "len(labels)")),
        Mistake("Tokens without a label were counted: -100 is left out of the sum *and* of the number.",
                ("loss[label != -100].sum()", "loss.sum()", "(label != -100).sum()", "label.numel()")),
        Mistake("Divided by all tokens. Only those with a label count.", ("(label != -100).sum()", "label.numel()")),
        Mistake("Losses of tokens without a label were added.", ("loss[label != -100].sum()", "loss.sum()")),
        Mistake("The sum was never divided: with more micro-batches the loss grows. (So it was in some versions after "
                "the first repair.)", ("total / sum((label != -100).sum() for label in labels)", "total")),
        Mistake("Divided by the number of micro-batches, not of labels.",
                ("sum((label != -100).sum() for label in labels)", "len(labels)")),
        Mistake("Divided by the labels of one micro-batch only.",
                ("sum((label != -100).sum() for label in labels)", "(labels[-1] != -100).sum()"),
                ("sum((label != -100).sum() for label in labels)", "(labels[0] != -100).sum()")),
        Mistake("The labels have been divided by already: the number of micro-batches does not come in.",
                ("for label in labels)", "for label in labels) / len(losses)")),
        Mistake("Micro-batches weigh by their tokens, or by their rows. They must weigh by their labels.",
                lambda losses, labels: _weighed(losses, labels, torch.numel), lambda losses, labels: _weighed(
                    losses, labels, len)),
        Mistake("The token 0 is a label like any other. Only -100 is none.", ("label != -100", "label > 0")),
        Mistake("The mean over rows of their own means: rows with few labels weigh more.",
                lambda losses, labels: torch.cat([
                    torch.stack([row[wanted != -100].mean() for row, wanted in zip(loss, label, strict=True)])
                    for loss, label in zip(losses, labels, strict=True)]).nanmean()),
    ),
    draw=lambda rng: _micro(rng, *[(rng.randint(1, 3), rng.randint(1, 5)) for _ in range(rng.randint(1, 3))]),
    tolerance=1e-5,
    moral="transformers counts all labels first and hands the number to the loss: num_items_in_batch.")
