"""Products of codes: where the sum must live, and what a zero point adds to it."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise


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

INT8_LINEAR = Exercise(
    lesson=2,
    title="Spot the bug: a product that fits into nothing",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
A GPU kernel gave the product of two int8 matrices the type of its inputs
([triton#2296](https://github.com/triton-lang/triton/issues/2296)). torch does the same on a CPU, without a word:

```python
import torch

def int8_linear(x_codes, x_scale, w_codes, w_scale):
    return (x_codes @ w_codes.T) * (x_scale * w_scale)
```

The matrices of that thread give -12 where -3,596 is right. Mend it. The result is float32, with both scales in it.
""",
    solution=int8_linear,
    cases=(
        Case((X, 0.5, W, 0.25), "general", {
            "wraps": torch.tensor([[-12, -56], [42, -116]]) * 0.125,
            "not_transposed": (X.int() @ W.int()) * 0.125,
            "unscaled": (X.float() @ W.float().T),
            "one_scale": lambda got: any(torch.allclose(got, (X.float() @ W.float().T) * s) for s in (0.5, 0.25)),
            "inverse": (X.float() @ W.float().T) / 0.125,
            "sixteen": lambda got: torch.allclose(got, (X.float() @ W.float().T) * 0.125, rtol=0.01),
        }, tolerance=1e-6),
        Case((LONG, 0.01, torch.cat([LONG, -LONG, LONG // 2]), 0.02), "general", {
            "sixteen": lambda got: abs(got[0, 0].item() - 206.4512) > 1,
        }, "64 codes of 127 on each side", tolerance=1e-6),
    ),
    hints=(
        "127 · 127 is 16,129. Into which type does a sum of two thousand of these fit?",
        "`x_codes.int()` is int32. Convert both sides before the product: afterwards the sum has wrapped already.",
        "`(x_codes.int() @ w_codes.int().T) * (x_scale * w_scale)`.",
    ),
    diagnoses={
        "general": "Multiply and add up in int32, then multiply by x_scale * w_scale.",
        "wraps": "The sum lived in int8 and wrapped around. Convert *before* `@`: int8 stays int8 through a product.",
        "not_transposed": "The weights have a row for each output: the product is with `w_codes.T`.",
        "unscaled": "These are the right integers, without their scales: multiply by x_scale * w_scale.",
        "one_scale": "One scale is missing: x is x_scale times its codes, w is w_scale times its own.",
        "inverse": "The scales belong on the other side of the fraction: values are codes *times* scale.",
        "sixteen": "Sixteen bits are too few for the sum: 64 · 127 · 127 = 1,032,256. Take int32.",
    },
    wrong=(
        (lambda x_codes, x_scale, w_codes, w_scale: (x_codes @ w_codes.T) * (x_scale * w_scale), "wraps"),
        (lambda x_codes, x_scale, w_codes, w_scale: (x_codes @ w_codes.T).int() * (x_scale * w_scale), "wraps"),
        (lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int()) * (x_scale * w_scale),
         "not_transposed"),
        (lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int().T).float(), "unscaled"),
        (lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int().T) * x_scale, "one_scale"),
        (lambda x_codes, x_scale, w_codes, w_scale: (x_codes.int() @ w_codes.int().T) / (x_scale * w_scale), "inverse"),
        (_in_type(torch.int16), "sixteen"),
        (_in_type(torch.float16), "sixteen"),
        (lambda x_codes, x_scale, w_codes, w_scale: torch.ones(len(x_codes), len(w_codes)), "general"),
    ),
    published="wraps",
    moral="int8 in, int32 to add, float32 out: every int8 matrix unit works so, and 16-bit ones add in fp32 likewise.",
)


def shifted_product(codes: torch.Tensor, zero_point: int,
                    w_codes: torch.Tensor) -> torch.Tensor:
    """(codes - zero_point) @ w_codes.T, from int8 (n, k) and (d, k): int32 (n, d)."""
    product = codes.int() @ w_codes.int().T
    return product - zero_point * w_codes.int().sum(dim=1, dtype=torch.int32)


