"""Products of thin matrices: cut one out, scale one, add two."""

from __future__ import annotations

import math
import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def low_rank_part(update: torch.Tensor, r: int) -> torch.Tensor:
    """The matrix of rank r that is nearest to `update` (d, k): shape (d, k)."""
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return U[:, :r] @ torch.diag(S[:r]) @ Vh[:r]


THIN = torch.tensor([[2.0, 0.0, 1.0], [1.0, 3.0, 0.0], [0.0, 1.0, -4.0], [2.0, -1.0, 1.0]], dtype=torch.float64)

LOW_RANK_PART = Exercise(7, low_rank_part, "★★ Build: the nearest matrix of rank r · 7 min", """
Keep the first r terms of the singular value decomposition: the matrix of rank r nearest to `update`, for any shape.
Beware of a factor that lies on its side. Somebody multiplied the three factors together again, got another matrix, and
reported that the decomposition is wrong ([pytorch#116394](https://github.com/pytorch/pytorch/issues/116394)); a tensor
library passed the same factor on to its users ([tensorly#311](https://github.com/tensorly/tensorly/issues/311)). For a
*square* weight, as attention has them, nothing complains:

```python
import torch

def low_rank_part(update, r):
    U, S, V = torch.svd(update)
    return U[:, :r] @ torch.diag(S[:r]) @ V[:r]
```
""",
    cases=(Case((torch.diag(torch.tensor([3.0, 2.0, 1.0])).double(), 1), about="a diagonal matrix"),
           Case((THIN[:3] + THIN[:3].T, 2), about="a symmetric matrix that is not diagonal"),
           Case((THIN[:3], 2), about="a square matrix that is not symmetric"),
           Case((THIN, 2), about="a matrix that is taller than wide"),
           Case((THIN.T.contiguous(), 1), about="a matrix that is wider than tall"),
           Case((THIN[:2], 2), about="an r as large as the smaller side")),
    hints=("Multiply all factors together with r = 5 for a 5 x 5 matrix: do you get it back?",
           "`torch.svd` returns V, `torch.linalg.svd` its transpose Vh. Which of them has a direction per row?",
           "`U, S, Vh = torch.linalg.svd(update, full_matrices=False)`: r columns of U, numbers of S, rows of Vh."),
    mistakes=(
        Mistake("The last factor lies on its side: directions are the columns of `torch.svd`'s V, the rows of "
                "`torch.linalg.svd`'s Vh.", None, ("Vh[:r]", "Vh[:, :r].T")),
        Mistake("That is the whole matrix. Of each factor only the first r belong in.", ("[:, :r]", "", "[:r]", "")),
        Mistake("The singular values are missing between the two factors.", (" @ torch.diag(S[:r])", "")),
        Mistake("The singular values were multiplied in twice.", ("S[:r]", "S[:r] ** 2")),
        Mistake("Only the root of the singular values is in the product.", ("S[:r]", "S[:r].sqrt()")),
        Mistake("Those are the smallest singular values. An SVD gives the largest first, `eigh` the smallest.",
                (":r]", "-r:]")),
        Mistake("One direction short: `[:r]` ends before r already.", (":r]", ":r - 1]")),
        Mistake("One direction too many: the slice goes past r.", (":r]", ":r + 1]")),
        Mistake("That is what the cut leaves over, not what it keeps.", ("return ", "return update - ")),
        Mistake("Q's first columns span the matrix's own first ones. Its strongest directions are those of the SVD.",
                ("U, S, Vh = torch.linalg.svd(update, full_matrices=False)", "Q = torch.linalg.qr(update).Q[:, :r]",
                 "U[:, :r] @ torch.diag(S[:r]) @ Vh[:r]", "Q @ (Q.T @ update)")),
        Mistake("Columns of the matrix itself were kept. Its strongest directions are those of the SVD.",
                lambda update, r: update * (torch.arange(update.shape[1]) < r)),
    ),
    draw=lambda rng: (normal(rng, rng.randint(3, 6), rng.randint(3, 6), dtype=torch.float64), rng.randint(1, 3)),
    moral="B = U[:, :r] · S[:r] and A = Vh[:r]: with α = r this is a LoRA adapter, made without any training.")


def adapter_update(A: torch.Tensor, B: torch.Tensor, config: dict) -> torch.Tensor:
    """What the adapter of A (r, k) and B (d, r) adds to the weight: (d, k)."""
    r = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(r) if config.get("use_rslora", False) else r)
    return scale * B @ A


