"""The formats against those who define them: torch's dtypes and ml_dtypes, pattern by pattern."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import floats
from helpers.floats import (
    BF16,
    FORMATS,
    FP4_E2M1,
    FP8_E4M3,
    FP8_E5M2,
    FP16,
    FP32,
    TF32,
    FloatFormat,
    bit_string,
    cast,
    decode,
    encode,
)

TORCH16 = [(FP16, torch.float16), (BF16, torch.bfloat16)]
TORCH8 = [(FP8_E4M3, torch.float8_e4m3fn), (FP8_E5M2, torch.float8_e5m2)]
SMALL = [(FP8_E4M3, ml_dtypes.float8_e4m3fn), (FP8_E5M2, ml_dtypes.float8_e5m2), (FP4_E2M1, ml_dtypes.float4_e2m1fn)]
NAMED = {"ids": lambda value: value.name if isinstance(value, FloatFormat) else ""}


def patterns(fmt: FloatFormat) -> torch.Tensor:
    """All patterns of a format of up to 20 bits."""
    return torch.arange(2**fmt.bits)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal values, NaN where NaN is, -0 where -0 is."""
    finite = ~torch.isnan(b)
    return bool(torch.equal(torch.isnan(a), torch.isnan(b)) and torch.equal(a[finite], b[finite])
                and torch.equal(torch.signbit(a[finite]), torch.signbit(b[finite])))


def adversarial(fmt: FloatFormat) -> torch.Tensor:
    """float32: values of the format, the ties between them, both neighbours of each, overflow's border, 0, inf, NaN."""
    step = max(1, 2**fmt.bits // 2**17)
    values = decode(torch.arange(0, fmt.largest + 1, step), fmt).double()
    border = torch.tensor([fmt.max + fmt.spacing(fmt.max).item() / 2, 2 * fmt.max, fmt.min_subnormal / 2])
    points = torch.cat([values, (values[1:] + values[:-1]) / 2, border.double()]).float()
    points = torch.cat([points, points.nextafter(torch.tensor(torch.inf)), points.nextafter(torch.tensor(-torch.inf))])
    return torch.cat([points, -points, torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38, 1e-45, -1e-45])])


@pytest.fixture(scope="module")
def anything() -> torch.Tensor:
    """Two million random patterns of float32: every exponent, inf, NaN and subnormals among them."""
    bits = torch.randint(-2**31, 2**31, (2_000_000,), generator=torch.Generator().manual_seed(0))
    return bits.int().view(torch.float32)


@pytest.mark.parametrize("fmt, dtype", TORCH16, **NAMED)
def test_every_16_bit_pattern_decodes_as_in_torch(fmt, dtype):
    every = patterns(fmt)
    assert len(every) == 65536
    assert same(decode(every, fmt), every.to(torch.uint16).view(dtype).float())


@pytest.mark.parametrize("fmt, dtype", TORCH8, **NAMED)
def test_every_8_bit_pattern_decodes_as_in_torch(fmt, dtype):
    every = patterns(fmt)
    assert same(decode(every, fmt), every.to(torch.uint8).view(dtype).float())


@pytest.mark.parametrize("fmt, dtype", SMALL, **NAMED)
def test_every_small_pattern_decodes_as_in_ml_dtypes(fmt, dtype):
    every = patterns(fmt)
    assert same(decode(every, fmt), torch.from_numpy(every.numpy().astype(np.uint8).view(dtype).astype(np.float32)))


@pytest.mark.parametrize("fmt", [fmt for fmt in FORMATS if fmt.bits < 32], **NAMED)
def test_encoding_what_was_decoded_gives_every_pattern_back(fmt):
    every = patterns(fmt)
    values = decode(every, fmt)
    number = ~torch.isnan(values)
    assert torch.equal(encode(values[number], fmt), every[number])
    assert number.all() if fmt.nan is None else torch.isnan(decode(encode(values[~number], fmt), fmt)).all()


@pytest.mark.parametrize("fmt, dtype", TORCH16, **NAMED)
def test_casts_round_as_torch_rounds(fmt, dtype, anything):
    everyday = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1))
    for x in (anything, everyday, everyday * fmt.max, everyday * 2.0**fmt.emin, adversarial(fmt)):
        assert same(cast(x, fmt), x.to(dtype).float())
        finite = ~torch.isnan(x)
        assert torch.equal(encode(x, fmt)[finite], x.to(dtype).view(torch.int16).long()[finite] & 0xFFFF)


