"""Random inputs for exercises: tensors drawn by a `random.Random`, the same on every machine."""

from __future__ import annotations

import random
from math import prod

import torch


def normal(rng: random.Random, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Gaussian numbers of mean 0 and standard deviation 1."""
    return torch.tensor([rng.gauss() for _ in range(prod(shape))], dtype=torch.float64).view(shape).to(dtype)


def integers(rng: random.Random, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Whole numbers from `low` to `high`, both included."""
    return torch.tensor([rng.randint(low, high) for _ in range(prod(shape))]).view(shape).to(dtype)
