"""Lesson 00: one small exercise, to learn how exercises work."""

from __future__ import annotations

from helpers.exercises.engine import Case, Exercise, Mistake


def model_bytes(parameters: int, bits: int) -> int:
    """How many whole bytes `parameters` numbers of `bits` bits fill without gaps."""
    return (parameters * bits + 7) // 8


MODEL_BYTES = Exercise(0, model_bytes, "★ How big is a model? · 3 min", """
A model of `parameters` numbers is stored with `bits` bits for each, packed without gaps. How many bytes does it fill, a
begun byte counting whole? Llama-2-7B has 6,738,415,616 parameters: at 32 bits they fill 26,953,662,464 bytes, more than
most graphics cards hold.

Write the body of the function in place of the `...`, run its cell, then run the check below it. You may check as often
as you like. A wrong answer earns a hint that names the likely error; `hint("model_bytes")` gives hints one at a time,
and `solution("model_bytes")` shows how we would write it.
""",
    cases=(Case((1000, 32)), Case((6_738_415_616, 4), about="less than a byte for each number"),
           Case((8, 5), about="numbers that do not fit a whole number of times into a byte"),
           Case((3, 4), about="a last byte that is not full"), Case((1, 1), about="one bit in all")),
    hints=("How many bits are there in all, and how many bits are there in a byte?",
           "3 numbers of 4 bits are 12 bits: one byte is too small, so they need 2. Which way must the division round?",
           "`//` rounds down. Adding 7 to the bits before `// 8` makes it round up."),
    mistakes=(
        Mistake("Each parameter has `bits` bits: the two multiply, and here they were added.", ("s * b", "s + b")),
        Mistake("These are bits. A byte has 8 of them.", ("(parameters * bits + 7) // 8", "parameters * bits")),
        Mistake("These are kilobytes: the answer is in bytes.", ("7) // 8", "7) // 8000"), ("7) // 8", "7) // 8192")),
        Mistake("Rounded up too early: two 4-bit numbers share a byte, and only the last byte of all is begun.",
                ("(parameters * bits + 7) // 8", "parameters * ((bits + 7) // 8)"),
                ("(parameters * bits + 7) // 8", "(parameters + 7) // 8 * bits")),
        Mistake("Divided too early: what `//` drops there is missing from the total.",
                ("(parameters * bits + 7) // 8", "parameters * (bits // 8)"),
                ("(parameters * bits + 7) // 8", "parameters // 8 * bits")),
        Mistake("Rounded down, the last few bits have nowhere to go: they take a byte of their own.", (" + 7", "")),
        Mistake("Rounded to the nearest, a last byte that is less than half full is lost.", ("+ 7", "+ 4")),
        Mistake("A byte is added even where no bits are left over: 16 bits fill 2 bytes exactly.", ("+ 7", "+ 8")),
    ),
    draw=lambda rng: (rng.randint(1, 10**6), rng.randint(1, 32)),
    moral="At 4 bits Llama-2-7B fills 3.4 GB in place of 27: that is why this course exists.")
