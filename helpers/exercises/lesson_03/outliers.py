"""A few weights in fp32, the rest in four bits."""

from __future__ import annotations

import torch

from helpers.codebooks import integer
from helpers.exercises.draws import normal
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


W = torch.tensor([[13.0, 0.5, 1.0, 2.5], [0.2, -3.0, -30.0, 25.0], [0.1, 0.3, 0.5, -11.0]])

BEHIND = torch.tensor([[13.0, 0.5, 1.0, 2.5], [9.0, 0.1, 3.0, 4.0]])

PROTECT_WEIGHTS = Exercise(3, protect_weights, "★★★ Bodyguards for single weights · 8 min", """
A whole column in fp32 is dear where only one of its weights is large. Keep the `k` weights of largest magnitude
instead, wherever they are, and send the rest through `quantize(..., integer(4), block_size)` and back. Think about
what the block sees in their places: an outlier must not set the scale of its neighbours, or keeping it helps nobody
else.
""",
    cases=(Case((W[:1], 1, 4), about="a single block"),
           Case((BEHIND, 1, 4), about="a block behind that of the outlier"), Case((W, 2, 4), about="two outliers"),
           Case((W, 2, 8), about="blocks of two rows"),
           Case((torch.tensor([[100.0, 0.1, 0.2, 0.3], [9.0, 8.0, 7.0, 5.0]]), 1, 4),
                about="an outlier whose neighbours are all small"),
           Case((W, 0, 4), about="k = 0, nothing to protect")),
    hints=("`w.abs().flatten().topk(k).indices` says where the largest are, counted along the tensor.",
           "Put zeros there in a copy, and quantize and dequantize the copy.",
           "At the end write the original values over those places, and restore the shape."),
    mistakes=(
        Mistake("They came back in fp32, but they were still there when the scales were taken: their neighbours are "
                "as coarse as before.", ("rest[where] = 0", "pass")),
        Mistake("They were clipped, not taken out: what was left of them still set the scale of their neighbours.",
                ("= 0", "= rest[where].sign() * rest[where].abs().min()"),
                ("= 0", "= rest[where].sign() * w.abs().flatten().kthvalue(w.numel() - k).values")),
        Mistake("What was put in their places is large beside small neighbours, and sets their scale.",
                ("= 0", "= rest.mean()"), ("= 0", "= rest.median()"), ("= 0", "= w.abs().mean()"), ("= 0", "= 1")),
        Mistake("Without them the others moved up, into other blocks. Zeros keep their places.",
                ("    rest[where] = 0\n    restored = quantize(rest,",
                 "    restored, others = rest, torch.ones_like(rest) > 0\n    others[where] = False\n"
                 "    restored[others] = quantize(rest[others],")),
        Mistake("They are zero now: their own values were not put back.", ("restored[where] =", "_ =")),
        Mistake("Those are the largest values with their sign; -30 counts too.", (".abs()", "")),
        Mistake("The smallest were kept, and the largest went through int4.", ("topk(k)", "topk(k, largest=False)")),
        Mistake("k weights were kept in every row, not k in all of them.", ("w.abs().flatten().topk(k).indices",
                "(w.abs().topk(k).indices + torch.arange(len(w))[:, None] * w.shape[1]).flatten()")),
        Mistake("Whole columns were kept, not single weights.", ("w.abs().flatten().topk(k).indices",
                "(w.abs().amax(0).topk(k).indices + torch.arange(len(w))[:, None] * w.shape[1]).flatten()")),
        Mistake("Only the largest was kept: there are k of them.", ("topk(k)", "topk(1)")),
        Mistake("One too few was kept: `>` leaves out the k-th largest itself.", ("topk(k)", "topk(k - 1)")),
        Mistake("Everything went through int4.", ("topk(k)", "topk(0)")),
        Mistake("Nothing was quantized: only k weights stay in fp32.",
                ("quantize(rest, integer(4), block_size).dequantize()", "w.flatten().clone()")),
    ),
    draw=lambda rng: (normal(rng, rng.randint(2, 3), 4) ** 3, rng.randint(1, 3), rng.choice((2, 4, 8))),
    moral="That is the idea of SpQR (arXiv 2306.03078): about one weight in a hundred apart, the rest in few bits.")
