"""The same gradients another way: in pieces, with the head on the labels only, with layers computed twice.

A model is a causal language model of transformers; a batch is a dict of tensors that it takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from helpers.faster.batches import Batch


def labels_in(batch: Batch) -> int:
    """How many tokens of a batch are learnt: labels that are not -100, the first of a row left out."""
    return int((batch["labels"][:, 1:] != -100).sum())


def summed_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The loss in nats, added up over the labels of a batch."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**inputs, use_cache=False).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), reduction="sum")


def labelled_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """`summed_loss`, the head computed on the tokens before a label only. For Llama and what is built like it."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    wanted = batch["labels"][:, 1:] != -100
    logits = model.lm_head(hidden[wanted]).float()
    return nn.functional.cross_entropy(logits, batch["labels"][:, 1:][wanted], reduction="sum")


def accumulate(model: PreTrainedModel, batches: Sequence[Batch],
               loss: Callable[[PreTrainedModel, Batch], torch.Tensor] = summed_loss) -> float:
    """Gradients of the mean loss over all labels of all batches, batch by batch; adds them to `.grad`, gives the loss.

    Every batch's sum is divided by the number of labels in *all* of them: then the gradients are those of one large
    batch. Raises ValueError if there is no label at all.
    """
    count = sum(labels_in(batch) for batch in batches)
    if not count:
        raise ValueError("no token of these batches has a label: there is nothing to learn")
    total = 0.0
    for batch in batches:
        part = loss(model, batch) / count
        part.backward()
        total += part.item()
    return total


def gradients(model: nn.Module, backward: Callable[[], object]) -> torch.Tensor:
    """The gradients of all trained weights after `backward()` as one float64 vector; `.grad` is empty afterwards."""
    model.zero_grad()
    backward()
    found = torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def difference(mine: torch.Tensor, plain: torch.Tensor) -> float:
    """‖mine − plain‖ / ‖plain‖: 0 for equal vectors, about 1e-7 where only float32's rounding differs."""
    return ((mine - plain).norm() / plain.norm()).item()


def kept_bytes(model: nn.Module, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd puts aside for the backward pass of `forward()`, the model's own weights left out."""
    ours = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    storages: dict[int, torch.UntypedStorage] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in ours:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(storage.nbytes() for storage in storages.values())


@contextlib.contextmanager
def checkpointed(model: PreTrainedModel, layers: int) -> Iterator[None]:
    """Inside, the first `layers` layers of a Llama keep their input only, and are computed again in the backward pass.

    Source: Chen et al. 2016 (arXiv 1604.06174). Raises ValueError for more layers than there are, or a negative number.
    """
    blocks = model.model.layers
    if not 0 <= layers <= len(blocks):
        raise ValueError(f"layers={layers}: the model has {len(blocks)}")
    chosen = list(blocks)[:layers]
    for block in chosen:
        block.forward = _twice(block.forward)
    try:
        yield
    finally:
        for block in chosen:
            del block.forward


def _twice(forward: Callable) -> Callable:
    def run(*args, **kwargs):
        return torch.utils.checkpoint.checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run
