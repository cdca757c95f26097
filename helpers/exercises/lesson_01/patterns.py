"""From the bits of a format to its values."""

from __future__ import annotations

import math

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.floats import BF16, FP4_E2M1, FP16, FP32, FloatFormat


def decode_e4m3(text: str) -> float:
    """The value of eight digits: sign, four of exponent (bias 7), three of mantissa."""
    sign, exponent, mantissa = int(text[0]), int(text[1:5], 2), int(text[5:], 2)
    if exponent == 15 and mantissa == 7:
        return math.nan
    hidden = 1 if exponent > 0 else 0
    value = (hidden + mantissa / 8) * 2.0 ** (max(exponent, 1) - 7)
    return -value if sign else value


DECODE_E4M3 = Exercise(1, decode_e4m3, "★★ Build: eight bits, by hand · 7 min", """
Read fp8 E4M3 from its digits: `decode_e4m3("00111100")` is 1.5. One bit of sign, four of exponent with bias 7, three of
mantissa. Mind the subnormals. E4M3 has no infinity; behind the sign, only `1111111` is special: NaN.
""",
    cases=(Case(("00111000",), about="the exponent field 0111, which is the bias, and no mantissa"),
           Case(("00111100",), about="a one as the first of the mantissa's three digits"),
           Case(("00111001",), about="a one as the last of the mantissa's three digits"),
           Case(("10111010",), about="the sign bit"), Case(("01111000",), about="the top exponent"),
           Case(("01111111",), about="NaN"), Case(("11111111",), about="NaN with the sign bit"),
           Case(("00000011",), about="exponent field 0"),
           Case(("10000011",), about="a negative number with exponent field 0"), Case(("00000000",), about="zero"),
           Case(("00001000",), about="the smallest exponent field that is not 0")),
    hints=('`int("0111", 2)` is 7. Cut the text at 1 and 5.',
           "Normal values are (1 + mantissa / 8) · 2**(exponent - 7), with the sign in front.",
           "With exponent field 0 there is no hidden 1, and the exponent is 1 - 7, not 0 - 7. `1111111` is NaN."),
    mistakes=(
        Mistake("The hidden 1 is missing: a normal value has a 1 before the point.", ("hidden + mantissa", "mantissa")),
        Mistake("The bias is missing: the field 7 stands for the exponent 0.", (" - 7", "")),
        Mistake("The bias is 7 = 2**(4 - 1) - 1: the exponent is one off.", ("- 7)", "- 8)"), ("- 7)", "- 6)")),
        Mistake("The mantissa counts eighths behind the point: its three bits have 8 values.",
                ("mantissa / 8", "mantissa"), ("mantissa / 8", "mantissa / 7"), ("mantissa / 8", "mantissa / 10")),
        Mistake("The first bit is the sign: with a 1 the value is negative.", ("-value if sign else value", "value")),
        Mistake("That is IEEE's rule. In E4M3 the top exponent holds ordinary numbers up to 448.",
                (" and mantissa == 7", ""), (" and mantissa == 7", "", ".nan", ".nan if mantissa else math.inf")),
        Mistake("1111111 is NaN; read as a number it would be 480.", ("exponent == 15", "False")),
        Mistake("E4M3 has no infinity: its only special magnitude, 1111111, is NaN.", ("math.nan", "math.inf")),
        Mistake("NaN has either sign: the first bit has no part in it.", ("== 15 and", "== 15 and not sign and")),
        Mistake("A hidden 1 was added. With exponent field 0 there is none: else 0 could not be written.",
                ("1 if exponent > 0 else 0", "1"), ("1 if exponent > 0 else 0", "1", "max(exponent, 1)", "exponent")),
        Mistake("Half of what it should be: subnormals share field 1's exponent.", ("max(exponent, 1)", "exponent")),
        Mistake("Subnormals are flushed to zero here. They are values.", ("return", "return exponent and")),
        Mistake("The exponent field 1 has a hidden 1: only field 0 has none.", ("exponent > 0", "exponent > 1")),
    ),
    draw=lambda rng: (f"{rng.randrange(256):08b}",),
    moral="Two rules and one exception. Only the four numbers differ from format to format.")


def first_lost_integer(fmt: FloatFormat) -> int:
    """The smallest positive integer that `fmt` has no pattern for."""
    digits = fmt.mantissa_bits + 1
    return 2**digits + 1


FIRST_LOST_INTEGER = Exercise(1, first_lost_integer, "★ The first position that gets lost · 5 min", """
Positions in a text are whole numbers, and more than one model has stored them in bf16, where long prompts then mix up
their tokens ([OneTrainer#1177](https://github.com/Nerogar/OneTrainer/issues/1177),
[gpt-neox#1003](https://github.com/EleutherAI/gpt-neox/issues/1003)). Which is the smallest positive integer that a
format cannot hold? `fmt.mantissa_bits` is all you need.
""",
    cases=(Case((BF16,)), Case((FP16,), about="another format than bf16"),
           Case((FP32,), about="a number that float32 itself cannot hold"),
           Case((FP4_E2M1,), about="a format with one mantissa bit")),
    hints=("Integers are all there while the spacing is 1 or less. Where does it become 2?",
           "In bf16 the spacing is 1 from 128 to 256, and 2 from 256 on. 256 itself is still there.",
           "mantissa_bits + 1 binary digits count to 2**(mantissa_bits + 1); one more is lost."),
    mistakes=(
        Mistake("The hidden 1 is one more digit than the mantissa has: 129 is still there.", ("bits + 1", "bits")),
        Mistake("The hidden 1 is one digit, and here it was counted twice.", ("bits + 1", "bits + 2")),
        Mistake("That is a power of two: 1 times an exponent. It is there.", ("digits + 1", "digits")),
        Mistake("One less than a power of two: its digits fit, the next integer's too.", ("digits + 1", "digits - 1")),
        Mistake("That is the next one which is there. The one before it is lost.", ("**digits + 1", "**digits + 2")),
        Mistake("There the spacing becomes 1, which is fine for integers.", ("2**digits + 1", "2 ** (digits - 1)")),
        Mistake("n binary digits count up to 2**n, not to n² or 2n.", ("2**digits", "digits**2"), ("2**d", "2 * d")),
        Mistake("That is bf16's, for every format.", ("2**digits + 1", "257")),
        Mistake("The bits of the exponent make numbers larger, not finer: they do not count here.",
                ("fmt.mantissa_bits + 1", "fmt.bits"), ("fmt.mantissa_bits + 1", "fmt.bits - 1")),
        Mistake("That is past the largest value. Long before it the format has gaps.", ("2**digits", "int(fmt.max)")),
    ),
    draw=lambda rng: (FloatFormat("made up", 8, rng.randint(1, 20), 127),),
    moral="257 in bf16, 2,049 in fp16, 16,777,217 in fp32: counters and positions belong in integers or fp32.")
