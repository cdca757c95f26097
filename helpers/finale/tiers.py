"""The four sizes that the finale runs in.

`pocket` (any laptop, seconds), `laptop` (a real model of 135 M weights, any laptop, minutes; only where it is asked
for), `small` (a 4 GiB GPU), `llama-2-7b` (a 16 GB GPU).

One code path: a lesson asks `choose_tier()` once and reads every setting from the `Tier`. `preflight(tier)` says,
before anything is downloaded, whether it fits here. Figures that nobody measured are arithmetic, and say so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from helpers.finale import laptop
from helpers.finale.hub import Source, cached_folder, look_up, missing_files
from helpers.finale.machine import Machine, machine
from helpers.finale.merging import merging_bytes
from helpers.finale.rows import SUFFIXES
from helpers.finale.sizes import Size, checkpoint_size, hub_size
from helpers.memory import GIB, Ledger, forecast_training, forecast_weights
from helpers.pocket import WEIGHTS
from helpers.pocket.evaluate import BATCH, BUDGET


@dataclass(frozen=True)
class Needs:
    """What a run takes: gpu, ram and kept (what it writes to disk) in GiB, download in bytes, flops in operations."""

    gpu: float
    ram: float
    kept: float
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
    questions: int = 20  # held-out conversations that are answered before and after the training
    answer_tokens: int = 256  # at most, in an answer

    @property
    def tokens(self) -> int:
        """Tokens that the run reads, padding left out."""
        rows = self.max_steps * self.batch * self.accumulation if self.max_steps > 0 else self.epochs * self.rows
        return int(rows * min(self.row_tokens, self.max_length))

    def forecast(self, gpu: bool = True) -> Ledger:
        """`memory.forecast_training` of this run in NF4 with double quantization; in 16 bit, on a CPU in fp32."""
        return forecast_training(
            self.size.config(), self.r, self.targets, self.batch, self.max_length, checkpointing=self.checkpointing,
            dropout=self.dropout > 0, dtype=torch.bfloat16 if gpu else torch.float32, gpu=gpu)

    def needs(self, folder: str | Path | None = None, gpu: bool = True, merging: bool = False) -> Needs:
        """Memory, disk and work of this tier's run; from the checkpoint in `folder` if given, else from the table.

        Arithmetic, not measurement. On the GPU: `forecast`, or the quantized weights and an evaluation's
        `evaluate.BUDGET` where that is more; a tenth more for the allocator's gaps, and 0.6 GiB for CUDA
        itself. RAM: 3 GiB for Python and the CUDA libraries plus a quarter of the files (assumed: their mapped pages
        can be dropped); on a CPU 1 GiB plus the files and the forecast in fp32. Disk: two saved checkpoints of adapter
        and optimizer. merging: RAM for `merge_shards`, and its result in 16 bit on the disk. Work: 6 operations per
        weight and token: forward 2, backward to the inputs 2, forward again for checkpointing 2.
        """
        tier = self if folder is None else replace(self, size=checkpoint_size(folder))
        size, (training, adapters) = tier.size, _forecast(tier, gpu)
        training = 1.1 * training / GIB
        base, files = (3 if gpu else 1), size.bytes / GIB
        ram, kept = base + (files / 4 if gpu else training + files), 2 * 3 * adapters / GIB
        if merging:
            memory, disk = merging_bytes(size.parameters, size.hidden * size.intermediate)
            ram, kept = max(ram, base + memory / GIB), kept + disk / GIB
        return Needs(gpu=training + 0.6, ram=ram, kept=kept, download=size.bytes,
                     flops=6.0 * size.parameters * self.tokens)

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
         max_grad_norm=1.0, checkpointing=False, save_steps=50, questions=1000, answer_tokens=32),
    Tier("laptop", laptop.MODEL, laptop.REVISION, None, SMOLLM2, batch=4, accumulation=1, max_length=128, r=8, alpha=16,
         dropout=0.0, learning_rate=1e-3, scheduler="cosine", max_steps=160, row_tokens=61, optimizer="adamw_torch",
         max_grad_norm=1.0, checkpointing=False, save_steps=40, questions=70, answer_tokens=60),
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
    COURSE_DATASET put another model and other rows in place of the tier's own, each a local path or a hub id; of a hub
    model that is not here yet, its config.json is fetched. COURSE_STEPS=10 stops after so many optimizer steps, for a
    lecture; a single one is taken without warm-up. Change the rest by `dataclasses.replace(tier, ...)`.

    Raises ValueError for an unknown tier, steps that are no whole number from 1, a path that does not exist, a
    checkpoint that is not whole or not of a shape that the course can train; HubError if the hub does not give the
    config.
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
        tier = replace(tier, **_own_model(model))
    if dataset := os.environ.get("COURSE_DATASET"):
        tier = replace(tier, dataset=str(_path_or_id("COURSE_DATASET", dataset)))
    if steps := os.environ.get("COURSE_STEPS"):
        if not steps.isdecimal() or int(steps) < 1:
            raise ValueError(f"COURSE_STEPS={steps}: give a whole number of optimizer steps, 1 or more, or unset it")
        warmup = tier.warmup if int(steps) > 1 else 0.0  # the first step of a warm-up has rate 0: alone it does nothing
        tier = replace(tier, max_steps=int(steps), save_steps=min(tier.save_steps, int(steps)), warmup=warmup)
    return tier


def _own_model(value: str) -> dict[str, object]:
    """The fields of a tier that COURSE_MODEL sets."""
    path = _path_or_id("COURSE_MODEL", value)
    if isinstance(path, str):
        folder = cached_folder(path)
        return {"model": path, "revision": None, "size": checkpoint_size(folder) if folder else hub_size(path)}
    if not path.is_dir() or (missing := missing_files(path)):
        lacks = ", ".join(missing) if path.is_dir() else "to be a folder"
        raise ValueError(f"COURSE_MODEL={value} lacks {lacks}: give a checkpoint's folder as save_pretrained writes "
                         "it, weights in safetensors")
    return {"model": str(path), "revision": None, "size": checkpoint_size(path)}


def _path_or_id(variable: str, value: str) -> Path | str:
    """An absolute path to what exists here, else a hub id. `data/mine.jsonl` is no id, nor is what lies in a folder."""
    path = Path(os.path.abspath(Path(value).expanduser()))
    if path.exists():
        return path
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", value) and path.suffix.lower() not in SUFFIXES and not path.parent.exists():
        return value
    raise ValueError(f"{variable}={value} does not exist: give an existing path or a hub id (owner/name), or unset "
                     f"{variable}")


@cache
def _forecast(tier: Tier, gpu: bool) -> tuple[int, int]:
    """Bytes at the peak and of the adapters: of `tier.forecast`, or of an evaluation where that takes more."""
    ledger = tier.forecast(gpu)
    dtype = torch.bfloat16 if gpu else torch.float32
    batch = min(BUDGET, 4 * BATCH * tier.max_length * tier.size.vocab)  # its logits, at most
    answering = forecast_weights(tier.size.config(), bits=4, dtype=dtype).total + ledger["adapters"] + batch
    return max(ledger.total, answering), ledger["adapters"]
