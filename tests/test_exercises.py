"""The exercises and their engine: what each answer earns, and that no answer breaks the engine."""

import ast
import inspect
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exercises import authoring, check, compare, hint, outcome, predict, registry, solution
from helpers.exercises.display import SourceCard
from helpers.exercises.engine import Case, Exercise, examine, is_stub

EXERCISES = dict(registry.exercises())
WRONG = [(e, i) for e in EXERCISES.values() for i in range(len(e.wrong))]


def double(numbers: list[int], factor: int = 2) -> list[int]:
    """Every number times `factor`, in a new list."""
    return [factor * n for n in numbers]


DOUBLE = Exercise(
    lesson=99, title="Double", stars=1, minutes=1, prompt="Double.", solution=double,
    cases=(Case(([1, 2], 3), "general", {"not_scaled": [1, 2]}), Case(([], 2), "general", raises="empty")),
    hints=("one", "two"), wrong=(),
    diagnoses={"general": "Multiply.", "not_scaled": "The factor is missing.", "empty": "A list may be empty."},
)


# ------------------------------------------------------------------------------------------------ every exercise

@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_solution_is_correct(exercise):
    verdict = examine(exercise, exercise.solution)
    assert verdict.status == "correct", verdict


@pytest.mark.parametrize("exercise, index", WRONG, ids=[f"{e.name}-{i}-{e.wrong[i][1]}" for e, i in WRONG])
def test_wrong_answer_earns_its_hint(exercise, index):
    function, diagnosis = exercise.wrong[index]
    verdict = examine(exercise, function)
    assert verdict.status in ("wrong", "error") and verdict.diagnosis == diagnosis, verdict
    assert exercise.diagnoses[diagnosis] in repr(verdict)


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_is_well_formed(exercise):
    earned = {diagnosis for _, diagnosis in exercise.wrong}
    named = {d for case in exercise.cases for d in (case.diagnosis, *case.likely, *filter(None, [case.raises]))}
    assert len(earned) >= 3
    assert named == set(exercise.diagnoses), "a diagnosis that no case gives, or one without a text"
    assert earned == set(exercise.diagnoses), "a diagnosis that no known wrong answer earns"
    assert len(set(exercise.diagnoses.values())) == len(exercise.diagnoses), "two diagnoses say the same"
    assert exercise.stars in (1, 2, 3) and 1 <= exercise.minutes <= 15 and len(exercise.hints) >= 3
    assert inspect.getdoc(exercise.solution) and exercise.moral and exercise.prompt.strip()
    assert max(map(len, authoring.stub(exercise).splitlines())) <= 90, "a notebook's cell would have to be scrolled"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_stub_is_neutral_and_solution_stands_alone(exercise):
    """The stub counts as not attempted; the solution's source, run by itself, is correct."""
    for text, status in ((authoring.stub(exercise), "unattempted"), (repr(solution(exercise.name)), "correct")):
        space: dict = {}
        exec(text, space)
        assert examine(exercise, space[exercise.name]).status == status


SPOT_THE_BUG = [e for e in EXERCISES.values() if "```python" in e.prompt]


@pytest.mark.parametrize("exercise", SPOT_THE_BUG, ids=lambda e: e.name)
def test_published_code_earns_its_hint(exercise):
    [code] = re.findall(r"```python\n(.*?)```", exercise.prompt, re.DOTALL)
    space: dict = {}
    exec(code, space)
    verdict = examine(exercise, space[exercise.name])
    assert verdict.diagnosis == exercise.published, verdict
    assert "https://github.com/" in exercise.prompt, "say where the bug was met"


def test_every_lesson_has_what_the_course_promises():
    finale = [e for e in EXERCISES.values() if e.lesson == 10]
    assert len(finale) >= 5
    assert sum(bool(e.published) for e in finale) >= 2
    assert {bool(e.published) for e in SPOT_THE_BUG} == {True}


# ------------------------------------------------------------------------------------------------ the engine

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


