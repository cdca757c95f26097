"""Which weights matter: quantization that looks at what flows through a layer, and low-rank repair of what it breaks.

A layer is y = W·x with W (d, k); its inputs x, from some calibration text, give H = mean of x·xᵀ (k, k). An error E of
the weight costs the output mean |E·x|² = tr(E·H·Eᵀ), which `output_error` computes: not all weights cost alike.

Here quantizing means rounding: a `Rounding` takes weights (…, k) and gives them back as their format would. Sources:
Lin et al. 2023 (AWQ, arXiv 2306.00978), Frantar et al. 2022 (GPTQ, arXiv 2210.17323), Li et al. 2023 (LoftQ, arXiv
2310.08659), Meng et al. 2024 (PiSSA, arXiv 2404.02948).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from helpers.low_rank import best_pair

Rounding = Callable[[torch.Tensor], torch.Tensor]  # weights -> the same as they come back from a format
ALPHAS = tuple(n / 10 for n in range(10))  # AWQ's search; 0 is no scaling
DAMPING = 0.01  # of GPTQ, times the mean of H's diagonal


@dataclass(frozen=True)
class Inputs:
    """What flowed into a layer. `moment`: H (k, k), the mean of x·xᵀ; `magnitude`: (k,), the mean of |x| by channel."""

    moment: torch.Tensor
    magnitude: torch.Tensor


@torch.no_grad()
def collect_inputs(model: nn.Module, layers: Mapping[str, nn.Linear], batches: Iterable[torch.Tensor],
                   ) -> dict[str, Inputs]:
    """Run token ids (rows, length), batch by batch, through the model and keep the moments of each layer's inputs.

    Raises ValueError for no batch, and for a layer that none of them reached.
    """
    sums: dict[str, list[torch.Tensor]] = {}
    counts = dict.fromkeys(layers, 0)
    with _listening(layers, sums, counts):
        for ids in batches:
            model(input_ids=ids, use_cache=False)
    if missing := [name for name, count in counts.items() if not count]:
        raise ValueError(f"no input reached {missing[0]}, one of {len(missing)} layers: give batches of token ids")
    return {name: Inputs(moment / counts[name], magnitude / counts[name])
            for name, (moment, magnitude) in sums.items()}


@contextmanager
def _listening(layers: Mapping[str, nn.Linear], sums: dict[str, list[torch.Tensor]], counts: dict[str, int],
               ) -> Iterator[None]:
    """Within, each layer's inputs are added to `sums` and counted."""
    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def heard(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            x = arguments[0].flatten(0, -2).float()
            found = [x.T @ x, x.abs().sum(0)]
            sums[name] = [a + b for a, b in zip(sums[name], found, strict=True)] if name in sums else found
            counts[name] += len(x)
        return heard
    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def output_error(error: torch.Tensor, moment: torch.Tensor) -> float:
    """tr(E·H·Eᵀ): the mean square, summed over outputs, by which an error E (d, k) of the weight moves the output."""
    return ((error @ moment) * error).sum().item()


def salient(magnitude: torch.Tensor, share: float = 0.01) -> torch.Tensor:
    """The `share` of the input channels (at least one) with the largest mean |x|: bool (k,). AWQ, section 3.1."""
    mask = torch.zeros_like(magnitude, dtype=torch.bool)
    mask[magnitude.topk(max(1, round(share * len(magnitude)))).indices] = True
    return mask


def keep_channels(weight: torch.Tensor, channels: torch.Tensor, rounding: Rounding) -> torch.Tensor:
    """The weight (d, k) rounded, but for the columns of `channels`, bool (k,), which stay as they are."""
    return torch.where(channels, weight, rounding(weight))


def awq(weight: torch.Tensor, inputs: Inputs, rounding: Rounding, alpha: float) -> torch.Tensor:
    """AWQ's scaling: round W·diag(s), divide by s again, with s = magnitude**alpha: (d, k).

    Channels through which much flows are made larger before rounding, so their error gets smaller. In a model 1 / s
    goes into the layer before, where it costs no bit. s is normed to √(greatest · least) = 1, as in AWQ's code.
    """
    s = inputs.magnitude.clamp(min=1e-4) ** alpha
    s = s / (s.max() * s.min()).sqrt()
    return rounding(weight * s) / s


def best_awq(weight: torch.Tensor, inputs: Inputs, rounding: Rounding) -> tuple[torch.Tensor, float]:
    """AWQ with the alpha of `ALPHAS` that has the least output error, and that alpha. AWQ, equation 5."""
    tried = [(awq(weight, inputs, rounding, alpha), alpha) for alpha in ALPHAS]
    return min(tried, key=lambda found: output_error(found[0] - weight, inputs.moment))


def compensate(weight: torch.Tensor, moment: torch.Tensor, j: int, fixed: torch.Tensor) -> torch.Tensor:
    """The weight (d, k) with column j at `fixed` (d,), and the columns behind it as good as they can then be: (d, k).

    Those before j stay: they are done. No other choice for the rest has a smaller output error, if the rest was at its
    best before. moment: H (k, k), invertible. Source: arXiv 2210.17323, equation 2, of Hassibi and Stork 1993.
    """
    inverse = torch.linalg.inv(moment[j:, j:])
    moved = weight.clone()
    moved[:, j:] -= (weight[:, j] - fixed)[:, None] * inverse[0] / inverse[0, 0]
    moved[:, j] = fixed
    return moved


@torch.no_grad()
def gptq(weight: torch.Tensor, moment: torch.Tensor, codebook: torch.Tensor, block_size: int = 64,
         damping: float = DAMPING) -> torch.Tensor:
    """GPTQ: columns are rounded from left to right, and those still to come make good what each one broke: (d, k).

    weight (d, k); moment: H (k, k); codebook: levels in [-1, 1]. A block is `block_size` columns of a row; its absmax
    is taken when its turn comes. With U the upper Cholesky factor of H⁻¹ (`damping` times the mean of H's diagonal is
    added to it), column j is off by e, and every column i > j gets -e·U[j, i] / U[j, j]: what `compensate` does, out of
    one inverse for all columns. Source: arXiv 2210.17323, equation 2 and algorithm 1.
    """
    W, moment = weight.detach().double().clone(), moment.double()
    H = moment + damping * moment.diagonal().mean() * torch.eye(len(moment))
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    levels = codebook.double()
    for start in range(0, W.shape[1], block_size):
        absmax = W[:, start:start + block_size].abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny)
        for j in range(start, min(start + block_size, W.shape[1])):
            nearest = levels[(W[:, j, None] / absmax[:, None] - levels).abs().argmin(1)] * absmax
            error = (W[:, j] - nearest) / U[j, j]
            W[:, j] = nearest
            W[:, j + 1:] -= error[:, None] * U[j, j + 1:]
    return W.to(weight.dtype)


