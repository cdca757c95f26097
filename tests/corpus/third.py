# ruff: noqa: B905 (as students write zip)
"""Two more wrong answers and one unusual right one for each exercise, written from the prompts alone.

Each was judged before anything was mended for it: `first` in judged.json, which judge.py counts apart.
"""

from __future__ import annotations

import json
import math
import re
import struct
from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from corpus import right, wrong
from helpers.codebooks import NF4, integer
from helpers.floats import FP8_E4M3, cast, exponent_of, power_of_two
from helpers.quantization import quantize

# model_bytes

@wrong("model_bytes", "every number is padded to whole bytes of its own")
def _(parameters, bits):
    bytes_each = (bits + 7) // 8
    return parameters * bytes_each


@wrong("model_bytes", "adds a byte even where nothing is left over")
def _(parameters, bits):
    return parameters * bits // 8 + 1


@right("model_bytes", "the ceiling of an exact fraction")
def _(parameters, bits):
    return math.ceil(Fraction(parameters * bits, 8))


# decode_e4m3

@wrong("decode_e4m3", "subnormals take the exponent 0 - 7 instead of -6")
def _(text):
    sign = -1.0 if text[0] == "1" else 1.0
    e = int(text[1:5], 2)
    m = int(text[5:], 2)
    if e == 15 and m == 7:
        return float("nan")
    hidden = 0 if e == 0 else 1
    return sign * (hidden + m / 8) * 2.0 ** (e - 7)


@wrong("decode_e4m3", "only the positive NaN is recognized")
def _(text):
    if text == "01111111":
        return math.nan
    e, m = int(text[1:5], 2), int(text[5:8], 2)
    if e == 0:
        value = m / 8 * 2 ** -6
    else:
        value = (1 + m / 8) * 2 ** (e - 7)
    return -value if text[0] == "1" else value


@right("decode_e4m3", "walks up from zero, adding one gap after another")
def _(text):
    magnitude = int(text[1:], 2)
    if magnitude == 127:
        return math.nan
    value = 0.0
    for below in range(magnitude):
        value += 2.0 ** (max(below >> 3, 1) - 10)
    return -value if text.startswith("1") else value


# nearest_magnitude

@wrong("nearest_magnitude", "a rounding that carries loses its carry into the exponent")
def _(magnitude, fmt):
    p = fmt.mantissa_bits
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(p - e)).long()
    field = torch.where(steps >= 2 ** p, e - fmt.emin + 1, 0)
    return (field << p) | (steps & (2 ** p - 1))


@wrong("nearest_magnitude", "saturates at the largest number of the format")
def _(magnitude, fmt):
    e = exponent_of(magnitude).clamp(min=fmt.emin)
    steps = torch.round(magnitude * power_of_two(fmt.mantissa_bits - e)).long()
    pattern = steps + ((e - fmt.emin) << fmt.mantissa_bits)
    return pattern.clamp(max=fmt.largest)


@right("nearest_magnitude", "frexp, ldexp and rint of numpy instead of the bits of the float64")
def _(magnitude, fmt):
    x = magnitude.detach().cpu().numpy()
    p = fmt.mantissa_bits
    e = np.frexp(x)[1].astype(np.int64) - 1
    e = np.where(x == 0, fmt.emin, np.maximum(e, fmt.emin))
    steps = np.rint(np.ldexp(x, p - e)).astype(np.int64)
    return torch.as_tensor(np.asarray(steps + (e - fmt.emin) * 2 ** p, dtype=np.int64))


# first_lost_integer

@wrong("first_lost_integer", "takes the integer after the largest full mantissa, a power of two, for lost")
def _(fmt):
    all_ones = int("1" * (fmt.mantissa_bits + 1), 2)
    return all_ones + 1


@wrong("first_lost_integer", "goes by eps and so overlooks the hidden bit")
def _(fmt):
    eps = 2.0 ** -fmt.mantissa_bits
    return int(1 / eps) + 1


@right("first_lost_integer", "writes the binary digits of the integer that is one bit too long")
def _(fmt):
    return int("1" + "0" * fmt.mantissa_bits + "1", 2)


# safe_mean

@wrong("safe_mean", "divides in sixteen bits before it sums in 32")
def _(x):
    return (x / len(x)).float().sum().to(x.dtype)


@wrong("safe_mean", "the sum goes back to sixteen bits before the division")
def _(x):
    total = torch.sum(x, dtype=torch.float32).to(x.dtype)
    return total / len(x)


@right("safe_mean", "the sum as a dot product with ones in float64")
def _(x):
    wide = x.double()
    return (torch.dot(wide, torch.ones_like(wide)) / x.numel()).to(x.dtype)


# bf16_bits

@wrong("bf16_bits", "adds half a step less one, without the odd bit: ties go down")
def _(x):
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF) >> 16
    return torch.where(torch.isnan(x), (bits >> 16) | 0x40, rounded)


@wrong("bf16_bits", "every NaN becomes the same NaN: sign and upper bits are lost")
def _(x):
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return torch.where(x.isnan(), 0x7FC0, rounded)


@right("bf16_bits", "lets torch round and repairs only the NaNs")
def _(x):
    upper = (x.view(torch.int32).long() & 0xFFFFFFFF) >> 16
    out = x.to(torch.bfloat16).view(torch.int16).long() % 65536
    return torch.where(x != x, upper | 0x40, out)


# absmax_quantize

@wrong("absmax_quantize", "guards against zero by a floor of 1e-8 under the scale instead of 1")
def _(x, bits=8):
    q = 2 ** (bits - 1) - 1
    scale = (x.abs().max() / q).clamp(min=1e-8)
    return (x / scale).round().to(torch.int8), scale


@wrong("absmax_quantize", "the step is always absmax / 127, and fewer bits only clip")
def _(x, bits=8):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().max() / 127
    if scale == 0:
        scale = torch.tensor(1.0)
    codes = torch.round(x / scale).clamp(-largest, largest).to(torch.int8)
    return codes, scale


@right("absmax_quantize", "absmax from maximum and minimum, and a bool added where the scale is 0")
def _(x, bits=8):
    end = (1 << (bits - 1)) - 1
    scale = torch.maximum(x.max(), -x.min()) / end
    scale = scale + (scale == 0)
    return torch.clip(torch.round(x / scale), -end, end).char(), scale


# int8_linear

@wrong("int8_linear", "sums in int16, which wraps around as well, only later")
def _(x_codes, x_scale, w_codes, w_scale):
    total = x_codes.to(torch.int16) @ w_codes.to(torch.int16).T
    return total.float() * (x_scale * w_scale)


@wrong("int8_linear", "reshapes the weights to (k, d) instead of transposing them")
def _(x_codes, x_scale, w_codes, w_scale):
    w = w_codes.int().reshape(x_codes.shape[1], -1)
    return (x_codes.int() @ w).float() * x_scale * w_scale


@right("int8_linear", "products by broadcasting, summed in int64, scaled in float64")
def _(x_codes, x_scale, w_codes, w_scale):
    products = x_codes.long().unsqueeze(1) * w_codes.long().unsqueeze(0)
    return (products.sum(dim=-1).double() * x_scale * w_scale).float()


# zeropoint_values

@wrong("zeropoint_values", "clamps the difference to the range of int8")
def _(codes, scale, zero_point):
    difference = (codes.int() - zero_point).clamp(-128, 127)
    return difference.float() * scale


@wrong("zeropoint_values", "scales the codes alone, and takes the zero point away unscaled")
def _(codes, scale, zero_point):
    return codes.float() * scale - zero_point


@right("zeropoint_values", "looks the values up in a table of all 256 codes")
def _(codes, scale, zero_point):
    table = torch.arange(-128 - zero_point, 128 - zero_point).float() * scale
    return table[codes.long() + 128]


# calibrated_codes

@wrong("calibrated_codes", "clamps to the range of all dimensions together, not each to its own")
def _(x, low, high):
    step = (high - low) / 255
    x = x.clamp(low.min(), high.max())
    return ((x - low) / step - 128).round().to(torch.int32).to(torch.int8)


@wrong("calibrated_codes", "rounds by adding a half and cutting off, which goes wrong below zero")
def _(x, low, high):
    step = (high - low) / 255
    codes = ((x - low) / step - 128).clamp(-128, 127)
    return (codes + 0.5).to(torch.int32).clamp(-128, 127).to(torch.int8)