@pytest.mark.parametrize("function, status, diagnosis, said", [
    (double, "correct", None, "double: correct."),
    (half_done, "unattempted", None, "`...`"),
    (half_done_inside, "unattempted", None, "`...`"),
    (unwritten, "unattempted", None, "NotImplementedError"),
    (lambda numbers, factor: None, "unattempted", None, "not attempted"),
    (drops_the_answer, "kind", None, "Is a `return` missing?"),
    (doubles_in_place, "mutated", None, "afterwards  numbers=[3, 6], factor=3"),
    (lambda numbers, factor: tuple(factor * n for n in numbers), "kind", None,
     "A tuple of 2 came, a list of 2 was expected."),
    (lambda numbers, factor: "36", "kind", None, "A str came"),
    (lambda numbers, factor: numbers, "wrong", "not_scaled", "The factor is missing."),
    (lambda numbers, factor: [0], "wrong", "general", "expected  [3, 6]"),
    (lambda numbers, factor: [3, 6.5], "wrong", "general", "came      [3, 6.5]"),
    (raises, "error", None, "IndexError: list index out of range"),
    (raises, "error", None, "return numbers[7]"),
    (raises, "error", None, "numbers=[1, 2], factor=3"),
    (only_full_lists, "error", "empty", "A list may be empty."),
    (lambda numbers: numbers, "signature", None, "called with `(numbers, factor)`, but takes `(numbers)`"),
])
def test_verdict(function, status, diagnosis, said):
    verdict = examine(DOUBLE, function)
    assert (verdict.status, verdict.diagnosis) == (status, diagnosis), verdict
    assert said in repr(verdict)


def test_input_survives_a_function_that_mutates():
    case = DOUBLE.cases[0]
    examine(DOUBLE, doubles_in_place)
    assert case.args == ([1, 2], 3)


def same(x: torch.Tensor) -> torch.Tensor:
    """A copy of x."""
    return x.clone()


def test_tensors():
    exercise = replace(DOUBLE, solution=same, cases=(Case((torch.ones(2, 3),), "general"),))
    assert examine(exercise, lambda x: x.clone()).status == "correct"
    assert examine(exercise, lambda x: x).status == "aliased"
    assert examine(exercise, lambda x: x.view(2, 3)).status == "aliased"
    assert examine(exercise, lambda x: x.mul_(2)).status == "mutated"
    assert examine(exercise, lambda x: x * 2).status == "wrong"
    assert examine(exercise, lambda x: x[0].clone()).status == "kind"
    wrong = examine(exercise, lambda x: x.bfloat16())
    assert wrong.status == "kind"
    assert "A torch.bfloat16 tensor of shape (2, 3) came, a torch.float32 tensor of shape (2, 3)" in repr(wrong)


@pytest.mark.parametrize("a, b, same", [
    (1, 1.0, True), (1.0, 1, False), (True, 1, False), (1, True, False), (float("nan"), float("nan"), True),
    (None, None, True), (None, 0, False), (0, None, False), ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, True),
    ({"a": 1}, {"a": 2}, False), ([1, 2], [1, 2, 3], False), ("a", "a", True), (Path("a"), Path("a"), True),
    (Path("a"), "a", False), (torch.ones(2), torch.ones(2), True), (torch.ones(2), torch.ones(3), False),
    (torch.tensor(1.0), 1.0, False),
])
def test_equal(a, b, same):
    assert compare.equal(a, b) == same


def test_equal_modules():
    layer, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert compare.equal(layer, compare.copied((layer,))[0])
    assert not compare.equal(layer, other)


