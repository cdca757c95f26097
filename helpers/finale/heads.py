"""Train without the logits that no label asks for: on a CPU TRL computes them all, and that is a quarter of the time.

    with label_positions_only():
        trainer.train()

From a vocabulary of 49,152 the head of SmolLM2 is a fifth of the model, and it stands over every token of the prompt
too, three times a step. On a GPU TRL 1.16 leaves those tokens out (`compact` in trl.trainer.utils.add_fused_lm_head);
elsewhere it keeps them, for compilers that want tensors of one shape. Loss and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


@contextmanager
def label_positions_only() -> Iterator[None]:
    """Inside, SFTTrainer's head computes the positions that have a label, on every device, as it does on a GPU.

    TRL has no option for it: its question whether there is Triton is answered with yes, where it decides this and
    nothing else. A TRL that does not ask that question trains as it is.
    """
    from trl.trainer import utils

    if not hasattr(utils, "_use_triton"):
        yield
        return
    with mock.patch.object(utils, "_use_triton", lambda device: True):
        yield
