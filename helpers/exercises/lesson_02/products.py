"""Products of codes: where the sum must live, and what a zero point adds to it."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake

X = torch.tensor([[-44, -20], [-126, 6]], dtype=torch.int8)
W = torch.tensor([[24, 127], [-75, -101]], dtype=torch.int8)
LONG = torch.full((1, 64), 127, dtype=torch.int8)
CODES = torch.tensor([[-121, 127, 0], [-128, -100, 60]], dtype=torch.int8)
SQUARE = torch.tensor([[100, -7, 90], [3, 127, 80], [-50, 2, 11]], dtype=torch.int8)


def codes(rng: random.Random, rows: int, columns: int) -> torch.Tensor:
    """Random symmetric codes of 8 bits."""
    return integers(rng, -127, 127, rows, columns, dtype=torch.int8)


def int8_linear(x_codes: torch.Tensor, x_scale: float,
                w_codes: torch.Tensor, w_scale: float) -> torch.Tensor:
    """x @ w.T from symmetric codes, int8 (n, k) and (d, k): float32 (n, d)."""
    product = x_codes.int() @ w_codes.int().T
    return product * (x_scale * w_scale)


INT8_LINEAR = Exercise(2, int8_linear, "★★ Build: a product of integers · 5 min", """
`x_codes` int8 (n, k) and `w_codes` int8 (d, k) come from absmax, each with its scale. Return x @ w.T as float32 (n, d),
and let the sums run over *integers*: both scales come out of them.

Mind where the sum lives. torch's `@` on two int8 tensors is int8 again, and wraps around without a word, as a GPU
kernel did ([triton#2296](https://github.com/triton-lang/triton/issues/2296)): the matrices of that thread give -12
where -3,596 is right.
""",
    cases=(Case((X, 0.5, W, 0.25)),
           Case((X[:1], 0.5, torch.cat([W, -W[:1]]), 0.25), about="one input and three outputs"),
           Case((LONG, 0.01, torch.cat([LONG, -LONG, LONG // 2]), 0.02), about="a sum beyond sixteen bits",
                shown="64 codes of 127 on each side")),
    hints=("127 · 127 is 16,129. Into which type does a sum of two thousand of these fit?",
           "`x_codes.int()` is int32. Convert both sides before the product: afterwards the sum has wrapped already.",
           "`(x_codes.int() @ w_codes.int().T) * (x_scale * w_scale)`."),
    mistakes=(
        Mistake("The sum lived in int8 and wrapped around: int8 stays int8 through a product.",
                ("x_codes.int() @ w_codes.int().T", "x_codes @ w_codes.T"),
                ("x_codes.int() @ w_codes.int().T", "(x_codes @ w_codes.T).int()")),
        Mistake("The weights have a row for each output, and here their columns were taken.", (".int().T", ".int()")),
        Mistake("These are the right integers, without their scales.", (" * (x_scale * w_scale)", ".float()")),
        Mistake("One scale is missing: x is x_scale times its codes, w is w_scale times its own.",
                ("x_scale * w_scale", "x_scale"), ("x_scale * w_scale", "w_scale")),
        Mistake("The scales are on the wrong side of the fraction: values are codes *times* scale.", ("t *", "t /")),
        Mistake("The scales were added: each product of two codes has both as factors.", ("_scale * w", "_scale + w")),
        Mistake("Sixteen bits are too few for the sum: 64 · 127 · 127 = 1,032,256.",
                (".int()", ".short()"), (".int()", ".half()", "product *", "product.float() *")),
    ),
    draw=lambda rng: (codes(rng, 2, 3), rng.uniform(0.01, 0.1), codes(rng, rng.choice((1, 4)), 3), 0.25),
    tolerance=1e-5,
    moral="int8 in, int32 to add, float32 out: every int8 matrix unit works so, and 16-bit ones add in fp32 likewise.")


def shifted_product(raw: torch.Tensor, zero_point: int,
                    w_codes: torch.Tensor) -> torch.Tensor:
    """(codes - zero_point) @ w_codes.T, from raw = codes @ w_codes.T: int64 (n, d)."""
    return raw - zero_point * w_codes.sum(dim=1)


def multiplied(x_codes: torch.Tensor, zero_point: int, w_codes: torch.Tensor) -> tuple:
    """The arguments of `shifted_product`, from the codes that it does not see."""
    return (x_codes.int() @ w_codes.int().T).long(), zero_point, w_codes


SHIFTED_PRODUCT = Exercise(2, shifted_product, "★★★ Spot the bug: a zero point goes missing · 10 min", """
A compiler multiplied the raw codes and forgot that one side had a zero point: every element of the result was wrong
([iree#24583](https://github.com/iree-org/iree/issues/24583)). Fast kernels do multiply raw codes, because int8 is all
that they can read. They put the zero point right *afterwards*, when the codes are gone and their product, `raw`, is all
that is left of them. The compiler left that step out:

```python
def shifted_product(raw, zero_point, w_codes):
    return raw
```

Mend it: multiply out Σ (q - z) · w, and see which part of it does not depend on q and can be computed once for all
inputs. `raw` comes as int64 (n, d), `w_codes` as int8 (d, k).
""",
    cases=(Case(multiplied(CODES, -121, SQUARE)),
           Case(multiplied(CODES, 5, SQUARE[:2]), about="a matrix of weights that is not square"),
           Case((torch.tensor([[2**30 + 1, -3]]), 3, SQUARE[:2]), about="a sum beyond 2^24, where float32 has gaps")),
    hints=("Σ (q - z) · w = Σ q · w - z · Σ w. The first sum is the product of raw codes.",
           "Σ w runs over k, the dimension that the product sums over: one number for each output.",
           "`w_codes.sum(dim=1)` has shape (d,): times zero_point, it is subtracted from every row."),
    mistakes=(
        Mistake("That is the product of raw codes: the zero point is still in it.", None),
        Mistake("The weights were added up over the outputs; the product sums over k.", ("dim=1", "dim=0")),
        Mistake("The sign is wrong: (q - z) · w gives *minus* z times the sum of w.", ("raw -", "raw +")),
        Mistake("Each output has its own row of w, and its own sum. This is the sum of them all.", ("dim=1", "")),
        Mistake("The zero point is in each of the k terms, each time with its own weight.",
                (" * w_codes.sum(dim=1)", ""), ("w_codes.sum(dim=1)", "w_codes.shape[1]")),
        Mistake("The zero point itself is missing: each weight meets it once.", ("zero_point * ", "")),
        Mistake("Something wrapped around in int8: the sum of w, or z times w.", ("dim=1", "dim=1, dtype=torch.int8"),
                ("zero_point * w_codes", "(zero_point * w_codes)")),
        Mistake("The sums stand in a column. They belong to the outputs, in a row.", ("1)", "1, keepdim=True)")),
    ),
    draw=lambda rng: multiplied(codes(rng, 2, 4), rng.randint(-128, 127), codes(rng, rng.randint(2, 4), 4)),
    moral="The correction is one number per output, made once per model. Weights with a zero point of their own would "
          "need a sum over each input as well: a reason to keep weights symmetric.")
