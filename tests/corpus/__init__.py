"""Answers that nobody registered: what students might write, and unusual right answers. One module a lesson."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """An answer to an exercise: the slip it makes (or, if `right`, what is unusual about it), and its function."""

    exercise: str
    says: str
    function: Callable[..., Any]
    right: bool


ANSWERS: list[Answer] = []


def wrong(exercise: str, slip: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a wrong answer."""
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ANSWERS.append(Answer(exercise, slip, function, False))
        return function
    return register


def right(exercise: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as a right answer."""
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        ANSWERS.append(Answer(exercise, what, function, True))
        return function
    return register
