"""The ledger's forecast against models as libraries hold them, and against the tensors that autograd keeps."""

import contextlib
import re

import bitsandbytes as bnb
import pytest
import torch
import trl.trainer.utils
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from real_step import load
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, Qwen2Config
from trl.kernels import chunked_logprob

from helpers.memory import (
    CARDS,
    GIB,
    LLAMAS,
    Ledger,
    forecast_training,
    forecast_weights,
    layer_activations,
    linear_shapes,
    lora_weights,
    measure,
    skeleton,
    smallest_card,
    trace,
)
from helpers.memory.card import Card, as_on_a_gpu
from helpers.memory.peak import Peak
from helpers.pocket import WEIGHTS as POCKET_WEIGHTS
from helpers.qlora import NF4Linear

SMALL = LlamaConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, vocab_size=100)  # 352 · 128 is no multiple of 64 · 256


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of random weights by name: a Llama with odd sizes, a small GPT-2 (Conv1D, tied head)."""
    folder = tmp_path_factory.mktemp("models")
    shape = {name: getattr(SMALL, name) for name in (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "vocab_size")}
    configs = {"llama": SMALL, "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=2, vocab_size=90),
               "wide heads": LlamaConfig(**shape, head_dim=48), "mistral": MistralConfig(**shape, head_dim=32),
               "qwen2": Qwen2Config(**shape, tie_word_embeddings=True)}
    for name, config in configs.items():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder / name)
    return {"pocket": POCKET_WEIGHTS, **{name: folder / name for name in configs}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("name", ["pocket", "llama", "gpt2", "wide heads", "qwen2"])
def test_weights_forecast_is_what_bitsandbytes_holds_to_the_byte(checkpoints, name, double_quant, dtype):
    model = load(checkpoints[name], dtype, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double_quant)
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in model.modules())
    held = measure(model)
    assert dict(held) == dict(forecast_weights(model.config, double_quant=double_quant, dtype=dtype))
    assert held["absmax"] > 0 and (held["nested absmax"] > 0) == double_quant


@pytest.mark.parametrize("name", ["pocket", "llama", "gpt2"])
@pytest.mark.parametrize("bits, dtype", [(16, torch.bfloat16), (32, torch.float32)])
def test_forecast_without_quantization(checkpoints, name, bits, dtype):
    model = load(checkpoints[name], dtype)
    forecast = forecast_weights(model.config, bits=bits)
    assert dict(measure(model)) == dict(forecast) and all(isinstance(count, int) for count in forecast.values())


def test_measure_finds_what_the_footprint_leaves_out(checkpoints):
    plain, nested = (load(checkpoints["pocket"], bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=dq)
                     for dq in (False, True))
    assert plain.get_memory_footprint() == nested.get_memory_footprint()
    assert measure(plain)["absmax"] - measure(nested)["absmax"] - measure(nested)["nested absmax"] > 30_000
    missing = measure(plain)["absmax"] + measure(plain)["codebooks"]
    assert abs(measure(plain).total - plain.get_memory_footprint() - missing) <= 64  # two buffers share their memory


@pytest.mark.parametrize("name, parameters", [
    ("GPT-2", 124_439_808), ("Llama-2-7B", 6_738_415_616), ("Llama-2-13B", 13_015_864_320),
    ("LLaMA-33B", 32_528_943_616), ("LLaMA-65B", 65_285_660_672), ("Llama-2-70B", 68_976_648_192)])
def test_published_parameter_counts(name, parameters):
    forecast = forecast_weights(LLAMAS[name], bits=32)
    assert forecast["parameters"] == 4 * parameters


def test_shapes_are_out_by_in_also_where_the_weight_is_kept_transposed():
    llama, gpt2 = (linear_shapes(skeleton(LLAMAS[name])) for name in ("Llama-2-7B", "GPT-2"))
    assert llama["model.layers.31.mlp.down_proj"] == (4096, 11008) and "lm_head" not in llama
    assert gpt2["transformer.h.0.attn.c_attn"] == (3 * 768, 768)


@pytest.mark.parametrize("bits", [2, 3])
def test_fewer_bits_are_stored_as_four_are(bits):
    four, fewer = forecast_weights(SMALL), forecast_weights(SMALL, bits=bits)
    linears = len(linear_shapes(skeleton(SMALL)))
    assert fewer == four | {"codes": four["codes"] * bits // 4,
                            "codebooks": four["codebooks"] - linears * 4 * (16 - 2**bits)}


def test_a_block_may_be_a_single_weight():
    forecast = forecast_weights(SMALL, block_size=1, double_quant=False)
    assert forecast["absmax"] == 4 * 2 * forecast["codes"]


def test_unless_told_otherwise_it_is_qlora_on_a_gpu():
    step = {"r": 16, "targets": "all-linear", "batch": 1, "sequence": 512, "bits": 4, "double_quant": True,
            "checkpointing": True, "dropout": False, "optimizer_bytes": 8, "dtype": torch.bfloat16, "gpu": True}
    assert forecast_training(SMALL) == forecast_training(SMALL, **step)
    assert forecast_weights(SMALL) == forecast_weights(SMALL, 4, True, 64, torch.bfloat16)
    assert layer_activations(SMALL, 8) == layer_activations(SMALL, 8, "all-linear", False, 2, True, True)
    assert lora_weights(SMALL, 1) * 8 == lora_weights(SMALL, 8, "all-linear")
    for other in {}, {"checkpointing": False}:  # without, dropout is to be seen
        traced, said = trace(SMALL, **other), trace(SMALL, **step | other)
        assert (traced, traced.phases) == (said, said.phases)


def test_llama_2_7b_in_nf4():
    config = LLAMAS["Llama-2-7B"]
    assert sum(out * into for out, into in linear_shapes(skeleton(config)).values()) == 6_476_005_376
    with_dq, without = forecast_weights(config), forecast_weights(config, double_quant=False)
    assert round(sum(with_dq[k] for k in ("codes", "absmax", "nested absmax")) / GIB, 2) == 3.11
    assert with_dq["nested absmax"] == 4 * 6_476_005_376 // 64 // 256
    assert round((without["codes"] + without["absmax"]) / GIB, 2) == 3.39
    assert round(with_dq.total / GIB, 2) == 3.60


@pytest.mark.parametrize("r, targets, count", [
    (8, "all-linear", 19_988_480), (16, "all-linear", 39_976_960), (64, "all-linear", 159_907_840),
    (8, ("q_proj", "v_proj"), 4_194_304), (64, ["q_proj", "v_proj"], 33_554_432)])
def test_lora_weights_of_llama_2_7b(r, targets, count):
    assert lora_weights(LLAMAS["Llama-2-7B"], r, targets) == count


def saved_bytes(model, layer, hidden, **inputs):
    """Bytes of the tensors that autograd keeps of one layer: neither held by the model nor given to the layer."""
    held = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers(), hidden]}
    held |= {t.untyped_storage().data_ptr() for pair in inputs.values() if isinstance(pair, tuple) for t in pair}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = tensor  # alive, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(hidden, **inputs)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name, dtype, quantized, gpu", [
    ("pocket", torch.float32, True, False), ("pocket", torch.bfloat16, True, False),
    ("llama", torch.float32, True, False), ("llama", torch.bfloat16, True, False),
    ("llama", torch.float32, True, True), ("llama", torch.bfloat16, True, True),
    ("llama", torch.bfloat16, False, True), ("wide heads", torch.float32, True, False),
    ("mistral", torch.bfloat16, True, False), ("qwen2", torch.float32, True, False),
    ("qwen2", torch.bfloat16, True, True)])
def test_activations_forecast_is_what_autograd_keeps(checkpoints, name, dtype, quantized, gpu, dropout, targets):
    how = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype} if quantized else {}
    model = load(checkpoints[name], dtype, **how)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    config = model.config
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, lora_dropout=dropout, task_type="CAUSAL_LM"))
    model.train()
    hidden = torch.randn(2, 24, config.hidden_size, dtype=dtype, requires_grad=True)
    inner = model.base_model.model.model
    position = inner.rotary_emb(hidden, torch.arange(24)[None])
    autocast = gpu and dtype is torch.bfloat16
    with as_on_a_gpu() if gpu else contextlib.nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        kept = saved_bytes(model, inner.layers[1], hidden, position_embeddings=position)
    forecast = 2 * 24 * layer_activations(config, 4, targets, bool(dropout), dtype.itemsize, gpu, quantized)
    copies = 2 * lora_weights(config, 4, targets) // config.num_hidden_layers if autocast else 0
    assert kept == forecast + copies and isinstance(forecast, int)


def test_bad_input_says_what_to_do():
    llama = LLAMAS["Llama-2-7B"]
    for call, words in (
        (lambda: forecast_weights(llama, bits=8), "bits=8: take 2, 3 or 4"),
        (lambda: forecast_weights(llama, block_size=0), "block_size=0: take 1"),
        (lambda: lora_weights(llama, 0), "r=0: a rank is 1"),
        (lambda: lora_weights(llama, 8, ["query"]), r"no .* some of \['down_proj', 'gate_proj', 'k_proj', 'o_proj'"),
        (lambda: forecast_training(llama, batch=0), "batch=0, sequence=512: take 1"),
        (lambda: forecast_training(llama, sequence=0), "batch=1, sequence=0: take 1"),
        (lambda: forecast_training(LLAMAS["GPT-2"]), "gpt2.*Llama-like"),
    ):
        with pytest.raises(ValueError, match=words):
            call()


@given(r=st.integers(1, 64), batch=st.integers(1, 8), sequence=st.integers(1, 4096), bits=st.sampled_from([4, 16, 32]))
@settings(max_examples=25, deadline=None)
def test_training_forecast_grows_with_what_costs_memory(r, batch, sequence, bits):
    def total(**changed):
        return forecast_training(SMALL, **{"r": r, "batch": batch, "sequence": sequence, "bits": bits} | changed).total

    assert total(r=r + 1) > total() and total(batch=batch + 1) > total() and total(sequence=sequence + 1) > total()
    assert total(checkpointing=False) > total() and total(optimizer_bytes=2) < total()


WIDE = LlamaConfig(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                   num_key_value_heads=8, vocab_size=128_256)
TINY = LlamaConfig(hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
                   num_key_value_heads=2, vocab_size=100)


@pytest.mark.parametrize("config, settings, activations, workspace", [
    (LLAMAS["Llama-2-7B"], {}, 32 * 512 * 2 * 4096, 203_882_496),
    (WIDE, {"batch": 4, "sequence": 2048}, 16 * 8192 * 2 * 2048, 1_161_986_048),
    (WIDE, {"gpu": False}, 16 * 512 * 2 * 2048, 532_676_608),
    (WIDE, {"gpu": False, "sequence": 24}, 16 * 24 * 2 * 2048, 273_743_872),
    (WIDE, {"gpu": False, "sequence": 24, "bits": 32}, 16 * 24 * 4 * 2048, 26_738_688),
    (WIDE, {"gpu": False, "bits": 32, "checkpointing": False}, 1_514_733_568, 570_425_344),
    (WIDE, {"bits": 16, "checkpointing": False, "targets": ["q_proj", "o_proj", "down_proj"]}, 833_421_312, 46_137_344),
    (TINY, {"dropout": True}, 2 * 512 * 2 * 64, 33_947_648),
    (TINY, {"dropout": True, "gpu": False, "checkpointing": False, "batch": 2, "sequence": 24}, 641_280, 3_321_792),
    (TINY, {"bits": 32, "sequence": 24}, 2 * 24 * 4 * 64, 24 * 32_768 * 4 + 24 * 64 * (8 + 8)),
    (TINY, {"bits": 32, "gpu": False, "sequence": 5000}, 2 * 5000 * 4 * 64, 553_869_312),
    (TINY, {"bits": 16, "sequence": 24}, 2 * 24 * 2 * 64, 1_653_760)])
def test_training_forecast_to_the_byte(config, settings, activations, workspace):
    """As they were when they came within 5 % of traced steps: a change by a few bytes would go unseen there."""
    forecast = forecast_training(config, **settings)
    assert (forecast["activations"], forecast["workspace"]) == (activations, workspace)
    assert all(isinstance(count, int) for count in forecast.values())


ONE = LlamaConfig(hidden_size=512, intermediate_size=1376, num_hidden_layers=1, num_attention_heads=8, vocab_size=64)


@pytest.mark.parametrize("bits, checkpointing, gpu, sequence, r, activations, workspace", [
    (4, True, True, 512, 4, 524_288, 14_872_832), (4, True, False, 24, 4, 24_576, 2_352_192),
    (4, True, False, 512, 4, 524_288, 24_293_376), (4, False, True, 24, 4, 590_336, 1_526_784),
    (4, False, False, 256, 4, 8_804_352, 3_342_336), (16, True, True, 24, 64, 24_576, 2_193_344),
    (16, True, False, 24, 4, 24_576, 1_138_752), (16, False, True, 24, 4, 688_640, 313_344),
    (32, True, True, 24, 4, 49_152, 1_238_592), (32, False, False, 24, 4, 925_248, 362_496)])
def test_training_forecast_to_the_byte_where_the_head_is_narrow(
        bits, checkpointing, gpu, sequence, r, activations, workspace, monkeypatch):
    """Likewise, for what a tile of logits as wide as TRL's would hide."""
    monkeypatch.setattr("helpers.memory.forecast.TILE", (4096, 64))
    forecast = forecast_training(ONE, r, "all-linear", 1, sequence, bits, True, checkpointing, gpu=gpu)
    assert (forecast["activations"], forecast["workspace"]) == (activations, workspace)
    assert all(isinstance(count, int) for count in forecast.values())


