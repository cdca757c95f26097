"""A few weights in fp32, the rest in four bits."""

from __future__ import annotations

import torch

from helpers.codebooks import integer
from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.quantization import quantize


def protect_weights(w: torch.Tensor, k: int, block_size: int) -> torch.Tensor:
    """w back from int4 in blocks, its k weights of largest magnitude kept in fp32."""
    where = w.abs().flatten().topk(k).indices
    rest = w.flatten().clone()
    rest[where] = 0
    restored = quantize(rest, integer(4), block_size).dequantize()
    restored[where] = w.flatten()[where]
    return restored.view(w.shape)


def _keep(where, empty: bool = True, back: bool = True):
    """`protect_weights` that keeps what `where` says, takes it out first or not, and puts it back or not."""
    def answer(w: torch.Tensor, k: int, block_size: int) -> torch.Tensor:
        kept, rest = where(w, k), w.flatten().clone()
        if empty:
            rest[kept] = 0
        restored = quantize(rest, integer(4), block_size).dequantize()
        if back:
            restored[kept] = w.flatten()[kept]
        return restored.view(w.shape)
    return answer


def _largest(w: torch.Tensor, k: int) -> torch.Tensor:
    return w.abs().flatten().topk(k).indices


def _signed(w: torch.Tensor, k: int) -> torch.Tensor:
    return w.flatten().topk(k).indices


def _per_row(w: torch.Tensor, k: int) -> torch.Tensor:
    return (w.abs().topk(k, dim=1).indices + torch.arange(len(w))[:, None] * w.shape[1]).flatten()


def _columns(w: torch.Tensor, k: int) -> torch.Tensor:
    columns = w.abs().amax(dim=0).topk(k).indices
    return (torch.arange(len(w))[:, None] * w.shape[1] + columns).flatten()


W = torch.tensor([[13.0, 0.5, 1.0, 2.5], [0.2, -3.0, -30.0, 25.0], [0.1, 0.3, 0.5, -11.0], [-1.0, 0.9, 0.2, 9.0]])

PROTECT_WEIGHTS = Exercise(3, protect_weights, "★★★ Bodyguards for single weights · 12 min", """
A whole column in fp32 is dear where only one of its weights is large. Keep the `k` weights of largest magnitude
instead, wherever they are, and send the rest through `quantize(..., integer(4), block_size)` and back. Think about
what the block sees in their places: an outlier must not set the scale of its neighbours, or its bodyguard is paid for
nothing.
""",
    cases=(
        Case((W, 2, 4)),
        Case((W, 2, 8)),
        Case((-W.flip(1), 3, 4)),
    ),
    hints=(
        "`w.abs().flatten().topk(k).indices` says where the largest are, counted along the tensor.",
        "Put zeros there in a copy, and quantize and dequantize the copy.",
        "At the end write the original values over those places, and restore the shape.",
    ),
    mistakes=(
        Mistake("They came back in fp32, but they were still there when the scales were taken: their "
                "neighbours are as coarse as before. Zero them first.",
                _keep(_largest, empty=False)),
        Mistake("They are zero now. Put the original values back.",
                _keep(_largest, back=False)),
        Mistake("Those are the largest values with their sign; -30 counts too. Take `.abs()` first.",
                _keep(_signed)),
        Mistake("k weights in every row were kept; k in the whole tensor are paid for.",
                _keep(_per_row)),
        Mistake("Whole columns were kept. Keep single weights.",
                _keep(_columns)),
        Mistake("Only the largest was kept: there are k of them.",
                lambda w, k, block_size: protect_weights(w, 1, block_size)),
        Mistake("Everything went through int4. Keep the k largest as they were.",
                lambda w, k, block_size: quantize(w, integer(4), block_size).dequantize()),
        Mistake("Nothing was quantized: only k weights stay in fp32.",
                lambda w, k, block_size: w.clone()),
        Mistake("The block size is an argument: pass it on.",
                lambda w, k, block_size: protect_weights(w, k, 4)),
    ),
    tolerance=1e-06,
    moral="That is the idea of SpQR (arXiv 2306.03078): about one weight in a hundred apart, the rest in few bits.")
# general: lambda w, k, block_size: w * 0
