"""Two more wrong answers for each exercise, written from the prompts alone."""

from __future__ import annotations

import json
import math
import re

import torch
from torch.nn.functional import cross_entropy, gelu, pad
from torch.utils.checkpoint import checkpoint

from corpus import wrong
from helpers.codebooks import NF4, integer
from helpers.quantization import quantize

# lesson 00


@wrong("model_bytes", "rounds to the nearest byte, so that a begun byte of less than half is not counted")
def _(parameters, bits):
    return round(parameters * bits / 8)


@wrong("model_bytes", "adds the 7 that is to round up to the bits of each number, instead of to all bits together")
def _(parameters, bits):
    return parameters * (bits + 7) // 8


# lesson 01


@wrong("decode_e4m3", "returns from the branch of the subnormals before the sign is applied")
def _(text):
    sign, exponent, mantissa = text[0], int(text[1:5], 2), int(text[5:], 2)
    if text[1:] == "1111111":
        return math.nan
    if exponent == 0:
        return mantissa / 8 * 2**-6
    value = (1 + mantissa / 8) * 2 ** (exponent - 7)
    return -value if sign == "1" else value


@wrong("decode_e4m3", "knows only the positive NaN: with the sign bit set, the pattern becomes -480")
def _(text):
    if int(text, 2) == 127:
        return math.nan
    sign = -1 if text[0] == "1" else 1
    exponent, mantissa = int(text[1:5], 2), int(text[5:], 2)
    if exponent == 0:
        return sign * mantissa / 8 * 2**-6
    return sign * (1 + mantissa / 8) * 2 ** (exponent - 7)


@wrong("first_lost_integer", "returns the largest integer that fits into the digits, as if that were the first lost")
def _(fmt):
    return 2 ** (fmt.mantissa_bits + 1) - 1


@wrong("first_lost_integer", "counts the sign bit as one more digit beside the leading one")
def _(fmt):
    return 2 ** (fmt.mantissa_bits + 2) + 1


@wrong("safe_mean", "divides by the count in sixteen bits, and only then goes over to float32 for the sum")
def _(x):
    return (x / len(x)).float().sum().to(x.dtype)


@wrong("safe_mean", "gives back bf16 whatever the dtype of x is")
def _(x):
    return x.float().mean().to(torch.bfloat16)


@wrong("bf16_bits", "takes the lowest bit of the float32 for even or odd, not the lowest bit that stays")
def _(x):
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + (bits & 1)) >> 16
    return torch.where(x.isnan(), bits >> 16 | 0x40, rounded)


@wrong("bf16_bits", "takes every pattern with an exponent of all ones for NaN, infinity too")
def _(x):
    bits = x.view(torch.int32).long() & 0xFFFFFFFF
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    special = (bits & 0x7F800000) == 0x7F800000
    return torch.where(special, bits >> 16 | 0x40, rounded)


# lesson 02


@wrong("zeropoint_values", "reads the codes as uint8, so that negative ones become 128 to 255")
def _(codes, scale, zero_point):
    return (codes.to(torch.uint8).float() - zero_point) * scale


@wrong("zeropoint_values", "clamps the difference to the range of int8 instead of letting it be wider")
def _(codes, scale, zero_point):
    return (codes.float() - zero_point).clamp(-128, 127) * scale


@wrong("calibrated_codes", "clamps to -128 and 127 before 128 is taken off, and again not after it")
def _(x, low, high):
    step = (high - low) / 255
    return (((x - low) / step).round().clamp(-128, 127) - 128).to(torch.int8)


@wrong("calibrated_codes", "holds what lies above the range, and forgets what lies below it")
def _(x, low, high):
    step = (high - low) / 255
    return ((torch.minimum(x, high) - low) / step - 128).round().to(torch.int32).to(torch.int8)


@wrong("int8_linear", "adds up in int16, which holds only two products of large codes")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.short() @ w_codes.short().T).float() * (x_scale * w_scale)


@wrong("int8_linear", "saturates the sums at -128 and 127 before it scales them")
def _(x_codes, x_scale, w_codes, w_scale):
    return (x_codes.int() @ w_codes.int().T).clamp(-128, 127).float() * (x_scale * w_scale)


