"""How values are written out for a reader, which quantities of an input are named, and what shares memory."""

import math
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from helpers.exercises import compare, draws, ladder, running
from helpers.exercises.engine import _quantities

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
    (["x" * 50] * 10, f"[{', '.join([repr('x' * 50)] * 10)}]"[:300] + " …"),
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
    assert compare.differences([1], [1, 2]) is compare.differences([1], [1]) is None
    assert compare.differences([T([1.0])], [T([1])]) is None
    assert compare.rows([1, 3], [1, 2], 0.0)[-1] == (
        "differ", "1 of 2; first at [1]: 3 came, 2 expected; largest error 1")
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
             ("s", T(7.0)), ("v", T([6.0])), ("items", [1, 2]), ("pair", (1, 2, 3)), ("word", "abc")]
    assert _quantities(named) == [
        ("`r`", 4), ("`d['a']`", 2), ("`W.shape[0]`", 3), ("`W.shape[1]`", 5), ("the size of `W`", 15), ("`s`", 7),
        ("`v.shape[0]`", 1), ("the length of `items`", 2), ("the length of `pair`", 3)]
    assert all(type(value) is float for _, value in _quantities(named))


@pytest.mark.parametrize("times, because", [
    (4.0, "that is `r`"), (2.0, "that is the root of `r`"), (16.0, "that is `r` squared"),
    (8.0, "eight bits are a byte"),
    (1024, "1,024 is a step of units"), (1000, "1,000 is a step of units"), (2**20, "1,048,576 is two steps"),
    (2**30, "2^30 is a GiB"), (1e9, "10^9 is a GB"), (math.log2(math.e), "1.4427"), (math.log2(10), "3.3219")])
def test_factors_that_have_a_name(times, because):
    expected = torch.tensor([1.5, -2.0, 0.5, 4.0])
    for got, size in ((times * expected, "large"), (expected / times, "small")):
        rung, said = ladder.numbers(got, expected, [("`r`", 4.0)])
        assert rung == "scale" and because in said and f"times too {size}" in said, said


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
