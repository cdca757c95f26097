"""The exercise engine: what each kind of answer earns, that no answer breaks or escapes it, and the calls and cards."""

import ast
import ctypes
import functools
import importlib.metadata
import io
import re
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exercises import check, compare, hint, outcome, predict, registry, running, solution
from helpers.exercises.display import Card, SourceCard
from helpers.exercises.engine import Case, Exercise, Mistake, _climb, examine, is_stub
from helpers.exercises.places import Trial

EXERCISES = dict(registry.exercises())


def double(numbers: list[int], factor: int = 2) -> list[int]:
    """Every number times `factor`, in a new list."""
    return [factor * n for n in numbers]


DOUBLE = Exercise(
    99, double, "★ Double · 1 min", "Double.",
    cases=(([1, 2, -5], 3), Case(([], 2), "an empty list"), Case(([1, 2, 0], 4), "a zero")),
    hints=("one", "two"), moral="Done.",
    mistakes=(Mistake("The factor is missing.", ("factor * n", "n")),
              Mistake("A list may be empty.", ("[factor", "numbers[0] and [factor")),
              Mistake("Added, not multiplied.", ("factor * n", "factor + n"), ("factor * n", "n + 3")),
              Mistake("It holds a seven.", sign=lambda got: 7 in got)))


def drops_the_answer(numbers, factor):
    [factor * n for n in numbers]


def half_done(numbers, factor):
    result = ...
    return result


def half_done_inside(numbers, factor):
    return [... * n for n in numbers]  # noqa: B018


def doubles_in_place(numbers, factor):
    numbers[:] = [factor * n for n in numbers]
    return list(numbers)


def raises(numbers, factor):
    return numbers[7]


def only_full_lists(numbers, factor):
    return [factor * n for n in numbers] if numbers[0] else []


def unwritten(numbers, factor):
    raise NotImplementedError


def adds_on_empty(numbers, factor):
    return [factor * n for n in numbers] or [factor]


@pytest.mark.parametrize("function, status, rung, said", [
    (double, "correct", None, "double: correct. Done."),
    (half_done, "unattempted", None, "`...`"),
    (half_done_inside, "unattempted", None, "`...`"),
    (unwritten, "unattempted", None, "NotImplementedError"),
    (lambda numbers, factor: None, "unattempted", None, "not attempted"),
    (lambda numbers, factor: tuple(factor * n for n in numbers), "correct", None, "correct"),
    (drops_the_answer, "kind", "kind", "Is a `return` missing"),
    (doubles_in_place, "mutated", None, "afterwards  numbers=[3, 6, -15], factor=3"),
    (lambda numbers, factor: "36", "kind", "kind", "A str came"),
    (lambda numbers, factor: numbers, "wrong", "mistake", "The factor is missing."),
    (lambda numbers, factor: [factor + n for n in numbers], "wrong", "mistake", "Added, not multiplied."),
    (lambda numbers, factor: [7, 8, 2], "wrong", "mistake", "It holds a seven."),
    (lambda numbers, factor: [0], "kind", "kind", "1 came, 3 were expected"),
    (lambda numbers, factor: [3, 6, -15.5], "wrong", None, "1 of 3; first at [2]: -15.5 came, -15 expected"),
    (lambda numbers, factor: [-factor * n for n in numbers], "wrong", "sign", "the sign is the wrong way round"),
    (lambda numbers, factor: [3 * n for n in numbers], "wrong", "ignored", "`factor` has no effect"),
    (adds_on_empty, "kind", "kind", "Right before, wrong here: an empty list."),
    (raises, "error", "raised", "IndexError: list index out of range"),
    (raises, "error", "raised", "return numbers[7]"),
    (raises, "error", "raised", "numbers=[1, 2, -5], factor=3"),
    (only_full_lists, "error", "mistake", "A list may be empty."),
    (lambda numbers, factor: factr, "error", "raised", "A name in it is not known"),  # noqa: F821
    (lambda numbers: numbers, "signature", None, "called with `(numbers, factor)`, but takes `(numbers)`"),
])
def test_verdict(function, status, rung, said):
    verdict = examine(DOUBLE, function)
    assert (verdict.status, rung) == (status, verdict.rung if rung else None), verdict
    assert said in repr(verdict)


@pytest.mark.parametrize("function, title, text", [
    (lambda numbers, factor: None, "○ double: not attempted yet.",
     "Replace the `...` in its body, run that cell, then this one."),
    (unwritten, "○ double: not attempted yet.", "It still raises NotImplementedError."),
    (half_done, "○ double: not attempted yet.", "A `...` is still in its body."),
    (doubles_in_place, "✗ double: not yet.",
     "It changes its input: work on a copy, the caller still needs the original."),
    (lambda numbers, factor: numbers if factor == 1 else double(numbers, factor), "✗ double: not yet.",
     "The value is right, but it shares memory with the input: a later change to one changes the other. "
     "Return a new object."),
    (lambda numbers, factor: sys.exit(3), "✗ double: not yet.",
     "It ended the program: `exit()` has no place in it. Use `return`."),
    (lambda numbers, factor: interrupted(numbers, factor), "✗ double: not yet.", "It was interrupted while it ran."),
    (lambda numbers, factor: [max(factor * n, factor) for n in numbers], "✗ double: not yet.",
     "The answer differs from the one expected."),
    (double, "✓ double: correct.", "Done."),
])
def test_the_card_to_the_letter(function, title, text):
    verdict = examine(replace(DOUBLE, cases=(*DOUBLE.cases, ([5, 6], 1))), function)
    assert (f"{verdict.mark} {verdict.title}", verdict.text) == (title, text)
    assert verdict.rung in (None, "stopped")


