"""Random inputs for exercises: tensors drawn by a `random.Random`, the same on every machine."""

from __future__ import annotations

import random

import torch


def normal(rng: random.Random, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Gaussian numbers of mean 0 and standard deviation 1."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    return torch.tensor([rng.gauss(0, 1) for _ in range(count)], dtype=torch.float64).view(shape).to(dtype)


def integers(rng: random.Random, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Whole numbers from `low` to `high`, both included."""
    count = int(torch.tensor(shape).prod()) if shape else 1
    return torch.tensor([rng.randint(low, high) for _ in range(count)], dtype=torch.int64).view(shape).to(dtype)
