"""The memory that torch's tensors hold while something runs, counted at every operation: how much, when, what for."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """`with Peak(model) as peak: ...` then `peak.bytes`: the most that was alive at once, each storage once.

    It sees what operations give back, on any device and without one (FakeTensors too), and the weights that
    bitsandbytes dequantizes within one; other scratch memory inside a kernel it does not see. It keeps every birth and
    death as an event, so that one can ask afterwards what was alive when.
    """

    def __init__(self, *models: torch.nn.Module) -> None:
        super().__init__()
        self.alive: dict[int, tuple[int, Any]] = {}  # a storage's address -> its number, and a reference to it
        self.sizes: list[int] = []  # bytes of the storage of each number
        self.events: list[int] = []  # n: storage number n was born; ~n: it died
        for model in models:
            for tensor in [*model.parameters(), *model.buffers()]:
                for part in (tensor, *quantization_tensors(tensor)):
                    self.add(part)

    def add(self, tensor: torch.Tensor) -> int | None:
        """Count a tensor's storage from now on, if it is not counted yet; its number (None: empty, or on `meta`)."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive:
            return self.alive[key][0]
        if not size or tensor.device.type == "meta":  # where nothing is held
            return None
        number = len(self.sizes)

        def gone(_):
            del self.alive[key]
            self.events.append(~number)

        self.alive[key] = number, weakref.ref(storage, gone)
        self.events.append(number)
        self.sizes.append(size)
        return number

    def highest(self, start: int = 0, stop: int | None = None) -> tuple[int, set[int]]:
        """The most bytes alive between two events, and the numbers of the storages that held them first."""
        now = most = moment = 0
        for place, number in enumerate(self.events[:stop]):
            now += self.sizes[number] if number >= 0 else -self.sizes[~number]
            if place >= start and now > most:
                most, moment = now, place + 1
        return most, self.living(moment)

    def living(self, stop: int | None = None) -> set[int]:
        """The numbers of the storages that are alive after so many events; None for all."""
        alive: set[int] = set()
        for number in self.events[:stop]:
            alive.add(number) if number >= 0 else alive.remove(~number)
        return alive

    @property
    def bytes(self) -> int:
        """The most that was alive at once."""
        return self.highest()[0]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() == "bitsandbytes::gemm_4bit":
            with self:
                return _dequantize_and_multiply(*args)  # torch gives them by position
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result


def _dequantize_and_multiply(x, codes, shape, absmax, block_size, kind, bias=None, scales=None, table=None, mean=None):
    """`bitsandbytes::gemm_4bit`, opened: the whole weight is dequantized to the type of the input, then multiplied.

    Source: bitsandbytes 0.50, backends/default/ops.py for a CPU; for a GPU backends/cuda/ops.py,
    `_dequant_linear_fallback`, taken for all but small weights from 257 tokens on, on the newest cards from 65. Below,
    a kernel without that copy may be taken: then this is too much.
    """
    if scales is not None:
        absmax = torch.ops.bitsandbytes.dequantize_blockwise(scales, absmax, table, 256, torch.float32) + mean
    weight = torch.ops.bitsandbytes.dequantize_4bit(codes, absmax, block_size, kind, shape, x.dtype)
    return nn.functional.linear(x, weight, bias)


def quantization_tensors(weight: torch.Tensor) -> list[torch.Tensor]:
    """The scales and tables of a bitsandbytes weight, which are no parameters and no buffers; none for another."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return []
    nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return [state.absmax, state.code, *nested]
