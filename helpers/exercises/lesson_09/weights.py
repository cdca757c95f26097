"""Weights in four bits: what they take when they are unpacked, when they move, and how they are unpacked."""

from __future__ import annotations

import random

import torch

from helpers.codebooks import NF4
from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def workspace_bytes(shapes: list[tuple[int, int]], width: int = 2) -> tuple[int, int]:
    """Bytes of dequantized weights: if all are kept, and one at a time."""
    sizes = [d * k * width for d, k in shapes]
    return sum(sizes), max(sizes)


LLAMA = ([(4096, 4096)] * 4 + [(11008, 4096)] * 2 + [(4096, 11008)]) * 32  # Llama-2-7B

WORKSPACE_BYTES = Exercise(9, workspace_bytes, "★ Thirteen gigabytes, or a tenth of one · 6 min", """
A pull request to bitsandbytes claimed that its 4-bit product keeps every dequantized weight until the backward pass,
"~13 GB" of them ([bitsandbytes#1935](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1935); it was closed,
and the lesson measures 0). What would it be? `shapes` lists the weights (d, k), `width` is the bytes of one dequantized
number, 2 in bf16. Return two numbers: the bytes if all of them are kept, and the most that exist at once if each is
thrown away after its product.
""",
    cases=(([(2, 3), (4, 5)], 2),
           Case(([(2, 3)], 4), about="numbers of four bytes"),
           Case(([(4, 5), (2, 3), (4, 5)], 2), about="two weights of one shape"),
           Case(([(4, 5), (2, 3)], 2), about="a largest weight that comes first"),
           Case(([(7, 1), (4, 6), (1, 7)], 2), about="a largest weight that does not have the longest side"),
           Case((LLAMA, 2), about="a whole model", shown="the 224 linear layers of Llama-2-7B, in bf16")),
    hints=("A weight (d, k) has d · k numbers of `width` bytes each.",
           "All kept: add them up. One at a time: the largest decides.",
           "`sizes = [d * k * width for d, k in shapes]`, then `sum(sizes), max(sizes)`."),
    mistakes=(
        Mistake("Those are numbers, not bytes: each takes `width` bytes.", (" * width", "")),
        Mistake("Half a byte is what a *code* takes. The dequantized number takes `width` bytes.", ("* width", "// 2")),
        Mistake("That is four bytes each. `width` says how many the compute type takes.", ("* width", "* 4")),
        Mistake("Those are bits; bytes were asked for.", ("* width", "* width * 8")),
        Mistake("The order: first all, then one at a time.", ("sum(sizes), max(sizes)", "max(sizes), sum(sizes)")),
        Mistake("The first number is that of all weights together.", ("sum(sizes)", "max(sizes)")),
        Mistake("The second number is in weights, not in bytes.", ("max(sizes)", "max(sizes) // width")),
        Mistake("The most is the largest weight, not the average one.", ("max(sizes)", "sum(sizes) // len(sizes)")),
        Mistake("The most is the largest weight, wherever it stands.",
                ("max(sizes)", "sizes[-1]"), ("max(sizes)", "sizes[0]")),
        Mistake("`max(shapes)` is the shape with the largest d, not with the largest product.",
                ("max(sizes)", "torch.Size(max(shapes)).numel() * width"),
                ("max(sizes)", "torch.Size(max(shapes, key=max)).numel() * width")),
        Mistake("A weight (d, k) has d times k numbers, not d plus k.", ("d * k", "(d + k)")),
        Mistake("Thrown away after its product, a weight makes room for the next: only the largest counts.",
                ("max(sizes)", "sum(sizes)")),
    ),
    draw=lambda rng: ([(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(rng.randint(1, 5))], rng.choice([2, 4])),
    moral="12.95 GB for Llama-2-7B if they were kept, 0.09 GB one at a time: that is why W is dequantized twice.")


def page_out(resident: int, room: int, page: int) -> int:
    """Bytes, in whole pages, that leave so that at most `room` of `resident` stay."""
    missing = max(resident - room, 0)
    pages = -(-missing // page)
    return min(pages * page, resident)


MISSING, ROUNDED, ANSWER = "max(resident - room, 0)", "-(-missing // page)", "min(pages * page, resident)"

PAGE_OUT = Exercise(9, page_out, "★ How many pages must leave? · 6 min", """
`resident` bytes of optimizer states lie on the GPU, a whole number of pages. A long sequence comes, and leaves only
`room` bytes for them; if it is negative, all of them leave, and the sequence still does not fit. Memory moves in whole
pages of `page` bytes. How many bytes leave? As few as possible, and never more than there are.
""",
    cases=(Case((96, 64, 16), about="an excess of whole pages"),
           Case((112, 87, 16), about="an excess that ends within a page"),
           Case((100, 75, 10), about="a page that is no power of two"),
           Case((100, 100, 10), about="room for exactly what is there"),
           Case((100, 133, 10), about="more room than is needed"),
           Case((100, 0, 10), about="no room at all"),
           Case((100, -53, 10), about="a negative room"),
           Case((8 * 2**21, 5 * 2**21 - 1, 2**21), about="a page of 2 MiB, and one byte too little room"),
           Case((0, 10, 10), about="nothing there to leave")),
    hints=("What is missing is resident - room, if that is positive.",
           "Round up to whole pages: `-(-missing // page)` is the division that rounds up.",
           "`min(pages * page, resident)`: what is not there cannot leave."),
    mistakes=(
        Mistake("Those are the bytes that stay. Asked for are those that leave.",
                (ANSWER, "min(room, resident)"), (ANSWER, f"resident - {ANSWER}")),
        Mistake("Everything left. Only as many pages as are missing have to go.",
                (ANSWER, "resident"), (ANSWER, "resident if missing else 0")),
        Mistake("That is the number of pages. Multiply by `page` to get bytes.", (ANSWER, "pages")),
        Mistake("Rounded down: what stays does not fit then.", (ROUNDED, "missing // page")),
        Mistake("Rounded to the nearest: less than half a page is still missing.", (ROUNDED, "round(missing / page)")),
        Mistake("Half a page cannot leave: only whole pages move.", (ANSWER, "missing")),
        Mistake("One page too many left where the missing bytes fill pages exactly.", (ROUNDED, "missing // page + 1")),
        Mistake("One page more left than had to.", (ANSWER, f"{ANSWER} + page")),
        Mistake("A negative number of bytes cannot leave: with room enough the answer is 0.",
                (MISSING, "resident - room")),
        Mistake("There is room enough, and pages left all the same.", (MISSING, "abs(resident - room)")),
        Mistake("More left than were there. At most `resident` bytes can go.", (ANSWER, "pages * page")),
    ),
    draw=lambda rng: ((page := rng.choice([4, 10, 16])) * rng.randint(0, 12), rng.randint(-30, 150), page),
    moral="With 2 MiB pages the rounding is nothing beside gigabytes. What costs is the way: PCIe, there and back.")


def double_dequant(codes: torch.Tensor, levels: torch.Tensor,
                   scale_codes: torch.Tensor, scale_levels: torch.Tensor,
                   c1: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """W (blocks, block_size) from its codes and those of its scales."""
    scales = scale_levels[scale_codes.long()] * c1 + offset
    return levels[codes.long()] * scales[:, None]


SCALE_LEVELS = torch.tensor([-1.0, -0.3, 0.5, 1.0])
BLOCKS = torch.tensor([[0, 15, 12], [9, 4, 6]]).byte(), NF4, torch.tensor([2, 0]).byte(), SCALE_LEVELS


def _coded(rng: random.Random, blocks: int, size: int, c1: float, offset: float) -> tuple[torch.Tensor, ...]:
    return (integers(rng, 0, 15, blocks, size, dtype=torch.uint8), NF4,
            integers(rng, 0, 3, blocks, dtype=torch.uint8), SCALE_LEVELS, torch.tensor(c1), torch.tensor(offset))


LOOKED_UP = "scale_levels[scale_codes.long()]"

DOUBLE_DEQUANT = Exercise(9, double_dequant, "★★ Dequantize twice · 10 min", """
The paper's equation 6 unpacks in two steps: the scales' codes c2 and *their* scale c1 give the scales; the weights'
codes and the scales give W. bitsandbytes has one number more, the `offset`: the mean, which was subtracted before the
scales were coded and must come back. Write both steps. `codes` (blocks, block_size) and `scale_codes` (blocks,) are
uint8 indices into `levels` and `scale_levels`; `c1` and `offset` are scalars here. (A uint8 tensor indexes as a mask:
use `.long()`.)
""",
    cases=(Case((*BLOCKS[:2], 0 * BLOCKS[2], SCALE_LEVELS, torch.tensor(1.0), torch.tensor(0.0)),
                about="a c1 of 1, no offset, and the same scale for all"),
           Case((*BLOCKS, torch.tensor(1.0), torch.tensor(0.0)), about="a scale for each block"),
           Case((*BLOCKS, torch.tensor(0.75), torch.tensor(0.0)), about="a c1 that is not 1"),
           Case((*BLOCKS, torch.tensor(0.75), torch.tensor(2.0)), about="an offset that is not 0"),
           Case(_coded(random.Random(4), 3, 3, 0.5, 2.0), about="as many blocks as codes in a block"),
           Case(_coded(random.Random(5), 1, 4, 0.5, 2.0), about="a single block")),
    hints=("Two look-ups, and after each a product. Which numbers belong to the scales, which to the weights?",
           "scales = scale_levels[scale_codes.long()] * c1 + offset, one number per block.",
           "Then `levels[codes.long()] * scales[:, None]`: every block has its own scale, so they stand in a column."),
    mistakes=(
        Mistake("The offset is missing, as in the paper's formula: the mean must come back.", (" + offset", "")),
        Mistake("The offset was subtracted before c1 was taken: it comes back after c1, outside the bracket.",
                (f"{LOOKED_UP} * c1 + offset", f"({LOOKED_UP} + offset) * c1")),
        Mistake("The mean was subtracted once; here it is subtracted again.", ("+ offset", "- offset")),
        Mistake("The offset belongs to the scales, not to the weights.",
                (" + offset", "", "[:, None]", "[:, None] + offset")),
        Mistake("c1 is missing: it gives the levels of the scales, in [-1, 1], their size.", (" * c1", "")),
        Mistake("Divided by c1: that is quantizing. Dequantizing multiplies.", ("* c1", "/ c1")),
        Mistake("Divided by the scale: that is quantizing. Dequantizing multiplies.", ("* scales", "/ scales")),
        Mistake("The scales' codes are no numbers but indices into `scale_levels`.", (LOOKED_UP, "scale_codes")),
        Mistake("The weights' codes are no numbers but indices into `levels`.", ("levels[codes.long()]", "codes")),
        Mistake("An index of dtype uint8 is read as a mask: index by `.long()` codes.",
                ("[codes.long()]", "[codes]"), ("[scale_codes.long()]", "[scale_codes]")),
        Mistake("Scales run along columns here. Each *row* is a block.", ("scales[:, None]", "scales")),
    ),
    draw=lambda rng: _coded(rng, rng.randint(1, 4), rng.randint(2, 5), rng.uniform(0.1, 1), rng.uniform(0, 2)),
    tolerance=1e-5,
    moral="Two look-ups and two products per weight, forward and again backward: the price of 4.127 bits.")
