"""What is wrong with an answer, said without knowing the exercise: the first rung that fits, from kind to place.

Each rung is a function of (answer, expected answer) that gives a sentence or None. Every sentence states a property
that was checked: the answer is the expected one with its sign turned, twice as large, shifted by one, wrong only where
the expected value is negative. A rung says nothing it cannot see; what the mistake *is* the reader finds from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from helpers.exercises.compare import describe, equal, number, same_kind, unequal
from helpers.exercises.quantities import NONE, Quantities

CLOSE = 1e-5  # relative, for "this is the expected answer, changed in this way"
ORDINALS = ("first", "second", "third", "fourth", "fifth")


def array(value: Any) -> torch.Tensor | None:
    """A number, a tensor, or a (nested, rectangular) list of numbers as float64; None for anything else."""
    try:
        if isinstance(value, torch.Tensor):
            return value.detach().double()
        if isinstance(value, Real) and not isinstance(value, bool) or isinstance(value, list | tuple):
            made = torch.tensor(value, dtype=torch.float64)
            return made if made.numel() else None
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return None


def kind(got: Any, expected: Any, known: Quantities = NONE) -> str | None:
    """The wrong type, dtype, shape or number of parts."""
    if got is None:
        return "It returned None. Is a `return` missing on this way through?" if expected is not None else None
    if expected is None:
        return f"The answer is None here, and {describe(got)} came."
    if isinstance(expected, torch.Tensor):
        return _tensor_kind(got, expected, known)
    if isinstance(expected, list | tuple | Mapping) and isinstance(got, type(expected) | list | tuple):
        return _parts(got, expected, known)
    if same_kind(got, expected):
        return None
    if isinstance(got, torch.Tensor) and got.numel() == 1 and isinstance(expected, Real):
        return f"A tensor of one number came, {describe(expected)} was expected: `.item()` takes it out."
    if isinstance(got, float) and isinstance(expected, int) and got == expected:
        return f"The value is right, but {number(got)} is a float and an int was expected: `/` gives floats, `//` ints."
    came, wanted = describe(got), describe(expected)
    return f"{came[0].upper() + came[1:]} came, {wanted} was expected." if came != wanted else None


def _tensor_kind(got: Any, expected: torch.Tensor, known: Quantities) -> str | None:
    if not isinstance(got, torch.Tensor):
        return f"{describe(got)[0].upper() + describe(got)[1:]} came, {describe(expected)} was expected."
    shape, wanted = tuple(got.shape), tuple(expected.shape)
    if shape == wanted:
        if got.dtype == expected.dtype:
            return None
        cast = got.to(expected.dtype)
        values = "the values are right once converted" if equal(cast, expected, CLOSE) else "values differ as well"
        return f"The dtype is {got.dtype}, {expected.dtype} was expected; {values}."
    say = f"The shape is {shape}, {wanted} was expected"
    ours, theirs = got.detach().double(), expected.detach().double()
    if got.dim() == 2 and shape == wanted[::-1]:
        return f"{say}: it is lying on its side (transposed)."
    if got.numel() == expected.numel():
        right = torch.equal(ours.flatten(), theirs.flatten())
        return f"{say}: {'the right numbers in order, but' if right else 'as many numbers, but'} arranged otherwise."
    if got.dim() == expected.dim():
        off = [(d, a - b) for d, (a, b) in enumerate(zip(shape, wanted, strict=True)) if a != b]
        if len(off) == 1:
            d, extra = off[0]
            low, high = (theirs, ours) if extra > 0 else (ours, theirs)
            n, ends = low.shape[d], "too many" if extra > 0 else "missing"
            place = ("the last ones" if torch.equal(high.narrow(d, 0, n), low) else
                     "the first ones" if torch.equal(high.narrow(d, high.shape[d] - n, n), low) else "")
            like, right = known.as_long_as(shape[d]), known.as_long_as(wanted[d])
            if not place and like and not set(like) & set(right):
                rather = f", not as {right[0]}" if right else ""
                return f"{say}: along dimension {d} it is as long as {like[0]}{rather}."
            return f"{say}: {abs(extra)} {ends} along dimension {d}{', ' + place if place else ''}."
    if got.numel() == 1:
        return f"{say}: one number for all of it, where each part has its own."
    if expected.numel() == 1:
        return f"{say}: one number is asked for."
    return f"{say}: {'fewer' if got.numel() < expected.numel() else 'more'} numbers than there should be."


def _parts(got: Any, expected: Any, known: Quantities) -> str | None:
    if isinstance(expected, Mapping):
        if not isinstance(got, Mapping):
            return f"{describe(got)[0].upper() + describe(got)[1:]} came, {describe(expected)} was expected."
        missing = [key for key in expected if key not in got]
        extra = [key for key in got if key not in expected]
        said = [f"The key {key!r} is missing." for key in missing[:1]]
        said += [f"The key {key!r} is one too many." for key in extra[:1]]
        if said:
            return " ".join(said)
        return _within([(f"the value of {key!r}", got[key], expected[key]) for key in expected], known)
    if len(got) != len(expected):
        return _lengths(got, expected)
    plain = array(expected) is not None and not any(isinstance(part, torch.Tensor) for part in got)
    if isinstance(expected, list) and len(expected) > len(ORDINALS) or plain:
        return None  # a long list or plain numbers: their values are compared as such
    return _within([(f"the {ORDINALS[n]} of its {len(expected)} values" if n < 5 else f"value {n}", a, b)
                    for n, (a, b) in enumerate(zip(got, expected, strict=True))], known)


def _within(parts: list[tuple[str, Any, Any]], known: Quantities) -> str | None:
    for name, a, b in parts:
        if reason := kind(a, b, known):
            return f"In {name}: {reason[0].lower() + reason[1:]}"
    return None


def _lengths(got: Sequence, expected: Sequence) -> str:
    ours, theirs = list(got), list(expected)
    few, many = (ours, theirs) if len(ours) < len(theirs) else (theirs, ours)
    gap, said = len(many) - len(few), f"{len(ours)} came, {len(theirs)} were expected"
    word = "missing" if few is ours else "too many"
    if not few:
        return f"{said}: nothing came." if few is ours else f"{said}: the answer is empty here."
    for place, part in (("last", many[:len(few)]), ("first", many[gap:])):
        if equal(few, part, CLOSE):
            return f"{said}: the {place} {f'{gap} are' if gap > 1 else 'is'} {word}."
    left = _without(many, few)
    if left is not None:
        return f"{said}: {number(left[0])} is {word}, the rest is right."
    return f"{said}."


def _without(many: list, few: list) -> list | None:
    """What is left of `many` when `few` is taken out of it, in order; None if it cannot be."""
    left, rest = [], list(few)
    for item in many:
        if rest and equal(item, rest[0], CLOSE):
            rest.pop(0)
        else:
            left.append(item)
    return left if not rest else None


# ------------------------------------------------------------------------------------------- numbers

def finite(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """NaN or infinity where a number belongs, or the other way round."""
    bad = ~got.isfinite() & expected.isfinite()
    if bad.any():
        what = "NaN" if got[bad][0].isnan() else "infinity"
        where = f" at {int(bad.sum())} of {got.numel()} places" if got.numel() > 1 else ""
        return (f"{what[0].upper() + what[1:]} came{where}, where a number belongs: was something divided by zero, or "
                "did it overflow?")
    bad = got.isfinite() & ~expected.isfinite()
    if bad.any():
        what = "NaN" if expected[bad][0].isnan() else "Infinity"
        return f"{what} is right at {int(bad.sum())} of {got.numel()} places, and a number came."
    return None


def constant(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """All the same, where the answer varies."""
    if got.numel() > 2 and len(values := got.unique()) == 1 < len(expected.unique()):
        what = "zero" if not got.any() else number(values.item())
        return f"Everything that came is {what}; the answer varies from place to place."
    return None


def sign(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Right but for the sign."""
    if not expected.any():
        return None
    if _is(got, -expected):
        return "The size is right everywhere, the sign is the wrong way round."
    if _is(got, expected.abs()):
        return "The signs are lost: what should be negative came positive, of the same size."
    if _is(got.abs(), expected.abs()):
        return "The sizes are right; some of the signs are the wrong way round."
    return None


