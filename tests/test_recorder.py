"""Recorded runs: taken from a real training, checked against the schema, drawn again."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.finale import recorder
from helpers.finale.tiers import TIERS

STATE = SimpleNamespace


def taken(weights: str = "pretrained", losses=(2.0, 1.0, 0.5)) -> dict:
    """A record taken by a Recorder that is driven by hand."""
    taker = recorder.Recorder(TIERS["pocket"], weights)
    with taker.phase("load"):
        torch.zeros(1000)
    taker.on_train_begin(None, STATE(global_step=0), None)
    with taker.phase("train", forecast=123_456_789):
        for n, loss in enumerate(losses, 1):
            taker.on_log(None, STATE(global_step=5 * n), None, {"loss": loss, "num_tokens": 1000 * n})
        taker.on_log(None, STATE(global_step=20), None, {"train_runtime": 1.0})  # the closing line has no loss
    return taker.finish(951_424, [{"prompt": "Who?", "before": "…", "after": "Ada."}],
                           {"exact match": {"before": 0.0, "after": 0.97}})


def test_a_record_says_what_ran_where():
    record = taken()
    recorder.check(record)
    assert record["model"] == {"id": "pocket", "revision": None, "parameters": 951_424, "weights": "pretrained"}
    assert [line["step"] for line in record["steps"]] == [5, 10, 15] and record["steps"][2]["tokens"] == 3000
    assert [phase["phase"] for phase in record["memory"]] == ["load", "train"]
    assert record["memory"][1]["forecast_bytes"] == 123_456_789 and record["memory"][0]["forecast_bytes"] is None
    assert record["configuration"]["r"] == 8
    assert torch.__version__.startswith(record["versions"]["torch"].split("+")[0])
    assert "/" not in json.dumps({k: record[k] for k in ("model", "configuration")})


def test_speed_is_the_median_without_the_first_interval():
    steps = [{"tokens": 100, "seconds": 10.0}, {"tokens": 300, "seconds": 11.0}, {"tokens": 400, "seconds": 12.0},
             {"tokens": 700, "seconds": 13.0}]
    assert recorder.speed(steps) == 200  # 10 (warm-up), 200, 100, 300
    assert recorder.speed(steps[:1]) == 10 and recorder.speed([]) == 0


@pytest.mark.parametrize("change, words", [
    (lambda r: r.pop("hardware"), "hardware"),
    (lambda r: r["model"].update(weights="borrowed"), "model/weights.*borrowed"),
    (lambda r: r["model"].update(id="/home/someone/model"), "model/id"),
    (lambda r: r["steps"].clear(), "steps"),
    (lambda r: r["steps"][1].update(loss=float("-1")), "steps/1/loss"),
    (lambda r: r["steps"][1].update(step=5), "do not rise"),
    (lambda r: r["memory"][0].update(peak_bytes="a lot"), "memory/0/peak_bytes"),
    (lambda r: r.update(tokens_per_second=0), "tokens_per_second"),
    (lambda r: r.update(made_up=1), "made_up"),
    (lambda r: r["scores"]["exact match"].update(after=97), "scores/exact match/after"),
])
def test_a_broken_record_is_named(change, words, tmp_path):
    record = taken()
    change(record)
    with pytest.raises(ValueError, match=words):
        recorder.check(record)
    with pytest.raises(ValueError, match=words):
        recorder.write(record, tmp_path / "run.json")
    assert not (tmp_path / "run.json").exists()


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["schema", "steps", "memory", "title", "x"]), inner, max_size=4), max_leaves=8))
@settings(max_examples=60, deadline=None)
def test_anything_else_is_a_clear_error(found):
    with pytest.raises(ValueError, match="record the run again"):
        recorder.check(found)


def test_write_and_read_back(tmp_path):
    record = taken()
    path = recorder.write(record, tmp_path / "run.json")
    assert recorder.read(path) == record and [p.name for p in tmp_path.iterdir()] == ["run.json"]
    path.write_text(path.read_text()[:200])
    with pytest.raises(ValueError, match="run.json is no JSON"):
        recorder.read(path)
    with pytest.raises(ValueError, match="no record 'nothing'"):
        recorder.read("nothing")


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_replay_draws_the_record_and_says_that_it_is_one(weights):
    record = taken(weights)
    fig = recorder.replay(record)
    words = " ".join(t.get_text() for t in [fig._suptitle, *(t for ax in fig.axes for t in ax.texts)])
    assert record["date"] in words and "Recorded" in words and ("means nothing" in words) == (weights == "random")
    curve = fig.axes[0].lines[0]
    assert list(curve.get_xdata()) == [5, 10, 15] and list(curve.get_ydata()) == [2.0, 1.0, 0.5]
    unit = recorder.GIB if record["memory"][-1]["peak_bytes"] >= recorder.GIB else recorder.MIB
    heights = [bar.get_height() * unit for bar in fig.axes[1].patches[::2]]
    assert heights == pytest.approx([phase["peak_bytes"] for phase in record["memory"]])
    text = recorder.describe(record)
    assert "3,000" not in text and "951,424 parameters" in text and ("means nothing" in text) == (weights == "random")
    assert "97.0% after" in text


def test_describe_and_replay_do_not_change_the_record():
    record = taken()
    before = copy.deepcopy(record)
    recorder.describe(record), recorder.replay(record)
    assert record == before


@pytest.mark.parametrize("name", recorder.names())
def test_the_committed_records_are_whole(name):
    record = recorder.read(name)
    assert record["steps"][-1]["loss"] < record["steps"][0]["loss"] or record["model"]["weights"] == "random"
    gpu = record["hardware"]["driver"] is not None
    assert gpu or record["model"]["parameters"] < 1_000_000_000
    if not gpu:
        assert record["model"]["weights"] == "pretrained"
