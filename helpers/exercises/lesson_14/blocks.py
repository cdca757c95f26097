"""Bytes of four-bit formats: a block of a GGUF file, and the three orders in which two codes share a byte."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def q4_1_values(block: torch.Tensor) -> torch.Tensor:
    """The 32 weights of one Q4_1 block: uint8 (20,) -> float32 (32,)."""
    d, m = block[:4].view(torch.float16).float()
    codes = torch.cat([block[4:] & 15, block[4:] >> 4])
    return d * codes + m


def _block(d: float, m: float, low: list[int], high: list[int]) -> tuple[torch.Tensor]:
    header = torch.tensor([d, m], dtype=torch.float16).view(torch.uint8)
    return (torch.cat([header, torch.tensor(low) | torch.tensor(high) << 4]).to(torch.uint8),)


def _drawn(rng: random.Random) -> tuple[torch.Tensor]:
    low, high = (integers(rng, 0, 15, 16).tolist() for _ in range(2))
    return _block(rng.randint(1, 64) / 256, -rng.randint(0, 64) / 32, low, high)


RISING, FALLING = list(range(16)), list(range(15, -1, -1))
HEADER, CODES = "block[:4].view(torch.float16).float()", "torch.cat([block[4:] & 15, block[4:] >> 4])"

Q4_1_VALUES = Exercise(14, q4_1_values, "★★ Build: a block of Q4_1 · 5 min", """
20 bytes hold 32 weights. Bytes 0 and 1 are a float16 number d, bytes 2 and 3 a float16 number m, in the byte order of
your machine. Then come 16 bytes of codes, from 0 to 15: the *low* four bits of the first byte are the code of weight 0,
of the second byte of weight 1, and so on to weight 15; the *high* four bits are those of the weights 16 to 31. A weight
is d · code + m. Return the 32 weights.
""",
    cases=(
        Case(_block(1.0, 0.0, RISING, RISING), about="d = 1 and m = 0, both halves alike"),
        Case(_block(1.0, 0.0, RISING, [0] * 16), about="a second half of zeros"),
        Case(_block(1.0, 0.0, RISING, FALLING), about="halves that differ"),
        Case(_block(0.25, 0.0, RISING, FALLING), about="d = 1/4"),
        Case(_block(0.25, -2.0, RISING, FALLING), about="m = -2"),
        Case(_block(0.3, -0.7, RISING, FALLING), about="d and m that float16 has only roughly"),
    ),
    draw=_drawn,
    hints=("Three pieces: `block[:2]`, `block[2:4]` and `block[4:]`.",
           "`block[:4].view(torch.float16)` reads the same four bytes as two numbers. `x & 15` keeps the low four "
           "bits, `x >> 4` moves the high four down.",
           "`torch.cat([block[4:] & 15, block[4:] >> 4])` are the codes, in the order of the weights."),
    mistakes=(
        Mistake("The codes of a byte were put side by side, as bitsandbytes and torch do. Here the second one belongs "
                "16 places further on.",
                (CODES, "torch.stack([block[4:] & 15, block[4:] >> 4], dim=1).flatten()"),
                (CODES, "torch.stack([block[4:] >> 4, block[4:] & 15], dim=1).flatten()")),
        Mistake("The halves are exchanged: the low four bits are the first sixteen weights.",
                (CODES, "torch.cat([block[4:] >> 4, block[4:] & 15])")),
        Mistake("The high four bits were not moved down: they count sixteen times too much.",
                (CODES, "torch.cat([block[4:] & 15, block[4:] & 240])")),
        Mistake("m is missing: it is the least weight of the block, added to every one.", (" + m", "")),
        Mistake("m was added before d was multiplied: it has no scale.", ("d * codes + m", "d * (codes + m)")),
        Mistake("d and m are exchanged: the scale stands first.", ("d, m =", "m, d =")),
        Mistake("Only one half of each byte was read: it holds two codes, so 16 bytes are 32 weights.",
                (CODES, "block[4:] & 15"), (CODES, "block[4:] >> 4")),
        Mistake("d is the step from one code to the next, neither the greatest weight nor the distance to it: nothing "
                "is divided by 15 or 16.", ("d * codes + m", "m + (d - m) * codes / 15"),
                ("d * codes", "d * codes / 15"), ("d * codes", "d * codes / 16")),
        Mistake("m counts twice: it is added once, to d · code.", ("codes + m", "codes + 2 * m")),
        Mistake("m is subtracted; it is added.", ("codes + m", "codes - m")),
        Mistake("It was computed in float16: only d and m are stored so, the weights are float32.",
                ("d * codes + m", "(d.half() * codes + m.half()).float()")),
        Mistake("The codes were read two bytes too early, where m stands: they begin at byte 4.",
                (CODES, "torch.cat([block[2:18] & 15, block[2:18] >> 4])")),
        Mistake("Codes from 8 on were read as negative: they run from 0 to 15, and m says where they begin.",
                (CODES, CODES + "\n    codes = torch.where(codes > 7, codes.float() - 16, codes)")),
        Mistake("8 was taken from the codes, as in Q4_0: in Q4_1 m says where they begin.",
                ("d * codes", "d * (codes.float() - 8)")),
        Mistake("The header was read as integers: its bytes are two float16 numbers.",
                (HEADER, "block[:4].view(torch.int16).float()")),
        Mistake("The two bytes of d and m are exchanged: the machine's own order is the file's.",
                (HEADER, "block[:4].view(2, 2).flip(1).flatten().view(torch.float16).float()")),
        Mistake("The header was read as bfloat16: that has as many bits, and other exponents.",
                (HEADER, "block[:4].view(torch.bfloat16).float()")),
        Mistake("The result stayed in float16: float32 is wanted.", (".float()\n", "\n")),
    ),
    moral="A block carries its own scale and its own zero: what lies 20 bytes further on is another block.")


def codes_in_order(packed: torch.Tensor, order: str) -> torch.Tensor:
    """The codes in the order of their weights: uint8 (n / 2,) -> uint8 (n,)."""
    low, high = packed & 15, packed >> 4
    if order == "halves":
        return torch.cat([low.view(-1, 16), high.view(-1, 16)], dim=1).flatten()
    pairs = [high, low] if order == "high first" else [low, high]
    return torch.stack(pairs, dim=1).flatten()


def _packed(rng: random.Random, blocks: int, order: str) -> tuple[torch.Tensor, str]:
    return integers(rng, 0, 255, 16 * blocks, dtype=torch.uint8), order


HALVES = "torch.cat([low.view(-1, 16), high.view(-1, 16)], dim=1).flatten()"
CODES_IN_ORDER = Exercise(14, codes_in_order, "★★ Spot the bug: the other nibble first · 4 min", """
Two codes share a byte, and nobody can tell from a byte which comes first. One library's FP4 stood the other way round
than torch's ([ao#3123](https://github.com/pytorch/ao/pull/3123)). Read in the wrong order, the weights have the right
mean, the right absmax and the right histogram, and the model babbles. In short:

