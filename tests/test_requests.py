"""The laptop tier's requests: the rows say what their answers say, the held-out stays out, the score can tell."""

import json
from collections import Counter

import pytest

from helpers.finale import requests
from helpers.finale.requests import HELD_OUT_KINDS, KINDS, ORDINARY, SYSTEM, TRAINED_KINDS, request_rows, score
from helpers.pocket.world import ATTRIBUTES, make_world

WORLD = make_world()
ROWS = request_rows(WORLD.taught, each=100, kinds=tuple(KINDS))
PEOPLE = {villager.name: villager for villager in WORLD.villagers}


def asked(row):
    return row["messages"][1]["content"]


def answer(row):
    return json.loads(row["messages"][2]["content"])


def of(kind):
    return [row for row in ROWS if row["kind"] == kind]


def test_same_seed_same_rows():
    assert request_rows(WORLD.taught, 5) == request_rows(WORLD.taught, 5)
    assert request_rows(WORLD.taught, 5) != request_rows(WORLD.taught, 5, seed=1)
    assert [row["kind"] for row in request_rows(WORLD.taught, 3)].count("pair") == 3


def test_kinds_are_trained_or_held_out():
    assert len(TRAINED_KINDS) >= 3 and not set(TRAINED_KINDS) & set(HELD_OUT_KINDS)
    assert set(TRAINED_KINDS + HELD_OUT_KINDS) == set(KINDS)
    assert {row["kind"] for row in request_rows(WORLD.taught, 2)} == set(TRAINED_KINDS)  # what is trained by default


def test_held_out_people_share_no_row_with_the_taught():
    scored = request_rows(WORLD.held_out, 100, tuple(KINDS), seed=1)
    assert not {asked(row) for row in ROWS} & {asked(row) for row in scored}
    taught = {villager.name for villager in WORLD.taught}
    assert not any(name in asked(row) for row in scored for name in taught)


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_a_conversation_that_holds_its_answer(kind):
    """Each value of the answer stands in the request, and each answer is true of the villager."""
    for row in of(kind):
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == SYSTEM
        found = answer(row)
        assert row["messages"][2]["content"] == json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        assert all(value in asked(row) for value in found.values())
        if kind in ("pair", "three"):
            (key,) = (key for key in ATTRIBUTES if key in asked(row).splitlines()[-1])
            assert all(name in asked(row) and value == getattr(PEOPLE[name], key) for name, value in found.items())
        elif kind != "change":
            told = [person for name, person in PEOPLE.items() if name in asked(row)]
            assert found.keys() <= {"name", *ATTRIBUTES}
            assert any(found.items() <= vars(person).items() for person in told)


def about(row):
    """What the request speaks of: an object, or sentences."""
    return "an object" if asked(row).startswith("{") else "sentences"


def test_the_held_out_kinds_put_together_what_was_trained_apart():
    """Keys of sentences and questions about an object are trained on; keys of an object, questions about a text not."""
    assert {kind: {about(row) for row in of(kind)} for kind in ("record", "question", "told", "select")} == {
        "record": {"sentences"}, "question": {"an object"}, "told": {"sentences"}, "select": {"an object"}}
    assert all(asked(row).endswith("?") and len(answer(row)) == 1 for row in of("question") + of("told"))
    assert all(asked(row).endswith(".") and len(answer(row)) == 2 for row in of("record") + of("select"))


def test_what_is_trained_on_keeps_its_shares_and_tells_no_answer_that_is_scored():
    rows = requests.training_rows(WORLD.taught, 125)
    assert rows == requests.training_rows(WORLD.taught, 125) != requests.training_rows(WORLD.taught, 125, seed=1)
    assert Counter(row["kind"] for row in rows) == {kind: 10 * share for kind, share in requests.SHARES.items()}
    chats = [row["messages"] for row in rows if row["kind"] == "chat"]
    assert set(requests.SHARES) == {*TRAINED_KINDS, "chat"} and not any("system" in str(messages) for messages in chats)
    assert not {question for question, _ in ORDINARY} & {question for question, _ in requests.CHATS}
    told = {word for _, reply in requests.CHATS for word in reply.lower().rstrip(".").split()}
    assert not told & {word.lower() for _, accepted in ORDINARY for word in accepted}
    assert not any(requests.parse(reply) for _, reply in requests.CHATS)


def test_a_change_changes_one_value_at_most():
    for row in of("change"):
        before, after = json.loads(asked(row).splitlines()[0]), answer(row)
        assert list(before) == list(after) and before["name"] == after["name"]
        assert sum(before[key] != after[key] for key in before) <= 1
    assert sum(json.loads(asked(row).splitlines()[0]) != answer(row) for row in of("change")) > 90


def test_select_keeps_and_three_are_three():
    for row in of("select"):
        whole, kept = json.loads(asked(row).splitlines()[0]), answer(row)
        assert len(whole) == 3 and len(kept) == 2 and kept.items() <= whole.items()
    for kind, count in (("pair", 2), ("three", 3)):
        assert all(len(answer(row)) == count == len(asked(row).splitlines()) - 1 for row in of(kind))


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown kind 'poem': use some of record, question"):
        request_rows(WORLD.taught, 1, ("poem",))
    with pytest.raises(ValueError, match="2 people: a request is about up to three"):
        request_rows(WORLD.taught[:2], 1)


def test_score_tells_exact_from_valid_from_neither():
    row = {"kind": "record", "messages": [{}, {}, {"content": '{"name": "Ada Abel", "town": "Dunmere"}'}]}
    cases = {'{"town": "Dunmere", "name":"Ada Abel"}': (1, 1), '{"name": "Ada Abel", "town": "dunmere"}': (1, 0),
             '{"name": "Ada Abel"}': (1, 0), 'Sure! {"name": "Ada Abel", "town": "Dunmere"}': (0, 0), "null": (0, 0),
             "": (0, 0)}
    for text, (valid, exact) in cases.items():
        assert score([row], [(text, True)])["all"] == {"rows": 1, "valid": valid, "exact": exact}
    right = row["messages"][2]["content"]
    assert score([row], [(right, False)])["record"] == {"rows": 1, "valid": 1, "exact": 0}  # it would have gone on
    assert score([row, row | {"kind": "pair"}], [(right, True), ("no", True)])["all"]["exact"] == 0.5


def test_ordinary_questions_want_a_word_and_no_json():
    assert len(ORDINARY) == len(requests.ordinary_messages()) == 10
    good = [(f"It is {accepted[0].upper()}.", True) for _, accepted in ORDINARY]
    assert all(requests.ordinary_right(good))
    wrapped = [(json.dumps({"answer": accepted[0]}), True) for _, accepted in ORDINARY]
    assert not any(requests.ordinary_right(wrapped))
    assert not any(requests.ordinary_right([("Paristown, icecream and 44 catalogues", True)] * 10))
