"""Answers to lesson 01's exercises that nobody registered, written from the prompts alone."""

import math
import struct
from fractions import Fraction

import numpy as np
import torch

from corpus import right, wrong
from helpers.floats import cast, exponent_of, power_of_two

# --- decode_e4m3

def _fields(text):
    return (-1) ** int(text[0]), int(text[1:5], 2), int(text[5:], 2)


@wrong("decode_e4m3", "no subnormals: exponent field 0 also gets the leading one")
def _(text):
    sign, exponent, mantissa = _fields(text)
    if text[1:] == "1111111":
        return math.nan
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


@wrong("decode_e4m3", "subnormals get the exponent -7 instead of -6: half their value")
def _(text):
    sign, exponent, mantissa = _fields(text)
    if text[1:] == "1111111":
        return math.nan
    return sign * ((exponent > 0) + mantissa / 8) * 2.0 ** (exponent - 7)


@wrong("decode_e4m3", "the whole top exponent is NaN: 256 to 448 are lost")
def _(text):
    sign, exponent, mantissa = _fields(text)
    if exponent == 15:
        return math.nan
    return sign * (mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


@wrong("decode_e4m3", "mantissa read from right to left: first digit is worth 1/8")
def _(text):
    sign, exponent, _ = _fields(text)
    if text[1:] == "1111111":
        return math.nan
    mantissa = int(text[:4:-1], 2)
    return sign * (mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


@wrong("decode_e4m3", "NaN only with sign 0: 11111111 becomes -480")
def _(text):
    if text == "01111111":
        return math.nan
    sign, exponent, mantissa = _fields(text)
    return sign * (mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


@wrong("decode_e4m3", "the sign of subnormals is forgotten")
def _(text):
    sign, exponent, mantissa = _fields(text)
    if exponent == 0:
        return mantissa / 8 * 2**-6
    return math.nan if text[1:] == "1111111" else sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


@wrong("decode_e4m3", "all 256 patterns are numbers: 1111111 becomes 480, no NaN")
def _(text):
    sign, exponent, mantissa = _fields(text)
    return sign * (mantissa / 8 * 2**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


@wrong("decode_e4m3", "slices off by one: five digits of exponent and two of mantissa")
def _(text):
    if text[1:] == "1111111":
        return math.nan
    sign, exponent, mantissa = (-1) ** int(text[0]), int(text[1:6], 2), int(text[6:], 2)
    return sign * (mantissa / 4 * 2.0**-6 if exponent == 0 else (1 + mantissa / 4) * 2.0 ** (exponent - 7))


@right("decode_e4m3", "whole numbers: the magnitude in steps of 1/512, shifted")
def _(text):
    bits = int(text, 2)
    magnitude = bits & 127
    if magnitude == 127:
        return float("nan")
    exponent, mantissa = divmod(magnitude, 8)
    steps = mantissa if not exponent else (8 | mantissa) << (exponent - 1)
    return (-steps if bits > 127 else steps) / 512


@right("decode_e4m3", "torch's own float8 reads the byte")
def _(text):
    return torch.tensor([int(text, 2)], dtype=torch.uint8).view(torch.float8_e4m3fn).float().item()


@right("decode_e4m3", "walks up from zero, adding one gap after the other")
def _(text):
    steps = int(text[1:], 2)
    if steps == 127:
        return math.inf - math.inf
    value = 0.0
    for i in range(steps):
        value += 2.0 ** (max(i // 8, 1) - 10)
    return math.copysign(value, -1 if text.startswith("1") else 1)


# --- nearest_magnitude

@wrong("nearest_magnitude", "converts to int64 without rounding: cuts off")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = (magnitude * power_of_two(fmt.mantissa_bits - e)).long()
    return steps + ((e - fmt.emin) << fmt.mantissa_bits)


@wrong("nearest_magnitude", "adds a half and rounds down: every tie goes up")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = (magnitude / power_of_two(e - fmt.mantissa_bits) + 0.5).floor().long()
    return steps + (e - fmt.emin) * 2**fmt.mantissa_bits


@wrong("nearest_magnitude", "no lower end for the exponent: subnormals get the exponents below emin")
def _(magnitude, fmt):
    e = torch.where(magnitude > 0, exponent_of(magnitude), fmt.emin)
    steps = torch.round(magnitude * power_of_two(fmt.mantissa_bits - e)).long()
    return steps + ((e - fmt.emin) << fmt.mantissa_bits)


@wrong("nearest_magnitude", "biased exponent beside steps that hold the hidden 1")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(fmt.mantissa_bits - e)).long()
    return ((e + fmt.bias) << fmt.mantissa_bits) + steps


@wrong("nearest_magnitude", "fields apart: mantissa without its hidden 1, or-ed to the exponent, no carry")
def _(magnitude, fmt):
    p = fmt.mantissa_bits
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(p - e)).long()
    field = torch.where(steps < 2**p, 0, e + fmt.bias)
    return (field << p) | (steps & (2**p - 1))


@wrong("nearest_magnitude", "goes over float32 first: rounded twice")
def _(magnitude, fmt):
    x = magnitude.float().double()
    e = exponent_of(x).clamp(min=fmt.emin)
    return (x * power_of_two(fmt.mantissa_bits - e)).round().long() + ((e - fmt.emin) << fmt.mantissa_bits)


@wrong("nearest_magnitude", "saturates at the largest number")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(fmt.mantissa_bits - e)).long()
    return (steps + ((e - fmt.emin) << fmt.mantissa_bits)).clamp(0, fmt.largest)


@wrong("nearest_magnitude", "the steps alone, without the exponent")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    return torch.round(magnitude * power_of_two(fmt.mantissa_bits - e)).long()


@wrong("nearest_magnitude", "returns float64: the steps are not turned to int64")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    return torch.round(magnitude * power_of_two(fmt.mantissa_bits - e)) + ((e - fmt.emin) << fmt.mantissa_bits)


@right("nearest_magnitude", "hidden 1 taken off, biased exponent put on, added so that both carry")
def _(magnitude, fmt):
    p = fmt.mantissa_bits
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(p - e)).long()
    return (steps - 2**p) + ((e + fmt.bias) << p)


@right("nearest_magnitude", "frexp and ldexp in place of the lesson's tools")
def _(magnitude, fmt):
    e = (torch.frexp(magnitude).exponent.long() - 1).clamp(min=fmt.emin)
    e = torch.where(magnitude == 0, fmt.emin, e)
    steps = torch.ldexp(magnitude, fmt.mantissa_bits - e).round().long()
    return steps + (e - fmt.emin) * 2**fmt.mantissa_bits


@right("nearest_magnitude", "exact fractions, one number at a time; Python rounds ties to even too")
def _(magnitude, fmt):
    out = []
    for value in magnitude.flatten().tolist():
        e = max(math.frexp(value)[1] - 1, fmt.emin) if value else fmt.emin
        steps = round(Fraction(value) / Fraction(2) ** (e - fmt.mantissa_bits))
        out.append(steps + (e - fmt.emin) * 2**fmt.mantissa_bits)
    return torch.tensor(out).view(magnitude.shape)


# --- first_lost_integer

@wrong("first_lost_integer", "2**(mantissa_bits + 1): the last of the run that is still held")
def _(fmt):
    return 2 ** (fmt.mantissa_bits + 1)


@wrong("first_lost_integer", "forgets the implicit bit: 2**mantissa_bits + 1")
def _(fmt):
    return 2**fmt.mantissa_bits + 1


@wrong("first_lost_integer", "returns the next one that is held, 2**(mantissa_bits + 1) + 2")
def _(fmt):
    return 2 ** (fmt.mantissa_bits + 1) + 2


@wrong("first_lost_integer", "^ for power: in Python it is exclusive or")
def _(fmt):
    return (2 ^ (fmt.mantissa_bits + 1)) + 1


@wrong("first_lost_integer", "searches up to 65,536 only: raises for fp32")
def _(fmt):
    numbers = torch.arange(1, 2**16)
    lost = numbers[cast(numbers.float(), fmt) != numbers]
    return lost[0].item()


@wrong("first_lost_integer", "the first integer beyond the largest value: range for precision")
def _(fmt):
    return int(fmt.max) + 1


@wrong("first_lost_integer", "257 for every format: right for bf16 only")
def _(fmt):
    return 257


@wrong("first_lost_integer", "one bit too many: 2**(mantissa_bits + 2) + 1")
def _(fmt):
    return 2 ** (fmt.mantissa_bits + 2) + 1


@right("first_lost_integer", "a shift and a bitwise or")
def _(fmt):
    return (2 << fmt.mantissa_bits) | 1


@right("first_lost_integer", "grows a row of ones until it needs more places than there are")
def _(fmt):
    places, n = fmt.mantissa_bits + 1, 1
    while n.bit_length() <= places:
        n = 2 * n + 1  # all ones
    return (n + 1) // 2 + 1


@right("first_lost_integer", "from the gap above 1: two over it, plus 1")
def _(fmt):
    return int(2 / fmt.eps) + 1


# --- safe_mean

@wrong("safe_mean", "the sum is rounded to sixteen bits before it is divided")  # half full of 60000: infinity
def _(x):
    return (x.sum().float() / len(x)).to(x.dtype)


@wrong("safe_mean", "the answer stays float32")
def _(x):
    return x.float().mean()


@wrong("safe_mean", "a running mean, kept in the dtype of x")
def _(x):
    mean = torch.zeros((), dtype=x.dtype)
    for i, value in enumerate(x):
        mean = mean + (value - mean) / (i + 1)
    return mean


@wrong("safe_mean", "divides each value in sixteen bits before adding up in float32")  # small values vanish in fp16
def _(x):
    return (x / len(x)).float().sum().to(x.dtype)


@wrong("safe_mean", "always returns bfloat16, for float16 too")
def _(x):
    return x.float().mean().to(torch.bfloat16)


@wrong("safe_mean", "returns shape (1,) instead of ()")
def _(x):
    return x.float().mean(dim=0, keepdim=True).to(x.dtype)


@wrong("safe_mean", "pairwise sums, but each of them in the dtype of x")
def _(x):
    n, total = len(x), x
    while len(total) > 1:
        total = torch.cat([total, total.new_zeros(len(total) % 2)])
        total = total[::2] + total[1::2]
    return (total[0].float() / n).to(x.dtype)


@wrong("safe_mean", "goes through float16: bf16 values above 65,504 become infinite")
def _(x):
    return x.half().float().mean().to(x.dtype)


@right("safe_mean", "Python floats added up exactly by fsum")
def _(x):
    return torch.tensor(math.fsum(x.tolist()) / len(x), dtype=x.dtype)


@right("safe_mean", "the given loop in float64")
def _(x):
    total = 0.0
    for value in x:
        total += value.item()
    return torch.as_tensor(total / x.numel()).to(x)


@right("safe_mean", "a dot product with ones in float64")
def _(x):
    ones = torch.ones(len(x), dtype=torch.float64)
    return (x.double() @ ones / len(x)).type(x.dtype)


# --- bf16_bits

def _bits(x):
    return x.view(torch.int32).long() & 0xFFFFFFFF


def _nearest(bits):
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


@wrong("bf16_bits", "ties go up in magnitude instead of to even")
def _(x):
    bits = _bits(x)
    return torch.where(x.isnan(), (bits >> 16) | 0x40, (bits + 0x8000) >> 16)


@wrong("bf16_bits", "every NaN becomes 0x7FC0: its sign and upper bits are lost")
def _(x):
    return torch.where(x.isnan(), 0x7FC0, _nearest(_bits(x)))


@wrong("bf16_bits", "patterns of negative numbers come back negative: not 0 to 65535")
def _(x):
    bits = x.view(torch.int32).long()
    return torch.where(x.isnan(), (bits >> 16) | 0x40, _nearest(bits))


@wrong("bf16_bits", "infinity is taken for a NaN and gets the bit 0x40")
def _(x):
    bits = _bits(x)
    return torch.where(x.isfinite(), _nearest(bits), (bits >> 16) | 0x40)


@wrong("bf16_bits", "saturates: what rounds beyond the largest bf16 stays finite")  # 3.4e38
def _(x):
    bits = _bits(x)
    rounded = torch.where(x.isfinite(), torch.minimum(_nearest(bits), (bits >> 31 << 15) | 0x7F7F), bits >> 16)
    return torch.where(x.isnan(), rounded | 0x40, rounded)


@wrong("bf16_bits", "looks for NaN in the upper half only; ones in the lower half are missed")
def _(x):
    bits = _bits(x)
    upper = bits >> 16
    isnan = (upper & 0x7FFF) > 0x7F80
    return torch.where(isnan, upper | 0x40, _nearest(bits))


@wrong("bf16_bits", "rounds NaN like a number before 0x40 is set")  # 0x7FFFFFFF: the carry reaches the sign
def _(x):
    rounded = _nearest(_bits(x))
    return torch.where(x.isnan(), rounded | 0x40, rounded)


@wrong("bf16_bits", "looks at bit 15, not bit 16, to see whether the pattern is even")
def _(x):
    bits = _bits(x)
    return torch.where(x.isnan(), (bits >> 16) | 0x40, (bits + 0x7FFF + ((bits >> 15) & 1)) >> 16)


@right("bf16_bits", "numpy's uint32, and the remainder compared with a half")
def _(x):
    bits = x.contiguous().numpy().view(np.uint32).astype(np.int64)
    upper, rest = bits // 65536, bits % 65536
    up = (rest > 32768) | ((rest == 32768) & (upper % 2 == 1))
    return torch.from_numpy(np.asarray(np.where(np.isnan(x.numpy()), upper | 64, upper + up)))


@right("bf16_bits", "torch's own cast for numbers, bits by hand for NaN")
def _(x):
    out = x.bfloat16().view(torch.int16).long() % 65536
    nan = x != x
    out[nan] = (x[nan].view(torch.int32).long() >> 16) % 65536 | 0x40
    return out


@right("bf16_bits", "one number at a time with struct")
def _(x):
    out = []
    for bits in x.flatten().view(torch.int32).tolist():
        upper, rest = struct.unpack("HH", struct.pack("i", bits))[::-1]
        nan = (bits & 0x7FFFFFFF) > 0x7F800000
        out.append(upper | 64 if nan else upper + (rest + upper % 2 > 0x8000))
    return torch.tensor(out, dtype=torch.int64).view(x.shape)
