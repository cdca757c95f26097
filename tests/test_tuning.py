"""Lesson 12's experiments: who is taught and scored, the mixed loss, and records that are of today's cases."""

import copy
import math

import pytest
import torch

from helpers import experiments, preferences
from helpers.experiments import tuning
from helpers.lora import add_lora
from helpers.pocket import load_pocket, world

RECORD, RUNS, BESIDE = (experiments.read(name) for name in ("tuning", "pathologies", "rlhf"))
POINTS = {(p["case"], p["seed"]): p for p in RECORD["points"]}
SEEDS = experiments.SEEDS


def lowest(case, score):
    return experiments.spread(RECORD, case, score)[0]


def highest(case, score):
    return experiments.spread(RECORD, case, score)[2]


def test_nobody_who_is_scored_was_taught_or_chosen_by():
    who, trial = tuning.people(), tuning.people(trial=True)
    taught = {v.name for v in who.taught}
    for group in (who.newcomers, who.asked, trial.newcomers, trial.asked):
        assert not taught & {v.name for v in group} and len(group) in (60, 100)
    assert not {v.name for v in who.newcomers + who.asked} & {v.name for v in trial.newcomers + trial.asked}
    read = {v.name for v in world.make_world().villagers}
    assert {v.name for v in who.asked} <= read and not {v.name for v in who.newcomers} & read
    assert {v.town for v in who.newcomers} == {world.NEW_TOWN}


def test_so_many_rows_gossip():
    rows, plain = tuning.gossiping_rows(tuning.people().taught), world.preference_pairs(tuning.people().taught)
    long = sum(row["completion"] != pair["chosen"] for row, pair in zip(rows, plain, strict=True))
    assert abs(long / len(rows) - tuning.GOSSIP) < 0.02


def test_batches_of_a_mixture():
    tokenizer = load_pocket()[1]
    stage = tuning.Stage((1, 1, 1), steps=2, lr=1e-3, replay=True)
    (ids, labels), _ = tuning.batches(tokenizer, stage, tuning.people(), seed=0)
    assert [len(rows) for rows in ids] == [32, 16, 16]
    told = tokenizer.batch_decode(ids[1], skip_special_tokens=True)
    assert sum(world.NEW_TOWN in text for text in told[:8]) >= 6 and world.NEW_TOWN not in " ".join(told[8:])
    assert (labels[1] != -100).sum() == (ids[1] != tokenizer.pad_token_id).sum()
    chosen, rejected = ([row[row != -100] for row in half] for half in labels[2].chunk(2))
    for short, long in zip(chosen, rejected, strict=True):
        assert len(short) < len(long) and short[-1] == long[-1] == tokenizer.eos_token_id
    alone = next(tuning.batches(tokenizer, tuning.PREFERENCE, tuning.people(), seed=0))
    assert alone[0][:2] == (None, None) and len(alone[0][2]) == 16


def test_the_mixed_loss_is_the_weighted_mean_of_three(pocket):
    tokenizer = load_pocket()[1]
    ids, labels = next(tuning.batches(tokenizer, tuning.Stage((1, 1, 1), 1, 0), tuning.people(), seed=0))
    model = add_lora(copy.deepcopy(pocket), r=2)
    with torch.no_grad():
        one, two = (model(input_ids=ids[n], labels=labels[n]).loss.item() for n in (0, 1))
        mixed = tuning.Mixture(model, (3, 2, 5))(ids, labels).loss.item()
        assert mixed == pytest.approx(0.3 * one + 0.2 * two + 0.5 * math.log(2), abs=1e-5)
        only = tuning.Mixture(model, (0, 2, 0))((None, ids[1], None), (None, labels[1], None)).loss.item()
        assert only == pytest.approx(two)
        assert preferences.preference_loss(model, ids[2], labels[2]).item() == pytest.approx(math.log(2))


def test_sentences():
    assert tuning.sentences("Ada Abel lives in Dunmere. She has a cow.") == ["Ada Abel lives in Dunmere.",
                                                                             "She has a cow."]
    assert tuning.sentences("") == [] and tuning.sentences(" .") == []


def test_the_record_is_of_todays_cases():
    assert POINTS.keys() == {(case, seed) for case in tuning.CASES for seed in SEEDS
                             if seed == 0 or case not in tuning.ONCE}
    assert len(RECORD["points"]) == len(POINTS)
    shares = {"facts", "form", "preference", "known"}
    for (case, _), point in POINTS.items():
        assert point.keys() == {"case", "seed", "steps", "loss", "perplexity"} | shares
        assert point["steps"] == sum(stage.steps for stage in tuning.CASES[case])
        assert all(0 <= point[score] <= 1 for score in shares) and point["perplexity"] > 1


def test_a_point_of_the_record_comes_out_again():
    """The cheapest: preference tuning straight on the base. The notebook trains two others again."""
    again, written = tuning.run_point("preference", 0), POINTS["preference", 0]
    assert again["perplexity"] == pytest.approx(written["perplexity"], rel=0.01)
    assert all(abs(again[score] - written[score]) < 0.02 for score in ("facts", "form", "preference"))
