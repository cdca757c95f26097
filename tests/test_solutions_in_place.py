"""Every notebook's exercises, with the solutions in place of the stubs: all checks must come out green.

Of a notebook run the setup cell, the cells that hold only imports, and the exercises' cells (`pruned`); the rest is
nbval's. What was judged is read from the engine's verdicts, not from prose.
"""

import ast
import json
import warnings
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
from nbclient import NotebookClient
from notebook_tools import environment, source

from helpers.exercises import authoring, registry

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
EXERCISES = dict(registry.exercises())
ASK = """\
import json
from helpers.exercises.registry import verdicts
print(json.dumps({name: verdict.status for name, verdict in verdicts.items()}))"""


def lesson_of(path: Path) -> list[str]:
    """The names of the exercises that belong in the notebook, whose file name begins with the lesson's number."""
    return [name for name, exercise in EXERCISES.items() if exercise.lesson == int(path.name[:2])]


def stubs(tree: ast.Module) -> list[str]:
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in EXERCISES]


def checks(tree: ast.Module) -> list[str]:
    """What the cell calls `check` on, as source; a name, if all is well."""
    return [ast.unparse(node.args[0]) if node.args else "" for node in ast.walk(tree)
            if isinstance(node, ast.Call) and source.dotted(node.func).split(".")[-1] == "check"]


def only_imports(tree: ast.Module) -> bool:
    return bool(tree.body) and all(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)


def problems(notebook: nbformat.NotebookNode, names: list[str]) -> list[str]:
    """What is wrong with the notebook's exercises, which should be those called `names`: as sentences."""
    found, stubbed, checked = [], [], []
    for before, cell in zip([None, *notebook.cells], notebook.cells, strict=False):
        if cell.cell_type != "code":
            continue
        tree = source.parse(cell.source)
        for name in stubs(tree):
            exercise = EXERCISES[name]
            if name in stubbed:
                found.append(f"{name} has two stubs")
            stubbed.append(name)
            if ast.dump(tree) != ast.dump(ast.parse(authoring.stub(exercise))):
                found.append(f"the stub of {name} is not the exercise's; it should be:\n{authoring.stub(exercise)}")
            prompt = authoring.prompt_markdown(exercise)
            if before is None or before.cell_type != "markdown" or before.source.strip() != prompt:
                found.append(f"the cell before the stub of {name} is not its prompt; it should be:\n{prompt}")
        for name in checks(tree):
            if name not in stubbed:
                found.append(f"check({name}) has no stub before it")
            checked.append(name)
    found += [f"{name} is not checked" for name in stubbed if name not in checked]
    found += [f"the lesson's exercise {name} is not in its notebook" for name in names if name not in stubbed]
    return found + [f"{name} belongs to another lesson" for name in stubbed if name not in names]


def pruned(notebook: nbformat.NotebookNode) -> list[str]:
    """The setup cell, the cells of imports, and the exercises with their solutions."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kept = []
    for index, cell in enumerate(code):
        tree = source.parse(cell.source)
        if names := stubs(tree):
            kept += [EXERCISES[name].source for name in names]
        elif index == 0 or only_imports(tree) or checks(tree):
            kept.append(cell.source)
    return kept


def statuses(cells: list[str]) -> dict[str, str]:
    """Run the cells in a namespace of their own, here, and return the verdicts by name."""
    registry.verdicts.clear()
    space: dict = {"__name__": "__main__"}
    with warnings.catch_warnings(), mpl.rc_context():
        for number, cell in enumerate(cells):
            exec(compile(source.parse(cell), f"<cell {number}>", "exec"), space)
    return {name: verdict.status for name, verdict in registry.verdicts.items()}


def statuses_in_a_kernel(cells: list[str], folder: Path) -> dict[str, str]:
    """The same in a kernel of its own. Raises nbclient's error of a cell."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in [*cells, ASK]])
    run = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return json.loads(run.execute().cells[-1].outputs[-1].text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_exercises_stand_as_written(path):
    assert problems(nbformat.read(path, as_version=4), lesson_of(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_solutions_in_place(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    found = statuses(pruned(nbformat.read(path, as_version=4)))
    assert found == dict.fromkeys(lesson_of(path), "correct")


# ---------------------------------------------------------------------------------- these tests can fail

def notebook(*names: str, **changed: str) -> nbformat.NotebookNode:
    """A notebook with these exercises; `changed` replaces a cell, named {exercise}_{0, 1, 2}, or leaves it out ("")."""
    cells = [("markdown", "# A lesson"), ("code", "import helpers"), ("code", "raise SystemError('a training loop')"),
             ("code", "import torch\nfrom helpers.exercises import check, hint, solution")]
    for name in names:
        for index, (kind, text) in enumerate(authoring.cells(EXERCISES[name])):
            if text := changed.get(f"{name}_{index}", text):
                cells.append((kind, text))
    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    return nbformat.v4.new_notebook(cells=[make[kind](text) for kind, text in cells])


@pytest.mark.parametrize("changed, said", [
    ({}, None),
    ({"lora_parameters_0": "### Another prompt"}, "is not its prompt"),
    ({"lora_parameters_0": ""}, "is not its prompt"),
    ({"lora_parameters_1": ""}, "check(lora_parameters) has no stub before it"),
    ({"lora_parameters_1": "def lora_parameters(shapes):\n    ..."}, "is not the exercise's"),
    ({"lora_parameters_2": ""}, "lora_parameters is not checked"),
    ({"lora_parameters_2": "check(lora_params)"}, "check(lora_params) has no stub before it"),
])
def test_problems_are_found(changed, said):
    found = problems(notebook("lora_parameters", **changed), ["lora_parameters"])
    assert any(said in line for line in found) if said else found == []


def test_unused_and_foreign_exercises_are_found():
    assert problems(notebook("model_bytes"), ["model_bytes", "share_moved"]) == [
        "the lesson's exercise share_moved is not in its notebook"]
    assert problems(notebook("model_bytes"), []) == ["model_bytes belongs to another lesson"]
    assert problems(notebook("model_bytes", "model_bytes"), ["model_bytes"]) == ["model_bytes has two stubs"]


def test_every_solution_runs_in_a_kernel_and_a_wrong_one_is_seen(tmp_path, monkeypatch):
    for name, value in environment.SETTINGS.items():
        monkeypatch.setenv(name, value)
    for name in environment.FOREIGN:
        monkeypatch.delenv(name, raising=False)
    cells = pruned(notebook(*EXERCISES))
    (broken,) = [i for i, cell in enumerate(cells) if "(parameters * bits + 7) // 8" in cell]
    cells[broken] = cells[broken].replace("(parameters * bits + 7) // 8", "parameters * bits")
    assert statuses_in_a_kernel(cells, tmp_path) == dict.fromkeys(EXERCISES, "correct") | {"model_bytes": "wrong"}


def test_a_solution_whose_import_is_missing_is_seen():
    cells = [cell.replace("import torch\n", "") for cell in pruned(notebook("share_moved"))]
    with pytest.raises(NameError, match="torch"):
        statuses(cells)
