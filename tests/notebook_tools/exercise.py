"""`make exercise NAME=scale_rows LESSON=02`: a new exercise's module and its three cells in the notebook.

A name that does not exist yet gets a module in the lesson's package, a small exercise that works and is full of TODOs;
for one that exists, its cells in the notebook are written again from the module. Run it after every change of the
prompt or of the signature.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat

from helpers.exercises import authoring, registry
from helpers.exercises.engine import Exercise
from notebook_tools import canonical, effort, source

ROOT = Path(__file__).resolve().parents[2]
SKELETON = '''\
"""TODO: what the exercises of this module are about, in one line."""

from __future__ import annotations

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def {name}(x: torch.Tensor, factor: float) -> torch.Tensor:
    """TODO: what comes out, with shape and dtype: x times factor, float32 like x."""
    return factor * x


{constant} = Exercise({lesson}, {name}, "★ TODO: title · 5 min", """
TODO: the task in a few sentences. What is given, in which shape; what to return, in which shape; which corners count.
""",
    cases=(  # from the plain to the special; `about` says what a case has that those before it had not
        (torch.tensor([1.0, 2.0, -0.5]), 3.0),
        Case((torch.tensor([[1.0, 2.0]]), 0.0), about="a factor of zero"),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 3), rng.randint(1, 4)), rng.uniform(-2, 2)),
    hints=("TODO: a nudge.", "TODO: more.", "TODO: nearly the answer."),
    mistakes=(  # what to say, and how the mistake is made: (old, new) in the solution's source, or a function
        Mistake("TODO: the factor was added, not multiplied.", ("factor * x", "factor + x")),
        Mistake("TODO: the values were divided by the factor.", ("factor * x", "x / factor")),
        Mistake("TODO: the factor is missing.", lambda x, factor: x.clone()),
    ),
    moral="TODO: what to take along, shown when it is solved.")
'''


def problem(name: str, lesson: str | None) -> str | None:
    """What is wrong with the arguments, as a sentence that says what to do; None if nothing is."""
    known = registry.exercises().get(name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return f"NAME={name!r}: use a function's name, such as NAME=scale_rows."
    if known:
        return None if lesson in (None, f"{known.lesson:02d}") else \
            f"{name} is lesson {known.lesson:02d}'s already: an exercise's name must differ over the whole course."
    if lesson is None:
        return f"No exercise is called {name} yet: say for which lesson it is, such as LESSON=02."
    if not list((ROOT / "notebooks").glob(f"{lesson}_*.ipynb")):
        return f"LESSON={lesson}: there is no notebook of that number; write it with two digits, such as LESSON=02."
    return None


def create(name: str, lesson: str, package: Path) -> Path:
    """Write the module's skeleton, and name it in the package's EXERCISES. Raises FileExistsError, touching nothing."""
    module, start = package / f"{name}.py", package / "__init__.py"
    if module.exists():
        raise FileExistsError(f"{module} exists, but holds no exercise called {name}")
    text = start.read_text(encoding="utf-8")
    found = re.search(r"^EXERCISES = \((.*)\)\s*$", text, re.MULTILINE | re.DOTALL)
    imports = [match.end() for match in re.finditer(r"^from .*\n(?:    .*\n|\)\n)*", text, re.MULTILINE)]
    if not found or not imports:
        raise ValueError(f"{start} does not hold imports and EXERCISES = (…)")
    names = ", ".join([*filter(None, (part.strip() for part in found[1].split(","))), name.upper()])
    listed = textwrap.fill(f"EXERCISES = ({names})", 118, subsequent_indent=" " * 13)
    new = f"from helpers.exercises.{package.name}.{name} import {name.upper()}\n"
    text = text[:imports[-1]] + new + text[imports[-1]:found.start()] + listed + "\n"
    module.write_text(SKELETON.format(name=name, constant=name.upper(), lesson=int(lesson)), encoding="utf-8")
    start.write_text(text, encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--fix", "--select", "I", start], check=True)
    return module


def place_cells(notebook: nbformat.NotebookNode, exercise: Exercise) -> str:
    """Write the exercise's three cells: in place of those that stand there, else behind the last exercise's check.

    Returns "rewritten" or "added". Raises ValueError where the notebook has no exercise to stand behind.
    """
    wanted = authoring.cells(exercise)
    code = [source.parse(cell.source) if cell.cell_type == "code" else None for cell in notebook.cells]
    names = [[node.name for node in tree.body if hasattr(node, "name")] if tree else [] for tree in code]
    stub = next((i for i, found in enumerate(names) if exercise.name in found), None)
    if stub is not None:
        for cell, (_, text) in zip(notebook.cells[stub - 1:stub + 2], wanted, strict=True):
            cell.source = text
        return "rewritten"
    checks = [i for i, cell in enumerate(notebook.cells)
              if cell.cell_type == "code" and re.search(r"^check\(\w+\)$", cell.source, re.MULTILINE)]
    if not checks:
        raise ValueError("the notebook has no exercise yet: write the first one's cells by hand (authoring.cells)")
    new = [nbformat.v4.new_markdown_cell(wanted[0][1]), *(nbformat.v4.new_code_cell(text) for _, text in wanted[1:])]
    notebook.cells[checks[-1] + 1:checks[-1] + 1] = new
    return "added"


def room(notebook: nbformat.NotebookNode) -> str:
    """Whether the lesson's exercises keep to their time."""
    taken, most = effort.measure(notebook).exercise_minutes, effort.MOST_EXERCISES
    return f"The lesson's exercises take {taken} of {most} minutes." + (
        " Ask for less, or take another one out, best one that teaches the "
        "same: a test adds them up." if taken > most else "")


def main(arguments: list[str]) -> str | None:
    """Run for these arguments; the text of an error, or None."""
    name, lesson = [*arguments, "", ""][:2]
    if found := problem(name, lesson or None):
        return found
    new = name not in registry.exercises()
    if new:
        package = ROOT / "helpers" / "exercises" / f"lesson_{lesson}"
        module = create(name, lesson, package)
        print(f"{module.relative_to(ROOT)} is written: it works, and is full of TODOs.")
        registry.exercises.cache_clear()
        for loaded in [key for key in sys.modules if key.startswith(f"helpers.exercises.{package.name}")]:
            del sys.modules[loaded]
    exercise = registry.exercises()[name]
    path = next((ROOT / "notebooks").glob(f"{exercise.lesson:02d}_*.ipynb"))
    notebook = nbformat.read(path, as_version=4)
    done = place_cells(notebook, exercise)
    path.write_text(canonical.text(notebook), encoding="utf-8")
    print(f"Its three cells in notebooks/{path.name} are {done}. {room(notebook)}")
    print(f"Next: {'write it, then the same command again' if new else f'make notebooks NB=notebooks/{path.name}'}")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
