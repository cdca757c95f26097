"""Answers to lesson 02's exercises that nobody registered, written from the prompts alone."""

import numpy as np
import torch

from corpus import right, wrong

# --- absmax_quantize

@wrong("absmax_quantize", "absolute value of the maximum, not maximum of the absolute values")
def _(x, bits=8):
    largest = 2 ** (bits - 1) - 1
    scale = x.max().abs() / largest
    scale = torch.where(scale == 0, 1.0, scale)
    return (x / scale).round().clamp(-largest, largest).to(torch.int8), scale


@wrong("absmax_quantize", "scale from half the range, (max - min) / 2")
def _(x, bits=8):
    largest = 2 ** (bits - 1) - 1
    scale = (x.max() - x.min()) / 2 / largest
    scale = torch.where(scale == 0, 1.0, scale)
    return (x / scale).round().clamp(-largest, largest).to(torch.int8), scale


@wrong("absmax_quantize", "divides by 2**(bits - 1) instead of one less: codes one too large, clamped")
def _(x, bits=8):
    steps = 2 ** (bits - 1)
    scale = x.abs().max() / steps
    if scale == 0:
        scale = torch.tensor(1.0)
    return (x / scale).round().clamp(1 - steps, steps - 1).to(torch.int8), scale


@wrong("absmax_quantize", "cuts off towards zero: no rounding")
def _(x, bits=8):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().max() / largest
    scale[scale == 0] = 1
    return (x / scale).clamp(-largest, largest).to(torch.int8), scale


@wrong("absmax_quantize", "a scale for each row instead of one for all")  # right for one dimension, but for its shape
def _(x, bits=8):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().amax(dim=-1, keepdim=True) / largest
    scale[scale == 0] = 1
    return (x / scale).round().clamp(-largest, largest).to(torch.int8), scale


@wrong("absmax_quantize", "ignores bits: always 127")
def _(x, bits=8):
    scale = x.abs().max() / 127
    scale = torch.where(scale > 0, scale, torch.ones(()))
    return (x / scale).round().clamp(-127, 127).to(torch.int8), scale


@wrong("absmax_quantize", "returns the codes alone")
def _(x, bits=8):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().max() / largest
    return (x / (scale if scale > 0 else 1)).round().to(torch.int8)


@wrong("absmax_quantize", "scale first, codes second")
def _(x, bits=8):
    scale = x.abs().max() / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, 1)
    return scale, (x / scale).round().to(torch.int8)


@wrong("absmax_quantize", "a tensor of zeros gets the scale 0, its codes set to 0")
def _(x, bits=8):
    scale = x.abs().max() / (2 ** (bits - 1) - 1)
    return (x / scale).nan_to_num(0).round().to(torch.int8), scale


@wrong("absmax_quantize", "adds a little to the scale against 0 / 0: every scale is a little too large")
def _(x, bits=8):
    scale = x.abs().max() / (2 ** (bits - 1) - 1) + 1e-3
    return (x / scale).round().to(torch.int8), scale


@wrong("absmax_quantize", "the papers' constant: codes are right, the scale is what they were multiplied by")
def _(x, bits=8):
    absmax = x.abs().max()
    c = (2 ** (bits - 1) - 1) / torch.where(absmax > 0, absmax, 2 ** (bits - 1) - 1)
    return (x * c).round().to(torch.int8), c


@wrong("absmax_quantize", "abs_ in place: the signs of x are gone before it is divided")
def _(x, bits=8):
    scale = x.abs_().max() / (2 ** (bits - 1) - 1)
    scale = torch.where(scale > 0, scale, 1)
    return (x / scale).round().to(torch.int8), scale


@right("absmax_quantize", "the largest size from max and -min")
def _(x, bits=8):
    top = (1 << bits - 1) - 1
    low, high = torch.aminmax(x)
    scale = torch.maximum(-low, high) / top
    if scale == 0:
        scale = torch.ones_like(scale)
    return torch.round(x / scale).char(), scale


@right("absmax_quantize", "numpy: rint in float32")
def _(x, bits=8):
    values = x.numpy()
    scale = np.abs(values).max() / np.float32(2 ** (bits - 1) - 1) or np.float32(1)
    return torch.from_numpy(np.rint(values / scale).astype(np.int8)), torch.tensor(scale)


@right("absmax_quantize", "one weight at a time with Python's round")
def _(x, bits=8):
    flat = x.flatten().tolist()
    step = max(map(abs, flat)) / (2 ** (bits - 1) - 1) or 1.0
    return torch.tensor([round(v / step) for v in flat], dtype=torch.int8).reshape(x.shape), torch.tensor(step)


