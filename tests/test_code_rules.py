"""The helpers keep the order of the course, run no foreign code, and the checkout stays small."""

import ast
import subprocess
from pathlib import Path

import pytest
from notebook_tools import rules, source

ROOT = rules.ROOT
HELPERS = sorted((ROOT / "helpers").rglob("*.py"))

# helpers/ reads from bottom to top like the course: a module imports only from those before it.
ORDER = ["floats", "codebooks", "quantization", "memory", "ranks", "lora", "adapters", "qlora", "pocket", "sweeps",
         "hub", "sharing", "preflight", "tiers", "runs", "figures", "records", "drawings", "explorers", "exercises"]
MEGABYTE = 1024 * 1024
REFUSES = ("sharing.py", "exercises/lesson_11/files.py")  # they name pickles in order to leave them out


def upward_imports(path: str, code: str) -> list[str]:
    """Imports by the module at `path` (below helpers/) of modules that come after it in ORDER, or are not in it."""
    own = path.removesuffix(".py").split("/")[0]
    if own == "__init__":
        return []  # the package's start() may call on everything, inside its functions
    if own not in ORDER:
        return [f"helpers/{path} has no place in the course: add it to ORDER"]
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and source.dotted(node.test).endswith("TYPE_CHECKING"):
            node.body = []  # imported for its name in an annotation, never at run time
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "helpers" and not node.level:
            names = [f"helpers.{alias.name}" for alias in node.names]
        else:
            names = source.imported(node)
        depth = path.count("/") + 1
        for name in names:
            level = len(name) - len(name.lstrip("."))
            if level and level <= depth - 1:
                continue  # inside its own folder
            parts = (["helpers", *name.lstrip(".").split(".")] if level else name.split("."))
            other = parts[1] if parts[0] == "helpers" and len(parts) > 1 else own
            if other not in ORDER or ORDER.index(other) > ORDER.index(own):
                found.append(f"helpers/{path} imports {other}, which comes after it")
    return found


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.relative_to(ROOT / "helpers").as_posix())
def test_helper_keeps_order_and_is_safe(path):
    code = path.read_text(encoding="utf-8")
    assert upward_imports(path.relative_to(ROOT / "helpers").as_posix(), code) == []
    name = path.relative_to(ROOT / "helpers").as_posix()
    assert [fault for fault in source.unsafe(ast.parse(code))
            if not (name in REFUSES and fault.endswith("is a pickle: use safetensors"))] == []


def tracked_files() -> list[Path]:
    """What git tracks, and what it would if everything were added."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_checkout_is_small():
    sizes = {path: path.stat().st_size for path in tracked_files()}
    assert len(sizes) > 10
    assert sum(sizes.values()) < 8 * MEGABYTE, sorted(sizes.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize("path, code, wrong", [
    ("floats.py", "from helpers import quantization", True),
    ("floats.py", "from helpers.quantization import x", True),
    ("floats.py", "from .quantization import x", True),
    ("floats.py", "import helpers.lora", True),
    ("floats.py", "def f():\n    from . import lora", True),
    ("pocket/world.py", "from ..exercises import x", True),
    ("mystery.py", "import math", True),
    ("quantization.py", "from helpers.codebooks import NF4", False),
    ("quantization.py", "from . import codebooks\nimport torch", False),
    ("pocket/train.py", "from .world import make_world\nfrom helpers.pocket import evaluate", False),
    ("pocket/train.py", "from ..quantization import quantize", False),
    ("preflight.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from helpers.tiers import Tier", False),
    ("__init__.py", "from helpers import figures", False),
])
def test_upward_imports(path, code, wrong):
    assert bool(upward_imports(path, code)) == wrong
