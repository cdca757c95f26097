"""LoRA: a frozen linear layer and beside it the product of two thin trained matrices, h = Wx + (α/r)·BAx."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from helpers.quantization import QuantizedTensor


class LoRALinear(nn.Module):
    """A linear layer `base` (d, k), frozen, and a trained branch: h = Wx + (α/r)·BAx.

    base: any module with in_features k and out_features d: nn.Linear, NF4Linear, bitsandbytes' Linear4bit. A (r, k) is
    drawn between ±1/√k, as PEFT does; B (d, r) is zero, so that the layer begins as its base. dropout acts on the
    branch's input. rslora: scale by α/√r (Kalajdzievski 2023, arXiv 2312.03732). A and B are float32 beside a 16-bit
    base too: the branch is computed in their dtype, the sum comes back in the base's. name: what errors call the layer.
    Source: Hu et al. 2021 (arXiv 2106.09685), equation 3. Raises ValueError for a base that is no linear layer, r
    below 1 or above the smaller side, alpha not above 0; in forward for an x of the wrong width or dtype.
    """

    def __init__(self, base: nn.Module, r: int = 8, alpha: float = 16, dropout: float = 0.0, rslora: bool = False,
                 name: str = "LoRALinear") -> None:
        super().__init__()
        check_rank(name, base, r, alpha)
        self.name, self.base = name, freeze(name, base)
        self.A = nn.Parameter(torch.empty(r, base.in_features, **place(base)))   # (r, k)
        self.B = nn.Parameter(torch.zeros(base.out_features, r, **place(base)))  # (d, r)
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scaling = alpha / (math.sqrt(r) if rslora else r)
        self.dropout = nn.Dropout(dropout)
        self.active, self.merged = True, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_input(self.name, x, self.base)
        h = self.base(x)
        if self.merged or not self.active:
            return h
        Ax = F.linear(self.dropout(x.to(self.A.dtype)), self.A)  # (..., r): scaled here, where it is thin
        return (h + F.linear(self.scaling * Ax, self.B)).to(h.dtype)


def check_rank(name: str, base: nn.Module, r: int, alpha: float) -> None:
    """Raise ValueError unless `base` is a linear layer that r and alpha fit."""
    if not is_linear(base):
        raise ValueError(f"{name}: a {type(base).__name__} has no in_features and out_features: LoRALinear takes an "
                         "nn.Linear, NF4Linear or Linear4bit")
    d, k = base.out_features, base.in_features
    if not isinstance(r, int) or not 1 <= r <= min(d, k):
        raise ValueError(f"{name}: r={r} does not fit a weight of {d} x {k}: take a whole number from 1 to {min(d, k)}")
    if not alpha > 0:
        raise ValueError(f"{name}: alpha={alpha} switches the branch off: take a number above 0, for example 2 * r")


def check_input(name: str, x: torch.Tensor, base: nn.Module) -> None:
    """Raise ValueError unless the linear layer `base` can take x: (..., in_features), of its weight's dtype."""
    if x.shape[-1:] != (base.in_features,):
        raise ValueError(f"{name}: x has shape {tuple(x.shape)}, but the layer takes {base.in_features} values in the "
                         "last dimension: give it the output of a layer of that width")
    weight = getattr(base, "weight", x)
    wanted = weight.dtype if weight.is_floating_point() else x.dtype  # 4-bit codes are multiplied in x's dtype
    if not x.is_floating_point() or x.dtype != wanted and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(f"{name}: x has dtype {x.dtype}, the weight {weight.dtype}: cast one to the other's, for "
                         "example by x.to(weight.dtype), or run the model under torch.autocast")


def freeze(name: str, base: nn.Module) -> nn.Module:
    """No gradient for `base`, and no repacking: bitsandbytes on some CPUs rewrites 4-bit codes when it evaluates.

    After that a gradient through them is wrong. Raises ValueError if it has happened already.
    """
    state = getattr(getattr(base, "weight", None), "quant_state", None)
    if getattr(state, "packing_format_for_cpu", False):
        raise ValueError(f"{name}: bitsandbytes has repacked its codes for inference, gradients would be wrong: load "
                         "the model again and add LoRA before its first forward")
    if hasattr(base, "support_avx512bf16_for_cpu"):
        base.support_avx512bf16_for_cpu = False
    return base.requires_grad_(False)


