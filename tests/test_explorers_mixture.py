"""The mixture explorer, driven from Python: what it shows is what the record holds."""

from __future__ import annotations

import re

import pytest

from helpers import experiments
from helpers.experiments import tuning
from helpers.explorers.mixture import NOTHING, PARTS, SCORES, mix_the_losses


def point(case: str, seed: int = 0, **scores: float) -> dict:
    return {"case": case, "seed": seed, "facts": 0.02, "form": 0.0, "preference": 0.01, "perplexity": 1.75} | {
        key.replace("_", " "): value for key, value in scores.items()}


RECORD = {"points": [
    point("base"), point("domain", facts=1.0, perplexity=3.0), point("domain", 1, facts=0.9, perplexity=4.0),
    *(point("mixture 1:0:0", seed, form=form, perplexity=12.0) for seed, form in enumerate((0.9, 0.8, 1.0))),
    point("mixture 0:1:0", facts=0.95), point("mixture 0:0:1", preference=0.5), point("mixture 1:0:1"),
    *(point("mixture 1:1:0", seed, facts=0.6 + seed / 10, form=0.9) for seed in range(3)),
    point("mixture 1:1:1", facts=0.5, form=0.9, preference=0.99, perplexity=1.8)]}


def mixture():
    return mix_the_losses(RECORD)


def circles(explorer) -> list[tuple[float, float, str]]:
    return [(float(x), float(y), colour) for x, y, colour in
            re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="\d" fill="(#\w+)"', explorer.shown.value)]


def test_what_is_ticked_is_looked_up():
    explorer = mixture()
    assert (explorer.case, explorer.found["form"]) == ("mixture 1:0:0", [0.9, 0.8, 1.0])
    assert "90 % (80 to 100)" in explorer.report() and "instruction rows (3 seeds)" in explorer.report()
    explorer.set(prose=True)
    assert explorer.case == "mixture 1:1:0" and "70 % (60 to 80)" in explorer.report()
    explorer.set(preference=True)
    assert explorer.case == "mixture 1:1:1" and "(1 seed)" in explorer.report() and "1.80" in explorer.report()
    explorer.set(False, False, False)
    assert explorer.case == "base" and "none: the base" in explorer.report()


def test_controls_set_what_is_shown_and_show_what_is_set():
    explorer = mixture()
    explorer.controls["prose"].value = True
    explorer.controls["beside"].value = "domain"
    assert explorer.case == "mixture 1:1:0" and explorer.compared["facts"] == [1.0, 0.9]
    assert "beside it 95 % (90 to 100)" in explorer.report() and "domain (2 seeds)" in explorer.report()
    explorer.set(instruction=False, beside=NOTHING)
    assert explorer.controls["instruction"].value is False and explorer.controls["beside"].value == NOTHING
    assert "domain" not in explorer.report()


def test_a_mixture_that_was_not_measured_is_refused_and_the_control_goes_back(capsys):
    explorer = mixture()
    explorer.set(instruction=False, prose=True)
    explorer.set(preference=True)
    assert "mixture 0:1:1: that was not measured" in explorer.message and explorer.case == "mixture 0:1:0"
    assert explorer.controls["preference"].value is False and capsys.readouterr().out


def test_dots_stand_further_right_the_better_the_score():
    explorer = mixture()
    found = circles(explorer)
    assert len(found) == 4 * 3 and len({y for _, y, _ in found}) == 4
    form = [x for x, y, _ in found if y == sorted({y for _, y, _ in found})[1]]
    assert form[1] < form[0] < form[2]
    kept = max(x for x, y, _ in found if y == max(y for _, y, _ in found))
    explorer.set(instruction=False, prose=True)  # perplexity 1.75 in place of 12
    better = max(x for x, y, _ in circles(explorer) if y == max(y for _, y, _ in circles(explorer)))
    assert better > kept + 200
    explorer.set(beside="domain")
    assert len(circles(explorer)) == 4 * (1 + 2) and len({colour for _, _, colour in circles(explorer)}) == 2
    assert all(150 <= x <= 510 for x, _, _ in circles(explorer))


def test_a_perplexity_off_the_scale_is_a_ring_at_the_left_end():
    explorer = mix_the_losses({"points": [*RECORD["points"], point("mixture 0:1:1", perplexity=6.8e7)]})
    explorer.set(prose=True, preference=True)
    explorer.set(instruction=False)
    assert explorer.limits == (1.75, 20.0) and "68,000,000" in explorer.report()
    assert len(circles(explorer)) == 3 and '<circle cx="158.0" cy="126" r="5" fill="none"' in explorer.shown.value


def test_a_record_without_a_base_is_named():
    with pytest.raises(ValueError, match="no point of the base"):
        mix_the_losses({"points": [point("domain")]})


@pytest.mark.skipif(not {f"mixture {i}:{p}:{d}" for i, p, d in tuning.MIXTURES} <= {
    point["case"] for point in experiments.read("tuning")["points"]}, reason="the record lacks some of the mixtures")
def test_every_mixture_of_the_record_can_be_shown():
    explorer = mix_the_losses()
    for n in range(8):
        explorer.set(*(bool(n & bit) for bit in (1, 2, 4)))
        assert explorer.message == "" and set(explorer.found) == set(SCORES)
        assert explorer.report().splitlines()[0].count(" + ") == max(0, bin(n).count("1") - 1)
    assert list(explorer.controls) == [*PARTS, "beside"]
