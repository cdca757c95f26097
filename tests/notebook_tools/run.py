"""`make notebooks`: run notebooks from top to bottom and write them in canonical form.

    python -m notebook_tools.run notebooks/10_fine_tuning_llama_2.ipynb
    python -m notebook_tools.run --check notebooks/*.ipynb

A notebook in which a cell fails is left as it was. `--check` runs nothing: it says which files are not canonical.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from notebook_tools import canonical, environment, rules


def execute(path: Path, timeout: int = 300) -> str:
    """Run the notebook in its own folder and return the canonical text. Raises nbclient's error of the failing cell."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return executed(notebook, path.parent, timeout)


def executed(notebook: nbformat.NotebookNode, folder: Path, timeout: int = 300) -> str:
    """Run a notebook without outputs in that folder, and return the canonical text."""
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}},
        record_timing=False, store_widget_state=False, coalesce_streams=True)
    return canonical.text(client.execute())


def write(path: Path, content: str) -> None:
    """Replace the file in one step: a reader finds the old notebook or the new one, never half of one."""
    temporary = path.with_suffix(".ipynb.part")
    temporary.write_text(content, encoding="utf-8", newline="\n")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make notebooks", description=__doc__.split("\n\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="run nothing; fail if a file is not in canonical form")
    parser.add_argument("--timeout", type=int, default=300, help="seconds for a cell (default 300)")
    options = parser.parse_args(arguments)
    environment.apply()
    failed = 0
    for path in options.notebooks:
        if not path.is_file():
            print(f"{path}: no such notebook", file=sys.stderr)
            failed += 1
        elif options.check:
            if not canonical.is_canonical(path):
                print(f"{path}: not in canonical form; run: make notebooks NB={path}")
                failed += 1
        else:
            failed += not _make(path, options.timeout)
    return 1 if failed else 0


def _make(path: Path, timeout: int) -> bool:
    start = time.monotonic()
    try:
        content = execute(path, timeout)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"{path}: a cell failed; the file is left as it was.\n{error}", file=sys.stderr)
        return False
    write(path, content)
    print(f"{path}: {time.monotonic() - start:.0f} s, {len(content.encode()) / 1024:.0f} kB")
    notebook = nbformat.reads(content, as_version=4)
    for problem in rules.problems(notebook, path):
        print(f"  still to mend: {problem}")
    for remark in rules.advice(notebook, path):
        print(f"  to consider: {remark}")
    return True


if __name__ == "__main__":
    sys.exit(main())
