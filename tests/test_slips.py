"""The solution with one slip in it: the common ones are named, and only where they give the same everywhere."""

import inspect
import math
from unittest.mock import ANY

import pytest
import torch

from helpers.exercises import slips
from helpers.exercises.compare import equal
from helpers.exercises.places import Trial


def bill(n: int, k: int, share: float) -> float:
    """A stand-in for a solution, with a place for most slips."""
    whole = max(n // k, 3) + n % k
    if n > 20 and k <= 9:
        return math.ceil(n / k) * 16 + share * k**2
    return (whole - 2) * n * (k + n + share)


def norm(x: torch.Tensor) -> torch.Tensor:
    return x.abs().sqrt() @ x.T / 3


INPUTS = [(n, k, share) for n, k, share in ((30, 7, 0.5), (12, 5, 2.0), (5, 9, 1.5), (41, 9, 0.25), (18, 16, 3.0))]
TENSORS = [(torch.arange(1.0, 7).view(2, 3) * s / 7,) for s in (1, 2, 3)]


def found(solution, answer, inputs):
    trials = [Trial([("", value) for value in args], answer(*args), solution(*args)) for args in inputs]
    return slips.slip(solution, trials[0], trials[1:], equal)


@pytest.mark.parametrize("old, new, said", [
    ("n // k, 3", "n % k, 3", "`%` (which gives the remainder) in place of `//`"),
    ("n % k", "n // k", "`//` (which rounds down) in place of `%`"),
    ("k**2", "(k ^ 2)", "`^` (no power) in place of `**`"), ("k**2", "k * 2", "`*` in place of `**`"),
    ("n > 20", "n != 30", None), ("k <= 9", "k < 9", "`<` in place of `<=`"),
    (" and ", " or ", "`or` in place of `and`"),
    (" * 16 + ", " * 16 - ", "`-` in place of `+`"), ("max(", "min(", "`min` in place of `max`"),
    ("math.ceil", "math.floor", "`floor` in place of `ceil`"), (" * 16", " * 8", "8 in place of 16"),
    (" * 16", " * 15", "15 in place of 16"), (" + share * k**2", "", "a term of a sum is left out"),
    ("share * k**2", "share", "a factor behind a `*` is left out"),
    ("share * k**2", "k**2", "a factor before a `*` is left out"),
    ("(k + n + share)", "(k + share)", "a term of a sum is left out"),
    ("math.ceil(n / k) * 16 + ", "", "a term of a sum is left out"),
    (" * 16", " * 32", "32 in place of 16"), ("k, 3", "k, 6", None), ("k, 3", "k, 4", "4 in place of 3"),
    ("n * (k + n + share)", "(n * k + n * n + share)",
     "without its brackets a sum has a factor before some of its terms only"),
    ("n * (k + n + share)", "(n * k + n + share)",
     "without its brackets a sum has a factor before some of its terms only"),
    ("(whole - 2) * n", "(whole - 2)", "a factor behind a `*` is left out"), ("k, 3", "1, 3", None),
    ("(whole - 2)", "whole", "a term of a sum is left out"), ("(whole - 2)", "2 * whole", None)])
def test_a_slip_in_the_source(old, new, said):
    space = {"math": math}
    source = inspect.getsource(bill)
    assert source.count(old) == 1
    exec(source.replace(old, new), space)
    came = found(bill, space["bill"], INPUTS)
    assert came == said


@pytest.mark.parametrize("answer, said", [
    (lambda x: x.sqrt() @ x.T / 3, "`abs` is left out"), (lambda x: x.abs() @ x.T / 3, "`sqrt` is left out"),
    (lambda x: x.abs().sqrt().bfloat16().float() @ x.T / 3, "what `sqrt` gives on the way is rounded to bfloat16"),
    (lambda x: x.abs().sqrt() @ x.T.half().float() / 3, "what `T` gives on the way is rounded to float16"),
    (lambda x: x.T / 3, "a factor before a `@` is left out"),
    (lambda x: x.abs().sqrt() @ x.T, "a factor behind a `/` is left out"),
    (lambda x: (x.abs().sqrt() @ x.T).half().float() / 3, "what `matmul` gives on the way is rounded to float16"),
    (lambda x: (((x.abs().bfloat16().float().sqrt().bfloat16().float() @ x.bfloat16().float().T).bfloat16().float()) / 3
                ).bfloat16().float(), "all that is computed on the way is rounded to bfloat16"),
    (lambda x: x.sqrt() @ x.T / 3 * (1 + 3e-7), "`abs` is left out"),
    (lambda x: x.abs().sqrt() @ x.T / 3 + 0.001, None)])
def test_a_result_that_is_rounded_on_the_way(answer, said):
    mixed = [(-x,) if n else (x,) for n, (x,) in enumerate(TENSORS)]
    came = found(norm, answer, mixed)
    assert came == said


def centred(x: torch.Tensor) -> torch.Tensor:
    y = x.round().add_(x.exp())
    return (y - y.mean(dim=0)) * x.shape[1]


@pytest.mark.parametrize("answer, said", [
    (lambda x, y: (y - y.mean(dim=0).half().float()) * 3, "what `mean` gives on the way is rounded to float16"),
    (lambda x, y: (y.half().float() - y.half().float().mean(dim=0)) * 3,
     "what `add` gives on the way is rounded to float16"),
    (lambda x, y: (x + x.exp() - (x + x.exp()).mean(dim=0)) * 3, "`round` is left out"),
    (lambda x, y: (x.round() + x - (x.round() + x).mean(dim=0)) * 3, None)])  # to lose an exp is no common slip
def test_operations_with_keywords_in_place_and_on_what_is_no_tensor(answer, said):
    came = found(centred, lambda x: answer(x, x.round().add_(x.exp())), [(x + 0.3,) for x, in TENSORS])
    assert came == said


def climbing(x: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        x = x.add(0.1)
    return x


@pytest.mark.parametrize("steps, said", [(20, "what `add` gives on the way is rounded to bfloat16"), (21, None)])
def test_twenty_operations_are_rounded_each_by_itself(steps, said):
    assert found(climbing, lambda x, n: climbing(x, n).bfloat16().float(), [(x, steps) for x, in TENSORS]) == said


def tiles(x: int, y: int, z: int) -> int:
    return x // 2 * (y + z)


@pytest.mark.parametrize("wrong, said", [
    (lambda x, y, z: x // 2 * y + z, "without its brackets a sum has a factor before some of its terms only"),
    (lambda x, y, z: y + x // 2 * z, "without its brackets a sum has a factor before some of its terms only"),
    (lambda x, y, z: x * (y + z), "a factor behind a `//` is left out")])
def test_a_factor_before_two_terms(wrong, said):
    assert found(tiles, wrong, [(4, 3, 5), (7, 7, 4), (11, 2, 9)]) == said


def shifted(n: int, k: int) -> int:
    return (n << k) + 1


def test_operators_without_a_usual_slip_are_passed_over():
    assert found(shifted, lambda n, k: (n << k) + 2, [(1, 2), (3, 1), (5, 2)]) == "2 in place of 1"


def numbers(n: int) -> list[int]:
    return [n & 7, n & 8, n & 999, n & 1000]


@pytest.mark.parametrize("place, number, said", [
    (0, 6, "6 in place of 7"), (0, 14, None), (1, 4, "4 in place of 8"), (1, 16, "16 in place of 8"),
    (2, 998, "998 in place of 999"), (3, 999, None)])
def test_larger_numbers_are_halved_and_doubled_and_those_above_999_do_not_slip(place, number, said):
    inputs = [(1023 - n,) for n in range(5)]
    assert found(numbers, lambda n: [*numbers(n)[:place], n & number, *numbers(n)[place + 1:]], inputs) == said


def test_a_slip_that_raises_explains_no_answer():
    assert found(norm, lambda x: ANY, TENSORS) is None, "not even one that claims to equal everything"


def test_a_slip_must_give_the_same_on_every_input_and_on_more_than_two():
    assert found(bill, lambda n, k, share: bill(n, k, share) - (1 if n == 5 else 0), INPUTS) is None
    assert found(norm, lambda x: x.abs() @ x.T / 3, TENSORS[:2]) is None
    assert found(norm, lambda x: x.abs() @ x.T / 3, TENSORS) == "`sqrt` is left out"
