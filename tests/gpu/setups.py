"""Training configurations of Llama-2-7B that `run.py` measures, each in a process of its own."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import platform
import random
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import bitsandbytes as bnb
import torch
from datasets import Dataset
from peft import LoraConfig, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PrinterCallback
from trl import SFTConfig, SFTTrainer

from helpers.finale import recorder
from helpers.finale.sizes import checkpoint_size
from helpers.finale.tiers import TIERS, Tier
from helpers.memory import forecast_training, forecast_weights
from helpers.memory import measure as measure_bytes

ROWS = 400


@dataclass(frozen=True)
class Setup:
    """One way to fine-tune. limit: GiB of GPU memory that torch may take, None for all there is. cpu: no GPU, fp32.

    length: tokens of a row at most; packing: fill rows with several documents, without attention between them.
    upcast: what `prepare_model_for_kbit_training` does, norms and embeddings in fp32.
    """

    name: str
    about: str
    batch: int = 1
    accumulation: int = 1
    length: int = 512
    packing: bool = False
    r: int = 64
    targets: str | tuple[str, ...] = "all-linear"
    dropout: float = 0.1
    double_quant: bool = True
    precision: str = "bf16"
    optimizer: str = "paged_adamw_32bit"
    checkpointing: bool = True
    upcast: bool = False
    attention: str = "sdpa"
    limit: float | None = None
    cpu: bool = False


CARDS = {"16": 14.6, "8": 7.0}  # GB as sold -> GiB for torch: a T4 shows 14.6; of 8, one is CUDA's and the screen's
# The batch is the one in the recipe's many copies; 1,024 is what TRL took in 2023 where max_seq_length was None.
PUBLISHED = Setup("a", "the recipe published in 2023, today's names", batch=4, length=1024,
                  targets=("q_proj", "v_proj"), double_quant=False, precision="fp16", upcast=True)
AUTHORS = Setup("b", "the QLoRA authors' recipe for 7B", accumulation=16)
OURS = Setup("c", "the course's, tuned with maintained libraries", batch=2, packing=True, dropout=0.0,
             optimizer="adamw_8bit", length=1024)
ON_A_CPU = Setup("cpu-random", "Llama-2-7B's shape, a step on a CPU", length=64, precision="fp32",
                 optimizer="adamw_torch", cpu=True)
# How c is to be tuned: it needs three times a's tokens a second in no more than a's memory (`verdict`). Packing and no
# dropout are settled, since both only save work. What is open is how many tokens share one dequantization, and whether
# activations are kept: by the forecast, 4,096 tokens with checkpointing or 512 without are about a's memory.
TUNING = [dataclasses.replace(OURS, name=f"c{batch}x{length}", about=f"as c, batch {batch} of {length}", batch=batch,
                              length=length) for batch, length in ((1, 1024), (1, 2048), (2, 2048), (4, 1024))]
TUNING += [dataclasses.replace(OURS, name=f"c1x{length}-keep", about=f"as c, one row of {length}, no checkpointing",
                               batch=1, length=length, checkpointing=False) for length in (256, 512)]
SETUPS = {setup.name: setup for setup in (
    PUBLISHED, AUTHORS, OURS, *TUNING, ON_A_CPU,
    *(dataclasses.replace(OURS, name=f"d{card}-{length}", about=f"as c, on a card of {card} GB, batch 1", batch=1,
                          length=length, limit=limit, optimizer="paged_adamw_8bit")
      for card, limit in CARDS.items() for length in (512, 1024)))}


def limit_memory(gib: float) -> None:
    """Make this process's GPU look and behave like one of `gib` GiB; without a GPU nothing happens.

    What torch reserves is held to it, and `torch.cuda.mem_get_info` says so. CUDA's own context and bitsandbytes' paged
    states are not counted.
    """
    if not torch.cuda.is_available():
        return
    ask, limit = torch.cuda.mem_get_info, int(gib * 2**30)
    total = ask()[1]
    if limit < total:
        torch.cuda.set_per_process_memory_fraction(limit / total)
        torch.cuda.mem_get_info = lambda device=None: (
            max(0, min(ask(device)[0], limit - torch.cuda.memory_reserved(device))), limit)


def made_up_rows(setup: Setup, vocabulary: int, seed: int = 0) -> Dataset:
    """Rows of random tokens, their lengths log-normal with median 300, cut at `length`: like chats, meaning nothing."""
    rng = random.Random(seed)
    lengths = [max(16, min(setup.length, int(rng.lognormvariate(5.7, 0.6)))) for _ in range(ROWS)]
    return Dataset.from_list([{"input_ids": [rng.randrange(3, vocabulary) for _ in range(n)]} for n in lengths])


def tier_of(setup: Setup, checkpoint: Path, steps: int) -> Tier:
    """The setup as a tier, which is what a record keeps of it."""
    return dataclasses.replace(
        TIERS["llama-2-7b"], name=f"llama-2-7b, {setup.name}", model=str(checkpoint), revision=None, dataset=None,
        size=checkpoint_size(checkpoint), batch=setup.batch, accumulation=setup.accumulation, max_length=setup.length,
        r=setup.r, dropout=setup.dropout, optimizer=setup.optimizer, checkpointing=setup.checkpointing,
        targets=setup.targets, max_steps=steps)


def load(setup: Setup, checkpoint: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The base in NF4, by the call that lesson 10 uses."""
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=dtype, device_map={"": 0} if torch.cuda.is_available() else {"": "cpu"},
        attn_implementation=setup.attention, quantization_config=BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=setup.double_quant,
            bnb_4bit_compute_dtype=dtype))
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False) if setup.upcast else model


