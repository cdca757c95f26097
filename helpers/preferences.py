"""Direct preference optimization by hand: from the log-probabilities of two answers to the paper's equation 7.

    chosen, rejected = answer_logps(model, ids, labels).chunk(2)       # the model that is trained
    with torch.no_grad(), reference(model):                            # the same one, its adapter switched off
        ref_chosen, ref_rejected = answer_logps(model, ids, labels).chunk(2)
    loss = dpo_loss(chosen, rejected, ref_chosen, ref_rejected).mean()

Source: Rafailov et al. 2023, "Direct Preference Optimization" (arXiv 2305.18290). TRL's DPOTrainer computes the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional as F

from helpers import lora

BETA = 0.1  # TRL's default, and what the paper's own code takes for dialogue
Pair = tuple[list[int], list[int]]  # the tokens of a prompt, and of an answer to it


def sequence_logps(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """log π(answer | prompt) of each row in nats: the sum over its labelled tokens, float (rows,).

    logits (rows, length, vocabulary); labels int64 (rows, length), -100 on what is no answer. The logits at one place
    are about the token after it. Raises ValueError if the shapes do not fit.
    """
    if logits.shape[:2] != labels.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} are not of the same rows and "
                         "length: give one row of labels for each row of logits, as long as it")
    wanted = labels[:, 1:]  # (rows, length - 1)
    known = logits[:, :-1].float().log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
    return (known * (wanted != -100)).sum(-1)


def answer_logps(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`sequence_logps` of what the model makes of ids: int64 (rows, length), like labels; float (rows,)."""
    return sequence_logps(model(input_ids=ids, use_cache=False).logits, labels)


def dpo_loss(chosen: torch.Tensor, rejected: torch.Tensor, ref_chosen: torch.Tensor, ref_rejected: torch.Tensor,
             beta: float = BETA) -> torch.Tensor:
    """Equation 7 for each pair, float (pairs,): -log σ(β·(what the chosen answer gained - what the rejected did)).

    All four are log-probabilities of whole answers in nats, (pairs,): of the model, and of the reference.
    Raises ValueError for a beta that is not above 0.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta}: it weighs how dear it is to leave the reference, and must be above 0; try 0.1")
    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))


def rewards(logps: torch.Tensor, ref_logps: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """The implicit reward β·log(π/π_ref) of each answer, float (rows,): what TRL logs as `rewards/chosen`."""
    return beta * (logps - ref_logps)


def reference(model: nn.Module) -> AbstractContextManager:
    """`with reference(model):` the model as it was before training: its adapter, PEFT's or ours, is switched off.

    Raises ValueError for a model without an adapter.
    """
    return model.disable_adapter() if hasattr(model, "disable_adapter") else lora.disabled(model)


def preference_loss(model: nn.Module, ids: torch.Tensor, labels: torch.Tensor, beta: float = BETA) -> torch.Tensor:
    """The mean of `dpo_loss` over a batch: the first half of the rows are chosen answers, the second the rejected."""
    with torch.no_grad(), reference(model):
        ref = answer_logps(model, ids, labels).chunk(2)
    return dpo_loss(*answer_logps(model, ids, labels).chunk(2), *ref, beta=beta).mean()


def stack(rows: Iterable[Pair], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, int64 (rows, length), of prompts with their answers, padded on the right."""
    rows = list(rows)
    ids = [torch.tensor(prompt + answer) for prompt, answer in rows]
    labels = [torch.tensor([-100] * len(prompt) + answer) for prompt, answer in rows]
    return (nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad),
            nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100))
