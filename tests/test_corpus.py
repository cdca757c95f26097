"""Answers that nobody registered: no wrong one is accepted, unusual right ones are, and enough slips are named.

How the judgements are made: tests/judge.py."""

from collections import Counter

import pytest
from judge import FIRST, JUDGEMENTS, answers, first_seen, judged, said, verdict

from helpers.exercises import registry

NAMED = 0.9  # of the wrong answers, at least: cards were mended upon them
NAMED_FIRST = 0.85  # of those whose cards were judged before (of 117 earlier ones, in corpus/second.py, 87 were)
ANSWERS = answers()
WRONG = [key for key, answer in ANSWERS.items() if not answer.right]
RIGHT = [key for key, answer in ANSWERS.items() if answer.right]


def test_every_exercise_has_its_answers():
    counts = Counter((answer.exercise, answer.right) for answer in ANSWERS.values())
    for name in registry.exercises():
        assert counts[name, False] >= 5 and counts[name, True] >= 2, name
    assert {name for name, _ in counts} == set(registry.exercises()), "an answer to no exercise"


@pytest.mark.parametrize("key", WRONG)
def test_wrong_answer_is_refused_and_its_card_judged(key):
    card, entry = verdict(ANSWERS[key]), judged().get(key)
    assert card.status not in ("correct", "unattempted", "unknown"), ANSWERS[key].says
    assert entry and entry["judgement"] in JUDGEMENTS, "not judged yet: python tests/judge.py --open"
    assert entry["said"] == said(card), "it says something else than what was judged: judge it again"


@pytest.mark.parametrize("key", RIGHT)
def test_right_answer_is_accepted(key):
    card = verdict(ANSWERS[key])
    assert card.status == "correct", (ANSWERS[key].says, card)


def test_most_slips_are_named():
    counts = Counter(entry["judgement"] for key, entry in judged().items() if key in ANSWERS)
    assert sum(counts.values()) == len(WRONG)
    assert counts["names"] >= NAMED * len(WRONG), counts
    first = first_seen(judged())
    assert first.keys() <= set(FIRST) and first.total() == 2 * len(registry.exercises())
    assert first["names"] >= NAMED_FIRST * first.total(), first
