"""Teaching a pocket model: the batches of questions, and the one training loop, to read.

Lessons 06 to 09 and the making of the pocket Llama all use it, so that what they compare differs in the model only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.pocket import world

Batch = tuple[torch.Tensor, torch.Tensor]


def question_batches(tokenizer: PreTrainedTokenizerBase, steps: int = 200, batch: int = 32, seed: int | None = 0,
                     rows: list[dict[str, str]] | None = None) -> Iterator[Batch]:
    """`steps` pairs (ids, labels), int64 (batch, length): questions with their answers, drawn anew for every step.

    Labels are -100 on the question and on the padding: only the answer and `</s>` are learnt. rows of "prompt" and
    "completion"; without them, the questions about the taught half of the village. The order depends on `seed` only;
    None is the order in which the shipped adapter was trained.
    """
    rows = world.questions(world.make_world().taught) if rows is None else rows
    whole = tokenizer([world.instruct(row["prompt"], row["completion"]) for row in rows])["input_ids"]
    asked = tokenizer([world.instruct(row["prompt"]) for row in rows])["input_ids"]
    pairs = [(torch.tensor(ids), torch.tensor([-100] * len(begun) + ids[len(begun):]))
             for ids, begun in zip(whole, asked, strict=True)]
    rng = random.Random("tune" if seed is None else f"tune {seed}")
    for _ in range(steps):
        ids, labels = zip(*rng.sample(pairs, batch), strict=True)
        yield (torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
               torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100))


def train(model: PreTrainedModel, batches: Iterable[Batch], lr: float, steps: int = 200, *, warmup: float | None = None,
          floor: float = 0.0, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999),
          each: Callable[[int, float], None] = lambda step, loss: None) -> list[float]:
    """AdamW on whatever of the model requires a gradient, one step per batch (ids, labels). Gives the losses in nats.

    lr rises over `warmup` steps (default: 3 % of all) and falls along half a cosine to `floor` of itself. Gradients are
    clipped to norm 1; weight decay is for matrices only. The defaults are how lesson 10 trains the pocket tier.
    each: called with every step's number, from 1, and loss.
    """
    warmup = 0.03 * steps if warmup is None else warmup
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}], lr=lr, betas=betas)
    losses: list[float] = []
    model.train()
    for step, (ids, labels) in enumerate(batches):
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = lr * min((step + 1) / warmup, 1) * (floor + (1 - floor) * cosine)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        each(step + 1, losses[-1])
    model.eval()
    return losses
