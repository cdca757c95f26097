"""Answers to lesson 11's exercises that nobody registered, written from the prompts alone."""

import math
import re

import torch
import torch.nn.functional as F

from corpus import right, wrong
from helpers.codebooks import NF4
from helpers.quantization import quantize

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")

# merge_weight


@wrong("merge_weight", "rounds the update to W's dtype before the sum")
def _(W, A, B, alpha):
    update = (alpha / A.shape[0] * (B @ A)).to(W.dtype)
    return W + update


@wrong("merge_weight", "rounds A and B to W's dtype, then sums in float32")
def _(W, A, B, alpha):
    A, B = A.to(W.dtype).float(), B.to(W.dtype).float()
    return (W.float() + alpha / A.shape[0] * (B @ A)).to(W.dtype)


@wrong("merge_weight", "returns float32, not W's dtype")
def _(W, A, B, alpha):
    return W.float() + alpha / len(A) * (B @ A)


@wrong("merge_weight", "divides alpha by the width of A, not by r")
def _(W, A, B, alpha):
    return (W.float() + alpha / A.shape[-1] * (B @ A)).to(W.dtype)


@wrong("merge_weight", "integer division of alpha by r")
def _(W, A, B, alpha):
    return (W.float() + alpha // len(A) * (B @ A)).to(W.dtype)


@wrong("merge_weight", "adds in place: the caller's W is changed")
def _(W, A, B, alpha):
    return W.copy_(W.float() + alpha / len(A) * (B @ A))


@wrong("merge_weight", "rounds to bfloat16 always, though W may be float16")
def _(W, A, B, alpha):
    return (W.float() + alpha / len(A) * (B @ A)).to(torch.bfloat16)


@wrong("merge_weight", "adds in W's dtype rank by rank: one rounding for each rank")
def _(W, A, B, alpha):
    merged = W.clone()
    for column, row in zip(B.T, A, strict=True):
        merged += alpha / len(A) * torch.outer(column, row)  # right for r = 1
    return merged


@right("merge_weight", "addmm with alpha on the float32 copy")
def _(W, A, B, alpha):
    return torch.addmm(W.float(), B, A, alpha=alpha / A.size(0)).to(W.dtype)


@right("merge_weight", "outer products added up in float32, one rounding at the end")
def _(W, A, B, alpha):
    total = W.to(torch.float32, copy=True)
    for column, row in zip(B.T, A, strict=True):
        total += torch.outer(column, row) * (alpha / len(A))
    return total.to(W.dtype)


@right("merge_weight", "one product of [W, B] with the identity above the scaled A")
def _(W, A, B, alpha):
    below = A * (alpha / B.shape[1])
    stacked = torch.cat([torch.eye(W.shape[1]), below])
    return (torch.cat([W.float(), B], dim=1) @ stacked).type(W.dtype)


# room_to_move


@wrong("room_to_move", "the farther boundary, not the nearer")
def _(codebook):
    half = codebook.diff() / 2
    inner = torch.maximum(half[:-1], half[1:])
    return torch.cat([half[:1], inner, half[-1:]])


@wrong("room_to_move", "the mean of the distances to both boundaries")
def _(codebook):
    half = codebook.diff() / 2
    return torch.cat([half[:1], (half[:-1] + half[1:]) / 2, half[-1:]])


@wrong("room_to_move", "looks at the neighbour above only, at the last level below")
def _(codebook):
    half = codebook.diff() / 2
    return torch.cat([half, half[-1:]])


@wrong("room_to_move", "rolls around: neighbours of the first and last level are each other")
def _(codebook):
    above = (codebook.roll(-1) - codebook) / 2
    below = (codebook - codebook.roll(1)) / 2
    return torch.minimum(above, below)


@wrong("room_to_move", "takes the levels as evenly spaced")
def _(codebook):
    step = (codebook[-1] - codebook[0]) / (len(codebook) - 1)
    return torch.full_like(codebook, (step / 2).item())


@wrong("room_to_move", "differences of magnitudes: wrong around zero")
def _(codebook):
    half = codebook.abs().diff().abs() / 2
    padded = F.pad(half, (1, 1), value=float("inf"))
    return torch.minimum(padded[:-1], padded[1:])


@wrong("room_to_move", "fails for a codebook of two levels, which has no inner ones")
def _(codebook):
    half = codebook.diff() / 2
    inner = half.unfold(0, 2, 1).amin(dim=1)
    return torch.cat([half[:1], inner, half[-1:]])


@wrong("room_to_move", "divides by the level's size: a relative distance")
def _(codebook):
    half = F.pad(codebook.diff() / 2, (1, 1), value=float("inf"))
    return torch.minimum(half[:-1], half[1:]) / codebook.abs().clamp(min=1e-9)


@right("room_to_move", "all pairwise distances, itself excluded, half of the least")
def _(codebook):
    distances = (codebook[:, None] - codebook).abs()
    return distances.fill_diagonal_(math.inf).amin(dim=1) / 2


@right("room_to_move", "a loop with slices of a Python list, in float64")
def _(codebook):
    levels, rooms = codebook.tolist(), []
    for i, level in enumerate(levels):
        neighbours = levels[max(0, i - 1):i] + levels[i + 1:i + 2]
        rooms.append(min(abs(level - other) for other in neighbours) / 2)
    return torch.tensor(rooms, dtype=codebook.dtype)


@right("room_to_move", "distance to the nearest of all boundaries by cdist")
def _(codebook):
    boundaries = (codebook[1:] + codebook[:-1]) / 2
    return torch.cdist(codebook[:, None], boundaries[:, None]).min(dim=1).values


# untrained_layers


@wrong("untrained_layers", "tests the sum, which cancels for positive and negative entries")
def _(state):
    suffix = ".lora_B.weight"
    return [name.removesuffix(suffix) for name, B in state.items() if name.endswith(suffix) and B.sum() == 0]


@wrong("untrained_layers", "tests for no positive entry: a B of negative numbers counts as zero")
def _(state):
    suffix = ".lora_B.weight"
    return [name.removesuffix(suffix) for name, B in state.items() if name.endswith(suffix) and not (B > 0).any()]


@wrong("untrained_layers", "rstrip with the ending: eats letters of layer names such as gate")
def _(state):
    return [name.rstrip(".lora_B.weight")  # noqa: B005 - this is the slip
            for name, B in state.items() if name.endswith(".lora_B.weight") and not B.any()]


@wrong("untrained_layers", "returns the last part of the name only, q_proj")
def _(state):
    return [name.split(".")[-3] for name, B in state.items() if name.endswith("lora_B.weight") and not B.any()]


@wrong("untrained_layers", "allclose with its tolerance: a B below 1e-8 counts as zero")
def _(state):
    suffix = ".lora_B.weight"
    return [name.removesuffix(suffix) for name, B in state.items()
            if name.endswith(suffix) and torch.allclose(B, torch.zeros_like(B))]


@wrong("untrained_layers", "one zero entry in B is enough")
def _(state):
    suffix = ".lora_B.weight"
    return [name.removesuffix(suffix) for name, B in state.items() if name.endswith(suffix) and not B.all()]


@wrong("untrained_layers", "takes every second tensor for a B, whatever its name")
def _(state):
    names = list(state)[1::2]  # wrong where all A come first
    return [name.removesuffix(".lora_B.weight") for name in names if not state[name].any()]


@wrong("untrained_layers", "max() fails on tensors without elements")
def _(state):
    suffix = ".lora_B.weight"
    return [name.removesuffix(suffix) for name, B in state.items()
            if name.endswith(suffix) and B.abs().max() == 0]


@right("untrained_layers", "counts nonzero entries, cuts the name by its length")
def _(state):
    end = ".lora_B.weight"
    return [key[:-len(end)] for key in state if key[-len(end):] == end and state[key].count_nonzero() == 0]


@right("untrained_layers", "a regular expression and Python lists")
def _(state):
    found = []
    for name, weight in state.items():
        match = re.fullmatch(r"(.*)\.lora_B\.weight", name)
        if match and all(value == 0 for value in weight.flatten().tolist()):
            found.append(match[1])
    return found


@right("untrained_layers", "compares with zeros by torch.equal")
def _(state):
    halves = (name.rpartition(".lora_B.weight") for name in state)
    return [layer for layer, end, rest in halves
            if end and not rest and torch.equal(state[layer + end], torch.zeros_like(state[layer + end]))]


# merge_as_trained


@wrong("merge_as_trained", "merges first and rounds the sum to NF4")
def _(W, A, B, alpha):
    return quantize(W + alpha / A.shape[0] * (B @ A)).dequantize()


@wrong("merge_as_trained", "quantizes each row by itself: blocks begin anew in every row")
def _(W, A, B, alpha):
    base = torch.stack([quantize(row).dequantize() for row in W])
    return base + alpha / A.shape[0] * (B @ A)  # right for rows of whole blocks


@wrong("merge_as_trained", "rounds W to bfloat16 first, and the base with it")
def _(W, A, B, alpha):
    return quantize(W.bfloat16()).dequantize().float() + alpha / A.shape[0] * (B @ A)


@wrong("merge_as_trained", "quantizes W transposed: the blocks run along columns")
def _(W, A, B, alpha):
    base = quantize(W.T.contiguous()).dequantize().T
    return base + alpha / A.shape[0] * (B @ A)


@wrong("merge_as_trained", "quantizes the update too")
def _(W, A, B, alpha):
    update = alpha / A.shape[0] * (B @ A)
    return quantize(W).dequantize() + quantize(update).dequantize()


@wrong("merge_as_trained", "integer division of alpha by r")
def _(W, A, B, alpha):
    return quantize(W).dequantize() + alpha // A.shape[0] * (B @ A)


@wrong("merge_as_trained", "adds the quantization error to W instead of taking it off")
def _(W, A, B, alpha):
    error = W - quantize(W).dequantize()
    return W + error + alpha / A.shape[0] * (B @ A)


@wrong("merge_as_trained", "one scale for a whole row instead of blocks of 64")
def _(W, A, B, alpha):
    base = quantize(W, block_size=W.shape[1]).dequantize()
    return base + alpha / A.shape[0] * (B @ A)  # right for 64 columns


@right("merge_as_trained", "looks the codes up in the codebook and repeats the scales itself")
def _(W, A, B, alpha):
    stored = quantize(W)
    scales = stored.absmax.repeat_interleave(stored.block_size)[:W.numel()].view(W.shape)
    return torch.addmm(NF4[stored.codes.long()] * scales, B, A, alpha=alpha / len(A))


@right("merge_as_trained", "sends the identity through the layer as trained")
def _(W, A, B, alpha):
    x = torch.eye(W.shape[1])
    h = F.linear(x, quantize(W).dequantize()) + alpha / len(A) * F.linear(F.linear(x, A), B)
    return h.T


@right("merge_as_trained", "takes the quantization error off the plain merge, in float64")
def _(W, A, B, alpha):
    merged = W.double() + alpha / B.shape[1] * torch.einsum("dr,rk->dk", B.double(), A.double())
    return (merged - (W - quantize(W, NF4, 64).dequantize()).double()).float()
