"""LoRA at several ranks, in different places, on new facts, and a full update cut: the sweeps of lesson 07.

The scale α/r is 2 throughout. The rates of LoRA on the villagers' questions were found on one ladder, 1, 2, 5 to a
decade: from 5e-3 up, else down, as long as 40 steps from seed 0 ended with a lower training loss (it got more rungs
after some of seed 0's scores had been seen). What the lesson compares most closely was tuned once more, on a seed and
on people whom no point is scored on, 100 steps a rung, and the rungs are in the record:

* rank 8 and full rank, on five rungs each, at the same distances around the best of the coarse ladder (FINE);
* new facts, at every rank: on the coarse ladder, from 5e-3 up, else down, as long as more facts are known.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import cache, partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.adapters import train_only
from helpers.experiments import Case, tuning
from helpers.lora import add_lora, find_targets
from helpers.low_rank import best_pair
from helpers.pocket import evaluate, load_pocket, world
from helpers.pocket.train import Batch, question_batches, train

ATTENTION, FEED_FORWARD = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
RANKS = {1: 2e-2, 2: 1e-2, 4: 1e-2, 8: 5e-3, 32: 2e-3}  # in all linear layers: the learning rate
PLACES = {  # where, the rank that costs as much as r = 4 in all linears (37,888 weights) to within 3 %, learning rate
    "q": (["q_proj"], 37, 2e-2), "q, v": (["q_proj", "v_proj"], 18, 1e-2), "q, k, v, o": (ATTENTION, 9, 1e-2),
    "feed-forward": (FEED_FORWARD, 7, 1e-2),
}
FULL_RATE = 7e-4
FINE = {"all r=8": (2.5e-3, 3.5e-3, 5e-3, 7.5e-3, 1e-2), "full rank": (5e-4, 7e-4, 1e-3, 1.5e-3, 2e-3)}
FACT_RANKS = {1: 1e-2, 4: 1e-2, 32: 5e-3}  # new facts, in all linear layers: the learning rate
LADDER = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
TUNING_SEED = 3
CUTS, CUT_RATES = (4, 8, 16, 32, 128), (1e-3, 5e-4)
NEW = 150  # people of whom the base has read nothing, four facts each


def lora(model: torch.nn.Module, r: int, targets: str | list[str] = "all-linear") -> torch.nn.Module:
    """LoRA of rank r with α = 2r in front of `targets`."""
    return add_lora(model, r=r, alpha=2 * r, target_modules=targets)


def every_linear(model: torch.nn.Module) -> torch.nn.Module:
    """All linear layers but the head, at full rank."""
    return train_only(model, [*ATTENTION, *FEED_FORWARD])


@cache
def strangers(trial: bool = False) -> tuple[world.Villager, ...]:
    """People of whom the base has read nothing, in all its towns; with `trial`, those that a rate is chosen on."""
    start = world.POPULATION + NEW * trial
    return world.make_world(population=world.POPULATION + 2 * NEW).villagers[start:start + NEW]


def fact_batches(tokenizer: PreTrainedTokenizerBase, steps: int, seed: int) -> Iterator[Batch]:
    """Eight documents about the strangers in every batch; the tuning seed's are about those of the trial."""
    return tuning.prose_batches(tokenizer, [strangers(seed == TUNING_SEED)], steps, seed)


def new_facts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, trial: bool = False) -> float:
    """Share of the strangers' 600 facts that the model finishes rightly in prose."""
    return evaluate.recall(model, tokenizer, strangers(trial))


def trial_questions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Exact match on the 400 questions that a rate is chosen by."""
    return evaluate.exact_match(model, tokenizer, world.questions(tuning.people(trial=True).asked, seed=1))


def _facts(name: str, prepare: Callable[[torch.nn.Module], torch.nn.Module], lr: float) -> Case:
    return Case(f"facts {name}", prepare, lr, batches=fact_batches, scores=(new_facts, evaluate.perplexity))


CASES = (
    *(Case(f"all r={r}", partial(lora, r=r), lr) for r, lr in RANKS.items()),
    *(Case(f"{place} r={r}", partial(lora, r=r, targets=targets), lr) for place, (targets, r, lr) in PLACES.items()),
    Case("full rank", every_linear, FULL_RATE),
    *(_facts(f"r={r}", partial(lora, r=r), lr) for r, lr in FACT_RANKS.items()),
)


def rung(case: Case, lr: float) -> dict[str, str | float]:
    """Train a case from the tuning seed at one rate, and score it on what is for tuning."""
    model, tokenizer = load_pocket()
    torch.manual_seed(TUNING_SEED)
    model = case.prepare(model)
    losses = train(model, case.batches(tokenizer, case.steps, seed=TUNING_SEED), lr, case.steps)
    score = new_facts(model, tokenizer, True) if case.name.startswith("facts") else trial_questions(model, tokenizer)
    return {"case": case.name, "lr": lr, "loss": round(statistics.fmean(losses[-10:]), 4), "score": round(score, 4)}


def climb(score: Callable[[float], float], start: float) -> float:
    """The best rate of LADDER: from `start` up if that is better, else down, as long as it is better."""
    best = LADDER.index(start)
    for way in (1, -1):
        begun = best
        while 0 <= best + way < len(LADDER) and score(LADDER[best + way]) > score(LADDER[best]):
            best += way
        if best != begun:
            break
    return LADDER[best]


def cut(seed: int, lr: float) -> Iterator[dict[str, int | float]]:
    """Train all linears at full rank, then keep each update's best part of rank r: its energy, and the score."""
    model, tokenizer = load_pocket()
    before = {name: model.get_submodule(name).weight.detach().clone() for name in find_targets(model)}
    torch.manual_seed(seed)
    train(every_linear(model), question_batches(tokenizer, experiments.STEPS, seed=seed), lr, experiments.STEPS)
    updates = {name: model.get_submodule(name).weight.detach() - W for name, W in before.items()}
    rows = world.questions(world.make_world().held_out[:125], seed=1)
    for r in CUTS:
        kept = []
        with torch.no_grad():
            for name, update in updates.items():
                B, A = best_pair(update, r)
                kept.append(((B @ A).norm() / update.norm()).square().item())
                model.get_submodule(name).weight.copy_(before[name] + B @ A)
        yield {"seed": seed, "lr": lr, "r": r, "energy": round(statistics.fmean(kept), 4),
               "exact_match": round(evaluate.exact_match(model, tokenizer, rows), 4)}


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing: the rungs, the points, the cuts. Writes ranks.json after each."""
    cases = {case.name: case for case in CASES}
    record = experiments.read("ranks")
    rungs = record.setdefault("tuning", [])

    def score(name: str, lr: float) -> float:
        if not any((known["case"], known["lr"]) == (name, lr) for known in rungs):
            rungs.append(rung(cases[name], lr))
            experiments.write("ranks", record)
            report(str(rungs[-1]))
        return next(known["score"] for known in rungs if (known["case"], known["lr"]) == (name, lr))

    for name, rates in FINE.items():
        report(f"{name}: {max(rates, key=partial(score, name))}")
    for name in cases:
        if name.startswith("facts"):
            report(f"{name}: {climb(partial(score, name), 5e-3)}")
    experiments.run("ranks", CASES, report=report)
    record = experiments.read("ranks")
    cuts = record.setdefault("cuts", [])
    for lr in CUT_RATES:
        for seed in experiments.SEEDS:
            if not any((known["seed"], known["lr"]) == (seed, lr) for known in cuts):
                cuts += cut(seed, lr)
                experiments.write("ranks", record)
