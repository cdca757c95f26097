"""Asking an answer more: which arguments it uses, and whether it is the right answer to another question."""

from __future__ import annotations

import dis
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from helpers.exercises.compare import copied, equal, number
from helpers.exercises.running import call

Judge = Callable[[tuple], Any]  # the reference solution as a function of the arguments' tuple
TRIES = 150  # changed inputs that are tried at most
SECONDS = 5.0  # for each call
NOTHING = object()


def safely(function: Callable[..., Any], args: tuple) -> Any:
    """The function's value for a copy of `args`, or NOTHING where it raises."""
    outcome = call(function, copied(args), SECONDS)
    return NOTHING if outcome.error is not None else outcome.value


def as_if(function: Callable[..., Any], solution: Callable[..., Any], args: tuple, others: Sequence[tuple],
          tolerance: float) -> str | None:
    """The change of the input under which the answer to `args` would be right: "as if `bits` were 8"; None if there is
    none. Of several that fit, the one that explains the most of the `others`; one that explains less than half of
    those on which the function is wrong, or of those on which it is right, does not count."""
    names, got = list(inspect.signature(solution).parameters), safely(function, args)
    expected = safely(solution, args)
    fitting = []
    for said, changed in itertools.islice(changes(names, args, others, solution), TRIES):
        value = safely(solution, changed)
        if not _alike(value, expected, tolerance) and _alike(got, value, max(tolerance, 1e-6)):
            fitting.append(said)
    scores = {said: ([], []) for said in fitting}  # whether it foretells the answer: to right inputs, to wrong ones
    for other in [other for other in others if fitting and other is not args][:10]:
        ours, theirs = safely(function, other), safely(solution, other)
        wrong = not _alike(ours, theirs, tolerance)
        for said, changed in changes(names, other, [*others, args], solution):
            if said in scores:
                scores[said][wrong].append(_alike(ours, safely(solution, changed), max(tolerance, 1e-6)))
    few = not isinstance(expected, torch.Tensor) or expected.numel() < 3  # few numbers are soon met by chance
    told = [said for said, (right, wrong) in scores.items() if (any(wrong) or not few and not wrong) and (
        3 * sum(wrong) > 2 * len(wrong) >= 6 or 2 * sum(wrong) >= len(wrong) and 2 * sum(right) >= len(right))]
    return max(told, key=lambda said: sum(map(sum, scores[said])), default=None)


def _alike(a: Any, b: Any, tolerance: float) -> bool:
    return a is not NOTHING and b is not NOTHING and equal(a, b, tolerance)


def ignored(function: Callable[..., Any], solution: Callable[..., Any], inputs: Sequence[tuple],
            tolerance: float) -> str | None:
    """The name of an argument that changes the right answer to at least two of the inputs, and never this one."""
    for j, name in enumerate(inspect.signature(solution).parameters):
        matters = 0
        for args in inputs[:5]:
            if len(args) <= j:
                continue
            theirs, ours = safely(solution, args), safely(function, args)
            seen = [other[j] for other in inputs if len(other) > j]
            varied = [(*args[:j], value, *args[j + 1:]) for _, value in variants(name, args[j], seen, solution)]
            varied = [new for new in varied if not _alike(safely(solution, new), theirs, tolerance)
                      and safely(solution, new) is not NOTHING][:4]
            if any(not _alike(safely(function, new), ours, 0.0) for new in varied):
                break
            matters += bool(varied)
        else:
            if matters >= 2:
                return name
    return None


def unsteady(function: Callable[..., Any], args: tuple) -> bool:
    """Whether the function answers differently when it is called again."""
    first, *others = (safely(function, args) for _ in range(3))
    return first is not NOTHING and any(other is not NOTHING and not equal(other, first) for other in others)


