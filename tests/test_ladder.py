"""The ladder of properties, places and probes: each rung names what it is made for, and says nothing that is not so."""

import math
import time
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.exercises import ladder, places, probes
from helpers.exercises.compare import equal, show
from helpers.exercises.places import Trial
from helpers.exercises.quantities import Quantities

T = torch.tensor
E = T([1.5, -2.0, 0.5, 4.0, -3.5, 2.5])  # an expected answer with nothing special about it
M = T([[1.5, -2.0, 0.5], [4.0, -3.5, 2.5], [7.0, 0.25, -6.0]])
D = E.abs().double()
WHOLE = T([3, -2, 5, 7, -6, 1])


CASES = [
    (None, E, "kind", "returned None"),
    (E, None, "kind", "The answer is None here"),
    (E.half(), E, "kind", "the values are right once converted"),
    (2 * E.double(), E, "kind", "values differ as well"),
    (E.tolist(), E, "kind", "A list of 6 came"),
    (T([4.0]), 4.0, "kind", "`.item()`"),
    (4.0, 4, "kind", "`//` ints"),
    ("4", 4, "kind", "A str came"),
    (M[:2].T, M[:2], "kind", "lying on its side"),
    (E.view(2, 3), E, "kind", "the right numbers in order, but arranged"),
    (E[1:], E, "kind", "1 missing along dimension 0, the first"),
    (torch.zeros(7), torch.zeros(5), "kind", "2 too many along dimension 0, the last"),
    (torch.ones(7), E[:5], "kind", "along dimension 0 it is as long as `levels`, not as `x`"),
    (torch.cat([E, E[:2]]), E, "kind", "2 too many along dimension 0, the last ones"),
    (M[:, 1:], M, "kind", "1 missing along dimension 1, the first"),
    (M.max(), M, "kind", "one number for all of it"),
    (M, M.max(), "kind", "one number is asked for"),
    ({"a": 1}, {"a": 1, "b": 2}, "kind", "'b' is missing"),
    ({"a": 1, "c": 1}, {"a": 1}, "kind", "'c' is one too many"),
    ([1, 2], [1, 2, 3], "kind", "the last is missing"),
    ([2, 3], [1, 2, 3], "kind", "the first is missing"),
    ([1, 3], [1, 2, 3], "kind", "2 is missing, the rest is right"),
    (["a", "b", "x"], ["a", "b"], "kind", "the last is too many"),
    ([], [1], "kind", "nothing came"),
    ((E, M.half()), (E, M), "kind", "In the second of its 2 values"),
    ([1.0, 2.0], [1, 2], "kind", "floats"),
    ((T(4.0), 0.5), (4.0, 0.5), "kind", "In the first of its 2 values: a tensor of one number came"),
    (T([1.0, math.nan, 2.0]), E[:3], "finite", "NaN came at 1 of 3 places"),
    (E[:3], T([1.5, math.inf, 0.5]), "finite", "Infinity is right at 1 of 3"),
    (torch.zeros(6), E, "constant", "is zero"),
    (torch.ones(6), E, "constant", "is 1;"),
    (-E, E, "sign", "the wrong way round"),
    (E.abs(), E, "sign", "The signs are lost"),
    (-3, 3, "sign", "wrong way"),
    (E * T([1, -1, 1, 1, 1, 1]), E, "sign", "some of the signs"),
    (8 * E, E, "scale", "8 times too large, everywhere alike: that is `r`."),
    (E / 2, E, "scale", "2 times too small"),
    (E / 4, E, "scale", "4 times too small"),
    (E * 7.1, E, "scale", "7.1 times"),
    (-2 * E, E, "scale", "with the sign the wrong way round"),
    (E + 1, E, "offset", "1 too large, everywhere alike: off by"),
    (E - 0.3, E, "offset", "0.3 too small"),
    (WHOLE + 8, WHOLE, "offset", "which is `r`"),
    (7, 8, "offset", "off by one"),
    (T([3, 254, 5, 7, 250, 1]), WHOLE, "wrapped", "by a multiple of 256"),
    (E.flip(0), E, "order", "backwards"),
    (E.roll(1), E, "order", "one place later"),
    (E.roll(-1), E, "order", "one place earlier"),
    (M.T, M, "order", "transposed"),
    (T([-2.0, 1.5, 4.0, 0.5, 2.5, -3.5]), E, "order", "pair of neighbours"),
    (E.sort().values, E, "order", "sorted"), (E.sort(descending=True).values, E, "order", "sorted"),
    (E[[2, 0, 1, 3, 5, 4]], E, "order", "another order"),
    (torch.cat([T([9.0]), E[:-1]]), E, "shifted", "one place later"),
    (torch.cat([E[1:], T([9.0])]), E, "shifted", "one place earlier"),
    (15 - WHOLE, WHOLE, "straight", "always add up to 15"),
    (WHOLE - T([0, 0, 1, 0, 1, 0]), WHOLE, "rounding", "too low and none too high"),
    (WHOLE + T([0, 0, 1, 0, 1, 0]), WHOLE, "rounding", "too high and none too low"),
    (WHOLE + T([0, 0, -1, 0, 1, 0]), WHOLE, "rounding", "too near to zero"),
    (WHOLE + T([0, 0, 1, -1, 0, 0]), WHOLE, "rounding", "some too high and some too low"),
    (E.clamp(-2, 3), E, "clipped", "1 are held at -2 and 1 are held at 3"),
    (E**2, E, "form", "square"),
    (1 / E, E, "form", "upside down"),
    (E.abs().sqrt(), E.abs(), "form", "root"),
    (E.trunc(), E, "form", "cut off"),
    (E.bfloat16().float() * 1.001, E, "scale", "1.001 times"),
    (3 * E + 1, E, "straight", "times 3 plus 1"),
    (E + 0.5 + 1e-4 * E.sign(), E, "straight", "0.5 too large, everywhere nearly alike"),
    (1.00008 * T([10.0, 12, 14, 20]) - 3, T([10.0, 12, 14, 20]), "straight", "3 too small, everywhere nearly"),
    (1.00003 * E - 0.757, E, "straight", "0.76 too small, everywhere nearly alike"),
    (E + T([1e-4, 0, 2e-4, 0, 0, 1e-4]), E, "precision", "Right to"),
    ((E, 2 * M), (E, M), "scale", "The second value is wrong, the rest is right"),
    ((M[0], E[:3]), (E[:3], M[0]), "order", "exchanged"),
    (["b", "a"], ["a", "b"], "order", "exchanged"),
    (["c", "b", "a"], ["a", "b", "c"], "order", "backwards"),
    ((52, 26), (52, 20), "part", "The second value is wrong, the rest is right."),
    (38, 30, "offset", "8 too large, which is `r`"),
    (math.inf, 3.0, "finite", "Infinity came, where a number belongs"),
    ([(E, 1), (E, 2)], [(E, 2), (E, 2)], "offset", "In the first value the second value is wrong"),
    (0.56, 0.5625, "form", "rounded to 2 decimals"), (4, 7, "form", "the largest power of two"),
    (31743.0, 65504.0, "form", "the bit pattern of what was expected, in float16"),
    (E.half() * 1.001, E.half(), "precision", "rounded to float16 on the way already"),
    (T([1.5, 2.7, 3.1]).half().float(), T([1.5, 2.7, 3.1]), "precision", "2 of 3 numbers came rounded to float16"),
    (D.exp(), D, "form", "e to the power"),
    ("abc ", "abc", "text", "white space at its ends"),
    ("ABC", "abc", "text", "capitals"),
    ("a b\nc", "a bc", "text", "white"),
    ("xabc", "abc", "text", "more than the answer"),
    ("the town", "the town of", "text", "A part is missing"),
    ("cab", "abc", "order", "letters"),
    ({"a": 2, "b": 5}, {"a": 1, "b": 5}, "offset", "The value of 'a' is wrong, the rest is right"),
]
SIGNS = T([1, -1, 1, -1, 1, -1])
HIGH = T([[1.5, -2.0], [4.0, -3.5], [7.0, 0.25], [0.5, 2.5]])
MORE = [  # the same rungs at their ends, where one step further another sentence is true, or none
    (None, None), (True, 1), ("a", None), (M, [1.0]), (T([[4.0]]), E), (torch.ones(2, 3), torch.ones(7)), (HIGH, E),
    (T([[1.0, 2], [3, 4], [5, 6]]), T([[1.0, 2, 3], [4, 5, 6]])), (torch.zeros(3, 1), M[:2]), (M[1:], M), (M[:2], M),
    (torch.cat([M, M]), M), (torch.cat([M[1:], M]), M), (torch.zeros(9), E), (torch.zeros(5), E[:4]), (M[0], M),
    (torch.zeros(2, 2), torch.zeros(3, 3)), (E.double(), E), (WHOLE.float(), WHOLE), (T(2.0), T([2.0])),
    ([1], {"a": 1}), ({"b": 1}, {"a": 1}), ({"a": "x"}, {"a": 1}), ({}, {"a": 1}), (("a",) * 5 + (1,), ("a",) * 6),
    (("a",) * 4 + (1, "a"), ("a",) * 6), (["a", "b"], ["a", 1]), ([1], []), ([1, 2], [1, 2, 3, 4]),
    ([3, 4], [1, 2, 3, 4]), ([1, 2, 3, 4], [1, 2]), ([5, 6, 7], [1, 2]), ([1, 2, 3], [1, 3]), ([9, 1, 2], [1, 2]),
    ([1.0], [1]), ([1, 2.0], [1, 2]), ((), (1,)), (math.nan, 3.0), (T([math.inf, math.nan, 1.0]), E[:3]),
    (3.0, math.nan), (E[:3], T([1.5, math.nan, math.inf])), (torch.ones(3), E[:3]), (torch.ones(2), E[:2]),
    (torch.ones(3), torch.zeros(3)), (-torch.ones(6), E), (T([0.0, 1, 2]), T([0.0, 0, 0])),
    (T([0.0, -1, 2, 5]), T([0.0, 1, -2, -5])), (T([0.0, 1, -2, 5]), T([0.0, 1, 2, 5])), (E * 1.0005, E),
    (E * 1.002, E), (E * -1.002, E), (6.0, 3.0), (1.5, 3.0), (-6.0, 3.0), (21.3, 3.0), (E * 0, E),
    (T([0.0, 2, 4]), T([1.0, 1, 2])), (T([0.0, 2, 4, 7]), T([0.0, 1, 2, 3.5])), (E - 1, E), (E + 0.5, E),
    (E + 1e-6, E), (11, 3), (11.5, 3.0), (WHOLE - 8, WHOLE), (4.0, 3.0), (2, 3),
    (T([255, 2, -3, 4, 7]), T([-1, 2, -3, 4, 7])), (T([256, 2, -3, 4, 7]), T([0, 2, -3, 4, 7])),
    (T([-128, 2, 3, 4, 7]), T([128, 2, 3, 4, 7])), (T([-1, 2, 3, 4, 7]), T([65535, 2, 3, 4, 7])),
    (T([-1, 2, 3, 4, 7]), T([2**32 - 1, 2, 3, 4, 7])), (T([-1, 2, 3, 4, 7]), T([15, 2, 3, 4, 7])), (-1, 255),
    (T([-128, 2, 3, 4, 7]), T([-384, 2, 3, 4, 7])), (T([-129, 2, 3, 4, 7]), T([-385, 2, 3, 4, 7])),
    (HIGH.flip(0), HIGH), (HIGH.flip(1), HIGH), (HIGH.roll(1, 0), HIGH), (HIGH.roll(-1, 0), HIGH),
    (HIGH[[1, 0, 3, 2]], HIGH), (HIGH.T.reshape(4, 2), HIGH), (M.T.contiguous().roll(1, 0), M),
    (E[:2].flip(0), E[:2]), (T([2.0, 1.0, 3.0]), T([1.0, 2.0, 3.0])), (T([3.0, 1.0, 2.0]), T([1.0, 2.0, 3.0])),
    (E[:1] + 0.3, E[:1]), (torch.cat([T([9.0]), E[:3]]), E[:4]), (torch.cat([T([9.0]), E[:2]]), E[:3]),
    (T([7.0, 1, 1, 1]), T([1.0, 1, 1, 1])), (torch.cat([HIGH[1:], HIGH[:1] + 3]), HIGH),
    (T([1, 2, 3, 5]), T([1, 2, 3, 4])), (T([1, 2, 4]), T([1, 2, 3])), (T([1, 2, 3, 6]), T([1, 2, 3, 4])),
    (T([1.5, 2.0, 3.0, 5.0]), T([1.5, 2.0, 3.0, 4.0])), (T([0, 3, 2, 5]), T([1, 2, 3, 4])),
    (E[:4].clamp(-1, 9), E[:4]), (E[:4].clamp(-1, 2), E[:4]), (E[:3].clamp(-1, 1), E[:3]), (E.clamp(-9, 1.5), E),
    (0.25, 0.5), (0, 1), (0.5, 2.0), (3.0, 9.0), (1 - E, E), (D.log(), D), (D.log2(), D), (2**D, D), (E.round(), E),
    (E.floor(), E), (E.round(decimals=1), E + 0.04), (0.5, 0.5625), (0.562, 0.5625 - 1e-4), (-4.0, 0.1),
    (T(0x3FC0), T(1.5)), (T(0x3FC00000), T(1.5)), (8, 15), (T(8.0), T(13.0)), (2 - 3 * E, E), (E[:3] * 3 + 1, E[:3]),
    (T([3.0, -1, 5, 0]), T([1.0, 5, -1, 4])), (E + T([1e-2, 0, 0, 0, 0, 0]), E), (E + T([3e-2, 0, 0, 0, 0, 0]), E),
    (E * (1 + T([1, -1, 1, -1, 1, -1]) * 2**-9), E), (E * (1 + T([1, -1, 1, -1, 1, -1]) * 2**-12), E),
    (E * (1 + T([1, -1, 1, -1, 1, -1]) * 2**-10.5), E), (E * (1 + T([1, -1, 1, -1, 1, -1]) * 2**-10), E),
    (E.half() + T([0.1, 0, 0, 0, 0, 0]).half(), E.half()),
    (E.half() + T([0.3, 0, 0, 0, 0, 0]).half(), E.half()), (0.1015625, 0.1015), ((1, 2, 3), (1, 5, 9)),
    ((1, "a", "c"), (1, "b", "d")), ({"a": 1, "b": "y"}, {"a": 2, "b": "x"}), ((1, (2, "x")), (1, (2, "y"))),
    (("ab", 1), ("ba", 1)), ((E, 1), (E, 2)), (["a"], ["b"]), ("a", "b"), ("", "a"), ("xa", "a"), ("a", "xa"),
    ("abcde", "abcdefgh"), ("abcdef", "abcdefgh"), ("abcdef", "abcdefghi"), ("abc", ""),
    (["a", "b", "c"], ["a", "c", "b"]), (["a ", "b"], ["a", "b"]), (["x", "b", "C"], ["x", "b", "c"]),
    (["a", "b", "c"], ["a", "b", "d"]), ((3, 2, 1), (1, 2, 3)), (["a", ["b", "C"]], ["a", ["b", "c"]]),
    (T([1e-6, 2.0, 4, 7]), T([0.0, 1, 2, 3.5])), ((1, ("p", "y", "z")), (1, ("p", "u", "w"))),
    ((torch.ones(7), 1), (E[:5], 1)), ({"a": torch.ones(7)}, {"a": E[:5]}), (E.double() * (1 + 1e-6), E),
    (E.flip(0).view(2, 3), E), (torch.cat([E, E[:1]]), E), (torch.ones(11), E), ({}, {"a": 1, "b": 2}),
    ({"a": 1, "b": 2, "c": 3}, {"a": 1}), (["a", "b", "c", "d", 5], ["a", "b", "c", "d", "e"]),
    ([1.0000001, 2.0], [1.0, 2.0, 3.0]), ([1.0000001, 3.0], [1.0, 2.0, 3.0]), (T([math.nan, 1.0]), E[:2]),
    (torch.zeros(2), E[:2]), (0.0, 3.0), (2 * E * (1 + 3e-5 * SIGNS), E), (E * 7.12345, E), (14.0003, 7.0),
    (1000 * E + 0.1, 1000 * E), (E + 1 / 3, E), (T([2.0, 3, 3, 4]), T([1.5, 2, 3, 4])),
    (T([1, -2, 4, 7, -6, 1]), T([0, -2, 5, 7, -6, 1])), (T([-1, -1, 5, 7, -6, 1]), T([0, -2, 5, 7, -6, 1])),
    (math.e, 1.0), (0.1235, 0.12346), (0.1, 0.12),
    (T([0.12, 1.23, 3.14]), T([0.12345, 1.23456, 3.14159])),
    (T([1.23, 2.35, 0, 0, 0]), T([1.234, 2.346, 1e-3, 2e-3, 0])),
    (T([1.23, 2.35, 0, 0]), T([1.234, 2.346, 1e-3, 2e-3])), (0.35, 0.350001), (E.clamp(1, 9), E),
    (T([10, 3, 5, 0]), T([0, 1, 2, 10])), ((3 * E + 1) * (1 + 2e-5 * SIGNS), E), (1.23456 * E + 7.65432, E),
    (E * T([1, 1, 0, 1, 1, 1]) * (1 + 2**-9 * SIGNS), E * T([1, 1, 0, 1, 1, 1])), (E * (1 + 1.5 * 2**-9 * SIGNS), E),
    (E * (1 + 2**-9 * T([1, 0, 1, 0, 0, 1])), E), (E * (1 - 2**-9 * T([1, 0, 1, 0, 0, 1])), E),
    (T([math.inf, 1.5, 2.7]).half().float(), T([math.inf, 1.5, 2.7])), (T([1.5, 2.7]).half().float(), T([1.5, 2.7])),
    (E + 0.25 + T([1e-4, 0, 2e-4, 0, 0, 1e-4]), E + 0.25),
    (WHOLE.double() + T([1e-3, 0, 0, 0, 1e-3, 0]), WHOLE.double()),
    (("a",) * 6, ("a",) * 5 + ("b",)), ((1, 2, 3, 4, "x"), (1, 2, 3, 4, "y")), ([10, 3, 5, 0], [0, 1, 2, 10]),
    ((1.0000001, "x"), (1.0, "y")), ((8 * E, "x"), (E, "x")), ((-E, "x"), (E, "x")), ("xaya", "a"),
    ("abcdef", "abcdefabcdef"), (["A"], ["a"]), ([("b", 1.0000001), ("b", 2.0)], [("b", 2.0), ("b", 1.0)]),
    ([1.0000001, "C"], [1.0, "c"]), (T([1.0, 1.00005, 1, 1]), T([0.0, 2, 1, 3.5])),
    (T([1e300, 2e-320], dtype=torch.float64), T([1e300, 1e-320], dtype=torch.float64))]