def loftq(weight: torch.Tensor, rounding: Rounding, r: int, steps: int = 1,
          ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """LoftQ: a rounded weight Q (d, k), and B (d, r), A (r, k) that start at what rounding lost: Q + B·A is near W.

    Each step rounds what B·A leaves of W, then takes the best pair of rank r for what rounding leaves. steps=1: one
    rounding, one SVD. Source: arXiv 2310.08659, algorithm 1. Raises ValueError for an r that does not fit.
    """
    B, A = weight.new_zeros(weight.shape[0], r), weight.new_zeros(r, weight.shape[1])
    for _ in range(steps):
        Q = rounding(weight - B @ A)
        B, A = best_pair(weight - Q, r)
    return Q, B, A


def pissa(weight: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """PiSSA: the frozen rest W - B·A (d, k), and B (d, r), A (r, k): W's own best part of rank r, to be trained.

    σ is shared between B and A by its root. Source: arXiv 2404.02948, equations 2 to 4; with α = r, as there.
    Raises ValueError for an r that does not fit.
    """
    B, A = best_pair(weight, r)
    root = B.norm(dim=0).sqrt()  # of the singular values: U's columns have length 1
    B, A = B / root, A * root[:, None]
    return weight - B @ A, B, A


def weighted_pair(error: torch.Tensor, moment: torch.Tensor, r: int, damping: float = DAMPING,
                  ) -> tuple[torch.Tensor, torch.Tensor]:
    """B (d, r) and A (r, k) whose product is nearest to `error` (d, k) as the *output* sees it.

    With H = S·Sᵀ the output error of E is |E·S|², so the best pair of E·S is taken, and S undone in A. Source: Zhang et
    al. 2024 (QERA, arXiv 2410.06040), theorem 1. Raises ValueError for an r that does not fit.
    """
    H = moment.double() + damping * moment.double().diagonal().mean() * torch.eye(len(moment))
    S = torch.linalg.cholesky(H)
    B, A = best_pair(error.double() @ S, r)
    return B.to(error.dtype), torch.linalg.solve_triangular(S, A, upper=False, left=False).to(error.dtype)
