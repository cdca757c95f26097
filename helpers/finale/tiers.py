"""The four sizes that the finale runs in.

`pocket` (any laptop, seconds), `laptop` (a real model of 135 M weights, any laptop, minutes; only where it is asked
for), `small` (a 4 GiB GPU), `llama-2-7b` (a 16 GB GPU).

One code path: a lesson asks `choose_tier()` once and reads every setting from the `Tier`. `preflight(tier)` says,
before anything is downloaded, whether it fits here. Figures that nobody measured are arithmetic, and say so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from transformers import LlamaConfig

from helpers.finale import laptop
from helpers.finale.hub import Source, look_up, missing_files
from helpers.finale.machine import Machine, machine
from helpers.memory import GIB, Ledger, forecast_training
from helpers.pocket import WEIGHTS


@dataclass(frozen=True)
class Size:
    """What memory and time follow from: the shape of a Llama-like model, read from a checkpoint by `checkpoint_size`.

    parameters: in the safetensors files; bytes: of those files. tied: the output head is the embedding, stored once.
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

    def config(self) -> LlamaConfig:
        """The same shape as transformers' config."""
        return LlamaConfig(hidden_size=self.hidden, intermediate_size=self.intermediate, vocab_size=self.vocab,
                           num_hidden_layers=self.layers, num_attention_heads=self.heads,
                           num_key_value_heads=self.kv_heads, tie_word_embeddings=self.tied)


@dataclass(frozen=True)
class Needs:
    """What a run takes: gpu, ram and checkpoints (disk) in GiB, download in bytes, flops in operations."""

    gpu: float
    ram: float
    checkpoints: float
    download: int
    flops: float


@dataclass(frozen=True)
class Tier:
    """One size of the course's fine-tune: what to load, how to train it.

    model: a hub id, or the absolute path of a local checkpoint. dataset: a hub id, a local path, or None where the
    course's generator writes the rows. revision: the pinned commit of the model; the data set's is resolved at run time
    and stands in the preflight report, as no public record of one was found. max_steps: -1 counts by epochs.
    row_tokens: mean tokens in a row, for the estimate of time; max_length where unknown, and then the estimate is an
    upper bound.
    """

    name: str
    model: str
    revision: str | None
    dataset: str | None
    size: Size
    batch: int
    accumulation: int
    max_length: int
    r: int
    alpha: int
    dropout: float
    learning_rate: float
    scheduler: str
    warmup: float = 0.03  # part of the steps
    max_steps: int = -1
    epochs: float = 1.0
    rows: int = 1000
    row_tokens: int = 512
    targets: str = "all-linear"  # PEFT's own default for Llama is q_proj and v_proj only
    optimizer: str = "paged_adamw_32bit"
    max_grad_norm: float = 0.3
    checkpointing: bool = True
    save_steps: int = 10

    @property
    def tokens(self) -> int:
        """Tokens that the run reads, padding left out."""
        rows = self.max_steps * self.batch * self.accumulation if self.max_steps > 0 else self.epochs * self.rows
        return int(rows * min(self.row_tokens, self.max_length))

    def forecast(self, gpu: bool = True, batch: int | None = None, sequence: int | None = None, r: int | None = None,
                 checkpointing: bool | None = None) -> Ledger:
        """`memory.forecast_training` of this tier's run in NF4 with double quantization; arguments replace its own.

        On a GPU in 16 bit, on a CPU in fp32.
        """
        return forecast_training(
            self.size.config(), r or self.r, self.targets, batch or self.batch, sequence or self.max_length,
            checkpointing=self.checkpointing if checkpointing is None else checkpointing, dropout=self.dropout > 0,
            dtype=torch.bfloat16 if gpu else torch.float32, gpu=gpu)

    def needs(self, folder: str | Path | None = None, gpu: bool = True) -> Needs:
        """Memory, disk and work of this tier's run; from the checkpoint in `folder` if given, else from the table.

        Arithmetic, not measurement. On the GPU: `forecast`, a tenth more for the allocator's gaps, and 0.6 GiB for CUDA
        itself. RAM: 3 GiB for Python and the CUDA libraries plus a quarter of the files (assumed: their mapped pages
        can be dropped); on a CPU 1 GiB plus the files and the forecast in fp32. Disk: two saved checkpoints of adapter
        and optimizer. Work: 6 operations per weight and token: forward 2, backward to the inputs 2, forward again for
        checkpointing 2.
        """
        tier = self if folder is None else replace(self, size=checkpoint_size(folder))
        size, (training, adapters) = tier.size, _forecast(tier, gpu)
        training = 1.1 * training / GIB
        return Needs(gpu=training + 0.6, ram=3 + size.bytes / 4 / GIB if gpu else 1 + training + size.bytes / GIB,
                     checkpoints=2 * 3 * adapters / GIB, download=size.bytes, flops=6.0 * size.parameters * self.tokens)

    def model_source(self) -> Source:
        """Where the model is: asks the hub only if it is neither local nor in the cache."""
        path = Path(self.model)
        if self.model == laptop.MODEL:
            return laptop.source()
        if not path.is_absolute():
            return look_up(self.model, self.revision)
        missing = missing_files(path)
        if missing:
            return Source(self.model, "not found", problem=f"{path.name} lacks {', '.join(missing)}",
                          remedy="The pocket model comes with the package: install it again. Another folder must hold "
                                 "a whole checkpoint in safetensors.")
        return Source(self.model, "local", path, bytes=0)

    def dataset_source(self) -> Source | None:
        """Where the data set is, its revision resolved; None where the rows are generated."""
        if self.dataset is None:
            return None
        path = Path(self.dataset)
        return Source(self.dataset, "local", path, bytes=0) if path.is_absolute() else look_up(
            self.dataset, repo_type="dataset")