INPUTS = [("r", 8), ("x", torch.ones(5, 9)), ("levels", torch.ones(7))]
SENTENCES = Path(__file__).with_name("sentences.txt")


@pytest.mark.parametrize("got, expected, rung, said", CASES)
def test_rung(got, expected, rung, said):
    found = ladder.inside(got, expected, Quantities(INPUTS))
    assert found and found[0] == rung and said in found[1], found


def sentences() -> str:
    """What is said of each of these answers, set out to be read."""
    lines = []
    for got, expected, *_ in [*CASES, *MORE]:
        rung, said = ladder.inside(got, expected, Quantities(INPUTS)) or ("nothing", "")
        lines.append(f"{show(got)}  came for  {show(expected)}\n    {rung}: {said}".rstrip(": ") + "\n")
    return "".join(lines)


def test_every_sentence_to_the_letter():
    """Students read them. After a wanted change `python tests/test_ladder.py` writes the file again: read it."""
    assert sentences().splitlines() == SENTENCES.read_text(encoding="utf-8").splitlines()


def test_a_size_is_asked_of_one_kind_only_and_a_rung_may_be_left_out():
    by = Quantities(INPUTS, want="offset")
    assert ladder.scale(3 * E, E, by) is None and ladder.scale(3 * E, E, Quantities(INPUTS, want="scale"))
    by = Quantities(INPUTS, want="scale")
    assert ladder.offset(E + 3, E, by) is None and ladder.offset(E + 3, E, Quantities(INPUTS, want="offset"))
    for got, expected in ((1.0, 0.0), (0.0, 1.0)):  # one number, and 0 or 1: some function always fits
        assert ladder.numbers(got, expected)[0] == "offset"
        assert ladder.numbers(got, expected, Quantities((), skip={"offset"})) is None


