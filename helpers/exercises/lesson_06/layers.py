"""The branch with its dropout, and what has to be frozen around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.exercises.lesson_06.updates import draw
from helpers.lora import add_lora, lora_layers


def forward_with_dropout(x: torch.Tensor, W: torch.Tensor, A: torch.Tensor,
                         B: torch.Tensor, scaling: float, drop: Callable) -> torch.Tensor:
    """The layer's output (n, d) for rows x (n, k), with W (d, k), A (r, k), B (d, r)."""
    return x @ W.T + scaling * drop(x) @ A.T @ B.T


def every_second(t: torch.Tensor) -> torch.Tensor:
    """Dropout with p = 0.5 that always hits the same places, like the black fields of a chessboard."""
    rows, columns = t.shape
    return t * 2 * ((torch.arange(rows)[:, None] + torch.arange(columns)) % 2)


def untouched(t: torch.Tensor) -> torch.Tensor:
    """Dropout in evaluation mode."""
    return t


X, W, A, B = draw(3, 6), draw(4, 6, seed=1), draw(2, 6, seed=2), draw(4, 2, seed=3)
LONG = "x (3, 6), W (4, 6), A (2, 6), B (4, 2), scaling=2.0, "


def _is(value: torch.Tensor) -> Callable[[torch.Tensor], bool]:
    return lambda got: torch.allclose(got, value, rtol=1e-3, atol=1e-4)


def _published(x, W, A, B, scaling, drop):
    return drop(x @ W.T + scaling * x @ A.T @ B.T)


def _weights(got: torch.Tensor) -> bool:
    """Whether A, B, both, or their product have been through the dropout."""
    halves = (A_HALF.T @ B.T, A.T @ B_HALF.T, A_HALF.T @ B_HALF.T, D(B @ A).T, A.T @ D(B.T), D(A.T) @ B.T)
    return any(_is(X @ W.T + 2 * X @ half)(got) for half in halves)


