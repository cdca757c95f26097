"""How an answer is compared with the one expected, and how values are written out for a reader."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

import torch

LONGEST = 400  # characters of a value that are shown


def show(value: Any) -> str:
    """One line for `value`: short, and the same in every run."""
    if isinstance(value, torch.Tensor):
        if value.numel() <= 12:
            return f"{value.tolist()} ({describe(value)})"
        return describe(value)
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, PurePath):  # where a folder lies differs from run to run
        return f"…/{value.name}"
    text = repr(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


def describe(value: Any) -> str:
    """What kind of thing `value` is: "a list of 3", "a torch.bfloat16 tensor of shape (2, 3)", "None"."""
    if value is None:
        return "None"
    if isinstance(value, torch.Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    name = "Path" if isinstance(value, PurePath) else type(value).__name__
    article = "an" if name[0] in "aeiouAEIOU" else "a"
    return f"{article} {name} of {len(value)}" if isinstance(value, list | tuple | dict) else f"{article} {name}"


def wrong_kind(got: Any, expected: Any) -> str | None:
    """Why `got` is not even the kind of thing expected (type, dtype, shape), or None if it is."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(got, torch.Tensor) and got.dtype == expected.dtype and got.shape == expected.shape
    elif isinstance(expected, bool) or isinstance(got, bool):
        same = isinstance(expected, bool) and isinstance(got, bool)
    elif isinstance(expected, Integral):
        same = isinstance(got, Integral)
    elif isinstance(expected, Real):
        same = isinstance(got, Real)
    elif expected is None or got is None:  # whether there is an answer at all is a question of value, not of kind
        same = True
    else:
        same = isinstance(got, type(expected))
    if same:
        return None
    came, wanted = describe(got), describe(expected)
    return f"{came} came, {wanted} was expected." if came != wanted else None


def equal(got: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Equal in kind and value, at every depth. `tolerance` is relative and applies to floats; NaN equals NaN."""
    if wrong_kind(got, expected):
        return False
    if isinstance(expected, torch.Tensor):
        return torch.allclose(got, expected, rtol=tolerance, atol=0.0, equal_nan=True)
    if isinstance(expected, Real) and not isinstance(expected, Integral):
        both_nan = isinstance(got, Real) and math.isnan(got) and math.isnan(expected)
        return both_nan or (isinstance(got, Real) and math.isclose(got, expected, rel_tol=tolerance))
    if isinstance(expected, Mapping):
        return isinstance(got, Mapping) and got.keys() == expected.keys() and all(
            equal(got[key], expected[key], tolerance) for key in expected)
    if isinstance(expected, list | tuple):
        return isinstance(got, list | tuple) and len(got) == len(expected) and all(
            equal(a, b, tolerance) for a, b in zip(got, expected, strict=True))
    if isinstance(expected, torch.nn.Module):
        a, b = got.state_dict(), expected.state_dict()
        trained = [p.requires_grad for p in got.parameters()] == [p.requires_grad for p in expected.parameters()]
        return trained and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in b)
    if type(expected).__eq__ is object.__eq__ and hasattr(expected, "__dict__"):  # would compare by identity
        return equal(vars(got), vars(expected), tolerance)
    return bool(got == expected)


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