def steps(x: torch.Tensor, r: int) -> torch.Tensor:
    """The multiples of r that are nearest to x, as a stand-in for a solution on tensors."""
    return (x / r).round() * r


STEPS = Exercise(99, steps, "★ Steps · 1 min", "Steps.", hints=("a", "b"), moral="Done.", mistakes=(), cases=(
    Case((torch.tensor([0.0, 9.0, 18.0, 27.0]), 9), "multiples already"),
    Case((torch.tensor([1.0, 7.0, 13.0, 29.0, 31.0]), 6), "numbers between"),
    Case((torch.tensor([-1.0, 17.0, -13.0, 29.0, 31.0]), 8), "negative numbers")),
    draw=lambda rng: (torch.tensor([rng.uniform(-50, 50) for _ in range(6)]), rng.randint(5, 12)))


@pytest.mark.parametrize("answer, rung, said", [
    (lambda x, r: r * steps(x, r), "scale", "It is 9 times too large, everywhere alike: that is `r`."),
    (lambda x, r: 7.25 * steps(x, r), "scale", "It is 7.25 times too large, everywhere alike."),
    (lambda x, r: steps(x, r) + 2 * r, "offset", "It is 18 too large, everywhere alike, which is 2 times `r`."),
    (lambda x, r: (x / r).floor() * r, "slip", "It answers as a right solution does with one slip in it: `floor` in"),
    (lambda x, r: steps(x, r + 1), "as if", "Wrong here: multiples already. It answers as if `r` were one more."),
    (lambda x, r: steps(x.clamp(min=0), r), "as if", "numbers. It answers as if `x` had no values below zero."),
    (lambda x, r: steps(x, r)[:-1], "kind", "The shape is (3,), (4,) was expected: 1 missing along"),
    (lambda x, r: steps(x, 9), "ignored", "between. `r` has no effect: in all that was tried the answer"),
    (lambda x, r: torch.where(x == 13, 3, steps(x, r)), "about", "Right before, wrong here: numbers between."),
    (lambda x, r: 1 / 0, "raised", "Wrong here: multiples already. It divides by zero on this input."),
])
def test_what_is_said_of_an_answer_nobody_registered(answer, rung, said):
    verdict = examine(STEPS, answer)
    assert verdict.rung == rung and said in verdict.text, verdict


def fails(message):
    raise ValueError(message)


@pytest.mark.parametrize("answer, rung, text", [
    (lambda x, r: steps(x, r) + torch.rand(len(x)), "random",
     "It gives another answer at each call: something in it is drawn at random."),
    (lambda x, r: torch.where(x < 0, torch.nan, steps(x, r)), "finite",
     "Right before, wrong here: negative numbers. NaN came at 2 of 5 places, where a number belongs: was something "
     "divided by zero, or did it overflow?"),
    (lambda x, r: torch.where(x < 0, steps(x, r) + 1.5, steps(x, r)), "places",
     "Right before, wrong here: negative numbers. Right except where `x` is negative."),
    (lambda x, r: x * torch.nan, "finite",
     "Wrong here: multiples already. NaN came at 4 of 4 places, where a number belongs: was something divided by zero, "
     "or did it overflow?"),
    (lambda x, r: x.sin(), "ignored", "`r` has no effect: in all that was tried the answer stays the same."),
    (lambda x, r: steps(x, r).double(), "kind",
     "The dtype is torch.float64, torch.float32 was expected; the values are right once converted."),
    (lambda x, r: steps(x, r) if x.min() >= 0 else steps(x, r).tolist(), "kind",
     "Right before, wrong here: negative numbers. A list of 5 came, a torch.float32 tensor of shape (5,) was "
     "expected."),
    (lambda x, r: steps(x, r) * (1 if r == 9 else 1.37), "scale",
     "Right before, wrong here: numbers between. It is 1.37 times too large, everywhere alike."),
    (lambda x, r: steps(x, 9), "ignored",
     "Right before, wrong here: numbers between. `r` has no effect: in all that was tried the answer stays the same. "
     "It answers as if `r` were 9."),
    (lambda x, r: steps(x, r) + 1.5 if len(x) == 4 else x.sin(), "offset",
     "Wrong here: multiples already. It is 1.5 too large, everywhere alike."),
    (lambda x, r: steps(x, r) + 2 * r, "offset",
     "Wrong here: multiples already. It is 18 too large, everywhere alike, which is 2 times `r`."),
    (lambda x, r: (x / r).round(), "scale",
     "Wrong here: multiples already. It is 9 times too small, everywhere alike: that is `r`."),
    (lambda x, r: (x.bfloat16().float() / r).round() * r, "as if", "It answers as if `x` were rounded to bfloat16."),
    (lambda x, r: steps(x, r) if len(x) == 4 else fails("y" * 500), "raised",
     "Right before, wrong here: numbers between. A value of this input is not one that the code can take."),
    (lambda x, r: torch.cat([steps(x, r)[:-1], x[-1:] + 3.5]), "about", "Wrong here: multiples already."),
])
def test_what_is_said_to_the_letter(answer, rung, text):
    verdict = examine(STEPS, answer)
    assert (verdict.rung, verdict.text) == (rung, text)
    assert all(len(value) <= 300 for _, value in verdict.details), "however long the exception's message is"


