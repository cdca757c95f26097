"""Answers to lesson 05's exercises that nobody registered, written from the prompts alone."""

import math

import numpy as np
import torch

from corpus import right, wrong

# --- count_weights

@wrong("count_weights", "twice the elements, also where codes are stored in wider numbers")
def _(model):
    return sum(p.numel() * (2 if getattr(p, "quant_state", None) is not None else 1) for p in model.parameters())


@wrong("count_weights", "two per byte: an odd number of weights is rounded up")
def _(model):
    return sum(2 * p.numel() * p.element_size() if getattr(p, "quant_state", None) is not None else p.numel()
               for p in model.parameters())


@wrong("count_weights", "a shared tensor counts under each of its names")
def _(model):
    total = 0
    for _, p in model.named_parameters(remove_duplicate=False):
        state = getattr(p, "quant_state", None)
        total += p.numel() if state is None else math.prod(state.shape)
    return total


@wrong("count_weights", "only what is trained: 4-bit weights and frozen ones are left out")
def _(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@wrong("count_weights", "weights only: biases are left out")
def _(model):
    seen = {}
    for module in model.modules():
        if isinstance(getattr(module, "weight", None), torch.nn.Parameter):
            state = getattr(module.weight, "quant_state", None)
            seen[id(module.weight)] = module.weight.numel() if state is None else math.prod(state.shape)
    return sum(seen.values())


@wrong("count_weights", "buffers are counted with the parameters")
def _(model):
    states = [(p, getattr(p, "quant_state", None)) for p in model.parameters()]
    total = sum(p.numel() if s is None else math.prod(s.shape) for p, s in states)
    return total + sum(b.numel() for b in model.buffers())


@wrong("count_weights", "rows times columns of quant_state.shape: wrong unless it has two dimensions")
def _(model):
    total = 0
    for p in model.parameters():
        state = getattr(p, "quant_state", None)
        total += p.numel() if state is None else state.shape[0] * state.shape[-1]
    return total


@wrong("count_weights", "parameters told apart by data_ptr: on the meta device all are one")
def _(model):
    sizes = {}
    for p in model.parameters():
        state = getattr(p, "quant_state", None)
        sizes[p.data_ptr()] = p.numel() if state is None else math.prod(state.shape)
    return sum(sizes.values())


def _walk(module, seen):
    own = [p for p in module._parameters.values() if p is not None and id(p) not in seen]
    total = 0
    for p in own:
        if id(p) not in seen:
            seen.add(id(p))
            state = getattr(p, "quant_state", None)
            total += torch.Size(p.shape if state is None else state.shape).numel()
    return total + sum(_walk(child, seen) for child in module.children())


@right("count_weights", "recursion over the children with a set of ids")
def _(model):
    return _walk(model, set())


@right("count_weights", "a dictionary from id to size over all names")
def _(model):
    unique = {id(p): p for _, p in model.named_parameters(remove_duplicate=False)}
    shapes = [(getattr(p, "quant_state", None) or p).shape for p in unique.values()]
    return int(sum(np.prod(tuple(shape), dtype=np.int64) for shape in shapes))


@right("count_weights", "elements first, then what packing hid is added")
def _(model):
    parameters = list(model.parameters())
    packed = [p for p in parameters if getattr(p, "quant_state", None) is not None]
    return sum(p.numel() for p in parameters) + sum(math.prod(p.quant_state.shape) - p.numel() for p in packed)


# --- hidden_bytes

@wrong("hidden_bytes", "counts elements instead of bytes")
def _(weight):
    s = weight.quant_state
    tensors = [s.absmax, s.code] + ([s.offset, s.state2.absmax, s.state2.code] if s.nested else [])
    return sum(t.numel() for t in tensors)


@wrong("hidden_bytes", "forgets the offset")
def _(weight):
    s = weight.quant_state
    tensors = [s.absmax, s.code] + ([s.state2.absmax, s.state2.code] if s.nested else [])
    return sum(t.nbytes for t in tensors)


@wrong("hidden_bytes", "forgets the second codebook, state2.code")
def _(weight):
    s = weight.quant_state
    tensors = [s.absmax, s.code] + ([s.offset, s.state2.absmax] if s.nested else [])
    return sum(t.nbytes for t in tensors)


@wrong("hidden_bytes", "four bytes for every element of absmax, though nested ones take one")
def _(weight):
    s = weight.quant_state
    tensors = [s.absmax, s.code] + ([s.offset, s.state2.absmax, s.state2.code] if s.nested else [])
    return sum(4 * t.numel() for t in tensors)


@wrong("hidden_bytes", "tensors of the outer state only: state2 is not looked into")
def _(weight):
    return sum(value.nbytes for value in vars(weight.quant_state).values() if isinstance(value, torch.Tensor))


@wrong("hidden_bytes", "the codes of the weight are counted too")
def _(weight):
    s = weight.quant_state
    tensors = [weight, s.absmax, s.code] + ([s.offset, s.state2.absmax, s.state2.code] if s.nested else [])
    return sum(t.nbytes for t in tensors)


@wrong("hidden_bytes", "the packed form of a checkpoint, with its JSON, instead of the state in memory")
def _(weight):
    return sum(value.nbytes for value in weight.quant_state.as_dict(packed=True).values())


@wrong("hidden_bytes", "always looks into state2: raises without double quantization")
def _(weight):
    s = weight.quant_state
    return s.absmax.nbytes + s.code.nbytes + s.offset.nbytes + s.state2.absmax.nbytes + s.state2.code.nbytes


def _tensors(state):
    for value in vars(state).values():
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, type(state)):
            yield from _tensors(value)