@pytest.mark.parametrize("function, stub", [
    (lambda x: ..., True), (lambda x: None, True), (lambda x: 0, False), (lambda x: x, False), (len, False),
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
    assert "Lesson 10's exercises" in repr(verdict) and "`to_messages`" in repr(verdict)
    assert "`model_bytes`" not in repr(verdict)
    check(named("model_bytes"))
    assert "Lesson 00's exercises: `model_bytes`." in repr(check(named("zzzz"))), "the lesson at hand"
    check(named("to_messages"))
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
    check(EXERCISES["model_bytes"].solution)
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
    from helpers.exercises.display import Card
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


# ------------------------------------------------------------------------------------------------ the solutions

content = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).map(str.strip).filter(
    lambda text: text and not any(marker in text for marker in ("<s>", "</s>", "[INST]", "[/INST]")))


@given(st.lists(st.tuples(content, content), min_size=1, max_size=4), st.booleans())
@settings(deadline=None)
def test_messages_round_trip(turns, answered):
    text = "".join(f"<s>[INST] {question} [/INST] {answer} </s>" for question, answer in turns)
    expected = [{"role": role, "content": part} for turn in turns for role, part in zip(("user", "assistant"), turn,
                                                                                        strict=True)]
    if not answered:
        text = text[:-len(f" {turns[-1][1]} </s>")] + " </s>"
        expected.pop()
    assert EXERCISES["to_messages"].solution(text) == expected


@given(st.integers(1, 20), st.integers(0, 9))
def test_precision_follows_the_generation(major, minor):
    chosen = EXERCISES["choose_precision"].solution((major, minor))
    assert chosen == ("bfloat16" if major >= 8 else "float16")


@given(st.lists(st.integers(3, 99), max_size=6), st.lists(st.integers(3, 99), max_size=6), st.integers(0, 4),
       st.booleans())
def test_labels_are_the_answer_and_its_end(prompt, answer, pads, left):
    real = [1, *prompt, *answer, 2]
    padding = [2] * pads
    ids, mask = ((padding + real, [0] * pads + [1] * len(real)) if left
                 else (real + padding, [1] * len(real) + [0] * pads))
    labels = EXERCISES["mask_labels"].solution(ids, mask, 1 + len(prompt))
    assert [label for label in labels if label != -100] == [*answer, 2]
    assert all(label in (-100, token) for label, token in zip(labels, ids, strict=True))


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 64)), min_size=1, max_size=4), st.integers(1, 16))
@settings(deadline=None, max_examples=25)
def test_lora_parameters_agree_with_peft(shapes, r):
    from peft import LoraConfig, get_peft_model
    model = torch.nn.Sequential(*(torch.nn.Linear(columns, rows, bias=False) for rows, columns in shapes))
    peft = get_peft_model(model, LoraConfig(r=r, target_modules=[str(i) for i in range(len(shapes))]))
    trained = sum(p.numel() for p in peft.parameters() if p.requires_grad)
    assert EXERCISES["lora_parameters"].solution(shapes, r) == trained


def test_lora_parameters_of_llama_2_7b():
    shapes, r = EXERCISES["lora_parameters"].cases[-1].args
    count = EXERCISES["lora_parameters"].solution
    assert [count(shapes, r) for r in (8, 16, 64)] == [19_988_480, 39_976_960, 159_907_840]
    assert sum(rows * columns for rows, columns in shapes) == 6_476_005_376


@given(st.integers(1, 10**6), st.integers(1, 64))
def test_model_bytes_hold_every_bit(parameters, bits):
    size = EXERCISES["model_bytes"].solution(parameters, bits)
    assert 0 <= 8 * size - parameters * bits < 8


@given(st.floats(1e-8, 1.0))
@settings(deadline=None)
def test_share_moved_is_what_torch_does(step):
    weights = torch.linspace(-1, 1, 257)
    stored = weights.bfloat16()
    assert EXERCISES["share_moved"].solution(weights, step) == (stored != stored - step).float().mean().item()


@given(st.dictionaries(st.integers(1, 10**5), st.sampled_from(["whole", "missing", "cut"]), max_size=5))
@settings(deadline=None, max_examples=30)
def test_newest_complete_checkpoint(steps):
    with tempfile.TemporaryDirectory() as folder:
        for step, state in steps.items():
            path = Path(folder, f"checkpoint-{step}")
            path.mkdir()
            if state != "missing":
                text = json.dumps({"global_step": step})
                (path / "trainer_state.json").write_text(text if state == "whole" else text[:-1])
        newest = max((step for step, state in steps.items() if state == "whole"), default=None)
        found = EXERCISES["newest_complete_checkpoint"].solution(Path(folder))
        assert found == (None if newest is None else Path(folder, f"checkpoint-{newest}"))
