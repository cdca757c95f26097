"""A Llama as a GGUF file, for llama.cpp, Ollama and LM Studio: one file with configuration, tokens and weights.

    write(model, tokenizer, Path("villagers.gguf"), "Q8_0")
    model = read(Path("villagers.gguf"))

Matrices are stored as float16 or in the blocks of helpers/ggml.py, norms in float32. The rows of q and k stand in
another order in a GGUF: llama.cpp rotates neighbours where transformers rotates halves of a head. Source: llama.cpp,
convert_hf_to_gguf.py (`LlamaModel.permute`); names and keys are those of the package `gguf`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest import mock

import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType, get_tensor_name_map
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    modeling_gguf_pytorch_utils,
)

from helpers import ggml

KINDS = {"F16": LlamaFileType.MOSTLY_F16, "Q8_0": LlamaFileType.MOSTLY_Q8_0, "Q4_0": LlamaFileType.MOSTLY_Q4_0,
         "Q4_1": LlamaFileType.MOSTLY_Q4_1}
BLOCKS = {fmt.name: fmt for fmt in (ggml.Q4_0, ggml.Q4_1, ggml.Q8_0)}


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of q or k (heads · size, k) as a GGUF has them: of each head 0, size/2, 1, size/2 + 1, …"""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def stored(weight: torch.Tensor, kind: str) -> tuple[torch.Tensor, GGMLQuantizationType]:
    """A tensor as its bytes will stand in the file, and what that is called. Vectors stay in float32."""
    if weight.dim() < 2:
        return weight.float(), GGMLQuantizationType.F32
    if kind == "F16" or weight.shape[-1] % ggml.BLOCK:
        return weight.half(), GGMLQuantizationType.F16
    return ggml.quantize(weight, BLOCKS[kind]).flatten(-2), GGMLQuantizationType[kind]


def write(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, path: Path, kind: str = "F16",
          name: str = "a pocket Llama", pre: str | None = None) -> Path:
    """Write a LlamaForCausalLM without adapters into `path`; returns it. Nothing is left there if it fails.

    kind: "F16", "Q8_0", "Q4_1" or "Q4_0", of all matrices. pre: for a byte-level tokenizer, what llama.cpp calls the
    rule by which it cuts a text before merging ("smollm", "llama-bpe", "qwen2"; `get_vocab_base_pre` in its
    convert_hf_to_gguf.py has them). Raises ValueError for another kind, a byte-level tokenizer without `pre`, a model
    that is no Llama or one with adapters (merge them first) or quantized layers, and weights beyond float16's range.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}: take one of {', '.join(KINDS)}")
    config = model.config
    if getattr(config, "model_type", None) != "llama" or not isinstance(model, LlamaForCausalLM):
        raise ValueError(f"a {type(model).__name__} is no plain LlamaForCausalLM: merge adapters first, "
                         "model = model.merge_and_unload(); other families have other names and orders of weights")
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    writing = path.with_name(path.name + ".part")
    writer = GGUFWriter(writing, "llama")
    try:
        _configure(writer, config, kind, name)
        _add_tokens(writer, tokenizer, config.vocab_size, pre)
        tied = config.tie_word_embeddings
        for key, weight in model.state_dict().items():
            if key == "lm_head.weight" and tied:
                continue
            known = names.get_name(key, try_suffixes=(".weight",))
            if known is None or not weight.is_floating_point():
                raise ValueError(f"{key} ({weight.dtype}) has no place in a GGUF of a Llama: merge adapters and "
                                 "dequantize the model before")
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
            weight = weight.detach().cpu().float()
            if (part := key.split(".")[-2]) in heads:
                weight = permute(weight, heads[part])
            data, what = stored(weight, kind)
            if not torch.isfinite(data).all():
                raise ValueError(f"{key} passes float16's 65504: it cannot be stored as {kind}")
            writer.add_tensor(known, data.contiguous().numpy(), raw_dtype=what)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        writing.replace(path)
    finally:
        writing.unlink(missing_ok=True)
    return path


def read(path: Path) -> PreTrainedModel:
    """The model in a GGUF file as transformers reads it, dequantized: float32, in evaluation mode, without a bar."""
    with mock.patch.object(modeling_gguf_pytorch_utils, "tqdm", lambda tensors, **_: tensors):  # nothing else stops it
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval()


def _configure(writer: GGUFWriter, config: LlamaConfig, kind: str, name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(KINDS[kind])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)


def _add_tokens(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocab: int, pre: str | None) -> None:
    """The tokens by id; of a byte-level vocabulary with its merges, of any other as SentencePiece has it: the earlier a
    token was merged, the higher its score. The chat template comes along where there is one."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    byte_level = '"ByteLevel"' in json.dumps(rules["pre_tokenizer"])
    if byte_level and pre is None:
        raise ValueError("this tokenizer works on bytes, and llama.cpp must be told by name how it cuts a text: give "
                         'pre="smollm" for SmolLM2; the names stand in get_vocab_base_pre of convert_hf_to_gguf.py')
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    tokens += [f"<unused {n}>" for n in range(len(tokens), vocab)]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    kinds = [TokenType.CONTROL if n in special else TokenType.UNUSED if n >= len(tokenizer)
             else TokenType.BYTE if re.fullmatch("<0x[0-9A-F]{2}>", token) else TokenType.NORMAL
             for n, token in enumerate(tokens)]
    writer.add_tokenizer_model("gpt2" if byte_level else "llama")
    writer.add_token_list([token.encode() for token in tokens])
    if byte_level:
        writer.add_tokenizer_pre(pre)
        merges = rules["model"]["merges"]
        writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    else:
        writer.add_token_scores([-float(n) for n in range(vocab)])
    writer.add_token_types(kinds)
    for role in ("bos", "eos", "pad", "unk"):
        if (token := getattr(tokenizer, f"{role}_token_id")) is not None:
            getattr(writer, f"add_{role}_token_id")(token)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
        writer.add_add_bos_token(False)  # the template writes it where it is wanted
