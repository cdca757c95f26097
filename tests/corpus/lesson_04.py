"""Answers to lesson 04's exercises that nobody registered, written from the prompts alone."""

import math
from bisect import bisect_left
from statistics import NormalDist

import numpy as np
import torch

from corpus import right, wrong
from helpers.codebooks import NF4

# --- nf4_code

@wrong("nf4_code", "takes the level above instead of the nearest")
def _(x, levels):
    return torch.searchsorted(levels, x).clamp(max=len(levels) - 1)


@wrong("nf4_code", "rounds as if the levels were evenly spaced")
def _(x, levels):
    step = (levels[-1] - levels[0]) / (len(levels) - 1)
    return ((x - levels[0]) / step).round().clamp(0, len(levels) - 1).long()


@wrong("nf4_code", "NF4's sixteen levels, whatever levels are given")
def _(x, levels):
    return torch.bucketize(x, (NF4[1:] + NF4[:-1]) / 2)


@wrong("nf4_code", "boundaries are half the differences of the levels, not their midpoints")
def _(x, levels):
    return torch.bucketize(x, ((levels[1:] - levels[:-1]) / 2).sort().values)


@wrong("nf4_code", "the codes are uint8, not int64")
def _(x, levels):
    return torch.bucketize(x, (levels[1:] + levels[:-1]) / 2).to(torch.uint8)


@wrong("nf4_code", "compares with both neighbours; a value above the highest level has none: raises")
def _(x, levels):
    above = torch.searchsorted(levels, x)
    below = (above - 1).clamp(min=0)
    return torch.where((x - levels[below]).abs() <= (levels[above] - x).abs(), below, above)


@wrong("nf4_code", "argmin over the values instead of over the levels")
def _(x, levels):
    return (x[:, None] - levels).abs().argmin(dim=0)


@wrong("nf4_code", "returns the nearest level, not its code")
def _(x, levels):
    return levels[torch.bucketize(x, (levels[1:] + levels[:-1]) / 2)]


@right("nf4_code", "counts by comparison with every midpoint, in float64")
def _(x, levels):
    levels = levels.double()
    return (x.double()[:, None] > (levels[:-1] + levels[1:]) / 2).sum(dim=1)


@right("nf4_code", "Python's bisect for each value")
def _(x, levels):
    middles = ((levels[1:] + levels[:-1]) / 2).tolist()
    return torch.tensor([bisect_left(middles, value) for value in x.tolist()], dtype=torch.int64)


@right("nf4_code", "argmin of the squared distance in numpy, in float64")
def _(x, levels):
    distance = np.subtract.outer(x.numpy().astype(np.float64), levels.numpy().astype(np.float64)) ** 2
    return torch.from_numpy(distance.argmin(axis=1))


# --- nf4_round_trip

MIDDLES = (NF4[1:] + NF4[:-1]) / 2


@wrong("nf4_round_trip", "divides by the maximum, not by the largest magnitude")
def _(block):
    if not block.any():
        return torch.full(block.shape, 7), torch.zeros_like(block)
    codes = torch.bucketize(block / block.max(), MIDDLES)
    return codes, NF4[codes] * block.max()


@wrong("nf4_round_trip", "scales the block in place, so the absmax taken to restore it is 1")
def _(block):
    if block.any():
        block /= block.abs().max()
    codes = torch.bucketize(block, MIDDLES)
    return codes, NF4[codes] * block.abs().max()


@wrong("nf4_round_trip", "restored values not multiplied by the absmax again")
def _(block):
    absmax = block.abs().max()
    codes = torch.bucketize(block / absmax if absmax > 0 else block, MIDDLES)
    return codes, NF4[codes]


@wrong("nf4_round_trip", "codes uint8 instead of int64")
def _(block):
    absmax = block.abs().max()
    codes = torch.bucketize(block / absmax if absmax > 0 else block, MIDDLES)
    return codes.to(torch.uint8), NF4[codes] * absmax


@wrong("nf4_round_trip", "an absmax for each row of a matrix instead of one for the block")
def _(block):
    absmax = block.abs().amax(dim=-1, keepdim=True)
    codes = torch.bucketize(block / torch.where(absmax > 0, absmax, 1.0), MIDDLES)
    return codes, NF4[codes] * absmax


@wrong("nf4_round_trip", "absmax clamped to 0.01 against division by zero: spoils small blocks")
def _(block):
    absmax = block.abs().max().clamp(min=0.01)
    codes = torch.bucketize(block / absmax, MIDDLES)
    return codes, NF4[codes] * absmax


@wrong("nf4_round_trip", "returns restored values first, codes second")
def _(block):
    absmax = block.abs().max()
    codes = torch.bucketize(block / absmax if absmax > 0 else block, MIDDLES)
    return NF4[codes] * absmax, codes


@wrong("nf4_round_trip", "compares with the levels, not the midpoints: the level above")
def _(block):
    absmax = block.abs().max()
    codes = torch.bucketize(block / absmax if absmax > 0 else block, NF4).clamp(max=15)
    return codes, NF4[codes] * absmax


