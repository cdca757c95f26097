"""Merging from file to file: against PEFT's own merge in memory, bit for bit, on a base of several shards."""

from __future__ import annotations

import json
import shutil

import bitsandbytes as bnb
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from helpers.finale import merging
from helpers.finale.merging import merge_shards, merging_bytes
from helpers.finale.tiers import TIERS
from helpers.memory import LLAMAS, skeleton
from helpers.pocket import WEIGHTS


def make(folder, tied: bool = False, targets="all-linear", **lora):
    """A base of three or more shards in fp16 and an adapter of random numbers beside it."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied, initializer_range=0.2)
    model = LlamaForCausalLM(config).half()
    model.save_pretrained(folder / "base", max_shard_size="60KB")
    (folder / "base" / "tokenizer_config.json").write_text("{}")
    (folder / "base" / "pytorch_model.bin").write_bytes(b"a pickle")
    tuned = get_peft_model(model.float(), LoraConfig(r=4, lora_alpha=6, target_modules=targets, **lora))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lora", [{}, {"targets": ["q_proj", "v_proj"], "use_rslora": True}])
def test_bit_for_bit_what_peft_merges_in_memory(tmp_path, monkeypatch, dtype, tied, lora):
    base, adapter = make(tmp_path, tied, **lora)
    assert len(list(base.glob("*.safetensors"))) > 2
    monkeypatch.setattr(merging, "SHARD", 50_000)
    out = merge_shards(base, adapter, tmp_path / "merged", dtype)
    assert len(list(out.glob("*.safetensors"))) > 2
    wanted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    wanted = {name: weight.to(dtype) for name, weight in wanted.merge_and_unload().state_dict().items()}
    found = AutoModelForCausalLM.from_pretrained(out)  # in the dtype that its config names
    assert found.state_dict().keys() == wanted.keys() and found.dtype == dtype
    assert all(torch.equal(weight, wanted[name]) for name, weight in found.state_dict().items())
    assert found.config.tie_word_embeddings == tied == ("lm_head.weight" not in merging._Tensors(out))
    before = AutoModelForCausalLM.from_pretrained(base).model.layers[0].self_attn.q_proj.weight
    assert not torch.equal(found.model.layers[0].self_attn.q_proj.weight, before.to(dtype))
    names = {path.name for path in out.iterdir()}
    assert "tokenizer_config.json" in names and "pytorch_model.bin" not in names
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_through_nf4_it_is_the_merge_into_the_dequantized_base(tmp_path):
    base, adapter = make(tmp_path, targets=["q_proj", "v_proj"])
    out = merge_shards(base, adapter, tmp_path / "merged", torch.float16, through_nf4=True)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32))
    assert isinstance(model.model.layers[0].mlp.up_proj, bnb.nn.Linear4bit)
    wanted = PeftModel.from_pretrained(model.dequantize(), adapter).merge_and_unload().half().state_dict()
    found = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_one_file_needs_no_index(tmp_path):
    out = merge_shards(*make(tmp_path), tmp_path / "merged")
    assert [path.name for path in out.glob("*.safetensors*")] == ["model.safetensors"]


def test_what_is_more_than_plain_lora_is_refused(tmp_path):
    base, adapter = make(tmp_path)
    for change, word in (({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias"),
                         ({"modules_to_save": ["lm_head"]}, "modules_to_save"), ({"rank_pattern": {"q": 2}}, "rank_p")):
        odd = tmp_path / "odd"
        shutil.copytree(adapter, odd, dirs_exist_ok=True)
        settings = json.loads((adapter / "adapter_config.json").read_text())
        (odd / "adapter_config.json").write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=f"{word}.*merge_and_unload"):
            merge_shards(base, odd, tmp_path / "merged")
    state = load_file(adapter / "adapter_model.safetensors")
    for name in ("model.layers.7.mlp.up_proj", "lm_head", "model.embed_tokens"):
        pair = {f"base_model.model.{name}.lora_{x}.weight": torch.ones(4, 4) for x in "AB"}
        save_file(state | pair, adapter / "adapter_model.safetensors")
        with pytest.raises(ValueError, match=f"does not fit base.*{name}.weight is none"):
            merge_shards(base, adapter, tmp_path / "merged")
    save_file(dict(list(state.items())[1:]), adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="one lora_A and one lora_B"):
        merge_shards(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_nothing_is_written_over_and_an_interrupted_merge_is_begun_again(tmp_path, monkeypatch):
    base, adapter = make(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(merging, "_write_the_rest", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            merge_shards(base, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge_shards(base, adapter, tmp_path / "merged")
    with pytest.raises(ValueError, match="merged exists already"):
        merge_shards(base, adapter, tmp_path / "merged")


def test_the_forecast_for_llama_2(tmp_path):
    memory, disk = merging_bytes(6_738_415_616, 4096 * 11_008)
    assert memory < 1.6e9 and disk == TIERS["llama-2-7b"].size.bytes
    shapes = [p.shape.numel() for p in skeleton(LLAMAS["Llama-2-7B"]).parameters()]
    assert 2 * max(shapes) < merging.SHARD, "a weight alone would be larger than a file"


def test_no_more_than_a_file_and_a_weight_is_in_memory(tmp_path, monkeypatch):
    """Tensors alive at once, counted at every operation: files of 50 kB from a base of 0.3 MB."""
    from helpers.memory.peak import Peak

    base, adapter = make(tmp_path)
    monkeypatch.setattr(merging, "SHARD", 50_000)
    with Peak() as peak:
        merge_shards(base, adapter, tmp_path / "merged")
    held = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    assert 40_000 < peak.bytes < 50_000 + 12 * 64 * 128 < held


def test_one_published_weight_is_read():
    found = merging.published_weight(WEIGHTS, "model.layers.0.mlp.up_proj.weight")
    whole = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=found.dtype)
    assert torch.equal(found, whole.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(KeyError, match="no_such"):
        merging.published_weight(WEIGHTS, "no_such.weight")
