"""What falls on each GPU when a step is shared: arithmetic on a traced step, and Llama-2-70B's step as a record.

`python -m helpers.parallel.share` traces the whole 70B again, some minutes of one core, and writes the record.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping

from transformers import LlamaConfig

from helpers.memory import LLAMAS, Ledger, census, forecast_training, lora_weights, trace

RECORD = pathlib.Path(__file__).parent / "llama_2_70b.json"
MODEL = "Llama-2-70B"
STEP = {"r": 8, "batch": 2, "sequence": 2048, "dropout": True}  # as in PEFT's guide to FSDP with QLoRA
SHARDED = ("weights", "adapters", "gradients", "optimizer")  # parameters, and what belongs to each of them


def per_gpu(step: Mapping[str, int], config: LlamaConfig, gpus: int, r: int, offload: bool = False) -> Ledger:
    """Bytes on each of so many GPUs under FSDP of a 4-bit model, from the ledger of the same step on one.

    step: of `trace` or `forecast_training`, of one GPU's own rows. Parameters are cut, with their gradients and the
    optimizer's states: a GPU holds 1/gpus of them, or nothing with `offload` ("in RAM": that share, in the machine's
    memory). The scales of 4-bit weights are no parameters: every GPU keeps all. So are activations and workspace of
    its own rows. "fetched": what is made whole at times, the layer at work, the next one, embedding and head.
    A floor, not a promise: buffers for sending, the allocator's gaps and CUDA's own memory come on top.
    Raises ValueError for gpus below 1, and for offload without a second GPU.
    """
    if gpus < 1 or offload and gpus < 2:
        raise ValueError(f"gpus={gpus}, offload={offload}: take 1 or more, and offload with FSDP, from 2 on")
    parts = dict(step)
    share = {name: -(-parts[name] // gpus) for name in SHARDED}
    _, _, linears = census(config)
    in_layers = sum(out * inner for out, inner in linears.values()) // 2  # bytes of codes, two to a byte
    layer = (in_layers + 4 * lora_weights(config, r, "all-linear")) // config.num_hidden_layers
    fetched = 2 * layer + max(parts["weights"] - in_layers, 0) if gpus > 1 else 0
    kept = {name: 0 if offload and name in SHARDED else share.get(name, parts[name]) for name in parts}
    return Ledger(kept | {"fetched": fetched})


def in_ram(step: Mapping[str, int], gpus: int) -> int:
    """Bytes that offloading keeps in the machine's memory, over all processes."""
    return sum(-(-step[name] // gpus) * gpus for name in SHARDED)


def few_layers(config: LlamaConfig, layers: int) -> LlamaConfig:
    """The same model with so many layers."""
    return LlamaConfig.from_dict(config.to_dict() | {"num_hidden_layers": layers})


def extended(few: Mapping[str, int], more: Mapping[str, int], layers: int) -> dict[str, int]:
    """The ledger of a model of so many layers, from those of 2 layers and of 3: every further one takes the same."""
    return {name: few[name] + (layers - 2) * (more[name] - few[name]) for name in few}


def read() -> dict:
    """The record: its "step", "entries", "phases" and the ledger's "forecast" in bytes, "seconds" of one core."""
    return json.loads(RECORD.read_text())


def main() -> None:
    """Trace the step and write the record."""
    begun = time.process_time()
    traced = trace(LLAMAS[MODEL], **STEP)
    seconds = time.process_time() - begun
    record = {"model": MODEL, "step": STEP, "entries": dict(traced), "phases": traced.phases,
              "forecast": dict(forecast_training(LLAMAS[MODEL], **STEP)), "seconds": round(seconds)}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
