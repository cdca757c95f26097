"""The three sizes that the finale runs in: `pocket` (any laptop), `small` (a 4 GiB GPU), `llama-2-7b` (a 16 GB GPU).

One code path: a lesson asks `choose_tier()` once and reads every setting from the `Tier`. `preflight(tier)` says,
before anything is downloaded, whether it fits here. Figures that nobody measured are arithmetic, and say so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from helpers.hub import DATASET_FILES, MODEL_FILES, HubError, Source, find_token, hub_errors, look_up, missing_files
from helpers.preflight import GIB, Check, Machine, Preflight, PreflightError, machine, preflight

__all__ = ["DATASET_FILES", "MODEL_FILES", "TIERS", "Check", "HubError", "Machine", "Needs", "Preflight",
           "PreflightError", "Size", "Source", "Tier", "checkpoint_size", "choose_tier", "find_token", "hub_errors",
           "load_arguments", "look_up", "machine", "preflight"]

POCKET_WEIGHTS = Path(__file__).parent / "pocket" / "weights"


@dataclass(frozen=True)
class Size:
    """What memory and time follow from: counts of weights, all read from a checkpoint by `checkpoint_size`.

    linear: weights of the linears that are stored in 4 bit (all but the head). lora_per_rank: Σ (in + out) of them.
    largest: weights in the largest linear. bytes: the safetensors files.
    """

    parameters: int
    linear: int
    lora_per_rank: int
    largest: int
    layers: int
    hidden: int
    vocab: int
    bytes: int


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

    def needs(self, folder: str | Path | None = None, gpu: bool = True) -> Needs:
        """Memory, disk and work of this tier's run; from the checkpoint in `folder` if given, else from the table.

        Arithmetic, not measurement. On the GPU: 4-bit linears at 4.127 bit (NF4, double quantization), the rest in 16
        bit; adapters at 16 bytes a weight (fp32 weight, gradient, two Adam moments); per token the inputs of every
        checkpointed layer, about 40 hidden vectors of the layer at work (16 bit), and the logits three times in fp32;
        one linear dequantized; a fifth on top for the allocator, and 0.6 GiB for CUDA itself. Llama-2-7B comes to 8.4
        GiB; public records of other settings have 7.2 (Unsloth's Hugging Face baseline, T4) and 9.3 (torchtune).
        RAM: 3 GiB for Python and the CUDA libraries plus a quarter of the files (assumed: their mapped pages can be
        dropped); on a CPU 1 GiB plus the same sum in fp32. Disk: two saved checkpoints of adapter and optimizer.
        Work: 6 operations per weight and token: forward 2, backward to the inputs 2, forward again for checkpointing 2.
        """
        size = self.size if folder is None else checkpoint_size(folder)
        width = 2 if gpu else 4  # bytes of a number that is not in 4 bit
        lora = self.r * size.lora_per_rank
        weights = size.linear * 4.127 / 8 + (size.parameters - size.linear + size.largest) * width
        token = (size.layers + 40) * size.hidden * width + 3 * size.vocab * 4
        training = 1.2 * (weights + 16 * lora + self.batch * self.max_length * token) / GIB
        return Needs(gpu=training + 0.6, ram=3 + size.bytes / 4 / GIB if gpu else 1 + training + size.bytes / GIB,
                     checkpoints=2 * 12 * lora / GIB, download=size.bytes, flops=6.0 * size.parameters * self.tokens)

    def model_source(self) -> Source:
        """Where the model is: asks the hub only if it is neither local nor in the cache."""
        path = Path(self.model)
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


# bytes of the two hub models: 2 per parameter. The pocket tier's line is what checkpoint_size says of its files.
LLAMA_2_7B = Size(parameters=6_738_415_616, linear=6_476_005_376, lora_per_rank=2_498_560, largest=45_088_768,
                  layers=32, hidden=4096, vocab=32_000, bytes=13_476_831_232)
TINYLLAMA = Size(parameters=1_100_048_384, linear=968_884_224, lora_per_rank=788_480, largest=11_534_336, layers=22,
                 hidden=2048, vocab=32_000, bytes=2_200_096_768)
POCKET = Size(parameters=951_424, linear=753_664, lora_per_rank=9_472, largest=40_960, layers=4, hidden=128, vocab=768,
              bytes=3_809_824)

# llama-2-7b: the QLoRA authors' recipe for 7B (r 64, α 16, all linears, dropout 0.1, 2e-4, batch 1 × 16, clip 0.3,
# length 512), but one epoch of the 1,000 rows in place of 1,875 steps. Their "constant" schedule ignores the warm-up of
# 0.03 that they name; constant_with_warmup does what they say. small: the same with the rank scaled to the model.
TIERS: Mapping[str, Tier] = {tier.name: tier for tier in (
    Tier("pocket", str(POCKET_WEIGHTS), None, None, POCKET, batch=32, accumulation=1, max_length=128, r=8, alpha=16,
         dropout=0.0, learning_rate=5e-3, scheduler="cosine", max_steps=200, row_tokens=48, optimizer="adamw_torch",
         max_grad_norm=1.0, checkpointing=False, save_steps=50),
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
    Apple's GPUs too: bitsandbytes does not train 4-bit weights on MPS. COURSE_MODEL and COURSE_DATASET put a local
    checkpoint and a local data set (file or folder) in place of the tier's own.

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


def checkpoint_size(folder: str | Path) -> Size:
    """Read the `Size` of a Llama-like checkpoint: its config and the headers of its safetensors files (no weights)."""
    from safetensors import safe_open

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = sorted(folder.glob("*.safetensors"))
    shapes: dict[str, list[int]] = {}
    for file in files:
        with safe_open(file, "np") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    count = {name: math.prod(shape) for name, shape in shapes.items()}
    linear = [name for name, shape in shapes.items() if len(shape) == 2 and "embed" not in name and "head" not in name]
    return Size(parameters=sum(count.values()), linear=sum(count[n] for n in linear),
                lora_per_rank=sum(sum(shapes[n]) for n in linear), largest=max((count[n] for n in linear), default=0),
                layers=config["num_hidden_layers"], hidden=config["hidden_size"], vocab=config["vocab_size"],
                bytes=sum(file.stat().st_size for file in files))



def load_arguments(path: str | Path) -> dict[str, str]:
    """The arguments with which `datasets.load_dataset` reads a local folder, or one local file, of rows."""
    path = Path(path)
    return {"path": str(path)} if path.is_dir() else {"path": str(path.parent), "data_files": path.name}