def _axis(codes: torch.Tensor, zero_point: int, w_codes: torch.Tensor) -> torch.Tensor:
    return codes.int() @ w_codes.int().T - zero_point * w_codes.sum(dim=0, dtype=torch.int32)


CODES = torch.tensor([[-121, 127, 0], [-128, -100, 60]], dtype=torch.int8)
SQUARE = torch.tensor([[100, -7, 90], [3, 127, 80], [-50, 2, 11]], dtype=torch.int8)

SHIFTED_PRODUCT = Exercise(
    lesson=2,
    title="Spot the bug: a zero point goes missing",
    stars=3,
    minutes=12,
    imports="import torch",
    prompt="""
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
    solution=shifted_product,
    cases=(
        Case((CODES, -121, SQUARE), "general", {
            "ignored": CODES.int() @ SQUARE.int().T,
            "wrong_axis": _axis(CODES, -121, SQUARE),
            "added": CODES.int() @ SQUARE.int().T - 121 * SQUARE.sum(dim=1, dtype=torch.int32),
            "whole": CODES.int() @ SQUARE.int().T + 121 * SQUARE.sum(dtype=torch.int32),
            "once": CODES.int() @ SQUARE.int().T + 121,
            "wraps": lambda got: got.tolist() in (
                ((CODES + 121).int() @ SQUARE.int().T).tolist(),
                (CODES.int() @ SQUARE.int().T + 121 * SQUARE.sum(dim=1, dtype=torch.int8)).tolist()),
        }, raises="shape"),
        Case((CODES, 5, SQUARE[:2]), "general", raises="shape"),
    ),
    hints=(
        "Σ (q - z) · w = Σ q · w - z · Σ w. The first sum is the product of raw codes.",
        "Σ w runs over k, the dimension that the product sums over: one number for each output.",
        "`w_codes.int().sum(dim=1)` has shape (d,): times zero_point, it is subtracted from every row.",
    ),
    diagnoses={
        "general": "The product of raw codes, minus zero_point times the sum of each row of w_codes.",
        "ignored": "That is the product of raw codes: the zero point is still in it.",
        "wrong_axis": "The sum of w must run over k, its last dimension, as the product does.",
        "added": "The sign is wrong: (q - z) · w gives *minus* z times the sum of w.",
        "whole": "Each output has its own row of w, and its own sum. This is the sum of the whole matrix.",
        "once": "The zero point is in each of the k terms, each time with its own weight.",
        "wraps": "Something wrapped around in int8: q - z, or the sum of w. Use int32 before subtracting or adding.",
        "shape": "The sum of w must have one number per output, shape (d,): sum over the last dimension.",
    },
    wrong=(
        (lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T, "ignored"),
        (_axis, "wrong_axis"),
        (lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T
         + zero_point * w_codes.sum(dim=1, dtype=torch.int32), "added"),
        (lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T
         - zero_point * w_codes.sum(dtype=torch.int32), "whole"),
        (lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T - zero_point, "once"),
        (lambda codes, zero_point, w_codes: (codes - zero_point).int() @ w_codes.int().T, "wraps"),
        (lambda codes, zero_point, w_codes: codes.int() @ w_codes.int().T
         - zero_point * w_codes.sum(dim=1, dtype=torch.int8), "wraps"),
        (lambda codes, zero_point, w_codes: _axis(codes, zero_point, w_codes) if len(w_codes) != 3
         else shifted_product(codes, zero_point, w_codes), "shape"),
        (lambda codes, zero_point, w_codes: torch.zeros(len(codes), len(w_codes), dtype=torch.int32), "general"),
    ),
    published="ignored",
    moral="The correction is one number per output, made once per model. Weights with a zero point of their own would "
          "need a sum over each input as well: a reason to keep weights symmetric.",
)
