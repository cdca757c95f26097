"""What a factor or an amount of an answer is made of: numbers of the input, and what is made of two of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

UNITS = {8: "eight bits are a byte", 1024: "1,024 is a step of units", 1000: "1,000 is a step of units",
         2**20: "1,048,576 is two steps of units", 2**30: "2^30 is a GiB", 10**9: "10^9 is a GB",
         math.log2(math.e): "log2(x) is 1.4427 times ln(x)", math.log2(10): "log2(x) is 3.3219 times log10(x)"}


class Quantities:
    """The numbers of an input; `factor` and `amount` say what a size is made of, and keep it in `asked`.

    `others` are those of other inputs on which the answer is wrong: only what fits there as well is told, and without
    any only a number that is itself the size, and the only one. With `want`, "scale" or "offset", no size is asked of
    the other kind, and without `others` each has the name "?": that is how those are made; with "none" none has one.
    `skip` are the ladder's rungs that are not asked.
    """

    def __init__(self, inputs: Sequence[tuple[str, Any]], others: Sequence[Quantities] = (), want: str = "",
                 skip: Collection[str] = ()) -> None:
        self.inputs, self.others, self.want, self.skip, self.asked, self.told = inputs, others, want, skip, 0.0, ""

    def factor(self, size: float) -> str:
        """What a factor above 1 is: "that is `r`", or ""."""
        if found := self._name(size, _factors):
            return f"that is {found}"
        if self.others:
            self.told = next((say for value, say in UNITS.items() if all(
                math.isclose(asked, value, rel_tol=1e-6) for asked in (size, *(o.asked for o in self.others)))), "")
        return self.told

    def amount(self, size: float) -> str:
        """What an amount above 0 is: "`r`", or ""."""
        return self._name(size, _amounts)

    def _name(self, size: float, made: Callable[..., Iterator[tuple[str, float]]]) -> str:
        self.asked, known = size, numbers(self.inputs)
        tables = [(dict(made(numbers(other.inputs))), other.asked) for other in self.others]
        if not tables:
            found = [name for name, value in known if _near(abs(value), size) and size > 3]
            lone = len(found) == 1 and not self.want
            self.told = "?" if self.want in ("scale", "offset") else found[0] if lone else ""
        elif size < 5 and all(_near(asked, size) for _, asked in tables):
            self.told = ""  # always 2: what of the input is 2 as well says nothing
        else:
            trusted = len(tables) > 1 or abs(size - round(size)) > 1e-3  # one more whole number may fit by chance
            self.told = next((name for name, value in made(known) if _near(value, size) and (
                trusted or size > 4 and name in dict(known)) and all(
                    _near(table.get(name, 0.0), asked) or made is _factors and _near(table.get(name, 0.0), 1 / asked)
                    for table, asked in tables)), "")
        return self.told

    def as_long_as(self, length: int) -> list[str]:
        """The arguments that have this length along some dimension, by name."""
        return [f"`{name}`" for name, value in self.inputs if length in (
            value.shape if hasattr(value, "shape") else (len(value),) if isinstance(value, list | tuple) else ())]


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-4)


def numbers(named: Sequence[tuple[str, Any]]) -> list[tuple[str, float]]:
    """The numbers of an input, with their names."""
    known: list[tuple[str, float]] = []
    for name, value in named:
        if isinstance(value, bool):
            continue
        if isinstance(value, int | float):
            known.append((f"`{name}`", float(value)))
        elif isinstance(value, Mapping):
            known += numbers([(f"{name}[{key!r}]", part) for key, part in value.items()
                              if isinstance(part, int | float)])
        elif hasattr(value, "shape"):
            known += [(f"`{name}.shape[{d}]`", float(size)) for d, size in enumerate(value.shape)]
            known += [(f"the size of `{name}`", float(value.numel()))] if len(value.shape) > 1 else []
            known += [(f"`{name}`", float(value))] if value.numel() == 1 and not len(value.shape) else []
        elif isinstance(value, list | tuple):
            known.append((f"the length of `{name}`", float(len(value))))
            if value and all(isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], int) for part in value):
                known += [(f"the sum of the {which} sides of `{name}`", float(sum(sides)))
                          for which, sides in zip(("first", "second"), zip(*value, strict=True), strict=True)]
            if isinstance(value, tuple):
                known += numbers([(f"{name}[{n}]", part) for n, part in enumerate(value[:3])
                                  if isinstance(part, int | float | tuple)])
    return known


def _factors(known: Sequence[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    for (name, value), (other, by) in itertools.combinations(known, 2):
        if "shape" not in name + other:
            yield f"{name} + {other}", abs(value + by)
    known = [(name, abs(value)) for name, value in known if value]
    yield from known
    for name, value in known:
        yield f"the root of {name}", value**0.5
        yield f"{name} squared", value**2
        yield f"n / (n - 1) where n is {name}", value / (value - 1) if value > 1 else 0.0
        yield f"(n + 1) / n where n is {name}", (value + 1) / value
        yield f"the root of {name} over its whole part", _cut(value**0.5)
    for name, value in known:
        for other, by in known:
            if name != other:
                yield f"{name} / {other}", value / by
                yield f"{name} / {other} over its whole part", _cut(value / by)
        for constant in (2, 4, 8, 16, 32, 64, 128, 256):
            yield f"{constant} / {name}", constant / value
    for (name, value), (other, by) in itertools.permutations(known, 2):
        yield f"{name} times {other}", value * by
        yield f"{name}, filled up to a multiple of {other}, over {name}", -(-value // by) * by / value


def _cut(value: float) -> float:
    whole = value // 1
    return value / whole if whole else 0.0


def _amounts(known: Sequence[tuple[str, float]]) -> Iterator[tuple[str, float]]:
    some = [(name, abs(value)) for name, value in known if value]
    yield from some
    for name, value in some:
        yield f"{name} squared", value**2
        for times in (2, 3, 4):
            yield f"{times} times {name}", times * value
    for (name, value), (other, by) in itertools.permutations(some, 2):
        yield f"{name} times {other}", value * by
        yield f"{name} times {other} squared", value * by**2
        for times in (2, 3, 4):
            yield f"{times} times {name} times {other}", times * value * by


NONE = Quantities(())
