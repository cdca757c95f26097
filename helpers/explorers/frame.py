"""What every explorer is: a widget to play with, which a notebook can also drive from Python.

An explorer's own module reads in three parts: what may be set (`may_be`, `set`), how the rest is computed (`_compute`),
and what is shown (`_rows`, `_picture`). Here is what all share: controls that set and follow, values that are refused,
the grey frame on the page; keys.py names the controls for screen readers and frees their keys.

Explorers need the ipywidgets API of 7.7 (Colab) and no more: `observe` sets an `HTML` value. Without a frontend
(nbval, a script) they work the same and show nothing. Put one on the last line of a cell to see it; where no kernel
runs it stands still. Colours come from the page, light or dark: only a half-transparent grey and accents are set.
"""

from __future__ import annotations

import base64
import html
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from helpers import plots
from helpers.explorers import keys, still
from helpers.explorers.checks import Check

WIDE, NARROW = {"width": "95%"}, {"width": "auto"}  # layouts of controls; without one they take half a line
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
Row = tuple[str, str]


class Explorer:
    """Something with a widget `ui` and a line of `text` that stands for it where no widget can be shown.

    `message` is what was wrong with the last thing asked, or "". What is refused changes nothing and raises nothing:
    the message stands in the widget and, if it was Python that asked, it is printed.
    """

    text: str
    css, accent, label_width = "explorer", plots.BLUE, "8em"  # of the frame: class and edge; of the controls' labels
    column = 22  # characters of the names in `report`
    may_be: Mapping[str, Check] = {}  # what may be set: attributes, with their checks
    ui: widgets.Widget
    message = ""
    _quiet = False

    def set(self, **settings: object) -> None:
        """Change settings; None keeps what is there. What may not be is named, and changes nothing."""
        self._answer(lambda: self._take(settings))

    def report(self) -> str:
        """What is shown, as plain text."""
        return "\n".join(f"{name:<{self.column}}{text}" for name, text in self._rows())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.ui.model_id}
        colab = "google.colab" in sys.modules  # has a kernel always, and an order of its own between the two
        return {"text/plain": self.text, WIDGET_VIEW: view} | ({} if colab else {"text/html": self.still()})

    def still(self) -> str:
        """What is shown now, as HTML that needs no kernel: JupyterLab prefers the widget, GitHub has nothing else."""
        return still.still(self.ui, self.shown.value, self.text)

    def _compute(self) -> None:
        """Compute what follows from the settings. A ValueError refuses them."""

    def _rows(self) -> Iterable[Row]:
        """Names and texts for the table and the report."""
        return ()

    def _picture(self) -> str:
        """What stands above the table, as HTML."""
        return ""

    def _body(self) -> str:
        return self._picture() + table(self._rows())

    def _follow(self) -> None:
        """Make the controls show what is set."""
        for name in self.may_be:
            if name in self.controls:
                self.controls[name].value = getattr(self, name)

    def _build(self, *lines: Mapping[str, widgets.Widget] | Collection[widgets.Widget]) -> None:
        """Make `ui`: lines of controls, and `shown` below them. Those named as a setting set it when they are moved."""
        self.controls = {name: control for line in lines if isinstance(line, Mapping) for name, control in line.items()}
        for name, control in self.controls.items():
            control.style.description_width = self.label_width
            control.layout.width = control.layout.width or "26em"
            if name in self.may_be:
                self._listen(control, lambda value, name=name: self.set(**{name: value}))
        self.shown = widgets.HTML()
        boxes = [widgets.HBox(list(line.values() if isinstance(line, Mapping) else line),
                              layout={"flex_flow": "row wrap", "margin": "2px 0"}) for line in lines]
        self.ui = widgets.VBox([*boxes, self.shown, widgets.HTML(keys.MENDED)])

    def _listen(self, control: widgets.Widget, act: Callable[[Any], None]) -> None:
        """Call act(value) when somebody moves the control, and not when the control follows."""
        def heard(change: Mapping[str, Any]) -> None:
            if not self._quiet and not only_rounded(control, change["old"], change["new"]):
                with self.quiet():
                    act(change["new"])
        control.observe(heard, "value")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Within, controls that change are not heard, and messages are not printed."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _take(self, settings: Mapping[str, object]) -> None:
        """Take over the settings that are not None, each after its check."""
        for name, value in settings.items():
            if value is not None:
                setattr(self, name, self.may_be[name](name, value))

    def _answer(self, act: Callable[[], str | None]) -> None:
        """Do what was asked and show what came of it; act may return a remark. After a ValueError all is as before."""
        before = dict(vars(self))
        try:
            message = act()
            self._compute()
        except ValueError as error:
            vars(self).update(before)
            self._compute()
            message = str(error)
        self.message = message or ""
        with self.quiet():
            self._follow()
        self.shown.value = frame(self.css, self.accent, self.message, self._body())
        if self.message and not self._quiet:
            print(self.message)


