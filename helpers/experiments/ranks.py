"""LoRA at several ranks, and at one budget in different places: the sweep of lesson 07.

The scale α/r is 2 throughout. The learning rate of each case was found on a ladder: 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2,
and 3e-4, 1e-3, 3e-3 without LoRA. From 5e-3 (3e-4) it went up, else down, as long as 40 steps from seed 0 ended with a
lower training loss, the mean over the last 5. The choice was by that loss alone; but the ladder got more rungs after
some of seed 0's scores had been seen.
"""

from __future__ import annotations

from functools import partial

import torch

from helpers.adapters import train_only
from helpers.experiments import Case
from helpers.lora import add_lora

ATTENTION, FEED_FORWARD = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
RANKS = {1: 2e-2, 2: 1e-2, 4: 1e-2, 8: 5e-3, 32: 2e-3}  # in all linear layers: the learning rate
PLACES = {  # where, the rank that costs as much as r = 4 in all linears (37,888 weights) to within 3 %, learning rate
    "q": (["q_proj"], 37, 2e-2), "q, v": (["q_proj", "v_proj"], 18, 1e-2), "q, k, v, o": (ATTENTION, 9, 1e-2),
    "feed-forward": (FEED_FORWARD, 7, 1e-2),
}


def lora(model: torch.nn.Module, r: int, targets: str | list[str] = "all-linear") -> torch.nn.Module:
    """LoRA of rank r with α = 2r in front of `targets`."""
    return add_lora(model, r=r, alpha=2 * r, target_modules=targets)


CASES = (
    *(Case(f"all r={r}", partial(lora, r=r), lr) for r, lr in RANKS.items()),
    *(Case(f"{place} r={r}", partial(lora, r=r, targets=targets), lr) for place, (targets, r, lr) in PLACES.items()),
    Case("full rank", partial(train_only, names=[*ATTENTION, *FEED_FORWARD]), lr=1e-3),
)
