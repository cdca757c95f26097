"""The blocks of GGUF files against the package `gguf`: byte for byte, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.ggml import Q4_0, Q4_1, Q8_0, dequantize, quantize

FORMATS = [(fmt, GGMLQuantizationType[fmt.name]) for fmt in (Q4_0, Q4_1, Q8_0)]
NAMED = {"argnames": ("fmt", "theirs"), "argvalues": FORMATS, "ids": [fmt.name for fmt, _ in FORMATS]}


def values() -> torch.Tensor:
    """Two million values of many scales, with rows of zeros, of one value, of ties, of opposite ends, and tiny ones."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 1024, generator=g) * torch.exp(2 * torch.randn(2000, 1, generator=g))
    x[0], x[1], x[2] = 0, 3.5, -3.5
    x[3] = torch.arange(1024) % 16 * 0.5  # half steps
    x[4], x[5] = torch.arange(1024) % 2 * 2.0 - 1, 1e-7 * x[5]
    x[6], x[7] = x[6].abs(), -x[7].abs()
    x[8, ::32] = 6e4
    return x


@pytest.mark.parametrize(**NAMED)
def test_bytes_and_values_are_those_of_gguf(fmt, theirs):
    x = values()
    blocks, wanted = quantize(x, fmt), quants.quantize(x.numpy(), theirs)
    assert np.array_equal(blocks.flatten(-2).numpy(), wanted)
    back = dequantize(blocks, fmt)
    assert np.array_equal(back.numpy(), quants.dequantize(wanted, theirs))
    assert back.shape == x.shape


@pytest.mark.parametrize(**NAMED)
def test_any_bytes_are_read_alike(fmt, theirs):
    raw = torch.randint(0, 256, (500, 4, fmt.nbytes), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for field in range(fmt.fields):
        raw[..., 2 * field + 1] &= 0x7B  # neither infinity nor NaN
    wanted = quants.dequantize(raw.flatten(-2).numpy(), theirs)
    assert np.array_equal(dequantize(raw, fmt).numpy(), wanted)


@pytest.mark.parametrize(**NAMED)
def test_sizes(fmt, theirs):
    from gguf import GGML_QUANT_SIZES

    assert (32, fmt.nbytes) == GGML_QUANT_SIZES[theirs]
    assert fmt.bits_per_weight == {"Q4_0": 4.5, "Q4_1": 5, "Q8_0": 8.5}[fmt.name]
    assert quantize(torch.ones(3, 64), fmt).shape == (3, 2, fmt.nbytes)


def test_q4_0_uses_all_sixteen_codes():
    x = torch.linspace(-8, 7, 32)
    assert set((dequantize(quantize(x, Q4_0), Q4_0)).tolist()) == {float(n) for n in range(-8, 8)}
    assert dequantize(quantize(-x, Q4_0), Q4_0).tolist() == (-dequantize(quantize(x, Q4_0), Q4_0)).tolist()


@pytest.mark.parametrize(**NAMED)
def test_what_cannot_be_written_is_refused(fmt, theirs):
    nan = torch.full((32,), torch.nan)
    for x in (torch.ones(33), torch.tensor(1.0), nan, torch.ones(32).long(), torch.ones(0, 32)):
        with pytest.raises(ValueError):
            quantize(x, fmt)
    with pytest.raises(ValueError, match="65504"):
        quantize(torch.linspace(-1e8, 1e8, 32), fmt)
    for blocks in (torch.zeros(2, fmt.nbytes + 1, dtype=torch.uint8), torch.zeros(2, fmt.nbytes),
                   torch.zeros(fmt.nbytes, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="blocks"):
            dequantize(blocks, fmt)


@given(st.lists(st.floats(width=32, min_value=-6e4, max_value=6e4), min_size=32, max_size=32))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize(**NAMED)
def test_the_error_is_what_the_format_promises(fmt, theirs, numbers):
    x = torch.tensor(numbers)
    back = dequantize(quantize(x, fmt), fmt)
    width = (x.max() - x.min()) / 15 if fmt == Q4_1 else x.abs().max() / (8 if fmt == Q4_0 else 127)
    allowed = {"Q4_1": 0.51, "Q4_0": 1.01, "Q8_0": 0.51}[fmt.name]  # Q4_0 cuts the value opposite the largest: a step
    assert ((back - x).abs() <= allowed * width + x.abs().max() * 2**-10 + 2e-6).all()
