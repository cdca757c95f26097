"""Products of thin matrices: cut one out, scale one, add two."""

from __future__ import annotations

import math

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def _draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank_part(update: torch.Tensor, r: int) -> torch.Tensor:
    """The matrix of rank r that is nearest to `update` (d, k): shape (d, k)."""
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return U[:, :r] @ torch.diag(S[:r]) @ Vh[:r]


def _by_torch_svd(update: torch.Tensor, r: int) -> torch.Tensor:
    U, S, V = torch.svd(update)
    return U[:, :r] @ torch.diag(S[:r]) @ V[:r]


def _with(change):
    """A wrong answer: change(U, S, Vh, r) instead of the nearest matrix."""
    return lambda update, r: change(*torch.linalg.svd(update, full_matrices=False), r)


SQUARE, THIN = _draw(5, 5, seed=0), _draw(6, 4, seed=1)
LEFT, VALUES, _ = torch.linalg.svd(SQUARE)


def _turned(got: torch.Tensor) -> bool:
    """Whether `got` has the right columns and size, and the wrong rows."""
    inside = LEFT[:, :2] @ LEFT[:, :2].T @ got
    return torch.allclose(inside, got) and torch.allclose(got.norm(), VALUES[:2].norm())


LOW_RANK_PART = Exercise(7, low_rank_part, "★★ Spot the bug: the factor that lies on its side · 8 min", """
Somebody multiplied the three factors of a singular value decomposition together again, got another matrix, and reported
that the decomposition is wrong ([pytorch#116394](https://github.com/pytorch/pytorch/issues/116394)). A tensor library
passed the same factor on to its users ([tensorly#311](https://github.com/tensorly/tensorly/issues/311)). For a
*square* weight, as attention has them, nothing complains:

```python
import torch

def low_rank_part(update, r):
    U, S, V = torch.svd(update)
    return U[:, :r] @ torch.diag(S[:r]) @ V[:r]
```

Write it so that it gives the matrix of rank r nearest to `update`, for any shape.
""",
    cases=(
        Case((SQUARE, 2), shown="a 5 x 5 matrix, r=2"),
        Case((THIN, 3), shown="a 6 x 4 matrix, r=3"),
        Case((THIN.T.contiguous(), 1), shown="a 4 x 6 matrix, r=1"),
    ),
    hints=(
        "Multiply all factors together with r = 5 for a 5 x 5 matrix: do you get it back?",
        "`torch.svd` returns V, `torch.linalg.svd` returns Vh, which is V transposed. Which has a direction per row?",
        "`U, S, Vh = torch.linalg.svd(update, full_matrices=False)`, then the first r columns of U and rows of Vh.",
    ),
    mistakes=(
        Mistake("The directions of `torch.svd`'s V are its columns; the rows are wanted of V transposed, Vh.",
                None,
                _with(lambda U, S, Vh, r: U[:, :r] @ torch.diag(S[:r]) @ Vh[:, :r].T)),
        Mistake("That is the whole matrix. Keep the first r of each factor only.",
                _with(lambda U, S, Vh, r: U @ torch.diag(S) @ Vh)),
        Mistake("The singular values are missing between the two factors: all directions came out equally long.",
                _with(lambda U, S, Vh, r: U[:, :r] @ Vh[:r])),
        Mistake("The singular values were multiplied in twice. Once, on either side, is enough.",
                _with(lambda U, S, Vh, r: U[:, :r] * S[:r] @ torch.diag(S[:r]) @ Vh[:r])),
        Mistake("Those are the smallest singular values. torch gives the largest first.",
                _with(lambda U, S, Vh, r: U[:, -r:] @ torch.diag(S[-r:]) @ Vh[-r:])),
        Mistake("One direction short: `[:r]` ends before r already.",
                _with(lambda U, S, Vh, r: U[:, :r - 1] @ torch.diag(S[:r - 1]) @ Vh[:r - 1])),
    ),
    tolerance=1e-06,
    moral="B = U[:, :r] · S[:r] and A = Vh[:r]: with α = r this is a LoRA adapter, made without any training.")
