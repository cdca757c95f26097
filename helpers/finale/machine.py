"""What this machine is: GPU, memory, disk, speed and the course's packages, gathered without a download."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from helpers.memory import GIB

PACKAGE = "from-bits-to-qlora"
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")  # bytes, or "max"; Linux only


@dataclass(frozen=True)
class Machine:
    """The facts that decide what can run here. Memory and disk in GiB, counting what this process holds as free.

    capability: CUDA compute capability (not the CUDA version), (0, 0) without a GPU. gpu_total decides the tier,
    gpu_free whether it fits now. gpus: how many are visible, where there is one. flops: sustained FLOP/s, see
    `cpu_flops` and `GPU_FLOPS`. packages: (requirement of the course, version found or None).
    """

    gpu: str | None = None
    capability: tuple[int, int] = (0, 0)
    gpu_total: float = 0.0
    gpu_free: float = 0.0
    ram: float = 0.0
    disk: float = 0.0
    flops: float = 5e10
    packages: tuple[tuple[str, str | None], ...] = ()
    gpus: int = 1


# Assumed, not measured: sustained FLOP/s from a compute capability on. The anchor is LLaMA-Factory's 2,415 tokens a
# second for a 7B model on an A100: 6 · 6.7e9 · 2,415 = 1e14. The others are scaled by the cards' peak and rounded down.
GPU_FLOPS = [((9, 0), 1.5e14), ((8, 9), 4e13), ((8, 1), 3e13), ((8, 0), 9e13), ((0, 0), 1.5e13)]


def cpu_flops(size: int = 768) -> float:
    """Half the FLOP/s of a float32 matrix product here, measured in about 0.05 s. The half is an assumption: a training
    step also dequantizes, normalizes and moves memory."""
    x = torch.ones(size, size)  # not random: the notebook's seed must not move
    times = []
    for _ in range(4):
        start = time.perf_counter()
        x @ x
        times.append(time.perf_counter() - start)
    return size**3 / min(times)  # 2 · size³ operations, halved


def free_ram() -> float:
    """GiB of memory that this process can have in all: free now plus held already, within a container's limit."""
    import psutil

    mine = psutil.Process().memory_info().rss
    free = psutil.virtual_memory().available + mine
    if CONTAINER_LIMIT.is_file() and (text := CONTAINER_LIMIT.read_text().strip()).isdigit():
        free = min(free, int(text))
    return free / GIB


def free_disk() -> float:
    """GiB free on the disk of the hub's cache (HF_HOME, HF_HUB_CACHE), also where its folder does not exist yet."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    return shutil.disk_usage(next(p for p in [folder, *folder.parents] if p.exists())).free / GIB


def course_packages() -> tuple[tuple[str, str | None], ...]:
    """Every requirement in the course's own metadata with the version found, None where it is missing.

    Extras are left out. Where the course itself is not installed, that is the only entry.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return ((PACKAGE, None),)
    found = []
    for wanted in map(Requirement, lines):
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            try:
                version = metadata.version(wanted.name)
            except metadata.PackageNotFoundError:
                version = None
            found.append((f"{wanted.name}{wanted.specifier}", version))
    return tuple(found)


def machine() -> Machine:
    """Gather this machine's facts (about 0.1 s once torch is imported). Downloads and prints nothing.

    Apple's MPS does not count as a GPU: bitsandbytes does not train 4-bit weights there.
    """
    facts = {"ram": free_ram(), "disk": free_disk(), "packages": course_packages()}
    if not torch.cuda.is_available():
        return Machine(flops=cpu_flops(), **facts)
    free, total = torch.cuda.mem_get_info()
    capability = torch.cuda.get_device_capability()
    return Machine(torch.cuda.get_device_name(), capability, total / GIB, (free + torch.cuda.memory_reserved()) / GIB,
                   gpus=torch.cuda.device_count(),
                   flops=next(speed for least, speed in GPU_FLOPS if capability >= least), **facts)