@right("hidden_bytes", "a generator that goes down into every nested state")
def _(weight):
    return sum(t.numel() * t.element_size() for t in _tensors(weight.quant_state))


@right("hidden_bytes", "the length of the raw bytes of every tensor")
def _(weight):
    s = weight.quant_state
    tensors = [s.absmax, s.code]
    if s.nested:
        tensors += [s.offset, s.state2.absmax, s.state2.code]
    return sum(len(t.reshape(-1).numpy().tobytes()) for t in tensors)


@right("hidden_bytes", "walks along state2 until there is none")
def _(weight):
    total, state = 0, weight.quant_state
    while state is not None:
        for name in ("absmax", "code", "offset"):
            tensor = getattr(state, name, None)
            total += 0 if tensor is None else tensor.nbytes
        state = state.state2
    return total


# --- double_dequantize

def _nested(codes, nested_absmax):
    return nested_absmax.repeat_interleave(256)[:len(codes)]


@wrong("double_dequantize", "adds the offset before the nested absmax is multiplied in")
def _(values, codes, nested_absmax, offset, levels):
    absmax = (levels[codes.long()] + offset) * _nested(codes, nested_absmax)
    return values * absmax[:, None]


@wrong("double_dequantize", "adds the offset to the weights instead of the scales")
def _(values, codes, nested_absmax, offset, levels):
    absmax = levels[codes.long()] * _nested(codes, nested_absmax)
    return values * absmax[:, None] + offset


@wrong("double_dequantize", "tiles the nested absmax instead of repeating each 256 times")
def _(values, codes, nested_absmax, offset, levels):
    absmax = levels[codes.long()] * nested_absmax.repeat(256)[:len(codes)] + offset
    return values * absmax[:, None]


@wrong("double_dequantize", "views whole nested blocks: raises unless blocks divide by 256")
def _(values, codes, nested_absmax, offset, levels):
    absmax = (levels[codes.long()].view(-1, 256) * nested_absmax[:, None]).flatten() + offset
    return values * absmax[:, None]


@wrong("double_dequantize", "the first nested absmax for all scales")  # right up to 256 blocks
def _(values, codes, nested_absmax, offset, levels):
    absmax = levels[codes.long()] * nested_absmax[0] + offset
    return values * absmax[:, None]


