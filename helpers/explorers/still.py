"""An explorer where no kernel runs: on GitHub, on a site, on paper. Its settings in words, and what is shown, still.

Such pages keep the text, the tables and the images of an output; GitHub, and JupyterLab before it trusts a file, drop
what is drawn as <svg>, and GitHub all styles. So every drawing and every coloured bar becomes an image here; drawings
lie on paper of their own, so that they read on light and dark pages.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator

import ipywidgets as widgets

from helpers import plots

DRAWING = re.compile(r'<svg role="img" aria-label="([^"]*)" viewBox="([^"]*)"[^>]*>(.*?)</svg>', re.DOTALL)
BAR = re.compile(r'<span(?: title="([^"]*)")? style="display:inline-block;([^"]*)"></span>')  # or a legend's square
PIXELS = {"px": 1, "em": 14}
SAID = (widgets.Dropdown, widgets.SelectionSlider, widgets.ToggleButtons, widgets.Checkbox, widgets.Text,
        widgets.IntText, widgets.FloatText, widgets.IntSlider, widgets.FloatSlider, widgets.FloatLogSlider)


def still(ui: widgets.Widget, shown: str, text: str) -> str:
    """HTML without script: the settings of the controls in `ui`, what is `shown`, and `text`, a sentence."""
    asked = " · ".join(f"{name}: {value}" for name, value in settings(ui))
    first = f"<p>{html.escape(asked)}</p>" if asked else ""
    return f"<div>{first}{as_images(shown)}<p><small>{html.escape(text)}</small></p></div>"


def settings(widget: widgets.Widget) -> Iterator[tuple[str, str]]:
    """Names and values of all controls that can be moved and have something to say, in words."""
    for child in getattr(widget, "children", ()):
        yield from settings(child)
    if not isinstance(widget, SAID) or widget.disabled or widget.layout.display == "none":
        return
    value = widget.label if hasattr(widget, "label") else widget.value
    if isinstance(value, bool):
        value = "yes" if value else "no"
    elif isinstance(value, int | float):
        value = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if value:
        yield widget.description, value


def as_images(page: str) -> str:
    """The page with an image in place of each drawing of `frame.svg`, each bar and each square of a legend."""
    return BAR.sub(_bar, DRAWING.sub(_drawing, page))


def _drawing(found: re.Match[str]) -> str:
    label, view, inside = found.groups()
    left, top, width, height = (float(x) for x in view.split())
    paper = f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" fill="{plots.PAPER}"/>'
    return f"<div>{_image(label, view, width, height, paper + inside)}</div>"


def _bar(found: re.Match[str]) -> str:
    style = dict(part.split(":") for part in found[2].split(";"))
    width, height = (float(style[side][:-2]) * PIXELS[style[side][-2:]] for side in ("width", "height"))
    rect = f'<rect width="{width:g}" height="{height:g}" fill="{style["background"]}"/>'
    return _image(found[1] or "■", f"0 0 {width:g} {height:g}", width, height, rect) if width > 0 else ""


def _image(alt: str, view: str, width: float, height: float, inside: str) -> str:
    file = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" width="{width:g}" height="{height:g}" '
            f'color="{plots.INK}" font-family="sans-serif">{inside}</svg>')
    encoded = base64.b64encode(file.encode()).decode()
    return f'<img alt="{alt}" style="max-width:100%" src="data:image/svg+xml;base64,{encoded}">'
