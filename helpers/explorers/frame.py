"""What every explorer is: a widget to play with, which a notebook can also drive from Python.

Explorers need the ipywidgets API of 7.7 (Colab) and no more: `observe` sets an `HTML` value. Without a frontend
(nbval, a script) they work the same and show nothing. Put one on the last line of a cell to see it; GitHub shows its
text.
"""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Something with a widget `ui` and a line of `text` that stands for it where no widget can be shown."""

    ui: widgets.Widget
    text: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.ui.model_id}
        return {"text/plain": self.text, WIDGET_VIEW: view}
