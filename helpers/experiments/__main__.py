"""`make experiments`, or `python -m helpers.experiments ranks` for one of them."""

import importlib
import sys

import helpers
from helpers import experiments

helpers.start()
for name in sys.argv[1:] or (*experiments.NAMES, *experiments.TUNING, *experiments.LAPTOP):
    print(name)
    sweep = importlib.import_module(f"helpers.experiments.{name}")
    if hasattr(sweep, "run"):
        sweep.run()
    else:
        experiments.run(name)