def test_what_is_rounded_at_the_end_is_no_slip_on_the_way():
    def parts(x: torch.Tensor, r: int) -> torch.Tensor:
        return x / r
    text = examine(replace(STEPS, solution=parts), lambda x, r: (x / r).bfloat16().float()).text
    assert text == ("Right before, wrong here: numbers between. 5 of 5 numbers came rounded to bfloat16, and would be "
                    "right otherwise.")


@pytest.mark.parametrize("answer, told", [
    (lambda n: n + 1, "`n` were one more"), (lambda n: n + (1 if n == 5 else n), ""),  # only here one more
    (lambda n: 2 ** (n.bit_length() - 1), "the largest power of two"), (lambda n: n - 1 if n == 5 else 7 * n, "")])
def test_what_is_vague_counts_if_the_other_wrong_answers_get_it_too(answer, told):
    def same(n: int) -> int:
        return int(n)
    whole = replace(STEPS, solution=same, cases=((5,), Case((11,), "eleven"), Case((21,), "more"), Case((29,), "most")),
                    draw=None)
    text = examine(whole, answer).text
    assert (told in text) if told else "off by one" not in text and "power" not in text, text


X, W = torch.tensor([1.5, -2.0, 0.5, 4.0, 7.0]), torch.arange(1.0, 7.0)


def trial(got, expected, **inputs):
    return Trial(list(inputs.items()), got, expected)


def larger(k, times=1):
    """The answer is too large by `times` k."""
    return trial(X + times * k, X, k=k)


def off(amount, expected=5):
    return trial(expected + amount, expected)


def lower(*gaps):
    return trial(W - torch.tensor(gaps), W)


OTHER = trial(X.sin(), X)  # wrong in a way that no rung knows
SIX, BY_ONE, DOWN = "It is 6 too large, everywhere alike", "It is 1 too large: off by one.", "2 of 6 are one too low"


@pytest.mark.parametrize("here, wrong, said", [
    (larger(6.0), [], f"{SIX}, which is `k`."), (larger(6.0), [larger(9.0), larger(11.0)], f"{SIX}, which is `k`."),
    (larger(6.0), [larger(9.0), larger(11.0), OTHER, OTHER, OTHER], f"{SIX}, which is `k`."),  # half of the first four
    (larger(6.0), [larger(9.0), OTHER, OTHER], f"{SIX}."),
    (larger(6.0), [larger(9.0), larger(11.0), larger(3.0, 2), larger(4.0, 3)], f"{SIX}."),
    (trial(17, 5, k=6), [trial(23, 5, k=9), trial(27, 5, k=11)], "It is 12 too large, which is 2 times `k`."),
    (off(1), [off(1), off(1), off(3), off(4)], BY_ONE), (off(1), [off(1), off(-1), off(3)], None),
    (trial(-X, X), [OTHER, OTHER, OTHER], "the sign is the wrong way round"),  # not vague
    (trial(12, 6, k=6), [trial(20, 11, k=9), trial(19, 12, k=7)], "It is 6 too large, which is `k`."),  # not twice
    (trial(4, 5), [trial(8, 9), OTHER, OTHER], "the largest power of two"),  # both off by one as well
    (trial(25, 5, k=4), [trial(81, 9, k=9)], "the square of what"),  # `k` times, by chance
    (lower(1, 0, 0, 0, 1, 0), [lower(0, 1, 1, 0, 0, 0), lower(0, -1, -1, 0, 0, 0)], DOWN),
    (lower(1, 0, 0, 0, 1, 0), [lower(0, -1, -1, 0, 0, 0)], None),
    (trial(X**2, X), [trial(W**2, W), OTHER, OTHER, OTHER], "the square of what"), (trial(X**2, X), [OTHER], None),
    (trial(X.clamp(max=3), X), [trial(W.clamp(max=2), W), OTHER, OTHER], "clipped"),
    (trial(X.clamp(max=3), X), [OTHER], None),
    (trial(X + X.sin() / 999, X), [trial(W.sqrt() + W.sin() / 999, W.sqrt()), OTHER, OTHER], "Right to 4 digits"),
    (trial(X + X.sin() / 999, X), [OTHER], None),
    (trial(1.5 * X + 2, X), [trial(3 * W + 2, W), OTHER], "times 1.5 plus 2"),
    (trial(1.5 * X + 2, X), [trial(3 * W + 2, W), OTHER, OTHER], None),
    (trial({"a": 1, "b": 17.1}, {"a": 1, "b": 2.5}), [OTHER], "The value of 'b' is wrong, the rest is right."),
])
def test_what_the_ladder_says_counts_if_it_fits_the_other_wrong_inputs(here, wrong, said):
    found = _climb(here, wrong)
    assert said in found[1] if said else found is None, found


def test_a_mistake_that_fits_most_inputs_says_where():
    mistaken = replace(STEPS, mistakes=(Mistake("Rounded down.", (".round()", ".floor()")),))
    assert examine(mistaken, lambda x, r: (x / r).floor() * r).text == "Rounded down."
    partly = examine(mistaken, lambda x, r: (x / r).floor() * r if r != 8 else steps(x, r))
    assert partly.rung == "mistake" and partly.text == "Right before, wrong here: numbers between. Rounded down."


def test_what_the_wrong_inputs_have_in_common():
    plain = replace(STEPS, cases=((STEPS.cases[1].args[0], 8),))
    verdict = examine(plain, lambda x, r: x.sin() if r % 2 else steps(x, r))
    assert verdict.rung == "across" and "Wrong only where `r` is odd, and there each time" in verdict.text, verdict


