"""Answers to lesson 14's exercises that nobody registered, written from the prompts alone."""

import math
import struct

import ml_dtypes
import numpy as np
import torch

from corpus import right, wrong
from helpers.floats import FP8_E4M3, FP8_E5M2, cast

# q4_1_values


@wrong("q4_1_values", "the codes begin at byte 2, where m stands")
def _(block):
    d, m = block[:4].view(torch.float16).float()
    packed = block[2:18]
    return torch.cat([packed & 15, packed >> 4]) * d + m


@wrong("q4_1_values", "each half is doubled in place: weight i and i + 1 from byte i")
def _(block):
    d, m = block[:4].view(torch.float16).float()
    out = torch.zeros(32)
    for i, byte in enumerate(block[4:].tolist()):
        out[2 * i], out[2 * i + 1] = byte % 16, byte // 16
    return out * d + m


@wrong("q4_1_values", "signed codes: from 8 on they count as negative")
def _(block):
    d, m = block[:4].view(torch.float16).float()
    codes = torch.cat([block[4:] & 15, block[4:] >> 4]).float()
    return torch.where(codes > 7, codes - 16, codes) * d + m


@wrong("q4_1_values", "m divided by d, as if it were a zero point")
def _(block):
    d, m = block[:4].view(torch.float16).float()
    codes = torch.cat([block[4:] & 15, block[4:] >> 4]).float()
    return (codes + m / d) * d + m


@wrong("q4_1_values", "only the low halves, sixteen weights")
def _(block):
    d, m = block[:4].view(torch.float16).float()
    return (block[4:] & 15) * d + m


@wrong("q4_1_values", "sixteen steps from m to d: d taken for the greatest value")
def _(block):
    d, m = block[:4].view(torch.float16).float()
    codes = torch.cat([block[4:] & 15, block[4:] >> 4]).float()
    return m + (d - m) * codes / 15


@right("q4_1_values", "with struct, byte by byte")
def _(block):
    raw = bytes(block.tolist())
    d, m = struct.unpack("<ee", raw[:4])
    return torch.tensor([d * (byte & 15) + m for byte in raw[4:]] + [d * (byte >> 4) + m for byte in raw[4:]])


