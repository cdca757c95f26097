"""Explorers: widgets to play with, one module each; `frame` has what they share."""
