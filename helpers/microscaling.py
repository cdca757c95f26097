"""Four bits after NF4: MXFP4 and NVFP4, small blocks of E2M1 floats that share an eight-bit scale.

    q = mxfp4_quantize(x)   blocks of 32, the scale a power of two: 4.25 bits per weight
    q = nvfp4_quantize(x)   blocks of 16, the scale an E4M3 float beside one float32 for the tensor: 4.5 bits
    q.dequantize()          float32, in x's shape

Blocks lie along the last dimension, as matrix units read them. Sources: Open Compute Project, Microscaling Formats
v1.0, sections 5.2, 5.3.3 and 6.3 (MXFP4); NVIDIA 2025, "Pretraining Large Language Models with NVFP4" (arXiv
2509.25149), section 2 and its appendix on quantization.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from helpers.floats import FP4_E2M1, FP8_E4M3, FloatFormat, decode, encode, exponent_of, power_of_two
from helpers.quantization import check_values

E8M0_BIAS = 127  # a pattern p of E8M0 is 2**(p - 127), from 2**-127 to 2**127; 255 is NaN, and zero there is none
MX_BLOCK, NV_BLOCK = 32, 16


@dataclass(frozen=True)
class MicroscaledTensor:
    """A tensor in MXFP4 or NVFP4, as it is stored.

    `packed` uint8 (…, n / 2): two E2M1 patterns in a byte, the first in the *low* nibble, as in torch.float4_e2m1fn_x2
    (bitsandbytes has it in the high one). `scales` uint8 (…, n / block_size): patterns of `scale_format`, FP8_E4M3, or
    None for E8M0. `tensor_scale`: float32 scalar, by which all scales are multiplied; 1 in MXFP4.
    """

    packed: torch.Tensor
    scales: torch.Tensor
    tensor_scale: torch.Tensor
    block_size: int
    scale_format: FloatFormat | None

    @property
    def codes(self) -> torch.Tensor:
        """The E2M1 patterns, unpacked: uint8 (…, n), 0 to 15."""
        return torch.stack([self.packed & 15, self.packed >> 4], dim=-1).flatten(-2)

    @property
    def block_scales(self) -> torch.Tensor:
        """What each block's levels are multiplied by: float32 (…, n / block_size)."""
        if self.scale_format is None:
            return decode_e8m0(self.scales)
        return decode(self.scales, self.scale_format) * self.tensor_scale

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales, and four for the scale of the tensor where there is one."""
        return self.packed.nbytes + self.scales.nbytes + (0 if self.scale_format is None else self.tensor_scale.nbytes)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored per value: 4.25 in MXFP4; 4.5 in NVFP4, and a little for the tensor's scale."""
        return 8 * self.nbytes / (2 * self.packed.numel())

    def dequantize(self) -> torch.Tensor:
        """Levels times scales, taken in float32, in the shape that was quantized."""
        codes = self.codes
        blocks = decode(codes, FP4_E2M1).unflatten(-1, (-1, self.block_size))
        return (blocks * self.block_scales[..., None]).view(codes.shape)


def encode_e8m0(magnitude: torch.Tensor) -> torch.Tensor:
    """The E8M0 pattern of the greatest power of two that is no greater: uint8, same shape. magnitude: float ≥ 0.

    Below 2**-127, zero included, it is 0 (the least power there is). Source: Microscaling Formats v1.0, section 5.4.1.
    """
    return (exponent_of(magnitude.double()).clamp(-E8M0_BIAS, E8M0_BIAS) + E8M0_BIAS).to(torch.uint8)


def decode_e8m0(patterns: torch.Tensor) -> torch.Tensor:
    """The powers of two that E8M0 patterns stand for: float32, same shape; NaN for 255. patterns: uint8."""
    value = power_of_two(patterns.long() - E8M0_BIAS).float()
    return torch.where(patterns == 255, torch.nan, value)


@torch.no_grad()
def mxfp4_quantize(x: torch.Tensor) -> MicroscaledTensor:
    """MXFP4: x (…, n), n a multiple of 32, in blocks of 32 E2M1 values with a power of two as scale.

    The scale is 2**(e - 2), where 2**e is the greatest power of two in the block's absmax and 2 the exponent of E2M1's
    largest value, 6 = 1.5 * 2**2. What lies beyond 6 scales becomes 6 (absmax may reach 8 of them).
    Source: Microscaling Formats v1.0, section 6.3. Raises ValueError for x that is empty, not floating point or not
    finite, and for n that is not a multiple of 32.
    """
    blocks = _blocks(x, MX_BLOCK)
    scales = encode_e8m0(blocks.abs().amax(dim=-1).double() / 4)  # 4 is 2**2
    codes = encode(blocks.double() / decode_e8m0(scales).double()[..., None], FP4_E2M1)
    return MicroscaledTensor(_pack(codes.flatten(-2)), scales, torch.tensor(1.0), MX_BLOCK, None)


@torch.no_grad()
def nvfp4_quantize(x: torch.Tensor, tensor_scale: float | None = None) -> MicroscaledTensor:
    """NVFP4: x (…, n), n a multiple of 16, in blocks of 16 E2M1 values with an E4M3 scale.

    Two scales: block_scale = E4M3(absmax of the block / 6 / tensor_scale), and tensor_scale = absmax of x / (6 * 448),
    so that the block with the largest value gets the largest E4M3 value, 448. A block_scale is never rounded down to
    zero: E4M3's least value takes its place. tensor_scale: another one, in the unit of x; 1 to do without.
    Source: arXiv 2509.25149, appendix. Raises ValueError as `mxfp4_quantize` does, for n that is not a multiple of
    16, and for a tensor_scale that is not a positive number, or under which a block's scale would pass 448.
    """
    blocks = _blocks(x, NV_BLOCK)
    absmax = blocks.abs().amax(dim=-1)
    scale = absmax.amax() / (FP4_E2M1.max * FP8_E4M3.max) if tensor_scale is None else torch.tensor(float(tensor_scale))
    if tensor_scale is None:
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    elif not (torch.isfinite(scale) and scale > 0):
        raise ValueError(f"tensor_scale={tensor_scale!r}: take a positive number, or None for absmax / 2688")
    wanted = (absmax / FP4_E2M1.max) / scale
    if wanted.amax() > FP8_E4M3.max * (1 + 2**-10):
        raise ValueError(f"tensor_scale={tensor_scale!r}: a block would need the scale {wanted.amax().item():g}, and "
                         f"E4M3 ends at 448; take at least {absmax.amax().item() / (6 * 448):g}")
    scales = encode(wanted.clamp(min=FP8_E4M3.min_subnormal), FP8_E4M3).to(torch.uint8)
    steps = decode(scales, FP8_E4M3) * scale
    codes = encode(blocks / steps[..., None], FP4_E2M1)
    return MicroscaledTensor(_pack(codes.flatten(-2)), scales, scale, NV_BLOCK, FP8_E4M3)


def _blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """x in float32 as (…, n / size, size)."""
    check_values(x)
    if x.dim() == 0 or x.shape[-1] % size:
        raise ValueError(f"x has shape {tuple(x.shape)}: its last dimension must be a multiple of {size}, for a block "
                         "does not run over the end of a row; pad it with zeros")
    return x.detach().float().unflatten(-1, (-1, size))


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """Two E2M1 patterns to a byte, the first in the low nibble: (…, n) -> uint8 (…, n / 2)."""
    return (codes[..., 0::2] | codes[..., 1::2] << 4).to(torch.uint8)
