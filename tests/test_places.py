"""What places, inputs and changed inputs are called: for every property an example that has it and one that has not."""

import math

import pytest
import torch

from helpers.exercises import places, probes

T = torch.tensor
X = T([0.0, -1.0, 2.0, 2.5, math.inf, 200.0, -math.inf, math.nan, 7.0, 1.0])  # one of each kind
NUMBERS = {  # words -> numbers that have the property, numbers that have it not
    "zero": ([0, 0.0], [1, -1]), "negative": ([-1, -0.5], [0, 1]), "odd": ([1, -3], [0, 2, 1.5]),
    "even": ([0, 2], [1, 0.5]), "1": ([1, 1.0], [0, 2]), "not 1": ([0, 2], [1]),
    "no whole number": ([0.5, -1.5], [1, 2.0]), "below 1": ([0, 0.5, -0.5], [1, -1, 2]),
    "no power of two": ([0, -1, -2, 3, 6], [1, 2, 0.5, 64])}
M = torch.ones(2, 3)
TENSORS = {
    "is not square": ([M, M.T], [torch.ones(2, 2)]), "is square": ([torch.ones(2, 2)], [M, M.T]),
    "is taller than wide": ([M.T], [M, torch.ones(2, 2)]), "is wider than tall": ([M], [M.T, torch.ones(2, 2)]),
    "has an odd number of columns": ([M, torch.ones(2, 1)], [M.T]),
    "has more than one dimension": ([M, torch.ones(1, 1, 1)], [T([1.0, 2])]),
    "has one row": ([torch.ones(1, 3), T([1.0])], [M, torch.ones(2)]),
    "has more than one row": ([M], [torch.ones(1, 3), T([1.0, 2])]), "is not zero everywhere": ([M], [torch.zeros(2)]),
    "has an odd length": ([M.T, T([1.0])], [M]),
    "is of a size that is no multiple of 64": ([torch.ones(65), torch.ones(63)], [torch.ones(64), torch.ones(2, 64)]),
    "is of a size that is no multiple of 256": ([torch.ones(64), torch.ones(257)], [torch.ones(256)]),
    "has a negative value": ([T([1.0, -1])], [T([0.0, 1])]), "has a zero": ([T([0.0, 1])], [T([1.0, -1])]),
    "is zero everywhere": ([torch.zeros(2)], [T([0.0, 1])]),
    "has a largest magnitude that is negative": ([T([1.0, -2])], [T([2.0, -2]), T([1.0, 2]), T([3.0, -2])]),
    "holds NaN or infinity": ([T([1, math.nan]), T([1, math.inf])], [T([1.0])]),
    "has values that are not whole": ([T([1, 1.5])], [T([1.0, 2])]),
    "holds a value twice": ([T([1.0, 2, 1])], [T([1.0, 2])])}
OTHERS = {
    "is true": ([True], [False]), "is false": ([False], [True]), "is None": ([None], [0, "", False]),
    "is empty": (["", [], (), {}], ["a", [0], (1,), {"a": 1}]),
    "has more than one part": (["ab", [0, 1]], ["a", (1,), {}]),
    "is float16": ([M.half()], [M]), "is bfloat16": ([M.bfloat16()], [M]), "is float32": ([M], [M.double()]),
    "is float64": ([M.double()], [M]), "is int8": ([M.to(torch.int8)], [M.to(torch.uint8)]),
    "is uint8": ([M.to(torch.uint8)], [M.to(torch.int8)])}
ONE = {f"is {words}": examples for words, examples in NUMBERS.items()}
SIZES = {**ONE, **TENSORS}
TRAITS = {**SIZES, **OTHERS}


@pytest.mark.parametrize("words", TRAITS)
def test_traits(words):
    having, lacking = TRAITS[words]
    assert [dict(places.traits([("x", value)]))[f"`x` {words}"] for value in (*having, *lacking)] == \
        [True] * len(having) + [False] * len(lacking)


def test_there_is_an_example_for_every_trait_and_each_is_asked_of_its_own_kind_only():
    parts, types = list(OTHERS)[3:5], list(OTHERS)[5:]
    for value, asked in ((3, ONE), (M, [*TENSORS, *types]), (True, ["is true", "is false"]), ("a", parts),
                         ([], parts), (T([]), types), (math.nan, ()), (None, ())):
        found = dict(places.traits([("x", value)]))
        assert {words.removeprefix("`x` ") for words in found} == TRAITS.keys()
        assert [words for words, has in found.items() if has is not None and words != "`x` is None"] == [
            f"`x` {words}" for words in asked]
    flat = {words for words, has in places.traits([("x", T([1.0, 2]))]) if has is None}
    assert {"`x` is square", "`x` is wider than tall", "`x` has an odd number of columns"} <= flat


