"""From a value to its bits: the nearest pattern."""

from __future__ import annotations

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.floats import BF16, FP4_E2M1, FP16, FP32, FloatFormat, exponent_of, power_of_two


def nearest_magnitude(magnitude: torch.Tensor, fmt: FloatFormat) -> torch.Tensor:
    """The patterns nearest to float64 values ≥ 0, ties to even: int64, same shape."""
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(fmt.mantissa_bits - e))
    return steps.long() + ((e - fmt.emin) << fmt.mantissa_bits)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


STEPS, PLACE = "torch.round(magnitude * power_of_two(fmt.mantissa_bits - e))", "((e - fmt.emin) << fmt.mantissa_bits)"

NEAREST_MAGNITUDE = Exercise(1, nearest_magnitude, "★★ Build: the nearest pattern · 6 min", """
`magnitude` holds float64 values, 0 or more, in any shape. Return for each the pattern of the nearest value of `fmt` as
int64; a tie goes to the pattern that ends in 0. Do as if the exponents went on for ever: what lies beyond the largest
number gets the pattern that would come there.

You have `exponent_of` and `power_of_two` from above, `fmt.mantissa_bits` (p), and `fmt.emin`, the exponent of the
smallest normal values, which the subnormals share. There the number of steps is the pattern itself.
""",
    cases=(Case((doubles(1.0, 1.5, 3.0, 208.0), BF16)), Case((doubles(0.1, 1234.7), FP16), about="values to round"),
           Case((doubles(257.0, 259.0, 513.0), BF16), about="ties"),
           Case((doubles(255.9, 1.9999), BF16), about="a rounding that carries into the next exponent"),
           Case((doubles(0.0, 1e-7, 5e-5), FP16), about="zero and values of fp16's subnormals"),
           Case((doubles(0.2, 0.3, 0.75, 5.0, 2.5), FP4_E2M1), about="a format with one mantissa bit"),
           Case((doubles(7e4, 1e6), FP16), about="values beyond the largest number"),
           Case((doubles(1 + 2.0**-8 + 2.0**-40, 7.3), BF16), about="a value that lies barely above a tie"),
           Case((doubles(0.1, 1 / 3), FP32), about="fp32"),
           Case((doubles(0.3, 40.0).view(2, 1), BF16), about="a column")),
    hints=("One step is 2^(e - p) wide: how many of them is the magnitude, rounded?",
           "`torch.round(magnitude * power_of_two(p - e))`, e = `exponent_of(magnitude).clamp(min=fmt.emin)`. Each "
           "exponent has 2^p patterns.",
           "The hidden 1 is in the steps already: `steps.long() + ((e - fmt.emin) << p)`."),
    mistakes=(
        Mistake("That is cut off, not rounded to the nearest.", ("torch.round", "torch.floor"),
                (STEPS, "(magnitude * power_of_two(fmt.mantissa_bits - e))")),
        Mistake("Ties all go up here. To even is down half of the time.",
                (STEPS, f"torch.floor(0.5 + {STEPS[12:-1]})")),
        Mistake("Ties all go down here. To even is up half of the time.", (STEPS, f"torch.ceil({STEPS[12:-1]} - 0.5)")),
        Mistake("Subnormals share the exponent emin. Here it went on falling below it.", (".clamp(min=fmt.emin)", ""),
                ("exponent_of(magnitude).clamp(min=fmt.emin)",
                 "torch.where(magnitude > 0, exponent_of(magnitude), fmt.emin)")),
        Mistake("All is one exponent too high: the hidden 1 is in the steps already.",
                ("e - fmt.emin", "e - fmt.emin + 1")),
        Mistake("The exponents do not begin at emin here: the bias is missing, or is one off.", ("e - fmt.emin", "e"),
                ("e - fmt.emin", "e - fmt.emin - 1"), ("e - fmt.emin", "e + fmt.bias - 2")),
        Mistake("The fields were put side by side, and a carry was lost: the step that is too many must go into the "
                "exponent.", ("steps.long() +", "(steps.long() & (2**(fmt.mantissa_bits + 1) - 1)) +"),
                ("steps.long() + " + PLACE, "(steps.long() % 2**fmt.mantissa_bits) | "
                 "((e + fmt.bias) << fmt.mantissa_bits)"),
                ("steps.long() + " + PLACE, "(steps.long() % 2**fmt.mantissa_bits) | (torch.where("
                 "steps < 2**fmt.mantissa_bits, 0, e + fmt.bias) << fmt.mantissa_bits)"),
                ("steps.long() + " + PLACE, "steps.long() | " + PLACE)),
        Mistake("The steps are counted once too coarsely or too finely: there are 2^p of them in each exponent.",
                ("fmt.mantissa_bits - e", "fmt.mantissa_bits - e - 1"),
                ("fmt.mantissa_bits - e", "fmt.mantissa_bits - e + 1")),
        Mistake("The steps are as wide in every exponent. They double with each.", ("- e)", "- fmt.emin)")),
        Mistake("The exponent is missing: that is how many steps, wherever they begin.", (" + " + PLACE, "")),
        Mistake("What lies beyond the largest number was held there. Here the patterns go on.",
                ("steps.long() + " + PLACE, f"(steps.long() + {PLACE}).clamp(max=fmt.largest)"),
                ("(magnitude)", "(magnitude.clamp(max=fmt.max))", "magnitude *", "magnitude.clamp(max=fmt.max) *")),
        Mistake("It was rounded twice: to float32 first, where what lies barely above a tie becomes one.",
                ("(magnitude)", "(magnitude.float().double())", "magnitude *", "magnitude.float().double() *")),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 4), dtype=torch.float64).abs() * 10.0 ** rng.randint(-5, 4),
                      rng.choice((FP16, BF16, FP4_E2M1))),
    moral="No case for the carry, none for overflow: a step too many runs into the exponent, and past the last "
          "exponent into infinity.")
