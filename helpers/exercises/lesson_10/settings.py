"""Choosing rank, precision and learning rate."""

from __future__ import annotations

import torch

from helpers.exercises.draws import normal
from helpers.exercises.engine import Case, Exercise, Mistake

LLAMA_2_7B = [*[(4096, 4096)] * 4, (11008, 4096), (11008, 4096), (4096, 11008)] * 32


def lora_parameters(shapes: list[tuple[int, int]], r: int) -> int:
    """How many parameters LoRA of rank `r` trains on weights of (out, in) `shapes`."""
    return sum(r * (rows + columns) for rows, columns in shapes)


LORA_PARAMETERS = Exercise(10, lora_parameters, "★ Build: how many numbers are trained? · 5 min", """
LoRA leaves a weight of shape (out, in) as it is and trains two thin matrices beside it: A of shape (r, in) and B of
shape (out, r). Count the trained parameters over a list of such weights. On all linear layers of Llama-2-7B with r = 8
they must come to 19,988,480.
""",
    cases=(([(7, 4)], 3), Case(([(7, 4), (5, 9)], 3), about="a second layer"),
           Case(([(6, 5), (5, 6), (6, 5)], 2), about="two layers of one shape"),
           Case((LLAMA_2_7B, 8), about="224 layers", shown="the 224 linear layers of Llama-2-7B, r=8")),
    hints=("Draw the two matrices beside a weight of shape (7, 4) with r = 3, and count their cells: 33.",
           "A has r·in cells, B has out·r. Both are trained; the weight itself is frozen.",
           "Sum r·(out + in) over all shapes. Equal shapes are still different layers."),
    mistakes=(
        Mistake("Those are two squares of r by r. A is as wide as the weight, and B as tall.",
                ("(rows + columns)", "r"), ("(rows + columns)", "2 * r")),
        Mistake("That counts A alone; B, of shape (out, r), is trained as well.", ("(rows + columns)", "columns")),
        Mistake("That counts B alone; A, of shape (r, in), is trained as well.", ("(rows + columns)", "rows")),
        Mistake("The frozen weight was added: only A and B are trained.", ("r * (", "rows * columns + r * (")),
        Mistake("Sides were multiplied, as for the frozen weight. A and B are thin: their sizes add.",
                ("rows + columns", "rows * columns"), ("rows + columns", "rows * r * columns"),
                ("r * (rows + columns)", "rows * columns")),
        Mistake("The rank multiplies one side only.", ("(rows + columns)", "rows + columns"),
                ("r * (rows + columns)", "rows + r * columns")),
        Mistake("Layers of equal shape are counted once: each has its own A and B.", ("in shapes", "in set(shapes)")),
    ),
    draw=lambda rng: ([(rng.randint(6, 40), rng.randint(6, 40)) for _ in range(rng.randint(1, 5))], rng.randint(1, 6)),
    moral="On Llama-2-7B with r = 8 that is 0.3 % of the model: 80 MB in fp32.")


def choose_precision(capability: tuple[int, int] | None) -> str:
    """The compute dtype: "bfloat16" or "float16" on a GPU, "float32" without one."""
    if capability is None:
        return "float32"
    return "bfloat16" if capability >= (8, 0) else "float16"


AT_LEAST = "capability >= (8, 0)"
CHOOSE_PRECISION = Exercise(10, choose_precision, "★ Build: which sixteen bits? · 4 min", """
bfloat16 arithmetic is built into NVIDIA GPUs from compute capability 8.0 on. That is a generation of hardware, the
pair that `torch.cuda.get_device_capability()` returns, and not the version of CUDA. A T4 (7, 5) has to compute in
float16; an A100 (8, 0), an H100 (9, 0) and an RTX 5090 (12, 0) take bfloat16. Without a GPU the pair is None, and we
compute in float32.

Do not ask `torch.cuda.is_bf16_supported()`: on a T4 it says True, as it counts slow emulation in software
([pytorch#148322](https://github.com/pytorch/pytorch/pull/148322)).
""",
    cases=(Case(((8, 0),), about="8.0, the first with bfloat16"), Case(((8, 6),), about="another GPU of generation 8"),
           Case(((7, 5),), about="a GPU of an earlier generation"), Case(((6, 1),), about="a generation before 7"),
           Case(((9, 0),), about="a later generation"),
           Case(((12, 0),), about="a generation of two digits"), Case(((7, 0),), about="7.0, older than the T4"),
           Case((None,), about="no GPU")),
    hints=("Only `capability` matters: it is a pair like (7, 5), or None.",
           "Python compares pairs from left to right: `(7, 5) < (8, 0) < (8, 6) < (12, 0)`.",
           'Return "float32" for None first; then "bfloat16" if `capability >= (8, 0)`, else "float16".'),
    mistakes=(
        Mistake("The two are exchanged: generations from (8, 0) on have bfloat16 in hardware.", (">=", "<")),
        Mistake('Return the name as a string, in full and in small letters: "bfloat16", "float16" or "float32".',
                ('"bfloat16"', '"bf16"', '"float16"', '"fp16"'), ('"bfloat16"', '"BFloat16"', '"float16"', '"Float16"'),
                lambda capability: getattr(torch, choose_precision(capability))),
        Mistake("GPUs before (8, 0), such as the T4, only emulate bfloat16, slowly: they take float16.",
                (AT_LEAST, "True"), ("(8, 0)", "(7, 5)"), (AT_LEAST, "sum(capability) >= 8")),
        Mistake("Generation 8 has bfloat16 from its first GPU on: the A100 is (8, 0), the RTX 3090 (8, 6).",
                (">=", ">"), (AT_LEAST, "False"), (AT_LEAST, "capability[0] > 8"),
                (AT_LEAST, "capability[0] >= 8 and capability[1] > 0")),
        Mistake("Later generations than 8 have bfloat16 too: the H100 is (9, 0).", (AT_LEAST, "capability[0] == 8")),
        Mistake('Generations do not end at 9, and as text "12.0" would sort before "8.0": compare numbers.',
                (AT_LEAST, "capability[0] in (8, 9)"), (AT_LEAST, "str(capability) >= '(8, 0)'")),
        Mistake("A pair does not compare with one number: take `(8, 0)`, or `capability[0]`.", ("(8, 0)", "8")),
        Mistake('Without a GPU `capability` is None, and the answer "float32": ask for that first.',
                ("is None", "== ()"), ('"float32"', '"float16"'), ('"float32"', '"bfloat16"')),
    ),
    draw=lambda rng: ((rng.randint(5, 12), rng.randint(0, 9)),),
    moral="The same answer sets `bf16=` and `fp16=` in SFTConfig, and the compute dtype of the 4-bit layers.")


