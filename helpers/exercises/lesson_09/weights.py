"""Weights in four bits: what they take when they are unpacked, when they move, and how they are unpacked."""

from __future__ import annotations

import torch

from helpers.codebooks import NF4
from helpers.exercises.engine import Case, Exercise


def workspace_bytes(shapes: list[tuple[int, int]], width: int = 2) -> tuple[int, int]:
    """Bytes of dequantized weights: if all are kept, and one at a time."""
    sizes = [d * k * width for d, k in shapes]
    return sum(sizes), max(sizes)


LAYER = [(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]  # of Llama-2-7B, which has 32 of them
LLAMA = [shape for _ in range(32) for shape in LAYER]


def _total(value: float):
    return lambda got: got[0] == value


WORKSPACE_BYTES = Exercise(
    lesson=9,
    title="Thirteen gigabytes, or a tenth of one",
    stars=1,
    minutes=6,
    prompt="""
A pull request to bitsandbytes claimed that its 4-bit product keeps every dequantized weight until the backward pass,
"~13 GB" of them ([bitsandbytes#1935](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1935); it was closed,
and the lesson measures 0). What would it be? `shapes` lists the weights (d, k), `width` is the bytes of one dequantized
number, 2 in bf16. Return two numbers: the bytes if all of them are kept, and the most that exist at once if each is
thrown away after its product.
""",
    solution=workspace_bytes,
    cases=(
        Case(([(2, 3), (4, 5)], 2), "general", {
            "numbers": lambda got: got[0] == 26 or got[1] == 20, "half_a_byte": lambda got: got[0] == 13,
            "fp32": (104, 80),
            "swapped": (40, 52), "average": lambda got: got[0] == 52 and got[1] == 26,
            "sides": (28, 18), "both_sums": (52, 52),
        }),
        Case(([(4, 5), (2, 3)], 2), "general", {"last": (52, 12)}),
        Case(([(2, 3)], 4), "width", {"width": (12, 12)}),
        Case((LLAMA, 2), "general", shown="the 224 linear layers of Llama-2-7B, in bf16"),
    ),
    hints=(
        "A weight (d, k) has d · k numbers of `width` bytes each.",
        "All kept: add them up. One at a time: the largest decides.",
        "`sizes = [d * k * width for d, k in shapes]`, then `sum(sizes), max(sizes)`.",
    ),
    diagnoses={
        "general": "First the sum over all shapes of d · k · width, then the largest of these products.",
        "numbers": "Those are numbers, not bytes: each takes `width` bytes.",
        "half_a_byte": "Half a byte is what a *code* takes. The dequantized number takes `width` bytes.",
        "fp32": "That is four bytes each. QLoRA dequantizes to the compute type; here `width` says which.",
        "swapped": "The order: first all together, then one at a time.",
        "average": "One at a time, the most is the largest weight, not the average one.",
        "last": "One at a time, the most is the largest weight, not the one that happens to come last.",
        "sides": "A weight (d, k) has d times k numbers, not d plus k.",
        "both_sums": "Thrown away after its product, a weight makes room for the next: only the largest counts.",
        "width": "`width` may be 4 as well: compute in float32 and the same weights take twice as much.",
    },
    wrong=(
        (lambda shapes, width=2: (sum(d * k for d, k in shapes), max(d * k for d, k in shapes)), "numbers"),
        (lambda shapes, width=2: (sum(d * k for d, k in shapes) // 2, max(d * k for d, k in shapes) // 2),
         "half_a_byte"),
        (lambda shapes, width=2: (sum(4 * d * k for d, k in shapes), max(4 * d * k for d, k in shapes)), "fp32"),
        (lambda shapes, width=2: workspace_bytes(shapes, width)[::-1], "swapped"),
        (lambda shapes, width=2: (sum(d * k for d, k in shapes) * width,
                                  sum(d * k for d, k in shapes) * width // len(shapes)), "average"),
        (lambda shapes, width=2: (sum(d * k for d, k in shapes) * width, shapes[-1][0] * shapes[-1][1] * width),
         "last"),
        (lambda shapes, width=2: (sum(d + k for d, k in shapes) * width, max(d + k for d, k in shapes) * width),
         "sides"),
        (lambda shapes, width=2: (workspace_bytes(shapes, width)[0],) * 2, "both_sums"),
        (lambda shapes, width=2: workspace_bytes(shapes, 2), "width"),
        (lambda shapes, width=2: (0, 0), "general"),
    ),
    moral="12.95 GB for Llama-2-7B if they were kept, 0.09 GB one at a time: that is why W is dequantized twice.",
)


def page_out(resident: int, room: int, page: int) -> int:
    """Bytes, in whole pages, that leave so that at most `room` of `resident` stay."""
    missing = max(resident - room, 0)
    pages = -(-missing // page)
    return min(pages * page, resident)


PAGE_OUT = Exercise(
    lesson=9,
    title="How many pages must leave?",
    stars=1,
    minutes=6,
    prompt="""
`resident` bytes of optimizer states lie on the GPU, a whole number of pages. A long sequence comes, and leaves only
`room` bytes for them; if it is negative, all of them leave, and the sequence still does not fit. Memory moves in whole
pages of `page` bytes. How many bytes leave? As few as possible, and never more than there are.
""",
    solution=page_out,
    cases=(
        Case((100, 70, 10), "general", {"stays": 70, "everything": 100, "pages": 3}),
        Case((100, 75, 10), "up", {"down": 20, "not_whole": 25}),
        Case((100, 100, 10), "general", {"one_more": 10}),
        Case((100, 130, 10), "enough", {"negative": -30}),
        Case((100, -50, 10), "more_than_all", {"more_than_all": 150}),
        Case((8 * 2**21, 5 * 2**21 - 1, 2**21), "up"),
        Case((0, 10, 10), "enough"),
    ),
    hints=(
        "What is missing is resident - room, if that is positive.",
        "Round up to whole pages: `-(-missing // page)` is the division that rounds up.",
        "`min(pages * page, resident)`: what is not there cannot leave.",
    ),
    diagnoses={
        "general": "resident - room bytes are too many; round them up to whole pages.",
        "stays": "Those are the bytes that may stay. Asked for are those that leave.",
        "everything": "The driver does not clear the whole optimizer out: only as many pages as are missing.",
        "pages": "That is the number of pages. Multiply by `page` to get bytes.",
        "up": "Only whole pages move: 25 missing bytes in pages of 10 mean that 30 leave. Round up.",
        "down": "Rounded down: then the activations still do not fit. Round up.",
        "not_whole": "Half a page cannot leave. Round up to whole pages.",
        "one_more": "Nothing is missing here, and a page left all the same.",
        "enough": "There is room enough: nothing moves.",
        "negative": "A negative number of bytes cannot leave: where there is room enough the answer is 0.",
        "more_than_all": "More left than were there. At most `resident` bytes can go.",
    },
    wrong=(
        (lambda resident, room, page: min(room, resident), "stays"),
        (lambda resident, room, page: resident, "everything"),
        (lambda resident, room, page: -(-max(resident - room, 0) // page), "pages"),
        (lambda resident, room, page: max(resident - room, 0) // page * page, "down"),
        (lambda resident, room, page: min(max(resident - room, 0), resident), "not_whole"),
        (lambda resident, room, page: min((max(resident - room, 0) // page + 1) * page, resident)
         if (resident - room) % page or resident == room else page_out(resident, room, page), "one_more"),
        (lambda resident, room, page: min(-(-(resident - room) // page) * page, resident), "negative"),
        (lambda resident, room, page: -(-max(resident - room, 0) // page) * page, "more_than_all"),
        (lambda resident, room, page: page if resident < room else page_out(resident, room, page), "enough"),
        (lambda resident, room, page: round(max(resident - room, 0) / page + .1) * page + (resident - room) % page,
         "up"),
        (lambda resident, room, page: 7, "general"),
    ),
    moral="With 2 MiB pages the rounding is nothing beside gigabytes. What costs is the way: PCIe, there and back.",
)


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

DOUBLE_DEQUANT = Exercise(
    lesson=9,
    title="Dequantize twice",
    stars=2,
    minutes=10,
    imports="import torch",
    prompt="""
The paper's equation 6 unpacks in two steps: the scales' codes c2 and *their* scale c1 give the scales; the weights'
codes and the scales give W. bitsandbytes has one number more, the `offset`: the mean, which was subtracted before the
scales were coded and must come back. Write both steps. `codes` (blocks, block_size) and `scale_codes` (blocks,) are
uint8 indices into `levels` and `scale_levels`; `c1` and `offset` are scalars here. (A uint8 tensor indexes as a mask:
use `.long()`.)
""",
    solution=double_dequant,
    cases=(
        Case(SQUARE, "general", {
            "no_offset": _scaled(LOOKED_UP * C1), "offset_scaled": _scaled((LOOKED_UP + OFFSET) * C1),
            "no_c1": _scaled(LOOKED_UP + OFFSET), "not_looked_up": _scaled(SCALE_CODES * C1 + OFFSET),
            "columns": NF4[CODES.long()] * (LOOKED_UP * C1 + OFFSET),
            "divided": NF4[CODES.long()] / (LOOKED_UP * C1 + OFFSET)[:, None],
            "offset_on_weights": NF4[CODES.long()] * (LOOKED_UP * C1)[:, None] + OFFSET,
            "codes_not_looked_up": CODES * (LOOKED_UP * C1 + OFFSET)[:, None],
        }, "two blocks of two codes", raises="mask"),
        Case((torch.tensor([[7, 15, 3]], dtype=torch.uint8), NF4, torch.tensor([3], dtype=torch.uint8), SCALE_LEVELS,
              torch.tensor(0.25), torch.tensor(2.0)), "general", shown="one block of three codes"),
    ),
    hints=(
        "Two look-ups, and after each a product. Which numbers belong to the scales, which to the weights?",
        "scales = scale_levels[scale_codes.long()] * c1 + offset, one number per block.",
        "Then `levels[codes.long()] * scales[:, None]`: every block has its own scale, so they stand in a column.",
    ),
    diagnoses={
        "general": "scales = look-up of c2 · c1 + offset; W = look-up of the codes · scales, block by block.",
        "no_offset": "The offset is missing, as in the paper's formula: the mean was subtracted and must come back.",
        "offset_scaled": "The offset was subtracted before c1 was taken: it comes back after c1, outside the bracket.",
        "no_c1": "c1 is missing: the scales' codes are levels in [-1, 1], and c1 gives them their size.",
        "not_looked_up": "The scales' codes are used as numbers. They are indices into `scale_levels`.",
        "columns": "Scales run along columns here. Each *row* is a block: `scales[:, None]`.",
        "divided": "Divided by the scale: that is quantizing. Dequantizing multiplies.",
        "offset_on_weights": "The offset belongs to the scales, not to the weights.",
        "mask": "An index of dtype uint8 is read as a mask: index by `codes.long()`, and scales likewise.",
        "codes_not_looked_up": "The weights' codes are used as numbers. They are indices into `levels`.",
    },
    wrong=(
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] * c1)[:, None], "no_offset"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * ((sl[sc.long()] + offset) * c1)[:, None],
         "offset_scaled"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] + offset)[:, None], "no_c1"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sc * c1 + offset)[:, None],
         "not_looked_up"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] * c1 + offset), "columns"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] / (sl[sc.long()] * c1 + offset)[:, None],
         "divided"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * (sl[sc.long()] * c1)[:, None] + offset,
         "offset_on_weights"),
        (lambda codes, levels, sc, sl, c1, offset: codes * (sl[sc.long()] * c1 + offset)[:, None],
         "codes_not_looked_up"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()] * sl[sc.bool()][:, None].view(4), "mask"),
        (lambda codes, levels, sc, sl, c1, offset: levels[codes.long()], "general"),
    ),
    moral="Two look-ups and two products per weight, forward and again backward: the price of 4.127 bits.",
)
