"""What is published: whether the adapter holds anything."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def untrained_layers(state: dict[str, torch.Tensor]) -> list[str]:
    """Names, such as layers.0.q_proj, of the layers that never trained."""
    return [name.removesuffix(".lora_B.weight") for name, weight in state.items()
            if name.endswith(".lora_B.weight") and not weight.any()]


def _adapter(about: str = "", **columns: list[float]) -> Case:
    """An adapter of rank 1 with these B, and an A of ones."""
    state = {}
    for name, column in columns.items():
        state[f"layers.0.{name}.lora_A.weight"] = torch.ones(1, 2)
        state[f"layers.0.{name}.lora_B.weight"] = torch.tensor(column)[:, None]
    return Case((state,), about, ", ".join(f"{name}: B = {column}" for name, column in columns.items()))


def _random(rng: random.Random) -> tuple[dict[str, torch.Tensor]]:
    state = {}
    for n in range(rng.randint(1, 3)):
        r, name = rng.randint(1, 3), f"layers.{n}.{rng.choice(('query', 'value', 'o_proj'))}"
        state[f"{name}.lora_A.weight"] = normal(rng, r, 3)
        state[f"{name}.lora_B.weight"] = rng.randint(0, 1) * integers(rng, -1, 1, 2, r).float()
    return (state,)


UNTRAINED_LAYERS = Exercise(11, untrained_layers, "★★ Spot the bug: an adapter of nothing · 8 min", """
Early QLoRA scripts trained for hours and saved adapters with nothing in them
([qlora#38](https://github.com/artidoro/qlora/issues/38)). Somebody wants to notice it next time, before publishing:

```python
def untrained_layers(state):
    return [name for name, weight in state.items() if weight.numel() == 0]
```

It stays silent about an adapter that never trained: all tensors are there, of full size. Which of them tells, A or B?
Remember how LoRA begins: one of the two is zero everywhere. `state` is what an adapter's safetensors file holds:
`layers.0.q_proj.lora_A.weight`, `layers.0.q_proj.lora_B.weight` and so on. Return the names of the layers where that
one still is zero everywhere, such as `layers.0.q_proj`, in their order.
""",
    cases=(_adapter(q_proj=[0.5, -1.5], v_proj=[0.0, 0.0], up_proj=[0.0, 0.0]),
           _adapter("some zeros in a B that is not zero", q_proj=[0.0, 0.5, 0.0]),
           _adapter("a B whose sum is zero", q_proj=[0.5, -0.5]), _adapter("a B below zero", q_proj=[-0.5, 0.0]),
           _adapter("a B of equal numbers", q_proj=[0.5, 0.5]), _adapter("a B of tiny numbers", q_proj=[1e-12, -2e-12]),
           _adapter("`value`, a name that ends in letters of the suffix", value=[0.0, 0.0]),
           _adapter("names that are not in the order of the alphabet", up_proj=[0.0, 0.0], q_proj=[0.0, 0.0]),
           Case(({"layers.0.q.lora_A.weight": torch.ones(1, 2), "layers.0.v.lora_A.weight": torch.ones(1, 2),
                  "layers.0.q.lora_B.weight": torch.zeros(3, 1), "layers.0.v.lora_B.weight": torch.ones(3, 1)},),
                "all A before all B"),
           Case(({"layers.0.q.lora_A.weight": torch.ones(0, 2), "layers.0.q.lora_B.weight": torch.ones(3, 0)},),
                "tensors without elements, of rank 0")),
    hints=("A begins random and B begins at zero. Training moves both, so which of them is still as it began?",
           "`weight.any()` is True if one value is not zero.",
           "Go through `state.items()`, keep names that end in `.lora_B.weight`, and take that ending off."),
    mistakes=(
        Mistake("A layer that never trained is not empty: its A is random, as it began, and its B full of zeros.", None,
                ("lora_B", "lora_A")),
        Mistake("Take `.lora_B.weight` off: the layer is asked for.", ('.removesuffix(".lora_B.weight") for', " for"),
                ('removesuffix(".lora_B.weight") for', 'removesuffix(".weight") for')),
        Mistake("That is a part of the layer's name: `layers.0.` belongs to it.",
                ('name.removesuffix(".lora_B.weight")', 'name.split(".")[2]')),
        Mistake("`rstrip` takes a *set of characters* off, here the end of `value` too.", ("removesuffix", "rstrip")),
        Mistake("Those are the layers that did train. Asked for are the others.", ("not weight", "weight")),
        Mistake("Not all of them: some have a B with numbers in it.", (" and not weight.any()", "")),
        Mistake("Some numbers of this B are zero, but not all: the layer does change.",
                ("weight.any()", "weight.all()"), ("weight.any()", "weight[0].any()")),
    ),
    draw=_random,
    moral="Two seconds before publishing. The logits of the reloaded model say the same, and more.")
