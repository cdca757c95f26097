"""Bottleneck adapters between the layers of a frozen model, and training only chosen parts of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from helpers.lora import is_linear, place


class BottleneckAdapter(nn.Module):
    """x + up(gelu(down(x))), from width d through m and back: 2md + d + m parameters.

    x: (..., d), floating point; computed in the adapter's dtype, returned in x's. `up` begins at zero, so that the
    adapter begins as the identity; the authors draw both matrices with standard deviation 0.01, near it.
    Source: Houlsby et al. 2019 (arXiv 1902.00751), section 2.1 and figure 2. Raises ValueError for m below 1 or above
    d, and in forward for an x of another width or dtype.
    """

    def __init__(self, d: int, m: int, device: torch.device | None = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if not isinstance(m, int) or not 1 <= m <= d:
            raise ValueError(f"m={m} is no bottleneck for a width of {d}: take a whole number from 1 to {d}")
        self.down = nn.Linear(d, m, device=device, dtype=dtype)
        self.up = nn.Linear(m, d, device=device, dtype=dtype)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        d = self.down.in_features
        if x.shape[-1:] != (d,) or not x.is_floating_point():
            raise ValueError(f"x is {x.dtype} of shape {tuple(x.shape)}: the adapter takes floating point (..., {d})")
        narrow = F.gelu(self.down(x.to(self.down.weight.dtype)))  # (..., m)
        return x + self.up(narrow).to(x.dtype)


def add_bottlenecks(model: nn.Module, m: int) -> nn.Module:
    """Freeze a Llama and put two adapters into each layer, before each residual addition, in place; returns the model.

    One follows the attention's output projection, one the feed-forward's. Both stand there for good: unlike LoRA they
    cannot be merged. Raises ValueError, with the model as it was, for a model without Llama's layers, for m as
    `BottleneckAdapter`, and for a second call.
    """
    ends = [name for name, _ in model.named_modules() if name.endswith(("self_attn.o_proj", "mlp.down_proj"))]
    if not ends:
        raise ValueError(f"{type(model).__name__} has no self_attn.o_proj and mlp.down_proj: give a Llama")
    for name in ends:
        base = model.get_submodule(name)
        if not is_linear(base):
            raise ValueError(f"{name} is a {type(base).__name__}, changed already: add adapters once, to a fresh model")
        BottleneckAdapter(base.out_features, m, device=torch.device("meta"))  # is m possible?
    model.requires_grad_(False)
    for name in ends:
        base = model.get_submodule(name)
        model.set_submodule(name, nn.Sequential(base, BottleneckAdapter(base.out_features, m, **place(base))))
    return model


def train_only(model: nn.Module, names: str | Sequence[str]) -> nn.Module:
    """Freeze all parameters but those with one of `names` in their own dotted name; returns the model.

    names: whole parts such as "lm_head" (head only), "layers.3", "norm" or "bias". A weight that is tied to another
    has one name only. Raises ValueError, with the model as it was, for a name that no parameter has, and for one that
    belongs to quantized weights, which cannot be trained.
    """
    names = [names] if isinstance(names, str) else list(names)
    parameters = dict(model.named_parameters())
    chosen = {name: [p for p in parameters if f".{name}." in f".{p}."] for name in names}
    for name, found in chosen.items():
        if not found:
            parts = sorted({part for parameter in parameters for part in parameter.split(".") if not part.isdigit()})
            raise ValueError(f"{name!r} is in no parameter's name: take some of {parts}")
        for parameter in found:
            if not parameters[parameter].is_floating_point():
                raise ValueError(f"{parameter} holds codes of dtype {parameters[parameter].dtype}, which have no "
                                 "gradient: put LoRA beside it by add_lora, or load the model unquantized")
    model.requires_grad_(False)
    for parameter in {parameter for found in chosen.values() for parameter in found}:
        parameters[parameter].requires_grad_(True)
    return model
