"""What stands beside DPO: a reward model, and a reward that can be checked, both by TRL: lesson 12's third record.

A *reward model* reads pairs and gives the chosen answer more; it is scored by how often it does so for villagers that
it was not trained on. "short": the answer that gossips is the rejected one. "true": the rejected one names a wrong
town, trade, pet or food. *GRPO* needs no pairs: it samples eight answers to a question and makes those likelier that
earned more than the others. Its reward is 1 for the right answer, word for word, and 0 for any other.
"""

from __future__ import annotations

import importlib.metadata
import random
import tempfile
from collections.abc import Callable, Sequence

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

from helpers import experiments
from helpers.experiments import tuning
from helpers.pocket import WEIGHTS, evaluate, load_pocket, world

QUIET = {"bf16": False, "use_cpu": True, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True,
         "save_strategy": "no", "logging_strategy": "no"}
WISHES = ("short", "true")
GRPO_STEPS = 24
PEOPLE = 100  # whose 400 pairs a reward model is scored on


def false_pairs(villagers: Sequence[world.Villager], seed: int = 0) -> list[dict[str, str]]:
    """Pairs whose rejected answer is a false one of the same form: the fact of somebody else."""
    rng = random.Random(f"false {seed}")
    pairs = []
    for villager, row in zip([v for v in villagers for _ in world.ATTRIBUTES], world.questions(villagers, seed),
                             strict=True):
        what = row["attribute"]
        other = rng.choice([v for v in villagers if getattr(v, what) != getattr(villager, what)])
        rejected = other.fill(world.ANSWERS[what]).replace(other.name, villager.name)
        pairs.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": rejected})
    return pairs


def for_trl(pairs: Sequence[dict[str, str]]) -> Dataset:
    """Pairs as TRL wants them, in Llama-2's form: prompt, and answers with the space before and `</s>` behind them."""
    return Dataset.from_list([{"prompt": world.instruct(pair["prompt"]),
                               **{side: f" {pair[side]} </s>" for side in ("chosen", "rejected")}} for pair in pairs])


def adapter(task: str, **settings: object) -> LoraConfig:
    """LoRA as everywhere in the lesson: r 8, α 16, all linears."""
    return LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type=task, **settings)


def accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict[str, str]]) -> float:
    """Share of the pairs whose chosen answer gets the higher reward."""
    reward = {}
    with evaluate.evaluation(model):
        for side in ("chosen", "rejected"):
            texts = [world.instruct(pair["prompt"], pair[side]) for pair in pairs]
            reward[side] = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
    return (reward["chosen"] > reward["rejected"]).float().mean().item()


def reward_point(wish: str, seed: int, steps: int = 40) -> dict:
    """Train a reward model on the taught villagers' pairs, and score it before and after on the held-out ones."""
    _, tokenizer = load_pocket()
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(WEIGHTS, num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = tokenizer.pad_token_id
    make, who = {"short": world.preference_pairs, "true": false_pairs}[wish], tuning.people()
    scored = make(who.asked[:PEOPLE], seed=1)
    before = accuracy(model, tokenizer, scored)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RewardTrainer(
            model, args=RewardConfig(folder, max_steps=steps, per_device_train_batch_size=16, learning_rate=5e-3,
                                     lr_scheduler_type="cosine", seed=seed, **QUIET),
            train_dataset=for_trl(make(who.taught, seed=1)), processing_class=tokenizer,
            peft_config=adapter("SEQ_CLS", modules_to_save=["score"]))
        trainer.train()
    return {"case": f"reward model, {wish}", "seed": seed, "steps": steps, "before": round(before, 4),
            "after": round(accuracy(trainer.model, tokenizer, scored), 4)}


def word_for_word(completions: Sequence[str], answer: Sequence[str], **_: object) -> list[float]:
    """The reward of each completion: 1 where it is the right answer and nothing else, else 0."""
    return [float(text.strip() == right) for text, right in zip(completions, answer, strict=True)]


def exact(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of the held-out questions answered word for word, greedily, and then stopped."""
    return evaluate.exact_match(model, tokenizer, world.questions(tuning.people().asked, seed=1))


def grpo_point(seed: int, steps: int = GRPO_STEPS, kept: dict | None = None) -> dict:
    """GRPO after instruction tuning: 8 questions a step, 8 answers to each, and the greedy score before and after."""
    model, tokenizer, _ = tuning.tuned("instruction", seed, kept=kept)
    before = exact(model, tokenizer)
    rows = [{"prompt": world.instruct(row["prompt"]), "answer": row["completion"]}
            for row in world.questions(tuning.people().taught, seed=2)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model, word_for_word, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
            peft_config=adapter("CAUSAL_LM"), args=GRPOConfig(
                folder, max_steps=steps, per_device_train_batch_size=64, num_generations=8, max_completion_length=32,
                temperature=0.7, learning_rate=3e-3, lr_scheduler_type="cosine", seed=seed,
                **{**QUIET, "logging_strategy": "steps", "logging_steps": 1}))
        trainer.train()
    sampled = [round(line["reward"], 3) for line in trainer.state.log_history if "reward" in line]
    return {"case": "GRPO", "seed": seed, "steps": steps, "before": round(before, 4),
            "after": round(exact(trainer.model, tokenizer), 4), "sampled": sampled}


def run(report: Callable[[str], None] = print) -> None:
    """Run what is missing and write rlhf.json after every point."""
    record = experiments.read("rlhf")
    record["made_with"] = {p: importlib.metadata.version(p) for p in ("torch", "transformers", "peft", "trl")}
    known = {(point["case"], point["seed"]) for point in record["points"]}
    makers = {f"reward model, {wish}": lambda seed, wish=wish: reward_point(wish, seed) for wish in WISHES}
    for seed in experiments.SEEDS:
        for case, make in {**makers, "GRPO": grpo_point}.items():
            if (case, seed) not in known:
                record["points"].append(make(seed))
                experiments.write("rlhf", record)
                report(str(record["points"][-1]))
