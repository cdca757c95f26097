"""Decks: a lecture's slides, read from a lesson's notebook and from slides/NN.yml, which marks cells of it.

A deck file is a list of slides in the order of the notebook. Each names its kind and the cell that it is made from:

    - reveal: b104747a          # question, picture, predict, reveal, proof or build: the marked cell's id
      title: Ninety-five of a hundred are gone
      text: one or two short lines of Markdown under what the cell showed
      ask: what to ask the class, and what to hear
      expect: [wrong answers to a prediction, and where each comes from]

What stands on the slide comes from the cell (its picture, its output, its question, its stub), what the lecturer says
from the lesson's prose between this marked cell and the next, and the wrong answers to an exercise from its registered
mistakes. The first slide, the questions from before, the exercises, the beliefs and the recap are made by themselves.
`lines: 2-4` takes part of an output, `show: code` the code instead, `code`/`say`/`pause`/`gpu` are in `FIELDS`.
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from helpers.exercises import registry
from notebook_tools import pieces, release, spoken
from notebook_tools.pieces import Piece

ROOT = release.ROOT
FOLDER = ROOT / "slides"
FIELDS = {
    "title": "one message", "text": "Markdown on the slide", "beside": "the cell whose picture stands there, too",
    "ask": "for the class, with the answer", "expect": "wrong answers, each with its cause",
    "show": "picture, output, code or nothing", "lines": "of the output or code", "without": "what is cut out of it",
    "say": "in place of the lesson's prose", "pause": "more seconds", "gpu": "what to do without one",
}
# Seconds to look or think, beside the words: by what stands on the slide and by what is run in its part of the lesson.
PAUSES = {"title": 20, "before": 75, "question": 10, "picture": 30, "predict": 75, "reveal": 20, "proof": 25,
          "build": 0, "exercises": 0, "beliefs": 75, "recap": 15}
MARKED = ("question", "picture", "predict", "reveal", "proof", "build")
ASKING, CELL, FOLDED = 30, 33, 16
WORDS_A_MINUTE = 130


@dataclass
class Slide:
    """One slide: what stands on it (Markdown, or what a cell showed) and what its notes say."""

    kind: str
    title: str
    cell: NotebookNode | None = None
    spec: dict = field(default_factory=dict)
    body: str = ""
    script: list[str | NotebookNode] = field(default_factory=list)  # words to say, and cells where they are run
    notes: list[tuple[str, list[str]]] = field(default_factory=list)
    more: float = 0.0

    @property
    def cells(self) -> list[NotebookNode]:
        return [part for part in self.script if not isinstance(part, str) and part.cell_type == "code"]

    @property
    def pauses(self) -> float:
        """Seconds in which nobody reads the notes aloud: looking, thinking, answering, running cells."""
        folded = sum("hide-input" in cell.metadata.get("tags", []) for cell in self.cells)
        asked = ASKING * bool(self.spec.get("ask"))
        return PAUSES[self.kind] + asked + self.more + FOLDED * folded + CELL * (len(self.cells) - folded)

    @property
    def minutes(self) -> float:
        """Of the lesson, in halves; an exercise's own minutes are not among them."""
        if self.kind in ("build", "exercises"):
            return 0.0
        return max(1, round(2 * (self.words / WORDS_A_MINUTE + self.pauses / 60))) / 2

    @property
    def words(self) -> int:
        return sum(len(part.split()) for part in self.script if isinstance(part, str))


@dataclass
class Deck:
    """A lesson's slides."""

    path: Path
    notebook: NotebookNode
    slides: list[Slide]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def title(self) -> str:
        return re.search(r"^# (?:\d\d · )?(.+)$", self.notebook.cells[0].source, re.MULTILINE)[1]

    @property
    def card(self) -> tuple[int, int]:
        """Minutes on the lesson's card: to read and run, and for the exercises."""
        found = re.search(r"(\d+) to read and run, (\d+) for the exercise", self.notebook.cells[0].source)
        return int(found[1]), int(found[2])

    @property
    def minutes(self) -> float:
        return sum(slide.minutes for slide in self.slides)


