"""Float formats of up to 32 bits: sign, exponent and mantissa, encoded to bit patterns and decoded again.

    encode(x, BF16)     bit patterns, int64
    decode(bits, BF16)  values, float32, which holds every value of these formats exactly
    cast(x, BF16)       decode(encode(x)): x rounded to the format

Rounding is to nearest, ties to even. All arithmetic is done in float64 with powers of two, where nothing is rounded by
accident. Formats: IEEE 754 (fp32, fp16), Micikevicius et al. 2022 (fp8, arXiv 2209.05433), OCP Microscaling 1.0 (fp4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class FloatFormat:
    """One bit of sign, then `exponent_bits`, then `mantissa_bits`. A pattern's magnitude is all of it but the sign.

    `specials` says what the highest magnitudes mean. "ieee": the whole top exponent is taken, mantissa 0 for infinity,
    all others for NaN. "one nan": only the very last magnitude, for NaN; there is no infinity. "none": all are numbers.
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str = "ieee"

    @property
    def bits(self) -> int:
        """Bits of a pattern, the sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def emin(self) -> int:
        """The exponent of the smallest normal values, which the subnormals share."""
        return 1 - self.bias

    @property
    def infinity(self) -> int | None:
        """The magnitude pattern of infinity, if there is one."""
        return (2**self.exponent_bits - 1) << self.mantissa_bits if self.specials == "ieee" else None

    @property
    def nan(self) -> int | None:
        """The magnitude pattern written for NaN, if there is one: with IEEE, the top mantissa bit set (a quiet NaN)."""
        if self.specials == "ieee":
            return self.infinity + 2**(self.mantissa_bits - 1)
        return 2**(self.bits - 1) - 1 if self.specials == "one nan" else None

    @property
    def largest(self) -> int:
        """The magnitude pattern of the largest finite value."""
        return {"ieee": self.infinity, "one nan": self.nan, "none": 2**(self.bits - 1)}[self.specials] - 1

    @property
    def max(self) -> float:
        """The largest finite value."""
        return finite_value(torch.tensor(self.largest), self).item()

    @property
    def min_subnormal(self) -> float:
        """The smallest value above zero."""
        return 2.0**(self.emin - self.mantissa_bits)

    @property
    def eps(self) -> float:
        """The gap between 1 and the next value above."""
        return 2.0**-self.mantissa_bits

    def spacing(self, x: torch.Tensor | float) -> torch.Tensor:
        """The gap between |x| (any shape) and the next value of the format above it; NaN beyond `max`. float32."""
        magnitude = torch.as_tensor(x).detach().double().abs()
        gap = power_of_two(exponent_of(magnitude).clamp(min=self.emin) - self.mantissa_bits)
        return torch.where(magnitude <= self.max, gap, torch.nan).float()


FP32 = FloatFormat("fp32", 8, 23, 127)
TF32 = FloatFormat("tf32", 8, 10, 127)
FP16 = FloatFormat("fp16", 5, 10, 15)
BF16 = FloatFormat("bf16", 8, 7, 127)
FP8_E4M3 = FloatFormat("fp8 e4m3", 4, 3, 7, "one nan")
FP8_E5M2 = FloatFormat("fp8 e5m2", 5, 2, 15)
FP4_E2M1 = FloatFormat("fp4 e2m1", 2, 1, 1, "none")
FORMATS = (FP32, TF32, FP16, BF16, FP8_E4M3, FP8_E5M2, FP4_E2M1)


def power_of_two(k: torch.Tensor) -> torch.Tensor:
    """2.0**k exactly, by writing k into the exponent of a float64. k: int64 in -1022 … 1023, any shape."""
    return ((k + 1023) << 52).view(torch.float64)


def exponent_of(magnitude: torch.Tensor) -> torch.Tensor:
    """The e of 2**e ≤ magnitude < 2**(e+1), read from the bits of a float64 ≥ 0; -1023 for zero. int64."""
    return (magnitude.view(torch.int64) >> 52) - 1023


def fields(bits: torch.Tensor, fmt: FloatFormat) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patterns taken apart into sign, exponent field and mantissa field, each an integer tensor of the same shape."""
    sign = bits >> (fmt.exponent_bits + fmt.mantissa_bits)
    exponent = (bits >> fmt.mantissa_bits) & (2**fmt.exponent_bits - 1)
    mantissa = bits & (2**fmt.mantissa_bits - 1)
    return sign, exponent, mantissa


