"""The same fine-tunes as the field's libraries make them: PEFT's LoRA and bitsandbytes' 4-bit layers."""

import logging

import bitsandbytes
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from helpers.lora import lora_layers

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it found no compiled kernel for this CPU: as everywhere


def with_peft(model: nn.Module, r: int, alpha: float, dropout: float = 0.0, rslora: bool = False,
              target_modules: str | list[str] = "all-linear") -> PeftModel:
    """`model` with PEFT's LoRA, in place."""
    return get_peft_model(model, LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, use_rslora=rslora,
                                            target_modules=target_modules))


def peft_weights(peft: PeftModel) -> dict[str, nn.Parameter]:
    """PEFT's A and B under the names that ours have."""
    found = {}
    for name, parameter in peft.named_parameters():
        for letter in "AB":
            if name.endswith(f".lora_{letter}.default.weight"):
                name = name.removeprefix("base_model.model.").removesuffix(f".lora_{letter}.default.weight")
                found[f"{name}.{letter}"] = parameter
    return found


def our_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Our A and B, by name."""
    return {f"{name}.{letter}": getattr(layer, letter) for name, layer in lora_layers(model) for letter in "AB"}


@torch.no_grad()
def same_start(peft: PeftModel, model: nn.Module, seed: int = 0, trained: bool = False) -> None:
    """Give both the same A and B: PEFT's, or with `trained` a B that is not zero any more."""
    generator = torch.Generator().manual_seed(seed)
    ours = our_weights(model)
    for name, theirs in peft_weights(peft).items():
        if trained and name.endswith(".B"):
            theirs.copy_(torch.randn(theirs.shape, generator=generator) * 0.02)
        ours[name].copy_(theirs)


def linear4bit(linear: nn.Linear, double_quant: bool = True, quant_type: str = "nf4",
               block_size: int = 64) -> nn.Module:
    """bitsandbytes' 4-bit layer of a plain one, on the CPU."""
    layer = bitsandbytes.nn.Linear4bit(linear.in_features, linear.out_features, bias=linear.bias is not None,
                                       compress_statistics=double_quant, quant_type=quant_type)
    layer.weight = bitsandbytes.nn.Params4bit(
        linear.weight.detach().clone(), requires_grad=False, compress_statistics=double_quant, quant_type=quant_type,
        blocksize=block_size, module=layer)
    if linear.bias is not None:
        layer.bias = nn.Parameter(linear.bias.detach().clone(), requires_grad=False)
    return layer.to("cpu")  # this quantizes


def with_bitsandbytes(model: nn.Module, double_quant: bool = True) -> nn.Module:
    """`model` with bitsandbytes' 4-bit layers but for the head, in place, and safe to train after an evaluation."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            layer = linear4bit(module, double_quant)
            layer.support_avx512bf16_for_cpu = False  # else evaluating repacks the codes, and gradients are wrong
            model.set_submodule(name, layer)
    model.is_loaded_in_4bit = True  # by this PEFT knows
    return model
