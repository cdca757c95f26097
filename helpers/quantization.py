"""Quantization: absmax and zero-point integers, and blocks with a codebook, packed as they are stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn.functional import pad

from helpers.codebooks import NF4, dynamic_map, nearest_codes

CHUNK = 2**18  # values at a time: the temporaries stay in the cache, and small beside a large tensor
WIDE = {4: torch.float64, 2: torch.complex128}  # by bits of a code: as wide as the levels of a byte together


def check_values(x: torch.Tensor) -> None:
    """Raise ValueError unless x is floating point, has elements, and all of them are finite."""
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}: quantization takes floating point, call x.float() first")
    if x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)} and no element: there is nothing to quantize")
    low, high = (value.float().item() for value in x.detach().aminmax())  # NaN comes through
    if not math.isfinite(low) or not math.isfinite(high):
        raise ValueError(f"x reaches from {low:g} to {high:g}: clean NaN and infinity, for example by torch.nan_to_num")


def check_bits(bits: int) -> None:
    """Raise ValueError unless codes of `bits` bits fit into int8."""
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}: the codes are int8, take 2 to 8")


def absmax_quantize(x: torch.Tensor, bits: int = 8, dim: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric integers: codes int8 in x's shape, and the scale float32, so that codes * scale is about x.

    The scale is the step between two codes, absmax / (2**(bits-1) - 1), in the unit of x; the error is at most half of
    it. dim None: one scale for all of x, shape (). dim d: one for each slice along d, shape as x with 1 at d.
    Source: Dettmers et al. 2023 (arXiv 2305.14314), equations 1 and 2, whose c is 1 / scale.
    Raises ValueError for empty, non-float or non-finite x and for bits outside 2 to 8.
    """
    check_values(x)
    check_bits(bits)
    largest = 2 ** (bits - 1) - 1
    absmax = x.float().abs().amax(dim=dim, keepdim=True) if dim is not None else x.float().abs().amax()
    scale = absmax / largest
    scale = torch.where(scale > 0, scale, 1)  # nothing but zeros: any scale gives zeros
    codes = (x.float() / scale).round().clamp(-largest, largest).to(torch.int8)
    return codes, scale


def zeropoint_quantize(x: torch.Tensor, bits: int = 8) -> tuple[torch.Tensor, float, int]:
    """Affine integers: codes int8 in x's shape, scale, zero point, so that (codes - zero_point) * scale is about x.

    All 2**bits codes are spread between the least and the greatest value, or zero where all lie on one side of it:
    zero itself is always met exactly. Subtract in float or int16: int8 would wrap around.
    Source: Jacob et al. 2017 (arXiv 1712.05877), equation 1. Rounds as `torch.quantize_per_tensor` does.
    Raises ValueError for empty, non-float or non-finite x and for bits outside 2 to 8.
    """
    check_values(x)
    check_bits(bits)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    low, high = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (high - low) / (highest - lowest) or 1.0  # nothing but zeros: any scale gives zeros
    zero_point = round(lowest - low / scale)
    inverse = (1 / torch.tensor(scale)).item() if scale > 1e-38 else 1 / scale  # torch keeps it in float32
    codes = (x.double() * inverse + zero_point).float().round()  # one rounding after both, as a fused multiply-add
    codes = codes.clamp(lowest, highest).to(torch.int8)
    return codes, scale, zero_point


def pack_nibbles(codes: torch.Tensor) -> torch.Tensor:
    """Two 4-bit codes to a byte, the first in the high nibble: uint8 (n,) -> uint8 (ceil(n / 2),).

    codes: flattened; an odd last one gets a zero beside it. The order is that of bitsandbytes.
    Raises ValueError for codes that are not uint8 or above 15.
    """
    if codes.dtype != torch.uint8 or codes.numel() and codes.max() > 15:
        raise ValueError(f"codes have dtype {codes.dtype}: nibbles hold uint8 from 0 to 15")
    pairs = pad(codes.flatten(), (0, codes.numel() % 2)).view(-1, 2)
    return torch.add(pairs[:, 1], pairs[:, 0], alpha=16)  # second + 16 * first