# bytes of the hub models: 2 per parameter. The pocket tier's line is what checkpoint_size says of its files.
LLAMA_2_7B = Size(parameters=6_738_415_616, layers=32, hidden=4096, intermediate=11_008, heads=32, kv_heads=32,
                  vocab=32_000, bytes=13_476_831_232)
TINYLLAMA = Size(parameters=1_100_048_384, layers=22, hidden=2048, intermediate=5632, heads=32, kv_heads=4,
                 vocab=32_000, bytes=2_200_096_768)
SMOLLM2 = Size(parameters=134_515_008, layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, vocab=49_152,
               bytes=269_030_016, tied=True)
POCKET = Size(parameters=951_424, layers=4, hidden=128, intermediate=320, heads=4, kv_heads=4, vocab=768,
              bytes=3_809_824)

# llama-2-7b: the QLoRA authors' recipe for 7B (r 64, α 16, all linears, dropout 0.1, 2e-4, batch 1 × 16, clip 0.3,
# length 512), but one epoch of the 1,000 rows in place of 1,875 steps. Their "constant" schedule ignores the warm-up of
# 0.03 that they name; constant_with_warmup does what they say. small: the same with the rank scaled to the model.
# laptop: tuned by rehearsal.py, measured in records/laptop-cpu.json; its rows are helpers/finale/requests.py's.
TIERS: Mapping[str, Tier] = {tier.name: tier for tier in (
    Tier("pocket", str(WEIGHTS), None, None, POCKET, batch=32, accumulation=1, max_length=128, r=8, alpha=16,
         dropout=0.0, learning_rate=5e-3, scheduler="cosine", max_steps=200, row_tokens=48, optimizer="adamw_torch",
         max_grad_norm=1.0, checkpointing=False, save_steps=50),
    Tier("laptop", laptop.MODEL, laptop.REVISION, None, SMOLLM2, batch=4, accumulation=1, max_length=128, r=8, alpha=16,
         dropout=0.0, learning_rate=7e-4, scheduler="cosine", max_steps=180, row_tokens=76, optimizer="adamw_torch",
         max_grad_norm=1.0, checkpointing=False, save_steps=45),
    Tier("small", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "fe8a4ea1ffedaf415f4da2f062534de366a451e6",
         "mlabonne/guanaco-llama2-1k", TINYLLAMA, batch=1, accumulation=16, max_length=512, r=16, alpha=16, dropout=0.1,
         learning_rate=2e-4, scheduler="constant_with_warmup"),
    Tier("llama-2-7b", "NousResearch/Llama-2-7b-hf", "dacdfcde31297e34b19ee0e7532f29586d2c17bc",
         "mlabonne/guanaco-llama2-1k", LLAMA_2_7B, batch=1, accumulation=16, max_length=512, r=64, alpha=16,
         dropout=0.1, learning_rate=2e-4, scheduler="constant_with_warmup"),
)}


