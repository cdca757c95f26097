"""Running a student's function so that nothing escapes: not an endless loop, `exit()`, an interrupt or a flood of text.

The limits hold on every system: a second thread raises in the one that runs, which ends any loop written in Python. (A
single call that never returns from C, such as `time.sleep(10**9)`, is stopped when it returns, or by the user.)
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import threading
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the body once it has run for so long, again and again until it has ended."""
    target, done = ctypes.c_ulong(threading.get_ident()), threading.Event()
    lock, throw = threading.Lock(), ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            with lock:
                if not done.is_set():
                    throw(target, ctypes.py_object(OutOfTime))
            wait = 0.2

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        with lock:
            throw(target, None)  # one that was thrown and has not arrived yet


def call(function: Callable[..., Any], args: tuple, seconds: float = SECONDS) -> Outcome:
    """Call `function(*args)`; whatever happens is in the `Outcome`."""
    try:
        with contextlib.redirect_stdout(_Bounded(sys.stdout)), time_limit(seconds):
            return Outcome(function(*args))
    except Stopped as stopped:
        return Outcome(error=stopped)
    except SystemExit:
        return Outcome(error=Stopped("It ended the program: `exit()` has no place in it. Use `return`."))
    except KeyboardInterrupt:
        return Outcome(error=Stopped("It was interrupted while it ran."))
    except Exception as error:  # the student's own error: reported, never raised
        return Outcome(error=error)


def explain(error: BaseException) -> str:
    """What an exception means, by its type; the message itself is shown beside it."""
    text = str(error)
    if isinstance(error, Stopped):
        return text
    if isinstance(error, RecursionError):
        return "It calls itself without an end."
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "It asked for more memory than there is: how large is what it builds?"
    if isinstance(error, NameError):
        return "A name in it is not known: is it misspelt, or defined in a cell that has not run?"
    if isinstance(error, ZeroDivisionError):
        return "It divides by zero on this input."
    if isinstance(error, KeyError):
        return "It looks for a key that this input does not have."
    if isinstance(error, IndexError):
        return "It looks behind the end of something: this input is shorter than the code expects."
    if isinstance(error, AttributeError):
        return "It asks an object for something that it does not have: is it of the type that you think?"
    if any(word in text for word in ("shape", "size", "dimension", "broadcast", "mat1", "must match")):
        return "Shapes do not fit on this input: write the shape beside each factor."
    if "dtype" in text or "expected scalar type" in text or "not implemented for" in text:
        return "Two dtypes do not fit, or an operation does not exist for this one."
    if isinstance(error, TypeError):
        return "An operation met a type that it cannot take."
    if isinstance(error, OSError):
        return "A file that it opens is not there, or cannot be read, for this input."
    if isinstance(error, ValueError):
        return "A value of this input is not one that the code can take."
    return "It raised an exception on this input."
