"""How values are written out for a reader, which quantities of an input are named, and what shares memory."""

import math
import tempfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from helpers.exercises import compare, draws, ladder, running
from helpers.exercises.quantities import Quantities, numbers

T = torch.tensor


@pytest.mark.parametrize("value, text", [
    (True, "True"), (np.True_, "True"), (3, "3"), (np.int64(-3), "-3"), (0.1 + 0.2, "0.3"), (1e20, "1e+20"),
    (1234567.8, "1234568.0"), (-2.0, "-2.0"), (math.nan, "nan"), ("a'b", '"a\'b"'), (None, "None"),
    ([1, 2.5, "x"], "[1, 2.5, 'x']"), ((1,), "(1,)"), ((1, 2), "(1, 2)"), ((), "()"), ([], "[]"),
    ({"a": [1], 2: 0.5}, "{'a': [1], 2: 0.5}"), (Path("/tmp/some/folder"), "…/folder"),
    (T([1, 2]), "[1, 2] (a torch.int64 tensor of shape (2,))"),
    (torch.zeros(13), "a torch.float32 tensor of shape (13,)"),
    (torch.zeros(3, 4), f"[{', '.join(['[0.0, 0.0, 0.0, 0.0]'] * 3)}] (a torch.float32 tensor of shape (3, 4))"),
    (torch.nn.Linear(2, 2), "a Linear"), (object(), "an object"), ([object()], "[an object]"),
    (list(range(41)), compare._repr.repr(list(range(41)))), ([0] * 40, f"[{', '.join(['0'] * 40)}]"),
    (["x" * 50] * 10, f"[{', '.join([repr('x' * 50)] * 10)}]"[:300] + " …"), ("x" * 298, repr("x" * 298)),
    ({n: 0.1 + 0.2 for n in range(20)}, str({n: 0.3 for n in range(20)})),
    ([0.1 + 0.2] * 40, str([0.3] * 40)),
    ({n: 0 for n in range(21)}, compare._repr.repr({n: 0 for n in range(21)})),
    (f"{tempfile.gettempdir()}/some/file.json", "'…/file.json'"),
])
def test_show(value, text):
    assert compare.show(value) == text


def test_numbers_in_hex_and_to_digits():
    assert [compare.number(n, 4) for n in (255, 0, -1, 0x12345, 1.5)] == ["0x00ff", "0x0000", "-1", "0x12345", "1.5"]
    assert compare.show({"a": (255, [16])}, 2) == "{'a': (0xff, [0x10])}" and compare.number(1 / 3, digits=3) == "0.333"
    assert compare.show(T([254]), 2) == "[0xfe] (a torch.int64 tensor of shape (1,))"


@pytest.mark.parametrize("value, text", [
    (None, "None"), ([1, 2], "a list of 2"), ((), "a tuple of 0"), ({1}, "a set of 1"), ({"a": 1}, "a dict of 1"),
    (3, "an int"), ("abc", "a str"), (0.5, "a float"), (PurePosixPath("a"), "a Path"), (ValueError(), "a ValueError"),
    (torch.ones(2, 3).half(), "a torch.float16 tensor of shape (2, 3)"), (OSError(), "an OSError"),
    (type("X", (), {})(), "a X"),
])
def test_describe(value, text):
    assert compare.describe(value) == text


