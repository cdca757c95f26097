"""Answers to lesson 03's exercises that nobody registered, written from the prompts alone."""

import math
from fractions import Fraction

import numpy as np
import torch

from corpus import right, wrong
from helpers.codebooks import integer
from helpers.quantization import quantize

# --- read_nibbles

@wrong("read_nibbles", "does not cut to count: an odd one gets a code too many")
def _(packed, count):
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()


@wrong("read_nibbles", "all high nibbles first, then all low ones: cat instead of stack")
def _(packed, count):
    return torch.cat([packed >> 4, packed & 15])[:count]


@wrong("read_nibbles", "count // 2 bytes are read: an odd last code is lost")
def _(packed, count):
    packed = packed[:count // 2]
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()


@wrong("read_nibbles", "high nibble masked but not shifted: multiples of 16")
def _(packed, count):
    return torch.stack([packed & 0xF0, packed & 0x0F], dim=1).flatten()[:count]


@wrong("read_nibbles", "the result is int64, not uint8")
def _(packed, count):
    packed = packed.long()
    return torch.stack([packed // 16, packed % 16], dim=1).flatten()[:count]


@wrong("read_nibbles", "nibbles read as signed: 8 to 15 turn to large numbers")
def _(packed, count):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()[:count]
    return torch.where(codes > 7, codes - 16, codes)


@wrong("read_nibbles", "remainder of 15 instead of 16 for the low nibble")
def _(packed, count):
    return torch.stack([packed >> 4, packed % 15], dim=1).flatten()[:count]


@wrong("read_nibbles", "for odd counts drops the first nibble instead of the last")
def _(packed, count):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return codes[len(codes) - count:]


@right("read_nibbles", "through the digits of the bytes in hexadecimal")
def _(packed, count):
    digits = packed.numpy().tobytes().hex()
    return torch.tensor([int(digit, 16) for digit in digits[:count]], dtype=torch.uint8)


@right("read_nibbles", "fills two strides of an empty tensor")
def _(packed, count):
    codes = torch.empty(2 * len(packed), dtype=torch.uint8)
    codes[0::2] = packed // 16
    codes[1::2] = packed - 16 * (packed // 16)
    return codes[:count]


@right("read_nibbles", "gathers the byte of each code, then shifts by 4 or 0")
def _(packed, count):
    i = torch.arange(count)
    shift = (4 * (1 - i % 2)).to(torch.uint8)
    return (packed[i // 2] >> shift) & 15


# --- scale_index

@wrong("scale_index", "every row begins a new block: blocks per row rounded up")
def _(row, column, columns, block_size):
    return row * math.ceil(columns / block_size) + column // block_size


@wrong("scale_index", "returns a fraction: / instead of //")
def _(row, column, columns, block_size):
    return (row * columns + column) / block_size


@wrong("scale_index", "counts down the columns: column * columns + row")
def _(row, column, columns, block_size):
    return (column * columns + row) // block_size


@wrong("scale_index", "remainder instead of quotient: the place in the block")
def _(row, column, columns, block_size):
    return (row * columns + column) % block_size


@wrong("scale_index", "rounds the row's start and the column down separately, before adding")
def _(row, column, columns, block_size):
    return row * columns // block_size + column // block_size


@wrong("scale_index", "counts weights from one: a block's last weight gets the next scale")
def _(row, column, columns, block_size):
    return (row * columns + column + 1) // block_size


@wrong("scale_index", "rounds to the nearest block: its second half gets the next scale")
def _(row, column, columns, block_size):
    return round((row * columns + column) / block_size)


@wrong("scale_index", "mends narrow matrices only: at least one block per row")
def _(row, column, columns, block_size):
    return row * max(1, columns // block_size) + column // block_size


@right("scale_index", "divmod, with the rest of the row's start carried to the column")
def _(row, column, columns, block_size):
    block, rest = divmod(row * columns, block_size)
    return block + (rest + column) // block_size


@right("scale_index", "counts the block borders passed")
def _(row, column, columns, block_size):
    return len(range(block_size, row * columns + column + 1, block_size))


@right("scale_index", "exact fraction, floor")
def _(row, column, columns, block_size):
    return math.floor(Fraction(row * columns + column, block_size))


# --- through_int4

def _padded(x, block_size, value=0.0):
    flat = x.flatten()
    return torch.nn.functional.pad(flat, (0, -len(flat) % block_size), value=value).view(-1, block_size)


@wrong("through_int4", "zeros checked for the whole tensor, not for each block: NaN remains")
def _(x, block_size):
    if not x.any():
        return torch.zeros_like(x)
    blocks = _padded(x, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    return ((blocks / scale).round() * scale).flatten()[:x.numel()].view(x.shape)


@wrong("through_int4", "scale at least 1e-3 against division by zero: small weights become zero")
def _(x, block_size):
    blocks = _padded(x, block_size)
    scale = (blocks.abs().amax(dim=1, keepdim=True) / 7).clamp(min=1e-3)
    return ((blocks / scale).round() * scale).flatten()[:x.numel()].view(x.shape)


@wrong("through_int4", "pads the last block with ones, which set its scale")
def _(x, block_size):
    blocks = _padded(x, block_size, value=1.0)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    scale = torch.where(scale > 0, scale, 1.0)
    return ((blocks / scale).round() * scale).flatten()[:x.numel()].view(x.shape)


@wrong("through_int4", "a short last block is passed on without being quantized")
def _(x, block_size):
    out, whole = x.flatten().clone(), x.numel() // block_size * block_size
    blocks = out[:whole].view(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    scale = torch.where(scale > 0, scale, 1.0)
    out[:whole] = ((blocks / scale).round() * scale).flatten()
    return out.view(x.shape)


@wrong("through_int4", "blocks start anew in every row instead of along the flattened tensor")
def _(x, block_size):
    rows = x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)
    out = []
    for row in rows:
        for block in row.split(block_size):
            scale = block.abs().max() / 7
            out.append((block / scale).round() * scale if scale > 0 else block)
    return torch.cat(out).view(x.shape)


@wrong("through_int4", "chunk() evens the blocks out: 9 in blocks of 4 become 3, 3, 3")
def _(x, block_size):
    out = []
    for block in x.flatten().chunk(math.ceil(x.numel() / block_size)):
        scale = block.abs().max() / 7
        out.append((block / scale).round() * scale if scale > 0 else block)
    return torch.cat(out).view(x.shape)


@wrong("through_int4", "divides the absmax by 8 and clamps at 7: the largest comes back smaller")
def _(x, block_size):
    blocks = _padded(x, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 8
    scale = torch.where(scale > 0, scale, 1.0)
    return ((blocks / scale).round().clamp(-7, 7) * scale).flatten()[:x.numel()].view(x.shape)


@wrong("through_int4", "scale from the largest value, sign and all")
def _(x, block_size):
    blocks = _padded(x, block_size)
    scale = blocks.amax(dim=1, keepdim=True) / 7
    scale = torch.where(scale > 0, scale, 1.0)
    return ((blocks / scale).round().clamp(-7, 7) * scale).flatten()[:x.numel()].view(x.shape)


@right("through_int4", "a loop over split(), zero blocks passed on as they are")
def _(x, block_size):
    parts = []
    for part in x.reshape(-1).split(block_size):
        absmax = part.abs().max()
        parts.append(torch.round(part / (absmax / 7)) * (absmax / 7) if absmax else part)
    return torch.cat(parts).reshape(x.shape)


@right("through_int4", "numpy, with the scale of each weight spread by repeat")
def _(x, block_size):
    flat = x.detach().contiguous().numpy().reshape(-1)
    absmax = np.maximum.reduceat(np.abs(flat), np.arange(0, len(flat), block_size))
    scale = np.repeat(absmax / np.float32(7), block_size)[:len(flat)]
    codes = np.rint(np.divide(flat, scale, out=np.zeros_like(flat), where=scale != 0))
    return torch.from_numpy(codes * scale).view(x.shape)


@right("through_int4", "absmax by scatter_reduce over the block's number of each weight")
def _(x, block_size):
    flat = x.flatten()
    block = torch.arange(len(flat)) // block_size
    absmax = torch.zeros(-(-len(flat) // block_size)).scatter_reduce(0, block, flat.abs(), "amax")
    scale = (absmax / 7).gather(0, block)
    return (torch.where(scale > 0, flat / scale, 0.0).round() * scale).view(x.shape)


# --- protect_weights

def _largest(w, k):
    keep = torch.zeros(w.numel(), dtype=torch.bool)
    keep[w.abs().flatten().topk(k).indices] = True
    return keep.view(w.shape)


@wrong("protect_weights", "the k greatest with sign: large negative weights are not kept")
def _(w, k, block_size):
    keep = torch.zeros(w.numel(), dtype=torch.bool)
    keep[w.flatten().topk(k).indices] = True
    keep = keep.view(w.shape)
    return torch.where(keep, w, quantize(w.masked_fill(keep, 0), integer(4), block_size).dequantize())


@wrong("protect_weights", "zeroes the outliers in w itself, so zeros are what it keeps")
def _(w, k, block_size):
    keep = _largest(w, k)
    w = w.contiguous()
    w[keep] = 0
    return torch.where(keep, w, quantize(w, integer(4), block_size).dequantize())


@wrong("protect_weights", "clamps outliers to the largest other magnitude: still set their block's scale")
def _(w, k, block_size):
    keep = _largest(w, k)
    limit = w[~keep].abs().max() if not keep.all() else 0.0
    rest = w.clamp(-limit, limit)
    return torch.where(keep, w, quantize(rest, integer(4), block_size).dequantize())


@wrong("protect_weights", "k largest of every row instead of the whole matrix")
def _(w, k, block_size):
    k = min(k, w.shape[-1])
    keep = torch.zeros_like(w, dtype=torch.bool).scatter(-1, w.abs().topk(k, dim=-1).indices, True)
    return torch.where(keep, w, quantize(w.masked_fill(keep, 0), integer(4), block_size).dequantize())


@wrong("protect_weights", "> instead of >= at the k-th magnitude: keeps one too few")
def _(w, k, block_size):
    keep = w.abs() > w.abs().flatten().topk(k).values[-1] if k else torch.zeros_like(w, dtype=torch.bool)
    return torch.where(keep, w, quantize(w.masked_fill(keep, 0), integer(4), block_size).dequantize())


@wrong("protect_weights", "takes the outliers out before cutting blocks: later blocks shift")
def _(w, k, block_size):
    keep, back = _largest(w, k), w.clone()
    if not keep.all():
        back[~keep] = quantize(w[~keep], integer(4), block_size).dequantize()
    return back


@wrong("protect_weights", "keeps the outliers in float16 instead of fp32")
def _(w, k, block_size):
    keep = _largest(w, k)
    return torch.where(keep, w.half().float(), quantize(w.masked_fill(keep, 0), integer(4), block_size).dequantize())


@wrong("protect_weights", "takes the k-th magnitude as threshold: raises for k = 0")
def _(w, k, block_size):
    keep = w.abs() >= w.abs().flatten().sort(descending=True).values[:k][-1]
    return torch.where(keep, w, quantize(w.masked_fill(keep, 0), integer(4), block_size).dequantize())


@right("protect_weights", "adds the outliers to what comes back, as a sparse matrix")
def _(w, k, block_size):
    outliers = torch.where(_largest(w, k), w, 0)
    return quantize(w - outliers, integer(4), block_size).dequantize() + outliers


@right("protect_weights", "Python's sorted finds the indices; flat index assignment")
def _(w, k, block_size):
    flat = w.flatten().tolist()
    chosen = sorted(range(len(flat)), key=lambda i: -abs(flat[i]))[:k]
    rest = w.clone().view(-1)
    rest[chosen] = 0.0
    back = quantize(rest, integer(4), block_size).dequantize()
    back[chosen] = w.flatten()[chosen]
    return back.view_as(w)


@right("protect_weights", "ranks every magnitude by a double argsort, mask by multiplication")
def _(w, k, block_size):
    rank = w.abs().flatten().argsort(descending=True, stable=True).argsort().view(w.shape)
    keep = (rank < k).float()
    return keep * w + (1 - keep) * quantize(w * (1 - keep), integer(4), block_size).dequantize()


# --- block_codes

@wrong("block_codes", "divides by the step of one block for all: the first block's absmax")
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    return ((blocks / absmax[0] * 7).round().clamp(-7, 7) + 7).to(torch.uint8), absmax


@wrong("block_codes", "adds 7 before rounding to int8 and lets the sign through, from -7 to 7 in int8")
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    return (blocks / absmax[:, None] * 7).round().to(torch.int8), absmax


@wrong("block_codes", "cuts the tensor into block_size blocks instead of blocks of block_size")
def _(x, block_size):
    blocks = x.reshape(block_size, -1)
    absmax = blocks.abs().amax(dim=1)
    return ((blocks / absmax[:, None] * 7).round() + 7).to(torch.uint8), absmax


@wrong("block_codes", "spreads the codes over 0 to 15, as if all sixteen were used")
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    return ((blocks / absmax[:, None] + 1) * 7.5).round().to(torch.uint8), absmax


@wrong("block_codes", "takes the least and the greatest of a block, not its absmax")
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    low, high = blocks.amin(dim=1), blocks.amax(dim=1)
    codes = ((blocks - low[:, None]) / (high - low)[:, None] * 14).round()
    return codes.to(torch.uint8), blocks.abs().amax(dim=1)


@wrong("block_codes", "rounds by adding a half and cutting off, after the 7 is added")  # 0.5 too early
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    return (blocks / absmax[:, None] * 7 + 7).to(torch.uint8), absmax


@wrong("block_codes", "keeps the absmax as a column, (blocks, 1)")
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1, keepdim=True)
    return ((blocks / absmax * 7).round() + 7).to(torch.uint8), absmax


@right("block_codes", "block by block in a loop, with torch.stack")
def _(x, block_size):
    codes, absmax = [], []
    for block in x.flatten().split(block_size):
        absmax.append(block.abs().max())
        codes.append(torch.round(7 * block / absmax[-1]) + 7)
    return torch.stack(codes).to(torch.uint8), torch.stack(absmax)


@wrong("block_codes", "the nearest of fifteen levels, of two as near the lower")
def _(x, block_size):
    blocks = x.reshape(-1, block_size)
    absmax = torch.maximum(blocks.amax(dim=1), -blocks.amin(dim=1))
    scaled = blocks / absmax.view(-1, 1)
    return (scaled[..., None] - integer(4)).abs().argmin(-1).to(torch.uint8), absmax


# --- pack_codes

@wrong("pack_codes", "the first code in the low half")
def _(codes):
    even = torch.nn.functional.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return even[:, 0] | even[:, 1] << 4


@wrong("pack_codes", "shifts by three places")
def _(codes):
    even = torch.nn.functional.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return (even[:, 0] << 3) + even[:, 1]


@wrong("pack_codes", "the lone last code of an odd number lands in the low half")
def _(codes):
    whole = codes[:len(codes) // 2 * 2].view(-1, 2)
    return torch.cat([whole[:, 0] * 16 + whole[:, 1], codes[len(codes) // 2 * 2:]])


@wrong("pack_codes", "fills up an odd number with 15, not with 0")
def _(codes):
    even = torch.nn.functional.pad(codes, (0, len(codes) % 2), value=15).view(-1, 2)
    return even[:, 0] * 16 + even[:, 1]


@wrong("pack_codes", "always adds a zero, so that an even number gets a byte too many")
def _(codes):
    even = torch.cat([codes, codes.new_zeros(2 - len(codes) % 2)]).view(-1, 2)
    return even[:, 0] * 16 + even[:, 1]


@wrong("pack_codes", "computes in int64 and leaves it at that")
def _(codes):
    even = torch.nn.functional.pad(codes, (0, len(codes) % 2)).long().view(-1, 2)
    return even[:, 0] * 16 + even[:, 1]


@right("pack_codes", "by shift and or, on rows of two")
def _(codes):
    even = torch.nn.functional.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return even[:, 0] << 4 | even[:, 1]


@right("pack_codes", "as hexadecimal text")
def _(codes):
    text = "".join(f"{code:x}" for code in codes.tolist()) + "0" * (len(codes) % 2)
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
