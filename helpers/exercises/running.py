"""Running a student's function so that nothing escapes: not an endless loop, `exit()`, an interrupt or a flood of text.

The limits hold on every system: a second thread raises in the one that runs, which ends any loop written in Python. (A
single call that never returns from C, such as `time.sleep(10**9)`, is stopped when it returns, or by the user.)
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SECONDS = 10.0
LONGEST_PRINT = 20_000  # characters


class Stopped(BaseException):
    """The function was stopped; str() says why. Not an Exception, so that `except Exception` does not catch it."""


class OutOfTime(Stopped):
    """Raised in the thread that runs too long (without arguments: the interpreter makes the object)."""

    def __str__(self) -> str:
        return "It was still running when its time was up: does a loop never end?"


@dataclass(frozen=True)
class Outcome:
    """What a call gave: its value, or the exception that it raised, an `Exception` or `Stopped`."""

    value: Any = None
    error: BaseException | None = None


class _Bounded(io.StringIO):
    """Passes text on to the real output as long as there is not too much of it."""

    def __init__(self, real: Any) -> None:
        super().__init__()
        self.real, self.left = real, LONGEST_PRINT

    def write(self, text: str) -> int:
        self.left -= len(text)
        if self.left < 0:
            raise Stopped(f"It printed more than {LONGEST_PRINT:,} characters: does a loop never end?")
        return self.real.write(text)

    def flush(self) -> None:
        self.real.flush()


def limited(function: Callable[..., Any], args: tuple, seconds: float) -> Any:
    """`function(*args)`, with `OutOfTime` raised in it once it has run for so long, again and again until it has ended.

    What is thrown arrives between two steps of the interpreter, be it at the end of the function or behind it. So
    nothing may stand between the function and the step that says it is done, and that step must be a single one: no
    context manager, no `Event.set`. A watcher that is never told would throw into all that comes after.
    """
    target, done, lock = ctypes.c_ulong(threading.get_ident()), [], threading.Lock()
    waiting, throw = threading.Event(), ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        wait = seconds
        while not (done or waiting.wait(wait)):
            with lock:
                if not done:
                    throw(target, ctypes.py_object(OutOfTime))
            wait = 0.2

    try:
        threading.Thread(target=watch, daemon=True).start()
        return function(*args)
    finally:
        done.append(True)  # from here on nothing is thrown
        with lock:
            throw(target, None)  # one that was thrown and has not arrived yet
        waiting.set()  # ends the watcher's wait


def call(function: Callable[..., Any], args: tuple, seconds: float = SECONDS) -> Outcome:
    """Call `function(*args)`; whatever happens is in the `Outcome`."""
    try:
        with contextlib.redirect_stdout(_Bounded(sys.stdout)):
            return Outcome(limited(function, args, seconds))
    except Stopped as stopped:
        return Outcome(error=stopped)
    except SystemExit:
        return Outcome(error=Stopped("It ended the program: `exit()` has no place in it. Use `return`."))
    except KeyboardInterrupt:
        return Outcome(error=Stopped("It was interrupted while it ran."))
    except Exception as error:  # the student's own error: reported, never raised
        return Outcome(error=error)


# (the type of an exception, a pattern in its message, what it means: \1 is the pattern's first group)
MEANINGS: tuple[tuple[type[BaseException], str, str], ...] = (
    (RecursionError, "", "It calls itself without an end."),
    (MemoryError, "", "It asked for more memory than there is: how large is what it builds?"),
    (Exception, "allocate memory", "It asked for more memory than there is: how large is what it builds?"),
    (NameError, "", "A name in it is not known: is it misspelt, or defined in a cell that has not run?"),
    (ZeroDivisionError, "", "It divides by zero on this input."),
    (OverflowError, "", "A number on the way grows beyond what a float holds."),
    (KeyError, "", "It looks for a key that this input does not have."),
    (IndexError, r"index -?\d+ is out of bounds for \w+ \d+ with size 0|list index out of range|pop from empty",
     "It takes an element of something that has none, or too few, on this input."),
    (IndexError, r"index (-?\d+) is out of bounds for \w+ \d+ with size (\d+)",
     r"It asks for number \1, counted from 0, of something that is \2 long: it looks behind the end."),
    (IndexError, "", "It looks behind the end of something: this input is shorter than the code expects."),
    (AttributeError, r"'NoneType' object has no attribute '(\w+)'",
     r"It asks None for `.\1`: what stands before that dot is None on this input."),
    (AttributeError, r"'(\w+)' object has no attribute '(\w+)'",
     r"It asks for `.\2`, which the type \1 does not have."),
    (AttributeError, "", "It asks an object for something that it does not have: is it of the type that you think?"),
    (RuntimeError, r"shape '\[(?:-1, )?(\d+)\]' is invalid for input of size (\d+)",
     r"\2 numbers cannot be laid out in whole rows of \1: on this input they do not divide evenly."),
    (RuntimeError, r"shape '\[(.*)\]' is invalid for input of size (\d+)", r"\2 numbers cannot be laid out as (\1)."),
    (RuntimeError, r"tensor a \((\d+)\) must match .* tensor b \((\d+)\) at non-singleton dimension (\d+)",
     r"Shapes do not fit: along dimension \3 a size of \1 met one of \2."),
    (RuntimeError, r"shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)",
     r"Shapes do not fit: a (\1, \2) matrix was multiplied by a (\3, \4) one, and \2 is not \3."),
    (RuntimeError, r"size mismatch, got input \((\d+)\), mat \((\d+)x(\d+)\), vec \((\d+)\)",
     r"Shapes do not fit: a (\2, \3) matrix was multiplied by a vector of \4."),
    (RuntimeError, r"equal size, but got \[(.*)\] at entry 0 and \[(.*)\] at entry",
     r"Shapes do not fit: parts of shape (\1) and (\2) were stacked, which must be alike."),
    (ValueError, r"Expected input batch_size \((\d+)\) to match target batch_size \((\d+)\)",
     r"\1 predictions met \2 targets: each target needs one prediction."),
    (RuntimeError, r"Expected target size \[\d+, (\d+)\], got \[\d+, (\d+)\]",
     r"In each row \1 predictions met \2 targets: each target needs one prediction."),
    (ValueError, r"invalid literal for int\(\) with base \d+: (.*)", r"It reads \1 as a whole number."),
    (ValueError, r"(max|min)\(\).*empty|argument is empty", "It takes the largest or smallest of nothing at all."),
    (RuntimeError, r"(max|min)\(\).*numel\(\) == 0", "It takes the largest or smallest of a tensor without elements."),
    (Exception, "shape|size|dimension|broadcast|mat1|must match",
     "Shapes do not fit on this input: write the shape beside each factor."),
    (RuntimeError, r"same dtype, but got: (.*) != (.*)", r"Two dtypes met in one product: \1 and \2."),
    (Exception, "dtype|expected scalar type|not implemented for",
     "Two dtypes do not fit, or an operation does not exist for this one."),
    (TypeError, r"unsupported operand type\(s\) for (\S+): '(\w+)' and '(\w+)'",
     r"`\1` met values of the types \2 and \3, which it cannot join."),
    (TypeError, "", "An operation met a type that it cannot take."),
    (UnicodeError, "", "It reads text that breaks off inside a character."),
    (OSError, "", "A file that it opens is not there, or cannot be read, for this input."),
    (ValueError, "", "A value of this input is not one that the code can take."),
    (BaseException, "", "It raised an exception on this input."),
)


def explain(error: BaseException) -> str:
    """What an exception means, by its type and its message, which is shown beside it."""
    if isinstance(error, Stopped):
        return str(error)
    for kind, pattern, meaning in MEANINGS:
        if isinstance(error, kind) and (found := re.search(pattern, str(error), re.DOTALL)):
            return found.expand(meaning)
    raise AssertionError("the last meaning fits every exception")