def test_a_recipe_is_for_hints_only():
    hinted = replace(DOUBLE, hints=("Multiply.", "Use a loop."))
    for answer in (lambda numbers, factor: [0] * len(numbers), raises, adds_on_empty):
        assert not any(hint in repr(examine(hinted, answer)) for hint in hinted.hints)


def test_a_mistake_must_agree_on_most_inputs():
    """On the first wrong input both answers below are alike; elsewhere they are not, and that decides."""
    exercise = replace(DOUBLE, cases=(*DOUBLE.cases, Case(([5, 6], 9), "x"), Case(([8, 6], 7), "y")),
                       mistakes=(Mistake("Minus three.", lambda numbers, factor: [-3 * n for n in numbers]),))
    assert examine(exercise, lambda numbers, factor: [-3 * n for n in numbers]).index == 0
    assert examine(exercise, lambda numbers, factor: [-factor * n for n in numbers]).rung == "sign"
    three = replace(exercise, cases=tuple(([n, 2 * n, 7], n) for n in (3, 4, 5, 6, 8)))
    for most in (5, 6):  # three of the five, and four
        answer = examine(three, lambda numbers, factor, m=most: [-(3 if factor <= m else 9) * n for n in numbers])
        assert (answer.rung == "mistake") == (most == 6)
    three = replace(three, mistakes=(Mistake(
        "x", lambda numbers, factor: double(numbers, {3: 9, 8: 9}.get(factor, factor))),))
    answer = examine(three, lambda numbers, factor: double(numbers, {3: 9, 8: 7}.get(factor, factor)))
    assert answer.rung != "mistake", "inputs on which both are right do not count"
    twice = replace(DOUBLE, mistakes=DOUBLE.mistakes[:1] * 2)
    assert examine(twice, lambda numbers, factor: list(numbers)).index == 0, "the first of two that fit alike"


@pytest.mark.parametrize("answer, face, alike", [
    (lambda n, f: fails("a"), lambda n, f: fails("a"), True), (lambda n, f: fails("a"), lambda n, f: fails("b"), False),
    (lambda n, f: fails("a"), lambda n, f: (_ for _ in ()).throw(TypeError("a")), False),
    (lambda n, f: fails("a"), lambda n, f: None, False), (lambda n, f: [9, f], lambda n, f: [f, 9], False),
    (lambda n, f: [1.5, f], lambda n, f: [1.5 + 1e-7, f], True)])
def test_a_mistake_is_known_by_its_very_answer_or_exception(answer, face, alike):
    """Whatever counts as right, be it more or less than that."""
    mistaken = replace(DOUBLE, tolerance=0.0, close=lambda got, expected: sorted(got) == sorted(expected),
                       mistakes=(Mistake("x", face),))
    assert (examine(mistaken, answer).rung == "mistake") == alike


def test_a_mistake_may_be_made_of_several_substitutions():
    (face,) = DOUBLE.faces(Mistake("x", ("factor * n", "n * factor", "in numbers", "in numbers[1:]")))
    assert face([1, 2, 5], 3) == [6, 15]
    with pytest.raises(ValueError, match="zip"):
        DOUBLE.faces(Mistake("x", ("factor", "3", "in numbers")))


def test_a_substitution_that_does_not_occur_is_an_author_s_error():
    with pytest.raises(ValueError, match="'nothing like it' does not occur"):
        examine(replace(DOUBLE, mistakes=(Mistake("x", ("nothing like it", "y")),)), lambda numbers, factor: [0, 0, 0])


@pytest.mark.parametrize("head", ["Double", "★ Double", "Double · 1 min", "★★★★ Double · 1 min"])
def test_head_is_checked(head):
    with pytest.raises(ValueError, match="write it as"):
        replace(DOUBLE, head=head)


def test_input_survives_a_function_that_mutates():
    examine(DOUBLE, doubles_in_place)
    assert DOUBLE.cases[0] == ([1, 2, -5], 3)


def same(x: torch.Tensor) -> torch.Tensor:
    """A copy of x."""
    return x.clone()


def test_tensors():
    x = torch.tensor([[1.0, 2.0, -3.0], [0.5, 4.0, 7.0]])
    exercise = replace(DOUBLE, solution=same, mistakes=(), cases=((x,),))
    assert examine(exercise, lambda x: x.clone()).status == "correct"
    aliased = examine(exercise, lambda x: x)
    assert aliased.status == "aliased" and [name for name, _ in aliased.details] == ["input"]
    assert examine(exercise, lambda x: x.view(2, 3)).status == "aliased"
    assert examine(exercise, lambda x: x.mul_(2)).status == "mutated"
    assert examine(exercise, lambda x: x * 2).rung == "scale"
    assert examine(exercise, lambda x: x[0].clone()).status == "kind"
    wrong = examine(exercise, lambda x: x.bfloat16())
    assert wrong.status == "kind"
    assert "The dtype is torch.bfloat16, torch.float32 was expected; the values are right once converted" in repr(wrong)


def test_random_inputs_are_the_same_every_time_and_bite():
    exercise = replace(DOUBLE, mistakes=(),
                       draw=lambda rng: ([rng.randint(-9, 9) for _ in range(4)], rng.randint(2, 9)))
    first, second = ([case.args for case in exercise.inputs()] for _ in range(2))
    assert first == second and len(first) == len(DOUBLE.cases) + 6
    known = {tuple(case[0]) if isinstance(case, tuple) else tuple(case.args[0]) for case in DOUBLE.cases}
    learnt_by_heart = examine(exercise, lambda numbers, factor: [factor * n for n in numbers] if tuple(numbers) in known
                              else [factor * n + 1 for n in numbers])
    assert learnt_by_heart.status == "wrong" and "off by one" in repr(learnt_by_heart)