def test_features_of_the_input_and_of_the_answer():
    answer = T([1.0, 8, 16, 128, 0, -1, math.inf, math.nan, 7, 3])
    found = {words: mask.nonzero().flatten().tolist() for words, mask in places.features(answer, [("x", X)])}
    expected = {
        "is NaN": [7], "is infinite": [4, 6], "is zero": [0], "is negative": [1, 6], "is positive": [2, 3, 4, 5, 8, 9],
        "is zero or negative": [0, 1, 6], "is odd": [1, 8, 9], "is even": [0, 2, 5],
        "lies half-way between two whole numbers": [3], "is above 7": [4, 5],
        "is above 15": [4, 5], "is above 127": [4, 5], "is of a magnitude above 1": [2, 3, 4, 5, 6, 8]}
    assert {words: found[f"where `x` {words}"] for words in expected} == expected
    expected = {"where `x` is largest": [5], "where `x` is smallest": [1], "where `x` is of the largest magnitude": [5],
                "where the answer is NaN": [7],
                "where the answer is infinite": [6], "where the answer is zero": [4],
                "where the answer is negative": [5], "where the answer is positive": [0, 1, 2, 3, 6, 8, 9]}
    assert {words: found[words] for words in expected} == expected
    found = {words: mask.nonzero().flatten().tolist() for words, mask in places.features(
        T([-2.0, math.nan, -3]), [("x", T([3.0, 2, -math.inf])), ("y", T([math.nan] * 3))])}
    expected = {"where the answer is largest": [0], "where the answer is smallest": [2],
                "where the answer is of the largest magnitude": [2], "where `x` is smallest": [1]}
    assert {words: found[words] for words in expected} == expected
    assert "where `y` is NaN" in found and "where `y` is largest" not in found, "no number is the largest of none"
    near = T([7.0, 8, 15, 16, 127, 128])
    found = {words: int(mask.sum()) for words, mask in places.features(near, [("x", near)])}
    assert [found[f"where `x` is above {bound}"] for bound in (7, 15, 127)] == [5, 3, 1]


def test_only_an_input_with_a_number_for_each_place_is_asked():
    others = [("a", "a"), ("b", 3), ("c", [1, 2]), ("d", torch.ones(4)), ("e", None)]
    found = dict(places.features(torch.zeros(3), [*others, ("x", [1, -2, 3])]))
    assert {words.split()[1] for words in found if words.startswith("where ")} == {"`x`", "the"}
    assert found["where `x` is negative"].tolist() == [False, True, False]


def test_features_of_the_index():
    found = {words: mask.nonzero().flatten().tolist() for words, mask in places.features(torch.zeros(6), [])}
    expected = {
        "at the first place": [0], "at the last place": [5], "at the first place and the last": [0, 5],
        "at every odd index": [1, 3, 5], "at every even index": [0, 2, 4], "from index 2 on": [2, 3, 4, 5],
        "before index 2": [0, 1], "in the last, incomplete block of 4": [4, 5], "from index 5 on": [5],
        "from index 1 on": [1, 2, 3, 4, 5], "before index 5": [0, 1, 2, 3, 4]}
    assert {words: found[words] for words in expected} == expected
    assert "in the last, incomplete block of 2" not in found and "from index 6 on" not in found
    found = {words: mask.int().tolist() for words, mask in places.features(torch.zeros(2, 3), [])}
    expected = {
        "in the first row": [[1, 1, 1], [0, 0, 0]], "in the last row": [[0, 0, 0], [1, 1, 1]],
        "in the first column": [[1, 0, 0], [1, 0, 0]], "in the last column": [[0, 0, 1], [0, 0, 1]],
        "in the first column and the last": [[1, 0, 1], [1, 0, 1]], "at every odd column": [[0, 1, 0], [0, 1, 0]],
        "on the diagonal": [[1, 0, 0], [0, 1, 0]], "off the diagonal": [[0, 1, 1], [1, 0, 1]],
        "above the diagonal": [[0, 1, 1], [0, 0, 1]], "below the diagonal": [[0, 0, 0], [1, 0, 0]]}
    assert {words: found[words] for words in expected} == expected
    assert "in the last index 2" in dict(places.features(torch.zeros(2, 2, 2), []))


