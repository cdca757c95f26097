"""The blocks of GGUF files: Q4_0, Q4_1 and Q8_0, byte for byte as llama.cpp writes them.

    blocks = quantize(x, Q4_1)   uint8 (…, n / 32, bytes of a block)
    dequantize(blocks, Q4_1)     float32 (…, n)

32 weights make a block: a float16 scale d first, in Q4_1 a float16 minimum m behind it, then the codes. Four-bit codes
lie in halves: byte i holds weight i in its low nibble and weight i + 16 in its high one. Source: llama.cpp,
ggml-common.h (block_q4_0, block_q4_1, block_q8_0) and ggml-quants.c; in Python the package `gguf`, quants.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helpers.quantization import check_values

BLOCK = 32


@dataclass(frozen=True)
class BlockFormat:
    """`fields` float16 numbers, then 32 codes of `bits` bits: x is about d * code, with a minimum m * 1 more."""

    name: str
    bits: int
    fields: int = 1

    @property
    def nbytes(self) -> int:
        """Bytes of a block: 18 in Q4_0, 20 in Q4_1, 34 in Q8_0."""
        return 2 * self.fields + BLOCK * self.bits // 8

    @property
    def bits_per_weight(self) -> float:
        """Bits stored per value: 4.5, 5 and 8.5."""
        return 8 * self.nbytes / BLOCK


Q4_0, Q4_1, Q8_0 = BlockFormat("Q4_0", 4), BlockFormat("Q4_1", 4, fields=2), BlockFormat("Q8_0", 8)


@torch.no_grad()
def quantize(x: torch.Tensor, fmt: BlockFormat) -> torch.Tensor:
    """x (…, n), n a multiple of 32, as blocks: uint8 (…, n / 32, fmt.nbytes).

    Q4_0: d is the value of largest magnitude, with its sign, over -8, so that this value is met by the code 0 and all
    sixteen codes are used. Q4_1: sixteen steps from the least value to the greatest. Q8_0: d = absmax / 127, halves
    rounded away from zero. Codes are made with d in float32, before it is rounded to float16 for the file.
    Raises ValueError for x that is empty, not floating point or not finite, for n that is not a multiple of 32, and for
    values so large that d or m passes float16's 65504.
    """
    check_values(x)
    if x.dim() == 0 or x.shape[-1] % BLOCK:
        raise ValueError(f"x has shape {tuple(x.shape)}: its last dimension must be a multiple of {BLOCK}; leave such "
                         "a tensor in float16, as llama.cpp does")
    values = x.detach().float().unflatten(-1, (-1, BLOCK))
    if fmt == Q4_1:
        low = values.amin(-1, keepdim=True)
        d, rest = (values.amax(-1, keepdim=True) - low) / 15, values - low
        header = torch.cat([d, low], dim=-1)
    elif fmt == Q4_0:
        largest = values.gather(-1, values.abs().argmax(-1, keepdim=True))
        d, rest = largest / -8, values
        header = d
    else:
        d, rest = values.abs().amax(-1, keepdim=True) / 127, values
        header = d
    header = header.half()
    if not torch.isfinite(header).all():
        raise ValueError(f"values up to {values.abs().max().item():g} need a scale beyond float16's 65504: "
                         "scale x down")
    inverse = 1 / d
    scaled = rest * torch.where(torch.isfinite(inverse), inverse, 0)  # a block of zeros has the codes of zero
    if fmt == Q8_0:
        magnitude = scaled.abs().floor()
        magnitude = magnitude + (2 * (scaled.abs() - magnitude)).floor()
        codes = (scaled.sign() * magnitude).to(torch.int8).view(torch.uint8)
    else:
        codes = _pack((scaled + (0.5 if fmt == Q4_1 else 8.5)).trunc().clamp(0, 15).to(torch.uint8))
    return torch.cat([header.view(torch.uint8), codes], dim=-1)


def dequantize(blocks: torch.Tensor, fmt: BlockFormat) -> torch.Tensor:
    """The values of blocks: uint8 (…, blocks, fmt.nbytes) -> float32 (…, 32 * blocks).

    Raises ValueError for what is not uint8 or does not end in a block's bytes.
    """
    if blocks.dtype != torch.uint8 or blocks.dim() < 2 or blocks.shape[-1] != fmt.nbytes:
        raise ValueError(f"blocks are {blocks.dtype} of shape {tuple(blocks.shape)}: {fmt.name} has uint8 of shape "
                         f"(…, blocks, {fmt.nbytes})")
    header = blocks[..., :2 * fmt.fields].contiguous().view(torch.float16).float()
    codes, d = blocks[..., 2 * fmt.fields:], header[..., :1]
    if fmt == Q8_0:
        values = d * codes.contiguous().view(torch.int8)
    elif fmt == Q4_1:
        values = d * _unpack(codes) + header[..., 1:]
    else:
        values = d * (_unpack(codes).float() - 8)
    return values.flatten(-2)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """32 nibbles to 16 bytes, the first half in the low ones: (…, 32) -> (…, 16)."""
    return codes[..., :16] | codes[..., 16:] << 4


def _unpack(packed: torch.Tensor) -> torch.Tensor:
    """16 bytes to 32 nibbles, the low ones first: (…, 16) -> (…, 32)."""
    return torch.cat([packed & 15, packed >> 4], dim=-1)
