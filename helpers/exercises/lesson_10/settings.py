"""Choosing rank, precision and learning rate."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise

LLAMA_2_7B = [(4096, 4096), (4096, 4096), (4096, 4096), (4096, 4096), (11008, 4096), (11008, 4096), (4096, 11008)] * 32


def lora_parameters(shapes: list[tuple[int, int]], r: int) -> int:
    """How many parameters LoRA of rank `r` trains on weights of (out, in) `shapes`."""
    return sum(r * (rows + columns) for rows, columns in shapes)


LORA_PARAMETERS = Exercise(
    lesson=10,
    title="How many parameters are trained?",
    stars=1,
    minutes=5,
    prompt="""
LoRA leaves a weight of shape (out, in) as it is and trains two thin matrices beside it: A of shape (r, in) and B of
shape (out, r). Count the trained parameters over a list of such weights. On all linear layers of Llama-2-7B with r = 8
they must come to 19,988,480.
""",
    solution=lora_parameters,
    cases=(
        Case(([(6, 4)], 2), "formula", {
            "only_a": 8, "only_b": 12, "the_weight_too": 44, "product": 48, "the_weight": 24, "no_rank": 10,
        }),
        Case(([(6, 4), (4, 6), (6, 4)], 2), "formula", {"duplicates": 40, "first_layer": 20}),
        Case((LLAMA_2_7B, 8), "formula", shown="the 224 linear layers of Llama-2-7B, r=8"),
    ),
    hints=(
        "Draw the two matrices beside a weight of shape (6, 4) with r = 2, and count their cells: 20.",
        "A has r·in cells, B has out·r. Both are trained; the weight itself is frozen.",
        "Sum r·(out + in) over all shapes. Equal shapes are still different layers.",
    ),
    diagnoses={
        "formula": "Each weight of shape (out, in) gets A with r·in and B with out·r parameters.",
        "only_a": "That counts A alone; B, of shape (out, r), is trained as well.",
        "only_b": "That counts B alone; A, of shape (r, in), is trained as well.",
        "the_weight_too": "The weight itself is frozen: only A and B are trained.",
        "product": "That is r times the whole weight. A and B lie beside it and are thin: their sizes add.",
        "the_weight": "That is the frozen weight, which full fine-tuning would train. Count A and B.",
        "no_rank": "The rank is missing: A has r rows, not one, and B has r columns.",
        "duplicates": "Layers of equal shape are counted once: each has its own A and B.",
        "first_layer": "Only the first layer is counted. Is there a `return` inside the loop?",
    },
    wrong=(
        (lambda shapes, r: sum(r * i for o, i in shapes), "only_a"),
        (lambda shapes, r: sum(r * o for o, i in shapes), "only_b"),
        (lambda shapes, r: sum(o * i + r * (o + i) for o, i in shapes), "the_weight_too"),
        (lambda shapes, r: sum(r * o * i for o, i in shapes), "product"),
        (lambda shapes, r: sum(o * i for o, i in shapes), "the_weight"),
        (lambda shapes, r: sum(o + i for o, i in shapes), "no_rank"),
        (lambda shapes, r: sum(r * (o + i) for o, i in set(shapes)), "duplicates"),
        (lambda shapes, r: r * sum(shapes[0]), "first_layer"),
        (lambda shapes, r: r * r * len(shapes), "formula"),
    ),
    moral="On Llama-2-7B with r = 8 that is 0.3 % of the model: 80 MB in fp32.",
)


def choose_precision(capability: tuple[int, int] | None) -> str:
    """The compute dtype: "bfloat16" or "float16" on a GPU, "float32" without one."""
    if capability is None:
        return "float32"
    return "bfloat16" if capability >= (8, 0) else "float16"


CHOOSE_PRECISION = Exercise(
    lesson=10,
    title="Which sixteen bits?",
    stars=1,
    minutes=4,
    prompt="""
bfloat16 arithmetic is built into NVIDIA GPUs from compute capability 8.0 on. That is a generation of hardware, the
pair that `torch.cuda.get_device_capability()` returns, and not the version of CUDA. A T4 (7, 5) has to compute in
float16; an A100 (8, 0), an H100 (9, 0) and an RTX 5090 (12, 0) take bfloat16. Without a GPU the pair is None, and we
compute in float32.