@wrong("shifted_product", "keeps the sum of the weights' codes in int8, where it wraps around")
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.sum(dim=1, dtype=torch.int8).long()


@wrong("shifted_product", "takes the zero point off once for each of the k products, without its weight")
def _(raw, zero_point, w_codes):
    return raw - zero_point * w_codes.shape[1]


# lesson 03


@wrong("read_nibbles", "masks the high nibble and does not shift it down: 16 times too large")
def _(packed, count):
    return torch.stack([packed & 0xF0, packed & 0x0F], dim=1).flatten()[:count]


@wrong("read_nibbles", "reads count // 2 bytes, so that the last code of an odd count is lost")
def _(packed, count):
    used = packed[:count // 2]
    return torch.stack([used >> 4, used & 15], dim=1).flatten()


@wrong("scale_index", "divides the start of the row and the column by the block size separately, and loses both rests")
def _(row, column, columns, block_size):
    return row * columns // block_size + column // block_size


@wrong("scale_index", "counts the weights from 1, so that the last one of each block gets the next block's scale")
def _(row, column, columns, block_size):
    return (row * columns + column + 1) // block_size


@wrong("through_int4", "does not let a scale fall below 1e-5, against 0/0: blocks of tiny values come back too coarse")
def _(x, block_size):
    flat = x.flatten()
    blocks = pad(flat, (0, -len(flat) % block_size)).view(-1, block_size)
    scale = (blocks.abs().amax(dim=1, keepdim=True) / 7).clamp(min=1e-5)
    return ((blocks / scale).round() * scale).flatten()[:len(flat)].view(x.shape)


@wrong("through_int4", "quantizes the full blocks only, and gives the short last one back as it was")
def _(x, block_size):
    out = x.flatten().clone()
    full = len(out) // block_size * block_size
    blocks = out[:full].view(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    scale = torch.where(scale > 0, scale, 1)
    out[:full] = ((blocks / scale).round() * scale).flatten()
    return out.view(x.shape)


@wrong("protect_weights", "zeroes the outliers in a view of w, and then restores them from w, where they are zero now")
def _(w, k, block_size):
    flat = w.flatten()
    kept = flat.abs().topk(k).indices
    flat[kept] = 0
    out = quantize(flat, integer(4), block_size).dequantize()
    out[kept] = w.flatten()[kept]
    return out.view(w.shape)


@wrong("protect_weights", "keeps the k weights that int4 spoils most, instead of the k largest ones")
def _(w, k, block_size):
    flat = w.flatten()
    kept = (quantize(flat, integer(4), block_size).dequantize() - flat).abs().topk(k).indices
    rest = flat.clone()
    rest[kept] = 0
    out = quantize(rest, integer(4), block_size).dequantize()
    out[kept] = flat[kept]
    return out.view(w.shape)


# lesson 04


@wrong("nf4_code", "lets no code be above 15, as if there were always sixteen levels")
def _(x, levels):
    return torch.bucketize(x, (levels[1:] + levels[:-1]) / 2).clamp(max=15)


@wrong("nf4_code", "looks for the least difference without taking its absolute value")
def _(x, levels):
    return (x[:, None] - levels[None, :]).argmin(dim=1)


@wrong("nf4_round_trip", "scales by the largest value with its sign: where that is negative, the block is flipped")
def _(block):
    largest = block.flatten()[block.abs().argmax()]
    scaled = block / largest if largest != 0 else block
    codes = torch.bucketize(scaled, (NF4[1:] + NF4[:-1]) / 2)
    return codes, NF4[codes] * largest


@wrong("nf4_round_trip", "scales only blocks that reach beyond 1, and leaves smaller ones unscaled")
def _(block):
    scale = block.abs().max().clamp(min=1)
    codes = torch.bucketize(block / scale, (NF4[1:] + NF4[:-1]) / 2)
    return codes, NF4[codes] * scale


@wrong("unpack_nf4", "counts bytes instead of weights along the blocks, so that each scale lasts for two blocks")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    block = torch.arange(len(packed)).repeat_interleave(2) // block_size
    return NF4[codes.int()] * absmax[block]


@wrong("unpack_nf4", "spreads the scales evenly over the weights, as if the last block were as long as the others")
def _(packed, absmax, block_size):
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    block = torch.arange(len(codes)) * len(absmax) // len(codes)
    return NF4[codes.int()] * absmax[block]


@wrong("normal_levels", "takes even steps between the quantiles themselves, not between the probabilities")
def _(bits):
    n, half = 2**bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2
    end = torch.special.ndtri(torch.tensor(offset, dtype=torch.float64)).item()
    up = torch.linspace(0, end, half + 1, dtype=torch.float64)
    down = torch.linspace(-end, 0, half, dtype=torch.float64)[:-1]
    levels = torch.cat([down, up])
    return levels / levels.max()


@wrong("normal_levels", "takes the number of levels of one half for n in the offset")
def _(bits):
    half = n = 2 ** (bits - 1)
    offset = 1 - (1 / (2 * n) + 1 / (2 * (n - 1))) / 2
    up = torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))
    down = -torch.special.ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64)).flip(0)[:-1]
    levels = torch.cat([down, up])
    return levels / levels.max()


