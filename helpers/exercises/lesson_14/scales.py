"""The scales of MXFP4 and NVFP4."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.floats import FP8_E4M3, FP8_E5M2, cast  # noqa: F401 (the second for a mistake)


def e8m0_scale(blocks: torch.Tensor) -> torch.Tensor:
    """The scale of each block, a power of two: float32 (n, 32) -> float32 (n,)."""
    absmax = blocks.abs().amax(dim=-1).double()
    exponent = absmax.log2().floor() - 2
    return (2.0 ** exponent.clamp(-127, 127)).float()


def _with_absmax(*values: float) -> tuple[torch.Tensor]:
    rows = torch.full((len(values), 32), 0.0)
    for row, value in zip(rows, values, strict=True):
        row[3], row[7] = value, -value / 8
    return (rows,)


EXPONENT, FLOOR = "absmax.log2().floor() - 2", ".floor()"
E8M0_SCALE = Exercise(14, e8m0_scale, "★★ Build: the scale of MXFP4 · 4 min", """
A block of MXFP4 is 32 values of E2M1, which end at 6 = 1.5 · 2², and one scale that is a power of two: 8 bits hold its
exponent, from -127 to 127, and no mantissa. The rule of the standard: take the greatest power of two that is not above
the block's absmax, and divide it by 4, the greatest power of two that E2M1 has. Return this scale for each block. The
least scale, 2⁻¹²⁷, also serves where it would be smaller, and in a block of zeros.
""",
    cases=(
        Case(_with_absmax(4.0, 8.0), about="an absmax that is a power of two"),
        Case(_with_absmax(6.0, 5.0), about="an absmax between two powers of two"),
        Case(_with_absmax(7.5), about="an absmax of more than 6 scales"),
        Case(_with_absmax(-6.0), about="a largest value below zero"),
        Case(_with_absmax(0.02, 0.3), about="small weights"),
        Case((torch.zeros(2, 32),), about="a block of zeros"),
        Case(_with_absmax(3e30), about="very large weights"),
        Case(_with_absmax(2.0**-126), about="values so small that the least scale serves"),
        Case(_with_absmax(7.9999995), about="an absmax one float32 step below 8"),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 4), 32) * 10 ** rng.uniform(-3, 3),),
    hints=("log₂ of the absmax, rounded down, is the exponent of the greatest power of two that is not above it.",
           "Dividing by 4 takes 2 from the exponent. log₂ 0 is minus infinity; `clamp` can deal with that.",
           "In float32 log₂ of 7.9999995 is rounded up to 3. `blocks.abs().amax(-1).double()` is exact enough."),
    mistakes=(
        Mistake("The 4 is missing: with a scale as large as the absmax's power of two, levels beyond 2 are never used.",
                (" - 2", "")),
        Mistake("Multiplied by 4, not divided.", (" - 2", " + 2")),
        Mistake("The exponent is one too high: half of the 4 is missing, or it came from `frexp`, which counts one "
                "more, as its mantissa is below 1.", (" - 2", " - 1")),
        Mistake("Cut off towards zero: below 1 the exponent is negative, and that rounds it up.", (FLOOR, ".trunc()")),
        Mistake("A block of zeros got a scale of its own kind, 1 or 0: it too has the least scale.",
                ("(2.0 ** exponent.clamp(-127, 127)).float()",
                 "torch.where(absmax > 0, 2.0 ** exponent.clamp(-127, 127), 1.0).float()"),
                ("(2.0 ** exponent.clamp(-127, 127)).float()",
                 "torch.where(absmax > 0, 2.0 ** exponent.clamp(-127, 127), 0.0).float()")),
        Mistake("Held at -127 before 2 was taken off: the least scale is 2⁻¹²⁷.",
                (EXPONENT, "absmax.log2().floor().clamp(-127, 127) - 2", "exponent.clamp(-127, 127)", "exponent")),
        Mistake("It is rounded up: the standard takes the power of two that is not above the absmax.",
                (FLOOR, ".ceil()")),
        Mistake("The exponent was rounded to the nearest; it is rounded down.", (FLOOR, ".round()")),
        Mistake("The absmax was divided by 6 first: the standard divides its power of two by 4, and lets what lies "
                "above 6 scales be cut to 6.", (EXPONENT, "(absmax / 6).log2().floor()"),
                (EXPONENT, "(absmax / 6).log2().ceil()"), (EXPONENT, "(absmax / 6).log2().round()")),
        Mistake("That is absmax / 6, as in an absmax codebook: E8M0 has powers of two only.",
                ("(2.0 ** exponent.clamp(-127, 127)).float()", "(absmax / 6).clamp(min=2.0**-127).float()")),
        Mistake("That is the exponent itself: the scale is 2 to its power.",
                ("(2.0 ** exponent.clamp(-127, 127)).float()", "exponent.clamp(-127, 127).float()")),
        Mistake("That is the pattern that is stored, the exponent + 127: the scale is 2 to the exponent's power.",
                ("(2.0 ** exponent.clamp(-127, 127)).float()", "(exponent.clamp(-127, 127) + 127).float()")),
        Mistake("The signs were not taken off before the maximum.", ("blocks.abs().amax", "blocks.amax")),
        Mistake("That is made of the block's mean magnitude: its greatest one counts.",
                ("amax(dim=-1)", "mean(dim=-1)")),
        Mistake("One scale was taken for all blocks: each has its own.",
                ("amax(dim=-1)", "amax().expand(len(blocks))")),
        Mistake("The exponent is not held at -127: E8M0 has no power of two below, and no zero.",
                (".clamp(-127, 127)", "")),
        Mistake("log₂ was taken in float32, where that of 7.9999995 is rounded up to 3.", (".double()", "")),
        Mistake("The logarithm is not to the base 2.", (".log2()", ".log()"), (".log2()", ".log10()")),
        Mistake("The scale has float64: float32 is wanted.", ("127)).float()", "127))")),
    ),
    moral="A scale without a mantissa is up to half too large, or a quarter too small: a power of two "
          "is cheap for hardware, and coarse.")


def nvfp4_scales(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """block_scale (rows, n / 16), values of E4M3, and tensor_scale (): both float32."""
    tensor_scale = x.abs().max() / (6 * 448)
    absmax = x.view(len(x), -1, 16).abs().amax(dim=-1)
    block_scale = cast(absmax / 6 / tensor_scale, FP8_E4M3)
    return block_scale.clamp(min=2**-9), tensor_scale


def _drawn(rng: random.Random) -> tuple[torch.Tensor]:
    return (normal(rng, rng.randint(1, 3), 16 * rng.randint(1, 3)) * 10 ** rng.uniform(-3, 3),)


def _blocks(*absmax: float, rows: int = 1) -> tuple[torch.Tensor]:
    x = torch.zeros(len(absmax), 16)
    for block, value in zip(x, absmax, strict=True):
        block[5], block[11] = value, -value / 4
    return (x.view(rows, -1),)


ROUNDED = "cast(absmax / 6 / tensor_scale, FP8_E4M3)"
NVFP4_SCALES = Exercise(14, nvfp4_scales, "★★ Build: the two scales of NVFP4 · 5 min", """
NVFP4 has blocks of 16 values of E2M1, which end at 6. A block's scale is a float of 8 bits, E4M3, which ends at 448;
and one float32 scale serves the whole tensor. A value is E2M1 · block_scale · tensor_scale.

