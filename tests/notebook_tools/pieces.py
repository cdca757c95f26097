"""A notebook cut into the parts that belong to a slide: code cells, and Markdown at its headings."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nbformat import NotebookNode

CLOSING = ("Exercises", "You can now", "Common beliefs", "Sources", "Next",
           "How exercises work")


@dataclass
class Piece:
    """A part of the notebook: a code cell, or Markdown under one heading. `zone` is lesson, before, task or other."""

    cell: NotebookNode
    text: str
    zone: str
    heading: str = ""


def cut(notebook: NotebookNode) -> list[Piece]:
    """The notebook cut at its headings, and before the question that a predict cell answers."""
    found, zone, after = [], "other", [*notebook.cells[1:], None]
    for cell, following in zip(notebook.cells[1:], after[1:], strict=True):
        if cell.cell_type == "code":
            found.append(Piece(cell, "", "lesson" if zone == "before" else zone))
            continue
        for text in re.split(r"(?m)^(?=#{2,6} )", cell.source):
            if not text.strip():
                continue
            heading = found_heading[1] if (found_heading := re.match(r"#{2,6} (.+)", text)) else ""
            if heading:
                zone = ("task" if heading.startswith("★") else "digression" if heading.startswith("Digression")
                        else "other" if heading.startswith(CLOSING) else "lesson")
            elif zone == "other" and not found[-1:]:
                zone = "before"
            found.append(Piece(cell, text, "before" if "<summary>Lesson " in text else
                               "lesson" if zone == "before" else zone, heading))
        if following is not None and following.get("source", "").startswith("predict(") and found:
            last = found.pop()
            lead, _, asked = last.text.rstrip().rpartition("\n\n")
            found += [Piece(cell, lead, last.zone, last.heading)] if lead else []
            found.append(Piece(cell, asked, last.zone, "" if lead else last.heading))
    return found


def start(kind: str, cell: NotebookNode, pieces: list[Piece], taken: set[str]) -> int:
    """Where a slide's part of the lesson begins: at its cell, or at the heading or question that leads to it."""
    own = [i for i, piece in enumerate(pieces) if piece.cell is cell and piece.zone in ("lesson", "task")]
    if not own:
        raise ValueError(f"cell {cell.id} stands outside of the lesson, or in a digression: the first slides and "
                         "the last ones are made by themselves")
    if cell.cell_type == "markdown":
        return next((i for i in own if pieces[i].heading), own[0])
    first = above = own[0]
    while above and pieces[above - 1].text and pieces[above - 1].zone == "lesson":
        above -= 1
        if pieces[above].heading and pieces[above].cell.id not in taken:
            return above
    return first - 1 if kind == "predict" and above < first else first