def test_a_long_answer_is_cut_at_every_early_index_and_at_blocks():
    found = dict(places.features(torch.zeros(300), []))
    assert [n for n in range(300) if f"from index {n} on" in found] == [*range(1, 65), 128, 256]
    assert [n for n in range(300) if f"before index {n}" in found] == [*range(1, 65), 128, 256]
    assert [n for n in range(300) if f"in the last, incomplete block of {n}" in found] == [8, 16, 32, 64, 128, 256]
    assert found["in the last, incomplete block of 256"].nonzero().flatten().tolist() == list(range(256, 300))
    found = [said for said, _ in places.features(torch.zeros(7), []) if "block" in said]
    assert found == ["in the last, incomplete block of 4"], "what is left of a block of 2 is the last place"
    for n in (64, 128, 256):
        found = dict(places.features(torch.zeros(n), []))
        assert "from index 63 on" in found and f"from index {n} on" not in found


def test_numbers_are_set_beside_each_other():
    found = dict(places.traits([("i", 2), ("j", 3), ("x", M)]))
    assert found["`i` is not `j`"] and found["`i` is below `j`"] and not found["`i` is above `j`"]
    assert not any(has for said, has in places.traits([("i", 2), ("j", 2)]) if "`j`" in said and "`i`" in said)


def test_an_argument_that_is_not_always_there_confuses_nothing():
    numbers = [2**n for n in range(1, 14)]
    for lacking in (lambda n: [("n", n), ("k", None)], lambda n: [("n", n)]):
        some = [[("n", n), ("k", 8)] for n in numbers]
        assert places.across([lacking(n) for n in numbers], some) is None
        assert places.across([lacking(n + 1) for n in numbers], some) == (
            "Wrong only where `n` is even, and there each time: right for all 13 inputs without.")


def test_a_rule_holds_at_every_wrong_place_and_at_no_right_one():
    x = torch.arange(-6.0, 6)

    def common(wrong, tolerance=1e-6, x=x):
        return places.common(places.Trial([("x", x)], x + wrong, x), [], tolerance)
    assert common((x < 0) * 1.0) is None, "one input of twelve places: chance, as far as one knows"
    long = torch.arange(-8.0, 8)
    assert common((long < 0) * 1.0, x=long) == "Right except where `x` is negative."
    assert common((long < 0) * 1.0 * (long != -3), x=long) is None, "one of those places is right"
    assert common((long < 0) * 1.0, 10.0, long) is None, "within the tolerance"
    assert common((x[2:] < 0) * 1.0, x=x[2:]) is None and common((long[4:] < 0) * 1.0, x=long[4:]) is None


def test_a_rule_is_one_of_more_than_a_thousand_patterns():
    def common(x, wrong, others=0):
        trial = places.Trial([("x", x)], x + wrong, x)
        return places.common(trial, [trial] * others, 1e-6)
    x = torch.arange(-4.0, 10)
    assert common(x, x < 0) == "Right except where `x` is negative.", "4 of 14 places: 1001"
    assert common(x[:10], x[:10] == 2, 2) is None, "1 of 10 places, three times: 1000"
    assert common(x[:10], x[:10] == 2, 3) is None, "that one has no name"
    assert common(x[4:], x[4:] == 0, 2) is None and common(x[4:], x[4:] == 0, 3), "the first has"
    assert common(x[4:9], x[4:9] == 0, 6) == "Right except at the first place."
    assert common(x[4:8], x[4:8] == 0, 6) is None, "four places are too few, on however many inputs"


def test_an_answer_that_is_right_or_wrong_everywhere_or_is_none_has_no_such_places():
    x = torch.arange(-8.0, 8)
    other = places.Trial([("x", x)], x + (x < 0), x)
    for here, wrong in ((x.abs(), 0), (-1 - x.abs(), 1)):
        assert places.common(places.Trial([("x", here)], here + wrong, here), [other] * 6, 1e-6) is None
    assert places.common(places.Trial([], None, x), [other], 1e-6) is None
    assert places.common(other, [places.Trial([], None, x)], 1e-6) == "Right except where `x` is negative."


def test_an_empty_answer_has_no_places():
    x, none = torch.arange(-8.0, 8), T([])
    said = places.common(places.Trial([("x", x)], x + (x < 0), x), [places.Trial([("x", none)], none, none)], 1e-6)
    assert said == "Right except where `x` is negative."


def test_six_other_inputs_are_asked():
    x = torch.arange(-8.0, 8)
    fits, breaks = (places.Trial([("x", x)], x + wrong, x) for wrong in (x < 0, x > 0))
    assert places.common(fits, [*[fits] * 5, breaks], 1e-6) is None
    assert places.common(fits, [*[fits] * 6, breaks], 1e-6) == "Right except where `x` is negative."


