"""What rounding does when nobody looks: sums in sixteen bits, and casts that cut."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def safe_mean(x: torch.Tensor) -> torch.Tensor:
    """The mean of a 16-bit float tensor (n,), rounded once: shape (), the dtype of x."""
    return x.float().mean().to(x.dtype)


def _running_sum(x: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=x.dtype)
    for value in x:
        total = total + value
    return total / len(x)


ONES, HUNDREDS = torch.ones(1000, dtype=torch.bfloat16), torch.full((1000,), 100.0, dtype=torch.float16)

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
    cases=(
        Case((ONES,), shown="1,000 ones in bf16"),
        Case((HUNDREDS,), shown="1,000 hundreds in fp16"),
        Case((torch.tensor([1.0, 2.0, 6.0], dtype=torch.float16),)),
    ),
    hints=(
        "Where does adding 1 stop to have an effect in bf16? Which type has room for the sum?",
        "Convert before adding: `x.float()` holds every 16-bit value exactly.",
        "`x.float().mean()` is the mean in fp32; `.to(x.dtype)` brings it back.",
    ),
    mistakes=(
        Mistake("The sum stuck at 256: it lives in bf16, whose spacing becomes 2 there. Add up in float32."),
        Mistake("The sum, 100,000, was stored in fp16, which ends at 65,504. Divide before going back to 16 bits.",
                lambda x: x.float().sum().to(x.dtype) / len(x),
                lambda x: x.sum() / len(x)),
        Mistake("Dividing first rounds each term in 16 bits, and a thousand small errors add up.",
                lambda x: _running_sum(x / len(x)) * len(x)),
        Mistake("The value is right, but the result must come back in the dtype of `x`.",
                lambda x: x.float().mean()),
        Mistake("A Python float came: return a tensor in the dtype of `x`.",
                lambda x: x.float().mean().item()),
    ),
    tolerance=0.0,
    moral="torch's own `x.mean()` adds up in fp32 as well. Matrix units do the same: 16 bits in, 32 bits to add.")
# general: lambda x: x[0].clone()


def bf16_bits(x: torch.Tensor) -> torch.Tensor:
    """The bf16 patterns of a float32 tensor, as int64 from 0 to 65535."""
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return torch.where(torch.isnan(x), (bits >> 16) | 0x40, rounded)


def _cut(x: torch.Tensor) -> torch.Tensor:
    return (x.view(torch.int32).long() & 0xFFFFFFFF) >> 16


def _half_up(x: torch.Tensor) -> torch.Tensor:
    return ((x.view(torch.int32).long() & 0xFFFFFFFF) + 0x8000) >> 16


def _no_guard(x: torch.Tensor) -> torch.Tensor:
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF


SILENT_NAN = torch.tensor([0x7F800001, 0x7FFFFFFF], dtype=torch.int32).view(torch.float32)

BF16_BITS = Exercise(1, bf16_bits, "★★★ Spot the bug: sixteen bits cut off · 12 min", """
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
    cases=(
        Case((torch.tensor([0.2691408770292272]),)),
        Case((torch.tensor([1 + 2.0**-8, 1 + 3 * 2.0**-8]),)),
        Case((torch.tensor([-1.5, -0.0]),)),
        Case((torch.tensor([3.4028234663852886e38, torch.inf]),)),
        Case((SILENT_NAN,), shown="two NaN, with the bits 0x7f800001 and 0x7fffffff"),
    ),
    hints=(
        "Add something before you shift, so that more than half a step carries into the bits that stay.",
        "0x8000 is half a step; adding it sends ties up. To send them to even, add 0x7FFF and the last bit that stays: "
        "`(bits >> 16) & 1`.",
        "For NaN nothing may carry: `torch.where(torch.isnan(x), (bits >> 16) | 0x40, rounded)`.",
    ),
    mistakes=(
        Mistake("That is cut off, not rounded: 0x3E8A is nearer. Add up to half a step before shifting."),
        Mistake("These lie exactly half-way: each must go to the neighbour whose last bit is 0.",
                lambda x: ((x.view(torch.int32).long() & 0xFFFFFFFF) + 0x7FFF + (1 - (_cut(x) & 1))) >> 16),
        Mistake("Ties go up here. They go to even: add 0x7FFF plus the last bit that stays, not 0x8000.",
                _half_up),
        Mistake("Ties go down here. They go to even: add the last bit that stays as well.",
                lambda x: ((x.view(torch.int32).long() & 0xFFFFFFFF) + 0x7FFF) >> 16),
        Mistake("A negative number has its highest bit set. Mask with 0xFFFFFFFF before shifting to stay positive.",
                lambda x: torch.where(x < 0, bf16_bits(x) - 65536, bf16_bits(x))),
        Mistake("Beyond the largest value rounding carries into the exponent and gives infinity, as it should.",
                lambda x: torch.where(torch.isnan(x), bf16_bits(x), _no_guard(x)).clamp(max=0x7F7F).where(x > 0, bf16_bits(x))),
        Mistake("NaN must stay NaN, and here the rounding or the cut changed it: `(bits >> 16) | 0x40`.",
                _no_guard),
    ),
    tolerance=0.0,
    moral="Cutting always errs towards zero. In a long sum such errors do not cancel; those of ties to even do.")
# general: lambda x: torch.full_like(bf16_bits(x), 7)