def _zeroed_only(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * (x * (drop(x) != 0)) @ A.T @ B.T


D, A_HALF, B_HALF = every_second, every_second(A), every_second(B)
FORWARD_WITH_DROPOUT = Exercise(6, forward_with_dropout, "★★ Spot the bug: dropout in the wrong place · 8 min", """
A LoRA library for image models dropped values of the whole output, and so disturbed the frozen model, not just what was
being trained ([LyCORIS#26](https://github.com/KohakuBlueleaf/LyCORIS/pull/26)). For a linear layer that reads:

```python
def forward_with_dropout(x, W, A, B, scaling, drop):
    return drop(x @ W.T + scaling * x @ A.T @ B.T)
```

Put `drop` where LoRA has it, on the input of the branch. Use it as it is: `drop(t)` zeroes some values of `t` and
scales up the rest; in evaluation it returns `t`.
""",
    cases=(
        Case((X, W, A, B, 2.0, untouched), shown=LONG + "drop in evaluation"),
        Case((X, W, A, B, 2.0, every_second), shown=LONG + "drop zeroes a chessboard's black fields and doubles the rest"),
    ),
    hints=(
        "Which of the two ways must always see the true x?",
        "The frozen way computes Wx as ever. Only the branch gets drop(x).",
        "x @ W.T + scaling * drop(x) @ A.T @ B.T",
    ),
    mistakes=(
        Mistake("The whole output is dropped, the frozen model's part too. Only the branch should feel it."),
        Mistake("The branch lacks its factor `scaling`.",
                lambda x, W, A, B, scaling, drop: x @ W.T + x @ A.T @ B.T),
        Mistake("The frozen way is missing: the branch is added to Wx.",
                lambda x, W, A, B, scaling, drop: scaling * drop(x) @ A.T @ B.T),
        Mistake("`scaling` belongs to the branch alone; the frozen way has no factor.",
                lambda x, W, A, B, scaling, drop: scaling * (x @ W.T + drop(x) @ A.T @ B.T)),
        Mistake("That is the base alone. Add scaling · B(A(drop(x))).",
                lambda x, W, A, B, scaling, drop: x @ W.T),
        Mistake("Rows of x meet the transposed matrices: x @ W.T is (n, d), x @ A.T is (n, r), and so on.",
                lambda x, W, A, B, scaling, drop: x @ W.T + scaling * drop(x) @ B.T @ A.T),
        Mistake("The frozen way gets drop(x) as well: it must see x itself.",
                lambda x, W, A, B, scaling, drop: drop(x) @ W.T + scaling * drop(x) @ A.T @ B.T),
        Mistake("The wrong way round: the branch sees x, and the frozen way drop(x).",
                lambda x, W, A, B, scaling, drop: drop(x) @ W.T + scaling * x @ A.T @ B.T),
        Mistake("Weights were dropped. Dropout in LoRA zeroes values of the input x, never of A, B or BA.",
                lambda x, W, A, B, scaling, drop: x @ W.T + scaling * x @ drop(A).T @ drop(B).T,
                lambda x, W, A, B, scaling, drop: x @ W.T + scaling * x @ A.T @ drop(B).T),
        Mistake("Dropped between A and B: there are only r values there, and losing one loses a whole direction.",
                lambda x, W, A, B, scaling, drop: x @ W.T + scaling * drop(x @ A.T) @ B.T),
        Mistake("Dropped behind the branch, on its output. LoRA, and PEFT, drop the branch's input.",
                lambda x, W, A, B, scaling, drop: x @ W.T + drop(scaling * x @ A.T @ B.T)),
        Mistake("The values that are left were not scaled up: take drop(x) as it comes, not as a mask.",
                _zeroed_only),
        Mistake("drop is not used: there would be no dropout at all (torchtune#996).",
                lambda x, W, A, B, scaling, drop: x @ W.T + scaling * x @ A.T @ B.T),
    ),
    tolerance=0.001,
    moral="The branch is noisy in training, the base never is. Evaluation and the merged weight show no trace of it.")
# general: lambda x, W, A, B, scaling, drop: torch.zeros(len(x), len(W))


class Block(torch.nn.Module):
    """A small block with all that a model has: an embedding, a norm, linears with and without bias, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(9, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.q_proj = torch.nn.Linear(6, 6)
        self.o_proj = torch.nn.Linear(6, 6, bias=False)
        self.lm_head = torch.nn.Linear(6, 9, bias=False)

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.lm_head


@contextmanager
def _block() -> Iterator[tuple]:
    model = add_lora(Block(), r=2, alpha=4)
    yield (model.requires_grad_(True),)


def names_to_freeze(model: torch.nn.Module) -> list[str]:
    """Names of all parameters that are no adapter's A or B, in the model's order."""
    adapters = {f"{name}.{letter}" for name, _ in lora_layers(model) for letter in "AB"}
    return [name for name, _ in model.named_parameters() if name not in adapters]


def _linears_only(model: torch.nn.Module) -> list[str]:
    return [f"{name}.{key}" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
            for key, _ in module.named_parameters()]


EVERY = {"embedding.weight", "norm.weight", "norm.bias", "q_proj.base.weight", "q_proj.base.bias",
         "o_proj.base.weight", "lm_head.weight"}

NAMES_TO_FREEZE = Exercise(6, names_to_freeze, "★★ Spot the bug: the base that trained along · 8 min", """
A trainer froze every linear layer when it put LoRA in. Norms and embeddings went on training, took optimizer memory,
drifted, and were not in the file that was saved ([torchtitan#3438](https://github.com/pytorch/torchtitan/issues/3438)):

```python
import torch

def names_to_freeze(model):
    return [f"{name}.{key}" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
            for key, _ in module.named_parameters()]
```

Return the names of *all* parameters to freeze, in the order of `model.named_parameters()`. `lora_layers(model)` gives
name and module of every `LoRALinear`; its adapter is `A` and `B`, and its `base` holds the frozen layer.
""",
    cases=(
        Case(_block, shown="an embedding, a norm, q_proj and o_proj with LoRA, and a head"),
    ),
    hints=(
        "Begin at the other end: which parameters may train? All others are frozen.",
        "An adapter's names are those of its layer with `.A` and `.B` behind.",
        "Collect these names in a set, then list the names of `model.named_parameters()` that are not in it.",
    ),
    mistakes=(
        Mistake("Norms and embeddings have weights too, and go on training. Start from all parameters."),
        Mistake("Only the layers with an adapter are frozen; embedding, norm and head go on training.",
                lambda model: [n for n, _ in model.named_parameters() if ".base." in n]),
        Mistake("Biases are parameters too: q_proj's and the norm's still train.",
                lambda model: [n for n, _ in model.named_parameters() if n.endswith("weight")]),
        Mistake("The head has no adapter, but belongs to the base: it is frozen like the rest.",
                lambda model: [n for n in names_to_freeze(model) if "lm_head" not in n]),
        Mistake("A and B are frozen too. Nothing would be left to train.",
                lambda model: [n for n, _ in model.named_parameters()],
                lambda model: [n for n, _ in model.named_parameters() if "lora" not in n]),
        Mistake("Those are the names to train. Asked for are all the others.",
                lambda model: [n for n, _ in model.named_parameters() if n[-1] in "AB"]),
        Mistake("Nothing at all is frozen: that is full fine-tuning with adapters on top.",
                lambda model: [n for n, p in model.named_parameters() if not p.requires_grad]),
        Mistake("The right names in another order: go through `model.named_parameters()`.",
                lambda model: sorted(names_to_freeze(model))),
    ),
    tolerance=0.0,
    moral="`model.requires_grad_(False)` first, the adapters after: then nothing can be forgotten.")
# general: lambda model: ["embedding.weight"]