def lessons() -> list[Path]:
    """The notebooks that have a deck file."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return [path for path in notebooks if (FOLDER / f"{path.name[:2]}.yml").is_file()]


def read(path: Path, specs: list[dict] | None = None) -> Deck:
    """The deck of the notebook `path`. ValueError names what is wrong in its deck file, slide by slide."""
    notebook = nbformat.read(path, as_version=4)
    file = FOLDER / f"{path.name[:2]}.yml"
    if specs is None:
        try:
            specs = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)  # ids stay words
        except yaml.YAMLError as error:
            raise ValueError(f"{file.name}: {error}\nA text with a colon in it goes into quotes.") from error
    parts = pieces.cut(notebook)
    marked = [_marked(spec, notebook, file.name) for spec in specs]
    taken = {cell.id for _, cell, _ in marked}
    starts = [pieces.start(kind, cell, parts, taken) for kind, cell, _ in marked]
    for (_, cell, _), start, following in zip(marked, starts, starts[1:], strict=False):
        if following <= start:
            raise ValueError(f"{file.name}: the slide after cell {cell.id} stands before it in the notebook")
    slides = []
    for (kind, cell, spec), start, end in zip(marked, starts, [*starts[1:], len(parts)], strict=True):
        part = [piece for piece in parts[start:end]
                if piece.zone == "lesson" or piece.heading.startswith("★") and piece.cell.id not in taken]
        slides.append(_slide(kind, cell, spec, part if kind != "build" else [], notebook))
        if kind == "build" and slides[:-1]:  # what follows an exercise belongs to the slide before it
            _add(slides[-2], part)
    return Deck(path, notebook, [*_opening(notebook, parts), *slides, *_closing(notebook, slides)])


def exercise(heading: NotebookNode, notebook: NotebookNode):
    """The registered exercise whose prompt is the cell `heading`; the next code cell is its stub."""
    below = notebook.cells[notebook.cells.index(heading) + 1:]
    names = re.findall(r"^(?:def|class) (\w+)", next(c.source for c in below if c.cell_type == "code"), re.MULTILINE)
    return next(registry.exercises()[name] for name in names if name in registry.exercises())


def question(cell: NotebookNode, notebook: NotebookNode) -> str:
    """The words in bold that ask for a prediction, from the Markdown above a predict cell."""
    above = notebook.cells[:notebook.cells.index(cell)]
    text = next(c.source for c in reversed(above) if c.cell_type == "markdown")
    asked = [b for b in re.findall(r"\*\*(.+?)\*\*", text, re.DOTALL) if "?" in b]
    return asked[-1] if asked else text.strip().split("\n\n")[-1]


def outputs(cell: NotebookNode, kind: str) -> list[str]:
    """What a code cell showed: kind "text" (streams, lines), "outcome" (the answer to a prediction) or "alt"."""
    found = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if kind == "text" and output.output_type == "stream":
            found += output.text.rstrip().splitlines()
        elif kind == "text" and "text/plain" in data and not {"image/png", "text/html"} & set(data):
            found += data["text/plain"].rstrip().splitlines()
        elif kind == "outcome" and (answer := re.match(r"○ It is (.+?)\.\s*$", data.get("text/plain", ""))):
            found.append(answer[1])
        elif kind == "alt" and "image/png" in data:
            found.append(output.metadata["image/png"]["alt"])
    return found


def _marked(spec: dict, notebook: NotebookNode, file: str) -> tuple[str, NotebookNode, dict]:
    kinds = [key for key in spec if key in MARKED]
    unknown = set(spec) - set(FIELDS) - set(kinds)
    if len(kinds) != 1 or unknown:
        raise ValueError(f"{file}: a slide has one kind of {', '.join(MARKED)} and fields of {', '.join(FIELDS)}; "
                         f"this one has {', '.join(map(str, spec))}")
    kind = kinds[0]
    cell = next((cell for cell in notebook.cells if cell.id == str(spec[kind])), None)
    if cell is None:
        raise ValueError(f"{file}: no cell of the notebook has the id {spec[kind]} ({kind}: {spec.get('title', '')}). "
                         "Was it replaced? Mark the cell that took its place.")
    return kind, cell, {key: value for key, value in spec.items() if key != kind}


def _slide(kind: str, cell: NotebookNode, spec: dict, part: list[Piece], notebook: NotebookNode) -> Slide:
    slide = Slide(kind, spec.get("title", ""), cell, spec)
    if kind == "build":
        task = exercise(cell, notebook)
        title = re.sub(r"^★+ (?:Build: )?", "", task.head)
        slide.title = slide.title or (title[0].upper() + title[1:] if title.split()[0].isalpha() else title)
        slide.body = " ".join(inspect.getdoc(task.solution).split("\n\n")[0].split())
        slide.notes = [("Task", [spoken.plain(task.prompt)]), *mistakes(task)]
    if kind == "predict":
        asked = re.findall(r"\*\*([^*]+\?[^*]*)\*\*", spec.get("text", ""))
        slide.title = slide.title or spoken.plain(asked[-1] if asked else question(cell, notebook))
        slide.body = spec.get("text", "").replace(f"**{asked[-1]}**" if asked else "", "")
        slide.notes.append(("Wrong answers to expect", list(spec.get("expect", []))))
    _add(slide, part)
    if "say" in spec:
        slide.script = [spec["say"], *slide.cells]
    slide.more += float(spec.get("pause", 0))
    slide.notes += [(name, [spec[key]]) for key, name in (("ask", "Ask"), ("gpu", "Without a GPU")) if key in spec]
    if kind != "predict" and spec.get("expect"):
        slide.notes.append(("Wrong answers to expect", list(spec["expect"])))
    return slide


def _add(slide: Slide, part: list[Piece]) -> None:
    """Words and code cells of a part of the lesson, to a slide's notes; an exercise only where it stands."""
    for piece in part:
        words = spoken.plain(piece.text) if piece.zone == "lesson" else ""
        if words or not piece.text or piece.zone != "lesson":
            slide.script.append(words or piece.cell)
        slide.more += sum(60 * int(m) for m in re.findall(r"· (\d+) min$", piece.heading) if piece.zone == "lesson")