@wrong("double_dequantize", "subtracts the offset once more instead of adding it back")
def _(values, codes, nested_absmax, offset, levels):
    absmax = levels[codes.long()] * _nested(codes, nested_absmax) - offset
    return values * absmax[:, None]


@wrong("double_dequantize", "codes decoded as evenly spaced numbers, not by the levels")
def _(values, codes, nested_absmax, offset, levels):
    absmax = (codes.float() - 127) / 128 * _nested(codes, nested_absmax) + offset
    return values * absmax[:, None]


@wrong("double_dequantize", "nested blocks of 64 scales instead of 256")
def _(values, codes, nested_absmax, offset, levels):
    index = (torch.arange(len(codes)) // 64).clamp(max=len(nested_absmax) - 1)
    absmax = levels[codes.long()] * nested_absmax[index] + offset
    return values * absmax[:, None]


@right("double_dequantize", "signed codes: the negative ones index the levels from the end")
def _(values, codes, nested_absmax, offset, levels):
    which = torch.arange(len(codes)) // 256
    absmax = torch.addcmul(offset, levels[codes.view(torch.int8).long()], nested_absmax[which])
    return torch.einsum("bi,b->bi", values, absmax)


@right("double_dequantize", "one nested block at a time, joined at the end")
def _(values, codes, nested_absmax, offset, levels):
    out = []
    for v, c, a in zip(values.split(256), codes.split(256), nested_absmax, strict=True):
        out.append((levels.take(c.long()) * a + offset).unsqueeze(1) * v)
    return torch.cat(out)


@right("double_dequantize", "float64 inside; the product multiplied out")
def _(values, codes, nested_absmax, offset, levels):
    scale = levels.double()[codes.int()] * nested_absmax.double().repeat_interleave(256)[:codes.numel()]
    v = values.double()
    return (v * scale[:, None] + v * offset.double()).float()


# --- quantize_scales

def _nearest(blocks, absmax, levels):
    return torch.bucketize(blocks / absmax[:, None], (levels[1:] + levels[:-1]) / 2)


def _blocks(flat):
    return torch.nn.functional.pad(flat, (0, -len(flat) % 256)).view(-1, 256)


@wrong("quantize_scales", "subtracts the mean of each block instead of the mean of all scales")
def _(absmax, levels):
    centred = torch.cat([part - part.mean() for part in absmax.split(256)])
    blocks = _blocks(centred)
    nested = blocks.abs().amax(dim=1)
    return _nearest(blocks, nested, levels).flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "takes the mean after padding, so the zeros pull it down")
def _(absmax, levels):
    mean = _blocks(absmax).mean()
    blocks = _blocks(absmax - mean)
    nested = blocks.abs().amax(dim=1)
    return _nearest(blocks, nested, levels).flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "pads before the mean is subtracted: padding becomes -mean and sets the absmax")
def _(absmax, levels):
    blocks = _blocks(absmax) - absmax.mean()
    nested = blocks.abs().amax(dim=1)
    return _nearest(blocks, nested, levels).flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "nested absmax without abs: the largest value")
def _(absmax, levels):
    blocks = _blocks(absmax - absmax.mean())
    nested = blocks.amax(dim=1)
    return _nearest(blocks, nested, levels).flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "returns the padding's codes too: a multiple of 256")
def _(absmax, levels):
    blocks = _blocks(absmax - absmax.mean())
    nested = blocks.abs().amax(dim=1)
    return _nearest(blocks, nested, levels).flatten().to(torch.uint8), nested


@wrong("quantize_scales", "one absmax over all scales, repeated for every block")
def _(absmax, levels):
    blocks = _blocks(absmax - absmax.mean())
    nested = blocks.abs().max().expand(len(blocks)).clone()
    return _nearest(blocks, nested, levels).flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "nested absmax keeps its dimension: (blocks, 1)")
