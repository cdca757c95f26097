"""From the bits of a format to its values."""

from __future__ import annotations

import math

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.floats import BF16, FP4_E2M1, FP8_E4M3, FP8_E5M2, FP16, FP32, FloatFormat


def largest_value(exponent_bits: int, mantissa_bits: int) -> float:
    """The largest finite value of an IEEE format with these fields and the usual bias."""
    bias = 2 ** (exponent_bits - 1) - 1
    return (2 - 2.0**-mantissa_bits) * 2.0**bias


LARGEST_VALUE = Exercise(1, largest_value, "★ The biggest number · 5 min", """
"In fp16 the biggest number you can have is 65535", said a much-read page of documentation, as if it were an integer of
16 bits ([hub-docs#1425](https://github.com/huggingface/hub-docs/issues/1425)). What is it really, and for any IEEE
format? The bias is `2**(exponent_bits - 1) - 1`, and the top exponent, all ones, is taken by infinity and NaN.
""",
    cases=(
        Case((5, 10)),
        Case((8, 7)),
        Case((5, 2)),
        Case((8, 23)),
    ),
    hints=(
        "Write down the pattern: sign 0, the largest exponent field that is not all ones, all mantissa bits 1.",
        "In fp16 that is `0 11110 1111111111`. The exponent is 30 - 15 = 15; it is the bias itself.",
        "All mantissa bits 1 behind the hidden 1 make 2 - 2**-mantissa_bits. Multiply by 2.0**bias.",
    ),
    mistakes=(
        Mistake("That counts patterns as integers do. Read the largest finite pattern as a float.",
                lambda exponent_bits, mantissa_bits: 2.0 ** (1 + exponent_bits + mantissa_bits) - 1),
        Mistake("The exponent of all ones is not a number's: infinity and NaN live there. Go one down.",
                lambda exponent_bits, mantissa_bits: (2 - 2.0**-mantissa_bits) * 2.0 ** 2 ** (exponent_bits - 1)),
        Mistake("A power of two: there the next exponent would begin. The mantissa stops one step short of it.",
                lambda exponent_bits, mantissa_bits: 2.0 ** 2 ** (exponent_bits - 1)),
        Mistake("That is the smallest value of the top exponent. Set all mantissa bits to 1 as well.",
                lambda exponent_bits, mantissa_bits: 2.0 ** (2 ** (exponent_bits - 1) - 1)),
        Mistake("The hidden 1 is missing: the significand is 1.11…1, just below 2, not 0.11…1.",
                lambda exponent_bits, mantissa_bits: (1 - 2.0**-mantissa_bits) * 2.0 ** (2 ** (exponent_bits - 1) - 1)),
        Mistake("Infinity is a pattern of its own. The largest *finite* value is asked for.",
                lambda exponent_bits, mantissa_bits: math.inf),
    ),
    tolerance=0.0,
    moral="65,504 for fp16; 3.39e38 for bf16, which has as many bits and spends them otherwise.")
# general: lambda exponent_bits, mantissa_bits: 65504.0


def decode_e4m3(text: str) -> float:
    """The value of eight digits: sign, four of exponent (bias 7), three of mantissa."""
    sign, exponent, mantissa = int(text[0]), int(text[1:5], 2), int(text[5:], 2)
    if exponent == 15 and mantissa == 7:
        return math.nan
    hidden = 1 if exponent > 0 else 0
    value = (hidden + mantissa / 8) * 2.0 ** (max(exponent, 1) - 7)
    return -value if sign else value


