"""Time and memory of a training step, beside PEFT's and bitsandbytes' on this machine. `make bench`; not a test."""

import copy
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import peft
import psutil
import torch
import transformers
from bench_quantization import machine, peak_bytes
from torch import nn
from twins import same_start, with_bitsandbytes, with_peft

from helpers.lora import add_lora
from helpers.memory import forecast_training
from helpers.pocket import load_pocket
from helpers.qlora import quantize_model

ROUNDS = 25
BATCHES = ((32, 96), (8, 64))  # rows, tokens: those of the lessons, and where overhead weighs more
# Large enough that the weights stand out in the memory of a process, small enough for any laptop.
LLAMA = transformers.LlamaConfig(hidden_size=1024, intermediate_size=2752, num_hidden_layers=4, num_attention_heads=16,
                                 vocab_size=16_000, use_cache=False)
TOKENS = 512


def training_step(model: nn.Module, batch: torch.Tensor) -> Callable[[], None]:
    """A function that does one step of AdamW on the batch."""
    optimizer = torch.optim.AdamW([p for p in model.train().parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()

    return step


def compare(ours: Callable, theirs: Callable) -> tuple[float, float, float]:
    """Median seconds of each, and the median ratio of two neighbours in time, called in turn, either one first."""
    times: dict[Callable, list[float]] = {ours: [], theirs: []}
    for turn in range(ROUNDS + 2):
        for function in (ours, theirs) if turn % 2 else (theirs, ours):
            begun = time.perf_counter()
            function()
            times[function].append(time.perf_counter() - begun)
    mine, other = times[ours][2:], times[theirs][2:]  # the first two were the warm-up
    ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    return statistics.median(mine), statistics.median(other), ratio


def speed() -> None:
    """A training step of the pocket Llama, LoRA and QLoRA, r = 8 on all linear layers."""
    pocket = load_pocket()[0]
    pairs = {"LoRA": (add_lora(copy.deepcopy(pocket)), with_peft(copy.deepcopy(pocket), 8, 16)),
             "QLoRA": (add_lora(quantize_model(copy.deepcopy(pocket))),
                       with_peft(with_bitsandbytes(copy.deepcopy(pocket)), 8, 16))}
    print(f"{'':8}{'batch':>9}{'helpers':>11}{'PEFT':>11}{'time':>8}{'wanted':>10}")
    for name, (ours, theirs) in pairs.items():
        same_start(theirs, ours)
        for rows, tokens in BATCHES:
            batch = torch.randint(4, 768, (rows, tokens))
            own, other, ratio = compare(training_step(ours, batch), training_step(theirs, batch))
            print(f"{name:8}{f'{rows} x {tokens}':>9}{own * 1000:8.0f} ms{other * 1000:8.0f} ms"
                  f"{ratio:7.2f}x{'<= 1.00x':>10}")


def llama(quantized: bool) -> nn.Module:
    """A Llama with random weights and LoRA, in float32 or with its linear layers in NF4 with double quantization."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(LLAMA)
    return add_lora(quantize_model(model) if quantized else model)


def forecast(bits: int) -> int:
    """What the ledger says of a step with this Llama, in bytes: 32 for LoRA, 4 for QLoRA."""
    return forecast_training(LLAMA, 8, sequence=TOKENS, bits=bits, checkpointing=False,
                             dtype=torch.float32, gpu=False).total


def peak(quantized: bool) -> int:
    """The most memory that this process holds during a step, in bytes."""
    step = training_step(llama(quantized), torch.randint(LLAMA.vocab_size, (1, TOKENS)))
    step()  # the optimizer makes its state, the libraries their workspaces
    peak_bytes(lambda: None)  # hands back what the building left
    return psutil.Process().memory_info().rss + peak_bytes(step)


def memory() -> None:
    """The peak of a step of LoRA and of QLoRA, each in a process of its own."""
    # glibc would keep freed blocks of many MiB for later; with a fixed threshold what is freed is given back.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**18)}
    peaks = [int(subprocess.run([sys.executable, __file__, kind], check=True, capture_output=True, text=True,
                                env=environment).stdout) for kind in ("LoRA", "QLoRA")]
    saved, expected = peaks[0] - peaks[1], forecast(32) - forecast(4)
    print(f"\nPeak memory of a step, random Llama of {LLAMA.num_hidden_layers} layers of {LLAMA.hidden_size}, float32: "
          f"LoRA {peaks[0] / 2**20:.0f} MiB, QLoRA {peaks[1] / 2**20:.0f} MiB\n"
          f"saved {saved / 2**20:.1f} MiB, forecast {expected / 2**20:.1f} MiB: "
          f"{saved / expected - 1:+.1%}, wanted within 5%")


def main() -> None:
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    if len(sys.argv) == 2:
        print(peak(quantized=sys.argv[1] == "QLoRA"))
        return
    print("A training step of the pocket Llama, float32, r = 8 on all linear layers; "
          f"medians of {ROUNDS} rounds\n{machine()}, peft {peft.__version__}\n")
    speed()
    memory()


if __name__ == "__main__":
    main()
