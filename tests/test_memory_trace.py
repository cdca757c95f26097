"""The traced step against a real one of TRL's trainer, and the ledger's forecast against both."""

import warnings
from unittest import mock

import bitsandbytes as bnb
import pytest
import torch
from real_step import training_step_peak
from transformers import LlamaConfig

from helpers.memory import LLAMAS, forecast_training, lora_weights, trace

SMALL = LlamaConfig(hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
                    vocab_size=64, pad_token_id=3)
WORDY = LlamaConfig(hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, vocab_size=32_768, pad_token_id=3)
TINY = LlamaConfig(hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=4,
                   vocab_size=32_000)


SMALLEST = LlamaConfig(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                       num_key_value_heads=2, vocab_size=100, pad_token_id=3)
TIED = LlamaConfig.from_dict(SMALLEST.to_dict() | {"tie_word_embeddings": True})


def few_layers(config, layers=2):
    return type(config).from_dict(config.to_dict() | {"num_hidden_layers": layers})


@pytest.mark.parametrize("batch, sequence, r, checkpointing, dropout, dtype, gpu", [
    (1, 512, 8, True, 0.0, torch.bfloat16, False), (1, 512, 8, False, 0.0, torch.bfloat16, False),
    (2, 256, 64, True, 0.1, torch.bfloat16, False), (1, 256, 8, False, 0.1, torch.float32, False),
    (1, 512, 8, True, 0.0, torch.bfloat16, True), (2, 256, 64, False, 0.1, torch.bfloat16, True)])
def test_trace_is_a_real_step_and_the_forecast_comes_within_5_percent(
        tmp_path, batch, sequence, r, checkpointing, dropout, dtype, gpu, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 64)  # else the head is all there is to see
    monkeypatch.setattr("helpers.memory.forecast.TILE", (4096, 64))
    peak = training_step_peak(tmp_path, SMALL, batch, sequence, r, checkpointing, dropout, dtype, gpu)
    step = {"r": r, "batch": batch, "sequence": sequence, "checkpointing": checkpointing, "dropout": bool(dropout),
            "dtype": dtype, "optimizer_bytes": 0, "gpu": gpu}
    assert trace(SMALL, **step).total == pytest.approx(peak, rel=2e-4)
    assert forecast_training(SMALL, **step).total == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("batch, sequence, checkpointing, dropout, dtype, gpu", [
    (1, 32, True, 0.0, torch.bfloat16, False), (1, 32, True, 0.0, torch.bfloat16, True),
    (2, 24, False, 0.1, torch.bfloat16, True), (2, 24, False, 0.1, torch.float32, False)])
def test_the_trace_of_a_tiny_model_is_a_real_step_to_a_few_bytes(
        tmp_path, batch, sequence, checkpointing, dropout, dtype, gpu, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 64)
    peak = training_step_peak(tmp_path, SMALLEST, batch, sequence, 4, checkpointing, dropout, dtype, gpu)
    traced = trace(SMALLEST, 4, batch=batch, sequence=sequence, checkpointing=checkpointing, dropout=bool(dropout),
                   dtype=dtype, optimizer_bytes=0, gpu=gpu)
    assert abs(traced.total - peak) <= 8
    assert traced.total == sum(traced.values()) == traced.phases["backward"] == max(traced.phases.values())


def test_so_it_is_where_the_peak_lies_in_the_head_on_the_way_forward(tmp_path):
    peak = training_step_peak(tmp_path, SMALLEST, 1, 24, 16, True, 0.0, torch.bfloat16, True)
    traced = trace(SMALLEST, sequence=24, optimizer_bytes=0)
    assert abs(traced.total - peak) <= 8 and traced.total == traced.phases["forward"] > traced.phases["backward"]


def test_on_a_gpu_the_head_makes_no_copies_in_32_bit():
    traced, on_cpu = (trace(WORDY, 4, sequence=128, gpu=gpu).total for gpu in (True, False))
    assert traced == pytest.approx(forecast_training(WORDY, 4, sequence=128).total, rel=0.05) and traced < on_cpu / 2


@pytest.mark.parametrize("settings", [
    {}, {"targets": ("q_proj", "down_proj"), "double_quant": False, "dtype": torch.float16},
    {"bits": 16, "checkpointing": False, "sequence": 512},
    {"bits": 32, "optimizer_bytes": 0, "targets": {"q_proj", "v_proj"}}, {"config": TIED}])
def test_the_trace_of_a_tiny_model_holds_what_the_ledger_says_to_the_byte(settings):
    step = {"config": SMALLEST, "r": 4, "sequence": 8} | settings
    traced, forecast = trace(**step), forecast_training(**step)
    assert list(traced) == list(forecast)
    for name in ("weights", "scales", "adapters", "gradients", "optimizer"):
        assert traced[name] == forecast[name]
    if not step.get("checkpointing", True):  # else what waits in the head outweighs the inputs of tiny layers
        assert traced["activations"] == pytest.approx(forecast["activations"], rel=0.05)


def test_both_types_of_16_bit_take_the_same():
    float16, bfloat16 = (trace(SMALLEST, 4, sequence=8, dtype=dtype) for dtype in (torch.float16, torch.bfloat16))
    assert float16 == bfloat16 and float16.phases == bfloat16.phases


