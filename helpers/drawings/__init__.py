"""The drawings of `figures/`, made by `make figures`.

One function per file, named like it; each returns a matplotlib Figure. Numbers in them are computed there. Their
alternative texts are `helpers.figures.ALT`.
"""

from __future__ import annotations

from pathlib import Path

from helpers.drawings.absmax import absmax, outliers
from helpers.drawings.blocks import blocks
from helpers.drawings.canvas import DARK_ORANGE, PALE_BLUE, PALE_GREY, PALE_ORANGE
from helpers.drawings.family import family, family_counts
from helpers.drawings.gradients import gradients
from helpers.drawings.lora import lora
from helpers.drawings.merging import merging
from helpers.drawings.nf4 import nf4_bins
from helpers.drawings.overview import (
    LINEARS,
    LORA_R16,
    OTHERS,
    PARTS,
    course,
    formats,
    levers,
    qlora,
    training_bytes,
)
from helpers.drawings.scales import nested_scales
from helpers.figures import ALT, FIGURES, save_svg

__all__ = ["DARK_ORANGE", "LINEARS", "LORA_R16", "OTHERS", "PALE_BLUE", "PALE_GREY", "PALE_ORANGE", "PARTS", "absmax",
           "blocks", "course", "draw_all", "family", "family_counts", "formats", "gradients", "levers", "lora",
           "merging", "nested_scales", "nf4_bins", "outliers", "qlora", "training_bytes"]


def draw_all(folder: Path = FIGURES) -> list[Path]:
    """Draw every SVG of the course into `folder` and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ALT:
        save_svg(globals()[name.removesuffix(".svg")](), folder / name)
    return [folder / name for name in ALT]
