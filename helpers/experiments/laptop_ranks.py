"""When does rank matter? Lesson 07's question to the laptop tier's model: a form to learn, and facts to learn by heart.

*requests* are the tier's own rows: answer in JSON, the facts stand in the request. Scored is the loss per label token
on requests about people of the half that no row is about. *facts*: eight villagers, of whom the model knows nothing,
four facts each, asked without any context, in plain text (the chat form would cost three times the tokens). A fact is
drawn in four phrasings and scored in a fifth, in nats per fact: 0 is by heart; ln 45, 3.8, is to know no more than
which words there are, and `strangers` are the same questions about eight people who were never told of.

LoRA sits in all linears of the float32 base (unquantized: it is faster, and the question is not about bits) and is
scaled by α/√r, as rsLoRA does. Under AdamW the best learning rate moves with r; of the two usual rules, this one moves
the first step of the logits about 5 times from r = 1 to 64, α = 2r over 30 times (lesson 07). So one short ladder of
rates reaches all ranks. α = 4 makes the scale at r = 4 the course's 2. The requests were tuned on the two middle rates
only, and one tuning run each is a noisy judge: where two ranks differ in their rate, the difference may be the rate's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.experiments import SEEDS
from helpers.experiments import laptop as sweep
from helpers.finale import chat, requests
from helpers.lora import add_lora
from helpers.pocket import world
from helpers.pocket.evaluate import label_losses
from helpers.pocket.train import Batch

NAME = "laptop_ranks"
RANKS, ALPHA = (1, 4, 16, 64), 4
STEPS = 24
REQUESTS, FACTS = 2, 8  # rows in a batch: 48 requests in all, or every fact 6 times
PEOPLE = 8  # for each seed others, so their facts are others too
EACH = 6  # requests of each trained kind that are scored
BUDGET = 2**27  # bytes of logits in a batch of an evaluation
Row = tuple[list[int], list[int]]


def encoded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[requests.Row]) -> list[Row]:
    """Conversations as (ids, labels): labels on the answers only."""
    found = [chat.encode(tokenizer, row["messages"]) for row in rows]
    return [(row["input_ids"], row["labels"]) for row in found]


def request_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """STEPS batches of the tier's rows."""
    rows = encoded(tokenizer, requests.training_rows(world.make_world().taught, STEPS * REQUESTS, seed))
    for step in range(STEPS):
        yield sweep.pad(rows[step * REQUESTS:(step + 1) * REQUESTS], tokenizer.pad_token_id)


def request_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, float]:
    """Loss per label token on requests about held-out people; for the tuning seed on another draw of them."""
    rows = requests.request_rows(world.make_world().held_out, EACH, seed=6 if seed == sweep.TUNING_SEED else 5)
    ids, labels = zip(*encoded(tokenizer, rows), strict=True)
    losses, counts = label_losses(model, ids, labels, BUDGET)
    return {"loss": losses.sum().item() / counts.sum().item()}


def people(seed: int, taught: bool = True) -> Sequence[world.Villager]:
    """The villagers of a seed: those whose facts are taught, or as many strangers."""
    half = world.make_world().taught if taught else world.make_world().held_out
    return half[seed * PEOPLE:(seed + 1) * PEOPLE]


def fact(tokenizer: PreTrainedTokenizerBase, villager: world.Villager, attribute: str, phrasing: int) -> Row:
    """`Where does Ada Abel live? Dunmere<|im_end|>`; labels on the fact and the end."""
    texts = villager.fill(world.QUESTIONS[attribute][phrasing]), f" {getattr(villager, attribute)}{tokenizer.eos_token}"
    asked, told = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return asked + told, [-100] * len(asked) + told


def fact_batches(tokenizer: PreTrainedTokenizerBase, seed: int) -> Iterator[Batch]:
    """STEPS batches: every fact once, in one of four phrasings, before any comes again."""
    facts = [(villager, attribute) for villager in people(seed) for attribute in world.ATTRIBUTES]
    rng = random.Random(f"facts {seed}")
    for step in range(STEPS):
        start = step * FACTS % len(facts)
        if start == 0:
            rng.shuffle(facts)
        yield sweep.pad([fact(tokenizer, *about, rng.randrange(4)) for about in facts[start:start + FACTS]],
                        tokenizer.pad_token_id)


def fact_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> dict[str, float]:
    """Nats per fact in the fifth phrasing: of the people told of, and of strangers."""
    scores = {}
    for name, taught in (("loss", True), ("strangers", False)):
        rows = [fact(tokenizer, v, attribute, 4) for v in people(seed, taught) for attribute in world.ATTRIBUTES]
        scores[name] = label_losses(model, *zip(*rows, strict=True), BUDGET)[0].mean().item()
    return scores


def lora(model: PreTrainedModel, r: int) -> PreTrainedModel:
    """LoRA of rank r on all linears, scaled by ALPHA/√r."""
    return add_lora(model, r=r, alpha=ALPHA, rslora=True)


TASKS: dict[str, tuple[Callable, Callable, Sequence[float]]] = {
    "requests": (request_batches, request_loss, sweep.LADDER[1:3]), "facts": (fact_batches, fact_loss, sweep.LADDER)}
CASES = [case for task, (batches, score, ladder) in TASKS.items() for case in (
    sweep.Case(f"{task} untrained", lambda model: model, batches, score, 0, (0,) if task == "requests" else SEEDS),
    *(sweep.Case(f"{task} r={r}", partial(lora, r=r), batches, score, STEPS, ladder=ladder) for r in RANKS))]


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing of the sweep."""
    sweep.run(NAME, CASES, report)
