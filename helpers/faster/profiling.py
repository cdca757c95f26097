"""Where the time of a step goes: torch's profiler, its hundreds of operators put into a few kinds."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or its library writes a line to stderr at every start and stop
KINDS = ("head and loss", "matrix products", "attention", "pointwise", "moving data", "optimizer", "the rest")
OPERATORS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "gemm_4bit", "dequantize_4bit"),
    "attention": ("_scaled_dot_product_", "_softmax", "softmax"),
    "moving data": ("copy_", "cat", "index", "embedding", "slice", "select", "scatter", "gather", "fill_", "zero_",
                    "_to_copy", "clone", "contiguous", "constant_pad"),
    "pointwise": ("mul", "add", "silu", "rsqrt", "pow", "mean", "neg", "div", "sub", "sum", "cos", "sin", "where",
                  "exp", "sigmoid", "lerp", "sqrt"),
}


def kind(name: str, shapes: list, vocab: int) -> str:
    """The kind of an operator, by its name and its inputs' shapes: what has the vocabulary's size is the head's."""
    short = name.removeprefix("aten::").removeprefix("bitsandbytes::")
    if "optimizer" in name.lower() or short.startswith("_foreach") or short.startswith("_fused_adam"):
        return "optimizer"
    wide = any(vocab in shape for shape in shapes if isinstance(shape, list))
    if wide or "nll_loss" in short or "log_softmax" in short:
        return "head and loss"
    for found, names in OPERATORS.items():
        if any(short.startswith(start) for start in names):
            return found
    return "the rest"


def shares(step: Callable[[], object], vocab: int, repeat: int = 1, warm: bool = True) -> dict[str, float]:
    """Each kind's share of the CPU time that a step takes within operators, 0 to 1.

    vocab: the size of the vocabulary, by which the head and the loss are told from other products. Of a step that runs
    on a GPU the operators' time there counts.
    """
    if warm:
        step()
    gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu], record_shapes=True) as seen:
        for _ in range(repeat):
            step()
    events = seen.key_averages(group_by_input_shape=True)
    clock = "self_device_time_total" if any(event.self_device_time_total for event in events) else "self_cpu_time_total"
    time = dict.fromkeys(KINDS, 0.0)
    for event in events:
        time[kind(event.key, event.input_shapes, vocab)] += getattr(event, clock)
    whole = sum(time.values())
    return {name: spent / whole for name, spent in time.items()}
