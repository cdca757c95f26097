"""The memory ledger: bytes by what they are for. And `measure`: what a model, quantized or not, holds of each."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from helpers.quantization import QuantizedTensor

GIB = 2**30
CARDS = (8, 12, 16, 24, 48, 80)  # GB of memory on the GPUs that people have
HELD = ("parameters", "codes", "absmax", "nested absmax", "codebooks", "offsets", "buffers")


class Ledger(dict[str, int]):
    """Bytes by what they are for, in order: a dict with `.total` and `.table()`."""

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return sum(self.values())

    def table(self) -> str:
        """One line per entry that is not zero, and the sum, in bytes."""
        rows = [(name, count) for name, count in self.items() if count] + [("total", self.total)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {count:>19,}" for name, count in rows)

    def _repr_html_(self) -> str:
        cell = "<tr><td style='text-align:left'>{}</td><td>{:,}</td></tr>".format
        rows = "".join(cell(name, count) for name, count in self.items() if count)
        return f"<table><tr><th></th><th>bytes</th></tr>{rows}{cell('<b>total</b>', self.total)}</table>"


def measure(model: nn.Module) -> Ledger:
    """Bytes that a model holds, by the kinds of HELD; tensors that share memory are counted once.

    Knows bitsandbytes' 4-bit weights, whose scales are no parameters and no buffers (`weight.quant_state`), and
    modules that hold a `QuantizedTensor` in the attribute `quantized`. Everything else is a parameter or a buffer.
    """
    entries, seen = dict.fromkeys(HELD, 0), set()

    def add(kind: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None and (storage := tensor.untyped_storage())._cdata not in seen:
            seen.add(storage._cdata)
            entries[kind] += storage.nbytes()

    for module in model.modules():
        if isinstance(quantized := getattr(module, "quantized", None), QuantizedTensor):
            nested = isinstance(quantized.scales, QuantizedTensor)
            add("codes", quantized.packed)
            add("codebooks", quantized.codebook)
            add("offsets", quantized.offset)
            add("absmax", quantized.scales.packed if nested else quantized.scales)
            add("nested absmax", quantized.scales.scales if nested else None)
            add("codebooks", quantized.scales.codebook if nested else None)
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        add("parameters" if state is None else "codes", parameter)
        if state is not None:
            add("absmax", state.absmax)
            add("codebooks", state.code)
            add("offsets", state.offset)
            add("nested absmax", state.state2.absmax if state.nested else None)
            add("codebooks", state.state2.code if state.nested else None)
    for buffer in model.buffers():  # last: a buffer that belongs to a quantized tensor has been counted as that
        add("buffers", buffer)
    return Ledger(entries)


def smallest_card(bytes_needed: int, cards: Collection[int] = CARDS) -> int | None:
    """The smallest of `cards` (GB as they are sold, of 2**30 bytes) that holds so many bytes; None if none does.

    A gibibyte is set aside for CUDA itself and the allocator's gaps (assumed, not measured).
    """
    return next((card for card in sorted(cards) if bytes_needed <= (card - 1) * GIB), None)
