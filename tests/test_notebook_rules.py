"""The committed notebooks keep the rules of the course; and each rule can say no."""

import ast
import copy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_tools import canonical, effort, leftovers, rules, run

from helpers.explorers.blocks import BlockExplorer

ROOT = rules.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


# The committed notebooks.

@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps(path, rule):
    assert list(rule(nbformat.read(path, as_version=4), path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_canonical(path):
    assert run.main(["--check", str(path)]) == 0


# Each rule can say no. `good()` breaks none; each case breaks it in one way.

QUESTION = "<details><summary>Lesson 01: why?</summary>\nSo.</details>"
RECALL = f"{QUESTION}\n\n{QUESTION}"


def good():
    first = "# A title\n\nA promise.\n\n**In QLoRA:** the first step.\n\n"
    first += " ".join(rules.COURSE.badges(PATH.name)) + "\n\n" + " · ".join(rules.CARD)
    first += " · 40 minutes: 5 to read and run, 35 for the exercises"
    parts = [f"## {part}" for part in rules.PARTS]
    last = "\n".join([parts[0], *["### ★★ Spot the bug · 8 min"] * 4, "## After the exercises", *parts[1:]])
    figure = new_output("display_data", {"image/png": "aGk=", "text/plain": "A line."},
                        metadata={"image/png": {"alt": "A line."}})
    cells = [
        new_markdown_cell(first), new_code_cell(rules.COURSE.setup),
        new_markdown_cell("Why? ![a map of the course](map.svg)"), new_markdown_cell(RECALL),
        new_code_cell("print(1)", outputs=[new_output("stream", name="stdout", text="1\n")]),
        new_code_cell("show(fig, alt='A line.')", outputs=[figure]),
        new_code_cell("import time; time.time()", metadata={"tags": ["nbval-ignore-output"]}),
        new_code_cell("assert time.time() > 0"),
        new_markdown_cell(last),
    ]
    notebook = new_notebook(cells=cells)
    for n, cell in enumerate(rules.code_cells(notebook), start=1):
        cell.execution_count = n
    return canonical.canonical(notebook)


def broken(change):
    notebook = copy.deepcopy(good())
    change(notebook, rules.code_cells(notebook))
    return notebook


def set_source(cell, text):
    cell["source"] = text


def out(name="stdout", text="", **data):
    if data:
        return new_output("display_data", {key.replace("_", "/"): value for key, value in data.items()})
    return new_output("stream", name=name, text=text)


def explorer(still=None):
    """What is committed of an explorer that a cell shows."""
    data = {"text/plain": BlockExplorer.text} | ({"text/html": still} if still else {})
    return new_output("execute_result", data, execution_count=1)


SETUP_CUT = rules.COURSE.setup.replace("; start()", "")
PATH = Path("notebooks/02_good.ipynb")
BAD = [
    ("setup_cell", lambda nb, code: set_source(code[0], SETUP_CUT)),
    ("setup_cell", lambda nb, code: nb.cells.pop(1)),
    ("first_cell", lambda nb, code: nb.cells.pop(0)),
    ("first_cell", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("02_good", "02_other"))),
    ("first_cell", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("View on GitHub", "x"))),
    ("place", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("**In QLoRA:**", "In QLoRA:"))),
    ("place", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace(" the first step.", ""))),
    ("place", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("**In QLoRA", "So, **In QLoRA"))),
    ("recall", lambda nb, code: set_source(nb.cells[3], QUESTION)),
    ("recall", lambda nb, code: set_source(nb.cells[3], RECALL + "\n\n" + QUESTION)),
    ("recall", lambda nb, code: set_source(nb.cells[3], "## A part\n\n" + RECALL)),
    ("recall", lambda nb, code: set_source(nb.cells[3], RECALL.replace("01", "02", 1))),
    ("recall", lambda nb, code: set_source(nb.cells[3], RECALL.replace("Lesson 01: ", "", 1))),
    ("still", lambda nb, code: code[1].outputs.append(explorer())),
    ("still", lambda nb, code: code[1].outputs.append(explorer("<div>another picture</div>"))),
    ("anatomy", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("Hardware", ""))),
    ("anatomy", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("## Sources", ""))),
    ("exercises", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("### ★★ Spot", "Spot", 1))),
    ("exercises", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("Spot the bug", "Think"))),
    ("exercises", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("· 8 min", "", 1))),
    ("time_on_the_card", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("5 to", "15 to"))),
    ("time_on_the_card", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("· 8", "· 9"))),
    ("frame", lambda nb, code: set_source(nb.cells[2], "word " * 2201)),
    ("frame", lambda nb, code: nb.cells.extend(copy.deepcopy(code[1:2] * 45))),
    ("frame", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("· 8 min", "· 12 min"))),
    ("cell_length", lambda nb, code: set_source(code[2], "x = 1\n" * 21)),
    ("cell_length", lambda nb, code: [set_source(cell, "x = 1\n" * 8) for cell in code[1:]]),
    ("executed", lambda nb, code: code[1].update(execution_count=None)),
    ("executed", lambda nb, code: code[1].update(execution_count=3)),
    ("executed", lambda nb, code: [cell.update(outputs=[]) for cell in code]),
    ("executed", lambda nb, code: code[1].outputs.append(
        new_output("error", ename="ValueError", evalue="", traceback=[]))),
    ("executed", lambda nb, code: set_source(code[1], " ")),
    ("nbval_marks", lambda nb, code: code[1].metadata.update(tags=["nbval-skip"])),
    ("nbval_marks", lambda nb, code: set_source(code[1], "# NBVAL_SKIP\nprint(1)")),
    ("nbval_marks", lambda nb, code: code[1].metadata.update(tags=["raises-exception"])),
    ("nbval_marks", lambda nb, code: set_source(code[4], "print('fine')")),
    ("nbval_marks", lambda nb, code: set_source(code[4], "# assert nothing")),
    ("nbval_marks", lambda nb, code: code[4].metadata.update(tags=["nbval-ignore-output"])),
    ("clean_text", lambda nb, code: code[1].outputs.append(out("stderr", "hm"))),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text="x.py:1: UserWarning: old"))),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text="saved in /home/eve/x"))),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text="'C:\\\\Users\\\\eve'"))),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text_html="<a href='/root/x'>"))),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text="hf_" + "a1B2" * 8))),
    ("clean_text", lambda nb, code: set_source(code[1], f"token = '{'hf_' + 'a1B2' * 8}'")),
    ("clean_text", lambda nb, code: set_source(nb.cells[2], "look in `/root/cache`")),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text_plain="<Figure at 0x7f12ab34cd56>"))),
    ("clean_text", lambda nb, code: code[1].outputs.append(out(text="10%|# | 1/9 [00:01, 3.21it/s]"))),
    ("images", lambda nb, code: code[2].outputs[0].metadata.clear()),
    ("images", lambda nb, code: code[2].outputs[0].metadata["image/png"].update(alt=" ")),
    ("images", lambda nb, code: set_source(nb.cells[2], "![](map.svg)")),
    ("images", lambda nb, code: set_source(nb.cells[2], '<img src="map.svg" alt="">')),
    ("images", lambda nb, code: code[1].outputs.append(out(text_html="<img src='x.png'>"))),
    ("metadata", lambda nb, code: nb.metadata.update(widgets={})),
    ("metadata", lambda nb, code: nb.metadata.update(vscode={})),
    ("metadata", lambda nb, code: code[1].metadata.update(execution={})),
    ("metadata", lambda nb, code: code[1].metadata.update(jupyter={"source_hidden": True})),
    ("folded", lambda nb, code: code[2].metadata.update(tags=["hide-input"])),
    ("folded", lambda nb, code: nb.cells[2].metadata.update(tags=["hide-input"])),
    ("folded", lambda nb, code: (code[4].metadata.update(tags=["hide-input"]), set_source(code[4], "# @title A"))),
    ("folded", lambda nb, code: nb.cells[2].metadata.update(tags=["digression"])),
    ("folded", lambda nb, code: set_source(nb.cells[3], RECALL.replace("</summary>", "</summary>\n", 1))),
    ("metadata", lambda nb, code: code[1].outputs.append(new_output("display_data", {canonical.WIDGET_VIEW: {}}))),
    ("safe_code", lambda nb, code: set_source(code[1], "load('x', trust_remote_code=True)")),
    ("safe_code", lambda nb, code: set_source(code[1], "import torch; torch.load('x.pt')")),
    ("safe_code", lambda nb, code: set_source(code[1], "path = 'pytorch_model.bin'")),
    ("safe_code", lambda nb, code: set_source(code[1], "from pickle import load")),
    ("safe_code", lambda nb, code: set_source(code[1], "load('x', use_safetensors=False)")),
    ("safe_code", lambda nb, code: set_source(code[1], "huggingface_hub.notebook_login()")),
    ("safe_code", lambda nb, code: set_source(code[1], "from IPython import display as d; d.clear_output()")),
    ("safe_code", lambda nb, code: set_source(code[1], "widgets.Output()")),
    ("safe_code", lambda nb, code: set_source(code[1], "print(")),
    ("in_helpers", lambda nb, code: tag_in_helpers(code[1], "def no_such_function(): pass")),
    ("in_helpers", lambda nb, code: tag_in_helpers(code[1], "def start(): return 'something else'")),
    ("in_helpers", lambda nb, code: tag_in_helpers(code[1], "print(1)")),
]


