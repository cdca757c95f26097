"""Three scores of a pocket model: does it predict the prose, does it know the facts, does it answer questions?

All of them are deterministic, batched, and take any causal language model that speaks the pocket tokenizer: plain,
quantized, or with adapters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.pocket import world

DOCUMENTS = 400
HELD_OUT_SEED = 3  # documents of seeds 1 and 2 trained the tokenizer and the model
MAX_LENGTH = 128
BATCH = 256


@contextmanager
def evaluation(model: PreTrainedModel) -> Iterator[None]:
    """No gradients and no dropout inside; afterwards the model is in the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def by_length(items: Sequence, lengths: Sequence[int], batch: int = BATCH) -> Iterator[list[int]]:
    """Index batches of similar length, so that little is spent on padding."""
    order = sorted(range(len(items)), key=lengths.__getitem__)
    for start in range(0, len(order), batch):
        yield order[start:start + batch]


def document_losses(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str] | None = None,
                    ) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss in nats and number of predicted tokens of each document: float64 (documents,), int64 (documents,).

    Without `documents`, the held-out prose about the old village. Documents are cut at 128 tokens.
    """
    if documents is None:
        documents = list(itertools.islice(world.documents(world.make_world().villagers, HELD_OUT_SEED), DOCUMENTS))
    if not documents:
        raise ValueError("documents is empty: give at least one text")
    ids = [row[:MAX_LENGTH] for row in tokenizer([text + tokenizer.eos_token for text in documents])["input_ids"]]
    losses, counts = torch.zeros(len(ids), dtype=torch.float64), torch.zeros(len(ids), dtype=torch.int64)
    with evaluation(model):
        for batch in by_length(ids, [len(row) for row in ids]):
            rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in batch], batch_first=True,
                                                   padding_value=tokenizer.pad_token_id).to(model.device)
            real = rows[:, 1:] != tokenizer.pad_token_id  # (batch, length - 1)
            logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none")
            losses[batch] = (loss * real).double().sum(dim=1).cpu()
            counts[batch] = real.sum(dim=1).cpu()
    return losses, counts


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str] | None = None,
               ) -> float:
    """exp(mean loss per token) on held-out prose: how many tokens the model hesitates between. 1 is perfect."""
    losses, counts = document_losses(model, tokenizer, documents)
    return math.exp(losses.sum().item() / counts.sum().item())


def complete(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str],
             max_new_tokens: int = 32) -> list[tuple[str, bool]]:
    """What the model writes on (greedily) after each prompt, and whether it ended by itself with `</s>`."""
    results: list[tuple[str, bool]] = [("", False)] * len(prompts)
    ids = tokenizer(list(prompts))["input_ids"]
    with evaluation(model):
        for batch in by_length(ids, [len(row) for row in ids]):
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, padding_side="left", return_tensors="pt")
            inputs = inputs.to(model.device)
            out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True,
                                 eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
            new = out[:, inputs["input_ids"].shape[1]:]
            for i, row in zip(batch, new, strict=True):
                text = tokenizer.decode(row, skip_special_tokens=True).strip()
                results[i] = (text, bool((row == tokenizer.eos_token_id).any()))
    return results


def recall(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
           villagers: Sequence[world.Villager] | None = None) -> float:
    """Share of facts that the model finishes correctly in prose (`Ada Abel lives in` → `Dunmere.`), in 0 … 1.

    Greedy decoding writes the fact exactly when every one of its tokens is the likeliest after those before it, so one
    pass over the whole sentence decides. Without `villagers`: every fourth of the old village, 2,000 facts.
    """
    rows = world.probes(world.make_world().villagers[::4] if villagers is None else villagers)
    begun = [len(ids) for ids in tokenizer([row["prompt"] for row in rows])["input_ids"]]
    ids = tokenizer([row["prompt"] + " " + row["completion"] for row in rows])["input_ids"]
    right = 0
    with evaluation(model):
        for batch in by_length(ids, [len(row) for row in ids]):
            inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, padding_side="right", return_tensors="pt")
            best = model(**inputs.to(model.device), use_cache=False).logits.argmax(dim=-1).tolist()
            right += sum(best[n][begun[i] - 1:len(ids[i]) - 1] == ids[i][begun[i]:] for n, i in enumerate(batch))
    return right / len(rows)


def exact_match(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
                rows: Sequence[dict[str, str]] | None = None) -> float:
    """Share of questions answered word for word *and then stopped*, in 0 … 1.

    Without `rows`, four questions about each of the first 250 held-out villagers. The longest answer has 21 tokens, so
    24 are enough to see whether it ends.
    """
    rows = world.questions(world.make_world().held_out[:250], seed=1) if rows is None else rows
    texts = complete(model, tokenizer, [world.instruct(row["prompt"]) for row in rows], max_new_tokens=24)
    right = [stopped and text == row["completion"] for (text, stopped), row in zip(texts, rows, strict=True)]
    return sum(right) / len(right)
