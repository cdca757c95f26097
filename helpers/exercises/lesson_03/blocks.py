"""Blocks: whose scale is it, blocks of zeros and short ones."""

from __future__ import annotations

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake


def scale_index(row: int, column: int, columns: int, block_size: int) -> int:
    """Which scale belongs to the weight at (row, column) of a matrix."""
    number = row * columns + column
    return number // block_size


SCALE_INDEX = Exercise(3, scale_index, "★★ Spot the bug: whose scale is it? · 5 min", """
bitsandbytes' loop for AVX-512, where this lesson found its bug, looks up the scale of a weight as below. A loop
proposed for AVX2 counts along the whole tensor instead, so that any shape works ([bitsandbytes#2072](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/2072)):

```python
def scale_index(row, column, columns, block_size):
    return row * (columns // block_size) + column // block_size
```

With 192 columns and blocks of 128 the second row begins in the middle of a block. Write it for every shape.
""",
    cases=(Case((0, 70, 256, 64)), Case((2, 5, 256, 64), about="a row below the first"),
           Case((2, 0, 192, 128), about="rows of one and a half blocks"),
           Case((0, 127, 192, 128), about="the last weight of a block"),
           Case((5, 7, 10, 64), about="a block longer than a row")),
    hints=("Blocks know nothing of rows. Which number has the weight, counted along the whole tensor?",
           "There are row * columns + column weights before it.",
           "Divide that number by block_size, rounding down, once and at the very end."),
    mistakes=(
        Mistake("Each row was taken to hold whole blocks, columns // block_size of them. Row 2 of 192 columns "
                "begins after 384 weights: in block 3."),
        Mistake("That is one scale per row. A row may hold several blocks.", ("number // block_size", "row")),
        Mistake("The weights in the rows before this one were not counted.", ("row * columns + ", "")),
        Mistake("row and column changed places: a row is `columns` weights long.",
                ("row * columns + column", "column * columns + row")),
        Mistake("That is the number of the weight, not of its block.", (" // block_size", "")),
        Mistake("A new block was begun with each row: they run on across the ends of rows.",
                ("number // block_size", "row * -(-columns // block_size) + column // block_size")),
        Mistake("Rounded twice: what is left over of the rows and of the columns can make one more block together.",
                ("number // block_size", "row * columns // block_size + column // block_size")),
        Mistake("Rounded to the nearest, or up: the later weights of a block were given the next one's scale.",
                ("number // block_size", "round(number / block_size)"),
                ("number // block_size", "-(-number // block_size)")),
        Mistake("Counted from 1: the first weight of all has the number 0, and the first scale as well.",
                ("number //", "(number + 1) //"), ("number // block_size", "number // block_size + 1")),
    ),
    draw=lambda rng: (rng.randint(0, 9), rng.randrange(n := rng.randint(20, 300)), n, rng.choice((32, 64, 100))),
    moral="Right wherever columns is a multiple of the block size, which is where everybody had looked.")


