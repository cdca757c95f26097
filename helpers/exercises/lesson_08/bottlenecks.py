"""Houlsby's adapter: how many weights it has, and what it computes."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def bottleneck_weights(d: int, m: int, layers: int) -> int:
    """How many weights adapters of bottleneck m add to a transformer of width d."""
    return layers * 2 * (2 * m * d + d + m)


BOTTLENECK_WEIGHTS = Exercise(8, bottleneck_weights, "★ Count the adapters · 4 min", """
Two adapters in every layer, each a linear layer from d to m and one from m back to d, both with a bias. How many
weights are trained in all?
""",
    cases=((10, 3, 1), Case((10, 2, 1), about="a narrower bottleneck"),
           Case((128, 32, 4), about="more than one layer"),
           Case((4096, 64, 32), about="the width of Llama-2-7B"),
           Case((3, 5, 2), about="a bottleneck wider than the model")),
    hints=("First one linear layer, from d to m: its weight is m by d, its bias has as many numbers as it has outputs.",
           "Down: m·d + m. Up: d·m + d. That is one adapter.",
           "2·m·d + d + m for one adapter, two adapters in a layer, `layers` layers."),
    mistakes=(
        Mistake("Half of it: there are two adapters in every layer.", ("layers * 2 *", "layers *")),
        Mistake("The biases are missing: m numbers for the way down, d for the way up.", (" + d + m", "")),
        Mistake("A bias has as many numbers as its layer has outputs: m for down, d for up.",
                ("+ d + m", "+ 2 * d"), ("+ d + m", "+ 2 * m"), ("+ d + m", "+ 2")),
        Mistake("The bias of one of the two linear layers is missing.", ("+ d + m", "+ d"), ("+ d + m", "+ m")),
        Mistake("Only one of the two matrices was counted: there is a way down and a way up.", ("(2 * m", "(m")),
        Mistake("A matrix between d and m has d times m weights, not d plus m.", ("2 * m * d", "2 * (m + d)")),
        Mistake("That is a matrix from d to d. The way down ends at m.", ("2 * m * d", "2 * d * d")),
        Mistake("The biases were counted for one adapter only: the bracket is missing.",
                ("(2 * m * d + d + m)", "2 * m * d + d + m")),
        Mistake("That is one layer of the transformer. Multiply by how many there are.", ("layers * ", "")),
    ),
    draw=lambda rng: (rng.randint(1, 300), rng.randint(1, 80), rng.randint(1, 40)),
    moral="66,816 for the pocket Llama at m = 32; 33.8 million for Llama-2-7B at m = 64, half a per cent of it.")


def bottleneck(x: torch.Tensor, down: torch.Tensor, b: torch.Tensor, up: torch.Tensor,
               c: torch.Tensor) -> torch.Tensor:
    """The adapter's output for x (n, d), with down (m, d), b (m,), up (d, m), c (d,)."""
    return x + torch.relu(x @ down.T + b) @ up.T + c


def _adapter(rng: random.Random, n: int, d: int, m: int) -> tuple[torch.Tensor, ...]:
    return normal(rng, n, d), normal(rng, m, d), normal(rng, m), normal(rng, d, m), normal(rng, d)


X, DOWN, B, UP, C = _adapter(random.Random(1), 2, 3, 2)
ABOVE = (X.abs(), DOWN.abs(), 0 * B, UP, 0 * C)  # nothing for ReLU to cut, no biases

BOTTLENECK = Exercise(8, bottleneck, "★★ An adapter in one line · 8 min", """
Write the adapter without modules: from d down to m, ReLU, up to d again, and the input added. All matrices lie as in
`nn.Linear`: `down` is (m, d), `up` is (d, m).
""",
    cases=(Case((X, DOWN, B, 0 * UP, 0 * C), about="`up` and `c` at zero, as training starts"),
           Case((*ABOVE[:1], 0 * DOWN + 1, 0 * B, UP.abs(), 0 * C), about="a way up that is not zero"),
           Case((*ABOVE[:3], UP.abs(), 0 * C), about="a way down whose numbers differ"),
           Case(ABOVE, about="negative numbers on the way up"),
           Case((*ABOVE[:2], B.abs(), UP, 0 * C), about="a bias b that is not zero"),
           Case((*ABOVE[:4], C), about="a bias c that is not zero"),
           Case((X, DOWN, B, UP, C), about="negative numbers before ReLU"),
           Case((50 * X, DOWN, B, UP, C), about="large numbers")),
    hints=("`x @ down.T` has m columns. What comes next, and what last?",
           "narrow = torch.relu(x @ down.T + b); then up again, with its bias.",
           "The skip connection: x + narrow @ up.T + c."),
    mistakes=(
        Mistake("The skip connection is missing: the adapter *adds* to x.", ("x + torch", "torch")),
        Mistake("The nonlinearity is missing: then up·down is one matrix of rank m, which is LoRA's idea, not this.",
                ("torch.relu", "")),
        Mistake("ReLU stands behind `up`. Its place is the narrow one, between down and up.",
                ("relu(x @ down.T + b)", "relu((x @ down.T + b)", "+ c", "+ c)")),
        Mistake("ReLU over the sum cuts off the negative half of x itself. It stands between down and up only.",
                ("x + torch.relu(x", "torch.relu(x + torch.relu(x", "+ c", "+ c)"),
                ("x + torch.relu(x", "torch.relu(x + (x", "+ c", "+ c)")),
        Mistake("ReLU was taken of x, before the way down. It stands behind it.",
                ("torch.relu(x @ down.T + b)", "(torch.relu(x) @ down.T + b)")),
        Mistake("The bias b came after ReLU. It belongs to the way down, and ReLU sees it.",
                ("torch.relu(x @ down.T + b)", "(torch.relu(x @ down.T) + b)")),
        Mistake("A bias is missing: b belongs to down, c to up.",
                (" + b", ""), (" + c", ""), (" + b", "", " + c", "")),
        Mistake("That is GELU, as in the lesson's adapter. Here ReLU is asked for.",
                ("torch.relu", "torch.nn.functional.gelu")),
    ),
    draw=lambda rng: _adapter(rng, rng.randint(1, 3), rng.randint(1, 5), rng.randint(1, 4)), tolerance=1e-5,
    moral="Leave the nonlinearity out and you could multiply up·down once and merge it. That is the step to LoRA.")