@right("nf4_round_trip", "midpoints scaled up by the absmax instead of weights scaled down")
def _(block):
    absmax = block.abs().max()
    if absmax == 0:
        return torch.full(block.shape, 7), torch.zeros(block.shape)
    codes = torch.bucketize(block.double(), MIDDLES.double() * absmax.double())
    return codes, NF4[codes] * absmax


@right("nf4_round_trip", "min() over all levels for each weight, in Python")
def _(block):
    absmax = block.abs().max().item() or 1.0
    table = NF4.tolist()
    codes = [min(range(16), key=lambda i: abs(value / absmax - table[i])) for value in block.flatten().tolist()]
    codes = torch.tensor(codes, dtype=torch.int64).view(block.shape)
    return codes, NF4[codes] * absmax


@right("nf4_round_trip", "argmin over a table of all products, norm for the absmax")
def _(block):
    absmax = torch.linalg.vector_norm(block.float(), ord=math.inf)
    codes = (torch.nan_to_num(block / absmax)[..., None] - NF4).abs().argmin(dim=-1)
    return codes, torch.take(NF4, codes).mul_(absmax)


# --- unpack_nf4

@wrong("unpack_nf4", "tiles the scales, 0 1 2 0 1 2, instead of one for each block")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return NF4[codes.int()] * absmax.repeat(block_size)[:len(codes)]


@wrong("unpack_nf4", "counts block_size in bytes: a scale lasts twice as long")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return NF4[codes.int()] * absmax.repeat_interleave(2 * block_size)[:len(codes)]


@wrong("unpack_nf4", "drops a short last block")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    blocks = len(codes) // block_size
    return (NF4[codes.int()][:blocks * block_size].view(-1, block_size) * absmax[:blocks, None]).flatten()


@wrong("unpack_nf4", "the first block's absmax for all blocks")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return NF4[codes.int()] * absmax[0]


@wrong("unpack_nf4", "all high halves, then all low ones: cat instead of interleaving")
def _(packed, absmax, block_size):
    codes = torch.cat([packed >> 4, packed & 15])
    return NF4[codes.int()] * absmax.repeat_interleave(block_size)[:len(codes)]


@wrong("unpack_nf4", "views whole blocks: raises when the last one is short")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1, block_size)
    return (NF4[codes.int()] * absmax[:, None]).flatten()


@wrong("unpack_nf4", "indexes with uint8 codes, which torch takes for a mask")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return NF4[codes] * absmax.repeat_interleave(block_size)[:len(codes)]


@wrong("unpack_nf4", "evenly spaced levels, (code - 7) / 8, instead of the table")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return (codes.float() - 7) / 8 * absmax.repeat_interleave(block_size)[:len(codes)]


