"""The helpers run no foreign code, and the checkout stays small. Their order is import-linter's: see pyproject.toml."""

import ast
import subprocess
from pathlib import Path

import pytest
from notebook_tools import rules, source

ROOT = rules.ROOT
HELPERS = sorted((ROOT / "helpers").rglob("*.py"))

MEGABYTE = 1024 * 1024
REFUSES = ("finale/sharing.py",)  # it names pickles in order to leave them out


@pytest.mark.parametrize("path", HELPERS, ids=lambda path: path.relative_to(ROOT / "helpers").as_posix())
def test_helper_runs_no_foreign_code(path):
    code = path.read_text(encoding="utf-8")
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
    assert sum(sizes.values()) < 12 * MEGABYTE, sorted(sizes.items(), key=lambda item: -item[1])[:5]
