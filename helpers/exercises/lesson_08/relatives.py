"""The relatives: logits of a learnt prompt, lengths of DoRA."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


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

TEXT_LOSS = Exercise(8, text_loss, "★★ Spot the bug: sixteen logits too many · 8 min", """
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
    cases=(
        Case((LOGITS, IDS), shown="three virtual tokens, two rows of five"),
        Case((LOGITS[:, 3:], IDS), shown="no virtual tokens, two rows of five"),
        Case((LOGITS[:1], IDS[:1, :2]), shown="six virtual tokens, a row of two"),
    ),
    hints=(
        "The virtual tokens stand *before* the text. Which end of the logits belongs to them?",
        "Keep the last n rows: `logits[:, logits.shape[1] - n:]`. The last of them predicts what nobody wrote.",
        "After that: `logits[:, :-1]` against `ids[:, 1:]`, the vocabulary moved to dimension 1 by `transpose(1, 2)`.",
    ),
    mistakes=(
        Mistake("The first rows were kept: those belong to the virtual tokens. The text's logits are the last n."),
        Mistake("Logits and labels must have one length: n - 1 after cutting the virtual tokens and shifting by one.",
                lambda logits, ids: torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:])),
        Mistake("Each position was compared with its own token. A language model predicts the next one.",
                _unshifted),
        Mistake("One position too late: the logits at i predict token i + 1, so the last row of all has no label.",
                _one_late),
        Mistake("The last virtual token predicts ids[:, 0], which is `<s>` and given. Begin with ids[:, 1:].",
                _one_more),
        Mistake("That is the sum over all predicted tokens; the mean is asked for.",
                _summed),
        Mistake("Without virtual tokens nothing is to be cut: compute how many there are from the two shapes.",
                lambda logits, ids: text_loss(logits[:, 3:], ids) if logits.shape[1] > 5 else logits.sum()),
    ),
    tolerance=1e-05,
    moral="PEFT shifts the labels for you when it computes the loss. Whoever computes one outside has to cut.")
# general: lambda logits, ids: torch.tensor(1.0)


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

DORA_WEIGHT = Exercise(8, dora_weight, "★★ Spot the bug: the old length · 8 min", """
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
    cases=(
        Case(SQUARE),
        Case(WIDE),
    ),
    hints=(
        "Take m = 1. How long is a row of the published result if dW is not zero?",
        "The row that must be brought to length 1 is the row of W + dW, not that of W.",
        "adapted = W + dW; then m[:, None] * adapted / adapted.norm(dim=1, keepdim=True).",
    ),
    mistakes=(
        Mistake("Divided by the length of W's rows. What is scaled is W + dW: divide by *its* rows' lengths."),
        Mistake("m has one number for each row: m[:, None] is a column that multiplies row by row.",
                lambda W, dW, m: (W + dW) * m.reshape(-1, 2)),
        Mistake("The norm runs along the wrong dimension: a row of W makes one output, so take dim=1.",
                _by_column),
        Mistake("One norm for the whole matrix. Each row has a length of its own.",
                _by_whole),
        Mistake("All rows have length 1 now: m is missing.",
                _no_m),
        Mistake("m multiplies columns here: it must stand as a column, m[:, None], to multiply rows.",
                _m_along_columns),
        Mistake("That is the sum of absolute values. A length is the root of the sum of squares: `norm`.",
                _by_mass),
    ),
    tolerance=1e-06,
    moral="With dW = 0 the two agree, so a test of the untrained layer never finds this bug.")
# general: lambda W, dW, m: W + dW
