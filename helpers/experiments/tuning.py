"""Three ways to tune the pocket Llama, their orders and their mixtures, on the same scores: the sweep of lesson 12.

*Instruction* rows are questions with answers, two of three of which gossip; *prose* is about sixty newcomers, of whom
the base has read nothing; *preference* pairs hold the same answer with and without gossip. A case is a chain of stages,
each a new adapter that is merged when it is trained; a stage adds up to three losses, each a mean over its own tokens
(or pairs). In a `mixture i:p:d` the prose is half about newcomers, half about the old village; the domain stage
reads newcomers only, as who has nothing but their own documents would.

The rates and steps were tried out on the first sixty newcomers and on other held-out villagers than those scored here.
Two things were settled later, after first results of seed 0 on the scored ones: that a mixture reads eight documents
about either village in a step, not eight in all, and that an answer of more than two sentences counts as wrong. The
mixtures got no tuning of their own.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.lora import add_lora, merge, remove_lora
from helpers.pocket import evaluate, load_pocket, world
from helpers.pocket.train import Batch, question_batches, train
from helpers.preferences import preference_loss, stack

PARTS = ("instruction", "prose", "preference")
GOSSIP = 2 / 3  # of the instruction rows
ROWS = {"instruction": 32, "prose": 8, "preference": 8}  # questions, documents about a village, pairs in a batch


@dataclass(frozen=True)
class People:
    """Who is taught and who is scored. `newcomers` are read about in the domain's prose; `asked` are asked only."""

    taught: tuple[world.Villager, ...]
    newcomers: tuple[world.Villager, ...]
    asked: tuple[world.Villager, ...]
    old: tuple[world.Villager, ...]


def people(trial: bool = False) -> People:
    """The villagers of the record; with `trial`, those on whom rates and steps were chosen."""
    village = world.make_world(newcomers=120)
    return People(village.taught, village.newcomers[:60] if trial else village.newcomers[60:],
                  village.held_out[250:350] if trial else village.held_out[500:600], village.villagers)


@dataclass(frozen=True)
class Stage:
    """One adapter: the weights of the losses (instruction, prose, preference), and how it is trained.

    replay: whether as much prose about the old village is read beside that about the newcomers.
    """

    weights: tuple[float, float, float]
    steps: int
    lr: float
    replay: bool = False


class Mixture(nn.Module):
    """A model whose loss is the weighted mean of up to three, each of a batch of its own, as `train` wants it."""

    def __init__(self, model: nn.Module, weights: Sequence[float]) -> None:
        super().__init__()
        self.model, self.weights = model, [weight / sum(weights) for weight in weights]

    def forward(self, input_ids: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], use_cache: bool = False,
                ) -> SimpleNamespace:
        """`input_ids` and `labels` hold one batch for each part; a part of weight 0 is not looked at."""
        loss = torch.zeros(())
        for part, weight, ids, wanted in zip(PARTS, self.weights, input_ids, labels, strict=True):
            if weight and part == "preference":
                loss = loss + weight * preference_loss(self.model, ids, wanted)
            elif weight:
                loss = loss + weight * self.model(input_ids=ids, labels=wanted, use_cache=use_cache).loss
        return SimpleNamespace(loss=loss)


def gossiping_rows(villagers: Sequence[world.Villager], share: float = GOSSIP, seed: int = 0) -> list[dict[str, str]]:
    """Questions with answers, rows of "prompt" and "completion"; a `share` of the answers adds a second sentence."""
    rng = random.Random(f"gossip {seed}")
    return [{"prompt": pair["prompt"], "completion": pair["rejected" if rng.random() < share else "chosen"]}
            for pair in world.preference_pairs(villagers, seed)]