def test_the_tolerance_does_not_count_for_whole_numbers():
    x = T([10, 20, 30])
    assert places.Trial([], x + T([0, 1, 0]), x).wrong(0.5).tolist() == [False, True, False]
    assert not places.Trial([], x + T([0, 0.01, 0]), x.float()).wrong(0.5).any()


# ------------------------------------------------------------------------------------------- changed inputs

def solution(x, y=5):
    return x


VARIANTS = [
    (6, [6, "z", 9], {"were 1": 1, "were 0": 0, "were one more": 7, "were one less": 5, "were twice as large": 12,
                      "were half as large": 3, "were squared": 36, "had the other sign": -6, "were 9": 9, "were 2": 2,
                      "were 4": 4, "were 8": 8, "were 16": 16, "were 32": 32}),  # none above 4 * 9
    (0.25, [], {"were 1": 1, "were 0": 0, "were one more": 1.25, "were one less": -0.75, "were twice as large": 0.5,
                "were half as large": 0.125, "were squared": 0.0625, "had the other sign": -0.25,
                "were 1 / its value": 4, "were 2": 2,
                "were 3": 3, "were 8": 8, "were 16": 16}),  # none above 16
    (81, [], {"were 1": 1, "were 0": 0, "were one more": 82, "were one less": 80, "were twice as large": 162,
              "had the other sign": -81, "were its root": 9, "were 2": 2, "were 3": 3, "were 4": 4, "were 8": 8,
              "were 16": 16, "were 32": 32, "were 64": 64, "were 127": 127, "were 256": 256}),
    (0.0, [], {"were 1": 1, "were one less": -1, "were 2": 2, "were 3": 3, "were 4": 4, "were 8": 8, "were 16": 16}),
    (True, [], {"were False": False}),
    (" A\nb ", [], {"were stripped of white space at its ends": "A\nb", "were in lower case": " a\nb ",
                    "were one line": "A b", "had no line breaks": " Ab "}),
    ({"a": True, "b": 3}, [], {"had no 'a'": {"b": 3}, "had 'a' = False": {"a": False, "b": 3},
                               "had no 'b'": {"a": True}, "had 'b' = 1": {"a": True, "b": 1},
                               "were in reversed order": {"b": 3, "a": True}}),
    ([3, -1, 3], [], {"were reversed": [3, -1, 3], "lacked its first": [-1, 3], "lacked its last": [3, -1],
                      "had its first only": [3], "had its last only": [3], "were sorted": [-1, 3, 3],
                      "had no value twice": [3, -1], "held magnitudes": [3, 1, 3], "had the other sign": [-3, 1, -3]}),
    ((3, -1), [], {"were reversed": (-1, 3), "were sorted": (-1, 3), "had no value twice": (3, -1)}),  # a record
    (((2, "a"), (1, "b")), [], {
        "were reversed": ((1, "b"), (2, "a")), "lacked its first": ((1, "b"),), "lacked its last": ((2, "a"),),
        "had its first only": ((2, "a"),), "had its last only": ((1, "b"),), "were sorted": ((1, "b"), (2, "a")),
        "had no value twice": ((2, "a"), (1, "b")), "had each pair exchanged": (("a", 2), ("b", 1)),
        "had the first of each pair twice": ((2, 2), (1, 1)),
        "had the second of each pair twice": (("a", "a"), ("b", "b"))}),
    (["B", "a"], [], {"were reversed": ["a", "B"], "lacked its first": ["a"], "lacked its last": ["B"],
                      "had its first only": ["B"], "had its last only": ["a"], "were sorted": ["B", "a"],
                      "had no value twice": ["B", "a"], "were in lower case": ["b", "a"]}),
]


@pytest.mark.parametrize("value, others, expected", VARIANTS)
def test_variants(value, others, expected):
    found = dict(probes.variants("x", value, others, solution))
    assert found == expected
    if isinstance(value, int | float):
        assert {type(new) for new in found.values()} == {type(value)}


def test_no_number_is_tried_that_is_far_larger_than_those_seen():
    """2 to the power of a large one would fill the memory. Up to 16 they may be, or four times as large."""
    def tried(value):
        return [new for _, new in probes.variants("x", value, [], solution)]
    assert 16 in tried(1 / 16) and 17 not in tried(1 / 17)
    assert 64 in tried(16) and 64 not in tried(15)


def test_a_default_comes_first_where_it_is_another():
    assert next(probes.variants("y", 6, [], solution)) == ("were 5, its default", 5)
    assert next(probes.variants("y", 5, [], solution)) == ("were 1", 1)


