"""Writes the decks of slides/ as Sphinx sources and builds them: reveal.js slides, and a page of notes for each.

    python -m notebook_tools.slides [03 ...]    build/slides/: index.html, a deck and its notes per lesson; no network
"""

from __future__ import annotations

import ast
import base64
import html
import importlib.util
import math
import re
import shutil
import sys
import textwrap
from pathlib import Path

from markdown_it import MarkdownIt
from nbformat import NotebookNode

from notebook_tools import decks, slide_pages
from notebook_tools.decks import Deck, Slide

OUT = decks.ROOT / "build" / "slides"
MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"
KEPT = ("revealjs/dist/reveal.css", "revealjs/dist/reveal.js", "revealjs/plugin/notes/notes.js",
        "revealjs/plugin/highlight/highlight.js", "deck.css", "theme.js", "tex-svg.js")
COLUMNS = {"huge": 45, "large": 54, "medium": 61, "small": math.inf}  # of a block of code, by its type's size
ASKED = ("Ask", "Wrong answers to expect")  # notes that stand where the class answers
ALOUD = ("measured further below", "measured later")  # who listens sees no page
WITHOUT_GPU = "nothing here needs one. Should the machine fail, show the slides: they hold its outputs."


def build(folder: Path = OUT, names: list[str] | None = None) -> list[Deck]:
    """Write and build the decks (those whose lesson is in `names`, or all) into `folder`, which is emptied first.

    RuntimeError if Sphinx warns; ValueError names what is wrong in a deck file, or a lesson without one.
    """
    from sphinx.application import Sphinx

    found = [decks.read(path) for path in decks.lessons() if not names or path.name[:2] in names]
    if not found:
        raise ValueError(f"no deck of {', '.join(names or ['any lesson'])}: slides/ has "
                         + ", ".join(path.stem for path in sorted(decks.FOLDER.glob("*.yml"))))
    source = folder / ".sources"
    shutil.rmtree(folder, ignore_errors=True)
    source.mkdir(parents=True)
    for deck in found:
        write(deck, source)
    listed = "\n".join(deck.name for deck in found)
    (source / "index.md").write_text(f"# Decks\n\n```{{toctree}}\n{listed}\n```\n", encoding="utf-8")
    with (folder / ".log").open("w+", encoding="utf-8") as log:
        app = Sphinx(source, decks.FOLDER, folder, folder / ".doctrees", "revealjs", status=None, warning=log)
        app.build()
        log.seek(0)
        if warned := log.read().strip():
            raise RuntimeError(f"Sphinx warns:\n{warned}")
    shutil.copy(MATHJAX, folder / "_static")
    for deck in found:
        slide_pages.notes_page(deck, folder)
    slide_pages.index(found, folder)
    tidy(folder)
    return found


def write(deck: Deck, source: Path) -> None:
    """The MyST source of a deck, and its pictures."""
    parts = []
    for number, slide in enumerate(deck.slides):
        heading = "#" if slide.kind == "title" else "##"
        timing = round(60 * slide.minutes)
        parts.append(f"{heading} {_unbroken(slide.title)}\n\n:::{{revealjs-section}}\n:data-state: {slide.kind}\n"
                     f":data-timing: {timing}\n:::\n")
        parts.append(body(slide, deck, source, f"{deck.name[:2]}-{number}"))
        notes = notes_html(slide, deck)
        parts.append(f'```{{raw}} html\n<aside class="notes">\n{notes}\n</aside>\n```\n')
    (source / f"{deck.name}.md").write_text("\n".join(parts), encoding="utf-8")


def body(slide: Slide, deck: Deck, source: Path, name: str) -> str:
    """What stands on a slide, as MyST: what its cell showed, then its own words."""
    cell, spec, parts = slide.cell, slide.spec, []
    if slide.kind == "title":
        return slide.body
    if slide.kind in ("before", "exercises", "recap", "beliefs"):
        return f":::{{container}} {slide.kind}\n\n{_unbroken(slide.body)}\n\n:::\n"
    if slide.kind == "predict":
        return f":::{{container}} lead\n\n{slide.body}\n\n:::\n"
    if slide.kind == "build":
        head = signature(decks.exercise(cell, deck.notebook))
        return "\n".join([spec.get("text") or slide.body, "", code(head, "python")])
    show = spec.get("show", {"picture": "picture", "reveal": "output", "proof": "output"}.get(slide.kind, "nothing"))
    if slide.kind == "reveal" and show != "nothing":
        corner = " corner" * ("beside" in spec) + " words" * (len("".join(decks.outputs(cell, "outcome"))) > 8)
        parts += [f":::{{container}} answer{corner}\n\n{answer}\n\n:::\n" for answer in decks.outputs(cell, "outcome")]
    drawn = [cell] * (show == "picture") + [c for c in deck.notebook.cells if c.id == spec.get("beside")]
    for k, (suffix, data, alt) in enumerate(picture for drawing in drawn for picture in pictures(drawing)):
        (source / f"{name}-{k}.{suffix}").write_bytes(data)
        parts.append(f"```{{image}} {name}-{k}.{suffix}\n:alt: {' '.join(alt.split())}\n```\n")
    if show == "output" and (lines := decks.outputs(cell, "text")):
        parts.append(code(_lines("\n".join(lines), spec), "text"))
    if show == "code":
        parts.append(code(_lines(cell.source, spec), "python"))
    return "\n".join([*parts, spec.get("text", "")])


