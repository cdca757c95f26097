"""What an editor forgets: marks that were never filled in, and statements, lines or table rows that stand twice."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Iterable
from functools import cache

import nbformat

from notebook_tools import release

MARK = re.compile(r"(?<![\w.])@\w+@(?![\w.])|\b(?:TODO|FIXME|XXX)\b")
EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[A-Za-z0-9+/=\s]+")
TABLE = re.compile(r"(?:^ *\|.*(?:\n|\Z))+", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")
SHORT = 20  # characters: a shorter statement or line may well stand twice


def marks(text: str) -> list[str]:
    """Marks to be replaced (`@NAME@`, TODO, FIXME, XXX); not decorators, e-mail addresses or matrix products."""
    return MARK.findall(EMBEDDED.sub("", text))


def repeated_statements(tree: ast.Module) -> list[str]:
    """First lines of the statements that stand twice in one block of code, be it with other values to loop over."""
    found = []
    for node in ast.walk(tree):
        for block in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            if isinstance(block, list):
                found += [text for text in _twice(_told(statement) for statement in block) if len(text) > SHORT]
    return [text.splitlines()[0] for text in found]


def repeated_lines(text: str) -> list[str]:
    """Lines of more than a few letters that stand three times in the text, or twice one after the other."""
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if len(line) >= SHORT and re.search(r"[^\W\d_]{3}", line)]
    thrice = [line for line, n in Counter(telling).items() if n > 2]
    return thrice + [line for line, following in zip(lines, lines[1:], strict=False)
                     if line == following and line in telling and line not in thrice]


def repeated_rows(markdown: str, titles: Collection[str]) -> list[str]:
    """What a table has twice: a whole row, or in a table of lessons a link, a number (07) or one of the titles."""
    found = []
    for table in TABLE.findall(markdown):
        rows = [row.strip() for row in table.splitlines() if re.search(r"\w", row)]
        links = [link for _, link in LINK.findall(table) if link.endswith(".ipynb")]
        cells = [_plain(cell) for row in rows for cell in row.strip("|").split("|")]
        named = [cell for cell in cells if links and (cell in titles or re.fullmatch(r"\d\d", cell))]
        found += _twice(rows) + _twice(links) + _twice(named)
    return found


@cache
def titles() -> frozenset[str]:
    """The lessons' titles, without their numbers."""
    paths = (release.ROOT / "notebooks").glob("*.ipynb")
    firsts = [nbformat.read(path, as_version=4).cells[0].source for path in paths]
    return frozenset(first.splitlines()[0].split(" · ")[-1] for first in firsts)


def _twice(texts: Iterable[str]) -> list[str]:
    return [text for text, n in Counter(texts).items() if n > 1]


def _told(statement: ast.stmt) -> str:
    """The statement as text; a loop without what it loops over, for a copied loop has other values there."""
    if isinstance(statement, ast.For):
        return f"for {ast.unparse(statement.target)} in ...:\n" + "\n".join(map(ast.unparse, statement.body))
    return ast.unparse(statement)


def _plain(cell: str) -> str:
    """A table's cell without emphasis, code marks and links."""
    return LINK.sub(r"\1", cell).replace("*", "").replace("`", "").strip()
