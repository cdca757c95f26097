"""Answers to lesson 13's exercises that nobody registered, written from the prompts alone."""

import itertools
import math
import re
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import torch

from corpus import right, wrong

# optimizer_steps


@wrong("optimizer_steps", "counts the rows of all epochs as one long list")
def _(rows, batch, accumulation, processes, epochs):
    return math.ceil(rows * epochs / (batch * accumulation * processes))


@wrong("optimizer_steps", "forgets accumulation and the processes both")
def _(rows, batch, accumulation, processes, epochs):
    return epochs * math.ceil(rows / batch)


@wrong("optimizer_steps", "adds accumulation to the divisor in place of multiplying")
def _(rows, batch, accumulation, processes, epochs):
    return epochs * math.ceil(rows / (batch * processes + accumulation))


@wrong("optimizer_steps", "returns a float that is not rounded")
def _(rows, batch, accumulation, processes, epochs):
    return epochs * rows / (batch * processes * accumulation)


@wrong("optimizer_steps", "drops the last group of an epoch, keeps the last batch")
def _(rows, batch, accumulation, processes, epochs):
    batches = -(-rows // (batch * processes))
    return epochs * (batches // accumulation)


@wrong("optimizer_steps", "at least one step, otherwise rounded down")
def _(rows, batch, accumulation, processes, epochs):
    return epochs * max(1, rows // (batch * processes * accumulation))


@right("optimizer_steps", "one ceiling for batches and groups together, with integers")
def _(rows, batch, accumulation, processes, epochs):
    size = batch * processes * accumulation
    return (rows + size - 1) // size * epochs


@right("optimizer_steps", "walks through an epoch")
def _(rows, batch, accumulation, processes, epochs):
    steps, left = 0, rows
    while left > 0:
        left -= batch * processes * accumulation
        steps += 1
    return sum(steps for _ in range(epochs))


# run_cost


@wrong("run_cost", "money by the exact hours")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = tokens * epochs / (speed * gpus * kept * 3600)
    return hours, hours * gpus * price


@wrong("run_cost", "kept is taken off once for the group, as 1 - kept")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = tokens * epochs / (speed * gpus * (1 - kept / gpus)) / 3600
    return hours, math.ceil(hours) * gpus * price


@wrong("run_cost", "hours of all GPUs added up")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = tokens * epochs / (speed * kept) / 3600
    return hours, math.ceil(hours) * price


@wrong("run_cost", "money first, hours second")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = tokens * epochs / (speed * gpus * kept) / 3600
    return math.ceil(hours) * gpus * price, hours


@wrong("run_cost", "one hour more always: floor + 1")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = tokens * epochs / (speed * gpus * kept) / 3600
    return hours, (math.floor(hours) + 1) * gpus * price


@wrong("run_cost", "each GPU reads all tokens")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = gpus * tokens * epochs / (speed * gpus * kept) / 3600
    return hours, math.ceil(hours) * gpus * price


@right("run_cost", "negative floor division, seconds first")
def _(tokens, epochs, speed, gpus, kept, price):
    seconds = epochs * tokens / (gpus * kept * speed)
    return seconds / 60 / 60, price * gpus * -(-seconds // 3600)


@right("run_cost", "numpy's ceil")
def _(tokens, epochs, speed, gpus, kept, price):
    hours = (tokens / speed) * epochs / gpus / kept / 3600
    return hours, float(np.ceil(hours)) * gpus * price


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


# loss_of_step


@wrong("loss_of_step", "weighs the ranks by how many micro-batches they have")
def _(losses, tokens):
    total = count = 0
    for means, counts in zip(losses, tokens, strict=True):
        pairs = [(m, n) for m, n in zip(means, counts, strict=True) if n]
        if pairs:
            total += len(pairs) * sum(m * n for m, n in pairs) / sum(n for _, n in pairs)
            count += len(pairs)
    return total / count


@wrong("loss_of_step", "NaN counts as a loss of 0, with one token")
def _(losses, tokens):
    pairs = [(0.0 if math.isnan(m) else m, n or 1) for row, ns in zip(losses, tokens, strict=True)
             for m, n in zip(row, ns, strict=True)]
    return sum(m * n for m, n in pairs) / sum(n for _, n in pairs)


@wrong("loss_of_step", "only rank 0")
def _(losses, tokens):
    pairs = [(m, n) for m, n in zip(losses[0], tokens[0], strict=True) if n]
    return sum(m * n for m, n in pairs) / sum(n for _, n in pairs)


@wrong("loss_of_step", "zip over ranks and micro-batches at once: cut to the shortest rank")
def _(losses, tokens):
    pairs = [(m, n) for means, ns in zip(zip(*losses, strict=False), zip(*tokens, strict=False), strict=True)
             for m, n in zip(means, ns, strict=True) if n]
    return sum(m * n for m, n in pairs) / max(1, sum(n for _, n in pairs))


@wrong("loss_of_step", "divides by the tokens of the largest rank")
def _(losses, tokens):
    pairs = [(m, n) for row, ns in zip(losses, tokens, strict=True) for m, n in zip(row, ns, strict=True) if n]
    return sum(m * n for m, n in pairs) / max(map(sum, tokens))


@wrong("loss_of_step", "weights by the square root of the tokens")
def _(losses, tokens):
    pairs = [(m, n**0.5) for row, ns in zip(losses, tokens, strict=True) for m, n in zip(row, ns, strict=True) if n]
    return sum(m * n for m, n in pairs) / sum(n for _, n in pairs)


@right("loss_of_step", "numpy's average with weights")
def _(losses, tokens):
    means = np.nan_to_num(np.array(list(itertools.chain(*losses)), dtype=float))
    return float(np.average(means, weights=list(itertools.chain(*tokens))))


@right("loss_of_step", "torch, NaN filtered out")
def _(losses, tokens):
    means = torch.tensor([m for row in losses for m in row], dtype=torch.float64)
    counts = torch.tensor([n for row in tokens for n in row], dtype=torch.float64)
    there = ~means.isnan()
    return ((means * counts)[there].sum() / counts[there].sum()).item()


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
