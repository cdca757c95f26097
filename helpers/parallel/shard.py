"""FSDP2 on 4-bit layers: of every layer each process keeps a part, and fetches the rest only while it computes it.

    accelerate launch --multi_gpu --num_processes 2 -m helpers.parallel.shard

On CPUs with `ACCELERATE_USE_CPU=true` before it: without, each process would run alone.

The pocket Llama in bitsandbytes' NF4 with LoRA adapters answers once whole and once sharded; then one backward pass.
Prints one line of JSON: bytes held before and after by each process, the largest differences of logits and gradients.
"""

from __future__ import annotations

import json

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from helpers.memory.peak import quantization_tensors
from helpers.pocket import WEIGHTS


def load(device: torch.device) -> torch.nn.Module:
    """The pocket Llama as QLoRA has it: NF4 weights, adapters whose B is not zero, so that they matter."""
    import bitsandbytes as bnb

    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        WEIGHTS, dtype=torch.float32, quantization_config=four_bits, device_map={"": device})
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # some CPUs repack the codes; gradients would be wrong
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False))


def held(model: torch.nn.Module) -> dict[str, int]:
    """Bytes that this process holds: 4-bit codes, their scales and tables, adapters, everything else."""
    count = dict.fromkeys(("codes", "scales", "adapters", "rest"), 0)
    for name, parameter in model.named_parameters():
        mine = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        kind = "adapters" if "lora_" in name else "codes" if mine.dtype == torch.uint8 else "rest"
        count[kind] += mine.nbytes
    for module in model.modules():
        if (quantized := getattr(module, "quant_state", None)) is not None:
            module.weight.quant_state = quantized  # the layer keeps it; a sharded weight has lost it
            count["scales"] += sum(part.nbytes for part in quantization_tensors(module.weight))
    return count


def main() -> None:
    accelerator = Accelerator()
    model = load(accelerator.device)
    ids = torch.randint(5, 500, (2, 64), generator=torch.Generator().manual_seed(0)).to(accelerator.device)
    answer = model(input_ids=ids, labels=ids, use_cache=False)
    answer.loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    report = {"processes": accelerator.num_processes, "whole": held(model)}

    for layer in model.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(model)
    report["each"] = held(model)
    again = model(input_ids=ids, labels=ids, use_cache=False)
    again.loss.backward()
    found = {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()
             if parameter.grad is not None}
    report["logits differ by"] = (again.logits - answer.logits).abs().max().item()
    report["gradients differ by"] = max((found[name] - gradients[name]).abs().max().item() for name in gradients)
    report["gradients"] = {"adapters": sum("lora_" in name for name in found), "all": len(found)}
    if accelerator.is_main_process:
        print(json.dumps(report), flush=True)
    accelerator.end_training()


if __name__ == "__main__":
    main()