def test_in_32_bit_nothing_is_asked_of_autocast_which_would_complain():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*autocast")
        trace(SMALLEST, 4, sequence=8, bits=32)


def test_an_8_bit_optimizer_keeps_a_byte_each_a_scale_for_256_and_small_tensors_in_32_bit():
    small = 2 * 2 * 64 * 32  # B of k and v in two layers: fewer than 4096 weights each
    traced, trained = trace(SMALLEST, 64, sequence=8, optimizer_bytes=2), lora_weights(SMALLEST, 64)
    assert traced["optimizer"] == 8 * small + (2 + 2 * 4 / 256) * (trained - small) + 2 * 4 * 256  # and two tables
    assert trace(SMALLEST, 64, sequence=8)["optimizer"] == 8 * trained


def test_both_know_when_the_output_head_is_the_peak(tmp_path):
    peak = training_step_peak(tmp_path, WORDY, 1, 128, 4, True, 0.0, torch.bfloat16)
    step = {"r": 4, "sequence": 128, "optimizer_bytes": 0, "gpu": False}
    assert trace(WORDY, **step).total == pytest.approx(peak, rel=2e-4)
    forecast = forecast_training(WORDY, **step)
    assert forecast.total == pytest.approx(peak, rel=0.05) and forecast["workspace"] > 0.8 * peak


# With few layers more than the weights is to be seen. tests/bench_memory.py does the whole models.
@pytest.mark.parametrize("config, settings", [
    (TINY, {"batch": 4}), (TINY, {"r": 64, "checkpointing": False, "optimizer_bytes": 2}),
    (LLAMAS["Llama-2-7B"], {"r": 64, "dropout": True}), (LLAMAS["Llama-2-7B"], {"batch": 4, "sequence": 2048}),
    (LLAMAS["Llama-2-7B"], {"batch": 4, "bits": 16}), (LLAMAS["Llama-2-7B"], {"bits": 32, "checkpointing": False}),
    (LLAMAS["Llama-2-7B"], {"dtype": torch.float16, "targets": ["q_proj", "v_proj"], "double_quant": False}),
    (LLAMAS["Llama-2-13B"], {"sequence": 2048, "checkpointing": False}),
    (LLAMAS["Llama-2-70B"], {"r": 64}), (LLAMAS["Llama-2-70B"], {"batch": 4, "sequence": 2048, "r": 8})])
def test_the_forecast_comes_within_5_percent_of_the_traced_step(config, settings):
    traced, forecast = (function(few_layers(config), **settings) for function in (trace, forecast_training))
    assert forecast.total == pytest.approx(traced.total, rel=0.05)
    assert list(forecast) == list(traced)
    for name in ("weights", "scales", "adapters", "gradients"):
        assert forecast[name] == traced[name]


def test_the_whole_of_llama_2_7b():
    config = LLAMAS["Llama-2-7B"]
    assert forecast_training(config, r=64).total == pytest.approx(trace(config, r=64).total, rel=0.02)


def test_another_layer_takes_what_the_one_before_took():
    two, three, four = (trace(few_layers(TINY, layers), checkpointing=False, sequence=64).total for layers in (2, 3, 4))
    assert four - three == three - two > 0


def test_phases():
    traced = trace(few_layers(TINY), r=64)
    assert list(traced.phases) == ["load", "forward", "backward", "step"]
    assert traced.total == max(traced.phases.values()) == traced.phases["backward"]
    held = traced["weights"] + traced["scales"] + traced["adapters"]
    one_weight = TINY.vocab_size * TINY.hidden_size * 2
    assert held <= traced.phases["load"] <= held + one_weight
    held += traced["gradients"] + traced["optimizer"]
    assert held <= traced.phases["step"] < 1.02 * held


def test_bad_input_says_what_to_do():
    for settings, words in (
        ({"bits": 3}, "bits=3: take 4"), ({"optimizer_bytes": 4}, "optimizer_bytes=4: take 8 or 2"),
        ({"batch": 0}, "batch=0, sequence=512: take 1"), ({"sequence": -1}, "sequence=-1: take 1"),
        ({"r": 0}, "r=0: a rank is 1"), ({"targets": ["query"]}, "some of .*q_proj"),
    ):
        with pytest.raises(ValueError, match=words):
            trace(SMALL, **settings)
    with pytest.raises(ValueError, match="gpt2.*Llama-like"):
        trace(LLAMAS["GPT-2"])


def test_nothing_is_left_behind():
    bnb.functional.quantize_4bit(torch.ones(64), compress_statistics=True)  # makes a table, and keeps it
    tables = dict(bnb.functional.name2qmap)
    with mock.patch.dict(bnb.functional.name2qmap, clear=True):
        alone = trace(SMALLEST, 64, optimizer_bytes=2)
    assert tables and trace(SMALLEST, 64, optimizer_bytes=2) == alone
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        trace(few_layers(SMALL, 1), dropout=True)
        assert not torch.is_autocast_enabled()  # of CUDA
    assert torch.equal(torch.rand(3), expected)
    assert bnb.functional.name2qmap == tables
    assert type(torch.ones(1) + 1) is torch.Tensor
