"""Before any test or notebook kernel starts: the settings under which the committed outputs were made."""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib
import pytest
import selection
from notebook_tools import environment

environment.apply()
matplotlib.use("Agg")  # for the tests themselves; a notebook's kernel chooses its own


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="without the slow tests and notebooks of what did not change")


def pytest_configure(config: pytest.Config) -> None:
    config.changes = selection.changed() if config.getoption("--quick") else None
    if getattr(config.option, "nbval_sanitize_with", "") is None:  # where nbval is there, and was told nothing else
        config.option.nbval_sanitize_with = str(selection.ROOT / "tests" / "nbval.cfg")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.changes is None or collection_path.is_dir():
        return None
    return selection.left_out(relative(collection_path), config.changes) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The slow files first: the processes then end together. Of the exercises, if some changed, only their lessons'."""
    items.sort(key=lambda item: selection.rank(relative(item.path)))
    if not os.environ.get("WEEKLY"):
        later = [item for item in items if selection.weekly(item.nodeid, config.args)]
        if later:
            items[:] = [item for item in items if item not in later]
            config.hook.pytest_deselected(items=later)
    if config.changes is not None and (lessons := selection.lessons(config.changes)):
        from helpers.exercises import registry

        others = {name for name, exercise in registry.exercises().items() if exercise.lesson not in lessons}
        left = {item for item in items if item.path.name in ("test_exercises.py", "test_corpus.py")
                and item.name.partition("[")[2].split("/")[0].split("-")[0].rstrip("]") in others}
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=list(left))


def relative(path: Path) -> str:
    return path.relative_to(selection.ROOT).as_posix() if path.is_relative_to(selection.ROOT) else path.name


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """What was left out, and why: a skipped test must not look like one that passed."""
    if config.changes is not None:
        terminalreporter.write_line(f"quick: {len(config.changes)} files differ from where this branch left "
                                    "(origin/)main; slow tests and notebooks of the others were left out.")
    if not os.environ.get("WEEKLY"):
        terminalreporter.write_line(f"Left to the weekly run (make test WEEKLY=1): {', '.join(selection.WEEKLY)}")
    skipped = {(report.nodeid, report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))
               for report in terminalreporter.stats.get("skipped", [])}
    for name, reason in sorted(skipped):
        terminalreporter.write_line(f"LEFT OUT {name}: {reason.removeprefix('Skipped: ')}", yellow=True, bold=True)