def test_training_forecast_to_the_byte_where_copies_for_autocast_make_the_way_forward_the_peak(monkeypatch):
    monkeypatch.setattr("helpers.memory.forecast.TILE", (4096, 64))
    two = LlamaConfig.from_dict(ONE.to_dict() | {"num_hidden_layers": 2})
    assert forecast_training(two, 64, sequence=24, bits=16)["workspace"] == 2_679_808


@pytest.mark.parametrize("bits, double_quant, dtype", [
    (4, True, torch.float32), (4, False, torch.bfloat16), (3, True, torch.float16), (32, True, torch.float32)])
def test_a_step_holds_what_the_weights_forecast_says_and_16_bytes_a_trained_weight(bits, double_quant, dtype):
    weights = forecast_weights(SMALL, bits, double_quant, dtype=dtype)
    step = forecast_training(SMALL, 3, bits=bits, double_quant=double_quant, dtype=dtype)
    trained = lora_weights(SMALL, 3)
    assert step["scales"] == sum(weights[name] for name in ("absmax", "nested absmax", "codebooks", "offsets"))
    assert step["weights"] == weights.total - step["scales"]
    assert step["adapters"] == step["gradients"] == 4 * trained and step["optimizer"] == 8 * trained
    assert forecast_training(SMALL, 3, sequence=1).total > step["adapters"]


