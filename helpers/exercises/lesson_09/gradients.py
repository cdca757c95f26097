"""Gradients beside and through frozen weights: by hand, and under gradient checkpointing."""

from __future__ import annotations

import random

import torch
from torch.utils.checkpoint import checkpoint

from helpers.exercises.compare import equal
from helpers.exercises.draws import integers, normal
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


def _layers(*seeds: int) -> list[Counted]:
    return [Counted(seed) for seed in seeds]


X = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.0, -0.5, 1.5, 1.0]])
RUN, BACK = "checkpoint(layer, y, use_reentrant=False)", "y.sum().backward()"

TRAIN_STEP = Exercise(9, train_step, "★★ Spot the bug: the adapters that never learn · 6 min", """
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
    cases=((_layers(1, 2), X),),
    hints=("torch warns: None of the inputs have requires_grad=True. Whose output depends on whether its input asks?",
           "The reentrant variant is an autograd function of its inputs only; it does not see the weights inside.",
           "`checkpoint(layer, y, use_reentrant=False)`. (`x.requires_grad_()` helps too; PEFT's name for that is "
           "`enable_input_require_grads`.)"),
    mistakes=(
        Mistake("The output has no gradient. The reentrant variant gives one only if an *input* has one; x has none."),
        Mistake("The gradients are right, but each count is 1: nothing was checkpointed, or it was counted before the "
                "backward pass.", (RUN, "layer(y)"), (RUN, "layer(y)", "y = x\n", "y = x.clone().requires_grad_()\n"),
                ("layer.runs", "1")),
        Mistake("No gradient arrived: the backward pass is missing, or does not reach the layers.",
                (BACK, "")),
        Mistake("Only the last layer has a gradient: the chain is cut between the layers.",
                ("checkpoint(layer, y,", "checkpoint(layer, y.detach(),")),
        Mistake("At the second run the last layer ran in place of the others: a `lambda` or inner function looks up "
                "`layer` when it is called, and the loop is over by then.",
                (RUN, "checkpoint(lambda t: layer(t), y, use_reentrant=False)")),
        Mistake("Every layer got x, not what the one before gave.", ("checkpoint(layer, y,", "checkpoint(layer, x,")),
        Mistake("One layer ran once: checkpoint all of them.",
                (RUN, f"{RUN} if layer is layers[0] else layer(y)"),
                (RUN, f"layer(y) if layer is layers[0] else {RUN}")),
        Mistake("The loss is the sum of y, not its mean.", ("y.sum()", "y.mean()")),
        Mistake("The first layer's gradient and count come first.", ("in layers]", "in layers[::-1]]")),
    ),
    draw=lambda rng: (_layers(*rng.sample(range(99), rng.randint(2, 3))), normal(rng, 2, 4)), tolerance=1e-5,
    moral="It is silent when anything else in the model gets a gradient. Look at `B.grad` after the first step.")


class Frozen(torch.nn.Module):
    """A weight in codes: `dequantize()` makes its W (d, k) anew each time, and `made` counts how often."""

    def __init__(self, W: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("codes", 2 * W)
        self.made = 0

    def dequantize(self) -> torch.Tensor:
        self.made += 1
        return self.codes / 2


def frozen_product(x: torch.Tensor, weight: torch.nn.Module, g: torch.Tensor,
                   ) -> tuple[torch.Tensor, torch.Tensor, int]:
    """y = x·Wᵀ (n, d), the gradient of x (n, k) for g (n, d), and weight.made."""
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.weight = weight
            return x @ weight.dequantize().T

        @staticmethod
        def backward(ctx, gradient):
            return gradient @ ctx.weight.dequantize(), None

    x = x.detach().requires_grad_()
    y = Product.apply(x, weight)
    gradient, = torch.autograd.grad(y, x, g)
    return y, gradient, weight.made


def _frozen(rng: random.Random, n: int, d: int, k: int) -> tuple[torch.Tensor, Frozen, torch.Tensor]:
    return (integers(rng, -3, 3, n, k).float(), Frozen(integers(rng, -3, 3, d, k).float()),
            integers(rng, -3, 3, n, d).float())


ROW = torch.tensor([[1.0, 2.0]])
MADE = "ctx.weight.dequantize()"
KEPT = ("ctx.weight = weight", "ctx.W = weight.dequantize()", "weight.dequantize().T", "ctx.W.T", MADE, "ctx.W")

FROZEN_PRODUCT = Exercise(9, frozen_product, "★★ Build: the frozen product · 6 min", """
`weight.dequantize()` makes W (d, k) from its codes, and `weight.made` counts how often. Write an autograd function for
y = x·Wᵀ that hands the gradient on and keeps no W between its two halves. Use it inside `frozen_product`, and return
three things: y as the function gave it, the gradient of `x` (n, k) when the gradient of y is `g` (n, d), and
`weight.made`. The form, without its two lines:

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):        # returns y; what backward needs is hung on ctx
        @staticmethod
        def backward(ctx, gradient):        # returns one gradient for each input of forward

