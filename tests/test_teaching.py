"""TEACHING.md: its plans are sums of the lessons' own times, and it names what exists."""

import re
from pathlib import Path

import nbformat
import pytest
from notebook_tools import decks, effort

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


def courses() -> dict[str, list[str]]:
    """The lessons that each part of the page with a plan gives, in their order: at home and in talks as well."""
    found = {}
    for part in TEXT.split("\n## ")[1:]:
        lines = [line for table in re.findall(r"<!-- plan.*\n((?:\|.*\n)+)", part) for line in table.splitlines()]
        given = [lesson for line in lines for lesson in re.findall(r"\| Lesson (\d\d)\b", line)]
        weeks = re.findall(r"^\| \d \| (.*)$", part, re.MULTILINE)
        given += [lesson for week in weeks for lesson in re.findall(r"\b(\d\d)\b", week)]
        if given:
            found[part] = given
    return found


@pytest.mark.parametrize("part", courses(), ids=lambda part: part.partition("\n")[0])
def test_a_plan_gives_what_its_lessons_need_or_names_what_it_leaves_out(part):
    """`Lesson 01 is left out`, or `14 needs lesson 11`: and then the words say what to do about it."""
    given, words = set(), " ".join(part.split())
    left_out = set(re.findall(r"Lesson (\d\d) is left out", words))
    for lesson in courses()[part]:
        missing = {n for n in needed(lesson) - given - left_out if f"{lesson} needs lesson {n}" not in words}
        assert not missing, f"lesson {lesson} needs {missing}, which nobody was given before"
        given.add(lesson)
    assert len(courses()) == 3 and not left_out & given


def test_a_slide_that_is_named_is_in_the_deck_at_that_minute():
    found = re.findall(r'Lesson (\d\d) \| deck to slide (\d+), "([^"]+)" \((\d+) min\)', TEXT)
    assert len(found) == TEXT.count("deck to ") > 0
    for lesson, number, title, last in found:
        (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
        slides = decks.read(path).slides[:int(number)]
        assert slides[-1].title == title and 0 <= sum(slide.minutes for slide in slides) - int(last) < 1


def test_it_names_what_is_there():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called = set(re.findall(r"`make ([a-z]+)`", TEXT))
    assert called <= targets, f"no such target: {called - targets}"
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", TEXT):
        assert link.startswith("https://") or (ROOT / link).exists(), link
