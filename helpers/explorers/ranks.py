"""The explorer of lesson 07: how much of an update a rank keeps.

All arithmetic is that of `helpers.low_rank`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.checks import number, one_of, whole
from helpers.explorers.frame import Explorer, Row, svg, tag
from helpers.low_rank import best_pair, check_matrix, energy_kept, planted, singular_values

PLANTED = "planted"
HEIGHT, WIDTH = 110, 640  # pixels of the bars
MOST_BARS = 128


class RankExplorer(Explorer):
    """An update cut to rank r: its singular values, what is left out, what it costs.

        explorer = cut_to_rank({"layer 0 q": after - before})
        explorer                                     # shows it, beginning with a planted update of rank 4
        explorer.set(true_rank=8, noise=0.3, r=8)
        explorer.set(update="layer 0 q")
        print(explorer.report())

    `update` (its name), `r`, `true_rank` and `noise` (of the planted update) hold what is shown; `matrix`, `sigma`,
    `kept`, `error` and `parameters` are computed from them.
    """

    text = "Cut an update to rank r here, in JupyterLab or Colab; or from Python as in the next cell."
    css, accent, label_width, column = "ranks", plots.TRAINED, "6em", 18

    def __init__(self, updates: Mapping[str, torch.Tensor] | None = None, r: int = 4) -> None:
        self.updates = {name: matrix.detach().float() for name, matrix in (updates or {}).items()}
        for matrix in self.updates.values():
            check_matrix(matrix)
        self.update, self.r, self.true_rank, self.noise = PLANTED, 4, 4, 0.0
        names = [PLANTED, *self.updates]
        self.may_be = {"update": one_of(names), "r": whole(1), "true_rank": whole(1, 64), "noise": number(0, 2)}
        wide = {"layout": {"width": "420px"}, "continuous_update": False}
        self._build({"update": widgets.Dropdown(options=names, description="Update")},
                    {"r": widgets.IntSlider(4, 1, 64, description="Keep r", **wide)},
                    {"true_rank": widgets.IntSlider(4, 1, 64, description="True rank", **wide)},
                    {"noise": widgets.FloatSlider(0, min=0, max=2, step=0.05, description="Noise", **wide)})
        self.set(r=r)

    @property
    def matrix(self) -> torch.Tensor:
        """The update before it is cut: (d, k)."""
        return planted(self.true_rank, self.noise) if self.update == PLANTED else self.updates[self.update]

    @property
    def parameters(self) -> int:
        """Weights of A and B together."""
        return self.r * sum(self.matrix.shape)

    def set(self, update: str | None = None, r: int | None = None, true_rank: int | None = None,
            noise: float | None = None) -> None:
        """Show another update (cut to its full rank at most), rank, or planted update; None keeps what is shown."""
        def act() -> None:
            before = self.update
            self._take({"update": update, "r": r, "true_rank": true_rank, "noise": noise})
            if self.update != before:
                self.r = min(self.r, *self.matrix.shape)
        self._answer(act)

    def _compute(self) -> None:
        matrix = self.matrix
        B, A = best_pair(matrix, self.r)
        self.sigma, self.kept = singular_values(matrix), energy_kept(matrix)[self.r - 1].item()
        self.error = ((matrix - B @ A).norm() / matrix.norm().clamp(min=1e-30)).item()

    def _rows(self) -> Iterable[Row]:
        d, k = self.matrix.shape
        return (("update", f"{self.update}, {d} x {k}"), ("rank kept", f"{self.r} of {min(d, k)}"),
                ("energy kept", f"{self.kept:.1%}"), ("error left", f"{self.error:.1%} of the update's norm"),
                ("weights trained", f"{self.parameters:,} of {d * k:,} ({self.parameters / (d * k):.1%})"))

    def _follow(self) -> None:
        self.controls["r"].max = min(self.matrix.shape)
        super()._follow()
        for name in ("true_rank", "noise"):
            self.controls[name].layout.display = None if self.update == PLANTED else "none"

    def _picture(self) -> str:
        """The singular values as bars, those kept in the colour of what is trained; those of rounding size are flat."""
        step = WIDTH / min(len(self.sigma), MOST_BARS)
        heights = (HEIGHT * self.sigma[:MOST_BARS] / self.sigma.max().clamp(min=1e-30)).tolist()
        bars = [tag("rect", x=n * step, y=HEIGHT - height, width=0.8 * step, height=height,
                    fill=plots.TRAINED if n < self.r else plots.GREY) for n, height in enumerate(heights)]
        return svg(f"0 0 {WIDTH} {HEIGHT}", f"Singular values, the first {self.r} kept", *bars)


cut_to_rank = RankExplorer