@right("calibrated_codes", "counts the borders between the codes below each value, dimension by dimension")
def _(x, low, high):
    columns = []
    for values, a, b in zip(x.double().T, low.double(), high.double()):
        borders = a + (b - a) * (torch.arange(255, dtype=torch.float64) + 0.5) / 255
        columns.append(torch.bucketize(values.contiguous(), borders) - 128)
    return torch.stack(columns, dim=1).to(torch.int8)


# shifted_product

@wrong("shifted_product", "multiplies the int8 weights by the zero point before it sums: wraps around")
def _(raw, zero_point, w_codes):
    correction = (zero_point * w_codes).sum(dim=1)
    return raw - correction


@wrong("shifted_product", "one sum over the whole weight instead of one for each output")
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.long().sum()


@right("shifted_product", "multiplies a matrix full of zero points by the weights")
def _(raw, zero_point, w_codes):
    n, k = raw.shape[0], w_codes.shape[1]
    shift = torch.full((n, k), zero_point, dtype=torch.int64)
    return raw - shift @ w_codes.to(torch.int64).T


# block_codes

@wrong("block_codes", "strided blocks: every so-many-th weight shares a block instead of neighbours")
def _(x, block_size):
    blocks = x.reshape(block_size, -1).T
    absmax = blocks.abs().amax(dim=1)
    codes = (blocks / absmax[:, None] * 7).round() + 7
    return codes.to(torch.uint8), absmax


@wrong("block_codes", "adds the 7 before rounding, so that ties fall to the other side")
def _(x, block_size):
    blocks = x.flatten().view(-1, block_size)
    absmax = blocks.abs().max(dim=1).values
    codes = (blocks / absmax.unsqueeze(1) * 7 + 7).round()
    return codes.to(torch.uint8), absmax


@right("block_codes", "one block after another, absmax as the infinity norm")
def _(x, block_size):
    codes, tops = [], []
    for block in torch.split(x.flatten(), block_size):
        top = torch.linalg.vector_norm(block, ord=math.inf)
        codes.append(7 + (block / top * 7).round().int())
        tops.append(top)
    return torch.stack(codes).to(torch.uint8), torch.stack(tops)


# pack_codes

@wrong("pack_codes", "precedence: + binds tighter than <<, so the second code lands in the shift")
def _(codes):
    if len(codes) % 2:
        codes = torch.cat([codes, torch.zeros(1, dtype=torch.uint8)])
    return codes[0::2] << 4 + codes[1::2]


@wrong("pack_codes", "an odd number of codes gets its zero in front")
def _(codes):
    codes = F.pad(codes, (len(codes) % 2, 0))
    return (codes[::2] << 4) | codes[1::2]


@right("pack_codes", "pairs times the vector (16, 1)")
def _(codes):
    pairs = F.pad(codes.long(), (0, len(codes) % 2)).reshape(-1, 2)
    return (pairs @ torch.tensor([16, 1])).to(torch.uint8)


# read_nibbles

@wrong("read_nibbles", "all high nibbles first and then all low ones, not interleaved")
def _(packed, count):
    high, low = packed >> 4, packed & 15
    return torch.cat([high, low])[:count]


@wrong("read_nibbles", "reads count // 2 bytes, so that an odd count loses its last code")
def _(packed, count):
    packed = packed[:count // 2]
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()


@right("read_nibbles", "reads the digits of the hexadecimal text")
def _(packed, count):
    digits = bytes(packed.tolist()).hex()
    return torch.tensor([int(digit, 16) for digit in digits[:count]], dtype=torch.uint8)


# scale_index

@wrong("scale_index", "rounds the blocks of a row up, as if every row began a new block")
def _(row, column, columns, block_size):
    per_row = math.ceil(columns / block_size)
    return row * per_row + column // block_size


@wrong("scale_index", "floors the rows' part and the column's part separately")
def _(row, column, columns, block_size):
    return row * columns // block_size + column // block_size


@right("scale_index", "counts the block ends up to the weight")
def _(row, column, columns, block_size):
    position = row * columns + column
    return len(range(block_size, position + 1, block_size))


# through_int4

@wrong("through_int4", "blocks begin anew in every row")
def _(x, block_size):
    parts = []
    for part in x.split(block_size, dim=-1):
        scale = part.abs().amax(dim=-1, keepdim=True) / 7
        scale = torch.where(scale == 0, 1.0, scale)
        parts.append((part / scale).round() * scale)
    return torch.cat(parts, dim=-1)


@wrong("through_int4", "the weights of a short last block come back unquantized")
def _(x, block_size):
    flat = x.flatten()
    whole = len(flat) // block_size * block_size
    blocks = flat[:whole].view(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    back = ((blocks / scale).round() * scale).flatten()
    return torch.cat([back, flat[whole:]]).view(x.shape)


@right("through_int4", "divides 0 by 0 and mends the NaN afterwards")
def _(x, block_size):
    flat = x.reshape(-1)
    blocks = F.pad(flat, (0, -len(flat) % block_size)).reshape(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    codes = torch.nan_to_num(blocks / scale).round().clamp(-7, 7)
    return (codes * scale).reshape(-1)[:len(flat)].reshape(x.shape)


# protect_weights

@wrong("protect_weights", "takes the kept weights out, so that the others move up into other blocks")
def _(w, k, block_size):
    flat = w.flatten()
    keep = torch.zeros(len(flat), dtype=torch.bool)
    keep[flat.abs().topk(k).indices] = True
    out = flat.clone()
    if not keep.all():
        out[~keep] = quantize(flat[~keep], integer(4), block_size).dequantize()
    return out.view(w.shape)


@wrong("protect_weights", "keeps the greatest values, and not the largest magnitudes")
def _(w, k, block_size):
    flat = w.flatten()
    kept = flat.topk(k).indices
    rest = flat.clone()
    rest[kept] = 0
    out = quantize(rest, integer(4), block_size).dequantize()
    out[kept] = flat[kept]
    return out.view(w.shape)


@right("protect_weights", "splits w into a sparse and a dense summand and adds them up again")
def _(w, k, block_size):
    order = w.abs().flatten().argsort(descending=True)
    mask = torch.zeros(w.numel(), dtype=torch.bool)
    mask[order[:k]] = True
    sparse = torch.where(mask.view(w.shape), w, 0.0)
    return quantize(w - sparse, integer(4), block_size).dequantize() + sparse


# normal_levels

@wrong("normal_levels", "the side below zero has the additional step, not the side above")
def _(bits):
    n = 2 ** bits
    offset = 1 - 0.5 * (1 / (2 * n) + 1 / (2 * (n - 1)))
    half = 2 ** (bits - 1)
    up = torch.special.ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64))
    down = -torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))[1:]
    levels = torch.cat([down.flip(0), up])
    return levels / levels.abs().max()


@wrong("normal_levels", "equal steps from end to end in one go, without a zero in the middle")
def _(bits):
    n = 2 ** bits
    offset = 1 - 0.5 * (1 / (2 * n) + 1 / (2 * (n - 1)))
    p = torch.linspace(1 - offset, offset, n, dtype=torch.float64)
    levels = torch.special.ndtri(p)
    return levels / levels.max()


@right("normal_levels", "quantiles from Python's statistics, one number at a time")
def _(bits):
    n, half = 2 ** bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2
    quantile = NormalDist().inv_cdf
    above = [quantile(0.5 + (offset - 0.5) * i / half) for i in range(half + 1)]
    below = [-quantile(0.5 + (offset - 0.5) * i / (half - 1)) for i in range(1, half)]
    top = max(above)
    return torch.tensor(sorted(level / top for level in above + below), dtype=torch.float64)


# nf4_code

@wrong("nf4_code", "computes the index as if the levels were evenly spaced")
def _(x, levels):
    k = len(levels)
    position = (x - levels[0]) / (levels[-1] - levels[0]) * (k - 1)
    return position.round().clamp(0, k - 1).long()


@wrong("nf4_code", "takes the level below each value, and not the nearest")
def _(x, levels):
    return (torch.bucketize(x, levels, right=True) - 1).clamp(min=0)


@right("nf4_code", "finds the two neighbours and compares the distances")
def _(x, levels):
    above = torch.searchsorted(levels, x).clamp(max=len(levels) - 1)
    below = (above - 1).clamp(min=0)
    nearer = (levels[above] - x).abs() < (x - levels[below]).abs()
    return torch.where(nearer, above, below)


# nf4_round_trip

