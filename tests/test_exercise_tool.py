"""`make exercise`: what it refuses, the skeleton that it writes, and the cells."""

import importlib.util
import re
import sys

import nbformat
import pytest
from notebook_tools import exercise as tool

from helpers.exercises import authoring, registry
from helpers.exercises.engine import examine

EXERCISES = dict(registry.exercises())


@pytest.mark.parametrize("name, lesson, said", [
    ("", None, "use a function's name"), ("9x", "02", "use a function's name"),
    ("lambda", "02", "use a function's name"), ("Scale", "02", "use a function's name"),
    ("scale_rows", None, "say for which lesson"),
    ("scale_rows", "2", "two digits"), ("scale_rows", "99", "no notebook of that number"),
    ("nf4_code", "02", "lesson 04's already"),
])
def test_refused_with_what_to_do(name, lesson, said):
    assert said in tool.problem(name, lesson)
    assert said in tool.main([name, lesson or ""])


def test_accepted():
    assert tool.problem("scale_rows", "02") is None
    assert tool.problem("nf4_code", None) is None and tool.problem("nf4_code", "04") is None


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "lesson_02"
    folder.mkdir()
    names = ", ".join(f"EXERCISE_OF_A_LONG_NAME_{n}" for n in range(5))
    (folder / "__init__.py").write_text(f'"""A lesson."""\n\nfrom helpers.exercises.lesson_02.a import {names}\n'
                                        f"from helpers.z import Z\n\nEXERCISES = ({names})\n")
    return folder


def test_the_skeleton_is_a_working_exercise(package):
    module = tool.create("scale_rows", "02", package)
    start = (package / "__init__.py").read_text()
    assert "from helpers.exercises.lesson_02.scale_rows import SCALE_ROWS\nfrom helpers.z" in start, "sorted imports"
    assert re.search(r"4,\s+SCALE_ROWS\)\n$", start) and max(map(len, start.splitlines()[4:])) <= 120
    spec = importlib.util.spec_from_file_location("scale_rows", module)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["scale_rows"] = loaded
    spec.loader.exec_module(loaded)
    made = loaded.SCALE_ROWS
    assert examine(made, made.solution).status == "correct"
    assert [examine(made, face).index for m in made.mistakes for face in made.faces(m)] == [0, 1, 2]
    assert max(map(len, authoring.stub(made).splitlines())) <= 90
    assert "TODO" in module.read_text(), "or the suite would let it through as it is"


def test_a_lesson_that_is_full_says_so_at_once():
    def of(*minutes):
        cells = [nbformat.v4.new_markdown_cell(f"### ★ One · {n} min\n\nDo it.") for n in minutes]
        return tool.room(nbformat.v4.new_notebook(cells=cells))
    assert of(20, 15) == "The lesson's exercises take 35 of 35 minutes."
    assert of(20, 15, 3).startswith("The lesson's exercises take 38 of 35 minutes. Ask for less, or take another")


def test_nothing_is_overwritten(package):
    (package / "scale_rows.py").write_text("mine")
    before = (package / "__init__.py").read_text()
    with pytest.raises(FileExistsError, match="holds no exercise called scale_rows"):
        tool.create("scale_rows", "02", package)
    assert (package / "scale_rows.py").read_text() == "mine" and (package / "__init__.py").read_text() == before


def notebook(*names):
    cells = [nbformat.v4.new_markdown_cell("# A lesson")]
    for name in names:
        (_, prompt), *code = authoring.cells(EXERCISES[name])
        cells += [nbformat.v4.new_markdown_cell(prompt), *(nbformat.v4.new_code_cell(text) for _, text in code)]
    return nbformat.v4.new_notebook(cells=[*cells, nbformat.v4.new_markdown_cell("## What to take along")])


def test_cells_are_added_behind_the_last_exercise():
    book = notebook("absmax_quantize", "zeropoint_values")
    assert tool.place_cells(book, EXERCISES["calibrated_codes"]) == "added"
    assert [c.source for c in book.cells] == [c.source for c in notebook(
        "absmax_quantize", "zeropoint_values", "calibrated_codes").cells]


def test_cells_are_rewritten_where_they_stand():
    book = notebook("absmax_quantize", "zeropoint_values")
    whole, ids = [c.source for c in book.cells], [c.id for c in book.cells]
    book.cells[1].source, book.cells[2].source = "### old", "def absmax_quantize(x):\n    ..."
    assert tool.place_cells(book, EXERCISES["absmax_quantize"]) == "rewritten"
    assert [c.source for c in book.cells] == whole and [c.id for c in book.cells] == ids


def test_a_notebook_without_exercises_is_refused():
    with pytest.raises(ValueError, match="by hand"):
        tool.place_cells(notebook(), EXERCISES["absmax_quantize"])
