"""Quantization against bitsandbytes and torch bit for bit, and what holds for any tensor."""

import itertools
import logging
import math
from dataclasses import replace

import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import quantization
from helpers.codebooks import FP4_BNB, FP4_E2M1, GRID, NF4, dynamic_map, integer, normal_float
from helpers.quantization import (
    absmax_quantize,
    pack,
    pack_nibbles,
    quantize,
    unpack,
    unpack_nibbles,
    zeropoint_quantize,
)

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
SHAPES = {32: (65536, 64), 64: (1024, 4096), 128: (8, 512, 1024), 1024: (2**22,)}  # by block size, 2**22 values each
CODEBOOKS = {"nf4": NF4, "fp4 bnb": FP4_BNB, "e2m1": FP4_E2M1, "int8": integer(8), "int3": integer(3),
             "int2": integer(2), "nf5": normal_float(5), "nf6": normal_float(6), "nf7": normal_float(7)}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal to the last bit, -0 told from 0."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def fp4_codes(packed: torch.Tensor) -> torch.Tensor:
    """bitsandbytes' fp4 bit patterns as codes of FP4_BNB: both of its zeros are one level there."""
    return torch.searchsorted(FP4_BNB, bnb.get_4bit_type("fp4", device="cpu")).to(torch.uint8)[
        unpack_nibbles(packed.flatten()).int()]


