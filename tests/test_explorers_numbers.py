"""The bit explorer, driven from Python."""

from __future__ import annotations

import math

import pytest

from helpers.explorers.numbers import flip_bits
from helpers.floats import BF16, FORMATS, FP4_E2M1, FP8_E4M3, FP16


def test_flipping_bits_changes_the_value_as_the_format_says():
    explorer = flip_bits(0.1)
    assert math.isclose(explorer.value, 0.1, rel_tol=1e-7)
    explorer.flip(30)
    assert math.isclose(explorer.value, 0.1 * 2.0**128, rel_tol=1e-7)
    explorer.flip(30)
    explorer.flip(31)
    assert math.isclose(explorer.value, -0.1, rel_tol=1e-7) and explorer.formula.startswith("-(1 + ")


def test_toggles_show_the_pattern_and_set_it():
    explorer = flip_bits(200, BF16)
    assert [toggle.value for toggle in explorer.toggles[15::-1]] == [c == "1" for c in "0100001101001000"]
    assert [toggle.layout.display for toggle in explorer.toggles] == [None] * 16 + ["none"] * 16
    explorer.toggles[0].value = True
    assert explorer.value == 201 and explorer.controls["x"].value == "201" and explorer.toggles[0].description == "1"
    explorer.controls["fmt"].value = FP16
    assert explorer.fmt is FP16 and explorer.value == 201
    explorer.controls["x"].value = "-inf"
    assert explorer.value == -math.inf and explorer.above == -65504 and explorer.below is None


@pytest.mark.parametrize("x, fmt, below, above", [
    (200, BF16, 199, 201), (256, BF16, 255, 258), (-256, BF16, -258, -255), (0, FP4_E2M1, -.5, .5),
    (-0.0, FP4_E2M1, -.5, .5), (6, FP4_E2M1, 4, None), (-6, FP4_E2M1, None, -4), (448, FP8_E4M3, 416, None),
    (65504, FP16, 65472, math.inf), (math.inf, FP16, 65504, None), (math.nan, FP16, None, None),
])
def test_neighbours(x, fmt, below, above):
    explorer = flip_bits(x, fmt)
    assert (explorer.below, explorer.above) == (below, above)


def test_every_pattern_of_the_small_formats_has_a_report():
    for fmt in FORMATS:
        explorer = flip_bits(0.0, fmt)
        for bit in range(fmt.bits):
            explorer.flip(bit)
            assert explorer.report().startswith(fmt.name) and explorer.message == ""