LOOP = "for x in [1, 2]:\n    print(x)\n"
LESSON = "| 07 | [How low is low rank?](07_how_low_is_low_rank.ipynb) | ready |\n"
TABLE = "| | Lesson | |\n|---|---|---|\n" + LESSON
BAD += [
    ("no_marks", lambda nb, code: set_source(nb.cells[2], "It is @BEST@ here.")),
    ("no_marks", lambda nb, code: set_source(nb.cells[2], "| belief | @QV@ |")),
    ("no_marks", lambda nb, code: set_source(code[1], "x = 1  # TODO")),
    ("no_marks", lambda nb, code: code[1].outputs.append(out(text="FIXME: 3 rows\n"))),
    ("no_marks", lambda nb, code: code[1].outputs.append(out(text_html="<b>@name@</b>"))),
    ("no_marks", lambda nb, code: code[2].outputs[0].metadata["image/png"].update(alt="XXX")),
    ("outcomes", lambda nb, code: set_source(code[1], 'outcome("bits", 4)\nprint("four")')),
    ("outcomes", lambda nb, code: set_source(code[1], 'answer = outcome("bits", 4)')),
    ("nothing_twice", lambda nb, code: set_source(code[1], "total = sum(all_values)\n" * 2)),
    ("nothing_twice", lambda nb, code: set_source(code[1], "if x:" + "\n    print(total, of_what)" * 2)),
    ("nothing_twice", lambda nb, code: set_source(code[1], LOOP + LOOP.replace("1, 2", "1, 2, 3"))),
    ("nothing_twice", lambda nb, code: code[1].outputs.append(out(text="01  50 minutes, pocket\n2\n" * 3))),
    ("nothing_twice", lambda nb, code: code[1].outputs.append(out(text="every line is exact: True\n" * 2))),
    ("nothing_twice", lambda nb, code: code[1].outputs.append(out(text_plain="01  50 minutes, pocket\n2\n" * 3))),
    ("nothing_twice", lambda nb, code: set_source(nb.cells[2], TABLE + LESSON)),
    ("nothing_twice", lambda nb, code: set_source(nb.cells[2], TABLE + "| 08 | **How low is low rank?** | to come |")),
    ("nothing_twice", lambda nb, code: set_source(nb.cells[2], TABLE + "| **07** | Another | to come |")),
    ("nothing_twice", lambda nb, code: set_source(nb.cells[2], TABLE + "| 8 | [x](07_how_low_is_low_rank.ipynb) | |")),
]


