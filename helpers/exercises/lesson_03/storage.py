"""What is stored: bits for codes and scales, and two codes in a byte."""

from __future__ import annotations

import torch

from helpers.exercises.draws import integers
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
    cases=(Case((4096, 4, 64)), Case((96, 4, 64), about="a last block that is not full"),
           Case((5, 3, 5), about="codes that end inside a byte"),
           Case((9, 3, 3), about="blocks that end inside a byte")),
    hints=("Count bytes first: those of the codes, then those of the scales. Turn them into bits per weight last.",
           "`-(-a // b)` is a divided by b, rounded up.",
           "The codes take -(-count * bits // 8) bytes, the scales 4 * -(-count // block_size)."),
    mistakes=(
        Mistake("Those are the codes alone. Every block stores a float32 besides.", (" + 4 * blocks", "")),
        Mistake("That is one scale for the whole tensor. There is one per block.", ("4 * blocks", "4")),
        Mistake("block_size / 32 is upside down: one scale of 32 bits is shared by block_size weights.",
                ("8 * (code_bytes + 4 * blocks) / count", "bits + block_size / 32")),
        Mistake("A scale takes 4 bytes, and these were added as if they were 4 bits.", ("8 * (code", "(8 * code")),
        Mistake("That is a scale of 16 bits. A float32 has 32.", ("4 * blocks", "2 * blocks")),
        Mistake("A float32 takes 4 bytes; its 32 bits were counted as bytes.", ("4 * blocks", "32 * blocks")),
        Mistake("Those are bytes per weight.", ("8 * (", "(")),
        Mistake("That is the sum of all bits.", (" / count", "")),
        Mistake("Each code has a byte of its own here. Two 4-bit codes share one.", ("-(-count * bits // 8)", "count")),
        Mistake("96 weights in blocks of 64 make two blocks: the second is short, its scale is not.",
                ("-(-count // block_size)", "count // block_size"), ("-(-count // block_size)", "count / block_size"),
                ("8 * (code_bytes + 4 * blocks) / count", "bits + 32 / block_size")),
        Mistake("A scale more was counted even where all blocks are full.",
                ("-(-count // block_size)", "(count // block_size + 1)")),
        Mistake("The last block was filled up: a short one has a whole scale, but no more codes than weights.",
                ("-count * bits", "-(count + -count % block_size) * bits")),
        Mistake("The codes end inside a byte, and that byte is stored whole.",
                ("-(-count * bits // 8)", "count * bits / 8"), ("-(-count * bits // 8)", "count * bits // 8")),
    ),
    draw=lambda rng: (rng.randint(1, 3000), rng.randint(1, 8), rng.choice((16, 64, 100))),
    moral="32 / block_size for the scale, and next to nothing for the ends: at blocks of 64, half a bit per weight.")


def read_nibbles(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` codes of uint8 (bytes,), high nibble first: uint8 (count,)."""
    high, low = packed >> 4, packed & 15
    return torch.stack([high, low], dim=1).flatten()[:count]


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
    cases=(Case((torch.tensor([0x12, 0x34], dtype=torch.uint8), 4)),
           Case((torch.tensor([0x9F, 0xE8], dtype=torch.uint8), 4), about="codes of 8 and more"),
           Case((torch.tensor([0x12, 0x34, 0xF0], dtype=torch.uint8), 5), about="an odd count")),
    hints=("A byte 0x12 holds the codes 1 and 2. Which operation gives the 1, and which the 2?",
           "`packed >> 4` is the high nibble, `packed & 15` the low one.",
           "Stack high and low as two columns, `dim=1`, and flatten: row by row gives high, low, high, low."),
    mistakes=(
        Mistake("Each pair is swapped: the first code of a byte is its high nibble."),
        Mistake("All high nibbles came first, then all low ones, as in llama.cpp's Q4_0 blocks. Here neighbours "
                "share a byte: they come in turns.", (", dim=1", "")),
        Mistake("The low nibble still has the high one in front of it.", (" & 15", "")),
        Mistake("The high nibble is still in its place, worth sixteen times too much.", ("ed >> 4", "ed & 240")),
        Mistake("The high nibble lies four places up; this shift is another.", (">> 4", ">> 3"), (">> 4", ">> 8")),
        Mistake("A nibble has four bits; this mask lets another number of them through.",
                ("& 15", "& 7"), ("& 15", "& 31"), ("& 15", "& 16"), ("& 15", "& 14")),
        Mistake("The pairs are right, but each is a row of its own.", (".flatten()", "")),
        Mistake("The last byte may be half used: more than `count` codes came.", ("[:count]", "")),
        Mistake("With an odd count one more code stands in the last byte.", ("[:count]", "[:count // 2 * 2]")),
    ),
    draw=lambda rng: (integers(rng, 0, 255, n := rng.randint(1, 5), dtype=torch.uint8), rng.randint(1, 2 * n)),
    hexadecimal=1,
    moral="Packing and unpacking with the same mistake go round unnoticed. Test against somebody else's bytes.")