@wrong("nf4_round_trip", "a block of zeros gets code 0, which is the level -1")
def _(block):
    absmax = block.abs().max()
    if absmax == 0:
        return torch.zeros(block.shape, dtype=torch.int64), torch.zeros_like(block)
    codes = torch.bucketize(block / absmax, (NF4[1:] + NF4[:-1]) / 2)
    return codes, NF4[codes] * absmax


@wrong("nf4_round_trip", "scales by the signed value of largest magnitude, which mirrors some blocks")
def _(block):
    flat = block.flatten()
    scale = flat[flat.abs().argmax()]
    safe = scale if scale != 0 else torch.tensor(1.0)
    codes = torch.bucketize(block / safe, (NF4[1:] + NF4[:-1]) / 2)
    return codes, NF4[codes] * scale


@right("nf4_round_trip", "scales the borders up to the block instead of the block down")
def _(block):
    absmax = torch.maximum(block.amax(), -block.amin())
    unit = absmax if absmax > 0 else 1.0
    borders = (NF4[:-1] + NF4[1:]) / 2 * unit
    codes = torch.searchsorted(borders, block.contiguous())
    return codes, absmax * NF4[codes]


# unpack_nf4

@wrong("unpack_nf4", "divides the weights evenly among the scales, although the last block may be short")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    per_block = math.ceil(len(codes) / len(absmax))
    return NF4[codes.int()] * absmax.repeat_interleave(per_block)[:len(codes)]


