"""Faults in rows: each is named with its rows, nothing else is, and whatever stands in the rows, no row is lost."""

from __future__ import annotations

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.finale import chat
from helpers.finale.data import BROKEN, BROKEN_TEST, DESK
from helpers.finale.faults import REMEDIES, Fault, examine, ungarbled
from helpers.finale.look import look
from helpers.finale.rows import RowsError, read
from helpers.pocket import load_pocket, world


@pytest.fixture(scope="module")
def tokenizer():
    found = load_pocket()[1]
    chat.prepare(found)
    return found


def named(found):
    """{(kind, part): rows} of all faults."""
    rows: dict[tuple[str, str], list[int]] = {}
    for fault in found.faults:
        rows.setdefault((fault.kind, fault.part), []).extend(fault.rows)
    return {key: sorted(numbers) for key, numbers in rows.items()}


def talk(row):
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]


def written(folder, form, rows):
    """The rows of prompt and completion in one of the three forms, in a file of its kind."""
    if form == "messages":
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps({"messages": talk(row)}) + "\n" for row in rows))
    elif form == "csv":
        path = folder / "rows.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, ["prompt", "completion"])
            out.writeheader()
            out.writerows(rows)
    else:
        import pyarrow as arrow
        from pyarrow import parquet

        path = folder / "rows.parquet"
        text = [f"<s>[INST] {row['prompt']} [/INST] {row['completion']} </s>" for row in rows]
        parquet.write_table(arrow.table({"text": text}), path)
    return path


# ---- three sets in three forms

@pytest.mark.parametrize("form", ["messages", "csv", "text"])
def test_the_rows_that_ship_have_no_fault_in_any_form(tokenizer, form, tmp_path):
    rows = read(DESK)
    found = examine(read(written(tmp_path, form, rows), strict=False), tokenizer=tokenizer, max_length=128, share=0.2)
    found.raise_if_bad()
    assert found.faults == () and (len(found.train), len(found.held_out)) == (160, 40)
    assert sorted(map(str, [*found.train, *found.held_out])) == sorted(str(talk(row)) for row in rows)


def test_five_kinds_of_fault_are_found_and_named_before_training(tokenizer):
    before = BROKEN.read_bytes()
    found = examine(read(BROKEN, strict=False), read(BROKEN_TEST), tokenizer=tokenizer, max_length=128)
    assert named(found) == {
        ("row", "train"): [4, 29], ("roles", "train"): [9, 17, 36], ("encoding", "train"): [23, 32, 41],
        ("long", "train"): list(range(5, 51, 5)), ("twice", "train"): [47], ("leak", "test"): [3, 6]}
    with pytest.raises(RowsError) as told:
        found.raise_if_bad()
    for words in ("no file was changed", "rows 4, 29: an answer is empty", "RenÃ©e was Renée", "test rows 3, 6",
                  "raise max_length to 185", '"row", "roles", "encoding", "long", "twice", "leak"'):
        assert words in str(told.value)
    found.raise_if_bad(REMEDIES)  # seen, and wanted all the same
    assert len(found.train) == 50 - 6 and BROKEN.read_bytes() == before


def test_the_rows_that_ship_are_true_and_answered_in_one_form():
    people = {villager.name: villager for villager in world.make_world().villagers}
    for row in read(DESK):
        villager = next(people[name] for name in (" ".join(row["completion"].split()[:2]),))
        forms = {kind: villager.fill(form) for kind, form in world.ANSWERS.items()}
        (kind,) = [kind for kind, form in forms.items() if form == row["completion"]]
        assert getattr(villager, kind) in row["prompt"] and row["prompt"].endswith("?")


# ---- each fault alone

