"""Houlsby's adapter: how many weights it has, and what it computes."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise


def bottleneck_weights(d: int, m: int, layers: int) -> int:
    """How many weights adapters of bottleneck m add to a transformer of width d."""
    return layers * 2 * (2 * m * d + d + m)


BOTTLENECK_WEIGHTS = Exercise(
    lesson=8,
    title="Count the adapters",
    stars=1,
    minutes=4,
    prompt="""
Two adapters in every layer, each a linear layer from d to m and one from m back to d, both with a bias. How many
weights are trained in all?
""",
    solution=bottleneck_weights,
    cases=(
        Case((128, 32, 4), "general", {
            "one_a_layer": 33408, "no_bias": 65536,
            "bias_swapped": lambda got: got in (8 * (8192 + 256), 8 * (8192 + 64)),
            "one_way": 8 * (32 * 128 + 128 + 32), "one_layer": 16704,
        }),
        Case((4096, 64, 32), "general"),
        Case((10, 3, 1), "general"),
    ),
    hints=(
        "First one linear layer, from d to m: its weight is m by d, its bias has as many numbers as it has outputs.",
        "Down: m·d + m. Up: d·m + d. That is one adapter.",
        "2·m·d + d + m for one adapter, two adapters in a layer, `layers` layers.",
    ),
    diagnoses={
        "general": "One adapter has 2·m·d + d + m weights; there are two in each layer.",
        "one_a_layer": "Half of it: one adapter stands behind the attention and one behind the feed-forward.",
        "no_bias": "The biases are missing: m numbers for the way down, d for the way up.",
        "bias_swapped": "A bias has as many numbers as its layer has outputs: m for down, d for up.",
        "one_way": "Only one of the two matrices was counted: there is a way down and a way up.",
        "one_layer": "That is one layer of the transformer. Multiply by how many there are.",
    },
    wrong=(
        (lambda d, m, layers: layers * (2 * m * d + d + m), "one_a_layer"),
        (lambda d, m, layers: layers * 2 * 2 * m * d, "no_bias"),
        (lambda d, m, layers: layers * 2 * (2 * m * d + 2 * d), "bias_swapped"),
        (lambda d, m, layers: layers * 2 * (2 * m * d + 2 * m), "bias_swapped"),
        (lambda d, m, layers: layers * 2 * (m * d + d + m), "one_way"),
        (lambda d, m, layers: 2 * (2 * m * d + d + m), "one_layer"),
        (lambda d, m, layers: 66816, "general"),
    ),
    moral="66,816 for the pocket Llama at m = 32; 33.8 million for Llama-2-7B at m = 64, half a per cent of it.",
)


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


BOTTLENECK = Exercise(
    lesson=8,
    title="An adapter in one line",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
Write the adapter without modules: from d down to m, ReLU, up to d again, and the input added. All matrices lie as in
`nn.Linear`: `down` is (m, d), `up` is (d, m).
""",
    solution=bottleneck,
    cases=(
        Case((X, DOWN, B, UP, C), "general", {
            "no_skip": _parts(skip=0)(X, DOWN, B, UP, C), "no_relu": _parts(inner=False)(X, DOWN, B, UP, C),
            "late_relu": _parts(inner=False, outer=True)(X, DOWN, B, UP, C), "relu_all": _all_relu(X, DOWN, B, UP, C),
            "no_biases": lambda got: any(torch.allclose(got, _parts(biases=pair)(X, DOWN, B, UP, C))
                                         for pair in ((0, 1), (1, 0), (0, 0))),
            "gelu": X + torch.nn.functional.gelu(X @ DOWN.T + B) @ UP.T + C,
        }, tolerance=1e-6, raises="swapped"),
        Case((X, DOWN, B, torch.zeros(4, 2), torch.zeros(4)), "identity", tolerance=1e-6),
        Case((X, torch.eye(4), torch.zeros(4), 2 * torch.eye(4), torch.zeros(4)), "general", tolerance=1e-6),
    ),
    hints=(
        "`x @ down.T` has m columns. What comes next, and what last?",
        "narrow = torch.relu(x @ down.T + b); then up again, with its bias.",
        "The skip connection: x + narrow @ up.T + c.",
    ),
    diagnoses={
        "general": "x + relu(x·downᵀ + b)·upᵀ + c.",
        "swapped": "Do the shapes fit? First `down`, from d to m, then `up`; both transposed, as in nn.Linear.",
        "no_skip": "The skip connection is missing: the adapter *adds* to x. Without it, it must learn x first.",
        "no_relu": "The nonlinearity is missing: then up·down is one matrix of rank m, which is LoRA's idea, not this.",
        "late_relu": "The nonlinearity stands where it is narrow, between down and up, not behind up.",
        "relu_all": "ReLU over the sum cuts off the negative half of x itself. It stands between down and up only.",
        "no_biases": "A bias is missing: b behind down, c behind up.",
        "gelu": "That is GELU, as in the lesson's adapter. Here ReLU is asked for.",
        "identity": "With `up` and `c` at zero the adapter must be the identity: that is how its training starts.",
    },
    wrong=(
        (_parts(skip=0), "no_skip"),
        (_parts(inner=False), "no_relu"),
        (_parts(inner=False, outer=True), "late_relu"),
        (_all_relu, "relu_all"),
        (_parts(biases=(0, 1)), "no_biases"),
        (_parts(biases=(0, 0)), "no_biases"),
        (lambda x, down, b, up, c: x + torch.nn.functional.gelu(x @ down.T + b) @ up.T + c, "gelu"),
        (lambda x, down, b, up, c: x + torch.relu(x @ up.T + b) @ down.T + c, "swapped"),
        (lambda x, down, b, up, c: x + torch.relu(x @ down + b) @ up + c, "swapped"),
        (lambda x, down, b, up, c: bottleneck(x, down, b, up, c) + 0.1 * (up.abs().sum() == 0), "identity"),
        (_parts(skip=2), "general"),
    ),
    moral="Leave the nonlinearity out and you could multiply up·down once and merge it. That is the step to LoRA.",
)