def test_a_table_shows_what_is_held_and_the_sum():
    ledger = Ledger(weights=1_234_567, nothing=0, scales=12)
    assert ledger.table().splitlines() == [
        "weights            1,234,567", "scales                    12", "total              1,234,579"]
    html = ledger._repr_html_()
    assert re.findall(r"<td[^>]*>(.*?)</td>", html) == [
        "weights", "1,234,567", "scales", "12", "<b>total</b>", "1,234,579"]
    assert re.sub(r"<[^>]*>", " ", html).split() == [
        "bytes", "weights", "1,234,567", "scales", "12", "total", "1,234,579"]


def test_peak_counts_each_storage_while_it_lives():
    layer = torch.nn.Linear(10, 5)  # 50 + 5 float32
    with Peak(layer) as peak:
        assert peak.bytes == 4 * 55
        first = torch.zeros(100)
        view = first[10:]  # no more than `first`
        assert peak.add(view) == peak.add(first) == 2 and peak.add(torch.empty(0)) is None
        assert peak.add(torch.ones(9, device="meta")) is None
        before = len(peak.events)
        second = torch.zeros(50)
        del first, view
        middle = len(peak.events)
        third = torch.zeros(200, dtype=torch.uint8)
    assert peak.sizes[:5] == [200, 20, 400, 200, 200] and peak.events == [0, 1, 2, 3, ~2, 4]
    assert peak.bytes == 4 * 55 + 600 and peak.highest() == (820, {0, 1, 2, 3})
    assert peak.highest(middle) == (4 * 55 + 400, {0, 1, 3, 4}) and peak.highest(0, before) == (620, {0, 1, 2})
    assert peak.living() == {0, 1, 3, 4} and peak.living(before) == {0, 1, 2}
    assert second.numel() + third.numel() == 250


