"""The ledger's forecast against models as libraries hold them, and against the tensors that autograd keeps."""

import bitsandbytes as bnb
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from peak import Peak
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)
from trl import SFTConfig, SFTTrainer

from helpers.memory import (
    CARDS,
    GIB,
    LLAMAS,
    forecast_training,
    forecast_weights,
    layer_activations,
    linear_shapes,
    lora_weights,
    measure,
    skeleton,
    smallest_card,
)
from helpers.pocket import WEIGHTS as POCKET_WEIGHTS

SMALL = LlamaConfig(hidden_size=128, intermediate_size=352, num_hidden_layers=2, num_attention_heads=4,
                    num_key_value_heads=2, vocab_size=100)  # 352 · 128 is no multiple of 64 · 256


def load(path, dtype=torch.bfloat16, **settings):
    return AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, quantization_config=BitsAndBytesConfig(load_in_4bit=True, **settings) if settings else None)


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
    assert dict(measure(model)) == dict(forecast_weights(model.config, bits=bits))


def test_measure_finds_what_the_footprint_leaves_out(checkpoints):
    plain, nested = (load(checkpoints["pocket"], bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=dq)
                     for dq in (False, True))
    assert plain.get_memory_footprint() == nested.get_memory_footprint()
    assert measure(plain)["absmax"] - measure(nested)["absmax"] - measure(nested)["nested absmax"] > 30_000
    missing = measure(plain)["absmax"] + measure(plain)["codebooks"]
    assert abs(measure(plain).total - plain.get_memory_footprint() - missing) <= 64  # two buffers share their memory


@pytest.mark.parametrize("name, parameters", [
    ("GPT-2", 124_439_808), ("Llama-2-7B", 6_738_415_616), ("Llama-2-13B", 13_015_864_320),
    ("LLaMA-65B", 65_285_660_672), ("Llama-2-70B", 68_976_648_192)])
def test_published_parameter_counts(name, parameters):
    forecast = forecast_weights(LLAMAS[name], bits=32)
    assert forecast["parameters"] == 4 * parameters


def test_llama_2_7b_in_nf4():
    config = LLAMAS["Llama-2-7B"]
    assert sum(out * into for out, into in linear_shapes(skeleton(config)).values()) == 6_476_005_376
    with_dq, without = forecast_weights(config), forecast_weights(config, double_quant=False)
    assert round(sum(with_dq[k] for k in ("codes", "absmax", "nested absmax")) / GIB, 2) == 3.11
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
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["pocket", "llama", "wide heads", "mistral", "qwen2"])
def test_activations_forecast_is_what_autograd_keeps(checkpoints, name, dtype, dropout, targets):
    model = load(checkpoints[name], dtype, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    config = model.config
    model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, lora_dropout=dropout, task_type="CAUSAL_LM"))
    model.train()
    hidden = torch.randn(2, 24, config.hidden_size, dtype=dtype, requires_grad=True)
    inner = model.base_model.model.model
    position = inner.rotary_emb(hidden, torch.arange(24)[None])
    kept = saved_bytes(model, inner.layers[1], hidden, position_embeddings=position)
    forecast = 2 * 24 * layer_activations(config, 4, targets, bool(dropout), dtype.itemsize, gpu=False)
    assert kept == forecast


def test_bad_input_says_what_to_do():
    llama = LLAMAS["Llama-2-7B"]
    for call, words in (
        (lambda: forecast_weights(llama, bits=8), "bits=8: take 2, 3 or 4"),
        (lambda: forecast_weights(llama, block_size=0), "block_size=0: take 1"),
        (lambda: lora_weights(llama, 0), "r=0: a rank is 1"),
        (lambda: lora_weights(llama, 8, ["query"]), "some of .*q_proj"),
        (lambda: forecast_training(llama, batch=0), "batch=0, sequence=512: take 1"),
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


def test_smallest_card():
    assert smallest_card(0) == min(CARDS) and smallest_card(15 * GIB) == 16 and smallest_card(15 * GIB + 1) == 24
    assert smallest_card(90 * GIB) is None


def training_step_peak(folder, config, batch, sequence, r, checkpointing, dropout, dtype):
    """Bytes at the peak of one step of TRL's trainer, bitsandbytes and PEFT underneath; random weights."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    model = load(folder, dtype, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    row = {"input_ids": [5 + n % 50 for n in range(sequence)]}
    arguments = SFTConfig(
        output_dir=str(folder / "out"), max_steps=1, per_device_train_batch_size=batch, max_length=sequence,
        gradient_checkpointing=checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False}, bf16=False,
        optim="adamw_torch", report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list([row] * batch),
                         processing_class=AutoTokenizer.from_pretrained(POCKET_WEIGHTS), peft_config=LoraConfig(
                             r=r, target_modules="all-linear", lora_dropout=dropout, task_type="CAUSAL_LM"))
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    seen, step = [], trainer.training_step

    def measured(*arguments):
        with Peak(trainer.model) as peak:
            for parameter in trainer.model.parameters():  # as where gradients are accumulated over several batches
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
            result = step(*arguments)
        seen.append(peak.bytes)
        return result

    trainer.training_step = measured
    trainer.train()
    return seen[0]


@pytest.mark.parametrize("batch, sequence, r, checkpointing, dropout, dtype", [
    (1, 512, 8, True, 0.0, torch.bfloat16), (1, 512, 8, False, 0.0, torch.bfloat16),
    (2, 256, 64, True, 0.1, torch.bfloat16), (1, 256, 8, False, 0.1, torch.float32)])
def test_training_forecast_is_the_peak_of_a_real_step_within_5_percent(
        tmp_path, batch, sequence, r, checkpointing, dropout, dtype, monkeypatch):
    monkeypatch.setattr("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE", 64)  # else the head is all there is to see
    monkeypatch.setattr("helpers.memory.TILE", (4096, 64))
    config = LlamaConfig(hidden_size=512, intermediate_size=1376, num_hidden_layers=4, num_attention_heads=8,
                         vocab_size=64, pad_token_id=3)
    peak = training_step_peak(tmp_path, config, batch, sequence, r, checkpointing, dropout, dtype)
    forecast = forecast_training(config, r, batch=batch, sequence=sequence, checkpointing=checkpointing,
                                 dropout=bool(dropout), dtype=dtype, optimizer_bytes=0, gpu=False).total
    assert forecast == pytest.approx(peak, rel=0.05)


def test_training_forecast_knows_when_the_output_head_is_the_peak(tmp_path):
    config = LlamaConfig(hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=2,
                         vocab_size=32_768, pad_token_id=3)
    peak = training_step_peak(tmp_path, config, 1, 128, 4, True, 0.0, torch.bfloat16)
    forecast = forecast_training(config, 4, sequence=128, optimizer_bytes=0, gpu=False)
    assert forecast.total == pytest.approx(peak, rel=0.05) and forecast["workspace"] > 0.8 * peak
