"""Gradients beside and through frozen weights: by hand, and under gradient checkpointing."""

from __future__ import annotations

import warnings

import torch
from torch.utils.checkpoint import checkpoint

from helpers.exercises.engine import Case, Exercise, Mistake


class Counted(torch.nn.Module):
    """A frozen square weight and a trained vector b beside it, y = tanh(Wx) + b·x; `runs` counts its forward passes."""

    def __init__(self, seed: int, width: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("W", torch.randn(width, width, generator=generator) / 2)
        self.b = torch.nn.Parameter(torch.zeros(width))
        self.runs = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        return torch.tanh(x @ self.W.T) + self.b * x


def train_step(layers: list[torch.nn.Module],
               x: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """The gradient of every layer's b for the loss y.sum(), and how often it ran."""
    y = x
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=False)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


def _step(run, before=None, last=None):
    """A wrong answer that runs each layer by `run(layer, y)`, the last one by `last` where it is given."""
    def answer(layers, x):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says here what is wrong
            y = x if before is None else before(x)
            for n, layer in enumerate(layers):
                y = (last or run)(layer, y) if n == len(layers) - 1 else run(layer, y)
            y.sum().backward()
        return [(layer.b.grad, layer.runs) for layer in layers]
    return answer


def _reentrant(layer, y):
    return checkpoint(layer, y, use_reentrant=True)


def _without_graph(layer, y):
    with torch.no_grad():
        y = layer(y)
    return y.requires_grad_()


def _twice(layers, x):
    for layer in layers:
        x = layer(x)
    x.sum().backward()
    return [(layer.b.grad, 2) for layer in layers][::-1]


THREE = ([Counted(1), Counted(2), Counted(3)], torch.tensor([[1.0, 2.0, -1.0, 0.5]]))

TRAIN_STEP = Exercise(9, train_step, "★★ Spot the bug: the adapters that never learn · 10 min", """
"It seems that all gradients will be None", wrote somebody who switched checkpointing on for a LoRA
([LoRA#120](https://github.com/microsoft/LoRA/issues/120); the same in
[peft#1142](https://github.com/huggingface/peft/issues/1142) and
[transformers#26221](https://github.com/huggingface/transformers/issues/26221), where a default came back unasked). In
each of these layers a small `b` is trained; all else is frozen, and `x` comes from a frozen embedding:

```python
import torch
from torch.utils.checkpoint import checkpoint

def train_step(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=True)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]
```

Make the gradients arrive, with checkpointing still on: every layer must run twice, as `layer.runs` counts.
""",
    cases=(
        Case(THREE, shown="three layers, x without a gradient"),
    ),
    hints=(
        "torch warns: None of the inputs have requires_grad=True. Whose output depends on whether its input asks?",
        "The reentrant variant is an autograd function of its inputs only; it does not see the weights inside.",
        "`checkpoint(layer, y, use_reentrant=False)`. (`x.requires_grad_()` helps too; PEFT's name for that is "
        "`enable_input_require_grads`.)",
    ),
    mistakes=(
        Mistake("The reentrant variant gives an output without gradient when no *input* has one: the frozen "
                "embedding's has none. Say `use_reentrant=False`."),
        Mistake("The gradients are right, but every layer ran once: nothing was checkpointed.",
                _step(lambda layer, y: layer(y)),
                _step(lambda layer, y: layer(y), before=lambda x: x.clone().requires_grad_())),
        Mistake("Only the last layer has a gradient: the chain is cut between the layers.",
                _step(_without_graph, last=lambda layer, y: checkpoint(layer, y, use_reentrant=False)),
                _step(lambda layer, y: checkpoint(layer, y.detach(), use_reentrant=False))),
        Mistake("One layer ran once: checkpoint all of them.",
                _step(lambda layer, y: checkpoint(layer, y, use_reentrant=False), last=lambda layer, y: layer(y))),
        Mistake("Right numbers in the wrong order, or counts that were not read from `layer.runs`.",
                _twice),
    ),
    tolerance=1e-06,
    moral="It is silent when anything else in the model gets a gradient. Look at `B.grad` after the first step.")
# general: lambda layers, x: [(torch.zeros(4), 2) for _ in layers]


def qlora_gradients(g: torch.Tensor, x: torch.Tensor, W: torch.Tensor,
                    A: torch.Tensor, B: torch.Tensor, scaling: float,
                    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, A and B from g, the gradient of y = x·Wᵀ + scaling·x·Aᵀ·Bᵀ."""
    gB = scaling * g @ B
    return g @ W + gB @ A, gB.T @ x, scaling * g.T @ (x @ A.T)


def _matrices(n: int, k: int, d: int, r: int, seed: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    g, x, W, A, B = (torch.randint(-3, 4, shape, generator=generator).float()
                     for shape in ((n, d), (n, k), (d, k), (r, k), (d, r)))
    return g, x, W, A, B


SAME_SIDES = (*_matrices(3, 3, 3, 3, 1), 2.0)
G, X, FROZEN_W, A_, B_, S = SAME_SIDES
DX, DA, DB = qlora_gradients(*SAME_SIDES)


def _first(value: torch.Tensor):
    return lambda got: torch.equal(got[0], value)


QLORA_GRADIENTS = Exercise(9, qlora_gradients, "★★★ The backward pass by hand · 15 min", """
Write what autograd does for a whole QLoRA layer y = x·Wᵀ + s·x·Aᵀ·Bᵀ. Given `g`, the gradient of y, return the
gradients of `x`, `A` and `B`, in this order; W is frozen and has none. `x` is (n, k), `W` (d, k), `A` (r, k), `B` (d,
r), `g` (n, d), `scaling` is s = α/r. A gradient has the shape of its tensor: that alone decides most of it.
""",
    cases=(
        Case(SAME_SIDES, shown="3 x 3 matrices of small integers, scaling=2.0"),
        Case((*_matrices(5, 4, 6, 2, 2), 0.5), shown="n=5, k=4, d=6, r=2, scaling=0.5"),
    ),
    hints=(
        "y is a sum of two ways. x takes both, so its gradient has two parts.",
        "For y = x·Wᵀ the gradient of x is g·W. The branch is two such products in a row: first B, then A.",
        "`gB = scaling * g @ B` (n, r) is the gradient of x·Aᵀ. Then x: `g @ W + gB @ A`; A: `gB.T @ x`; "
        "B: `scaling * g.T @ (x @ A.T)`.",
    ),
    mistakes=(
        Mistake("The gradient of x comes through W only; it also flows through the branch, s·g·B·A.",
                lambda g, x, W, A, B, scaling: (g @ W, *qlora_gradients(g, x, W, A, B, scaling)[1:])),
        Mistake("The gradient of x comes through the branch only. It passes the frozen W too: + g·W.",
                lambda g, x, W, A, B, scaling: (scaling * g @ B @ A, *qlora_gradients(g, x, W, A, B, scaling)[1:])),
        Mistake("W is transposed: forward multiplies by Wᵀ, backward by W.",
                lambda g, x, W, A, B, scaling: (g @ W.T + scaling * g @ B @ A,
                *qlora_gradients(g, x, W, A, B, scaling)[1:])),
        Mistake("The scaling is missing in the gradient of x: the branch counts s times.",
                lambda g, x, W, A, B, scaling: qlora_gradients(g, x, W, A, B, 1.0)),
        Mistake("The scaling belongs to the branch only; the base path g·W has none.",
                lambda g, x, W, A, B, scaling: (scaling * (g @ W + g @ B @ A),
                *qlora_gradients(g, x, W, A, B, scaling)[1:])),
        Mistake("The gradient of x is right, but that of A lacks the scaling, and perhaps that of B.",
                lambda g, x, W, A, B, scaling: (qlora_gradients(g, x, W, A, B, scaling)[0],
                *qlora_gradients(g, x, W, A, B, 1.0)[1:])),
        Mistake("The gradient of B lacks the scaling.",
                lambda g, x, W, A, B, scaling: (*qlora_gradients(g, x, W, A, B, scaling)[:2], g.T @ (x @ A.T))),
        Mistake("The order is x, A, B.",
                lambda g, x, W, A, B, scaling: tuple(qlora_gradients(g, x, W, A, B, scaling)[i] for i in (0, 2, 1))),
        Mistake("The gradient of A or of B is transposed: it has the shape of A (r, k), of B (d, r).",
                lambda g, x, W, A, B, scaling: (qlora_gradients(g, x, W, A, B, scaling)[0], x.T @ (scaling * g @ B),
                scaling * g.T @ (x @ A.T))),
        Mistake("B sees x·Aᵀ, not x: its gradient is s·gᵀ·(x·Aᵀ).",
                lambda g, x, W, A, B, scaling: (*qlora_gradients(g, x, W, A, B, scaling)[:2], scaling * g.T @ x)),
        Mistake("The shapes do not match: x is (n, k), W (d, k), A (r, k), B (d, r), g (n, d).",
                lambda g, x, W, A, B, scaling: qlora_gradients(g, x, W, A, B, scaling) if len(W) == len(x)
                else (g @ W.T, B, A)),
    ),
    tolerance=0.0,
    moral="Five thin products beside one with W, which is the only one that meets the dequantized weight.")
# general: lambda g, x, W, A, B, scaling: (torch.zeros_like(x), torch.zeros_like(A), torch.zeros_like(B))
