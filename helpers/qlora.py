"""QLoRA: a linear layer whose frozen weight is kept as 4-bit codes, and the gradient that passes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from helpers.codebooks import NF4
from helpers.lora import LoRALinear, check_input, ends_with
from helpers.quantization import QuantizedTensor, quantize


class FrozenMatmul(torch.autograd.Function):
    """Y = X·dequant(W)ᵀ for a quantized W (d, k) that is not trained: x (..., k) -> (..., d), of dtype W.dtype.

    Between forward and backward nothing is kept but the codes, which the model holds anyway: W is dequantized twice.
    W gets no gradient, X its exact one, dL/dX = dL/dY·dequant(W).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, quantized: QuantizedTensor) -> torch.Tensor:
        ctx.quantized = quantized
        return F.linear(x, quantized.dequantize())

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient @ ctx.quantized.dequantize(), None


class QuantizedBuffers(nn.Module):
    """A QuantizedTensor as buffers, which state_dict saves and loads: packed, codebook, scales and offset.

    After double quantization `scales` is such a module again. `.to(device)` moves the buffers; `.to(dtype)`, `.half()`
    leave them as they are, since scales rounded to 16 bits would be other scales.
    """

    def __init__(self, quantized: QuantizedTensor) -> None:
        super().__init__()
        self.block_size, self.shape, self.dtype = quantized.block_size, quantized.shape, quantized.dtype
        self.register_buffer("packed", quantized.packed)
        self.register_buffer("codebook", quantized.codebook.clone())  # else shared by all layers: not to be saved
        self.register_buffer("offset", quantized.offset)
        if quantized.offset is None:
            self.register_buffer("scales", quantized.scales)
        else:
            self.scales = QuantizedBuffers(quantized.scales)

    def tensor(self) -> QuantizedTensor:
        """The QuantizedTensor, of these very buffers."""
        scales = self.scales if self.offset is None else self.scales.tensor()
        return QuantizedTensor(self.packed, scales, self.offset, self.codebook, self.block_size, self.shape, self.dtype)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> QuantizedBuffers:
        return super()._apply(lambda t: moved if (moved := fn(t)).dtype == t.dtype else t.to(moved.device), recurse)


class QuantizedLinear(nn.Module):
    """A linear layer with a frozen, quantized weight W (d, k): y = x·dequant(W)ᵀ + bias.

    compute_dtype: of the product; None: autocast's where that is on, else x's own. y comes back in x's dtype.
    name: what errors call the layer. `quantized` gives the weight as the QuantizedTensor that it is.
    Source: Dettmers et al. 2023 (arXiv 2305.14314), equations 5 and 6, without LoRA's part.
    Raises ValueError for a weight that is no matrix; in forward for an x of the wrong width or without floating point.
    """

    def __init__(self, quantized: QuantizedTensor, bias: torch.Tensor | None = None,
                 compute_dtype: torch.dtype | None = None, name: str = "QuantizedLinear") -> None:
        super().__init__()
        if len(quantized.shape) != 2:
            raise ValueError(f"{name}: a weight of shape {tuple(quantized.shape)} is no matrix: give it shape (d, k)")
        self.out_features, self.in_features = quantized.shape
        self.stored, self.compute_dtype, self.name = QuantizedBuffers(quantized), compute_dtype, name
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_input(self.name, x, self)
        dtype = self.compute_dtype or working_dtype(x)
        y = FrozenMatmul.apply(x.to(dtype), replace(self.quantized, dtype=dtype))
        return (y if self.bias is None else y + self.bias.to(dtype)).to(x.dtype)

    @property
    def quantized(self) -> QuantizedTensor:
        return self.stored.tensor()


class NF4Linear(QuantizedLinear):
    """A QuantizedLinear made of a plain layer or of bitsandbytes' one; NF4 unless another codebook is given."""

    @classmethod
    def from_linear(cls, linear: nn.Linear, block_size: int | None = 64, double_quant: bool = True,
                    codebook: torch.Tensor = NF4, compute_dtype: torch.dtype | None = None,
                    name: str = "NF4Linear") -> NF4Linear:
        """Quantize the weight of `linear` as `quantize` does, and with its errors; the bias stays as it is, frozen."""
        quantized = quantize(linear.weight.detach(), codebook, block_size, double_quant)
        return cls(quantized, linear.bias, compute_dtype, name)

    @classmethod
    def from_bitsandbytes(cls, linear: nn.Module, compute_dtype: torch.dtype | None = None,
                          name: str = "NF4Linear") -> NF4Linear:
        """The very codes and scales, not copies, of a Linear4bit, nf4 or fp4; errors as `read_bitsandbytes`."""
        return cls(read_bitsandbytes(linear, name), linear.bias, compute_dtype, name)

    def to_linear(self) -> nn.Linear:
        """A frozen nn.Linear with the dequantized weight, in the dtype that was quantized: LoRA can be merged there."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(self.quantized.dequantize(), requires_grad=False)
        linear.bias = self.bias
        return linear


def read_bitsandbytes(linear: nn.Module, name: str = "Linear4bit") -> QuantizedTensor:
    """The QuantizedTensor that a bitsandbytes Linear4bit holds, sharing its memory.

    Raises ValueError if it has no codes yet, and if an evaluation has repacked them, as happens on some CPUs.
    """
    state = getattr(linear.weight, "quant_state", None)
    if state is None or getattr(state, "packing_format_for_cpu", False):
        raise ValueError(f"{name}: a {type(linear).__name__} {'without' if state is None else 'with repacked'} codes: "
                         'quantize it by .to("cpu"), and read it before its first forward in evaluation mode')
    scales, codes, shape = state.absmax, linear.weight.detach().view(torch.uint8).flatten(), torch.Size(state.shape)
    if state.nested:
        inner = state.state2
        scales = QuantizedTensor(scales, inner.absmax, None, inner.code, inner.blocksize, scales.shape, torch.float32)
    return QuantizedTensor(codes, scales, state.offset, state.code, state.blocksize, shape, state.dtype)


def working_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype in which a product with x is computed: autocast's where that is on, else x's own."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def quantize_model(model: nn.Module, block_size: int | None = 64, double_quant: bool = True,
                   codebook: torch.Tensor = NF4, skip: str | Sequence[str] = ("lm_head",),
                   compute_dtype: torch.dtype | None = None) -> nn.Module:
    """Put an NF4Linear in place of every nn.Linear whose name does not end in one of `skip`; returns the model.

    Quantize first, then add_lora, which also freezes what is left: embedding, norms, head.
    Raises ValueError for adapters in the model, for layers quantized already, and if nothing is left to quantize.
    """
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            raise ValueError(f"{name} has LoRA, whose base belongs quantized first: quantize_model, then add_lora")
        if isinstance(module, QuantizedLinear) or hasattr(getattr(module, "weight", None), "quant_state"):
            raise ValueError(f"{name} is quantized already: load the model afresh, or use NF4Linear.from_bitsandbytes")
    names = [name for name, module in model.named_modules()
             if name and isinstance(module, nn.Linear) and not ends_with(name, skip)]
    if not names:
        raise ValueError(f"no nn.Linear in {type(model).__name__} but {skip!r}: give a model with linear layers inside")
    for name in names:  # one at a time: each weight can be freed when its codes are there
        linear = model.get_submodule(name)
        try:
            layer = NF4Linear.from_linear(linear, block_size, double_quant, codebook, compute_dtype, name)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        model.set_submodule(name, layer)
    return model
