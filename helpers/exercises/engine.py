"""The exercise engine: what an exercise is, and how an attempt is judged.

`examine(exercise, function)` compares the function with the reference solution on the exercise's cases and on random
inputs, and answers with a `Verdict` about the first input where it is wrong. What it says there is the first of:

1. a registered mistake which gives that same wrong answer, here and on most other inputs (`Mistake`);
2. a property that the answer violates, found by comparing (ladder.py with quantities.py, places.py) and by asking more
   (probes.py), or one slip that, made in the solution, gives the same answers (slips.py);
3. what is special about the input (`Case.about`), with the first difference.

A recipe is never among it: that is what `hint` is for. Nothing raises from a student's code (running.py).
"""

from __future__ import annotations

import ast
import dis
import inspect
import random
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from helpers.exercises import ladder, places, probes, slips
from helpers.exercises.compare import aliases, copied, equal, rows, show
from helpers.exercises.display import Card
from helpers.exercises.places import Trial
from helpers.exercises.quantities import Quantities
from helpers.exercises.running import SECONDS, Outcome, Stopped, call, explain

STATUSES = {
    "unattempted": "○", "correct": "✓", "wrong": "✗", "kind": "✗", "error": "✗", "mutated": "✗", "aliased": "✗",
    "signature": "✗", "unknown": "?",
}
DRAWS = 6  # random inputs to an exercise that can draw them
MORE = 30  # as many to see what the inputs have in common on which an answer is wrong
VAGUE = ("precision", "straight", "form", "offset", "rounding", "clipped", "part")  # rungs after which to ask more


@dataclass(frozen=True)
class Case:
    """One input: `args`, a tuple or a function returning a context manager that yields one (a folder, a model).

    `about` says what this input has that those before it had not: "a row without an answer". `shown` replaces the
    printed input where that would be long or differ from run to run.
    """

    args: tuple | Callable[[], Any]
    about: str = ""
    shown: str = ""

    @contextmanager
    def arguments(self) -> Iterator[tuple]:
        if callable(self.args):
            with self.args() as args:
                yield args
        else:
            yield copied(self.args)


class Mistake:
    """A wrong answer, written once: what to say to whoever gives it, and how it is made.

    Each of `how` is a function; or pairs (old, new, old, new, …) to be replaced in the solution's source, where each
    `old` must occur; or None, or no `how` at all: the code block of the prompt. Several are faces of one mistake.
    `sign` is a predicate of the answer for a mistake with more faces than can be listed: it counts where no other fits.
    """

    def __init__(self, says: str, *how: Callable[..., Any] | tuple[str, ...],
                 sign: Callable[[Any], bool] | None = None) -> None:
        self.says, self.how, self.sign = says, how, sign


@dataclass(frozen=True, eq=False)
class Exercise:
    """An exercise; its name, signature and stub are those of `solution`.

    `head` is "★★ Title · 8 min"; `prompt` markdown; `cases` tuples of arguments, or `Case`s, from the plain to the
    special; `hints` from a nudge to nearly the answer; `moral` is shown when solved. `draw` makes one more input from a
    `random.Random`; equal seeds make equal inputs. `tolerance` is relative, for floats (see `compare.equal`); `close`
    replaces the comparison where two right answers may differ: (got, expected) -> bool. `hexadecimal` is the number of
    hex digits in which integers are shown, 0 for decimal.
    """

    lesson: int
    solution: Callable[..., Any]
    head: str
    prompt: str
    cases: tuple[Case | tuple, ...]
    hints: tuple[str, ...]
    mistakes: tuple[Mistake, ...]
    moral: str
    draw: Callable[[random.Random], tuple] | None = None
    tolerance: float = 1e-6
    close: Callable[[Any, Any], bool] | None = None
    hexadecimal: int = 0
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if not re.fullmatch(r"★{1,3} .+ · \d+ min", self.head):
            raise ValueError(f"head {self.head!r}: write it as '★★ Title · 8 min'")

    @property
    def name(self) -> str:
        return self.solution.__name__

    @property
    def stars(self) -> int:
        return self.head.count("★")

    @property
    def minutes(self) -> int:
        return int(self.head.split()[-2])

    @property
    def published(self) -> str | None:
        """The code block of a *spot the bug*, or None."""
        found = re.search(r"```python\n(.*?)```", self.prompt, re.DOTALL)
        return found[1] if found else None

    @property
    def source(self) -> str:
        """The solution's source as it would stand in a notebook's cell, with the imports that it uses on top."""
        code = textwrap.dedent(inspect.getsource(self.solution)).rstrip() + "\n"
        names = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        standard, others = [], []
        for node in ast.parse(inspect.getsource(inspect.getmodule(self.solution))).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                used = [a for a in node.names if (a.asname or a.name).split(".")[0] in names]
                if used:
                    node.names = used
                    root = (getattr(node, "module", None) or used[0].name).split(".")[0]
                    (standard if root in sys.stdlib_module_names else others).append(ast.unparse(node))
        head = "\n\n".join("\n".join(part) for part in (standard, others) if part)
        return f"{head}\n\n\n{code}" if head else code

    def inputs(self, draws: int = DRAWS) -> list[Case]:
        """The fixed cases, then the random ones: the same in every run."""
        fixed = [case if isinstance(case, Case) else Case(case) for case in self.cases]
        return fixed + [Case(self.draw(random.Random(f"{self.name} {n}"))) for n in range(draws if self.draw else 0)]

    def faces(self, mistake: Mistake) -> tuple[Callable[..., Any], ...]:
        """The functions that make this mistake."""
        return tuple(_built(self, how) for how in mistake.how or (() if mistake.sign else (None,)))

    def agree(self, got: Any, expected: Any, tolerance: float | None = None) -> bool:
        """Whether an answer counts as the expected one."""
        if self.close is not None and tolerance is None:
            try:
                return bool(self.close(got, expected))
            except Exception:  # an answer that cannot be compared in this way
                return False
        return equal(got, expected, self.tolerance if tolerance is None else tolerance)


