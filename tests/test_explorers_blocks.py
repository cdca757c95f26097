"""The block explorer, driven from Python: its figures are those of the library, its controls are heard."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.codebooks import NF4, integer
from helpers.explorers.blocks import (
    CODEBOOKS,
    COUNTS,
    MAGNITUDES,
    SIDE,
    SIZES,
    relative_error,
    wall_in,
    with_outliers,
)
from helpers.quantization import quantize


def test_the_outliers_are_where_they_were_and_only_they_change_with_the_magnitude():
    small, rest = with_outliers(6, 64)
    large, same = with_outliers(192, 64)
    assert torch.equal(rest, same) and (~rest).sum() == 64
    assert torch.equal(small[rest], large[rest]) and torch.equal(small[~rest] * 32, large[~rest])
    assert small[~rest].abs().unique().tolist() == [6] and (small[~rest] < 0).any() and (small[~rest] > 0).any()


def test_the_error_leaves_the_outliers_out():
    weights, rest = with_outliers(100, 16)
    restored = torch.where(rest, weights * 0.9, 0.0)
    assert relative_error(weights, restored, rest) == pytest.approx(0.1, rel=1e-5)


def test_the_figures_of_the_lesson():
    explorer = wall_in()
    assert (explorer.eight, explorer.four) == (pytest.approx(.11, abs=.01), pytest.approx(.25, abs=.01))
    assert explorer.bits == 4.5 and explorer.blocks == 1024
    assert 50 <= explorer.hit <= 64 and 96 < explorer.crossover < 130
    explorer.set(192)
    assert (explorer.eight, explorer.four) == (pytest.approx(.44, abs=.01), pytest.approx(.26, abs=.01))
    assert "NF4 in blocks" in explorer.report()
    explorer.set(48, 4096)
    assert explorer.four > .9
    explorer.set(block_size=SIZES[-1])
    assert explorer.crossover is None and "nowhere up to 768" in explorer.report()


def test_the_curves_are_the_librarys_error_and_cross_where_it_says():
    explorer = wall_in(code="int4", block_size=256)
    weights, rest = with_outliers(24, 64)
    expected = relative_error(weights, quantize(weights, integer(4), 256).dequantize(), rest)
    assert explorer._curve("int4")[MAGNITUDES.index(24)] == expected
    below = max(m for m in MAGNITUDES if m < explorer.crossover)
    explorer.set(below)
    assert explorer.eight < explorer.four
    explorer.set(min(m for m in MAGNITUDES if m > below))
    assert explorer.eight >= explorer.four


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("size", (SIZES[0], SIZES[-1]))
def test_every_end_of_the_sliders_has_a_report(count, size):
    for magnitude in (MAGNITUDES[0], MAGNITUDES[-1]):
        explorer = wall_in(magnitude, size, count)
        assert explorer.message == "" and len(explorer.report().splitlines()) == 5
        assert math.isfinite(explorer.four) and "alt=" in explorer.shown.value
    assert SIZES[-1] == SIDE**2 and CODEBOOKS["NF4"] is NF4
