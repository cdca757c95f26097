"""Three ways to tune, lesson 12's table on the laptop tier's model: each way scored on the same four scores.

*instruction*: the tier's requests, to be answered in JSON. *domain*: plain text, paragraphs of this course's lessons,
every token a label. *preference*: DPO on pairs of which the chosen answer is one sentence and the rejected one goes on;
the adapter switched off is the reference. The pairs (`laptop_pairs.json`) are the untuned model's own greedy answers to
`WHAT_IS` questions, cut after 48 tokens: the chosen one is its first sentence and the end token.

LoRA of rank 8 on all linears of the float32 base, batches of 2, one ladder of four rates for all: from the tuning seed
each way takes the rate with the least loss of its own (requests and text of another draw; one less the share of
preferred answers to other questions; equal ones: the lower rate). What a way sees differs in tokens, so a row tells
what a way moves, and not how much it moves for its price.

The four scores: `text`, nats per token on paragraphs that no way has read; `form`, the share of held-out requests
answered exactly; `preferred`, the share of questions answered in one sentence that ended by itself; `right`, the share
of forty ordinary questions whose answer holds the word asked for, which no way was trained on. Beside them `words`, the
mean length of the answers of `preferred`, and `chosen` and `rejected`, mean log-probabilities of held-out pairs.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.experiments import laptop as sweep
from helpers.experiments import laptop_ranks, laptop_recovery
from helpers.finale import chat, requests
from helpers.lora import add_lora, disabled
from helpers.pocket import world
from helpers.pocket.evaluate import label_losses
from helpers.pocket.train import Batch
from helpers.preferences import dpo_loss

NAME = "laptop_tuning"
PAIRS = experiments.FOLDER / "laptop_pairs.json"
STEPS, BATCH = 16, 2
LADDER = (1.5e-4, *sweep.LADDER[:3])  # preference did best at 5e-4, the lowest of a first try: all got one more
TOKENS = 48  # of an answer: those that pairs were made of, and those that are scored
LEARNT, TUNED_ON, PROBED, SCORED = slice(0, 32), slice(32, 42), slice(42, 50), slice(50, 74)  # of WHAT_IS
WHAT_IS = [text.strip() for text in """a volcano, gravity, a bicycle, honey, rain, a baker, a magnet, cheese, a bridge,
the Moon, a clock, glass, a library, a river, electricity, bread, a telescope, salt, a mountain, a poem, steel, a bee,
a forest, paper, a lighthouse, snow, a violin, an island, chocolate, a dictionary, the wind, a camera,
a rainbow, a desert, coffee, a dentist, a ladder, wool, a museum, lightning, a battery, an earthquake,
a whale, tea, a painter, a candle, the brain, a map, an engine, soap,
a planet, milk, a farmer, a mirror, ice, a castle, music, a train, a doctor, a cloud, rice, a robot, an ocean, a pencil,
butter, a tiger, a school, gold, a tree, a windmill, sand, a ship, a spider, a comet""".split(",")]
WORDS = """Berlin Madrid small,little late Pacific Sun dog honey eight,8 twelve,12 2,two Goethe Gogh ice China 100,212
Vienna Athens Cairo Beijing right night Mercury Saturn Nile Cervantes Tolstoy Picasso 7,seven sheep""".split()
ORDINARY = (*requests.ORDINARY, *((asked, tuple(words.split(","))) for (asked, _), words in
                                  zip(requests.CHATS, WORDS, strict=True)))
Pair = dict[str, str]  # question, chosen, rejected


def questions(part: slice) -> list[chat.Conversation]:
    """`What is a volcano?`, and so on, each as a conversation to be answered."""
    return [[{"role": "user", "content": f"What is {thing}?"}] for thing in WHAT_IS[part]]


def is_preferred(text: str, ended: bool) -> bool:
    """One sentence of four words or more, that the model ended by itself."""
    return ended and len(text.split()) > 3 and re.fullmatch(r"[^.!?\n]+[.!?]", text) is not None


def make_pairs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, part: slice) -> list[Pair]:
    """Pairs from the model's own answers; those that are one sentence already, or none, are left out."""
    found = []
    for (question,), (text, _) in zip(asked := questions(part), chat.answers(model, tokenizer, asked, TOKENS),
                                      strict=True):
        first = re.match(r"[^.!?\n]+[.!?](?=\s)", text)
        if first:
            found.append({"question": question["content"], "chosen": first[0], "rejected": text})
    return found


