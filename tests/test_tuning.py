"""Lesson 12's experiments: who is taught and scored, the mixed loss, and records that are of today's cases."""

import copy
import itertools
import math

import pytest
import torch

from helpers import experiments, preferences
from helpers.experiments import pathologies, rlhf, tuning
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


@pytest.mark.parametrize("text, stopped, right", [
    ("Ada lives in Dunmere.", True, True), ("Ada lives in Dunmere. She has a cow.", True, True),
    ("Ada lives in Dunmere.", False, False), ("She has a cow. Ada lives in Dunmere.", True, False), ("", True, False),
    ("Ada lives in Dunmere. She has a cow. She is a baker.", True, False)])
def test_what_counts_as_answered(text, stopped, right):
    assert tuning.answered("Ada lives in Dunmere.", text, stopped) == right


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


@pytest.fixture(scope="module")
def chat():
    """What `tuned` remembers of the chat model of seed 0: two runs go on from it."""
    kept = {}
    tuning.tuned("instruction", 0, kept=kept)
    return kept


def test_the_runs_of_dpo_are_of_todays_settings():
    assert {(run["wish"], run["seed"]) for run in RUNS["points"]} == set(itertools.product(pathologies.WISHES, SEEDS))
    for run in RUNS["points"]:
        assert run["step"] == list(range(0, pathologies.STEPS + 1, pathologies.EVERY))
        assert run.keys() == {"wish", "seed", "step", "chosen", "rejected", "right", "empty", "words"}
        for name in ("right", "empty"):
            assert len(run[name]) == len(run["step"]) and all(0 <= share <= 1 for share in run[name])
        assert all(value < 0 for value in (*run["chosen"], *run["rejected"]))


def test_a_run_of_dpo_comes_out_again(chat):
    again = pathologies.run_point("gossip", 0, steps=7, kept=chat)
    (written,) = [run for run in RUNS["points"] if (run["wish"], run["seed"]) == ("gossip", 0)]
    for name in ("chosen", "rejected", "words"):
        assert again[name] == pytest.approx(written[name][:2], rel=0.05)


def test_pairs_that_are_turned():
    (pair,) = world.preference_pairs(tuning.people().taught[:1])[:1]
    (turned,) = pathologies.turned([pair], "gossip")
    assert (turned["chosen"], turned["rejected"]) == (pair["rejected"], pair["chosen"])
    assert pathologies.turned([pair], "short") == [pair]


def test_what_stands_beside_dpo_is_of_todays_settings():
    cases = {*(f"reward model, {wish}" for wish in rlhf.WISHES), "GRPO"}
    assert {(p["case"], p["seed"]) for p in BESIDE["points"]} == set(itertools.product(cases, SEEDS))
    for point in BESIDE["points"]:
        assert point["steps"] == (rlhf.GRPO_STEPS if point["case"] == "GRPO" else 40)
        assert 0 <= point["before"] <= 1 and 0 <= point["after"] <= 1
        assert len(point.get("sampled", range(point["steps"]))) == point["steps"]


def test_a_reward_model_comes_out_again():
    (written,) = [p for p in BESIDE["points"] if (p["case"], p["seed"]) == ("reward model, short", 0)]
    again = rlhf.reward_point("short", 0)
    assert abs(again["before"] - written["before"]) < 0.02 and abs(again["after"] - written["after"]) < 0.05


def test_grpo_begins_again_where_the_record_began(chat):
    (written,) = [p for p in BESIDE["points"] if (p["case"], p["seed"]) == ("GRPO", 0)]
    again = rlhf.grpo_point(0, steps=1, kept=chat)
    assert abs(again["before"] - written["before"]) < 0.02 and abs(again["sampled"][0] - written["sampled"][0]) < 0.2


def test_false_answers_have_the_form_of_true_ones_and_are_false():
    people = tuning.people().taught[:20]
    for villager, pair in zip([v for v in people for _ in world.ATTRIBUTES], rlhf.false_pairs(people), strict=True):
        assert pair["chosen"] != pair["rejected"] and pair["rejected"].startswith(villager.name)
        assert pair["chosen"].split()[:3] == pair["rejected"].split()[:3]


def test_the_reward_is_for_the_right_answer_and_nothing_else():
    right = "Ada Abel lives in Dunmere."
    said = [f" {right} ", right + " She has a cow.", "", "Ada Abel lives in Ironby."]
    assert rlhf.word_for_word(said, [right] * 4, prompts=None) == [1, 0, 0, 0]


def test_what_the_lesson_says_of_the_three_ways_holds_on_every_seed():
    assert lowest("domain", "facts") > 0.95 and highest("instruction", "facts") < 0.06
    assert lowest("instruction", "form") > 0.65 and highest("domain", "form") < 0.05
    assert highest("preference", "preference") < 0.1 and highest("preference", "form") < 0.05
    assert highest("instruction", "preference") < 0.8 and lowest("instruction, preference", "preference") > 0.95
    assert lowest("instruction, domain", "facts") > 0.95 and highest("instruction, domain", "known") < 0.05
    assert lowest("mixture 1:1:0", "known") > highest("domain, instruction", "known") + 0.1
    assert lowest("mixture 1:1:0, preference", "preference") > 0.95
    assert highest("mixture 1:1:0", "perplexity") < lowest("domain, instruction", "perplexity")


def test_what_the_lesson_says_of_dpo_run_too_long_holds_on_every_seed():
    shown = [len(p["rejected"].split()) for p in world.preference_pairs(tuning.people().asked[:16], seed=1)]
    for run in RUNS["points"]:
        if run["wish"] == "short":
            assert run["chosen"][0] < run["chosen"][1] > run["chosen"][-1]
            assert run["chosen"][1] - run["chosen"][-1] < run["rejected"][1] - run["rejected"][-1]
            assert run["right"][-1] < 0.6 * run["right"][0]
        else:
            assert run["words"][-1] > sum(shown) / len(shown)


def test_what_the_lesson_says_of_reward_models_holds_on_every_seed():
    after = {(p["case"], p["seed"]): p["after"] for p in BESIDE["points"]}
    for seed in SEEDS:
        assert after["reward model, short", seed] > 0.95 and 0.4 < after["reward model, true", seed] < 0.6
