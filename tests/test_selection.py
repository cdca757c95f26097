"""`make quick` leaves out what is slow and was not touched, and nothing else."""

import selection


def test_the_slow_files_exist():
    assert [name for name in selection.SLOW if not (selection.ROOT / name).is_file()] == []
    assert len(set(selection.SLOW)) == len(selection.SLOW)


def test_what_is_left_out(monkeypatch):
    slow = ("notebooks/04_nf4.ipynb", "tests/test_hub.py", "tests/test_pocket_train.py")
    monkeypatch.setattr(selection, "SLOW", slow)
    every = ["notebooks/00_start_here.ipynb", "tests/test_floats.py", *slow]

    def runs(*changes):
        return [name for name in every if not selection.left_out(name, changes)]

    assert runs() == ["tests/test_floats.py"]
    assert runs("notebooks/00_start_here.ipynb", "tests/test_hub.py") == [
        "notebooks/00_start_here.ipynb", "tests/test_floats.py", "tests/test_hub.py"]
    assert runs("helpers/finale/hub.py") == ["tests/test_floats.py", "tests/test_hub.py"]
    assert runs("helpers/pocket/train.py") == ["tests/test_floats.py", "tests/test_pocket_train.py"]
    assert runs("README.md", "helpers/hub.json") == ["tests/test_floats.py"]


def test_the_corpus_belongs_to_the_exercises():
    assert not selection.left_out("tests/test_corpus.py", ["helpers/exercises/lesson_02/scales.py"])
    assert not selection.left_out("tests/test_exercises.py", ["tests/corpus/lesson_02.py"])
    assert selection.left_out("tests/test_corpus.py", ["helpers/lora.py"])


def test_one_lesson_s_exercises_are_tested_by_themselves():
    own = ["helpers/exercises/lesson_02/scales.py", "helpers/exercises/lesson_02/__init__.py",
           "tests/corpus/lesson_03.py", "tests/corpus/judged.json", "notebooks/02_absmax_quantization.ipynb"]
    assert selection.lessons(own) == {2, 3}
    for all_of_them in ("helpers/exercises/engine.py", "tests/corpus/second.py"):
        assert selection.lessons([*own, all_of_them]) is None
    assert selection.lessons(["tests/corpus/judged.json", "helpers/lora.py"]) is None


def test_an_uncommitted_and_a_new_file_count_as_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "ROOT", tmp_path)
    assert selection.changed() == set(), "without git"

    def git(*arguments):
        assert selection._git("-c", "user.name=a", "-c", "user.email=a@b", *arguments) is not None

    git("init", "-q", "-b", "main")
    for name in ("same", "committed", "edited"):
        (tmp_path / name).write_text("1")
    git("add", "-A")
    git("commit", "-qm", "first")
    assert selection.changed() == set()
    git("checkout", "-qb", "mine")
    (tmp_path / "committed").write_text("2")
    git("commit", "-qam", "second")
    (tmp_path / "edited").write_text("2")
    (tmp_path / "new").write_text("2")
    assert selection.changed() == {"committed", "edited", "new"}


def test_what_is_left_to_the_weekly_run_exists_and_is_run_by_whoever_names_it():
    for name in selection.WEEKLY:
        file, test = name.split("::")
        assert f"def {test}" in (selection.ROOT / file).read_text(encoding="utf-8"), name
        assert selection.weekly(f"{name}_x[1]", ["tests", "notebooks"]) and not selection.weekly(f"{name}_x", [file])
    assert not selection.weekly("tests/test_gpu_script.py::test_another", ["tests"])
