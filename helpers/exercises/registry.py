"""Finding exercises by name, and the three calls of a notebook: `check`, `hint`, `solution`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import helpers.exercises as package
from helpers.exercises import results
from helpers.exercises.display import Card, SourceCard
from helpers.exercises.engine import Exercise, Verdict, examine

verdicts: dict[str, Verdict] = {}  # the latest verdict on each name in this kernel
_hints_given: dict[str, int] = {}


@cache
def exercises() -> Mapping[str, Exercise]:
    """Every exercise of the course by name, lesson by lesson (the modules `lesson_NN` of this package)."""
    found: dict[str, Exercise] = {}
    for name in sorted(m.name for m in pkgutil.iter_modules(package.__path__) if m.name.startswith("lesson_")):
        for exercise in importlib.import_module(f"{package.__name__}.{name}").EXERCISES:
            if exercise.name in found:
                raise ValueError(f"two exercises are named {exercise.name!r}: names must differ over the whole course")
            found[exercise.name] = exercise
    return MappingProxyType(found)


def check(function: Callable[..., Any]) -> Verdict:
    """Judge `function` as an answer to the exercise of its name; the answer is a card, also for programs (`.status`).

    Never raises from the function's own code. An unattempted stub gets a neutral answer, and so does the course's own
    function, which a lesson may import later under the name of yours. COURSE_RESULTS keeps verdicts (results.py).
    """
    name = getattr(function, "__name__", None)
    if not callable(function) or not name:
        verdict = Verdict("?", "check takes the function itself,", "without calling it: `check(my_function)`.")
    elif name not in exercises():
        verdict = Verdict("?", f"No exercise is named `{name}`.", _suggest(name), name=name)
    else:
        exercise = exercises()[name]
        verdict = _ours(name) if function is exercise.solution else examine(exercise, function)
        results.keep(exercise.lesson, verdict)
    verdicts.pop(verdict.name, None)  # the latest stands last
    verdicts[verdict.name] = verdict
    return verdict


def _ours(name: str) -> Verdict:
    return Verdict("○", f"{name}: this is the course's own.", "The lesson has imported it since: run the cell with "
                   "yours, then this one.", name=name, status="unattempted")


def hint(exercise: str | Callable[..., Any]) -> Card:
    """The next hint for an exercise: the first call gives the first. Raises ValueError for an unknown name."""
    found = _find(exercise)
    given = min(_hints_given.get(found.name, 0) + 1, len(found.hints))
    _hints_given[found.name] = given
    last = f' That was the last one; `solution("{found.name}")` shows an answer.' if given == len(found.hints) else ""
    return Card("?", f"Hint {given} of {len(found.hints)}.", found.hints[given - 1] + last)


def solution(exercise: str | Callable[..., Any]) -> SourceCard:
    """The source of the reference solution. Raises ValueError for an unknown name."""
    return SourceCard(_find(exercise).source)


def _find(exercise: str | Callable[..., Any]) -> Exercise:
    name = exercise if isinstance(exercise, str) else getattr(exercise, "__name__", repr(exercise))
    if name not in exercises():
        raise ValueError(f"no exercise is named {name!r}. {_suggest(name)}")
    return exercises()[name]


def _suggest(name: str) -> str:
    """The closest name, and the names of the lesson at hand: that of the closest match, else of the latest check."""
    known = exercises()
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    recent = [n for n in reversed(verdicts) if n in known]
    lesson = known[(close or recent)[0]].lesson if close or recent else None
    listed = [n for n, e in known.items() if lesson in (None, e.lesson)]
    where = "The course's exercises" if lesson is None else f"Lesson {lesson:02d}'s exercises"
    return (f"Did you mean `{close[0]}`? " if close else "") + f"{where}: {', '.join(f'`{n}`' for n in listed)}."
