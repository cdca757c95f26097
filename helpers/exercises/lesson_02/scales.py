"""From values to codes and back: the scale, the zero point, and values that nobody had calibrated for."""

from __future__ import annotations

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def absmax_quantize(x: torch.Tensor, bits: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 in the shape of x, and their scale: float32, shape ()."""
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().max() / largest
    scale = torch.where(scale > 0, scale, 1)
    return (x / scale).round().to(torch.int8), scale


ABSMAX_QUANTIZE = Exercise(2, absmax_quantize, "★★ Build: absmax in four lines · 6 min", """
`x` is a float32 tensor of any shape. For `bits` of 8 the codes run from -127 to 127; for fewer bits they end at
2^(bits - 1) - 1 in the same way. Return the codes (int8, in the shape of x) and the one scale of all of x, the width of
a step, so that codes times scale is about x.

If x is nothing but zeros, any scale gives zeros back, and 0 would divide by itself: let it be 1.
""",
    cases=(Case((torch.tensor([2.0, -1.0]), 8), about="a largest value that is positive"),
           Case((torch.tensor([1.0, -1.0, 0.3]), 2), about="two bits, whose codes are -1, 0 and 1"),
           Case((torch.tensor([0.5, -2.0, 0.9]), 8), about="a smallest value that is farther from 0 than the largest"),
           Case((torch.tensor([0.1, 0.7, 0.33]), 4), about="four bits"),
           Case((torch.tensor([[0.1, -0.3, 0.2], [-0.5, 0.9, 0.4]]), 8), about="a matrix"),
           Case((torch.zeros(2, 2), 8), about="nothing but zeros"),
           Case((torch.tensor([2.0, -1.0]),), about="no `bits` given, which means 8")),
    hints=("The four steps above, for any number of bits: which code is the outermost? Try [0.5, -2.0, 0.9].",
           "`largest = 2 ** (bits - 1) - 1`; the scale is `x.abs().max() / largest`: the largest *size*, whatever its "
           "sign.",
           "`(x / scale).round().to(torch.int8), scale`, after `scale = torch.where(scale > 0, scale, 1)`."),
    mistakes=(
        Mistake("The largest value, 0.9, is not that of largest size, -2.0.", (".abs().max()", ".max()"),
                (".abs().max()", ".max().abs()"),
                (".abs().max()", ".max().abs()", ".round()", ".round().clamp(-largest, largest)")),
        Mistake("Dividing by the scale makes small numbers large; here it was multiplied.", ("x / s", "x * s")),
        Mistake("The codes are cut off towards zero: 63.5 should become 64.", (".round()", "")),
        Mistake("The codes are rounded down: 31.75 should become 32.", (".round()", ".floor()")),
        Mistake("These are steps of absmax / 128. There is no code 128: the codes end at 127.", ("1) - 1", "1)"),
                ("1) - 1", "1)", ".round()", ".round().clamp(-largest, largest - 1)"),
                ("1) - 1", "1)", ".round()", ".round().clamp(1 - largest, largest - 1)")),
        Mistake("One half of all patterns is for negative codes; here all were counted as positive.",
                ("(bits - 1) - 1", "bits - 1"), ("(bits - 1) - 1", "bits - 1", ".round()", ".round().int()")),
        Mistake("Those are codes of 8 bits, whatever `bits` is.", ("2 ** (bits - 1) - 1", "127")),
        Mistake("The scale is in the codes again: those are values.", (".round()", ".round() * scale")),
        Mistake("The second result is the absmax; the scale is one step of the codes.",
                (".to(torch.int8), scale", ".to(torch.int8), scale * largest")),
        Mistake("The second result is 1 / scale, by which the papers multiply. Here the scale is the step.",
                (".to(torch.int8), scale", ".to(torch.int8), 1 / scale")),
        Mistake("That is the range from least to greatest value; a symmetric scale knows the largest size only.",
                ("x.abs().max() / largest", "(x.max() - x.min()) / (2**bits - 1)"),
                ("x.abs().max() / largest", "(x.max() - x.min()) / (2 * largest)"),
                ("x.abs().max() / largest", "(x.max() - x.min()) / (2 * largest)", ".round()",
                 ".round().clamp(-largest, largest)")),
        Mistake("Something was added to the scale against 0 / 0, and every scale is too large by it. Replace it only "
                "where it is 0.", ("/ largest", "/ largest + 1e-3"), ("/ largest", "/ largest + 1e-4")),
        Mistake("A scale for each row or column. Here all of x shares one scale; finer scales are the next lesson's.",
                ("max()", "amax(dim=-1, keepdim=True)"), ("max()", "amax(dim=0)")),
        Mistake("The step is that of 8 bits, absmax / 127, whatever `bits` is: the codes were only clipped to fewer.",
                ("/ largest", "/ 127", ".round()", ".round().clamp(-largest, largest)")),
        Mistake("A least value was put under the scale. Where all is zero it has to be 1.",
                sign=lambda got: not got[0].any() and 0 < got[1] < 1e-3),
        Mistake("0 / 0 is NaN: where all is zero, the scale has to be 1.",
                ("torch.where(scale > 0, scale, 1)", "scale")),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 3), rng.randint(2, 5)), rng.randint(2, 8)), tolerance=1e-5,
    moral="`x.max()` for `x.abs().max()` was published (onediff#893). It spoils each tensor whose largest weight is "
          "negative: every other one. Tests on the outputs of a ReLU see nothing.")


def zeropoint_values(codes: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """The values that int8 codes stand for: float32 in the shape of codes."""
    return (codes.float() - zero_point) * scale


ZEROPOINT_VALUES = Exercise(2, zeropoint_values, "★★ Spot the bug: the greatest values come back negative · 6 min", """
The formula is right, and still large activations came back with the wrong sign, in the reference kernels of one library
([executorch#20655](https://github.com/pytorch/executorch/pull/20655)) and in the examples of another
([tilelang#2947](https://github.com/tile-ai/tilelang/issues/2947)):

```python
import torch

def zeropoint_values(codes, scale, zero_point):
    return (codes - zero_point) * scale
```

`codes` are int8, `zero_point` is an int from -128 to 127. Mend it; the result is float32.
""",
    cases=(Case((torch.tensor([-128, -3, 100, 127], dtype=torch.int8), 0.5, -121)),
           Case((torch.tensor([[-128, 127]], dtype=torch.int8), 0.1, 100), about="differences below -128")),
    hints=("Compute 127 - (-121) on paper. Which type holds the result, and in which type does torch compute it?",
           "int8 ends at 127, and what goes beyond comes in again at -128. The cast must come before the subtraction.",
           "`codes.float()` first. int16 or int32 would do as well."),
    mistakes=(
        Mistake("127 - (-121) = 248 does not fit into int8 and became -8: the difference was still taken there.",
                None, ("codes.float() - zero_point", "(codes - zero_point).float()")),
        Mistake("Differences of codes reach 255, and were held at 127.", ("t) *", "t).clamp(-128, 127) *")),
        Mistake("The zero point was added. It is the code of the value 0: there the answer is 0.", ("() -", "() +")),
        Mistake("The zero point is a code, not a value, and here it was subtracted from values.",
                ("(codes.float() - zero_point) * scale", "codes.float() * scale - zero_point")),
        Mistake("The scale is a step's width: codes are multiplied by it, values divided.", ("* scale", "/ scale")),
        Mistake("The codes were read as uint8, so that -128 became 128.", (".float()", ".view(torch.uint8).float()")),
        Mistake("The zero point was left out: 0 is not the code of the value 0 here.", (" - zero_point", "")),
    ),
    draw=lambda rng: (integers(rng, -128, 127, 2, 3, dtype=torch.int8), rng.choice((0.5, 0.1, 0.0317)),
                      rng.randint(-128, 127)),
    tolerance=1e-5,
    moral="Three of four pairs of code and zero point never show it. Test with the extreme codes.")


def calibrated_codes(x: torch.Tensor, low: torch.Tensor,
                     high: torch.Tensor) -> torch.Tensor:
    """Codes int8 of x (n, d): -128 up to low (d,), 127 from high (d,) on."""
    step = (high - low) / 255
    return ((x - low) / step - 128).round().clamp(-128, 127).to(torch.int8)


RANGES = torch.tensor([1.0, 5.0, -60.0]), torch.tensor([4.0, 20.0, -3.0])

CALIBRATED_CODES = Exercise(2, calibrated_codes, "★★ Spot the bug: the largest value becomes the smallest · 8 min", """
A search index stores embeddings as int8; the range of each dimension was measured beforehand on other texts. Then comes
a new text whose value lies a little above that range
([sentence-transformers#3847](https://github.com/huggingface/sentence-transformers/pull/3847)). In torch:

```python
import torch

def calibrated_codes(x, low, high):
    step = (high - low) / 255
    return ((x - low) / step - 128).to(torch.int32).to(torch.int8)
```

With the numbers of that thread 1.0, above a range that ends at -3, becomes -112 instead of 127. Mend it: what lies
outside gets the nearer end, and what lies inside the *nearest* code. In each dimension `low` lies below `high`.
""",
    cases=(Case((torch.tensor([[1.0, 20.0, -60.0], [4.0, 5.0, -3.0]]), *RANGES), about="the ends of each range"),
           Case((torch.tensor([[4.0, 15.0, 1.0]]), *RANGES), about="a value above its range"),
           Case((torch.tensor([[-1.0, 15.0, -60.0]]), *RANGES), about="a value below its range"),
           Case((torch.tensor([[9.0, 1.0, 1.0], [2.0, 6.0, -30.0]]), *RANGES), about="values beside ones outside"),
           Case((torch.tensor([[0.35], [0.45], [0.75], [0.85]]), torch.zeros(1), torch.ones(1)),
                about="values between two codes"),
           Case((torch.tensor([[0.5], [2.8]]), torch.tensor([0.5]), torch.tensor([255.5])),
                about="a range that begins between two whole numbers of steps"),
           Case((torch.tensor([[-9.0], [9.0]]), torch.zeros(1), torch.ones(1)), about="values far outside")),
    hints=("What does int8 make of 145? Which operation keeps it at 127?",
           "`.clamp(-128, 127)`: it must come while the numbers are still floats. After the cast it is too late.",
           "Shift, `.round()`, `.clamp(-128, 127)`, `.to(torch.int8)`, in this order."),
    mistakes=(
        Mistake("What lies outside came in again at the other end: int8 had it before anything could hold it.",
                None, (".clamp(-128, 127)", ".int()")),
        Mistake("The codes run from 0 to 255 here, which int8 does not hold.",
                (" - 128).round().clamp(-128, 127)", ").round().clamp(0, 255).int()")),
        Mistake("-128 is a code like any other: nothing is symmetric about this range.", ("clamp(-128", "clamp(-127")),
        Mistake("Clamped to -128 … 127 before 128 was subtracted: the upper half of the range is lost.",
                (" - 128).round().clamp(-128, 127)", ").round().clamp(-128, 127).int() - 128)", "return", "return (")),
        Mistake("Those are symmetric codes, with 0 in the middle. Here the range runs from `low` to `high`.",
                ("(high - low) / 255", "torch.max(low.abs(), high.abs()) / 127", "(x - low)", "x", " - 128).", ").")),
        Mistake("256 codes have 255 steps between them: `high` must reach the last one.", ("255", "256")),
        Mistake("All dimensions share one range here. Each has its own.",
                ("high - low", "high.max() - low.min()", "x - low", "x - low.min()")),
        Mistake("What lies outside was held at the ends of all dimensions together. Each has its own.",
                ("(x - low)", "(x.clamp(low.min(), high.max()) - low)", ".clamp(-128, 127)", ".int()")),
        Mistake("Half was added and the rest cut off, which rounds negative numbers up: `round()` goes to the nearest.",
                (".round().clamp(-128, 127)", ".clamp(-128, 127).add(0.5).int().clamp(-128, 127)")),
        Mistake("`low` was rounded to a whole number of steps, and every code moved by up to half a step.",
                ("((x - low) / step - 128)", "((x / step).round() - (low / step).round() - 128)"),
                ("((x - low) / step - 128)", "(x / step + (-128 - low / step).round())")),
        Mistake("Outside it is right. Inside the codes are cut off instead of rounded to the nearest.",
                (".round()", ""), (".round()", ".floor()")),
    ),
    draw=lambda rng: (1.5 * normal(rng, 2, 3), normal(rng, 3) - 1, 1 + normal(rng, 3).abs()),
    moral="Saturate, never wrap: a clipped value is a little wrong, a wrapped one is at the other end of the world.")
