"""Answers to lesson 09's exercises that nobody registered, written from the prompts alone."""

import functools
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from corpus import right, wrong

# workspace_bytes


@wrong("workspace_bytes", "two bytes written into the code, ignores width")
def _(shapes, width=2):
    sizes = [d * k * 2 for d, k in shapes]
    return sum(sizes), max(sizes)


@wrong("workspace_bytes", "max of the shapes compares d first: not the largest product")
def _(shapes, width=2):
    d, k = max(shapes)
    return sum(a * b for a, b in shapes) * width, d * k * width  # wrong for [(3, 9), (4, 1)]


@wrong("workspace_bytes", "takes the last weight for the most at once")
def _(shapes, width=2):
    total = 0
    for d, k in shapes:
        one = d * k * width
        total += one
    return total, one


@wrong("workspace_bytes", "counts weights of equal shape once only")
def _(shapes, width=2):
    sizes = {d * k * width for d, k in shapes}
    return sum(sizes), max(sizes)


@wrong("workspace_bytes", "two neighbours exist at once: the largest sum of a pair")
def _(shapes, width=2):
    sizes = [d * k * width for d, k in shapes]
    pairs = [a + b for a, b in zip(sizes, sizes[1:], strict=False)]
    return sum(sizes), max(pairs, default=sizes[0])


@wrong("workspace_bytes", "forgets the width in the second number")
def _(shapes, width=2):
    sizes = [d * k for d, k in shapes]
    return width * sum(sizes), max(sizes)


@wrong("workspace_bytes", "largest d times largest k, though of different weights")
def _(shapes, width=2):
    total = sum(d * k for d, k in shapes) * width
    return total, max(d for d, _ in shapes) * max(k for _, k in shapes) * width


@wrong("workspace_bytes", "returns the two numbers in the other order")
def _(shapes, width=2):
    sizes = [width * math.prod(shape) for shape in shapes]
    return max(sizes), sum(sizes)


@right("workspace_bytes", "sorts the sizes and takes the last")
def _(shapes, width=2):
    sizes = sorted(math.prod(shape) for shape in shapes)
    return width * sum(sizes), width * sizes[-1]


@right("workspace_bytes", "nbytes of tensors on the meta device")
def _(shapes, width=2):
    sizes = [torch.empty(d, k, width, dtype=torch.uint8, device="meta").nbytes for d, k in shapes]
    return sum(sizes), max(sizes)


@right("workspace_bytes", "recursion over the list")
def _(shapes, width=2):
    def walk(rest, kept, most):
        if not rest:
            return kept, most
        size = rest[0][0] * rest[0][1] * width
        return walk(rest[1:], kept + size, max(most, size))
    return walk(list(shapes), 0, 0)


# page_out


