"""What processes do together: one loss out of several, and waiting for each other."""

from __future__ import annotations

import random

from helpers.exercises.engine import Case, Exercise, Mistake


def loss_of_step(losses: list[list[float]], tokens: list[list[int]]) -> float:
    """The mean loss of a step's tokens. losses[rank][n] and tokens[rank][n]: as above."""
    total = count = 0.0
    for means, counts in zip(losses, tokens, strict=True):
        for mean, n in zip(means, counts, strict=True):
            if n:  # the mean of no tokens is NaN
                total += mean * n
                count += n
    return total / count


def _by_rank(losses, tokens, weigh):
    """The loss where every rank has its own token-weighted mean, combined by weigh(means, tokens of each rank)."""
    means, counts = [], []
    for row, numbers in zip(losses, tokens, strict=True):
        pairs = [(mean, n) for mean, n in zip(row, numbers, strict=True) if n]
        if pairs:
            counts.append(sum(n for _, n in pairs))
            means.append(sum(mean * n for mean, n in pairs) / counts[-1])
    return weigh(means, counts)


def _flat(losses, tokens):
    return [(mean, n) for row, numbers in zip(losses, tokens, strict=True)
            for mean, n in zip(row, numbers, strict=True)]


def _micro_weighted(losses, tokens):
    total = count = 0
    for row, numbers in zip(losses, tokens, strict=True):
        if pairs := [(mean, n) for mean, n in zip(row, numbers, strict=True) if n]:
            total += len(pairs) * sum(mean * n for mean, n in pairs) / sum(n for _, n in pairs)
            count += len(pairs)
    return total / count


def _of_steps(rng: random.Random) -> tuple:
    shape = [rng.randint(1, 3) for _ in range(rng.randint(1, 4))]
    tokens = [[rng.choice((0, 1, 7, 40, 300)) for _ in range(n)] for n in shape]
    tokens[0][0] = 12
    return [[round(rng.uniform(0.2, 5), 2) if n else float("nan") for n in row] for row in tokens], tokens


def _means(losses, tokens):
    kept = [mean for mean, n in _flat(losses, tokens) if n]
    return sum(kept) / len(kept)


def _rank_means(losses, tokens):
    kept = [[mean for mean, n in zip(*pair, strict=True) if n] for pair in zip(losses, tokens, strict=True)]
    return sum(sum(row) / len(row) for row in kept if row) / sum(map(bool, kept))


