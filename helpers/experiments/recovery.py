"""What quantization takes from the pocket model at 4, 3 and 2 bits, and what LoRA on prose wins back.

The village is split in two: the documents that LoRA is trained on *tell* of every other villager and never name the
rest. All that the model is scored on is about the *untold*, whom it knows from its pre-training only, so what comes
back there was not read again; what it knows of the told is kept beside it. The unquantized model gets the same
training: what it gains is no repair. The codebooks are NormalFloat at every width, blocks of 64, double quantization:
QLoRA with fewer bits.

Every width is tuned alike: a ladder of four learning rates, a factor of 3 apart, tried with seed 0. RATES has the rung
with the least perplexity on prose about the untold. The facts had no say in it. With this rate: three seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.codebooks import NF4, normal_float
from helpers.experiments import Case
from helpers.lora import add_lora
from helpers.pocket import evaluate, world
from helpers.pocket.train import Batch
from helpers.qlora import quantize_model

CODEBOOKS = {4: NF4, 3: normal_float(3), 2: normal_float(2)}
TOLD, UNTOLD = world.make_world().villagers[::2], world.make_world().villagers[1::2]
LADDER = (5e-4, 1.5e-3, 5e-3, 1.5e-2)
RATES = {32: 5e-4, 4: 5e-4, 3: 1.5e-3, 2: 5e-3}  # by bits
BATCH = 16
STEPS = 60
DOCUMENTS = 200  # that score the prose


def prose_batches(tokenizer: PreTrainedTokenizerBase, steps: int = STEPS, seed: int = 0, batch: int = BATCH,
                  ) -> Iterator[Batch]:
    """`steps` pairs (ids, labels), int64 (batch, length): fresh documents about the told, cut at 128 tokens.

    Documents of seeds 1 and 2 trained the pocket model, those of 3 score it; here they are 100 + seed. Labels are -100
    on the padding.
    """
    documents = world.documents(TOLD, 100 + seed)
    for _ in range(steps):
        texts = [text + tokenizer.eos_token for text in itertools.islice(documents, batch)]
        rows = [torch.tensor(ids[:evaluate.MAX_LENGTH]) for ids in tokenizer(texts)["input_ids"]]
        yield (pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
               pad_sequence(rows, batch_first=True, padding_value=-100))


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """exp(mean loss per token) on prose about the untold."""
    return evaluate.perplexity(model, tokenizer,
                               list(itertools.islice(world.documents(UNTOLD, evaluate.HELD_OUT_SEED), DOCUMENTS)))


def recall_untold(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of 1,000 facts that it finishes rightly, about 250 villagers whom the documents never name."""
    return evaluate.recall(model, tokenizer, UNTOLD[::4])


def recall_told(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """The same about 250 of those whom the documents tell of."""
    return evaluate.recall(model, tokenizer, TOLD[::4])


def prepare(model: PreTrainedModel, bits: int, lora: bool) -> PreTrainedModel:
    """The model with its linear layers in `bits` bits (32: as they are), and LoRA of rank 8 on top or not."""
    if bits < 32:
        quantize_model(model, codebook=CODEBOOKS[bits])
    return add_lora(model, r=8, alpha=16) if lora else model


def case(bits: int, lr: float = 0) -> Case:
    """One column: "4 bits" as it is, or "4 bits + LoRA at 0.005", which only at the chosen rate has three seeds."""
    name = f"{bits} bits" + (f" + LoRA at {lr:g}" if lr else "")
    return Case(name, lambda model: prepare(model, bits, lora=lr > 0), lr=lr, steps=STEPS, batches=prose_batches,
                scores=(perplexity, recall_untold, recall_told),
                seeds=experiments.SEEDS if lr == RATES[bits] else (0,))


CASES = [case(bits, lr) for bits in (2, 3, 4, 32) for lr in (0, *LADDER)]


def points(record: dict, bits: int, lora: bool) -> list[dict]:
    """The points of a width, as it is or with LoRA at its rate: one for each seed, in their order."""
    name = case(bits, RATES[bits] if lora else 0).name
    return sorted((point for point in record["points"] if point["case"] == name), key=lambda point: point["seed"])


def came_back(record: dict, bits: int) -> list[float]:
    """For each seed, the share of the loss per token lost by quantization that LoRA brought back, as on the laptop.

    Lost: `bits` less 32, both as they are. Left: the same with both trained, from the same seed. 1 - left / lost.
    """
    def losses(width: int, lora: bool) -> list[float]:
        return [math.log(point["perplexity"]) for point in points(record, width, lora)]
    lost = losses(bits, False)[0] - losses(32, False)[0]
    return [1 - (ours - plain) / lost for ours, plain in zip(losses(bits, True), losses(32, True), strict=True)]
