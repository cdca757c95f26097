"""How an answer is compared with the one expected, and how the two are written out for a reader."""

from __future__ import annotations

import copy
import math
import reprlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

LONGEST = 300  # characters of a value that are shown
_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxlist, _repr.maxtuple, _repr.maxdict, _repr.maxset = 6, 40, 40, 20, 20
_repr.maxstring = _repr.maxother = LONGEST


def number(value: Any, hexadecimal: int = 0, digits: int = 7, point: bool = False) -> str:
    """One number, string or truth value: floats to 7 significant digits, integers in hex where that many digits say.
    With `point` a float that is whole keeps its ".0"."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Integral):
        return f"0x{int(value):0{hexadecimal}x}" if hexadecimal and value >= 0 else str(int(value))
    if isinstance(value, Real):
        text = f"{float(value):.{digits}g}"
        return f"{text}.0" if point and text.removeprefix("-").isdigit() else text
    if isinstance(value, str) and tempfile.gettempdir() in value:  # where a folder lies differs from run to run
        return f"'…/{PurePath(value).name}'"
    return _repr.repr(value)


def show(value: Any, hexadecimal: int = 0) -> str:
    """One line for `value`: short, and the same in every run."""
    if isinstance(value, torch.Tensor):
        if value.numel() > 12:
            return describe(value)
        return f"{show(value.tolist(), hexadecimal)} ({describe(value)})"
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, PurePath):  # where a folder lies differs from run to run
        return f"…/{value.name}"
    if isinstance(value, list | tuple) and len(value) <= 40:
        inner = ", ".join(show(part, hexadecimal) for part in value)
        text = f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    elif isinstance(value, Mapping) and len(value) <= 20:
        text = "{" + ", ".join(f"{key!r}: {show(part, hexadecimal)}" for key, part in value.items()) + "}"
    else:
        text = number(value, hexadecimal, point=True)
    if " at 0x" in text:
        return describe(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def describe(value: Any) -> str:
    """What kind of thing `value` is: "a list of 3", "a torch.bfloat16 tensor of shape (2, 3)", "None"."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    name = "Path" if isinstance(value, PurePath) else type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    return f"{article} {name} of {len(value)}" if isinstance(value, list | tuple | dict | set) else f"{article} {name}"


def same_kind(got: Any, expected: Any) -> bool:
    """Whether `got` is the kind of thing expected: type, dtype and shape. Lists pass for tuples, NumPy's scalars for
    Python's; how long a list is counts as a question of value."""
    if isinstance(expected, torch.Tensor):
        return isinstance(got, torch.Tensor) and got.dtype == expected.dtype and got.shape == expected.shape
    if isinstance(expected, bool) or isinstance(got, bool | np.bool_):
        return isinstance(expected, bool) and isinstance(got, bool | np.bool_)
    for kind in (Integral, Real, list | tuple, Mapping):
        if isinstance(expected, kind):
            return isinstance(got, kind)
    if expected is None or got is None:  # whether there is an answer at all is a question of value, not of kind
        return True
    return isinstance(got, type(expected))


