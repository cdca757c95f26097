"""From Bits to QLoRA: the code that the lessons share, one module per idea, in the order of the course."""

from __future__ import annotations

import logging
import warnings


def start() -> None:
    """Prepare a notebook: the course's figure style, and quiet about what does not concern a student.

    Silenced are progress bars of local work (those of downloads stay), bitsandbytes' note that it found no compiled
    kernel for this CPU, and the libraries' warnings to each other about names that they are about to change.
    """
    import datasets
    from transformers.utils import logging as transformers_logging

    from helpers.plots import use_style

    use_style()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for library in ("transformers", "trl", "peft", "accelerate", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)
