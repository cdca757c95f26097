"""`make editions`: for a class, a notebook for students and one for the teacher of every lesson, in build/editions.

    python -m notebook_tools.editions notebooks/*.ipynb           both
    python -m notebook_tools.editions --no-teacher notebooks/*.ipynb   the students' alone: seconds

A student's copy has the stubs, and no output from the first prediction on but the cards that say what to do: which of
the later figures states an answer, no program can tell. A teacher's copy has the solutions in the stubs, is run from
top to bottom, and says behind each exercise, folded, which mistakes to expect and what to say.
"""

from __future__ import annotations

import argparse
import ast
import copy
import re
import sys
import time
import tomllib
from functools import cache
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from helpers.exercises import registry
from helpers.exercises.engine import Exercise, Mistake
from notebook_tools import canonical, environment, run, source

ROOT = Path(__file__).resolve().parents[2]
BADGES = re.compile(r"^\[!\[Open in Colab\].*$", re.MULTILINE)  # they open another notebook than this one
ASKS = re.compile(r",\s+(?:then|and) `?solution\(\"\w+\"\)`?(?: shows how we would write it)?")
NOTES = {"student": "**Student edition.** Predict, run, then read on: no output in this copy answers a prediction.",
         "teacher": "**Teacher edition.** The stubs hold the solutions, and all has been run; behind each exercise "
                    "stands, folded, which mistakes to expect and what to say. Not for students."}
SECONDS = 1800  # for a cell: a teacher's machine may be slow
CARDS = ({"predict"}, {"check"})  # a cell that calls nothing else shows what to do


def stubs(tree: ast.Module) -> list[Exercise]:
    """The exercises whose functions a cell defines."""
    known = registry.exercises()
    return [known[node.name] for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in known]


def called(cell: NotebookNode) -> set[str]:
    """The last names of all functions that a code cell calls."""
    return {source.dotted(node.func).split(".")[-1] for node in ast.walk(_tree(cell.source))
            if isinstance(node, ast.Call)}


def student(notebook: NotebookNode) -> NotebookNode:
    """A copy for students, as the module says. Nothing is run."""
    new, predicted = _begun(notebook, "student"), False
    for cell in new.cells:
        if cell.cell_type == "code":
            calls = called(cell)
            predicted = predicted or "predict" in calls
            if predicted and calls not in CARDS:
                cell.outputs, cell.execution_count = [], None
        cell.source = ASKS.sub("", cell.source)
    return new


def teacher(notebook: NotebookNode) -> NotebookNode:
    """A copy for the teacher, not yet run: without outputs."""
    new, cells = _begun(notebook, "teacher"), []
    for cell in new.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        found = stubs(_tree(cell.source))
        if found:
            cell.source = "\n\n\n".join(exercise.source.rstrip() for exercise in found)
        for name in re.findall(r"^check\((\w+)\)", cell.source, re.MULTILINE):
            cells.append(nbformat.v4.new_markdown_cell(advice(registry.exercises()[name]), id=f"{cell.id[:50]}-teach"))
    new.cells = cells
    return new


def advice(exercise: Exercise) -> str:
    """What stands folded behind an exercise: the registered mistakes with their cards, the hints, the moral."""
    mistakes = "\n".join(f"- {mistake.says}{_written(mistake)}" for mistake in exercise.mistakes)
    hints = "\n".join(f"{n}. {hint}" for n, hint in enumerate(exercise.hints, start=1))
    return (f"<details><summary>For the teacher: mistakes to expect at {exercise.name}, and what to say</summary>\n\n"
            f"Mistakes, and what the card says to each:\n\n{mistakes}\n\n"
            f"To whoever is stuck, one after the other:\n\n{hints}\n\n"
            f"When it is solved: {exercise.moral}\n\n</details>")