# general: lambda update, r: torch.zeros_like(update)


def adapter_update(A: torch.Tensor, B: torch.Tensor, config: dict) -> torch.Tensor:
    """What the adapter of A (r, k) and B (d, r) adds to the weight: (d, k)."""
    r = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora", False) else r)
    return scale * B @ A


def _scaled(scale):
    """A wrong answer: scale(config) times BA."""
    return lambda A, B, config: scale(config) * B @ A


A4, B4 = _draw(4, 6, seed=2), _draw(5, 4, seed=3)
PLAIN = {"r": 4, "lora_alpha": 8, "use_rslora": False}

ADAPTER_UPDATE = Exercise(7, adapter_update, "★★ Spot the bug: the adapter that came out too small · 6 min", """
An adapter was trained well and answered badly once it was served. The server read r and α, and one line of the config
it did not read ([TensorRT-LLM#1668](https://github.com/NVIDIA/TensorRT-LLM/issues/1668); so did
[exllamav2#619](https://github.com/turboderp-org/exllamav2/pull/619)):

```python
def adapter_update(A, B, config):
    return config["lora_alpha"] / config["r"] * B @ A
```

`config` is the adapter's `adapter_config.json`: it holds `r`, `lora_alpha` and, unless it is an old one, `use_rslora`.
With the latter true the scale is α/√r. Write it for all three kinds.
""",
    cases=(
        Case((A4, B4, PLAIN), shown="r=4, lora_alpha=8, use_rslora=False"),
        Case((A4, B4, {**PLAIN, "use_rslora": True}), shown="r=4, lora_alpha=8, use_rslora=True"),
        Case((A4, B4, {"r": 4, "lora_alpha": 8}), shown="r=4, lora_alpha=8, no use_rslora"),
    ),
    hints=(
        "Compute the scale for r = 64 by both rules: by what factor does the server miss?",
        '`config.get("use_rslora", False)` is False also where the key is missing.',
        'Divide `lora_alpha` by `math.sqrt(r)` if `use_rslora` is true, by `r` if not, and multiply `B @ A`.',
    ),
    mistakes=(
        Mistake("`use_rslora` was not read: the scale must be α/√r, here twice as much as came."),
        Mistake("The scale is missing: B @ A alone is not what was trained.",
                _scaled(lambda config: 1.0)),
        Mistake("α alone is not the scale: divide it by r.",
                _scaled(lambda config: config["lora_alpha"])),
        Mistake("The root belongs to rsLoRA only; here the scale is α/r.",
                _scaled(lambda config: config["lora_alpha"] / math.sqrt(config["r"]))),
        Mistake("Upside down: the scale is α divided by r.",
                _scaled(lambda config: config["r"] / config["lora_alpha"])),
        Mistake("The root goes over r only: α/√r, not √(α/r).",
                _scaled(lambda config: (config["lora_alpha"] / config["r"]) ** (0.5 if config.get("use_rslora") else 1))),
        Mistake("α is divided by √r, not multiplied.",
                _scaled(lambda config: config["lora_alpha"] * math.sqrt(config["r"]) if config.get("use_rslora")
                else config["lora_alpha"] / config["r"])),
        Mistake("B is (d, r), A is (r, k): the update is B @ A.",
                lambda A, B, config: config["lora_alpha"] / config["r"] * A @ B),
        Mistake("Old configs have no `use_rslora`. Take False for it, with `config.get`.",
                _scaled(lambda config: config["lora_alpha"] / (math.sqrt(4) if config["use_rslora"] else 4))),
    ),
    tolerance=1e-09,
    moral="At r = 64 the served adapter had an eighth of its strength. A scale that is not read is a scale of its own.")
# general: lambda A, B, config: torch.zeros(5, 6, dtype=A.dtype)


