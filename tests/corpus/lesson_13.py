"""Answers to lesson 13's exercises that nobody registered, written from the prompts alone."""

import itertools
import math
import re
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import torch

from corpus import right, wrong

# packed_positions


@wrong("packed_positions", "begins anew only after the first document")
def _(lengths):
    first = lengths[0]
    return torch.cat([torch.arange(first), torch.arange(sum(lengths) - first)])[None]


@wrong("packed_positions", "goes on from the document before by one too few")
def _(lengths):
    starts = [0, *itertools.accumulate(lengths)][:-1]
    return torch.cat([torch.arange(n) + s for n, s in zip(lengths, starts, strict=True)])[None]


@wrong("packed_positions", "a row for each document, filled up with zeros")
def _(lengths):
    return torch.stack([torch.cat([torch.arange(n), torch.zeros(max(lengths) - n, dtype=torch.int64)])
                        for n in lengths])


@wrong("packed_positions", "floats in place of integers")
def _(lengths):
    return torch.cat([torch.arange(n).float() for n in lengths]).unsqueeze(0)


@wrong("packed_positions", "a list of lists, not a tensor")
def _(lengths):
    return [[i for n in lengths for i in range(n)]]


@wrong("packed_positions", "every document is taken to be as long as the first")
def _(lengths):
    return (torch.arange(sum(lengths)) % lengths[0])[None]


@right("packed_positions", "the place less the place where the document begins")
def _(lengths):
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    return (torch.arange(int(sizes.sum())) - torch.repeat_interleave(starts, sizes)).unsqueeze(0)


@right("packed_positions", "plain Python, a tensor at the end")
def _(lengths):
    return torch.tensor([[i for n in lengths for i in range(n)]])


# accumulated_loss


@wrong("accumulated_loss", "weighs a micro-batch by its rows")
def _(losses, labels):
    means = [loss[label != -100].mean().nan_to_num() * len(loss) for loss, label in zip(losses, labels, strict=True)]
    return sum(means) / sum(len(loss) for loss in losses)


@wrong("accumulated_loss", "weighs a micro-batch by its tokens, padding too")
def _(losses, labels):
    means = [loss[label != -100].mean().nan_to_num() * loss.numel()
             for loss, label in zip(losses, labels, strict=True)]
    return sum(means) / sum(loss.numel() for loss in losses)


@wrong("accumulated_loss", "counts the labels of the first micro-batch only")
def _(losses, labels):
    total = sum(loss[label != -100].sum() for loss, label in zip(losses, labels, strict=True))
    return total / (labels[0] != -100).sum()


@wrong("accumulated_loss", "skips the label 0 with a truth test")
def _(losses, labels):
    kept = [(label != -100) & (label != 0) for label in labels]
    total = sum(loss[keep].sum() for loss, keep in zip(losses, kept, strict=True))
    return total / sum(keep.sum() for keep in kept)


@wrong("accumulated_loss", "sets the losses without a label to zero and takes the mean of all tokens")
def _(losses, labels):
    flat = [loss.masked_fill(label == -100, 0).flatten() for loss, label in zip(losses, labels, strict=True)]
    return torch.cat(flat).mean()


@wrong("accumulated_loss", "divides twice: by the labels and by the micro-batches")
def _(losses, labels):
    total = sum(loss[label != -100].sum() for loss, label in zip(losses, labels, strict=True))
    return total / sum((label != -100).sum() for label in labels) / len(losses)


@right("accumulated_loss", "all labelled losses in one tensor")
def _(losses, labels):
    return torch.cat([loss[label != -100] for loss, label in zip(losses, labels, strict=True)]).mean()


@right("accumulated_loss", "means weighted by their numbers of labels")
def _(losses, labels):
    counts = [(label != -100).sum() for label in labels]
    means = [(loss * (label != -100)).sum() / count.clamp(min=1)
             for loss, label, count in zip(losses, labels, counts, strict=True)]
    return sum(mean * count for mean, count in zip(means, counts, strict=True)) / sum(counts)


# shard_rows


@wrong("shard_rows", "numpy's array_split: as even as can be")
def _(rows, processes):
    return [len(part) for part in np.array_split(np.arange(rows), processes)]


@wrong("shard_rows", "torch.chunk without the empty ranks")
def _(rows, processes):
    return [len(part) for part in torch.arange(rows).chunk(processes)]


@wrong("shard_rows", "torch.tensor_split")
def _(rows, processes):
    return [len(part) for part in torch.arange(rows).tensor_split(processes)]


@wrong("shard_rows", "the rest is shared out from the last rank on")
def _(rows, processes):
    size, rest = divmod(rows, processes)
    return [size + (rank >= processes - rest) for rank in range(processes)]


@wrong("shard_rows", "every rank full, the last the remainder by modulo")
def _(rows, processes):
    size = math.ceil(rows / processes)
    return [size] * (processes - 1) + [rows % size]


@wrong("shard_rows", "dealt out like cards: where each rank begins, not how much it has")
def _(rows, processes):
    size = math.ceil(rows / processes)
    return [min(rows, rank * size) for rank in range(processes)]


@right("shard_rows", "takes away until nothing is left")
def _(rows, processes):
    size, held = math.ceil(rows / processes), []
    for _ in range(processes):
        held.append(min(size, rows))
        rows -= held[-1]
    return held


@right("shard_rows", "lengths of ranges cut at the end")
def _(rows, processes):
    size = (rows + processes - 1) // processes
    return [len(range(rank * size, rows)[:size]) for rank in range(processes)]


# waiting_share