LOSS_OF_STEP = Exercise(13, loss_of_step, "★★ Spot the bug: one loss out of several · 7 min", """
In October 2024 gradient accumulation was mended in transformers: the micro-batches of a process are weighted by their
tokens. Somebody noticed that the same slip was still there, once more
([transformers#34242](https://github.com/huggingface/transformers/issues/34242)). Written as one function, the loss of a
step was this:

```python
def loss_of_step(losses, tokens):
    ranks = []
    for means, counts in zip(losses, tokens):
        ranks.append(sum(mean * n for mean, n in zip(means, counts)) / sum(counts))
    return sum(ranks) / len(ranks)
```

`losses[rank][n]` is the mean loss of the tokens in micro-batch n of a process, `tokens[rank][n]` how many tokens that
is. The processes need not have equally many micro-batches. Write it so that two processes get what one would get with
all the rows. A micro-batch whose every label is masked has 0 tokens, and PyTorch gives NaN for its mean: let it count
for nothing. At least one has tokens.
""",
    cases=(([[0.7]], [[3]]),
           Case(([[2.2], [3.1]], [[10], [10]]), about="two ranks with equally many tokens"),
           Case(([[1.0, 2.0], [3.0, 2.5]], [[10, 30], [30, 10]]),
                about="micro-batches with different numbers of tokens, ranks with equally many"),
           Case(([[2.0, 1.0], [3.0, 4.0]], [[10, 10], [60, 60]]), about="ranks with different numbers of tokens"),
           Case(([[2.0], [1.0, 4.0, 0.5]], [[50], [5, 5, 10]]), about="ranks with different numbers of micro-batches"),
           Case(([[2.0, float("nan")], [3.0, 4.0]], [[10, 0], [20, 30]]), about="a micro-batch of no tokens"),
           Case(([[float("nan")], [3.0]], [[0], [20]]), about="a rank of no tokens")),
    draw=_of_steps,
    hints=("Mean of what? Which tokens should weigh the same?",
           "A mean times its number of tokens is a sum again. Sums may be added over everything.",
           "Add `mean * n` and `n` over all ranks and micro-batches that have tokens; divide once, at the end."),
    mistakes=(
        Mistake("The ranks' means are averaged as if each rank had equally many tokens: weigh them too.", None,
                lambda losses, tokens: _by_rank(losses, tokens, lambda means, counts: sum(means) / len(means))),
        Mistake("Every micro-batch weighs the same here, with 5 tokens or with 500: weigh by tokens.", _means,
                lambda losses, tokens: sum(mean for mean, _ in _flat(losses, tokens)) / len(_flat(losses, tokens))),
        Mistake("Twice a mean of means: over the micro-batches of a rank, and over the ranks.", _rank_means),
        Mistake("NaN times 0 is NaN: leave a micro-batch without tokens out.", ("if n:", "if True:")),
        Mistake("That is the sum over the tokens. Divide it by their number.", ("total / count", "total")),
        Mistake("Not divided by the tokens but by the number of micro-batches or of ranks.",
                ("total / count", "total / len(losses)"),
                lambda losses, tokens: sum(m * n for m, n in _flat(losses, tokens) if n) / len(_flat(losses, tokens))),
        Mistake("Each loss is a mean already: it has to be multiplied by its tokens before it is added.",
                ("mean * n", "mean")),
        Mistake("Those are the ranks' means added up: it grows with every rank.",
                lambda losses, tokens: _by_rank(losses, tokens, lambda means, counts: sum(means))),
        Mistake("The ranks are weighed by how many micro-batches they have: weigh them by their tokens.",
                _micro_weighted),
        Mistake("One rank is not the step: all of them count.",
                lambda losses, tokens: loss_of_step(losses[:1], tokens[:1]),
                lambda losses, tokens: loss_of_step([losses[-1]], [tokens[-1]]) if sum(tokens[-1]) else float("nan")),
        Mistake("Pairing the ranks' micro-batches with each other stops at the rank that has the fewest.",
                lambda losses, tokens: loss_of_step(*([row[:min(map(len, losses))] for row in part]
                                                      for part in (losses, tokens)))),
        Mistake("Divide by all tokens of the step, not by one rank's.",
                ("total / count", "total / max(map(sum, tokens))"),
                ("total / count", "total / max(1, sum(tokens[-1]))"), ("total / count", "total / sum(tokens[0])")),
        Mistake("A micro-batch of masked labels counts for nothing: no loss of 0, and no token.",
                ("            if n:  # the mean of no tokens is NaN\n                total += mean * n\n"
                 "                count += n", "            total += mean * n if n else 0\n"
                 "            count += n or 1")),
        Mistake("A rank without tokens stops nothing: the others' still count.",
                lambda losses, tokens: 0.0 if any(not sum(row) for row in tokens) else loss_of_step(losses, tokens)),
    ),
    moral="Since July 2025 `average_tokens_across_devices` is on by default; before, it had to be asked for.")


def waiting_share(lengths: list[int], batch: int, processes: int) -> float:
    """The share of all processes' time that is spent waiting for the slowest."""
    worked = passed = 0
    for start in range(0, len(lengths), batch * processes):
        step = lengths[start : start + batch * processes]
        longest = [max(step[n : n + batch]) for n in range(0, len(step), batch)]
        worked += sum(longest)
        passed += processes * max(longest)
    return 1 - worked / passed


def _lengths(rng: random.Random) -> tuple[list[int], int, int]:
    batch, processes = rng.randint(1, 3), rng.randint(1, 4)
    return [rng.randint(1, 99) for _ in range(batch * processes * rng.randint(1, 3))], batch, processes


def _shares(lengths, batch, processes):
    size = batch * processes
    steps = [lengths[start:start + size] for start in range(0, len(lengths), size)]
    return sum(waiting_share(step, batch, processes) for step in steps) / len(steps)


def _longest(lengths, batch):
    return [max(lengths[n:n + batch]) for n in range(0, len(lengths), batch)]


def _against_all(lengths, batch):
    longest = _longest(lengths, batch)
    return 1 - sum(longest) / (len(longest) * max(longest))