@pytest.mark.parametrize("got, expected", [(E, "a"), ("a", E), (E, E[:5])])
def test_only_numbers_in_one_shape_are_numbers(got, expected):
    assert ladder.numbers(got, expected) is None


@pytest.mark.parametrize("got, expected", [(3, "a"), ("a", 3), (3, [1, 2]), ([1, 2], 3)])
def test_only_text_is_text(got, expected):
    assert ladder.text(got, expected) is None


def test_two_kinds_of_one_name_are_not_told_apart():
    assert ladder.kind(PureWindowsPath("a"), PurePosixPath("a")) is None


@pytest.mark.parametrize("value, shape", [
    (3, ()), (2.5, ()), ([1, 2], (2,)), (((1, 2), (3, 4.5)), (2, 2)), (M.half(), (3, 3)), (T([]), (0,))])
def test_numbers_are_read_as_an_array(value, shape):
    made = ladder.array(value)
    assert made.shape == shape and made.dtype == torch.float64


@pytest.mark.parametrize("value", [True, "a", None, [], [[1], [2, 3]], ["a"], [None], 10**400, {"a": 1}, {1}])
def test_what_is_no_array(value):
    assert ladder.array(value) is None


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8), st.data())
@settings(deadline=None, max_examples=300)
def test_a_factor_or_an_offset_that_is_named_is_there(numbers, data):
    """Whatever comes: if the ladder speaks of the sign, a factor or an offset, undoing it gives the answer."""
    expected = T(numbers, dtype=torch.float64)
    change = data.draw(st.sampled_from([lambda t: -t, lambda t: 3 * t, lambda t: t + 2, lambda t: t.flip(0),
                                        torch.round]))
    got = change(expected)
    found = ladder.numbers(got, expected)
    if equal(got, expected, 1e-9):
        return
    if found and found[0] == "order":
        assert equal(got.sort().values, expected.sort().values, 1e-4)
    if found and found[0] == "sign":
        assert equal(got.abs(), expected.abs(), 1e-4)
    if found and found[0] == "scale":
        assert equal(got * (expected.norm() / got.norm()), expected, 1e-3) or equal(
            -got * (expected.norm() / got.norm()), expected, 1e-3)
    if found and found[0] == "offset":
        amount = (got - expected).mean()
        assert (got - amount - expected).abs().max() <= 1e-3 * amount.abs()


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=4) | st.just(torch.ones(2, 3)),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(
        st.text(max_size=2), inner, max_size=2), max_leaves=10)


