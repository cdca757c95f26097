"""Lesson 15's own cells, run as a script on a small file: of twelve rows three are held out, and a report ends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from notebook_tools import source

from helpers.finale import laptop
from helpers.finale.data import DESK
from helpers.finale.tiers import TIERS

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "15_your_own_fine_tune.ipynb"
THINGS = ("bread", "milk", "salt", "tea", "rice", "beans", "honey", "oats", "corn", "figs", "dates", "plums")


def run(folder: Path, until: str, last: list[dict[str, str]]) -> subprocess.CompletedProcess:
    """The cells before a heading, on twelve conversations in two steps; `last` is added to the third."""
    talks = [[{"role": "user", "content": f"Where do you keep {thing}?"},
              {"role": "assistant", "content": f"On shelf {n} of the cellar, {thing} in front."}]
             for n, thing in enumerate(THINGS)]
    talks[2] += last
    rows = folder / "mine.jsonl"
    rows.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    settings = {**os.environ, "COURSE_RUNS": str(folder / "runs"), "COURSE_TIER": "pocket", "COURSE_STEPS": "2",
                "COURSE_DATASET": str(rows), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg",
                "HF_DATASETS_CACHE": str(folder / "datasets")}
    code = "\n".join(source.program(NOTEBOOK, until))
    return subprocess.run([sys.executable, "-c", code], env=settings, cwd=folder, text=True, capture_output=True,
                          timeout=280)


def test_a_small_file_ends_in_a_report(tmp_path):
    done = run(tmp_path, "Exercises", [])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "12 rows: 9 to train on, 3 held out; no fault" in done.stdout and "take laptop" in done.stdout
    assert re.search(r"[0-3] of 3 answers as before the rounding to 16 bits", done.stdout)
    assert "right, word for word           0 of 3 →   0 of 3" in done.stdout
    (page,) = (tmp_path / "runs").glob("15-pocket/*/report.html")
    page = page.read_text(encoding="utf-8")
    assert "Not one held-out answer is right" in page and "<td>0 of 3</td>" in page
    assert page.count('<div class="case">') == 3


def test_a_fault_is_told_once_and_stops_it(tmp_path):
    done = run(tmp_path, "5 · Before", [{"role": "user", "content": "And now?"}])
    assert done.returncode == 1 and not (tmp_path / "runs").exists()
    told = "[unanswered] train row 3: a last question without an answer is left out"
    assert told in done.stderr and told not in done.stdout


@pytest.mark.parametrize(("knobs", "shipped"), [({}, True), ({"epochs": 1}, False), ({"learning_rate": 1.0}, False)])
def test_what_the_shipped_rows_reach_is_asserted_with_the_knobs_that_ship_alone(monkeypatch, knobs, shipped):
    for name in ("COURSE_DATASET", "COURSE_MODEL", "COURSE_STEPS"):
        monkeypatch.delenv(name, raising=False)
    cells = source.program(NOTEBOOK, "Exercises")
    names = {"tier": replace(TIERS["pocket"], dataset=str(DESK), rows=160, row_tokens=80), "TIERS": TIERS, "os": os,
             "pocket": True, "laptop": laptop, "replace": replace, "DESK": DESK, "TEST": ""}
    exec(next(cell for cell in cells if cell.startswith("KNOBS = ")), names)
    names["KNOBS"] |= {name: (value, "") for name, value in knobs.items()}
    exec(next(cell for cell in cells if cell.startswith("set_to = ")).partition("report")[0], names)
    cell = next(cell for cell in cells if "shipped = " in cell)
    exec(cell[cell.index("shipped = "):cell.index("if shipped")], names)
    assert names["shipped"] == shipped
