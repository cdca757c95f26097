"""Quantizing the scales: what it costs, how it is undone, how it is done."""

from __future__ import annotations

import torch

from helpers.codebooks import dynamic_map
from helpers.exercises.engine import Case, Exercise


def scale_bits(block_size: int, nested_block: int | None = None) -> float:
    """Bits per weight that the scales cost.

    float32 scales; with `nested_block` 8-bit codes, and a float32 for so many of them.
    """
    if nested_block is None:
        return 32 / block_size
    return 8 / block_size + 32 / (block_size * nested_block)


SCALE_BITS = Exercise(
    lesson=5,
    title="The price of a scale",
    stars=1,
    minutes=4,
    prompt="""
Each block of `block_size` weights has a scale. How many bits does it add to every weight: as a float32, and doubly
quantized, as an 8-bit code plus a float32 for every `nested_block` of these codes? (Codebook and mean are once per
layer: leave them out.)
""",
    solution=scale_bits,
    cases=(
        Case((64, None), "general", {"bytes": 0.0625, "inverted": 2.0, "with_codes": 4.5}),
        Case((64, 256), "general", {
            "not_shared": 0.25, "codes_only": 0.125, "both_kept": 32 / 64 + 8 / 64 + 32 / (64 * 256),
            "saving": 0.5 - 8 / 64 - 32 / (64 * 256), "nested_in_bytes": 8 / 64 + 8 / (64 * 256),
        }, tolerance=1e-9),
        Case((32, 256), "general", tolerance=1e-9),
        Case((128, 64), "general", tolerance=1e-9),
    ),
    hints=(
        "32 bits, shared by `block_size` weights.",
        "The 8-bit code is shared by `block_size` weights too. By how many is the second float32 shared?",
        "By `block_size * nested_block` weights: 8 / block_size + 32 / (block_size * nested_block).",
    ),
    diagnoses={
        "general": "Divide the bits of each scale by the number of weights that share it, and add up.",
        "bytes": "Those are bytes per weight: a float32 has 32 bits.",
        "inverted": "Upside down: 32 bits are shared by `block_size` weights.",
        "with_codes": "The 4 bits of the weight's own code are in it; only the scales are asked for.",
        "not_shared": "The second float32 is shared by 256 *scales*, and so by 64 · 256 weights.",
        "codes_only": "The 8-bit codes need a scale themselves: one float32 for every `nested_block` of them.",
        "both_kept": "The first float32 scale is replaced by its code; it is not kept beside it.",
        "saving": "That is what is saved. Asked is what is left to pay.",
        "nested_in_bytes": "The second scale is a float32: 32 bits, not 8.",
    },
    wrong=(
        (lambda block_size, nested_block=None: 4 / block_size, "bytes"),
        (lambda block_size, nested_block=None: block_size / 32, "inverted"),
        (lambda block_size, nested_block=None: 4 + 32 / block_size, "with_codes"),
        (lambda block_size, nested_block=None: 32 / block_size if nested_block is None
         else 8 / block_size + 32 / nested_block, "not_shared"),
        (lambda block_size, nested_block=None: 32 / block_size if nested_block is None else 8 / block_size,
         "codes_only"),
        (lambda block_size, nested_block=None: 32 / block_size + (
            0 if nested_block is None else 8 / block_size + 32 / (block_size * nested_block)), "both_kept"),
        (lambda block_size, nested_block=None: 32 / block_size if nested_block is None
         else 24 / block_size - 32 / (block_size * nested_block), "saving"),
        (lambda block_size, nested_block=None: 32 / block_size if nested_block is None
         else 8 / block_size + 8 / (block_size * nested_block), "nested_in_bytes"),
        (lambda block_size, nested_block=None: 0.0, "general"),
    ),
    moral="0.5 becomes 0.127. With blocks of 32 it would be 1.0 and 0.254: smaller blocks gain more.",
)


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

DOUBLE_DEQUANTIZE = Exercise(
    lesson=5,
    title="Spot the bug: the scale that was decoded and not used",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
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
    solution=double_dequantize,
    cases=(Case(STATE, "general", WRONG_UNDONE, "300 blocks of 64, two nested blocks", tolerance=1e-6,
                raises="shapes"),
           Case((torch.ones(2, 64), torch.tensor([0, 255], dtype=torch.uint8), torch.ones(1), torch.tensor(1.0),
                 dynamic_map()), "general", shown="two blocks of ones, with codes 0 and 255", tolerance=1e-6)),
    hints=(
        "Three steps back: code to level, level times its block's scale, plus the mean.",
        "Scale number i belongs to nested block i // 256: `nested_absmax.repeat_interleave(256)`, cut to length.",
        "`(levels[codes.long()] * …repeat_interleave(256)[:len(codes)] + offset)[:, None] * values`",
    ),
    diagnoses={
        "general": "absmax = level of the code · absmax of its nested block + offset; then values times absmax.",
        "shapes": "Mind three things: as an index codes must be `.long()` (uint8 counts as a mask), 300 scales are no "
                  "whole number of 256, and a scale per row needs `[:, None]`.",
        "raw_codes": "The codes were used as scales: numbers from 0 to 255 that are only addresses in `levels`.",
        "no_offset": "The mean was subtracted before quantization and has to come back: half of your scales are "
                     "negative.",
        "no_nested": "The level is a fraction of its nested block's absmax: multiply by it.",
        "cycled": "`repeat` gives a, b, a, b, …; the first 256 scales belong to a: `repeat_interleave`.",
        "one_scale": "Every scale used the first nested absmax; number i belongs to nested block i // 256.",
        "offset_scaled": "The order: first times the nested absmax, then plus the offset. It was never divided by it.",
    },
    wrong=(
        (lambda values, codes, nested_absmax, offset, levels: values * codes[:, None], "raw_codes"),
        (lambda values, codes, nested_absmax, offset, levels: values * (levels[codes.long()] + offset), "shapes"),
        (lambda values, codes, nested_absmax, offset, levels: values * levels[codes.long()].view(-1, 256), "shapes"),
        (lambda *state: _undone(*state, shift=False), "no_offset"),
        (lambda *state: _undone(*state, spread="none"), "no_nested"),
        (lambda *state: _undone(*state, spread="cycled"), "cycled"),
        (lambda *state: _undone(*state, spread="first"), "one_scale"),
        (lambda values, codes, nested_absmax, offset, levels:
         values * ((levels[codes.long()] + offset) * nested_absmax.repeat_interleave(256)[:len(codes)])[:, None],
         "offset_scaled"),
        (lambda values, codes, nested_absmax, offset, levels: torch.zeros_like(values), "general"),
    ),
    published="raw_codes",
    moral="The same three lines run inside every kernel for doubly quantized weights, once per block.",
)


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

