"""Before a run: how many steps it takes, and what it costs."""

from __future__ import annotations

import math
import random

from helpers.exercises.engine import Case, Exercise, Mistake


def optimizer_steps(
    rows: int, batch: int, accumulation: int, processes: int, epochs: int
) -> int:
    """How often the optimizer steps in the whole run."""
    batches = math.ceil(rows / (batch * processes))  # of each process, in an epoch
    return epochs * math.ceil(batches / accumulation)


EACH, ALL = "math.ceil(rows / (batch * processes))", "epochs * math.ceil(batches / accumulation)"
OPTIMIZER_STEPS = Exercise(13, optimizer_steps, "★ How many steps is that? · 4 min", """
A learning rate that rises for 3 % of the run and falls to zero at its end needs to know how many steps there are.
Every epoch goes once through `rows`. `processes` share them; each takes `batch` rows at a time, adds up the gradients
of `accumulation` such batches, and then all step together. What is left at the end of an epoch, a batch that is not
full or fewer batches than `accumulation`, is a step too, and the next epoch begins anew. How often does the optimizer
step?
""",
    cases=(Case((1024, 4, 8, 2, 3), about="everything divides"),
           Case((9846, 4, 4, 1, 1), about="rows that do not divide"),
           Case((100, 8, 4, 2, 3), about="a last group of fewer batches, in each epoch"),
           Case((33, 4, 1, 8, 2), about="one row more than fills the batches"),
           Case((3, 8, 16, 4, 5), about="fewer rows than one batch"),
           Case((64, 1, 1, 1, 2), about="no accumulation and one process")),
    draw=lambda rng: (rng.randint(1, 500), rng.randint(1, 8), rng.randint(1, 6), rng.randint(1, 5), rng.randint(1, 4)),
    hints=("How many rows does one step use, over all processes and batches?",
           "Count the steps of one epoch first; the remainder of an epoch is a step of its own.",
           "`math.ceil` where something is left over; multiply by `epochs` at the very end."),
    mistakes=(
        Mistake("Those are the batches of a process: the optimizer waits for `accumulation` of them.",
                (ALL, "epochs * batches")),
        Mistake("The processes share the rows: each sees only its part of an epoch.", ("batch * processes", "batch")),
        Mistake("What is left over at the end is a step too: round up.",
                ("math.ceil(rows", "math.floor(rows", "math.ceil(batches", "math.floor(batches"),
                (EACH, "rows // (batch * processes)"), ("math.ceil(batches", "math.floor(batches"),
                (ALL, "epochs * (rows // (batch * processes * accumulation))")),
        Mistake("Every epoch ends with its own remainder: round up first, then multiply by `epochs`.",
                (ALL, "math.ceil(epochs * batches / accumulation)"),
                (ALL, "math.ceil(epochs * rows / (batch * processes * accumulation))")),
        Mistake("That is one epoch's. The run has `epochs` of them.", ("epochs * math", "math")),
        Mistake("All processes take the same step together: it counts once.",
                ("epochs * math", "processes * epochs * math")),
        Mistake("That is one step more wherever nothing is left over.",
                (EACH, "rows // (batch * processes) + 1"), ("math.ceil(batches / accumulation)",
                                                            "(batches // accumulation + 1)")),
        Mistake("To the nearest is not up: a remainder of less than half is a step too.",
                ("math.ceil(batches / accumulation)", "round(batches / accumulation)"), (EACH,
                 "round(rows / (batch * processes))")),
    ),
    moral="`len(trainer.get_train_dataloader())` says the same; with packing, rows are what packing made.")


def run_cost(
    tokens: int, epochs: int, speed: float, gpus: int, kept: float, price: float
) -> tuple[float, float]:
    """Hours of the run, and money, billed by started hours of each GPU."""
    hours = tokens * epochs / (speed * gpus * kept) / 3600
    return hours, math.ceil(hours) * gpus * price


def _run(rng: random.Random) -> tuple:
    return (rng.randint(1, 90) * 10**6 + 7, rng.randint(1, 3), rng.choice((900.0, 2415.0, 3726.0)), rng.randint(1, 8),
            rng.choice((0.5, 0.8, 0.9)), rng.choice((0.5, 1.25, 3.0)))


HOURS, MONEY = "tokens * epochs / (speed * gpus * kept) / 3600", "math.ceil(hours) * gpus * price"
RUN_COST = Exercise(13, run_cost, "★ Hours and money · 4 min", """
A data set has `tokens` tokens and is read `epochs` times. One GPU alone makes `speed` tokens a second. In a group of
`gpus` each keeps the share `kept` of that speed, since they wait for each other (1.0: nothing is lost). A GPU costs
`price` an hour, and every started hour is paid for each of them. Return the hours that the run takes, not rounded, and
the money.
""",
    cases=((10_000_000, 1, 2415.0, 1, 1.0, 2.0),
           Case((10_000_000, 3, 2415.0, 1, 1.0, 2.0), about="three epochs"),
           Case((40_000_000, 1, 2000.0, 4, 1.0, 1.5), about="four GPUs"),
           Case((40_000_000, 1, 2000.0, 4, 0.8, 1.5), about="GPUs that keep four fifths of their speed"),
           Case((7_200_000, 1, 2000.0, 1, 1.0, 3.0), about="exactly one hour"),
           Case((100_000, 1, 2000.0, 8, 0.9, 2.5), about="less than a minute")),
    draw=_run,
    hints=("How many tokens a second do all GPUs make together?", "3,600 seconds are an hour.",
           "`math.ceil(hours)` is what one GPU is billed; all of them are."),
    mistakes=(
        Mistake("The GPUs work at the same time: together they make `gpus` times as many tokens a second.",
                ("speed * gpus * kept", "speed * kept")),
        Mistake("Each GPU is paid for: the price is for one.", ("math.ceil(hours) * gpus", "math.ceil(hours)")),
        Mistake("A started hour is paid in full: round the hours up for the bill.",
                ("math.ceil(hours)", "hours"), ("math.ceil(hours)", "math.floor(hours)"),
                ("math.ceil(hours)", "round(hours)")),
        Mistake("A run of exactly one hour has not begun a second one.",
                ("math.ceil(hours)", "(math.floor(hours) + 1)")),
        Mistake("Every GPU's bill is rounded up by itself, then they are added: not the sum of the hours.",
                (MONEY, "math.ceil(hours * gpus) * price")),
        Mistake("The money is not rounded, the hours are.", (MONEY, "math.ceil(hours * gpus * price)")),
        Mistake("`kept` makes the GPUs slower, so the run takes longer: divide by it.",
                (HOURS, "tokens * epochs / (speed * gpus) * kept / 3600"), (" * kept", "")),
        Mistake("An hour has 3,600 seconds.", ("/ 3600", "/ 60"), (" / 3600", "")),
        Mistake("The data are read `epochs` times.", ("tokens * epochs", "tokens")),
        Mistake("The hours themselves are asked for as they are: only the bill is rounded up.",
                ("return hours", "return math.ceil(hours)")),
    ),
    moral="Where nothing is lost, money does not depend on how many GPUs there are: what is bought is patience.")