# --- zeropoint_values

@wrong("zeropoint_values", "subtracts the zero point after the scale: codes * scale - zero_point")
def _(codes, scale, zero_point):
    return codes.float() * scale - zero_point


@wrong("zeropoint_values", "adds the zero point")
def _(codes, scale, zero_point):
    return (codes.float() + zero_point) * scale


@wrong("zeropoint_values", "turns to float after the subtraction: it still wraps in int8")
def _(codes, scale, zero_point):
    return (codes - zero_point).float() * scale


@wrong("zeropoint_values", "reads the codes as unsigned bytes: negative codes gain 256")
def _(codes, scale, zero_point):
    return (codes.view(torch.uint8).float() - zero_point) * scale


@wrong("zeropoint_values", "the result is float64")
def _(codes, scale, zero_point):
    return (codes.double() - zero_point) * scale


@wrong("zeropoint_values", "multiplies in float16: values are rounded to eleven bits")
def _(codes, scale, zero_point):
    return ((codes.half() - zero_point) * scale).float()


@wrong("zeropoint_values", "clamps the difference to int8's range, so far values saturate")
def _(codes, scale, zero_point):
    return (codes.int() - zero_point).clamp(-128, 127) * scale


@wrong("zeropoint_values", "divides by the scale")
def _(codes, scale, zero_point):
    return (codes.int() - zero_point) / scale


@right("zeropoint_values", "a table of all 256 values, looked up")
def _(codes, scale, zero_point):
    table = (torch.arange(-128, 128) - zero_point) * scale
    return table[codes.long() + 128]


@right("zeropoint_values", "multiplied out, in float64 inside")
def _(codes, scale, zero_point):
    return (codes.double() * scale - zero_point * scale).float()


@right("zeropoint_values", "int16, in a chain of methods, with the negated zero point added")
def _(codes, scale, zero_point):
    return codes.short().add(-zero_point).to(torch.float32).mul(scale)


# --- calibrated_codes

@wrong("calibrated_codes", "clamps after the cast to int8, when it has already wrapped")
def _(x, low, high):
    step = (high - low) / 255
    return ((x - low) / step - 128).round().to(torch.int32).to(torch.int8).clamp(-128, 127)


@wrong("calibrated_codes", "clamps, but still cuts off instead of rounding")
def _(x, low, high):
    step = (high - low) / 255
    return ((x - low) / step - 128).clamp(-128, 127).to(torch.int8)


@wrong("calibrated_codes", "256 steps in the range instead of 255")
def _(x, low, high):
    step = (high - low) / 256
    return ((x - low) / step - 128).round().clamp(-128, 127).to(torch.int8)


@wrong("calibrated_codes", "one range for all dimensions: the smallest low and the largest high")
def _(x, low, high):
    low, high = low.min(), high.max()
    return ((x - low) / (high - low) * 255 - 128).round().clamp(-128, 127).to(torch.int8)


@wrong("calibrated_codes", "clamps to -127: the lowest code is never used")
def _(x, low, high):
    step = (high - low) / 255
    return ((x - low) / step - 128).round().clamp(-127, 127).to(torch.int8)


@wrong("calibrated_codes", "clamps at the top only: values below low still wrap")
def _(x, low, high):
    step = (high - low) / 255
    return ((x - low) / step - 128).round().clamp(max=127).to(torch.int32).to(torch.int8)


@wrong("calibrated_codes", "widens the measured range to the values of x, so nothing lies outside")
def _(x, low, high):
    low, high = torch.minimum(x.amin(dim=0), low), torch.maximum(x.amax(dim=0), high)
    return ((x - low) / ((high - low) / 255) - 128).round().clamp(-128, 127).to(torch.int8)


@wrong("calibrated_codes", "ranges laid along the texts: low[:, None] instead of per dimension")
def _(x, low, high):
    low, high = low[:, None], high[:, None]
    return ((x - low) / ((high - low) / 255) - 128).round().clamp(-128, 127).to(torch.int8)


@right("calibrated_codes", "values clamped to the range first, codes from 0 to 255, then shifted")
def _(x, low, high):
    inside = torch.minimum(torch.maximum(x, low), high)
    codes = torch.round((inside - low) / ((high - low) / 255))
    return (codes - 128).to(torch.int8)


@right("calibrated_codes", "numpy in float64, column by column")
def _(x, low, high):
    out = np.empty(x.shape, dtype=np.int8)
    for j in range(x.shape[1]):
        a, b = float(low[j]), float(high[j])
        out[:, j] = np.clip(np.rint((x[:, j].numpy().astype(np.float64) - a) / (b - a) * 255), 0, 255) - 128
    return torch.from_numpy(out)


