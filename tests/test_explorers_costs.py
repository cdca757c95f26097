"""The cost explorer, driven from Python: its bytes are the ledger's, and nothing is made up that could not be cited."""

from __future__ import annotations

import re

import pytest

from helpers.explorers.costs import COUNTS, GPUS, MODELS, RESERVE, SPEEDS, what_does_it_cost
from helpers.memory import GIB, LLAMAS, forecast_training
from helpers.parallel.share import per_gpu


@pytest.fixture
def explorer():
    return what_does_it_cost()


def test_a_7b_on_an_a100(explorer):
    assert explorer.gpus == 1
    assert explorer.hours == pytest.approx(10_000 * 1024 / 2415 / 3600) and round(explorer.hours, 2) == 1.18
    assert explorer.money == pytest.approx(1.19 * explorer.hours)
    report = explorer.report()
    for text in ("1 of 80 GB", "10,240,000", "2,415 tokens a second: LLaMA-Factory", "June 2026", "1.18", "$1.40"):
        assert text in report


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("memory", [8, 24, 48, 80])
@pytest.mark.parametrize("offload", [False, True])
def test_the_smallest_number_that_is_enough(explorer, model, memory, offload):
    explorer.set(model, gpu="another", memory=memory, offload=offload)
    step = forecast_training(LLAMAS[model], r=16, sequence=1024)
    room = (memory - RESERVE) * GIB
    fits = [n for n in COUNTS if per_gpu(step, LLAMAS[model], n, 16, offload and n > 1).total <= room]
    assert explorer.gpus == (min(fits) if fits else None)
    assert f"{explorer.gpus or 'more than 16'} of {memory} GB" in explorer.report()
    assert explorer.shown.value.count("too much") == len(COUNTS) - len(fits)


def test_70b_fits_two_24_gb_cards_only_with_offload(explorer):
    explorer.set("Llama-2-70B", gpu="RTX 4090", offload=True)
    assert explorer.gpus == 2
    explorer.set(offload=False)
    assert explorer.gpus == 4
    explorer.set(gpu="another", memory=8)
    assert explorer.gpus is None and "more than 16 of 8 GB" in explorer.report()


def test_what_nobody_measured_is_unknown(explorer):
    for model in MODELS:
        for gpu in GPUS:
            explorer.set(model, gpu)
            if (model, gpu) not in SPEEDS:
                assert explorer.speed == 0 and explorer.hours is None and explorer.money is None
                assert "nothing was found to cite" in explorer.report() and "unknown" in explorer.report()
    explorer.set("Llama-2-13B", "another", speed=1000)
    assert explorer.hours and explorer.money is None and "not filled in" in explorer.report()
    explorer.set(price=2)
    assert explorer.money == pytest.approx(2 * explorer.hours) and explorer.report().count("yours") == 2


def test_prices_are_dated():
    assert all(re.search(r"20\d\d", offer.source) for offer in GPUS.values() if offer.price)
    assert GPUS["another"].price == 0


def test_several_gpus_share_hours_and_not_money(explorer):
    explorer.set("Llama-2-70B", "H100", speed=500)
    assert explorer.gpus == 1
    alone = explorer.hours, explorer.money
    explorer.set(memory=24)
    assert explorer.gpus == 4
    assert explorer.hours == pytest.approx(alone[0] / 4) and explorer.money == pytest.approx(alone[1])
    explorer.set(kept=0.5)
    assert explorer.hours == pytest.approx(alone[0] / 2) and explorer.money == pytest.approx(2 * alone[1])


def test_a_new_gpu_brings_its_price_and_the_readers_own_stays(explorer):
    explorer.set(price=9.0, speed=77)
    explorer.set(rows=5, epochs=2, length=100)
    assert (explorer.price, explorer.speed) == (9.0, 77) and "1,000" in explorer.report()
    explorer.set(gpu="H100")
    assert (explorer.price, explorer.memory, explorer.speed) == (2.95, 80, 0)
    explorer.set(gpu="RTX 4090", price=0.5, speed=900)
    assert (explorer.price, explorer.memory, explorer.speed) == (0.5, 24, 900)


def test_an_unknown_setting_is_named(explorer, capsys):
    explorer.set(colour="red")
    assert explorer.message == "colour is no setting: take one of " + ", ".join(explorer.may_be) + "."
    assert explorer.message in capsys.readouterr().out


def test_every_control_moves_it_and_has_a_label(explorer):
    moved = {"model": "Llama-2-13B", "gpu": "H100", "memory": 40, "price": 3.5, "speed": 100.0, "kept": 0.5, "rows": 7,
             "length": 64, "epochs": 3, "offload": True}
    assert set(moved) == set(explorer.may_be) == set(explorer.controls)
    for name, value in moved.items():
        assert explorer.controls[name].description.strip()
        explorer.controls[name].value = value
        assert getattr(explorer, name) == value
    assert explorer.controls["price"].value == explorer.price