def scale(got: torch.Tensor, expected: torch.Tensor, known: Quantities) -> str | None:
    """Every number too large or too small by one factor."""
    there = expected != 0
    if not expected.isfinite().all() or got[~there].any() or known.want == "offset":
        return None  # where one of the two is finite the other is: that rung came before
    ratio = (got[there] / expected[there]).median().item()
    if ratio == 0 or abs(ratio - 1) < 1e-3 or not _is(got, ratio * expected, 1e-4):
        return None
    size, one = max(abs(ratio), 1 / abs(ratio)), got.numel() == 1
    minus = " with the sign the wrong way round," if ratio < 0 else ""
    said = f"It is{minus} {number(size, digits=4)} times too {'large' if abs(ratio) > 1 else 'small'}" + (
        "" if one else ", everywhere alike")
    because = known.factor(size)
    return f"{said}: {because}." if because else f"{said}." if not one or _round(size) else None


def _round(size: float) -> bool:
    return any(math.isclose(size, whole, rel_tol=1e-4) for whole in (2, 3, 4, 8, 10, 16, 32, 64, 100, 1000, 1024))


def offset(got: torch.Tensor, expected: torch.Tensor, known: Quantities) -> str | None:
    """Every number too large or too small by one amount."""
    gap = got - expected
    if not gap.isfinite().all() or known.want == "scale":
        return None
    amount = gap.flatten()[0].item()
    largest = expected.abs().max().item()
    room = 1e-4 * abs(amount) + 1e-7 * largest
    if abs(amount) <= 1e-5 * largest or ((gap - amount).abs() > room).any():
        return None
    size, high, name = abs(amount), "large" if amount > 0 else "small", known.amount(abs(amount))
    if got.numel() == 1 and size != 1 and not name:
        return None
    everywhere = "" if got.numel() == 1 else ", everywhere alike"
    because = f", which is {name}" if name else ": off by one" if size == 1 else ""
    return f"It is {number(size, digits=5)} too {high}{everywhere}{because}."


