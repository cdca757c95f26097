"""The relatives: logits of a learnt prompt, lengths of DoRA, a batch in which every row has its own adapter."""

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


def answer_each(x: torch.Tensor, W: torch.Tensor, adapters: dict[str, tuple],
                names: list[str]) -> torch.Tensor:
    """h (n, d) of x (n, k): row i by adapters[names[i]] = (A, B, scaling). W (d, k)."""
    h = x @ W.T
    for name, (A, B, scaling) in adapters.items():
        rows = torch.tensor([wanted == name for wanted in names])
        h[rows] += scaling * x[rows] @ A.T @ B.T
    return h


def _everybody(x, W, adapters, names):
    return x @ W.T + sum(scaling * x @ A.T @ B.T for A, B, scaling in adapters.values())


def _first(x, W, adapters, names):
    A, B, scaling = adapters[names[0]]
    return x @ W.T + scaling * x @ A.T @ B.T


def _unscaled(x, W, adapters, names):
    return answer_each(x, W, {name: (A, B, 1.0) for name, (A, B, _) in adapters.items()}, names)


def _in_order(x, W, adapters, names):
    return answer_each(x, W, adapters, list(adapters) * 2)


def _no_base(x, W, adapters, names):
    return answer_each(x, torch.zeros_like(W), adapters, names)


def _swapped(x, W, adapters, names):
    return torch.stack([row @ W.T + adapters[name][2] * row @ adapters[name][1].T @ adapters[name][0].T
                        for row, name in zip(x, names, strict=True)])


def _loses_the_bare(x, W, adapters, names):
    return torch.stack([row @ W.T + adapters[name][2] * row @ adapters[name][0].T @ adapters[name][1].T
                        if name else 0 * row[0] * W[:, 0] for row, name in zip(x, names, strict=True)])


def _no_name(x, W, adapters, names):
    return torch.stack([row @ W.T + adapters[name][2] * row @ adapters[name][0].T @ adapters[name][1].T
                        for row, name in zip(x, names, strict=True)])


TWO = {"whole": (torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1.0], [-1.0]]), 2.0),
       "brief": (torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([[0.5], [2.0]]), 0.5)}
W_TWO = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0]])
ROWS = torch.tensor([[1.0, 0.0, 1.0], [2.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 1.0, 1.0]])
CALLED = ["brief", "whole", "whole", "brief"]

ANSWER_EACH = Exercise(
    lesson=8,
    title="One batch, many adapters",
    stars=3,
    minutes=12,
    imports="import torch",
    prompt="""
A server keeps one base model and the adapters of many customers, and answers them in *one* batch: the heavy product
x·Wᵀ is taken once for all rows, and each row gets the branch of its own customer. Write that layer. The name `""`
stands for a row that wants the base alone.
""",
    solution=answer_each,
    cases=(
        Case((ROWS, W_TWO, TWO, CALLED), "general", {
            "everybody": _everybody(ROWS, W_TWO, TWO, CALLED), "first": _first(ROWS, W_TWO, TWO, CALLED),
            "unscaled": _unscaled(ROWS, W_TWO, TWO, CALLED), "order": _in_order(ROWS, W_TWO, TWO, CALLED),
            "no_base": _no_base(ROWS, W_TWO, TWO, CALLED),
        }, "four rows for brief, whole, whole, brief", 1e-6, "shapes"),
        Case((ROWS[:3], W_TWO, TWO, ["whole", "", "brief"]), "bare", {}, "three rows for whole, nobody, brief", 1e-6,
             "bare"),
        Case((ROWS[:2], W_TWO, TWO, ["brief", "brief"]), "general", {}, "two rows, both for brief", 1e-6, "unused"),
    ),
    hints=(
        "Begin with h = x @ W.T for all rows. Then go through the adapters and pick the rows that want each.",
        "`rows = torch.tensor([wanted == name for wanted in names])` is a mask; `h[rows] += ...` writes there only.",
        "What is added: scaling * x[rows] @ A.T @ B.T. Rows with the name \"\" are in no mask, and stay as they are.",
    ),
    diagnoses={
        "general": "Row i is x·Wᵀ plus scaling·x·Aᵀ·Bᵀ of the adapter names[i], and of no other.",
        "shapes": "Do the shapes fit? A is (r, k) and comes first: x @ A.T @ B.T.",
        "everybody": "Every row got every adapter. Row i wants names[i] only.",
        "first": "All rows got the adapter of the first. Look at names row by row.",
        "unscaled": "The scaling is missing: each adapter has its own α/r.",
        "order": "The adapters were handed out in the dictionary's order. `names` says which row wants which.",
        "no_base": "The base is missing: each row is x·Wᵀ plus its branch.",
        "bare": "The name \"\" stands for no adapter: that row is x·Wᵀ, nothing more.",
        "unused": "An adapter that nobody asks for must do no harm.",
    },
    wrong=(
        (_everybody, "everybody"),
        (_first, "first"),
        (_unscaled, "unscaled"),
        (_in_order, "order"),
        (_no_base, "no_base"),
        (_swapped, "shapes"),
        (_loses_the_bare, "bare"),
        (_no_name, "bare"),
        (lambda x, W, adapters, names: answer_each(x, W, adapters, names) + 0 * W[names.index("whole"), 0]
         if "" not in names else answer_each(x, W, adapters, names), "unused"),
        (lambda x, W, adapters, names: torch.zeros(len(x), len(W)), "general"),
    ),
    moral="PEFT does it by `model(..., adapter_names=[...])`. A merged adapter could not: it is in everybody's W.",
)