def test_a_byte_that_is_not_utf8_is_told_with_its_row(tokenizer, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("prompt,completion\nWho is Käthe?,A baker.\nWho is José?,A smith.\nWho is Ann?,A cook.\nWhy?,So.\n"
                     .encode("cp1252"))
    with pytest.raises(RowsError, match="line 2 holds the byte 0xE4"):
        read(path)
    found = examine(read(path, strict=False), tokenizer=tokenizer, max_length=128)
    assert named(found) == {("encoding", "train"): [1, 2]} and "not in UTF-8" in str(found)


@pytest.mark.parametrize("order", ["utf-16-le", "utf-16-be"])
def test_utf16_is_named(order, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeffprompt,completion\nWho?,I.\n".encode(order))
    for strict in (True, False):
        with pytest.raises(RowsError, match="is in UTF-16"):
            read(path, strict=strict)


@given(st.text(st.characters(min_codepoint=0xC0, max_codepoint=0x17E) | st.sampled_from("„“”’–—… é€abc"), min_size=1))
@settings(max_examples=200, deadline=None)
def test_what_was_read_as_windows_1252_is_put_right_and_good_text_stays(text):
    try:
        garbled = text.encode().decode("cp1252")
    except UnicodeDecodeError:  # five bytes have no letter there
        return
    letters = [letter for letter in text if letter <= "\u00ff" or letter in "„“”’–—…"]
    if len(letters) == len(text) and not any(a in "ÂÃâÄÅð" for a in text):
        assert ungarbled(text) == text
        assert ungarbled(garbled) == text


@pytest.mark.parametrize("good", ["MENÜ“ CAFÉ… „Ä“ naïve", "Ångström, São João, Ærø", "5 Å’ ÄÖÜ", "日本語 😀", "é"])
def test_good_letters_are_no_fault(good):
    assert ungarbled(good) == good


def test_letters_that_are_lost_are_a_fault(tokenizer):
    rows = [{"prompt": f"Who is number {n}?", "completion": "J\ufffdrgen." if n == 3 else "Ann."} for n in range(9)]
    found = examine(rows, tokenizer=tokenizer, max_length=128)
    assert [(fault.kind, fault.rows) for fault in found.faults] == [("encoding", (4,))] and "U+FFFD" in str(found)


def test_a_last_question_without_an_answer_is_a_fault_and_the_row_stays(tokenizer):
    more = [{"role": "user", "content": "And now?"}]
    rows = [{"messages": [*talk({"prompt": f"Who is number {n}?", "completion": "Ann."}), *more * (n in (2, 5))]}
            for n in range(9)]
    found = examine(rows, rows[2:3], tokenizer=tokenizer, max_length=128)
    assert [(f.kind, f.place) for f in found.faults if f.kind != "leak"] == [
        ("unanswered", "train rows 3, 6"), ("unanswered", "test row 1")]
    assert len(found.train) == 9 and "a last question without an answer is left out" in str(found)
    assert all(conversation[-1]["role"] == "assistant" for conversation in found.train)
    with pytest.raises(RowsError, match="train rows 3, 6"):
        found.raise_if_bad(["leak"])
    found.raise_if_bad(["leak", "unanswered"])


def test_one_question_with_two_answers_is_a_fault(tokenizer):
    rows = [{"prompt": f"Who is number {n}?", "completion": "Ann."} for n in range(9)]
    rows += [{"prompt": "Who IS number 2 ?", "completion": "Bert."}]
    (fault,) = examine(rows, tokenizer=tokenizer, max_length=128, seed=3).faults
    assert fault.kind == "twice" and fault.rows == (3, 10) and "another answer" in fault.what


@pytest.mark.parametrize("kind", ["desk", "questions"])
def test_up_to_a_tenth_of_swapped_rows_are_seen_and_no_other(tokenizer, kind):
    rows = read(DESK)[:60] if kind == "desk" else world.questions(world.make_world().taught[:20])
    swapped = [{"prompt": row["completion"], "completion": row["prompt"]} for row in rows]
    for count in (0, 1, len(rows) // 10):
        found = examine([*swapped[:count], *rows[count:]], tokenizer=tokenizer, max_length=256)
        assert named(found).get(("roles", "train"), []) == list(range(1, count + 1))
    assert named(examine(swapped, tokenizer=tokenizer, max_length=256)) == {}  # nothing tells all from none


def test_unknown_kinds_cannot_be_accepted_and_a_place_is_short(tokenizer):
    found = examine(read(DESK)[:20], tokenizer=tokenizer, max_length=128)
    with pytest.raises(ValueError, match="accept has 'lenght': use some of row, roles"):
        found.raise_if_bad(["lenght"])
    assert Fault("long", "train", (1, 2, 3, 7, 9, 10), "", "").place == "train rows 1 to 3, 7, 9, 10"
    assert Fault("long", "test", tuple(range(1, 99, 2)), "", "").place.endswith(" 39 and 29 more")


def test_what_stands_in_a_row_is_escaped_on_the_notebooks_page(tokenizer):
    rows = [{"prompt": f"Who is {n}?", "completion": "<script>"} for n in range(9)]
    rows[3]["prompt"] = "<script>Ã©</script>"
    page = examine(rows, tokenizer=tokenizer, max_length=128)._repr_html_()
    assert "<script" not in page and "&lt;script" in page


# ---- whatever the rows hold

ODD = ["Who is there?", "A baker.", "", "Ã©", "\udce4", "\ufffd", "a b " * 80, "WHO is there"]
WORDS = st.sampled_from(ODD) | st.text(max_size=9)
ROW = st.fixed_dictionaries({"prompt": WORDS, "completion": WORDS}) | st.none() | st.just({})
ROWS = st.lists(ROW, min_size=1, max_size=8)


@given(rows=ROWS, tests=st.none() | ROWS)
@settings(max_examples=40, deadline=None)
def test_every_row_is_trained_on_held_out_or_named(tokenizer, rows, tests):
    known = all(part is None or any(isinstance(row, dict) and row for row in part) for part in (rows, tests))
    try:
        found = examine(rows, tests, tokenizer=tokenizer, max_length=60)
    except RowsError:
        assert not known or tests is None  # no columns, or too few different questions to hold any out
        return
    unread = {(fault.part, row) for fault in found.faults for row in fault.rows
              if fault.kind in ("row", "encoding", "roles") and "reads like" not in fault.what
              and "Windows" not in fault.what and "U+FFFD" not in fault.what}
    assert len(found.train) + len(found.held_out) + len(unread) == found.total
    for fault in found.faults:
        limit = len(rows) if fault.part == "train" else len(tests)
        assert fault.rows and all(1 <= row <= limit for row in fault.rows) and fault.remedy
        assert list(fault.rows) == sorted(set(fault.rows))


def test_the_look_and_the_faults_count_the_same_rows(tokenizer):
    """A report shows both: two rows are the same by their words, whatever their case and signs."""
    rows = [{"prompt": f"Who is number {n}?", "completion": f"A baker, {n}."} for n in range(12)]
    rows[5] = {"prompt": "WHO is number 2", "completion": "a baker: 2"}
    held = [{"prompt": "who is number 7 ?", "completion": "A miller."}, {"prompt": "Who is she?", "completion": "Ann."}]
    found = examine(rows, held, tokenizer=tokenizer, max_length=128)
    seen = look(found.train, found.held_out, tokenizer, 128)
    assert [fault.rows for fault in found.faults if fault.kind == "twice"] == [(6,)] and seen.repeated == 1
    assert [fault.rows for fault in found.faults if fault.kind == "leak"] == [(1,)] and seen.overlap == 1
