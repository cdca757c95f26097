"""What merging adds, to what, and when four bits notice."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.quantization import quantize


def merge_weight(
    W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> torch.Tensor:
    """W + (alpha / r)·BA, summed in float32 and rounded once, to the dtype of W.

    W is (out, in); A float32 (r, in); B float32 (out, r).
    """
    r = A.shape[0]
    return (W.float() + (alpha / r) * (B @ A)).to(W.dtype)


def _exact(seed: int, out: int, inner: int, r: int, dtype: torch.dtype, share: float = 2.0) -> tuple:
    """W, A, B and alpha = share·r whose sum is exact in float32: its order, or float64, makes no difference."""
    rng = random.Random(seed)
    A, B = integers(rng, -511, 511, r, inner) / 256, integers(rng, -511, 511, out, r) / 256
    return (integers(rng, -127, 127, out, inner) / 64).to(dtype), A, B, share * r


SUM = "W.float() + (alpha / r) * (B @ A)"
MERGE_WEIGHT = Exercise(11, merge_weight, "★★ Build: one merge, rounded once · 7 min", """
Merge an adapter into one weight: `W + (alpha / r)·BA`. W is stored in 16 bits, A and B in 32. Every rounding costs
something, so take the sum in float32 and round *once*, at the end, back to the dtype of W.
""",
    cases=(_exact(1, 3, 3, 2, torch.bfloat16),
           Case(_exact(2, 3, 4, 1, torch.bfloat16, 4.0), about="a W that is not square"),
           Case(_exact(3, 2, 3, 3, torch.float16), about="a W in float16"),
           Case(_exact(4, 4, 2, 2, torch.bfloat16, 0.5), about="an alpha that is smaller than r")),
    hints=("r is the number of rows of A.", "`B @ A` has the shape of W.",
           "`(W.float() + …).to(W.dtype)`: up, add, down."),
    mistakes=(
        Mistake("Divide alpha by r: not by its root, as rsLoRA does, and not by nothing.",
                ("alpha / r", "alpha"), ("alpha / r", "alpha / r**0.5")),
        Mistake("The factor is upside down: alpha / r, not r / alpha.", ("alpha / r", "r / alpha")),
        Mistake("r is `A.shape[0]`, the thin side of A, not its width or the height of B.",
                ("A.shape[0]", "A.shape[1]"), ("A.shape[0]", "B.shape[0]")),
        Mistake("The update is transposed: `B @ A` has rows for outputs, as W has.", ("B @ A", "A.T @ B.T")),
        Mistake("ΔW was rounded to 16 bits before it was added, and the sum again. Go up to float32 first.",
                (SUM, "W + ((alpha / r) * (B @ A)).to(W.dtype)"), (SUM, "W + (alpha / r) * (B @ A).to(W.dtype)")),
        Mistake("A and B were rounded to 16 bits before they were multiplied. They are stored in 32.",
                ("B @ A", "B.to(W.dtype).float() @ A.to(W.dtype).float()"),
                ("B @ A", "(B.to(W.dtype) @ A.to(W.dtype)).float()")),
        Mistake("That takes the update out: it is unmerging.", ("() +", "() -")),
    ),
    draw=lambda rng: _exact(rng.randint(0, 10**6), rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 3),
                            rng.choice((torch.bfloat16, torch.float16)), rng.choice((0.5, 1.0, 2.0))),
    moral="PEFT's merge does this sum too, where A and B are float32; `safe_merge=True` rounds ΔW before it is added.")


def room_to_move(codebook: torch.Tensor) -> torch.Tensor:
    """How far a value on each level can move until its code changes: (levels,)."""
    half = codebook.diff() / 2  # from each level to the boundary above it
    end = torch.full((1,), float("inf"))
    return torch.minimum(torch.cat([end, half]), torch.cat([half, end]))


NEARER = "torch.minimum(torch.cat([end, half]), torch.cat([half, end]))"
BELOW, ABOVE = "torch.cat([half[:1], half])", "torch.cat([half, half[-1:]])"
ROOM_TO_MOVE = Exercise(11, room_to_move, "★★ Build: when does a code change? · 8 min", """
A dequantized weight stands exactly on a level. Merging moves it a little, and requantizing takes the nearest level
again: as long as it has not crossed the *boundary*, half-way to a neighbour, the move is lost. For each level, how far
is it to the nearer boundary? `codebook` is sorted, in units of absmax; the first and the last level have one neighbour.
""",
    cases=((torch.tensor([0.1, 0.7, 0.9, 1.3, 1.5]),),
           Case((torch.tensor([-1.0, -0.4, 0.1, 0.5, 1.0]),), about="levels on both sides of 0"),
           Case((torch.tensor([-1.0, 1.0]),), about="two levels, each with one neighbour")),
    hints=("`codebook.diff()` gives the gaps between neighbours, one fewer than levels.",
           "Each level has a gap below and a gap above; put infinity where there is none.",
           "`torch.minimum(below, above)` takes the nearer of the two."),
    mistakes=(
        Mistake("That is the way to the neighbour itself. The code changes half-way there.", (" / 2", "")),
        Mistake("Only one neighbour was looked at: a weight may move either way.",
                (NEARER, "torch.cat([half, end])"), (NEARER, BELOW), (NEARER, ABOVE)),
        Mistake("That is the farther boundary: the nearer one is crossed first.",
                (NEARER, f"torch.maximum({BELOW}, {ABOVE})"), ("minimum", "maximum")),
        Mistake("Not the mean of both sides: the nearer boundary decides.", (NEARER, f"({BELOW} + {ABOVE}) / 2")),
        Mistake("The first and the last level have room too: up to the boundary with their one neighbour.",
                ('float("inf")', "0.0"), (NEARER, "torch.minimum(half[1:], half[:-1])"),
                (NEARER, "torch.cat([end, torch.minimum(half[1:], half[:-1]), end])")),
        Mistake("There is a number for each level, not for each gap: one more.", (NEARER, "half")),
    ),
    draw=lambda rng: (torch.tensor(sorted(rng.sample(range(-99, 99), rng.randint(2, 9)))) / 100,),
    moral="For NF4 around zero it is 0.04 absmax, some 0.1 standard deviations: an update of 1 % never gets there.")


def merge_as_trained(
    W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> torch.Tensor:
    """The float32 weight that answers as in training: NF4 base with adapter.

    W float32 (out, in), as published; A (r, in); B (out, r).
    """
    return quantize(W).dequantize() + (alpha / A.shape[0]) * (B @ A)


def _trained(rng: random.Random, out: int, inner: int, r: int, alpha: float) -> tuple:
    W, A, B = normal(rng, out, inner), normal(rng, r, inner) / 2, normal(rng, out, r) / 2
    return *((10 * M).round() / 10 for M in (W, A, B)), alpha


TRAINED = "quantize(W).dequantize() + (alpha / A.shape[0]) * (B @ A)"
MERGE_AS_TRAINED = Exercise(11, merge_as_trained, "★★★ Spot the bug: the base that it never met · 10 min", """
An adapter was trained with QLoRA, on weights in NF4 (in blocks of 64, without double quantization). To publish one
model without adapter, a much-copied script loads the model again in full precision, and merges
([qlora#254](https://github.com/artidoro/qlora/issues/254),
[peft#2105](https://github.com/huggingface/peft/issues/2105)):

```python
def merge_as_trained(W, A, B, alpha):
    return W + (alpha / A.shape[0]) * (B @ A)
```

In training the adapter never met `W`. Write the merge whose result gives the answers of the model as it was trained,
not rounded to four bits again.
""",
    cases=(_trained(random.Random(1), 3, 3, 2, 4.0),
           Case(_trained(random.Random(2), 2, 3, 1, 4.0), about="a W that is not square"),
           Case(_trained(random.Random(4), 2, 64, 1, 4.0), about="two blocks, each of them a row",
                shown="W float32 (2, 64), A (1, 64), B (2, 1), alpha=4"),
           Case(_trained(random.Random(3), 5, 30, 2, 8.0), about="a W of more than one block, the last one short",
                shown="W float32 (5, 30), A (2, 30), B (5, 2), alpha=8")),
    hints=("Which weight did x meet in training, beside A and B?", "`quantize(W)` has a method `dequantize()`.",
           "The weight as NF4 holds it, plus (alpha / r)·BA in full precision."),
    mistakes=(
        Mistake("That is the published merge: the adapter meets a W it was not trained beside. The rounding error "
                "of NF4, which was there in training, is gone."),
        Mistake("The sum was rounded to four bits, and small updates do not survive that: quantize W alone.",
                (TRAINED, f"quantize({TRAINED}).dequantize()"),
                (TRAINED, "quantize(W + (alpha / A.shape[0]) * (B @ A)).dequantize()")),
        Mistake("Only the base is in four bits: A and B were trained in full precision, add them so.",
                ("(B @ A)", "quantize(B @ A).dequantize()"),
                ("(B @ A)", "(quantize(B).dequantize() @ quantize(A).dequantize())")),
        Mistake("The factor of the update is alpha / r, where r counts the rows of A.",
                ("alpha / A.shape[0]", "alpha"), ("A.shape[0]", "A.shape[1]"), ("A.shape[0]", "A.shape[0]**0.5")),
        Mistake("The update is transposed: `B @ A` has rows for outputs, as W has.", ("B @ A", "A.T @ B.T")),
        Mistake("These are other blocks. NF4 takes 64 neighbours of the flattened matrix, across the ends of rows.",
                ("quantize(W)", "quantize(W, block_size=None)"), ("quantize(W)", "quantize(W, block_size=W.shape[1])")),
        Mistake("The adapter met W in NF4: not in 16 bits, and not on sixteen even levels.",
                ("quantize(W).dequantize()", "W.bfloat16().float()"),
                ("quantize(W)", "quantize(W, torch.linspace(-1, 1, 16))")),
        Mistake("The scales were quantized as well. This adapter was trained without double quantization.",
                ("quantize(W)", "quantize(W, double_quant=True)")),
    ),
    draw=lambda rng: _trained(rng, rng.randint(1, 9), rng.randint(1, 20), rng.randint(1, 4), rng.choice((1.0, 8.0))),
    tolerance=1e-5,
    moral="Answers as in training. Whether they are the *better* answers is another question: the lesson measured it.")