def unpack_nibbles(packed: torch.Tensor, count: int | None = None) -> torch.Tensor:
    """The codes of `pack_nibbles`: uint8 (bytes,) -> uint8 (count,), by default two per byte.

    Raises ValueError for packed that is not uint8 and for a count that the bytes do not hold.
    """
    if packed.dtype != torch.uint8:
        raise ValueError(f"packed has dtype {packed.dtype}: nibbles are packed in uint8")
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()
    if count is not None and not 0 <= count <= len(codes):
        raise ValueError(f"count={count}: {packed.numel()} bytes hold 0 to {len(codes)} nibbles")
    return codes[:count]


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of `bits` bits without a gap, the highest bit first: uint8 (n,) -> uint8 (ceil(n * bits / 8),)."""
    if bits == 8:
        return codes
    if bits == 4:
        return pack_nibbles(codes)
    shifts = torch.arange(bits - 1, -1, -1, dtype=torch.uint8, device=codes.device)
    stream = ((codes[:, None] >> shifts) & 1).flatten()
    stream = pad(stream, (0, -len(stream) % 8)).view(-1, 8)
    weights = 2 ** torch.arange(7, -1, -1, dtype=torch.uint8, device=codes.device)
    return (stream * weights).sum(dim=1, dtype=torch.uint8)


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The first `count` codes of `pack`: uint8 (bytes,) -> uint8 (count,)."""
    if bits == 8:
        return packed[:count]
    if bits == 4:
        return unpack_nibbles(packed, count)
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    stream = ((packed[:, None] >> shifts) & 1).flatten()[:count * bits].view(count, bits)
    weights = 2 ** torch.arange(bits - 1, -1, -1, dtype=torch.uint8, device=packed.device)
    return (stream * weights).sum(dim=1, dtype=torch.uint8)


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor as it is stored: packed codes and scales.

    `packed` uint8: the codes of all n values in their order, `bits` each, without a gap (4 bits: first in the high
    nibble). `scales`: float32 (blocks,), or with double quantization a QuantizedTensor of absmax - `offset`, a float32
    scalar. `codebook` float32 (levels,); `block_size` in values; `shape` and `dtype` are the original's.
    """

    packed: torch.Tensor
    scales: torch.Tensor | QuantizedTensor
    offset: torch.Tensor | None
    codebook: torch.Tensor
    block_size: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def bits(self) -> int:
        """Bits of one code."""
        return (len(self.codebook) - 1).bit_length()

    @property
    def codes(self) -> torch.Tensor:
        """The codes, unpacked: uint8 in the original's shape; a code is an index into the codebook."""
        return unpack(self.packed, self.bits, self.shape.numel()).view(self.shape)

    @property
    def absmax(self) -> torch.Tensor:
        """The scales that dequantize() uses: float32 (blocks,), from their own codes after double quantization."""
        return self.scales if self.offset is None else self.scales.dequantize() + self.offset

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and offset. The codebook is left out: a model needs one for all its tensors."""
        return self.packed.nbytes + self.scales.nbytes + (0 if self.offset is None else self.offset.nbytes)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored per value, scales included: 4.5 for NF4 in blocks of 64, 4.127 with double quantization."""
        return 8 * self.nbytes / self.shape.numel()

    def dequantize(self) -> torch.Tensor:
        """Levels times scales, in the original's shape and dtype; the product is taken in float32."""
        count, size, bits, absmax = self.shape.numel(), self.block_size, self.bits, self.absmax
        table = byte_table(tuple(self.codebook.tolist()), bits, self.packed.device) if bits in WIDE else None
        step = whole_blocks(size)
        out = torch.empty(count, dtype=self.dtype, device=self.packed.device) if count > step else None
        for start in range(0, count, step):
            end = min(start + step, count)
            part = self.packed[start * bits // 8:-(-end * bits // 8)]
            if table is None:
                values = self.codebook.index_select(0, unpack(part, bits, end - start).int())
            else:
                values = table.index_select(0, part.int()).view(torch.float32)[:end - start]
            scales = absmax[start // size:-(-end // size)]
            if len(values) % size:  # the last block is short
                values *= scales[:, None].expand(-1, size).reshape(-1)[:len(values)]
            else:
                values.view(-1, size).mul_(scales[:, None])
            if out is None:  # all in one go
                return values.view(self.shape).to(self.dtype)
            out[start:end] = values
        return out.view(self.shape)


@lru_cache(maxsize=32)
def byte_table(levels: tuple[float, ...], bits: int, device: torch.device) -> torch.Tensor:
    """The 8 / bits levels of every byte of codes, looked up at once: (256,) numbers as wide as they are together."""
    padded = torch.tensor([*levels, *[0.0] * (2**bits - len(levels))], device=device)
    return torch.cartesian_prod(*[padded] * (8 // bits)).view(WIDE[bits]).view(-1)


def whole_blocks(block_size: int) -> int:
    """How many values to take at a time: whole blocks whose packed codes end at the end of a byte, some CHUNK."""
    return 8 * block_size * max(1, CHUNK // (8 * block_size))


@torch.no_grad()
def quantize(x: torch.Tensor, codebook: torch.Tensor = NF4, block_size: int | None = 64, double_quant: bool = False, *,
             grid: bool = False) -> QuantizedTensor:
    """Quantize in blocks of `block_size` consecutive values: scale each block by its absmax, take the nearest level.

    x: any shape, floating point, finite. codebook: sorted levels in [-1, 1], 2 to 256. block_size None: one block for
    all of x; the last block may be short. double_quant: keep absmax minus its mean as 8-bit codes of `dynamic_map()`
    in blocks of 256, as bitsandbytes does on a CPU. grid: round to 65,536 points before the nearest level, as
    bitsandbytes' 8-bit kernel for CPUs does: with it, and only with it, its 8-bit codes are met bit for bit.
    An all-zero block comes back as zeros if the codebook has a zero.
    Source: Dettmers et al. 2021 (arXiv 2110.02861), section 2; double quantization: Dettmers et al. 2023 (arXiv
    2305.14314), section 3. Raises ValueError for an empty, non-float or non-finite x, a block size below 1, and a
    codebook that is not as said.
    """
    check_values(x)
    block_size = x.numel() if block_size is None else block_size
    if block_size < 1:
        raise ValueError(f"block_size={block_size}: take 1 or more, or None for one block")
    if codebook.ndim != 1 or not 2 <= len(codebook) <= 256:
        raise ValueError(f"codebook has shape {tuple(codebook.shape)}: give 2 to 256 levels in one dimension")
    codebook = codebook.to(x.device, torch.float32)
    if not (codebook.diff() > 0).all() or codebook[0] < -1 or codebook[-1] > 1:
        raise ValueError(f"codebook {codebook.tolist()} must rise from level to level within [-1, 1]: sort it, "
                         "take out doubles, divide it by its absmax")
    bits = (len(codebook) - 1).bit_length()
    values, packed, scales = x.reshape(-1), [], []
    for part in values.split(whole_blocks(block_size)):
        short = -len(part) % block_size  # of the last block
        blocks = pad(part.float(), (0, short)).view(-1, block_size) if short else part.float().view(-1, block_size)
        absmax = blocks.abs().amax(dim=1)
        scaled = blocks * (1 / torch.where(absmax > 0, absmax, 1))[:, None]  # as bitsandbytes; x / absmax differs
        tiny = (absmax > 0) & (absmax < 1e-38)  # whose reciprocal may be infinite
        if tiny.any():
            scaled[tiny] = blocks[tiny] / absmax[tiny, None]
        packed.append(pack(nearest_codes(scaled, codebook, grid).view(-1)[:len(part)], bits))
        scales.append(absmax)
    absmax, offset = torch.cat(scales), None
    if double_quant:
        offset = absmax.mean()
        if not torch.isfinite(offset):
            raise ValueError(f"scales up to {absmax.max():g} have no finite sum: scale x down, or double_quant=False")
        absmax = quantize(absmax - offset, dynamic_map(), 256, grid=True)
    return QuantizedTensor(torch.cat(packed), absmax, offset, codebook, block_size, x.shape, x.dtype)