def pictures(cell: NotebookNode) -> list[tuple[str, bytes, str]]:
    """(suffix, data, alternative text) of a code cell's figures: drawn ones, or the still frames of an explorer."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            found.append(("png", base64.b64decode(data["image/png"]), output.metadata["image/png"]["alt"]))
        for alt, coded in re.findall(r'<img alt="([^"]{20,})"[^>]* src="data:image/svg\+xml;base64,([^"]+)"',
                                     data.get("text/html", "")):
            found.append(("svg", base64.b64decode(coded), html.unescape(alt)))
    return found


def signature(task) -> str:
    """The head of an exercise's function, one argument to a line where it is long."""
    found = next(node for node in ast.walk(ast.parse(task.source)) if getattr(node, "name", "") == task.name)
    back = ast.unparse(found.returns) if found.returns else "None"
    given = [ast.unparse(argument) for argument in found.args.args]
    for n, value in enumerate(reversed(found.args.defaults), start=1):
        given[-n] += f" = {ast.unparse(value)}"
    line = f"def {task.name}({', '.join(given)}) -> {back}:"
    if len(line) > COLUMNS["large"]:
        line = f"def {task.name}(\n" + "".join(f"    {argument},\n" for argument in given) + f") -> {back}:"
    return line + "\n    ..."


def code(text: str, language: str) -> str:
    """A block of code or output, as large as its longest line lets it be."""
    longest = max(map(len, text.splitlines()), default=0)
    size = next(name for name, most in COLUMNS.items() if longest <= most)
    return f":::{{container}} {size}\n\n```{language}\n{text}\n```\n\n:::\n"


def notes_html(slide: Slide, deck: Deck) -> str:
    """A slide's notes for the speaker view: the clock, what to say, what to ask, what to expect."""
    parts, looked = [f"<p><b>{clock(slide, deck)}</b></p>"], False
    asked = [note for note in slide.notes if note[0] in ASKED and note[1]]
    others = [note for note in slide.notes if note[0] not in ASKED and note[1]]
    for part in slide.script:
        if isinstance(part, str):
            while looked and asked:  # before the words that answer it
                parts.append(_note(*asked.pop(0)))
            parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in part.replace(*ALOUD).split("\n\n")]
        elif part.cell_type == "code":
            parts.append(f"<p><b>▶ In [{part.execution_count}]</b></p>")
            looked = looked or part is slide.cell
        else:
            head = part.source.split("\n")[0].lstrip("# ")
            parts.append(f"<p><b>▷ Here, or at the end:</b> {html.escape(head)}</p>")
    parts += [_note(*note) for note in [*asked, *others]]
    if slide.kind == "title":
        told = [str(n) for n, other in enumerate(deck.slides, start=1) if "gpu" in other.spec]
        where = f"slide{'s' * (len(told) > 1)} {', '.join(told)}"
        instead = f"the notes of {where} say what to show." if told else WITHOUT_GPU
        parts.append(f"<p><b>Without a GPU:</b> {instead}</p>")
    return "\n".join(parts)


def _note(name: str, texts: list[str]) -> str:
    if len(texts) > 1 or "\n\n" in "".join(texts):
        items = "".join(f"<li>{_inline(text)}</li>" for text in texts)
        return f"<p><b>{html.escape(name)}:</b></p><ul>{items}</ul>"
    return f"<p><b>{html.escape(name)}:</b> {_inline(texts[0])}</p>"


def clock(slide: Slide, deck: Deck) -> str:
    """'2½ min, from 0:07 to 0:10', or an exercise's own minutes."""
    if slide.kind in ("build", "exercises"):
        return f"{task_minutes(slide, deck)} min, the exercises' own"
    begin = sum(other.minutes for other in deck.slides[:deck.slides.index(slide)])
    first, last = (f"{int(t // 60)}:{int(t % 60):02}{'½' if t % 1 else ''}" for t in (begin, begin + slide.minutes))
    return f"{decks.half(slide.minutes)} min, {first} to {last} of the lesson"


def task_minutes(slide: Slide, deck: Deck) -> int:
    """The minutes of the exercises on a slide."""
    heads = slide.body if slide.kind == "exercises" else slide.cell.source.split("\n")[0]
    return sum(map(int, re.findall(r"· (\d+) min", heads)))


def tidy(folder: Path) -> None:
    """Keep of Sphinx's and reveal's files what the pages load."""
    static = folder / "_static"
    for path in [p for p in static.rglob("*") if p.is_file() and p.relative_to(static).as_posix() not in KEPT]:
        path.unlink()
    for path in sorted((p for p in static.rglob("*") if p.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()
    for path in (".doctrees", ".sources", "_sources"):
        shutil.rmtree(folder / path, ignore_errors=True)
    for path in ("objects.inv", ".buildinfo", "genindex.html", "search.html", "searchindex.js", ".log"):
        (folder / path).unlink(missing_ok=True)


def _lines(text: str, spec: dict) -> str:
    """Lines 2 to 4 of a text for `lines: 2-4`, counted from 1; several ranges with commas; `without` a pattern."""
    lines = text.splitlines()
    if "lines" in spec:
        ranges = [part.strip().partition("-") for part in spec["lines"].split(",")]
        lines = [line for first, _, last in ranges for line in lines[int(first) - 1:int(last or first)]]
    if not lines:
        raise ValueError(f"lines {spec.get('lines')}: there are {len(text.splitlines())}")
    return textwrap.dedent("\n".join(re.sub(spec.get("without", "^$"), "", line).rstrip() for line in lines))


def _unbroken(text: str) -> str:
    """'last word · 6 min' without a line's end between."""
    return re.sub(r"( ·)? (\d+) min\b", lambda found: found[0].replace(" ", "\u00a0"), text)


def _inline(text: str) -> str:
    return MarkdownIt().renderInline(text.replace("\n\n", "<br>")) if "<" not in text else html.escape(text)


if __name__ == "__main__":
    for made in build(names=sys.argv[1:]):
        print(f"{made.name}: {len(made.slides)} slides, {decks.half(made.minutes)} min, card {made.card[0]}")
