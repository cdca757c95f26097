"""Weights in four bits: a layer made of codes, and optimizer states that move in pages."""

from __future__ import annotations

import random

import torch

from helpers.codebooks import NF4
from helpers.exercises.draws import integers
from helpers.exercises.engine import Case, Exercise, Mistake


def page_out(resident: int, room: int, page: int) -> int:
    """Bytes, in whole pages, that leave so that at most `room` of `resident` stay."""
    missing = max(resident - room, 0)
    pages = -(-missing // page)
    return min(pages * page, resident)


MISSING, ROUNDED, ANSWER = "max(resident - room, 0)", "-(-missing // page)", "min(pages * page, resident)"

PAGE_OUT = Exercise(9, page_out, "★ How many pages must leave? · 5 min", """
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
        Mistake("Too little leaves: the pages that leave are rounded up. Counted by those that stay: down.",
                (ROUNDED, "missing // page")),
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


def nf4_linear(x: torch.Tensor, packed: torch.Tensor, levels: torch.Tensor,
               c2: torch.Tensor, scale_levels: torch.Tensor,
               c1: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """y = x·Wᵀ (n, d) of x (n, k), for a W (d, k) that is stored as codes."""
    codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long()
    scales = scale_levels[c2.long()] * c1 + offset
    W = levels[codes].view(len(scales), -1) * scales[:, None]
    return x @ W.view(-1, x.shape[1]).T


SCALE_LEVELS = torch.tensor([-1.0, -0.3, 0.5, 1.0])


def _stored(rng: random.Random, n: int, d: int, k: int, blocks: int, c1: float, offset: float) -> tuple:
    """Rows of small whole numbers and a weight (d, k) in `blocks` blocks; d · k / 2 / blocks must be whole."""
    return (integers(rng, -3, 3, n, k).float(), integers(rng, 0, 255, d * k // 2, dtype=torch.uint8), NF4,
            integers(rng, 0, 3, blocks, dtype=torch.uint8), SCALE_LEVELS, torch.tensor(c1), torch.tensor(offset))


def _random(rng: random.Random) -> tuple:
    size, blocks = 2 * rng.randint(1, 3), rng.randint(1, 4)
    k = rng.choice([k for k in range(1, size * blocks + 1) if size * blocks % k == 0])
    return _stored(rng, rng.randint(1, 3), size * blocks // k, k, blocks, rng.uniform(0.1, 1), rng.uniform(0, 2))


def _small(c2: list[int], c1: float = 1.0, offset: float = 0.0, packed: list[int] = (0xFF, 0x11)) -> tuple:
    """Two rows and a weight (2, 2) in two blocks; by default with the codes 15 15 1 1."""
    return (torch.tensor([[1.0, 2.0], [0.0, -1.0]]), torch.tensor(packed).byte(), NF4, torch.tensor(c2).byte(),
            SCALE_LEVELS, torch.tensor(c1), torch.tensor(offset))


LOOKED_UP, NIBBLES = "scale_levels[c2.long()]", "[packed >> 4, packed & 15], dim=1"

NF4_LINEAR = Exercise(9, nf4_linear, "★★ Build: a layer made of codes · 8 min", """
Write the product of a layer of which only codes are stored. `packed` is uint8, two codes in a byte, the first in the
upper four bits; they are indices into `levels`. W is (d, k), row after row, cut into blocks of equal length; there are
as many blocks as there are codes in `c2` (blocks,). `c2` are the 8-bit codes of the scales, indices into
`scale_levels`; `c1` is *their* scale, one number here, and `offset` the mean that was subtracted before the scales were
coded. `x` is (n, k). (A uint8 tensor indexes as a mask: use `.long()`.)
""",
    cases=(Case(_small([3, 3]), about="scales of 1, and the same code twice in each byte"),
           Case(_small([3, 3], packed=[0xF0, 0x1A]), about="two codes in a byte that differ"),
           Case(_small([0, 0]), about="a scale that is not 1"),
           Case(_small([2, 0]), about="a scale for each block"),
           Case(_small([2, 0], c1=0.75), about="a c1 that is not 1"),
           Case(_small([2, 0], c1=0.75, offset=2.0), about="an offset that is not 0"),
           Case(_stored(random.Random(1), 2, 3, 4, 3, 0.5, 2.0), about="another number of outputs than of inputs"),
           Case(_stored(random.Random(2), 2, 4, 4, 2, 0.5, 2.0), about="blocks that are longer than a row"),
           Case(_stored(random.Random(3), 1, 2, 6, 6, 0.5, 2.0), about="blocks that are shorter than a row")),
    hints=("Three steps: bytes to codes, codes to W, and the product. W is made from two look-ups.",
           "codes = torch.stack([packed >> 4, packed & 15], dim=1).flatten().long(); "
           "scales = scale_levels[c2.long()] * c1 + offset.",
           "levels[codes].view(len(scales), -1) * scales[:, None] has one block in each row; "
           ".view(-1, x.shape[1]) makes W of it."),
    mistakes=(
        Mistake("The two codes of a byte are exchanged: the first lies in the upper four bits.",
                (NIBBLES, "[packed & 15, packed >> 4], dim=1")),
        Mistake("First all upper halves, then all lower ones. The two codes of one byte stand side by side.",
                (NIBBLES, "[packed >> 4, packed & 15], dim=0")),
        Mistake("The offset is missing, as in the paper's formula: the mean must come back.", (" + offset", "")),
        Mistake("The offset was added before c1 was taken: it comes back after c1, outside the bracket.",
                (f"{LOOKED_UP} * c1 + offset", f"({LOOKED_UP} + offset) * c1")),
        Mistake("The mean was subtracted once; here it is subtracted again.", ("+ offset", "- offset")),
        Mistake("The offset belongs to the scales, not to the weights.",
                (" + offset", "", "[:, None]", "[:, None] + offset")),
        Mistake("c1 is missing: it gives the levels of the scales, in [-1, 1], their size.", (" * c1", "")),
        Mistake("Divided by c1: that is quantizing. Dequantizing multiplies.", ("* c1", "/ c1")),
        Mistake("Divided by the scale: that is quantizing. Dequantizing multiplies.", ("* scales", "/ scales")),
        Mistake("The scales were handed out in turn, one weight each: a block of neighbours has one scale.",
                ("levels[codes].view(len(scales), -1) * scales[:, None]",
                 "levels[codes].view(-1, len(scales)) * scales")),
        Mistake("Each row of W was taken for a block: blocks have a length of their own, and may be longer or shorter.",
                ("levels[codes].view(len(scales), -1)", "levels[codes].view(-1, x.shape[1])")),
        Mistake("c2 are no scales but codes of scales: indices into `scale_levels`.", (LOOKED_UP, "c2")),
        Mistake("The weights' codes are no numbers but indices into `levels`.", ("levels[codes]", "codes")),
        Mistake("An index of dtype uint8 is read as a mask: index by `.long()` codes.",
                (".flatten().long()", ".flatten()"), ("[c2.long()]", "[c2]")),
        Mistake("W lies row after row, (d, k): its columns came out where rows belong.",
                (".view(-1, x.shape[1]).T", ".view(x.shape[1], -1)")),
    ),
    draw=_random, tolerance=1e-5,
    moral="That is all a 4-bit layer does: two look-ups and two products for every weight, each time that it is used.")
