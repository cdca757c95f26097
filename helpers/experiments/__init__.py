"""Experiments that take longer than a lesson: run once by `make experiments`, kept as small JSON records beside this.

A sweep is a module here with a list `CASES`; its record holds one point per case and seed. A lesson draws the record
and trains one of its points again, live. Interrupted, a sweep goes on where it stopped.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pathlib
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from helpers.pocket import load_pocket
from helpers.pocket.evaluate import exact_match, perplexity
from helpers.pocket.train import Batch, question_batches, train

FOLDER = pathlib.Path(__file__).parent
NAMES = ("ranks", "family", "forgetting", "recovery")
LAPTOP = ("laptop_formats", "laptop_weights", "laptop_ranks", "laptop_recovery", "laptop_tuning", "levers", "methods")
TUNING = ("tuning", "pathologies", "rlhf")  # lesson 12's, which run themselves as the laptop's do
SEEDS = (0, 1, 2)
STEPS = 100


@dataclass(frozen=True)
class Case:
    """One column of a sweep: what to do to the pocket model before it is trained, by default on villagers' questions.

    prepare: takes the model, returns the one to train; what is to be trained requires a gradient. It runs under the
    point's seed. lr 0 means: score it as it is. batches: called with tokenizer, steps and seed=. scores: functions of
    model and tokenizer; a point keeps what they give under their names. seeds: what is not trained needs one only.
    """

    name: str
    prepare: Callable[[torch.nn.Module], torch.nn.Module]
    lr: float
    steps: int = STEPS
    batches: Callable[..., Iterable[Batch]] = question_batches
    scores: Sequence[Callable[..., float]] = (exact_match, perplexity)
    seeds: Sequence[int] = SEEDS


def run_point(case: Case, seed: int) -> dict[str, str | int | float]:
    """Train and score one case from one seed (adapters' start, order of batches); about 15 s on 2 cores."""
    model, tokenizer = load_pocket()
    torch.manual_seed(seed)
    model = case.prepare(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) if case.lr else 0
    losses = train(model, case.batches(tokenizer, case.steps, seed=seed), case.lr, case.steps) if case.lr else []
    return {"case": case.name, "seed": seed, "trained": trained, "lr": case.lr, "steps": len(losses),
            "loss": round(statistics.fmean(losses[-10:]), 4) if losses else 0.0,
            **{score.__name__: round(score(model, tokenizer), 4) for score in case.scores}}


def read(name: str) -> dict:
    """The record of a sweep: {"made_with": versions, "points": [...]}, empty where it has not been run yet."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {"made_with": {}, "points": []}


def write(name: str, record: dict) -> None:
    """Keep a record: JSON, a list of plain values on one line."""
    text = re.sub(r"\[([^][{}]+)\]", lambda found: f"[{' '.join(found[1].split())}]", json.dumps(record, indent=1))
    (FOLDER / f"{name}.json").write_text(text + "\n")


def spread(record: dict, case: str, score: str = "exact_match") -> tuple[float, float, float]:
    """Least, mean and greatest `score` over the seeds of a case. Raises ValueError for a case that is not there."""
    found = [point[score] for point in record["points"] if point["case"] == case]
    if not found:
        known = sorted({point["case"] for point in record["points"]})
        raise ValueError(f"no point of {case!r} in the record: it has {known}")
    return min(found), statistics.fmean(found), max(found)


def run(name: str, cases: Iterable[Case] | None = None, seeds: Sequence[int] = SEEDS,
        report: Callable[[str], None] = print) -> None:
    """Run what is missing of a sweep and write its record after every point."""
    cases = importlib.import_module(f"helpers.experiments.{name}").CASES if cases is None else cases
    record = read(name)
    record["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft", "bitsandbytes")}
    known = {(p["case"], p["seed"], p["lr"]) for p in record["points"]}
    for seed in seeds:
        for case in cases:
            if seed in case.seeds and (case.name, seed, case.lr) not in known:
                record["points"].append(run_point(case, seed))
                write(name, record)
                report(str(record["points"][-1]))