def test_differences_are_counted_and_the_largest_is_told():
    got, expected = [T([1.0, 5, 3]), {"a": 2.5, "b": 7}], [T([1.0, 2, 2]), {"a": 2.0, "b": 7}]
    found = compare.differences(got, expected)
    assert (found.count, found.total, found.where, found.came, found.wanted, found.largest) == (3, 5, "[0][1]", 5, 2, 3)
    found = compare.differences({"a": [1, 9.5]}, {"a": [1, 2]})
    assert (found.count, found.total, found.where, found.largest) == (1, 2, "['a'][1]", 7.5)
    found = compare.differences(["a", "c"], ["a", "b"])
    assert (found.count, found.total, found.came, found.wanted, found.largest) == (1, 2, "c", "b", None)
    found = compare.differences(T([[1.0, math.inf], [0, 4]]), T([[1.0, 2], [0, 3]]))
    assert (found.where, found.came, found.largest) == ("[0, 1]", math.inf, 1), "infinity is no largest error"
    assert compare.differences([T(1.0)], [T(2.0)]).where == "[0]" and compare.rows(3, 3, 0.0) == (("came", "3"),)
    assert compare.differences(T([1.0]), T([1.25])).largest == compare.differences(1.0, 1.25).largest == 0.25
    assert compare.differences([1], [1, 2]) is compare.differences([1], [1]) is None
    assert compare.differences([T([1.0])], [T([1])]) is None
    assert compare.rows([1, 3], [1, 2], 0.0)[-1] == (
        "differ", "1 of 2; first at [1]: 3 came, 2 expected; largest error 1")
    assert compare.rows(3, 4, 0.0) == (("came", "3"), ("expected", "4")), "where there is one value, that says it"
    assert compare.rows([1, 32], [1, 33], 0.0, 4)[-1][1] == "1 of 2; first at [1]: 0x0020 came, 0x0021 expected"
    assert compare.rows([1, 32.0], [1, 33.0], 0.0)[-1][1].startswith("1 of 2; first at [1]: 32.0 came, 33.0 expected")
    for near in ([1.0, 2.0], T([1.0, 2.0])):  # the first is right, within the tolerance
        wanted = T([1.00001, 3]) if isinstance(near, torch.Tensor) else [1.00001, 3.0]
        assert compare.differences(near, wanted, 1e-4).count == 1 and compare.differences(near, wanted).count == 2
        assert compare.rows(near, wanted, 1e-4)[-1][1].startswith("1 of 2; first at [1]: ")
    close = compare.rows(1.0, 1.0 + 2**-40, 0.0)  # alike to seven digits
    assert close == (("differ", "1 of 1; 1 came, 1.0000000000009095 expected; largest error 9.09e-13"),)


def test_memory_that_is_shared():
    x, numbers, layer = torch.ones(4), [1, 2], torch.nn.Linear(2, 2)
    for got, argument in ((x, x), (x[1:], x), ({"a": [x.view(2, 2)]}, (0, x)), (numbers, numbers), ([numbers], numbers),
                          (numbers, {"n": numbers}), (layer, [layer]), ({1}, None)):
        assert compare.aliases(got, argument) == (argument is not None)
    for got, argument in ((x.clone(), x), (list(numbers), numbers), ((1, 2), (1, 2)), ("a", "a"), (x[:0], x)):
        assert not compare.aliases(got, argument)


def test_quantities_of_an_input():
    named = [("r", 4), ("flag", True), ("d", {"a": 2, "b": "x", "c": False}), ("W", torch.ones(3, 5)),
             ("s", T(7.0)), ("v", T([6.0])), ("items", [1, 2]), ("pair", (1, 2, 3, 4)), ("word", "abc")]
    assert numbers(named) == [
        ("`r`", 4), ("`d['a']`", 2), ("`W.shape[0]`", 3), ("`W.shape[1]`", 5), ("the size of `W`", 15), ("`s`", 7),
        ("`v.shape[0]`", 1), ("the length of `items`", 2), ("the length of `pair`", 4),
        ("`pair[0]`", 1), ("`pair[1]`", 2), ("`pair[2]`", 3)]
    assert all(type(value) is float for _, value in numbers(named))
    assert numbers([("shapes", [(2, 3), (4, 5)])])[1:] == [
        ("the sum of the first sides of `shapes`", 6), ("the sum of the second sides of `shapes`", 8)]


def asked(inputs, size, want="scale"):
    """The quantities of another input, of which this size was asked."""
    made = Quantities(inputs, want=want)
    assert (made.factor if want == "scale" else made.amount)(size) in ("that is ?", "?")
    return made


