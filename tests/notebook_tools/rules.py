"""The rules for notebooks: each takes a notebook and its path, and yields what is wrong as sentences (none: all well).

    problems(notebook, path)   what breaks a rule: `make notebooks` prints it, test_notebook_rules.py demands none
    advice(notebook, path)     what a lesson should look like, and may have a reason not to: only printed
"""

from __future__ import annotations

import ast
import html
import json
import re
import statistics
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from nbformat import NotebookNode

from notebook_tools import canonical, effort, leftovers, release, source

ROOT = release.ROOT
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
COURSE = release.read(ROOT)

FORBIDDEN_MARKS = {"nbval-skip", "nbval-raises-exception", "raises-exception", "pytest-validate-ignore-output"}
CARD = ("You build", "You need", "Time", "Hardware")
PARTS = ("Exercises", "You can now", "Common beliefs that are wrong", "Sources")
WORKBOOKS = ("15",)  # its exercise is to run it on rows of one's own, which no check can know
IMAGES = {"image/png", "image/jpeg", "image/svg+xml"}
MEDIAN_LINES, MOST_LINES = 7, 20
FOREIGN_PATH = re.compile(r"(?<![\w./~-])(?:/(?:home|root|work|Users|tmp|opt|usr|mnt)/|[A-Z]:\\+Users)", re.IGNORECASE)
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9]{20,}")
ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
PROGRESS = re.compile(r"\r(?!\n)|\d+(?:\.\d+)?(?:it/s|s/it)\b")
DETAILS = re.compile(r"<details>.*?</details>", re.DOTALL)
MARKDOWN_IMAGE = re.compile(r"!\[([^\]]*)\]\(")
INLINE_IMAGE = re.compile(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]*")
HTML_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
HTML_ALT = re.compile(r"""\balt\s*=\s*(["'])\s*\S.*?\1""", re.IGNORECASE | re.DOTALL)


