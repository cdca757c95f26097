"""Quantizing the scales: what it costs, how it is undone, how it is done."""

from __future__ import annotations

import torch

from helpers.codebooks import dynamic_map
from helpers.exercises.engine import Case, Exercise, Mistake


def scale_bits(block_size: int, nested_block: int | None = None) -> float:
    """Bits per weight that the scales cost.

    float32 scales; with `nested_block` 8-bit codes, and a float32 for so many of them.
    """
    if nested_block is None:
        return 32 / block_size
    return 8 / block_size + 32 / (block_size * nested_block)


SCALE_BITS = Exercise(5, scale_bits, "★ The price of a scale · 4 min", """
Each block of `block_size` weights has a scale. How many bits does it add to every weight: as a float32, and doubly
quantized, as an 8-bit code plus a float32 for every `nested_block` of these codes? (Codebook and mean are once per
layer: leave them out.)
""",
    cases=(
        Case((64, None)),
        Case((64, 256)),
        Case((32, 256)),
        Case((128, 64)),
    ),
    hints=(
        "32 bits, shared by `block_size` weights.",
        "The 8-bit code is shared by `block_size` weights too. By how many is the second float32 shared?",
        "By `block_size * nested_block` weights: 8 / block_size + 32 / (block_size * nested_block).",
    ),
    mistakes=(
        Mistake("Those are bytes per weight: a float32 has 32 bits.",
                lambda block_size, nested_block=None: 4 / block_size),
        Mistake("Upside down: 32 bits are shared by `block_size` weights.",
                lambda block_size, nested_block=None: block_size / 32),
        Mistake("The 4 bits of the weight's own code are in it; only the scales are asked for.",
                lambda block_size, nested_block=None: 4 + 32 / block_size),
        Mistake("The second float32 is shared by 256 *scales*, and so by 64 · 256 weights.",
                lambda block_size, nested_block=None: 32 / block_size if nested_block is None
                else 8 / block_size + 32 / nested_block),
        Mistake("The 8-bit codes need a scale themselves: one float32 for every `nested_block` of them.",
                lambda block_size, nested_block=None: 32 / block_size if nested_block is None else 8 / block_size),
        Mistake("The first float32 scale is replaced by its code; it is not kept beside it.",
                lambda block_size, nested_block=None: 32 / block_size + (
                0 if nested_block is None else 8 / block_size + 32 / (block_size * nested_block))),
        Mistake("That is what is saved. Asked is what is left to pay.",
                lambda block_size, nested_block=None: 32 / block_size if nested_block is None
                else 24 / block_size - 32 / (block_size * nested_block)),
        Mistake("The second scale is a float32: 32 bits, not 8.",
                lambda block_size, nested_block=None: 32 / block_size if nested_block is None
                else 8 / block_size + 8 / (block_size * nested_block)),
    ),
    tolerance=1e-09,
    moral="0.5 becomes 0.127. With blocks of 32 it would be 1.0 and 0.254: smaller blocks gain more.")
# general: lambda block_size, nested_block=None: 0.0


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


def _undone(values, codes, nested_absmax, offset, levels, shift=True, spread="right"):
    count = len(codes)
    scale = {"right": nested_absmax.repeat_interleave(256)[:count], "cycled": nested_absmax.repeat(256)[:count],
             "none": torch.ones(count), "first": nested_absmax[0].expand(count)}[spread]
    absmax = levels[codes.long()] * scale
    return values * (absmax + offset if shift else absmax)[:, None]


def _state() -> tuple[torch.Tensor, ...]:
    """300 blocks of weights: the second nested block has 44 scales, and a smaller absmax."""
    generator = torch.Generator().manual_seed(5)
    values = torch.randint(-7, 8, (300, 64), generator=generator) / 8
    codes = torch.randint(0, 256, (300,), generator=generator).to(torch.uint8)
    return values, codes, torch.tensor([0.5, 0.125]), torch.tensor(2.0), dynamic_map()


STATE = _state()
WRONG_UNDONE = {
    "raw_codes": STATE[0] * STATE[1][:, None], "no_offset": _undone(*STATE, shift=False),
    "no_nested": _undone(*STATE, spread="none"), "cycled": _undone(*STATE, spread="cycled"),
    "one_scale": _undone(*STATE, spread="first"),
    "offset_scaled": STATE[0] * ((STATE[4][STATE[1].long()] + STATE[3])
                                 * STATE[2].repeat_interleave(256)[:300])[:, None],
}