def stamped(x: torch.Tensor) -> dict:
    """Imports of both kinds, one of them under another name."""
    version = importlib.metadata.version("torch")
    return {"x": st.none(), "at": time.time(), "here": Path("."), "sum": torch.sum(x), "by": version}


def test_what_an_exercise_says_of_itself():
    exercise = replace(DOUBLE, head="★★★ Twice and more · 12 min", prompt="""Spot it:
```python
def double(numbers, factor=2):
    return numbers
```
and `this`.""")
    assert (exercise.name, exercise.stars, exercise.minutes) == ("double", 3, 12) and DOUBLE.published is None
    assert exercise.published == "def double(numbers, factor=2):\n    return numbers\n"
    (published,) = exercise.faces(Mistake("as it was printed"))
    assert published([3], 2) == [3] and exercise.faces(Mistake("by sign only", sign=bool)) == ()
    assert replace(DOUBLE, solution=stamped).source.startswith(
        "import importlib.metadata\nimport time\nfrom pathlib import Path\n\nimport torch\n"
        "from hypothesis import strategies as st\n\n\ndef stamped(x")
    assert re.fullmatch(r"def double\(numbers(?s:.*)\S\n", DOUBLE.source), "and one end of a line"


def test_an_input_may_be_made_for_each_call_and_named_for_the_reader(tmp_path):
    made = []

    @contextmanager
    def folder():
        made.append(tmp_path / str(len(made)))
        made[-1].mkdir()
        yield made[-1], 3
        shutil.rmtree(made[-1])

    exercise = replace(DOUBLE, solution=lambda path, n: path.is_dir() and n, mistakes=(),
                       cases=(Case(folder, shown="an empty folder"),))
    assert examine(exercise, lambda path, n: path.exists() and n).status == "correct"
    verdict = examine(exercise, lambda path, n: 4)
    assert verdict.status == "wrong" and ("input", "an empty folder") in verdict.details
    verdict = examine(exercise, lambda path, n: n + 14)
    assert (verdict.rung, verdict.text) == ("unread", "`path` is never used in it.")
    assert not any(path.exists() for path in made)


def test_inputs_of_both_kinds_may_stand_side_by_side():
    @contextmanager
    def made():
        yield torch.tensor([2.0, 3.0, 4.0, 11.0, -5.0]), 7
    both = replace(STEPS, cases=(*STEPS.cases, Case(made, "made anew")))
    assert examine(both, steps).status == "correct"
    assert examine(both, lambda x, r: steps(x, r + 1)).text.endswith("It answers as if `r` were one more.")
    assert examine(both, lambda x, r: steps(x, r) if r != 7 else x.sin()).text == "Right before, wrong here: made anew."
    few = replace(STEPS, cases=(STEPS.cases[0], Case(made)), draw=None)  # what is made is not changed: a folder, say
    assert examine(few, lambda x, r: steps(x, 9)).text == "`r` is never used in it."


def test_an_answer_that_changes_a_folder_is_not_drawn_at_random(tmp_path):
    @contextmanager
    def folder():
        yield tmp_path, 3

    def counts_its_own(path, n):
        (path / str(len(list(path.iterdir())))).mkdir()
        return len(list(path.iterdir()))
    exercise = replace(DOUBLE, solution=lambda path, n: -n, mistakes=(), cases=(Case(folder),))
    assert examine(exercise, counts_its_own).rung != "random"


def test_an_input_may_leave_out_what_has_a_default():
    short = replace(DOUBLE, mistakes=(), cases=(([1, 2, -5],), ([3, 4],)))
    assert examine(short, double).status == "correct"
    verdict = examine(short, lambda numbers, factor=2: [factor * n + n % 2 for n in numbers])
    assert verdict.status == "wrong" and verdict.details[0] == ("input", "numbers=[1, 2, -5]")


def test_a_builtin_is_judged_by_its_answers():
    assert examine(replace(DOUBLE, cases=(([1, 2], [3]),), mistakes=()), max).status == "kind"
    one = replace(DOUBLE, solution=stamped, cases=((torch.ones(2),),), mistakes=())
    assert examine(one, len).status == "kind" and examine(one, lambda: 3).status == "signature"


def test_a_comparison_of_its_own_replaces_the_usual_one():
    loose = replace(DOUBLE, mistakes=(), close=lambda got, expected: sorted(got) == sorted(expected))
    assert examine(loose, lambda numbers, factor: [factor * n for n in reversed(numbers)]).status == "correct"
    assert examine(loose, lambda numbers, factor: 7).status == "kind"  # it cannot be sorted

    def in_floats(numbers, factor):
        return [1.0 * factor * n for n in numbers]
    near = replace(DOUBLE, mistakes=(), tolerance=0.1, solution=in_floats)
    assert examine(near, lambda numbers, factor: [1.05 * factor * n for n in numbers]).status == "correct"
    assert examine(near, lambda numbers, factor: [1.2 * factor * n for n in numbers]).status == "wrong"
    assert near.agree([1.05], [1.0]) and not near.agree([1.05], [1.0], 0.01), "or another tolerance for once"


# ------------------------------------------------------------------------------------------------ nothing escapes

