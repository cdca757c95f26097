"""Codebooks: sorted tables of levels in [-1, 1], one level per code, and the code of the level nearest to a value."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

GRID = 65535  # steps from -1 to 1 in the table of bitsandbytes' 8-bit kernel for CPUs


def integer(bits: int) -> torch.Tensor:
    """The levels of symmetric `bits`-bit integers, scaled to [-1, 1]: float32 (2**bits - 1,).

    The most negative integer is left out so that zero lies in the middle: int4 is -7 … 7, fifteen levels.
    Source: Jacob et al. 2017 (arXiv 1712.05877), section 3. Raises ValueError outside 2 to 8 bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}: symmetric integer codebooks have 2 to 8 bits")
    largest = 2 ** (bits - 1) - 1
    return torch.arange(-largest, largest + 1) / largest


def normal_float(bits: int) -> torch.Tensor:
    """The levels of NormalFloat, from quantiles of the standard normal distribution: float32 (2**bits,).

    One half runs from zero up in 2**(bits-1) steps, the other from zero down in one step fewer; they share the zero.
    The outermost quantile lies half a bin inside the end, averaged over 2**bits and 2**bits - 1 bins: for 4 bits
    1 - (1/32 + 1/30)/2 = 0.96770833. Agrees with `NF4` to 1e-6.
    Equation 4 of the paper gives other levels, and no zero.
    Source: Dettmers et al. 2023 (arXiv 2305.14314), section 3; `create_normal_map` of bitsandbytes.
    Raises ValueError outside 2 to 8 bits.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}: NormalFloat codebooks have 2 to 8 bits")
    bins, half = 2**bits, 2 ** (bits - 1)
    offset = 1 - (1 / (2 * bins) + 1 / (2 * (bins - 1))) / 2
    above = torch.special.ndtri(torch.linspace(0.5, offset, half + 1, dtype=torch.float64))  # zero and `half` levels
    below = -torch.special.ndtri(torch.linspace(0.5, offset, half, dtype=torch.float64))[1:]
    levels = torch.cat([below.flip(0), above])
    return (levels / levels[-1]).float()


def dynamic_map() -> torch.Tensor:
    """The signed 8-bit dynamic map in which bitsandbytes keeps the scales of double quantization: float32 (256,).

    Seven powers of ten, 10**-6 … 1; the power i has 2**i evenly spaced levels of each sign between a tenth of it and
    itself. To these come 0 and 1, so that the levels reach from -0.99297 to 1. It is not an FP8 format, as the QLoRA
    paper has it. Source: Dettmers 2015 (arXiv 1511.04561), section 3; `create_dynamic_map` of bitsandbytes.
    """
    levels = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        middles = 10 ** (i - 6) * (edges[:-1] + edges[1:]) / 2
        levels += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(levels))


def lloyd_max(samples: torch.Tensor, bits: int, pinned: Sequence[float] = (-1.0, 0.0, 1.0)) -> torch.Tensor:
    """The levels with the least mean squared error on `samples` that Lloyd's iteration finds: float32 (2**bits,).

    samples: any shape, in [-1, 1], such as weights divided by the absmax of their block. The levels start at quantiles
    of the samples; then each moves to the mean of the samples nearest to it, but for the `pinned` ones, until no level
    moves by more than 1e-7. -1 and 1 are what an absmax scale is made for, 0 is what keeps zeros.
    Source: Lloyd 1982 (IEEE Trans. Inf. Theory 28), method I; Max 1960.
    Raises ValueError for bits outside 2 to 8, for samples that are empty, not finite or outside [-1, 1], for more
    pinned levels than codes, and for samples with fewer distinct values than levels to place.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits={bits}: take 2 to 8")
    if samples.numel() == 0 or not (samples.abs() <= 1).all():  # NaN is not <= 1 either
        raise ValueError(f"samples of shape {tuple(samples.shape)} are not all in [-1, 1], or none: divide by "
                         "their absmax")
    if len(pinned) > 2**bits:
        raise ValueError(f"{len(pinned)} pinned levels do not fit into {2**bits} codes: pin fewer")
    ordered = samples.detach().flatten().double().sort().values
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])  # of the first 0, 1, … samples
    fixed = ordered.new_tensor(sorted(pinned))
    free = 2**bits - len(fixed)
    inner = ordered[~torch.isin(ordered, fixed)]
    if len(inner.unique()) < free:
        raise ValueError(f"samples hold {len(inner.unique())} values beside the pinned ones, too few for {free} levels")
    quantiles = inner[((torch.arange(free) + 0.5) / max(free, 1) * len(inner)).long()]
    if len(quantiles.unique()) < free:  # crowded samples: start from evenly spaced distinct ones
        quantiles = inner.unique()[torch.linspace(0, len(inner.unique()) - 1, free).long()]
    levels = torch.cat([fixed, quantiles]).sort().values
    held = torch.isin(levels, fixed)
    for _ in range(10_000):
        ends = torch.searchsorted(ordered, (levels[1:] + levels[:-1]) / 2, right=True)
        ends = torch.cat([ends.new_zeros(1), ends, ends.new_tensor([len(ordered)])])
        counts = ends.diff()
        means = sums[ends].diff() / counts.clamp(min=1)
        moved = torch.where(held | (counts == 0), levels, means)
        step = (moved - levels).abs().max()
        levels = moved
        if step <= 1e-7:
            break
    return levels.float()


