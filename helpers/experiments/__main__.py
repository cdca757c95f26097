"""`make experiments`, or `python -m helpers.experiments ranks` for one of them."""

import sys

import helpers
from helpers import experiments

helpers.start()
for name in sys.argv[1:] or experiments.NAMES:
    print(name)
    experiments.run(name)
