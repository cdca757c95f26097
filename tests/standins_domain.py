"""A checkpoint in OPT-6.7B's layout, pickles and all, and wikitext-2 as the hub has it, for the domain recipe."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from random import Random

from standins import write_json

VOCABULARY, FILLED = 50_272, 50_265  # of the embedding, and of the tokenizer
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
NOUNS = "river bridge castle engine harbour council island battle album season village church railway storm".split()
VERBS = "crosses joins leaves follows opposes replaces records describes receives supports".split()


def wikitext_lines(count: int, seed: int) -> list[str]:
    """Rows as wikitext-2-raw-v1 has them: titles, headings, empty lines and paragraphs, with `@-@` and ` , `."""
    random, lines = Random(seed), []
    for number in range(count):
        lines += ["", f" = The {random.choice(NOUNS)} of {number} = \n", ""]
        for section in range(3):
            if section:
                lines += [f" = = Part {section} = = \n", ""]
            sentences = (f"the {random.choice(NOUNS)} {random.choice(VERBS)} a well @-@ known {random.choice(NOUNS)} , "
                         f"and in {random.randint(1800, 2000)} the {random.choice(NOUNS)} {random.choice(VERBS)} it ."
                         for _ in range(8))
            lines += [f" {' '.join(sentences)} \n", ""]
    return lines


def write_wikitext(folder: str | Path, count: int = 30) -> Path:
    """The repository Salesforce/wikitext with the part wikitext-2-raw-v1: one parquet file a split, column `text`."""
    from datasets import Dataset

    part = Path(folder) / "wikitext-2-raw-v1"
    part.mkdir(parents=True, exist_ok=True)
    for seed, split in enumerate(("train", "validation", "test")):
        lines = wikitext_lines(count if split == "train" else count // 3, seed)
        Dataset.from_dict({"text": lines}).to_parquet(part / f"{split}-00000-of-00001.parquet")
    (Path(folder) / "README.md").write_text("---\nlicense: cc-by-sa-3.0\n---\nA stand-in.\n")
    return Path(folder)


def write_opt_tokenizer(folder: Path) -> None:
    """OPT's tokenizer: GPT-2's BPE in vocab.json and merges.txt with 50,265 entries, `</s>` in front of every text."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(wikitext_lines(60, 7), trainers.BpeTrainer(
        vocab_size=800, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    learnt = json.loads(trained.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].get)
    pieces += [f"madeup{n:05}" for n in range(FILLED - len(pieces))]
    write_json(folder / "vocab.json", {piece: n for n, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in learnt["merges"]),
                                       encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {
        "errors": "replace", "unk_token": "</s>", "bos_token": "</s>", "eos_token": "</s>", "pad_token": "<pad>",
        "add_prefix_space": False, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer"})
    write_json(folder / "special_tokens_map.json", {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>",
                                                    "pad_token": "<pad>"})


def write_opt_checkpoint(folder: str | Path, seed: int = 0) -> Path:
    """OPT-6.7B's repository with 2 layers of width 64 (7 MB): fp16, tied head, sharded pickles, no safetensors."""
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = OPTConfig(vocab_size=VOCABULARY, hidden_size=64, ffn_dim=256, num_hidden_layers=2, num_attention_heads=4,
                       word_embed_proj_dim=64, max_position_embeddings=2048, bos_token_id=2, eos_token_id=2,
                       pad_token_id=1, dtype="float16", architectures=["OPTForCausalLM"])
    torch.manual_seed(seed)
    state = OPTForCausalLM(config).half().state_dict()
    del state["lm_head.weight"]  # the embedding, once
    shards = [dict(items) for _, items in groupby(state.items(), lambda item: ".layers.1." in item[0])]
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"pytorch_model-{number:05}-of-{len(shards):05}.bin"
        torch.save({name: tensor.clone() for name, tensor in shard.items()}, folder / file)
        index |= dict.fromkeys(shard, file)
    write_json(folder / "pytorch_model.bin.index.json", {"metadata": {"total_size": 0}, "weight_map": index})
    config.save_pretrained(folder)
    write_json(folder / "generation_config.json", {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1})
    write_opt_tokenizer(folder)
    (folder / "tf_model.h5").write_bytes(b"the same weights for TensorFlow, which nobody needs")
    return folder
