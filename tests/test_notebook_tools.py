"""`make notebooks`: the canonical form, and what happens when a cell fails."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from notebook_tools import canonical, run


def save(path, *cells):
    path.write_text(nbformat.writes(new_notebook(cells=[new_code_cell(cell) for cell in cells])), encoding="utf-8")
    return path


def test_run_writes_the_canonical_form(tmp_path, capsys):
    path = save(tmp_path / "x.ipynb", "print('a')", "import sys\nprint('b'); sys.stdout.flush(); print('c')",
                "import ipywidgets\nipywidgets.IntSlider(3)")
    assert run.main(["--check", str(path)]) == 1
    assert run.main([str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, 3]
    assert [output.text for output in notebook.cells[1].outputs] == ["b\nc\n"]
    assert set(notebook.cells[2].outputs[0].data) == {"text/plain"}
    assert notebook.metadata == canonical.METADATA
    assert path.read_bytes().endswith(b"}\n")
    assert run.main(["--check", str(path)]) == 0
    first = path.read_bytes()
    assert run.main([str(path)]) == 0 and path.read_bytes() == first
    assert "still to mend" in capsys.readouterr().out


def test_run_leaves_a_failing_notebook_as_it_was(tmp_path, capsys):
    path = save(tmp_path / "x.ipynb", "print('a')", "1 / 0")
    before = path.read_bytes()
    assert run.main([str(path)]) == 1
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_run_names_a_missing_notebook(tmp_path, capsys):
    assert run.main([str(tmp_path / "no.ipynb")]) == 1
    assert "no such notebook" in capsys.readouterr().err


def test_canonical_form_keeps_ids_and_makes_missing_ones_from_the_source():
    notebook = new_notebook(cells=[new_code_cell("1", id="mine"), new_code_cell("2"), new_markdown_cell("3")])
    notebook.cells[1]["id"] = "mine"
    del notebook.cells[2]["id"]
    ids = [cell.id for cell in canonical.canonical(notebook).cells]
    assert ids[:2] == ["mine", "mine-2"] and len(set(ids)) == 3
    assert ids == [cell.id for cell in canonical.canonical(notebook).cells]


@pytest.mark.parametrize("passes", [True, False], ids=["as written", "changed"])
def test_strict_nbval_accepts_what_was_written_and_nothing_else(tmp_path, passes):
    path = save(tmp_path / "x.ipynb", "print('b')", "import ipywidgets\nipywidgets.IntSlider(3)",
                "import os\nos.environ['COURSE_TIER'], os.environ['HF_HUB_OFFLINE']")
    assert run.main([str(path)]) == 0
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[2].outputs[0].data["text/plain"] == "('pocket', '1')"
    if not passes:
        notebook.cells[0].outputs[0].text = "c\n"
        nbformat.write(notebook, path)
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", str(path)],
                          cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert (done.returncode == 0) == passes and ("3 passed" in done.stdout) == passes, done.stdout
