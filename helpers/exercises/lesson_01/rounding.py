"""What rounding does when nobody looks: sums in sixteen bits, and casts that cut."""

from __future__ import annotations

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def safe_mean(x: torch.Tensor) -> torch.Tensor:
    """The mean of a 16-bit float tensor (n,), rounded once: shape (), the dtype of x."""
    mean = x.float().mean()
    return mean.to(x.dtype)


SHORT = (torch.float16, torch.bfloat16)
SAFE_MEAN = Exercise(1, safe_mean, "★★ Spot the bug: the sum that is always 256 · 6 min", """
Somebody summed ten thousand activations between 0 and 1, stored in bf16, and got 256. Twenty thousand: 256 again
([ml_dtypes#63](https://github.com/jax-ml/ml_dtypes/issues/63)). The library added up in the type of the input, as this
mean does:

```python
import torch

def safe_mean(x):
    total = torch.zeros((), dtype=x.dtype)
    for value in x:
        total = total + value
    return total / len(x)
```

Write it so that no intermediate result lives in sixteen bits. Only the answer goes back to the dtype of `x`.
""",
    cases=(Case((torch.ones(1000).bfloat16(),), shown="1,000 ones in bf16"),
           Case((torch.full((1000,), 100.0).half(),), about="a sum beyond fp16", shown="1,000 hundreds in fp16"),
           Case((torch.arange(1001).half(),), about="an odd length", shown="0, 1, 2, … 1000 in fp16"),
           Case((torch.tensor([1.0, -2.5, 7.25]).half(),), about="a mean that is no whole number"),
           Case((torch.tensor([300.0, 1.0, 1.0]).bfloat16(),), about="a sum that sixteen bits do not hold exactly"),
           Case((torch.tensor([1e5, 3e5]).bfloat16(),), about="numbers beyond fp16's largest")),
    hints=("Where does adding 1 stop having an effect in bf16? Which type has room for the sum?",
           "Convert before adding: `x.float()` holds every 16-bit value exactly.",
           "`x.float().mean()` is the mean in fp32; `.to(x.dtype)` brings it back."),
    mistakes=(
        Mistake("The sum stuck at 256: it lives in bf16, whose spacing becomes 2 there."),
        Mistake("The sum itself was rounded to sixteen bits before the division; fp16 ends at 65,504.",
                (".mean()", ".sum()", "x.dtype)", "x.dtype) / len(x)"), ("x.float().mean()", "x.sum() / len(x)")),
        Mistake("Divided first, each term is rounded in 16 bits, and a thousand small errors add up.",
                ("x.float().mean()", "sum(x / len(x))"), ("x.float().mean()", "(x / len(x)).sum()")),
        Mistake("Whole numbers lose what stands behind the point: an integer sum, `//` or a rounded mean.",
                (".float()", ".int().float()"), (".mean()", ".mean().round()"), (".mean()", ".sum() // len(x)")),
        Mistake("The means of parts of unlike lengths were averaged as if all counted alike.",
                ("x.float()", "torch.stack([part.float().mean() for part in x.split(100)])"),
                ("x.float()", "torch.stack([part.float().mean() for part in x.split(256)])")),
    ),
    draw=lambda rng: (integers(rng, 0, 60, rng.choice((7, 300, 1025)), dtype=rng.choice(SHORT)) / 8,),
    tolerance=0.0,
    moral="torch's own `x.mean()` adds up in fp32 as well. Matrix units do the same: 16 bits in, 32 bits to add.")


def bf16_bits(x: torch.Tensor) -> torch.Tensor:
    """The bf16 patterns of a float32 tensor, as int64 from 0 to 65535."""
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return torch.where(torch.isnan(x), (bits >> 16) | 0x40, rounded)


BF16_BITS = Exercise(1, bf16_bits, "★★★ Spot the bug: sixteen bits cut off · 10 min", """
bf16 is the upper half of fp32, so libraries of good name converted by cutting the lower half off
([universal#1133](https://github.com/stillwater-sc/universal/issues/1133),
[tt-metal#19882](https://github.com/tenstorrent/tt-metal/pull/19882)):

```python
import torch

def bf16_bits(x):
    return (x.view(torch.int32).long() & 0xFFFFFFFF) >> 16
```

But 0.26914088 became 0.26757812, where 0.26953125 is nearer. And a NaN whose ones all lie in the lower half became
infinity ([dotnet/runtime#130583](https://github.com/dotnet/runtime/pull/130583)). Write it with rounding to nearest,
ties to even. For NaN keep the upper sixteen bits and set the bit 0x40, so that a NaN stays one.
""",
    cases=(Case((torch.tensor([0.2691408770292272]),)),
           Case((torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8]),), about="values half-way between two patterns"),
           Case((torch.tensor([-1.5, -0.0]),), about="the sign bit"),
           Case((torch.tensor([torch.inf, -torch.inf]),), about="infinity"),
           Case((torch.tensor([3.4028234663852886e38]),), about="a finite number that rounds to infinity"),
           Case((torch.tensor([0x7F800001]).int().view(torch.float32),), about="a NaN with ones in its lower half only",
                shown="the NaN 0x7f800001"),
           Case((torch.tensor([0xFFA50000]).int().view(torch.float32),), about="NaN with other ones in the upper half",
                shown="the NaN 0xffa50000"),
           Case((torch.tensor([0x7FFFFFFF]).int().view(torch.float32),), about="a NaN of ones, where adding carries",
                shown="the NaN 0x7fffffff")),
    hints=("Add something before you shift, so that more than half a step carries into the bits that stay.",
           "Adding half a step, 0x8000, sends ties up. To even: 0x7FFF and the last bit kept, `(bits >> 16) & 1`.",
           "For NaN nothing may carry: `torch.where(torch.isnan(x), (bits >> 16) | 0x40, rounded)`."),
    mistakes=(
        Mistake("That is cut off, not rounded: 0x3e8a is nearer."),
        Mistake("These lie half-way, and went to odd: even means that the last bit is 0.", ("+ ((", "+ 1 - ((")),
        Mistake("Ties go up here. To even is down half of the time.", ("0x7FFF + ((bits >> 16) & 1)", "0x8000")),
        Mistake("Ties go down here. To even is up half of the time.", (" + ((bits >> 16) & 1)", "")),
        Mistake("A negative number has its highest bit set: the int32 stayed negative.", (" & 0xFFFFFFFF", "")),
        Mistake("The sign bit is lost.", ("0xFFFFFFFF", "0x7FFFFFFF")),
        Mistake("Beyond the largest value rounding carries into the exponent and gives infinity, as it should.",
                (", rounded)", ", rounded - ((rounded & 0x7FFF) == 0x7F80).long())")),
        Mistake("The NaN is one no more: the rounding carried into its exponent, or the cut took its last ones.",
                ("(bits >> 16) | 0x40", "rounded"), (" | 0x40", "")),
        Mistake("Every NaN became the same one: keep its upper sixteen bits.", ("(bits >> 16) | 0x40", "0x7FC0"),
                ("(bits >> 16) | 0x40", "(bits >> 16) & 0x8000 | 0x7FC0"),
                ("(bits >> 16) | 0x40", "x.bfloat16().view(torch.int16).long() & 0xFFFF")),
    ),
    draw=lambda rng: (integers(rng, 0, 2**32 - 1, 4).int().view(torch.float32),),
    hexadecimal=4,
    moral="Cutting always errs towards zero. In a long sum such errors do not cancel; those of ties to even do.")