def choose_tier(name: str | None = None, on: Machine | None = None) -> Tier:
    """The tier named, else the one in COURSE_TIER, else the largest for this machine's GPU memory.

    A CUDA card with 14 GiB or more runs llama-2-7b (a T4 shows 14.6), with 4 GiB small; everything else runs pocket,
    Apple's GPUs too: bitsandbytes does not train 4-bit weights on MPS. laptop runs where it is named. COURSE_MODEL and
    COURSE_DATASET put a local checkpoint and a local data set (file or folder) in place of the tier's own.

    Raises ValueError for an unknown tier, a path that does not exist, or a checkpoint that is not whole.
    """
    name = name or os.environ.get("COURSE_TIER") or None
    if name is None:
        on = machine() if on is None else on
        memory = on.gpu_total if on.gpu is not None else 0
        name = "llama-2-7b" if memory >= 14 else "small" if memory >= 4 else "pocket"
    if name not in TIERS:
        raise ValueError(f"unknown tier {name!r}: use one of {', '.join(TIERS)} (argument or COURSE_TIER)")
    tier = TIERS[name]
    if model := os.environ.get("COURSE_MODEL"):
        path = _existing("COURSE_MODEL", model)
        if not path.is_dir() or (missing := missing_files(path)):
            lacks = ", ".join(missing) if path.is_dir() else "to be a folder"
            raise ValueError(f"COURSE_MODEL={model} lacks {lacks}: give a checkpoint's folder as save_pretrained "
                             "writes it, weights in safetensors")
        tier = replace(tier, model=str(path), revision=None, size=checkpoint_size(path))
    if dataset := os.environ.get("COURSE_DATASET"):
        tier = replace(tier, dataset=str(_existing("COURSE_DATASET", dataset)))
    return tier


def _existing(variable: str, value: str) -> Path:
    path = Path(os.path.abspath(Path(value).expanduser()))
    if not path.exists():
        raise ValueError(f"{variable}={value} does not exist: give an existing path, or unset {variable}")
    return path


@cache
def _forecast(tier: Tier, gpu: bool) -> tuple[int, int]:
    """Bytes of `tier.forecast`, in all and of the adapters."""
    ledger = tier.forecast(gpu)
    return ledger.total, ledger["adapters"]


def checkpoint_size(folder: str | Path) -> Size:
    """Read the `Size` of a Llama-like checkpoint: its config and the headers of its safetensors files (no weights).

    Raises ValueError, naming what is missing, for a config that is no Llama's.
    """
    from safetensors import safe_open

    folder, parameters = Path(folder), 0
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    wanted = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "vocab_size")
    if missing := [key for key in wanted if key not in config]:
        raise ValueError(f"{folder.name}/config.json lacks {', '.join(missing)}: give a Llama-like checkpoint")
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        with safe_open(file, "np") as tensors:
            parameters += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    layers, hidden, intermediate, heads, vocab = (config[key] for key in wanted)
    return Size(parameters, layers, hidden, intermediate, heads, config.get("num_key_value_heads") or heads, vocab,
                bytes=sum(file.stat().st_size for file in files), tied=config.get("tie_word_embeddings", False))


def load_arguments(path: str | Path) -> dict[str, str]:
    """The arguments with which `datasets.load_dataset` reads a local folder, or one local file, of rows."""
    path = Path(path)
    return {"path": str(path)} if path.is_dir() else {"path": str(path.parent), "data_files": path.name}
