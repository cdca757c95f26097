"""Cards: what `check`, `hint`, `solution`, `predict` and `outcome` answer.

A card is text/plain for terminals, GitHub and nbval, and an opaque light box with inline styles in a notebook, so that
it reads the same in JupyterLab's light and dark themes. State is carried by a mark (○ ✓ ✗ ?), never by colour alone.
The text of a card depends on nothing but its fields: no times, no addresses, no random names.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

INK, PAPER, CODE = "#1f2328", "#fbfaf7", "#ebe8e0"
COLOURS = {"○": "#6e7781", "✓": "#0072b2", "✗": "#d55e00", "?": "#b8860b"}


@dataclass(frozen=True)
class Card:
    """`mark` ○ neutral, ✓ right, ✗ not yet, ? a hint or a question; `details` are (label, value) pairs set in mono."""

    mark: str
    title: str
    text: str
    details: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        lines = [f"{self.mark} {self.title} {self.text}".rstrip()]
        width = max((len(label) for label, _ in self.details), default=0)
        lines += [f"    {label:<{width}}  {value}" for label, value in self.details]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<div style="margin-top:4px"><span style="display:inline-block;min-width:6em;color:#57606a">'
            f'{html.escape(label)}</span><span style="font-family:monospace;white-space:pre-wrap">'
            f"{html.escape(value)}</span></div>"
            for label, value in self.details
        )
        return (
            f'<div style="background:{PAPER};color:{INK};border-left:5px solid {COLOURS[self.mark]};padding:8px 12px;'
            f'max-width:60em"><b>{self.mark} {_inline(self.title)}</b> {_inline(self.text)}{rows}</div>'
        )


@dataclass(frozen=True)
class SourceCard:
    """The source text of a solution, its syntax coloured by Pygments with inline styles."""

    source: str

    def __repr__(self) -> str:
        return self.source

    def _repr_html_(self) -> str:
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        box = f"background:{PAPER};color:{INK};padding:8px 12px;max-width:60em"
        pre = f"background:{PAPER};color:{INK};font-family:monospace"
        formatter = HtmlFormatter(noclasses=True, cssstyles=box, prestyles=pre)
        return highlight(self.source, PythonLexer(), formatter)


def _inline(text: str) -> str:
    """Escape for HTML, keep line breaks, and set `code` between backticks in mono on an opaque ground."""
    code = rf'<code style="background:{CODE};color:{INK};padding:0 3px">\1</code>'
    return re.sub(r"`([^`]+)`", code, html.escape(text)).replace("\n", "<br>")
