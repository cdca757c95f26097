"""What is stored: bits for codes and scales, and two codes in a byte."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise


def bits_per_weight(count: int, bits: int, block_size: int) -> float:
    """Bits stored per weight: codes in whole bytes, a float32 scale per begun block."""
    code_bytes = -(-count * bits // 8)
    blocks = -(-count // block_size)
    return 8 * (code_bytes + 4 * blocks) / count


BITS_PER_WEIGHT = Exercise(
    lesson=3,
    title="The price of a scale",
    stars=1,
    minutes=6,
    prompt="""
A tensor of `count` weights is stored as codes of `bits` bits, packed without a gap, and one float32 scale per block.
How many bits is that per weight? Mind the ends: a begun byte is a whole byte, and a begun block has a whole scale.
""",
    solution=bits_per_weight,
    cases=(
        Case((4096, 4, 64), "general", {
            "no_scale": 4.0, "one_scale": 4 + 32 / 4096, "upside_down": 6.0, "scale_in_bytes": 4.0625,
            "half_scale": 4.25, "bytes": 0.5625, "total": 18432.0, "unpacked": 8.5,
        }),
        Case((4096, 8, 32), "general"),
        Case((96, 4, 64), "last_block", {
            "last_block": lambda got: min(abs(got - 4.5), abs(got - 4 - 1 / 3)) < 1e-6,
        }),
        Case((5, 4, 64), "last_byte", {"last_byte": lambda got: abs(got - 10.4) < 1e-6}),
        Case((3, 3, 2), "general"),
    ),
    hints=(
        "Count bytes first: those of the codes, then those of the scales. Turn them into bits per weight at the end.",
        "`-(-a // b)` is a divided by b, rounded up.",
        "The codes take -(-count * bits // 8) bytes, the scales 4 * -(-count // block_size).",
    ),
    diagnoses={
        "general": "8 × (bytes of codes + 4 × blocks) / count, with bytes and blocks rounded up.",
        "no_scale": "Those are the codes alone. Every block stores a float32 besides.",
        "one_scale": "That is one scale for the whole tensor. There is one per block.",
        "upside_down": "block_size / 32 is upside down: one scale of 32 bits is shared by block_size weights.",
        "scale_in_bytes": "A scale takes 4 bytes, and these were added as if they were 4 bits.",
        "half_scale": "That is a scale of 16 bits. A float32 has 32.",
        "bytes": "Those are bytes per weight. Times 8.",
        "total": "That is the sum of all bits. Divide by count.",
        "unpacked": "That gives each code a byte of its own. Two 4-bit codes share one.",
        "last_block": "96 weights in blocks of 64 make two blocks: the second is short, its scale is not.",
        "last_byte": "Five 4-bit codes need three whole bytes, and the only block is begun, so it has a scale.",
    },
    wrong=(
        (lambda count, bits, block_size: float(bits), "no_scale"),
        (lambda count, bits, block_size: bits + 32 / count, "one_scale"),
        (lambda count, bits, block_size: bits + block_size / 32, "upside_down"),
        (lambda count, bits, block_size: bits + 4 / block_size, "scale_in_bytes"),
        (lambda count, bits, block_size: bits + 16 / block_size, "half_scale"),
        (lambda count, bits, block_size: bits_per_weight(count, bits, block_size) / 8, "bytes"),
        (lambda count, bits, block_size: bits_per_weight(count, bits, block_size) * count, "total"),
        (lambda count, bits, block_size: 8 + 32 / block_size, "unpacked"),
        (lambda count, bits, block_size: bits + 32 / block_size, "last_block"),
        (lambda count, bits, block_size: bits + 32 * (count // block_size) / count, "last_block"),
        (lambda count, bits, block_size: bits + 32 * -(-count // block_size) / count, "last_byte"),
        (lambda count, bits, block_size: 1.0, "general"),
    ),
    moral="32 / block_size for the scale, and next to nothing for the ends: at blocks of 64, half a bit per weight.",
)


def read_nibbles(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` codes of uint8 (bytes,), high nibble first: uint8 (count,)."""
    high, low = packed >> 4, packed & 15
    return torch.stack([high, low], dim=1).flatten()[:count]


def _low_first(packed: torch.Tensor, count: int) -> torch.Tensor:
    return torch.stack([packed & 15, packed >> 4], dim=1).flatten()[:count]


BYTES = torch.tensor([0x12, 0x34, 0xF0], dtype=torch.uint8)

READ_NIBBLES = Exercise(
    lesson=3,
    title="Spot the bug: [1, 2] went in, [2, 1] came out",
    stars=2,
    minutes=6,
    imports="import torch",
    prompt="""
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
    solution=read_nibbles,
    cases=(
        Case((BYTES, 6), "general", {
            "low_first": _low_first(BYTES, 6), "halves": torch.tensor([1, 3, 15, 2, 4, 0], dtype=torch.uint8),
            "no_mask": lambda got: got.flatten()[1] == 0x12, "not_shifted": lambda got: got.flatten()[0] == 0x10,
            "pairs": lambda got: tuple(got.shape) == (3, 2),
        }),
        Case((BYTES, 5), "count", {"count": lambda got: len(got) == 6}),
    ),
    hints=(
        "A byte 0x12 holds the codes 1 and 2. Which operation gives the 1, and which the 2?",
        "`packed >> 4` is the high nibble, `packed & 15` the low one.",
        "Stack high and low as two columns, `dim=1`, and flatten: row by row gives high, low, high, low.",
    ),
    diagnoses={
        "general": "High nibble `packed >> 4`, low nibble `packed & 15`, in turns, and the first `count` of them.",
        "low_first": "Each pair is swapped: the first code of a byte is its high nibble.",
        "halves": "All high nibbles came first, then all low ones, as in llama.cpp's Q4_0 blocks. Here neighbours "
                  "share a byte: they come in turns.",
        "no_mask": "The low nibble still has the high one in front of it: mask with `& 15`.",
        "not_shifted": "The high nibble is still in its place, worth sixteen times too much: shift it by 4.",
        "pairs": "The pairs are right; flatten them into one row of codes.",
        "count": "The last byte may be half used: return `count` codes, no more.",
    },
    wrong=(
        (_low_first, "low_first"),
        (lambda packed, count: torch.cat([packed >> 4, packed & 15])[:count], "halves"),
        (lambda packed, count: torch.stack([packed >> 4, packed & 15]).flatten()[:count], "halves"),
        (lambda packed, count: torch.stack([packed >> 4, packed], dim=1).flatten()[:count], "no_mask"),
        (lambda packed, count: torch.stack([packed & 240, packed & 15], dim=1).flatten()[:count], "not_shifted"),
        (lambda packed, count: torch.stack([packed >> 4, packed & 15], dim=1), "pairs"),
        (lambda packed, count: torch.stack([packed >> 4, packed & 15], dim=1).flatten(), "count"),
        (lambda packed, count: torch.zeros(count, dtype=torch.uint8), "general"),
    ),
    published="low_first",
    moral="Packing and unpacking with the same mistake go round unnoticed. Test against somebody else's bytes.",
)
