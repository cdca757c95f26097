"""Blocks: whose scale is it, blocks of zeros and short ones."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def scale_index(row: int, column: int, columns: int, block_size: int) -> int:
    """Which scale belongs to the weight at (row, column) of a matrix."""
    return (row * columns + column) // block_size


SCALE_INDEX = Exercise(3, scale_index, "★★ Spot the bug: whose scale is it? · 6 min", """
bitsandbytes' loop for AVX-512, the wrong one of this lesson, looks up the scale of a weight as below. A later change to
bitsandbytes counts along the whole tensor instead, so that any shape works ([bitsandbytes#2072](https://github.com/bitsandbytes-foundation/bitsandbytes/pull/2072)):

```python
def scale_index(row, column, columns, block_size):
    return row * (columns // block_size) + column // block_size
```

With 192 columns and blocks of 128 the second row begins in the middle of a block. Write it for every shape.
""",
    cases=(
        Case((0, 130, 192, 128)),
        Case((2, 5, 256, 64)),
        Case((1, 0, 192, 128)),
        Case((2, 0, 192, 128)),
        Case((3, 100, 192, 128)),
        Case((5, 7, 10, 64)),
    ),
    hints=(
        "Blocks know nothing of rows. Which number has the weight, counted along the whole tensor?",
        "There are row * columns + column weights before it.",
        "Divide that number by block_size, rounding down, once and at the very end.",
    ),
    mistakes=(
        Mistake("Each row was taken to hold whole blocks, columns // block_size of them. Row 2 of 192 columns "
                "begins after 384 weights: in block 3."),
        Mistake("That is one scale per row. A row may hold several blocks, or parts of them.",
                lambda row, column, columns, block_size: row),
        Mistake("The rows before this one hold blocks too: count their weights.",
                lambda row, column, columns, block_size: column // block_size),
        Mistake("row and column changed places: a row is `columns` weights long.",
                lambda row, column, columns, block_size: 1 if row == 0 else (column * columns + row) // block_size),
        Mistake("That is the number of the weight. Divide by block_size to get its block.",
                lambda row, column, columns, block_size: 1 if row == 0 else row * columns + column),
        Mistake("Blocks do not begin anew with each row: row 1 of 192 columns begins inside block 1.",
                lambda row, column, columns, block_size: row * -(-columns // block_size) + column // block_size),
    ),
    tolerance=0.0,
    moral="Right wherever columns is a multiple of the block size, which is where everybody had looked.")
# general: lambda row, column, columns, block_size: 7


def through_int4(x: torch.Tensor, block_size: int) -> torch.Tensor:
    """What comes back of float32 x from int4 (-7 … 7) in blocks: float32, its shape."""
    values = x.flatten()
    blocks = torch.nn.functional.pad(values, (0, -len(values) % block_size)).view(-1, block_size)
    absmax = blocks.abs().amax(dim=1, keepdim=True)
    codes = (blocks / torch.where(absmax > 0, absmax, 1) * 7).round()
    return (codes / 7 * absmax).flatten()[:len(values)].view(x.shape)


def _variant(levels: int = 7, rounding=torch.round, largest=lambda b: b.abs().amax(dim=1, keepdim=True), guard=True):
    """`through_int4` with one thing different."""
    def answer(x: torch.Tensor, block_size: int) -> torch.Tensor:
        values = x.flatten()
        blocks = torch.nn.functional.pad(values, (0, -len(values) % block_size)).view(-1, block_size)
        absmax = largest(blocks)
        safe = torch.where(absmax > 0, absmax, 1) if guard else absmax
        return (rounding(blocks / safe * levels) / levels * absmax).flatten()[:len(values)].view(x.shape)
    return answer


def _lopsided(x: torch.Tensor, block_size: int) -> torch.Tensor:
    blocks = x.reshape(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 8
    return ((blocks / scale).round().clamp(-8, 7) * scale).view(x.shape)


def _rows(x: torch.Tensor, block_size: int) -> torch.Tensor:
    return torch.stack([through_int4(row, len(row)) for row in x.reshape(-1, x.shape[-1])]).view(x.shape)


def _anew(x: torch.Tensor, block_size: int) -> torch.Tensor:
    return torch.stack([through_int4(row, block_size) for row in x.reshape(-1, x.shape[-1])]).view(x.shape)


def _no_tail(x: torch.Tensor, block_size: int) -> torch.Tensor:
    values, whole = x.flatten(), x.numel() // block_size * block_size
    return torch.cat([through_int4(values[:whole], block_size), values[whole:]]).view(x.shape)


def _published(x: torch.Tensor, block_size: int) -> torch.Tensor:
    blocks = x.reshape(-1, block_size)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 7
    return ((blocks / scale).round() * scale).view(x.shape)


SMALL = torch.tensor([[0.5, -7.0, 2.4, 3.6], [70.0, 12.0, -24.0, 1.0]])
CROSSING = torch.tensor([[7.0, 1.2, 0.4], [70.0, 14.0, 0.7]])

THROUGH_INT4 = Exercise(3, through_int4, "★★ Spot the bug: seventeen scales · 12 min", """
A quantized Gemma answered with NaN. Of its 2,883,584 blocks 17 held nothing but zeros, rows for tokens that nobody
uses, and their scale had become 0/0
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

Write the whole way there and back: blocks along the flattened tensor, int4 codes from -7 to 7 rounded to nearest, zeros
for blocks of zeros, and a short last block.
""",
    cases=(
        Case((SMALL, 4)),
        Case((SMALL, 2)),
        Case((torch.tensor([0.0, 0.0, 3.0, 1.0]), 2)),
        Case((torch.tensor([7.0, 1.0, 3.0, 0.4, 0.7, 0.24]), 4)),
        Case((CROSSING, 2)),
    ),
    hints=(
        "Pad the flattened tensor with zeros to whole blocks; zeros never change an absmax.",
        "`torch.nn.functional.pad(values, (0, -len(values) % block_size)).view(-1, block_size)`",
        "Divide by `torch.where(absmax > 0, absmax, 1)`; cut the padding off at the end and restore the shape.",
    ),
    mistakes=(
        Mistake("A block of zeros has absmax 0, and 0/0 is NaN. Divide by 1 there.",
                None,
                _variant(guard=False)),
        Mistake("Eight levels to each side need 17 codes, and four bits have 16: take 7.",
                _variant(8)),
        Mistake("With codes from -8 to 7 the absmax does not come back if it is positive: 70 became 61. "
                "Take 7 steps to each side.",
                _lopsided),
        Mistake("The codes are cut off towards zero. Round to the nearest.",
                _variant(rounding=torch.trunc)),
        Mistake("The codes are rounded down. Round to the nearest.",
                _variant(rounding=torch.floor)),
        Mistake("One scale for everything. Each block has its own.",
                lambda x, block_size: through_int4(x, x.numel())),
        Mistake("The largest value is not the largest magnitude: the first row has -7. Take `.abs()` first.",
                _variant(largest=lambda b: b.amax(dim=1, keepdim=True))),
        Mistake("Those are the codes. Multiply by absmax / 7 to come back.",
                lambda x, block_size: torch.tensor([[0.0, -7, 2, 4], [7, 1, -2, 0]]) if x.numel() == 8 else x),
        Mistake("One scale per row came. A block has block_size values, whatever the row.",
                _rows),
        Mistake("The last block is short here: pad it with zeros, and cut them off afterwards.",
                lambda x, block_size: torch.where(x == 0, 0.0, _published(x, block_size)),
                _no_tail),
        Mistake("Blocks run on across the ends of rows; they do not begin anew.",
                _anew),
    ),
    tolerance=1e-05,
    moral="One NaN scale among millions is enough: every token that touches it comes out as NaN.")
# general: lambda x, block_size: x * 1.0
