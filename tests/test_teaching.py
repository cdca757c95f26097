"""TEACHING.md: its plans are sums of the lessons' own times, and it names what exists."""

import re
from pathlib import Path

import nbformat
import pytest
from notebook_tools import effort

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "TEACHING.md").read_text(encoding="utf-8")
LESSONS = {path.name[:2]: nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
PLANS = re.findall(r"<!-- plan: (\d+) minutes -->\n((?:\|.*\n)+)", TEXT)


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def builds(lesson: str) -> int:
    """Minutes of the exercises in the lesson's flow, before its part "Exercises"."""
    text = "\n".join(cell.source for cell in LESSONS[lesson].cells if cell.cell_type == "markdown")
    return sum(map(int, re.findall(r"^### ★.*· (\d+) min$", text.split("\n## Exercises")[0], re.MULTILINE)))


def minutes(what: str) -> int | None:
    """What a row of a plan must take, if it is about a lesson."""
    found = re.match(r"Lesson (\d\d)(, (builds|exercises))?$", what)
    if not found:
        return None
    if found[3] == "builds":
        return builds(found[1])
    measured = effort.measure(LESSONS[found[1]])
    read, exercises = map(int, re.findall(r"\d+", measured.short))
    return exercises if found[3] else read


@pytest.mark.parametrize("total, table", PLANS, ids=[f"plan {n}" for n in range(len(PLANS))])
def test_a_plan_adds_up(total, table):
    clock = start = None
    for begins, lasts, what, _ in rows(table):
        hours, mins = map(int, begins.split(":"))
        if start is None:
            clock = start = 60 * hours + mins
        assert clock == 60 * hours + mins, f"{what} begins at {clock // 60}:{clock % 60:02}, not at {begins}"
        assert minutes(what) in (None, int(lasts)), f"{what} takes {minutes(what)} minutes, not {lasts}"
        clock += int(lasts)
    assert clock - start == int(total)


def test_half_a_day_two_days_and_six_weeks():
    assert [int(total) for total, _ in PLANS] == [240, 480, 480]
    weeks = re.findall(r"^\| (\d) \| (.*)$", TEXT, re.MULTILINE)
    assert [int(week) for week, _ in weeks] == [1, 2, 3, 4, 5, 6]
    named = {number for _, row in weeks for number in re.findall(r"\b(\d\d)\b", row)}
    assert named == set(LESSONS), "a lesson is missing in the six weeks, or one is named that is not there"


def needed(lesson: str) -> set[str]:
    """The lessons that a card asks for: "04 to 06" are three."""
    you_need = LESSONS[lesson].cells[0].source.strip().splitlines()[-1].split("|")[2]
    spans = re.findall(r"(\d\d)(?: to (\d\d))?", you_need)
    return {f"{n:02}" for first, last in spans for n in range(int(first), int(last or first) + 1)}


def test_what_a_lesson_needs_is_what_its_card_says():
    rows = re.findall(r"^\| (\d\d(?:, \d\d)*) \| (\d\d(?:, \d\d)*) \|$", TEXT, re.MULTILINE)
    told = {lesson: set(re.findall(r"\d\d", b)) for a, b in rows for lesson in re.findall(r"\d\d", a)}
    assert told == {lesson: needed(lesson) for lesson in LESSONS if needed(lesson)}


def test_it_names_what_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"`make ([a-z]+)`", TEXT))
    assert called <= targets, f"no such target: {called - targets}"
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert link.startswith("https://") or (ROOT / link).exists(), link
