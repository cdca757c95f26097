"""MXFP4 and NVFP4 against those who define them: ml_dtypes and torch's own types, on ten million values."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.microscaling import decode_e8m0, encode_e8m0, mxfp4_quantize, nvfp4_quantize

LEVELS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
TIES = (LEVELS[1:] + LEVELS[:-1]) / 2
QUANTIZERS = {"MXFP4": mxfp4_quantize, "NVFP4": nvfp4_quantize}


def hard(block: int) -> torch.Tensor:
    """Float32 (…, block): levels and ties at many scales, their neighbours, both zeros, subnormals, the ends."""
    points = torch.cat([LEVELS, TIES, TIES.nextafter(torch.tensor(9.0)), TIES.nextafter(torch.tensor(-9.0))])
    points = torch.cat([points, -points, torch.tensor([0.0, -0.0, 1e-40, -1e-45])])
    rows = points.repeat(block)[:block * (len(points) * block // block)].view(-1, block)
    rows[:, 0] = 6  # so that the scale is 1
    powers = 2.0 ** torch.arange(-140, 120, 13)
    return torch.cat([rows, *(rows * power for power in powers), torch.zeros(2, block), torch.full((1, block), 1e-45),
                      torch.full((1, block), 3e38), torch.full((1, block), 2.0**-126)])


@pytest.fixture(scope="module")
def many() -> torch.Tensor:
    """Ten million values in rows of 3,200: Gaussian, of scales from 1e-12 to 1e12."""
    g = torch.Generator().manual_seed(0)
    return torch.randn(3200, 3200, generator=g) * torch.exp(4 * torch.randn(3200, 100, 1, generator=g)).expand(
        3200, 100, 32).reshape(3200, 3200)


def e2m1(scaled: np.ndarray) -> np.ndarray:
    """The patterns that ml_dtypes gives to values."""
    return scaled.astype(ml_dtypes.float4_e2m1fn).view(np.uint8)


def mx_by_ml_dtypes(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scales, codes and values of MXFP4 as ml_dtypes makes them. x: (…, 32)."""
    exponent = np.frexp(np.abs(x.double().numpy()).max(-1))[1] - 1 - 2
    scales = np.exp2(np.clip(exponent, -127, 127).astype(np.float64)).astype(ml_dtypes.float8_e8m0fnu)
    scales = np.where(np.abs(x.numpy()).max(-1) > 0, scales, np.float64(2**-127).astype(ml_dtypes.float8_e8m0fnu))
    codes = e2m1((x.double().numpy() / scales.astype(np.float64)[..., None]).astype(np.float32))
    values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32) * scales.astype(np.float32)[..., None]
    return scales.view(np.uint8), codes, values