@right("unpack_nf4", "signed shift: negative codes index the table from its end")
def _(packed, absmax, block_size):
    signed = packed.view(torch.int8)
    codes = torch.stack([signed >> 4, (signed << 4) >> 4], dim=1).flatten().long()
    return NF4[codes] * absmax[torch.arange(len(codes)) // block_size]


@right("unpack_nf4", "a table of 256 pairs of levels, one look-up per byte")
def _(packed, absmax, block_size):
    pairs = torch.cartesian_prod(NF4, NF4)
    values = pairs.index_select(0, packed.int()).flatten()
    return torch.cat([part * a for part, a in zip(values.split(block_size), absmax, strict=True)])


@right("unpack_nf4", "Python loop with divmod over the bytes")
def _(packed, absmax, block_size):
    codes = [nibble for byte in packed.tolist() for nibble in divmod(byte, 16)]
    return torch.tensor([NF4[c].item() * absmax[i // block_size].item() for i, c in enumerate(codes)])


# --- normal_levels

def _offset(n):
    return 1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2


def _side(offset, steps):
    return torch.special.ndtri(torch.linspace(0.5, offset, steps + 1, dtype=torch.float64))[1:]


def _joined(below, above):
    levels = torch.cat([-below.flip(0), torch.zeros(1, dtype=torch.float64), above])
    return levels / levels.abs().max()


@wrong("normal_levels", "the offset of four bits, 0.9677, for every number of bits")
def _(bits):
    half = 2 ** (bits - 1)
    return _joined(_side(_offset(16), half - 1), _side(_offset(16), half))


@wrong("normal_levels", "the longer half below zero, the shorter one above")
def _(bits):
    half = 2 ** (bits - 1)
    return _joined(_side(_offset(2**bits), half), _side(_offset(2**bits), half - 1))


@wrong("normal_levels", "not divided by the largest: ends at 1.8, not at 1")
def _(bits):
    half, offset = 2 ** (bits - 1), _offset(2**bits)
    return torch.cat([-_side(offset, half - 1).flip(0), torch.zeros(1, dtype=torch.float64), _side(offset, half)])


@wrong("normal_levels", "the lower half is not turned round: not sorted")
def _(bits):
    half, offset = 2 ** (bits - 1), _offset(2**bits)
    levels = torch.cat([-_side(offset, half - 1), torch.zeros(1, dtype=torch.float64), _side(offset, half)])
    return levels / levels.max()


@wrong("normal_levels", "the outer half of the offset's formula is missing: adds instead of averaging")
def _(bits):
    n, half = 2**bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * n) + 1 / (2 * (n - 1)))
    return _joined(_side(offset, half - 1), _side(offset, half))


@wrong("normal_levels", "one row of quantiles from end to end: no zero in the middle")
def _(bits):
    offset = _offset(2**bits)
    levels = torch.special.ndtri(torch.linspace(1 - offset, offset, 2**bits, dtype=torch.float64))
    return levels / levels[-1]


@wrong("normal_levels", "equal steps in the value instead of in probability")
def _(bits):
    half = 2 ** (bits - 1)
    below, above = (torch.linspace(0, 1, steps + 1, dtype=torch.float64)[1:] for steps in (half - 1, half))
    return _joined(below, above)


@wrong("normal_levels", "linspace with too few points: a level is missing on each side")
def _(bits):
    half, offset = 2 ** (bits - 1), _offset(2**bits)
    return _joined(_side(offset, half - 2), _side(offset, half - 1))


@right("normal_levels", "Python's NormalDist, sorted at the end")
def _(bits):
    n, normal = 2**bits, NormalDist()
    reach = _offset(n) - 0.5
    levels = [normal.inv_cdf(0.5 + reach * i / (n // 2)) for i in range(n // 2 + 1)]
    levels += [-normal.inv_cdf(0.5 + reach * i / (n // 2 - 1)) for i in range(1, n // 2)]
    return torch.tensor(sorted(levels), dtype=torch.float64) / max(levels)


@right("normal_levels", "erfinv of the probabilities, which needs neither 0.5 nor the root of 2")
def _(bits):
    n = 2**bits
    i = torch.arange(1 - n // 2, n // 2 + 1, dtype=torch.float64)
    share = torch.where(i < 0, i / max(n // 2 - 1, 1), i / (n // 2))
    levels = torch.erfinv(share * (2 * _offset(n) - 1))
    return levels / levels[-1]


@right("normal_levels", "unique() of both halves joined, each with its own zero")
def _(bits):
    offset, half = _offset(2**bits), 2 ** (bits - 1)
    above = torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))
    below = torch.special.ndtri(torch.linspace(1 - offset, 0.5, half, dtype=torch.float64))
    return torch.unique(torch.cat([below, above])) / above[-1]


# --- weighted_levels

def _turn(scaled, weight, levels, pinned=(-1, 0, 1), start=None):
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    moved = (levels if start is None else start).clone()
    for code, level in enumerate(levels.tolist()):
        here = codes == code
        if here.any() and level not in pinned:
            moved[code] = (weight[here] * scaled[here]).sum() / weight[here].sum()
    return moved


@wrong("weighted_levels", "the plain mean of each level's values")
def _(scaled, absmax, levels):
    return _turn(scaled, torch.ones_like(scaled), levels)


@wrong("weighted_levels", "weights by absmax, not by its square")
def _(scaled, absmax, levels):
    return _turn(scaled, absmax[:, None].expand_as(scaled), levels)


@wrong("weighted_levels", "weights by the fourth power of absmax: the square is squared once more")
def _(scaled, absmax, levels):
    return _turn(scaled, absmax[:, None].expand_as(scaled) ** 4, levels)


@wrong("weighted_levels", "the mean of the weights themselves, divided by the mean absmax of their blocks")
def _(scaled, absmax, levels):
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    weights, moved = scaled * absmax[:, None], levels.clone()
    for code, level in enumerate(levels.tolist()):
        here = codes == code
        if here.any() and level not in (-1, 0, 1):
            moved[code] = weights[here].mean() / absmax.mean()
    return moved


@wrong("weighted_levels", "pins the first and the last level and forgets the zero")
def _(scaled, absmax, levels):
    return _turn(scaled, absmax.square()[:, None].expand_as(scaled), levels, pinned=(-1, 1))


@wrong("weighted_levels", "weighs by the square of the scaled value in place of the block's absmax")
def _(scaled, absmax, levels):
    return _turn(scaled, scaled.square() + 1e-12, levels)


@right("weighted_levels", "by one-hot codes and matrix products, in float64")
def _(scaled, absmax, levels):
    codes = (scaled.flatten()[:, None] - levels).abs().argmin(1)
    share = absmax.double().square().repeat_interleave(scaled.shape[1])
    where = torch.nn.functional.one_hot(codes, len(levels)).double()
    total, mass = where.T @ (share * scaled.flatten()), where.T @ share
    stays = (mass == 0) | torch.isin(levels, torch.tensor([-1.0, 0.0, 1.0]))
    return torch.where(stays, levels, (total / mass).float())


@right("weighted_levels", "by torch.average's cousin in numpy")
def _(scaled, absmax, levels):
    boundaries = ((levels[1:] + levels[:-1]) / 2).numpy()
    codes = np.searchsorted(boundaries, scaled.numpy())
    share = np.broadcast_to(absmax.numpy()[:, None] ** 2, codes.shape)
    return torch.tensor([level if level in (-1, 0, 1) or not (codes == code).any() else
                         float(np.average(scaled.numpy()[codes == code], weights=share[codes == code]))
                         for code, level in enumerate(levels.tolist())])