QUANTIZE_SCALES = Exercise(
    lesson=5,
    title="Scales for the scales",
    stars=3,
    minutes=12,
    imports="import torch",
    prompt="""
Write double quantization itself: from the scales of a layer to their 8-bit codes and the nested absmax. Take the mean
of *all* scales away, pad with zeros to whole blocks of 256, divide each block by its absmax, take the nearest level.
(No grid of 65,536 steps this time.)
""",
    solution=quantize_scales,
    cases=(
        Case((SCALES, LEVELS), "general", {
            "not_cut": lambda got: len(got[0]) == 512,
            "dtype": lambda got: got[0].dtype != torch.uint8,
            "not_centred": lambda got: torch.allclose(got[1][0], SCALES[:256].max()),
            "padded_first": lambda got: torch.allclose(got[1][1], SCALES.mean()),
            "small_blocks": lambda got: len(got[1]) == 5,
            "one_block": lambda got: got[1].numel() == 1,
            "signed_max": lambda got: torch.allclose(got[1], torch.stack([c.max() for c in CENTRED.split(256)])),
            "block_mean": lambda got: torch.allclose(
                got[1][0], (SCALES[:256] - SCALES[:256].mean()).abs().max(), rtol=1e-6),
            "below": lambda got: torch.equal(got[0], _scales_by(SCALES, LEVELS, below=True)[0]),
        }, "300 scales around 2.5", tolerance=1e-5),
        Case((torch.tensor([1.0, 2.0, 6.0]), LEVELS), "general", tolerance=1e-6, shown="the scales [1, 2, 6]"),
    ),
    hints=(
        "`centred = absmax - absmax.mean()`, then `torch.nn.functional.pad(centred, (0, -len(absmax) % 256))`.",
        "`.view(-1, 256)` makes the blocks; `.abs().amax(dim=1)` is the nested absmax.",
        "Nearest level: `(scaled[:, None] - levels).abs().argmin(dim=1)`, without the padding, `.to(torch.uint8)`.",
    ),
    diagnoses={
        "general": "Centre by the mean of all scales, pad, divide by the absmax of each 256, take the nearest level.",
        "not_cut": "512 codes for 300 scales: the padding is still there. Cut it off after dividing.",
        "dtype": "The point is to store 8 bits a scale: return the codes as `torch.uint8`.",
        "not_centred": "The mean is still in it: scales are all positive, and half of the 256 codes would lie idle.",
        "padded_first": "The padding came before the mean was taken away: its zeros became minus the mean, and one of "
                        "them is now the last block's absmax.",
        "small_blocks": "Blocks of 64 are for the weights. The scales come in blocks of 256.",
        "one_block": "One absmax for all scales: it should be one for every 256.",
        "signed_max": "That is the greatest value, not the greatest magnitude: after centring half of them are "
                      "negative.",
        "block_mean": "Each block has its own mean here. There is one offset for the whole layer.",
        "below": "That is the level just below, not the nearest one: errors are twice as large.",
    },
    wrong=(
        (lambda absmax, levels: _scales_by(absmax, levels, cut=False), "not_cut"),
        (lambda absmax, levels: tuple(part.float() for part in quantize_scales(absmax, levels)), "dtype"),
        (lambda absmax, levels: _scales_by(absmax, levels, centre="none"), "not_centred"),
        (lambda absmax, levels: _scales_by(absmax, levels, pad_first=True), "padded_first"),
        (lambda absmax, levels: _scales_by(absmax, levels, block=64), "small_blocks"),
        (lambda absmax, levels: _scales_by(absmax, levels, block=len(absmax)), "one_block"),
        (lambda absmax, levels: _scales_by(absmax, levels, signed_max=True), "signed_max"),
        (lambda absmax, levels: _scales_by(absmax, levels, centre="block"), "block_mean"),
        (lambda absmax, levels: _scales_by(absmax, levels, below=True), "below"),
        (lambda absmax, levels: (torch.zeros(len(absmax), dtype=torch.uint8), torch.ones(2)), "general"),
    ),
    moral="bitsandbytes does the same, after rounding to a fine grid on a CPU; the offset it keeps is the mean.",
)
