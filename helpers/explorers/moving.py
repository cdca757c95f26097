"""The README's moving picture: the bit explorer, driven through eight states; `make figures` writes it.

An SVG that moves by CSS alone: small, sharp, and still (its first state) for readers who ask for less motion. Each
state is what the explorer itself shows; one fades into the next, at most one in a second.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from helpers import plots
from helpers.explorers.frame import tag
from helpers.explorers.numbers import BitExplorer
from helpers.floats import BF16, FP4_E2M1, FP8_E4M3, FP16, FP32, FloatFormat

FILE = Path(__file__).resolve().parents[2] / "figures" / "explorer.svg"
ALT = ("The bit explorer of lesson 01, moving: 0.1 in the bits of fp32, fp16, bf16, fp8 and fp4. The fewer the bits, "
       "the farther its value is from 0.1; in four bits it is 0. Then one bit of the exponent makes it 65,536 times as "
       "large.")
WIDTH, HEIGHT, SIDE = 760, 306, 22  # pixels: of the picture, and of a bit
HOLD, FADE = 2.2, 0.4  # seconds that a state is shown, and that it takes to appear
COLOURS = {"warning": ("w", plots.ORANGE), "info": ("e", plots.SKY), "": ("f", plots.LINE)}  # the buttons' styles
State = tuple[str, str, str]  # the control that was used ("fmt", "x" or a bit's number), what is drawn, what is said


def states() -> Iterator[State]:
    """0.1 from 32 bits down to 4, and what one bit can do."""
    explorer = BitExplorer(0.1, FP32)

    def state(used: str, said: str) -> State:
        return used, _drawn(explorer, used), said

    def off() -> str:
        share = 100 * abs(explorer.value / 0.1 - 1)
        return f"off by {np.format_float_positional(share, 2, fractional=False, trim='-')} %"

    yield state("x", f"0.1 in 32 bits is {off()}.")
    steps: tuple[tuple[FloatFormat, Callable[[], str]], ...] = (
        (FP16, lambda: f"In 16 bits it is {off()}."), (BF16, lambda: f"In 16 bits cut otherwise it is {off()}."),
        (FP8_E4M3, lambda: f"In 8 bits it is {off()}."), (FP4_E2M1, lambda: "In 4 bits nothing of it is left."))
    for fmt, said in steps:
        explorer.set(0.1, fmt)
        yield state("fmt", said())
    explorer.flip(0)
    yield state("0", f"The next value is {explorer.value:g}: four bits need a scale. Lesson by lesson you build it.")
    explorer.set(0.1, FP16)
    yield state("fmt", "Back to 16 bits ...")
    before = explorer.value
    explorer.flip(14)
    yield state("14", f"... and one bit of the exponent makes it {explorer.value / before:,.0f} times as large.")


def picture() -> str:
    """The animation as the text of an SVG file."""
    shown = list(states())
    total = HOLD * len(shown)
    fade, hold, end = (100 * time / total for time in (FADE, HOLD, HOLD + FADE))
    appears = f"0%{{opacity:0}}{fade:.2f}%{{opacity:1}}"  # above the one before, which stays until it is covered
    style = (f"g.s{{opacity:0;animation:s {total:.1f}s linear infinite}}"
             f"@keyframes s{{{appears}{end:.2f}%{{opacity:1}}{end + .01:.2f}%{{opacity:0}}}}"
             f"@keyframes last{{{appears}{hold:.2f}%{{opacity:1}}{end:.2f}%{{opacity:0}}}}"  # it lies above the first
             + "".join(f"g.s{n}{{animation-delay:{n * HOLD:.1f}s}}" for n in range(len(shown)))
             + f"g.s{len(shown) - 1}{{animation-name:last}}"
             + "@media (prefers-reduced-motion:reduce){g.s{animation:none}g.s0{opacity:1}}"
             f"text{{font:15px sans-serif;fill:{plots.INK}}}.m{{font:14px monospace}}.t{{font-weight:bold}}"
             ".d{text-anchor:middle}.b{width:20px;height:30px}"
             + "".join(f".{name}{{fill:{colour}}}" for name, colour in COLOURS.values()))
    frames = [tag("g", _paper() + drawn + _text(24, HEIGHT - 18, said, "t"), **{"class": f"s s{n}"})
              for n, (_, drawn, said) in enumerate(shown)]
    inside = tag("title", "The bit explorer of lesson 01, moving") + tag("style", style) + _paper() + "".join(frames)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img">{inside}</svg>\n')


def _drawn(explorer: BitExplorer, used: str) -> str:
    """Controls and table of the explorer as it stands; what was used has a ring around it."""
    parts = [_text(24, 37, "Format"), _field(86, 130, explorer.fmt.name + " ▾", used == "fmt"),
             _text(250, 37, "Number"), _field(318, 190, explorer.controls["x"].value, used == "x")]
    for place, bit in enumerate(reversed(range(explorer.fmt.bits))):
        toggle, x = explorer.toggles[bit], 24 + place * SIDE
        look = {"class": f"b {COLOURS[toggle.button_style][0]}"} | _ring(used == str(bit))
        parts += [tag("rect", x=x, y=64, **look), _text(x + 10, 84, toggle.description, "d")]
    parts += [tag("rect", x=24, y=108, width=WIDTH - 48, height=150, fill="#F0F0F0"),
              tag("rect", x=24, y=108, width=4, height=150, fill=explorer.accent)]
    for n, (name, text) in enumerate(explorer._rows()):
        parts += [_text(42, 130 + 23 * n, name), _text(160, 130 + 23 * n, text, "m")]
    return "".join(parts)


def _field(x: int, width: int, text: str, used: bool) -> str:
    return (tag("rect", x=x, y=18, width=width, height=29, fill=plots.PAPER, **({"stroke": plots.GREY} | _ring(used)))
            + _text(x + 10, 37, text))


def _ring(used: bool) -> dict[str, object]:
    return {"stroke": plots.VERMILION, "stroke_width": 3} if used else {}


def _paper() -> str:
    return tag("rect", x=0.5, y=0.5, width=WIDTH - 1, height=HEIGHT - 1, rx=6, fill=plots.PAPER, stroke=plots.LINE)


def _text(x: int, y: int, inside: str, kind: str = "") -> str:
    return tag("text", html.escape(inside), x=x, y=y, **({"class": kind} if kind else {}))


if __name__ == "__main__":
    FILE.write_text(picture(), encoding="utf-8", newline="\n")
