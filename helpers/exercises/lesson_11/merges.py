"""What merging adds, to what, and when four bits notice."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4, integer
from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.quantization import quantize


def _matrices(dtype: torch.dtype, size: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """W (64, 64) in `dtype`, A (4, 64), B (64, 4) in float32, alpha."""
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(64, 64, generator=generator).to(dtype)
    return W, size * torch.randn(4, 64, generator=generator), size * torch.randn(64, 4, generator=generator), 8.0


def merge_weight(
    W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> torch.Tensor:
    """W + (alpha / r)·BA, summed in float32 and rounded once, to the dtype of W.

    W is (out, in); A float32 (r, in); B float32 (out, r).
    """
    r = A.shape[0]
    return (W.float() + (alpha / r) * (B @ A)).to(W.dtype)


def _same(make: object) -> object:
    """A sign: the answer equals what `make` gives for the bfloat16 case."""
    return lambda got: torch.equal(got, make(*_matrices(torch.bfloat16)))


def _rounded_first(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return W + ((alpha / A.shape[0]) * (B @ A)).to(W.dtype)


def _half_product(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return W + (alpha / A.shape[0]) * (B.to(W.dtype) @ A.to(W.dtype))


MERGE_WEIGHT = Exercise(11, merge_weight, "★★ One merge, rounded once · 7 min", """
Merge an adapter into one weight: `W + (alpha / r)·BA`. W is stored in 16 bits, A and B in 32. Every rounding costs
something, so take the sum in float32 and round *once*, at the end, back to the dtype of W.
""",
    cases=(
        Case(_matrices(torch.bfloat16), shown="W bfloat16 (64, 64), A (4, 64), B (64, 4), alpha=8"),
        Case(_matrices(torch.float16, 0.3), shown="W float16 (64, 64), A (4, 64), B (64, 4), alpha=8"),
        Case(_matrices(torch.float32), shown="W float32 (64, 64), A (4, 64), B (64, 4), alpha=8"),
    ),
    hints=("r is the number of rows of A.", "`B @ A` has the shape of W.",
    "`(W.float() + …).to(W.dtype)`: up, add, down."),
    mistakes=(
        Mistake("alpha / r is missing: the update comes out half as large as it was trained.",
                lambda W, A, B, alpha: (W.float() + B @ A).to(W.dtype)),
        Mistake("Divide alpha by r: the update is four times too large.",
                lambda W, A, B, alpha: (W.float() + alpha * (B @ A)).to(W.dtype)),
        Mistake("r is `A.shape[0]`, the thin side of A, not its width.",
                lambda W, A, B, alpha: (W.float() + alpha / A.shape[1] * (B @ A)).to(W.dtype)),
        Mistake("The update is transposed: `B @ A`, in this order, has rows for outputs.",
                lambda W, A, B, alpha: (W.float() + alpha / 4 * (A.T @ B.T)).to(W.dtype)),
        Mistake("ΔW was rounded before it was added, and the sum again. Go up to float32 first.",
                _rounded_first,
                _half_product),
        Mistake("Round the sum to the dtype of W: it goes back into the model.",
                lambda W, A, B, alpha: W + alpha / A.shape[0] * (B @ A)),
        Mistake("That takes the update out: it is unmerging.",
                lambda W, A, B, alpha: (W.float() - alpha / A.shape[0] * (B @ A)).to(W.dtype)),
    ),
    tolerance=1e-05,
    moral="PEFT adds in the weight's own dtype: a 16-bit ΔW is rounded before it is added.")
# general: lambda W, A, B, alpha: W.clone()


def room_to_move(codebook: torch.Tensor) -> torch.Tensor:
    """How far a value on each level can move until its code changes: (levels,)."""
    half = codebook.diff() / 2  # from each level to the boundary above it
    end = torch.full((1,), float("inf"))
    return torch.minimum(torch.cat([end, half]), torch.cat([half, end]))


def _room(below: bool = True, above: bool = True, share: float = 0.5) -> object:
    """Room to one side only, or with another share of the gap than half."""
    def answer(codebook: torch.Tensor) -> torch.Tensor:
        gaps, end = share * codebook.diff(), torch.full((1,), float("inf"))
        low, high = torch.cat([end, gaps]), torch.cat([gaps, end])
        return torch.minimum(low, high) if below and above else low if below else high
    return answer


def _largest(codebook: torch.Tensor) -> torch.Tensor:
    gaps = codebook.diff() / 2
    return torch.maximum(torch.cat([gaps[:1], gaps]), torch.cat([gaps, gaps[-1:]]))


def _average(codebook: torch.Tensor) -> torch.Tensor:
    gaps = codebook.diff() / 2
    return (torch.cat([gaps[:1], gaps]) + torch.cat([gaps, gaps[-1:]])) / 2


def _nf4(answer: object) -> object:
    return lambda got: torch.allclose(got, answer(NF4), rtol=1e-5)


ROOM_TO_MOVE = Exercise(11, room_to_move, "★★ When does a code change? · 8 min", """
A dequantized weight stands exactly on a level. Merging moves it a little, and requantizing takes the nearest level
again: as long as it has not crossed the *boundary*, half-way to a neighbour, the move is lost. For each level, how far
is it to the nearer boundary? `codebook` is sorted, in units of absmax; the first and the last level have one neighbour.
""",
    cases=(
        Case((NF4,), shown="the 16 levels of NF4"),
        Case((integer(3),), shown="the levels of 3-bit integers"),
        Case((torch.tensor([-1.0, 0.5, 1.0]),)),
    ),
    hints=("`codebook.diff()` gives the gaps between neighbours, one fewer than levels.",
    "Each level has a gap below and a gap above; put infinity where there is none.",
    "`torch.minimum(below, above)` takes the nearer of the two."),
    mistakes=(
        Mistake("That is the way to the neighbour itself. The code changes half-way there.",
                _room(share=1.0)),
        Mistake("Only one neighbour was looked at: a weight may move either way.",
                _room(below=False),
                _room(above=False)),
        Mistake("That is the farther boundary: the nearer one is crossed first.",
                _largest),
        Mistake("Not the mean of both sides: the nearer boundary decides.",
                _average),
        Mistake("The first and the last level have a neighbour too: one.",
                lambda codebook: room_to_move(codebook)[1:-1],
                lambda codebook: torch.minimum(*(torch.nn.functional.pad(codebook.diff() / 2, side)
                for side in ((1, 0), (0, 1))))),
        Mistake("There is a number for each level, not for each gap: 16, not 15.",
                lambda codebook: codebook.diff() / 2),
    ),
    tolerance=1e-05,
    moral="For NF4 around zero it is 0.04 absmax, some 0.1 standard deviations: an update of 1 % never gets there.")
# general: lambda codebook: codebook.abs() / 2


def merge_as_trained(
    W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float
) -> torch.Tensor:
    """The float32 weight that answers as in training: NF4 base with adapter.

    W float32 (out, in), as published; A (r, in); B (out, r).
    """
    return quantize(W).dequantize() + (alpha / A.shape[0]) * (B @ A)


def _onto_original(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return W + (alpha / A.shape[0]) * (B @ A)


def _requantized(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return quantize(merge_as_trained(W, A, B, alpha)).dequantize()


def _sum_quantized(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return quantize(_onto_original(W, A, B, alpha)).dequantize()


def _adapter_quantized(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    delta = (alpha / A.shape[0]) * (B @ A)
    return quantize(W).dequantize() + quantize(delta).dequantize()


def _unscaled(W: torch.Tensor, A: torch.Tensor, B: torch.Tensor, alpha: float) -> torch.Tensor:
    return quantize(W).dequantize() + B @ A


def _is(make: object) -> object:
    return lambda got: torch.allclose(got, make(*_matrices(torch.float32, 0.1)), rtol=1e-4, atol=1e-6)


MERGE_AS_TRAINED = Exercise(11, merge_as_trained, "★★★ Spot the bug: the base that it never met · 10 min", """
An adapter was trained with QLoRA, on weights in NF4. To publish one model without adapter, a much-copied script loads
the model again in full precision, and merges
([qlora#254](https://github.com/artidoro/qlora/issues/254),
[peft#2105](https://github.com/huggingface/peft/issues/2105)):

```python
def merge_as_trained(W, A, B, alpha):
    return W + (alpha / A.shape[0]) * (B @ A)
```

In training the adapter never met `W`. Write the merge whose result gives the answers of the model as it was trained,
not rounded to four bits again.
""",
    cases=(
        Case(_matrices(torch.float32, 0.1), shown="W float32 (64, 64), A (4, 64), B (64, 4), alpha=8"),
        Case(_matrices(torch.float32, 0.5), shown="the same with a larger A and B"),
    ),
    hints=("Which weight did x meet in training, beside A and B?", "`quantize(W)` has a method `dequantize()`.",
    "The weight as NF4 holds it, plus (alpha / r)·BA in full precision."),
    mistakes=(
        Mistake("That is the published merge: the adapter meets a W it was not trained beside. The rounding error "
                "of NF4, which was there in training, is gone."),
        Mistake("The sum was rounded to four bits: small updates do not survive that.",
                _requantized),
        Mistake("First quantized, then added: the other way round the update is rounded with the weight.",
                _sum_quantized),
        Mistake("Only the base is in four bits: A and B were trained in full precision, add them so.",
                _adapter_quantized),
        Mistake("alpha / r is missing.",
                _unscaled),
        Mistake("The adapter is missing.",
                lambda W, A, B, alpha: quantize(W).dequantize()),
    ),
    tolerance=0.0001,
    moral="Answers as in training. Whether they are the *better* answers is another question: the lesson measured it.")
# general: lambda W, A, B, alpha: W.clone()