def setup_cell(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """The first code cell is the setup cell, the same in every notebook."""
    cells = code_cells(notebook)
    if not cells or cells[0].source != COURSE.setup:
        yield f"the first code cell must be the setup cell, letter by letter:\n{COURSE.setup}"


def first_cell(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """The first cell holds the title and the badges, whose addresses name the repository and this file."""
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell must be Markdown and begin with the title (# ...)"
        return
    for badge in COURSE.badges(path.name):
        if badge not in first.source:
            yield f"the first cell lacks this badge: {badge}"


def anatomy(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A lesson has its card and its closing parts."""
    prose = _prose(notebook)
    if not all(word in notebook.cells[0].source for word in CARD):
        yield f"the first cell lacks the card: {' · '.join(CARD)}"
    for part in PARTS if not path.name.startswith("00") else ():
        if not re.search(rf"^## {part}", prose, re.MULTILINE):
            yield f"the part '## {part}' is missing"


def place(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """From lesson 01 on: a line of the first cell says what the lesson is to QLoRA."""
    first = notebook.cells[0].source if notebook.cells else ""
    if not path.name.startswith("00") and not re.search(r"^\*\*In QLoRA:\*\* \S", first, re.MULTILINE):
        yield "the first cell lacks a line '**In QLoRA:** …', which says where the lesson stands"


def recall(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """From lesson 02 on: before its first part a lesson asks two questions about earlier lessons, answers folded."""
    if path.name[:2] < "02":
        return
    opening = re.split(r"^## ", _prose(notebook), maxsplit=1, flags=re.MULTILINE)[0]
    asked = re.findall(r"^<details><summary>Lesson (\d\d): .+</summary>$", opening, re.MULTILINE)
    if len(asked) != 2:
        yield (f"{len(asked)} questions before the first '## ': a lesson opens with two, "
               "<details><summary>Lesson 03: …?</summary>, the answer in the lines below")
    for lesson in asked:
        if lesson >= path.name[:2]:
            yield f"a question about lesson {lesson} stands at the start of {path.name[:2]}: ask about an earlier one"


def still(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Where an explorer is shown, its still frame is too: GitHub has nothing else."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            sentence = output.get("data", {}).get("text/plain", "")
            page = html.unescape(_joined(output.get("data", {}).get("text/html", "")))
            if sentence in explorer_texts() and sentence not in page:
                yield f"cell {cell.id} shows an explorer without its still frame: run make notebooks"


def time_on_the_card(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """The card says how long the lesson and its exercises take, as notebook_tools.effort estimates it for all alike."""
    wanted = effort.measure(notebook).card
    if wanted not in notebook.cells[0].source:
        yield f"the card must say '{wanted}': PYTHONPATH=tests python -m notebook_tools.effort --write"


def frame(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """A lesson is no longer than a tired student can take."""
    yield from (f"the lesson has {excess}: cut it, or make a part a digression"
                for excess in effort.measure(notebook).too_long)


def exercises(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """From lesson 01 on: four exercises or more (a workbook: two), each with its minutes, one of them a bug to spot."""
    if path.name.startswith("00"):
        return
    least = 2 if path.name.startswith(WORKBOOKS) else 4
    found = re.findall(r"^### +(★{1,3} .*)$", _prose(notebook), re.MULTILINE)
    if len(found) < least:
        yield f"{len(found)} exercises ('### ★★ Title · 8 min'): a lesson has {least} or more"
    for exercise in found:
        if not re.search(r"· \d+ min", exercise):
            yield f"the exercise '{exercise}' does not say how many minutes it takes"
    if not any("spot the bug" in exercise.lower() for exercise in found):
        yield "no exercise is a 'Spot the bug'"


def cell_length(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Code comes in small cells."""
    lines = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    if lines and statistics.median(lines) > MEDIAN_LINES:
        yield f"the median code cell has {statistics.median(lines):g} lines, more than {MEDIAN_LINES}: split long ones"
    for cell, n in zip(code_cells(notebook), lines, strict=True):
        if n > MOST_LINES:
            yield f"cell {cell.id} has {n} lines, more than {MOST_LINES}: split it"


def executed(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Every code cell was run, in order, without an error: a stripped notebook would test nothing."""
    cells = code_cells(notebook)
    if not cells:
        yield "no code cell"
    if [cell.get("execution_count") for cell in cells] != list(range(1, len(cells) + 1)):
        yield "the code cells are not executed 1, 2, 3, ...: run make notebooks"
    if cells and not any(cell.outputs for cell in cells):
        yield "no cell has an output: strict nbval would compare nothing"
    for cell in cells:
        if not cell.source.strip():
            yield f"cell {cell.id} is empty"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {cell.id} ended in {output.get('ename')}: catch it and print what a reader should see"


def outcomes(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Every `outcome(...)` is seen: the notebook shows the value of a cell's last line, and of no other."""
    for cell in code_cells(notebook):
        tree = source.parse(cell.source)
        calls = [node for node in ast.walk(tree)
                 if isinstance(node, ast.Call) and source.dotted(node.func) == "outcome"]
        last = tree.body[-1] if tree.body else None
        if len(calls) > (isinstance(last, ast.Expr) and last.value in calls):
            yield f"cell {cell.id}: nobody sees this outcome, put it on the cell's last line"


def nbval_marks(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No cell is skipped; where an output is not compared, the next code cell asserts what must hold."""
    cells = code_cells(notebook)
    for cell, following in zip(cells, [*cells[1:], None], strict=True):
        marks = set(cell.metadata.get("tags", []))
        marks |= {word.lower().replace("_", "-") for word in re.findall(r"#\s*(NBVAL_\w+|PYTEST_\w+)", cell.source)}
        for mark in sorted(marks & FORBIDDEN_MARKS):
            yield f"cell {cell.id} is marked {mark}: every cell is compared and none may fail"
        if "nbval-ignore-output" in marks and (following is None or not source.asserts(source.parse(following.source))):
            yield f"cell {cell.id} is marked nbval-ignore-output: the next code cell must assert what holds"


def clean_text(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No warnings, paths of somebody's machine, tokens, memory addresses or progress bars."""
    for cell in notebook.cells:
        where = f"cell {cell.id}"
        if TOKEN.search(cell.source):
            yield f"{where} holds what looks like a token: revoke it, and take it from the environment"
        if found := FOREIGN_PATH.search(cell.source):
            yield f"{where} names a folder of one machine ({found[0]}...): use a relative path"
        for output in cell.get("outputs", []):
            yield from (f"{where}: {problem}" for problem in _output_problems(output))


def images(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """Every image says in words what it shows."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            texts = [re.sub(r"`[^`]*`", "", cell.source)]
            if any(not alt.strip() for alt in MARKDOWN_IMAGE.findall(texts[0])):
                yield f"cell {cell.id} has an image without alt text: ![what it shows](...)"
        else:
            texts = [_joined(o.data["text/html"]) for o in cell.outputs if "text/html" in o.get("data", {})]
        for tag in [tag for text in texts for tag in HTML_IMAGE.findall(text)]:
            if not HTML_ALT.search(tag):
                yield f"cell {cell.id} has an <img> without alt text: {tag[:60]}"
        for output in cell.get("outputs", []):
            for mime in sorted(set(output.get("data", {})) & IMAGES):
                if not str(output.metadata.get(mime, {}).get("alt", "")).strip():
                    yield f"cell {cell.id} shows a figure ({mime}) without alt text: use show(fig, alt=...)"


def metadata(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No saved widgets (GitHub would not render the notebook) and nothing of an editor."""
    for key in sorted(set(notebook.metadata) - set(canonical.METADATA)):
        yield f"metadata.{key} must go: run make notebooks"
    for cell in notebook.cells:
        folds = {key for tag in cell.metadata.get("tags", []) for key in canonical.FOLDS.get(tag, {})}
        for key in sorted(set(cell.metadata) - folds - {"tags"}):
            yield f"cell {cell.id} has metadata.{key}: run make notebooks"
        for output in cell.get("outputs", []):
            if canonical.WIDGET_VIEW in output.get("data", {}):
                yield f"cell {cell.id} has a widget view, which no reader can open: run make notebooks"


def folded(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """What is folded says what it is: code that only draws by its title, a digression by its heading."""
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "hide-input" in tags and not (cell.cell_type == "code" and re.match(r"# ?@title \S", cell.source)):
            yield f"cell {cell.id} is folded (hide-input): its first line must be '# @title what it draws'"
        if "hide-input" in tags and cell.cell_type == "code" and not cell.outputs:
            yield f"cell {cell.id} is folded (hide-input) and shows nothing: fold only what draws"
        heading = cell.cell_type == "markdown" and re.match(r"###+ Digression: \S", cell.source)
        if "digression" in tags and not heading:
            yield f"cell {cell.id} is folded (digression): it must be a heading, '### Digression: its title'"
        if cell.cell_type == "markdown" and any("\n\n" in a for a in DETAILS.findall(cell.source)):
            yield f"cell {cell.id} has an empty line in <details>: pages of nbconvert close it there and show the rest"


def safe_code(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No remote code, no pickled weights, nothing that strict nbval cannot compare."""
    for cell in code_cells(notebook):
        try:
            tree = source.parse(cell.source)
        except SyntaxError as error:
            yield f"cell {cell.id} is not Python: {error}"
            continue
        yield from (f"cell {cell.id}: {problem}" for problem in source.unsafe(tree) + source.unstable(tree))


def in_helpers(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """What a cell tagged in-helpers defines is the same code in helpers/, docstrings aside."""
    for cell in code_cells(notebook):
        if "in-helpers" not in cell.metadata.get("tags", []):
            continue
        defined = source.definitions(source.parse(cell.source))
        if not defined:
            yield f"cell {cell.id} is tagged in-helpers and defines nothing"
        for name, code in defined.items():
            places = [module for module, known in helper_definitions().items() if name in known]
            if not places:
                yield f"cell {cell.id}: {name} is tagged in-helpers, but no module of helpers/ defines it"
            elif not any(helper_definitions()[place][name] == code for place in places):
                yield f"cell {cell.id}: {name} differs from helpers/{places[0]}: make them the same code"


def no_marks(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No mark waits to be filled in, in no source and no output."""
    for cell in notebook.cells:
        outputs = [_text(output) + json.dumps(output.get("metadata")) for output in cell.get("outputs", [])]
        for mark in leftovers.marks("\n".join([cell.source, *outputs])):
            yield f"cell {cell.id} holds the mark {mark}: put there what belongs there"


def nothing_twice(notebook: NotebookNode, path: Path) -> Iterator[str]:
    """No statement stands twice in a block, no line again and again in an output, no lesson twice in a table."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for row in leftovers.repeated_rows(cell.source, leftovers.titles()):
                yield f"cell {cell.id} has a table with {row!r} twice: take one out"
            continue
        for statement in leftovers.repeated_statements(source.parse(cell.source)):
            yield f"cell {cell.id} has {statement!r} twice in one block: take one out, or loop"
        for output in cell.outputs:
            shown = output.get("text") or output.get("data", {}).get("text/plain", "")
            for line in leftovers.repeated_lines(shown):
                yield f"cell {cell.id} shows {line!r} again and again: once is enough, or say what differs"


RULES = (
    setup_cell, first_cell, place, recall, time_on_the_card, exercises, executed, outcomes, nbval_marks, clean_text,
    images, still, metadata, folded, safe_code, in_helpers, no_marks, nothing_twice)
ADVICE = (anatomy, cell_length, frame)


def problems(notebook: NotebookNode, path: Path) -> list[str]:
    """What all rules say about the notebook."""
    return [problem for rule in RULES for problem in rule(notebook, path)]


def advice(notebook: NotebookNode, path: Path) -> list[str]:
    """What may be better another way."""
    return [remark for rule in ADVICE for remark in rule(notebook, path)]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@cache
def helper_definitions() -> dict[str, dict[str, str]]:
    """Module path below helpers/ → what it defines."""
    folder = ROOT / "helpers"
    return {path.relative_to(folder).as_posix(): source.definitions(source.parse(path.read_text(encoding="utf-8")))
            for path in sorted(folder.rglob("*.py"))}


@cache
def explorer_texts() -> set[str]:
    """The sentences that stand for an explorer where no widget can be shown."""
    return {text for path in sorted((ROOT / "helpers" / "explorers").glob("*.py"))
            for text in re.findall(r'^    text = "(.+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)}


def _text(output: NotebookNode) -> str:
    """All of an output that is text: the stream, and its data but for images."""
    data = {mime: value for mime, value in output.get("data", {}).items() if not mime.startswith("image/")}
    texts = (value if isinstance(value, str) else json.dumps(value) for value in data.values())
    return output.get("text", "") + INLINE_IMAGE.sub("", "\n".join(texts))


def _output_problems(output: NotebookNode) -> Iterator[str]:
    if output.output_type == "stream" and output.name == "stderr":
        yield f"something was written to stderr, {output.text[:80]!r}: find its cause and mend it"
    text = _text(output)
    if found := re.search(r"\b\w*Warning: .*", text):
        yield f"a warning is shown, {found[0][:80]!r}: mend its cause"
    if found := FOREIGN_PATH.search(text):
        yield f"the output names a folder of one machine, {text[found.start():][:60]!r}"
    if TOKEN.search(text):
        yield "the output holds what looks like a token: revoke it"
    if found := ADDRESS.search(text):
        yield f"the output holds a memory address, {found[0]!r}, which changes with every run"
    if PROGRESS.search(text):
        yield "the output holds a progress bar: switch it off (disable_tqdm=True)"


def _prose(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def _joined(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)