@given(anything, anything)
@settings(deadline=None, max_examples=300)
def test_no_pair_of_answers_breaks_the_ladder(got, expected):
    if not equal(got, expected, 1e-6):
        found = ladder.inside(got, expected)
        assert found is None or found[1].endswith(".") or found[1].endswith("?"), found
    places.common(Trial([("x", got)], got, expected), [], 1e-6)
    list(places.traits([("x", got)]))
    list(probes.variants("x", got, [expected], lambda x: x))


@pytest.mark.parametrize("change, said", [
    (lambda x, y: torch.where(x < 0, y + 1, y), "where `x` is negative"),
    (lambda x, y: torch.where(x == 0, y + 1, y), "where `x` is zero"),
    (lambda x, y: torch.cat([y[:-1], y[-1:] + 1]), "at the last place"),
    (lambda x, y: torch.cat([y[:1] + 1, y[1:]]), "at the first place"),
    (lambda x, y: torch.where(torch.arange(9) % 2 == 1, y + 1, y), "at every odd index"),
    (lambda x, y: torch.where(torch.arange(9) >= 5, y + 1, y), "from index 5 on"),
    (lambda x, y: torch.where(torch.arange(9) >= 8, y + 1, y), "at the last place"),
])
def test_places(change, said):
    x = T([1.0, -1.0, 0.0, 2.0, 3.5, -2.0, 4.0, 0.0, 5.0])
    y = T([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0])
    trials = [Trial([("x", x * n)], change(x * n, y * n), y * n) for n in (1, 2, 3, 4)]
    assert said in places.common(trials[0], trials[1:], 1e-6)
    assert places.common(Trial([], *[y[:4]] * 2), [], 1e-6) is None, "nothing is wrong"


