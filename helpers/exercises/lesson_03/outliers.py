"""A few weights in fp32, the rest in four bits."""

from __future__ import annotations

import torch

from helpers.codebooks import integer
from helpers.exercises.engine import Case, Exercise
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

PROTECT_WEIGHTS = Exercise(
    lesson=3,
    title="Bodyguards for single weights",
    stars=3,
    minutes=12,
    imports="import torch\nfrom helpers.codebooks import integer\nfrom helpers.quantization import quantize",
    prompt="""
A whole column in fp32 is dear where only one of its weights is large. Keep the `k` weights of largest magnitude
instead, wherever they are, and send the rest through `quantize(..., integer(4), block_size)` and back. Think about
what the block sees in their places: an outlier must not set the scale of its neighbours, or its bodyguard is paid for
nothing.
""",
    solution=protect_weights,
    cases=(
        Case((W, 2, 4), "general", {
            "not_taken_out": _keep(_largest, empty=False)(W, 2, 4),
            "not_put_back": _keep(_largest, back=False)(W, 2, 4),
            "signed": _keep(_signed)(W, 2, 4), "per_row": _keep(_per_row)(W, 2, 4), "columns": _keep(_columns)(W, 2, 4),
            "only_one": protect_weights(W, 1, 4), "nothing_kept": protect_weights(W, 0, 4), "nothing_quantized": W,
        }, tolerance=1e-6),
        Case((W, 2, 8), "general", {"block": protect_weights(W, 2, 4)}, tolerance=1e-6),
        Case((-W.flip(1), 3, 4), "general", tolerance=1e-6),
    ),
    hints=(
        "`w.abs().flatten().topk(k).indices` says where the largest are, counted along the tensor.",
        "Put zeros there in a copy, and quantize and dequantize the copy.",
        "At the end write the original values over those places, and restore the shape.",
    ),
    diagnoses={
        "general": "The k largest magnitudes: zero them in a copy, there and back through int4, put them back.",
        "not_taken_out": "They came back in fp32, but they were still there when the scales were taken: their "
                         "neighbours are as coarse as before. Zero them first.",
        "not_put_back": "They are zero now. Put the original values back.",
        "signed": "Those are the largest values with their sign; -30 counts too. Take `.abs()` first.",
        "per_row": "k weights in every row were kept; k in the whole tensor are paid for.",
        "columns": "Whole columns were kept. Keep single weights.",
        "only_one": "Only the largest was kept: there are k of them.",
        "nothing_kept": "Everything went through int4. Keep the k largest as they were.",
        "nothing_quantized": "Nothing was quantized: only k weights stay in fp32.",
        "block": "The block size is an argument: pass it on.",
    },
    wrong=(
        (_keep(_largest, empty=False), "not_taken_out"),
        (_keep(_largest, back=False), "not_put_back"),
        (_keep(_signed), "signed"),
        (_keep(_per_row), "per_row"),
        (_keep(_columns), "columns"),
        (lambda w, k, block_size: protect_weights(w, 1, block_size), "only_one"),
        (lambda w, k, block_size: quantize(w, integer(4), block_size).dequantize(), "nothing_kept"),
        (lambda w, k, block_size: w.clone(), "nothing_quantized"),
        (lambda w, k, block_size: protect_weights(w, k, 4), "block"),
        (lambda w, k, block_size: w * 0, "general"),
    ),
    moral="That is the idea of SpQR (arXiv 2306.03078): about one weight in a hundred apart, the rest in few bits.",
)
