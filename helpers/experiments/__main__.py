"""`make experiments`, or `python -m helpers.experiments ranks` for one of them."""

import importlib
import sys

import helpers
from helpers import experiments

helpers.start()
for name in sys.argv[1:] or (*experiments.NAMES, *experiments.TUNING, *experiments.LAPTOP):
    print(name)
    if name in (*experiments.TUNING, *experiments.LAPTOP):
        importlib.import_module(f"helpers.experiments.{name}").run()
    else:
        experiments.run(name)