def only_rounded(control: widgets.Widget, old: Any, new: Any) -> bool:
    """Whether a slider only rounded its own value to its step, as it does when a page first shows it."""
    if isinstance(control, widgets.FloatLogSlider):
        return abs(math.log(new / old, control.base)) <= control.step / 2
    return isinstance(control, widgets.FloatSlider | widgets.IntSlider) and abs(new - old) <= control.step / 2


# ---------------------------------------------------------------------------------------------- what stands on the page

def frame(css: str, accent: str, message: str, body: str) -> str:
    """What is shown, with what was wrong above it; screen readers read it out when it changes."""
    warning = line(f"⚠ {html.escape(message)}") if message else ""
    return f'<div class="{css}" aria-live="polite" style="{box(accent)}">{warning}{body}</div>'


def line(inside: str) -> str:
    """A line of text."""
    return tag("p", inside, style="margin:4px 0")


def box(accent: str) -> str:
    """The style of a grey box with a coloured edge."""
    return f"background:rgba(127,127,127,.12);padding:6px 12px;line-height:1.4;border-left:4px solid {accent}"


def table(rows: Iterable[Row]) -> str:
    """Names and texts, side by side."""
    left = "text-align:left;padding-right:1em"
    cells = "".join(tag("tr", tag("td", html.escape(name), style=left) + tag("td", html.escape(text), style=left))
                    for name, text in rows)
    return f"<table>{cells}</table>" if cells else ""


def tag(name: str, inside: str = "", **attributes: object) -> str:
    """An element of HTML or SVG. Floats get one decimal; `_` in an attribute's name stands for `-`."""
    texts = {key.replace("_", "-"): f"{value:.1f}" if isinstance(value, float) else html.escape(str(value))
             for key, value in attributes.items()}
    look = "".join(f' {key}="{text}"' for key, text in texts.items())
    return f"<{name}{look}>{inside}</{name}>"


def words(text: str, x: float, y: float, anchor: str = "middle", **attributes: object) -> str:
    """Text in an SVG, in the page's own colour."""
    look = {"text_anchor": anchor, "font_size": 12, "fill": "currentColor", **attributes}
    return tag("text", html.escape(text), x=float(x), y=y, **look)


def svg(view: str, label: str, *parts: str) -> str:
    """A drawing as wide as the page lets it be, at most its own size. view: "left top width height"."""
    style = f"display:block;width:100%;max-width:{view.split()[2]}px"
    return tag("svg", "".join(parts), role="img", aria_label=label, viewBox=view, style=style)


def stacked(parts: Iterable[tuple[str, float, str]], y: int, height: int) -> str:
    """A bar of parts side by side in an SVG, from x = 10 on: of each its name, width and colour ("": an outline)."""
    bars, x = [], 10.0
    for name, width, colour in parts:
        look = {"fill": colour} if colour else {"fill": "none", "stroke": "currentColor"}
        bars.append(tag("rect", tag("title", name), x=x, y=y, width=f"{width:.2f}", height=height, **look))
        x += width
    return "".join(bars)


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """A line of coloured squares, each with its text. entries: (text, colour)."""
    return "".join(tag("span", tag("span", style=f"display:inline-block;width:.8em;height:.8em;background:{colour}")
                       + f" {html.escape(text)}", style="margin-right:1.2em;white-space:nowrap") + " "
                   for text, colour in entries)


def image(fig: Figure, alt: str) -> str:
    """A figure as an image with its text."""
    picture = base64.b64encode(plots.png(fig)).decode()
    return f'<img alt="{html.escape(alt)}" style="max-width:100%" src="data:image/png;base64,{picture}">'