@wrong("page_out", "a negative room makes more leave than there is")
def _(resident, room, page):
    excess = max(0, resident - room)
    return -(-excess // page) * page


@wrong("page_out", "no zero where all fits: a negative number of bytes leaves")
def _(resident, room, page):
    return min(resident, math.ceil((resident - room) / page) * page)


@wrong("page_out", "one page too many where the excess is a whole number of pages")
def _(resident, room, page):
    excess = resident - max(room, 0)
    return min(resident, (excess // page + 1) * page) if excess > 0 else 0


@wrong("page_out", "takes the negative room's absolute value")
def _(resident, room, page):
    excess = max(0, resident - abs(room))
    return math.ceil(excess / page) * page


@wrong("page_out", "room 0 counts as not given: nothing leaves")
def _(resident, room, page):
    if not room or room >= resident:
        return 0
    return min(resident, math.ceil((resident - room) / page) * page)


@wrong("page_out", "rounds up by a bit mask: right for pages of powers of two only")
def _(resident, room, page):
    excess = max(0, resident - max(0, room))
    return (excess + page - 1) & ~(page - 1)


@wrong("page_out", "returns the bytes that stay")
def _(resident, room, page):
    return min(resident, max(room, 0) // page * page)


@wrong("page_out", "all or nothing: everything leaves as soon as something must")
def _(resident, room, page):
    return 0 if resident <= room else resident


@right("page_out", "how many whole pages fit into the room; the others leave")
def _(resident, room, page):
    stay = min(resident // page, max(room, 0) // page)
    return resident - stay * page


@right("page_out", "throws out pages one by one in a loop")
def _(resident, room, page):
    left = resident
    while left > 0 and left > room:
        left -= page
    return resident - left


@right("page_out", "divmod and a truth value for the page begun")
def _(resident, room, page):
    pages, rest = divmod(sorted((0, resident - room, resident))[1], page)
    return (pages + (rest > 0)) * page


# double_dequant


@wrong("double_dequant", "multiplies the offset by c1 as well")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = c1 * (scale_levels[scale_codes.long()] + offset)
    return levels[codes.long()] * scales[:, None]


@wrong("double_dequant", "subtracts the offset once more instead of adding it")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = c1 * scale_levels[scale_codes.long()] - offset
    return levels[codes.long()] * scales[:, None]


@wrong("double_dequant", "adds the offset to the weights, not to the scales")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = c1 * scale_levels[scale_codes.long()]
    return levels[codes.long()] * scales[:, None] + offset


@wrong("double_dequant", "scales along the columns: fails unless blocks equals block_size")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = scale_levels[scale_codes.long()] * c1 + offset
    return levels[codes.long()] * scales


@wrong("double_dequant", "rounds the scales to bfloat16 before the second step")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = (c1 * scale_levels[scale_codes.long()] + offset).bfloat16().float()
    return levels[codes.long()] * scales[:, None]


@wrong("double_dequant", "repeats the scales as a whole: every block gets a mixture of scales")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = c1 * scale_levels[scale_codes.long()] + offset
    return levels[codes.long()] * scales.repeat(codes.shape[1]).view(codes.shape)


@wrong("double_dequant", "uses the scales' codes as numbers, not as indices into scale_levels")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = c1 * scale_codes.float() + offset
    return levels[codes.long()] * scales.unsqueeze(1)


@wrong("double_dequant", "gives every block the first block's scale")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scale = c1 * scale_levels[scale_codes[0].long()] + offset
    return levels[codes.long()] * scale  # right for one block


@right("double_dequant", "index_select and einsum")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = torch.addcmul(offset, c1, scale_levels.index_select(0, scale_codes.int()))
    values = levels.index_select(0, codes.flatten().int()).view(codes.shape)
    return torch.einsum("bs,b->bs", values, scales)


@right("double_dequant", "one-hot vectors times the tables, in float64")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    scales = F.one_hot(scale_codes.long(), len(scale_levels)).double() @ scale_levels.double() * c1 + offset
    values = F.one_hot(codes.long(), len(levels)).double() @ levels.double()
    return (values.T * scales).T.to(levels.dtype)


@right("double_dequant", "numpy, which takes uint8 as an index, and a loop over blocks")
def _(codes, levels, scale_codes, scale_levels, c1, offset):
    table, rows = levels.numpy(), []
    for row, code in zip(codes.numpy(), scale_codes.tolist(), strict=True):
        rows.append(table[row] * (scale_levels[code].item() * c1.item() + offset.item()))
    return torch.from_numpy(np.stack(rows)).to(levels.dtype)


# train_step


@wrong("train_step", "detaches every layer's input: only the last layer learns")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y.detach().requires_grad_(), use_reentrant=True)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]  # right for one layer


@wrong("train_step", "reads the runs before the backward pass")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=False)
    runs = [layer.runs for layer in layers]
    y.sum().backward()
    return [(layer.b.grad, count) for layer, count in zip(layers, runs, strict=True)]


@wrong("train_step", "loss is the mean of y, not the sum")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=False)
    y.mean().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("train_step", "first layer without checkpoint, so that it runs once only")
def _(layers, x):
    y = layers[0](x)
    for layer in layers[1:]:
        y = checkpoint(layer, y, use_reentrant=True)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("train_step", "checkpoint_sequential, which leaves the last segment without checkpoint")
def _(layers, x):
    y = checkpoint_sequential(list(layers), len(layers), x, use_reentrant=False)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("train_step", "lambda over the loop variable: recomputation runs the last layer for all")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(lambda t: layer(t), y, use_reentrant=False)  # noqa: B023 - this is the slip
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("train_step", "makes all weights trainable, not the input: still no gradient arrives")
def _(layers, x):
    y = x
    for layer in layers:
        layer.requires_grad_(True)
        y = checkpoint(layer, y, use_reentrant=True)
    y.sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("train_step", "returns the gradients alone, without the runs")
def _(layers, x):
    y = x.detach().requires_grad_()
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=True)
    y.sum().backward()
    return [layer.b.grad for layer in layers]


@right("train_step", "all layers in one checkpoint, on a copy of x that wants a gradient")
def _(layers, x):
    def run(t):
        return functools.reduce(lambda value, layer: layer(value), layers, t)
    checkpoint(run, x.clone().requires_grad_(), use_reentrant=True).sum().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@right("train_step", "a dummy input that wants a gradient carries reentrant checkpoints")
