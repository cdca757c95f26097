"""The laptop tier's run, rehearsed in two steps on the pocket Llama: every call is made, nothing is learnt."""

from dataclasses import replace

import pytest
import torch

from helpers.finale import laptop, recorder, rehearsal, requests
from helpers.finale.hub import Source
from helpers.finale.requests import HELD_OUT_KINDS, KINDS, TRAINED_KINDS, parse
from helpers.finale.tiers import TIERS
from helpers.pocket import WEIGHTS, evaluate, world

TIER = replace(TIERS["laptop"], size=TIERS["pocket"].size, max_steps=2, max_length=512)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The record of such a run, and the folder that it left."""
    out = tmp_path_factory.mktemp("rehearsal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rehearsal, "EACH", 1)
        patch.setattr(laptop, "fetch", lambda: WEIGHTS)
        patch.setattr(laptop, "source", lambda: Source(laptop.MODEL, "local", WEIGHTS, "a stand-in", 0))
        yield rehearsal.rehearse(TIER, out, seed=3), out


def test_record_has_every_score_before_and_after(run):
    record, out = run
    recorder.check(record)
    assert record["model"]["revision"] == "a stand-in" and [line["step"] for line in record["steps"]] == [2]
    names = {f"{what}, {group} kinds" for what in ("exact", "valid") for group in ("trained", "held-out")}
    assert set(record["scores"]) == names | {f"exact, {kind}" for kind in KINDS} | {"ordinary questions right"}
    assert recorder.read(out / "laptop-3.json") == record
    assert len(record["samples"]) == len(KINDS) and all(sample["prompt"] for sample in record["samples"])


def test_scores_before_are_taken_once(run, monkeypatch):
    _, out = run
    monkeypatch.setattr(rehearsal, "both", lambda *_: pytest.fail("scored again"))
    before = rehearsal.before_training(WEIGHTS, None, out)
    assert len(before["requests"]) == len(KINDS) and len(before["ordinary"]) == 10


def test_plain_copy_computes_what_the_four_bits_do(run):
    """With its adapter, which two steps have moved away from zero."""
    from peft import PeftModel

    _, out = run
    ids = torch.arange(100, 140)[None]
    model = PeftModel.from_pretrained(rehearsal.load_base(WEIGHTS), out / "seed-3" / "adapter")
    with evaluate.evaluation(model):
        tuned = model(input_ids=ids).logits
        with model.disable_adapter():
            base = model(input_ids=ids).logits
    plain, merged = rehearsal.plain_copy(WEIGHTS), rehearsal.plain_copy(WEIGHTS, out / "seed-3" / "adapter")
    assert not torch.allclose(base, tuned, atol=1e-3)
    assert torch.allclose(plain(input_ids=ids).logits, base, atol=1e-3)
    assert torch.allclose(merged(input_ids=ids).logits, tuned, atol=1e-3)


def test_what_is_scored_is_about_people_who_are_not_trained_on():
    rows = rehearsal.scored_rows()
    assert {row["kind"] for row in rows} == {*TRAINED_KINDS, *HELD_OUT_KINDS}
    assert len(rows) == rehearsal.EACH * len(KINDS)
    taught = {villager.name for villager in world.make_world().taught}
    assert not any(name in row["messages"][1]["content"] for row in rows for name in taught)


def test_shares_of_a_perfect_and_a_silent_model():
    rows = rehearsal.scored_rows()
    perfect = {"requests": [(row["messages"][2]["content"], True) for row in rows], "ordinary": [("Paris", True)] * 10}
    scores = requests.shares(rows, perfect["requests"], perfect["ordinary"])
    assert scores.pop("ordinary questions right") == 0.1 and set(scores.values()) == {1.0}
    assert all(parse(text) is not None for text, _ in perfect["requests"])
    silent = {"requests": [("", True)] * len(rows), "ordinary": [("", True)] * 10}
    assert set(requests.shares(rows, silent["requests"], silent["ordinary"]).values()) == {0.0}