def forever(numbers, factor):
    while True:
        pass


def forever_and_catching(numbers, factor):
    while True:
        try:
            while True:
                pass
        except Exception:
            pass


def forever_and_stubborn(numbers, factor):
    try:
        forever(numbers, factor)
    except BaseException:
        forever(numbers, factor)


def forever_printing(numbers, factor):
    while True:
        print("still here")


def recursive(numbers, factor):
    return recursive(numbers, factor)


def interrupted(numbers, factor):
    raise KeyboardInterrupt


@pytest.mark.parametrize("function, said", [
    (forever, "a loop never end"), (forever_and_catching, "a loop never end"),
    (forever_and_stubborn, "a loop never end"),
    (forever_printing, "It printed more than 20,000"),
    (recursive, "It calls itself without an end"), (lambda n, f: sys.exit(3), "`exit()` has no place"),
    (interrupted, "It was interrupted"), (lambda n, f: [0] * 10**16, "more memory than there is"),
])
def test_nothing_escapes(function, said, capsys):
    verdict = examine(replace(DOUBLE, seconds=0.3), function)
    assert verdict.status == "error" and said in repr(verdict), verdict
    assert "numbers=[1, 2, -5]" in repr(verdict), "the input on which it happened"
    assert len(capsys.readouterr().out) <= 20_000


def test_an_exercise_may_give_less_time():
    verdict = examine(replace(DOUBLE, seconds=0.1), lambda numbers, factor: busy(4))
    assert verdict.rung == "stopped" and "still running" in repr(verdict)


def test_an_error_is_shown_with_its_line_and_what_was_expected():
    assert [name for name, _ in examine(DOUBLE, raises).details] == ["input", "raised", "at", "expected"]
    assert examine(DOUBLE, raises).details[3] == ("expected", "[3, 6, -15]")


def test_a_registered_mistake_is_asked_within_the_time_of_the_exercise():
    """Whichever of the two is too slow on most inputs, they do not answer alike there."""
    def rung(function, face):
        return examine(replace(DOUBLE, seconds=0.2, mistakes=(Mistake("x", face),)), function).rung

    def zero(numbers, factor):
        return [0]

    waits = iter([0, 0, 5, 5])  # where it is judged, and then once for each input
    assert rung(zero, zero) == "mistake" == rung(zero, lambda numbers, factor: busy(5 * (not numbers)) or [0])
    assert rung(zero, lambda numbers, factor: busy(5 * (numbers == [1, 2, -5])) or [0]) == "kind"
    assert rung(zero, lambda numbers, factor: busy(5 * (numbers != [1, 2, -5])) or [0]) == "kind"
    assert rung(lambda numbers, factor: busy(next(waits, 0)) or [0], zero) == "kind" and not list(waits)


def test_the_line_that_is_shown_is_the_reader_s_own():
    def asks_elsewhere(numbers, factor):
        return re.fullmatch(numbers, "x")
    assert examine(DOUBLE, asks_elsewhere).details[2] == ("at", 'return re.fullmatch(numbers, "x")')
    assert [name for name, _ in examine(DOUBLE, divmod).details] == ["input", "raised", "expected"], "it has none"


def test_bits_are_judged_and_shown_in_hex_and_numbers_within_their_tolerance():
    bits = replace(DOUBLE, hexadecimal=4, mistakes=(), cases=(([1, 20, 0], 3),))
    failed, wrong = examine(bits, raises), examine(bits, lambda numbers, factor: [n + factor for n in numbers])
    assert failed.details[0] == wrong.details[0] == ("input", "numbers=[0x0001, 0x0014, 0x0000], factor=0x0003")
    assert failed.details[-1] == wrong.details[2] == ("expected", "[0x0003, 0x003c, 0x0000]")
    assert wrong.details[-1] == ("differ", "3 of 3; first at [0]: 0x0004 came, 0x0003 expected")
    near = replace(DOUBLE, tolerance=0.1, mistakes=(), solution=lambda x: 2 * x, cases=((torch.tensor([1.0, 5.0]),),))
    assert examine(near, lambda x: 1.99 * x**1.2).details[-1][1].startswith("1 of 2; first at [1]: ")


def test_huge_answers_are_shown_short():
    for answer in (list(range(10**6)), "x" * 10**6, {n: n for n in range(10**5)}, [[["deep"]]] * 10**5):
        assert len(repr(examine(DOUBLE, lambda numbers, factor, answer=answer: answer))) < 2500


def test_an_answer_whose_equality_raises_is_wrong_and_no_more():
    class Odd:
        def __eq__(self, other):
            raise ValueError("no")
        __hash__ = None
    assert examine(DOUBLE, lambda numbers, factor: [Odd(), Odd(), Odd()]).status in ("wrong", "kind")


def test_what_a_function_prints_is_still_seen(capsys):
    examine(DOUBLE, lambda numbers, factor: print("hello") or double(numbers, factor))
    assert capsys.readouterr().out == "hello\n" * 3


def test_what_a_function_prints_is_counted_to_the_letter(capsys):
    assert running.call(print, ("x" * 19_999,)).error is None, "and the end of the line"
    assert running.call(print, ("x" * 20_000,)).error is not None
    assert capsys.readouterr().out == "x" * 19_999 + "\n" + "x" * 20_000


def test_what_a_function_prints_is_passed_on_at_once(monkeypatch):
    class Terminal(io.StringIO):
        flushed = 0

        def flush(self):
            self.flushed += 1

    monkeypatch.setattr(sys, "stdout", Terminal())
    running.call(lambda: print("wait", flush=True), ())
    assert sys.stdout.getvalue() == "wait\n" and sys.stdout.flushed == 1