def measure(setup: Setup, checkpoint: Path, out: Path, weights: str = "random", steps: int = 10) -> dict:
    """Train so many optimizer steps and write the record; raises torch.cuda.OutOfMemoryError past the limit."""
    gpu = torch.cuda.is_available()
    if setup.limit:
        limit_memory(setup.limit)
    dtype = (torch.float16 if setup.precision == "fp16" else torch.bfloat16) if gpu else torch.float32
    tier = tier_of(setup, checkpoint, steps)
    taker, tokenizer = recorder.Recorder(tier, weights), AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.pad_token = tokenizer.unk_token
    weights_there = forecast_weights(tier.size.config(), double_quant=setup.double_quant, dtype=dtype).total
    before = 0 if gpu else recorder.in_memory()[0]
    with taker.phase("load", forecast=before + weights_there):
        model = load(setup, checkpoint, dtype)
    model_bytes = measure_bytes(model).total
    arguments = SFTConfig(
        output_dir=str(out / f"run-{setup.name}"), max_steps=steps, per_device_train_batch_size=setup.batch,
        gradient_accumulation_steps=setup.accumulation, max_length=setup.length, packing=setup.packing,
        learning_rate=2e-4, lr_scheduler_type="constant_with_warmup", warmup_steps=1, max_grad_norm=0.3,
        optim=setup.optimizer if gpu else "adamw_torch", bf16=gpu and setup.precision == "bf16",
        fp16=gpu and setup.precision == "fp16", use_cpu=not gpu, gradient_checkpointing=setup.checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False}, logging_steps=1, save_strategy="no",
        report_to="none", disable_tqdm=True, seed=0)
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=made_up_rows(setup, tier.size.vocab), processing_class=tokenizer,
        callbacks=[taker], peft_config=LoraConfig(
            r=setup.r, lora_alpha=16, lora_dropout=setup.dropout, task_type="CAUSAL_LM",
            target_modules=setup.targets if isinstance(setup.targets, str) else list(setup.targets)))
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    forecast = forecast_training(
        tier.size.config(), setup.r, setup.targets, setup.batch, setup.length, double_quant=setup.double_quant,
        checkpointing=setup.checkpointing, dropout=setup.dropout > 0, dtype=dtype, gpu=gpu,
        optimizer_bytes=2 if "8bit" in setup.optimizer else 8).total
    with taker.phase("train", forecast=before + forecast):
        trainer.train()
    record = taker.finish(tier.size.parameters, title=setup.about if setup.cpu else f"{setup.about} ({setup.name})")
    record["configuration"] |= {key: value for key, value in dataclasses.asdict(setup).items() if key != "name"}
    record["configuration"] |= {
        "precision": str(dtype).removeprefix("torch."),
        "command": f"python tests/gpu/run.py --checkpoint {checkpoint.name} --out {out.name} --only {setup.name} "
                   f"--steps {steps}",
        "forecast_of": "helpers.memory.forecast_weights and forecast_training" + (
            "" if gpu else ", and what the process held before it loaded the model"),
        "ledger_bytes": {"load": weights_there, "train": forecast}, "model_bytes": model_bytes}
    if not gpu:
        record["configuration"] |= memory_facts()
    recorder.write(record, out / f"llama-2-7b-{setup.name}.json")
    return record


