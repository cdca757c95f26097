"""An adapter that does not begin at zero."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def as_lora(
    B0: torch.Tensor, A0: torch.Tensor, B1: torch.Tensor, A1: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """B (d, 2r) and A (2r, k) of a plain LoRA adapter for the original weight.

    B0 (d, r) and A0 (r, k): PiSSA's pair before training; B1 and A1: after it.
    """
    return torch.cat([B1, -B0], dim=1), torch.cat([A1, A0])


def _pairs(rng: random.Random, d: int, r: int, k: int) -> tuple:
    return tuple(integers(rng, -6, 6, *shape) / 4 for shape in ((d, r), (r, k), (d, r), (r, k)))


def _same_layer(got: tuple, expected: tuple) -> bool:
    (B, A), (right_B, right_A) = got, expected
    shapes = (B.shape, A.shape) == (right_B.shape, right_A.shape)
    return shapes and B.dtype == A.dtype == torch.float32 and torch.allclose(B @ A, right_B @ right_A, atol=1e-5)


ONE = tuple(torch.tensor(m) for m in ([[1.0], [2.0]], [[1.0, 0.0, 1.0]], [[3.0], [1.0]], [[0.0, 1.0, 2.0]]))
PAIR = "torch.cat([B1, -B0], dim=1), torch.cat([A1, A0])"
AS_LORA = Exercise(14, as_lora, "★★ Spot the bug: an adapter for a base that is gone · 5 min", """
PiSSA takes B₀·A₀ out of the base's weight W before it trains: the frozen weight is W - B₀·A₀. PEFT does so silently
([transformers#34468](https://github.com/huggingface/transformers/issues/34468)). Who saves the trained pair and loads
it on the *original* base gets B₀·A₀ twice. In short:

```python
def as_lora(B0, A0, B1, A1):
    return B1, A1
```

Return B (d, 2r) and A (2r, k), for which W + B·A is the layer at the end of the training. All four are float32, and
α/r is 1 before and after. Any pair of these shapes with the right product counts.
""",
    cases=(
        Case(ONE),
        Case((*ONE[:2], *ONE[:2]), about="an adapter that was not trained at all"),
        Case(_pairs(random.Random(1), 2, 2, 3), about="rank 2"),
        Case(_pairs(random.Random(2), 4, 2, 2), about="more rows than columns"),
    ),
    draw=lambda rng: _pairs(rng, rng.randint(2, 4), rng.randint(1, 2), rng.randint(2, 4)),
    close=_same_layer,
    hints=("Write down the weight at the end: W - B₀·A₀ + B₁·A₁. What must be added to W?",
           "A sum of two products is one product: [B₁ B₀] times A₁ above A₀ is B₁·A₁ + B₀·A₀.",
           "One of the four needs a minus."),
    mistakes=(
        Mistake("The trained pair as it is: on the original base B₀·A₀ counts twice, in W and once more in B₁·A₁."),
        Mistake("B₀·A₀ is added, and should be taken away: its minus is missing, or stands before both of its factors.",
                ("-B0", "B0"), ("torch.cat([A1, A0])", "torch.cat([A1, -A0])")),
        Mistake("That is the pair from before the training: what was learnt is lost.", (PAIR, "B0, A0")),
        Mistake("The differences of the factors were taken: (B₁ - B₀)·(A₁ - A₀) is not B₁·A₁ - B₀·A₀: that takes "
                "rank 2r.",
                (PAIR, "B1 - B0, A1 - A0"),
                (PAIR, "torch.cat([B0, B1 - B0], dim=1), torch.cat([A0, A1 - A0])"),
                (PAIR, "torch.cat([B1 - B0, 0 * B0], dim=1), torch.cat([A1 - A0, 0 * A0])")),
        Mistake("What came before and after training is exchanged: this takes the training back.",
                (PAIR, "torch.cat([B0, -B1], dim=1), torch.cat([A0, A1])")),
        Mistake("The factors do not belong together: B₁ meets A₀, and B₀ meets A₁.",
                ("torch.cat([A1, A0])", "torch.cat([A0, A1])")),
        Mistake("The change was squeezed into rank r: a difference of two products of rank r has rank 2r, and the cut "
                "loses a part of it.",
                ("return " + PAIR, "r = A0.shape[0]\n    U, S, V = torch.linalg.svd(B1 @ A1 - B0 @ A0)\n"
                                  "    return U[:, :r] * S[:r], V[:r]")),
        Mistake("That is the product, of full size: the two factors are wanted.",
                ("return " + PAIR, "return B1 @ A1 - B0 @ A0")),
        Mistake("A stands first here: B is wanted first.", (PAIR, "torch.cat([A1, A0]), torch.cat([B1, -B0], dim=1)")),
    ),
    moral="Rank 2r, exactly: PEFT does it with path_initial_model_for_weight_conversion, or save the changed base too.")
