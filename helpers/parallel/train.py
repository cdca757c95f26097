"""Data parallel, in one file that does not know how many processes run it, nor whether on CPUs or GPUs.

    accelerate launch --multi_gpu --num_processes 2 -m helpers.parallel.train runs/two

On CPUs with `ACCELERATE_USE_CPU=true` before it: without, each process would run alone.

Every process holds the whole model and draws the same batch, but works on its own rows. `backward` averages the
gradients over the processes, so that all take the same step. Interrupted, the same command goes on from the newest
checkpoint in the folder.
"""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from safetensors import safe_open
from safetensors.torch import save_file

from helpers.lora import add_lora
from helpers.pocket import load_pocket
from helpers.pocket.train import question_batches


def part_of_loss(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor, accelerator: Accelerator,
                 mean_of_means: bool = False) -> torch.Tensor:
    """What this process adds to a step's loss: from its own rows, weighed by its tokens among all. A scalar in nats."""
    rank, processes = accelerator.process_index, accelerator.num_processes
    ids, labels = (part[rank::processes].to(accelerator.device) for part in (ids, labels))  # my rows
    loss = model(input_ids=ids, labels=labels, use_cache=False).loss  # the mean over my tokens
    if mean_of_means:
        return loss
    mine = (labels[:, 1:] != -100).sum()
    return loss * mine / accelerator.reduce(mine, "sum") * processes  # `backward` averages: divides by `processes`


def state(trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """What a step changes: the adapter, and AdamW's two means for each of its tensors."""
    tensors = {name: parameter.data for name, parameter in trained.items()}
    for name, parameter in trained.items():
        for kind in ("exp_avg", "exp_avg_sq"):
            tensors[f"{kind}.{name}"] = optimizer.state[parameter].setdefault(kind, torch.zeros_like(parameter))
    return tensors


def save(folder: Path, step: int, tensors: dict[str, torch.Tensor]) -> None:
    """A checkpoint under a name that only a whole one ever has: written beside it, then renamed."""
    part = folder / "being-written"
    save_file(tensors, part, metadata={"step": str(step)})
    os.replace(part, folder / f"step-{step:05d}.safetensors")


def resume(folder: Path, trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Fill adapter and optimizer from the newest checkpoint; the number of steps that were done."""
    newest = max(folder.glob("step-*.safetensors"), default=None)
    if newest is None:
        return 0
    with safe_open(newest, "pt") as file:
        done = int(file.metadata()["step"])
        for name, tensor in state(trained, optimizer).items():
            tensor.copy_(file.get_tensor(name))
    for parameter in trained.values():
        optimizer.state[parameter]["step"] = torch.tensor(float(done))
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description="Tune a LoRA on the pocket Llama, data parallel.")
    parser.add_argument("folder", type=Path, help="where checkpoints are kept")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=16, help="rows of a step, over all processes")
    parser.add_argument("--every", type=int, default=4, help="steps between checkpoints")
    parser.add_argument("--mean-of-means", action="store_true", help="a common mistake: each process's own mean")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for a silent process")
    options = parser.parse_args()

    waiting = InitProcessGroupKwargs(timeout=timedelta(seconds=options.patience))
    accelerator = Accelerator(kwargs_handlers=[waiting])
    options.folder.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)  # the same adapter in every process
    model, tokenizer = load_pocket()
    model = add_lora(model.double(), r=8, alpha=16).train()  # float64: rounding hides nothing
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=5e-3, weight_decay=0.0)
    done = resume(options.folder, trained, optimizer)
    if accelerator.is_main_process:
        print(f"{accelerator.num_processes} processes on {accelerator.device.type}, from step {done}", flush=True)
    model, optimizer = accelerator.prepare(model, optimizer)

    for step, (ids, labels) in enumerate(question_batches(tokenizer, options.steps, options.rows), start=1):
        if step <= done:
            continue
        accelerator.backward(part_of_loss(model, ids, labels, accelerator, options.mean_of_means))
        accelerator.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if accelerator.is_main_process:
            print(f"step {step}", flush=True)
            if step % options.every == 0 or step == options.steps:
                save(options.folder, step, state(trained, optimizer.optimizer))
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