def tag_in_helpers(cell, text):
    set_source(cell, text)
    cell.metadata["tags"] = ["in-helpers"]


def test_good_notebook_keeps_every_rule():
    assert rules.problems(good(), PATH) == rules.advice(good(), PATH) == []


def test_an_explorer_with_its_still_frame_is_well():
    notebook = good()
    rules.code_cells(notebook)[1].outputs.append(explorer(BlockExplorer().still()))
    assert rules.problems(notebook, PATH) == []


def test_the_first_lessons_need_not_ask_about_earlier_ones():
    notebook = good()
    set_source(notebook.cells[3], "Nothing to ask.")
    assert list(rules.recall(notebook, Path("01_good.ipynb"))) == [] != list(rules.recall(notebook, PATH))
    set_source(notebook.cells[0], "# A title")
    assert list(rules.place(notebook, Path("00_good.ipynb"))) == [] != list(rules.place(notebook, Path("01_x.ipynb")))


def test_every_explorer_is_known_to_the_rule_of_still_frames():
    modules = {path.stem for path in (ROOT / "helpers" / "explorers").glob("*.py")}
    assert len(rules.explorer_texts()) == len(modules - {"__init__", "checks", "frame", "keys", "moving", "still"})


def test_what_is_folded_is_folded_in_every_editor():
    notebook = good()
    drawn, heading = rules.code_cells(notebook)[2], notebook.cells[2]
    set_source(drawn, "# @title A line\nshow(fig, alt='A line.')")
    set_source(heading, "### Digression: why?")
    drawn.metadata["tags"], heading.metadata["tags"] = ["hide-input"], ["digression"]
    notebook = canonical.canonical(notebook)
    assert rules.problems(notebook, PATH) == []
    assert rules.code_cells(notebook)[2].metadata == {
        "cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["hide-input"]}
    assert notebook.cells[2].metadata == {"jp-MarkdownHeadingCollapsed": True, "tags": ["digression"]}


def test_a_workbook_has_two_exercises_and_a_lesson_four():
    notebook, workbook = good(), Path("notebooks/15_good.ipynb")
    last = notebook.cells[-1].source
    for count, enough in ((4, True), (2, True), (1, False)):
        set_source(notebook.cells[-1], last.replace("### ★★ Spot the bug · 8 min\n", "", 4 - count))
        assert (list(rules.exercises(notebook, workbook)) == []) is enough
        assert (list(rules.exercises(notebook, PATH)) == []) is (count == 4)


def test_effort_counts_exercises_tasks_and_digressions_apart():
    code, drawn = new_code_cell("1"), new_code_cell("2", metadata={"tags": ["hide-input"]})
    notebook = new_notebook(cells=[
        new_markdown_cell("# T"), code, drawn, new_markdown_cell("### Write it · 4 min"), code,
        new_markdown_cell("### Digression: more"), code, new_markdown_cell("### ★ An exercise · 7 min\n\nthree words"),
        code, new_markdown_cell("## Sources\n\nthe end")])
    found = effort.measure(notebook)
    assert found == effort.Effort(words=2 + 6 + 4, cells=3, folded=1, exercises=1, tasks_minutes=4, exercise_minutes=7)
    assert found.minutes == 10 and found.card == "20 minutes: 10 to read and run, 10 for the exercise"
    assert found.short == "10 + 10 min" and found.too_long == []


LONG = ()  # written before there was a frame, and still longer than it
NO_EXERCISES_CUT = ()  # their exercises take 40 to 50 minutes


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_lesson_keeps_to_its_frame(path):
    too_long = effort.measure(nbformat.read(path, as_version=4)).too_long
    if path.name[:2] in NO_EXERCISES_CUT:
        too_long = [excess for excess in too_long if "exercises" not in excess]
    assert bool(too_long) == (path.name[:2] in LONG), too_long or "it keeps to its frame now: take it off the list"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_readme_says_the_times_of_the_cards(path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert effort.in_readme(readme, path.name, "another") != readme, "README has no row for it"
    assert effort.in_readme(readme, path.name, effort.measure(nbformat.read(path, as_version=4)).short) == readme


@pytest.mark.parametrize("text", [
    "@torch.no_grad()\ndef f(x): ...\n@cache\ndef g(): ...", "write to eve@example.org or @eve@example.org",
    "y = x @ W @ A @ B", "git clone git@github.com:o/r", "`# to do` is two words",
    '<img src="data:image/png;base64,/XXX+/">'])
def test_what_is_no_mark(text):
    assert leftovers.marks(text) == []


@pytest.mark.parametrize("code", [
    "x.step()\ny = 1\nx.step()", "torch.manual_seed(0)\na = f()\ntorch.manual_seed(0)\nb = f()",
    "for a in x:\n    print(a)\nfor b in x:\n    print(b)", "if a:\n    total = sum(v)\nelse:\n    total = sum(v)"])
def test_what_may_stand_twice_in_code(code):
    assert leftovers.repeated_statements(ast.parse(code)) == []


@pytest.mark.parametrize("text", [
    "sentences  ['He lives there.']\nwords  ['there']\nsentences  ['He lives there.']\n",  # there and back again
    "yes: True\n" * 3, "0.125 0.250 0.500 1.000 2.000\n" * 3, "-" * 30 + "\nabc\n" + "-" * 30])
def test_what_may_stand_twice_in_an_output(text):
    assert leftovers.repeated_lines(text) == []


@pytest.mark.parametrize("text", [
    TABLE + "\n" + TABLE, TABLE + LESSON.replace("7", "8").replace("low", "high"),
    "| format | bits |\n|---|---|\n| NF4 | 4 |\n| FP4 | 4 |\n| NF4 | 4.13 |\n"])
def test_what_may_stand_twice_in_tables(text):
    assert leftovers.repeated_rows(text, ("NF4", "How low is low rank?")) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")), ids=lambda path: path.name)
def test_other_texts_have_no_marks_and_no_lesson_twice(path):
    text = path.read_text(encoding="utf-8")
    assert leftovers.marks(text) == [] and leftovers.repeated_rows(text, leftovers.titles()) == []


@pytest.mark.parametrize("rule, change", BAD, ids=[f"{n:02}-{rule}" for n, (rule, _) in enumerate(BAD)])
def test_rule_refuses(rule, change):
    assert list(getattr(rules, rule)(broken(change), PATH))


def test_every_rule_is_seen_to_refuse():
    assert {rule for rule, _ in BAD} == {rule.__name__ for rule in rules.RULES + rules.ADVICE}


def test_in_helpers_accepts_the_same_code_with_another_docstring():
    path = ROOT / "helpers" / "__init__.py"
    start = next(node for node in ast.parse(path.read_text(encoding="utf-8")).body
                 if isinstance(node, ast.FunctionDef) and node.name == "start")
    assert ast.get_docstring(start)
    start.body[0] = ast.Expr(ast.Constant("Another docstring."))
    notebook = broken(lambda nb, code: tag_in_helpers(code[1], ast.unparse(start)))
    assert list(rules.in_helpers(notebook, PATH)) == []