DOUBLE_DEQUANTIZE = Exercise(5, double_dequantize, "★★ Spot the bug: the scale that was decoded and not used · 8 min", """
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
    cases=(
        Case(STATE, shown="300 blocks of 64, two nested blocks"),
        Case((torch.ones(2, 64), torch.tensor([0, 255], dtype=torch.uint8), torch.ones(1), torch.tensor(1.0),
            dynamic_map()), shown="two blocks of ones, with codes 0 and 255"),
    ),
    hints=(
        "Three steps back: code to level, level times its block's scale, plus the mean.",
        "Scale number i belongs to nested block i // 256: `nested_absmax.repeat_interleave(256)`, cut to length.",
        "`(levels[codes.long()] * …repeat_interleave(256)[:len(codes)] + offset)[:, None] * values`",
    ),
    mistakes=(
        Mistake("The codes were used as scales: numbers from 0 to 255 that are only addresses in `levels`."),
        Mistake("Mind three things: as an index codes must be `.long()` (uint8 counts as a mask), 300 scales are no "
                "whole number of 256, and a scale per row needs `[:, None]`.",
                lambda values, codes, nested_absmax, offset, levels: values * (levels[codes.long()] + offset),
                lambda values, codes, nested_absmax, offset, levels: values * levels[codes.long()].view(-1, 256)),
        Mistake("The mean was subtracted before quantization and has to come back: half of your scales are "
                "negative.",
                lambda *state: _undone(*state, shift=False)),
        Mistake("The level is a fraction of its nested block's absmax: multiply by it.",
                lambda *state: _undone(*state, spread="none")),
        Mistake("`repeat` gives a, b, a, b, …; the first 256 scales belong to a: `repeat_interleave`.",
                lambda *state: _undone(*state, spread="cycled")),
        Mistake("Every scale used the first nested absmax; number i belongs to nested block i // 256.",
                lambda *state: _undone(*state, spread="first")),
        Mistake("The order: first times the nested absmax, then plus the offset. It was never divided by it.",
                lambda values, codes, nested_absmax, offset, levels:
                values * ((levels[codes.long()] + offset) * nested_absmax.repeat_interleave(256)[:len(codes)])[:, None]),
    ),
    tolerance=1e-06,
    moral="The same three lines run inside every kernel for doubly quantized weights, once per block.")
# general: lambda values, codes, nested_absmax, offset, levels: torch.zeros_like(values)


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


def _scales_by(absmax, levels, block=256, centre="mean", pad_first=False, signed_max=False, below=False, cut=True):
    from torch.nn.functional import pad

    offset = {"mean": absmax.mean(), "none": 0.0, "block": 0.0}[centre]
    if pad_first:
        padded = pad(absmax, (0, -len(absmax) % block)).view(-1, block) - offset
    else:
        padded = pad(absmax - offset, (0, -len(absmax) % block)).view(-1, block)
    if centre == "block":
        padded = padded - padded.mean(dim=1, keepdim=True)
    nested_absmax = padded.amax(dim=1) if signed_max else padded.abs().amax(dim=1)
    scaled = (padded / nested_absmax[:, None]).flatten()[:len(absmax) if cut else None]
    if below:
        return (torch.searchsorted(levels, scaled, right=True) - 1).clamp(0, 255).to(torch.uint8), nested_absmax
    return (scaled[:, None] - levels).abs().argmin(dim=1).to(torch.uint8), nested_absmax


_GENERATOR = torch.Generator().manual_seed(6)
SCALES = torch.cat([2.5 + 0.4 * torch.randn(256, generator=_GENERATOR),  # the last block: 44 scales near the mean
                    2.6 + 0.1 * torch.randn(44, generator=_GENERATOR)]).abs()
LEVELS = dynamic_map()
CENTRED = SCALES - SCALES.mean()

QUANTIZE_SCALES = Exercise(5, quantize_scales, "★★★ Scales for the scales · 12 min", """
Write double quantization itself: from the scales of a layer to their 8-bit codes and the nested absmax. Take the mean
of *all* scales away, pad with zeros to whole blocks of 256, divide each block by its absmax, take the nearest level.
(No grid of 65,536 steps this time.)
""",
    cases=(
        Case((SCALES, LEVELS), shown="300 scales around 2.5"),
        Case((torch.tensor([1.0, 2.0, 6.0]), LEVELS), shown="the scales [1, 2, 6]"),
    ),
    hints=(
        "`centred = absmax - absmax.mean()`, then `torch.nn.functional.pad(centred, (0, -len(absmax) % 256))`.",
        "`.view(-1, 256)` makes the blocks; `.abs().amax(dim=1)` is the nested absmax.",
        "Nearest level: `(scaled[:, None] - levels).abs().argmin(dim=1)`, without the padding, `.to(torch.uint8)`.",
    ),
    mistakes=(
        Mistake("512 codes for 300 scales: the padding is still there. Cut it off after dividing.",
                lambda absmax, levels: _scales_by(absmax, levels, cut=False)),
        Mistake("The point is to store 8 bits a scale: return the codes as `torch.uint8`.",
                lambda absmax, levels: tuple(part.float() for part in quantize_scales(absmax, levels))),
        Mistake("The mean is still in it: scales are all positive, and half of the 256 codes would lie idle.",
                lambda absmax, levels: _scales_by(absmax, levels, centre="none")),
        Mistake("The padding came before the mean was taken away: its zeros became minus the mean, and one of "
                "them is now the last block's absmax.",
                lambda absmax, levels: _scales_by(absmax, levels, pad_first=True)),
        Mistake("Blocks of 64 are for the weights. The scales come in blocks of 256.",
                lambda absmax, levels: _scales_by(absmax, levels, block=64)),
        Mistake("One absmax for all scales: it should be one for every 256.",
                lambda absmax, levels: _scales_by(absmax, levels, block=len(absmax))),
        Mistake("That is the greatest value, not the greatest magnitude: after centring half of them are "
                "negative.",
                lambda absmax, levels: _scales_by(absmax, levels, signed_max=True)),
        Mistake("Each block has its own mean here. There is one offset for the whole layer.",
                lambda absmax, levels: _scales_by(absmax, levels, centre="block")),
        Mistake("That is the level just below, not the nearest one: errors are twice as large.",
                lambda absmax, levels: _scales_by(absmax, levels, below=True)),
    ),
    tolerance=1e-05,
    moral="bitsandbytes does the same, after rounding to a fine grid on a CPU; the offset it keeps is the mean.")
# general: lambda absmax, levels: (torch.zeros(len(absmax), dtype=torch.uint8), torch.ones(2))
