"""More than one process: training scripts to read, what starts them, and the files that name the machines.

`train` is data parallel, `shard` FSDP2, `launch` starts either and says what became of it; `configs` holds accelerate's
files for two cards of 24 GB and eight of 80. One process or several, on CPUs or GPUs: the scripts do not change.
"""

from __future__ import annotations

import pathlib

CONFIGS = pathlib.Path(__file__).parent / "configs"  # files for `accelerate launch --config_file`
