"""Rows of unequal length in one tensor: filled up, sorted by length, or packed without a gap.

A row is a pair (ids, labels) of equally long lists; a label of -100 is not learnt. A batch is a dict of tensors, ready
to be given to a model of transformers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch

Row = tuple[Sequence[int], Sequence[int]]
Batch = dict[str, torch.Tensor]


def pad_rows(rows: Sequence[Row], padding: int, length: int | None = None) -> Batch:
    """Rows filled up on the right to the longest of them, or to `length`: int64 (rows, length).

    Labels are filled up by -100, the attention mask is 0 there. Raises ValueError for no row, and for a row that is
    longer than `length`.
    """
    longest = max((len(ids) for ids, _ in rows), default=0)
    if not longest or (length or longest) < longest:
        raise ValueError(f"{len(rows)} rows, the longest of {longest} tokens, cannot be filled up to {length}: give at "
                         "least one token, and a length that all fit in")
    whole = length or longest

    def fill(numbers: Sequence[int], value: int) -> list[int]:
        return [*numbers, *[value] * (whole - len(numbers))]

    return {"input_ids": torch.tensor([fill(ids, padding) for ids, _ in rows]),
            "attention_mask": torch.tensor([fill([1] * len(ids), 0) for ids, _ in rows]),
            "labels": torch.tensor([fill(labels, -100) for _, labels in rows])}


def position_ids(lengths: Sequence[int]) -> torch.Tensor:
    """Positions of documents that stand one after the other: 0, 1, 2, ... begins anew with each. int64 (1, tokens).

    transformers reads from them where a document begins, and lets none look at another: `find_packed_sequence_indices`
    in masking_utils.py. It does so only where no attention mask is given.
    """
    return torch.cat([torch.arange(n) for n in lengths]).unsqueeze(0)


def pack_rows(rows: Sequence[Row]) -> Batch:
    """Rows one after the other in a single one, without padding: int64 (1, tokens), with `position_ids`.

    The first token of each row is no label: it would be predicted from the row before. Source: TRL 1.16,
    `DataCollatorForLanguageModeling(padding_free=True)`.
    """
    return {"input_ids": torch.tensor([[token for ids, _ in rows for token in ids]]),
            "position_ids": position_ids([len(ids) for ids, _ in rows]),
            "labels": torch.tensor([[label for _, labels in rows for label in [-100, *labels[1:]]]])}


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Which rows share a bin of `capacity` tokens: best fit, the longest first. Lists of indices.

    Every row goes into the fullest bin that still has room for it, else into a new one; at equal room into the one
    that has had it longest.
    Source: TRL 1.16, `pack_dataset(..., strategy="bfd")`. Raises ValueError for a row that is longer than a bin.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    since: list[int] = []  # when a bin got the room that it has
    for now, i in enumerate(sorted(range(len(lengths)), key=lambda i: -lengths[i])):
        if lengths[i] > capacity:
            raise ValueError(f"row {i} has {lengths[i]} tokens, a bin holds {capacity}: cut it, or take larger bins")
        fits = [n for n, left in enumerate(room) if left >= lengths[i]]
        if not fits:
            fits = [len(bins)]
            bins, room, since = [*bins, []], [*room, capacity], [*since, now]
        best = min(fits, key=lambda n: (room[n], since[n]))
        bins[best].append(i)
        room[best], since[best] = room[best] - lengths[i], now
    return bins


def in_order(count: int, batch: int, seed: int = 0) -> list[list[int]]:
    """Batches of a random order: lists of indices, `batch` in each but perhaps the last."""
    order = random.Random(seed).sample(range(count), count)
    return [order[start:start + batch] for start in range(0, count, batch)]


def grouped(lengths: Sequence[int], batch: int, seed: int = 0, pool: int = 50) -> list[list[int]]:
    """Batches of rows of similar length, in an order that is still random: lists of indices.

    A random order is cut into pools of `pool` batches; within a pool rows are sorted, the longest first, and cut into
    batches. Source: transformers 5.23, `trainer_pt_utils.get_length_grouped_indices`, which leaves the batches of a
    pool from long to short; here their order is drawn again.
    """
    rng = random.Random(seed)
    order = rng.sample(range(len(lengths)), len(lengths))
    found: list[list[int]] = []
    for start in range(0, len(order), pool * batch):
        rows = sorted(order[start:start + pool * batch], key=lambda i: -lengths[i])
        found += [rows[first:first + batch] for first in range(0, len(rows), batch)]
    return rng.sample(found, len(found))


def computed(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> int:
    """How many tokens a model computes if each batch is filled up to its longest row."""
    return sum(len(rows) * max(lengths[i] for i in rows) for rows in batches)


def take(rows: Sequence[Row], batches: Sequence[Sequence[int]]) -> Iterator[list[Row]]:
    """The rows of each batch of indices."""
    for chosen in batches:
        yield [rows[i] for i in chosen]
