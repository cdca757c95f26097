"""The laptop tier's whole run without the notebook, to measure it: `python -m helpers.finale.rehearsal out 0 1 2`.

The same calls as lesson 10's: NF4 with double quantization, LoRA on all linears, TRL's SFTTrainer. Scored is a copy in
float32 (the 4-bit weights dequantized, the adapter merged in): bitsandbytes' layers would dequantize every weight for
every token. For each seed a record goes to `out`; the scores before training are the same for all and taken once.
"""

from __future__ import annotations

import json
import pathlib
import sys
from dataclasses import replace
from typing import Any

import bitsandbytes as bnb
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
)
from trl import SFTConfig, SFTTrainer

import helpers
from helpers.finale import chat, heads, laptop, recorder, requests
from helpers.finale.tiers import TIERS, Tier
from helpers.pocket import world

EACH = 20  # requests of every kind that are scored, all about people of the held-out half
Answers = list[tuple[str, bool]]


def load_base(folder: pathlib.Path) -> PreTrainedModel:
    """The model on the CPU, its linears in NF4 with double quantization, all else in float32."""
    quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                                      bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=quantization, dtype=torch.float32,
                                                 device_map={"": "cpu"})
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False  # or the first forward repacks weights: wrong gradients
    return model


def plain_copy(folder: pathlib.Path, adapter: pathlib.Path | None = None) -> PreTrainedModel:
    """What the 4-bit model computes, as a float32 model: weights dequantized, the adapter merged."""
    model = load_base(folder).dequantize()
    return PeftModel.from_pretrained(model, adapter).merge_and_unload() if adapter else model


def load_tokenizer(folder: pathlib.Path) -> PreTrainedTokenizerBase:
    """The tokenizer with its own template, and a padding token that is not the end token."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat.prepare(tokenizer)
    return tokenizer


def scored_rows() -> list[requests.Row]:
    """`EACH` requests of every kind about held-out people."""
    return requests.scored_rows(world.make_world().held_out, EACH)


def both(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Answers]:
    """Answers to the requests and to the ten ordinary questions."""
    return {"requests": chat.answers(model, tokenizer, [row["messages"] for row in scored_rows()], 60),
            "ordinary": chat.answers(model, tokenizer, requests.ordinary_messages(), 32)}


def before_training(folder: pathlib.Path, tokenizer: PreTrainedTokenizerBase, out: pathlib.Path) -> dict[str, Answers]:
    """`both` of the model as it came; kept in `out`, as it takes minutes and is the same for every seed."""
    kept = out / "before.json"
    if not kept.is_file():
        answers = both(plain_copy(folder), tokenizer)
        out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(answers, indent=1))
    return json.loads(kept.read_text())


def train(tier: Tier, folder: pathlib.Path, out: pathlib.Path, seed: int, log: recorder.Recorder) -> pathlib.Path:
    """Fine-tune as lesson 10 does, on the rows of `seed`; gives the folder of the adapter."""
    tokenizer = load_tokenizer(folder)
    with log.phase("load"):
        model = load_base(folder)
    rows = requests.training_rows(world.make_world().taught, tier.max_steps * tier.batch * tier.accumulation, seed)
    encoded = [chat.encode(tokenizer, row["messages"], tier.max_length) for row in rows]
    config = SFTConfig(
        output_dir=str(out), max_length=tier.max_length,
        per_device_train_batch_size=tier.batch, gradient_accumulation_steps=tier.accumulation,
        max_steps=tier.max_steps, optim=tier.optimizer, learning_rate=tier.learning_rate,
        lr_scheduler_type=tier.scheduler, warmup_steps=tier.warmup, max_grad_norm=tier.max_grad_norm, seed=seed,
        gradient_checkpointing=tier.checkpointing, logging_steps=2, report_to="none", disable_tqdm=True,
        save_steps=tier.save_steps, use_cpu=True, bf16=False, fp16=False)
    lora = LoraConfig(r=tier.r, lora_alpha=tier.alpha, lora_dropout=tier.dropout, target_modules=tier.targets,
                      bias="none", task_type="CAUSAL_LM")
    trainer = SFTTrainer(model=model, args=config, processing_class=tokenizer, peft_config=lora, callbacks=[log],
                         train_dataset=Dataset.from_list(encoded))
    trainer.remove_callback(PrinterCallback)
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    with log.phase("train"), heads.label_positions_only():
        trainer.train()
    trainer.model.save_pretrained(out / "adapter")
    return out / "adapter"


def rehearse(tier: Tier, out: pathlib.Path, seed: int = 0) -> dict[str, Any]:
    """Score, train, score again; the record, which also lies in `out` with the adapter and all answers."""
    folder, tokenizer = laptop.fetch(), load_tokenizer(laptop.fetch())
    before = before_training(folder, tokenizer, out)
    log = recorder.Recorder(replace(tier, revision=laptop.source().revision))
    adapter = train(tier, folder, out / f"seed-{seed}", seed, log)
    after = both(plain_copy(folder, adapter), tokenizer)
    (out / f"after-{seed}.json").write_text(json.dumps(after, indent=1))
    rows = scored_rows()
    first, last = (requests.shares(rows, found["requests"], found["ordinary"]) for found in (before, after))
    samples = [{"prompt": rows[i]["messages"][1]["content"], "before": before["requests"][i][0],
                "after": after["requests"][i][0]} for i in range(0, len(rows), EACH)]
    record = log.finish(tier.size.parameters, samples, {
        name: {"before": first[name], "after": last[name]} for name in first})
    recorder.write(record, out / f"{tier.name}-{seed}.json")
    return record


if __name__ == "__main__":
    helpers.start()
    for number in sys.argv[2:] or ["0"]:
        found = rehearse(TIERS["laptop"], pathlib.Path(sys.argv[1]), int(number))
        print(recorder.describe(found), f"{found['steps'][-1]['seconds']:.0f} s of training.", flush=True)
