"""Reading rows of every kind, and what is wrong with them: any value in any place is good, or bad with a reason."""

import csv
import io
import json

import pytest
from datasets import Dataset
from families import family_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import GUANACO, GUANACO_REVISION, fill_hub_cache, guanaco_rows, write_guanaco

from helpers.finale.chat import encode, first_question, prepare
from helpers.finale.conversations import Conversations, split, to_conversations, to_messages
from helpers.finale.hub import HubError, look_up
from helpers.finale.look import look
from helpers.finale.rows import RowsError, read

ASKED = [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "A baker."}]
TOLD = [{"role": "system", "content": "One word."}, *ASKED]
ROWS = {
    "text": [{"text": "<s>[INST] <<SYS>>\nOne word.\n<</SYS>>\n\nWho is there? [/INST] A baker. </s>"}] * 2,
    "prompts": [{"prompt": "Who is there?", "completion": "A baker."}] * 2,
    "lists": [{"prompt": TOLD[:2], "completion": ASKED[1:]}] * 2,
    "messages": [{"messages": TOLD}] * 2,
    "json": [{"messages": json.dumps(TOLD)}] * 2,
}
NESTED = ("lists", "messages")


def write(folder, rows, kind):
    path = folder / f"rows.{kind}"
    if kind == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    elif kind in ("csv", "tsv"):
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            out = csv.DictWriter(file, rows[0], delimiter="\t" if kind == "tsv" else ";")
            out.writeheader()
            out.writerows(rows)
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---- reading

@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("shape", ROWS)
def test_every_shape_from_every_kind_of_file(shape, kind, tmp_path):
    if kind in ("csv", "tsv") and shape in NESTED:
        return  # no place for a list
    found = to_conversations(read(write(tmp_path, ROWS[shape], kind)))
    found.raise_if_bad()
    assert list(found) == [ASKED if shape == "prompts" else TOLD] * 2


@pytest.mark.parametrize("name", ["mine.jsonl", "data/mine.CSV", "/nowhere/at/all.parquet"])
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name, monkeypatch):
    monkeypatch.setattr("helpers.finale.rows.look_up", None)
    with pytest.raises(RowsError, match=r"(mine.*|all.parquet) does not exist: give the path"):
        read(name)


def test_a_folder_gives_its_training_files(tmp_path):
    for name, text in (("train-0.jsonl", "a"), ("train-1.jsonl", "b"), ("test.jsonl", "c"), ("readme.txt", "d")):
        (tmp_path / name).write_text(json.dumps({"prompt": text, "completion": text}) + "\n")
    assert [row["prompt"] for row in read(tmp_path)] == ["a", "b"]
    (tmp_path / "train-0.jsonl").rename(tmp_path / "first.jsonl")
    (tmp_path / "train-1.jsonl").rename(tmp_path / "second.jsonl")
    assert [row["prompt"] for row in read(str(tmp_path))] == ["a", "b"]
    for file in tmp_path.glob("*.jsonl"):
        file.unlink()
    with pytest.raises(RowsError, match="no file of rows"):
        read(tmp_path)


