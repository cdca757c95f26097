"""Three scores of a pocket model: does it predict the prose, does it know the facts, does it answer questions?

All of them are deterministic, batched, and take any causal language model that speaks the pocket tokenizer: plain,
quantized, or with adapters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.pocket import world

DOCUMENTS = 400
HELD_OUT_SEED = 3  # documents of seeds 1 and 2 trained the tokenizer and the model
MAX_LENGTH = 128
BATCH = 256
BUDGET = 2**30  # bytes for what a batch of an evaluation holds: its logits, or its KV cache


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


def by_length(lengths: Sequence[int], batch: int = BATCH, row_bytes: Callable[[int], int] = lambda length: 0,
              budget: int = BUDGET) -> Iterator[list[int]]:
    """Index batches of similar length, so that little is spent on padding: at most `batch` rows, or `budget` bytes.

    row_bytes: what one row of a length takes, once it is padded to the longest of its batch. A row that alone takes
    more than the budget comes alone.
    """
    chosen: list[int] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chosen and (len(chosen) == batch or (len(chosen) + 1) * row_bytes(lengths[i]) > budget):
            yield chosen
            chosen = []
        chosen.append(i)
    if chosen:
        yield chosen


def kept_bytes(model: PreTrainedModel) -> int:
    """Bytes that one token keeps in the KV cache: 2 · layers · KV heads · head size, in the embedding's precision."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head * model.get_input_embeddings().weight.element_size()


def label_losses(model: PreTrainedModel, ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]],
                 budget: int = BUDGET) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss in nats and number of labels of each row, -100 left out: float64 (rows,), int64 (rows,).

    The logits of a batch stay below `budget` bytes, or are one row's; their copy in float32 is of one row at a time.
    """
    losses, counts = torch.zeros(len(ids), dtype=torch.float64), torch.zeros(len(ids), dtype=torch.int64)
    vocab = model.config.get_text_config().vocab_size
    with evaluation(model):
        for batch in by_length([len(row) for row in ids], row_bytes=lambda n: 4 * n * vocab, budget=budget):
            rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids[i]) for i in batch], batch_first=True,
                                                   padding_value=model.config.get_text_config().pad_token_id or 0)
            logits = model(input_ids=rows.to(model.device), use_cache=False).logits  # (batch, length, vocabulary)
            for n, i in enumerate(batch):
                wanted = torch.tensor(labels[i][1:], device=logits.device)
                loss = torch.nn.functional.cross_entropy(logits[n, :len(wanted)].float(), wanted, reduction="none")
                losses[i], counts[i] = loss.double().sum().cpu(), (wanted != -100).sum().cpu()
    return losses, counts


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
    return label_losses(model, ids, ids)


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str] | None = None,
               ) -> float:
    """exp(mean loss per token) on held-out prose: how many tokens the model hesitates between. 1 is perfect."""
    losses, counts = document_losses(model, tokenizer, documents)
    return math.exp(losses.sum().item() / counts.sum().item())


def complete(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str],
             max_new_tokens: int = 32) -> list[tuple[str, bool]]:
    """What the model writes on (greedily) after each prompt, and whether it ended by itself with `</s>`."""
    return write_on(model, tokenizer, tokenizer(list(prompts))["input_ids"], [tokenizer.eos_token_id], max_new_tokens)


def write_on(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]],
             stop: Sequence[int], max_new_tokens: int, budget: int = BUDGET) -> list[tuple[str, bool]]:
    """What the model writes (greedily) after each row of ids, up to a token of `stop`; and whether one came.

    Padded on the left. A batch's KV cache and last logits stay below `budget` bytes, or are one row's.
    """
    results: list[tuple[str, bool]] = [("", False)] * len(ids)
    kept, logits = kept_bytes(model), 8 * model.config.get_text_config().vocab_size  # in float32, and once more
    with evaluation(model):
        for batch in by_length([len(row) for row in ids], budget=budget,
                               row_bytes=lambda n: (n + max_new_tokens) * kept + logits):
            inputs = tokenizer.pad({"input_ids": [list(ids[i]) for i in batch]}, padding_side="left",
                                   return_tensors="pt").to(model.device)
            out = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, use_cache=True,
                                 repetition_penalty=1.0, eos_token_id=list(stop), pad_token_id=tokenizer.pad_token_id)
            for i, row in zip(batch, out[:, inputs["input_ids"].shape[1]:].tolist(), strict=True):
                end = next((n for n, token in enumerate(row) if token in stop), None)
                results[i] = (tokenizer.decode(row[:end], skip_special_tokens=True).strip(), end is not None)
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
        for batch in by_length([len(row) for row in ids]):
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