def unread(function: Callable[..., Any], names: Sequence[str]) -> str | None:
    """The first argument, by the exercise's name for it, that the function's code never reads."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return None
    read = {*code.co_cellvars}
    for step in dis.get_instructions(code):
        if "LOAD_FAST" in step.opname:  # from Python 3.13 on one step may load two
            read.update(step.argval if isinstance(step.argval, tuple) else (step.argval,))
    taken = code.co_varnames[:code.co_argcount]
    return next((name for name, own in zip(names, taken, strict=False) if own not in read), None)


def changes(names: Sequence[str], args: tuple, others: Sequence[tuple],
            solution: Callable[..., Any]) -> Iterator[tuple[str, tuple]]:
    """(words, arguments) with one argument changed, or two of a kind exchanged."""
    for i in range(len(args)):
        for j in range(i):
            if type(args[i]) is type(args[j]) and not isinstance(args[i], bool | None):
                swapped = list(args)
                swapped[i], swapped[j] = args[j], args[i]
                yield f"as if `{names[j]}` and `{names[i]}` were exchanged", tuple(swapped)
    lists = [list(variants(names[j], args[j], [o[j] for o in others if len(o) > j], solution))
             for j in range(len(args))]
    for row in itertools.zip_longest(*lists):  # the likeliest of every argument first
        for j, found in enumerate(row):
            if found:
                said, value = found
                yield f"as if `{names[j]}` {said}", (*args[:j], value, *args[j + 1:])


def variants(name: str, value: Any, others: Sequence[Any], solution: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """(words, another value) for one argument, the likeliest slips first."""
    default = inspect.signature(solution).parameters[name].default
    if default is not inspect.Parameter.empty and default != value:
        yield f"were {number(default)}, its default", default
    if isinstance(value, bool):
        yield f"were {not value}", not value
    elif isinstance(value, int | float):
        yield from _numbers(value, others)
    elif isinstance(value, torch.Tensor):
        yield from _tensors(value)
    elif isinstance(value, str):
        yield from (("were stripped of white space at its ends", value.strip()), ("were in lower case", value.lower()),
                    ("were one line", " ".join(value.split())), ("had no line breaks", value.replace("\n", "")))
    elif isinstance(value, Mapping):
        for key in value:
            yield f"had no {key!r}", {k: v for k, v in value.items() if k != key}
            if isinstance(value[key], bool):
                yield f"had {key!r} = {not value[key]}", {**value, key: not value[key]}
            elif isinstance(value[key], int | float):
                yield f"had {key!r} = 1", {**value, key: type(value[key])(1)}
        yield "were in reversed order", dict(reversed(value.items()))
    elif isinstance(value, list | tuple):
        kind = type(value)
        yield "were reversed", value[::-1]
        if isinstance(value, list) or not all(isinstance(part, int | float) for part in value):
            yield from (("lacked its first", value[1:]), ("lacked its last", value[:-1]),
                        ("had its first only", value[:1]), ("had its last only", value[-1:]))
        try:
            yield "were sorted", kind(sorted(value))
            yield "had no value twice", kind(dict.fromkeys(value))
        except (TypeError, RuntimeError):  # what it holds has no order
            pass
        if value and all(isinstance(part, tuple) and len(part) == 2 for part in value):
            yield "had each pair exchanged", kind((b, a) for a, b in value)
            yield "had the first of each pair twice", kind((a, a) for a, _ in value)
            yield "had the second of each pair twice", kind((b, b) for _, b in value)
        if value and all(isinstance(part, int | float) and not isinstance(part, bool) for part in value) and (
                kind is list):
            yield "held magnitudes", kind(abs(part) for part in value)
            yield "had the other sign", kind(-part for part in value)
        if value and all(isinstance(part, str) for part in value):
            yield "were in lower case", kind(part.lower() for part in value)


def _numbers(value: float, others: Sequence[Any]) -> Iterator[tuple[str, float]]:
    kind = type(value)
    tried = {value}
    seen = [other for other in others if type(other) is kind]
    most = max(16, *(4 * abs(number) for number in (value, *seen)))  # 2 ** (64 bits) would fill the memory
    for said, new in (("were 1", 1), ("were 0", 0), ("were one more", value + 1), ("were one less", value - 1),
                      ("were twice as large", 2 * value), ("were half as large", value / 2),
                      ("were squared", value * value), ("had the other sign", -value),
                      ("were its root", abs(value) ** 0.5), ("were 1 / its value", 1 / (value or 1)),
                      *((f"were {number(other)}", other) for other in [*seen, 2, 3, 4, 8, 16, 32, 64, 127, 256])):
        made = kind(new)
        if made == new and made not in tried and abs(made) <= most:
            tried.add(made)
            yield said, made


def _tensors(value: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if value.dim() == 2:
        yield "were transposed", value.T.contiguous()
        yield "were reshaped where it is to be transposed", value.reshape(value.shape[::-1]).T.contiguous()
    if value.dtype.is_floating_point or value.dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        yield "held magnitudes only (no signs)", value.abs()
        yield "had the other sign", -value
    yield "were zero everywhere", torch.zeros_like(value)
    yield "were one everywhere", torch.ones_like(value)
    if value.dim() and value.numel() > 1:
        yield "were reversed", value.flip(0)
        yield "were sorted", value.sort(dim=0).values
        for d in range(value.dim()):
            along = f" along dimension {d}" if value.dim() > 1 else ""
            yield f"were shifted by one{along}", value.roll(1, d)
            yield f"were shifted by one the other way{along}", value.roll(-1, d)
        if value.dim() > 1:
            yield "were reversed in every row", value.flip(-1)
        yield "had its first part for all", value[:1].expand_as(value).contiguous()
        yield "lacked its first part", value[1:]
        yield "lacked its last part", value[:-1]
    if value.dtype.is_floating_point:
        yield "were rounded", value.round()
        yield "were cut off to whole numbers", value.trunc()
        yield "were squared", value**2
        for dtype in (torch.bfloat16, torch.float16):
            if value.dtype not in (torch.bfloat16, torch.float16):
                yield f"were rounded to {str(dtype).removeprefix('torch.')}", value.to(dtype).to(value.dtype)
        if value.numel() > 1:
            yield "were its mean everywhere", value.mean().expand_as(value).contiguous()
            yield "were divided by its largest magnitude", value / value.abs().max()
            yield "had its mean taken away", value - value.mean()
            yield "had no values below zero", value.clamp(min=0)
    elif value.dtype == torch.uint8:
        yield "were signed", value.view(torch.int8)
        yield "had its half-bytes exchanged", (value << 4) | (value >> 4)
