"""Choosing rank, precision and learning rate."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake

LLAMA_2_7B = [(4096, 4096), (4096, 4096), (4096, 4096), (4096, 4096), (11008, 4096), (11008, 4096), (4096, 11008)] * 32


def lora_parameters(shapes: list[tuple[int, int]], r: int) -> int:
    """How many parameters LoRA of rank `r` trains on weights of (out, in) `shapes`."""
    return sum(r * (rows + columns) for rows, columns in shapes)


LORA_PARAMETERS = Exercise(10, lora_parameters, "★ How many parameters are trained? · 5 min", """
LoRA leaves a weight of shape (out, in) as it is and trains two thin matrices beside it: A of shape (r, in) and B of
shape (out, r). Count the trained parameters over a list of such weights. On all linear layers of Llama-2-7B with r = 8
they must come to 19,988,480.
""",
    cases=(
        Case(([(6, 4)], 2)),
        Case(([(6, 4), (4, 6), (6, 4)], 2)),
        Case((LLAMA_2_7B, 8), shown="the 224 linear layers of Llama-2-7B, r=8"),
    ),
    hints=(
        "Draw the two matrices beside a weight of shape (6, 4) with r = 2, and count their cells: 20.",
        "A has r·in cells, B has out·r. Both are trained; the weight itself is frozen.",
        "Sum r·(out + in) over all shapes. Equal shapes are still different layers.",
    ),
    mistakes=(
        Mistake("Each weight of shape (out, in) gets A with r·in and B with out·r parameters.",
                lambda shapes, r: r * r * len(shapes)),
        Mistake("That counts A alone; B, of shape (out, r), is trained as well.",
                lambda shapes, r: sum(r * i for o, i in shapes)),
        Mistake("That counts B alone; A, of shape (r, in), is trained as well.",
                lambda shapes, r: sum(r * o for o, i in shapes)),
        Mistake("The weight itself is frozen: only A and B are trained.",
                lambda shapes, r: sum(o * i + r * (o + i) for o, i in shapes)),
        Mistake("That is r times the whole weight. A and B lie beside it and are thin: their sizes add.",
                lambda shapes, r: sum(r * o * i for o, i in shapes)),
        Mistake("That is the frozen weight, which full fine-tuning would train. Count A and B.",
                lambda shapes, r: sum(o * i for o, i in shapes)),
        Mistake("The rank is missing: A has r rows, not one, and B has r columns.",
                lambda shapes, r: sum(o + i for o, i in shapes)),
        Mistake("Layers of equal shape are counted once: each has its own A and B.",
                lambda shapes, r: sum(r * (o + i) for o, i in set(shapes))),
        Mistake("Only the first layer is counted. Is there a `return` inside the loop?",
                lambda shapes, r: r * sum(shapes[0])),
    ),
    tolerance=0.0,
    moral="On Llama-2-7B with r = 8 that is 0.3 % of the model: 80 MB in fp32.")


def choose_precision(capability: tuple[int, int] | None) -> str:
    """The compute dtype: "bfloat16" or "float16" on a GPU, "float32" without one."""
    if capability is None:
        return "float32"
    return "bfloat16" if capability >= (8, 0) else "float16"


CHOOSE_PRECISION = Exercise(10, choose_precision, "★ Which sixteen bits? · 4 min", """
bfloat16 arithmetic is built into NVIDIA GPUs from compute capability 8.0 on. That is a generation of hardware, the
pair that `torch.cuda.get_device_capability()` returns, and not the version of CUDA. A T4 (7, 5) has to compute in
float16; an A100 (8, 0), an H100 (9, 0) and an RTX 5090 (12, 0) take bfloat16. Without a GPU the pair is None, and we
compute in float32.

