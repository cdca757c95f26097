"""Products of codes: where the sum must live, and what a zero point adds to it."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def int8_linear(x_codes: torch.Tensor, x_scale: float,
                w_codes: torch.Tensor, w_scale: float) -> torch.Tensor:
    """x @ w.T from symmetric codes, int8 (n, k) and (d, k): float32 (n, d)."""
    product = x_codes.int() @ w_codes.int().T
    return product * (x_scale * w_scale)


def _in_type(dtype: torch.dtype):
    return lambda x_codes, x_scale, w_codes, w_scale: (
        (x_codes.to(dtype) @ w_codes.to(dtype).T).float() * (x_scale * w_scale))


X = torch.tensor([[-44, -20], [-126, 6]], dtype=torch.int8)
W = torch.tensor([[24, 127], [-75, -101]], dtype=torch.int8)
LONG = torch.full((1, 64), 127, dtype=torch.int8)

INT8_LINEAR = Exercise(2, int8_linear, "★★ Spot the bug: a product that fits into nothing · 8 min", """
A GPU kernel gave the product of two int8 matrices the type of its inputs
([triton#2296](https://github.com/triton-lang/triton/issues/2296)). torch does the same on a CPU, without a word:

```python
import torch

def int8_linear(x_codes, x_scale, w_codes, w_scale):
    return (x_codes @ w_codes.T) * (x_scale * w_scale)
```

The matrices of that thread give -12 where -3,596 is right. Mend it. The result is float32, with both scales in it.
""",
    cases=(
        Case((X, 0.5, W, 0.25)),
        Case((LONG, 0.01, torch.cat([LONG, -LONG, LONG // 2]), 0.02), shown="64 codes of 127 on each side"),
    ),
    hints=(
        "127 · 127 is 16,129. Into which type does a sum of two thousand of these fit?",
        "`x_codes.int()` is int32. Convert both sides before the product: afterwards the sum has wrapped already.",
        "`(x_codes.int() @ w_codes.int().T) * (x_scale * w_scale)`.",
    ),
    mistakes=(
        Mistake("The sum lived in int8 and wrapped around. Convert *before* `@`: int8 stays int8 through a product.",
                None,
                lambda x_codes, x_scale, w_codes, w_scale: (x_codes @ w_codes.T).int() * (x_scale * w_scale)),
        Mistake("The weights have a row for each output: the product is with `w_codes.T`.",
                lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int()) * (x_scale * w_scale)),
        Mistake("These are the right integers, without their scales: multiply by x_scale * w_scale.",
                lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int().T).float()),
        Mistake("One scale is missing: x is x_scale times its codes, w is w_scale times its own.",
                lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int().T) * x_scale),
        Mistake("The scales belong on the other side of the fraction: values are codes *times* scale.",
                lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int().T) / (x_scale * w_scale)),
        Mistake("Sixteen bits are too few for the sum: 64 · 127 · 127 = 1,032,256. Take int32.",
                _in_type(torch.int16),
                _in_type(torch.float16)),
    ),
    tolerance=1e-06,
    moral="int8 in, int32 to add, float32 out: every int8 matrix unit works so, and 16-bit ones add in fp32 likewise.")
# general: lambda x_codes, x_scale, w_codes, w_scale: torch.ones(len(x_codes), len(w_codes))


def shifted_product(codes: torch.Tensor, zero_point: int,
                    w_codes: torch.Tensor) -> torch.Tensor:
    """(codes - zero_point) @ w_codes.T, from int8 (n, k) and (d, k): int32 (n, d)."""
    product = codes.int() @ w_codes.int().T
    return product - zero_point * w_codes.int().sum(dim=1, dtype=torch.int32)


def _axis(codes: torch.Tensor, zero_point: int, w_codes: torch.Tensor) -> torch.Tensor:
    return codes.int() @ w_codes.int().T - zero_point * w_codes.sum(dim=0, dtype=torch.int32)


CODES = torch.tensor([[-121, 127, 0], [-128, -100, 60]], dtype=torch.int8)
SQUARE = torch.tensor([[100, -7, 90], [3, 127, 80], [-50, 2, 11]], dtype=torch.int8)

SHIFTED_PRODUCT = Exercise(2, shifted_product, "★★★ Spot the bug: a zero point goes missing · 12 min", """
A compiler multiplied the raw codes and forgot that one side had a zero point: every element of the result was wrong
([iree#24583](https://github.com/iree-org/iree/issues/24583)):

```python
import torch

def shifted_product(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T
```

Fast kernels do multiply raw codes, because int8 is all that they can read. They put the zero point right *afterwards*:
multiply out Σ (q - z) · w, and see which part of it does not depend on q and can be computed once for all inputs.
""",
    cases=(
        Case((CODES, -121, SQUARE)),
        Case((CODES, 5, SQUARE[:2])),
    ),
    hints=(
        "Σ (q - z) · w = Σ q · w - z · Σ w. The first sum is the product of raw codes.",
        "Σ w runs over k, the dimension that the product sums over: one number for each output.",
        "`w_codes.int().sum(dim=1)` has shape (d,): times zero_point, it is subtracted from every row.",
    ),
    mistakes=(
        Mistake("That is the product of raw codes: the zero point is still in it."),
        Mistake("The sum of w must run over k, its last dimension, as the product does.",
                _axis),
        Mistake("The sign is wrong: (q - z) · w gives *minus* z times the sum of w.",
                lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T
                + zero_point * w_codes.sum(dim=1, dtype=torch.int32)),
        Mistake("Each output has its own row of w, and its own sum. This is the sum of the whole matrix.",
                lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T
                - zero_point * w_codes.sum(dtype=torch.int32)),
        Mistake("The zero point is in each of the k terms, each time with its own weight.",
                lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T - zero_point),
        Mistake("Something wrapped around in int8: q - z, or the sum of w. Use int32 before subtracting or adding.",
                lambda codes, zero_point, w_codes: (codes - zero_point).int() @ w_codes.int().T,
                lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T
                - zero_point * w_codes.sum(dim=1, dtype=torch.int8)),
        Mistake("The sum of w must have one number per output, shape (d,): sum over the last dimension.",
                lambda codes, zero_point, w_codes: _axis(codes, zero_point, w_codes) if len(w_codes) != 3
                else shifted_product(codes, zero_point, w_codes)),
    ),
    tolerance=0.0,
    moral="The correction is one number per output, made once per model. Weights with a zero point of their own would "
          "need a sum over each input as well: a reason to keep weights symmetric.")
# general: lambda codes, zero_point, w_codes: torch.zeros(len(codes), len(w_codes), dtype=torch.int32)
