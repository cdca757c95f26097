"""Quantizing the scales: what it costs, how it is undone, how it is done."""

from __future__ import annotations

import random

import torch

from helpers.codebooks import dynamic_map
from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def nested_bits(bits: tuple[int, ...], blocks: tuple[int, ...]) -> float:
    """Bits per weight, scales of every stage included; `bits` is longer by one."""
    total, weights = 0.0, 1
    for size, count in zip(bits, (1, *blocks), strict=True):
        weights *= count
        total += size / weights
    return total


def _stages(rng: random.Random, depth: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return ((rng.randint(2, 8), *(rng.choice((4, 8, 16, 32)) for _ in range(depth))),
            tuple(rng.choice((8, 16, 32, 50, 64)) for _ in range(depth)))


NESTED_BITS = Exercise(5, nested_bits, "★★ Scales of scales, of any depth · 5 min", """
A code has `bits[0]` bits. Every `blocks[0]` weights share a scale of `bits[1]` bits; every `blocks[1]` of these scales
share one of `bits[2]` bits; and so on. How many bits is that per weight?

Double quantization is `bits=(4, 8, 32), blocks=(64, 256)`. It is not alone: in llama.cpp's Q4_K
([llama.cpp#1684](https://github.com/ggml-org/llama.cpp/pull/1684)) 32 weights share a scale and a minimum of 6 bits
each, and 8 such blocks share two fp16 numbers: `bits=(4, 12, 32), blocks=(32, 8)`. With no block at all only the codes
are left.
""",
    cases=(Case(((4, 32), (64,)), about="codes and one kind of scales"),
           Case(((4, 8, 32), (64, 256)), about="scales that have a scale themselves"),
           Case(((4, 12, 32), (32, 8)), about="Q4_K"), Case(((4,), ()), about="codes without a scale"),
           Case(((2, 4, 8, 16), (16, 4, 8)), about="four stages")),
    hints=("Take one stage after the other. By how many *weights* is each of its numbers shared?",
           "By the product of all block sizes up to it: in double quantization the last float32 by 64 · 256 weights.",
           "Go through `zip(bits, (1, *blocks))`, multiply the second into a running product, and add bits / product."),
    mistakes=(
        Mistake("Each stage was divided by its own block alone. A scale of scales is shared by all weights below it.",
                ("weights *= count", "weights = count")),
        Mistake("The block sizes were added, not multiplied: 256 scales of 64 weights are 256 · 64 weights.",
                ("weights *= count", "weights += count - (weights == 1)")),
        Mistake("The codes themselves are missing.", ("return total", "return total - bits[0]")),
        Mistake("All scales were divided by the weights of the largest block: a small block's is shared by fewer.",
                lambda bits, blocks: bits[0] + sum(bits[1:]) / torch.tensor([1, *blocks]).prod().item()),
        Mistake("The codes were divided by the first block: every weight has one of its own.",
                ("weights = 0.0, 1", "weights = 0.0, (*blocks, 1)[0]"), ("(1, *blocks)", "(*blocks, 1)")),
        Mistake("Each scale was taken for a float32: `bits` says how large it is.",
                ("total += size", "total += (32 if weights > 1 else size)")),
        Mistake("Only the first scale was counted.", ("zip(bits, (1, *blocks), strict=True)",
                                                      "list(zip(bits, (1, *blocks)))[:2]")),
        Mistake("Only the codes and the last stage were counted.",
                lambda bits, blocks: bits[0] + (bits[-1] / torch.tensor(blocks).prod().item() if blocks else 0)),
        Mistake("Those are bytes.", ("return total", "return total / 8")),
        Mistake("Upside down: weights share the bits of a scale.",
                ("total += size / weights", "total += size if weights == 1 else weights / size")),
        Mistake("Bits and blocks are paired one off: the first of `bits` belongs to a single weight.",
                ("zip(bits, (1, *blocks), strict=True)", "zip(bits, blocks)")),
    ),
    draw=lambda rng: _stages(rng, rng.randint(1, 3)),
    moral="Double quantization 4.127, Q4_K 4.5: that one has smaller blocks, and a minimum in each.")


def double_dequantize(
    values: torch.Tensor,         # (blocks, 64): the NF4 level of each weight
    codes: torch.Tensor,          # uint8 (blocks,): of the scales
    nested_absmax: torch.Tensor,  # (ceil(blocks / 256),): the scales of the scales
    offset: torch.Tensor,         # (): the mean that was subtracted
    levels: torch.Tensor,         # (256,): the dynamic map
) -> torch.Tensor:
    """Weights from their levels and doubly quantized scales: float32 (blocks, 64)."""
    absmax = levels[codes.long()] * nested_absmax.repeat_interleave(256)[:len(codes)]
    absmax = absmax + offset
    return values * absmax[:, None]


def _state(rng: random.Random, blocks: int) -> tuple[torch.Tensor, ...]:
    return (normal(rng, blocks, 1) * normal(rng, 1, 64), integers(rng, 0, 255, blocks, dtype=torch.uint8),
            normal(rng, -(-blocks // 256)).abs(), 2 + normal(rng), dynamic_map())


def _plain(*codes: int, absmax: float = 1.0) -> tuple[torch.Tensor, ...]:
    return (torch.full((len(codes), 64), 0.5), torch.tensor(codes, dtype=torch.uint8), torch.tensor([absmax]),
            torch.tensor(1.5), dynamic_map())


DOUBLE_DEQUANTIZE = Exercise(
    5, double_dequantize, "★★ Spot the bug: the scale that was decoded and not used · 6 min", """
For a while bitsandbytes' way back on a CPU decoded the scales correctly, and then multiplied by their *codes*
([bitsandbytes#1549](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1549)). In our words:

```python
def double_dequantize(values, codes, nested_absmax, offset, levels):
    absmax = levels[codes.long()] * nested_absmax.repeat_interleave(256)[:len(codes)]
    absmax = absmax + offset
    return values * codes[:, None]
```

Nothing raises, the shapes fit, and a scale of 0.19 becomes one of 140. Write it from memory rather than mending a word.
""",
    cases=(_plain(0, 100, 255), Case(_plain(0, 100, 255, absmax=0.5), "a nested absmax that is not 1"),
           Case(_state(random.Random(5), 5), "weights of every size and sign"),
           Case(_state(random.Random(6), 300), "a second nested block, and a short one"),
           Case(_state(random.Random(7), 64), "as many blocks as a block has weights")),
    hints=("Three steps back: code to level, level times its block's scale, plus the mean.",
           "Scale number i belongs to nested block i // 256: `nested_absmax.repeat_interleave(256)`, cut to length.",
           "`(levels[codes.long()] * …repeat_interleave(256)[:len(codes)] + offset)[:, None] * values`"),
    mistakes=(
        Mistake("The codes were used as scales: numbers from 0 to 255 that are only addresses in `levels`."),
        Mistake("The scales stand in a row, where each row of weights has its own.", ("[:, None]", "")),
        Mistake("The scales are no whole number of nested blocks of 256.", ("[:len(codes)]", "")),
        Mistake("torch takes a uint8 index for a mask, not for numbers of places.", ("codes.long()", "codes")),
        Mistake("The mean was subtracted before quantization and is not back.", (" + offset", "")),
        Mistake("The mean was subtracted a second time: on the way back it is added.", ("+ offset", "- offset")),
        Mistake("The level is a fraction of its nested absmax, which is missing here.",
                (" * nested_absmax.repeat_interleave(256)[:len(codes)]", "")),
        Mistake("Each nested absmax is for 256 scales; here there is one for each.",
                (".repeat_interleave(256)[:len(codes)]", "")),
        Mistake("Blocks of 64 are for the weights. The scales come in blocks of 256.", ("256", "64")),
        Mistake("Dividing by the nested absmax leads in, not back.", ("* nested", "/ nested")),
        Mistake("`repeat` gives a, b, a, b, …; the first 256 scales all belong to a.", ("repeat_interleave", "repeat")),
        Mistake("Every scale used the same nested absmax.",
                ("nested_absmax.repeat_interleave(256)[:len(codes)]", "nested_absmax[0]"),
                ("nested_absmax.repeat_interleave(256)[:len(codes)]", "nested_absmax.max()")),
        Mistake("The mean is added to the weights; it belongs to their scales.",
                ("absmax + offset", "absmax", "absmax[:, None]", "absmax[:, None] + offset")),
        Mistake("The mean went through the nested absmax as well. It was never divided by it.",
                ("levels[codes.long()] *", "(levels[codes.long()] + offset) *", "absmax + offset", "absmax")),
    ),
    draw=lambda rng: _state(rng, rng.choice((1, 3, 256, 257, 520))),
    moral="The same three lines run inside every kernel for doubly quantized weights, once per block.")


def quantize_scales(
    absmax: torch.Tensor,  # (scales,), positive
    levels: torch.Tensor,  # (256,), sorted
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes uint8 (scales,) and nested absmax float32 (ceil(scales / 256),)."""
    centred = absmax - absmax.mean()
    padded = torch.nn.functional.pad(centred, (0, -len(absmax) % 256)).view(-1, 256)
    nested_absmax = padded.abs().amax(dim=1)
    scaled = (padded / nested_absmax[:, None]).flatten()[:len(absmax)]
    return (scaled[:, None] - levels).abs().argmin(dim=1).to(torch.uint8), nested_absmax


def _scales(rng: random.Random, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales around 2.5, those behind the 256th nearer to their mean."""
    return 2.5 + 0.4 * normal(rng, count).clamp(-4, 4) * torch.where(torch.arange(count) < 256, 1, 0.25), dynamic_map()


QUANTIZE_SCALES = Exercise(5, quantize_scales, "★★ Build: scales for the scales · 8 min", """
Write double quantization itself: from the scales of a layer to their 8-bit codes and the nested absmax. Take the mean
of *all* scales away, pad with zeros to whole blocks of 256, divide each block by its absmax, take the nearest level.
""",
    cases=((torch.tensor([1.0, 2.0, 6.0, 9.0]), dynamic_map()),
           Case((torch.tensor([1.0, 5.5, 6.0]), dynamic_map()), "a largest deviation below the mean"),
           Case(_scales(random.Random(1), 256), "exactly one block of 256"),
           Case((torch.linspace(1, 4, 256).repeat(2), dynamic_map()), "a second block like the first"),
           Case((torch.linspace(1, 5, 512), dynamic_map()), "blocks of different means"),
           Case(_scales(random.Random(2), 300), "a second block, short and of smaller deviations")),
    hints=("`centred = absmax - absmax.mean()`, then `torch.nn.functional.pad(centred, (0, -len(absmax) % 256))`.",
           "`.view(-1, 256)` makes the blocks; `.abs().amax(dim=1)` is the nested absmax.",
           "Nearest level: `(scaled[:, None] - levels).abs().argmin(dim=1)`, without the padding, `.to(torch.uint8)`."),
    mistakes=(
        Mistake("The padding has codes too: it was not cut off.", ("[:len(absmax)]", "")),
        Mistake("The point is to store 8 bits a scale; these have more.", ("uint8", "int64"), ("uint8", "float32")),
        Mistake("The mean is still in it, so that half of the codes lie idle.", ("absmax - absmax.mean()", "absmax")),
        Mistake("The median was taken away, not the mean.", ("mean", "median")),
        Mistake("The padding came before the mean was taken away: its zeros became minus the mean.",
                ("absmax - absmax.mean()", "absmax", ".view(-1, 256)", ".view(-1, 256) - absmax.mean()")),
        Mistake("The zeros of the padding count in the mean.",
                ("absmax.mean()", "torch.nn.functional.pad(absmax, (0, -len(absmax) % 256)).mean()")),
        Mistake("Blocks of 64 are for the weights. The scales come in blocks of 256.", ("256", "64")),
        Mistake("One absmax for all scales: it should be one for every 256.", ("256", "len(absmax)")),
        Mistake("That is the greatest value of a block, not the greatest magnitude.", (".abs().amax", ".amax")),
        Mistake("Each block lost its own mean. There is one mean for the whole layer.",
                ("absmax - absmax.mean()", "torch.cat([b - b.mean() for b in absmax.split(256)])")),
        Mistake("That is the level just below, not the nearest one.",
                ("(scaled[:, None] - levels).abs().argmin(dim=1)",
                 "(torch.bucketize(scaled, levels, right=True) - 1)")),
        Mistake("That is the level just above, not the nearest one.",
                ("(scaled[:, None] - levels).abs().argmin(dim=1)", "torch.searchsorted(levels, scaled)")),
        Mistake("Even steps are for int8: the 256 levels are not evenly spaced.",
                ("(scaled[:, None] - levels).abs().argmin(dim=1)", "(scaled * 127 + 128).round()")),
    ),
    draw=lambda rng: _scales(rng, rng.choice((2, 7, 255, 257, 512))),
    tolerance=1e-5,
    moral="bitsandbytes does the same, after rounding to a fine grid on a CPU; the offset it keeps is the mean.")