def leaks(notebook: NotebookNode) -> list[str]:
    """What a student's copy gives away, as sentences."""
    found, predicted = [], False
    solutions = _solutions()
    answers = {dumped: name for name, (_, dumped) in solutions.items()}
    for number, cell in enumerate(notebook.cells):
        if "solution(" in cell.source:
            found.append(f"cell {number} names solution(…)")
        if cell.cell_type != "code":
            continue
        calls = called(cell)
        predicted = predicted or "predict" in calls
        for node in _tree(cell.source).body:
            if isinstance(node, ast.FunctionDef) and (name := answers.get(ast.dump(_body(ast.unparse(node))))):
                found.append(f"cell {number} holds the solution of {name}")
        for output in cell.outputs:
            text = output.get("text", output.get("data", {}).get("text/plain", ""))
            if predicted and not (calls in CARDS and text.startswith("○")):
                found.append(f"cell {number} shows something after the first prediction")
            found += [f"cell {number} prints the solution of {name}" for name, (text_of_it, _) in solutions.items()
                      if text_of_it in text]
    return found


@cache
def _tree(text: str) -> ast.Module:
    """The syntax tree of a cell, which nobody may change."""
    return source.parse(text)


def _begun(notebook: NotebookNode, edition: str) -> NotebookNode:
    """A copy that says what it is; links out of the notebooks' folder lead to the repository."""
    new = copy.deepcopy(notebook)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for cell in new.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace("](../", f"]({project['urls']['Repository']}/blob/main/")
    new.cells[0].source = BADGES.sub(NOTES[edition], new.cells[0].source, count=1)
    return new


def _written(mistake: Mistake) -> str:
    """How a mistake is written, where that is a line: " (`…` in place of `…`)"."""
    if not mistake.how and not mistake.sign:
        return " (The code in the prompt.)"
    pairs = [how for how in mistake.how if isinstance(how, tuple) and len(how) == 2 and "\n" not in "".join(how)]
    if not pairs:
        return ""
    old, new = pairs[0][0].strip(), pairs[0][1].strip()
    return f" (`` {new} `` in place of `` {old} ``)" if new else f" (Without `` {old} ``.)"


@cache
def _solutions() -> dict[str, tuple[str, str]]:
    """Of every exercise the solution's source, and its body as a syntax tree, as text."""
    sources = {name: exercise.source.strip() for name, exercise in registry.exercises().items()}
    return {name: (text, ast.dump(_body(text))) for name, text in sources.items()}


def _body(code: str) -> ast.Module:
    """A function's body without its docstring."""
    function = next(node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))
    return ast.Module(function.body[ast.get_docstring(function) is not None:], [])


def main(arguments: list[str] | None = None, folder: Path = ROOT / "build" / "editions") -> int:
    parser = argparse.ArgumentParser(prog="make editions", description=__doc__.split("\n\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--no-teacher", action="store_true", help="only the students' notebooks, which run nothing")
    options = parser.parse_args(arguments)
    environment.apply()
    missing = [path for path in options.notebooks if not path.is_file()]
    if missing:
        print(f"{missing[0]}: no such notebook", file=sys.stderr)
        return 1
    failed = 0
    for path in options.notebooks:
        notebook = nbformat.read(path, as_version=4)
        given = student(notebook)
        if problems := leaks(given):
            print(f"{path}: not written for students: {'; '.join(problems)}", file=sys.stderr)
            failed += 1
        else:
            _write(folder / "student" / path.name, canonical.text(given))
    for path in [] if options.no_teacher else options.notebooks:
        start = time.monotonic()
        try:
            content = run.executed(teacher(nbformat.read(path, as_version=4)), path.parent, SECONDS)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            print(f"{path}: a cell failed with the solutions in place; not written.\n{error}", file=sys.stderr)
            failed += 1
        else:
            _write(folder / "teacher" / path.name, content, f", {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


def _write(path: Path, content: str, more: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run.write(path, content)
    print(f"{path}: {len(content.encode()) / 1024:.0f} kB{more}")


if __name__ == "__main__":
    sys.exit(main())