def test_the_watcher_keeps_no_program_from_ending():
    assert running.call(lambda: threading.enumerate()[-1].daemon, ()).value


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_stop_that_is_thrown_as_the_function_ends_never_arrives(monkeypatch):
    throw = functools.partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(threading.get_ident()),
                              ctypes.py_object(running.OutOfTime))

    class Lock:  # in place of the watcher it throws itself, where the function has ended and the lock is taken
        __enter__, __exit__ = staticmethod(throw), lambda self, *_: None

    monkeypatch.setattr(running, "threading", SimpleNamespace(**{**vars(threading), "Lock": Lock}))
    assert running.call(lambda: 3, ()) == running.Outcome(3)


def test_a_stop_that_comes_as_the_function_ends_is_the_last():
    """A watcher that outlives its call throws into all that comes after: it did, where both ended at the same time."""
    before = threading.active_count()
    for _ in range(60):
        running.call(busy, (0.002,), 0.002)
    busy(0.5)  # a stop that came late would be raised here
    assert threading.active_count() <= before
    assert running.call(lambda: 3, ()).value == 3


# ------------------------------------------------------------------------------------------------ comparing

@pytest.mark.parametrize("a, b, same", [
    (1, 1.0, True), (1.0, 1, False), (True, 1, False), (1, True, False), (float("nan"), float("nan"), True),
    (None, None, True), (None, 0, False), (0, None, False), ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
    ({"a": 1}, {"a": 2}, False), ([1, 2], [1, 2, 3], False), ("a", "a", True), (Path("a"), Path("a"), True),
    (Path("a"), "a", False), (torch.ones(2), torch.ones(2), True), (torch.ones(2), torch.ones(3), False),
    (torch.tensor(1.0), 1.0, False), ((1, 2), [1, 2], True), ([(1, 2)], [[1, 2]], True), (torch.tensor([float("inf")]),
    torch.tensor([float("inf")]), True), (torch.tensor([float("inf")]), torch.tensor([1.0]), False),
    (torch.tensor([float("nan")]), torch.tensor([1.0]), False), (1.0, 1.25, False), ("a", "b", False),
    (torch.tensor([1, 2]), torch.tensor([1, 2]), True), (torch.tensor([1, 2]), torch.tensor([1, 3]), False),
    (float("nan"), 1.0, False), (1.0, float("nan"), False),
    (torch.ones(2, device="meta"), torch.ones(2, device="meta"), True),
    (torch.ones(2), torch.ones(2, device="meta"), False), (torch.ones(2, device="meta"), torch.ones(2), False),
])
def test_equal(a, b, same):
    assert compare.equal(a, b) == same


def test_no_answer_is_a_question_of_value_not_of_kind():
    assert compare.same_kind(None, "a") and compare.same_kind("a", None) and not compare.same_kind(3, "a")


def test_numpy_s_scalars_pass_for_python_s():
    import numpy as np
    assert compare.equal(np.float32(0.1), 0.1, 1e-6) and compare.equal(np.int64(3), 3) and compare.equal(np.True_, True)


def test_the_tolerance_is_relative_to_the_largest_number_beside_it():
    sums = torch.tensor([1000.0, 0.0])
    assert compare.equal(sums + torch.tensor([0.0, 5e-5]), sums, 1e-6)
    assert not compare.equal(sums + torch.tensor([0.0, 5e-4]), sums, 1e-6)
    assert not compare.equal(sums + torch.tensor([0.0, 1e-30]), sums, 0.0)
    assert compare.unequal(sums + torch.tensor([0.0, 1e-30]), sums).tolist() == [False, True], "none, if none is given"


def test_equal_modules():
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    twin = compare.copied((layer,))[0]
    assert compare.equal(layer, twin)
    assert not compare.equal(layer, other)
    with torch.no_grad():
        twin.weight *= 1 + 1e-6
    assert compare.equal(layer, twin, 1e-5) and not compare.equal(layer, twin)
    twin = compare.copied((layer,))[0]
    twin.bias.requires_grad = False
    assert not compare.equal(twin, layer) and not compare.equal(layer, twin), "one is trained, the other frozen"
    bare = torch.nn.Linear(2, 2, bias=False)
    bare.weight = layer.weight
    assert not compare.equal(bare, layer) and not compare.equal(layer, bare), "one has a bias"


def test_objects_without_an_equality_of_their_own_are_compared_by_what_they_hold():
    class Box:
        def __init__(self, held):
            self.held = held
    assert compare.equal(Box([1.0]), Box([1.0 + 1e-9]), 1e-6) and not compare.equal(Box([1.0]), Box([2.0]))

    class Named(Box):
        def __eq__(self, other):
            return self.held[0] == other.held[0]
        __hash__ = None
    assert compare.equal(Named("ab"), Named("ac")), "one of its own counts"

    class Odd(Box):
        def __eq__(self, other):
            raise ValueError("no")
        __hash__ = None
    assert not compare.equal(Odd(1), Odd(1))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=12)


@given(values, values)
@settings(deadline=None)
def test_any_two_answers_can_be_set_side_by_side(got, expected):
    lines = compare.rows(got, expected, 1e-6)
    assert lines and len({text for _, text in lines}) == len(lines), "never two lines alike"
    assert all(len(text) < 1000 for _, text in lines)
    assert compare.equal(got, got, 1e-9)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=13, max_size=40), st.integers(0, 12))
