"""The one-page report: whole, harmless whatever the rows say, and readable without a network."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.finale import data, report

DATA = Path(data.__file__).parent
HISTORY = [{"step": 5, "loss": 3.0}, {"step": 10, "loss": 1.0}, {"step": 10, "eval_loss": 1.5},
           {"step": 20, "loss": 0.4}, {"step": 20, "eval_loss": 1.2}, {"step": 20, "train_loss": 1.1}]
FIGURE, TOLD = report.curves(HISTORY)
CURVE = report.svg(FIGURE)


def facts(**changed):
    words = changed.pop("words", "Who is there?")
    return dict(title=words, subtitle=words, curve=CURVE, curve_alt=TOLD, scores=[("loss", words, "0.2")],
                regression=[("perplexity", "1", "2")], verdict=words, data=[("rows", words)],
                faults=[("long", "train row 1", words)], recipe=[("r", 8, words)], memory=[("train", "1", "2", "3")],
                loading=words, files=[(words, "3 bytes")], footer=words,
                cases=[dict(asked=words, before="", after=words, wanted=words)]) | changed


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def written(folder, **changed):
    return report.write(folder / "report.html", **facts(**changed)).read_text(encoding="utf-8")


def test_the_page_stands_alone(tmp_path):
    page = Page(written(tmp_path))
    kinds = {tag for tag, _ in page.tags}
    assert not kinds & {"script", "link", "iframe", "object", "form", "base"}
    (image,) = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image["src"].startswith("data:image/svg+xml;base64,") and image["alt"].startswith("Loss over 20 steps")
    drawing = base64.b64decode(image["src"].partition(",")[2]).decode()
    assert "<svg" in drawing and not re.search(r"(href|src)=.(?!#)", drawing.replace("xmlns:xlink", ""))
    metas = [found for tag, found in page.tags if tag == "meta"]
    metas = {found.get("name", found.get("http-equiv")): found.get("content") for found in metas}
    assert "default-src 'none'" in metas["Content-Security-Policy"] and "width=device-width" in metas["viewport"]
    assert "prefers-color-scheme: dark" in page.text and ("html", {"lang": "en"}) in page.tags


@pytest.mark.parametrize("words", [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "</style><script>x</script>", "</pre></dd><b>",
    "{{ 7 * 7 }} {% raw %}", "&lt;b&gt;", "half \udce4 a character"])
def test_what_users_and_models_wrote_is_text(tmp_path, words):
    page, plain = Page(written(tmp_path, words=words)), Page(written(tmp_path))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.text.count(words.replace("\udce4", "?")) >= 10 and "49" not in page.text.partition("</style>")[2]


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_no_text_changes_the_page(tmp_path_factory, words):
    folder = tmp_path_factory.mktemp("page")
    cases = [dict(asked=words, before=words, after=words, wanted=words)]
    changed = [Page(written(folder, curve="data:,", **more)).tags for more in ({}, {"cases": cases, "footer": words})]
    assert [tag for tag, _ in changed[0]] == [tag for tag, _ in changed[1]]


def test_a_long_answer_is_shortened_and_a_missing_fact_is_an_error(tmp_path):
    assert "(400 more characters)" in written(tmp_path, words="x" * 1000)
    given_facts = facts()
    del given_facts["verdict"]
    with pytest.raises(jinja2.UndefinedError, match="verdict"):
        report.write(tmp_path / "half.html", **given_facts)
    assert not (tmp_path / "half.html").exists()


def test_curves_say_where_the_held_out_loss_was_least():
    assert report.curves(HISTORY)[1].endswith("from 1.5 to 1.2, still about its least.")
    risen = [*HISTORY, {"step": 30, "loss": 0.1}, {"step": 30, "eval_loss": 2.0}]
    assert "least at step 20 (1.2), so fewer epochs" in report.curves(risen)[1]
    with pytest.raises(ValueError, match="no loss of the held-out rows"):
        report.curves(HISTORY[:2])


def test_the_verdict_names_what_was_lost():
    before = {"perplexity of prose": 2.0, "questions": 0.9}
    assert "Nothing that was checked" in report.verdict(before, {"perplexity of prose": 2.1, "questions": 0.85}, {}, {})
    assert report.verdict(before, {"perplexity of prose": 2.3, "questions": 0.7}, {}, {}).startswith(
        "Worse than before: perplexity of prose, questions.")


@pytest.mark.parametrize(("after", "said"), [
    ((1.0, 0.5, 1.0), ["Nothing that was checked"]), ((1.0, 0.5, 0.7), ["held-out rows: answers that end."]),
    ((1.0, 0.0, 0.7), ["held-out rows: answers that end.", "Not one held-out answer is right"]),
    ((4.0, 0.1, 0.9), ["held-out rows: loss, nats a token."]), ((1.0, 0.0, 1.0), ["Not one held-out answer is right"])])
def test_the_verdict_judges_the_held_out_answers_too(after, said):
    names = ("loss, nats a token", report.RIGHT, "answers that end")
    kept = {"perplexity of prose": 2.0}
    told = report.verdict(kept, kept, dict(zip(names, (3.0, 0.0, 0.9), strict=True)),
                          dict(zip(names, after, strict=True)))
    assert all(words in told for words in said) and ("Nothing" in told) == ("Nothing" in said[0])
    assert ("Not one" in told) == (after[1] == 0) and ("held-out rows:" in told) == ("held-out rows:" in said[0])


def test_a_share_is_told_as_a_count():
    assert [report.score(1 / 12, 12), report.score(0, 3), report.score(2.3456)] == ["1 of 12", "0 of 3", "2.35"]


def test_memory_and_files(tmp_path):
    measured = [{"phase": "train", "peak_bytes": 2**30, "resident_bytes": 2**31, "seconds": 90.0},
                {"phase": "load", "peak_bytes": 2**29, "seconds": 6.0}]
    assert report.memory_rows(measured, {"train": 3 * 2**30}) == [
        ("train", "3.00 GiB", "2.00 GiB", "1.5 min"), ("load", "none made", "0.50 GiB", "0.1 min")]
    for name in ("adapter/adapter_model.safetensors", "model-Q8_0.gguf", "checkpoint-3/optimizer.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"abc")
    assert report.files(tmp_path) == [("adapter/adapter_model.safetensors", "3 bytes"), ("model-Q8_0.gguf", "3 bytes")]


def test_what_lesson_15_says_of_a_run_on_a_laptop_is_in_its_record():
    record = json.loads((DATA / "laptop_run.json").read_text(encoding="utf-8"))
    said = (DATA.parents[2] / "notebooks/15_your_own_fine_tune.ipynb").read_text(encoding="utf-8")
    assert f"({record['minutes']:.0f} minutes on {({2: 'two'})[record['cores']]} cores" in said
    assert record["after"]["right, word for word"] == 1 and "all 20 held-out answers came out right" in said
    told = [10 * record[when]["ordinary questions answered"] for when in ("before", "after")]
    assert told == [10, 4] and "of ten ordinary questions, all of which SmolLM2 had answered, it answered four" in said
    prose = [record[when]["perplexity of plain prose"] for when in ("before", "after")]
    assert "the perplexity of plain prose rose from {} to {}.".format(*prose) in said