def place(base: nn.Module) -> dict[str, torch.device | torch.dtype]:
    """Where an adapter beside `base` belongs: on its device, in float32 or, if the base is wider, in float64."""
    first = next(itertools.chain(base.parameters(), base.buffers()))
    return {"device": first.device, "dtype": torch.promote_types(first.dtype, torch.float32)}


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a linear layer, plain or quantized."""
    return hasattr(module, "in_features") and hasattr(module, "out_features")


def ends_with(name: str, endings: str | Sequence[str]) -> bool:
    """Whether the dotted name has one of `endings`: "layers.0.mlp.up_proj" has "up_proj" and "mlp.up_proj"."""
    endings = [endings] if isinstance(endings, str) else endings
    return any(f".{name}".endswith(f".{ending}") for ending in endings)


def find_targets(model: nn.Module, target_modules: str | Sequence[str] = "all-linear") -> list[str]:
    """Names of the linear layers with one of the given endings; "all-linear": of all but the output head, as in PEFT.

    Raises ValueError for an ending that no linear layer has, and if nothing is left to adapt.
    """
    linears = {name: module for name, module in model.named_modules() if name and is_linear(module)}
    if target_modules == "all-linear":
        head = getattr(model, "get_output_embeddings", lambda: None)()
        found = [name for name, module in linears.items() if module is not head]
    else:
        endings = [target_modules] if isinstance(target_modules, str) else list(target_modules)
        for ending in endings:
            if not any(ends_with(name, ending) for name in linears):
                known = sorted({name.split(".")[-1] for name in linears})
                raise ValueError(f"target {ending!r} ends no linear layer's name: take 'all-linear' or some of {known}")
        found = [name for name in linears if ends_with(name, endings)]
    if not found:
        raise ValueError(f"target_modules={target_modules!r} matches nothing in {type(model).__name__}: give a model "
                         "with linear layers inside and the endings of their names")
    return found


def add_lora(model: nn.Module, r: int = 8, alpha: float = 16, dropout: float = 0.0,
             target_modules: str | Sequence[str] = "all-linear", rslora: bool = False) -> nn.Module:
    """Freeze `model` and put a LoRALinear around every target, in place; returns the model.

    target_modules: "all-linear" (all but the output head), which the QLoRA paper finds necessary, or endings of names
    such as ["q_proj", "v_proj"], the LoRA paper's choice.
    Raises ValueError, with the model as it was, for a model that has LoRA and as `find_targets` and `LoRALinear` do.
    """
    for name, _ in lora_layers(model):
        raise ValueError(f"{name} has LoRA already: take it out by remove_lora(model), or switch by load_adapter_state")
    targets = find_targets(model, target_modules)
    for name in targets:
        check_rank(name, model.get_submodule(name), r, alpha)
    model.requires_grad_(False)
    for name in targets:
        model.set_submodule(name, LoRALinear(model.get_submodule(name), r, alpha, dropout, rslora, name))
    return model


def remove_lora(model: nn.Module) -> nn.Module:
    """Put the base layers back in place of every LoRALinear; what is merged stays merged. Returns the model."""
    for name, layer in adapted(model):
        model.set_submodule(name, layer.base)
    return model


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """Name and module of every LoRALinear in `model`."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))


def adapted(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    """`lora_layers` as a list. Raises ValueError if there are none."""
    layers = list(lora_layers(model))
    if not layers:
        raise ValueError(f"{type(model).__name__} has no LoRALinear: call add_lora(model) first")
    return layers


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """How many weights are trained, and how many the model has in all, quantized ones counted as weights, not bytes."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    plain = sum((getattr(p, "quant_state", None) or p).shape.numel() for p in model.parameters())
    held = (getattr(module, "quantized", None) for module in model.modules())
    return trained, plain + sum(q.shape.numel() for q in held if isinstance(q, QuantizedTensor))


def delta(layer: LoRALinear) -> torch.Tensor:
    """What the branch is worth as a weight: ΔW = (α/r)·BA, shape (d, k)."""
    return layer.scaling * layer.B @ layer.A


@torch.no_grad()
def merge(model: nn.Module) -> nn.Module:
    """W ← W + (α/r)·BA in every adapted layer, in place: from now on LoRA costs no time. Returns the model.

    The sum is taken in the adapter's dtype and rounded to the weight's; `unmerge` goes back, but for that rounding.
    Raises ValueError, with the model as it was, for a layer that is merged already or whose base is quantized.
    """
    for name, layer in adapted(model):
        if layer.merged:
            raise ValueError(f"{name} is merged already: again would add BA twice; call unmerge(model) first")
        if not hasattr(layer.base, "weight") or not layer.base.weight.is_floating_point():
            raise ValueError(f"{name}: the codes of a {type(layer.base).__name__} cannot take in BA: make it an "
                             "nn.Linear first, for example by layer.base = layer.base.to_linear()")
    for _, layer in adapted(model):
        layer.base.weight.copy_(layer.base.weight + delta(layer))
        layer.merged = True
    return model


@torch.no_grad()
def unmerge(model: nn.Module) -> nn.Module:
    """W ← W - (α/r)·BA in every merged layer, in place; returns the model. Raises ValueError for one not merged."""
    for name, layer in adapted(model):
        if not layer.merged:
            raise ValueError(f"{name} is not merged: there is no BA to take out; call merge(model) first")
    for _, layer in adapted(model):
        layer.base.weight.copy_(layer.base.weight - delta(layer))
        layer.merged = False
    return model


@contextmanager
def disabled(model: nn.Module) -> Iterator[nn.Module]:
    """`with disabled(model):` the branches are switched off, and the base answers alone.

    Raises ValueError for a merged layer, whose base is not itself any more.
    """
    layers = adapted(model)
    for name, layer in layers:
        if layer.merged:
            raise ValueError(f"{name} is merged, its weight contains BA: call unmerge(model) first")
    before = [layer.active for _, layer in layers]
    try:
        for _, layer in layers:
            layer.active = False
        yield model
    finally:
        for (_, layer), active in zip(layers, before, strict=True):
            layer.active = active


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every A and B by name: all that has to be kept of a fine-tune beside the base, alpha and r."""
    return {f"{name}.{letter}": getattr(layer, letter).detach().clone()
            for name, layer in adapted(model) for letter in "AB"}


@torch.no_grad()
def load_adapter_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Put what `adapter_state` gave back into the model's A and B, in place; returns the model.

    Raises ValueError, with the model as it was, for names or shapes that are not this model's, and for a merged layer.
    """
    own = {f"{name}.{letter}": getattr(layer, letter) for name, layer in adapted(model) for letter in "AB"}
    if other := sorted(own.keys() ^ state.keys()):
        raise ValueError(f"{other[0]} and {len(other) - 1} others are not in both model and state: call add_lora with "
                         "the target_modules of the state")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, in the state {tuple(state[name].shape)}: call "
                             "add_lora with the r of the state, on the same model")
    for name, layer in adapted(model):
        if layer.merged:
            raise ValueError(f"{name} is merged: unmerge(model) before another adapter comes")
    for name, tensor in own.items():
        tensor.copy_(state[name])
    return model
