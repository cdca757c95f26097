"""The outlier explorer, driven from Python."""

from __future__ import annotations

import math

import pytest
import torch

from helpers.explorers.outliers import BITS, meet_the_outlier
from helpers.quantization import absmax_quantize


def test_what_is_shown_is_what_quantization_gives():
    explorer = meet_the_outlier(60, 8)
    x = explorer.weights.clone()
    x[0] = 60
    codes, scale = absmax_quantize(x)
    assert torch.equal(explorer.codes, codes) and explorer.scale == scale
    assert math.isclose(explorer.scale.item(), 60 / 127, rel_tol=1e-6) and explorer.codes[0] == 127
    assert explorer.used == len(set(codes.tolist())) and explorer.levels == 255
    back = codes * scale
    assert math.isclose(explorer.error, ((back - x)[1:].norm() / x[1:].norm()).item(), rel_tol=1e-6)
    assert explorer.zeros == pytest.approx((codes[1:] == 0).sum().item() / 4095)


@pytest.mark.parametrize("outlier, bits, error", [(48, 8, 0.11), (192, 8, 0.44)])
def test_the_error_of_the_others_is_a_uniform_rounding_of_one_step(outlier, bits, error):
    explorer = meet_the_outlier(outlier, bits)
    assert math.isclose(explorer.error, outlier / (2 ** (bits - 1) - 1) / math.sqrt(12), rel_tol=0.03)
    assert round(explorer.error, 2) == error


def test_a_greater_outlier_wastes_more_codes_and_fewer_bits_hurt_more():
    explorer = meet_the_outlier()
    used, errors = [], []
    for outlier in (5, 20, 80, 320, 1000):
        explorer.set(outlier)
        used.append(explorer.used)
        errors.append(explorer.error)
    assert used == sorted(used, reverse=True) and errors == sorted(errors)
    assert used[-1] == 4 and errors[-1] > 0.99  # the outlier, and -1, 0 and 1 for all others
    explorer.set(4)
    errors = [(explorer.set(bits=bits), explorer.error)[1] for bits in BITS]
    assert errors == sorted(errors, reverse=True)


def test_the_histogram_has_a_bar_for_each_code_in_use():
    for outlier, bits in ((4, 8), (60, 8), (1000, 2), (1, 2)):
        explorer = meet_the_outlier(outlier, bits)
        assert explorer.shown.value.count("<rect") == explorer.used


def test_report():
    explorer = meet_the_outlier(60, 8)
    lines = dict(line.split("  ", 1) for line in explorer.report().splitlines())
    assert lines["codes in use"].strip() == f"{explorer.used} of 255" and lines["step"].strip() == "0.472 σ"
    assert lines["outlier"].strip() == "60 σ, one of 4,096 weights"


def test_a_tensor_of_one_is_refused():
    with pytest.raises(ValueError, match="count=1"):
        meet_the_outlier(count=1)
