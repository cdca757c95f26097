"""What quantization takes from the pocket model at 4, 3 and 2 bits, and what LoRA on prose wins back.

The prose is new to the model and tells of the villagers that it knows: nothing in it is taught but what it was
pre-trained on. The codebooks are NormalFloat at every width, blocks of 64, double quantization: QLoRA with fewer bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.codebooks import NF4, normal_float
from helpers.experiments import Case
from helpers.lora import add_lora
from helpers.pocket import world
from helpers.pocket.evaluate import MAX_LENGTH, perplexity, recall
from helpers.pocket.train import Batch
from helpers.qlora import quantize_model

CODEBOOKS = {4: NF4, 3: normal_float(3), 2: normal_float(2)}
SCORES = (perplexity, recall)
BATCH = 16
STEPS = 60
LR = {32: 1e-3, 4: 1e-3, 3: 5e-3, 2: 5e-3}  # by bits; at 32 and 4 the better of the two with seed 0, else untuned


def prose_batches(tokenizer: PreTrainedTokenizerBase, steps: int = STEPS, seed: int = 0, batch: int = BATCH,
                  ) -> Iterator[Batch]:
    """`steps` pairs (ids, labels), int64 (batch, length): fresh documents about the old village, cut at 128 tokens.

    Documents of seeds 1 and 2 trained the pocket model, those of 3 score it; here they are 100 + seed. Labels are -100
    on the padding.
    """
    documents = world.documents(world.make_world().villagers, 100 + seed)
    for _ in range(steps):
        texts = [text + tokenizer.eos_token for text in itertools.islice(documents, batch)]
        rows = [torch.tensor(ids[:MAX_LENGTH]) for ids in tokenizer(texts)["input_ids"]]
        yield (pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id),
               pad_sequence(rows, batch_first=True, padding_value=-100))


def prepare(model: PreTrainedModel, bits: int, lora: bool) -> PreTrainedModel:
    """The model with its linear layers in `bits` bits (32: as they are), and LoRA of rank 8 on top or not."""
    if bits < 32:
        quantize_model(model, codebook=CODEBOOKS[bits])
    return add_lora(model, r=8, alpha=16) if lora else model


def case(bits: int, lora: bool) -> Case:
    """One column: "4 bits" as it is, or "4 bits + LoRA"."""
    return Case(f"{bits} bits" + (" + LoRA" if lora else ""), lambda model: prepare(model, bits, lora),
                lr=LR[bits] if lora else 0, steps=STEPS, batches=prose_batches, scores=SCORES)


CASES = [case(bits, lora) for bits in (32, 4, 3, 2) for lora in (False, True)]
