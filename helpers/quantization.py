"""Block quantization with a codebook: absmax scales and the nearest level."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor as codes and scales.

    `codes` uint8 (blocks, block_size), the last block padded with the code of zero; `absmax` float32 (blocks,);
    `codebook` float32 (levels,); `shape` and `dtype` are the original's.
    """

    codes: torch.Tensor
    absmax: torch.Tensor
    codebook: torch.Tensor
    shape: torch.Size
    dtype: torch.dtype

    def dequantize(self) -> torch.Tensor:
        """Levels times scales, in the original's shape and dtype."""
        values = self.codebook[self.codes.long()] * self.absmax[:, None]  # (blocks, block_size)
        return values.flatten()[:self.shape.numel()].view(self.shape).to(self.dtype)


def quantize(x: torch.Tensor, codebook: torch.Tensor, block_size: int | None = 64) -> QuantizedTensor:
    """Quantize in blocks of `block_size` consecutive values: divide each block by its absmax, take the nearest level.

    x: any shape, floating point, finite. codebook: sorted levels in [-1, 1], at most 256. block_size None: one block
    for the whole tensor. Source: Dettmers et al. 2021 (arXiv 2110.02861), section 2. Raises ValueError for an empty,
    non-float or non-finite tensor and for a block size below 1.
    """
    if not x.is_floating_point():
        raise ValueError(f"x has dtype {x.dtype}: quantize takes floating point, call x.float() first")
    if x.numel() == 0:
        raise ValueError(f"x has shape {tuple(x.shape)} and no element: there is nothing to quantize")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinity: clean it first, for example with torch.nan_to_num")
    block_size = x.numel() if block_size is None else block_size
    if block_size < 1:
        raise ValueError(f"block_size={block_size}: take 1 or more, or None for one block")
    padding = -x.numel() % block_size
    blocks = torch.nn.functional.pad(x.float().flatten(), (0, padding)).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    scaled = blocks / torch.where(absmax > 0, absmax, 1)[:, None]
    boundaries = (codebook[1:] + codebook[:-1]) / 2
    codes = torch.bucketize(scaled, boundaries).to(torch.uint8)
    return QuantizedTensor(codes, absmax, codebook, x.shape, x.dtype)
