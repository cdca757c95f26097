"""What each lever of lesson 13 gives on the laptop tier's model, on one machine; two levers were added later.

A step is: gradients of eight rows, clipping, AdamW on LoRA of rank 8 on all linears. Three rows in four are requests
(lesson 10's), one is a paragraph of prose, so that their lengths differ as they do in a mixed set. A lever changes one
thing about the plain step; its cost is CPU time a row, so that another process on the machine counts for little, in
three rounds through all levers, on one thread. `difference` is how far its gradients are from the plain step's (0:
equal), `peak` what torch's tensors hold at most, weights included (helpers.memory.peak).

The rate of AdamW is 0: every round finds the same weights.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from transformers import AutoTokenizer, PreTrainedModel

from helpers import experiments
from helpers.experiments import laptop as sweep
from helpers.experiments.laptop_recovery import MORE
from helpers.faster import batches, profiling, steps
from helpers.finale import chat, laptop, rehearsal, requests
from helpers.lora import add_lora
from helpers.memory.peak import Peak
from helpers.pocket import world

NAME = "levers"
ROWS, BATCH, CAPACITY, ROUNDS = 8, 4, 1024, 3
PLAIN, BEFORE, AFTER, JOINED = "plain", "before", "after", "joined without walls"


@dataclass(frozen=True)
class Lever:
    """One way to take the step.

    rows: how many. cut: how they become batches: "longest" (padded to it), "full" (to CAPACITY), "grouped", "packed",
    "joined" (packed without walls), "pairs". long: one text of CAPACITY tokens in their place. base: "fp32", "NF4" or
    "all weights" (nothing frozen, no adapters). around: a context manager of the model that lasts for the step.
    against: the lever whose gradients are the plain ones; None where others are computed.
    """

    name: str
    cut: str = "longest"
    loss: Callable = steps.summed_loss
    around: Callable[[PreTrainedModel], contextlib.AbstractContextManager] = contextlib.nullcontext
    base: str = "fp32"
    rows: int = ROWS
    long: bool = False
    against: str | None = PLAIN


@contextlib.contextmanager
def attention(model: PreTrainedModel, kind: str) -> Iterator[None]:
    """The model with another attention, "eager" or "sdpa"; afterwards with the one it had."""
    before = model.config._attn_implementation
    model.set_attn_implementation(kind)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def compiled(model: PreTrainedModel) -> Iterator[None]:
    """The model's layers compiled by torch's inductor, for batches of every length; made at the first call, then kept.

    It needs a C++ compiler on this machine.
    """
    for layer in model.model.layers:
        if not hasattr(layer, "fast"):
            layer.fast = torch.compile(layer.forward, dynamic=True)
        layer.forward = layer.fast
    try:
        yield
    finally:
        for layer in model.model.layers:
            del layer.forward


def all_twice(model: PreTrainedModel) -> contextlib.AbstractContextManager:
    """Every layer checkpointed."""
    return steps.checkpointed(model, len(model.model.layers))


LEVERS = (
    Lever(PLAIN),
    Lever("padded to 1,024", cut="full", rows=2, against="two rows"),
    Lever("two rows", rows=2, against="two rows"),
    Lever("grouped by length", cut="grouped"),
    Lever("packed", cut="packed"),
    Lever("batches of 2, accumulated", cut="pairs"),
    Lever("checkpointed", around=all_twice),
    Lever("eager attention", around=lambda model: attention(model, "eager")),
    Lever("head on labels only", loss=steps.labelled_loss),
    Lever("layers compiled", around=compiled),
    Lever("NF4 base", base="NF4", against=None),
    Lever("all weights trained", base="all weights", against=None),
    Lever("1,024 tokens, sdpa", long=True, against="1,024 tokens, sdpa"),
    Lever("1,024 tokens, eager", long=True, around=lambda model: attention(model, "eager"),
          against="1,024 tokens, sdpa"),
    Lever(BEFORE, cut="full", rows=2, around=all_twice, against="two rows"),
    Lever(AFTER, cut="packed", loss=steps.labelled_loss),
    Lever("packed, checkpointed", cut="packed", around=all_twice),
    Lever(JOINED, cut="joined"),
)


@cache
def tokenizer():
    """The laptop tier's tokenizer with its template."""
    found = AutoTokenizer.from_pretrained(laptop.fetch())
    chat.prepare(found)
    return found


