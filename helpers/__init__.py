"""From Bits to QLoRA: the code that the lessons share, one module per idea, in the order of the course."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings


def start() -> None:
    """Prepare a notebook: the course's figure style, and quiet about what does not concern a student.

    Silenced are progress bars of local work (those of downloads stay), bitsandbytes' note that it found no compiled
    kernel for this CPU, and the libraries' warnings to each other about names that they are about to change.
    An installed torchao that PEFT refuses is hidden.
    """
    import datasets
    from transformers.utils import logging as transformers_logging

    from helpers.figures import use_style

    use_style()
    datasets.disable_progress_bars()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for library in ("transformers", "trl", "peft", "accelerate", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=library)
    _hide_refused_torchao()


def _hide_refused_torchao() -> None:
    """Let a torchao that PEFT refuses look absent to this process, as if it were not installed.

    Colab's image has torchao 0.10. PEFT 0.21 wants 0.16 or newer and raises ImportError at the first LoRA beside an
    unquantized layer, whether or not torchao has anything to do there. No lesson uses it. PEFT itself is asked, and a
    version that it accepts stays. `None` in sys.modules is Python's own way to say "not importable"
    (docs.python.org/3/reference/import.html, "The module cache").
    """
    if importlib.util.find_spec("torchao") is None:
        return
    from peft.import_utils import is_torchao_available

    try:
        is_torchao_available()
    except ImportError:
        sys.modules["torchao"] = None
