"""The exercises: each solution is right, each registered mistake earns its own words; what the solutions promise."""

import inspect
import json
import tempfile
from itertools import combinations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exercises import authoring, registry, solution
from helpers.exercises.compare import copied
from helpers.exercises.engine import Case, examine
from helpers.exercises.running import call

EXERCISES = dict(registry.exercises())
FACES = [(e, m, f) for e in EXERCISES.values() for m, mistake in enumerate(e.mistakes)
         for f in range(len(e.faces(mistake)))]


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_solution_is_correct(exercise):
    verdict = examine(exercise, exercise.solution)
    assert verdict.status == "correct", verdict


@pytest.mark.parametrize("exercise, mistake, face", FACES, ids=[
    f"{e.name}-{e.mistakes[m].says[:40]}-{f}" for e, m, f in FACES])
def test_mistake_earns_its_own_words(exercise, mistake, face):
    verdict = examine(exercise, exercise.faces(exercise.mistakes[mistake])[face])
    assert verdict.index == mistake, verdict
    assert exercise.mistakes[mistake].says in repr(verdict)


def test_known_wrong_answers_are_many():
    assert len(FACES) >= 540


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_mistakes_differ(exercise):
    """Two mistakes that give the same answers on every input would be one: the second would never be met."""
    answers = []
    for case in exercise.inputs():
        with case.arguments() as args:
            answers.append([[call(face, copied(args)) for face in exercise.faces(mistake)]
                            for mistake in exercise.mistakes])
    for a, b in combinations(range(len(exercise.mistakes)), 2):
        for one in range(len(answers[0][a])):
            for other in range(len(answers[0][b])):
                pairs = [(case[a][one], case[b][other]) for case in answers]
                assert any(type(x.error) is not type(y.error) or not exercise.agree(x.value, y.value)
                           for x, y in pairs), (
                    f"{exercise.mistakes[a].says!r} and {exercise.mistakes[b].says!r} answer alike everywhere")


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_exercise_is_well_formed(exercise):
    assert len(exercise.mistakes) >= 3 and len(exercise.hints) >= 3 and exercise.moral and exercise.prompt.strip()
    assert len({mistake.says for mistake in exercise.mistakes}) == len(exercise.mistakes), "two mistakes say the same"
    assert "TODO" not in inspect.getsource(inspect.getmodule(exercise.solution))
    assert 1 <= exercise.minutes <= 15 and inspect.getdoc(exercise.solution)
    wide = [line for line in authoring.stub(exercise).splitlines() if len(line) > 90]
    assert not wide, "more than 90 characters in a line of the stub: the notebook's cell would have to be scrolled"
    special = [case for case in exercise.cases[1:] if not (isinstance(case, Case) and case.about)]
    assert not special, "say in `about` what each case has that those before it had not"


@pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
def test_stub_is_neutral_and_solution_stands_alone(exercise):
    """The stub counts as not attempted; the solution's source, run by itself, is correct."""
    for text, status in ((authoring.stub(exercise), "unattempted"), (repr(solution(exercise.name)), "correct")):
        space: dict = {}
        exec(text, space)
        assert examine(exercise, space[exercise.name]).status == status


@pytest.mark.parametrize("exercise", [e for e in EXERCISES.values() if e.published], ids=lambda e: e.name)
def test_published_code_earns_its_words(exercise):
    space: dict = {}
    exec(exercise.published, space)
    assert examine(exercise, space[exercise.name]).rung == "mistake"
    assert "https://github.com/" in exercise.prompt, "say where the bug was met"


def test_every_lesson_has_what_the_course_promises():
    finale = [e for e in EXERCISES.values() if e.lesson == 10]
    assert len(finale) >= 5
    assert sum(bool(e.published) for e in finale) >= 2


# ------------------------------------------------------------------------------------------------ the solutions

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
    shapes, r = next(c.args for c in EXERCISES["lora_parameters"].inputs() if len(c.args[0]) == 224)
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


@given(st.integers(1, 100), st.integers(1, 12))
def test_shard_rows_are_torchs_chunks(rows, processes):
    chunks = [len(chunk) for chunk in torch.zeros(rows, 1).chunk(processes)]
    assert EXERCISES["shard_rows"].solution(rows, processes) == chunks + [0] * (processes - len(chunks))