RANKS = [[("r", r), ("k", k), ("alpha", alpha)] for r, k, alpha in ((4, 10, 6.0), (9, 7, 30.0), (25, 12, 60.0))]


@pytest.mark.parametrize("size, because", [
    (lambda r, k, a: r, "`r`"), (lambda r, k, a: r**0.5, "the root of `r`"), (lambda r, k, a: r**2, "`r` squared"),
    (lambda r, k, a: a / r, "`alpha` / `r`"), (lambda r, k, a: r / (r - 1), "n / (n - 1) where n is `r`"),
    (lambda r, k, a: (r + 1) / r, "(n + 1) / n where n is `r`"),
    (lambda r, k, a: k**0.5 / (k**0.5 // 1), "the root of `k` over"),
    (lambda r, k, a: (a / r) / (a // r), "`alpha` / `r` over its whole part"), (lambda r, k, a: r * k, "`r` times `k`"),
    (lambda r, k, a: -(-k // r) * r / k, "`k`, filled up to a multiple of `r`, over `k`"),
    (lambda r, k, a: r + k, "`r` + `k`"), (lambda r, k, a: 128 / r, "128 / `r`"), (lambda r, k, a: r * 1.2345 + k, ""),
    (lambda r, k, a: 8, "eight bits are a byte"), (lambda r, k, a: 1024, "1,024 is a step of units"),
    (lambda r, k, a: 1000, "1,000 is a step of units"), (lambda r, k, a: 2**20, "1,048,576 is two steps"),
    (lambda r, k, a: 2**30, "2^30 is a GiB"), (lambda r, k, a: 1e9, "10^9 is a GB"),
    (lambda r, k, a: math.log2(math.e), "1.4427"), (lambda r, k, a: math.log2(10), "3.3219")])
def test_factors_that_have_a_name(size, because):
    """A name is told where it holds for the other inputs as well."""
    sizes = [size(*(value for _, value in inputs)) for inputs in RANKS]
    others = [asked(inputs, one) for inputs, one in zip(RANKS[1:], sizes[1:], strict=True)]
    told = Quantities(RANKS[0], others).factor(sizes[0])
    assert because in told and bool(told) == bool(because), told
    expected = torch.tensor([1.5, -2.0, 0.5, 4.0])
    for got, large in ((sizes[0] * expected, "large"), (expected / sizes[0], "small")):
        rung, said = ladder.numbers(got, expected, Quantities(RANKS[0], others))
        assert rung == "scale" and because in said and f"times too {large}" in said, said


def test_an_amount_has_a_name_if_it_has_it_everywhere():
    def told(amount):
        others = [asked(inputs, amount(*(v for _, v in inputs)), "offset") for inputs in RANKS[1:]]
        return Quantities(RANKS[0], others).amount(amount(*(v for _, v in RANKS[0])))
    assert told(lambda r, k, a: r) == "`r`" and told(lambda r, k, a: r * r) == "`r` squared"
    assert told(lambda r, k, a: r * k) == "`r` times `k`"
    for times in (2, 3, 4):
        assert told(lambda r, k, a, n=times: n * k) == f"{times} times `k`"
        assert told(lambda r, k, a, n=times: n * r * k) == f"{times} times `r` times `k`"
    assert told(lambda r, k, a: k * r**2) == "`k` times `r` squared" and told(lambda r, k, a: r * k + a / 7) == ""
    assert told(lambda r, k, a: 2) == "", "always 2: no quantity of the input"


@pytest.mark.parametrize("constant", [2, 4, 8, 16, 32, 64, 128, 256])
def test_a_round_number_over_one_of_the_input(constant):
    here, *others = ([("n", constant / size)] for size in (1.1, 1.3, 1.7))
    asked_there = [asked(inputs, size) for inputs, size in zip(others, (1.3, 1.7), strict=True)]
    assert Quantities(here, asked_there).factor(1.1) == f"that is {constant} / `n`"


def test_one_other_input_is_enough_for_a_number_itself_and_for_a_fraction():
    """Two whole numbers are soon made of others by chance."""
    here, there = [("r", 7), ("k", 5)], [("r", 9), ("k", 7)]
    assert Quantities(here, [asked(there, 9)]).factor(7.0) == "that is `r`"
    for size in (35.0, 35.0 - 1e-6):  # as float32 has it
        assert Quantities(here, [asked(there, 63)]).factor(size) == "", "`r` times `k`, or chance"
    assert Quantities(here, [asked(there, 9 / 7)]).factor(7 / 5) == "that is `r` / `k`"
    assert Quantities(here, [asked(there, 7)]).factor(5.0) == "that is `k`"
    assert Quantities([("r", 4)], [asked([("r", 9)], 9)]).factor(4.0) == "", "small numbers fit by chance"


@pytest.mark.parametrize("here, there, size", [
    (("x", torch.ones(6, 7)), ("x", torch.ones(5)), 7.0), (("n", 8), ("n", 1), 8 / 7),
    (("n", 10), ("n", 0.5), 10**0.5 / 3)])
def test_what_is_not_to_be_had_there_fits_no_size(here, there, size):
    """One side in place of two, nothing to divide by, no whole part: be the size there large or next to 1."""
    for other in (5, 1):
        assert Quantities([here], [asked([there], other)]).factor(size) == ""
    assert Quantities([("r", 7)], [asked([("r", 0)], 1, "offset")]).amount(7.0) == ""


def test_a_factor_may_be_turned_round_elsewhere():
    """It is too large here and too small there, by one quotient."""
    others = [asked([("r", r), ("k", k)], r / k) for r, k in ((9, 6), (10, 7))]
    assert Quantities([("r", 4), ("k", 10)], others).factor(2.5) == "that is `k` / `r`"


def test_what_is_the_same_everywhere_has_the_name_of_a_number_that_is_not_small():
    assert Quantities([("n", 5)], [asked([("n", 5)], 5)] * 2).factor(5.0) == "that is `n`"
    assert Quantities([("n", 4)], [asked([("n", 4)], 4)] * 2).factor(4.0) == ""
    assert Quantities([("n", 2)], [asked([("n", n)], n / (n - 1)) for n in (3, 5)]).factor(2.0) == (
        "that is n / (n - 1) where n is `n`")


def test_sides_are_not_added():
    here, *others = ([("x", torch.ones(size))] for size in ((2, 3), (4, 7), (5, 9)))
    assert Quantities(here, [asked(inputs, sum(inputs[0][1].shape)) for inputs in others]).factor(5.0) == ""


def test_alone_only_one_number_that_is_the_size_has_a_name():
    assert Quantities([("r", 8), ("k", 5)]).factor(8.0) == "that is `r`"
    assert Quantities([("r", 4)]).factor(4.0) == "that is `r`"
    assert Quantities([("r", 8), ("k", 8)]).factor(8.0) == Quantities([("r", 8)], want="none").factor(8.0) == ""
    assert Quantities([("r", 3)]).amount(3.0) == "", "small numbers fit by chance"
    assert Quantities([("x", torch.ones(2, 3)), ("n", [1, 2]), ("s", "ab")]).as_long_as(2) == ["`x`", "`n`"]


@pytest.mark.parametrize("times", [2, 3, 4, 8, 10, 16, 32, 64, 100, 1000, 1024])
def test_one_number_is_a_multiple_only_by_a_round_factor(times):
    assert f"{times} times too large" in ladder.numbers(times * 7.0, 7.0)[1]
    found = ladder.numbers((times + 0.37) * 7.0, 7.0)
    assert found is None or found[0] != "scale"


@pytest.mark.parametrize("error, said", [
    (RecursionError(), "without an end"), (MemoryError(), "more memory"),
    (RuntimeError("cannot allocate memory"), "more memory"),
    (NameError(), "name"), (ZeroDivisionError(), "zero"), (KeyError("a"), "key"), (IndexError(), "behind the end"),
    (AttributeError(), "object"), (RuntimeError("dtype"), "dtypes"), (TypeError("x"), "type"), (OSError("x"), "file"),
    (ValueError("x"), "value"), (RuntimeError("x"), "raised an exception"), (running.Stopped("why"), "why"),
    *((RuntimeError(f"a {word} b"), "Shapes") for word in (
        "shape", "size", "dimension", "broadcast", "mat1", "must match")),
    *((RuntimeError(word), "dtypes") for word in ("expected scalar type", "not implemented for"))])
def test_what_an_exception_means(error, said):
    assert said in running.explain(error)


def test_a_message_of_several_lines_is_read_as_one():
    message = "The size of tensor a (3) must match the\nsize of tensor b (4) at non-singleton dimension 1"
    assert running.explain(RuntimeError(message)) == "Shapes do not fit: along dimension 1 a size of 3 met one of 4."


@pytest.mark.parametrize("fails, said", [
    (lambda: torch.ones(3)[5], "number 5, counted from 0, of something that is 3 long"),
    (lambda: torch.ones(0)[0], "has none"), (lambda: [][0], "has none"),
    (lambda: None.numel(), "asks None for `.numel`"), (lambda: (3).shape, "`.shape`, which the type int does not have"),
    (lambda: torch.ones(3).view(-1, 256), "3 numbers cannot be laid out in whole rows of 256"),
    (lambda: torch.ones(6).view(4, 2), "6 numbers cannot be laid out as (4, 2)"),
    (lambda: torch.ones(2, 3) + torch.ones(2, 4), "along dimension 1 a size of 3 met one of 4"),
    (lambda: torch.ones(2, 3) @ torch.ones(2, 3), "a (2, 3) matrix was multiplied by a (2, 3) one, and 3 is not 2"),
    (lambda: torch.ones(2, 3) @ torch.ones(2), "a (2, 3) matrix was multiplied by a vector of 2"),
    (lambda: torch.stack([torch.ones(2), torch.ones(3)]), "parts of shape (2) and (3) were stacked"),
    (lambda: torch.nn.functional.cross_entropy(torch.ones(4, 2), torch.ones(3).long()), "4 predictions met 3 targets"),
    (lambda: torch.nn.functional.cross_entropy(torch.ones(1, 2, 4), torch.ones(1, 3).long()), "4 predictions met 3"),
    (lambda: torch.ones(2, 2) @ torch.ones(2, 2).half(), "Two dtypes met in one product: float and"),
    (lambda: int("best"), "It reads 'best' as a whole number"), (lambda: max([]), "nothing at all"),
    (lambda: torch.ones(0).max(), "a tensor without elements"), (lambda: 2.0**10_000, "beyond what a float holds"),
    (lambda: 3 + None, "`+` met values of the types int and NoneType"),
    (lambda: b"\xc3".decode(), "inside a character")])
def test_an_exception_names_the_sizes_that_met(fails, said):
    assert said in running.explain(running.call(fails, ()).error), running.call(fails, ()).error


def test_random_tensors():
    import random
    x = draws.normal(random.Random(0), 40, 50)
    assert (x.shape, x.dtype) == ((40, 50), torch.float32) and abs(x.mean()) < 0.1 and abs(x.std() - 1) < 0.1
    assert draws.normal(random.Random(0)).shape == draws.integers(random.Random(0), 1, 2).shape == ()
    plain = random.Random(1)
    assert draws.normal(random.Random(1), 2, dtype=torch.float64).tolist() == [plain.gauss(0, 1), plain.gauss(0, 1)]
    n = draws.integers(random.Random(0), -2, 3, 30, 4)
    assert (n.shape, n.dtype) == ((30, 4), torch.int64) and n.unique().tolist() == [-2, -1, 0, 1, 2, 3]
    assert draws.integers(random.Random(0), 0, 1, 2, dtype=torch.uint8).dtype == torch.uint8
    assert torch.equal(n, draws.integers(random.Random(0), -2, 3, 30, 4))
