"""The record of methods: complete, summed up rightly, one point of the pocket Llama's measured again."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch

from helpers import experiments
from helpers.calibration import collect_inputs
from helpers.experiments import laptop_formats, methods
from helpers.pocket import evaluate, load_pocket, world

RECORD, REAL = experiments.read("methods"), experiments.read("laptop_methods")
NAMES = [method.name for method in methods.methods(4)]
CALIBRATED = [method.name for method in methods.methods(4) if method.calibrated]


@pytest.mark.parametrize("record, ground, rows", [(RECORD, methods.POCKET, 400), (REAL, methods.LAPTOP, 24)])
def test_every_method_is_there_with_all_its_draws(record, ground, rows):
    assert methods.complete(record, ground.r) == NAMES and len(NAMES) == 22
    found = sorted((point["case"], point["draw"]) for point in record["points"])
    assert found == sorted((name, draw) for name in NAMES
                           for draw in range(methods.DRAWS if name in CALIBRATED else 1))
    assert {len(point["losses"]) for point in record["points"]} == {rows}
    assert all(math.isfinite(value) and value > 0 for point in record["points"] for value in point["losses"])
    assert {"torch", "transformers"} <= set(record["made_with"])


def test_the_records_say_of_what_they_are():
    assert RECORD["model"] == "the pocket Llama"
    assert {name: REAL[name] for name in ("model", "text", "calibrated_on")} == {
        name: value for name, value in methods.LAPTOP.origin().items() if name != "origin"}


def test_the_draws_are_disjoint_from_each_other_and_from_what_is_scored():
    tokenizer = load_pocket()[1]
    draws = [methods.pocket_text(tokenizer, draw) for draw in range(methods.DRAWS)]
    stream = world.documents(world.make_world().villagers, evaluate.HELD_OUT_SEED)
    scored = {tuple(tokenizer(text)["input_ids"][:evaluate.MAX_LENGTH]) for text in itertools.islice(stream, 400)}
    calibrated = {tuple(row) for rows in draws for row in rows}
    assert len(calibrated) == 64 * methods.DRAWS and not calibrated & scored


def test_bits_are_those_of_the_files():
    bits = {point["case"]: point["bits"] for point in RECORD["points"]}
    assert (bits["16 bits"], bits["Q8_0"], bits["Q4_0"], bits["MXFP4"]) == (16, 8.5, 4.5, 4.25)
    assert bits["NF4"] == bits["int4 GPTQ"] == bits["NF4 AWQ"] == 4.5 and bits["int3"] == bits["int3 GPTQ"] == 3.5
    assert 4.5 <= bits["NVFP4"] < 4.51 and bits["NF4 double"] == pytest.approx(4.127)
    assert bits["int3, 1 % salient kept"] == bits["int3, 1 % random kept"] > 3.5
    assert len({bits[name] for name in NAMES if "+" in name}) == 1


@pytest.mark.parametrize("name", ["NF4", "int3 GPTQ"])
def test_one_point_again(name):
    model, tokenizer = methods.POCKET.load()
    layers = laptop_formats.linears(model)
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    method = next(method for method in methods.methods(methods.POCKET.r) if method.name == name)
    inputs = None
    if method.calibrated:
        rows = methods.pocket_text(tokenizer, 0)
        inputs = collect_inputs(model, layers, [torch.tensor([row]) for row in rows])
    with torch.no_grad():
        bits = methods.put(layers, original, inputs, method)
    losses = methods.pocket_score(model, tokenizer)
    (point,) = [point for point in RECORD["points"] if (point["case"], point["draw"]) == (name, 0)]
    assert round(bits, 4) == point["bits"]
    assert statistics.fmean(losses) == pytest.approx(statistics.fmean(point["losses"]), abs=1e-3)


def test_excess_is_paired_by_document_and_says_its_draws():
    record = {"points": [{"case": "16 bits", "draw": 0, "losses": [1.0, 2.0, 4.0]},
                         {"case": "NF4", "draw": 0, "losses": [1.5, 2.5, 4.5]},
                         {"case": "int4 GPTQ", "draw": 0, "losses": [1.0, 2.0, 4.0]},
                         {"case": "int4 GPTQ", "draw": 1, "losses": [1.0, 3.0, 6.0]}]}
    assert methods.excess(record, "NF4") == (0.5, 0, [0.5])  # all documents lose alike: no error
    mean, error, draws = methods.excess(record, "int4 GPTQ")
    assert (mean, draws) == (0.5, [0, 1]) and error == pytest.approx(0.5 / math.sqrt(3))
    assert methods.excess(record, "NF4", against="int4 GPTQ")[0] == 0.5
    assert methods.complete(record, 4) == ["16 bits", "NF4"]  # two draws of three are not all
    with pytest.raises(ValueError, match=r"not both in the record: it has \['16 bits', 'NF4'\]"):
        methods.excess(record, "NF5")


def test_what_the_lesson_says_of_the_record():
    loss = {name: methods.excess(RECORD, name) for name in NAMES}
    mean = {name: found[0] for name, found in loss.items()}
    assert abs(mean["Q8_0"]) < 1e-4
    for draw in loss["NF4 GPTQ"][2]:
        assert draw < 0.65 * mean["NF4"]
    assert abs(mean["int4 GPTQ"] - mean["NF4"]) < 5e-4
    assert mean["NF4"] < mean["NVFP4"] < mean["E2M1"] and mean["MXFP4"] > mean["int4"]
    assert abs(mean["NF4 double"] - mean["NF4"]) < loss["NF4"][1]
    assert all(mean["NF4 GPTQ"] < mean[name] < mean["NF4"] for name in NAMES if "+" in name)
    assert min(mean[name] for name in NAMES if name.startswith("int3")) > 7 * max(
        mean[name] for name in NAMES if not name.startswith("int3"))
    for draw in loss["int3 AWQ"][2] + loss["int3, 1 % salient kept"][2] + loss["int3, 1 % random kept"][2]:
        assert abs(draw / mean["int3"] - 1) < 0.05
    for draw in loss["int3 GPTQ"][2]:
        assert 0.28 < 1 - draw / mean["int3"] < 0.35


def test_what_the_lesson_says_of_smollm2():
    loss = {name: methods.excess(REAL, name) for name in NAMES}
    mean = {name: found[0] for name, found in loss.items()}
    for draw in range(methods.DRAWS):
        assert 1 - loss["int4 AWQ"][2][draw] / mean["int4"] > 2 / 3
        assert loss["int4 AWQ"][2][draw] < loss["int4 GPTQ"][2][draw]
        assert 0.35 < 1 - loss["NF4 AWQ"][2][draw] / mean["NF4"] < 0.45
        assert 0.3 < 1 - loss["int3, 1 % salient kept"][2][draw] / mean["int3"] < 0.37
        assert 1 - loss["int3, 1 % random kept"][2][draw] / mean["int3"] < 0.03
        assert 0.7 < 1 - loss["NF4 + weighted SVD"][2][draw] / mean["NF4"] < 0.75
    ahead = [a < b for a, b in zip(loss["NF4 AWQ"][2], loss["NF4 GPTQ"][2], strict=True)]
    assert any(ahead) and not all(ahead)
    assert abs(mean["NF4"] - mean["NVFP4"]) < loss["NVFP4"][1] and mean["MXFP4"] > 2 * mean["NF4"]
    assert all(0.8 * mean["NF4"] < mean[name] < mean["NF4"] for name in ("NF4 + SVD", "NF4 + LoftQ", "NF4 + PiSSA"))