Do not ask `torch.cuda.is_bf16_supported()`: on a T4 it says True, as it counts slow emulation in software
([pytorch#148322](https://github.com/pytorch/pytorch/pull/148322)).
""",
    solution=choose_precision,
    cases=(
        Case(((8, 6),), "inverted", {"names": lambda got: got in ("bf16", "fp16", "half") or "torch" in repr(got)}),
        Case(((7, 5),), "emulated"),
        Case(((8, 0),), "boundary"),
        Case(((9, 0),), "only_ampere"),
        Case(((12, 0),), "text_order"),
        Case(((10, 0),), "text_order"),
        Case(((7, 0),), "emulated"),
        Case((None,), "no_gpu", raises="no_gpu"),
    ),
    hints=(
        "Only `capability` matters: it is a pair like (7, 5), or None.",
        "Python compares pairs from left to right: `(7, 5) < (8, 0) < (8, 6) < (12, 0)`.",
        'Return "float32" for None first; then "bfloat16" if `capability >= (8, 0)`, else "float16".',
    ),
    diagnoses={
        "inverted": "An RTX 3090 (8, 6) has bfloat16 in hardware. Is the comparison the right way round?",
        "names": 'Return the full name as a string: "bfloat16", "float16" or "float32".',
        "emulated": "GPUs before (8, 0), such as the T4, only emulate bfloat16, slowly: they take float16.",
        "boundary": "The A100 is (8, 0) itself and has bfloat16: compare the whole pair with >=.",
        "only_ampere": "Later generations than 8 have bfloat16 too: the H100 is (9, 0).",
        "text_order": 'As text, "12.0" sorts before "8.0". Compare numbers.',
        "no_gpu": "Without a GPU `capability` is None, which cannot be compared: answer \"float32\" first.",
    },
    wrong=(
        (lambda capability: "float16" if capability and capability >= (8, 0) else "bfloat16", "inverted"),
        (lambda capability: "bf16" if capability and capability >= (8, 0) else "fp16", "names"),
        (lambda capability: torch.bfloat16 if capability and capability >= (8, 0) else torch.float16, "names"),
        (lambda capability: "bfloat16" if capability else "float32", "emulated"),
        (lambda capability: "bfloat16" if capability[0] >= 7 and capability[1] >= 5 else "float16", "emulated"),
        (lambda capability: "bfloat16" if capability and capability > (8, 0) else "float16", "boundary"),
        (lambda capability: "bfloat16" if capability and capability[0] == 8 else "float16", "only_ampere"),
        (lambda capability: "bfloat16" if ".".join(map(str, capability or ())) >= "8.0" else "float16", "text_order"),
        (lambda capability: "bfloat16" if capability >= (8, 0) else "float16", "no_gpu"),
        (lambda capability: "bfloat16" if (capability or (0, 0)) >= (8, 0) else "float16", "no_gpu"),
    ),
    moral="The same answer sets `bf16=` and `fp16=` in SFTConfig, and the compute dtype of the 4-bit layers.",
)


def share_moved(weights: torch.Tensor, step: float) -> float:
    """The share (0 to 1) of `weights`, stored in bf16, that a `step` changes.

    `weights` is a float32 tensor of any shape; every weight is lowered by `step`.
    """
    before = weights.to(torch.bfloat16)
    after = (before.float() - step).to(torch.bfloat16)
    return (before != after).float().mean().item()


NORMAL = 0.01 * 2**0.5 * torch.erfinv(torch.linspace(-0.999, 0.999, 1999))  # quantiles of N(0, 0.01)

SHARE_MOVED = Exercise(
    lesson=10,
    title="A learning rate too small to matter",
    stars=2,
    minutes=8,
    imports="import torch",
    prompt="""
A recipe that many tutorials copied in 2023 trains with a learning rate of 2e-6; its own source has 2e-4. An AdamW step
changes a weight by about the learning rate, and bf16 has only 8 significant bits: where the step is less than half the
gap to the next number, the weight rounds back to where it was. Measure it: store `weights` in bf16, take `step` off
each, store the result in bf16 again, and return the share (0 to 1) of weights that changed.
""",
    solution=share_moved,
    cases=(
        Case((torch.tensor([1.0, 0.5, 0.25, 0.0]), 2e-6), "general", {
            "count": lambda got: type(got) is int, "float32": 1.0, "stood_still": 0.75, "percent": 25.0,
            "tensor": lambda got: isinstance(got, torch.Tensor) and got.ndim == 0,
        }),
        Case((torch.tensor([[0.1, 0.3], [0.7, 0.9]]), 0.0), "rounding_counts"),
        Case((NORMAL, 2e-6), "general", {"float16": lambda got: 0.4 < got < 0.8},
             "1,999 weights spread as N(0, 0.01), step=2e-06", tolerance=1e-5),
        Case((NORMAL, 2e-4), "general", {}, "1,999 weights spread as N(0, 0.01), step=0.0002", tolerance=1e-5),
    ),
    hints=(
        "How do the weights look once they are stored in bf16? That is `before`; `weights.to(torch.bfloat16)`.",
        "`after` must be stored in bf16 as well: the rounding at the end is what swallows the step.",
        "`(before != after).float().mean().item()` is the share that differs.",
    ),
    diagnoses={
        "general": "Compare `before`, the weights stored in bf16, with `after`, that minus the step, stored in bf16.",
        "float32": "Every weight moved, so this compares in float32. Both sides must be stored in bf16.",
        "stood_still": "That is the share which stood still: count those that differ.",
        "percent": "That is a percentage: return a share between 0 and 1.",
        "count": "That is a number of weights: divide by how many there are.",
        "tensor": "A tensor came: `.item()` makes a float of it.",
        "rounding_counts": "With a step of 0 nothing moves: storing the weights in bf16 comes before, and is no move.",
        "float16": "These are float16's steps, which has 11 significant bits. bfloat16 has 8.",
    },
    wrong=(
        (lambda weights, step: (weights != weights - step).float().mean().item(), "float32"),
        (lambda weights, step: (weights.bfloat16().float() - step != weights.bfloat16()).float().mean().item(),
         "float32"),
        (lambda weights, step: (weights.bfloat16() == weights.bfloat16() - step).float().mean().item(), "stood_still"),
        (lambda weights, step: 100 * share_moved(weights, step), "percent"),
        (lambda weights, step: int((weights.bfloat16() != weights.bfloat16() - step).sum()), "count"),
        (lambda weights, step: (weights.bfloat16() != weights.bfloat16() - step).float().mean(), "tensor"),
        (lambda weights, step: (weights != (weights - step).bfloat16()).float().mean().item(), "rounding_counts"),
        (lambda weights, step: (weights.half() != weights.half() - step).float().mean().item(), "float16"),
        (lambda weights, step: 0.25 if step else 0.0, "general"),
    ),
    moral=f"Of weights spread as N(0, 0.01) a step of 2e-6 moves {100 * share_moved(NORMAL, 2e-6):.0f} %, "
          f"one of 2e-4 {100 * share_moved(NORMAL, 2e-4):.0f} %.",
)