@settings(deadline=None)
def test_the_first_difference_is_shown(numbers, place):
    expected = torch.tensor(numbers)
    got = expected.clone()
    got[place] = got[place] * 2 + 1 if got[place].isfinite() and got[place] != -1 else 7.0
    [(label, text)] = [row for row in compare.rows(got, expected, 0.0) if row[0] == "differ"]
    assert text.startswith(f"1 of {len(numbers)}; first at [{place}]: ")


def test_bits_are_shown_in_hex():
    shown = compare.rows(torch.tensor([0x3E89]), torch.tensor([0x3E8A]), 0.0, 4)
    assert shown[:2] == tuple((name, f"[{bits}] (a torch.int64 tensor of shape (1,))") for name, bits in (
        ("came", "0x3e89"), ("expected", "0x3e8a")))


def begun_twice(x):
    ...
    ...


@pytest.mark.parametrize("function, stub", [
    (lambda x: ..., True), (begun_twice, True), (lambda x: None, True), (lambda x: 0, False), (lambda x: x, False),
    (len, False),
])
def test_is_stub(function, stub):
    assert is_stub(function) == stub


# ------------------------------------------------------------------------------------------------ the calls

def named(name):
    def function(*_):
        return None
    function.__name__ = name
    return function


def test_unknown_names_are_met_with_help():
    verdict = check(named("mask_label"))
    assert verdict.status == "unknown" and "Did you mean `mask_labels`?" in repr(verdict)
    assert "Lesson 10's exercises" in repr(verdict) and "`share_moved`" in repr(verdict)
    assert "`model_bytes`" not in repr(verdict)
    check(named("model_bytes"))
    assert "Lesson 00's exercises: `model_bytes`." in repr(check(named("zzzz"))), "the lesson at hand"
    check(named("share_moved"))
    assert "Lesson 10's exercises: " in repr(check(named("zzzz")))
    check(named("model_bytes"))
    assert "Lesson 00's exercises: " in repr(check(named("zzzz"))), "that of the latest check, though not the first"
    assert "without calling it" in repr(check(12)) and "without calling it" in repr(check("mask_labels"))
    for call in (hint, solution):
        with pytest.raises(ValueError, match="'mask_label'.*`mask_labels`"):
            call("mask_label")


def test_hints_come_one_by_one():
    registry._hints_given.pop("mask_labels", None)
    texts = [repr(hint("mask_labels")) for _ in range(4)]
    assert [t[:13] for t in texts] == ["? Hint 1 of 3", "? Hint 2 of 3", "? Hint 3 of 3", "? Hint 3 of 3"]
    assert 'solution("mask_labels")' in texts[2] and 'solution("mask_labels")' not in texts[1]


def test_verdict_is_remembered():
    check(named("model_bytes"))
    assert registry.verdicts["model_bytes"].status == "unattempted"
    check(functools.wraps(EXERCISES["model_bytes"].solution)(lambda *args: EXERCISES["model_bytes"].solution(*args)))
    assert registry.verdicts["model_bytes"].status == "correct"


def test_solution_shows_its_source():
    card = solution("newest_complete_checkpoint")
    assert repr(card).startswith("import json\nfrom pathlib import Path\n\n\ndef newest_complete_checkpoint(")
    assert ast.parse(repr(card))
    html = card._repr_html_()
    assert html == SourceCard(card.source)._repr_html_()
    assert "background:#fbfaf7" in html and "class=" not in html.replace('class="highlight"', "")


markup = st.text("<>&`'/ab\n")


@given(markup, markup, markup)
def test_card_escapes_what_it_shows(title, text, value):
    html = Card("✗", title, text, (("came", value),))._repr_html_()
    own = re.sub(r"<(div|b|span|code|br)( style=\"[^\"<>]*\")?>|</(div|b|span|code)>", "", html)
    assert "<" not in own and ">" not in own and not re.search(r"&(?!amp;|lt;|gt;|quot;|#x27;)", own)


# ------------------------------------------------------------------------------------------------ predictions

@pytest.mark.parametrize("guess, truth, said", [
    (None, 4, "○ It is 4."), (..., 4, "○ It is 4."), (4, 4, "✓ It is 4. Exactly your guess."),
    (4.1, 4.0, "✓ It is 4. You said 4.1: close enough."), (8, 2, "✗ It is 2. You said 8: too high by a factor of 4."),
    (2, 8.0, "✗ It is 8. You said 2: too low by a factor of 4."), (0, 3, "✗ It is 3. You said 0."),
    (-1, 3, "✗ It is 3. You said -1."), ("NF4", "nf4", "✓ It is nf4: you said so."),
    (True, True, "✓ It is True: you said so."),
    ("fp4", "nf4", "✗ It is nf4. You said fp4."), (True, False, "✗ It is False. You said True."),
    (3_500_000, 3_540_389_888, "✗ It is 3,540,389,888. You said 3,500,000: too low by a factor of 1012."),
    (1, float("inf"), "✗ It is inf. You said 1: too low by a factor of inf."),
    (1, float("nan"), "✗ It is nan. You said 1."),
])
def test_outcome(guess, truth, said):
    predict("key", guess)
    assert repr(outcome("key", truth)).strip() == said


def test_predictions_without_a_guess_are_stable():
    assert predict("x") == predict("y", None)
    predict("x", 3)
    predict("x", None)
    assert repr(outcome("x", 5)) == repr(outcome("never asked", 5))