@pytest.mark.parametrize("fmt, dtype", SMALL, **NAMED)
def test_casts_round_as_ml_dtypes_rounds_and_overflows(fmt, dtype, anything):
    everyday = torch.randn(1_000_000, generator=torch.Generator().manual_seed(1))
    for x in (anything, everyday, everyday * fmt.max / 3, everyday * 2.0**fmt.emin, adversarial(fmt)):
        if fmt.nan is None:
            x = x[~torch.isnan(x)]
        with np.errstate(all="ignore"):
            theirs = x.numpy().astype(dtype)
        assert same(cast(x, fmt), torch.from_numpy(theirs.astype(np.float32)))
        assert torch.equal(encode(x, fmt), torch.from_numpy(theirs.view(np.uint8)).long())  # NaN included


@pytest.mark.parametrize("fmt, dtype", TORCH8, **NAMED)
def test_casts_to_8_bits_round_as_torch_rounds_up_to_the_border(fmt, dtype, anything):
    """Beyond the border torch 2.13 writes ±448 into e4m3, even for infinity, where ml_dtypes writes NaN; so do we."""
    border = fmt.max + fmt.spacing(fmt.max).item() / 2
    x = torch.cat([anything, adversarial(fmt)])
    x = x[(x.abs() <= border) | torch.isnan(x)] if fmt is FP8_E4M3 else x
    assert same(cast(x, fmt), x.to(dtype).float())


def test_float32_is_itself(anything):
    finite = ~torch.isnan(anything)
    assert torch.equal(encode(anything, FP32)[finite], anything.view(torch.int32).long()[finite] & 0xFFFFFFFF)
    assert same(cast(anything, FP32), anything)
    x = torch.randn(500_000, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 10.0**torch.linspace(
        -46, 39, 500_000, dtype=torch.float64)
    assert same(cast(x, FP32), x.float())  # float64 rounds to float32 as torch rounds it


def test_tf32_is_float32_with_thirteen_bits_rounded_away(anything):
    """By definition: add half of the thirteen bits (a little less on even ground), then clear them."""
    finite = torch.isfinite(anything)
    bits = anything[finite].view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0xFFF + ((bits >> 13) & 1)) >> 13
    assert torch.equal(encode(anything[finite], TF32), rounded)
    assert torch.isnan(cast(anything[torch.isnan(anything)], TF32)).all()


@pytest.mark.parametrize("fmt, dtype", [(FP32, torch.float32), *TORCH16, *TORCH8], **NAMED)
def test_the_limits_are_those_of_torch(fmt, dtype):
    limits = torch.finfo(dtype)
    assert (fmt.bits, fmt.max, 2.0**fmt.emin, fmt.min_subnormal, fmt.eps) == (
        limits.bits, limits.max, limits.smallest_normal, limits.smallest_normal * limits.eps, limits.eps)


def test_the_values_of_fp4():
    assert decode(torch.arange(16), FP4_E2M1).tolist() == [
        0, .5, 1, 1.5, 2, 3, 4, 6, -0.0, -.5, -1, -1.5, -2, -3, -4, -6]
    assert cast(torch.tensor([torch.inf, -1e30]), FP4_E2M1).tolist() == [6, -6]


@pytest.mark.parametrize("fmt", FORMATS, **NAMED)
def test_spacing_is_the_gap_to_the_next_pattern(fmt):
    chosen = torch.randint(0, fmt.largest, (2000,), generator=torch.Generator().manual_seed(3))
    here, above = decode(chosen, fmt).double(), decode(chosen + 1, fmt).double()
    assert torch.equal(fmt.spacing(here).double(), above - here)
    assert torch.equal(fmt.spacing(-here), fmt.spacing(here))
    assert torch.isnan(fmt.spacing(torch.tensor([torch.inf, torch.nan]))).all()
    assert BF16.spacing(200.0).item() == 1 and BF16.spacing(256.0).item() == 2
    assert BF16.spacing(128.0).item() == 1 and BF16.spacing(127.9).item() == .5
    assert torch.isnan(FP16.spacing(65505.0)) and FP16.spacing(65504.0).item() == 32


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=40), st.sampled_from(FORMATS))
@settings(max_examples=150, deadline=None)
def test_a_cast_is_idempotent_monotone_odd_and_nearest(numbers, fmt):
    x = torch.tensor(numbers, dtype=torch.float32).sort().values
    once = cast(x, fmt)
    assert same(cast(once, fmt), once)
    assert same(cast(-x, fmt), -once)
    kept = once[~torch.isnan(once)]  # e4m3 overflows to NaN
    assert (kept.diff().nan_to_num(0.0) >= 0).all()
    inside = x.abs() <= fmt.max
    error = (x.double() - once.double()).abs()[inside]
    assert (error <= fmt.spacing(x[inside]).double() / 2).all() if inside.any() else True


