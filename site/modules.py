"""A page for each module of helpers/, from its docstrings, which are Markdown: read, not imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPENING = """# The course's own code

What the lessons import, one module per idea, in the words of its docstrings. The exercises' solutions are not here: a
notebook gives them to you, by `solution("name")`.

| Module | What it is |
|---|---|
"""


def names() -> dict[str, Path]:
    """The modules with a page, by name: all but commands and those that hold the exercises' solutions."""
    paths = (path for path in sorted((ROOT / "helpers").rglob("*.py"))
             if path.name != "__main__.py" and not any(part.startswith("lesson_") for part in path.parts))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def write(folder: Path) -> None:
    """The pages, and one that lists them with the first lines of their docstrings."""
    folder.mkdir()
    rows = []
    for name, path in names().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        said = ast.get_docstring(tree) or ""
        rows.append(f"| [{name}]({name}.md) | {escape(said.partition(chr(10))[0])} |\n")
        parts = ["---\norphan: true\n---", f"# {name}", f"```{{py:module}} {name}\n```", escape(said), *members(tree)]
        (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (folder / "index.md").write_text(OPENING + "".join(rows), encoding="utf-8")


def members(tree: ast.Module | ast.ClassDef) -> Iterator[str]:
    """MyST directives for the public functions and classes of a module, or the public methods of a class."""
    inside = isinstance(tree, ast.ClassDef)
    for node in tree.body:
        said = ast.get_docstring(node) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
        if said is None or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
        if isinstance(node, ast.ClassDef):
            kind, signature, body = "class", fields(node, decorators), list(members(node))
        else:
            kind, signature, body = "method" if inside else "function", arguments(node, inside), []
        if decorators & {"property", "cached_property"}:
            kind, signature = "property", f":type: {ast.unparse(node.returns)}" if node.returns else ""
        head = f"{node.name}\n{signature}" if kind == "property" else f"{node.name}{signature}"
        fence = "::::" if body else ":::"
        yield "\n\n".join([f"{fence}{{py:{kind}}} {head}\n", escape(said), *body, fence])


def arguments(node: ast.FunctionDef, inside: bool) -> str:
    if inside and "staticmethod" not in map(ast.unparse, node.decorator_list):
        (node.args.posonlyargs or node.args.args).pop(0)  # self
    return f"({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def fields(node: ast.ClassDef, decorators: set[str]) -> str:
    """What a class is called with: its __init__'s arguments, or a dataclass's fields."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return arguments(method, inside=True).partition(" -> ")[0]
    if not any(decorator.endswith("dataclass") for decorator in decorators):
        return ""
    return "(" + ", ".join(ast.unparse(field) for field in node.body if isinstance(field, ast.AnnAssign)) + ")"


def escape(said: str) -> str:
    """Markdown without formulas and HTML, which docstrings do not have: `$` is a dollar, `<` less than."""
    return re.sub(r"(^    .*$|`[^`]+`)|([$<])", lambda m: m[1] or f"\\{m[2]}", said, flags=re.MULTILINE)