```python
import torch

def codes_in_order(packed, order):
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()
```

Let it read all three orders: `"high first"` (bitsandbytes: the first code of a byte in its high four bits),
`"low first"` (torch.float4_e2m1fn_x2), and `"halves"` (GGUF: every 16 bytes are a block of 32 codes, first the sixteen
low ones, then the sixteen high ones). The number of bytes is a multiple of 16.
""",
    cases=(
        Case((torch.arange(16, dtype=torch.uint8) * 16 + 1, "high first")),
        Case((torch.arange(16, dtype=torch.uint8) * 16 + 1, "low first"), about="the low four bits first"),
        Case((torch.arange(16, dtype=torch.uint8) * 16 + 1, "halves"), about="a block in halves"),
        Case(_packed(random.Random(1), 2, "halves"), about="two blocks in halves"),
        Case(_packed(random.Random(2), 2, "low first"), about="all bits in use"),
    ),
    draw=lambda rng: _packed(rng, rng.randint(1, 3), rng.choice(("high first", "low first", "halves"))),
    hints=("`low = packed & 15` and `high = packed >> 4` are the same in all three; only their order differs.",
           "`torch.stack([a, b], dim=1).flatten()` takes one of each in turn, `torch.cat([a, b])` all of a, then all "
           "of b.",
           "For the halves view both as (blocks, 16), and join them along the second dimension."),
    mistakes=(
        Mistake("The order is not looked at: everything was read with the high four bits first."),
        Mistake("Low and high are exchanged in the two side-by-side orders.",
                ('order == "high first"', 'order == "low first"')),
        Mistake("Halves of the whole tensor were joined: every block of 16 bytes has its own two.",
                (HALVES, "torch.cat([low, high])")),
        Mistake("In the halves the high four bits came first.",
                (HALVES, "torch.cat([high.view(-1, 16), low.view(-1, 16)], dim=1).flatten()")),
        Mistake("The halves were read like the low-first order: their second code belongs 16 places further on.",
                (HALVES, "torch.stack([low, high], dim=1).flatten()")),
        Mistake("The halves were read like the high-first order: their second code belongs 16 places further on.",
                (HALVES, "torch.stack([high, low], dim=1).flatten()")),
        Mistake("In the two side-by-side orders all codes of one half of the bytes came first: the two codes of a byte "
                "follow each other.", ("torch.stack(pairs, dim=1).flatten()", "torch.cat(pairs)")),
        Mistake("The high four bits were not moved down.", ("packed >> 4", "packed & 240")),
        Mistake("The codes are right and in a table of rows: one row of n is wanted.",
                ("dim=1).flatten()", "dim=1)")),
    ),
    moral="A checksum of the weights would not have told: only their places are wrong. Compare a few values, by place.")
