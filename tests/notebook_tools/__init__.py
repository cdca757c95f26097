"""What makes and guards the notebooks.

`environment` has the settings, `canonical` the form of a file, `run` is `make notebooks`, `rules` says what is wrong
with a notebook, `source` what is wrong with its code, and `release` is `make release`.
"""
