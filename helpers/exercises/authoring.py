"""What an exercise looks like in a notebook: the three cells, written from the exercise itself.

The notebook holds real markdown (readers on GitHub see it) and a real stub; tests/test_solutions_in_place.py holds both
equal to what these functions write, so that no text is maintained twice.
"""

from __future__ import annotations

import ast

from helpers.exercises.engine import Exercise


def prompt_markdown(exercise: Exercise) -> str:
    """The markdown cell: a heading with stars and minutes, then the prompt."""
    return f"### {exercise.head}\n\n{exercise.prompt.strip()}"


def stub(exercise: Exercise) -> str:
    """The stub cell: imports, signature and docstring of the solution, with `...` as body."""
    lines = exercise.source.splitlines()
    function = next(n for n in ast.parse("\n".join(lines)).body if isinstance(n, ast.FunctionDef))
    documented = function.body[0]  # the docstring: tests demand one
    return "\n".join([*lines[:documented.end_lineno], "    ..."])


def check_cell(exercise: Exercise) -> str:
    """The check cell, which also says how to ask for help."""
    return f'# stuck? hint("{exercise.name}"), then solution("{exercise.name}")\ncheck({exercise.name})'


def cells(exercise: Exercise) -> tuple[tuple[str, str], ...]:
    """The three cells as (cell type, source), in order."""
    return (("markdown", prompt_markdown(exercise)), ("code", stub(exercise)), ("code", check_cell(exercise)))
