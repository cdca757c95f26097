"""The drawings of `figures/`, made by `make figures`.

One function per file, named like it; each returns a matplotlib Figure. Numbers in them are computed there. `ALT` has
their alternative texts by file name, as they stand above the functions.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from helpers.drawings.absmax import absmax, outliers
from helpers.drawings.blocks import blocks
from helpers.drawings.canvas import ALT, DRAWINGS
from helpers.drawings.family import family
from helpers.drawings.gradients import gradients
from helpers.drawings.lora import lora
from helpers.drawings.merging import merging
from helpers.drawings.nf4 import nf4_bins
from helpers.drawings.overview import course, formats, levers, qlora
from helpers.drawings.scales import nested_scales
from helpers.plots import STYLE

FIGURES = Path(__file__).resolve().parents[2] / "figures"

__all__ = ["ALT", "absmax", "blocks", "course", "draw_all", "family", "formats", "gradients", "levers", "lora",
           "merging", "nested_scales", "nf4_bins", "outliers", "qlora", "save"]


def save(fig: Figure, path: Path) -> None:
    """Write a drawing as SVG. The same drawing is the same file: text as outlines, no date, no version."""
    with mpl.rc_context(STYLE):
        fig.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def draw_all(folder: Path = FIGURES) -> list[Path]:
    """Draw every SVG of the course into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in DRAWINGS.items():
        save(draw(), folder / name)
    return [folder / name for name in DRAWINGS]