@pytest.mark.parametrize("got, expected", [(E, None), (None, E), (E, E[:5]), (T(1.0), T(2.0)), ("a", "b")])
def test_places_are_asked_for_only_where_there_are_some(got, expected):
    assert Trial([], got, expected).wrong(1e-6) is None


def found(wrong, right, times=8):
    trial = Trial([], wrong, right)
    return places.common(trial, [trial] * times, 1e-6)


def test_places_of_a_matrix():
    assert found(M + torch.eye(3), M) == "Right except on the diagonal."
    wrong = M.clone()
    wrong[:, 0] += 1
    assert found(wrong, M) == "Right except in the first column."
    assert found(wrong, M, times=0) is None, "one input alone is chance"


def test_places_without_a_rule_say_nothing():
    wrong = M.clone()
    wrong[0, 1] += 1
    wrong[1, 2] += 1
    wrong[2, 0] += 1
    assert found(wrong, M) is None
    assert found(M + 1, M) is None, "all of them are wrong: that is no place"
    right_here = Trial([], M + torch.eye(3), M)
    assert places.common(right_here, [right_here, Trial([], wrong, M)], 1e-6) is None, "another input breaks the rule"


def of(**inputs):
    return list(inputs.items())


def test_across():
    right = [of(x=torch.ones(n, n), r=n) for n in range(2, 20)]
    wide = [of(x=torch.ones(n, n + 1), r=n) for n in range(1, 12)]
    assert places.across(right, wide) == (
        "Wrong only where `x` is not square, and there each time: right for all 18 inputs without.")
    some = [of(x=torch.ones(2, 3), r=2)]
    assert places.across(right + some, wide) == (
        "Wrong only where `x` is not square: right for all 18 inputs without.")
    assert places.across(right, wide[:2]) is None, "two wrong ones are no pattern"
    many = [of(x=torch.ones(n % 9 + 1, n % 9 + 1), r=n) for n in range(90)]
    assert places.across(many, wide[:2]) is None, "beside however many right ones"
    assert "is not square, and there each time: right for all 90" in places.across(many, wide[:3])
    assert places.across(right[:3], wide) is None, "nor are three right ones"
    assert places.across(right, [of(x=torch.ones(n, n), r=n) for n in (2, 3, 4)]) is None
    assert "`i` is not `j`" in places.across([of(i=n, j=n) for n in range(1, 20)],
                                             [of(i=n, j=2 * n + n % 3) for n in range(1, 20)])


