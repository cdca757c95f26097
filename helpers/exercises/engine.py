"""The exercise engine: what an exercise is, and how an attempt is judged.

`examine(exercise, function)` runs the exercise's cases in order and answers with a `Verdict` about the first thing that
is wrong. Each case compares with the reference solution. A wrong answer that the case knows (`likely`) earns that
error's own diagnosis; any other wrong answer earns the case's general one. Nothing here raises from a student's code.
"""

from __future__ import annotations

import dis
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from helpers.exercises.compare import aliases, copied, equal, show, wrong_kind
from helpers.exercises.display import Card

STATUSES = {
    "unattempted": "○", "correct": "✓", "wrong": "✗", "kind": "✗", "error": "✗", "mutated": "✗", "aliased": "✗",
    "signature": "✗", "unknown": "?",
}


@dataclass(frozen=True)
class Case:
    """One input. `diagnosis` names the hint for a wrong answer here; `likely` maps a diagnosis to the wrong value that
    gives the error away, or to a predicate of the answer.

    `args` is a tuple, or a function returning a context manager that yields one (a folder on disk, a model). `shown`
    replaces the printed input where that would be long or differ from run to run. `tolerance` is relative. `raises`
    names the hint for an exception here, where that has one likely cause.
    """

    args: tuple | Callable[[], Any]
    diagnosis: str
    likely: Mapping[str, Any] = field(default_factory=dict)
    shown: str = ""
    tolerance: float = 0.0
    raises: str = ""

    @contextmanager
    def arguments(self) -> Iterator[tuple]:
        if callable(self.args):
            with self.args() as args:
                yield args
        else:
            yield copied(self.args)


@dataclass(frozen=True)
class Exercise:
    """An exercise; its name, signature and stub are those of `solution`.

    `stars` 1 to 3; `minutes` an honest guess; `prompt` markdown; `hints` from a nudge to nearly the answer;
    `diagnoses` diagnosis id -> what to tell the student; `wrong` known wrong answers as (function, diagnosis id);
    `published` the diagnosis that the code block in the prompt of a *spot the bug* must earn; `moral` is shown when
    solved; `imports` what the solution needs at the head of its cell.
    """

    lesson: int
    title: str
    stars: int
    minutes: int
    prompt: str
    solution: Callable[..., Any]
    cases: tuple[Case, ...]
    hints: tuple[str, ...]
    diagnoses: Mapping[str, str]
    wrong: tuple[tuple[Callable[..., Any], str], ...]
    moral: str = ""
    imports: str = ""
    published: str = ""

    @property
    def name(self) -> str:
        return self.solution.__name__


@dataclass(frozen=True, repr=False)
class Verdict(Card):
    """A card that also says, for programs, what was judged: `status` (a key of STATUSES) and `diagnosis` (or None)."""

    name: str = ""
    status: str = "unknown"
    diagnosis: str | None = None


def examine(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    """Judge `function` as an answer to `exercise`. Never raises from the student's code."""

    def verdict(status: str, text: str, details: tuple = (), diagnosis: str | None = None) -> Verdict:
        state = {"correct": "correct.", "unattempted": "not attempted yet."}.get(status, "not yet.")
        return Verdict(STATUSES[status], f"{exercise.name}: {state}", text, details, exercise.name, status, diagnosis)

    if is_stub(function):
        return verdict("unattempted", "Replace the `...` in its body, run that cell, then this one.")
    expected_signature, signature = inspect.signature(exercise.solution), inspect.signature(function)
    try:
        signature.bind(*expected_signature.parameters)
    except TypeError:
        wanted, taken = _names(expected_signature), _names(signature)
        return verdict("signature", f"It is called with `{wanted}`, but takes `{taken}`.")

    for case in exercise.cases:
        with case.arguments() as args:
            expected = exercise.solution(*copied(args))
            before, shown = copied(args), _inputs(expected_signature, args, case)
            try:
                got = function(*args)
            except NotImplementedError:
                return verdict("unattempted", "It still raises NotImplementedError.")
            except Exception as error:  # the student's own error: reported, never raised
                if "ellipsis" in str(error).casefold():
                    return verdict("unattempted", "A `...` is still in its body.")
                came = (("raised", f"{type(error).__name__}: {error}"), *_line(error, function))
                advice = f"It raised an exception. {exercise.diagnoses.get(case.raises, '')}".rstrip()
                return verdict("error", advice, (*shown, *came, ("expected", show(expected))), case.raises or None)
            if got is ...:
                return verdict("unattempted", "A `...` is still in its body.")
            if not equal(args, before):
                return verdict("mutated", "It changes its input: work on a copy, the caller still needs the original.",
                               (*shown, ("afterwards", _inputs(expected_signature, args, case)[0][1])))
            details = (*shown, ("came", show(got)), ("expected", show(expected)))
            if equal(got, expected, case.tolerance):
                if any(aliases(got, arg) for arg in args):
                    return verdict("aliased", "The value is right, but it shares memory with the input: a later change "
                                   "to one changes the other. Return a new object.", details)
                continue
            for diagnosis, sign in case.likely.items():
                if _matches(sign, got):
                    return verdict("wrong", exercise.diagnoses[diagnosis], details, diagnosis)
            if got is None and expected is not None and _never_returns(function):
                return verdict("kind", "It returned None. Is a `return` missing?", details)
            if reason := wrong_kind(got, expected):
                return verdict("kind", reason[0].upper() + reason[1:], details)
            return verdict("wrong", exercise.diagnoses[case.diagnosis], details, case.diagnosis)
    return verdict("correct", exercise.moral)


def is_stub(function: Callable[..., Any]) -> bool:
    """Whether the body does nothing but return None or `...` (docstring aside), as its bytecode says."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP", "RETURN_VALUE")]
    return all(step.opname in ("LOAD_CONST", "RETURN_CONST") and step.argval in (None, ...) for step in steps)


def _never_returns(function: Callable[..., Any]) -> bool:
    """Whether every `return` of the function returns None: the value was computed and then dropped."""
    steps = list(dis.get_instructions(function)) if hasattr(function, "__code__") else []
    values = [step.argval for step in steps if step.opname == "RETURN_CONST"]
    for before, step in zip(steps, steps[1:], strict=False):
        if step.opname == "RETURN_VALUE":
            constant = before.opname == "LOAD_CONST" and not step.is_jump_target
            values.append(before.argval if constant else "computed")
    return bool(values) and all(value is None for value in values)


def _matches(sign: Any, got: Any) -> bool:
    if not callable(sign):
        return equal(got, sign, 1e-6)
    try:
        return bool(sign(got))
    except Exception:  # the answer is not of a kind that this sign can read
        return False


def _names(signature: inspect.Signature) -> str:
    return "(" + ", ".join(signature.parameters) + ")"


def _inputs(signature: inspect.Signature, args: tuple, case: Case) -> tuple[tuple[str, str], ...]:
    names = signature.parameters
    return (("input", case.shown or ", ".join(f"{n}={show(a)}" for n, a in zip(names, args, strict=False))),)


def _line(error: Exception, function: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    """The line of the student's function at which the exception passed, if its source is known."""
    code = getattr(function, "__code__", None)
    frames = traceback.extract_tb(error.__traceback__) if code else []
    lines = [frame.line for frame in frames if frame.filename == code.co_filename and frame.line]
    return (("at", lines[-1]),) if lines else ()
