"""How many directions an update has: its singular values, its best low-rank part, and how alike two updates are."""

from __future__ import annotations

import torch


def singular_values(update: torch.Tensor) -> torch.Tensor:
    """The singular values of a matrix (d, k), largest first: (min(d, k),). Raises ValueError as `check_matrix` does."""
    check_matrix(update)
    return torch.linalg.svdvals(update.detach())


def energy_kept(update: torch.Tensor) -> torch.Tensor:
    """Share of ‖update‖² that its best part of rank 1, 2, 3, … keeps: (min(d, k),), rising to 1. Zeros for zeros."""
    energy = singular_values(update).square()
    return energy.cumsum(0) / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)


def planted(rank: int, noise: float = 0.0, size: int = 64, seed: int = 0) -> torch.Tensor:
    """A made-up update (size, size) with singular values rank, …, 2, 1 and then none, and on top of it noise.

    noise: its own largest singular value is about twice this. Raises ValueError for a rank outside 1 … size, or noise
    below 0.
    """
    if not 1 <= rank <= size or not noise >= 0:
        raise ValueError(f"rank={rank}, noise={noise}: take a rank of 1 to {size} and a noise of 0 or more")
    draw = torch.Generator().manual_seed(seed)
    U, V, N = (torch.randn(size, size, generator=draw) for _ in range(3))
    sigma = torch.arange(rank, 0, -1.0)
    signal = torch.linalg.qr(U).Q[:, :rank] * sigma @ torch.linalg.qr(V).Q[:rank]
    return signal + noise * N / size**0.5


def best_pair(update: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B (d, r) and A (r, k) whose product is the matrix of rank r nearest to `update` (d, k).

    Source: Eckart and Young 1936; what is left has the norm of the singular values left out. Raises ValueError for r
    outside 1 … min(d, k).
    """
    check_matrix(update)
    if not isinstance(r, int) or not 1 <= r <= min(update.shape):
        raise ValueError(f"r={r} does not fit an update of {tuple(update.shape)}: take 1 to {min(update.shape)}")
    U, sigma, Vh = torch.linalg.svd(update.detach(), full_matrices=False)  # Vh: V transposed, a direction per row
    return U[:, :r] * sigma[:r], Vh[:r]


def directions(matrix: torch.Tensor, r: int) -> torch.Tensor:
    """The r directions of the input that `matrix` (d, k) answers to most, as orthonormal rows (r, k)."""
    best_pair(matrix, r)
    return torch.linalg.svd(matrix.detach(), full_matrices=False).Vh[:r]


def similarity_map(X: torch.Tensor, Y: torch.Tensor) -> torch.Tensor:
    """φ for the first i rows of X (m, k) against the first j of Y (n, k), both orthonormal: entry [i-1, j-1] of (m, n).

    1 where the smaller subspace lies in the larger, 0 where they are orthogonal. Source: Hu et al. 2021 (arXiv
    2106.09685), equation 4.
    """
    i, j = torch.arange(1, len(X) + 1), torch.arange(1, len(Y) + 1)
    overlap = (X @ Y.T).square().cumsum(0).cumsum(1)  # ‖X[:i] Y[:j]ᵀ‖²
    return overlap / torch.minimum(i[:, None], j)


def chance_map(m: int, n: int, k: int) -> torch.Tensor:
    """What φ is on average for random subspaces of k dimensions: max(i, j) / k at [i-1, j-1] of (m, n)."""
    i, j = torch.arange(1, m + 1), torch.arange(1, n + 1)
    return torch.maximum(i[:, None], j) / k


def check_matrix(update: torch.Tensor) -> None:
    """Raise ValueError unless `update` is a matrix of finite floating-point numbers."""
    if update.dim() != 2 or not update.numel() or update.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"an update of shape {tuple(update.shape)} and dtype {update.dtype} has no singular values: "
                         "give a matrix (d, k), as update.float()")
    if not torch.isfinite(update).all():
        raise ValueError(f"the update of shape {tuple(update.shape)} holds NaN or infinity: train with a lower "
                         "learning rate")
