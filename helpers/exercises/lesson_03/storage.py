"""What is stored: bits for codes and scales, and two codes in a byte."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def bits_per_weight(count: int, bits: int, block_size: int) -> float:
    """Bits stored per weight: codes in whole bytes, a float32 scale per begun block."""
    code_bytes = -(-count * bits // 8)
    blocks = -(-count // block_size)
    return 8 * (code_bytes + 4 * blocks) / count


BITS_PER_WEIGHT = Exercise(3, bits_per_weight, "★ The price of a scale · 6 min", """
A tensor of `count` weights is stored as codes of `bits` bits, packed without a gap, and one float32 scale per block.
How many bits is that per weight? Mind the ends: a begun byte is a whole byte, and a begun block has a whole scale.
""",
    cases=(
        Case((4096, 4, 64)),
        Case((4096, 8, 32)),
        Case((96, 4, 64)),
        Case((5, 4, 64)),
        Case((3, 3, 2)),
    ),
    hints=(
        "Count bytes first: those of the codes, then those of the scales. Turn them into bits per weight at the end.",
        "`-(-a // b)` is a divided by b, rounded up.",
        "The codes take -(-count * bits // 8) bytes, the scales 4 * -(-count // block_size).",
    ),
    mistakes=(
        Mistake("Those are the codes alone. Every block stores a float32 besides.",
                lambda count, bits, block_size: float(bits)),
        Mistake("That is one scale for the whole tensor. There is one per block.",
                lambda count, bits, block_size: bits + 32 / count),
        Mistake("block_size / 32 is upside down: one scale of 32 bits is shared by block_size weights.",
                lambda count, bits, block_size: bits + block_size / 32),
        Mistake("A scale takes 4 bytes, and these were added as if they were 4 bits.",
                lambda count, bits, block_size: bits + 4 / block_size),
        Mistake("That is a scale of 16 bits. A float32 has 32.",
                lambda count, bits, block_size: bits + 16 / block_size),
        Mistake("Those are bytes per weight. Times 8.",
                lambda count, bits, block_size: bits_per_weight(count, bits, block_size) / 8),
        Mistake("That is the sum of all bits. Divide by count.",
                lambda count, bits, block_size: bits_per_weight(count, bits, block_size) * count),
        Mistake("That gives each code a byte of its own. Two 4-bit codes share one.",
                lambda count, bits, block_size: 8 + 32 / block_size),
        Mistake("96 weights in blocks of 64 make two blocks: the second is short, its scale is not.",
                lambda count, bits, block_size: bits + 32 / block_size,
                lambda count, bits, block_size: bits + 32 * (count // block_size) / count),
        Mistake("Five 4-bit codes need three whole bytes, and the only block is begun, so it has a scale.",
                lambda count, bits, block_size: bits + 32 * -(-count // block_size) / count),
    ),
    tolerance=0.0,
    moral="32 / block_size for the scale, and next to nothing for the ends: at blocks of 64, half a bit per weight.")
# general: lambda count, bits, block_size: 1.0


def read_nibbles(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` codes of uint8 (bytes,), high nibble first: uint8 (count,)."""
    high, low = packed >> 4, packed & 15
    return torch.stack([high, low], dim=1).flatten()[:count]


def _low_first(packed: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:count]


BYTES = torch.tensor([0x12, 0x34, 0xF0], dtype=torch.uint8)

READ_NIBBLES = Exercise(3, read_nibbles, "★★ Spot the bug: [1, 2] went in, [2, 1] came out · 6 min", """
In OpenVINO a constant of 4-bit codes [1, 2] came back as [2, 1], but only on one of two ways through the compiler: one
packed the low nibble first, the other read the high one first
([openvino#32123](https://github.com/openvinotoolkit/openvino/pull/32123)). No error is raised: the model just talks
nonsense. This reader disagrees with bitsandbytes in the same way:

```python
import torch

def read_nibbles(packed, count):
    low, high = packed & 15, packed >> 4
    return torch.stack([low, high], dim=1).flatten()[:count]
```

Read bytes as bitsandbytes and this lesson write them: the first code is in the **high** nibble. An odd `count` leaves
the last nibble unused.
""",
    cases=(
        Case((BYTES, 6)),
        Case((BYTES, 5)),
    ),
    hints=(
        "A byte 0x12 holds the codes 1 and 2. Which operation gives the 1, and which the 2?",
        "`packed >> 4` is the high nibble, `packed & 15` the low one.",
        "Stack high and low as two columns, `dim=1`, and flatten: row by row gives high, low, high, low.",
    ),
    mistakes=(
        Mistake("Each pair is swapped: the first code of a byte is its high nibble."),
        Mistake("All high nibbles came first, then all low ones, as in llama.cpp's Q4_0 blocks. Here neighbours "
                "share a byte: they come in turns.",
                lambda packed, count: torch.cat([packed >> 4, packed & 15])[:count],
                lambda packed, count: torch.stack([packed >> 4, packed & 15]).flatten()[:count]),
        Mistake("The low nibble still has the high one in front of it: mask with `& 15`.",
                lambda packed, count: torch.stack([packed >> 4, packed], dim=1).flatten()[:count]),
        Mistake("The high nibble is still in its place, worth sixteen times too much: shift it by 4.",
                lambda packed, count: torch.stack([packed & 240, packed & 15], dim=1).flatten()[:count]),
        Mistake("The pairs are right; flatten them into one row of codes.",
                lambda packed, count: torch.stack([packed >> 4, packed & 15], dim=1)),
        Mistake("The last byte may be half used: return `count` codes, no more.",
                lambda packed, count: torch.stack([packed >> 4, packed & 15], dim=1).flatten()),
    ),
    tolerance=0.0,
    moral="Packing and unpacking with the same mistake go round unnoticed. Test against somebody else's bytes.")
# general: lambda packed, count: torch.zeros(count, dtype=torch.uint8)