def test_the_first_of_equal_peaks_counts_even_at_the_very_first_tensor():
    with Peak() as peak:
        assert peak.highest() == (0, set())
        for _ in range(2):
            torch.zeros(50)
        torch.zeros(5)
    assert peak.events == [0, ~0, 1, ~1, 2, ~2] and peak.highest() == (200, {0})
    assert peak.highest(1) == (200, {1}) and peak.highest(3, 4) == (0, set())


@pytest.mark.parametrize("nested", [False, True])
def test_peak_sees_the_weight_that_a_4_bit_product_dequantizes(nested):
    x, bias = torch.randn(3, 192), torch.randn(128)
    codes, state = bnb.functional.quantize_4bit(torch.randn(128, 192), quant_type="nf4", compress_statistics=nested)
    with Peak() as peak:
        result = bnb.matmul_4bit(x, codes.t(), state, bias=bias)
    assert 4 * 128 * 192 in peak.sizes and peak.bytes >= 4 * 128 * 192 + result.nbytes
    assert torch.equal(result, bnb.matmul_4bit(x, codes.t(), state, bias=bias))


def test_on_a_card_every_token_has_a_label_and_other_indices_are_left_alone():
    x, mask, order = torch.rand(2, 3, 4), torch.tensor([[True, False, True]] * 2), torch.tensor([1, 0])
    with Card():
        rows, labels, each, swapped, last = x[mask], mask[mask], x[..., 0].masked_select(mask), x[order], x[:, order]
    assert torch.equal(rows, x.reshape(6, 4)) and torch.equal(labels, mask.flatten())
    assert torch.equal(each, x[..., 0].flatten())
    assert len({tensor.untyped_storage().data_ptr() for tensor in (x, rows, mask, labels)}) == 4  # copies
    assert torch.equal(swapped, x.flip(0)) and torch.equal(last, x[:, :2].flip(1))


