"""One step of TRL's trainer on a small 4-bit model on a CPU, its peak counted at every operation."""

import contextlib

import bitsandbytes as bnb
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

from helpers.memory.card import Card, as_on_a_gpu
from helpers.memory.peak import Peak
from helpers.pocket import WEIGHTS as POCKET_WEIGHTS


def load(path, dtype=torch.bfloat16, **settings):
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, quantization_config=BitsAndBytesConfig(load_in_4bit=True, **settings) if settings else None)


def training_step_peak(folder, config, batch, sequence, r, checkpointing, dropout, dtype, gpu=False):
    """Bytes at the peak of one step of TRL's trainer, bitsandbytes and PEFT underneath; random weights.

    gpu: by the way that it takes on a GPU, under autocast, though on the CPU.
    """
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    model = load(folder, dtype, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    row = {"input_ids": [5 + n % 50 for n in range(sequence)]}
    arguments = SFTConfig(
        output_dir=str(folder / "out"), max_steps=1, per_device_train_batch_size=batch, max_length=sequence,
        gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False}, bf16=gpu,
        optim="adamw_torch", report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list([row] * batch),
                         processing_class=AutoTokenizer.from_pretrained(POCKET_WEIGHTS), peft_config=LoraConfig(
                             r=r, target_modules="all-linear", lora_dropout=dropout, task_type="CAUSAL_LM"))
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    seen, step = [], trainer.training_step

    def measured(*arguments):
        with as_on_a_gpu() if gpu else contextlib.nullcontext(), (Card if gpu else Peak)(trainer.model) as peak:
            for parameter in trainer.model.parameters():  # as where gradients are accumulated over several batches
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
            result = step(*arguments)
        seen.append(peak.bytes)
        return result

    trainer.training_step = measured
    trainer.train()
    return seen[0]