def through_int4(x: torch.Tensor, block_size: int) -> torch.Tensor:
    """What comes back of float32 x from int4 (-7 … 7) in blocks: float32, its shape."""
    values = x.flatten()
    blocks = torch.nn.functional.pad(values, (0, -len(values) % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1, keepdim=True)
    codes = (blocks / torch.where(absmax > 0, absmax, 1) * 7).round()
    return (codes / 7 * absmax).flatten()[:len(values)].view(x.shape)


THROUGH_INT4 = Exercise(3, through_int4, "★★ Spot the bug: seventeen scales · 8 min", """
A quantized Gemma answered with NaN. Of the 2,883,584 blocks of its embedding 17 held nothing but zeros, rows for
tokens that nobody uses, and their scale had become 0/0
([auto-round#1908](https://github.com/intel/auto-round/issues/1908)). The same happens here, and a last block that is
not full ends in an exception, as it did in bitsandbytes on CPUs until
[bitsandbytes#1628](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1628), for SigLIP among others:

```python
import torch

def through_int4(x, block_size):
    blocks = x.reshape(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    return ((blocks / scale).round() * scale).view(x.shape)
```

Write the whole way there and back: blocks along the flattened tensor, int4 codes from -7 to 7 rounded as `round()`
does, zeros for blocks of zeros, and a short last block.
""",
    cases=(Case((torch.tensor([[70.0, -30.0, 10.0, 0.0]]), 4), about="one block, of values that are levels already"),
           Case((torch.tensor([[0.5, -7.0, 2.4, 3.6]]), 4), about="a block whose largest magnitude is negative"),
           Case((torch.tensor([[0.5, -7.0, 2.4, 3.6], [70.0, 12.0, -24.0, 1.0]]), 4), about="a second block"),
           Case((torch.tensor([[0.5, -7.0, 2.4, 3.6], [70.0, 12.0, -24.0, 1.0]]), 2), about="two blocks in a row"),
           Case((torch.tensor([0.0, 0.0, 3.0, 1.0]), 2), about="a block of zeros"),
           Case((torch.tensor([7.0, 1.0, 3.0, 0.4, 5.0, 2.4]), 4), about="a last block that is not full"),
           Case((torch.tensor([7.0, 1.0, 3.0, 0.4, 0.7, 0.24]), 4), about="a short last block of small numbers"),
           Case((torch.tensor([[7.0, 1.2, 0.4], [70.0, 14.0, 0.7]]), 2), about="a block that runs on to the next row"),
           Case((torch.tensor([7e-4, -2e-4, 1e-4]), 4), about="very small weights"),
           Case((torch.tensor([7e-20, -2e-20, 1.4e-20]), 4), about="weights of 1e-20")),
    hints=("Pad the flattened tensor with zeros to whole blocks; zeros never change an absmax.",
           "`torch.nn.functional.pad(values, (0, -len(values) % block_size)).view(-1, block_size)`",
           "Divide by `torch.where(absmax > 0, absmax, 1)`; cut the padding off at the end and restore the shape."),
    mistakes=(
        Mistake("A block of zeros has absmax 0: 0/0 is NaN.", None, ("torch.where(absmax > 0, absmax, 1)", "absmax")),
        Mistake("Eight levels to each side need 17 codes, and four bits have 16.", ("* 7)", "* 8)", "/ 7", "/ 8")),
        Mistake("With codes from -8 to 7 the absmax does not come back if it is positive: 70 became 61.",
                ("* 7).round()", "* 8).round().clamp(-8, 7)", "/ 7", "/ 8")),
        Mistake("The codes are cut off towards zero, not rounded to the nearest.", ("round()", "trunc()")),
        Mistake("The codes are rounded down, not to the nearest.", ("round()", "floor()")),
        Mistake("One scale for everything. Each block has its own.", ("amax(dim=1, keepdim=True)", "max()")),
        Mistake("The maximum was taken across the blocks, place by place, not inside each.", ("dim=1", "dim=0")),
        Mistake("The largest value is not the largest magnitude: the first row has -7.", (".abs()", "")),
        Mistake("Those are the codes, not yet values again.", ("codes / 7 * absmax", "codes")),
        Mistake("One scale per row came. A block has block_size values, whatever the row.",
                ("% block_size", "% x.shape[-1]", "(-1, block_size)", "(-1, x.shape[-1])")),
        Mistake("The last block is short here, and the values do not fill a rectangle.", ("% block_size", "* 0")),
        Mistake("The short last block was left as it was: it has a scale of its own, like any other.",
                ("[:len(values)]", "[:len(values) // block_size * block_size]", "return (", "return torch.cat([(",
                 ".view(x.shape)", ", values[len(values) // block_size * block_size:]]).view(x.shape)")),
        Mistake("Blocks run on across the ends of rows; here they begin anew.", lambda x, block_size: torch.stack(
            [through_int4(row, block_size) for row in x.view(-1, x.shape[-1])]).view(x.shape)),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 3), rng.randint(3, 4)), rng.choice((2, 3, 4))),
    tolerance=1e-5,
    moral="One NaN scale among millions is enough: every token that touches it comes out as NaN.")
