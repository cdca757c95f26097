"""Where an answer is wrong: which places, and on which inputs; what the wrong ones have in common."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from helpers.exercises.compare import unequal
from helpers.exercises.ladder import array

Named = Sequence[tuple[str, Any]]  # the arguments by name


@dataclass(frozen=True, eq=False)
class Trial:
    """One input, what came and what was expected."""

    inputs: Named
    got: Any
    expected: Any

    @property
    def args(self) -> tuple:
        return tuple(value for _, value in self.inputs)

    def wrong(self, tolerance: float) -> torch.Tensor | None:
        """Where it is wrong; None where that makes no sense."""
        a, b = array(self.got), array(self.expected)
        if a is None or b is None or a.shape != b.shape or b.dim() == 0:
            return None
        exact = isinstance(self.expected, torch.Tensor) and not self.expected.dtype.is_floating_point
        return unequal(a, b, 0.0 if exact else tolerance)


def common(here: Trial, others: Sequence[Trial], tolerance: float) -> str | None:
    """What all the wrong places of an answer have and no right one has, here and on other inputs, as a sentence."""
    wrong = here.wrong(tolerance)
    if wrong is None or wrong.numel() < 5 or not wrong.any() or wrong.all():
        return None
    fitting = {said: math.comb(wrong.numel(), int(wrong.sum())) for said, mask in features(
        array(here.expected), here.inputs) if torch.equal(mask, wrong)}  # how many patterns are like it: no chance hit
    for other in others[:6]:
        there = other.wrong(tolerance)
        if there is not None:
            found = dict(features(array(other.expected), other.inputs))
            for said in list(fitting):
                if said not in found or (there & ~found[said]).any():
                    del fitting[said]
                elif torch.equal(there, found[said]):
                    fitting[said] *= math.comb(there.numel(), int(there.sum()))
    said = next((said for said, count in fitting.items() if count > 1000), None)
    return f"Right except {said}." if said else None


def features(expected: torch.Tensor, inputs: Named) -> Iterator[tuple[str, torch.Tensor]]:
    """(words, where) for properties a place may have: at an end, of the input that stands there, of the answer, of the
    index."""
    shape, dims = expected.shape, range(len(expected.shape))
    names = ("index",) if len(dims) == 1 else ("row", "column") if len(dims) == 2 else [f"index {d}" for d in dims]
    axes = [(name, shape[d], torch.arange(shape[d]).view([-1 if i == d else 1 for i in dims]).expand(shape))
            for d, name in enumerate(names)]
    for name, n, at in axes:
        first, last = ("at the first place", "at the last place") if len(dims) == 1 else (
            f"in the first {name}", f"in the last {name}")
        yield from ((first, at == 0), (last, at == n - 1), (f"{first} and the last", (at == 0) | (at == n - 1)))
    values = [(f"`{name}`", array(value)) for name, value in inputs]
    for name, there in [*values, ("the answer", expected)]:
        if there is None or there.numel() != expected.numel():
            continue
        there = there.reshape(shape)
        finite = there[there.isfinite()]
        ends = (("is largest", there == finite.max()), ("is smallest", there == finite.min()),
                ("is of the largest magnitude", there.abs() == finite.abs().max())) if len(finite) else ()
        for words, mask in (("is NaN", there.isnan()), ("is infinite", there.isinf()), ("is zero", there == 0),
                            ("is negative", there < 0), ("is positive", there > 0), ("is odd", there % 2 == 1),
                            ("is zero or negative", there <= 0), ("is even", there % 2 == 0),
                            ("lies half-way between two whole numbers", there * 2 % 2 == 1),
                            *((f"is above {bound}", there > bound) for bound in (7, 15, 127)),
                            ("is of a magnitude above 1", there.abs() > 1), *ends):
            yield f"where {name} {words}", mask
    for name, n, at in axes:
        yield from ((f"at every odd {name}", at % 2 == 1), (f"at every even {name}", at % 2 == 0))
        for start in (*range(1, min(n, 65)), *(block for block in (128, 256) if block < n)):
            yield from ((f"from {name} {start} on", at >= start), (f"before {name} {start}", at < start))
            if n % start and start in (4, 8, 16, 32, 64, 128, 256):  # one of 2 is the last place
                yield f"in the last, incomplete block of {start}", at >= n - n % start
    if len(dims) == 2:
        off = torch.arange(shape[1]) - torch.arange(shape[0])[:, None]
        yield from (("on the diagonal", off == 0), ("off the diagonal", off != 0), ("above the diagonal", off > 0),
                    ("below the diagonal", off < 0))


def across(right: Sequence[Named], wrong: Sequence[Named]) -> str | None:
    """What all wrong inputs have and the right ones have not, as a sentence; None where that might be chance."""
    if len(wrong) < 3:
        return None
    best, least = None, 1e-3  # how likely all wrong ones have it by chance: never, where few right ones lack it
    inputs = [dict(traits(one)) for one in [*right, *wrong]]
    for said in inputs[0]:
        values = [has.get(said) for has in inputs]
        ours, theirs = values[:len(right)], values[len(right):]
        chance = (sum(map(bool, values)) / len(values)) ** len(wrong)
        if None not in values and all(theirs) and chance < least:
            best, least = (said, ours.count(True), ours.count(False)), chance
    if best is None:
        return None
    said, having, lacking = best
    return f"Wrong only where {said}{', and there each time' * (not having)}: right for all {lacking} inputs without."


def traits(inputs: Named) -> Iterator[tuple[str, bool | None]]:
    """(words, whether this input has it; None where the question makes no sense)."""
    numbers = [(name, value) for name, value in inputs if isinstance(value, int | float)]
    for (name, value), (other, by) in itertools.combinations(numbers, 2):
        yield f"`{name}` is not `{other}`", value != by
        yield f"`{name}` is above `{other}`", value > by
        yield f"`{name}` is below `{other}`", value < by
    for name, value in inputs:
        yield f"`{name}` is true", value if isinstance(value, bool) else None
        yield f"`{name}` is false", not value if isinstance(value, bool) else None
        yield f"`{name}` is None", value is None
        parts = len(value) if isinstance(value, str | list | tuple | Mapping) else None
        yield f"`{name}` is empty", parts == 0 if parts is not None else None
        yield f"`{name}` has more than one part", parts > 1 if parts is not None else None
        there = array(value)
        one = there.item() if there is not None and there.dim() == 0 else None
        for words, has in (
                ("zero", lambda n: n == 0), ("negative", lambda n: n < 0), ("odd", lambda n: n % 2 == 1),
                ("even", lambda n: n % 2 == 0), ("1", lambda n: n == 1), ("not 1", lambda n: n != 1),
                ("no whole number", lambda n: n != n // 1), ("below 1", lambda n: abs(n) < 1),
                ("no power of two", lambda n: n <= 0 or math.log2(n) % 1 != 0)):
            yield f"`{name}` is {words}", has(one) if one is not None and math.isfinite(one) else None
        many = there if there is not None and there.dim() > 0 and there.numel() > 0 else None
        flat = many if many is not None and many.dim() == 2 else None
        for words, has in (
                ("is not square", lambda m: m.shape[0] != m.shape[1]),
                ("is square", lambda m: m.shape[0] == m.shape[1]),
                ("is taller than wide", lambda m: m.shape[0] > m.shape[1]),
                ("is wider than tall", lambda m: m.shape[0] < m.shape[1]),
                ("has an odd number of columns", lambda m: m.shape[1] % 2 == 1)):
            yield f"`{name}` {words}", has(flat) if flat is not None else None
        for words, has in (
                ("has more than one dimension", lambda m: m.dim() > 1), ("has one row", lambda m: m.shape[0] == 1),
                ("has more than one row", lambda m: m.dim() > 1 and m.shape[0] > 1),
                ("is not zero everywhere", lambda m: bool(m.any())),
                ("has an odd length", lambda m: m.shape[0] % 2 == 1),
                ("is of a size that is no multiple of 64", lambda m: m.numel() % 64 != 0),
                ("is of a size that is no multiple of 256", lambda m: m.numel() % 256 != 0),
                ("has a negative value", lambda m: (m < 0).any()), ("has a zero", lambda m: (m == 0).any()),
                ("is zero everywhere", lambda m: not m.any()),
                ("has a largest magnitude that is negative", lambda m: -m.min() > m.max()),
                ("holds NaN or infinity", lambda m: not m.isfinite().all()),
                ("has values that are not whole", lambda m: (m != m.round()).any()),
                ("holds a value twice", lambda m: len(m.unique()) < m.numel())):
            yield f"`{name}` {words}", bool(has(many)) if many is not None else None
        dtype = str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else None
        for kind in ("float16", "bfloat16", "float32", "float64", "int8", "uint8"):
            yield f"`{name}` is {kind}", dtype == kind if dtype else None
