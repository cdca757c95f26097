"""The LoRA explorer, driven from Python: its figures are those of helpers.memory and helpers.lora."""

from __future__ import annotations

import re

import pytest

from helpers.explorers.lora import ATTENTION, LAYERS, MODELS, amount, place_adapters
from helpers.lora import add_lora, trainable_parameters
from helpers.pocket import load_pocket


@pytest.fixture
def explorer():
    return place_adapters()


def widths(explorer) -> list[float]:
    """The widths of the bars' parts: three of the adapters', three of everything."""
    return [float(width) for width in re.findall(r'<rect [^>]* width="([\d.]+)"', explorer.shown.value)]


@pytest.mark.parametrize("rank, layers", [(8, "all-linear"), (1, "all-linear"), (4, ["q_proj", "v_proj"]),
                                          (16, ["down_proj"]), (2, ATTENTION)])
def test_it_counts_what_add_lora_trains(explorer, rank, layers):
    model = load_pocket()[0]
    every = sum(p.numel() for p in model.parameters())
    trained, _ = trainable_parameters(add_lora(model, rank, target_modules=layers))
    explorer.set(rank=rank, layers=layers)
    assert explorer.trained == trained and explorer.share == pytest.approx(trained / every)
    assert dict(explorer.ledger) == {"adapter": 4 * trained, "gradients": 4 * trained, "optimizer": 8 * trained}
    assert f"{trained:,} trained weights" in explorer.shown.value and f"{trained:,} weights" in explorer.report()


@pytest.mark.parametrize("rank, layers, trained", [
    (8, "all-linear", 19_988_480), (16, "all-linear", 39_976_960), (64, "all-linear", 159_907_840),
    (8, ["q_proj", "v_proj"], 4_194_304), (64, ["q_proj", "v_proj"], 33_554_432)])
def test_llama_2_7b(explorer, rank, layers, trained):
    explorer.set("Llama-2-7B", rank, layers=layers)
    assert explorer.trained == trained and explorer.share == pytest.approx(trained / 6_738_415_616)


def test_the_bars_are_to_scale(explorer):
    for model in MODELS:
        explorer.set(model, rank=32)
        parts = widths(explorer)
        assert sum(parts[3:]) == pytest.approx(700, abs=0.1)
        assert sum(parts[:3]) == pytest.approx(700 * explorer.share, abs=0.1)
        assert parts[5] == pytest.approx(2 * parts[3], abs=0.05)


def test_alpha_changes_the_scale_and_no_byte(explorer):
    before = explorer.ledger
    explorer.set(alpha=4)
    assert explorer.scaling == 0.5 and explorer.ledger == before and "α/r = 0.5" in explorer.shown.value


def test_the_controls_do_the_same_and_show_what_is_set(explorer):
    for name, value in (("model", "Llama-2-7B"), ("rank", 64), ("alpha", 32)):
        explorer.controls[name].value = value
    for name in set(LAYERS) - {"q_proj", "v_proj"}:
        explorer.layer_boxes[name].value = False
    by_hand = place_adapters()
    by_hand.set("Llama-2-7B", 64, 32, ["v_proj", "q_proj"])
    assert explorer.shown.value == by_hand.shown.value and explorer.report() == by_hand.report()
    assert by_hand.layers == ("q_proj", "v_proj") and by_hand.trained == 33_554_432
    assert [control.value for control in by_hand.controls.values()] == ["Llama-2-7B", 64, 32]
    assert [name for name, box in by_hand.layer_boxes.items() if box.value] == ["q_proj", "v_proj"]


def test_the_last_layer_cannot_be_taken_away(explorer):
    for name in LAYERS:
        explorer.layer_boxes[name].value = False
    assert explorer.layers == LAYERS[-1:] and explorer.layer_boxes[LAYERS[-1]].value
    assert "choose at least one" in explorer.shown.value


def test_amounts_are_readable():
    assert [amount(n) for n in (12, 2048, 3 * 2**20, 5 * 2**30)] == ["12 bytes", "2.0 KiB", "3.0 MiB", "5.0 GiB"]