@right("calibrated_codes", "rounds in int32, then sets both ends by torch.where")
def _(x, low, high):
    codes = torch.round((x - low) / ((high - low) / 255) - 128).to(torch.int32)
    codes = torch.where(x >= high, 127, codes)
    return torch.where(x <= low, -128, codes).to(torch.int8)


# --- int8_linear

@wrong("int8_linear", "leaves out the weights' scale")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.int() @ w_codes.int().T) * x_scale


@wrong("int8_linear", "turns to float only after the int8 product has wrapped")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes @ w_codes.T).float() * (x_scale * w_scale)


@wrong("int8_linear", "adds up in int16: sums beyond 32,767 wrap")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.short() @ w_codes.short().T).float() * (x_scale * w_scale)


@wrong("int8_linear", "multiplies in float16: large sums are rounded or infinite")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.half() @ w_codes.half().T).float() * (x_scale * w_scale)


@wrong("int8_linear", "weights not transposed")  # of the right shape for square ones
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.int() @ w_codes.int()) * (x_scale * w_scale)


@wrong("int8_linear", "saturates the sum to int8 before the scales")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.int() @ w_codes.int().T).clamp(-128, 127) * (x_scale * w_scale)


@wrong("int8_linear", "the scales are added instead of multiplied")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.int() @ w_codes.int().T) * (x_scale + w_scale)


@wrong("int8_linear", "the result is float64")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.double() * x_scale) @ (w_codes.double() * w_scale).T


@right("int8_linear", "both sides dequantized first, then multiplied by linear")
def _(x_codes, x_scale, w_codes, w_scale):
    return torch.nn.functional.linear(x_codes.float() * x_scale, w_codes.float() * w_scale)


@right("int8_linear", "einsum over int64")
def _(x_codes, x_scale, w_codes, w_scale):
    sums = torch.einsum("nk,dk->nd", x_codes.long(), w_codes.long())
    return (sums.double() * x_scale * w_scale).float()


@right("int8_linear", "Python's integers, row by row")
def _(x_codes, x_scale, w_codes, w_scale):
    rows, columns = x_codes.tolist(), w_codes.tolist()
    sums = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in columns] for row in rows]
    return torch.tensor(sums, dtype=torch.float32).reshape(len(rows), len(columns)) * x_scale * w_scale


# --- shifted_product

@wrong("shifted_product", "adds the correction instead of subtracting it")
def _(raw, zero_point, w_codes):
    return raw + zero_point * w_codes.sum(dim=1)


@wrong("shifted_product", "zero point times weights is computed in int8, before the sum widens it: large products wrap")
def _(raw, zero_point, w_codes):
    return raw - (zero_point * w_codes).sum(dim=1)


@wrong("shifted_product", "the zero point times the number of inputs, not times the weights' sum")
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.shape[1]


@wrong("shifted_product", "subtracts in float32, which doesn't hold integers beyond 2**24 exactly")
def _(raw, zero_point, w_codes):
    return (raw.float() - zero_point * w_codes.float().sum(dim=1)).long()


@wrong("shifted_product", "the sums stand as a column: along the rows, not along the outputs")  # right for d = 1
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.sum(dim=1, keepdim=True)


@wrong("shifted_product", "adds k * z**2 as well, as if the weights had the zero point too")
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.sum(dim=1) + w_codes.shape[1] * zero_point**2


@wrong("shifted_product", "the accumulators are narrowed to int32, and so is the result")
def _(raw, zero_point, w_codes):
    return raw.int() - zero_point * w_codes.sum(dim=1, dtype=torch.int32)


@wrong("shifted_product", "adds up the weights over the outputs (dim 0), not over the inputs")  # runs for square ones
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.sum(dim=0)


@right("shifted_product", "a whole batch of zero points goes through the layer")
def _(raw, zero_point, w_codes):
    nothing = torch.full((len(raw), w_codes.shape[1]), zero_point, dtype=torch.int64)
    return raw - nothing @ w_codes.long().T


@right("shifted_product", "one rank-one update, addr with a negative alpha")
def _(raw, zero_point, w_codes):
    return torch.addr(raw, torch.ones(len(raw), dtype=torch.int64), w_codes.long().sum(1), alpha=-zero_point)


@right("shifted_product", "NumPy, column by column, into a copy")
def _(raw, zero_point, w_codes):
    result = raw.numpy().copy()
    for output, weights in enumerate(w_codes.numpy()):
        result[:, output] -= zero_point * int(np.add.reduce(weights, dtype=np.int64))
    return torch.from_numpy(result)