def scaled(x: torch.Tensor, bits: int = 8, flip: bool = False) -> torch.Tensor:
    """A stand-in for a reference solution."""
    return (x.flip(0) if flip else x) * 2.0**bits


OTHERS = [(E, 4, True), (E, 8, False), (E, 3, False)]


@pytest.mark.parametrize("answer, args, said", [
    (lambda x, bits, flip: scaled(x, 8, flip), (E, 4, False), "as if `bits` were 8, its default"),
    (lambda x, bits, flip: scaled(x, bits + 1, flip), (E, 4, False), "as if `bits` were one more"),
    (lambda x, bits, flip: scaled(x, 3, flip), (E, 7, False), "as if `bits` were 3"),
    (lambda x, bits, flip: scaled(x, {4: 5, 8: 2, 3: 7}[bits], flip), (E, 4, True), None),  # true of one input only
    (lambda x, bits, flip: scaled(x.abs(), bits, flip), (E, 4, False), "as if `x` held magnitudes only (no signs)"),
    (lambda x, bits, flip: scaled(x, bits, False), (E, 4, True), "as if `flip` were False, its default"),
    (lambda x, bits, flip: x, (E, 4, True), None),
])
def test_as_if(answer, args, said):
    assert probes.as_if(answer, scaled, args, OTHERS, 1e-6) == said


