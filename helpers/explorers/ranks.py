"""The explorer of lesson 07: how much of an update a rank keeps.

All arithmetic is that of `helpers.low_rank`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import html
from collections.abc import Mapping

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.low_rank import best_pair, check_matrix, energy_kept, planted, singular_values

PLANTED = "planted"
HEIGHT, WIDTH = 110, 640  # pixels of the bars
MOST_BARS = 128


class RankExplorer(Explorer):
    """An update cut to rank r: its singular values, what is left out, what it costs. Made by `cut_to_rank`.

    `update` (its name), `r`, `true_rank` and `noise` (of the planted update) hold what is shown; `matrix`, `sigma`,
    `kept`, `error` and `parameters` are computed from them; `message` is what was wrong, or "".
    """

    def __init__(self, updates: Mapping[str, torch.Tensor] | None = None, r: int = 4) -> None:
        self.updates = {name: matrix.detach().float() for name, matrix in (updates or {}).items()}
        for matrix in self.updates.values():
            check_matrix(matrix)
        self.update, self.r, self.true_rank, self.noise, self.message = PLANTED, 1, 4, 0.0, ""
        wide = {"layout": {"width": "420px"}, "style": {"description_width": "6em"}, "continuous_update": False}
        self.choice = widgets.Dropdown(options=[PLANTED, *self.updates], description="Update",
                                       style={"description_width": "6em"})
        self.rank = widgets.IntSlider(min=1, max=64, description="Keep r", **wide)
        self.planted_rank = widgets.IntSlider(value=4, min=1, max=64, description="True rank", **wide)
        self.planted_noise = widgets.FloatSlider(value=0, min=0, max=2, step=0.05, description="Noise", **wide)
        self.shown = widgets.HTML()
        self.ui = widgets.VBox([self.choice, self.rank, self.planted_rank, self.planted_noise, self.shown])
        self.text = "Cut an update to rank r here, in JupyterLab or Colab; or from Python as in the next cell."
        self._listening = True
        for control, name in ((self.choice, "update"), (self.rank, "r"), (self.planted_rank, "true_rank"),
                              (self.planted_noise, "noise")):
            control.observe(lambda change, name=name: self._heard(name, change["new"]), "value")
        self.set(r=r)

    @property
    def parameters(self) -> int:
        """Weights of A and B together."""
        return self.r * sum(self.matrix.shape)

    def set(self, update: str | None = None, r: int | None = None, true_rank: int | None = None,
            noise: float | None = None) -> None:
        """Show another update, rank, or planted update; None keeps what is shown. What does not fit is named."""
        update = self.update if update is None else update
        r = self.r if r is None else r
        true_rank, noise = self.true_rank if true_rank is None else true_rank, self.noise if noise is None else noise
        if update != PLANTED and update not in self.updates:
            known = ", ".join([PLANTED, *self.updates])
            return self._refuse(f"There is no update {update!r} here. There are: {known}.")
        try:
            matrix = planted(true_rank, noise) if update == PLANTED else self.updates[update]
            r = min(r, min(matrix.shape)) if update != self.update else r
            B, A = best_pair(matrix, r)
        except (ValueError, TypeError) as error:
            return self._refuse(str(error))
        self.update, self.r, self.true_rank, self.noise, self.message = update, r, true_rank, noise, ""
        self.matrix, self.sigma = matrix, singular_values(matrix)
        self.kept = energy_kept(matrix)[r - 1].item()
        self.error = ((matrix - B @ A).norm() / matrix.norm().clamp(min=1e-30)).item()
        self._render()

    def report(self) -> str:
        """What is shown, as text."""
        d, k = self.matrix.shape
        return "\n".join(f"{name:<18}{text}" for name, text in (("update", f"{self.update}, {d} x {k}"), *self._rows()))

    def _rows(self) -> tuple[tuple[str, str], ...]:
        d, k = self.matrix.shape
        return (("rank kept", f"{self.r} of {min(d, k)}"), ("energy kept", f"{self.kept:.1%}"),
                ("error left", f"{self.error:.1%} of the update's norm"),
                ("weights trained", f"{self.parameters:,} of {d * k:,} ({self.parameters / (d * k):.1%})"))

    def _refuse(self, message: str) -> None:
        self.message = message
        self._render()

    def _heard(self, name: str, value: str | int | float) -> None:
        if self._listening:
            self.set(**{name: value})

    def _bars(self) -> str:
        """The singular values as bars, those kept in the colour of what is trained; those of rounding size are flat."""
        step = WIDTH / min(len(self.sigma), MOST_BARS)
        bars = []
        for n, height in enumerate((HEIGHT * self.sigma[:MOST_BARS] / self.sigma.max().clamp(min=1e-30)).tolist()):
            colour = plots.TRAINED if n < self.r else plots.GREY
            bars.append(f'<rect x="{n * step:.1f}" y="{HEIGHT - height:.1f}" width="{0.8 * step:.1f}" '
                        f'height="{height:.1f}" fill="{colour}"/>')
        return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" style="max-width:{WIDTH}px;width:100%" role="img" '
                f'aria-label="Singular values, the first {self.r} kept">{"".join(bars)}</svg>')

    def _render(self) -> None:
        self._listening = False
        try:
            self.choice.value, self.rank.max = self.update, min(self.matrix.shape)
            self.rank.value, self.planted_rank.value, self.planted_noise.value = self.r, self.true_rank, self.noise
            for control in (self.planted_rank, self.planted_noise):
                control.layout.display = None if self.update == PLANTED else "none"
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        rows = "".join(f"<tr><td style='text-align:left;padding-right:1em'>{name}</td>"
                       f"<td style='text-align:left'>{html.escape(text)}</td></tr>" for name, text in self._rows())
        look = f"background:rgba(127,127,127,.12);padding:6px 12px;border-left:4px solid {plots.TRAINED}"
        self.shown.value = (f'<div class="ranks" aria-live="polite" style="{look}">{message}{self._bars()}'
                            f"<table>{rows}</table></div>")


def cut_to_rank(updates: Mapping[str, torch.Tensor] | None = None, r: int = 4) -> RankExplorer:
    """The explorer of lesson 07: choose an update and a rank, and see what the rank keeps.

        explorer = cut_to_rank({"layer 0 q": after - before})
        explorer                                     # shows it, beginning with a planted update of rank 4
        explorer.set(true_rank=8, noise=0.3, r=8)
        explorer.set(update="layer 0 q")
        print(explorer.report())
    """
    return RankExplorer(updates, r)
