"""The explorer of sixteen levels, driven from Python."""

from __future__ import annotations

import math
import time

import pytest
import torch

from helpers.codebooks import FP4_E2M1, NF4
from helpers.explorers.levels import drag_levels, gaussian_weights, starting_points


def test_it_starts_from_nf4_and_measures_what_is_known():
    explorer = drag_levels()
    assert torch.equal(explorer.levels, NF4) and explorer.message == ""
    assert explorer.mse == pytest.approx(0.00846, rel=0.01) and explorer.mae == pytest.approx(0.0728, rel=0.01)
    assert explorer.entropy == pytest.approx(3.885, abs=0.005)
    assert explorer.shares.sum() == pytest.approx(1) and len(explorer.shares) == 16


@pytest.mark.parametrize("name, levels, mse", [("int4", 15, 0.01158), ("FP4 E2M1", 15, 0.01117), ("Lloyd", 16, 0.00800),
                                               ("FP4 of bitsandbytes", 15, 0.01487), ("NF4", 16, 0.00846)])
def test_the_codebooks_to_start_from(name, levels, mse):
    explorer = drag_levels(name)
    assert len(explorer.levels) == levels and explorer.controls["code"].max == levels - 1
    assert explorer.mse == pytest.approx(mse, rel=0.01)
    assert explorer.report().startswith(f"{name}: {levels} levels")


def test_the_error_is_that_of_the_nearest_level():
    explorer = drag_levels()
    explorer.move(8, 0.1)
    weights = gaussian_weights()
    absmax = weights.abs().amax(dim=1, keepdim=True)
    nearest = ((weights / absmax)[..., None] - explorer.levels).abs().argmin(dim=-1)
    error = explorer.levels[nearest] * absmax - weights
    assert explorer.levels[8] == pytest.approx(0.1)
    assert explorer.mse == pytest.approx((error.square().mean() / weights.square().mean()).item(), rel=1e-4)
    assert explorer.shares[8].item() == pytest.approx((nearest == 8).float().mean().item(), abs=1e-4)


def test_sliders_move_a_level_and_reset_brings_it_back():
    explorer = drag_levels()
    explorer.controls["code"].value = 12
    assert explorer.controls["level"].value == pytest.approx(NF4[12].item())
    before = explorer.shown.value
    explorer.controls["level"].value = 0.5
    assert explorer.levels[12] == pytest.approx(0.5) and explorer.shown.value != before
    assert "NF4, changed: 16 levels" in explorer.shown.value
    explorer.controls["again"].click()
    assert torch.equal(explorer.levels, NF4) and explorer.shown.value == before
    explorer.controls["start"].value = "FP4 E2M1"
    assert torch.equal(explorer.levels, FP4_E2M1) and explorer.controls["code"].value == 12
    assert torch.equal(starting_points()["NF4"], NF4), "a starting point must not be changed by dragging"


def test_a_code_beyond_the_levels_is_left_when_they_become_fewer():
    explorer = drag_levels()
    explorer.controls["code"].value = 15
    explorer.controls["start"].value = "int4"
    assert explorer.controls["code"].value == 14 and explorer.controls["level"].value == 1


@pytest.mark.parametrize("code, level, placed, said", [
    (8, 0.5, NF4[9].item() - 0.002, "stops at its neighbour"), (8, -3, 0.002, "stops at its neighbour"),
    (15, 7, 1.0, "stops at the end"), (0, -math.inf, -1.0, "stops at the end")])
def test_a_level_stops_at_its_neighbours_and_ends(code, level, placed, said):
    explorer = drag_levels()
    explorer.move(code, level)
    assert explorer.levels[code].item() == pytest.approx(placed) and said in explorer.shown.value
    assert (explorer.levels.diff() > 0).all()


def test_dragging_is_quick():
    explorer = drag_levels()
    started = time.process_time()
    for step in range(10):
        explorer.move(5, -0.2 + step / 1000)
    assert (time.process_time() - started) / 10 < 0.3