It is called by `Product.apply(x, weight)`; an input that has no gradient gets `None`. `x` comes without
`requires_grad`: take `x.detach().requires_grad_()`, then `torch.autograd.grad(y, x, g)` gives a tuple of one.
""",
    cases=(Case((ROW, Frozen(torch.tensor([[1.0, 3.0], [3.0, -2.0]])), ROW / 2),
                about="a single row, and a W that is its own transpose"),
           Case((ROW, Frozen(torch.tensor([[1.0, 3.0], [-1.0, -2.0]])), ROW / 2),
                about="a W that is not its own transpose"),
           Case(_frozen(random.Random(1), 3, 2, 2), about="several rows"),
           Case(_frozen(random.Random(2), 2, 4, 3), about="another number of outputs than of inputs")),
    hints=("Forward: y = x·Wᵀ. Backward: the gradient of x is g·W. Both need W, and it must not wait in between.",
           "`ctx.weight = weight` keeps the codes, which are there anyway; backward calls `ctx.weight.dequantize()`.",
           "forward: `return x @ weight.dequantize().T`; backward: `return gradient @ ctx.weight.dequantize(), None`."),
    mistakes=(
        Mistake("The count is 1. Either W waited in memory from forward to backward (keep the codes, and make it "
                "again), or you counted before the backward pass.", KEPT,
                ("Product.apply(x, weight)", "x @ weight.dequantize().T"),
                ("    gradient, = torch", "    made = weight.made\n    gradient, = torch", "gradient, weight.made",
                 "gradient, made")),
        Mistake("W is transposed: forward multiplies by Wᵀ, backward by W.",
                (f"gradient @ {MADE}", f"gradient @ {MADE}.T")),
        Mistake("Forward multiplies by Wᵀ: `x @ W.T`.", ("@ weight.dequantize().T", "@ weight.dequantize()")),
        Mistake("Backward handed the gradient on as it came, without W.",
                (f"return gradient @ {MADE}, None", f"{MADE}\n            return gradient, None"),
                (f"return gradient @ {MADE}, None", "return gradient, None")),
        Mistake("The gradient of y was taken to be 1 everywhere: it is `g`, and reaches backward as its argument.",
                (f"gradient @ {MADE}", f"torch.ones_like(gradient) @ {MADE}"), ("(y, x, g)", "(y.sum(), x)")),
        Mistake("W was made once more than it has to be: once forward, once backward.",
                ("ctx.weight = weight", "ctx.shape = weight.dequantize().shape; ctx.weight = weight")),
        Mistake("`backward` gives one gradient for each input of `forward`: that of x, and None for the codes.",
                (f"{MADE}, None", MADE)),
        Mistake("`torch.autograd.grad` gives a tuple, here of one: take the tensor out.",
                ("gradient, = torch", "gradient = torch")),
        Mistake("y came without its autograd function: return it as `apply` gave it, not detached and not by hand.",
                sign=lambda got: got[0].grad_fn is None),
    ),
    draw=lambda rng: _frozen(rng, *(rng.randint(1, 4) for _ in "ndk")), tolerance=1e-5,
    close=lambda got, expected: got[0].grad_fn is not None and equal(got, expected, 1e-5),
    moral="Nothing of W waits for the backward pass: the price of 4-bit training is that it is made twice.")


def qlora_gradients(g: torch.Tensor, x: torch.Tensor, W: torch.Tensor,
                    A: torch.Tensor, B: torch.Tensor, scaling: float,
                    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of x, A and B from g, the gradient of y = x·Wᵀ + scaling·x·Aᵀ·Bᵀ."""
    gB = scaling * g @ B
    return g @ W + gB @ A, gB.T @ x, scaling * g.T @ (x @ A.T)


