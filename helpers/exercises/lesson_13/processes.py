"""What processes that work together lose: they wait for each other."""

from __future__ import annotations

import random

from helpers.exercises.engine import Case, Exercise, Mistake


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