The tensor's scale is chosen so that the block with the largest value of all gets the largest block scale there is, 448.
A block's scale is such that its own absmax would become 6, rounded to E4M3 by lesson 01's `cast`. One that would be
rounded to 0 becomes 2⁻⁹, E4M3's least value. x is float32 (rows, n), n a multiple of 16, and not all zeros; blocks lie
along the rows. Return both scales.
""",
    cases=(
        Case(_blocks(6.0 * 448), about="one block, whose absmax is 6 · 448"),
        Case(_blocks(6.0), about="one block, whose absmax is 6"),
        Case(_blocks(6.0 * 448, 6.0 * 2), about="two blocks, of which one is small"),
        Case(_blocks(-6.0 * 448, 6.0), about="a largest value below zero"),
        Case(_blocks(6.0 * 448, 6.0 * 4, 6.0 * 16, 6.0 * 64, rows=2), about="two rows"),
        Case(_blocks(6.0 * 448, 6.0 * 18), about="a block scale of 18"),
        Case(_blocks(6.0 * 448, 6.0 * 17), about="a block scale that E4M3 has not"),
        Case(_blocks(6.0 * 448, 6.0 * 2.3), about="a block scale that is no whole number"),
        Case(_blocks(6.0 * 448, 0.0), about="a block of zeros"),
        Case(_blocks(6.0 * 448, 6.0 * 2**-12), about="a block scale that would be rounded to 0"),
    ),
    draw=_drawn,
    hints=("Begin with the tensor: its absmax should be 6 · 448 · tensor_scale.",
           "A block's absmax should be 6 · block_scale · tensor_scale: solve for block_scale, then round it.",
           "`cast(absmax / 6 / tensor_scale, FP8_E4M3)`, and `.clamp(min=2**-9)` behind it."),
    mistakes=(
        Mistake("The tensor's scale is left out, or 1: block scales of real weights would all lie at E4M3's lower end.",
                ("x.abs().max() / (6 * 448)", "torch.tensor(1.0)")),
        Mistake("The tensor's absmax was divided by 448 only: 6 of E2M1 times 448 of E4M3 must reach it.",
                ("(6 * 448)", "448")),
        Mistake("The tensor's absmax was divided by 6 only: 6 of E2M1 times 448 of E4M3 must reach it.",
                ("(6 * 448)", "6")),
        Mistake("E4M3 ends at 448 here; 240 is the end of another E4M3.", ("(6 * 448)", "(6 * 240)")),
        Mistake("Each row got a scale of its own: one serves the whole tensor.",
                ("x.abs().max() / (6 * 448)", "x.abs().amax(dim=1, keepdim=True) / (6 * 448)")),
        Mistake("The block scale was rounded to E5M2, a float of eight bits with one bit of mantissa less.",
                ("FP8_E4M3)", "FP8_E5M2)")),
        Mistake("The 6 is missing in the block's scale: its absmax should become the level 6.",
                ("absmax / 6 / tensor_scale", "absmax / tensor_scale")),
        Mistake("The block scale is not rounded to E4M3: it has eight bits.",
                (ROUNDED, "absmax / 6 / tensor_scale")),
        Mistake("The block scale was rounded before it was divided by the tensor's scale.",
                (ROUNDED, "cast(absmax / 6, FP8_E4M3) / tensor_scale")),
        Mistake("The block scale was multiplied by the tensor's again: it should be a value of E4M3.",
                ("block_scale.clamp(min=2**-9), tensor_scale", "block_scale.clamp(min=2**-9) * tensor_scale, "
                                                                 "tensor_scale")),
        Mistake("The two scales are exchanged: the blocks' come first.",
                ("return block_scale.clamp(min=2**-9), tensor_scale", "return tensor_scale, "
                                                                        "block_scale.clamp(min=2**-9)")),
        Mistake("A block scale of 0 is left: values would be divided by it.", (".clamp(min=2**-9)", "")),
        Mistake("Only blocks of zeros got the least scale: a scale below 2⁻¹⁰ is rounded to 0 as well.",
                ("block_scale.clamp(min=2**-9)", "torch.where(absmax > 0, block_scale, 2**-9)")),
        Mistake("The least block scale is too high, 1 or E4M3's least normal number: subnormal ones go down to 2⁻⁹.",
                ("min=2**-9", "min=1"), ("min=2**-9", "min=2**-6")),
        Mistake("A row has one block here: blocks are 16 values long.",
                ("x.view(len(x), -1, 16)", "x[:, None]")),
        Mistake("The signs were not taken off before the maximum.", ("x.abs().max()", "x.max()"),
                (".abs().amax", ".amax")),
        Mistake("All scales stand in one row: (rows, n / 16) is wanted.", ("x.view(len(x), -1, 16)", "x.view(-1, 16)")),
    ),
    moral="Two scales, as in double quantization: a coarse one in 8 bits for each block, one in 32 for all of them.")
