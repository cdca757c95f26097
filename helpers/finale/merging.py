"""Merging an adapter into a model that is larger than memory: from file to file, a shard at a time.

PEFT's `merge_and_unload` needs the whole base in memory, 13.5 GB for Llama-2-7B in 16 bits. A free Colab machine has
12.7. Here each weight is read from the base's files, gets its (α/r)·BA, is rounded once, and goes out again.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig

from helpers.memory import linear_shapes, skeleton

SHARD = 500_000_000  # bytes of a written file, unless one weight alone is larger
PREFIX = "base_model.model."  # what PEFT puts in front of a module's name


class _Tensors(Mapping[str, torch.Tensor]):
    """The tensors of all safetensors files in a folder, by name; each is read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.files = [safe_open(file, "pt") for file in sorted(folder.glob("*.safetensors"))]
        self.place = {name: file for file in self.files for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.place[name].get_tensor(name)

    def __iter__(self):
        return iter(self.place)

    def __len__(self) -> int:
        return len(self.place)

    def shape(self, name: str) -> list[int]:
        """The shape of a tensor, from the file's header alone."""
        return self.place[name].get_slice(name).get_shape()


def merge_shards(base: str | Path, adapter: str | Path, out: str | Path, dtype: torch.dtype = torch.float16,
                 through_nf4: bool = False) -> Path:
    """Write to `out` the model in the folder `base` with the LoRA adapter in the folder `adapter` merged in.

    Every weight is W + (α/r)·BA in float32, rounded once to `dtype`: bit for bit what `merge_and_unload` gives for the
    base in float32, rounded. through_nf4: W is what NF4 with double quantization makes of it, as the adapter met it in
    QLoRA; otherwise W as published. Config and tokenizer are copied. In memory: two of the files being written (of
    `SHARD` bytes) and one weight in float32, see `merging_bytes`. `out` appears when it is whole.
    Raises ValueError for an `out` that exists, and for an adapter that is more than plain LoRA on linear layers of this
    base (DoRA, biases, whole modules beside it, ranks by pattern).
    """
    base, adapter, out = Path(base), Path(adapter), Path(out)
    if out.exists():
        raise ValueError(f"{out.name} exists already: remove it, or give another folder")
    weights, pairs = _Tensors(base), _Tensors(adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    scale = _scaling(settings)
    targets = {name.removeprefix(PREFIX).removesuffix("lora_A.weight") + "weight"
               for name in pairs if name.endswith(".lora_A.weight")}
    config = AutoConfig.from_pretrained(base)
    linears = {f"{name}.weight" for name in linear_shapes(skeleton(config))}
    unknown = sorted(targets - (linears & set(weights)))
    if unknown or len(pairs) != 2 * len(targets) or not targets:
        none = f"; {unknown[0]} is none" if unknown else ""
        raise ValueError(f"the adapter in {adapter.name} does not fit {base.name}: it must hold one lora_A and one "
                         f"lora_B for linear layers of it, and nothing else{none}")

    def merged(name: str) -> torch.Tensor:
        weight = weights[name]
        if through_nf4 and name in linears:
            weight = _nf4(weight.float())
        if name in targets:
            stem = PREFIX + name.removesuffix("weight")
            B, A = pairs[stem + "lora_B.weight"].float(), pairs[stem + "lora_A.weight"].float()
            weight = (B @ A).mul_(scale).add_(weight)  # (out, in), float32
        return weight.to(dtype).contiguous()

    part = out.with_name(out.name + ".part")  # left from an interrupted merge, perhaps
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    plan = split_state_dict_into_shards_factory(
        {name: math.prod(weights.shape(name)) * dtype.itemsize for name in weights}, max_shard_size=SHARD,
        get_storage_size=int, filename_pattern="model{suffix}.safetensors")
    for file, names in plan.filename_to_tensors.items():
        save_file({name: merged(name) for name in names}, part / file, metadata={"format": "pt"})
    _write_the_rest(base, part, dtype)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (part / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return part.rename(out)


def published_weight(folder: str | Path, name: str) -> torch.Tensor:
    """One weight of a checkpoint, in the dtype of its file; the others are not read. KeyError if there is none."""
    return _Tensors(Path(folder))[name]


def merging_bytes(parameters: int, largest: int) -> tuple[int, int]:
    """Memory and disk that `merge_shards` into 16 bit takes, in bytes. largest: numbers in the largest linear weight.

    Arithmetic. Memory: a file's tensors and their copy while it is written, and W, ΔW and their sum in float32.
    """
    return 2 * min(SHARD, 2 * parameters) + 3 * 4 * largest, 2 * parameters


def _scaling(settings: dict) -> float:
    """α/r (rank-stabilized: α/√r) from an adapter's config. Raises ValueError for what is not plain LoRA."""
    plain = {"peft_type": "LORA", "use_dora": False, "fan_in_fan_out": False, "bias": "none", "lora_bias": False}
    odd = [key for key, value in plain.items() if settings.get(key, value) != value]
    more = ("modules_to_save", "rank_pattern", "alpha_pattern", "target_parameters", "layer_replication")
    odd += [key for key in more if settings.get(key)]
    if odd:
        raise ValueError(f"the adapter has {', '.join(odd)}: merge it by PEFT's merge_and_unload, in memory")
    r, alpha = settings["r"], settings["lora_alpha"]
    return alpha / (math.sqrt(r) if settings.get("use_rslora") else r)


def _nf4(weight: torch.Tensor) -> torch.Tensor:
    """What bitsandbytes' NF4 with double quantization makes of a weight, in float32."""
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    return functional.dequantize_4bit(codes, state)


def _write_the_rest(base: Path, out: Path, dtype: torch.dtype) -> None:
    """Config, tokenizer and the like: all but weights and their index. The config names the new dtype."""
    for file in base.iterdir():
        if file.is_file() and (file.suffix in (".json", ".model", ".jinja")) and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
