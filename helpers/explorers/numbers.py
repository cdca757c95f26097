"""Explorers of Part I: bits to flip.

All arithmetic is that of `helpers.floats`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import html
import math

import ipywidgets as widgets
import torch

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.floats import FORMATS, FP32, FloatFormat, bit_string, decode, encode, fields

NAMES = {fmt.name: fmt for fmt in FORMATS}


class BitExplorer(Explorer):
    """A number as toggles, one for each bit, with its value, its neighbours and the spacing. Made by `flip_bits`.

    `fmt` and `pattern` hold what is shown; `value`, `below`, `above`, `spacing` and `formula` are computed from them;
    `message` is what was wrong, or "". Bit 0 is the last of the mantissa.
    """

    def __init__(self, x: float = 1234.0, fmt: FloatFormat = FP32) -> None:
        self.fmt, self.pattern, self.message = fmt, 0, ""
        narrow = {"width": "25px", "height": "32px", "margin": "0 1px 0 0", "padding": "0"}
        self.toggles = [widgets.ToggleButton(layout=dict(narrow)) for _ in range(32)]  # toggles[n] is bit n
        self.format = widgets.Dropdown(options=list(NAMES), value=fmt.name, description="Format")
        self.number = widgets.Text(description="Number", continuous_update=False)
        self.shown = widgets.HTML()
        bits = widgets.HBox(self.toggles[::-1], layout={"flex_flow": "row wrap", "margin": "6px 0"})
        self.ui = widgets.VBox([widgets.HBox([self.format, self.number]), bits, self.shown])
        self.text = "Flip the bits of a number here, in JupyterLab or Colab; or from Python as in the next cell."
        self._listening = True
        self.format.observe(lambda change: self._heard(lambda: self.set(fmt=NAMES[change["new"]])), "value")
        self.number.observe(lambda change: self._heard(lambda: self.set(change["new"])), "value")
        for toggle in self.toggles:
            toggle.observe(lambda change: self._heard(self._toggled), "value")
        self.set(x, fmt)

    @property
    def value(self) -> float:
        return decode(torch.tensor(self.pattern), self.fmt).item()

    @property
    def below(self) -> float | None:
        """The next value towards minus infinity, or None where there is none."""
        return self._neighbour(-1)

    @property
    def above(self) -> float | None:
        """The next value towards plus infinity, or None where there is none."""
        return self._neighbour(1)

    @property
    def spacing(self) -> float:
        """The gap to the next value away from zero; NaN at infinity and NaN."""
        return self.fmt.spacing(self.value).item()

    @property
    def formula(self) -> str:
        """How the fields make the value, in integers: `+(1 + 210/1024) · 2^10`."""
        if not math.isfinite(self.value):
            return "the top exponent: infinity with mantissa 0, NaN with any other" if self.fmt.infinity else "NaN"
        sign, exponent, mantissa = (field.item() for field in fields(torch.tensor(self.pattern), self.fmt))
        power = max(exponent, 1) - self.fmt.bias
        return f"{'-' if sign else '+'}({min(exponent, 1)} + {mantissa}/{2**self.fmt.mantissa_bits}) · 2^{power}"

    def set(self, x: float | str | None = None, fmt: FloatFormat | None = None) -> None:
        """Show the number nearest to x in the format; None keeps what is shown. What cannot be read is named."""
        x = self.value if x is None else x
        self.fmt = self.fmt if fmt is None else fmt
        try:
            self.pattern, self.message = encode(torch.tensor(float(x), dtype=torch.float64), self.fmt).item(), ""
        except ValueError:
            self.message = (f"{self.fmt.name} has no NaN." if isinstance(x, float) and math.isnan(x) or x == "nan" else
                            f"{x!r} is not a number: write one such as 0.1, 1e-3 or inf.")
            self.pattern = self.pattern & (2**self.fmt.bits - 1)
        self._render()

    def flip(self, bit: int) -> None:
        """Flip one bit; 0 is the last one."""
        if not 0 <= bit < self.fmt.bits:
            self.message = f"{self.fmt.name} has the bits 0 to {self.fmt.bits - 1}, and no bit {bit}."
        else:
            self.pattern, self.message = self.pattern ^ (1 << bit), ""
        self._render()

    def report(self) -> str:
        """What is shown, as plain text."""
        return "\n".join((f"{self.fmt.name}  {bit_string(self.pattern, self.fmt)}  =  {self.value:.9g}",
                          f"formula     {self.formula}", f"neighbours  {_say(self.below)} and {_say(self.above)}",
                          f"spacing     {_say(self.spacing)}"))

    def _neighbour(self, step: int) -> float | None:
        half = 2**(self.fmt.bits - 1)
        signed = -(self.pattern - half) if self.pattern >= half else self.pattern
        last = self.fmt.largest if self.fmt.infinity is None else self.fmt.infinity
        if math.isnan(self.value) or abs(signed + step) > last:
            return None
        pattern = signed + step if signed + step >= 0 else half - (signed + step)
        return decode(torch.tensor(pattern), self.fmt).item()

    def _heard(self, act) -> None:
        if self._listening:
            act()

    def _toggled(self) -> None:
        self.pattern = sum(1 << n for n, toggle in enumerate(self.toggles[:self.fmt.bits]) if toggle.value)
        self.message = ""
        self._render()

    def _render(self) -> None:
        self._listening = False
        try:
            for n, toggle in enumerate(self.toggles):
                toggle.layout.display = None if n < self.fmt.bits else "none"
                toggle.value = bool(self.pattern >> n & 1)
                toggle.description = str(self.pattern >> n & 1)
                sign, exponent = n == self.fmt.bits - 1, n >= self.fmt.mantissa_bits
                toggle.button_style = "warning" if sign else "info" if exponent else ""
                toggle.tooltip = f"bit {n}, {'sign' if sign else 'exponent' if exponent else 'mantissa'}"
            self.format.value, self.number.value = self.fmt.name, f"{self.value:.9g}"
        finally:
            self._listening = True
        message = f"<p>⚠ {html.escape(self.message)}</p>" if self.message else ""
        rows = "".join(f"<tr><td style='text-align:left;padding-right:1em'>{name}</td>"
                       f"<td style='text-align:left'>{html.escape(text)}</td></tr>" for name, text in (
                           ("value", f"{self.value:.9g}"), ("formula", self.formula),
                           ("next below", _say(self.below)), ("next above", _say(self.above)),
                           ("spacing", _say(self.spacing))))
        self.shown.value = (f'<div class="bits" aria-live="polite" style="background:rgba(127,127,127,.12);padding:6px '
                            f'12px;border-left:4px solid {plots.BLUE}">{message}<table>{rows}</table></div>')


def flip_bits(x: float = 1234.0, fmt: FloatFormat = FP32) -> BitExplorer:
    """The explorer of lesson 01: flip any bit of x and see what becomes of it.

        explorer = flip_bits(0.1)
        explorer                       # shows it
        explorer.flip(30)              # bit 30 of fp32 is the top one of the exponent
        explorer.set(200, BF16)
        print(explorer.report())
    """
    return BitExplorer(x, fmt)


def _say(value: float | None) -> str:
    return "none" if value is None else "undefined" if math.isnan(value) else f"{value:.9g}"
