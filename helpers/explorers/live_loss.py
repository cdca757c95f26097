"""The training loss as a curve that grows while a trainer trains."""

from __future__ import annotations

import html
import math
import time
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure
from transformers import TrainerCallback

from helpers import plots
from helpers.explorers import still
from helpers.explorers.frame import Explorer, image


class LiveLoss(Explorer, TrainerCallback):
    """The training loss as a curve that grows while a `Trainer` trains.

        live = LiveLoss()
        display(live)                                     # in a cell before the training
        trainer = SFTTrainer(..., callbacks=[live])       # every logged loss is drawn

    `steps` and `losses` keep what was logged, `figure()` draws it for `show`. One drawing in `every` seconds at
    most, and never more than a twentieth of the time; one more at the end.
    """

    text = "The loss curve grows here while the model trains (in JupyterLab and Colab)."

    def __init__(self, every: float = 1.0) -> None:
        if not every >= 0:
            raise ValueError(f"every={every}: give the seconds between two drawings, 0 or more")
        self.every, self.total = every, None
        self.steps: list[int] = []
        self.losses: list[float] = []
        self.drawn = 0
        self._next = -math.inf
        self.ui = widgets.HTML("<p>The loss will appear here when training starts.</p>")

    def still(self) -> str:
        """The curve so far, or the sentence that stands for it, as HTML that needs no kernel."""
        return still.still(self.ui, self.ui.value, self.text)

    def add(self, step: int, loss: float) -> None:
        """Take in one loss and redraw if it is time. A step seen before (a resumed run) cuts the curve there."""
        while self.steps and self.steps[-1] >= step:
            self.steps.pop()
            self.losses.pop()
        self.steps.append(step)
        self.losses.append(float(loss))
        if time.monotonic() >= self._next:
            self.draw()

    def figure(self) -> Figure:
        """The curve so far as a matplotlib figure."""
        return plots.loss_curve(self.steps, self.losses, self.total)

    def draw(self) -> None:
        """Redraw now. A loss that cannot be drawn (nan, infinity) is named instead of ending the training."""
        started = time.monotonic()
        try:
            alt = f"Loss {self.losses[-1]:.3g} at step {self.steps[-1]}" if self.steps else "No loss yet"
            self.ui.value = image(self.figure(), alt)
        except ValueError as error:
            self.ui.value = f"<p>{html.escape(str(error))}</p>"
        self.drawn += 1
        self._next = time.monotonic() + max(self.every, 20 * (time.monotonic() - started))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Learn from the trainer how many steps there will be."""
        self.total = state.max_steps

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Called by the trainer with what it logs; evaluation logs carry no `loss` and are passed over."""
        if logs and "loss" in logs:
            self.add(state.global_step, logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Draw the whole curve once more."""
        self.draw()
