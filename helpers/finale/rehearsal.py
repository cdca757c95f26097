"""The laptop tier's whole run without the notebook, to measure it: `python -m helpers.finale.rehearsal out 0 1 2`.

The same calls as lesson 10's: NF4 with double quantization, LoRA on all linears, TRL's SFTTrainer. Scored is a copy in
float32 (the 4-bit weights dequantized, the adapter merged in): bitsandbytes' layers would dequantize every weight for
every token. For each seed a record goes to `out`; the scores before training are the same for all and taken once.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Sequence
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
from helpers.finale import laptop, recorder, requests
from helpers.finale.chat import CHATML
from helpers.finale.tiers import TIERS, Tier
from helpers.pocket import evaluate, world

EACH = 20  # requests of every kind that are scored, all about people of the held-out half
BATCH = 30  # prompts at once: a token keeps 46 kB for each of them
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
    """The tokenizer with a padding token that is not the end token, and with the template that marks the answers."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token, tokenizer.chat_template = tokenizer.unk_token, CHATML
    return tokenizer


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[list[dict[str, str]]],
           max_new_tokens: int = 60) -> Answers:
    """The model's answer to each conversation (greedy), and whether it ended by itself."""
    prompts = [tokenizer.apply_chat_template(each, add_generation_prompt=True, tokenize=False) for each in asked]
    answers: Answers = []
    for start in range(0, len(prompts), BATCH):
        answers += evaluate.complete(model, tokenizer, prompts[start:start + BATCH], max_new_tokens)
    return answers


def scored_rows() -> list[requests.Row]:
    """`EACH` requests of every kind about held-out people, kind by kind; the tier was tuned on other draws."""
    people = world.make_world().held_out
    return [row for kind in requests.KINDS for row in requests.request_rows(people, EACH, (kind,), seed=3)]


def both(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Answers]:
    """Answers to the requests and to the ten ordinary questions."""
    return {"requests": answer(model, tokenizer, [row["messages"][:-1] for row in scored_rows()]),
            "ordinary": answer(model, tokenizer, requests.ordinary_messages(), 32)}


def before_training(folder: pathlib.Path, tokenizer: PreTrainedTokenizerBase, out: pathlib.Path) -> dict[str, Answers]:
    """`both` of the model as it came; kept in `out`, as it takes minutes and is the same for every seed."""
    kept = out / "before.json"
    if not kept.is_file():
        answers = both(plain_copy(folder), tokenizer)
        out.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(answers, indent=1))
    return json.loads(kept.read_text())


def shares(answers: dict[str, Answers]) -> dict[str, float]:
    """The scores by name, in 0 … 1: first over the kinds that are trained on, then by kind, then the ordinary ones."""
    rows = scored_rows()
    by_kind = requests.score(rows, answers["requests"])
    scores = {}
    for group, kinds in (("trained", requests.TRAINED_KINDS), ("held-out", requests.HELD_OUT_KINDS)):
        for what in ("exact", "valid"):
            scores[f"{what}, {group} kinds"] = sum(by_kind[kind][what] for kind in kinds) / len(kinds)
    scores |= {f"exact, {kind}": by_kind[kind]["exact"] for kind in requests.KINDS}
    right = requests.ordinary_right(answers["ordinary"])
    return scores | {"ordinary questions right": sum(right) / len(right)}


def train(tier: Tier, folder: pathlib.Path, out: pathlib.Path, seed: int, log: recorder.Recorder) -> pathlib.Path:
    """Fine-tune as lesson 10 does, on the rows of `seed`; gives the folder of the adapter."""
    tokenizer = load_tokenizer(folder)
    with log.phase("load"):
        model = load_base(folder)
    rows = requests.training_rows(world.make_world().taught, tier.max_steps * tier.batch * tier.accumulation, seed)
    config = SFTConfig(
        output_dir=str(out), max_length=tier.max_length, assistant_only_loss=True,
        per_device_train_batch_size=tier.batch, gradient_accumulation_steps=tier.accumulation,
        max_steps=tier.max_steps, optim=tier.optimizer, learning_rate=tier.learning_rate,
        lr_scheduler_type=tier.scheduler, warmup_steps=tier.warmup, max_grad_norm=tier.max_grad_norm, seed=seed,
        gradient_checkpointing=tier.checkpointing, logging_steps=2, report_to="none", disable_tqdm=True,
        save_steps=tier.save_steps, use_cpu=True, bf16=False, fp16=False)
    lora = LoraConfig(r=tier.r, lora_alpha=tier.alpha, lora_dropout=tier.dropout, target_modules=tier.targets,
                      bias="none", task_type="CAUSAL_LM")
    trainer = SFTTrainer(model=model, args=config, processing_class=tokenizer, peft_config=lora, callbacks=[log],
                         train_dataset=Dataset.from_list([{"messages": row["messages"]} for row in rows]))
    trainer.remove_callback(PrinterCallback)
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    with log.phase("train"):
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
    first, last = shares(before), shares(after)
    rows = scored_rows()
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