def weights(kind: str, dtype: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Weights as trained models have them, or ones that no model should have."""
    x = torch.randn(shape, generator=generator(seed))
    if kind == "wild":  # every magnitude (but bf16 subnormals, which bitsandbytes drops), outliers, constant blocks
        rows = x.view(-1, 64)
        low, high = {torch.float16: (-6, 3)}.get(dtype, (-34, 36))
        rows *= 10 ** torch.linspace(low, high, len(rows))[:, None]
        rows[::7, 5] *= 8
        rows[::101] = 0
        rows[5::103] = rows[5::103, :1].clone()
    return x.to(dtype)


# Against bitsandbytes


def test_nf4_equals_bitsandbytes_bit_for_bit_on_a_hundred_million_weights():
    total = 0
    for seed, (kind, dtype, block) in enumerate(itertools.product(["trained", "wild"], DTYPES, SHAPES)):
        case = f"{kind} {dtype} blocks of {block}"
        x = weights(kind, dtype, SHAPES[block], seed)
        double = kind == "trained"
        theirs, state = bnb.quantize_4bit(x, blocksize=block, quant_type="nf4", compress_statistics=double)
        ours = quantize(x, NF4, block, double)
        assert torch.equal(ours.packed, theirs.flatten()), case
        if double:
            assert torch.equal(ours.scales.packed, state.absmax), case
            assert same_bits(ours.scales.scales, state.state2.absmax), case
            assert same_bits(ours.offset, state.offset), case
            assert same_bits(ours.scales.codebook, state.state2.code), case
        else:
            assert same_bits(ours.absmax, state.absmax), case
        assert same_bits(ours.dequantize(), bnb.dequantize_4bit(theirs, state).view(x.shape)), case
        total += x.numel()
    assert total >= 1e8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["trained", "wild"])
def test_fp4_equals_bitsandbytes(kind, dtype):
    x = weights(kind, dtype, (512, 4096), 1)
    theirs, state = bnb.quantize_4bit(x, blocksize=64, quant_type="fp4")
    ours = quantize(x, FP4_BNB)
    assert torch.equal(ours.codes.flatten(), fp4_codes(theirs))
    assert same_bits(ours.absmax, state.absmax)
    assert torch.equal(ours.dequantize(), bnb.dequantize_4bit(theirs, state))


@pytest.mark.parametrize("shape", [(1, 64), (7, 64), (3, 5, 128), (1000, 192), (257 * 64,)])
@pytest.mark.parametrize("double", [False, True])
def test_nested_blocks_that_are_not_full(shape, double):
    x = torch.randn(shape, generator=generator(2))
    theirs, state = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4", compress_statistics=double)
    ours = quantize(x, double_quant=double)
    assert torch.equal(ours.packed, theirs.flatten())
    assert same_bits(ours.dequantize(), bnb.dequantize_4bit(theirs, state).view(x.shape))


@pytest.mark.parametrize("count", [1, 2, 63, 65, 127, 1001, 99_999])
def test_odd_sizes_and_a_short_last_block(count):
    x = torch.randn(count, generator=generator(count))
    theirs, state = bnb.quantize_4bit(x, blocksize=64, quant_type="nf4")
    ours = quantize(x)
    assert torch.equal(ours.codes, unpack_nibbles(theirs.flatten(), count))  # the last half byte is nobody's
    assert same_bits(ours.absmax, state.absmax)


def test_a_row_that_is_not_whole_blocks_comes_back_right():
    # bitsandbytes 0.50 restores such a tensor wrongly on a CPU, from the right codes and scales.
    x = torch.randn(4, 192, generator=generator(3))
    theirs, state = bnb.quantize_4bit(x, blocksize=128, quant_type="nf4")
    ours = quantize(x, block_size=128)
    assert torch.equal(ours.packed, theirs.flatten()) and same_bits(ours.absmax, state.absmax)
    assert (ours.dequantize() - x).norm() < 0.12 * x.norm()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block", [64, 256, 4096])
def test_blockwise_int8_equals_bitsandbytes(block, dtype):
    x = torch.randn(2**20, generator=generator(4)).to(dtype)
    levels = torch.cat([integer(8), torch.ones(1)])  # bitsandbytes wants 256
    theirs, state = bnb.quantize_blockwise(x, code=levels, blocksize=block)
    ours = quantize(x, integer(8), block, grid=True)
    assert torch.equal(ours.codes, theirs)
    assert same_bits(ours.absmax, state.absmax)
    assert same_bits(ours.dequantize(), bnb.dequantize_blockwise(theirs, state))

    nearest = quantize(x, integer(8), block)  # the plain way differs where its grid crosses a tie, and nowhere else
    scaled = (x.view(-1, block).float() / ours.absmax[:, None]).flatten()
    differ = nearest.codes != theirs
    from_tie = (scaled[differ] * 127 - (nearest.codes[differ].float() + theirs[differ].float()) / 2 + 127).abs()
    assert (from_tie <= 127 / GRID * 1.01).all() and differ.float().mean() < 0.003
    if dtype == torch.float32:  # a 16-bit result is rounded once more
        assert (nearest.dequantize() - x).norm() <= (ours.dequantize() - x).norm()


@pytest.mark.parametrize("block", [64, 256])
def test_the_dynamic_map_equals_bitsandbytes(block):
    x = torch.randn(2**20, generator=generator(5)) ** 3
    theirs, state = bnb.quantize_blockwise(x, blocksize=block)
    assert torch.equal(quantize(x, dynamic_map(), block, grid=True).codes, theirs)


# Against torch (whose own quantized tensors are on their way out)


@pytest.mark.filterwarnings("ignore:.*are deprecated:UserWarning")
@pytest.mark.parametrize("spread, shift", [(1, 0), (1, 3), (0.02, -0.1), (100, 1e4), (1, 1e-3)])
def test_zeropoint_equals_torch(spread, shift):
    x = torch.randn(1000, 257, generator=generator(6)) * spread + shift
    codes, scale, zero_point = zeropoint_quantize(x)
    theirs = torch.quantize_per_tensor_dynamic(x, torch.qint8, False)
    assert (scale, zero_point) == (pytest.approx(theirs.q_scale(), rel=1e-7), theirs.q_zero_point())
    assert torch.equal(codes, torch.quantize_per_tensor(x, scale, zero_point, torch.qint8).int_repr())


def near_ties(low: float, high: float) -> torch.Tensor:
    """float32 from low to high, all within four neighbours of a value half-way between two zero-point codes."""
    scale = (high - low) / 255
    ties = (torch.arange(-128, 127) + 0.5 - round(-128 - low / scale)).double() * scale
    around = ties.float().view(torch.int32)[:, None] + torch.arange(-4, 5, dtype=torch.int32)
    return torch.cat([around.view(torch.float32).flatten().clamp(low, high), torch.tensor([low, high])])


@pytest.mark.filterwarnings("ignore:.*are deprecated:UserWarning")
def test_zeropoint_rounds_once_as_torch_does():
    twice = {"product, then sum": 0, "before the shift": 0, "division": 0}
    for low, high in itertools.product((-6.25, -0.4375, -0.3, -0.011), (15.5, 9.4, 0.6, 0.02)):
        x = near_ties(*torch.tensor([low, high]).tolist())
        codes, scale, zero_point = zeropoint_quantize(x)
        theirs = torch.quantize_per_tensor(x, scale, zero_point, torch.qint8).int_repr()
        assert torch.equal(codes, theirs), (low, high)
        inverse = (1 / torch.tensor(scale)).item()
        for name, rounded in (("product, then sum", (x * inverse + zero_point).round()),
                              ("before the shift", (x * inverse).round() + zero_point),
                              ("division", (x / scale + zero_point).round())):
            twice[name] += (rounded.clamp(-128, 127).to(torch.int8) != theirs).sum().item()
    assert all(count > 100 for count in twice.values()), f"these values no longer tell the roundings apart: {twice}"


@pytest.mark.filterwarnings("ignore:.*are deprecated:UserWarning")
def test_zeropoint_codes_end_where_int8_does():
    beyond = {"above": 0, "below": 0}
    for step, k in itertools.product((0.01, 0.7, 3.0), range(255)):  # ends half-way between two codes
        x = torch.tensor([-(k + 0.5) * step, (254.5 - k) * step])
        codes, scale, zero_point = zeropoint_quantize(x)
        assert torch.equal(codes, torch.quantize_per_tensor(x, scale, zero_point, torch.qint8).int_repr()), (step, k)
        unclamped = (x.double() * (1 / torch.tensor(scale)).item() + zero_point).float().round()
        beyond["above"] += unclamped[1].item() > 127
        beyond["below"] += unclamped[0].item() < -128
    assert all(beyond.values()), f"these ends no longer pass those of int8: {beyond}"


@pytest.mark.filterwarnings("ignore:.*are deprecated:UserWarning")
def test_absmax_equals_torch_but_for_ties():
    x = torch.randn(2**20, generator=generator(7))
    codes, scale = absmax_quantize(x)
    theirs = torch.quantize_per_tensor(x, scale.item(), 0, torch.qint8).int_repr()
    differ = codes != theirs  # torch multiplies by 1 / scale, which rounds once more
    assert differ.sum() <= 20
    assert (((x[differ] / scale) % 1 - 0.5).abs() < 1e-4).all()


def test_the_worked_vector():
    x = torch.tensor([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4])
    codes, scale = absmax_quantize(x)
    assert codes.tolist() == [28, -12, -101, 28, -73, 19, 56, 127]
    assert 1 / scale.item() == pytest.approx(23.52, abs=0.005)
    codes, scale = absmax_quantize(x.view(2, 4))
    assert codes.shape == (2, 4) and scale.shape == ()


def test_one_scale_for_each_row():
    x = torch.randn(5, 40, generator=generator(8)) * torch.tensor([1e-3, 1, 10, 0, 1e4])[:, None]
    codes, scale = absmax_quantize(x, dim=1)
    assert scale.shape == (5, 1)
    for row in range(5):
        alone, one = absmax_quantize(x[row])
        assert torch.equal(codes[row], alone) and scale[row].item() == one.item()


# Whatever the tensor


sizes = st.lists(st.integers(1, 9), max_size=4).map(tuple)
magnitudes = st.sampled_from([1e-45, 1e-41, 1e-38, 1e-20, 1.0, 1e20, 1e38])


@given(sizes, magnitudes, st.sampled_from(sorted(CODEBOOKS)), st.integers(1, 70) | st.none(), st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_the_error_stays_within_the_worst_gap(shape, magnitude, name, block, seed):
    codebook = CODEBOOKS[name]
    x = (torch.rand(shape, generator=generator(seed)) * 2 - 1) * magnitude
    quantized = quantize(x, codebook, block)
    back = quantized.dequantize()
    assert back.shape == x.shape and back.dtype == x.dtype
    absmax = quantized.absmax.repeat_interleave(quantized.block_size)[:x.numel()].view(shape)
    half = codebook.diff().max().item() / 2
    assert ((back.double() - x.double()).abs() <= absmax.double() * half * 1.00001 + 2e-45).all()
    assert torch.equal(quantize(back, codebook, block).dequantize(), back)


@given(sizes, st.sampled_from(DTYPES), st.integers(0, 2**31), st.booleans())
@settings(max_examples=60, deadline=None)
def test_shape_and_dtype_are_kept_and_quantizing_again_changes_nothing(shape, dtype, seed, double):
    x = torch.randn(shape, generator=generator(seed)).to(dtype)
    quantized = quantize(x, double_quant=double)
    back = quantized.dequantize()
    assert back.shape == x.shape == quantized.codes.shape and back.dtype == dtype
    if not double:  # with rounded scales the largest value of a block is no longer a level
        again = quantize(back)
        assert torch.equal(again.packed, quantized.packed) and torch.equal(again.dequantize(), back)


def test_views_are_quantized_in_the_order_they_show():
    x = torch.randn(60, 70, generator=generator(9))
    for view in (x.t(), x[::2, 3:], x.expand(2, 60, 70), x.t()[5]):
        assert torch.equal(quantize(view).dequantize(), quantize(view.contiguous()).dequantize())
    kept = x.clone()
    quantize(x)
    assert torch.equal(x, kept)
    assert torch.equal(quantize(x, NF4.double()).packed, quantize(x).packed)
    assert quantize(x, NF4.double()).codebook.dtype == torch.float32


def test_scalars_zeros_and_constants():
    assert quantize(torch.tensor(-2.5)).dequantize().item() == -2.5
    for value, double in itertools.product((0.0, 3.0, -3.0), (False, True)):
        x = torch.full((3, 50), value)
        assert torch.equal(quantize(x, double_quant=double).dequantize(), x)
    x = torch.randn(4, 64, generator=generator(10))
    x[1] = 0
    for double in (False, True):
        assert torch.equal(quantize(x, double_quant=double).dequantize()[1], torch.zeros(64))
    assert quantize(torch.nn.Parameter(x)).dequantize().requires_grad is False


def test_chunks_leave_no_seam(monkeypatch):
    x = torch.randn(5003, generator=generator(11))
    whole = {(name, block): quantize(x, codebook, block).dequantize()
             for (name, codebook), block in itertools.product(CODEBOOKS.items(), (3, 64, 6000, None))}
    monkeypatch.setattr(quantization, "CHUNK", 100)
    for (name, block), expected in whole.items():
        assert torch.equal(quantize(x, CODEBOOKS[name], block).dequantize(), expected), (name, block)


@given(sizes, magnitudes.filter(lambda m: m >= 1e-38), st.integers(2, 8), st.integers(0, 2**31), st.floats(-2, 2))
@settings(max_examples=80, deadline=None)
def test_integers_come_back_within_half_a_step(shape, magnitude, bits, seed, shift):
    x = (torch.rand(shape, generator=generator(seed)) * 2 - 1 + shift) * magnitude
    codes, scale = absmax_quantize(x, bits)
    assert codes.dtype == torch.int8 and codes.shape == x.shape and codes.abs().max() <= 2 ** (bits - 1) - 1
    assert ((codes * scale - x).abs() <= scale * 0.501).all()
    codes, scale, zero = zeropoint_quantize(x, bits)
    assert codes.shape == x.shape and -(2 ** (bits - 1)) <= codes.min().item() <= codes.max().item() < 2 ** (bits - 1)
    assert (((codes.double() - zero) * scale - x).abs() <= scale * 1.001).all()  # the zero point is rounded too


def test_the_smallest_numbers_do_not_wrap_around():
    assert absmax_quantize(torch.tensor([2e-43, -2e-43]))[0].tolist() == [127, -127]  # the scale is rounded down


def test_zeros_as_integers():
    codes, scale = absmax_quantize(torch.zeros(3))
    assert not codes.any() and scale == 1
    codes, scale, zero_point = zeropoint_quantize(torch.zeros(3))
    assert ((codes - zero_point) * scale).tolist() == [0, 0, 0] and scale == 1


def test_zero_points_of_the_smallest_numbers():
    codes, scale, zero_point = zeropoint_quantize(torch.tensor([0, 1e-40, 2.55e-40]))  # 1 / scale passes float32
    assert (codes.tolist(), zero_point, codes.dtype) == ([-128, -28, 127], -128, torch.int8)


# Packing and bytes


def test_the_first_nibble_is_the_high_one():
    assert pack_nibbles(torch.tensor([1, 2, 15, 0, 7], dtype=torch.uint8)).tolist() == [0x12, 0xF0, 0x70]
    packed = torch.tensor([0x12, 0xF0], dtype=torch.uint8)
    assert unpack_nibbles(packed).tolist() == [1, 2, 15, 0]
    assert unpack_nibbles(packed, 0).tolist() == []


@given(st.integers(1, 8), st.integers(1, 100), st.integers(0, 2**31))
@settings(max_examples=80, deadline=None)
def test_packed_codes_come_back_and_waste_less_than_a_byte(bits, count, seed):
    codes = torch.randint(2**bits, (count,), dtype=torch.uint8, generator=generator(seed))
    packed = pack(codes, bits)
    assert len(packed) == math.ceil(count * bits / 8)
    assert torch.equal(unpack(packed, bits, count), codes)
    assert packed.dtype == unpack(packed, bits, count).dtype == torch.uint8
    stream = "".join(f"{code:0{bits}b}" for code in codes.tolist())
    assert stream.ljust(8 * len(packed), "0") == "".join(f"{byte:08b}" for byte in packed.tolist())


@pytest.mark.parametrize("codebook", ["nf4", "int3", "int2"])
def test_codes_are_unpacked_and_decoded_where_they_lie(codebook):
    x = torch.randn(2, quantization.whole_blocks(64), generator=generator(13))  # two pieces
    held = quantize(x, CODEBOOKS[codebook])
    there = replace(held, packed=held.packed.to("meta"), scales=held.scales.to("meta"),
                    codebook=held.codebook if held.bits in quantization.WIDE else held.codebook.to("meta"))
    assert there.codes.device.type == there.dequantize().device.type == "meta"
    assert there.dequantize().shape == x.shape
    assert pack(torch.zeros(64, dtype=torch.uint8, device="meta"), 3).device.type == "meta"
    assert quantization.byte_table((-1.0, 0.0, 1.0), 2, torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize("codebook, double, bits", [
    (NF4, False, 4.5), (NF4, True, 4 + 8 / 64 + 32 / (64 * 256)), (integer(8), False, 8.5), (integer(3), False, 3.5)])
def test_bits_per_weight(codebook, double, bits):
    quantized = quantize(torch.randn(1024, 1024, generator=generator(12)), codebook, 64, double)
    assert quantized.bits_per_weight == pytest.approx(bits + (32 / 2**20 if double else 0))
    stored = [quantized.packed, quantized.scales.packed, quantized.scales.scales, quantized.offset] if double else \
        [quantized.packed, quantized.scales]
    assert quantized.nbytes == sum(part.numel() * part.element_size() for part in stored)


# What is refused


@pytest.mark.parametrize("function", [quantize, absmax_quantize, zeropoint_quantize])
@pytest.mark.parametrize("x, message", [
    (torch.arange(3), "torch.int64"), (torch.empty(0, 4), r"\(0, 4\)"),
    (torch.tensor([1.0, math.nan]), "nan_to_num"), (torch.tensor([-math.inf, 1]), "-inf"),
    (torch.tensor([1e300], dtype=torch.float64), "inf")])
def test_tensors_that_are_refused(function, x, message):
    with pytest.raises(ValueError, match=message):
        function(x)


@pytest.mark.parametrize("codebook, message", [
    (torch.empty(0), r"\(0,\)"), (torch.linspace(-1, 1, 257), r"\(257,\)"),
    (NF4.flip(0), "sort it"), (torch.tensor([0.0, 0.0, 1.0]), "doubles"), (torch.tensor([0.0, math.nan]), "sort it"),
    (torch.arange(-8.0, 8.0) / 7, "absmax"),
    (torch.tensor([-1, 0, 1.5]), "absmax"), (NF4.view(4, 4), r"\(4, 4\)")])
def test_codebooks_that_are_refused(codebook, message):
    with pytest.raises(ValueError, match=message):
        quantize(torch.ones(3), codebook)


def test_other_arguments_that_are_refused():
    for block in (0, -64):
        with pytest.raises(ValueError, match=f"block_size={block}"):
            quantize(torch.ones(3), NF4, block)
    for function, bits in itertools.product((absmax_quantize, zeropoint_quantize), (1, 9)):
        with pytest.raises(ValueError, match=f"bits={bits}"):
            function(torch.ones(3), bits)
    with pytest.raises(ValueError, match="finite"):
        quantize(torch.full((4096,), 3e38), double_quant=True)
    with pytest.raises(ValueError, match="15"):
        pack_nibbles(torch.tensor([16], dtype=torch.uint8))
    with pytest.raises(ValueError, match="torch.int64"):
        pack_nibbles(torch.tensor([1]))
    with pytest.raises(ValueError, match="count=3"):
        unpack_nibbles(torch.zeros(1, dtype=torch.uint8), 3)
    with pytest.raises(ValueError, match="torch.float32"):
        unpack_nibbles(torch.zeros(1))
