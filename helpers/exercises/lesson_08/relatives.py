"""The relatives: logits of a learnt prompt, lengths of DoRA."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise


def text_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss of ids[:, 1:]: logits (rows, virtual + n, vocabulary), ids (rows, n)."""
    logits = logits[:, logits.shape[1] - ids.shape[1]:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:])


def _cut_end(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    n = ids.shape[1]
    return torch.nn.functional.cross_entropy(logits[:, :n - 1].transpose(1, 2), ids[:, 1:])


def _unshifted(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, -ids.shape[1]:].transpose(1, 2), ids)


def _one_late(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, -ids.shape[1] + 1:].transpose(1, 2), ids[:, 1:])


def _one_more(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, -ids.shape[1] - 1:-1].transpose(1, 2), ids)


def _summed(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return text_loss(logits, ids) * ids[:, 1:].numel()


RANDOM = torch.Generator().manual_seed(8)
IDS = torch.randint(0, 7, (2, 5), generator=RANDOM)
LOGITS = 2 * torch.randn(2, 8, 7, generator=RANDOM)  # three virtual tokens

TEXT_LOSS = Exercise(
    lesson=8,
    title="Spot the bug: sixteen logits too many",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
With prompt tuning a model gives logits for its virtual tokens too: rows of virtual + n, while the text has n tokens. An
evaluation harness counted them from the front, as below, and scored the wrong positions
([lm-evaluation-harness#533](https://github.com/EleutherAI/lm-evaluation-harness/pull/533)); a trainer, and the scoring
function of this course, simply stopped ([trl#3821](https://github.com/huggingface/trl/pull/3821)).

```python
import torch

def text_loss(logits, ids):
    n = ids.shape[1]
    return torch.nn.functional.cross_entropy(logits[:, :n - 1].transpose(1, 2), ids[:, 1:])
```

Write it so that position i of the *text* predicts token i + 1, for any number of virtual tokens, none included.
""",
    solution=text_loss,
    cases=(
        Case((LOGITS, IDS), "general", {
            "wrong_end": _cut_end(LOGITS, IDS), "unshifted": _unshifted(LOGITS, IDS), "late": _one_late(LOGITS, IDS),
            "one_more": _one_more(LOGITS, IDS), "summed": _summed(LOGITS, IDS),
        }, "three virtual tokens, two rows of five", 1e-5, "shapes"),
        Case((LOGITS[:, 3:], IDS), "plain", {
            "wrong_end": lambda got: got.isnan(), "unshifted": _unshifted(LOGITS[:, 3:], IDS),
            "late": _one_late(LOGITS[:, 3:], IDS),
        }, "no virtual tokens, two rows of five", 1e-5, "plain"),
        Case((LOGITS[:1], IDS[:1, :2]), "general", {}, "six virtual tokens, a row of two", 1e-5),
    ),
    hints=(
        "The virtual tokens stand *before* the text. Which end of the logits belongs to them?",
        "Keep the last n rows: `logits[:, logits.shape[1] - n:]`. The last of them predicts what nobody wrote.",
        "After that: `logits[:, :-1]` against `ids[:, 1:]`, the vocabulary moved to dimension 1 by `transpose(1, 2)`.",
    ),
    diagnoses={
        "general": "Drop the first logits.shape[1] - n rows, then the last one; compare with ids[:, 1:].",
        "shapes": "Logits and labels must have one length: n - 1 after cutting the virtual tokens and shifting by one.",
        "wrong_end": "The first rows were kept: those belong to the virtual tokens. The text's logits are the last n.",
        "unshifted": "Each position was compared with its own token. A language model predicts the next one.",
        "late": "One position too late: the logits at i predict token i + 1, so the last row of all has no label.",
        "one_more": "The last virtual token predicts ids[:, 0], which is `<s>` and given. Begin with ids[:, 1:].",
        "summed": "That is the sum over all predicted tokens; the mean is asked for.",
        "plain": "Without virtual tokens nothing is to be cut: compute how many there are from the two shapes.",
    },
    wrong=(
        (_cut_end, "wrong_end"),
        (_unshifted, "unshifted"),
        (_one_late, "late"),
        (_one_more, "one_more"),
        (_summed, "summed"),
        (lambda logits, ids: torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:]), "shapes"),
        (lambda logits, ids: text_loss(logits[:, 3:], ids) if logits.shape[1] > 5 else logits.sum(), "plain"),
        (lambda logits, ids: torch.tensor(1.0), "general"),
    ),
    published="wrong_end",
    moral="PEFT shifts the labels for you when it computes the loss. Whoever computes one outside has to cut.",
)


def dora_weight(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """DoRA's weight: the rows of W + dW at the lengths m. W, dW (d, k), m (d,)."""
    adapted = W + dW
    return m[:, None] * adapted / adapted.norm(dim=1, keepdim=True)


def _by_old_length(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return m[:, None] * (W + dW) / W.norm(dim=1, keepdim=True)


def _by_column(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return m[:, None] * (W + dW) / (W + dW).norm(dim=0, keepdim=True)


def _by_whole(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return m[:, None] * (W + dW) / (W + dW).norm()


def _no_m(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return (W + dW) / (W + dW).norm(dim=1, keepdim=True)


def _m_along_columns(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return m * (W + dW) / (W + dW).norm(dim=1, keepdim=True)


def _by_mass(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    return m[:, None] * (W + dW) / (W + dW).abs().sum(dim=1, keepdim=True)


SQUARE = (torch.tensor([[3.0, 4.0, 0.0], [0.0, 2.0, 1.0], [1.0, 1.0, 1.0]]),
          torch.tensor([[1.0, -1.0, 0.5], [0.5, 0.0, 2.0], [-1.0, 0.25, 0.0]]), torch.tensor([2.0, 1.0, 4.0]))
WIDE = (torch.tensor([[3.0, 4.0, 0.0, 1.0], [0.0, 2.0, 1.0, 2.0]]),
        torch.tensor([[1.0, -1.0, 0.5, 0.0], [0.5, 0.0, 2.0, 1.0]]), torch.tensor([2.0, 0.5]))

DORA_WEIGHT = Exercise(
    lesson=8,
    title="Spot the bug: the old length",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
DoRA splits a weight into directions and lengths: LoRA turns the rows of W, and a vector m, trained for itself, says how
long each row is. An image generator that loads DoRA files divides, in one branch, by the lengths of the *old* rows, so
that LoRA goes on changing the lengths behind m's back ([ComfyUI#15458](https://github.com/Comfy-Org/ComfyUI/pull/15458)):

```python
import torch

def dora_weight(W, dW, m):
    return m[:, None] * (W + dW) / W.norm(dim=1, keepdim=True)
```

Mend it. Every row of the result must have exactly the length that m gives it.
""",
    solution=dora_weight,
    cases=(
        Case(SQUARE, "general", {
            "old_length": _by_old_length(*SQUARE), "column": _by_column(*SQUARE), "whole": _by_whole(*SQUARE),
            "no_m": _no_m(*SQUARE), "m_columns": _m_along_columns(*SQUARE), "mass": _by_mass(*SQUARE),
        }, tolerance=1e-6, raises="shapes"),
        Case(WIDE, "general", {"column": _by_column(*WIDE), "old_length": _by_old_length(*WIDE)}, tolerance=1e-6,
             raises="m_columns"),
    ),
    hints=(
        "Take m = 1. How long is a row of the published result if dW is not zero?",
        "The row that must be brought to length 1 is the row of W + dW, not that of W.",
        "adapted = W + dW; then m[:, None] * adapted / adapted.norm(dim=1, keepdim=True).",
    ),
    diagnoses={
        "general": "m[:, None] · (W + dW) / ‖W + dW‖, the norm taken row by row.",
        "shapes": "m has one number for each row: m[:, None] is a column that multiplies row by row.",
        "old_length": "Divided by the length of W's rows. What is scaled is W + dW: divide by *its* rows' lengths.",
        "column": "The norm runs along the wrong dimension: a row of W makes one output, so take dim=1.",
        "whole": "One norm for the whole matrix. Each row has a length of its own.",
        "no_m": "All rows have length 1 now: m is missing.",
        "m_columns": "m multiplies columns here: it must stand as a column, m[:, None], to multiply rows.",
        "mass": "That is the sum of absolute values. A length is the root of the sum of squares: `norm`.",
    },
    wrong=(
        (_by_old_length, "old_length"),
        (_by_column, "column"),
        (_by_whole, "whole"),
        (_no_m, "no_m"),
        (_m_along_columns, "m_columns"),
        (_by_mass, "mass"),
        (lambda W, dW, m: (W + dW) * m.reshape(-1, 2), "shapes"),
        (lambda W, dW, m: W + dW, "general"),
    ),
    published="old_length",
    moral="With dW = 0 the two agree, so a test of the untrained layer never finds this bug.",
)
