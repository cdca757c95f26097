"""Eight ways to train the pocket Llama on the villagers' questions: the sweep of lesson 08.

The learning rates: for each method three (LLaMA-Adapter: four), a factor of 3 apart, tried with seed 0 for 100 steps,
the best of them between two others or the last that was tried. They were judged on 400 questions about a hundred
villagers whom the record does not score; where less than 1 % was answered, by the training loss. Full fine-tuning,
LoRA and DoRA are nearly done after 100 steps; the others are recorded after 300.
"""

from __future__ import annotations

from typing import Any

import peft
from torch import nn

from helpers.adapters import add_bottlenecks, train_only
from helpers.experiments import Case
from helpers.lora import add_lora

# m, virtual tokens, or r; what is not here has no size
SIZES = {"bottleneck adapter": 32, "prompt tuning": 16, "prefix tuning": 16, "LLaMA-Adapter": 10, "LoRA": 8, "DoRA": 8}


def everything(model: nn.Module) -> nn.Module:
    """Full fine-tuning."""
    return model.requires_grad_(True)


def head(model: nn.Module) -> nn.Module:
    """Transfer learning: the output head alone."""
    return train_only(model, "lm_head")


def bottleneck(model: nn.Module) -> nn.Module:
    """Two adapters in each layer (Houlsby et al. 2019, arXiv 1902.00751)."""
    return add_bottlenecks(model, SIZES["bottleneck adapter"])


def lora(model: nn.Module) -> nn.Module:
    """LoRA on all linear layers (Hu et al. 2021, arXiv 2106.09685)."""
    return add_lora(model, SIZES["LoRA"], alpha=16)


def dora(model: nn.Module) -> nn.Module:
    """LoRA for the directions of W's rows, and a trained length for each (Liu et al. 2024, arXiv 2402.09353)."""
    return peft.get_peft_model(model, peft.LoraConfig(
        task_type="CAUSAL_LM", r=SIZES["DoRA"], lora_alpha=16, target_modules="all-linear", use_dora=True))


def prompt(model: nn.Module) -> nn.Module:
    """Trained vectors before the embedded text (Lester et al. 2021, arXiv 2104.08691)."""
    model = peft.get_peft_model(model, peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=SIZES["prompt tuning"]))
    model.register_forward_hook(cut_prompt)
    return model


def cut_prompt(model: nn.Module, inputs: tuple, output: Any) -> Any:
    """A forward hook for PEFT's prompt tuning, whose logits begin with those of the virtual tokens: leave them out."""
    output.logits = output.logits[:, model.active_peft_config.num_virtual_tokens:]
    return output


def prefix(model: nn.Module) -> nn.Module:
    """Trained keys and values before those of the text, in every layer (Li and Liang 2021, arXiv 2101.00190)."""
    return peft.get_peft_model(model, peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=SIZES["prefix tuning"]))


def llama_adapter(model: nn.Module) -> nn.Module:
    """Trained vectors in every layer, seen through a gate that is 0 at first (Zhang et al. 2023, arXiv 2303.16199)."""
    return peft.get_peft_model(model, peft.AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=SIZES["LLaMA-Adapter"], adapter_layers=model.config.num_hidden_layers))


CASES = [
    Case("everything", everything, lr=3.3e-4),
    Case("head only", head, lr=1e-2, steps=300),
    Case("head, 100 steps", head, lr=1e-2),
    Case("bottleneck adapter", bottleneck, lr=1.5e-2, steps=300),
    Case("bottleneck, 100 steps", bottleneck, lr=1.5e-2),
    Case("prompt tuning", prompt, lr=0.3, steps=300),
    Case("prefix tuning", prefix, lr=0.3, steps=300),
    Case("LLaMA-Adapter", llama_adapter, lr=0.3, steps=300),
    Case("LoRA", lora, lr=5e-3),
    Case("DoRA", dora, lr=5e-3),
]