def _layer(rng: random.Random, n: int, k: int, d: int, r: int, scaling: float) -> tuple:
    g, x, W, A, B = (integers(rng, -3, 3, *shape).float() for shape in ((n, d), (n, k), (d, k), (r, k), (d, r)))
    return g, x, W, A, B, scaling


SQUARE = _layer(random.Random(7), 2, 2, 2, 2, 1.0)
BY_X, BY_A, BY_B = "g @ W + gB @ A", "gB.T @ x", "scaling * g.T @ (x @ A.T)"

QLORA_GRADIENTS = Exercise(9, qlora_gradients, "★★★ The backward pass by hand · 10 min", """
Write what autograd does for a whole QLoRA layer y = x·Wᵀ + s·x·Aᵀ·Bᵀ. Given `g`, the gradient of y, return the
gradients of `x`, `A` and `B`, in this order; W is frozen and has none. `x` is (n, k), `W` (d, k), `A` (r, k), `B` (d,
r), `g` (n, d), `scaling` is s = α/r. A gradient has the shape of its tensor: that alone decides most of it.
""",
    cases=(Case((*SQUARE[:4], 0 * SQUARE[4], 1.0), about="B zero, as training starts"),
           Case(SQUARE, about="a B that is not zero"),
           Case(_layer(random.Random(2), 2, 2, 2, 2, 0.5), about="a scaling that is not 1"),
           Case(_layer(random.Random(3), 3, 4, 2, 1, 0.5), about="matrices that are not square"),
           Case(_layer(random.Random(4), 1, 2, 4, 3, 2.0), about="a single row"),
           Case((*(1.01 * t for t in SQUARE[:5]), 1.0), about="numbers that sixteen bits do not hold")),
    hints=("y is a sum of two ways. x takes both, so its gradient has two parts.",
           "For y = x·Wᵀ the gradient of x is g·W. The branch is two such products in a row: first B, then A.",
           "`gB = scaling * g @ B` (n, r) is the gradient of x·Aᵀ. Then x: `g @ W + gB @ A`; A: `gB.T @ x`; "
           "B: `scaling * g.T @ (x @ A.T)`."),
    mistakes=(
        Mistake("The gradient of x comes through W only; it also flows through the branch, s·g·B·A.", (BY_X, "g @ W")),
        Mistake("The gradient of x comes through the branch only. It passes the frozen W too.", (BY_X, "gB @ A")),
        Mistake("W is transposed: forward multiplies by Wᵀ, backward by W.", ("g @ W", "g @ W.T")),
        Mistake("The scaling is missing in all three.", ("scaling * ", "")),
        Mistake("The scaling is missing in the gradient of x: the branch counts s times.", (BY_X, "g @ W + g @ B @ A")),
        Mistake("The scaling belongs to the branch; g·W has none.", (BY_X, "scaling * g @ W + gB @ A")),
        Mistake("The gradients of A and B both lack the scaling.", (BY_A, "(g @ B).T @ x", BY_B, "g.T @ (x @ A.T)")),
        Mistake("The gradient of A lacks the scaling.", (BY_A, "(g @ B).T @ x")),
        Mistake("The gradient of B lacks the scaling.", (BY_B, "g.T @ (x @ A.T)")),
        Mistake("The gradient of A has the scaling twice: gB has it already.", (BY_A, f"scaling * {BY_A}")),
        Mistake("The order is x, A, B.",
                (f"{BY_A}, {BY_B}", f"{BY_B}, {BY_A}"), (f"{BY_X}, {BY_A}", f"{BY_A}, {BY_X}")),
        Mistake("The gradient of A is transposed: it has the shape of A, (r, k).", (BY_A, "x.T @ gB")),
        Mistake("The gradient of B is transposed: it has the shape of B, (d, r).", (BY_B, "scaling * (x @ A.T).T @ g")),
        Mistake("B sees x·Aᵀ, not x: its gradient is s·gᵀ·(x·Aᵀ).", ("(x @ A.T)", "x")),
        Mistake("A is reached through B: its gradient is (g·B)ᵀ·x, not gᵀ·x.", (BY_A, "scaling * g.T @ x")),
    ),
    draw=lambda rng: _layer(rng, *(rng.randint(1, 5) for _ in "nkdr"), rng.choice([0.25, 0.5, 2.0])), tolerance=1e-5,
    moral="Five thin products beside one with W, which is the only one that meets the dequantized weight.")
