"""The committed notebooks keep the rules of the course; and each rule can say no."""

import ast
import copy
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_tools import canonical, rules, run

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

def good():
    first = "# A title\n\nA promise.\n\n" + " ".join(rules.badges(PATH.name)) + "\n\n" + " · ".join(rules.CARD)
    parts = [f"## {part}" for part in rules.PARTS]
    last = "\n".join([parts[0], *["### ★★ Spot the bug · 8 min"] * 4, *parts[1:]])
    figure = new_output("display_data", {"image/png": "aGk=", "text/plain": "A line."},
                        metadata={"image/png": {"alt": "A line."}})
    cells = [
        new_markdown_cell(first), new_code_cell(rules.SETUP),
        new_markdown_cell("Why? ![a map of the course](map.svg)"),
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


SETUP_CUT = rules.SETUP.replace("; helpers.start()", "")
PATH = Path("notebooks/01_good.ipynb")
BAD = [
    ("setup_cell", lambda nb, code: set_source(code[0], SETUP_CUT)),
    ("setup_cell", lambda nb, code: nb.cells.pop(1)),
    ("first_cell", lambda nb, code: nb.cells.pop(0)),
    ("first_cell", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("01_good", "01_other"))),
    ("first_cell", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("View on GitHub", "x"))),
    ("anatomy", lambda nb, code: set_source(nb.cells[0], nb.cells[0].source.replace("Hardware", ""))),
    ("anatomy", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("## Sources", ""))),
    ("exercises", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("### ★★ Spot", "Spot", 1))),
    ("exercises", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("Spot the bug", "Think"))),
    ("exercises", lambda nb, code: set_source(nb.cells[-1], nb.cells[-1].source.replace("· 8 min", "", 1))),
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


def tag_in_helpers(cell, text):
    set_source(cell, text)
    cell.metadata["tags"] = ["in-helpers"]


def test_good_notebook_keeps_every_rule():
    assert rules.problems(good(), PATH) == rules.advice(good(), PATH) == []


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