def _(absmax, levels):
    blocks = _blocks(absmax - absmax.mean())
    nested = blocks.abs().amax(dim=1, keepdim=True)
    return _nearest(blocks, nested[:, 0], levels).flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "compares with the levels themselves, not with midpoints: the level above")
def _(absmax, levels):
    blocks = _blocks(absmax - absmax.mean())
    nested = blocks.abs().amax(dim=1)
    codes = torch.bucketize(blocks / nested[:, None], levels).clamp(max=len(levels) - 1)
    return codes.flatten()[:len(absmax)].to(torch.uint8), nested


@right("quantize_scales", "no padding at all: a loop over split(256) with argmin")
def _(absmax, levels):
    centred, codes, nested = absmax - absmax.mean(), [], []
    for part in centred.split(256):
        nested.append(part.abs().max())
        codes.append((part[:, None] / nested[-1] - levels).abs().argmin(dim=1).to(torch.uint8))
    return torch.cat(codes), torch.stack(nested)


@right("quantize_scales", "numpy, with searchsorted over the midpoints")
def _(absmax, levels):
    x, table = (absmax - absmax.mean()).numpy(), levels.numpy()
    nested = np.maximum.reduceat(np.abs(x), np.arange(0, len(x), 256))
    codes = np.searchsorted((table[1:] + table[:-1]) / 2, x / np.repeat(nested, 256)[:len(x)])
    return torch.from_numpy(codes.astype(np.uint8)), torch.from_numpy(nested)


@right("quantize_scales", "float64 inside, absmax by aminmax, zeros put into a new tensor")
def _(absmax, levels):
    blocks = torch.zeros(-(-len(absmax) // 256), 256, dtype=torch.float64)
    blocks.view(-1)[:len(absmax)] = absmax.double() - absmax.double().mean()
    low, high = torch.aminmax(blocks, dim=1)
    nested = torch.maximum(-low, high)
    middles = (levels.double()[1:] + levels.double()[:-1]) / 2
    codes = (blocks / nested[:, None]).flatten()[:len(absmax)].unsqueeze(1) > middles
    return codes.sum(dim=1).byte(), nested.float()


# --- nested_bits

@wrong("nested_bits", "every scale is shared by the weights of its own block alone")
def _(bits, blocks):
    return bits[0] + sum(b / n for b, n in zip(bits[1:], blocks, strict=True))


@wrong("nested_bits", "the codes are left out")
def _(bits, blocks):
    shared = 1
    total = 0.0
    for b, n in zip(bits[1:], blocks, strict=True):
        shared *= n
        total += b / shared
    return total


@wrong("nested_bits", "takes 32 bits for every scale, whatever bits says")
def _(bits, blocks):
    total, shared = bits[0], 1
    for n in blocks:
        shared *= n
        total += 32 / shared
    return float(total)


@wrong("nested_bits", "divides every stage by one block too many: the codes by the first block already")
def _(bits, blocks):
    total, shared = 0.0, 1
    for b, n in zip(bits, (*blocks, 1), strict=True):
        shared *= n
        total += b / shared
    return total


@wrong("nested_bits", "divides by all blocks at every stage")
def _(bits, blocks):
    shared = 1
    for n in blocks:
        shared *= n
    return bits[0] + sum(b / shared for b in bits[1:])


@wrong("nested_bits", "rounds to two places")
def _(bits, blocks):
    total, shared = 0.0, 1
    for b, n in zip(bits, (1, *blocks), strict=True):
        shared *= n
        total += b / shared
    return round(total, 2)


@right("nested_bits", "from the inside out, by recursion")
def _(bits, blocks):
    def inner(stage):
        return bits[stage] + (inner(stage + 1) / blocks[stage] if stage < len(blocks) else 0)
    return float(inner(0))


@right("nested_bits", "counts the bits of a group of all blocks")
def _(bits, blocks):
    weights = math.prod(blocks)
    total = sum(b * math.prod(blocks[stage:]) for stage, b in enumerate(bits))
    return total / weights
