'''Exercises with an instant check, progressive hints, and a solution on request.

    from helpers.exercises import check, hint, outcome, predict, solution

**For readers.** `check(function)` finds the exercise by the function's name: not attempted, correct, or what is
wrong with the answer, with the input on which it showed. `hint("name")` gives the next hint at each call,
`solution("name")` the reference solution. `predict("key", guess=None)` remembers a guess, `outcome("key", truth)` sets
the truth beside it.

**For authors.** One package per lesson, `lesson_NN`, holds `EXERCISES = (…,)`; engine.py says what an `Exercise` is,
and CONTRIBUTING.md how to write one. In the notebook each exercise is three cells, one after the other:

1. markdown: `### ★★ Title · 8 min`, a blank line, the prompt;
2. code, the stub: what it imports, the signature, the docstring, and `...` as the only body;
3. code: the line `# stuck? hint("name"), then solution("name")`, and below it `check(name)`.

`make exercise NAME=…` writes all three from the exercise; a test holds the notebook's cells equal to it.

The exercises' names are imported in a cell that holds only imports; the solutions-in-place test runs the setup cell,
such import cells, the stubs (with the solution in the stub's place) and the checks, and nothing else. So a solution
may use what the stub's cell imports, and nothing from the lesson's own cells.

A *spot the bug* shows the published code as the one ```python block of its prompt, with its source; the student writes
the repaired function into an ordinary stub. The shown code is the first of the registered mistakes.

Every function of the course has its own name; `check` finds an exercise by it alone.

A prediction is a markdown cell with the question, a cell `predict("key", guess=None)`, and after the cell that finds
out, `outcome("key", truth)` with a truth that is stable from machine to machine.
'''

from helpers.exercises.predictions import outcome, predict
from helpers.exercises.registry import check, hint, solution

__all__ = ["check", "hint", "outcome", "predict", "solution"]
