"""The students' and the teacher's notebooks: what they hold, and that the students' give nothing away.

That every solution passes where its stub stood is test_solutions_in_place.py's; here the teacher's copies are held to
hold those very cells, and the shortest lesson's is run whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_tools import canonical, editions, run
from test_solutions_in_place import EXERCISES, NOTEBOOKS, lesson_of, pruned

from helpers.exercises import authoring

pytestmark = pytest.mark.filterwarnings("ignore::nbformat.warnings.MissingIDFieldWarning")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def lesson(request) -> tuple[list[str], NotebookNode]:
    """The names of the lesson's exercises, and its notebook."""
    return lesson_of(request.param), nbformat.read(request.param, as_version=4)


def code(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Source and text of whatever a notebook shows."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            yield cell.source, output.get("text", output.get("data", {}).get("text/plain", ""))


def test_a_students_copy_asks_everything_and_gives_nothing_away(lesson):
    names, notebook = lesson
    copy = editions.student(notebook)
    assert editions.leaks(copy) == []
    assert set(map(authoring.stub, map(EXERCISES.get, names))) <= set(code(copy))
    assert "Student edition" in copy.cells[0].source and "Open in Colab" not in copy.cells[0].source
    assert [len(copy.cells), [cell.cell_type for cell in copy.cells]] == \
        [len(notebook.cells), [cell.cell_type for cell in notebook.cells]]
    for ours, theirs in zip(code(notebook), code(copy), strict=True):
        assert theirs == re.sub(r', then solution\("\w+"\)$', "", ours, flags=re.MULTILINE)  # nothing else is changed
    cards = [text for cell, text in shown(copy) if cell.startswith(("predict(", "# stuck?"))]
    assert len(cards) >= len(names) and all(re.match("○ .*(No guess|not attempted) yet", card) for card in cards)
    assert not any(text.startswith(("✓", "○ It is")) for _, text in shown(copy))
    assert not any(re.search(r"\]\(\.\./", cell.source) for cell in copy.cells)
    canonical.text(copy)  # which validates it


def test_a_teachers_copy_holds_the_solutions_and_what_to_say(lesson):
    names, notebook = lesson
    copy = editions.teacher(notebook)
    texts = [text.rstrip() for text in code(copy)]
    rest = iter(texts)
    assert all(cell.rstrip() in rest for cell in pruned(notebook))  # in the order in which they are run there
    assert not {authoring.stub(EXERCISES[name]) for name in names} & set(texts) and not list(shown(copy))
    assert len(texts) == len(code(notebook))
    for name in names:
        (at,) = [n for n, cell in enumerate(copy.cells) if re.search(rf"^check\({name}\)", cell.source, re.MULTILINE)]
        folded, exercise = copy.cells[at + 1], EXERCISES[name]
        assert folded.cell_type == "markdown" and folded.source.startswith("<details><summary>For the teacher")
        assert folded.source.endswith("</details>") and "\n\n</details>" in folded.source
        said = (*(mistake.says for mistake in exercise.mistakes), *exercise.hints, exercise.moral)
        assert len(exercise.mistakes) >= 3 and all(text in folded.source for text in said)
    canonical.text(copy)


def test_the_shortest_lesson_is_written_and_the_teachers_copy_run(tmp_path, capsys):
    assert editions.main([str(NOTEBOOKS[0])], tmp_path) == 0
    written = {path.parent.name: nbformat.read(path, as_version=4) for path in tmp_path.glob("*/*.ipynb")}
    assert set(written) == {"student", "teacher"} and capsys.readouterr().out.count(" kB") == 2
    teacher = [text for _, text in shown(written["teacher"])]
    assert sum(text.startswith("✓ model_bytes: correct.") for text in teacher) == 1
    assert sum(text.startswith("○ It is") for text in teacher) == 1
    assert all(cell.outputs or cell.execution_count for cell in written["teacher"].cells if cell.cell_type == "code")
    assert sum(text.startswith("○ No guess yet") for _, text in shown(written["student"])) == 1


# ---------------------------------------------------------------------------------- these tests can fail

def card(text: str) -> list[NotebookNode]:
    return [new_output("execute_result", {"text/plain": text})]


@pytest.mark.parametrize("cell, said", [
    (new_code_cell("check(model_bytes)", outputs=card("○ model_bytes: not attempted yet.")), None),
    (new_code_cell('solution("model_bytes")'), "names solution"),
    (new_markdown_cell('Call `solution("model_bytes")`.'), "names solution"),
    (new_code_cell(EXERCISES["model_bytes"].source), "holds the solution of model_bytes"),
    (new_code_cell("check(model_bytes)", outputs=card("✓ model_bytes: correct.")), "after the first prediction"),
    (new_code_cell("2 + 2", outputs=card("4")), "after the first prediction"),
    (new_code_cell("print(text)", outputs=[new_output("stream", text=EXERCISES["model_bytes"].source)]),
     "prints the solution of model_bytes"),
])
def test_what_gives_something_away_is_found(cell, said):
    found = editions.leaks(new_notebook(cells=[new_code_cell('predict("bytes", guess=None)'), cell]))
    assert any(said in line for line in found) if said else found == []


def test_outputs_go_from_the_first_prediction_on_and_stay_before_it():
    cells = [new_markdown_cell("# A lesson"), new_code_cell("before", outputs=card("1")),
             new_code_cell('predict("two", guess=None)', outputs=card("○ No guess yet.")),
             new_code_cell("after", outputs=card("2")), new_code_cell('outcome("two", 2)', outputs=card("○ It is 2."))]
    assert [text for _, text in shown(editions.student(new_notebook(cells=cells)))] == ["1", "○ No guess yet."]
    assert len(list(shown(new_notebook(cells=cells)))) == 4  # and the notebook itself is as it was


def test_what_cannot_be_made_is_named_and_the_rest_is_made(tmp_path, monkeypatch, capsys):
    assert editions.main([str(tmp_path / "no.ipynb")], tmp_path) == 1 and "no such notebook" in capsys.readouterr().err
    good, telling = tmp_path / "good.ipynb", tmp_path / "telling.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A lesson")]), good)
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A lesson"), new_code_cell('solution("x")')]), telling)

    def fail(notebook, folder, seconds):
        raise editions.DeadKernelError("the kernel died")

    monkeypatch.setattr(run, "executed", fail)
    assert editions.main([str(telling), str(good)], tmp_path / "out") == 1
    assert list((tmp_path / "out").glob("*/*")) == [tmp_path / "out" / "student" / "good.ipynb"]
    said = capsys.readouterr().err
    assert "names solution(…)" in said and said.count("the kernel died") == 2
