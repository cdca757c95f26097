"""The way of a training step through the libraries' code on a GPU, taken by tensors that are on none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from unittest import mock

import torch

from helpers.memory.peak import Peak


class Card(Peak):
    """Counts as on a GPU, where TRL's head looks at the labels: it is told that every token has one."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index.Tensor and getattr(args[1][0], "dtype", None) is torch.bool:
            with self:
                return args[0].flatten(0, args[1][0].ndim - 1).clone()
        if func is torch.ops.aten.masked_select.default:
            with self:
                return args[0].flatten().clone()
        return super().__torch_dispatch__(func, types, args, kwargs)


class _Kernel:
    """A Triton kernel: it fills tensors that are there already, so it takes no memory."""

    def __getitem__(self, grid):
        return lambda *tensors, **settings: None


@contextlib.contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """While this lasts, what the libraries ask about the device is answered as for a GPU. Results mean nothing.

    PEFT asks whether CUDA's autocast is on, TRL whether there is Triton, dropout whether it may use its fused kernel.
    (Tensors without data could say themselves that they are on "cuda", but only in a PyTorch that is built for CUDA.)
    """
    from trl.kernels import chunked_logprob

    autocast = torch.is_autocast_enabled
    with (mock.patch("torch.is_autocast_enabled", lambda device="cpu": autocast(device)),
          mock.patch("torch.nn.functional.dropout",
                     lambda x, p=0.5, training=True, inplace=False: torch.native_dropout(x, p, training)[0]),
          mock.patch("trl.trainer.utils._use_triton", lambda device: True),
          mock.patch.multiple(chunked_logprob, create=True, _use_triton=lambda device: True,
                              _addmm_fp32=lambda *tensors: None, _forward_kernel=_Kernel(), _backward_kernel=_Kernel(),
                              triton=SimpleNamespace(cdiv=lambda *sizes: None))):
        yield
