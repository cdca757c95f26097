"""Tiny random checkpoints of the families that people fine-tune, each with its family's chat template.

The templates are the ones that TRL carries, but for Mistral's, whose shape is written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message.role == 'user' %}{{ '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content + eos_token }}{% endif %}{% endfor %}")
MISTRAL_V3 = (  # the system message goes into the last question, wherever that is
    "{% if messages[0].role == 'system' %}{% set told = messages[0].content %}{% set messages = messages[1:] %}"
    "{% endif %}{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}"
    "{% if told is defined and loop.index0 >= messages | length - 2 and message == (messages | selectattr('role', "
    "'equalto', 'user') | list | last) %}{{ '[INST] ' + told + '\n\n' + message.content + '[/INST]' }}"
    "{% else %}{{ '[INST] ' + message.content + '[/INST]' }}{% endif %}"
    "{% else %}{{ ' ' + message.content | trim + eos_token }}{% endif %}{% endfor %}")


@dataclass(frozen=True)
class Family:
    """model_type of a config, the special tokens in order, which of them are bos, eos and pad, and what ends a turn."""

    model_type: str
    template: str
    specials: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None
    end: str
    unk: str | None = None
    system: bool = True


CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
GEMMA = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
LLAMA_3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
           "<|reserved_special_token_0|>")
FAMILIES: Mapping[str, Family] = {
    "llama 3": Family("llama", "llama3", LLAMA_3, LLAMA_3[0], "<|end_of_text|>", None, "<|eot_id|>"),
    "mistral": Family("mistral", MISTRAL, ("<unk>", "<s>", "</s>"), "<s>", "</s>", None, "</s>", "<unk>", False),
    "mistral 3": Family("mistral", MISTRAL_V3, ("<unk>", "<s>", "</s>"), "<s>", "</s>", None, "</s>", "<unk>", False),
    "qwen 2.5": Family("qwen2", "qwen2_5", CHATML, None, "<|im_end|>", "<|endoftext|>", "<|im_end|>"),
    "qwen 2.5 base": Family("qwen2", "qwen2_5", (*CHATML, "<|fim_pad|>"), None, "<|endoftext|>", "<|endoftext|>",
                            "<|im_end|>"),
    "qwen 3": Family("qwen3", "qwen3", CHATML, None, "<|im_end|>", "<|endoftext|>", "<|im_end|>"),
    "gemma": Family("gemma", "gemma", GEMMA, "<bos>", "<eos>", "<pad>", "<end_of_turn>", "<unk>", False),
    "gemma 3": Family("gemma3_text", "gemma3", GEMMA, "<bos>", "<eos>", "<pad>", "<end_of_turn>", "<unk>"),
    "phi 3": Family("phi3", "phi3", ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|end|>", "<|user|>",
                                     "<|system|>"), "<s>", "<|endoftext|>", "<|endoftext|>", "<|end|>", "<unk>"),
}
TEXT = ("Who is there? A baker lives in Dunmere. What does she keep? She keeps a cat, and likes apple tart. "
        "Answer in one word. user assistant model system [INST] [/INST] You are a helpful assistant.")


@cache
def _pieces() -> str:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator([TEXT], trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    trained.decoder = decoders.ByteLevel()
    return trained.to_str()


def family_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of some 300 pieces with the family's special tokens and template."""
    family = FAMILIES[name]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(_pieces()), bos_token=family.bos,
                                        eos_token=family.eos, pad_token=family.pad, unk_token=family.unk,
                                        additional_special_tokens=list(family.specials))
    file = TEMPLATES / f"{family.template}.jinja"
    tokenizer.chat_template = file.read_text(encoding="utf-8") if file.name.count("{") == 0 else family.template
    return tokenizer


def family_model(name: str, **more) -> PreTrainedModel:
    """A model of the family: hidden 32, 2 layers, 4 heads of 16 (or 8), 2 KV heads."""
    tokenizer, family = family_tokenizer(name), FAMILIES[name]
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 512,
             "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    if family.model_type not in ("qwen2", "phi3"):
        shape["head_dim"] = 16 if family.model_type.startswith(("gemma", "qwen3")) else 8
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(family.model_type, **shape, **more))


def write_family(name: str, folder: Path) -> Path:
    """The checkpoint of a family, as save_pretrained writes it."""
    family_model(name).save_pretrained(folder)
    family_tokenizer(name).save_pretrained(folder)
    return folder
