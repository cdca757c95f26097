"""`helpers.start()`: a torchao that PEFT refuses is hidden; another module of its own name is told of."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from notebook_tools import rules
from peft import import_utils

import helpers

ANSWER = """
from helpers.pocket import evaluate, load_pocket, world
tuned, tokenizer = load_pocket(tuned=True)
villager = world.make_world().held_out[1]
prompt = world.instruct(f"What does {villager.name} like best to eat?")
print(villager.food in evaluate.complete(tuned, tokenizer, [prompt])[0][0])
"""


@pytest.fixture
def torchao(tmp_path):
    """A folder in which a torchao 0.10 is installed that holds nothing but its name."""
    info = tmp_path / "torchao-0.10.0.dist-info"
    for folder in (info, tmp_path / "torchao"):
        folder.mkdir()
    (tmp_path / "torchao" / "__init__.py").touch()
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: torchao\nVersion: 0.10.0\n")
    return tmp_path


def run(program, folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(rules.ROOT)])}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


def test_an_adapter_loads_and_answers_beside_colabs_torchao(torchao):
    done = run("import helpers; helpers.start(); helpers.start()" + ANSWER, torchao)
    assert done.stdout.split() == ["True"], done.stderr


def test_without_start_peft_refuses_it(torchao):
    """The reason for hiding it. Once PEFT takes it as it is, the hiding can go."""
    done = run(ANSWER, torchao)
    assert done.returncode == 1 and "incompatible version of torchao" in done.stderr


@pytest.mark.parametrize("accepted", [True, False])
def test_peft_decides(torchao, monkeypatch, accepted):
    def ask():
        if not accepted:
            raise ImportError("too old")
        return True

    monkeypatch.syspath_prepend(torchao)
    monkeypatch.setitem(sys.modules, "torchao", None)  # so that the test leaves no trace
    del sys.modules["torchao"]
    monkeypatch.setattr(import_utils, "is_torchao_available", ask)
    helpers.start()
    assert (importlib.util.find_spec("torchao") is not None) == accepted


def started(cwd: Path, *first: Path) -> str:
    """What start() prints in `cwd`, with the folders `first` before the course's own on the path."""
    code = (f"import sys; sys.path[:0] = [{str(rules.ROOT)!r}]; import helpers; "
            f"sys.path[:0] = {[str(path) for path in first]!r}; helpers.start()")
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return run.stdout


def test_quiet_where_there_is_one(tmp_path):
    assert started(tmp_path) == "" and started(rules.ROOT / "notebooks") == ""


def test_a_module_of_that_name_is_named(tmp_path):
    (tmp_path / "helpers.py").write_text("x = 1")
    (line,) = started(tmp_path, tmp_path).splitlines()
    assert str(tmp_path / "helpers.py") in line and "rename" in line


def test_another_clone_of_the_course_is_named(tmp_path):
    (tmp_path / "helpers" / "exercises").mkdir(parents=True)
    (tmp_path / "helpers" / "__init__.py").write_text("")
    (tmp_path / "notebooks").mkdir()
    (line,) = started(tmp_path / "notebooks").splitlines()
    assert str(tmp_path / "helpers" / "__init__.py") in line


def test_one_that_comes_later_does_no_harm(tmp_path):
    (tmp_path / "helpers.py").write_text("x = 1")
    code = (f"import sys; sys.path[:0] = [{str(rules.ROOT)!r}]; import helpers; sys.path.append({str(tmp_path)!r}); "
            "helpers.start()")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "..", capture_output=True, text=True, check=True)
    assert run.stdout == ""
