"""The machinery on two quick points; and the committed records are of the cases that the code describes."""

import importlib
import json
import math

import pytest
import torch

from helpers import experiments
from helpers.experiments import forgetting, ranks, tuning
from helpers.pocket import load_pocket, world
from helpers.pocket.evaluate import perplexity

RECORDS = [name for name in experiments.NAMES if (experiments.FOLDER / f"{name}.json").is_file()]


def head_only(model: torch.nn.Module) -> torch.nn.Module:
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    return model


def test_a_sweep_keeps_every_point_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    cases = [experiments.Case("as it is", lambda model: model, lr=0),
             experiments.Case("head", head_only, lr=1e-3, steps=2, scores=(perplexity,))]
    told = []
    experiments.run("trial", cases, seeds=(0,), report=told.append)
    untouched, head = experiments.read("trial")["points"]
    assert untouched["trained"] == 0 and untouched["exact_match"] == 0 and 1.7 < untouched["perplexity"] < 1.8
    assert head["trained"] == 768 * 128 and head["steps"] == 2 and 1 < head["loss"] < 20
    assert head["perplexity"] != untouched["perplexity"]
    before = (tmp_path / "trial.json").read_text()
    experiments.run("trial", cases, seeds=(0,), report=told.append)
    assert len(told) == 2 and (tmp_path / "trial.json").read_text() == before
    assert experiments.spread(experiments.read("trial"), "head", "loss") == (head["loss"],) * 3


def test_spread_names_what_there_is():
    record = {"points": [{"case": "r=1", "exact_match": score} for score in (0.5, 0.25, 0.75)]}
    assert experiments.spread(record, "r=1") == (0.25, 0.5, 0.75)
    with pytest.raises(ValueError, match="'r=2'.*'r=1'"):
        experiments.spread(record, "r=2")


@pytest.mark.parametrize("name", RECORDS)
def test_the_record_is_of_the_cases_that_the_code_describes(name):
    """Every seed of every case, with as many trained weights, steps and scores as the case has today."""
    record = json.loads((experiments.FOLDER / f"{name}.json").read_text())
    found = {(p["case"], p["seed"]): p for p in record["points"]}
    cases = importlib.import_module(f"helpers.experiments.{name}").CASES
    assert {"torch", "transformers", "peft", "bitsandbytes"} <= set(record["made_with"])
    assert len(record["points"]) == len(found)
    assert found.keys() == {(case.name, seed) for case in cases for seed in case.seeds}
    for case in cases:
        model = case.prepare(load_pocket()[0])
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad) if case.lr else 0
        scores = {score.__name__ for score in case.scores}
        for seed in case.seeds:
            point = found[case.name, seed]
            assert (point["trained"], point["lr"], point["steps"]) == (trained, case.lr, case.steps if case.lr else 0)
            assert point.keys() == {"case", "seed", "trained", "lr", "steps", "loss"} | scores
            assert math.isfinite(point["loss"]) and point["perplexity"] > 1
            assert all(0 <= point[score] <= 1 for score in scores - {"perplexity"})


# ------------------------------------------------------------------------------------------------ the record of ranks


def rungs(name: str) -> dict[float, float]:
    return {rung["lr"]: rung["score"] for rung in experiments.read("ranks")["tuning"] if rung["case"] == name}


def test_rank_8_and_full_rank_were_tuned_on_equal_ladders():
    """As many rungs, at the same distances; and each is recorded at the best of them."""
    steps = [[round(lr / rates[2], 3) for lr in rates] for rates in ranks.FINE.values()]
    assert steps[0] == steps[1] == [0.5, 0.7, 1, 1.5, 2]
    for name, rates in ranks.FINE.items():
        case = next(case for case in ranks.CASES if case.name == name)
        assert set(rates) <= set(found := rungs(name)) and case.lr == max(rates, key=found.__getitem__)


@pytest.mark.parametrize("name", [case.name for case in ranks.CASES if case.name.startswith("facts")])
def test_new_facts_are_recorded_at_the_best_rate_of_the_ladder(name):
    """The rungs on both sides were tried and are worse."""
    found, case = rungs(name), next(case for case in ranks.CASES if case.name == name)
    at = ranks.LADDER.index(case.lr)
    assert {ranks.LADDER[at - 1], ranks.LADDER[at + 1]} <= set(found)
    assert ranks.climb(found.__getitem__, 5e-3) == case.lr


def test_a_climb_goes_up_first_and_stays_on_the_ladder():
    assert ranks.climb(lambda lr: -lr, 5e-3) == 1e-3 and ranks.climb(lambda lr: lr, 5e-3) == 5e-2
    assert ranks.climb(lambda lr: -abs(lr - 1e-2), 5e-3) == 1e-2 and ranks.climb(lambda lr: 0, 5e-3) == 5e-3


def test_the_strangers_are_nobody_that_the_base_has_read_about_or_that_a_rate_was_chosen_on():
    known = {v.name for v in world.make_world().villagers}
    scored, trial = ({v.name for v in ranks.strangers(t)} for t in (False, True))
    assert len(scored) == len(trial) == ranks.NEW and not known & (scored | trial) and not scored & trial
    assert not {v.name for v in tuning.people(trial=True).asked} & {v.name for v in world.make_world().held_out[:250]}


def test_every_cut_is_recorded():
    cuts = experiments.read("ranks")["cuts"]
    wanted = {(seed, lr, r) for seed in experiments.SEEDS for lr in ranks.CUT_RATES for r in ranks.CUTS}
    assert {(c["seed"], c["lr"], c["r"]) for c in cuts} == wanted and len(cuts) == len(wanted)
    assert all(c["energy"] == 1 for c in cuts if c["r"] == 128)


def test_what_is_forgotten_is_recorded_on_three_ladders_of_one_shape():
    shapes = []
    for way in forgetting.WAYS:
        rungs = forgetting.ladder(way)
        assert [[point["seed"] for point in rung] for rung in rungs] == [[0, 1, 2]] * 5
        shapes.append([rung[0]["lr"] / rungs[2][0]["lr"] for rung in rungs])
    assert all(shape == pytest.approx([1 / 3, 3**-0.5, 1, 3**0.5, 3], rel=0.03) for shape in shapes)
    with pytest.raises(KeyError):
        forgetting.ladder("nothing")


def test_up_to_its_best_rate_full_fine_tuning_keeps_more_prose_than_lora_and_dora():
    def prose(way, rungs):
        return [point["perplexity"] for rung in forgetting.ladder(way)[rungs] for point in rung]

    full = prose("everything", slice(0, 3))
    assert max(full) < 4 < min(prose("LoRA", slice(0, 5)) + prose("DoRA", slice(0, 5)))
    assert max(prose("everything", slice(3, 5))) > 6  # beyond it the order is gone, as the lesson says