@cache
def _built(exercise: Exercise, how: Callable[..., Any] | tuple[str, ...] | None) -> Callable[..., Any]:
    if callable(how):
        return how
    if how is None:
        text = exercise.published
    else:
        text = textwrap.dedent(inspect.getsource(exercise.solution))
        for old, new in zip(how[::2], how[1::2], strict=True):
            if old not in text:
                raise ValueError(f"{exercise.name}: {old!r} does not occur in the solution")
            text = text.replace(old, new)
    space = dict(vars(inspect.getmodule(exercise.solution)))
    exec(text, space)
    return space[exercise.name]


@dataclass(frozen=True, repr=False)
class Verdict(Card):
    """A card that also says, for programs, what was judged: `status` (a key of STATUSES), and how the diagnosis was
    found: "mistake", the name of a rung, "about" or None. `index` is the registered mistake's."""

    name: str = ""
    status: str = "unknown"
    rung: str | None = None
    index: int | None = None


def examine(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    """Judge `function` as an answer to `exercise`. Never raises from the student's code."""

    def verdict(status: str, text: str, details: tuple = (), rung: str | None = None,
                index: int | None = None) -> Verdict:
        state = {"correct": "correct.", "unattempted": "not attempted yet."}.get(status, "not yet.")
        return Verdict(STATUSES[status], f"{exercise.name}: {state}", text, details, exercise.name, status, rung, index)

    if is_stub(function):
        return verdict("unattempted", "Replace the `...` in its body, run that cell, then this one.")
    expected_signature = inspect.signature(exercise.solution)
    try:
        signature = inspect.signature(function)
        signature.bind(*expected_signature.parameters)
    except ValueError:  # a builtin without a signature
        pass
    except TypeError:
        wanted, taken = _names(expected_signature), _names(signature)
        return verdict("signature", f"It is called with `{wanted}`, but takes `{taken}`.")

    for number, case in enumerate(exercise.inputs()):
        with case.arguments() as args:
            expected = exercise.solution(*copied(args))
            before, shown = copied(args), _input(exercise, args, case)
            outcome = call(function, args, exercise.seconds)
            got, error = outcome.value, outcome.error
            if isinstance(error, NotImplementedError):
                return verdict("unattempted", "It still raises NotImplementedError.")
            if got is ... or error is not None and "ellipsis" in str(error).casefold():
                return verdict("unattempted", "A `...` is still in its body.")
            if error is None and not equal(args, before):
                return verdict("mutated", "It changes its input: work on a copy, the caller still needs the original.",
                               (*shown, ("afterwards", _input(exercise, args, case)[0][1])))
            if error is None and exercise.agree(got, expected):
                if any(aliases(got, arg) for arg in args):
                    return verdict("aliased", "The value is right, but it shares memory with the input: a later change "
                                   "to one changes the other. Return a new object.", shown)
                continue
            if error is not None:
                came = () if isinstance(error, Stopped) else (("raised", f"{type(error).__name__}: {error}"[:300]),)
                details = (*shown, *came, *_line(error, function), ("expected", show(expected, exercise.hexadecimal)))
            else:
                details = (*shown, *rows(got, expected, exercise.tolerance, exercise.hexadecimal))
            status = "error" if error is not None else "wrong"
            found = diagnose(exercise, function, number, before, outcome, expected)
            return verdict("kind" if found[1] == "kind" else status, found[0], details, *found[1:])
    return verdict("correct", exercise.moral)


def diagnose(exercise: Exercise, function: Callable[..., Any], number: int, args: tuple, outcome: Outcome,
             expected: Any) -> tuple[str, str | None, int | None]:
    """(text, rung, index of the registered mistake) for an answer that is wrong on input `number`."""
    if isinstance(outcome.error, Stopped):
        return explain(outcome.error), "stopped", None
    case = exercise.inputs()[number]
    context = f"{'Right before, wrong here' if number else 'Wrong here'}: {case.about}. " if case.about else ""
    later = context if number else ""  # what is special about the very first input says little beside a finding
    share, index = _registered(exercise, function, args, outcome)
    if index is not None and share > 0.6:
        return later * (share < 1) + exercise.mistakes[index].says, "mistake", index
    if outcome.error is not None:
        return context + explain(outcome.error), "raised", None
    got, names = outcome.value, list(inspect.signature(exercise.solution).parameters)
    if not callable(case.args) and probes.unsteady(function, args):
        return f"{later}It gives another answer at each call: something in it is drawn at random.", "random", None
    for mistake_index, mistake in enumerate(exercise.mistakes):
        if mistake.sign is not None and _holds(mistake.sign, got):
            return mistake.says, "mistake", mistake_index
    here = Trial(list(zip(names, args, strict=False)), got, expected)
    right, wrong = _trials(exercise, function, number)
    wrong = [trial for trial in wrong if trial.got is not probes.NOTHING]
    found = _climb(here, wrong)
    if found and found[0] in ("kind", "finite"):
        return (later if found[0] == "kind" else context) + found[1], found[0], None
    if not callable(case.args):
        inputs = [c.args for c in exercise.inputs() if not callable(c.args)]
        unused = probes.ignored(function, exercise.solution, [args, *inputs], exercise.tolerance)
        like = probes.as_if(function, exercise.solution, args, inputs, exercise.tolerance)
        if unused:
            answer = f" It answers {like}." if like and f"`{unused}`" in like else ""
            said = f"{later}`{unused}` has no effect: in all that was tried the answer stays the same.{answer}"
            return said, "ignored", None
    sure = found and (found[0] not in (*VAGUE, "scale") or re.search(r" is `[^`]*`\.$|came rounded to", found[1]))
    if not sure and not callable(case.args):
        if slip := slips.slip(exercise.solution, here, [*wrong, *right], exercise.agree):
            return f"{context}It answers as a right solution does with one slip in it: {slip}.", "slip", None
        if like:
            return f"{context}It answers {like}.", "as if", None
    if found:
        return context + found[1], found[0], None
    if where := places.common(here, wrong, exercise.tolerance):
        return context + where, "places", None
    if unread := probes.unread(function, names):
        return f"{context}`{unread}` is never used in it.", "unread", None
    if not case.about and (spread := places.across([t.inputs for t in right], [t.inputs for t in (here, *wrong)])):
        return spread, "across", None
    return context.strip() or "The answer differs from the one expected.", "about" if context else None, None


def _trials(exercise: Exercise, function: Callable[..., Any], number: int) -> tuple[list[Trial], list[Trial]]:
    """How the function does on the inputs beside this one: those where it is right, and those where it is wrong."""
    names, trials = list(inspect.signature(exercise.solution).parameters), ([], [])
    for n, case in enumerate(exercise.inputs(MORE)):
        if n != number and not callable(case.args):
            expected, got = exercise.solution(*copied(case.args)), probes.safely(function, case.args)
            good = got is not probes.NOTHING and exercise.agree(got, expected)
            trials[not good].append(Trial(list(zip(names, case.args, strict=False)), got, expected))
    return trials


def _climb(here: Trial, wrong: list[Trial]) -> tuple[str, str] | None:
    """What the ladder says about a wrong answer. A factor or an amount is called by the name that fits the other wrong
    inputs as well; what is vague counts only if half of them get the like, else the next rung is asked."""
    some, skip = wrong[:4], set()

    def like(rung: str, want: str = "none") -> list[tuple[Quantities, str]]:
        tried = [(Quantities(trial.inputs, want=want, skip=skip), trial) for trial in some]
        said = [(own, ladder.inside(trial.got, trial.expected, own)) for own, trial in tried]
        return [(own, found[1]) for own, found in said if found and found[0] == rung]

    for rung in ("offset", "scale"):
        others = [own for own, _ in like(rung, rung)]
        if others and 2 * len(others) >= len(some):
            known = Quantities(here.inputs, others, rung)
            found = ladder.inside(here.got, here.expected, known)
            always = rung == "offset" and all(own.asked == known.asked for own in others)
            if found and found[0] == rung and (known.told or always):
                return found
    while found := ladder.inside(here.got, here.expected, Quantities(
            here.inputs, want="none" if some else "", skip=skip)):
        rung, said = found
        if rung not in VAGUE or rung == "part" or not some:
            break
        agree = like(rung)
        if rung == "rounding":  # always to the same side, or it is no rounding
            agree = [other for other in agree if other[1].split(" are one ")[1] == said.split(" are one ")[1]]
        elif rung == "offset" and isinstance(here.expected, int):  # one number is always some amount away: always this?
            agree = [other for other in agree if other[1] == said]
        if rung == "offset" and not isinstance(here.expected, int) or 2 * len(agree) >= len(some) or (
                agree and rung in ("form", "precision", "clipped")):
            break
        skip.add(rung)
    return found


def _registered(exercise: Exercise, function: Callable[..., Any], args: tuple,
                outcome: Outcome) -> tuple[float, int | None]:
    """(share of the inputs on which it agrees, index) of the registered mistake that answers as the function does."""
    alike = [(index, face) for index, mistake in enumerate(exercise.mistakes) for face in exercise.faces(mistake)
             if _same(exercise, outcome, call(face, copied(args), exercise.seconds))]
    best: tuple[float, int | None] = (0.0, None)
    for index, face in alike:
        agreed = tried = 0
        for case in exercise.inputs():
            with case.arguments() as inputs:
                right = Outcome(exercise.solution(*copied(inputs)))
                ours = call(function, copied(inputs), exercise.seconds)
                theirs = call(face, copied(inputs), exercise.seconds)
                if _same(exercise, ours, right) and _same(exercise, theirs, right):
                    continue
                tried, agreed = tried + 1, agreed + _same(exercise, ours, theirs)
        if tried and agreed / tried > best[0]:
            best = agreed / tried, index
    return best


def _same(exercise: Exercise, a: Outcome, b: Outcome) -> bool:
    """Whether two calls gave the same: the same exception with the same message, or equal values."""
    if a.error is not None or b.error is not None:
        return type(a.error) is type(b.error) and str(a.error) == str(b.error)
    return exercise.agree(a.value, b.value, max(exercise.tolerance, 1e-6))


def _holds(sign: Callable[[Any], bool], got: Any) -> bool:
    try:
        return bool(sign(got))
    except Exception:  # the answer is not of a kind that this sign can read
        return False


def is_stub(function: Callable[..., Any]) -> bool:
    """Whether the body does nothing but return None or `...` (docstring aside), as its bytecode says."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP", "RETURN_VALUE")]
    return all(step.opname in ("LOAD_CONST", "RETURN_CONST") and step.argval in (None, ...) for step in steps)


def _names(signature: inspect.Signature) -> str:
    return "(" + ", ".join(signature.parameters) + ")"


def _input(exercise: Exercise, args: tuple, case: Case) -> tuple[tuple[str, str], ...]:
    names = inspect.signature(exercise.solution).parameters
    return (("input", case.shown or ", ".join(f"{n}={show(a, exercise.hexadecimal)}"
                                              for n, a in zip(names, args, strict=False))),)


def _line(error: BaseException, function: Callable[..., Any]) -> tuple[tuple[str, str], ...]:
    """The line of the student's function at which the exception passed, if its source is known."""
    code = getattr(function, "__code__", None)
    frames = traceback.extract_tb(error.__traceback__) if code else []
    lines = [frame.line for frame in frames if frame.filename == code.co_filename and frame.line]
    return (("at", lines[-1]),) if lines else ()
