"""The relatives: logits of a learnt prompt, lengths of DoRA."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def text_loss(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean loss of ids[:, 1:]: logits (rows, virtual + n, vocabulary), ids (rows, n)."""
    logits = logits[:, logits.shape[1] - ids.shape[1]:]
    return torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:])


def _scored(rng: random.Random, rows: int, virtual: int, n: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * normal(rng, rows, virtual + n, vocabulary), integers(rng, 0, vocabulary - 1, rows, n)


TEXT_LOSS = Exercise(8, text_loss, "★★ Spot the bug: sixteen logits too many · 6 min", """
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
    cases=(_scored(random.Random(1), 1, 2, 2, 3),
           Case(_scored(random.Random(2), 1, 2, 4, 2), about="more than one token to predict"),
           Case((2 * normal(random.Random(2), 1, 6, 2), torch.tensor([[1, 0, 1, 0]])), about="token 0 to be predicted"),
           Case(_scored(random.Random(3), 2, 1, 3, 3), about="two rows of text"),
           Case(_scored(random.Random(4), 1, 0, 4, 3), about="no virtual tokens"),
           Case(_scored(random.Random(5), 1, 4, 2, 2), about="more virtual tokens than text")),
    hints=("The virtual tokens stand *before* the text. Which end of the logits belongs to them?",
           "Keep the last n rows: `logits[:, logits.shape[1] - n:]`. The last of them predicts what nobody wrote.",
           "After that: `logits[:, :-1].transpose(1, 2)`, the vocabulary in dimension 1, against `ids[:, 1:]`."),
    mistakes=(
        Mistake("The first logits were kept: those belong to the virtual tokens. The text's are the last n."),
        Mistake("As many logits as there are virtual tokens were cut off at the end. They stand at the front.",
                ("logits.shape[1] - ids.shape[1]:", ":ids.shape[1] - logits.shape[1]")),
        Mistake("Each position was compared with its own token. A language model predicts the next one.",
                ("logits[:, :-1]", "logits", "ids[:, 1:]", "ids")),
        Mistake("One position too late: the logits at i predict token i + 1, so the last of all have no label.",
                ("logits[:, :-1]", "logits[:, 1:]")),
        Mistake("Each position was compared with the token *before* it.", (":-1]", "1:]", "ids[:, 1:]", "ids[:, :-1]")),
        Mistake("The last virtual token predicts ids[:, 0], which is `<s>` and given. Begin with ids[:, 1:].",
                ("- ids.shape[1]:", "- ids.shape[1] - 1:", "ids[:, 1:]", "ids")),
        Mistake("Sixteen virtual tokens are written into the code: there may be any number of them.",
                ("logits.shape[1] - ids.shape[1]:", "16:")),
        Mistake("That is the sum over all predicted tokens; the mean is asked for.", ("1:])", '1:], reduction="sum")')),
        Mistake("`cross_entropy` takes the logits themselves, not probabilities.", (":-1].t", ":-1].softmax(2).t")),
        Mistake("`reshape` keeps the order of the numbers and mixes tokens up; `transpose` exchanges dimensions.",
                (".transpose(1, 2)", ".reshape(len(ids), -1, ids.shape[1] - 1)")),
    ),
    draw=lambda rng: _scored(rng, rng.randint(1, 3), rng.randint(0, 4), rng.randint(2, 5), rng.randint(2, 6)),
    tolerance=1e-5,
    moral="PEFT shifts the labels for you when it computes the loss. Whoever computes one outside has to cut.")


def dora_weight(W: torch.Tensor, dW: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
    """DoRA's weight: the rows of W + dW at the lengths m. W, dW (d, k), m (d,)."""
    adapted = W + dW
    return m[:, None] * adapted / adapted.norm(dim=1, keepdim=True)


NORM = "adapted.norm(dim=1, keepdim=True)"
W, DW = torch.tensor([[3.0, 4.0, 0.0], [0.0, 2.0, 1.0]]), torch.tensor([[1.0, -1.0, 0.5], [0.5, 0.0, 2.0]])
EVEN, M = torch.tensor([[3.0, 4.0], [-4.0, 3.0]]), torch.tensor([2.0, 3.0])

DORA_WEIGHT = Exercise(8, dora_weight, "★★ Spot the bug: the old length · 6 min", """
An image generator that loads DoRA files divides, in one branch, by the lengths of the *old* rows, those of W. So LoRA
goes on changing the lengths behind m's back ([ComfyUI#15458](https://github.com/Comfy-Org/ComfyUI/pull/15458)):

```python
import torch

def dora_weight(W, dW, m):
    return m[:, None] * (W + dW) / W.norm(dim=1, keepdim=True)
```

Mend it. Every row of the result must have exactly the length that m gives it.
""",
    cases=(Case((EVEN, 0 * EVEN, M), about="dW zero, as training starts"),
           Case((W[:, :2], 0 * EVEN, M), about="rows of different lengths"),
           Case((EVEN / 10, 0 * EVEN, M), about="rows shorter than 1"),
           Case((W[:, :2], W[:, :2], M), about="a dW that makes W longer and leaves its direction"),
           Case((W[:, :2], DW[:, :2], M), about="a dW that turns W"),
           Case((W, DW, M), about="a matrix that is wider than tall"),
           Case((W.T.contiguous(), DW.T.contiguous(), torch.arange(1.0, 4)), about="a matrix that is taller than wide"),
           Case((W, DW, 0 * M), about="lengths of 0")),
    hints=("Take m = 1. How long is a row of the published result if dW is not zero?",
           "The row that must be brought to length 1 is the row of W + dW, not that of W.",
           "adapted = W + dW; then m[:, None] * adapted / adapted.norm(dim=1, keepdim=True)."),
    mistakes=(
        Mistake("Divided by the length of W's rows. What is scaled is W + dW: divide by *its* rows' lengths."),
        Mistake("Divided by the length of dW's rows, not of those of W + dW.", (NORM, "dW.norm(dim=1, keepdim=True)")),
        Mistake("The norm runs down the columns. A row has its length along dim=1.", ("dim=1", "dim=0")),
        Mistake("One norm for the whole matrix: each row has a length of its own.", (NORM, "adapted.norm()")),
        Mistake("Without `keepdim=True` the norms divide columns, not rows.", (", keepdim=True", "")),
        Mistake("All rows have length 1 now: m is missing.", ("m[:, None] * ", "")),
        Mistake("m multiplies columns here; as a column, m[:, None], rows.", ("m[:, None]", "m")),
        Mistake("m is the length itself, no factor on the old one: W's length came in again.",
                ("m[:, None]", "m[:, None] * W.norm(dim=1, keepdim=True)")),
        Mistake("The rows were multiplied by m without having length 1 before.", (f" / {NORM}", "")),
        Mistake("That is the sum of absolute values. A length is the root of the sum of squares: `norm`.",
                (".norm(dim=1, keepdim=True)", ".abs().sum(dim=1, keepdim=True)")),
        Mistake("The lengths of W and dW were put together. How long their sum is depends on the angle between them.",
                (NORM, "(W.square() + dW.square()).sum(dim=1, keepdim=True).sqrt()"),
                (NORM, "(W.norm(dim=1, keepdim=True) + dW.norm(dim=1, keepdim=True))")),
        Mistake("Divided by the squared length: the root is missing.", (NORM, f"{NORM} ** 2")),
        Mistake("Only dW is brought to length m. The row that counts is that of W + dW.", ("= W + dW", "= dW")),
    ),
    draw=lambda rng: (*normal(rng, 2, d := rng.randint(1, 5), rng.randint(2, 5)), normal(rng, d).abs()), tolerance=1e-5,
    moral="With dW = 0 the two agree, so a test of the untrained layer never finds this bug.")