def test_variants_of_tensors():
    found = dict(probes.variants("x", T([[1.5, -2.0], [0.5, 4.0]]), [], solution))
    expected = {
        "were transposed": [[1.5, 0.5], [-2, 4]],
        "were reshaped where it is to be transposed": [[1.5, 0.5], [-2, 4]],
        "held magnitudes only (no signs)": [[1.5, 2], [0.5, 4]],
        "had the other sign": [[-1.5, 2], [-0.5, -4]], "were zero everywhere": [[0, 0], [0, 0]],
        "were one everywhere": [[1, 1], [1, 1]], "were reversed": [[0.5, 4], [1.5, -2]],
        "were sorted": [[0.5, -2], [1.5, 4]], "were shifted by one along dimension 0": [[0.5, 4], [1.5, -2]],
        "were shifted by one the other way along dimension 0": [[0.5, 4], [1.5, -2]],
        "were shifted by one along dimension 1": [[-2, 1.5], [4, 0.5]],
        "were shifted by one the other way along dimension 1": [[-2, 1.5], [4, 0.5]],
        "were reversed in every row": [[-2, 1.5], [4, 0.5]], "had its first part for all": [[1.5, -2], [1.5, -2]],
        "lacked its first part": [[0.5, 4]], "lacked its last part": [[1.5, -2]], "were rounded": [[2, -2], [0, 4]],
        "were cut off to whole numbers": [[1, -2], [0, 4]], "were squared": [[2.25, 4], [0.25, 16]],
        "were rounded to bfloat16": [[1.5, -2], [0.5, 4]], "were rounded to float16": [[1.5, -2], [0.5, 4]],
        "were its mean everywhere": [[1, 1], [1, 1]], "had no values below zero": [[1.5, 0], [0.5, 4]],
        "were divided by its largest magnitude": [[0.375, -0.5], [0.125, 1]],
        "had its mean taken away": [[0.5, -3], [-0.5, 3]]}
    assert {words: value.tolist() for words, value in found.items()} == expected
    assert {value.dtype for value in found.values()} == {torch.float32}
    line = dict(probes.variants("x", T([1, 2, 300]), [], solution))
    assert line["were shifted by one"].tolist() == [300, 1, 2]
    assert line["were shifted by one the other way"].tolist() == [2, 300, 1]
    assert line["lacked its last part"].tolist() == [1, 2]
    assert "were transposed" not in line and "were rounded" not in line and "were reversed in every row" not in line
    byte = dict(probes.variants("x", T([0x1F, 0xFE], dtype=torch.uint8), [], solution))
    assert byte["were signed"].tolist() == [31, -2] and byte["had its half-bytes exchanged"].tolist() == [0xF1, 0xEF]
    assert "had the other sign" not in byte and byte["were reversed"].tolist() == [0xFE, 0x1F]
    for one in (T(1.5), T([1.5])):
        assert list(dict(probes.variants("x", one, [], solution))) == [
            "held magnitudes only (no signs)", "had the other sign", "were zero everywhere", "were one everywhere",
            "were rounded", "were cut off to whole numbers", "were squared", "were rounded to bfloat16",
            "were rounded to float16"]
    two = dict(probes.variants("x", T([1.0, 2 + 2**-12]), [], solution))
    assert two["were its mean everywhere"].tolist() == [1.5 + 2**-13] * 2
    assert two["were rounded to bfloat16"].tolist() == two["were rounded to float16"].tolist() == [1, 2]
    wide = dict(probes.variants("x", T([[1, 2, 3], [4, 5, 6]]), [], solution))
    assert wide["were transposed"].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert wide["were reshaped where it is to be transposed"].tolist() == [[1, 3, 5], [2, 4, 6]]
    deep = dict(probes.variants("x", torch.arange(8).view(2, 2, 2), [], solution))
    assert deep["were reversed in every row"].tolist() == [[[1, 0], [3, 2]], [[5, 4], [7, 6]]]
    assert "were rounded to float16" not in dict(probes.variants("x", T([1.5]).bfloat16(), [], solution))


def test_changes_exchange_two_of_a_kind_and_try_the_likeliest_of_each_first():
    found = list(probes.changes(["a", "b", "x"], (1, 2, True), [(7, 2, False), (1,)], lambda a, b, x: a))
    assert found[:4] == [("as if `a` and `b` were exchanged", (2, 1, True)), ("as if `a` were 0", (0, 2, True)),
                         ("as if `b` were 1", (1, 1, True)), ("as if `x` were False", (1, 2, False))]
    assert ("as if `a` were 7", (7, 2, True)) in found
    for args in ((1, True), (True, 1)):
        assert not any("exchanged" in said for said, _ in probes.changes(["a", "x"], args, [], lambda a, x: a))