def _(layers, x):
    def run(layer, t, dummy):
        return layer(t)
    y, dummy = x, torch.zeros(1, requires_grad=True)
    for layer in layers:
        y = checkpoint(functools.partial(run, layer), y, dummy, use_reentrant=True)
    y.backward(torch.ones_like(y))
    return [(layer.b.grad, layer.runs) for layer in layers]


@right("train_step", "asks autograd.grad for the gradients of the b's, without backward()")
def _(layers, x):
    y = x.detach().requires_grad_()
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=False)
    gradients = torch.autograd.grad(y.sum(), [layer.b for layer in layers])
    return list(zip(gradients, [layer.runs for layer in layers], strict=True))


# qlora_gradients


@wrong("qlora_gradients", "leaves the branch out of x's gradient")
def _(g, x, W, A, B, scaling):
    gB = g @ B
    return g @ W, scaling * gB.T @ x, scaling * g.T @ (x @ A.T)  # x's is right where B is zero


@wrong("qlora_gradients", "scales the frozen part of x's gradient too")
def _(g, x, W, A, B, scaling):
    gB = scaling * g @ B
    return scaling * g @ W + gB @ A, gB.T @ x, scaling * g.T @ (x @ A.T)


@wrong("qlora_gradients", "adds the branch to W in place for x's gradient: W is changed")
def _(g, x, W, A, B, scaling):
    W += scaling * B @ A
    return g @ W, scaling * (g @ B).T @ x, scaling * g.T @ (x @ A.T)


@wrong("qlora_gradients", "ignores the argument scaling and takes 1 / r")
def _(g, x, W, A, B, scaling):
    scaling = 1 / len(A)
    gB = scaling * g @ B
    return g @ W + gB @ A, gB.T @ x, scaling * g.T @ (x @ A.T)


@wrong("qlora_gradients", "computes in bfloat16, with its rounding errors")
def _(g, x, W, A, B, scaling):
    g16, x16, W16, A16, B16 = (t.bfloat16() for t in (g, x, W, A, B))
    gB = scaling * g16 @ B16
    return (g16 @ W16 + gB @ A16).float(), (gB.T @ x16).float(), (scaling * g16.T @ (x16 @ A16.T)).float()


@wrong("qlora_gradients", "divides the gradients of A and B by the number of rows")
def _(g, x, W, A, B, scaling):
    gB = scaling * g @ B
    return g @ W + gB @ A, gB.T @ x / len(x), scaling * g.T @ (x @ A.T) / len(x)


@wrong("qlora_gradients", "multiplies g by W transposed: fails unless W is square")
def _(g, x, W, A, B, scaling):
    gB = scaling * g @ B
    return g @ W.T + gB @ A, gB.T @ x, scaling * g.T @ (x @ A.T)


@wrong("qlora_gradients", "forgets the scaling in B's gradient alone")
def _(g, x, W, A, B, scaling):
    gB = scaling * g @ B
    return g @ W + gB @ A, gB.T @ x, g.T @ (x @ A.T)  # right for scaling 1


@right("qlora_gradients", "x's gradient through the merged weight, A's and B's by einsum")
def _(g, x, W, A, B, scaling):
    return (g @ (W + scaling * B @ A),
            torch.einsum("nd,dr,nk->rk", g, B, x).mul(scaling),
            torch.einsum("nd,nk,rk->dr", g, x, A).mul(scaling))


@right("qlora_gradients", "row by row with outer products, in float64")
def _(g, x, W, A, B, scaling):
    g64, x64, W64, A64, B64 = (t.double() for t in (g, x, W, A, B))
    grad_x, grad_a, grad_b = [], torch.zeros_like(A64), torch.zeros_like(B64)
    for above, row in zip(g64, x64, strict=True):
        back = scaling * B64.T @ above
        grad_x.append(W64.T @ above + A64.T @ back)
        grad_a += torch.outer(back, row)
        grad_b += scaling * torch.outer(above, A64 @ row)
    return torch.stack(grad_x).to(x.dtype), grad_a.to(A.dtype), grad_b.to(B.dtype)


@right("qlora_gradients", "A's and B's gradients from that of the whole weight, g.T @ x")
def _(g, x, W, A, B, scaling):
    whole = scaling * (g.T @ x)
    return torch.addmm(g @ W, g @ B, A, alpha=scaling), B.T @ whole, whole @ A.T