@wrong("unpack_nf4", "counts bytes where the blocks count weights")
def _(packed, absmax, block_size):
    scales = absmax[torch.arange(len(packed)) // block_size]
    high = NF4[(packed >> 4).long()] * scales
    low = NF4[(packed & 15).long()] * scales
    return torch.stack([high, low], dim=1).flatten()


@right("unpack_nf4", "a table of the two levels of each of the 256 bytes")
def _(packed, absmax, block_size):
    pairs = torch.cartesian_prod(NF4, NF4)
    values = pairs[packed.long()].reshape(-1)
    return values * absmax[torch.arange(len(values)) // block_size]


# weighted_levels

@wrong("weighted_levels", "pins by position: the first, the middle and the last level")
def _(scaled, absmax, levels):
    weight = (absmax[:, None] ** 2).expand_as(scaled).flatten()
    values = scaled.flatten()
    codes = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
    new = levels.clone()
    for i in range(len(levels)):
        if i in (0, len(levels) // 2, len(levels) - 1):
            continue
        mine = codes == i
        if mine.any():
            new[i] = (weight[mine] * values[mine]).sum() / weight[mine].sum()
    return new


@wrong("weighted_levels", "a level without values falls to 0")
def _(scaled, absmax, levels):
    k = len(levels)
    weight = absmax.square()[:, None].expand(scaled.shape).flatten()
    values = scaled.flatten()
    codes = torch.bucketize(values, (levels[1:] + levels[:-1]) / 2)
    top = torch.zeros(k).index_add(0, codes, weight * values)
    bottom = torch.zeros(k).index_add(0, codes, weight)
    new = top / bottom.clamp(min=1e-12)
    pinned = (levels.abs() == 1) | (levels == 0)
    return torch.where(pinned, levels, new)


@right("weighted_levels", "a one-hot matrix of the codes, and two products with it")
def _(scaled, absmax, levels):
    values = scaled.reshape(-1).double()
    weight = absmax.double().square().repeat_interleave(scaled.shape[1])
    codes = torch.bucketize(scaled.reshape(-1), (levels[:-1] + levels[1:]) / 2)
    member = F.one_hot(codes, len(levels)).double()
    mass = weight @ member
    moment = (weight * values) @ member
    free = (mass > 0) & ~torch.isin(levels, torch.tensor([-1.0, 0.0, 1.0], dtype=levels.dtype))
    return torch.where(free, moment / mass, levels.double()).float()


# quantize_scales

@wrong("quantize_scales", "each block of 256 loses its own mean, not the mean of all scales")
def _(absmax, levels):
    middles = (levels[1:] + levels[:-1]) / 2
    codes, nested = [], []
    for block in absmax.split(256):
        block = block - block.mean()
        top = block.abs().max()
        codes.append(torch.bucketize(block / (top if top > 0 else 1), middles))
        nested.append(top)
    return torch.cat(codes).to(torch.uint8), torch.stack(nested)


@wrong("quantize_scales", "pads before the mean is taken away, so that the padding becomes minus the mean")
def _(absmax, levels):
    n = len(absmax)
    mean = absmax.mean()
    blocks = F.pad(absmax, (0, -n % 256)).view(-1, 256) - mean
    nested = blocks.abs().amax(dim=1)
    scaled = blocks / torch.where(nested > 0, nested, 1)[:, None]
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    return codes.flatten()[:n].to(torch.uint8), nested


@right("quantize_scales", "no padding: the blocks are split off, and the nearest level has the least distance")
def _(absmax, levels):
    codes, nested = [], []
    for block in (absmax - absmax.mean()).split(256):
        top = block.abs().max()
        unit = block / top if top > 0 else torch.zeros_like(block)
        codes += (unit[:, None] - levels).abs().argmin(dim=1).tolist()
        nested.append(top)
    return torch.tensor(codes, dtype=torch.uint8), torch.stack(nested)


# hidden_bytes

@wrong("hidden_bytes", "four bytes for every element, although nested scales are codes of one byte")
def _(weight):
    state = weight.quant_state
    count = state.absmax.numel() + state.code.numel()
    if state.nested:
        count += state.offset.numel() + state.state2.absmax.numel() + state.state2.code.numel()
    return 4 * count


@wrong("hidden_bytes", "leaves out the codebook of the second state")
def _(weight):
    state = weight.quant_state
    total = state.absmax.nbytes + state.code.nbytes
    if state.nested:
        total += state.offset.nbytes + state.state2.absmax.nbytes
    return total


@right("hidden_bytes", "walks over whatever tensors the state and its inner state hold")
def _(weight):
    total, todo = 0, [weight.quant_state]
    while todo:
        state = todo.pop()
        for value in vars(state).values():
            if isinstance(value, torch.Tensor):
                total += value.numel() * value.element_size()
            elif isinstance(value, type(state)):
                todo.append(value)
    return total


# count_weights

@wrong("count_weights", "two weights for each stored byte, which counts the filler of an odd number too")
def _(model):
    total = 0
    for p in model.parameters():
        if getattr(p, "quant_state", None) is not None:
            total += p.numel() * p.element_size() * 2
        else:
            total += p.numel()
    return total


@wrong("count_weights", "goes through the modules one by one, and counts shared parameters twice")
def _(model):
    total = 0
    for module in model.modules():
        for p in module.parameters(recurse=False):
            state = getattr(p, "quant_state", None)
            total += p.numel() if state is None else math.prod(state.shape)
    return total


@right("count_weights", "gathers the shapes by the identity of the parameter, then multiplies them out")
def _(model):
    shapes = {}
    for module in model.modules():
        for p in module._parameters.values():
            if p is not None:
                shapes[id(p)] = getattr(getattr(p, "quant_state", None), "shape", p.shape)
    return sum(math.prod(shape) for shape in shapes.values())


# double_dequantize

@wrong("double_dequantize", "adds the offset before it multiplies by the nested absmax")
def _(values, codes, nested_absmax, offset, levels):
    nested = nested_absmax.repeat_interleave(256)[:len(codes)]
    absmax = (levels[codes.long()] + offset) * nested
    return values * absmax[:, None]


@wrong("double_dequantize", "repeat instead of repeat_interleave: neighbours take turns instead of sharing")
def _(values, codes, nested_absmax, offset, levels):
    nested = nested_absmax.repeat(256)[:len(codes)]
    absmax = levels[codes.long()] * nested + offset
    return values * absmax[:, None]


@right("double_dequantize", "index_select, addcmul and einsum instead of repeating and broadcasting")
def _(values, codes, nested_absmax, offset, levels):
    owner = torch.arange(codes.numel()).div(256, rounding_mode="floor")
    absmax = torch.addcmul(offset, levels.index_select(0, codes.int()), nested_absmax.index_select(0, owner))
    return torch.einsum("bi,b->bi", values, absmax)


# nested_bits

@wrong("nested_bits", "divides each stage by its own block only, not by all blocks below it")
def _(bits, blocks):
    return bits[0] + sum(b / n for b, n in zip(bits[1:], blocks))


@wrong("nested_bits", "stops after the scales of the scales")
def _(bits, blocks):
    total = float(bits[0])
    if len(blocks) > 0:
        total += bits[1] / blocks[0]
    if len(blocks) > 1:
        total += bits[2] / (blocks[0] * blocks[1])
    return total


@right("nested_bits", "from the outermost scale inwards, as in Horner's rule")
def _(bits, blocks):
    total = float(bits[-1])
    for stage in range(len(blocks) - 1, -1, -1):
        total = bits[stage] + total / blocks[stage]
    return total


# lora_forward

@wrong("lora_forward", "takes the number of outputs for the rank")
def _(x, W, A, B, alpha):
    r = B.shape[0]
    return x @ W.T + (alpha / r) * ((x @ A.T) @ B.T)


@wrong("lora_forward", "scales the frozen layer along with the branch")
def _(x, W, A, B, alpha):
    r = A.shape[0]
    return (x @ W.T + x @ A.T @ B.T) * alpha / r


@right("lora_forward", "one addmm that scales and adds")
def _(x, W, A, B, alpha):
    return torch.addmm(F.linear(x, W), F.linear(x, A), B.mT, alpha=alpha / B.size(-1))


# moves_first

@wrong("moves_first", "tests by the sum, which is zero where the entries cancel")
def _(A, B):
    moved = ""
    if B.sum() != 0:
        moved += "A"
    if A.sum() != 0:
        moved += "B"
    return moved


@wrong("moves_first", "each matrix is asked about itself and not about the other one")
def _(A, B):
    return ("A" if A.any() else "") + ("B" if B.any() else "")


@right("moves_first", "tries it out: one backward pass of autograd on random rows")
def _(A, B):
    random = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        a = A.detach().double().clone().requires_grad_()
        b = B.detach().double().clone().requires_grad_()
        x = torch.randn(3, A.shape[1], generator=random, dtype=torch.float64)
        g = torch.randn(3, B.shape[0], generator=random, dtype=torch.float64)
        (g * (x @ a.T @ b.T)).sum().backward()
    return "".join(name for name, m in (("A", a), ("B", b)) if m.grad.count_nonzero() > 0)


# merged_weight

@wrong("merged_weight", "returns W itself where it was merged, and not a new tensor")
def _(W, delta, merged):
    if merged:
        return W
    return (W.float() + delta).to(W.dtype)


@wrong("merged_weight", "rounds the update to W's dtype before it adds")
def _(W, delta, merged):
    out = W.clone()
    if not merged:
        out += delta.to(W.dtype)
    return out


@right("merged_weight", "sums up a tuple of one update or none, starting from a copy")
def _(W, delta, merged):
    return sum((delta,) * (not merged), start=W.clone()).to(W.dtype)


# forward_with_dropout

@wrong("forward_with_dropout", "the frozen layer gets the dropped input as well")
def _(x, W, A, B, scaling, drop):
    x = drop(x)
    return x @ W.T + scaling * x @ A.T @ B.T


@wrong("forward_with_dropout", "drops the r numbers between A and B instead of the input")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * drop(x @ A.T) @ B.T


@right("forward_with_dropout", "columns instead of rows: everything transposed")
def _(x, W, A, B, scaling, drop):
    frozen = W @ x.T
    branch = B @ (A @ drop(x).T)
    return torch.add(frozen, branch, alpha=scaling).T


# branch_gradients

@wrong("branch_gradients", "averages over the rows, although the gradient is their sum")
def _(x, g, A, B, scaling):
    n = x.shape[0]
    grad_A = scaling * (g @ B).T @ x / n
    grad_B = scaling * g.T @ (x @ A.T) / n
    return grad_A, grad_B


@wrong("branch_gradients", "the scaling reaches A's gradient but not B's")
def _(x, g, A, B, scaling):
    down = scaling * g @ B
    return down.T @ x, g.T @ (x @ A.T)


@right("branch_gradients", "one rank after another, with nothing but matrix times vector")
def _(x, g, A, B, scaling):
    grad_A = torch.stack([scaling * (g @ B[:, i]) @ x for i in range(A.shape[0])])
    grad_B = torch.stack([scaling * (x @ A[i]) @ g for i in range(A.shape[0])], dim=1)
    return grad_A, grad_B


# lesson 07

@wrong("low_rank_part", "takes the first eigenvectors of eigh, which sorts from the smallest up")
def _(update, r):
    _, vectors = torch.linalg.eigh(update @ update.T)
    basis = vectors[:, :r]
    return basis @ (basis.T @ update)


@wrong("low_rank_part", "projects on the first r columns of Q from a QR decomposition instead of singular vectors")
def _(update, r):
    Q, _ = torch.linalg.qr(update)
    Q = Q[:, :r]
    return Q @ (Q.T @ update)


@right("low_rank_part", "takes the terms behind r away from the matrix instead of adding up the first r")
def _(update, r):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    rest = (U[:, r:] * S[r:]) @ Vh[r:]
    return update - rest


@wrong("chance_similarity", "divides by the rows of X, even where Y has fewer")
def _(i, j, k):
    total = i * j / k
    return total / i


@wrong("chance_similarity", "takes the root: the norm instead of its square")
def _(i, j, k):
    return math.sqrt(i * j / k) / math.sqrt(min(i, j))


@right("chance_similarity", "adds up the rows as exact fractions")
def _(i, j, k):
    total = sum((Fraction(j, k) for _ in range(i)), Fraction(0))
    return float(total / min(i, j))


@wrong("rank_in_budget", "gives each matrix the same share of the budget and takes the worst")
def _(shapes, budget):
    share = budget // len(shapes)
    return min(min(share // (d + k), d, k) for d, k in shapes)


@wrong("rank_in_budget", "caps r by the output side d only")
def _(shapes, budget):
    r = budget // sum(d + k for d, k in shapes)
    return min([r] + [d for d, k in shapes])


@right("rank_in_budget", "bisects the range of possible ranks by their cost")
def _(shapes, budget):
    per_rank = sum(map(sum, shapes))
    possible = range(1, min(map(min, shapes)) + 1)
    return bisect_right(possible, budget, key=lambda r: r * per_rank)


@wrong("adapter_update", "asks whether use_rslora is there, not whether it is true")
def _(A, B, config):
    r = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(r) if "use_rslora" in config else r)
    return scale * (B @ A)


@wrong("adapter_update", "takes the root of alpha / r as a whole")
def _(A, B, config):
    scale = config["lora_alpha"] / config["r"]
    if config.get("use_rslora", False):
        scale = math.sqrt(scale)
    return scale * (B @ A)


@right("adapter_update", "chooses the exponent of r instead of the formula")
def _(A, B, config):
    power = -0.5 if config.get("use_rslora") else -1.0
    return torch.einsum("dr,rk->dk", B, A) * (config["lora_alpha"] * config["r"] ** power)


@wrong("add_adapters", "makes an average of it: divides the weights by their sum")
def _(B1, A1, B2, A2, w1, w2):
    total = w1 + w2
    B = torch.cat([w1 / total * B1, w2 / total * B2], dim=1)
    return B, torch.cat([A1, A2], dim=0)


@wrong("add_adapters", "puts the weights into A instead of B")
def _(B1, A1, B2, A2, w1, w2):
    return torch.cat([B1, B2], dim=1), torch.cat([w1 * A1, w2 * A2], dim=0)


@right("add_adapters", "one row of column weights multiplied onto the stacked Bs")
def _(B1, A1, B2, A2, w1, w2):
    B, A = torch.hstack((B1, B2)), torch.vstack((A1, A2))
    column = torch.tensor([w1] * B1.shape[1] + [w2] * B2.shape[1], dtype=B.dtype, device=B.device)
    return B * column, A


# lesson 08

@wrong("bottleneck", "adds the first bias behind the GELU")
def _(x, down, b, up, c):
    hidden = F.gelu(x @ down.T) + b
    return x + hidden @ up.T + c


@wrong("bottleneck", "applies the GELU behind the way up, not between the two")
def _(x, down, b, up, c):
    hidden = F.linear(x, down, b)
    return x + F.gelu(F.linear(hidden, up, c))


@right("bottleneck", "the biases as one more column, met by ones")
def _(x, down, b, up, c):
    one = x.new_ones(len(x), 1)
    hidden = F.gelu(torch.cat([x, one], 1) @ torch.cat([down, b[:, None]], 1).T)
    return torch.cat([x, hidden, one], 1) @ torch.cat([torch.eye(x.shape[1], dtype=x.dtype), up, c[:, None]], 1).T


@wrong("dora_weight", "takes the length of the sum for the sum of the lengths")
def _(W, dW, m):
    length = W.norm(dim=1, keepdim=True) + dW.norm(dim=1, keepdim=True)
    return m[:, None] * (W + dW) / length


@wrong("dora_weight", "divides all rows by one length, that of the whole matrix")
def _(W, dW, m):
    V = W + dW
    return m.unsqueeze(1) * V / torch.linalg.norm(V)


@right("dora_weight", "a diagonal matrix of factors from the left")
def _(W, dW, m):
    V = W + dW
    return torch.diag(m / torch.linalg.vector_norm(V, dim=1)) @ V


@wrong("answer_each", "gives the rows back in the order of the customers, not of the batch")
def _(x, W, adapters, names):
    h = x @ W.T
    out = []
    for name in dict.fromkeys(names):
        rows = [i for i, other in enumerate(names) if other == name]
        part = h[rows]
        if name:
            A, B, scaling = adapters[name]
            part = part + scaling * (x[rows] @ A.T @ B.T)
        out.append(part)
    return torch.cat(out)


@wrong("answer_each", "stops at the first row that wants the base alone")
def _(x, W, adapters, names):
    h = x @ W.T
    for i, name in enumerate(names):
        if name == "":
            break
        A, B, scaling = adapters[name]
        h[i] += scaling * (B @ (A @ x[i]))
    return h


@right("answer_each", "index_add_ of each customer's rows onto the base's answer")
def _(x, W, adapters, names):
    rows_of = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    rows_of.pop("", None)
    h = F.linear(x, W)
    for name, rows in rows_of.items():
        A, B, scaling = adapters[name]
        index = torch.tensor(rows)
        h = h.index_add(0, index, F.linear(F.linear(x.index_select(0, index), A), B), alpha=scaling)
    return h


@wrong("text_loss", "begins one logit too early, at the last virtual token")
def _(logits, ids):
    n = ids.shape[1]
    start = max(logits.shape[1] - n - 1, 0)
    text = logits[:, start:start + n - 1]
    return F.cross_entropy(text.transpose(1, 2), ids[:, 1:])


@wrong("text_loss", "reshapes where the classes should have been transposed")
def _(logits, ids):
    rows, n = ids.shape
    text = logits[:, logits.shape[1] - n:-1]
    return F.cross_entropy(text.reshape(rows, logits.shape[-1], n - 1), ids[:, 1:])


@right("text_loss", "logsumexp less the logit that was meant, counted from the end")
def _(logits, ids):
    n = ids.shape[1]
    text = logits.flip(1)[:, 1:n].flip(1)
    meant = text.gather(2, ids[:, 1:, None]).squeeze(2)
    return (text.logsumexp(2) - meant).mean()


@wrong("merge_branch", "takes the bias off before it compares, and so loses it silently")
def _(branch, k):
    with torch.no_grad():
        bias = branch(torch.zeros(1, k))
        M = (branch(torch.eye(k)) - bias).T
        x = torch.randn(64, k)
        same = (branch(x) - bias - x @ M.T).abs().max() < 1e-4
    return M.contiguous() if same else None


@wrong("merge_branch", "tries only inputs that are not negative")
def _(branch, k):
    torch.manual_seed(0)
    with torch.no_grad():
        M = branch(torch.eye(k)).T
        if branch(torch.zeros(1, k)).abs().max() > 1e-4:
            return None
        x = torch.rand(100, k)
        if (branch(x) - x @ M.T).abs().max() > 1e-4:
            return None
    return M


@right("merge_branch", "columns as half the difference between e and -e, then tried at several sizes, rows alone too")
def _(branch, k):
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        M = ((branch(torch.eye(k)) - branch(-torch.eye(k))) / 2).T.contiguous()
        trials = [torch.zeros(1, k), torch.eye(k), -torch.eye(k)]
        for size in (0.1, 1.0, 10.0, 100.0):
            x = size * torch.randn(50, k, generator=generator)
            trials += [x, x.abs(), -x.abs(), x[:1]]
        for x in trials:
            meant = x @ M.T
            limit = 1e-4 * max(1.0, meant.abs().max().item())
            if not ((branch(x) - meant).abs() < limit).all():
                return None
    return M


# lesson 09

@wrong("frozen_product", "reads the counter before the backward pass")
def _(x, weight, g):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.weight = weight
            return x @ weight.dequantize().T

        @staticmethod
        def backward(ctx, gradient):
            return gradient @ ctx.weight.dequantize(), None

    x = x.detach().requires_grad_()
    y = Product.apply(x, weight)
    made = weight.made
    gradient, = torch.autograd.grad(y, x, g)
    return y, gradient, made


@wrong("frozen_product", "lets the gradient of y.sum() flow back instead of g")
def _(x, weight, g):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            ctx.weight = weight
            return x @ weight.dequantize().T

        @staticmethod
        def backward(ctx, gradient):
            return gradient @ ctx.weight.dequantize(), None

    x = x.detach().requires_grad_()
    y = Product.apply(x, weight)
    return y, torch.autograd.grad(y.sum(), x)[0], weight.made


@right("frozen_product", "forward without ctx, and setup_context beside it")
def _(x, weight, g):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(x, weight):
            return F.linear(x, weight.dequantize())

        @staticmethod
        def setup_context(ctx, inputs, output):
            _, ctx.frozen = inputs

        @staticmethod
        def backward(ctx, gradient):
            return torch.einsum("nd,dk->nk", gradient, ctx.frozen.dequantize()), None

    leaf = x.detach().requires_grad_()
    y = Product.apply(leaf, weight)
    (dx,) = torch.autograd.grad(y, leaf, grad_outputs=g)
    return y, dx, weight.made


@wrong("nf4_linear", "adds the offset before it multiplies by c1")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    scales = (scale_levels[c2.long()] + offset) * c1
    blocks = levels[codes].view(len(c2), -1) * scales[:, None]
    return x @ blocks.view(-1, x.shape[1]).T


@wrong("nf4_linear", "deals the scales out in turn: repeat instead of repeat_interleave")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    scales = scale_levels[c2.long()] * c1 + offset
    W = levels[codes] * scales.repeat(len(codes) // len(scales))
    return x @ W.view(-1, x.shape[1]).T


@right("nf4_linear", "codes by integer division, and each weight looks up its block by its number")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    k = x.shape[1]
    number = torch.arange(2 * len(packed) // k * k)
    byte = packed.long()[number // 2]
    code = torch.where(number % 2 == 0, byte // 16, byte % 16)
    block = number // (len(number) // len(c2))
    scale = torch.addcmul(offset, scale_levels[c2.long()], c1)
    return torch.einsum("nk,dk->nd", x, (levels[code] * scale[block]).reshape(-1, k))


@wrong("train_step", "lets the first layer run without a checkpoint, so that its output has a gradient")
def _(layers, x):
    y = layers[0](x)
    for layer in layers[1:]:
        y = checkpoint(layer, y, use_reentrant=True)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("train_step", "detaches the input of every layer, so that only the last one learns")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y.detach().requires_grad_(), use_reentrant=True)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@right("train_step", "adds a zero that wants a gradient to x, and stays reentrant")
def _(layers, x):
    y = x + torch.zeros((), dtype=x.dtype, requires_grad=True)
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=True)
    torch.autograd.backward(y, torch.ones_like(y))
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("page_out", "always takes one page more than the whole ones, even where they are enough")
def _(resident, room, page):
    excess = resident - max(room, 0)
    if excess <= 0:
        return 0
    return min((excess // page + 1) * page, resident)


@wrong("page_out", "rounds what may stay up to whole pages")
def _(resident, room, page):
    stay = math.ceil(max(room, 0) / page) * page
    return resident - min(stay, resident)


@right("page_out", "takes the middle of three numbers for what stays")
def _(resident, room, page):
    stay = sorted([0, room - room % page, resident])[1]
    return resident - stay


@wrong("qlora_gradients", "forgets that x also gets a gradient through the adapter")
def _(g, x, W, A, B, scaling):
    return g @ W, scaling * (g @ B).T @ x, scaling * g.T @ (x @ A.T)


@wrong("qlora_gradients", "averages the adapter's gradients over the rows instead of adding them up")
def _(g, x, W, A, B, scaling):
    n = len(x)
    dx = g @ W + scaling * g @ B @ A
    dA = scaling * (g @ B).T @ x / n
    dB = scaling * g.T @ (x @ A.T) / n
    return dx, dA, dB


@right("qlora_gradients", "einsum throughout, with the letters of the prompt")
def _(g, x, W, A, B, scaling):
    thin = scaling * torch.einsum("nd,dr->nr", g, B)
    dx = torch.einsum("nd,dk->nk", g, W) + torch.einsum("nr,rk->nk", thin, A)
    return dx, torch.einsum("nr,nk->rk", thin, x), scaling * torch.einsum("nd,nk,rk->dr", g, x, A)


# lesson 10

@wrong("choose_precision", "compares the capability as text, where 12.0 comes before 8.0")
def _(capability):
    if capability is None:
        return "float32"
    version = f"{capability[0]}.{capability[1]}"
    return "bfloat16" if version >= "8.0" else "float16"


@wrong("choose_precision", "asks for more than 8.0 and leaves the A100 out")
def _(capability):
    if capability is None:
        return "float32"
    return "bfloat16" if capability > (8, 0) else "float16"


@right("choose_precision", "bisects a list of borders, with no GPU below all of them")
def _(capability):
    pair = (-1, -1) if capability is None else tuple(capability)
    return ("float32", "float16", "bfloat16")[bisect_right([(0, 0), (8, 0)], pair)]


@wrong("mask_labels", "counts the prompt from the start of the row, left padding included")
def _(ids, attention_mask, prompt_length):
    return [token if mask and i >= prompt_length else -100
            for i, (token, mask) in enumerate(zip(ids, attention_mask))]


@wrong("mask_labels", "tells the padding by its id: keeps the first 2 of the answer and masks all behind it")
def _(ids, attention_mask, prompt_length):
    labels = [-100] * len(ids)
    start = attention_mask.index(1) + prompt_length
    for i in range(start, len(ids)):
        labels[i] = ids[i]
        if ids[i] == 2:
            break
    return labels


@right("mask_labels", "a running sum of the mask says the how-manyth real token it is")
def _(ids, attention_mask, prompt_length):
    return [token if mask and nth > prompt_length else -100
            for token, mask, nth in zip(ids, attention_mask, accumulate(attention_mask))]


@wrong("lora_parameters", "counts weights of the same shape only once")
def _(shapes, r):
    return sum(r * (out + inn) for out, inn in set(shapes))


@wrong("lora_parameters", "takes every weight for a square one: 2 · r · in")
def _(shapes, r):
    total = 0
    for _, inn in shapes:
        total += 2 * r * inn
    return total


@right("lora_parameters", "makes the matrices on the meta device and counts their elements")
def _(shapes, r):
    total = 0
    for out, inn in shapes:
        A, B = torch.empty(r, inn, device="meta"), torch.empty(out, r, device="meta")
        total += A.numel() + B.numel()
    return total


@wrong("share_moved", "compares with the float32 weights, so that storing already counts as moving")
def _(weights, step):
    after = (weights.bfloat16().float() - step).bfloat16().float()
    return (after != weights).float().mean().item()


@wrong("share_moved", "takes the gap to be proportional to the weight, not a step of powers of two")
def _(weights, step):
    stored = weights.bfloat16().float()
    gap = stored.abs() * torch.finfo(torch.bfloat16).eps
    return (step > gap / 2).float().mean().item()


@right("share_moved", "rounds to bf16 by integer arithmetic on the bits of float32")
def _(weights, step):
    def upper_half(x):
        bits = x.contiguous().view(torch.int32)
        return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16

    before = upper_half(weights)
    stored = (before << 16).view(torch.float32)
    after = upper_half(stored - step)
    same = (after << 16).view(torch.float32) == stored
    return 1 - same.double().mean().item()


@wrong("newest_complete_checkpoint", "looks at the newest folder only, and gives up where it is broken")
def _(folder):
    found = [path for path in folder.iterdir() if re.fullmatch(r"checkpoint-\d+", path.name)]
    if not found:
        return None
    newest = max(found, key=lambda path: int(path.name.split("-")[1]))
    try:
        json.loads((newest / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return None
    return newest


@wrong("newest_complete_checkpoint", "takes a file that ends in a brace for whole JSON")
def _(folder):
    best, best_step = None, -1
    for path in folder.iterdir():
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        state = path / "trainer_state.json"
        if match and state.is_file() and state.read_text().rstrip().endswith("}"):
            if int(match[1]) > best_step:
                best, best_step = path, int(match[1])
    return best


@right("newest_complete_checkpoint", "sorts by step and lets the first file that json.load takes win")
def _(folder):
    def step(path):
        match = re.fullmatch(r"checkpoint-([0-9]+)", path.name)
        return int(match.group(1)) if match else -1

    for path in sorted(folder.iterdir(), key=step, reverse=True):
        if step(path) < 0:
            break
        try:
            with open(path / "trainer_state.json", encoding="utf-8") as file:
                json.load(file)
        except (OSError, ValueError):
            continue
        return path
    return None


# lesson 11

@wrong("room_to_move", "looks at the boundary above only")
def _(codebook):
    half = codebook.diff() / 2
    return torch.cat([half, half[-1:]])


@wrong("room_to_move", "takes the farther of the two boundaries")
def _(codebook):
    half = codebook.diff() / 2
    room = torch.zeros_like(codebook)
    room[:-1] = half
    room[1:] = torch.maximum(room[1:], half)
    return room


@right("room_to_move", "closes the levels to a ring: the way round is never the shorter one")
def _(codebook):
    above = (codebook.roll(-1) - codebook).abs()
    below = (codebook.roll(1) - codebook).abs()
    return torch.fmin(above, below) / 2


@wrong("merge_weight", "brings A and B to 16 bits before it multiplies them")
def _(W, A, B, alpha):
    r = A.shape[0]
    A, B = A.to(W.dtype).float(), B.to(W.dtype).float()
    return (W.float() + alpha / r * (B @ A)).to(W.dtype)


@wrong("merge_weight", "rounds to bfloat16 always, where W may be float16")
def _(W, A, B, alpha):
    merged = W.float() + alpha / A.shape[0] * (B @ A)
    return merged.to(torch.bfloat16)


@right("merge_weight", "torch.add with its own alpha, and type_as")
def _(W, A, B, alpha):
    return torch.add(W.to(torch.float32), torch.mm(B, A), alpha=alpha / B.size(1)).type_as(W)


@wrong("untrained_layers", "asks whether the sum is zero, where values may cancel")
def _(state):
    return [name.removesuffix(".lora_B.weight") for name, weight in state.items()
            if name.endswith(".lora_B.weight") and weight.sum() == 0]


@wrong("untrained_layers", "takes small values for zero")
def _(state):
    names = []
    for name, weight in state.items():
        if "lora_B" in name and weight.abs().max() < 1e-3:
            names.append(name.replace(".lora_B.weight", ""))
    return names


@right("untrained_layers", "only a tensor of zeros equals its own negative")
def _(state):
    ending = ".lora_B.weight"
    return [name[:-len(ending)] for name, weight in state.items()
            if name.endswith(ending) and torch.equal(weight, -weight)]


@wrong("merge_as_trained", "quantizes each row by itself: the blocks begin anew in every row")
def _(W, A, B, alpha):
    base = torch.stack([quantize(row, NF4, 64).dequantize() for row in W])
    return base + alpha / A.shape[0] * (B @ A)


@wrong("merge_as_trained", "switches double quantization on")
def _(W, A, B, alpha):
    base = quantize(W, block_size=64, double_quant=True).dequantize()
    return base + (alpha / A.shape[0]) * (B @ A)


@right("merge_as_trained", "dequantizes by hand, from the codes and the scales of the blocks")
def _(W, A, B, alpha):
    stored = quantize(W)
    scales = stored.absmax.repeat_interleave(stored.block_size)[:W.numel()]
    base = NF4[stored.codes.flatten().long()] * scales
    return torch.addmm(base.view(W.shape), B, A, alpha=alpha / B.shape[1])


# lesson 12

@wrong("sequence_logps", "shifts the labels but not the mask")
def _(logits, labels):
    logp = logits[:, :-1].log_softmax(-1)
    targets = labels[:, 1:].clamp(min=0)
    mask = labels[:, :-1] != -100
    return (logp.gather(2, targets[..., None])[..., 0] * mask).sum(1)


@wrong("sequence_logps", "leaves token 0 out along with the -100")
def _(logits, labels):
    logp = logits[:, :-1].log_softmax(-1)
    targets = labels[:, 1:]
    mask = targets > 0
    picked = logp.gather(2, targets.clamp(min=0).unsqueeze(2)).squeeze(2)
    return (picked * mask).sum(dim=1)


@right("sequence_logps", "lists the labelled places and adds each up in its row")
def _(logits, labels):
    row, place = (labels[:, 1:] != -100).nonzero(as_tuple=True)
    at = logits[row, place]
    token = labels[row, place + 1]
    logp = at[torch.arange(len(row)), token] - at.logsumexp(dim=1)
    return logits.new_zeros(len(labels)).index_add(0, row, logp)


@wrong("dpo_loss", "keeps the logarithm finite by a floor under σ, and so cuts large losses off")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -torch.log(torch.sigmoid(margin).clamp(min=1e-8))


@wrong("dpo_loss", "multiplies only the first ratio by beta")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    margin = beta * (chosen - ref_chosen) - (rejected - ref_rejected)
    return -F.logsigmoid(margin)


@right("dpo_loss", "log(e⁰ + e^-margin) by logaddexp")
def _(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    loses_by = beta * (rejected - ref_rejected) - beta * (chosen - ref_chosen)
    return torch.logaddexp(torch.zeros_like(loses_by), loses_by)


@wrong("what_is_missing", "looks for trained weights in base_layer only, and misses norms and embeddings")
def _(model, row):
    missing = []
    weights = dict(model.named_parameters())
    if not any("lora_" in name and weight.requires_grad for name, weight in weights.items()):
        missing.append("adapter")
    if any("base_layer" in name and weight.requires_grad for name, weight in weights.items()):
        missing.append("frozen base")
    if all(label == -100 for label in row.get("labels", [])):
        missing.append("labels")
    return missing


@wrong("what_is_missing", "takes -100 for a label, as any() does, and token 0 for none")
def _(model, row):
    missing = []
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    if not any("lora_" in name for name in trained):
        missing.append("adapter")
    if any("lora_" not in name for name in trained):
        missing.append("frozen base")
    if not any(row.get("labels", [])):
        missing.append("labels")
    return missing


@right("what_is_missing", "sets: of what kinds the trained weights are, and which labels remain")
def _(model, row):
    trained = {"lora_" in name for name, weight in model.named_parameters() if weight.requires_grad}
    lacks = {"adapter": True not in trained, "frozen base": False in trained,
             "labels": set(row.get("labels") or ()) <= {-100}}
    return [what for what, so in lacks.items() if so]


@wrong("mixed_loss", "averages the rows' means within a kind, not its tokens")
def _(losses, kinds, weights):
    total, weight = 0.0, 0.0
    for kind in set(kinds):
        rows = [loss.mean() for loss, other in zip(losses, kinds) if other == kind]
        total = total + weights[kind] * torch.stack(rows).mean()
        weight += weights[kind]
    return total / weight


@wrong("mixed_loss", "divides by all the weights, those of absent kinds too")
def _(losses, kinds, weights):
    total = 0.0
    for kind in set(kinds):
        tokens = torch.cat([loss for loss, other in zip(losses, kinds) if other == kind])
        total = total + weights[kind] * tokens.mean()
    return total / sum(weights.values())


@right("mixed_loss", "one scalar product: every token has its weight, its kind's by the kind's tokens")
def _(losses, kinds, weights):
    count = {}
    for loss, kind in zip(losses, kinds):
        count[kind] = count.get(kind, 0) + loss.numel()
    count = {kind: n for kind, n in count.items() if n}
    whole = sum(weights[kind] for kind in count)
    share = [loss.new_full(loss.shape, weights[kind] / (count[kind] * whole))
             for loss, kind in zip(losses, kinds) if kind in count]
    return torch.cat([loss for loss in losses if loss.numel()]) @ torch.cat([part for part in share if part.numel()])


@wrong("checked_rewards", "takes all spaces out, so that words may run together")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers):
        said, end, _ = completion.partition("</s>")
        wanted = "".join(answer.split())
        rewards.append(1.0 if end and wanted and "".join(said.split()) == wanted else 0.0)
    return rewards


@wrong("checked_rewards", "cuts at the last </s> instead of the first")
def _(completions, answers):
    rewards = []
    for completion, answer in zip(completions, answers):
        said, end, _ = completion.rpartition("</s>")
        good = bool(end) and bool(answer.split()) and said.split() == answer.split()
        rewards.append(float(good))
    return rewards


@right("checked_rewards", "a pattern of the answer's words with any space between")
def _(completions, answers):
    def reward(completion, answer):
        words = answer.split()
        at = completion.find("</s>")
        if at < 0 or not words:
            return 0.0
        pattern = r"\s*" + r"\s+".join(map(re.escape, words)) + r"\s*"
        return 1.0 if re.fullmatch(pattern, completion[:at]) else 0.0

    return list(map(reward, completions, answers))


@wrong("group_advantages", "takes the mean of the group but the deviation of the whole batch")
def _(rewards, group):
    groups = rewards.view(-1, group)
    return ((groups - groups.mean(dim=1, keepdim=True)) / (rewards.std() + 1e-4)).flatten()


@wrong("group_advantages", "reads the groups as if they were dealt out in turn")
def _(rewards, group):
    groups = rewards.view(group, -1)
    advantages = (groups - groups.mean(dim=0)) / (groups.std(dim=0) + 1e-4)
    return advantages.flatten()


@right("group_advantages", "vmap over the groups")
def _(rewards, group):
    def one(part):
        return (part - part.mean()) / (part.std() + 1e-4)

    return torch.vmap(one)(rewards.unflatten(0, (-1, group))).flatten()


@wrong("ipo_losses", "divides the margin of sums by the pair's average length")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    margin = margin / ((chosen_tokens + rejected_tokens) / 2)
    return (margin - 1 / (2 * beta)) ** 2


@wrong("ipo_losses", "writes 1 / 2 * beta, which multiplies by beta")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return (margin - 1 / 2 * beta) ** 2


@right("ipo_losses", "both fractions brought to one denominator, in float64")
def _(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, beta):
    won, lost = (chosen - ref_chosen).double(), (rejected - ref_rejected).double()
    margin = (won * rejected_tokens - lost * chosen_tokens) / (chosen_tokens * rejected_tokens)
    return (margin - 0.5 / beta).square().to(chosen.dtype)


# lesson 13

@wrong("packed_positions", "wraps round at the length of the first document")
def _(lengths):
    return (torch.arange(sum(lengths)) % lengths[0])[None]


@wrong("packed_positions", "gives the number of the document instead of the place in it")
def _(lengths):
    return torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)).unsqueeze(0)


@right("packed_positions", "the place in the row, less where the document begins")
def _(lengths):
    n = torch.tensor(lengths, dtype=torch.int64)
    start = n.cumsum(0) - n
    return (torch.arange(int(n.sum())) - start.repeat_interleave(n)).view(1, -1)


@wrong("accumulated_loss", "weights each mean by its tokens, masked ones too")
def _(losses, labels):
    total, tokens = 0.0, 0
    for loss, label in zip(losses, labels):
        keep = label != -100
        total = total + (loss * keep).sum() / keep.sum().clamp(min=1) * loss.numel()
        tokens += loss.numel()
    return total / tokens


@wrong("accumulated_loss", "passes micro-batches without labels over, and stays with the mean of means")
def _(losses, labels):
    means = [loss[label != -100].mean() for loss, label in zip(losses, labels) if (label != -100).any()]
    return torch.stack(means).mean()


@right("accumulated_loss", "masked_select mapped over all micro-batches, then one mean")
def _(losses, labels):
    kept = map(torch.masked_select, losses, [label.ne(-100) for label in labels])
    return torch.hstack(list(kept)).mean()


@wrong("shard_rows", "lets the last pieces become negative")
def _(rows, processes):
    height = math.ceil(rows / processes)
    return [min(height, rows - rank * height) for rank in range(processes)]


@wrong("shard_rows", "has no entry for the ranks that get nothing")
def _(rows, processes):
    return [len(piece) for piece in torch.arange(rows).chunk(processes)]


@right("shard_rows", "cuts a range and asks for the lengths of the slices")
def _(rows, processes):
    height = -(-rows // processes)
    return [len(range(rows)[rank * height:(rank + 1) * height]) for rank in range(processes)]


@wrong("waiting_share", "averages the shares of the steps, though long steps weigh more")
def _(lengths, batch, processes):
    times = np.array(lengths).reshape(-1, processes, batch).max(axis=2)
    shares = 1 - times.mean(axis=1) / times.max(axis=1)
    return float(shares.mean())


@wrong("waiting_share", "takes the sum of its rows for a process's time, without the padding")
def _(lengths, batch, processes):
    times = np.array(lengths).reshape(-1, processes, batch).sum(axis=2)
    slowest = times.max(axis=1, keepdims=True)
    return float((slowest - times).sum() / (slowest.sum() * processes))


@right("waiting_share", "iterators zipped to batches and to steps, and one exact fraction")
def _(lengths, batch, processes):
    batches = zip(*[iter(lengths)] * batch)
    steps = list(zip(*[map(max, batches)] * processes))
    busy = sum(map(sum, steps))
    whole = processes * sum(map(max, steps))
    return float(Fraction(whole - busy, whole))


@wrong("whole_checkpoint", "counts the finished parts, whatever number they were cut for")
def _(names, processes):
    count = {}
    for name in names:
        match = re.fullmatch(r"step-(\d+)/rank-(\d+)-of-(\d+)\.safetensors", name)
        if match:
            step = int(match[1])
            count[step] = count.get(step, 0) + 1
    return max((step for step, n in count.items() if n >= processes), default=None)


@wrong("whole_checkpoint", "gives up where the newest step is not whole")
def _(names, processes):
    steps = [int(re.match(r"step-(\d+)/", name)[1]) for name in names if name.startswith("step-")]
    if not steps:
        return None
    newest = max(steps)
    wanted = [f"step-{newest}/rank-{rank}-of-{processes}.safetensors" for rank in range(processes)]
    return newest if all(name in names for name in wanted) else None


@right("whole_checkpoint", "writes down the names that a step needs and asks whether they are a subset")
def _(names, processes):
    there = set(names)
    folders = {name.partition("/")[0] for name in there}
    whole = [-1]
    for folder in folders:
        needed = {f"{folder}/rank-{rank}-of-{processes}.safetensors" for rank in range(processes)}
        if re.fullmatch("step-[0-9]+", folder) and needed <= there:
            whole.append(int(folder[5:]))
    newest = max(whole)
    return None if newest < 0 else newest


# lesson 14

@wrong("q4_1_values", "takes 8 off the codes, as Q4_0 does")
def _(block):
    d, m = block[:4].clone().view(torch.float16).float()
    codes = torch.cat([block[4:] & 15, block[4:] >> 4]).float()
    return d * (codes - 8) + m


@wrong("q4_1_values", "computes in float16 and widens only the result")
def _(block):
    head = block[:4].clone().view(torch.float16)
    codes = torch.cat([block[4:] & 15, block[4:] >> 4])
    return (head[0] * codes.half() + head[1]).float()


@right("q4_1_values", "struct reads the whole block, two halves and sixteen bytes")
def _(block):
    d, m, *codes = struct.unpack("=2e16B", bytes(block.tolist()))
    low, high = [byte % 16 for byte in codes], [byte // 16 for byte in codes]
    return torch.tensor([d * code + m for code in low + high], dtype=torch.float32)


@wrong("e8m0_scale", "divides by 6 instead of 4 before it takes the power of two")
def _(blocks):
    absmax = blocks.abs().amax(dim=1)
    exponent = torch.floor(torch.log2(absmax / 6)).clamp(min=-127)
    return torch.exp2(exponent)


@wrong("e8m0_scale", "limits the exponent before it takes two off")
def _(blocks):
    absmax = blocks.abs().amax(dim=1)
    _, exponent = torch.frexp(absmax)
    exponent = torch.where(absmax > 0, exponent - 1, -127).clamp(min=-127)
    return (2.0 ** (exponent - 2).double()).float()


@right("e8m0_scale", "masks the mantissa out of the float32 bits")
def _(blocks):
    absmax = blocks.abs().amax(dim=1)
    power = (absmax.view(torch.int32) & 0x7F800000).view(torch.float32)
    return (power.double() / 4).clamp(min=2.0**-127).float()


@wrong("nvfp4_scales", "forgets E2M1's 6 in the tensor's scale")
def _(x):
    absmax = x.view(x.shape[0], -1, 16).abs().amax(dim=2)
    tensor_scale = x.abs().max() / 448
    block_scale = cast(absmax / 6 / tensor_scale, FP8_E4M3)
    return torch.where(block_scale == 0, 2.0**-9, block_scale), tensor_scale


@wrong("nvfp4_scales", "mends blocks of zeros only, not those that are rounded to zero")
def _(x):
    absmax = x.view(x.shape[0], -1, 16).abs().amax(dim=2)
    tensor_scale = x.abs().max() / (6 * 448)
    block_scale = cast(absmax / (6 * tensor_scale), FP8_E4M3)
    return torch.where(absmax == 0, torch.tensor(2.0**-9), block_scale), tensor_scale


@right("nvfp4_scales", "lifts the scales to the least value before they are rounded")
def _(x):
    absmax = F.max_pool1d(x.abs().unsqueeze(1), 16).squeeze(1)
    tensor_scale = absmax.max() / (6 * FP8_E4M3.max)
    return cast((absmax / (6 * tensor_scale)).clamp(min=FP8_E4M3.min_subnormal), FP8_E4M3), tensor_scale


@wrong("compensate", "moves the columns of the weight it was given")
def _(weight, moment, j, fixed):
    inverse = torch.linalg.inv(moment[j:, j:])
    error = (weight[:, j] - fixed) / inverse[0, 0]
    weight[:, j:] -= error[:, None] * inverse[0]
    return weight


@wrong("compensate", "takes the row of H itself, not of its inverse")
def _(weight, moment, j, fixed):
    H = moment[j:, j:]
    new = weight.clone()
    new[:, j:] -= torch.outer((weight[:, j] - fixed) / H[0, 0], H[0])
    return new


@right("compensate", "no inverse: the free columns solve their own normal equations")
def _(weight, moment, j, fixed):
    error = weight[:, j] - fixed
    parts = [weight[:, :j], fixed[:, None]]
    if j + 1 < weight.shape[1]:
        share = torch.linalg.solve(moment[j + 1:, j + 1:], moment[j + 1:, j])
        parts.append(weight[:, j + 1:] + torch.outer(error, share))
    return torch.cat(parts, dim=1)


@wrong("codes_in_order", "takes the halves of the whole tensor, not of each 16 bytes")
def _(packed, order):
    low, high = packed & 15, packed >> 4
    if order == "high first":
        return torch.stack([high, low], dim=1).flatten()
    if order == "low first":
        return torch.stack([low, high], dim=1).flatten()
    return torch.cat([low, high])


@wrong("codes_in_order", "reads halves like low first: only two of the three orders are told apart")
def _(packed, order):
    pair = [packed & 15, packed >> 4]
    if order == "high first":
        pair.reverse()
    return torch.stack(pair, dim=1).flatten()


@right("codes_in_order", "computes for every weight its byte and how far to shift it")
def _(packed, order):
    number = torch.arange(2 * len(packed))
    if order == "halves":
        byte, second = number // 32 * 16 + number % 16, number // 16 % 2
    else:
        byte, second = number // 2, number % 2
    high = 1 - second if order == "high first" else second
    return (packed[byte] // (1 + 15 * high) % 16).to(torch.uint8)


@wrong("fold", "the other way round: multiplies the norm and divides the readers")
def _(norm, readers, s):
    return norm * s, [reader / s for reader in readers]


@wrong("fold", "shares the scale out among the readers")
def _(norm, readers, s):
    part = s ** (1 / len(readers))
    return norm / s, [reader * part for reader in readers]


@right("fold", "einsum with a letter that is not summed")
def _(norm, readers, s):
    return torch.div(norm, s), [torch.einsum("dk,k->dk", reader, s) for reader in readers]


@wrong("as_lora", "turns the sign of both old factors, which cancels")
def _(B0, A0, B1, A1):
    return torch.cat([B1, -B0], dim=1), torch.cat([A1, -A0], dim=0)


@wrong("as_lora", "takes the difference factor by factor")
def _(B0, A0, B1, A1):
    return torch.cat([B0, B1 - B0], dim=1), torch.cat([A0, A1 - A0], dim=0)


@right("as_lora", "what B learnt times the new A, and the old B times what A learnt")
def _(B0, A0, B1, A1):
    return torch.cat([B1 - B0, B0], dim=1), torch.cat([A1, A1 - A0], dim=0)
