"""`make sweeps`, or `python -m helpers.sweeps ranks` for one of them."""

import sys

import helpers
from helpers import sweeps

helpers.start()
for name in sys.argv[1:] or sweeps.NAMES:
    print(name)
    sweeps.run(name)