@right("q4_1_values", "with numpy")
def _(block):
    d, m = block.numpy()[:4].view("<f2").astype(np.float32)
    packed = block.numpy()[4:]
    return torch.from_numpy(np.concatenate([packed % 16, packed // 16]).astype(np.float32) * d + m)


# e8m0_scale


@wrong("e8m0_scale", "divides by 8 in place of 4")
def _(blocks):
    absmax = blocks.abs().amax(-1).double()
    return (2.0 ** (absmax.log2().floor() - 3).clamp(-127, 127)).float()


@wrong("e8m0_scale", "the exponent cut towards zero, which is up for small weights")
def _(blocks):
    exponent = blocks.abs().amax(-1).double().log2().clamp(min=-125).trunc() - 2
    return (2.0 ** exponent).float()


@wrong("e8m0_scale", "a block of zeros gets a scale of 1")
def _(blocks):
    absmax = blocks.abs().amax(-1).double()
    scale = 2.0 ** (absmax.log2().floor() - 2).clamp(-127, 127)
    return torch.where(absmax > 0, scale, 1.0).float()


@wrong("e8m0_scale", "from the mean magnitude, not the greatest")
def _(blocks):
    mean = blocks.abs().mean(-1).double()
    return (2.0 ** (mean.log2().floor() - 2).clamp(-127, 127)).float()


@wrong("e8m0_scale", "multiplied by 4")
def _(blocks):
    absmax = blocks.abs().amax(-1).double()
    return (4 * 2.0 ** absmax.log2().floor().clamp(-127, 127)).float()


@wrong("e8m0_scale", "frexp's exponent taken as it is, one too high")
def _(blocks):
    absmax = blocks.abs().amax(-1)
    exponent = torch.where(absmax > 0, torch.frexp(absmax).exponent, -200)
    return (2.0 ** (exponent - 2).clamp(-127, 127).double()).float()


@right("e8m0_scale", "frexp in place of a logarithm")
def _(blocks):
    absmax = blocks.abs().amax(-1)
    exponent = torch.where(absmax > 0, torch.frexp(absmax).exponent - 3, -127)
    return (2.0 ** exponent.clamp(-127, 127).double()).float()


@right("e8m0_scale", "halves and doubles until it fits, block by block")
def _(blocks):
    scales = []
    for row in blocks.tolist():
        absmax, power = max(map(abs, row)), 2.0**-127
        while power * 2 * 4 <= absmax:
            power *= 2
        scales.append(power)
    return torch.tensor(scales)


# nvfp4_scales


@wrong("nvfp4_scales", "E5M2 in place of E4M3")
def _(x):
    tensor_scale = x.abs().max() / 2688
    block = x.view(len(x), -1, 16).abs().amax(-1) / 6
    return cast(block / tensor_scale, FP8_E5M2).clamp(min=2**-9), tensor_scale


@wrong("nvfp4_scales", "a tensor scale for each row")
def _(x):
    tensor_scale = x.abs().amax(1, keepdim=True) / 2688
    block = x.view(len(x), -1, 16).abs().amax(-1) / 6
    return cast(block / tensor_scale, FP8_E4M3).clamp(min=2**-9), tensor_scale


@wrong("nvfp4_scales", "blocks of 32")
def _(x):
    tensor_scale = x.abs().max() / 2688
    size = 32 if x.shape[1] % 32 == 0 else 16
    block = x.view(len(x), -1, size).abs().amax(-1) / 6
    return cast(block / tensor_scale, FP8_E4M3).clamp(min=2**-9), tensor_scale


@wrong("nvfp4_scales", "the inverse of the tensor's scale, as some libraries store it")
def _(x):
    inverse = 2688 / x.abs().max()
    block = x.view(len(x), -1, 16).abs().amax(-1) / 6
    return cast(block * inverse, FP8_E4M3).clamp(min=2**-9), inverse


@wrong("nvfp4_scales", "240 in place of 448, the end of another E4M3")
def _(x):
    tensor_scale = x.abs().max() / (6 * 240)
    block = x.view(len(x), -1, 16).abs().amax(-1) / 6
    return cast(block / tensor_scale, FP8_E4M3).clamp(min=2**-9), tensor_scale


@wrong("nvfp4_scales", "block scales never below 1")
def _(x):
    tensor_scale = x.abs().max() / 2688
    block = x.view(len(x), -1, 16).abs().amax(-1) / 6
    return cast(block / tensor_scale, FP8_E4M3).clamp(min=1), tensor_scale


@right("nvfp4_scales", "torch's own float8")
def _(x):
    blocks = x.unflatten(1, (-1, 16)).abs().amax(-1)
    tensor_scale = blocks.max() / 2688
    wanted = (blocks / (6 * tensor_scale)).clamp(2**-9, 448)
    return wanted.to(torch.float8_e4m3fn).float(), tensor_scale


@right("nvfp4_scales", "row by row, rounded by ml_dtypes")
def _(x):
    tensor_scale = float(x.abs().max()) / 2688
    rows = [[max(abs(v) for v in part.tolist()) / 6 / tensor_scale for part in row.split(16)] for row in x]
    scales = np.maximum(np.array(rows, np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float32), 2.0**-9)
    return torch.from_numpy(scales.astype(np.float32)), torch.tensor(tensor_scale)


# compensate


@wrong("compensate", "divides by H's own entry, not the inverse's")
def _(weight, moment, j, fixed):
    inverse = torch.linalg.inv(moment[j:, j:])
    moved = weight.clone()
    moved[:, j:] -= (weight[:, j] - fixed)[:, None] * inverse[0] / moment[j, j]
    return moved


@wrong("compensate", "cut one column too late")
def _(weight, moment, j, fixed):
    moved = weight.clone()
    moved[:, j] = fixed
    if j + 1 < weight.shape[1]:
        inverse = torch.linalg.inv(moment[j + 1:, j + 1:])
        moved[:, j + 1:] -= (weight[:, j] - fixed)[:, None] * inverse[0] / inverse[0, 0]
    return moved


@wrong("compensate", "only the next column makes it good")
def _(weight, moment, j, fixed):
    moved = weight.clone()
    moved[:, j] = fixed
    if j + 1 < weight.shape[1]:
        moved[:, j + 1] += (weight[:, j] - fixed) * moment[j, j + 1] / moment[j + 1, j + 1]
    return moved


@wrong("compensate", "the error is spread evenly over the rest")
def _(weight, moment, j, fixed):
    moved = weight.clone()
    moved[:, j] = fixed
    rest = weight.shape[1] - j - 1
    if rest:
        moved[:, j + 1:] += ((weight[:, j] - fixed) / rest)[:, None]
    return moved


@wrong("compensate", "the rest is moved from the whole inverse's row")
def _(weight, moment, j, fixed):
    inverse = torch.linalg.inv(moment)
    moved = weight.clone()
    moved[:, j:] -= (weight[:, j] - fixed)[:, None] * inverse[j, j:] / inverse[j, j]
    return moved


@right("compensate", "least squares for the columns behind j")
def _(weight, moment, j, fixed):
    moved = weight.clone()
    moved[:, j] = fixed
    rest = moment[j + 1:, j + 1:]
    moved[:, j + 1:] += torch.linalg.solve(rest, torch.outer(moment[j + 1:, j], weight[:, j] - fixed)).T
    return moved


@right("compensate", "with a Cholesky factor, as in GPTQ's algorithm")
def _(weight, moment, j, fixed):
    U = torch.linalg.cholesky(torch.linalg.inv(moment[j:, j:]), upper=True)
    step = torch.outer((fixed - weight[:, j]) / U[0, 0], U[0])
    return torch.cat([weight[:, :j], weight[:, j:] + step], dim=1)


# codes_in_order


@wrong("codes_in_order", "halves in blocks of 32 bytes")
def _(packed, order):
    low, high = packed & 15, packed >> 4
    if order == "halves":
        size = 32 if len(packed) % 32 == 0 else 16
        return torch.cat([low.view(-1, size), high.view(-1, size)], 1).flatten()
    return torch.stack([high, low] if order == "high first" else [low, high], 1).flatten()


@wrong("codes_in_order", "halves exchanged within the tensor: all high codes last, from the end")
def _(packed, order):
    low, high = packed & 15, packed >> 4
    if order == "halves":
        return torch.cat([low.view(-1, 16), high.view(-1, 16).flip(1)], 1).flatten()
    return torch.stack([high, low] if order == "high first" else [low, high], 1).flatten()


@wrong("codes_in_order", "takes the low three bits")
def _(packed, order):
    low, high = packed & 7, packed >> 4
    if order == "halves":
        return torch.cat([low.view(-1, 16), high.view(-1, 16)], 1).flatten()
    return torch.stack([high, low] if order == "high first" else [low, high], 1).flatten()


@wrong("codes_in_order", "codes as int64")
def _(packed, order):
    low, high = (packed & 15).long(), (packed >> 4).long()
    if order == "halves":
        return torch.cat([low.view(-1, 16), high.view(-1, 16)], 1).flatten()
    return torch.stack([high, low] if order == "high first" else [low, high], 1).flatten()


@wrong("codes_in_order", "side by side: all of one, then all of the other")
def _(packed, order):
    low, high = packed & 15, packed >> 4
    return torch.cat([high, low] if order == "high first" else [low, high])


@wrong("codes_in_order", "knows two orders only: all but high first are low first")
def _(packed, order):
    low, high = packed & 15, packed >> 4
    return torch.stack([high, low] if order == "high first" else [low, high], 1).flatten()


@right("codes_in_order", "byte by byte")
def _(packed, order):
    codes = []
    for start in range(0, len(packed), 16):
        block = packed[start:start + 16].tolist()
        if order == "halves":
            codes += [b & 15 for b in block] + [b >> 4 for b in block]
        else:
            codes += [c for b in block for c in ((b >> 4, b & 15) if order == "high first" else (b & 15, b >> 4))]
    return torch.tensor(codes, dtype=torch.uint8)


@right("codes_in_order", "by places, written into an empty tensor")
def _(packed, order):
    out = torch.empty(2 * len(packed), dtype=torch.uint8)
    place = torch.arange(len(packed))
    first, step = (place // 16 * 32 + place % 16, 16) if order == "halves" else (2 * place, 1)
    low, high = packed % 16, packed // 16
    out[first], out[first + step] = (high, low) if order == "high first" else (low, high)
    return out


# fold


@wrong("fold", "scales all readers and divides the norm by the square of s")
def _(norm, readers, s):
    return norm / s**2, [w * s for w in readers]


@wrong("fold", "all but the last reader")
def _(norm, readers, s):
    return norm / s, [w * s for w in readers[:-1]] + readers[-1:]


@wrong("fold", "the readers divided, like the norm")
def _(norm, readers, s):
    return norm / s, [w / s for w in readers]


@wrong("fold", "every reader by the mean of s")
def _(norm, readers, s):
    return norm / s, [w * s.mean() for w in readers]


@wrong("fold", "the norm keeps its mean")
def _(norm, readers, s):
    new = norm / s
    return new * norm.mean() / new.mean(), [w * s for w in readers]


@right("fold", "diagonal matrices")
def _(norm, readers, s):
    return torch.linalg.solve(torch.diag(s), norm), [w @ torch.diag(s) for w in readers]


@right("fold", "column by column")
def _(norm, readers, s):
    scaled = [w.clone() for w in readers]
    new = norm.clone()
    for c, factor in enumerate(s.tolist()):
        new[c] = norm[c] / factor
        for w in scaled:
            w[:, c] *= factor
    return new, scaled


# as_lora


@wrong("as_lora", "half of B₀·A₀ is taken away")
def _(B0, A0, B1, A1):
    return torch.cat([B1, -B0 / 2], dim=1), torch.cat([A1, A0])


@wrong("as_lora", "the pair from before training")
def _(B0, A0, B1, A1):
    return B0, A0


@wrong("as_lora", "joined along the other dimension of B")
def _(B0, A0, B1, A1):
    return torch.cat([B1, -B0]), torch.cat([A1, A0])


@wrong("as_lora", "the right product, squeezed into rank r")
def _(B0, A0, B1, A1):
    U, S, V = torch.linalg.svd(B1 @ A1 - B0 @ A0, full_matrices=False)
    r = A0.shape[0]
    return U[:, :r] * S[:r], V[:r]


@wrong("as_lora", "doubled, against a scale of 1/2")
def _(B0, A0, B1, A1):
    return 2 * torch.cat([B1, -B0], dim=1), torch.cat([A1, A0])


@right("as_lora", "the minus in A, the other way round")
def _(B0, A0, B1, A1):
    return torch.cat([B0, B1], dim=1), torch.cat([-A0, A1])


@right("as_lora", "written into empty tensors")
def _(B0, A0, B1, A1):
    r = B0.shape[1]
    B, A = torch.empty(B0.shape[0], 2 * r), torch.empty(2 * r, A0.shape[1])
    B[:, :r], B[:, r:], A[:r], A[r:] = math.sqrt(2) * B1, B0, A1 / math.sqrt(2), -A0
    return B, A
