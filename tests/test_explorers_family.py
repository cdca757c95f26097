"""The family explorer: its arithmetic against real models and torch's own count, and driven from Python."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helpers.experiments import family
from helpers.explorers.family import DEFAULTS, MERGEABLE, MODELS, POCKET, SIZES, choose_method, cost
from helpers.lora import trainable_parameters
from helpers.memory import LLAMAS, lora_weights
from helpers.pocket import load_pocket

PREPARE = {"everything": family.everything, "head only": family.head, "bottleneck adapter": family.bottleneck,
           "prompt tuning": family.prompt, "prefix tuning": family.prefix, "LLaMA-Adapter": family.llama_adapter,
           "LoRA": family.lora, "DoRA": family.dora}


def operations(model: torch.nn.Module, new: int) -> int:
    """Multiply-adds of writing `new` tokens after eight, as torch counts them."""
    ids = torch.arange(8)[None] + 10
    with torch.no_grad(), FlopCounterMode(display=False) as counter, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of position ids
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
                       do_sample=False, pad_token_id=3)
    return counter.get_total_flops() // 2


@pytest.fixture(scope="module")
def bare_step() -> int:
    model, _ = load_pocket()
    model.set_attn_implementation("eager")  # the counter does not know the fused attention of a CPU
    return operations(model, 3) - operations(model, 2)


@pytest.mark.parametrize("method", SIZES)
def test_the_arithmetic_is_that_of_the_model(method, bare_step):
    model, _ = load_pocket()
    model.set_attn_implementation("eager")
    model = PREPARE[method](model)
    expected = cost(method, family.SIZES.get(method, 0))
    assert trainable_parameters(model)[0] == expected.trained and expected.weights == 951_424
    model.eval().requires_grad_(False)
    assert operations(model, 3) - operations(model, 2) - bare_step == expected.per_token


def test_llama_2_7b():
    assert cost("everything", model="Llama-2-7B").trained == 6_738_415_616
    assert cost("head only", model="Llama-2-7B").trained == 32_000 * 4096
    assert cost("LoRA", 8, "Llama-2-7B").trained == 19_988_480 == lora_weights(LLAMAS["Llama-2-7B"], 8)
    assert cost("prompt tuning", 20, "Llama-2-7B").trained == 81_920
    assert cost("prefix tuning", 20, "Llama-2-7B").cached == 2 * 32 * 20 * 4096
    assert cost("bottleneck adapter", 64, "Llama-2-7B").trained == 64 * (2 * 64 * 4096 + 4096 + 64)


def test_choosing_shows_and_sets_everything():
    explorer = choose_method("LoRA", 8)
    assert "75,776 of 951,424" in explorer.report() and "yes: W +" in explorer.report()
    explorer.controls["size"].value = 16
    assert explorer.cost.trained == 2 * 75_776 and "151,552" in explorer.shown.value
    explorer.controls["method"].value = "DoRA"
    assert explorer.size == 16 and explorer.cost.trained == 2 * 75_776 + 5_120
    explorer.controls["method"].value = "prompt tuning"
    assert explorer.size == DEFAULTS["virtual tokens"] and explorer.controls["size"].description == "virtual tokens"
    explorer.controls["model"].value = "Llama-2-7B"
    assert explorer.cost.trained == 16 * 4096 and "6,738,415,616" in explorer.shown.value
    explorer.set("everything")
    assert explorer.controls["size"].disabled and explorer.cost.trained == explorer.cost.weights


def test_every_choice_has_a_report():
    for method in SIZES:
        for model in MODELS:
            explorer = choose_method(method, model=model)
            assert explorer.message == "" and MERGEABLE[method] in explorer.report()
    assert choose_method().model == POCKET
