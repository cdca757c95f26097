"""What is forgotten for what is learnt: three ways of lesson 08, each at five learning rates, on three seeds.

One rate says nothing about forgetting: a larger one teaches more and costs more prose, whatever is trained. So each way
has a ladder of the same shape, a third to three times its rate in `family`, whose records are its middle rung.
"""

from __future__ import annotations

from helpers import experiments
from helpers.experiments import Case, family

RUNGS = (1 / 3, 3**-0.5, 3**0.5, 3.0)  # and 1
WAYS = ("everything", "LoRA", "DoRA")
MIDDLE = {case.name: case for case in family.CASES if case.name in WAYS}
CASES = [Case(f"{way} × {rung:.2g}", MIDDLE[way].prepare, lr=float(f"{MIDDLE[way].lr * rung:.2g}"))
         for rung in RUNGS for way in WAYS]


def ladder(way: str) -> list[list[dict]]:
    """The points of a way, rung by rung from the lowest rate up; on each the three seeds. KeyError for another way."""
    points = [p for p in experiments.read("forgetting")["points"] if p["case"].split(" × ")[0] == way]
    points += [p for p in experiments.read("family")["points"] if p["case"] == MIDDLE[way].name]
    return [[p for p in points if p["lr"] == lr] for lr in sorted({p["lr"] for p in points})]