Do not ask `torch.cuda.is_bf16_supported()`: on a T4 it says True, as it counts slow emulation in software
([pytorch#148322](https://github.com/pytorch/pytorch/pull/148322)).
""",
    cases=(
        Case(((8, 6),)),
        Case(((7, 5),)),
        Case(((8, 0),)),
        Case(((9, 0),)),
        Case(((12, 0),)),
        Case(((10, 0),)),
        Case(((7, 0),)),
        Case((None,)),
    ),
    hints=(
        "Only `capability` matters: it is a pair like (7, 5), or None.",
        "Python compares pairs from left to right: `(7, 5) < (8, 0) < (8, 6) < (12, 0)`.",
        'Return "float32" for None first; then "bfloat16" if `capability >= (8, 0)`, else "float16".',
    ),
    mistakes=(
        Mistake("An RTX 3090 (8, 6) has bfloat16 in hardware. Is the comparison the right way round?",
                lambda capability: "float16" if capability and capability >= (8, 0) else "bfloat16"),
        Mistake('Return the full name as a string: "bfloat16", "float16" or "float32".',
                lambda capability: "bf16" if capability and capability >= (8, 0) else "fp16",
                lambda capability: torch.bfloat16 if capability and capability >= (8, 0) else torch.float16),
        Mistake("GPUs before (8, 0), such as the T4, only emulate bfloat16, slowly: they take float16.",
                lambda capability: "bfloat16" if capability else "float32",
                lambda capability: "bfloat16" if capability[0] >= 7 and capability[1] >= 5 else "float16"),
        Mistake("The A100 is (8, 0) itself and has bfloat16: compare the whole pair with >=.",
                lambda capability: "bfloat16" if capability and capability > (8, 0) else "float16"),
        Mistake("Later generations than 8 have bfloat16 too: the H100 is (9, 0).",
                lambda capability: "bfloat16" if capability and capability[0] == 8 else "float16"),
        Mistake('As text, "12.0" sorts before "8.0". Compare numbers.',
                lambda capability: "bfloat16" if ".".join(map(str, capability or ())) >= "8.0" else "float16"),
        Mistake("Without a GPU `capability` is None, which cannot be compared: answer \"float32\" first.",
                lambda capability: "bfloat16" if capability >= (8, 0) else "float16",
                lambda capability: "bfloat16" if (capability or (0, 0)) >= (8, 0) else "float16"),
    ),
    tolerance=0.0,
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
    cases=(
        Case((torch.tensor([1.0, 0.5, 0.25, 0.0]), 2e-6)),
        Case((torch.tensor([[0.1, 0.3], [0.7, 0.9]]), 0.0)),
        Case((NORMAL, 2e-6), shown="1,999 weights spread as N(0, 0.01), step=2e-06"),
        Case((NORMAL, 2e-4), shown="1,999 weights spread as N(0, 0.01), step=0.0002"),
    ),
    hints=(
        "How do the weights look once they are stored in bf16? That is `before`; `weights.to(torch.bfloat16)`.",
        "`after` must be stored in bf16 as well: the rounding at the end is what swallows the step.",
        "`(before != after).float().mean().item()` is the share that differs.",
    ),
    mistakes=(
        Mistake("Every weight moved, so this compares in float32. Both sides must be stored in bf16.",
                lambda weights, step: (weights != weights - step).float().mean().item(),
                lambda weights, step: (weights.bfloat16().float() - step != weights.bfloat16()).float().mean().item()),
        Mistake("That is the share which stood still: count those that differ.",
                lambda weights, step: (weights.bfloat16() == weights.bfloat16() - step).float().mean().item()),
        Mistake("That is a percentage: return a share between 0 and 1.",
                lambda weights, step: 100 * share_moved(weights, step)),
        Mistake("That is a number of weights: divide by how many there are.",
                lambda weights, step: int((weights.bfloat16() != weights.bfloat16() - step).sum())),
        Mistake("A tensor came: `.item()` makes a float of it.",
                lambda weights, step: (weights.bfloat16() != weights.bfloat16() - step).float().mean()),
        Mistake("With a step of 0 nothing moves: storing the weights in bf16 comes before, and is no move.",
                lambda weights, step: (weights != (weights - step).bfloat16()).float().mean().item()),
        Mistake("These are float16's steps, which has 11 significant bits. bfloat16 has 8.",
                lambda weights, step: (weights.half() != weights.half() - step).float().mean().item()),
    ),
    tolerance=1e-05,
    moral=f"Of weights spread as N(0, 0.01) a step of 2e-6 moves {100 * share_moved(NORMAL, 2e-6):.0f} %, "
          f"one of 2e-4 {100 * share_moved(NORMAL, 2e-4):.0f} %.")
# general: lambda weights, step: 0.25 if step else 0.0