def _in_parts(lengths, batch, processes):
    part = len(lengths) // processes
    times = [_longest(lengths[rank * part:(rank + 1) * part], batch) for rank in range(processes)]
    return 1 - sum(map(sum, times)) / (processes * sum(map(max, zip(*times, strict=True))))


def _alone(lengths, batch, processes):
    size = batch * processes
    own = [sum(max(lengths[start + rank * batch:start + (rank + 1) * batch])
               for start in range(0, len(lengths), size)) for rank in range(processes)]
    return 1 - sum(own) / (processes * max(own))


WAITING_SHARE = Exercise(13, waiting_share, "★★ Who waits for whom? · 7 min", """
Rows are taken in the order of the list, `batch · processes` of them for each step: process 0 gets the first `batch`
rows, process 1 the next `batch`, and so on. A process pads its rows to the longest *of its own*, and its time is
proportional to that length. Then all average their gradients, so nobody goes on before the slowest is done. Over all
steps, which share of the processes' time is waiting? The list divides into whole steps. (Padding is work that is
wasted too, but not waiting.)
""",
    cases=(Case(([50, 50, 50, 50], 2, 2), about="rows of one length"),
           Case(([10, 40], 1, 2), about="one step of two processes"),
           Case(([5, 9, 3], 1, 1), about="one process, which waits for nobody"),
           Case(([30, 10, 20, 40], 1, 4), about="four processes"),
           Case(([10, 40, 20, 20], 2, 2), about="rows that are padded in their own batch"),
           Case(([10, 20, 100, 400], 1, 2), about="two steps of different length"),
           Case(([100, 10, 10, 100], 1, 2), about="a process that is slow in one step and fast in the next"),
           Case(([8, 1, 2, 1, 1, 4, 1, 16], 2, 2), about="two steps with batches of two")),
    draw=_lengths,
    hints=("First one step: how long does each process work, and how long does the step last?",
           "A process works as long as the longest row of its batch; the step lasts as long as the longest of those.",
           "Add up the work of all processes and `processes` times the length of each step; one minus their quotient."),
    mistakes=(
        Mistake("That is the share of work, not of waiting.", ("1 - worked / passed", "worked / passed")),
        Mistake("A mean over the steps' shares: a long step should count for more than a short one.", _shares),
        Mistake("They wait at every step: who is slow now and fast in the next does not make it good.", _alone),
        Mistake("A batch takes as long as its longest row, padding included, not as its mean.",
                ("max(step[n : n + batch])", "sum(step[n : n + batch]) / batch")),
        Mistake("Process 0 gets the first rows in one piece, not every `processes`-th.",
                ("max(step[n : n + batch]) for n in range(0, len(step), batch)",
                 "max(step[n::processes]) for n in range(processes)")),
        Mistake("All processes' time passes while the slowest works: `processes` times the step.",
                ("processes * max(longest)", "max(longest)")),
        Mistake("The step lasts as long as the slowest, not the fastest.", ("max(longest)", "min(longest)")),
        Mistake("Work and time have changed places: work is what all do, the step lasts as long as its slowest.",
                ("worked += sum(longest)", "worked += max(longest)",
                 "processes * max(longest)", "sum(longest)")),
        Mistake("They wait in each step for the slowest of that step, not for the slowest of the whole run.",
                lambda lengths, batch, processes: _against_all(lengths, batch)),
        Mistake("Process 0 gets the first rows of *every step*: the list is not cut into one part for each.",
                _in_parts),
        Mistake("That is padding, which is work too, though wasted. Asked for is the time without work.",
                lambda lengths, batch, processes: 1 - sum(lengths) / (batch * sum(_longest(lengths, batch)))),
        Mistake("That counts the padding as well: within a batch nobody waits, though places are wasted.",
                ("worked += sum(longest)", "worked += sum(step)",
                 "processes * max(longest)", "processes * batch * max(longest)")),
        Mistake("In per cent. Asked for is a share, between 0 and 1.",
                ("1 - worked / passed", "100 * (1 - worked / passed)")),
        Mistake("Divided by the work, not by the time that passed.", ("1 - worked / passed", "passed / worked - 1")),
    ),
    moral="Grouping by length helps twice: less padding in a batch, and less waiting between the processes.")