def mistakes(task, most: int = 3) -> list[tuple[str, list[str]]]:
    """The mistakes that an exercise's author expected first, in the words of its cards, and its last hint."""
    says = [spoken.plain(mistake.says) for mistake in task.mistakes[:most]]
    return [(f"Mistakes to expect in {task.name}", says), (f"If {task.name} sticks", [spoken.plain(task.hints[0])])]


def _opening(notebook: NotebookNode, parts: list[Piece]) -> list[Slide]:
    first = notebook.cells[0].source
    promise = first.split("\n\n")[1]
    place = re.search(r"^\*\*In QLoRA:\*\* (.+)$", first, re.MULTILINE)
    title = re.search(r"^# (.+)$", first, re.MULTILINE)[1]
    needs, hardware = re.search(r"---\|\n\| [^|]+ \| ([^|]+) \| [^|]+ \| ([^|]+) \|", first).groups()
    said = [promise, "In QLoRA: " + place[1]] if place else [promise]
    slides = [Slide("title", title, notebook.cells[0], body=promise, script=[spoken.plain("\n\n".join(said))], notes=[
        ("They need", [spoken.plain(needs)]), ("Hardware", [spoken.plain(hardware)])])]
    for piece in parts:
        asked = re.findall(r"<summary>(Lesson \d\d): (.+?)</summary>\s*(.+?)</details>", piece.text, re.DOTALL)
        if piece.zone == "before" and asked:
            body = "\n".join(f"- **{lesson}:** {text}" for lesson, text, _ in asked)
            answers = [f"{lesson}: {spoken.plain(answer)}" for lesson, _, answer in asked]
            slides.append(Slide("before", "Two questions from before", piece.cell, body=body,
                                notes=[("Answers", answers)]))
    return slides


def _closing(notebook: NotebookNode, slides: list[Slide]) -> list[Slide]:
    built = {slide.cell.id for slide in slides if slide.kind == "build"}
    found, heads, notes = [], [], []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "markdown" and cell.id not in built):
        for task in (task for task in re.split(r"(?m)^(?=##+ )", cell.source) if task.startswith("### ★")):
            heads.append(task.split("\n")[0].removeprefix("### "))
            checked = cell.source.startswith("### ★")  # a stub and its check follow
            notes += mistakes(exercise(cell, notebook)) if checked else [(heads[-1], [spoken.plain(task)])]
    if heads:
        found.append(Slide("exercises", "Exercises", body="\n".join(f"- {head}" for head in heads), notes=notes))
    text = "\n\n".join(cell.source for cell in notebook.cells[-3:] if cell.cell_type == "markdown")
    beliefs = re.search(r"^## Common beliefs[^\n]*\n+\|[^\n]*\n\|[-|]+\n((?:\|.*\n?)+)", text, re.MULTILINE)
    if beliefs:
        rows = [row.strip("| ").split(" | ", 1) for row in beliefs[1].strip().splitlines()]
        body = "\n".join(f"- {spoken.plain(belief)}" for belief, _ in rows)
        told = [spoken.plain(f"{belief}: {measured}") for belief, measured in rows]
        found.append(Slide("beliefs", "True or false?", notebook.cells[-1], body=body,
                           notes=[("All false, or half the truth", told)]))
    able = re.search(r"^## You can now\n+((?:- .*\n?)+)", text, re.MULTILINE)
    following = re.search(r"^## Next\n+(.+)", text, re.MULTILINE)
    body = able[1] + (f"\nNext: {spoken.plain(following[1])}" if following else "")
    return [*found, Slide("recap", "You can now", notebook.cells[-1], body=body, script=[spoken.plain(body)])]


def half(minutes: float) -> str:
    """2.5 → 2½."""
    whole = math.floor(minutes)
    return f"{whole or ''}{'½' if minutes > whole else ''}" or "0"