def rows(count: int, seed: int = 0) -> list[batches.Row]:
    """`count` rows (ids, labels), three requests and a text in turn; of a text the second half is learnt.

    Texts are 2 and 6 paragraphs of this course's prose in turn: the lengths are spread as in a mixed set.
    """
    asked = requests.training_rows(world.make_world().taught, count, seed)
    told = iter([line for line in MORE.read_text(encoding="utf-8").splitlines() if line.strip()])
    found = []
    for n in range(count):
        if n % 4 == 3:
            text = "\n".join(itertools.islice(told, 2 + n // 4 % 2 * 4))
            ids = [*tokenizer()(text)["input_ids"], tokenizer().eos_token_id]
            found.append((ids, [-100] * (len(ids) // 2) + ids[len(ids) // 2:]))
        else:
            row = chat.encode(tokenizer(), asked[n]["messages"], CAPACITY)
            found.append((row["input_ids"], row["labels"]))
    return found


def cut(lever: Lever) -> list[batches.Batch]:
    """The batches of a lever's step."""
    padding = tokenizer().pad_token_id
    if lever.long:
        ids = tokenizer()(MORE.read_text(encoding="utf-8"))["input_ids"][:CAPACITY]
        return [batches.pad_rows([(ids, ids)], padding)]
    chosen = rows(lever.rows)
    lengths = [len(ids) for ids, _ in chosen]
    if lever.cut in ("packed", "joined"):
        packed = [batches.pack_rows(found) for found in batches.take(chosen, batches.pack(lengths, CAPACITY))]
        left_out = "position_ids" if lever.cut == "joined" else None
        return [{name: tensor for name, tensor in batch.items() if name != left_out} for batch in packed]
    if lever.cut == "grouped":
        order = batches.grouped(lengths, BATCH)
    else:
        size = 2 if lever.cut == "pairs" else BATCH
        order = [list(range(start, min(start + size, len(chosen)))) for start in range(0, len(chosen), size)]
    length = CAPACITY if lever.cut == "full" else None
    return [batches.pad_rows(found, padding, length) for found in batches.take(chosen, order)]


@cache
def model(base: str) -> PreTrainedModel:
    """The model of a lever, ready to be trained. B is drawn at random: from 0, A would get no gradient."""
    found = rehearsal.load_base(laptop.fetch()) if base == "NF4" else sweep.load()[0]
    if base == "all weights":
        return found.train()
    torch.manual_seed(0)
    found = add_lora(found, r=8, alpha=16)
    for name, weight in found.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(weight, std=0.02)
    return found.train()


def step(lever: Lever) -> Callable[[], torch.Tensor]:
    """The lever's step; each call takes it once and gives the gradients (not those of all weights: too many)."""
    ready, found = model(lever.base), cut(lever)
    trained = [weight for weight in ready.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0)

    def run() -> torch.Tensor:
        with lever.around(ready):
            steps.accumulate(ready, found, lever.loss)
        gradient = torch.cat([weight.grad.flatten() for weight in trained]) if lever.base == "fp32" else torch.zeros(1)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return gradient.double()

    return run


def measure(lever: Lever, reference: dict[str, torch.Tensor], look: bool) -> dict[str, str | int | float]:
    """One point: a step's CPU time a row, and, where `look`, its peak and how far its gradients are off."""
    found, run = cut(lever), step(lever)
    count = 1 if lever.long else len(rows(lever.rows))
    point: dict[str, str | int | float] = {
        "lever": lever.name, "rows": count, "tokens": sum(batch["input_ids"].numel() for batch in found),
        "labels": sum(steps.labels_in(batch) for batch in found)}
    if lever.around is compiled and not hasattr(model(lever.base).model.layers[0], "fast"):
        started = time.process_time()
        run()
        point["once"] = round(time.process_time() - started)  # the compiler's own processes not counted
    started = time.process_time()
    gradient = run()
    point["seconds"] = round((time.process_time() - started) / count, 4)
    if look:
        if lever.against:
            point["difference"] = float(f"{steps.difference(gradient, reference[lever.against]):.1e}")
        held = model(lever.base)
        if lever.around is not compiled:  # compiled code cannot be looked into operation by operation
            with Peak(held) as peak:
                run()
            point["peak"] = peak.bytes
        if lever.name in (BEFORE, AFTER):
            point["shares"] = {kind: round(share, 3) for kind, share in profiling.shares(
                run, held.config.vocab_size, warm=False).items()}
    return point


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing of the record, round by round through all levers; written after every point."""
    torch.set_num_threads(1)
    record = experiments.read(NAME)
    known = {(point["lever"], point["round"]) for point in record["points"]}
    reference: dict[str, torch.Tensor] = {}
    for number in range(ROUNDS):
        for lever in LEVERS:
            if (lever.name, number) in known:
                continue
            sweep.claim(record, model=laptop.MODEL, origin=laptop.source().revision)
            if lever.against and lever.against not in reference and number == 0:
                reference[lever.against] = step(next(found for found in LEVERS if found.name == lever.against))()
            record["points"].append({"round": number} | measure(lever, reference, look=number == 0))
            experiments.write(NAME, record)
            report(str(record["points"][-1]))