def add_adapters(B1: torch.Tensor, A1: torch.Tensor, B2: torch.Tensor, A2: torch.Tensor,
                 w1: float, w2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair (B, A) with B @ A = w1 · B1 @ A1 + w2 · B2 @ A2, the weights in B."""
    return torch.cat([w1 * B1, w2 * B2], dim=1), torch.cat([A1, A2], dim=0)


def _entries_added(B1, A1, B2, A2, w1, w2):
    return B1 + B2, w1 * A1 + w2 * A2


A2_, B2_ = _draw(4, 6, seed=4), _draw(5, 4, seed=5)
A3, B3 = _draw(2, 6, seed=6), _draw(5, 2, seed=7)
PAIR = (B4, A4, B2_, A2_, 0.5, -2.0)

ADD_ADAPTERS = Exercise(7, add_adapters, "★★★ Spot the bug: the sum of two adapters · 10 min", """
Two adapters for one base, one trained on each task: add them with weights, and one model does both. A library did it
entry by entry ([peft#1155](https://github.com/huggingface/peft/issues/1155)):

```python
def add_adapters(B1, A1, B2, A2, w1, w2):
    return B1 + B2, w1 * A1 + w2 * A2
```

But (B1 + B2) @ (A1 + A2) has two products that nobody trained, B1 @ A2 and B2 @ A1. Putting part of the weight into
each factor does not help against them ([peft#3004](https://github.com/huggingface/peft/issues/3004)). A sum of updates
of rank r1 and r2 has rank r1 + r2 as a rule: give the pair that room. Adapter 1 comes first, and the weights go into B.
""",
    cases=(
        Case(PAIR, shown="two adapters of r=4 for a weight of 5 x 6, w1=0.5, w2=-2"),
        Case((B4, A4, B3, A3, 1.0, 1.0), shown="adapters of r=4 and r=2, w1=w2=1"),
    ),
    hints=(
        "Write [B1 B2] side by side and A1 above A2, and multiply the blocks.",
        "`torch.cat(..., dim=1)` puts matrices side by side, `dim=0` one above the other.",
        "`torch.cat([w1 * B1, w2 * B2], dim=1)` and `torch.cat([A1, A2], dim=0)`.",
    ),
    mistakes=(
        Mistake("Rank r again: entries were added, which mixes B1 with A2 and B2 with A1. Concatenate.",
                None,
                lambda B1, A1, B2, A2, w1, w2: (w1 * B1 + w2 * B2, w1 * A1 + w2 * A2)),
        Mistake("The product is right. To be compared, the weights are to go into B.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([B1, B2], 1), torch.cat([w1 * A1, w2 * A2]))),
        Mistake("The weights are in B and in A: the product has them squared.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([w1 * B1, w2 * B2], 1), torch.cat([w1 * A1, w2 * A2]))),
        Mistake("The weights w1 and w2 are missing.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([B1, B2], 1), torch.cat([A1, A2]))),
        Mistake("The columns of B and the rows of A are in different orders: B2 meets A1.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([w2 * B2, w1 * B1], 1), torch.cat([A1, A2]))),
        Mistake("The product is right. To be compared, adapter 1 is to come first.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([w2 * B2, w1 * B1], 1), torch.cat([A2, A1]))),
        Mistake("The wrong dimension: B grows in columns (dim=1), A in rows (dim=0); d and k stay.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([w1 * B1, w2 * B2], 0), torch.cat([A1, A2], 1))),
        Mistake("Return B first, then A.",
                lambda B1, A1, B2, A2, w1, w2: (torch.cat([A1, A2]), torch.cat([w1 * B1, w2 * B2], 1))),
        Mistake("These two have different ranks: nothing says that they must be alike. Concatenate.",
                lambda B1, A1, B2, A2, w1, w2: add_adapters(B1, A1, B2 + 0 * B1, A2, w1, w2)),
    ),
    tolerance=1e-09,
    moral="PEFT calls it `combination_type=\"cat\"`; \"svd\" cuts the sum back to rank r, as `low_rank_part` does.")
# general: lambda B1, A1, B2, A2, w1, w2: (torch.zeros(5, 8).double(), torch.zeros(8, 6).double())