def encoded(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> list[laptop_ranks.Row]:
    """(ids, labels) of the chosen answer with its end, and of the rejected one, which has none: it was cut."""
    asked = chat.prompt_ids(tokenizer, [{"role": "user", "content": pair["question"]}])
    answers = tokenizer([pair["chosen"] + tokenizer.eos_token, pair["rejected"]], add_special_tokens=False)["input_ids"]
    return [(asked + answer, [-100] * len(asked) + answer) for answer in answers]


def pairs(part: str) -> list[Pair]:
    """The pairs that are "learnt" from, or "probed"."""
    return json.loads(PAIRS.read_text(encoding="utf-8"))[part]


def pair_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """STEPS batches of chosen, rejected, chosen, rejected; every pair once."""
    drawn = random.Random(f"pairs {seed}").sample(pairs("learnt"), STEPS * BATCH)
    for step in range(STEPS):
        rows = [row for n in range(BATCH) for row in encoded(tokenizer, drawn[step * BATCH + n])]
        yield sweep.pad(rows, tokenizer.pad_token_id)


class Preference(nn.Module):
    """The DPO loss of a model with LoRA, for `train`; `preferences.preference_loss` with a head for answers only.

    Rows alternate: chosen, rejected. The reference is the model with its branches switched off.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def log_probabilities(self, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum over the labels of each row: (rows,)."""
        wanted = labels[:, 1:] != -100
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][wanted]
        lost = F.cross_entropy(self.model.lm_head(hidden), labels[:, 1:][wanted], reduction="none")
        return -torch.zeros(len(ids)).index_add(0, wanted.nonzero()[:, 0], lost)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor, use_cache: bool = False) -> SimpleNamespace:
        with torch.no_grad(), disabled(self.model):
            reference = self.log_probabilities(input_ids, labels)
        own = self.log_probabilities(input_ids, labels)
        return SimpleNamespace(loss=dpo_loss(own[0::2], own[1::2], reference[0::2], reference[1::2]).mean())


def four_scores(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """`text`, `form`, `preferred`, `right`, and `words`, `chosen`, `rejected` beside them."""
    rows = requests.request_rows(world.make_world().held_out, laptop_ranks.EACH, seed=5)
    form = requests.score(rows, chat.answers(model, tokenizer, [row["messages"] for row in rows], TOKENS))
    said = chat.answers(model, tokenizer, questions(SCORED), TOKENS)
    told = chat.answers(model, tokenizer, [[{"role": "user", "content": asked}] for asked, _ in ORDINARY], 24)
    right = [requests.parse(text) is None and any(re.search(rf"\b{re.escape(word)}\b", text, re.I) for word in words)
             for (text, _), (_, words) in zip(told, ORDINARY, strict=True)]
    probed = [row for pair in pairs("probed") for row in encoded(tokenizer, pair)]
    lost = label_losses(model, *zip(*probed, strict=True), budget=2**27)[0]
    return {"text": laptop_recovery.text_loss(model, tokenizer, 0)["loss"], "form": form["all"]["exact"],
            "preferred": share(is_preferred(*answer) for answer in said), "right": share(right),
            "words": sum(len(text.split()) for text, _ in said) / len(said),
            "chosen": -lost[0::2].mean().item(), "rejected": -lost[1::2].mean().item()}


def share(marks: Iterator[bool] | Sequence[bool]) -> float:
    """The share of those that are true."""
    marks = list(marks)
    return sum(marks) / len(marks)


def less_preferred(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, float]:
    """The share of the questions to tune on that is not answered as preferred."""
    return {"loss": 1 - share(is_preferred(*answer)
                              for answer in chat.answers(model, tokenizer, questions(TUNED_ON), TOKENS))}


def score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, own: Callable) -> dict[str, float]:
    """A way's own loss; but from the tuning seed the four scores as well."""
    return own(model, tokenizer, seed) | ({} if seed == sweep.TUNING_SEED else four_scores(model, tokenizer))


def lora(model: PreTrainedModel) -> PreTrainedModel:
    """LoRA as the recovery's record has it."""
    return add_lora(model, r=8, alpha=16)


def request_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """STEPS batches of requests of the trained kinds, without the chats that the tier mixes in."""
    each = STEPS * BATCH // len(requests.TRAINED_KINDS)
    rows = laptop_ranks.encoded(tokenizer, requests.request_rows(world.make_world().taught, each, seed=100 + seed))
    for step in range(STEPS):
        yield sweep.pad(rows[step * BATCH:(step + 1) * BATCH], tokenizer.pad_token_id)


WAYS = {"instruction": (request_batches, laptop_ranks.request_loss, sweep.LabelsOnly),
        "domain": (laptop_recovery.text_batches, laptop_recovery.text_loss, sweep.LabelsOnly),
        "preference": (pair_batches, less_preferred, Preference)}
CASES = [sweep.Case("untuned", lambda model: model, request_batches, partial(score, own=less_preferred), 0, seeds=(0,)),
         *(sweep.Case(name, lora, batches, partial(score, own=own), STEPS, ladder=LADDER, loss=loss)
           for name, (batches, own, loss) in WAYS.items())]


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing of the sweep.

    Numbers below 1e-38 count as zero: DPO at 4.5e-3 saturates, and with such gradients a CPU takes many times as long.
    """
    torch.set_flush_denormal(True)
    recovery = {"text": laptop_recovery.TEXT, "trained_on": laptop_recovery.MORE, "pairs": PAIRS}
    sweep.run(NAME, CASES, report, **{key: f"{path.name} {sweep.sha256(path)}" for key, path in recovery.items()})
