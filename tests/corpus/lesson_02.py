"""Answers to lesson 02's exercises that nobody registered, written from the prompts alone."""

import numpy as np
import torch

from corpus import right, wrong

# --- absmax_codes

@wrong("absmax_codes", "absolute value of the maximum, not maximum of the absolute values")
def _(x, bits):
    largest = 2 ** (bits - 1) - 1
    return (x / (x.max().abs() / largest)).round().clamp(-largest, largest).to(torch.int8)


@wrong("absmax_codes", "scale from half the range, (max - min) / 2")
def _(x, bits):
    largest = 2 ** (bits - 1) - 1
    scale = (x.max() - x.min()) / 2 / largest
    return (x / scale).round().clamp(-largest, largest).to(torch.int8)


@wrong("absmax_codes", "divides by 2**(bits - 1) instead of one less: codes one too large, clamped")
def _(x, bits):
    steps = 2 ** (bits - 1)
    return (x / (x.abs().max() / steps)).round().clamp(1 - steps, steps - 1).to(torch.int8)


@wrong("absmax_codes", "cuts off towards zero: no rounding")
def _(x, bits):
    largest = 2 ** (bits - 1) - 1
    return (x / (x.abs().max() / largest)).clamp(-largest, largest).to(torch.int8)


@wrong("absmax_codes", "a scale for each row instead of one for all")  # right for one dimension
def _(x, bits):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().amax(dim=-1, keepdim=True) / largest
    return (x / scale).round().clamp(-largest, largest).to(torch.int8)


@wrong("absmax_codes", "ignores bits: always 127")
def _(x, bits):
    return (x / (x.abs().max() / 127)).round().clamp(-127, 127).to(torch.int8)


@wrong("absmax_codes", "returns codes and scale, not the codes alone")
def _(x, bits):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs().max() / largest
    return (x / scale).round().to(torch.int8), scale


@wrong("absmax_codes", "abs_ in place: the signs of x are gone before it is divided")
def _(x, bits):
    largest = 2 ** (bits - 1) - 1
    scale = x.abs_().max() / largest
    return (x / scale).round().clamp(-largest, largest).to(torch.int8)


@right("absmax_codes", "the largest size from max and -min")
def _(x, bits):
    top = (1 << bits - 1) - 1
    low, high = torch.aminmax(x)
    scale = torch.maximum(-low, high) / top
    return torch.round(x / scale).char()


@right("absmax_codes", "numpy: rint in float32")
def _(x, bits):
    values = x.numpy()
    scale = np.abs(values).max() / np.float32(2 ** (bits - 1) - 1) or np.float32(1)
    return torch.from_numpy(np.rint(values / scale).astype(np.int8))


@right("absmax_codes", "one weight at a time with Python's round")
def _(x, bits):
    flat = x.flatten().tolist()
    step = max(map(abs, flat)) / (2 ** (bits - 1) - 1) or 1.0
    return torch.tensor([round(v / step) for v in flat], dtype=torch.int8).reshape(x.shape)


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

@wrong("shifted_product", "multiplies the zero point by the sums of the codes, not of the weights")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T - zero_point * codes.int().sum(dim=1, keepdim=True, dtype=torch.int32)


@wrong("shifted_product", "adds the correction instead of subtracting it")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T + zero_point * w_codes.sum(dim=1, dtype=torch.int32)


@wrong("shifted_product", "one sum over all weights instead of one for each output row")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T - zero_point * w_codes.sum(dtype=torch.int32)


@wrong("shifted_product", "the result is int64: sum() of integers widens it")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T - zero_point * w_codes.sum(dim=1)


@wrong("shifted_product", "subtracts the zero point in int8: large differences wrap")
def _(codes, zero_point, w_codes):
    return (codes - zero_point).int() @ w_codes.int().T


@wrong("shifted_product", "adds up the weights in int8: their sum wraps")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T - zero_point * w_codes.sum(dim=1, dtype=torch.int8).int()


@wrong("shifted_product", "correction as a column: along the inputs instead of the outputs")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T - zero_point * w_codes.int().sum(dim=1, keepdim=True, dtype=torch.int32)


@wrong("shifted_product", "subtracts the zero point once, not times the weights' sum")
def _(codes, zero_point, w_codes):
    return codes.int() @ w_codes.int().T - zero_point


@right("shifted_product", "subtracts first, in int16, and multiplies in int32")
def _(codes, zero_point, w_codes):
    return (codes.short() - zero_point).int().matmul(w_codes.int().t())


@right("shifted_product", "the correction as one more column of the product")
def _(codes, zero_point, w_codes):
    extra = torch.full((len(codes), 1), -zero_point, dtype=torch.int32)
    sums = w_codes.sum(dim=1, keepdim=True).int()
    return torch.cat([codes.int(), extra], dim=1) @ torch.cat([w_codes.int(), sums], dim=1).T


@right("shifted_product", "float64, which holds every such sum exactly")
def _(codes, zero_point, w_codes):
    q, w = codes.double(), w_codes.double()
    return (torch.einsum("nk,dk->nd", q, w) - zero_point * w.sum(1)).to(torch.int32)