def memory_facts() -> dict:
    """What memory held depends on: threads, other work, the allocator, and what that gives back when asked."""
    facts = {"threads": torch.get_num_threads(), "load_average": [round(load, 1) for load in os.getloadavg()],
             "allocator": f"{' '.join(platform.libc_ver())}, " + ", ".join(
                 f"{name}={os.environ.get(name, 'unset')}" for name in ("MALLOC_ARENA_MAX", "LD_PRELOAD"))}
    if sys.platform == "linux":
        gc.collect()
        facts["held_at_the_end_bytes"] = recorder.in_memory()[0]
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)
        facts["held_after_malloc_trim_bytes"] = recorder.in_memory()[0]
    return facts


def kernels() -> dict:
    """Our codes against bitsandbytes' on this device, and our QLoRA layer against bitsandbytes + PEFT."""
    from peft.tuners.lora.bnb import Linear4bit as PeftLinear4bit

    from helpers.lora import LoRALinear
    from helpers.qlora import NF4Linear
    from helpers.quantization import quantize

    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = (4096, 11_008) if device == "cuda" else (256, 512)
    found = {"device": device, "shape": list(shape)}
    torch.manual_seed(0)
    weight = 0.02 * torch.randn(shape, device=device)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        ours = quantize(weight.to(dtype))
        codes, state = bnb.functional.quantize_4bit(weight.to(dtype), blocksize=64, quant_type="nf4")
        found[f"codes equal, {dtype}"] = torch.equal(ours.packed, codes.flatten())
        found[f"absmax equal, {dtype}"] = torch.equal(ours.absmax, state.absmax)
        found[f"dequantized equal, {dtype}"] = torch.equal(
            ours.dequantize(), bnb.functional.dequantize_4bit(codes, state).view(shape))
    linear = bnb.nn.Linear4bit(shape[1], shape[0], bias=False, compute_dtype=torch.float32, quant_type="nf4")
    linear.weight = bnb.nn.Params4bit(weight.cpu(), requires_grad=False, quant_type="nf4", module=linear)
    linear = linear.to(device)
    linear.support_avx512bf16_for_cpu = False
    ours = LoRALinear(NF4Linear.from_bitsandbytes(linear), r=16, alpha=16)
    theirs = PeftLinear4bit(linear, "default", config=LoraConfig(r=16, lora_alpha=16), r=16, lora_alpha=16).to(device)
    torch.nn.init.normal_(ours.B)
    theirs.lora_A["default"].weight.data.copy_(ours.A)
    theirs.lora_B["default"].weight.data.copy_(ours.B)
    x = torch.randn(8, shape[1], device=device)
    results = []
    for layer, a, b in ((ours, ours.A, ours.B), (theirs, theirs.lora_A["default"].weight,
                                                 theirs.lora_B["default"].weight)):
        inputs = x.clone().requires_grad_()
        output = layer(inputs)
        output.square().sum().backward()
        results.append((output, inputs.grad, a.grad, b.grad))
    for name, mine, other in zip(("output", "input gradient", "A gradient", "B gradient"), *results, strict=True):
        found[f"relative difference of {name}"] = ((mine - other).norm() / other.norm()).item()
    return found


def describe(record: dict) -> types.SimpleNamespace:
    """The figures of a record that the table shows. memory: reserved on a GPU, which is what a card must have."""
    load_phase, train_phase = record["memory"][0], record["memory"][-1]
    return types.SimpleNamespace(
        speed=record["tokens_per_second"], peak=train_phase["peak_bytes"], reserved=train_phase.get("reserved_bytes"),
        forecast=train_phase.get("forecast_bytes"), load=load_phase["peak_bytes"], held=load_phase["held_bytes"],
        memory=train_phase.get("reserved_bytes") or train_phase["peak_bytes"])


def verdict(found: dict[str, types.SimpleNamespace]) -> list[str]:
    """What was asked of the setups, and which of those measured reach it. found: name -> `describe`."""
    lines = []
    if base := found.get("a"):
        good = {name: d.speed / base.speed for name, d in found.items()
                if name.startswith("c") and d.speed >= 3 * base.speed and d.memory <= base.memory}
        lines.append("3 times a's tokens/s in no more than its memory: " + (", ".join(
            f"{name} ({ratio:.1f} times)" for name, ratio in good.items()) or "none"))
    if small := {name: d for name, d in found.items() if name.startswith("d8")}:
        good = [name for name, d in small.items() if d.memory <= CARDS["8"] * 2**30]
        lines.append("on a card of 8 GB: " + (", ".join(good) or "none"))
    return lines