# lesson 05


@wrong("count_weights", "counts only parameters that are trained")
def _(model):
    total = 0
    for parameter in model.parameters():
        if parameter.requires_grad:
            state = getattr(parameter, "quant_state", None)
            total += parameter.numel() if state is None else state.shape.numel()
    return total


@wrong("count_weights", "counts scales times block size, so that a short last block counts as a whole one")
def _(model):
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else state.absmax.numel() * state.blocksize
    return total


@wrong("hidden_bytes", "takes four bytes for every number, also for the one-byte codes of the scales")
def _(weight):
    state = weight.quant_state
    tensors = [state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sum(4 * tensor.numel() for tensor in tensors)


@wrong("hidden_bytes", "counts the second state in place of the first, not besides it")
def _(weight):
    state, total = weight.quant_state, 0
    if state.nested:
        total, state = state.offset.nbytes, state.state2
    return total + state.absmax.nbytes + state.code.nbytes


@wrong("double_dequantize", "shares the nested scales out evenly over the codes, instead of one for each 256")
def _(values, codes, nested_absmax, offset, levels):
    each = math.ceil(len(codes) / len(nested_absmax))
    absmax = levels[codes.long()] * nested_absmax.repeat_interleave(each)[:len(codes)] + offset
    return values * absmax[:, None]


@wrong("double_dequantize", "adds the mean to the weights at the end, instead of to the scales")
def _(values, codes, nested_absmax, offset, levels):
    absmax = levels[codes.long()] * nested_absmax.repeat_interleave(256)[:len(codes)]
    return values * absmax[:, None] + offset


@wrong("quantize_scales", "pads before the mean is taken away, so that the padding becomes minus the mean")
def _(absmax, levels):
    blocks = (pad(absmax, (0, -len(absmax) % 256)) - absmax.mean()).view(-1, 256)
    nested = blocks.abs().amax(dim=1)
    scaled = blocks / torch.where(nested > 0, nested, 1)[:, None]
    codes = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    return codes.flatten()[:len(absmax)].to(torch.uint8), nested


@wrong("quantize_scales", "takes the nested absmax of the scales as they were, before the mean was taken away")
def _(absmax, levels):
    short = -len(absmax) % 256
    nested = pad(absmax, (0, short)).view(-1, 256).abs().amax(dim=1)
    blocks = pad(absmax - absmax.mean(), (0, short)).view(-1, 256)
    codes = torch.bucketize(blocks / nested[:, None], (levels[1:] + levels[:-1]) / 2)
    return codes.flatten()[:len(absmax)].to(torch.uint8), nested


# lesson 06


@wrong("moves_first", "takes a matrix for zero whose entries add up to zero")
def _(A, B):
    return ("A" if B.sum() != 0 else "") + ("B" if A.sum() != 0 else "")


@wrong("moves_first", "looks whether the product BA is zero, so that with one zero matrix neither moves")
def _(A, B):
    return "AB" if (B @ A).any() else ""


@wrong("forward_with_dropout", "drops entries of A, instead of values of the input")
def _(x, W, A, B, scaling, drop):
    return x @ W.T + scaling * x @ drop(A).T @ B.T


@wrong("forward_with_dropout", "puts the scaling in front of both parts, so that it scales the frozen layer too")
def _(x, W, A, B, scaling, drop):
    return scaling * (x @ W.T + drop(x) @ A.T @ B.T)


@wrong("merged_weight", "gives a weight that was merged already back in float32")
def _(W, delta, merged):
    total = W.float()
    return total.clone() if merged else (total + delta).to(W.dtype)


@wrong("merged_weight", "adds in place to W.float(), which for a float32 weight is W itself")
def _(W, delta, merged):
    total = W.float()
    if not merged:
        total += delta
    return total.to(W.dtype).clone()


@wrong("branch_gradients", "averages over the rows instead of adding them up")
def _(x, g, A, B, scaling):
    n = len(x)
    return scaling * (g @ B).T @ x / n, scaling * g.T @ (x @ A.T) / n


@wrong("branch_gradients", "has the scaling twice in the gradient of B: in what A gives, and again in front")
def _(x, g, A, B, scaling):
    z = scaling * x @ A.T
    return scaling * (g @ B).T @ x, scaling * g.T @ z


# lesson 07


@wrong("rank_in_budget", "holds r below the output sides d only, and not below the input sides k")
def _(shapes, budget):
    return min(budget // sum(d + k for d, k in shapes), min(d for d, _ in shapes))


@wrong("rank_in_budget", "stays strictly below the budget: what fits exactly is refused")
def _(shapes, budget):
    r = (budget - 1) // sum(d + k for d, k in shapes)
    return max(0, min(r, min(min(shape) for shape in shapes)))


@wrong("chance_similarity", "multiplies the shares i / k and j / k of the whole space")
def _(i, j, k):
    return (i / k) * (j / k)


@wrong("chance_similarity", "divides by the geometric mean of i and j, where φ has their minimum")
def _(i, j, k):
    return i * j / k / math.sqrt(i * j)


@wrong("low_rank_part", "takes the first r eigenvectors of eigh, which begins with the smallest")
def _(update, r):
    _, vectors = torch.linalg.eigh(update @ update.T)
    U = vectors[:, :r]
    return U @ (U.T @ update)


@wrong("low_rank_part", "puts the root of the singular values into one factor, and nothing into the other")
def _(update, r):
    U, S, Vh = torch.linalg.svd(update, full_matrices=False)
    return (U[:, :r] * S[:r].sqrt()) @ Vh[:r]


@wrong("adapter_update", "asks whether the config has the key use_rslora, not whether it is true")
def _(A, B, config):
    r = config["r"]
    return config["lora_alpha"] / (math.sqrt(r) if "use_rslora" in config else r) * (B @ A)


@wrong("adapter_update", "takes the root of the whole α/r for rslora, instead of that of r")
def _(A, B, config):
    scale = config["lora_alpha"] / config["r"]
    if config.get("use_rslora"):
        scale = math.sqrt(scale)
    return scale * (B @ A)


@wrong("add_adapters", "divides the weights by their sum, as for a mean")
def _(B1, A1, B2, A2, w1, w2):
    total = w1 + w2
    return torch.cat([w1 / total * B1, w2 / total * B2], dim=1), torch.cat([A1, A2])


@wrong("add_adapters", "gives each adapter the weight of the other")
def _(B1, A1, B2, A2, w1, w2):
    return torch.cat([w2 * B1, w1 * B2], dim=1), torch.cat([A1, A2])


# lesson 08


@wrong("bottleneck", "adds the first bias after the GELU instead of before it")
def _(x, down, b, up, c):
    return x + (gelu(x @ down.T) + b) @ up.T + c


@wrong("bottleneck", "puts a second GELU on the way out, before the input is added")
def _(x, down, b, up, c):
    return x + gelu(gelu(x @ down.T + b) @ up.T + c)


@wrong("text_loss", "shifts in the wrong direction: position i + 1 is asked for token i")
def _(logits, ids):
    virtual = logits.shape[1] - ids.shape[1]
    return cross_entropy(logits[:, virtual + 1:].transpose(1, 2), ids[:, :-1])


@wrong("text_loss", "brings the vocabulary forward with reshape, which mixes the logits up, instead of transposing")
def _(logits, ids):
    rows, n = ids.shape
    text = logits[:, logits.shape[1] - n:-1]
    return cross_entropy(text.reshape(rows, logits.shape[2], n - 1), ids[:, 1:])


@wrong("dora_weight", "divides by the sum of squares of each row, without the root")
def _(W, dW, m):
    V = W + dW
    return m[:, None] * V / V.square().sum(dim=1, keepdim=True)


@wrong("dora_weight", "gives the length to the old rows alone, and adds LoRA's update after it")
def _(W, dW, m):
    return m[:, None] * W / W.norm(dim=1, keepdim=True) + dW


@wrong("answer_each", "groups the rows by adapter, and gives them back in the order of the groups")
def _(x, W, adapters, names):
    parts = []
    for name in dict.fromkeys(names):
        rows = x[[i for i, other in enumerate(names) if other == name]]
        h = rows @ W.T
        if name:
            A, B, scaling = adapters[name]
            h = h + scaling * rows @ A.T @ B.T
        parts.append(h)
    return torch.cat(parts) if parts else x @ W.T


@wrong("answer_each", "lets a row without a name keep the branch of the row before it")
def _(x, W, adapters, names):
    h, branch = x @ W.T, 0
    for i, name in enumerate(names):
        if name:
            A, B, scaling = adapters[name]
            branch = scaling * x[i] @ A.T @ B.T
        h[i] = h[i] + branch
    return h


# lesson 09


@wrong("page_out", "lets nothing leave when the room is negative, as the sequence does not fit anyway")
def _(resident, room, page):
    if room < 0 or room >= resident:
        return 0
    return math.ceil((resident - room) / page) * page


@wrong("page_out", "rounds to the nearest number of pages, so that sometimes too little leaves")
def _(resident, room, page):
    return min(resident, max(0, round((resident - room) / page) * page))


@wrong("train_step", "reads how often each layer ran before the backward pass, which is what runs them again")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=False)
    runs = [layer.runs for layer in layers]
    y.sum().backward()
    return [(layer.b.grad, count) for layer, count in zip(layers, runs, strict=True)]


@wrong("train_step", "takes the mean for the loss, where the sum is asked for")
def _(layers, x):
    y = x
    for layer in layers:
        y = checkpoint(layer, y, use_reentrant=False)
    y.mean().backward()
    return [(layer.b.grad, layer.runs) for layer in layers]


@wrong("qlora_gradients", "multiplies the whole gradient of x by the scaling, also the part through W")
def _(g, x, W, A, B, scaling):
    gB = g @ B
    return scaling * (g @ W + gB @ A), scaling * gB.T @ x, scaling * g.T @ (x @ A.T)


@wrong("qlora_gradients", "averages the gradients of A and B over the rows instead of adding up")
def _(g, x, W, A, B, scaling):
    gB = scaling * g @ B
    return g @ W + gB @ A, gB.T @ x / len(x), scaling * g.T @ (x @ A.T) / len(x)


# lesson 10


@wrong("lora_parameters", "takes the input side twice, as if every weight were square")
def _(shapes, r):
    return sum(2 * r * inputs for _, inputs in shapes)


@wrong("lora_parameters", "counts weights of equal shape once (a set)")
def _(shapes, r):
    return sum(r * (out + inputs) for out, inputs in set(shapes))


@wrong("choose_precision", "compares the versions as text, where 12.0 comes before 8.0")
def _(capability):
    if capability is None:
        return "float32"
    return "bfloat16" if f"{capability[0]}.{capability[1]}" >= "8.0" else "float16"


@wrong("choose_precision", "knows only the three GPUs that the text names for bfloat16")
def _(capability):
    if capability is None:
        return "float32"
    return "bfloat16" if capability in [(8, 0), (9, 0), (12, 0)] else "float16"


@wrong("mask_labels", "begins the prompt after as many tokens as there is padding in all, also that on the right")
def _(ids, attention_mask, prompt_length):
    begin = attention_mask.count(0) + prompt_length
    return [token if keep and i >= begin else -100
            for i, (token, keep) in enumerate(zip(ids, attention_mask, strict=True))]


@wrong("mask_labels", "masks all that comes after the first </s> of the answer, also where the answer goes on")
def _(ids, attention_mask, prompt_length):
    labels, seen, ended = [], 0, False
    for token, keep in zip(ids, attention_mask, strict=True):
        seen += keep
        wanted = keep and seen > prompt_length and not ended
        labels.append(token if wanted else -100)
        ended = ended or wanted and token == 2
    return labels


@wrong("share_moved", "takes |w| / 256 for the gap, instead of the one gap that a whole power of two shares")
def _(weights, step):
    before = weights.bfloat16().float()
    return (step > before.abs() / 256 / 2).float().mean().item()


@wrong("newest_complete_checkpoint", "has a pattern without an end, so that checkpoint-1500-old counts as a checkpoint")
def _(folder):
    found = []
    for path in folder.iterdir():
        match = re.match(r"checkpoint-(\d+)", path.name)
        if match:
            try:
                json.loads((path / "trainer_state.json").read_text())
            except (OSError, ValueError):
                continue
            found.append((int(match[1]), path))
    return max(found)[1] if found else None


@wrong("newest_complete_checkpoint", "takes a file for whole that ends in }, which may close an inner object only")
def _(folder):
    found = []
    for path in folder.iterdir():
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        state = path / "trainer_state.json"
        if match and state.is_file() and state.read_bytes().rstrip().endswith(b"}"):
            found.append((int(match[1]), path))
    return max(found)[1] if found else None


# lesson 11


@wrong("merge_weight", "rounds A and B to the dtype of W before they are multiplied")
def _(W, A, B, alpha):
    delta = B.to(W.dtype).float() @ A.to(W.dtype).float()
    return (W.float() + alpha / A.shape[0] * delta).to(W.dtype)


@wrong("merge_weight", "rounds to bf16 whatever the dtype of W is")
def _(W, A, B, alpha):
    return (W.float() + alpha / A.shape[0] * (B @ A)).bfloat16()


@wrong("room_to_move", "takes the mean of the ways to both boundaries, not the shorter one")
def _(codebook):
    half = codebook.diff() / 2
    left, right = torch.cat([half[:1], half]), torch.cat([half, half[-1:]])
    return (left + right) / 2


@wrong("room_to_move", "pads the distances with zeros at the ends, so that the first and last level have no room")
def _(codebook):
    half = pad(codebook.diff() / 2, (1, 1))
    return torch.minimum(half[:-1], half[1:])


@wrong("untrained_layers", "takes the ending off with rstrip, which goes on to eat letters of the layer's name")
def _(state):
    ending = ".lora_B.weight"
    return [name.rstrip(ending) for name, weight in state.items() if name.endswith(ending) and not weight.any()]


@wrong("untrained_layers", "takes a B for untrained whose entries are all smaller than 1e-4")
def _(state):
    ending = ".lora_B.weight"
    return [name.removesuffix(ending) for name, weight in state.items()
            if name.endswith(ending) and (weight.abs() < 1e-4).all()]


@wrong("merge_as_trained", "quantizes the transposed weight, so that the blocks run down the columns")
def _(W, A, B, alpha):
    base = quantize(W.T.contiguous(), block_size=64).dequantize().T
    return base + alpha / A.shape[0] * (B @ A)


@wrong("merge_as_trained", "sends the base through int4 instead of NF4")
def _(W, A, B, alpha):
    return quantize(W, integer(4), 64).dequantize() + alpha / A.shape[0] * (B @ A)
