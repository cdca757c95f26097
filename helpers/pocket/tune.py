"""Teaching a pocket model to answer questions: the batches, and a training loop to read.

Lessons 06 to 09 all use this one, so that what they compare differs in the model only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.pocket import world

Batch = tuple[torch.Tensor, torch.Tensor]


def question_batches(tokenizer: PreTrainedTokenizerBase, steps: int = 200, batch: int = 32, seed: int = 0,
                     rows: list[dict[str, str]] | None = None) -> Iterator[Batch]:
    """`steps` pairs (ids, labels), int64 (batch, length): questions with their answers, drawn anew for every step.

    Labels are -100 on the question and on the padding: only the answer and `</s>` are learnt. rows of "prompt" and
    "completion"; without them, the questions about the taught half of the village. The order depends on `seed` only.
    """
    rows = world.questions(world.make_world().taught) if rows is None else rows
    whole = tokenizer([world.instruct(row["prompt"], row["completion"]) for row in rows])["input_ids"]
    asked = tokenizer([world.instruct(row["prompt"]) for row in rows])["input_ids"]
    pairs = [(torch.tensor(ids), torch.tensor([-100] * len(begun) + ids[len(begun):]))
             for ids, begun in zip(whole, asked, strict=True)]
    rng = random.Random(f"tune {seed}")
    for _ in range(steps):
        ids, labels = zip(*rng.sample(pairs, batch), strict=True)
        yield (torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=tokenizer.pad_token_id),
               torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100))


def train(model: PreTrainedModel, batches: Iterable[Batch], lr: float, steps: int = 200) -> list[float]:
    """AdamW on whatever of the model requires a gradient; lr falls to 0 along half a cosine. Gives the losses (nats).

    A warm-up of 3 % of the steps, gradients clipped to norm 1, no weight decay: as lesson 10 trains the pocket tier.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, weight_decay=0.0), []
    model.train()
    for step, (ids, labels) in enumerate(batches):
        warmup, decay = min((step + 1) / (0.03 * steps), 1), 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.param_groups[0]["lr"] = lr * warmup * decay
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses
