"""Weights in four bits: what they take when they are unpacked, when they move, and how they are unpacked."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
from helpers.exercises.engine import Case, Exercise, Mistake


def workspace_bytes(shapes: list[tuple[int, int]], width: int = 2) -> tuple[int, int]:
    """Bytes of dequantized weights: if all are kept, and one at a time."""
    sizes = [d * k * width for d, k in shapes]
    return sum(sizes), max(sizes)


LAYER = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]  # of Llama-2-7B, which has 32 of them
LLAMA = [shape for _ in range(32) for shape in LAYER]


def _total(value: float):
    return lambda got: got[0] == value


WORKSPACE_BYTES = Exercise(9, workspace_bytes, "★ Thirteen gigabytes, or a tenth of one · 6 min", """
A pull request to bitsandbytes claimed that its 4-bit product keeps every dequantized weight until the backward pass,
"~13 GB" of them ([bitsandbytes#1935](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1935); it was closed,
and the lesson measures 0). What would it be? `shapes` lists the weights (d, k), `width` is the bytes of one dequantized
number, 2 in bf16. Return two numbers: the bytes if all of them are kept, and the most that exist at once if each is
thrown away after its product.
""",
    cases=(
        Case(([(2, 3), (4, 5)], 2)),
        Case(([(4, 5), (2, 3)], 2)),
        Case(([(2, 3)], 4)),
        Case((LLAMA, 2), shown="the 224 linear layers of Llama-2-7B, in bf16"),
    ),
    hints=(
        "A weight (d, k) has d · k numbers of `width` bytes each.",
        "All kept: add them up. One at a time: the largest decides.",
        "`sizes = [d * k * width for d, k in shapes]`, then `sum(sizes), max(sizes)`.",
    ),
    mistakes=(
        Mistake("Those are numbers, not bytes: each takes `width` bytes.",
                lambda shapes, width=2: (sum(d * k for d, k in shapes), max(d * k for d, k in shapes))),
        Mistake("Half a byte is what a *code* takes. The dequantized number takes `width` bytes.",
                lambda shapes, width=2: (sum(d * k for d, k in shapes) // 2, max(d * k for d, k in shapes) // 2)),
        Mistake("That is four bytes each. QLoRA dequantizes to the compute type; here `width` says which.",
                lambda shapes, width=2: (sum(4 * d * k for d, k in shapes), max(4 * d * k for d, k in shapes))),
        Mistake("The order: first all together, then one at a time.",
                lambda shapes, width=2: workspace_bytes(shapes, width)[::-1]),
        Mistake("One at a time, the most is the largest weight, not the average one.",
                lambda shapes, width=2: (sum(d * k for d, k in shapes) * width,
                sum(d * k for d, k in shapes) * width // len(shapes))),
        Mistake("One at a time, the most is the largest weight, not the one that happens to come last.",
                lambda shapes, width=2: (sum(d * k for d, k in shapes) * width, shapes[-1][0] * shapes[-1][1] * width)),
        Mistake("A weight (d, k) has d times k numbers, not d plus k.",
                lambda shapes, width=2: (sum(d + k for d, k in shapes) * width, max(d + k for d, k in shapes) * width)),
        Mistake("Thrown away after its product, a weight makes room for the next: only the largest counts.",
                lambda shapes, width=2: (workspace_bytes(shapes, width)[0],) * 2),
        Mistake("`width` may be 4 as well: compute in float32 and the same weights take twice as much.",
                lambda shapes, width=2: workspace_bytes(shapes, 2)),
    ),
    tolerance=0.0,
    moral="12.95 GB for Llama-2-7B if they were kept, 0.09 GB one at a time: that is why W is dequantized twice.")
# general: lambda shapes, width=2: (0, 0)


def page_out(resident: int, room: int, page: int) -> int:
    """Bytes, in whole pages, that leave so that at most `room` of `resident` stay."""
    missing = max(resident - room, 0)
    pages = -(-missing // page)
    return min(pages * page, resident)


PAGE_OUT = Exercise(9, page_out, "★ How many pages must leave? · 6 min", """
`resident` bytes of optimizer states lie on the GPU, a whole number of pages. A long sequence comes, and leaves only
`room` bytes for them; if it is negative, all of them leave, and the sequence still does not fit. Memory moves in whole
pages of `page` bytes. How many bytes leave? As few as possible, and never more than there are.
""",
    cases=(
        Case((100, 70, 10)),
        Case((100, 75, 10)),
        Case((100, 100, 10)),
        Case((100, 130, 10)),
        Case((100, -50, 10)),
        Case((8 * 2**21, 5 * 2**21 - 1, 2**21)),
        Case((0, 10, 10)),
    ),
    hints=(
        "What is missing is resident - room, if that is positive.",
        "Round up to whole pages: `-(-missing // page)` is the division that rounds up.",
        "`min(pages * page, resident)`: what is not there cannot leave.",
    ),
    mistakes=(
        Mistake("Those are the bytes that may stay. Asked for are those that leave.",
                lambda resident, room, page: min(room, resident)),
        Mistake("The driver does not clear the whole optimizer out: only as many pages as are missing.",
                lambda resident, room, page: resident),
        Mistake("That is the number of pages. Multiply by `page` to get bytes.",
                lambda resident, room, page: -(-max(resident - room, 0) // page)),
        Mistake("Only whole pages move: 25 missing bytes in pages of 10 mean that 30 leave. Round up.",
                lambda resident, room, page: round(max(resident - room, 0) / page + .1) * page + (resident - room) % page),
        Mistake("Rounded down: then the activations still do not fit. Round up.",
                lambda resident, room, page: max(resident - room, 0) // page * page),
        Mistake("Half a page cannot leave. Round up to whole pages.",
                lambda resident, room, page: min(max(resident - room, 0), resident)),
        Mistake("Nothing is missing here, and a page left all the same.",
                lambda resident, room, page: min((max(resident - room, 0) // page + 1) * page, resident)
                if (resident - room) % page or resident == room else page_out(resident, room, page)),
        Mistake("There is room enough: nothing moves.",
                lambda resident, room, page: page if resident < room else page_out(resident, room, page)),
        Mistake("A negative number of bytes cannot leave: where there is room enough the answer is 0.",
                lambda resident, room, page: min(-(-(resident - room) // page) * page, resident)),
        Mistake("More left than were there. At most `resident` bytes can go.",
                lambda resident, room, page: -(-max(resident - room, 0) // page) * page),
    ),
    tolerance=0.0,
    moral="With 2 MiB pages the rounding is nothing beside gigabytes. What costs is the way: PCIe, there and back.")
# general: lambda resident, room, page: 7


def double_dequant(codes: torch.Tensor, levels: torch.Tensor,
                   scale_codes: torch.Tensor, scale_levels: torch.Tensor,
                   c1: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """W (blocks, block_size) from its codes and those of its scales."""
    scales = scale_levels[scale_codes.long()] * c1 + offset
    return levels[codes.long()] * scales[:, None]


CODES = torch.tensor([[0, 15], [9, 4]], dtype=torch.uint8)
SCALE_LEVELS, SCALE_CODES = torch.tensor([-1.0, 0.0, 0.5, 1.0]), torch.tensor([2, 0], dtype=torch.uint8)
C1, OFFSET = torch.tensor(0.5), torch.tensor(1.0)
SQUARE = (CODES, NF4, SCALE_CODES, SCALE_LEVELS, C1, OFFSET)


def _scaled(scales: torch.Tensor) -> torch.Tensor:
    return NF4[CODES.long()] * scales[:, None]


LOOKED_UP = SCALE_LEVELS[SCALE_CODES.long()]

DOUBLE_DEQUANT = Exercise(9, double_dequant, "★★ Dequantize twice · 10 min", """
The paper's equation 6 unpacks in two steps: the scales' codes c2 and *their* scale c1 give the scales; the weights'
codes and the scales give W. bitsandbytes has one number more, the `offset`: the mean, which was subtracted before the
scales were coded and must come back. Write both steps. `codes` (blocks, block_size) and `scale_codes` (blocks,) are
uint8 indices into `levels` and `scale_levels`; `c1` and `offset` are scalars here. (A uint8 tensor indexes as a mask:
use `.long()`.)
""",
    cases=(
        Case(SQUARE, shown="two blocks of two codes"),
        Case((torch.tensor([[7, 15, 3]], dtype=torch.uint8), NF4, torch.tensor([3], dtype=torch.uint8), SCALE_LEVELS,
            torch.tensor(0.25), torch.tensor(2.0)), shown="one block of three codes"),
    ),
    hints=(
        "Two look-ups, and after each a product. Which numbers belong to the scales, which to the weights?",
        "scales = scale_levels[scale_codes.long()] * c1 + offset, one number per block.",
        "Then `levels[codes.long()] * scales[:, None]`: every block has its own scale, so they stand in a column.",
    ),
    mistakes=(
        Mistake("The offset is missing, as in the paper's formula: the mean was subtracted and must come back.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] * c1)[:, None]),
        Mistake("The offset was subtracted before c1 was taken: it comes back after c1, outside the bracket.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * ((sl[sc.long()] + offset) * c1)[:, None]),
        Mistake("c1 is missing: the scales' codes are levels in [-1, 1], and c1 gives them their size.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] + offset)[:, None]),
        Mistake("The scales' codes are used as numbers. They are indices into `scale_levels`.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sc * c1 + offset)[:, None]),
        Mistake("Scales run along columns here. Each *row* is a block: `scales[:, None]`.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] * c1 + offset)),
        Mistake("Divided by the scale: that is quantizing. Dequantizing multiplies.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] / (sl[sc.long()] * c1 + offset)[:, None]),
        Mistake("The offset belongs to the scales, not to the weights.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] * c1)[:, None] + offset),
        Mistake("An index of dtype uint8 is read as a mask: index by `codes.long()`, and scales likewise.",
                lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * sl[sc.bool()][:, None].view(4)),
        Mistake("The weights' codes are used as numbers. They are indices into `levels`.",
                lambda codes, levels, sc, sl, c1, offset: codes * (sl[sc.long()] * c1 + offset)[:, None]),
    ),
    tolerance=0.0,
    moral="Two look-ups and two products per weight, forward and again backward: the price of 4.127 bits.")
# general: lambda codes, levels, sc, sl, c1, offset: levels[codes.long()]
