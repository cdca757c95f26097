"""The explorer of lesson 01: bits to flip.

All arithmetic is that of `helpers.floats`; see `helpers.explorers.frame` for what an explorer is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import ipywidgets as widgets
import torch

from helpers.explorers.checks import one_of, plain, said, whole
from helpers.explorers.frame import Explorer, Row
from helpers.floats import FORMATS, FP32, FloatFormat, bit_string, decode, encode, fields

NAMES = {fmt.name: fmt for fmt in FORMATS}


def known_format(name: str, value: object) -> FloatFormat:
    """One of FORMATS, given as it is or by its name."""
    return NAMES[one_of(NAMES)(name, getattr(value, "name", value))]


def read(x: object) -> float:
    """A number, or the text of one, as float. Raises ValueError for everything else."""
    x = plain(x)
    try:
        if isinstance(x, int | float | str) and not isinstance(x, bool):
            return float(x)
    except (ValueError, OverflowError):  # a text that is no number, a whole number beyond all floats
        pass
    raise ValueError(f"{said(x)} is not a number: write one such as 0.1, 1e-3 or inf.")


class BitExplorer(Explorer):
    """A number as toggles, one for each bit, with its value, its neighbours and the spacing.

        explorer = flip_bits(0.1)
        explorer                       # shows it
        explorer.flip(30)              # bit 30 of fp32 is the top one of the exponent
        explorer.set(200, BF16)
        print(explorer.report())

    `fmt` and `pattern` hold what is shown; `value`, `below`, `above`, `spacing` and `formula` are computed from them.
    Bit 0 is the last of the mantissa.
    """

    text = "Flip the bits of a number here, in JupyterLab or Colab; or from Python as in the next cell."
    css = "bits"
    may_be = {"fmt": known_format}

    def __init__(self, x: float = 1234.0, fmt: FloatFormat = FP32) -> None:
        self.fmt, self.pattern = FP32, 0
        narrow = {"width": "25px", "height": "32px", "margin": "0 1px 0 0", "padding": "0"}
        self.toggles = [widgets.ToggleButton(layout=dict(narrow)) for _ in range(32)]  # toggles[n] is bit n
        self._build({"fmt": widgets.Dropdown(options=list(NAMES.items()), value=FP32, description="Format"),
                     "x": widgets.Text(description="Number", continuous_update=False)}, self.toggles[::-1])
        self._listen(self.controls["x"], self.set)
        for bit, toggle in enumerate(self.toggles):
            self._listen(toggle, lambda value, bit=bit: self.flip(bit))
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

    def set(self, x: float | str | None = None, fmt: FloatFormat | str | None = None) -> None:
        """Show the number nearest to x in the format; None keeps what is shown."""
        def act() -> None:
            number = self.value if x is None else read(x)
            self._take({"fmt": fmt})
            if math.isnan(number) and self.fmt.nan is None:
                raise ValueError(f"{self.fmt.name} has no NaN.")
            self.pattern = encode(torch.tensor(number, dtype=torch.float64), self.fmt).item()
        self._answer(act)

    def flip(self, bit: int) -> None:
        """Flip one bit; 0 is the last one."""
        def act() -> None:
            self.pattern ^= 1 << whole(0, self.fmt.bits - 1)("bit", bit)
        self._answer(act)

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

    def _rows(self) -> Iterable[Row]:
        return (("value", f"{self.value:.9g}"), ("bits", bit_string(self.pattern, self.fmt)),
                ("formula", self.formula), ("next below", _say(self.below)),
                ("next above", _say(self.above)), ("spacing", _say(self.spacing)))

    def _follow(self) -> None:
        super()._follow()
        self.controls["x"].value = f"{self.value:.9g}"
        for n, toggle in enumerate(self.toggles):
            toggle.layout.display = None if n < self.fmt.bits else "none"
            toggle.value = bool(self.pattern >> n & 1)
            toggle.description = str(self.pattern >> n & 1)
            sign, exponent = n == self.fmt.bits - 1, n >= self.fmt.mantissa_bits
            toggle.button_style = "warning" if sign else "info" if exponent else ""
            field = "sign" if sign else "exponent" if exponent else "mantissa"
            toggle.tooltip = f"bit {n}, {field}: {toggle.description}"


flip_bits = BitExplorer


def _say(value: float | None) -> str:
    return "none" if value is None else "undefined" if math.isnan(value) else f"{value:.9g}"