def nv_by_ml_dtypes(x: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of NVFP4. x: (…, 16)."""
    values = x.numpy()
    absmax = np.abs(values).max(-1)
    tensor_scale = max(absmax.max() / np.float32(6 * 448), np.finfo(np.float32).tiny)
    wanted = np.clip(absmax / np.float32(6) / tensor_scale, 2**-9, 448)
    scales = wanted.astype(ml_dtypes.float8_e4m3fn)
    steps = scales.astype(np.float32) * tensor_scale
    codes = e2m1(values / steps[..., None])
    return scales.view(np.uint8), codes, codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32) * steps[..., None]


@pytest.mark.parametrize(("quantizer", "reference", "block"), [
    (mxfp4_quantize, mx_by_ml_dtypes, 32), (nvfp4_quantize, nv_by_ml_dtypes, 16)], ids=list(QUANTIZERS))
def test_ten_million_values_are_those_of_ml_dtypes_bit_for_bit(quantizer, reference, block, many):
    for x in (many, hard(block), many[:100].bfloat16(), -many[:3].half().float().clamp(-6e4, 6e4)):
        q = quantizer(x)
        scales, codes, values = reference(x.float().unflatten(-1, (-1, block)))
        assert np.array_equal(q.scales.numpy().reshape(scales.shape), scales)
        assert np.array_equal(q.codes.numpy().reshape(codes.shape), codes)
        assert np.array_equal(q.dequantize().numpy().view(np.uint32).reshape(values.shape), values.view(np.uint32))


def test_the_scales_are_torch_s_own_types(many):
    mx, nv = mxfp4_quantize(many[:50]), nvfp4_quantize(many[:50])
    assert torch.equal(mx.block_scales, mx.scales.view(torch.float8_e8m0fnu).float())
    assert torch.equal(nv.block_scales, nv.scales.view(torch.float8_e4m3fn).float() * nv.tensor_scale)
    largest = nv.scales.view(torch.float8_e4m3fn).float().max()
    assert largest == 448  # the block with the largest value has the largest scale there is


def test_the_bytes_are_those_of_torch_s_packed_type():
    codes = torch.arange(16, dtype=torch.uint8).repeat(2)
    q = mxfp4_quantize(torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6]).repeat(2))
    assert torch.equal(q.codes, codes)
    assert q.packed[:2].tolist() == [0x10, 0x32]  # the first value of a pair in the low nibble
    assert q.packed.view(torch.float4_e2m1fn_x2).shape == (16,)


def test_patterns_of_e8m0_are_powers_of_two():
    patterns = torch.arange(256, dtype=torch.uint8)
    values = decode_e8m0(patterns)
    assert torch.equal(values[:255], patterns.view(torch.float8_e8m0fnu).float()[:255])
    assert torch.isnan(values[255])
    assert torch.equal(encode_e8m0(values[:255]), patterns[:255])
    assert encode_e8m0(torch.tensor([0.0, 2.0**-140, 3.99, 3e38])).tolist() == [0, 0, 128, 254]
    assert encode_e8m0(torch.tensor([1e300], dtype=torch.float64)).tolist() == [254]  # the greatest there is


def test_gguf_has_the_same_blocks_but_for_ties(many):
    x = many[:200]
    theirs = quants.quantize(x.numpy(), GGMLQuantizationType.MXFP4)
    ours = mxfp4_quantize(x)
    assert np.array_equal(theirs.reshape(-1, 17)[:, 0], ours.scales.flatten().numpy())
    assert np.array_equal(quants.dequantize(theirs, GGMLQuantizationType.MXFP4), ours.dequantize().numpy())
    tie = torch.zeros(32)
    tie[:3] = torch.tensor([6, 2.5, 3.5])
    assert mxfp4_quantize(tie).dequantize()[:3].tolist() == [6, 2, 4]  # to the even pattern
    theirs = quants.quantize(tie.numpy()[None], GGMLQuantizationType.MXFP4)
    lower = quants.dequantize(theirs, GGMLQuantizationType.MXFP4)
    assert lower[0, :3].tolist() == [6, 2, 3]  # llama.cpp: to the first one found


def test_sizes():
    x = torch.randn(64, 256)
    assert mxfp4_quantize(x).bits_per_weight == 4.25
    assert nvfp4_quantize(x).bits_per_weight == 4.5 + 32 / x.numel()
    assert mxfp4_quantize(x).nbytes == 64 * 256 * 17 // 32 and mxfp4_quantize(x).tensor_scale == 1
    assert nvfp4_quantize(x).packed.shape == (64, 128) and nvfp4_quantize(x).scales.shape == (64, 16)


def test_zeros_stay_zeros():
    for quantizer in QUANTIZERS.values():
        assert torch.equal(quantizer(torch.zeros(3, 64)).dequantize(), torch.zeros(3, 64))


def test_one_large_value_no_longer_ruins_a_tensor():
    x = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    x[0, 0] = 1e5  # E4M3's scales reach down to 448 / 2**-9 = 229,376 times less than the largest
    q = nvfp4_quantize(x)
    far = (q.dequantize() - x)[1:].abs().max()
    assert far < 1.5 and q.dequantize()[0, 0] == 1e5
    assert (nvfp4_quantize(x[1:]).dequantize() - x[1:]).abs().max() < 0.6


def test_without_a_scale_for_the_tensor():
    x = torch.randn(8, 64, generator=torch.Generator().manual_seed(1)) * 0.02
    one = nvfp4_quantize(x, tensor_scale=1)
    two = nvfp4_quantize(x)
    errors = [((q.dequantize() - x).square().mean() / x.square().mean()).item() for q in (one, two)]
    assert errors[1] < errors[0]  # scales of .008 lie among E4M3's subnormals, whose steps are coarse
    with pytest.raises(ValueError, match="take at least"):
        nvfp4_quantize(x, tensor_scale=1e-9)
    full = torch.full((1, 16), 6.0 * 448)
    a_little_less = 1 - 1.5 * 2**-11  # 448.3 would be wanted, and 448 is near enough
    assert torch.equal(nvfp4_quantize(full, tensor_scale=a_little_less).dequantize(), full * a_little_less)
    with pytest.raises(ValueError, match="take at least 1"):  # 449 would be wanted
        nvfp4_quantize(full, tensor_scale=448 / 449)
    for bad in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="positive"):
            nvfp4_quantize(x, tensor_scale=bad)


@pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=list(QUANTIZERS))
def test_what_cannot_be_quantized_is_refused(quantizer):
    for x in (torch.tensor([torch.inf] * 32), torch.tensor([torch.nan] * 32), torch.ones(32).int(), torch.ones(0, 32),
              torch.ones(2, 40), torch.tensor(1.0)):
        with pytest.raises(ValueError):
            quantizer(x)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-2.0**120, max_value=2.0**120),
                min_size=32, max_size=32))
@settings(max_examples=200, deadline=None)
def test_no_error_beyond_what_the_formats_promise(values):
    x = torch.tensor(values)
    mx = (mxfp4_quantize(x).dequantize() - x).double().abs()
    assert (mx <= x.double().abs().max() / 4 + 2.0**-127).all()  # 8 scales become 6; else half a step of 2
    nv = (nvfp4_quantize(x).dequantize() - x).double().abs()
    absmax = x.double().abs().max()
    block = x.double().abs().view(2, 16).amax(1)
    bound = (block / 5.4).clamp(min=absmax / 2688 / 2**9 * 1.1) + 2.0**-115  # half a step of 2, scale off by 1/16
    assert (nv.view(2, 16) <= bound[:, None]).all()