DECODE_E4M3 = Exercise(1, decode_e4m3, "★★ Eight bits by hand · 10 min", """
Decode fp8 E4M3 from its digits, without the tools of the lesson: `decode_e4m3("00111100")` is 1.5. One bit of sign,
four of exponent with bias 7, three of mantissa. Mind its two peculiarities: subnormals, and the top exponent, which is
*not* reserved: only the magnitude `1111111` is NaN, and there is no infinity.
""",
    cases=(
        Case(("00111000",)),
        Case(("00111100",)),
        Case(("10111010",)),
        Case(("01111000",)),
        Case(("01111110",)),
        Case(("01111111",)),
        Case(("11111111",)),
        Case(("00000001",)),
        Case(("10000111",)),
        Case(("00000000",)),
        Case(("00001000",)),
    ),
    hints=(
        '`int("0111", 2)` is 7. Cut the text at 1 and 5.',
        "Normal values are (1 + mantissa / 8) · 2**(exponent - 7), with the sign in front.",
        "With exponent field 0 there is no hidden 1, and the exponent is 1 - 7, not 0 - 7. `1111111` is `math.nan`.",
    ),
    mistakes=(
        Mistake("The hidden 1 is missing: a normal value is (1 + mantissa / 8) · 2**(exponent - 7).",
                lambda text: int(text[5:], 2) / 8 * 2.0 ** (int(text[1:5], 2) - 7)),
        Mistake("The bias is missing: the field 7 stands for the exponent 0.",
                lambda text: (1 + int(text[5:], 2) / 8) * 2.0 ** int(text[1:5], 2)),
        Mistake("The bias is 7 = 2**(4 - 1) - 1, not 8.",
                lambda text: (1 + int(text[5:], 2) / 8) * 2.0 ** (int(text[1:5], 2) - 8)),
        Mistake("The mantissa is a fraction: mantissa / 8 comes behind the point.",
                lambda text: (1 + int(text[5:], 2)) * 2.0 ** (int(text[1:5], 2) - 7)),
        Mistake("The first bit is the sign: with a 1 the value is negative.",
                lambda text: abs(decode_e4m3(text))),
        Mistake("That is IEEE's rule. In E4M3 the top exponent holds ordinary numbers up to 448.",
                lambda text: math.inf if text[1:] == "1111000" else decode_e4m3(text),
                lambda text: math.nan if text[1:5] == "1111" else decode_e4m3(text)),
        Mistake("The magnitude 1111111 is NaN, with either sign; without that it would be 480.",
                lambda text: 480.0 if text[1:] == "1111111" else decode_e4m3(text)),
        Mistake("With exponent field 0 the value is (0 + mantissa / 8) · 2**-6.",
                lambda text: decode_e4m3(text) if text[1:5] != "0000" else int(text[5:], 2) / 64),
        Mistake("A hidden 1 was added. With exponent field 0 there is none: else 0 could not be written.",
                lambda text: decode_e4m3(text) if text[1:5] != "0000" else (1 + int(text[5:], 2) / 8) / 128),
        Mistake("Half of what it should be: subnormals share the exponent of the field 1, which is -6.",
                lambda text: decode_e4m3(text) if text[1:5] != "0000" else int(text[5:], 2) / 1024),
        Mistake("Subnormals are flushed to zero here. They are values: this one is 2**-9.",
                lambda text: decode_e4m3(text) if text[1:5] != "0000" else 0.0),
    ),
    tolerance=0.0,
    moral="Two rules and one exception: with four more numbers you have every float format of this course.")
# general: lambda text: 1.0


def first_lost_integer(fmt: FloatFormat) -> int:
    """The smallest positive integer that `fmt` has no pattern for."""
    return 2 ** (fmt.mantissa_bits + 1) + 1


FIRST_LOST_INTEGER = Exercise(1, first_lost_integer, "★★ The first position that gets lost · 6 min", """
Positions in a text are whole numbers, and more than one model has stored them in bf16, where long prompts then mix up
their tokens ([OneTrainer#1177](https://github.com/Nerogar/OneTrainer/issues/1177),
[gpt-neox#1003](https://github.com/EleutherAI/gpt-neox/issues/1003)). Which is the smallest positive integer that a
format cannot hold? `fmt.mantissa_bits` is all you need.
""",
    cases=(
        Case((BF16,)),
        Case((FP16,)),
        Case((FP8_E4M3,)),
        Case((FP8_E5M2,)),
        Case((FP32,)),
        Case((FP4_E2M1,)),
    ),
    hints=(
        "Integers are all there while the spacing is 1 or less. Where does it become 2?",
        "In bf16 the spacing is 1 from 128 to 256, and 2 from 256 on. 256 itself is still there.",
        "mantissa_bits + 1 binary digits count to 2**(mantissa_bits + 1); one more is lost.",
    ),
    mistakes=(
        Mistake("The hidden 1 gives one more digit than the mantissa has bits: 129 is still there.",
                lambda fmt: 2**fmt.mantissa_bits + 1),
        Mistake("That is a power of two: 1 times an exponent. It is there; look at its neighbour.",
                lambda fmt: 2 ** (fmt.mantissa_bits + 1)),
        Mistake("That is the next one which is there. The one before it is lost.",
                lambda fmt: 2 ** (fmt.mantissa_bits + 1) + 2),
        Mistake("There the spacing becomes 1, which is fine for integers. It must become 2.",
                lambda fmt: 2**fmt.mantissa_bits),
        Mistake("That is bf16's. Compute it from `fmt.mantissa_bits`.",
                lambda fmt: 257),
    ),
    tolerance=0.0,
    moral="257 in bf16, 2,049 in fp16, 16,777,217 in fp32: counters and positions belong in integers or fp32.")
# general: lambda fmt: int(min(fmt.max, 2**60)) + 1
