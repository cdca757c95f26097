"""The peak of the memory that torch's tensors hold while something runs, counted at every operation."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """`with Peak(model) as peak: ...` then `peak.bytes`: the most that was alive at once, each storage once.

    It sees what operations give back, on any device but `meta`, where nothing is held; scratch memory inside a kernel
    it does not see.
    """

    def __init__(self, *models: torch.nn.Module) -> None:
        super().__init__()
        self.alive: dict[int, Any] = {}
        self.now = self.bytes = 0
        for model in models:
            for tensor in [*model.parameters(), *model.buffers()]:
                self.add(tensor)
                for state in filter(None, [getattr(tensor, "quant_state", None)]):
                    inner = state.state2 if state.nested else None
                    for part in (state.absmax, state.code, state.offset, inner and inner.absmax, inner and inner.code):
                        if part is not None:
                            self.add(part)

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.alive or not size or tensor.device.type == "meta":
            return

        def gone(_, key=key, size=size):
            if self.alive.pop(key, None) is not None:
                self.now -= size

        self.alive[key] = weakref.ref(storage, gone)
        self.now += size
        self.bytes = max(self.bytes, self.now)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return result