def finite_value(bits: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """The value of patterns (int64) as if there were no infinity and no NaN. float64, exact."""
    sign, exponent, mantissa = fields(bits, fmt)
    hidden = (exponent > 0) * 2**fmt.mantissa_bits
    e = exponent.clamp(min=1) - fmt.bias
    value = (hidden + mantissa) * power_of_two(e - fmt.mantissa_bits)
    return torch.where(sign == 1, -value, value)


def nearest_magnitude(magnitude: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """The pattern nearest to a float64 ≥ 0, ties to even, as if the exponents went on for ever. int64.

    Within one exponent the patterns count steps of 2**(e - mantissa_bits); a step too many carries into the next.
    """
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(fmt.mantissa_bits - e))
    return steps.long() + ((e - fmt.emin) << fmt.mantissa_bits)


def encode(x: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """The bit patterns of x rounded to the format: int64, same shape. x: floating point, any shape.

    Beyond the rounding border (max plus half a step) x becomes infinity with "ieee", NaN with "one nan", and ±max with
    "none", as in ml_dtypes. Raises ValueError for a tensor that is empty or not floating point, for what is not a
    FloatFormat, and for NaN where the format has none.
    """
    _check_format(fmt)
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise ValueError(f"x is {kind}: encode takes a floating point tensor, such as torch.tensor(1.5) or x.float()")
    if x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)} and no element: there is nothing to encode")
    x = x.detach().double()
    isnan = torch.isnan(x)
    if fmt.nan is None and isnan.any():
        raise ValueError(f"x holds NaN, which {fmt.name} cannot write: clean it first, say with torch.nan_to_num")
    magnitude = torch.where(isnan, 0.0, x.abs()).clamp(max=2 * fmt.max)
    overflow = {"ieee": fmt.infinity, "one nan": fmt.nan, "none": fmt.largest}[fmt.specials]
    pattern = nearest_magnitude(magnitude, fmt)
    pattern = torch.where(pattern > fmt.largest, overflow, pattern)
    pattern = torch.where(isnan, fmt.nan or 0, pattern)
    return pattern | (torch.signbit(x).long() << (fmt.bits - 1))


def decode(bits: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """The values of bit patterns: float32, same shape. bits: integers from 0 to 2**fmt.bits - 1.

    Raises ValueError for a tensor that is empty, not integer or out of range, and for what is not a FloatFormat.
    """
    _check_format(fmt)
    if not isinstance(bits, torch.Tensor) or bits.is_floating_point() or bits.dtype in (torch.bool, torch.complex64):
        kind = bits.dtype if isinstance(bits, torch.Tensor) else type(bits).__name__
        raise ValueError(f"bits is {kind}: decode takes an integer tensor of patterns, as encode(x, fmt) returns")
    if bits.numel() == 0:
        raise ValueError(f"bits has shape {tuple(bits.shape)} and no element: there is nothing to decode")
    bits = bits.long()
    outside = (bits < 0) | (bits >= 2**fmt.bits)
    if outside.any():
        last = 2**fmt.bits - 1
        raise ValueError(f"bits holds {bits[outside][0].item()}: patterns of {fmt.name} run from 0 to {last}; "
                         f"for negative ones from a signed view, take bits & {last:#x}")
    value = finite_value(bits, fmt)
    magnitude = bits & (2**(fmt.bits - 1) - 1)
    special = torch.where(magnitude == fmt.infinity, value.sign() * torch.inf, torch.nan) if fmt.infinity else torch.nan
    return torch.where(magnitude > fmt.largest, special, value).float()


def cast(x: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """x rounded to the nearest values of the format: float32, same shape. Raises ValueError as `encode` does."""
    return decode(encode(x, fmt), fmt)


def bit_string(pattern: int, fmt: FloatFormat) -> str:
    """A pattern as text, its three fields apart: `0 10000 1000000000` is 3.0 in fp16."""
    digits = f"{pattern:0{fmt.bits}b}"
    return f"{digits[0]} {digits[1:1 + fmt.exponent_bits]} {digits[1 + fmt.exponent_bits:]}"


def _check_format(fmt: FloatFormat) -> None:
    if not isinstance(fmt, FloatFormat):
        raise ValueError(f"fmt={fmt!r} is not a FloatFormat: take one of FP32, TF32, FP16, BF16, FP8_E4M3, FP8_E5M2, "
                         "FP4_E2M1, or make your own with FloatFormat(...)")
