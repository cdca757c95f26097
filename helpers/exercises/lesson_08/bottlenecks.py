"""Houlsby's adapter: how many weights it has, and what it computes."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def bottleneck_weights(d: int, m: int, layers: int) -> int:
    """How many weights adapters of bottleneck m add to a transformer of width d."""
    return layers * 2 * (2 * m * d + d + m)


BOTTLENECK_WEIGHTS = Exercise(8, bottleneck_weights, "★ Count the adapters · 4 min", """
Two adapters in every layer, each a linear layer from d to m and one from m back to d, both with a bias. How many
weights are trained in all?
""",
    cases=(
        Case((128, 32, 4)),
        Case((4096, 64, 32)),
        Case((10, 3, 1)),
    ),
    hints=(
        "First one linear layer, from d to m: its weight is m by d, its bias has as many numbers as it has outputs.",
        "Down: m·d + m. Up: d·m + d. That is one adapter.",
        "2·m·d + d + m for one adapter, two adapters in a layer, `layers` layers.",
    ),
    mistakes=(
        Mistake("Half of it: one adapter stands behind the attention and one behind the feed-forward.",
                lambda d, m, layers: layers * (2 * m * d + d + m)),
        Mistake("The biases are missing: m numbers for the way down, d for the way up.",
                lambda d, m, layers: layers * 2 * 2 * m * d),
        Mistake("A bias has as many numbers as its layer has outputs: m for down, d for up.",
                lambda d, m, layers: layers * 2 * (2 * m * d + 2 * d),
                lambda d, m, layers: layers * 2 * (2 * m * d + 2 * m)),
        Mistake("Only one of the two matrices was counted: there is a way down and a way up.",
                lambda d, m, layers: layers * 2 * (m * d + d + m)),
        Mistake("That is one layer of the transformer. Multiply by how many there are.",
                lambda d, m, layers: 2 * (2 * m * d + d + m)),
    ),
    tolerance=0.0,
    moral="66,816 for the pocket Llama at m = 32; 33.8 million for Llama-2-7B at m = 64, half a per cent of it.")
# general: lambda d, m, layers: 66816


def bottleneck(x: torch.Tensor, down: torch.Tensor, b: torch.Tensor, up: torch.Tensor,
               c: torch.Tensor) -> torch.Tensor:
    """The adapter's output for x (n, d), with down (m, d), b (m,), up (d, m), c (d,)."""
    return x + torch.relu(x @ down.T + b) @ up.T + c


X = torch.tensor([[1.0, -2.0, 3.0, 0.5], [0.0, 1.0, -1.0, 2.0]])
DOWN, B = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, -1.0]]), torch.tensor([0.5, 0.25])
UP, C = torch.tensor([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0], [0.5, 0.5]]), torch.tensor([0.125, -0.25, 0.5, 1.0])


def _parts(skip: float = 1, inner: bool = True, outer: bool = False, biases: tuple[float, float] = (1, 1)):
    """The adapter with some of its parts changed, as a function of the arguments of `bottleneck`."""
    def run(x, down, b, up, c):
        narrow = x @ down.T + biases[0] * b
        wide = (torch.relu(narrow) if inner else narrow) @ up.T + biases[1] * c
        return skip * x + (torch.relu(wide) if outer else wide)
    return run


def _all_relu(x, down, b, up, c):
    return torch.relu(bottleneck(x, down, b, up, c))


BOTTLENECK = Exercise(8, bottleneck, "★★ An adapter in one line · 8 min", """
Write the adapter without modules: from d down to m, ReLU, up to d again, and the input added. All matrices lie as in
`nn.Linear`: `down` is (m, d), `up` is (d, m).
""",
    cases=(
        Case((X, DOWN, B, UP, C)),
        Case((X, DOWN, B, torch.zeros(4, 2), torch.zeros(4))),
        Case((X, torch.eye(4), torch.zeros(4), 2 * torch.eye(4), torch.zeros(4))),
    ),
    hints=(
        "`x @ down.T` has m columns. What comes next, and what last?",
        "narrow = torch.relu(x @ down.T + b); then up again, with its bias.",
        "The skip connection: x + narrow @ up.T + c.",
    ),
    mistakes=(
        Mistake("Do the shapes fit? First `down`, from d to m, then `up`; both transposed, as in nn.Linear.",
                lambda x, down, b, up, c: x + torch.relu(x @ up.T + b) @ down.T + c,
                lambda x, down, b, up, c: x + torch.relu(x @ down + b) @ up + c),
        Mistake("The skip connection is missing: the adapter *adds* to x. Without it, it must learn x first.",
                _parts(skip=0)),
        Mistake("The nonlinearity is missing: then up·down is one matrix of rank m, which is LoRA's idea, not this.",
                _parts(inner=False)),
        Mistake("The nonlinearity stands where it is narrow, between down and up, not behind up.",
                _parts(inner=False, outer=True)),
        Mistake("ReLU over the sum cuts off the negative half of x itself. It stands between down and up only.",
                _all_relu),
        Mistake("A bias is missing: b behind down, c behind up.",
                _parts(biases=(0, 1)),
                _parts(biases=(0, 0))),
        Mistake("That is GELU, as in the lesson's adapter. Here ReLU is asked for.",
                lambda x, down, b, up, c: x + torch.nn.functional.gelu(x @ down.T + b) @ up.T + c),
        Mistake("With `up` and `c` at zero the adapter must be the identity: that is how its training starts.",
                lambda x, down, b, up, c: bottleneck(x, down, b, up, c) + 0.1 * (up.abs().sum() == 0)),
    ),
    tolerance=1e-06,
    moral="Leave the nonlinearity out and you could multiply up·down once and merge it. That is the step to LoRA.")
# general: _parts(skip=2)
