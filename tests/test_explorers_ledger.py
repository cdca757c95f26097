"""The forecast explorer, driven from Python: its figures are those of helpers.memory, and odd input is named."""

from __future__ import annotations

import re

import pytest

from helpers.explorers.ledger import COLOURS, MODELS, RESERVE, STORED, which_card
from helpers.memory import CARDS, GIB, LLAMAS, forecast_training, smallest_card


@pytest.fixture
def explorer():
    return which_card()


def rectangles(explorer) -> list[float]:
    """The widths of the bar's parts, in units of the drawing."""
    return [float(width) for width in re.findall(r'<rect [^>]* width="([\d.]+)"', explorer.shown.value)]


def lines(explorer) -> list[float]:
    return [float(x) for x in re.findall(r'<line x1="([\d.]+)"', explorer.shown.value)]


def test_what_is_shown_is_the_forecast(explorer):
    expected = forecast_training(LLAMAS["Llama-2-7B"], r=16, sequence=512, bits=4, double_quant=True)
    assert dict(explorer.ledger) == dict(expected) and explorer.card == smallest_card(expected.total) == 8
    assert "Smallest card: 8 GB" in explorer.shown.value and f"{expected.total / GIB:.2f} GiB" in explorer.shown.value


@pytest.mark.parametrize("model, stored, rank, sequence, checkpointing", [
    ("Llama-2-13B", "NF4", 8, 2048, True), ("LLaMA-65B", "NF4 + double quantization", 64, 512, False),
    ("Llama-2-7B", "bf16", 16, 512, True), ("Llama-2-70B", "fp32", 256, 8192, False),
])
def test_every_setting_reaches_the_forecast(explorer, model, stored, rank, sequence, checkpointing):
    explorer.set(model, stored, rank, sequence, checkpointing)
    bits, double_quant = STORED[stored]
    expected = forecast_training(LLAMAS[model], r=rank, sequence=sequence, bits=bits, double_quant=double_quant,
                                 checkpointing=checkpointing)
    assert dict(explorer.ledger) == dict(expected)
    assert explorer.report().startswith(f"{model} in {stored}, r {rank}, {sequence:,} tokens")
    assert f"{expected.total / GIB:.2f} GiB" in explorer.report()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stored", STORED)
def test_the_bar_is_to_scale_beside_the_cards(explorer, model, stored):
    explorer.set(model, stored)
    needed = explorer.ledger.total / GIB + RESERVE
    shown = [card for card in CARDS if card <= needed] + [card for card in CARDS if card > needed][:1]
    where = dict(zip(reversed(shown), lines(explorer), strict=True))
    unit = (where[shown[-1]] - 10) / shown[-1]
    assert sum(rectangles(explorer)) == pytest.approx(needed * unit, abs=0.6)
    assert 10 + needed * unit <= 712 and max(where.values()) <= 712
    assert set(explorer.ledger) == set(COLOURS)
    if explorer.card:
        assert needed <= explorer.card and f"{explorer.card} GB</text>" in explorer.shown.value
        assert all(needed > card for card in CARDS if card < explorer.card)
    else:
        assert needed > max(CARDS) and "No single card of 80 GB" in explorer.shown.value


def test_labels_of_cards_do_not_overlap(explorer):
    for model in MODELS:
        for stored in STORED:
            explorer.set(model, stored)
            labels = re.findall(r'<text x="([\d.]+)" y="(\d+)"', explorer.shown.value)
            for height in {y for _, y in labels}:
                places = sorted(float(x) for x, y in labels if y == height)
                assert all(b - a >= 34 for a, b in zip(places, places[1:], strict=False)), (model, stored, places)


def test_it_answers_at_once_when_it_has_been_there(explorer):
    from helpers.explorers.ledger import forecast

    explorer.set("Llama-2-70B", rank=8)
    hits = forecast.cache_info().hits
    explorer.set("Llama-2-7B", rank=16)
    explorer.set("Llama-2-70B", rank=8)
    assert forecast.cache_info().hits > hits and forecast.cache_info().currsize <= 512