# The table that bitsandbytes ships (functional.py, `get_4bit_type`), digit for digit. Seven levels below zero, eight
# above. Dettmers et al. 2023 (arXiv 2305.14314), appendix E.
NF4 = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0])

# Four bits as 1 sign, 2 exponent, 1 mantissa: ±(0, 0.5, 1, 1.5, 2, 3, 4, 6). The two zeros are one level, so 15 of 16.
# Open Compute Project, Microscaling Formats v1.0, section 5.3.3.
FP4_E2M1 = torch.tensor([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6]) / 6

# What bitsandbytes calls "fp4": its smallest level is 1/192, not 1/12. Again 15 levels; bitsandbytes numbers them by
# bit pattern, with a second pattern for zero. bitsandbytes, functional.py, `get_4bit_type`.
FP4_BNB = torch.tensor([-12, -8, -6, -4, -3, -2, -0.0625, 0, 0.0625, 2, 3, 4, 6, 8, 12]) / 12


@lru_cache(maxsize=32)
def bin_table(codebook: tuple[float, ...], device: torch.device) -> tuple[int, torch.Tensor, torch.Tensor] | None:
    """The table for `nearest_codes`: equal bins over [-1, 1], so narrow that none holds two boundaries between levels.

    n bins per unit, the least power of two that will do, so 2n + 1 with the one that holds the 1 itself. Of each bin:
    how many boundaries lie in bins before it, uint8, and the boundary in it, float32, infinity if there is none.
    None instead where n would pass 2**15: levels that lie too close together.
    """
    levels = torch.tensor(codebook, device=device)
    boundaries = (levels[1:] + levels[:-1]) / 2
    for n in [2**power for power in range(16)]:
        bins = ((boundaries + 1) * n).int()
        if (bins.diff() > 0).all():
            before = torch.bucketize(torch.arange(2 * n + 1, dtype=torch.int32, device=device), bins).to(torch.uint8)
            inside = torch.full((2 * n + 1,), torch.inf, device=device)
            inside[bins] = boundaries
            return n, before, inside
    return None


def nearest_codes(scaled: torch.Tensor, codebook: torch.Tensor, grid: bool = False) -> torch.Tensor:
    """The code of the level nearest to each value of `scaled`, the lower of two equally near: uint8 in its shape.

    scaled: float32, from -1 to 1. Its code is the number of boundaries below it: those in the bins before its own, and
    perhaps the one in its own. That is exact, however (scaled + 1) * n is rounded: a greater value is never in a lower
    bin. grid: round to GRID steps first, as bitsandbytes' 8-bit kernel for CPUs does.
    """
    boundaries = (codebook[1:] + codebook[:-1]) / 2
    if grid:
        points = torch.arange(GRID + 1, device=codebook.device) / GRID * 2 - 1
        codes = torch.bucketize(points, boundaries).to(torch.uint8)
        return codes[((scaled + 1) * 0.5 * GRID + 0.5).int()]
    table = bin_table(tuple(codebook.tolist()), codebook.device)
    if table is None:
        return torch.bucketize(scaled, boundaries, out_int32=True).to(torch.uint8)
    n, before, inside = table
    values = scaled.flatten()
    bins = (values + 1).mul_(n).int()
    above = values > inside.index_select(0, bins)
    return (before.index_select(0, bins) + above).view(scaled.shape)