def _pair(rng: random.Random, d: int, k: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    return integers(rng, -3, 3, d, r).double(), integers(rng, -3, 3, r, k).double()


B1, A1 = _pair(random.Random(1), 3, 4, 3)
ALPHA, BELOW = 'config["lora_alpha"]', '(math.sqrt(r) if config.get("use_rslora", False) else r)'

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
    cases=((A1, B1, {"r": 3, "lora_alpha": 8, "use_rslora": False}),
           Case((A1, B1, {"r": 3, "lora_alpha": 8, "use_rslora": True}), about="`use_rslora` is true"),
           Case((*_pair(random.Random(2), 2, 3, 5)[::-1], {"r": 5, "lora_alpha": 5, "use_rslora": True}),
                about="another rank"),
           Case((A1, B1, {"r": 3, "lora_alpha": 8}), about="an old config, without `use_rslora`")),
    hints=("Compute the scale for r = 64 by both rules: by what factor does the server miss?",
           '`config.get("use_rslora", False)` is False also where the key is missing.',
           "Divide `lora_alpha` by `math.sqrt(r)` if `use_rslora` is true, by `r` if not, and multiply `B @ A`."),
    mistakes=(
        Mistake("`use_rslora` was not read: where it is true the scale is α/√r, and α/r came."),
        Mistake("The scale is missing: B @ A alone is not what was trained.", ("scale * B", "B")),
        Mistake("α alone is not the scale: divide it by r.", (f" / {BELOW}", "")),
        Mistake("The root belongs to rsLoRA only; here the scale is α/r.", (BELOW, "math.sqrt(r)")),
        Mistake("The two rules are exchanged: α/√r belongs to `use_rslora` = True.", ("if config", "if not config")),
        Mistake("Upside down: the scale is α divided by r.", (f"{ALPHA} / {BELOW}", f"{BELOW} / {ALPHA}")),
        Mistake("The root goes over r only: α/√r, not √(α/r).",
                (f"{ALPHA} / (math.sqrt(r)", f"(math.sqrt({ALPHA} / r)", "else r", f"else {ALPHA} / r")),
        Mistake("α is divided by √r, not multiplied.", ("math.sqrt(r)", "1 / math.sqrt(r)")),
        Mistake("Both factors were scaled: the update has the scale squared.", ("B @ A", "B @ (scale * A)")),
        Mistake("The scale is no whole number here: `//` cut it off.", (f"/ {BELOW}", f"// {BELOW}")),
        Mistake("Old configs have no `use_rslora`, and are not rsLoRA.",
                ('.get("use_rslora", False)', '["use_rslora"]'), ('"use_rslora", False', '"use_rslora", True')),
        Mistake("The key is there and says False: what counts is its value.",
                ('config.get("use_rslora", False)', '"use_rslora" in config')),
    ),
    draw=lambda rng: (*_pair(rng, rng.randint(1, 5), rng.randint(1, 5), r := rng.randint(1, 6))[::-1], {
        "r": r, "lora_alpha": rng.choice([1, 4, 8]), **rng.choice([{}, {"use_rslora": False}, {"use_rslora": True}])}),
    moral="At r = 64 the served adapter had an eighth of its strength. A scale that is not read is a scale of its own.")


def add_adapters(B1: torch.Tensor, A1: torch.Tensor, B2: torch.Tensor, A2: torch.Tensor,
                 w1: float, w2: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The pair (B, A) with B @ A = w1 · B1 @ A1 + w2 · B2 @ A2, the weights in B."""
    return torch.cat([w1 * B1, w2 * B2], dim=1), torch.cat([A1, A2], dim=0)


IN_B = "w1 * B1, w2 * B2"


def _two(rng: random.Random, d: int, k: int, r1: int, r2: int, w1: float, w2: float) -> tuple:
    return *_pair(rng, d, k, r1), *_pair(rng, d, k, r2), w1, w2


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
    cases=(_two(random.Random(3), 3, 4, 2, 2, 0.5, -2.0),
           Case(_two(random.Random(4), 2, 3, 3, 1, 1.0, 3.0), about="adapters of different ranks"),
           Case(_two(random.Random(5), 2, 2, 2, 2, 0.0, 1.0), about="a weight of 0")),
    hints=("Write [B1 B2] side by side and A1 above A2, and multiply the blocks.",
           "`torch.cat(..., dim=1)` puts matrices side by side, `dim=0` one above the other.",
           "`torch.cat([w1 * B1, w2 * B2], dim=1)` and `torch.cat([A1, A2], dim=0)`."),
    mistakes=(
        Mistake("Rank r again: entries were added, which mixes B1 with A2 and B2 with A1. Concatenate.", None,
                ("torch.cat([w1 * B1, w2 * B2], dim=1), torch.cat([A1, A2], dim=0)", "w1 * B1 + w2 * B2, A1 + A2")),
        Mistake("The product is right. To be compared, the weights are to go into B.",
                (IN_B, "B1, B2", "[A1, A2]", "[w1 * A1, w2 * A2]")),
        Mistake("The weights are in B and in A: the product has them squared.", ("[A1, A2]", "[w1 * A1, w2 * A2]")),
        Mistake("The weights w1 and w2 are missing.", (IN_B, "B1, B2")),
        Mistake("The weights are exchanged: w1 belongs to adapter 1.", (IN_B, "w2 * B1, w1 * B2")),
        Mistake("The columns of B and the rows of A are in different orders: B2 meets A1.",
                (IN_B, "w2 * B2, w1 * B1"), ("A1, A2]", "A2, A1]")),
        Mistake("The product is right. To be compared, adapter 1 is to come first.",
                (IN_B, "w2 * B2, w1 * B1", "A1, A2]", "A2, A1]")),
        Mistake("The wrong dimension: B grows in columns (dim=1), A in rows (dim=0); d and k stay.",
                ("dim=1", "dim=2", "dim=0", "dim=1", "dim=2", "dim=0")),
        Mistake("Return B first, then A.", lambda *args: add_adapters(*args)[::-1]),
        Mistake("That is the sum of the updates itself, (d, k). Asked for is the pair of factors that gives it.",
                lambda B1, A1, B2, A2, w1, w2: w1 * B1 @ A1 + w2 * B2 @ A2),
    ),
    draw=lambda rng: _two(rng, rng.randint(1, 5), rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3),
                          rng.choice([-2.0, 0.5, 1.0, 3.0]), rng.choice([-1.5, 0.25, 1.0, 2.0])),
    moral="PEFT calls it `combination_type=\"cat\"`; \"svd\" cuts the sum back to rank r, as `low_rank_part` does.")
