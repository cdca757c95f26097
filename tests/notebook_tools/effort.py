"""How long a lesson takes, estimated the same way for all: by its words, its code cells and its exercises' minutes.

150 words a minute, 0.8 minutes for a code cell with its output, half of that where the code is folded; a heading that
ends in "· 5 min" adds its minutes. Fitted to the times that a reader took for lessons 00 to 09, within 15 minutes
for each; exercises are not read into the lesson's time, they have their own.

    python -m notebook_tools.effort          what each lesson takes, and what it is made of
    python -m notebook_tools.effort --write  puts the times on the cards and into README.md
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from notebook_tools import canonical, release

WORDS_A_MINUTE, MINUTES_A_CELL, STEP = 150, 0.8, 5
MOST_MINUTES, MOST_EXERCISES, MOST_WORDS, MOST_CELLS = 50, 35, 2200, 45
ON_THE_CARD = re.compile(r"\d+ minutes: \d+ to read and run, \d+ for the exercises?")


@dataclass(frozen=True)
class Effort:
    """What a lesson asks of a student. `words` and `cells` (of code) are those outside of exercises and digressions."""

    words: int
    cells: int
    folded: int
    exercises: int
    tasks_minutes: int
    exercise_minutes: int

    @property
    def minutes(self) -> int:
        """To read and run, in steps of five."""
        cells = self.cells - self.folded / 2
        return _up(self.words / WORDS_A_MINUTE + MINUTES_A_CELL * cells + self.tasks_minutes)

    @property
    def card(self) -> str:
        """The words on the lesson's card."""
        more = _up(self.exercise_minutes)
        return (f"{self.minutes + more} minutes: {self.minutes} to read and run, {more} for the exercise"
                f"{'s' * (self.exercises != 1)}")

    @property
    def short(self) -> str:
        """The words in README's table."""
        return f"{self.minutes} + {_up(self.exercise_minutes)} min"

    @property
    def too_long(self) -> list[str]:
        """What goes beyond the frame of a lesson."""
        found = ((self.minutes, MOST_MINUTES, "minutes"), (_up(self.exercise_minutes), MOST_EXERCISES,
                 "minutes of exercises"), (self.words, MOST_WORDS, "words"), (self.cells, MOST_CELLS, "code cells"))
        return [f"{n} {what}, more than {most}" for n, most, what in found if n > most]


def measure(notebook: NotebookNode) -> Effort:
    """Count a lesson. '### ★' begins an exercise, '### Digression' a digression; the next heading ends either."""
    words = cells = folded = exercises = tasks = minutes = 0
    outside = True
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for heading in re.findall(r"^#{1,6} +(.*)$", cell.source, re.MULTILINE):
                outside = not heading.startswith(("★", "Digression"))
                own = int(found[1]) if (found := re.search(r"· (\d+) min$", heading.strip())) else 0
                tasks, minutes = tasks + own * outside, minutes + own * heading.startswith("★")
                exercises += heading.startswith("★")
            words += len(cell.source.split()) * outside
        elif outside:
            cells += 1
            folded += "hide-input" in cell.metadata.get("tags", [])
    return Effort(words, cells, folded, exercises, tasks, minutes)


def in_readme(text: str, name: str, short: str) -> str:
    """README with another time in the row that links to notebooks/`name`."""
    return re.sub(rf"(\(notebooks/{re.escape(name)}\) \| )[^|]*?( \|)", rf"\g<1>{short}\2", text)


def _up(minutes: float) -> int:
    return STEP * -(-round(minutes) // STEP)


def main(arguments: list[str]) -> None:
    readme = release.ROOT / "README.md"
    for path in sorted((release.ROOT / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        effort = measure(notebook)
        print(f"{path.stem:34} {effort.short:12} {effort.words:5} words {effort.cells:3} cells"
              f" {effort.exercises:3} exercises   {'; '.join(effort.too_long)}")
        if "--write" in arguments:
            notebook.cells[0].source = ON_THE_CARD.sub(effort.card, notebook.cells[0].source)
            _write(path, canonical.text(notebook))
            _write(readme, in_readme(readme.read_text(encoding="utf-8"), path.name, effort.short))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