def wrapped(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Wrong by whole multiples of 2^k: integers that came in again at the other end."""
    gap = (got - expected)[got != expected]
    if got.numel() == 1 or not gap.isfinite().all():
        return None
    for bits in (32, 16, 8, 4):
        if not (gap % 2**bits).any() and -(2 ** (bits - 1)) <= got.min() and got.max() < 2**bits:
            return (f"{gap.numel()} of {got.numel()} are wrong by a multiple of {2**bits:,}: numbers of {bits} "
                    "bits ran over their end, or were read with the other signedness.")
    return None


def rounding(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Whole steps away, always to one side."""
    whole = (got == got.round()).all() and (expected == expected.round()).all()
    gap = got - expected
    wrong = gap != 0
    if not whole or got.numel() < 4 or gap.abs().max() != 1 or wrong.all():
        return None
    share = f"{int(wrong.sum())} of {got.numel()} are one"
    towards = gap[wrong] * expected[wrong].sign()
    if (gap[wrong] == -1).all():
        return f"{share} too low and none too high: was something rounded down, or a tie broken the other way?"
    if (gap[wrong] == 1).all():
        return f"{share} too high and none too low: was something rounded up, or a tie broken the other way?"
    if (towards < 0).all():
        return f"{share} too near to zero: was something cut off where it should be rounded?"
    return f"{share} off, some too high and some too low: is it rounded to the nearest, with ties as asked?"


def form(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """The expected numbers after a well-known function."""
    if expected.numel() == 1 and expected.abs().item() in (0, 1):
        return None
    safe = expected.abs().clamp(min=1e-300)
    turned = [("the square of what was expected", expected**2), ("the root of what was expected", safe.sqrt()),
              ("upside down: one divided by what was expected", expected.reciprocal()),
              ("one minus what was expected", 1 - expected), ("the natural logarithm of what was expected", safe.log()),
              ("the base-2 logarithm of what was expected", safe.log2()),
              ("two to the power of what was expected", 2**expected),
              ("e to the power of what was expected", expected.exp()),
              ("rounded to whole numbers", expected.round()), ("rounded down to whole numbers", expected.floor()),
              ("cut off to whole numbers", expected.trunc()),
              ("the largest power of two that is not above what was expected", 2 ** safe.log2().floor())]
    turned += [(f"rounded to {n} decimal{'s' * (n > 1)}", short) for n in (2, 3, 4, 1)
               if 2 * (short := expected.round(decimals=n)).count_nonzero() >= short.numel()]
    turned += [(f"the bit pattern of what was expected, in {_name(kind)}", expected.to(kind).view(whole).double())
               for kind, whole in ((torch.float16, torch.int16), (torch.bfloat16, torch.int16),
                                   (torch.float32, torch.int32))]
    for say, value in turned:
        if not _is(value, expected, 1e-7) and _is(got, value):
            return f"What came is {say}."
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def order(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """The right numbers at other places."""
    a, b = got.flatten(), expected.flatten()
    if a.numel() < 2 or not _is(a.sort().values, b.sort().values):
        return None
    if got.dim() == 2 and _is(got.T.reshape(expected.shape), expected):
        return "It is lying on its side: rows and columns are exchanged (transposed)."
    for d in range(got.dim()):
        along = "" if got.dim() == 1 else f" along dimension {d}"
        if _is(got.flip(d), expected):
            return f"The right numbers backwards{along}: the order is reversed."
        for shift in (1, -1):
            if got.shape[d] > 2 and _is(got.roll(-shift, d), expected):
                side = "later" if shift == 1 else "earlier"
                return f"The right numbers, each one place {side} than it should be{along}."
        if got.shape[d] % 2 == 0 and _is(got.unflatten(d, (-1, 2)).flip(d + 1).flatten(d, d + 1), expected):
            return f"The right numbers, but each pair of neighbours is exchanged{along}."
    if got.dim() == 2 and _is(got.flatten().view(got.shape[::-1]).T, expected):
        return "The right numbers, laid out by columns where rows were expected, or the other way round."
    if _is(a, b.sort().values) or _is(a, b.sort(descending=True).values):
        return "The right numbers, but sorted: their order was to be kept."
    return "The right numbers in another order."


def shifted(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """Most numbers stand one place beside where they belong; the end was filled up."""
    for d in range(got.dim()):
        n = got.shape[d]
        for step, say in ((1, "later"), (-1, "earlier")):
            if n > 3:
                ours, theirs = got.narrow(d, max(step, 0), n - 1), expected.narrow(d, max(-step, 0), n - 1)
                if _is(ours, theirs) and not (theirs == theirs.flatten()[0]).all():
                    return f"Everything stands one place {say} than it should (off by one along dimension {d})."
    return None


def clipped(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """The expected numbers, held within a range."""
    low, high = got.min(), got.max()
    if got.numel() > 3 and _is(got, expected.clamp(low, high)):
        cut = int((expected < low).sum()), int((expected > high).sum())
        ends = [f"{cut[0]} are held at {number(low.item())}"] * bool(cut[0]) \
            + [f"{cut[1]} are held at {number(high.item())}"] * bool(cut[1])
        return f"Right inside, clipped outside: {' and '.join(ends)}." if sum(cut) > 1 else None
    return None


def straight(got: torch.Tensor, expected: torch.Tensor) -> str | None:
    """A factor and an offset together: a zero point, a mean or a shift at the wrong place."""
    a, b = got.flatten(), expected.flatten()
    if len(b.unique()) < 4 or not b.isfinite().all():
        return None
    low, high = b.argmin(), b.argmax()
    factor = (a[high] - a[low]) / (b[high] - b[low])
    base = a[low] - factor * b[low]
    if factor == -1 and _is(a, base - b):
        return f"It counts from the other end: what came and what was expected always add up to {number(base.item())}."
    if number(factor.item(), digits=4) == "1" and _is(a, b + base, 1e-4):
        amount, high = number(abs(base.item()), digits=2), "large" if base > 0 else "small"
        return f"It is {amount} too {high}, everywhere nearly alike: a shift is out of place."
    if factor != 0 and _is(a, factor * b + base, 1e-4):
        return (f"It is the right answer times {number(factor.item(), digits=4)} plus {number(base.item(), digits=4)}, "
                "everywhere: a factor and a shift are out of place.")
    return None


def precision(got: torch.Tensor, expected: torch.Tensor, wanted: Any = None) -> str | None:
    """Right to a few digits."""
    there = expected != 0
    if not there.any() or not expected.isfinite().all():
        return None
    error = ((got - expected).abs() / expected.abs().max()).max().item()
    dtype = wanted.dtype if isinstance(wanted, torch.Tensor) else None
    if dtype in (torch.float16, torch.bfloat16) and error < 0.05:
        return (f"Right but for the last digits that {_name(dtype)} holds: was something rounded to {_name(dtype)} on "
                "the way already, and not at the end only?")
    wrong = got != expected
    for narrow in (torch.float16, torch.bfloat16):
        if torch.equal(got[wrong], expected[wrong].to(narrow).double()):
            many = f"{int(wrong.sum())} of {got.numel()} numbers" if got.numel() > 1 else "The number"
            return f"{many} came rounded to {_name(narrow)}, and would be right otherwise."
    if 0 < error < 5e-3 and (expected != expected.round()).any():
        gaps = ((got - expected) / expected)[there]
        high = gaps.abs().max() if gaps.min() < 0 < gaps.max() else 0.0
        narrow = next((f", by errors of both signs, as {name} rounds" for name, half in (
            ("bfloat16", 2**-9), ("float16", 2**-12)) if half / 2 < high <= half * 1.05), "")
        return (f"Right to {round(-math.log10(error))} digits only{narrow}. Something small was rounded, left "
                "out, or added on the way.")
    return None


def _is(a: torch.Tensor, b: torch.Tensor, tolerance: float = CLOSE) -> bool:
    return a.shape == b.shape and not bool(unequal(a, b, tolerance).any())


RUNGS: tuple[Callable[..., str | None], ...] = (
    finite, constant, sign, scale, offset, wrapped, order, shifted, rounding, clipped, form, precision,
    straight)


def numbers(got: Any, expected: Any, known: Quantities = NONE) -> tuple[str, str] | None:
    """(rung, sentence) for two answers made of numbers in one shape, or None."""
    a, b = array(got), array(expected)
    if a is None or b is None or a.shape != b.shape:
        return None
    if torch.equal(a, b):
        return "kind", "The values are right, but some are floats where whole numbers belong, or the other way round."
    by_one = a.numel() == 1 and (a - b).abs() == 1
    rungs = (form, precision) if _is(a, b) else (offset, *RUNGS) if by_one else RUNGS  # nearly equal
    if isinstance(expected, torch.Tensor) and expected.dtype.is_floating_point:
        rungs = tuple(rung for rung in rungs if rung is not wrapped)  # floats do not wrap, be they whole
    for rung in (rung for rung in rungs if rung.__name__ not in known.skip):
        said = rung(a, b, known) if rung in (scale, offset) else rung(a, b, expected) if rung is precision \
            else rung(a, b)
        if said:
            return rung.__name__, said
    return None


def parts(got: Any, expected: Any, known: Quantities = NONE) -> tuple[str, str] | None:
    """(rung, sentence) for an answer of several values: which of them is wrong, and how."""
    if isinstance(expected, Mapping):
        pairs = [(f"the value of {key!r}", got[key], expected[key]) for key in expected]
    elif (not isinstance(expected, list | tuple) or len(expected) > len(ORDINALS)
          or array(expected) is not None and not isinstance(expected, tuple)):
        return None
    else:
        pairs = [(f"the {ORDINALS[n]} value", a, b) for n, (a, b) in enumerate(zip(got, expected, strict=True))]
    wrong = [(name, a, b) for name, a, b in pairs if not equal(a, b, CLOSE)]
    if not wrong or len(pairs) < 2:
        return None
    name, a, b = wrong[0]
    found = inside(a, b, known)
    detail = f"{found[1][0].lower() + found[1][1:]}" if found else ""
    rest = "is wrong, the rest is right" if len(wrong) == 1 else f"is the first of {len(wrong)} that are wrong"
    if found and found[0] == "part" or detail.startswith("the ") and " is wrong" in detail:
        said = f"In {name} {detail}"
    else:
        said = f"{name[0].upper() + name[1:]} {rest}{': ' + detail if detail else '.'}"
    return (found[0] if found else "part"), said


# ------------------------------------------------------------------------------------------- words

def text(got: Any, expected: Any) -> tuple[str, str] | None:
    """(rung, sentence) for two strings, or two lists of things."""
    if isinstance(expected, str) and isinstance(got, str):
        for name, change in (("white space at its ends", str.strip), ("capitals", str.casefold)):
            if change(got) == change(expected):
                return "text", f"It differs from the answer only in {name}."
        if "".join(got.split()) == "".join(expected.split()):
            return "text", "It differs from the answer only in white space or line breaks."
        if sorted(got) == sorted(expected):
            return "order", "The right letters in another order."
        if expected and expected in got:
            return "text", f"It holds more than the answer: {number(got.replace(expected, '…', 1))} around it."
        if got in expected and len(got) > 5 and len(expected) > len(got) + 2:
            return "text", f"A part is missing: {number(expected.replace(got, '…', 1))}."
        return None
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple) and len(got) == len(expected) > 1:
        if equal(list(got)[::-1], list(expected), CLOSE):
            return "order", "The two are exchanged." if len(got) == 2 else "The right ones backwards: reversed."
        if sorted(map(repr, got)) == sorted(map(repr, expected)):
            return "order", "The right ones in another order."
        wrong = [(n, a, b) for n, (a, b) in enumerate(zip(got, expected, strict=True)) if not equal(a, b, CLOSE)]
        if wrong and (found := text(*wrong[0][1:])):
            detail = found[1][0].lower() + found[1][1:]
            return found[0], f"{len(wrong)} of {len(expected)} are wrong. In the first, [{wrong[0][0]}]: {detail}"
    return None


def inside(got: Any, expected: Any, known: Quantities = NONE) -> tuple[str, str] | None:
    """(rung, sentence) for an answer that differs, the first that fits; None if no rung does."""
    if said := kind(got, expected, known):
        return "kind", said
    return numbers(got, expected, known) or text(got, expected) or parts(got, expected, known)
