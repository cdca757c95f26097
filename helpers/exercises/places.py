"""Where an answer is wrong: which places, and on which inputs; what the wrong ones have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from helpers.exercises.compare import unequal
from helpers.exercises.ladder import array

Named = Sequence[tuple[str, Any]]  # the arguments by name


def common(got: Any, expected: Any, inputs: Named, tolerance: float) -> str | None:
    """What the wrong places of an answer have in common that (nearly) no right place has, as a sentence."""
    a, b = array(got), array(expected)
    if a is None or b is None or a.shape != b.shape or b.numel() < 5 or b.dim() == 0:
        return None
    exact = isinstance(expected, torch.Tensor) and not expected.dtype.is_floating_point
    wrong = unequal(a, b, 0.0 if exact else tolerance)
    if not wrong.any() or wrong.all():
        return None
    best, fewest = None, None
    for said, mask in features(b, inputs):
        if mask.shape != wrong.shape or mask.all() or (wrong & ~mask).any():
            continue
        spared = int((mask & ~wrong).sum())  # right, though they have the property
        if spared <= 0.34 * int(mask.sum()) and (fewest is None or spared < fewest):
            best, fewest = (said, spared), spared
    if best is None:
        return None
    said, spared = best
    return f"Right except {said}" + (f" (and there not everywhere: {spared} of them are right)." if spared else ".")


def features(expected: torch.Tensor, inputs: Named) -> Iterator[tuple[str, torch.Tensor]]:
    """(words, where) for properties a place may have: of the input that stands there, of the answer, of the index."""
    yield from _ends(expected.shape)
    for name, value in inputs:
        there = array(value)
        if there is not None and there.numel() == expected.numel() and there.dim() > 0:
            there, whole = there.reshape(expected.shape), there[there.isfinite()]
            yield f"where `{name}` is NaN", there.isnan()
            yield f"where `{name}` is infinite", there.isinf()
            yield f"where `{name}` is zero", there == 0
            yield f"where `{name}` is negative", there < 0
            yield f"where `{name}` is positive", there > 0
            yield f"where `{name}` is zero or negative", there <= 0
            yield f"where `{name}` is odd", there % 2 == 1
            yield f"where `{name}` is even", there % 2 == 0
            yield f"where `{name}` lies half-way between two whole numbers", (there * 2) % 2 == 1
            if whole.numel():
                yield f"at the largest of `{name}`", there == whole.max()
                yield f"at the smallest of `{name}`", there == whole.min()
                yield f"at the largest magnitude of `{name}`", there.abs() == whole.abs().max()
            for bound in (7, 8, 15, 127, 128):
                yield f"where `{name}` is above {bound}", there > bound
            yield f"where the magnitude of `{name}` is above 1", there.abs() > 1
    yield "where the answer is NaN", expected.isnan()
    yield "where the answer is infinite", expected.isinf()
    yield "where the answer is zero", expected == 0
    yield "where the answer is negative", expected < 0
    yield "where the answer is positive", expected > 0
    yield "at the answer's largest value", expected == expected[~expected.isnan()].max() if (
        ~expected.isnan()).any() else expected.isnan()
    for bound in (7, 15, 127):
        yield f"where the answer is above {bound}", expected > bound
    yield from _indices(expected.shape)


def _axes(shape: torch.Size) -> Iterator[tuple[int, str, torch.Tensor]]:
    names = ("index",) if len(shape) == 1 else ("row", "column") if len(shape) == 2 else \
        tuple(f"index {d}" for d in range(len(shape)))
    for d, name in enumerate(names):
        yield d, name, torch.arange(shape[d]).view([-1 if i == d else 1 for i in range(len(shape))]).expand(shape)


def _ends(shape: torch.Size) -> Iterator[tuple[str, torch.Tensor]]:
    for d, name, at in _axes(shape):
        first, last = ("at the first place", "at the last place") if len(shape) == 1 else (
            f"in the first {name}", f"in the last {name}")
        yield first, at == 0
        yield last, at == shape[d] - 1
        yield f"{first} and the last", (at == 0) | (at == shape[d] - 1)


def _indices(shape: torch.Size) -> Iterator[tuple[str, torch.Tensor]]:
    for d, name, at in _axes(shape):
        yield f"at every odd {name}", at % 2 == 1
        yield f"at every even {name}", at % 2 == 0
        for start in (2, 4, 8, 16, 32, 64, 128, 256):
            if start < shape[d]:
                yield f"from {name} {start} on", at >= start
                yield f"before {name} {start}", at < start
                tail = shape[d] % start
                if tail:
                    yield f"in the last, incomplete block of {start}", at >= shape[d] - tail
        for start in range(1, min(shape[d], 64)):
            yield f"from {name} {start} on", at >= start
            yield f"before {name} {start}", at < start
    if len(shape) == 2:
        rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        yield "on the diagonal", (rows == columns).expand(shape)
        yield "off the diagonal", (rows != columns).expand(shape)
        yield "above the diagonal", (rows < columns).expand(shape)
        yield "below the diagonal", (rows > columns).expand(shape)


def across(right: Sequence[Named], wrong: Sequence[Named]) -> str | None:
    """What all wrong inputs have and no right one, as a sentence; None without one, or with fewer than two of each."""
    if len(right) < 2 or len(wrong) < 2:
        return None
    for (said, _), values in zip(traits(right[0]), zip(*(
            [has for _, has in traits(one)] for one in [*right, *wrong]), strict=False), strict=False):
        ours, theirs = values[:len(right)], values[len(right):]
        if None not in values and not any(ours) and all(theirs):
            return f"Right for the {len(right)} inputs without, wrong for all {len(theirs)} with this: {said}."
    return None


def traits(inputs: Named) -> Iterator[tuple[str, bool | None]]:
    """(words, whether this input has it; None where the question makes no sense), in the same order for all inputs."""
    for name, value in inputs:
        yield f"`{name}` is true", value if isinstance(value, bool) else None
        yield f"`{name}` is false", not value if isinstance(value, bool) else None
        yield f"`{name}` is None", value is None
        yield f"`{name}` is empty", len(value) == 0 if isinstance(value, str | list | tuple | Mapping) else None
        there = None if isinstance(value, bool) else array(value)
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
                ("has an odd length", lambda m: m.shape[0] % 2 == 1),
                ("is of a size that is no multiple of 64", lambda m: m.numel() % 64 != 0),
                ("is of a size that is no multiple of 256", lambda m: m.numel() % 256 != 0),
                ("has a negative value", lambda m: (m < 0).any()), ("has a zero", lambda m: (m == 0).any()),
                ("is zero everywhere", lambda m: not m.any()),
                ("has a largest magnitude that is negative", lambda m: m.min() < 0 and -m.min() > m.max()),
                ("holds NaN or infinity", lambda m: not m.isfinite().all()),
                ("has values that are not whole", lambda m: (m != m.round()).any()),
                ("holds a value twice", lambda m: len(m.unique()) < m.numel())):
            yield f"`{name}` {words}", bool(has(many)) if many is not None else None
        dtype = str(value.dtype).removeprefix("torch.") if isinstance(value, torch.Tensor) else None
        for kind in ("float16", "bfloat16", "float32", "float64", "int8", "uint8"):
            yield f"`{name}` is {kind}", dtype == kind if dtype else None
