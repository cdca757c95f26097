"""Recorded runs: taken from a real training, checked against the schema, drawn again."""

import copy
import json
import mmap
import time
from dataclasses import replace
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
    (lambda r: r["steps"][1].update(step=5), "steps"),
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
    with pytest.raises(ValueError, match="run.json"):
        recorder.read(path)
    with pytest.raises(ValueError, match="'nothing'"):
        recorder.read("nothing")


def test_on_a_cpu_a_peak_between_two_logs_is_seen():
    taker = recorder.Recorder(TIERS["pocket"])
    with taker.phase("load"):
        torch.ones(40_000_000)
        with recorder.highest_in_memory() as highest:
            held = mmap.mmap(-1, 160_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # not what was freed before
            held.write(bytes(160_000_000))
            time.sleep(0.6)
            held.close()
        assert highest()[0] <= highest()[1]
    phase = taker.memory[0]
    assert phase["peak_bytes"] > phase["held_bytes"] + 100_000_000  # what was held before may have been given back
    assert phase["resident_bytes"] >= phase["peak_bytes"] and phase["seconds"] >= 0.3


def test_a_smaller_card_that_is_played_is_recorded(monkeypatch):
    for name, value in {"is_available": True, "get_device_name": "a card", "get_device_properties":
                        STATE(total_memory=80 * 2**30)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *device, value=value: value)
    monkeypatch.setattr(torch.cuda.memory, "get_per_process_memory_fraction", lambda: 0.125)
    assert recorder.hardware()["memory_limit_bytes"] == 10 * 2**30
    monkeypatch.setattr(torch.cuda.memory, "get_per_process_memory_fraction", lambda: 1.0)
    assert recorder.hardware()["memory_limit_bytes"] is None and recorder.hardware()["memory_bytes"] == 80 * 2**30


def test_one_step_slow_as_it_is_reads_well():
    record = taken("random", losses=(11.2,))
    record["tokens_per_second"] = 0.6
    assert "0.6 tokens per second" in recorder.describe(record)
    assert "Loss 11.2 at step 5; the weights were random" in recorder.describe(record)
    assert recorder.replay(record).axes[0].lines[0].get_marker() == "o"


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
    if record["model"]["weights"] == "random":
        assert "random" in name and "command" in record["configuration"] and not record["scores"]


def test_the_7b_trains_on_a_cpu_in_the_memory_that_the_ledger_forecasts():
    """The record's own figures: a step's peak within a tenth, what the loaded model holds exactly."""
    record = recorder.read("llama-2-7b-cpu-random")
    settings, train = record["configuration"], record["memory"][-1]
    assert record["model"]["parameters"] == TIERS["llama-2-7b"].size.parameters
    forecast = replace(TIERS["llama-2-7b"], max_length=settings["max_length"]).forecast(gpu=False).total
    recorded = settings["ledger_bytes"]["train"]
    assert abs(forecast / recorded - 1) < 0.01, "today's forecast is another than when this was recorded"
    assert settings["model_bytes"] == settings["ledger_bytes"]["load"]
    assert train["forecast_bytes"] == recorded + record["memory"][0]["before_bytes"]
    assert abs(train["peak_bytes"] / train["forecast_bytes"] - 1) < 0.1
    assert max(phase["peak_bytes"] for phase in record["memory"]) == train["peak_bytes"]
