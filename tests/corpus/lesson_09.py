"""Answers to lesson 09's exercises that nobody registered, written from the prompts alone."""

import functools
import math

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from corpus import right, wrong

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


# frozen_product


@wrong("frozen_product", "no function of its own: torch keeps W, which is made once")
def _(x, weight, g):
    x = x.detach().requires_grad_()
    y = F.linear(x, weight.dequantize())
    y.backward(g)
    return y, x.grad, weight.made


@wrong("frozen_product", "saves W itself for the backward pass")
def _(x, weight, g):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, weight):
            W = weight.dequantize()
            ctx.save_for_backward(W)
            return x @ W.T

        @staticmethod
        def backward(ctx, gradient):
            W, = ctx.saved_tensors
            return gradient @ W, None

    x = x.detach().requires_grad_()
    y = Product.apply(x, weight)
    y.backward(g)
    return y, x.grad, weight.made


def _product(forward, backward, gradient_of):
    """An answer built of two halves."""
    def answer(x, weight, g):
        class Product(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, weight):
                ctx.weight = weight
                return forward(x, weight)

            @staticmethod
            def backward(ctx, gradient):
                return backward(ctx.weight, gradient), None

        x = x.detach().requires_grad_()
        y = Product.apply(x, weight)
        return y, gradient_of(y, x, g), weight.made
    return answer


@wrong("frozen_product", "backward multiplies by W transposed: an error unless W is square")
def _(x, weight, g):
    return _product(lambda x, w: x @ w.dequantize().T, lambda w, gradient: gradient @ w.dequantize().T,
                    lambda y, x, g: torch.autograd.grad(y, x, g)[0])(x, weight, g)


@wrong("frozen_product", "calls backward on y.sum(), and never uses g")
def _(x, weight, g):
    return _product(lambda x, w: x @ w.dequantize().T, lambda w, gradient: gradient @ w.dequantize(),
                    lambda y, x, g: torch.autograd.grad(y.sum(), x)[0])(x, weight, g)


@wrong("frozen_product", "multiplies by W in the forward pass too, where it must be transposed")
def _(x, weight, g):
    return _product(lambda x, w: x @ w.dequantize(), lambda w, gradient: gradient @ w.dequantize(),
                    lambda y, x, g: torch.autograd.grad(y, x, g)[0])(x, weight, g)


@wrong("frozen_product", "computes both by hand, without any autograd function")
def _(x, weight, g):
    y = x @ weight.dequantize().T
    return y, g @ weight.dequantize(), weight.made


@wrong("frozen_product", "straight through: hands the gradient on unchanged, as if W were the identity")
def _(x, weight, g):
    return _product(lambda x, w: x @ w.dequantize().T, lambda w, gradient: gradient,
                    lambda y, x, g: torch.autograd.grad(y, x, g)[0])(x, weight, g)


@wrong("frozen_product", "writes 2 where the count belongs, and keeps W")
def _(x, weight, g):
    x, W = x.detach().requires_grad_(), weight.dequantize()
    y = x @ W.T
    return y.detach(), torch.autograd.grad(y, x, g)[0], 2


@right("frozen_product", "checkpointing around the plain product: it too makes W twice")
def _(x, weight, g):
    x = x.detach().requires_grad_()
    y = checkpoint(lambda t: F.linear(t, weight.dequantize()), x, use_reentrant=False)
    gradient, = torch.autograd.grad(y, x, g)
    return y, gradient, weight.made


@right("frozen_product", "setup_context in its own method, y.backward(g)")
def _(x, weight, g):
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(x, weight):
            return F.linear(x, weight.dequantize())

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.weight = inputs[1]

        @staticmethod
        def backward(ctx, gradient):
            return torch.einsum("nd,dk->nk", gradient, ctx.weight.dequantize()), None

    x = x.clone().requires_grad_(True)
    y = Product.apply(x, weight)
    y.backward(g)
    return [y, x.grad, weight.made]


# nf4_linear


def _codes(packed):
    return torch.stack([packed >> 4, packed & 15], dim=-1).flatten().long()


@wrong("nf4_linear", "forgets the offset")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = scale_levels[c2.long()] * c1
    W = levels[_codes(packed)].view(len(c2), -1) * scales[:, None]
    return x @ W.view(-1, x.shape[1]).T


@wrong("nf4_linear", "reads the lower half of each byte first")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    codes = torch.stack([packed % 16, packed // 16], dim=1).flatten().long()
    scales = scale_levels[c2.long()] * c1 + offset
    W = levels[codes].view(len(c2), -1) * scales[:, None]
    return x @ W.view(-1, x.shape[1]).T


@wrong("nf4_linear", "takes each row of W for a block")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = scale_levels[c2.long()] * c1 + offset
    W = levels[_codes(packed)].view(-1, x.shape[1])
    return x @ (W * scales[:, None]).T  # right where a block is a row, else an error


@wrong("nf4_linear", "spreads the scales in turn over the weights, with repeat")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = scale_levels[c2.long()] * c1 + offset
    W = levels[_codes(packed)]
    W = W * scales.repeat(len(W) // len(scales))
    return x @ W.view(-1, x.shape[1]).T


@wrong("nf4_linear", "adds the offset to the finished weights")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = scale_levels[c2.long()] * c1
    W = levels[_codes(packed)].view(len(c2), -1) * scales[:, None] + offset
    return x @ W.view(-1, x.shape[1]).T


@wrong("nf4_linear", "gives W the shape (k, d), and so mixes rows and columns up")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = scale_levels[c2.long()] * c1 + offset
    W = levels[_codes(packed)].view(len(c2), -1) * scales[:, None]
    return x @ W.reshape(x.shape[1], -1)


@wrong("nf4_linear", "rounds the scales to bfloat16 on the way")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = (scale_levels[c2.long()] * c1 + offset).bfloat16().float()
    W = levels[_codes(packed)].view(len(c2), -1) * scales[:, None]
    return x @ W.view(-1, x.shape[1]).T


@wrong("nf4_linear", "takes the scales' codes as numbers, times c1")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    scales = c2.float() * c1 + offset
    W = levels[_codes(packed)].view(len(c2), -1) * scales[:, None]
    return x @ W.view(-1, x.shape[1]).T


@right("nf4_linear", "numpy's bytes in a loop, scales with repeat_interleave")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    codes = [code for byte in packed.tolist() for code in divmod(byte, 16)]
    scales = torch.stack([scale_levels[c] for c in c2.tolist()]).mul(c1).add(offset)
    W = levels[codes] * scales.repeat_interleave(len(codes) // len(scales))
    return F.linear(x, W.reshape(-1, x.size(1)))


@right("nf4_linear", "in float64, block by block")
def _(x, packed, levels, c2, scale_levels, c1, offset):
    blocks = _codes(packed).chunk(len(c2))
    parts = [levels.double()[block] * (scale_levels[int(c)].double() * c1.double() + offset.double())
             for block, c in zip(blocks, c2, strict=True)]
    W = torch.cat(parts).view(-1, x.shape[1])
    return torch.einsum("nk,dk->nd", x.double(), W).to(x.dtype)


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
