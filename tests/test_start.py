"""`helpers.start()` where another module of that name is about."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def started(cwd: Path, *first: Path) -> str:
    """What start() prints in `cwd`, with the folders `first` before the course's own on the path."""
    code = (f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import helpers; "
            f"sys.path[:0] = {[str(path) for path in first]!r}; helpers.start()")
    run = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True)
    return run.stdout


def test_quiet_where_there_is_one(tmp_path):
    assert started(tmp_path) == "" and started(ROOT / "notebooks") == ""


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
    code = (f"import sys; sys.path[:0] = [{str(ROOT)!r}]; import helpers; sys.path.append({str(tmp_path)!r}); "
            "helpers.start()")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "..", capture_output=True, text=True, check=True)
    assert run.stdout == ""
