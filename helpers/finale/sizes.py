"""The shape of a model, read from its config: what memory and time follow from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from helpers.finale.hub import find_token, hub_errors
from helpers.memory import census

WANTED = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
COUNTED = ("llama", "mistral", "qwen2")  # families whose activations the ledger counts, tensor by tensor


@dataclass(frozen=True)
class Size:
    """The shape of a Llama-like model, read from a checkpoint by `checkpoint_size`.

    parameters: in the safetensors files; bytes: of those files. tied: the output head is the embedding, stored once.
    head_dim: of one attention head, None for hidden / heads. family: the config's model_type.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    bytes: int
    tied: bool = False
    head_dim: int | None = None
    family: str = "llama"

    @property
    def counted(self) -> bool:
        """Whether the forecast of training counts what this family keeps; for others it is an estimate."""
        return self.family in COUNTED

    def config(self) -> PretrainedConfig:
        """The same shape as transformers' config of its family."""
        more = {} if self.head_dim is None else {"head_dim": self.head_dim}
        return AutoConfig.for_model(
            self.family, hidden_size=self.hidden, intermediate_size=self.intermediate, vocab_size=self.vocab,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.kv_heads,
            tie_word_embeddings=self.tied, pad_token_id=None, bos_token_id=None,
            eos_token_id=None, **more)


def checkpoint_size(folder: str | Path) -> Size:
    """Read the `Size` of a checkpoint: its config and the headers of its safetensors files (no weights).

    Raises ValueError, naming what is missing, for a config that is none of a Llama-like causal language model.
    """
    from safetensors import safe_open

    folder, parameters = Path(folder), 0
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, "np") as tensors:
            parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return _size(folder.name, folder / "config.json", parameters, sum(file.stat().st_size for file in files))


def hub_size(repo: str) -> Size:
    """The `Size` of a model on the hub by its config.json alone: parameters by transformers, two bytes each.

    Raises HubError if the config cannot be had, ValueError as `checkpoint_size`.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(repo):
        file = Path(hf_hub_download(repo, "config.json", token=find_token()))
    parameters = census(_size(repo, file, 0, 0).config())[0]
    return _size(repo, file, parameters, 2 * parameters)


def _size(name: str, file: Path, parameters: int, nbytes: int) -> Size:
    config: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    family, made = config.get("model_type", "llama"), config.get("architectures") or ["ForCausalLM"]
    if missing := [key for key in WANTED if key not in config]:
        raise ValueError(f"{name}/config.json lacks {', '.join(missing)}: give a Llama-like checkpoint for text only, "
                         "as Llama, Mistral, Qwen or Gemma")
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or not made[0].endswith("ForCausalLM"):
        raise ValueError(f"{name} is a {made[0]} ({family}): give a causal language model that this transformers knows")
    if any("experts" in key and config[key] for key in config):
        raise ValueError(f"{name} is a mixture of experts ({family}), whose layers are not plain linears: give a dense "
                         "model")
    read = AutoConfig.for_model(family, **{key: value for key, value in config.items() if key != "model_type"})
    head = getattr(read, "head_dim", None)  # what the file leaves out is the family's own: Gemma's heads have 256
    return Size(parameters, *(config[key] for key in WANTED[:4]), read.num_key_value_heads or read.num_attention_heads,
                config["vocab_size"], nbytes, tied=read.tie_word_embeddings, family=family,
                head_dim=None if head == read.hidden_size // read.num_attention_heads else head)
