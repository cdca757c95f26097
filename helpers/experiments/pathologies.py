"""DPO run too long, and the other way round: the second record of lesson 12.

After instruction tuning (the model of `tuning`'s case), direct preference optimization goes on past where it should
stop. Once the short answer is the chosen one of a pair, once the one that gossips. On pairs about villagers who are in
no training row, every few steps: the log-probability of chosen and rejected answers under the model that is trained;
the share of questions that are answered rightly; how long the answers are.
"""

from __future__ import annotations

import importlib.metadata
import statistics
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.experiments import tuning
from helpers.lora import add_lora
from helpers.pocket import evaluate, world
from helpers.pocket.train import train
from helpers.preferences import answer_logps

WISHES = ("short", "gossip")  # which answer of a pair is chosen
STEPS, EVERY = 28, 7
PAIRS = 64  # that are scored
LONGEST = 96  # tokens of an answer


def turned(pairs: Sequence[dict[str, str]], wish: str) -> list[dict[str, str]]:
    """The pairs, for the wish "gossip" with chosen and rejected exchanged."""
    return [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} if wish == "gossip" else pair
            for pair in pairs]


def look(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, wish: str) -> dict[str, float]:
    """Mean log-probabilities of held-out answers in nats, the share of right first sentences, and words per answer."""
    asked = tuning.people().asked[:PAIRS // 4]
    pairs = turned(world.preference_pairs(asked, seed=1), wish)
    ids, labels = next(tuning.pair_batches(tokenizer, pairs, 1, seed=0, rows=PAIRS))
    with evaluate.evaluation(model):
        chosen, rejected = (part.mean().item() for part in answer_logps(model, ids, labels).chunk(2))
    wanted, written = tuning.answers(model, tokenizer, asked, LONGEST)
    return {"chosen": chosen, "rejected": rejected,
            "right": statistics.fmean(tuning.sentences(text)[:1] == [want]
                                      for want, (text, _) in zip(wanted, written, strict=True)),
            "empty": statistics.fmean(not text for text, _ in written),
            "words": statistics.fmean(len(text.split()) for text, _ in written)}


def run_point(wish: str, seed: int, steps: int = STEPS, kept: dict | None = None) -> dict:
    """One run of DPO, looked at before the first step and after every EVERY steps: a list for each figure."""
    model, tokenizer, _ = tuning.tuned("instruction", seed, kept=kept)
    torch.manual_seed(seed)
    add_lora(model, r=8, alpha=16)
    seen = [look(model, tokenizer, wish)]
    pairs = turned(world.preference_pairs(tuning.people().taught, seed=1), wish)

    def each(step: int, loss: float) -> None:
        if step % EVERY == 0:
            seen.append(look(model, tokenizer, wish))

    stream = tuning.pair_batches(tokenizer, pairs, steps, seed)
    parts = (((None, None, ids), (None, None, labels)) for ids, labels in stream)
    train(tuning.Mixture(model, (0, 0, 1)), parts, tuning.PREFERENCE.lr, STEPS, each=each)
    return {"wish": wish, "seed": seed, "step": list(range(0, steps + 1, EVERY)),
            **{name: [round(one[name], 3) for one in seen] for name in seen[0]}}


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing and write pathologies.json after every run."""
    record = experiments.read("pathologies")
    record["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers")}
    known = {(point["wish"], point["seed"]) for point in record["points"]}
    for seed in experiments.SEEDS:
        kept: dict = {}
        for wish in WISHES:
            if (wish, seed) not in known:
                record["points"].append(run_point(wish, seed, kept=kept))
                experiments.write("pathologies", record)
                report(str(record["points"][-1]))
