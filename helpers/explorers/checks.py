"""What a setting of an explorer may be: checks that give it back as it is kept, or say what to take instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Check = Callable[[str, object], Any]  # (a setting's name, what it shall be) -> what it becomes; ValueError: it may not


def whole(least: int, most: int = 2**31 - 1) -> Check:
    """A whole number from `least` to `most`."""
    return _between(int, least, most, f"take a whole number from {least} to {most:,}")


def number(least: float, most: float, advice: str = "") -> Check:
    """A finite number from `least` to `most`, as float. advice: what to take, in other words than these."""
    return _between(float, least, most, advice or f"take a number from {least:g} to {most:g}")


def _between(kind: type, least: float, most: float, advice: str) -> Check:
    def check(name: str, value: object) -> int | float:
        x = plain(value)
        if isinstance(x, bool) or not isinstance(x, int | kind) or not least <= x <= most:  # NaN is refused too
            raise ValueError(f"{name}={said(value)}: {advice}.")
        return kind(x)
    return check


def one_of(options: Iterable[Any]) -> Check:
    """One of the options, which are texts, numbers or bools: the option itself, where the value equals it."""
    options = tuple(options)

    def check(name: str, value: object) -> Any:
        wanted = plain(value)
        for option in options:
            same_kind = isinstance(wanted, str | int | float) and isinstance(wanted, bool) == isinstance(option, bool)
            if same_kind and wanted == option:
                return option
        raise ValueError(f"{name}={said(value)}: take one of {', '.join(map(str, options))}.")
    return check


def plain(value: object) -> object:
    """A scalar of numpy or torch as Python's own; all else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def said(value: object) -> str:
    """A value as it can stand in a message: one short line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        text = f"a {type(value).__name__} too long to write"
    return text if len(text) <= 80 else f"{text[:79]}…"
