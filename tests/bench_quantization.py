"""Time and memory of NF4 on this machine, beside bitsandbytes on the same cores. `make bench`; not a test.

Where other programs use the cores too, set OMP_NUM_THREADS=1: torch's threads wait for each other after each of some
hundred steps, those of bitsandbytes once, so that a busy core slows us more than them.
"""

import ctypes
import logging
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it found no compiled kernel for this CPU: as everywhere

import bitsandbytes  # noqa: E402
import bitsandbytes.functional as bnb  # noqa: E402

from helpers.quantization import quantize  # noqa: E402

SHAPE = (4096, 4096)
ROUNDS = 9


def machine() -> str:
    """This machine and what else it is doing, in a line or two."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    return (f"{cpu}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
            f"load before the bench {os.getloadavg()[0]:.1f} (idle is near 0)\n"
            f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, "
            f"bitsandbytes {bitsandbytes.__version__}")


def medians(ours: Callable, theirs: Callable) -> tuple[float, float]:
    """Median seconds of each, called in turn so that whatever slows the machine slows both."""
    times: dict[Callable, list[float]] = {ours: [], theirs: []}
    for _ in range(ROUNDS + 1):
        for function, seconds in times.items():
            begun = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - begun)
    return statistics.median(times[ours][1:]), statistics.median(times[theirs][1:])  # the first was the warm-up


def peak_bytes(function: Callable) -> int:
    """How far this process's memory rises above where it was while `function` runs, its result included."""
    process = psutil.Process()
    if sys.platform == "linux":
        getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # memory kept for reuse would hide what the function takes
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.0005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = function()
        peak = max(peak, process.memory_info().rss)
        del result
    finally:
        done.set()
        watcher.join()
    return peak - before


def main() -> None:
    about = machine()
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    mine, (codes, state) = quantize(x), bnb.quantize_4bit(x, blocksize=64, quant_type="nf4")
    pairs = {
        "quantize": (lambda: quantize(x), lambda: bnb.quantize_4bit(x, blocksize=64, quant_type="nf4"), 5.0),
        "dequantize": (mine.dequantize, lambda: bnb.dequantize_4bit(codes, state), 0.5),
    }
    print(f"NF4, blocks of 64, float32 {SHAPE[0]} x {SHAPE[1]}; medians of {ROUNDS} rounds\n{about}\n")
    print(f"{'':12}{'helpers':>10}{'bitsandbytes':>14}{'speed':>8}{'wanted':>9}{'peak memory':>14}{'wanted':>9}")
    for name, (ours, theirs, wanted) in pairs.items():
        peak = peak_bytes(ours) / x.nbytes
        own, other = medians(ours, theirs)
        print(f"{name:12}{own * 1000:7.0f} ms{other * 1000:11.0f} ms{other / own:7.2f}x{wanted:>8}x"
              f"{peak:8.2f} x in{'':2}{'<= 3 x':>9}")


if __name__ == "__main__":
    main()
