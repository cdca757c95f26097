"""Python source of cells and modules as syntax trees, and what the rules ask of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

PICKLE = {"torch.load", "torch.save", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "joblib.load"}
DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
UNSTABLE = {"Output", "clear_output", "interact", "interactive", "interactive_output", "update_display"}


def parse(source: str) -> ast.Module:
    """The syntax tree of a cell's source, magics turned into calls first. Raises SyntaxError."""
    return ast.parse(TransformerManager().transform_cell(source))


def dotted(node: ast.AST) -> str:
    """`torch.load` for the node of `torch.load`; "" for what is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{left}.{node.attr}" if (left := dotted(node.value)) else ""
    return ""


def unsafe(tree: ast.Module) -> list[str]:
    """What would run foreign code or leak a token: trust_remote_code, pickles, notebook_login."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            found.append("trust_remote_code= runs code from the hub: leave it out, no model of the course needs it")
        elif isinstance(node, ast.keyword) and node.arg == "use_safetensors" and _is(node.value, False):
            found.append("use_safetensors=False asks for pickled weights: take a model with safetensors")
        elif isinstance(node, ast.Call) and dotted(node.func) in PICKLE:
            found.append(f"{dotted(node.func)} pickles: use safetensors")
        elif isinstance(node, ast.Import | ast.ImportFrom) and "pickle" in imported(node):
            found.append("import of pickle: use safetensors or json")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith((".bin", ".pkl")):
            found.append(f"{node.value!r} is a pickle: use safetensors")
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == "notebook_login":
            found.append("notebook_login() in a notebook: take the token from the environment (HF_TOKEN)")
    return found


def unstable(tree: ast.Module) -> list[str]:
    """Calls whose output strict nbval cannot compare."""
    names = {dotted(node.func).split(".")[-1] for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return [f"{name}() cannot be compared by strict nbval: use observe and an HTML value"
            for name in sorted(names & UNSTABLE)]


def asserts(tree: ast.Module) -> bool:
    """Whether an assert statement stands anywhere in the tree."""
    return any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that an import statement names, `from . import x` as `.x`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = "." * node.level + (node.module or "")
    return [base] if node.module else [base + alias.name for alias in node.names]


def definitions(tree: ast.Module) -> dict[str, str]:
    """The functions, classes and constants at the top of a module: name → syntax tree without docstrings, as text."""
    found = {}
    for node in tree.body:
        if isinstance(node, DEFINITION):
            found[node.name] = ast.dump(_without_docstrings(node))
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.dump(node)
    return found


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, DEFINITION) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


def _is(node: ast.AST, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def program(notebook: Path, until: str) -> list[str]:
    """The code cells before the markdown heading `until`, each as plain Python. ValueError without such a heading."""
    cells = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown" and re.search(rf"^## {re.escape(until)}", cell.source, re.M):
            return cells
        if cell.cell_type == "code":
            cells.append(TransformerManager().transform_cell(cell.source))
    raise ValueError(f"{notebook.name} has no heading {until!r}")
