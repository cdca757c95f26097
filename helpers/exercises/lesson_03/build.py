"""What the student builds in the lesson itself: four-bit codes in blocks, and two codes in a byte."""

from __future__ import annotations

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def block_codes(x: torch.Tensor, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes 0 to 14, uint8 (blocks, block_size), and the absmax, float32 (blocks,)."""
    blocks = x.reshape(-1, block_size)
    absmax = blocks.abs().amax(dim=1)
    codes = (blocks / absmax[:, None] * 7).round() + 7
    return codes.to(torch.uint8), absmax


BLOCK_CODES = Exercise(3, block_codes, "★★ Build: int4 in blocks · 6 min", """
`x` is float32, of any shape; its number of weights is a multiple of `block_size`, and no block is all zeros. Cut the
*flattened* tensor into blocks, one to a row, and take the absmax of each. A code is weight / absmax · 7, rounded by
`round()`: from -7 to 7. Add 7, so that it is stored without a sign: 0 to 14.

Return the codes, uint8 (blocks, block_size), and the absmax, float32 (blocks,).
""",
    cases=(Case((torch.tensor([7.0, -3.0, 1.2, 0.4]), 4), about="one block, whose absmax is 7"),
           Case((torch.tensor([0.5, -0.2, 0.13, 0.3]), 4), about="another absmax"),
           Case((torch.tensor([-2.0, 0.7, 1.1, 0.1]), 4), about="a block whose largest magnitude is negative"),
           Case((torch.tensor([7.0, -3.0, 1.2, 0.4, 70.0, 12.0, -24.0, 1.0]), 4), about="a second block"),
           Case((torch.tensor([[7.0, -3.0, 1.2, 0.4, 0.5, 0.2], [-0.3, 0.1, 70.0, 12.0, -24.0, 1.0]]), 4),
                about="a matrix, whose rows are no whole number of blocks"),
           Case((torch.tensor([7.0, 0.5, -2.5, 1.5]), 4), about="ties, which `round()` brings to even numbers")),
    hints=("In code a wall is a shape: which `view` makes a row of each block?",
           "`blocks.abs().amax(dim=1)` is (blocks,). To divide row by row it must be (blocks, 1): `absmax[:, None]`.",
           "`(blocks / absmax[:, None] * 7).round() + 7`, as uint8, and the absmax beside it."),
    mistakes=(
        Mistake("One scale for everything. Each block has its own.", ("amax(dim=1)", "max().repeat(len(blocks))"),
                ("(blocks / absmax[:, None] * 7).round()", "(blocks / absmax[0] * 7).round().clamp(-7, 7)")),
        Mistake("The range of each block was measured from its least to its greatest value. An absmax scale is "
                "symmetric: 0 has always the code 7.",
                ("(blocks / absmax[:, None] * 7).round() + 7", "((blocks - blocks.amin(1, True)) / "
                 "(blocks.amax(1, True) - blocks.amin(1, True)) * 14).round()")),
        Mistake("The codes reach from 0 to 15, and no code means zero. With -7 to 7 there is one.",
                ("(blocks / absmax[:, None] * 7).round() + 7", "((blocks / absmax[:, None] + 1) * 7.5).round()")),
        Mistake("The maximum was taken across the blocks, place by place, not inside each.",
                ("amax(dim=1)", "amax(dim=0)", "absmax[:, None]", "absmax")),
        Mistake("The largest value is not the largest magnitude: that may be negative.", (".abs()", "")),
        Mistake("The codes still have a sign, and uint8 has none: -1 became 255. Add 7.", (" + 7", "")),
        Mistake("All codes are one too high: -7 is to become 0.", ("+ 7", "+ 8")),
        Mistake("Eight steps to each side make 17 codes; four bits have 16.", ("* 7).round() + 7", "* 8).round() + 8")),
        Mistake("The codes are cut off towards zero, not rounded to the nearest.", ("round()", "trunc()")),
        Mistake("The codes are rounded down, not to the nearest.", ("round()", "floor()")),
        Mistake("Ties went to one side, all up or all down. `round()` brings them to the even number.",
                ("(blocks / absmax[:, None] * 7).round()", "(blocks / absmax[:, None] * 7 - 0.5).ceil()"),
                ("(blocks / absmax[:, None] * 7).round()", "(blocks / absmax[:, None] * 7 + 0.5).floor()")),
        Mistake("7 was added before rounding. Ties go to the even number, and 7 makes even numbers odd.",
                ("7).round() + 7", "7 + 7).round()")),
        Mistake("A block holds neighbours. Here each was picked from all over the tensor.",
                ("x.reshape(-1, block_size)", "x.reshape(block_size, -1).T")),
        Mistake("The second is the step between two codes. Asked for is the absmax, seven steps.",
                ("uint8), absmax", "uint8), absmax / 7")),
        Mistake("The weights were not divided by their absmax first.", ("blocks / absmax[:, None]", "blocks")),
        Mistake("One scale per row came. A block has block_size weights, whatever the row.",
                ("reshape(-1, block_size)", "reshape(-1, x.shape[-1])")),
        Mistake("Codes first, absmax second.", ("codes.to(torch.uint8), absmax", "absmax, codes.to(torch.uint8)")),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 3), 12), rng.choice((2, 3, 4, 6))),
    moral="Four lines, and all of block quantization is in them. What a library adds are the corners.")


def pack_codes(codes: torch.Tensor) -> torch.Tensor:
    """Two codes of 0 to 15 in a byte, first in the high half: uint8 (ceil(n / 2),)."""
    even = torch.nn.functional.pad(codes, (0, len(codes) % 2))
    return even[::2] * 16 + even[1::2]


def _codes(*values: int) -> tuple[torch.Tensor]:
    return (torch.tensor(values, dtype=torch.uint8),)


PACK_CODES = Exercise(3, pack_codes, "★ Build: two codes in a byte · 4 min", """
`codes` is uint8 (n,), each from 0 to 15. Put two neighbours into one byte, the first into the **high** half: as two
digits of a hexadecimal number, so that 10 and 3 make 0xa3. If n is odd, the last code has a zero beside it.
""",
    cases=(_codes(1, 2, 3, 4), Case(_codes(10, 3), about="a code of 8 or more in the high half"),
           Case(_codes(0, 15, 15, 0, 9, 9), about="codes of 15"),
           Case(_codes(1, 2, 3), about="an odd number of codes")),
    hints=("One digit further to the left is worth sixteen times as much.",
           "`codes[::2]` are the first ones of each pair, `codes[1::2]` the second ones.",
           "Make the number even by `torch.nn.functional.pad(codes, (0, len(codes) % 2))`; then first * 16 + second."),
    mistakes=(
        Mistake("Each pair is swapped: the first code belongs into the high half.",
                ("even[::2] * 16 + even[1::2]", "even[1::2] * 16 + even[::2]")),
        Mistake("The first half of the tensor was paired with the second, as in llama.cpp's Q4_0 blocks. Here "
                "neighbours share a byte.", ("even[::2] * 16 + even[1::2]", "even[:len(even) // 2] * 16 + "
                                              "even[len(even) // 2:]")),
        Mistake("A digit is worth sixteen times the next: four bits hold 0 to 15.", ("* 16", "* 10"), ("* 16", "* 15"),
                ("* 16", "* 8")),
        Mistake("`+` binds more tightly than `<<`: the second code was added to the 4. Brackets, or `|`, part them.",
                ("even[::2] * 16 + even[1::2]", "even[::2] << 4 + even[1::2]")),
        Mistake("The two codes lie on top of each other: the first was not moved up.", ("even[::2] * 16", "even[::2]")),
        Mistake("The last code of an odd number is lost: it has a byte of its own.",
                ("torch.nn.functional.pad(codes, (0, len(codes) % 2))", "codes[:len(codes) // 2 * 2]")),
        Mistake("The zero came before the codes, so that all pairs are shifted by one.",
                ("(0, len(codes) % 2)", "(len(codes) % 2, 0)")),
        Mistake("The lone last code belongs into the high half, like every first one.",
                ("return even[::2] * 16 + even[1::2]", "even = torch.cat([codes[:-1], codes[-1:] * 0, codes[-1:]]) "
                 "if len(codes) % 2 else codes; return even[::2] * 16 + even[1::2]")),
        Mistake("Beside the lone last code stands a zero, not something else.",
                ("(0, len(codes) % 2)", "(0, len(codes) % 2), value=15"),
                ("(0, len(codes) % 2)", "(0, len(codes) % 2), value=1")),
        Mistake("Each code still has a byte of its own.", ("even[::2] * 16 + even[1::2]", "codes.clone()")),
    ),
    draw=lambda rng: (integers(rng, 0, 15, rng.randint(1, 7), dtype=torch.uint8),),
    hexadecimal=1,
    moral="bitsandbytes' order. Other libraries put the first code into the low half, and both are right.")
