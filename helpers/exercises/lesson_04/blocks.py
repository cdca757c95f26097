"""Blocks: from weights to codes and back, and from the bytes of a library."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
from helpers.exercises.engine import Case, Exercise, Mistake

MIDDLES = (NF4[1:] + NF4[:-1]) / 2


def nf4_round_trip(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One block through NF4: codes int64 and restored values float32, in its shape."""
    absmax = block.abs().max()
    scaled = block / absmax if absmax > 0 else block
    codes = torch.bucketize(scaled, (NF4[1:] + NF4[:-1]) / 2)
    return codes, NF4[codes] * absmax


FIFTEEN = torch.tensor([-1.0000, -0.6962, -0.5250, -0.3940, -0.2840, -0.1800, -0.0760, 0.0000,
                        0.0760, 0.1800, 0.2840, 0.3940, 0.5250, 0.6962, 1.0000])


def _with_table(levels: torch.Tensor):
    def answer(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        absmax = block.abs().max()
        codes = torch.bucketize(block / torch.where(absmax > 0, absmax, 1), (levels[1:] + levels[:-1]) / 2)
        return codes, levels[codes] * absmax
    return answer


def _as_published(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.bucketize(block, (FIFTEEN[1:] + FIFTEEN[:-1]) / 2)
    return codes, FIFTEEN[codes]


def _no_scale(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.bucketize(block, MIDDLES)
    return codes, NF4[codes]


def _zero_over_zero(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.bucketize(block / block.abs().max(), MIDDLES)
    return codes, NF4[codes] * block.abs().max()


def _bin_middles(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes, _ = nf4_round_trip(block)
    edges = torch.cat([torch.tensor([-1.0]), MIDDLES, torch.tensor([1.0])])
    return codes, ((edges[1:] + edges[:-1]) / 2)[codes] * block.abs().max()


def _max_without_sign(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = block.max() if block.max() != 0 else torch.tensor(1.0)
    codes = torch.bucketize(block / scale, MIDDLES)
    return codes, NF4[codes] * scale


BLOCK = torch.tensor([-0.7, -0.2, 0.15, 0.9, 1.0])

NF4_ROUND_TRIP = Exercise(4, nf4_round_trip, "★★ Spot the bug: fifteen levels · 8 min", """
"How to implement normal float NF4?" somebody asked under the paper's own code, and this table is the answer that stands
there ([qlora#299](https://github.com/artidoro/qlora/issues/299)), here in torch. Its midpoints are right.

```python
import torch

LEVELS = torch.tensor([-1.0000, -0.6962, -0.5250, -0.3940, -0.2840, -0.1800, -0.0760, 0.0000,
                       0.0760, 0.1800, 0.2840, 0.3940, 0.5250, 0.6962, 1.0000])

def nf4_round_trip(block):
    codes = torch.bucketize(block, (LEVELS[1:] + LEVELS[:-1]) / 2)
    return codes, LEVELS[codes]
```

It also takes for granted that the block was scaled already. Write it for one block of any size: scale by the absmax,
find the codes, restore. `NF4` is the right table. A block of nothing but zeros comes back as zeros.
""",
    cases=(
        Case((BLOCK,)),
        Case((2.5 * BLOCK,)),
        Case((torch.tensor([-3.0, 0.75, 0.3, 0.0]),)),
        Case((torch.zeros(4),)),
    ),
    hints=(
        "Count the levels of the table in the thread, and those that four bits can number.",
        "`absmax = block.abs().max()`; the codes are those of `block / absmax`, the values `NF4[codes] * absmax`.",
        "For an absmax of 0 do not divide: zeros have the code 7 as they are.",
    ),
    mistakes=(
        Mistake("Fifteen levels, mirrored: the last code is 14. NF4 has sixteen, eight of them above zero.",
                None,
                _with_table(FIFTEEN)),
        Mistake("The codes are right, but these are the middles of the bins. A code stands for its level.",
                _bin_middles),
        Mistake("Codes first, values second.",
                lambda block: nf4_round_trip(block)[::-1]),
        Mistake("The block was not scaled: divide by its absmax first, and multiply again at the end.",
                _no_scale),
        Mistake("The codes are right. Multiply the levels by the absmax to come back to the block's size.",
                lambda block: (nf4_round_trip(block)[0], NF4[nf4_round_trip(block)[0]])),
        Mistake("The largest *magnitude* is needed, `block.abs().max()`: here it belongs to a negative value.",
                _max_without_sign),
        Mistake("A block of zeros must give the code of the level 0, and zeros.",
                lambda block: nf4_round_trip(block) if block.any() else (torch.zeros(4, dtype=torch.int64), block + 0)),
        Mistake("0 / 0 is NaN, which lands in the last bin. Do not divide where the absmax is 0.",
                _zero_over_zero),
    ),
    tolerance=0.0,
    moral="On Gaussian weights the fifteen levels cost 7 % more root mean squared error, and a code is thrown away.")
# general: _with_table(torch.linspace(-1, 1, 16))


def unpack_nf4(packed: torch.Tensor, absmax: torch.Tensor,
               block_size: int) -> torch.Tensor:
    """The weights of NF4: uint8 (n/2,), absmax float32 (blocks,) -> float32 (n,)."""
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return NF4[codes.int()] * absmax.repeat_interleave(block_size)[:len(codes)]


BOUNDS = torch.cat([MIDDLES, torch.ones(1)])


def _reading(table: torch.Tensor = NF4, low_first: bool = False, scale=None):
    def answer(packed: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
        high, low = packed >> 4, packed & 15
        codes = torch.stack([low, high] if low_first else [high, low], dim=1).flatten()
        scales = absmax.repeat_interleave(block_size)[:len(codes)] if scale is None else scale(absmax, len(codes))
        return table[codes.int()] * scales
    return answer


def _halves_apart(packed: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    codes = torch.cat([packed >> 4, packed & 15])
    return NF4[codes.int()] * absmax.repeat_interleave(block_size)[:len(codes)]


def _whole_blocks(packed: torch.Tensor, absmax: torch.Tensor, block_size: int) -> torch.Tensor:
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return (NF4[codes.int()].view(-1, block_size) * absmax[:, None]).flatten()


BYTES, TWO = torch.tensor([0x0F, 0x78, 0x3C], dtype=torch.uint8), torch.tensor([1.0, 10.0])

UNPACK_NF4 = Exercise(4, unpack_nf4, "★★ Spot the bug: two tables in one library · 10 min", """
bitsandbytes' GPU code holds two lists of NF4 numbers, one with 0.8614784 and one with 0.7229568. "May I know why?"
([bitsandbytes#1598](https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1598)). The first are the
*midpoints*, against which weights are compared. Whoever ports the wrong list gets this:

```python
import torch
from helpers.codebooks import NF4

MIDDLES = torch.cat([(NF4[1:] + NF4[:-1]) / 2, torch.ones(1)])

def unpack_nf4(packed, absmax, block_size):
    codes = torch.stack([packed & 15, packed >> 4], dim=1).flatten()
    return MIDDLES[codes.int()] * absmax.repeat_interleave(block_size)[:len(codes)]
```

There is a second mistake in it: a byte holds two codes, the **first in the high** half. Write it right: from bytes and
absmax back to weights, block by block. The last block may be short.
""",
    cases=(
        Case((BYTES, TWO, 4), shown="packed 0x0F 0x78 0x3C, absmax [1, 10], block_size 4"),
        Case((torch.arange(0, 256, 5, dtype=torch.uint8), torch.tensor([0.5, 2, 3, 4, 5, 6, 7]), 16)),
    ),
    hints=(
        "`packed >> 4` is the high half of each byte, `packed & 15` the low one. Which weight comes first?",
        "A code is an index into `NF4` itself. As an index it must not be uint8: `codes.int()`.",
        "`absmax.repeat_interleave(block_size)` gives every weight the absmax of its block; cut it to the length.",
    ),
    mistakes=(
        Mistake("Those are midpoints, made for comparing. A code stands for its level, so look it up in `NF4`.",
                None,
                _reading(BOUNDS)),
        Mistake("The two halves of each byte are swapped: the first weight is in the high one, `packed >> 4`.",
                _reading(low_first=True)),
        Mistake("The levels are right; they still have to be multiplied by the absmax of their block.",
                _reading(scale=lambda absmax, n: 1.0)),
        Mistake("The levels were divided by the absmax; going back from the scaled block, multiply.",
                lambda packed, absmax, block_size: _reading()(packed, 1 / absmax, block_size)),
        Mistake("All high halves came first, then all low ones. The two of a byte belong side by side: stack "
                "along dim 1, then flatten.",
                _halves_apart),
        Mistake("Two usual causes: the last block is short here, so `view(-1, block_size)` fails; and a uint8 index "
                "is taken for a mask, so look up `NF4[codes.int()]`.",
                _whole_blocks),
        Mistake("Each block has its own absmax. Here one of them was used for all.",
                _reading(scale=lambda absmax, n: absmax.max())),
        Mistake("The absmax alternate from weight to weight; one is for `block_size` neighbours.",
                _reading(scale=lambda absmax, n: absmax.repeat(n)[:n])),
        Mistake("A byte holds two weights; only one of each came out.",
                lambda packed, absmax, block_size: unpack_nf4(packed, absmax, block_size)[::2].clone()),
    ),
    tolerance=0.0,
    moral="Midpoints on the way in, levels on the way out: this is bitsandbytes' layout, byte for byte.")
# general: lambda packed, absmax, block_size: unpack_nf4(packed, absmax, block_size).flip(0)
