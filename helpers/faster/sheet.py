"""The levers' record as one page: what each gives, what it costs, how it is switched on.

A record is that of helpers.experiments.levers: {"points": [{"lever", "round", "seconds", ...}]}. Times are ratios to
another lever of the *same* round, so that a machine that is slower for an hour is slower for both.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One lever on the page. name: what it is called in the record, None if it was not measured; against: the lever
    that counts as 1; memory: whether its peak may be compared with that one's (the same rows)."""

    title: str
    switch: str
    name: str | None
    price: str
    against: str = "plain"
    memory: bool = True


LINES = (
    Line("dynamic padding", "a collator that pads (TRL's default)", "plain", "nothing", "padded to 1,024", False),
    Line("length grouping", '`train_sampling_strategy="group_by_length"`', "grouped by length",
         "a less random order"),
    Line("packing", '`packing=True` ("bfd", padding-free)', "packed",
         "an attention that reads position_ids; other numbers of rows a step"),
    Line("smaller batches, accumulated", "`gradient_accumulation_steps`", "batches of 2, accumulated",
         "more calls; on a GPU idle cores"),
    Line("checkpointing", "`activation_checkpointing=True`", "checkpointed", "a second forward pass"),
    Line("sdpa, not eager", '`attn_implementation="sdpa"` (default)', "plain", "no attention weights to look at",
         "eager attention"),
    Line("the same at 1,024 tokens", "", "1,024 tokens, sdpa", "the same", "1,024 tokens, eager"),
    Line("head on labels only", "TRL on a GPU; `label_positions_only()`", "head on labels only",
         "shapes that change with every batch"),
    Line("a compiler", "`torch_compile=True`", "layers compiled",
         "a minute or more at the start; on a CPU a C++ compiler", memory=False),
    Line("NF4 base, not fp32", "`BitsAndBytesConfig`", "NF4 base", "dequantizing twice; other weights than before"),
    Line("LoRA, not all weights", "`LoraConfig`", "plain", "less room for many new facts (lesson 07)",
         "all weights trained"),
    Line("8-bit Adam", '`optim="adamw_8bit"`', None, "not the same update"),
    Line("paged Adam", '`optim="paged_adamw_32bit"`', None, "nothing until memory is short, then the way over PCIe"),
    Line("offloading", "`activation_offloading=True`", None, "the way over PCIe, twice"),
    Line("fused kernels (Liger)", '`model_init_kwargs={"use_kernels": True}` (once `use_liger_kernel`)', None,
         "a GPU; rounding"),
    Line("all of ours together", "packed, head on labels, not checkpointed", "after", "see above", "before", False),
)


def ratios(record: Mapping, name: str, against: str, what: str = "seconds") -> list[float]:
    """`what` of one lever over that of another, in every round that has both. Raises ValueError if none has."""
    found: dict[int, dict[str, float]] = {}
    for point in record["points"]:
        if what in point:
            found.setdefault(point["round"], {})[point["lever"]] = point[what]
    both = [of[name] / of[against] for of in found.values() if name in of and against in of]
    if not both:
        raise ValueError(f"no round has {what!r} of both {name!r} and {against!r}")
    return both


def spread(numbers: Sequence[float]) -> str:
    """The mean and, where they differ in two digits, the least and the greatest."""
    low, mean, high = (f"{n:.2f}" for n in (min(numbers), statistics.fmean(numbers), max(numbers)))
    return f"× {mean}" if low == high else f"× {mean} ({low}–{high})"


def value(record: Mapping, name: str, what: str) -> float | None:
    """The first value of a lever under the name `what`, None where there is none."""
    return next((point[what] for point in record["points"] if point["lever"] == name and what in point), None)


def sheet(record: Mapping, lines: Sequence[Line] = LINES) -> str:
    """The page as a Markdown table. "–": not measured."""
    rows = ["| Lever | Switched on by | Time | Memory at the peak | Gradients off by | It costs you |",
            "|---|---|---|---|---|---|"]
    for line in lines:
        time = memory = off = "–"
        if line.name:
            time = spread(ratios(record, line.name, line.against))
            if line.memory:
                memory = spread(ratios(record, line.name, line.against, "peak"))
            off = _off(record, line)
        rows.append(f"| {line.title} | {line.switch} | {time} | {memory} | {off} | {line.price} |")
    return "\n".join(rows)


def _off(record: Mapping, line: Line) -> str:
    """How far the gradients are off; the plain step's own comparison is that of the lever it is set against."""
    found = [value(record, name, "difference") for name in (line.name, line.against)]
    if None in found:
        return "–"
    return f"{max(found):.0e}".replace("e-0", "e-") if max(found) else "0"