def share_moved(weights: torch.Tensor, step: float) -> float:
    """The share (0 to 1) of `weights`, stored in bf16, that a `step` changes.

    `weights` is a float32 tensor of any shape; every weight is lowered by `step`.
    """
    before = weights.to(torch.bfloat16)
    after = (before.float() - step).to(torch.bfloat16)
    return (before != after).float().mean().item()


NORMAL = 0.01 * 2**0.5 * torch.erfinv(torch.linspace(-0.999, 0.999, 1999))  # quantiles of N(0, 0.01)
SHARE_MOVED = Exercise(10, share_moved, "★★ A learning rate too small to matter · 8 min", """
A recipe that many tutorials copied in 2023 trains with a learning rate of 2e-6; its own source has 2e-4. An AdamW step
changes a weight by about the learning rate, and bf16 has only 8 significant bits: where the step is less than half the
gap to the next number, the weight rounds back to where it was. Measure it: store `weights` in bf16, take `step` off
each, store the result in bf16 again, and return the share (0 to 1) of weights that changed.
""",
    cases=((torch.tensor([1.0, 2.0, 4.0, 0.25, 0.0]), 1e-3),
           Case((torch.tensor([[0.1, 0.3, 0.6], [0.7, 0.9, 1.1]]), 0.0),
                about="a step of 0, on weights that bf16 cannot hold"),
           Case((torch.tensor([1.0, 2.0, 4.0]), 0.003), about="1.0, where the gap below is half the gap above"),
           Case((torch.tensor([[1.0, 2.0], [0.25, 4.0], [8.0, 0.5]]), 1e-3), about="weights in a matrix"),
           Case((torch.tensor([-1.0, -2.0, 0.5]), 0.003), about="a negative weight"),
           Case((torch.tensor([100.0, 1e-3, 0.01]), 2e-4), about="weights of very different sizes"),
           Case((NORMAL, 2e-6), about="many weights", shown="1,999 weights spread as N(0, 0.01), step=2e-06")),
    hints=("How do the weights look once they are stored in bf16? That is `before`; `weights.to(torch.bfloat16)`.",
           "`after` must be stored in bf16 as well: the rounding at the end is what swallows the step.",
           "`(before != after).float().mean().item()` is the share that differs."),
    mistakes=(
        Mistake("`after` was never stored in bf16, so even a step that is lost counts. Both sides go through bf16.",
                ("- step).to(torch.bfloat16)", "- step)"), (".to(torch.bfloat16)", "")),
        Mistake("That is the share which stood still: count those that differ.", ("!=", "==")),
        Mistake("Storing in bf16 is no move: compare with the weights as bf16 holds them, not as they came.",
                ("before != after", "weights != after"), ("before.float()", "weights", "(before !=", "(weights !=")),
        Mistake("The step was taken off before the weights were in bf16: `after` starts from what is stored.",
                ("before.float()", "weights")),
        Mistake("The step was added. It is taken off, and below a power of two the gap is half as wide.",
                ("- step", "+ step")),
        Mistake("The step shrinks every weight towards zero here. It is the same number, taken off whatever the sign.",
                ("before.float() - step", "before.float() - step * before.sign()")),
        Mistake("The gap was taken for a share of the weight. It is the same from one power of two to the next.",
                ("(before != after)", "(step > before.float().abs() * 2**-8)")),
        Mistake("The step was made a share of each weight. It is one number, taken off as it is.",
                ("- step", "* (1 - step)")),
        Mistake("These are float16's steps, which has 11 significant bits. bfloat16 has 8.", ("bfloat16", "float16")),
        Mistake("That is how far the weights moved. Asked for is how many of them moved at all.",
                ("(before != after).float()", "(before.float() - after.float()).abs()")),
    ),
    draw=lambda rng: (normal(rng, rng.randint(1, 5), rng.randint(1, 9)), 10 ** rng.uniform(-4, -1.5)),
    moral=f"Of weights spread as N(0, 0.01) a step of 2e-6 moves {100 * share_moved(NORMAL, 2e-6):.0f} %, "
          f"one of 2e-4 {100 * share_moved(NORMAL, 2e-4):.0f} %.")
