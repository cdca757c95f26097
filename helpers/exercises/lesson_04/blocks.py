"""Blocks: from weights to codes and back, and from the bytes of a library."""

from __future__ import annotations

import random

import torch

from helpers.codebooks import NF4
from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def nf4_round_trip(block: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One block through NF4: codes int64 and restored values float32, in its shape."""
    absmax = block.abs().max()
    scaled = block / absmax if absmax > 0 else block
    codes = torch.bucketize(scaled, (NF4[1:] + NF4[:-1]) / 2)
    return codes, NF4[codes] * absmax


FIFTEEN = torch.tensor([-1.0000, -0.6962, -0.5250, -0.3940, -0.2840, -0.1800, -0.0760, 0.0000,
                        0.0760, 0.1800, 0.2840, 0.3940, 0.5250, 0.6962, 1.0000])

NF4_ROUND_TRIP = Exercise(4, nf4_round_trip, "★★ Spot the bug: fifteen levels · 6 min", """
"How to implement normal float NF4?" somebody asked under the paper's own code, and this table is the answer that stands
there ([qlora#299](https://github.com/artidoro/qlora/issues/299)), here in torch. Cutting at midpoints is right.

```python
import torch

LEVELS = torch.tensor([-1.0000, -0.6962, -0.5250, -0.3940, -0.2840, -0.1800, -0.0760, 0.0000,
                       0.0760, 0.1800, 0.2840, 0.3940, 0.5250, 0.6962, 1.0000])

def nf4_round_trip(block):
    codes = torch.bucketize(block, (LEVELS[1:] + LEVELS[:-1]) / 2)
    return codes, LEVELS[codes]
```

It also takes for granted that the block was scaled already. Write it for one block of any size: scale by the absmax,
find the codes, restore. `NF4` is the right table. A block of nothing but zeros has the code of
level 0 everywhere, and comes back as zeros.
""",
    cases=((torch.tensor([-0.7, -0.2, 0.15, 0.9, 1.0]),),
           Case((torch.tensor([-1.75, -0.5, 0.375, 0.25, 2.5]),), "a block that is not scaled yet"),
           Case((torch.tensor([-3.0, 0.75, 0.3, 0.0]),), "a block whose largest magnitude is negative"),
           Case((torch.tensor([0.004, -0.001, 0.0]),), "very small numbers"),
           Case((torch.tensor([[0.5, -0.25], [2.0, 1.0]]),), "a block with rows"),
           Case((torch.zeros(4),), "nothing but zeros")),
    hints=("Count the levels of the table in the thread, and those that four bits can number.",
           "`absmax = block.abs().max()`; the codes are those of `block / absmax`, the values `NF4[codes] * absmax`.",
           "For an absmax of 0 do not divide: zeros have the code 7 as they are."),
    mistakes=(
        Mistake("Fifteen levels, mirrored: the last code is 14. NF4 has sixteen, eight of them above zero.",
                None, ("NF4", "FIFTEEN")),
        Mistake("Those levels are evenly spaced: that is not NF4.", ("NF4", "torch.linspace(-1, 1, 16)")),
        Mistake("Each value is the middle of its bin. A code stands for its level.", ("NF4[codes]", "(torch.cat(["
                 "NF4[:1], NF4, NF4[-1:]]).unfold(0, 3, 1) @ torch.tensor([0.25, 0.5, 0.25]))[codes]")),
        Mistake("Codes first, values second.", ("codes, NF4[codes] * absmax", "NF4[codes] * absmax, codes")),
        Mistake("The codes are those of a block that was not scaled to lie between -1 and 1.",
                ("/ absmax if absmax > 0 else block", "", " * absmax", ""), ("/ absmax if absmax > 0 else block", "")),
        Mistake("The scale is not the largest magnitude of the block.", (".abs().max()", ".abs().mean()"),
                (".abs().max()", ".std()"), (".abs().max()", ".norm()")),
        Mistake("The values still lie between -1 and 1: the scale was not undone.", (" * absmax", "")),
        Mistake("The scale is the largest value, not the largest magnitude.", (".abs().max()", ".max()"),
                (".abs().max()", ".max()", "absmax > 0", "absmax != 0")),
        Mistake("That rounds up, always: levels were taken for boundaries.", ("(NF4[1:] + NF4[:-1]) / 2", "NF4")),
        Mistake("Zeros have the code of the level 0, which is 7: the code 0 stands for -1.",
                ("return codes", "return codes * (absmax > 0)")),
        Mistake("0 / 0 is NaN, which lands in the last bin.", (" if absmax > 0 else block", "")),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 9)) * rng.choice((0.05, 1, 20)),),
    moral="On Gaussian weights the fifteen levels cost 7 % more root mean squared error, and a code is thrown away.")


def unpack_nf4(packed: torch.Tensor, absmax: torch.Tensor,
               block_size: int) -> torch.Tensor:
    """The weights of NF4: uint8 (n/2,), absmax float32 (blocks,) -> float32 (n,)."""
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten()
    return NF4[codes.int()] * absmax.repeat_interleave(block_size)[:len(codes)]


def _packed(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8)


def _draw(rng: random.Random) -> tuple[torch.Tensor, torch.Tensor, int]:
    count, block_size = rng.randint(1, 9), rng.choice((2, 4, 6, 8))
    return integers(rng, 0, 255, count, dtype=torch.uint8), normal(rng, -(-2 * count // block_size)).abs(), block_size


UNPACK_NF4 = Exercise(4, unpack_nf4, "★★ Spot the bug: two tables in one library · 7 min", """
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
    cases=(Case((_packed(0xD5, 0x2B, 0x9E), torch.tensor([1.0]), 8), "an absmax of 1: the levels themselves"),
           Case((_packed(0xD5, 0x2B, 0x9E), torch.tensor([3.0]), 8), "an absmax that is not 1"),
           Case((_packed(0x0F, 0x78, 0x3C, 0xE1), torch.tensor([2.0, 10.0]), 4), "a second block"),
           Case((_packed(0x0F, 0x78, 0x3C), torch.tensor([1.0, 10.0]), 4), "a last block that is short"),
           Case((_packed(0x0F, 0x78), torch.tensor([1.0, 0.0]), 2), "a block of zeros")),
    hints=("`packed >> 4` is the high half of each byte, `packed & 15` the low one. Which weight comes first?",
           "A code is an index into `NF4` itself. As an index it must not be uint8: `codes.int()`.",
           "`absmax.repeat_interleave(block_size)` gives every weight the absmax of its block; cut it to the length."),
    mistakes=(
        Mistake("The halves of each byte are swapped, and the numbers are midpoints, made for comparing."),
        Mistake("Those are midpoints, made for comparing. A code stands for its level.",
                ("NF4[codes", "torch.cat([(NF4[1:] + NF4[:-1]) / 2, torch.ones(1)])[codes")),
        Mistake("The halves of each byte are swapped: the first weight is in the high one.",
                ("packed >> 4, packed & 15", "packed & 15, packed >> 4")),
        Mistake("The levels are right; they lack the absmax of their block.",
                (" * absmax.repeat_interleave(block_size)[:len(codes)]", "")),
        Mistake("Dividing by the absmax is the way in, not the way back.", ("* absmax", "/ absmax")),
        Mistake("All high halves come first here, then all low ones.", ("dim=1", "dim=0")),
        Mistake("torch takes a uint8 index for a mask, not for numbers of places.", ("codes.int()", "codes")),
        Mistake("That does not cut into whole blocks: the last one is short.",
                ("* absmax.repeat_interleave(block_size)[:len(codes)]", ".view(-1, block_size) * absmax[:, None]")),
        Mistake("Each block has its own absmax. Here one was used for all.",
                ("absmax.repeat_interleave(block_size)[:len(codes)]", "absmax.max()"),
                ("absmax.repeat_interleave(block_size)[:len(codes)]", "absmax[0]")),
        Mistake("The absmax alternate from weight to weight: a, b, a, b, …", ("repeat_interleave", "repeat")),
        Mistake("Blocks are counted in bytes. `block_size` is a number of weights, two to a byte.",
                ("(block_size)", "(2 * block_size)"), ("(block_size)", "(block_size // 2)")),
        Mistake("A byte holds two weights; only one of each came out.",
                ("codes.int()", "codes.int()[::2]", "[:len(codes)]", "[:len(codes):2]")),
    ),
    draw=_draw,
    moral="Midpoints on the way in, levels on the way out: this is bitsandbytes' layout, byte for byte.")
