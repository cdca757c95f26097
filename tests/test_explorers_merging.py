"""The explorer of updates merged into four bits, driven from Python."""

from __future__ import annotations

import pytest
import torch

from helpers.explorers.merging import requantize, watch_the_update
from helpers.quantization import quantize


@pytest.mark.parametrize("start", ["dequantized", "original"])
def test_what_is_shown_is_what_quantization_gives(start):
    explorer = watch_the_update(size=0.1, start=start)
    before = quantize(explorer.weight)
    after = quantize((before.dequantize() if start == "dequantized" else explorer.weight) + explorer.update)
    change = after.dequantize() - before.dequantize()
    assert torch.equal(explorer.got, change)
    assert explorer.changed == pytest.approx((after.codes != before.codes).float().mean().item())
    wanted = torch.nn.functional.cosine_similarity(change.flatten(), explorer.update.flatten(), dim=0).item()
    assert explorer.cosine == pytest.approx(wanted, abs=1e-5)
    assert (explorer.update.norm() / explorer.weight.norm()).item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.parametrize("size, wanted", [(0.01, 0.04), (0.1, 0.74), (0.3, 0.95)])
def test_a_small_update_is_lost_and_a_large_one_is_not(size, wanted):
    explorer = watch_the_update(size=size)
    assert explorer.cosine == pytest.approx(wanted, abs=0.015)
    assert (explorer.changed < 1e-4) == (size == 0.01)


def test_added_to_the_original_the_update_is_kept_on_average_however_small():
    for size in (0.01, 0.1, 0.3):
        assert watch_the_update(size=size, start="original").kept == pytest.approx(1, abs=0.1)
    assert watch_the_update(size=0.01).kept < 0.05


def test_nothing_asked_changes_nothing():
    weight = watch_the_update().weight
    got, changed = requantize(weight, torch.zeros_like(weight))
    assert changed == 0 and got.abs().max() < 1e-7


def test_a_weight_and_an_update_of_ones_own():
    weight, update = torch.randn(32, 64), torch.randn(32, 64)
    explorer = watch_the_update(weight, 1000 * update, 0.5)
    assert torch.allclose(explorer.update, 0.5 * update * weight.norm() / update.norm())
    assert explorer.shown.value.count("<circle") == 300
    assert watch_the_update(torch.randn(3, 5)).shown.value.count("<circle") == 15


def test_report():
    lines = dict(line.split("  ", 1) for line in watch_the_update(size=0.01).report().splitlines())
    assert lines["size of the update"].strip() == "1 % of the weight" and lines["cosine"].strip() == "0.03"
    assert lines["codes that change"].strip() == "0.0 %"


@pytest.mark.parametrize("weight, update, said", [
    (torch.randn(5), None, "weight"), (torch.zeros(4, 4), None, "weight"),
    (torch.randn(4, 4), torch.randn(4, 5), "update"), (torch.randn(4, 4), torch.zeros(4, 4), "update"),
])
def test_matrices_that_do_not_do_are_refused(weight, update, said):
    with pytest.raises(ValueError, match=said):
        watch_the_update(weight, update)
