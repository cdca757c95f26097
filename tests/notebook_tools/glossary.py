"""The glossary, and whether each of its terms is defined where it first appears.

    python -m notebook_tools.glossary        what is still to mend: lesson, cell, sentence

A lesson defines a term by setting it in **bold** or *italics* in the sentence that says what it is, or as the subject
of a heading. Words in code, tables, formulas, sources and the outlook at a lesson's end do not count. Lesson 00 and the
first cell of a lesson may name what comes; so may a lesson that says where it comes ("NF4, the table of lesson 04").
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from notebook_tools import release

FILE = release.ROOT / "notebooks" / "glossary.md"
ENTRY = re.compile(r"- \*\*(?P<term>[^*]+)\*\* \(\[(?P<lesson>\d\d)\]\((?P<file>[\w.]+)\)\): (?P<text>.+)")
OUTLOOK = re.compile(r"^## (?:Sources|Next)\b.*", re.MULTILINE | re.DOTALL)
NO_PROSE = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|^\|.*$|(?<=\])\([^)]*\)|\*\*In QLoRA:\*\*",
                      re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"\*\*[^*]+\*\*|(?<![*\w])\*[^*\n]+\*(?![*\w])|^#+ .*$", re.MULTILINE)
NO_DEFINITION = re.compile(r"^\*.*\?\**$|^#+ (?:★|Digression)", re.DOTALL)  # a question; an exercise or an aside
POINTS_ELSEWHERE = re.compile(r"\b(?:lessons? \d\d|next lesson)")
SENTENCE = re.compile(r"(?<=[.?!:])\s+|\n\n+")


@dataclass(frozen=True)
class Entry:
    """A term, the lesson that defines it, that lesson's file, and what it means."""

    term: str
    lesson: str
    file: str
    text: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds the term and its inflections, by any of its names."""
        verb = self.text.startswith("To ")
        return re.compile("|".join(_inflected(name, verb) for name in self.term.split(", ")), re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where something stands: the lesson's number, the cell's index from 0 and its id, the sentence."""

    lesson: str
    cell: int
    id: str
    sentence: str

    def __str__(self) -> str:
        return f"lesson {self.lesson}, cell {self.cell} ({self.id}): {self.sentence}"


def _inflected(term: str, verb: bool) -> str:
    """A pattern for singular and plural, and for the forms of a verb: clip, clips, clipped, clipping."""
    body = re.escape(term).replace(r"\ ", r"[\s-]+")
    forms = [f"{body}(?:s|es)?"]
    if verb:
        forms.append((body[:-1] if body.endswith("e") else rf"{body}{body[-1]}?") + "(?:ed|ing)")
    return rf"(?<![\w-])(?:{'|'.join(forms)})(?![\w-])"


def entries(text: str | None = None) -> list[Entry]:
    """The entries of the glossary, in its order. Raises ValueError for a line of the list that is none."""
    lines = (FILE.read_text(encoding="utf-8") if text is None else text).splitlines()
    found = [(line, ENTRY.fullmatch(line)) for line in lines if line.startswith("- ")]
    for line, match in found:
        if not match:
            raise ValueError(f"no entry: {line[:60]!r}; write '- **term** ([04](04_nf4.ipynb)): What it is.'")
    return [Entry(**match.groupdict()) for _, match in found]


def prose(path: Path) -> list[tuple[int, str, str]]:
    """The Markdown cells of a lesson that are prose: index, id, and text without what does not count."""
    cells = nbformat.read(path, as_version=4).cells
    return [(n, cell.id, NO_PROSE.sub("", OUTLOOK.sub("", cell.source))) for n, cell in enumerate(cells)
            if cell.cell_type == "markdown"]


def lessons() -> dict[str, list[tuple[int, str, str]]]:
    """The prose of all lessons by number, in their order."""
    return {path.name[:2]: prose(path) for path in sorted((release.ROOT / "notebooks").glob("*.ipynb"))}


def defined(entry: Entry, texts: dict[str, list[tuple[int, str, str]]]) -> list[Place]:
    """The places in its lesson where the term is marked as defined."""
    return [Place(entry.lesson, n, name, mark[0]) for n, name, text in texts.get(entry.lesson, [])
            for mark in MARKED.finditer(text) if entry.pattern.search(mark[0]) and not NO_DEFINITION.search(mark[0])]


def too_early(entry: Entry, texts: dict[str, list[tuple[int, str, str]]]) -> list[Place]:
    """The first sentence of each earlier lesson that uses the term and does not say which lesson defines it."""
    places = []
    for lesson in [lesson for lesson in texts if "00" < lesson < entry.lesson]:
        found = [Place(lesson, n, name, " ".join(sentence.split())) for n, name, text in texts[lesson] if n > 0
                 for sentence in SENTENCE.split(text) if entry.pattern.search(sentence)]
        if found and not POINTS_ELSEWHERE.search(found[0].sentence):
            places.append(found[0])
    return places


def problems(entry: Entry, texts: dict[str, list[tuple[int, str, str]]]) -> list[str]:
    """What is to mend about a term, in sentences that say how."""
    found = []
    if not defined(entry, texts):
        found.append(f"{entry.term}: lesson {entry.lesson} must set it in **bold** where it says what it is")
    return found + [f"{entry.term}: used before lesson {entry.lesson} defines it; say what it is there, or write "
                    f"(lesson {entry.lesson}) behind it, or change the glossary. In {place}"
                    for place in too_early(entry, texts)]


def main() -> int:
    texts = lessons()
    found = [problem for entry in entries() for problem in problems(entry, texts)]
    print("\n".join(found) or "Each term is defined where it first appears.")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