@pytest.mark.parametrize("fmt", FORMATS, **NAMED)
def test_shapes_and_kinds_of_input(fmt):
    x = torch.arange(24.0).view(2, 3, 4) / 8
    for view in (x, x.transpose(0, 2), x[:, ::2], x[0, 0, 3], x.double(), x.half(), x.bfloat16()):
        codes = encode(view, fmt)
        assert codes.shape == view.shape and codes.dtype == torch.int64
        values = decode(codes, fmt)
        assert values.shape == view.shape and values.dtype == torch.float32
    leaf = torch.ones(3, requires_grad=True)
    assert not cast(leaf, fmt).requires_grad
    kept = x.clone()
    cast(x, fmt)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("fmt, dtype", [(FP32, np.float32), (FP16, np.float16), (BF16, ml_dtypes.bfloat16)], **NAMED)
def test_nan_and_infinity_are_written_as_numpy_and_ml_dtypes_write_them(fmt, dtype):
    """Torch's patterns for NaN differ from kernel to kernel."""
    theirs = np.array([np.nan, np.inf], dtype=dtype).view({32: np.uint32, 16: np.uint16}[fmt.bits])
    assert encode(torch.tensor([torch.nan, torch.inf]), fmt).tolist() == [fmt.nan, fmt.infinity] == theirs.tolist()
    assert FP8_E4M3.infinity is FP4_E2M1.infinity is FP4_E2M1.nan is None


def test_negative_zero_and_small_integers():
    assert encode(torch.tensor([0.0, -0.0]), FP16).tolist() == [0, 0x8000]
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16):
        assert decode(torch.tensor([1], dtype=dtype), FP8_E4M3).item() == 2.0**-9


@pytest.mark.parametrize("call, said", [
    (lambda: encode(torch.tensor([1, 2]), FP16), "torch.int64.*x.float()"),
    (lambda: encode(1.5, FP16), "x is float:"),
    (lambda: encode(torch.empty(0), FP16), r"\(0,\)"),
    (lambda: encode(torch.ones(1), "fp16"), "'fp16'.*FloatFormat"),
    (lambda: encode(torch.tensor([torch.nan]), FP4_E2M1), "fp4 e2m1.*nan_to_num"),
    (lambda: decode(torch.tensor([0.5]), FP16), "torch.float32"),
    (lambda: decode(torch.tensor([True]), FP16), "torch.bool"),
    (lambda: decode([1], FP16), "list"),
    (lambda: decode(torch.empty(0, dtype=torch.int64), FP16), r"\(0,\)|no element"),
    (lambda: decode(torch.tensor([65536]), FP16), "65536.*65535"),
    (lambda: decode(torch.tensor([-1]), FP16), r"-1.*bits & 0xffff"),
    (lambda: decode(torch.tensor([1]), torch.float16), "torch.float16.*FloatFormat"),
    (lambda: cast(torch.ones(2, dtype=torch.int8), BF16), "torch.int8"),
])
def test_bad_input_is_refused_with_its_remedy(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_your_own_format():
    """ml_dtypes' float6_e2m3fn, which the course does not name."""
    fp6 = FloatFormat("fp6 e2m3", 2, 3, 1, "none")
    theirs = torch.from_numpy(np.arange(64, dtype=np.uint8).view(ml_dtypes.float6_e2m3fn).astype(np.float32))
    assert same(decode(torch.arange(64), fp6), theirs)
    assert fp6.max == 7.5 and fp6.min_subnormal == 0.125


def test_bit_string():
    assert bit_string(encode(torch.tensor(1234.0), FP16).item(), FP16) == "0 11001 0011010010"
    assert bit_string(0b1001, FP4_E2M1) == "1 00 1"


def test_powers_of_two_are_exact():
    k = torch.arange(-1022, 1024)
    assert floats.power_of_two(k).tolist() == [2.0**n for n in k.tolist()]
    assert torch.equal(floats.exponent_of(floats.power_of_two(k)), k)
