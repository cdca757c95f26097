"""What is stored: two codes in a byte, read back."""

from __future__ import annotations

import torch

from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def read_nibbles(packed: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` codes of uint8 (bytes,), high nibble first: uint8 (count,)."""
    high, low = packed >> 4, packed & 15
    return torch.stack([high, low], dim=1).flatten()[:count]


READ_NIBBLES = Exercise(3, read_nibbles, "★ Spot the bug: [1, 2] went in, [2, 1] came out · 4 min", """
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
