"""Run folders: an unfinished run of the same recipe is taken up again, everything else is left alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.finale.checkpoints import Run, newest_complete_checkpoint, newest_finished, open_run


def checkpoint(run: Run, step: int, state: str | None = '{"global_step": 4}') -> None:
    folder = run.folder / f"checkpoint-{step}"
    folder.mkdir()
    if state is not None:
        (folder / "trainer_state.json").write_text(state)


def test_an_unfinished_run_of_the_same_recipe_is_resumed(tmp_path):
    first = open_run(tmp_path, {"r": 8})
    assert first.checkpoint is None
    assert open_run(tmp_path, {"r": 8}) == first, "killed before its first checkpoint: the same folder, from step 0"
    checkpoint(first, 50)
    checkpoint(first, 100)
    checkpoint(first, 150, '{"global_step": 1')
    checkpoint(first, 200, None)
    again = open_run(tmp_path, {"r": 8})
    assert again == Run(first.folder, first.folder / "checkpoint-100")


def test_another_recipe_and_a_finished_run_are_left_alone(tmp_path):
    first = open_run(tmp_path, {"r": 8})
    checkpoint(first, 50)
    second = open_run(tmp_path, {"r": 16})
    assert second.folder != first.folder and second.checkpoint is None
    second.adapter.mkdir()
    third = open_run(tmp_path, {"r": 16})
    assert third.folder not in (first.folder, second.folder)
    assert (first.folder / "checkpoint-50").exists() and second.adapter.exists()


def test_a_folder_without_its_recipe_is_not_resumed(tmp_path):
    first = open_run(tmp_path, {"r": 8})
    (first.folder / "recipe.json").unlink()
    checkpoint(first, 50)
    assert open_run(tmp_path, {"r": 8}).folder != first.folder


@given(st.integers(1, 1200))
@settings(max_examples=20, deadline=None)
def test_runs_are_numbered_beyond_999(tmp_path_factory, number):
    root = tmp_path_factory.mktemp("runs")
    (root / f"run-{number:03d}" / "adapter").mkdir(parents=True)
    (root / "run-000" / "adapter").mkdir(parents=True)
    assert open_run(root, {}).folder.name == f"run-{number + 1:03d}"


@pytest.mark.parametrize("names, newest", [
    (["checkpoint-9", "checkpoint-10"], "checkpoint-10"), (["checkpoint-best", "checkpoint-5"], "checkpoint-5"),
    (["checkpoint-"], None), ([], None)])
def test_the_newest_is_the_highest_step(tmp_path, names, newest):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "trainer_state.json").write_text("{}")
    assert newest_complete_checkpoint(tmp_path) == (tmp_path / newest if newest else None)


def test_the_newest_finished_run_of_a_recipe_is_found(tmp_path):
    assert newest_finished(tmp_path, {}) is None
    for r in (8, 8, 16, 8):
        run = open_run(tmp_path, {"r": r, "model": "a"})
        if r == 8 and run.folder.name != "run-004":
            run.adapter.mkdir()
    assert newest_finished(tmp_path, {"r": 8}) == tmp_path / "run-002"
    assert newest_finished(tmp_path, {"r": 16}) is None  # not finished
    assert newest_finished(tmp_path, {"r": 8, "data": None}) is None  # the recipe does not say
