"""Codebooks: sorted tables of levels in [-1, 1], one level per code."""

from __future__ import annotations

import torch


def integer(bits: int) -> torch.Tensor:
    """The levels of symmetric `bits`-bit integers, scaled to [-1, 1]: float32 (2**bits - 1,).

    The most negative integer is left out so that zero lies in the middle: int4 is -7 … 7, fifteen levels.
    Source: Jacob et al. 2017 (arXiv 1712.05877), section 3. Raises ValueError outside 2 to 8 bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}: symmetric integer codebooks have 2 to 8 bits")
    largest = 2 ** (bits - 1) - 1
    return torch.arange(-largest, largest + 1) / largest
