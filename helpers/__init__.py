"""From Bits to QLoRA: the code that the lessons share, one module per idea, in the order of the course."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from pathlib import Path


def start() -> None:
    """Prepare a notebook: the course's figure style, and quiet about what does not concern a student.

    Silenced are progress bars of local work (those of downloads stay), bitsandbytes' note that it found no compiled
    kernel for this CPU, and the libraries' warnings to each other about names that they are about to change.
    An installed torchao that PEFT refuses is hidden.
    Prints a line if another `helpers` would be imported in place of this one.
    """
    if other := rival():
        print(f"Another `helpers` stands at {other}, before the course's own in {Path(__file__).parent}: rename it, or "
              "start the notebook in another folder.")
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


def rival() -> Path | None:
    """Another module `helpers` that a fresh import from here would find first, or None.

    The clone that the notebook stands in counts too: its cells belong to its own helpers, not to an installed copy.
    """
    own = Path(__file__).resolve()
    here = Path.cwd()
    clones = [folder for folder in (here, *here.parents) if (folder / "helpers" / "exercises").is_dir()]
    for folder in [*clones[:1], *(Path(entry or ".") for entry in sys.path)]:
        for found in (folder / "helpers" / "__init__.py", folder / "helpers.py"):
            if found.is_file():
                return None if found.resolve() == own else found.resolve()
    return None