def test_what_explains_most_of_the_wrong_answers_is_told_though_others_are_right():
    others = [*((E, bits, True) for bits in (5, 10, 11)), *((E, bits, False) for bits in (5, 7, 10, 11))]

    def only_flipped(x, bits, flip):
        return scaled(x, 3 if flip else bits, flip)
    assert probes.as_if(only_flipped, scaled, (E, 7, True), others, 1e-6) == "as if `bits` were 3"


def power(x: torch.Tensor, bits: int) -> torch.Tensor:
    return x * 2.0**bits


@pytest.mark.parametrize("wrong, right, told", [
    ("yn", "", True), ("ynn", "", False),  # it must explain half of the wrong answers
    ("yn", "yn", True), ("y", "yynn", True), ("yy", "ynn", False),  # and half of the right ones
    ("yyy", "nnn", True), ("yyn", "nnn", False), ("yy", "nn", False)])  # or most of at least three wrong ones
def test_an_explanation_must_hold_for_enough_of_the_other_inputs(wrong, right, told):
    """`bits` = 3 foretells 3 (y) and not 5 (n), where it is wrong; where it is right, an x of 0 (y) and not another."""
    odd = D + 0.7
    cases = [(D, 11 + n, power(D, 3) if here == "y" else odd) for n, here in enumerate(wrong)]
    cases += [(D * (here == "n"), 21 + n, power(D * (here == "n"), 21 + n)) for n, here in enumerate(right)]
    answers = {7: power(D, 3), **{bits: answer for _, bits, answer in cases}}
    found = probes.as_if(lambda x, bits: answers[bits] * (1 + 1e-7), power, (D, 7), [case[:2] for case in cases], 1e-6)
    assert found == ("as if `bits` were 3" if told else None)


def test_of_several_explanations_the_one_is_told_that_explains_the_most():
    most = T([16.0, -8.0, 4.0])  # with 7 bits, 3 bits are the same as x divided by its largest magnitude
    others = [(most, 7), (most / 2, 7), (2 * most, 7)]
    for answer, said in ((lambda x, bits: power(x, 3), "`bits` were 3"),
                         (lambda x, bits: power(x / x.max(), bits), "`x` were divided by its largest magnitude")):
        assert probes.as_if(answer, power, (most, 7), [*others, (most, 7)], 1e-6) == f"as if {said}"


