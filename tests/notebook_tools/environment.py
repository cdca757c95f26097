"""The settings under which notebooks are made and tested: offline, on the CPU, on the pocket tier."""

import atexit
import os
import shutil
import tempfile
from functools import cache

SETTINGS = {
    "COURSE_TIER": "pocket",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}
FOREIGN = ("COURSE_MODEL", "COURSE_DATASET", "COURSE_TEST", "COURSE_REPO", "COURSE_STEPS", "COURSE_RESULTS", "HF_TOKEN",
           "HUGGING_FACE_HUB_TOKEN", "MPLBACKEND", "PYTHONWARNINGS")


def apply() -> None:
    """Put the settings into this process's environment, which the kernels inherit, and take foreign ones out.

    A GPU is hidden unless CUDA_VISIBLE_DEVICES is set by the caller: the committed outputs were made on a CPU.
    """
    os.environ.update(SETTINGS)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # `make test` runs two processes side by side
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ["COURSE_RUNS"] = runs()


@cache
def runs() -> str:
    """An empty folder for this process's training runs: a test must not go on with what a reader left unfinished."""
    folder = tempfile.mkdtemp(prefix="course-runs-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
