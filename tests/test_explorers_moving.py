"""The README's moving picture: what the bit explorer shows, gentle, small, and still for who wants it still."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

import numpy as np

from helpers.explorers import moving
from helpers.explorers.numbers import flip_bits
from helpers.floats import BF16, FP4_E2M1, FP8_E4M3, FP16, FP32

PICTURE = moving.picture()
STATES = ElementTree.fromstring(PICTURE).findall("{http://www.w3.org/2000/svg}g")


def test_the_committed_picture_is_what_the_code_draws():
    assert moving.FILE.read_text(encoding="utf-8") == PICTURE, "run `make figures`"
    assert len(PICTURE) < 100_000


def test_each_state_is_what_the_explorer_shows():
    wanted = [flip_bits(0.1, fmt) for fmt in (FP32, FP16, BF16, FP8_E4M3, FP4_E2M1)]
    wanted += [flip_bits(0.5, FP4_E2M1), flip_bits(0.1, FP16), flip_bits(6552, FP16)]
    assert len(STATES) == len(wanted)
    for drawn, explorer in zip(STATES, wanted, strict=True):
        words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
        assert [text for row in explorer._rows() for text in row] == words[-13:-1]
        assert f"{explorer.fmt.name} ▾" in words and explorer.controls["x"].value in words
        assert words[4:4 + explorer.fmt.bits] == [t.description for t in explorer.toggles[:explorer.fmt.bits]][::-1]


def test_what_is_said_of_them_is_true():
    said = [drawn[-1].text for drawn in STATES]
    share = [100 * abs(flip_bits(0.1, fmt).value / 0.1 - 1) for fmt in (FP32, FP16, BF16, FP8_E4M3)]
    told = [float(re.search(r"off by ([\d.]+) %", line)[1]) for line in said[:4]]
    np.testing.assert_allclose(told, share, rtol=0.05)
    assert flip_bits(0.1, FP4_E2M1).value == 0 and "nothing of it is left" in said[4]
    assert flip_bits(6552, FP16).value == 65_536 * flip_bits(0.1, FP16).value
    assert "65,536 times" in said[7] and "65,536 times" in moving.ALT


def test_it_moves_gently_and_stands_still_where_that_is_asked():
    style = html.unescape(re.search("<style>(.*?)</style>", PICTURE)[1])
    delays = [float(x) for x in re.findall(r"animation-delay:([\d.]+)s", style)]
    assert min(np.diff(delays)) > 1 and moving.FADE >= 0.3, "less than one change in a second, and none of them sudden"
    assert f"animation:s {moving.HOLD * len(STATES):.1f}s linear infinite" in style
    assert "prefers-reduced-motion:reduce){g.s{animation:none}g.s0{opacity:1}}" in style
    assert "<script" not in PICTURE and "http" not in PICTURE.replace("http://www.w3.org/2000/svg", "")