@pytest.mark.parametrize("x, told", [(E, True), (E[:3], True), (E[:2], False), (1.5, False)])
def test_without_another_input_three_numbers_are_no_chance(x, told):
    assert probes.as_if(lambda x, bits: power(x, 3), power, (x, 7), [], 1e-6) == (
        "as if `bits` were 3" if told else None)


def test_a_change_that_changes_nothing_explains_nothing():
    x = torch.arange(3.0)  # sorted, whole and not negative
    assert probes.as_if(lambda x, bits: power(x, bits) * (1 + 2e-7), power, (x, 7), [], 0.0) is None


def test_no_more_is_asked_than_a_few_calls(monkeypatch):
    asked = []

    def counted(bits):
        asked.append(bits)
        return T([1.0, 2, 3]) * 2.0**3
    inputs = [(bits,) for bits in range(11, 31)]

    def alone(bits):
        return T([1.0, 2, 3]) * 2.0**bits
    assert probes.as_if(counted, alone, (7,), inputs, 1e-6) == "as if `bits` were 3" and len(asked) == 1 + 10
    asked.clear()
    assert probes.ignored(counted, alone, inputs, 1e-6) == "bits" and len(asked) == 5 * (1 + 4)
    asked.clear()
    assert probes.as_if(lambda bits: counted(bits) + 0.1, alone, (7,), inputs, 1e-6) is None
    assert asked == [7], "where nothing fits here the others need not be asked"
    monkeypatch.setattr(probes, "TRIES", 3)
    assert probes.as_if(counted, alone, (7,), inputs, 1e-6) is None, "it would be a later one"


def test_a_loop_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr(probes, "SECONDS", 0.05)

    def endless():
        while True:
            pass
    began = time.monotonic()
    assert probes.safely(endless, ()) is probes.NOTHING and time.monotonic() - began < 9


def test_unread(monkeypatch):
    names = ["x", "bits", "flip"]
    assert probes.unread(lambda x, b, f: x * f, names) == "bits"
    assert probes.unread(lambda x, b, f: [n * b + f for n in x], names) is None, "read in an inner function, too"
    assert probes.unread(lambda *x: 1, names) is None and probes.unread(len, names) is None
    assert probes.unread(lambda x, bits, flip, more=1: x * bits * flip, names) is None, "one of its own has no name"
    steps = [SimpleNamespace(opname="LOAD_FAST_LOAD_FAST", argval=("x", "f"))]  # as Python 3.13 has them
    monkeypatch.setattr(probes.dis, "get_instructions", lambda code: steps)
    assert probes.unread(lambda x, b, f: x * f, names) == "bits"


def test_unsteady():
    assert probes.unsteady(lambda x: x + torch.rand(6), (E,)) and not probes.unsteady(lambda x: x + 1, (E,))
    assert not probes.unsteady(lambda x: 1 / 0, (E,))
    for values, unsteady in ((1, 1, 2), True), ((1, 1, 1, 2), False):  # it is called three times
        left = iter(values)
        assert probes.unsteady(lambda x, left=left: next(left), (E,)) is unsteady


def test_ignored():
    def find(answer):
        return probes.ignored(answer, scaled, OTHERS, 1e-6)
    assert find(lambda x, bits, flip: scaled(x, 8, flip)) == "bits"
    assert find(lambda x, bits, flip: T([1.0])) == "x"
    assert probes.ignored(lambda x, bits, flip: T([1.0]), scaled, OTHERS[:1], 1e-6) is None, "one input alone"
    assert probes.ignored(lambda x, bits, flip: T([1.0]), scaled, OTHERS[:2], 1e-6) == "x"
    assert find(scaled) is None
    assert find(lambda x, bits, flip: scaled(x, 8, flip) * (1 + bits / 100)) is None, "an effect, be it small"
    assert probes.ignored(lambda x, bits: x + 1, lambda x, bits: 2 * x, [(E, 4), (M, 5)], 1e-6) is None, (
        "what has no effect on the right answer may be ignored")
    some = [(E, 4), *OTHERS]  # the first without the last argument
    assert probes.ignored(lambda x, bits=8, flip=False: scaled(x, bits), scaled, some, 1e-6) == "flip"
    assert find(lambda x, bits, flip: 1 / 0) is None
    assert find(lambda x, bits, flip: scaled(x, 8 if flip else bits, flip)) is None, "without effect on one input only"


if __name__ == "__main__":
    SENTENCES.write_text(sentences(), encoding="utf-8")