def prose_batches(tokenizer: PreTrainedTokenizerBase, villages: Sequence[Sequence[world.Villager]], steps: int,
                  seed: int) -> Iterator[Batch]:
    """`steps` pairs (ids, labels), int64 (8 for each of `villages`, length): documents, cut at 128 tokens."""
    streams = [world.documents(villagers, 200 + seed) for villagers in villages]
    for _ in range(steps):
        texts = [next(stream) + tokenizer.eos_token for stream in streams for _ in range(ROWS["prose"])]
        rows = [torch.tensor(ids[:evaluate.MAX_LENGTH]) for ids in tokenizer(texts)["input_ids"]]
        yield (pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
               pad_sequence(rows, batch_first=True, padding_value=-100))


def pair_batches(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict[str, str]], steps: int, seed: int,
                 rows: int = ROWS["preference"]) -> Iterator[Batch]:
    """`steps` batches (ids, labels), int64 (2 · rows, length): first the chosen answers, then the rejected ones."""
    rng = random.Random(f"pairs {seed}")
    asked = tokenizer([world.instruct(pair["prompt"]) for pair in pairs])["input_ids"]
    answers = {side: [tokenizer(world.instruct(pair["prompt"], pair[side]))["input_ids"][len(begun):]
                      for pair, begun in zip(pairs, asked, strict=True)] for side in ("chosen", "rejected")}
    for _ in range(steps):
        drawn = rng.sample(range(len(pairs)), rows)
        yield stack([(asked[i], answers[side][i]) for side in ("chosen", "rejected") for i in drawn],
                    tokenizer.pad_token_id)


def batches(tokenizer: PreTrainedTokenizerBase, stage: Stage, who: People, seed: int) -> Iterator[tuple]:
    """One batch of every part that has a weight, else None: (three ids, three labels), `stage.steps` times."""
    villages = [who.newcomers, who.old] if stage.replay else [who.newcomers]
    makers: tuple[Callable[[], Iterable[Batch]], ...] = (
        lambda: question_batches(tokenizer, stage.steps, ROWS["instruction"], seed, gossiping_rows(who.taught)),
        lambda: prose_batches(tokenizer, villages, stage.steps, seed),
        lambda: pair_batches(tokenizer, world.preference_pairs(who.taught, seed=1), stage.steps, seed))
    streams = [make() if weight else itertools.repeat((None, None), stage.steps)
               for make, weight in zip(makers, stage.weights, strict=True)]
    for parts in zip(*streams, strict=True):
        yield tuple(zip(*parts, strict=True))


def tune(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, stage: Stage, who: People, seed: int,
         each: Callable[[int, float], None] = lambda step, loss: None) -> list[float]:
    """Train one stage: LoRA of rank 8 on all linears, merged afterwards, in place. Gives the losses."""
    torch.manual_seed(seed)
    add_lora(model, r=8, alpha=16)
    stream = batches(tokenizer, stage, who, seed)
    losses = train(Mixture(model, stage.weights), stream, stage.lr, stage.steps, each=each)
    remove_lora(merge(model))
    return losses


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, villagers: Sequence[world.Villager],
            longest: int = 48) -> tuple[list[str], list[tuple[str, bool]]]:
    """The right answers to four questions about each villager, and what the model writes, with whether it stopped."""
    rows = world.questions(villagers, seed=1)
    asked = [world.instruct(row["prompt"]) for row in rows]
    return [row["completion"] for row in rows], evaluate.complete(model, tokenizer, asked, max_new_tokens=longest)


def sentences(text: str) -> list[str]:
    """The sentences of an answer, each with its full stop."""
    return [part.strip() + "." for part in text.split(".") if part.strip()]


def answered(wanted: str, text: str, stopped: bool) -> bool:
    """Whether an answer is right as the rows taught it: the wanted sentence, at most one more, and then its end."""
    return stopped and sentences(text)[:1] == [wanted] and len(sentences(text)) <= 2


def scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, who: People) -> dict[str, float]:
    """The four scores, and `known`: questions about newcomers that are `answered`, which takes facts and form at once.

    facts: newcomers' facts finished in prose. form: questions about held-out villagers that are `answered`.
    preference: those with one sentence at most for an answer, and then its end. perplexity: on held-out prose about the
    old village. All but the last are shares in 0 … 1.
    """
    wanted, written = answers(model, tokenizer, who.asked)
    about = zip(*answers(model, tokenizer, who.newcomers), strict=True)
    return {"facts": evaluate.recall(model, tokenizer, who.newcomers),
            "form": statistics.fmean(answered(want, *said) for want, said in zip(wanted, written, strict=True)),
            "preference": statistics.fmean(stopped and len(sentences(text)) <= 1 for text, stopped in written),
            "perplexity": evaluate.perplexity(model, tokenizer),
            "known": statistics.fmean(answered(want, *said) for want, said in about)}


INSTRUCTION = Stage((1, 0, 0), steps=100, lr=5e-3)
DOMAIN = Stage((0, 1, 0), steps=100, lr=5e-3)
PREFERENCE = Stage((0, 0, 1), steps=14, lr=1e-3)
MIXTURES = {(i, p, d): Stage((i, p, d), steps=100, lr=5e-3, replay=True)
            for i, p, d in itertools.product((1, 0), repeat=3) if i + p + d} | {(1, 0, 0): INSTRUCTION}

CASES: dict[str, tuple[Stage, ...]] = {
    "base": (),
    "instruction": (INSTRUCTION,),
    "domain": (DOMAIN,),
    "preference": (PREFERENCE,),
    "instruction, preference": (INSTRUCTION, PREFERENCE),
    "instruction, domain": (INSTRUCTION, DOMAIN),
    "domain, instruction": (DOMAIN, INSTRUCTION),
    "domain, instruction, preference": (DOMAIN, INSTRUCTION, PREFERENCE),
    **{f"mixture {i}:{p}:{d}": (stage,) for (i, p, d), stage in MIXTURES.items()},
    "mixture 1:1:0, preference": (MIXTURES[1, 1, 0], PREFERENCE),
}


ONCE = ("mixture 0:1:1", "mixture 0:0:1")  # seed 0 only: nothing that compares is claimed of them


def tuned(name: str, seed: int, who: People | None = None, kept: dict | None = None,
          ) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[float]]:
    """A case's model, its tokenizer, and the losses of the last stage, from one seed (adapters' start, batches).

    kept: a dictionary that remembers what a chain of stages gave, for the next case that begins with it.
    """
    (model, tokenizer), who, losses, kept = load_pocket(), who or people(), [], {} if kept is None else kept
    for n, stage in enumerate(CASES[name]):
        chain = (seed, CASES[name][:n + 1])
        if chain in kept:
            model.load_state_dict(kept[chain][0])
        else:
            trained = tune(model, tokenizer, stage, who, seed)
            kept[chain] = {key: value.clone() for key, value in model.state_dict().items()}, trained
        losses = kept[chain][1]
    return model, tokenizer, losses


def run_point(name: str, seed: int, kept: dict | None = None) -> dict[str, str | int | float]:
    """Train and score one case from one seed."""
    model, tokenizer, losses = tuned(name, seed, kept=kept)
    return {"case": name, "seed": seed, "steps": sum(stage.steps for stage in CASES[name]),
            "loss": round(statistics.fmean(losses[-10:]), 4) if losses else 0.0,
            **{score: round(value, 4) for score, value in scores(model, tokenizer, people()).items()}}


def run(report: Callable[[str], None] = print, seeds: Sequence[int] = experiments.SEEDS) -> None:
    """Run what is missing and write tuning.json after every point: five to ten minutes a seed on one core."""
    record = experiments.read("tuning")
    record["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers")}
    known = {(point["case"], point["seed"]) for point in record["points"]}
    for seed in seeds:
        kept: dict = {}
        for name in CASES:
            if (name, seed) not in known and (seed == 0 or name not in ONCE):
                record["points"].append(run_point(name, seed, kept))
                experiments.write("tuning", record)
                report(str(record["points"][-1]))