def test_as_on_a_gpu_answers_for_one_while_it_lasts():
    ones, asked, head = torch.ones(1000), torch.nn.functional.dropout, torch.device("cpu")
    with as_on_a_gpu():
        for p, kept in ((0.5, 2), (0.75, 4)):
            assert torch.nn.functional.dropout(ones, p).unique().tolist() == [0, kept]
        assert torch.nn.functional.dropout(ones).unique().tolist() == [0, 2]
        assert torch.equal(torch.nn.functional.dropout(ones, 0.5, False), ones)
        with Peak() as peak:
            torch.nn.functional.dropout(ones, 0.1)
        assert sorted(peak.sizes) == [1000, 4000]  # the mask takes a byte each
        assert trl.trainer.utils._use_triton(head) and chunked_logprob._use_triton(head)
        assert not torch.is_autocast_enabled()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.is_autocast_enabled() and torch.is_autocast_enabled("cpu")
            assert not torch.is_autocast_enabled("cuda")
    assert torch.nn.functional.dropout is asked and not trl.trainer.utils._use_triton(head)


def test_measure_knows_our_own_quantized_layers():
    plain = torch.nn.Linear(256, 128, bias=False)
    for double_quant in (False, True):
        layer = NF4Linear.from_linear(plain, double_quant=double_quant)
        held, quantized = measure(torch.nn.Sequential(layer, layer)), layer.quantized  # counted once
        tables, blocks = 4 * 16 + double_quant * 4 * 256, 256 * 128 // 64
        assert held == {"parameters": 0, "codes": 256 * 128 // 2, "absmax": blocks * (1 if double_quant else 4),
                        "nested absmax": double_quant * 4 * blocks // 256, "codebooks": tables,
                        "offsets": double_quant * 4, "buffers": 0}
        assert held.total == quantized.nbytes + tables
    assert measure(torch.nn.BatchNorm1d(3)) == dict.fromkeys(held, 0) | {"parameters": 24, "buffers": 24 + 8}


def test_smallest_card():
    assert smallest_card(0) == min(CARDS) and smallest_card(15 * GIB) == 16 and smallest_card(15 * GIB + 1) == 24
    assert smallest_card(90 * GIB) is None
