"""Before any test or notebook kernel starts: the settings under which the committed outputs were made."""

import matplotlib
from notebook_tools import environment

environment.apply()
matplotlib.use("Agg")  # for the tests themselves; a notebook's kernel chooses its own
