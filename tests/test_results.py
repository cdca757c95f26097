"""COURSE_RESULTS: what is kept of a check, where, and that nothing of it can break a check."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from helpers.exercises import registry, results
from helpers.exercises.lesson_00.sizes import model_bytes as ours


def model_bytes(parameters: int, bits: int) -> int:
    ...


def wrong(parameters: int, bits: int) -> int:
    return parameters * bits


def right(parameters: int, bits: int) -> int:
    return (parameters * bits + 7) // 8


wrong.__name__ = right.__name__ = "model_bytes"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(results, "_tries", type(results._tries)())
    monkeypatch.delenv("COURSE_RESULTS", raising=False)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_check_adds_a_line_and_nothing_else(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.jsonl"
    monkeypatch.setenv("COURSE_RESULTS", str(path))
    before = datetime.now(UTC).replace(microsecond=0)
    for function in (model_bytes, wrong, right):
        registry.check(function)
    registry.check(lambda x: x)  # no exercise: not kept
    kept = lines(path)
    assert [(line["status"], line["tries"]) for line in kept] == [("unattempted", 0), ("wrong", 1), ("correct", 2)]
    for line in kept:
        assert list(line) == ["lesson", "exercise", "status", "tries", "time"]
        assert (line["lesson"], line["exercise"]) == (0, "model_bytes")
        assert before <= datetime.fromisoformat(line["time"]) <= datetime.now(UTC)
    assert capsys.readouterr() == ("", "")


def test_it_is_off_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert registry.check(right).status == "correct" and list(tmp_path.iterdir()) == []


def test_what_stands_in_the_file_stays_and_a_line_that_broke_off_is_ended(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"lesson": 3}\n{"less')
    monkeypatch.setenv("COURSE_RESULTS", str(path))
    registry.check(right)
    first, broken, new = path.read_text().splitlines()
    assert (first, broken) == ('{"lesson": 3}', '{"less') and json.loads(new)["status"] == "correct"


@pytest.mark.parametrize("name", [".", "no/such/folder/results.jsonl", "nul\0byte"])
def test_a_path_that_cannot_be_written_is_named_and_the_check_goes_on(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results.os.environ, "get", lambda *_: name)  # a NUL cannot be set in a real environment
    assert registry.check(right).status == "correct"
    said = capsys.readouterr().out
    assert said.startswith(f"COURSE_RESULTS={name}: ") and "not kept" in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_courses_own_function_is_not_taken_for_the_students():
    verdict = registry.check(ours)
    assert (verdict.mark, verdict.status) == ("○", "unattempted") and "course's own" in verdict.title
    assert registry.check(right).status == "correct"