def test_from_the_hubs_cache_by_id_and_by_source(tmp_path, monkeypatch):
    """The card names the files; datasets reads them."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        read(GUANACO)
    fill_hub_cache(tmp_path / "hub", GUANACO, GUANACO_REVISION, write_guanaco(tmp_path / "made", 6), "dataset")
    assert read(GUANACO) == read(look_up(GUANACO, repo_type="dataset")) == guanaco_rows(6)


def test_a_card_that_names_files_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    write_guanaco(tmp_path / "made", 2)
    next((tmp_path / "made").rglob("*.parquet")).unlink()
    with pytest.raises(RowsError, match="(?s)README.md.*COURSE_DATASET"):
        read(tmp_path / "made")


@pytest.mark.parametrize("name, content, said", [
    ("a.jsonl", b'{"text": "x"}\n{"text": }\n', r"a.jsonl, line 2, column 10, is not JSON"),
    ("a.jsonl", b'{"text": "x"}\n\n{"text": "y"\n', r"line 3"),
    ("a.jsonl", b'{"a": }\n{"a": 1}\n{"a"\n{}', r"(?s)^a.jsonl, line 1, .*\nNor is line 3, column 5: .*\nRemedy"),
    ("a.jsonl", b"no\n" * 12, r"(?s)line 1, .*Nor is line 10, column 1: Expecting value.\nNor are 2 more.\nRemedy"),
    ("a.json", b'[{"text": "x"},\n]', r"a.json, line [12]"),
    ("a.json", b"[" * 100_000, r"a.json, line 1"),
    ("a.jsonl", '{"text": "x"}\n{"text": "Gr\u00fc\u00dfe"}'.encode("latin-1"), r"not in UTF-8: line 2 .*0xFC"),
    ("a.csv", "text\nx".encode("utf-16"), "a.csv is in UTF-16"),
    ("a.csv", b'text\n"x', "is not CSV"), ("a.csv", b"text\na, b\n", "row 1 has more fields"),
    ("a.csv", b"text\n", "holds no rows"), ("a.json", b"[]", "holds no rows"),
    ("a.jsonl", b" \n", "is empty"), ("a.csv", b"", "is empty"), ("a.txt", b"x", r"ends in \.txt.*\.jsonl"),
    ("a.parquet", b"", "no parquet"), ("a.parquet", b"PAR1 no", "no parquet"),
])
def test_files_that_cannot_be_read(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RowsError, match=said):
        read(tmp_path / name)


@pytest.mark.parametrize("rows, said", [
    ([{"instruction": "a", "output": "b"}], "columns instruction, output.*text; prompt and completion; messages"),
    ([{"prompt": "a"}], "columns prompt"), (["a", 3], "no columns"), ([], "no columns"),
])
def test_unknown_columns_are_named(rows, said):
    with pytest.raises(RowsError, match=said):
        to_conversations(rows)


# ---- good and bad rows

def user(content):
    return {"role": "user", "content": content}


def model(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize("row, why", [
    ({"messages": []}, "no question and no answer"), ({"messages": None}, "has no messages"), ({}, "has no messages"),
    ("text", "is a string, not an object"), ({"messages": 3}, "messages is a number"),
    ({"messages": "[{"}, "a string that is not JSON"), ({"messages": "3"}, "messages is a number"),
    ({"messages": [user("a")]}, "has no answer"), ({"messages": [user("a"), model(" ")]}, "an answer is empty"),
    ({"messages": [user("\n"), model("b")]}, "a question is empty"),
    ({"messages": [model("b"), user("a"), model("b")]}, "begins with an answer"),
    ({"messages": [user("a"), user("a"), model("b")]}, "two messages of one role"),
    ({"messages": [user("a"), model("b"), {"role": "system", "content": "c"}]}, "does not stand first"),
    ({"messages": [{"role": "human", "content": "a"}, model("b")]}, "unknown role 'human'"),
    ({"messages": [{"role": ["user"], "content": "a"}, model("b")]}, "unknown role"),
    ({"messages": [user(["a"]), model("b")]}, r"content of a message \(user\) is a list"),
    ({"messages": [user("a"), {"role": "assistant"}]}, "not an object with role and content"),
    ({"messages": [user("a"), model("\ud800")]}, "half a character"),
])
def test_a_bad_row_says_why(row, why):
    found = to_conversations([{"messages": ASKED}, row])
    assert len(found) == 1 and [number for number, _ in found.bad] == [2]
    with pytest.raises(RowsError, match=f"(?s)Nothing was trained. 1 of 2 rows.*row 2: .*{why}.*Remedy"):
        found.raise_if_bad()
    assert found.bad[0][1] in found.table()


@pytest.mark.parametrize("row, why", [
    ({"text": 3}, "a number, not a string"), ({"text": "Who? A baker."}, r"no \[INST\]"),
    ({"text": "[INST] a [/INST]"}, "has no answer"), ({"text": "[/INST] a [INST]"}, "out of order"),
    ({"text": "[INST] a [/INST] b [INST] c [/INST] d"}, "no </s> between"),
    ({"prompt": "a", "completion": 3}, "completion is a number"), ({"prompt": [], "completion": "b"}, "begins with"),
    ({"prompt": " ", "completion": "b"}, "a question is empty"), ({"prompt": "a", "completion": None}, "no completion"),
])
def test_a_bad_text_or_prompt_says_why(row, why):
    with pytest.raises(RowsError, match=f"row 1: .*{why}"):
        to_conversations([row]).raise_if_bad()


def test_a_last_question_without_an_answer_is_left_out_and_counted():
    found = to_conversations([{"messages": [*ASKED, user("And now?")]}, {"messages": ASKED}])
    assert list(found) == [ASKED, ASKED] and found.unanswered == (1,) and "in 1 a last question" in str(found)
    found.raise_if_bad()


def test_an_empty_system_message_is_none():
    assert to_conversations([{"messages": [{"role": "system", "content": ""}, *ASKED]}])[0] == ASKED


def test_the_shape_of_most_rows_counts():
    found = to_conversations([{"messages": ASKED}, *ROWS["prompts"]])
    assert len(found) == 2 and found.bad == ((1, "has no prompt"),)


def test_ten_are_listed_and_the_rest_counted():
    found = Conversations((), tuple((n, "<b>why</b>") for n in range(1, 14)))
    assert found.table().count("row ") == 10 and found.table().endswith("and 3 more")
    assert "&lt;b&gt;" in found._repr_html_() and "<b>why" not in found._repr_html_()


anything = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.sampled_from(
    ["user", "assistant", "system", "[INST] a [/INST] b </s>", "[]", json.dumps(ASKED)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "content", "messages", "text", "prompt", "completion"]), inner, max_size=3),
    max_leaves=8)
messages = st.lists(anything | st.fixed_dictionaries({
    "role": st.sampled_from(["user", "assistant", "system"]) | anything, "content": st.text(max_size=5) | anything}),
    max_size=4)


@settings(max_examples=300, deadline=None)
@given(st.lists(anything | st.fixed_dictionaries({"messages": messages | anything}) | st.fixed_dictionaries(
    {"prompt": messages | anything, "completion": messages | anything}) | st.fixed_dictionaries({"text": anything}),
    max_size=4))
def test_any_value_in_any_place(rows):
    """Good rows can be encoded; every other one has its number and a reason; nothing else is raised."""
    try:
        found = to_conversations(rows)
    except RowsError:
        return
    assert len(found) + len(found.bad) == len(rows)
    assert all(1 <= number <= len(rows) and why for number, why in found.bad)
    for conversation in found:
        roles = [message["role"] for message in conversation if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) != []
        assert all(message["content"].strip() for message in conversation)
    assert found.table() and found._repr_html_()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), min_size=1, max_size=4))
def test_csv_gives_back_what_was_written(pairs):
    pairs = [tuple(part.replace("\x00", "").replace("\r", "") for part in pair) for pair in pairs]
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("prompt", "completion"), *pairs])
    from helpers.finale.rows import _csv

    assert [(row["prompt"], row["completion"]) for row in _csv("a.csv", file.getvalue())] == pairs


# ---- two parts, and the look

def conversations(questions):
    return [[user(question), model(f"Answer {n}.")] for n, question in enumerate(questions)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcdefg"), min_size=2, max_size=60), st.floats(0.01, 0.9), st.integers(0, 9))
def test_no_question_is_on_both_sides(questions, share, seed):
    rows = conversations(questions)
    if len(set(questions)) == 1:
        with pytest.raises(RowsError, match="different first questions"):
            split(rows, share, seed)
        return
    train, held_out = split(rows, share, seed)
    assert sorted(map(str, train + held_out)) == sorted(map(str, rows)) and train and held_out
    assert not {first_question(row) for row in train} & {first_question(row) for row in held_out}
    assert (train, held_out) == split(rows, share, seed)


def test_split_takes_the_share_and_keeps_a_frequent_question_in_training():
    rows = conversations(["Hi!"] * 40 + [f"Question {n}" for n in range(160)])
    train, held_out = split(rows)
    assert len(held_out) == 10 and split(rows, seed=1)[1] != held_out
    assert [row for row in rows if row in train] == train
    train, held_out = split(conversations(["What is  it?", "what is it?", "Who?"]), 0.3)
    assert len(held_out) in (1, 2)
    with pytest.raises(ValueError, match="share=0"):
        split(rows, 0)


def test_the_look_counts():
    tokenizer = family_tokenizer("llama 3")
    prepare(tokenizer)
    short, long = conversations(["Who?"])[0], [user("Who?"), model("A baker. " * 30)]
    asked_long = [user("Who lives in Dunmere? " * 20), model("A baker.")]
    train, held_out = [short, short, long, asked_long], [[user("WHO? "), model("x")], [user("What?"), model("x")]]
    length = len(encode(tokenizer, short)["input_ids"])
    seen = look(train, held_out, tokenizer, length)
    assert (seen.cut, seen.stopping, seen.silent, seen.repeated, seen.overlap) == (2, 2, 1, 1, 1)
    assert seen.lengths == tuple(len(encode(tokenizer, row)["input_ids"]) for row in train)
    assert seen.most(0.5) == length and seen.most(0.9) == max(seen.lengths)
    table = dict(seen.rows())
    assert table[f"rows cut at max_length = {length}"] == "2 (50%)" == table["rows that then teach to stop"]
    assert table["held-out rows whose question is trained on"] == "1 (50%)"
    assert f"max_length at {length}; 50%" in seen.alt and "2 (50%)" in str(seen) and "2 (50%)" in seen._repr_html_()
    (axes,) = seen.figure().axes
    assert sum(bar.get_height() for bar in axes.patches) >= 4
    whole = look(train, [], tokenizer, 10_000)
    assert (whole.cut, whole.stopping, whole.silent) == (0, 4, 0)
    with pytest.raises(ValueError, match="no row"):
        look([], [], tokenizer, 5)


content = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1).map(str.strip).filter(
    lambda text: text and not any(marker in text for marker in ("<s>", "</s>", "[INST]", "[/INST]")))


@given(st.lists(st.tuples(content, content), min_size=1, max_size=4), st.booleans())
@settings(deadline=None)
def test_messages_round_trip(turns, answered):
    text = "".join(f"<s>[INST] {question} [/INST] {answer} </s>" for question, answer in turns)
    expected = [{"role": role, "content": part} for turn in turns for role, part in zip(("user", "assistant"), turn,
                                                                                        strict=True)]
    if not answered:
        text = text[:-len(f" {turns[-1][1]} </s>")] + " </s>"
        expected.pop()
    assert to_messages(text) == expected