@wrong("waiting_share", "counts the step as the sum of the processes' times, not the slowest")
def _(lengths, batch, processes):
    size, worked, passed = batch * processes, 0, 0
    for start in range(0, len(lengths), size):
        longest = [max(lengths[n:n + batch]) for n in range(start, start + size, batch)]
        worked, passed = worked + max(longest), passed + sum(longest)
    return 1 - worked / passed


@wrong("waiting_share", "the slowest is the longest row of the whole run")
def _(lengths, batch, processes):
    longest = [max(lengths[n:n + batch]) for n in range(0, len(lengths), batch)]
    return 1 - sum(longest) / (len(longest) * max(longest))


@wrong("waiting_share", "the share of padding in each process's batch")
def _(lengths, batch, processes):
    longest = [max(lengths[n:n + batch]) for n in range(0, len(lengths), batch)]
    return 1 - sum(lengths) / (batch * sum(longest))


@wrong("waiting_share", "a process takes one contiguous part of the whole list")
def _(lengths, batch, processes):
    part = len(lengths) // processes
    mine = [lengths[rank * part:(rank + 1) * part] for rank in range(processes)]
    times = [[max(rows[n:n + batch]) for n in range(0, part, batch)] for rows in mine]
    return 1 - sum(map(sum, times)) / (processes * sum(map(max, zip(*times, strict=True))))


@wrong("waiting_share", "only the last process waits")
def _(lengths, batch, processes):
    size, waited, passed = batch * processes, 0, 0
    for start in range(0, len(lengths), size):
        longest = [max(lengths[n:n + batch]) for n in range(start, start + size, batch)]
        waited, passed = waited + max(longest) - longest[-1], passed + max(longest)
    return waited / passed


@wrong("waiting_share", "the mean over steps and processes of what each waits")
def _(lengths, batch, processes):
    size, shares = batch * processes, []
    for start in range(0, len(lengths), size):
        longest = [max(lengths[n:n + batch]) for n in range(start, start + size, batch)]
        shares += [1 - own / max(longest) for own in longest]
    return sum(shares) / len(shares)


@right("waiting_share", "as a tensor of steps, processes and rows")
def _(lengths, batch, processes):
    longest = torch.tensor(lengths).view(-1, processes, batch).amax(2)
    slowest = longest.amax(1, keepdim=True)
    return ((slowest - longest).sum() / (slowest.sum() * processes)).item()


@right("waiting_share", "adds up the waiting, in fractions")
def _(lengths, batch, processes):
    waited, passed = 0, 0
    for start in range(0, len(lengths), batch * processes):
        times = [max(lengths[start + rank * batch:start + (rank + 1) * batch]) for rank in range(processes)]
        waited += sum(max(times) - own for own in times)
        passed += max(times) * processes
    return float(Fraction(waited, passed))


# whole_checkpoint

PART = re.compile(r"step-(\d+)/rank-(\d+)-of-(\d+)\.safetensors$")


@wrong("whole_checkpoint", "the number of files in the folder of the step, whatever they are")
def _(names, processes):
    count = Counter(name.split("/")[0] for name in names)
    steps = [step for step, n in count.items() if n >= processes and step.startswith("step-")]
    return max((int(step[5:]) for step in steps), default=None)


@wrong("whole_checkpoint", "the newest step of which rank processes - 1 is there")
def _(names, processes):
    last = f"/rank-{processes - 1}-of-{processes}.safetensors"
    return max((int(name[5:-len(last)]) for name in names if name.endswith(last)), default=None)


@wrong("whole_checkpoint", "the newest step of all; None if that one is not whole")
def _(names, processes):
    ranks = defaultdict(set)
    for name in names:
        if found := re.match(r"step-(\d+)/rank-(\d+)", name):
            ranks[int(found[1])] |= {int(found[2])} if PART.match(name) and f"-of-{processes}." in name else set()
    newest = max(ranks, default=None)
    return newest if newest is not None and len(ranks[newest]) == processes else None


@wrong("whole_checkpoint", "in the order of the list: the last whole one that stands there")
def _(names, processes):
    ranks, answer = defaultdict(set), None
    for name in names:
        found = PART.fullmatch(name)
        if found and int(found[3]) == processes:
            ranks[found[1]].add(found[2])
            if len(ranks[found[1]]) == processes:
                answer = int(found[1])
    return answer


@wrong("whole_checkpoint", "any cut will do, if all of its parts are there")
def _(names, processes):
    ranks = defaultdict(set)
    for name in names:
        if found := PART.fullmatch(name):
            ranks[int(found[1]), int(found[3])].add(found[2])
    return max((step for (step, of), there in ranks.items() if len(there) == of), default=None)


@wrong("whole_checkpoint", "returns the step as text")
def _(names, processes):
    ranks = Counter(found[1] for found in map(PART.fullmatch, names) if found and found[3] == str(processes))
    return max((step for step, n in ranks.items() if n == processes), key=int, default=None)


@right("whole_checkpoint", "asks for every file by its name")
def _(names, processes):
    there = set(names)
    steps = {int(found[1]) for found in map(PART.fullmatch, names) if found}
    whole = [step for step in steps if all(
        f"step-{step}/rank-{rank}-of-{processes}.safetensors" in there for rank in range(processes))]
    return max(whole) if whole else None


@right("whole_checkpoint", "a Counter, newest first")
def _(names, processes):
    ends = tuple(f"-of-{processes}.safetensors" for _ in range(1))
    count = Counter(int(name.split("/")[0].removeprefix("step-")) for name in names if name.endswith(ends))
    return next((step for step in sorted(count, reverse=True) if count[step] == processes), None)