def equal(got: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Equal in kind and value, at every depth. `tolerance` applies to floats, relative to the largest number beside
    it in its tensor, so that sums which cancel may differ by rounding; NaN equals NaN."""
    if not same_kind(got, expected):
        return False
    if isinstance(expected, torch.Tensor):
        return not bool(unequal(got, expected, tolerance).any())
    if isinstance(expected, Real) and not isinstance(expected, Integral):
        got = float(got)
        return math.isnan(got) and math.isnan(expected) or math.isclose(got, expected, rel_tol=tolerance)
    if isinstance(expected, Mapping):
        return got.keys() == expected.keys() and all(equal(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list | tuple):
        return len(got) == len(expected) and all(equal(a, b, tolerance) for a, b in zip(got, expected, strict=True))
    if isinstance(expected, torch.nn.Module):
        a, b = got.state_dict(), expected.state_dict()
        trained = [p.requires_grad for p in got.parameters()] == [p.requires_grad for p in expected.parameters()]
        return trained and a.keys() == b.keys() and all(equal(a[name], b[name], tolerance) for name in b)
    if type(expected).__eq__ is object.__eq__ and hasattr(expected, "__dict__"):  # would compare by identity
        return equal(vars(got), vars(expected), tolerance)
    try:
        return bool(got == expected)
    except Exception:  # an answer whose == raises is not the one expected
        return False


def unequal(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 0.0) -> torch.Tensor:
    """Where two tensors of one shape differ: bool, in their shape. See `equal` for the tolerance."""
    if expected.is_meta or got.is_meta:  # without values: alike if both are
        return torch.full(expected.shape, expected.is_meta != got.is_meta)
    if not expected.dtype.is_floating_point:
        return got != expected
    a, b = got.detach().double(), expected.detach().double()
    finite = b[b.isfinite()].abs()
    room = tolerance * (b.abs() + 0.1 * (finite.max() if finite.numel() else 0.0))
    wrong = (a - b).abs() > room
    return torch.where(a.isfinite() & b.isfinite(), wrong, ~((a == b) | (a.isnan() & b.isnan())))


@dataclass(frozen=True)
class Differences:
    """Where two answers of one kind differ: how many of how many, the first place with both values, the largest error
    (None where it is no number)."""

    count: int
    total: int
    where: str
    came: Any
    wanted: Any
    largest: float | None


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The single values in nested lists, tuples and mappings, with their place: "[0]['name']"."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from leaves(part, f"{path}[{index}]")
    else:
        yield path, value


def differences(got: Any, expected: Any, tolerance: float = 0.0) -> Differences | None:
    """Where the answers differ, or None where they do not have the same parts."""
    ours, theirs = list(leaves(got)), list(leaves(expected))
    if [path for path, _ in ours] != [path for path, _ in theirs]:
        return None
    count = total = 0
    first, largest = None, None
    for (path, a), (_, b) in zip(ours, theirs, strict=True):
        if isinstance(b, torch.Tensor):
            if not same_kind(a, b):
                return None
            wrong = unequal(a, b, tolerance)
            total, count = total + b.numel(), count + int(wrong.sum())
            if wrong.any():
                index = tuple(wrong.nonzero()[0].tolist())
                first = first or (path + (f"[{', '.join(map(str, index))}]" if index else ""), a[index].item(),
                                  b[index].item())
                error = (a.double() - b.double()).abs()[wrong]
                error = error[error.isfinite()]
                largest = max(largest or 0.0, error.max().item()) if error.numel() else largest
            continue
        total += 1
        if not equal(a, b, tolerance):
            count, first = count + 1, first or (path, a, b)
            if all(isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v) for v in (a, b)):
                largest = max(largest or 0.0, abs(float(a) - float(b)))
    return None if first is None else Differences(count, total, *first, largest)


def rows(got: Any, expected: Any, tolerance: float, hexadecimal: int = 0) -> tuple[tuple[str, str], ...]:
    """The lines of a card that set an answer beside the one expected; no two of them alike."""
    came, wanted = show(got, hexadecimal), show(expected, hexadecimal)
    found = differences(got, expected, tolerance)
    lines = [] if came == wanted else [("came", came), ("expected", wanted)]
    if found and (found.total > 1 or not lines):
        a, b = (number(v, hexadecimal, point=True) for v in (found.came, found.wanted))
        if a == b:
            a, b = (number(v, digits=17) for v in (found.came, found.wanted))
        error = "" if found.largest is None or hexadecimal else f"; largest error {found.largest:.3g}"
        place = f"first at {found.where}: " if found.where else ""
        lines.append(("differ", f"{found.count:,} of {found.total:,}; {place}{a} came, {b} expected{error}"))
    return tuple(lines) or (("came", came),)


def mutable_parts(value: Any) -> Iterator[Any]:
    """`value` and what it contains, as far as it can be changed in place."""
    if isinstance(value, torch.Tensor | torch.nn.Module):
        yield value
    elif isinstance(value, Mapping):
        yield value
        for part in value.values():
            yield from mutable_parts(part)
    elif isinstance(value, list | tuple | set):
        if not isinstance(value, tuple):
            yield value
        for part in value:
            yield from mutable_parts(part)


def aliases(got: Any, argument: Any) -> bool:
    """Whether `got` is, contains, or shares memory with a mutable part of `argument`."""
    theirs = list(mutable_parts(argument))
    for part in mutable_parts(got):
        for other in theirs:
            if part is other:
                return True
            if isinstance(part, torch.Tensor) and isinstance(other, torch.Tensor) and part.numel():
                if part.untyped_storage().data_ptr() == other.untyped_storage().data_ptr():
                    return True
    return False


def copied(arguments: tuple) -> tuple:
    """A deep copy, so that what a student's function does to its inputs can be seen and undone."""
    return copy.deepcopy(arguments)
