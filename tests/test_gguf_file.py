"""GGUF files written from a pocket Llama: read back by transformers and by gguf's own reader, equal."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from families import family_tokenizer
from gguf import GGUFReader
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers import ggml
from helpers.finale import gguf_file
from helpers.finale.gguf_file import read
from helpers.lora import add_lora
from helpers.pocket import load_pocket, world
from helpers.qlora import quantize_model


@pytest.fixture(scope="module")
def pocket():
    return load_pocket()


def test_float16_comes_back_with_equal_weights(pocket, tmp_path):
    model, tokenizer = pocket
    back = read(gguf_file.write(model, tokenizer, tmp_path / "pocket.gguf")).state_dict()
    for name, weight in model.state_dict().items():
        wanted = weight.half().float() if weight.dim() > 1 else weight
        assert torch.equal(back[name], wanted), name
    assert set(back) == set(model.state_dict())


@pytest.mark.parametrize("fmt", [ggml.Q8_0, ggml.Q4_1, ggml.Q4_0], ids=lambda fmt: fmt.name)
def test_blocks_come_back_with_the_error_that_they_have(pocket, fmt, tmp_path):
    model, tokenizer = pocket
    path = gguf_file.write(model, tokenizer, tmp_path / "pocket.gguf", fmt.name)
    back = read(path).state_dict()
    config = model.config
    for name, weight in model.state_dict().items():
        if weight.dim() == 1:
            assert torch.equal(back[name], weight)
            continue
        assert torch.equal(back[name], ggml.dequantize(ggml.quantize(weight, fmt), fmt)), name
        assert (back[name] - weight).abs().max() > 0
    assert path.stat().st_size < config.vocab_size * 60 + 1.05 * fmt.bits_per_weight / 8 * model.num_parameters()


def test_heads_that_share_keys_keep_their_order(tmp_path, pocket):
    """As in SmolLM2: fewer key heads than query heads, one matrix for embedding and head."""
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=96, intermediate_size=64, num_hidden_layers=1, num_attention_heads=6, head_dim=16,
                         num_key_value_heads=2, tie_word_embeddings=True, vocab_size=768, max_position_embeddings=64)
    model = LlamaForCausalLM(config).half().float().eval()
    back = read(gguf_file.write(model, pocket[1], tmp_path / "small.gguf"))
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(back(ids).logits, model(ids).logits)  # the norms' eps is a float32 in the file
    q = model.model.layers[0].self_attn.q_proj.weight
    assert not torch.equal(gguf_file.permute(q, 6), q)
    tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "small.gguf").tensors}
    assert np.array_equal(tensors["blk.0.attn_q.weight"].data, gguf_file.permute(q, 6).detach().half().numpy())
    assert "output.weight" not in tensors


def test_the_rows_of_a_head_are_interleaved():
    rows = torch.arange(8.0)[:, None]
    assert gguf_file.permute(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_tokens_read_the_same_words(pocket, tmp_path):
    model, tokenizer = pocket
    path = gguf_file.write(model, tokenizer, tmp_path / "pocket.gguf")
    back = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    people = world.make_world()
    texts = [*itertools.islice(world.documents(people.villagers, seed=9), 40),
             *(row["prompt"] + " " + row["completion"] for row in world.questions(people.taught[:20], seed=9))]
    for text in texts:
        assert back.tokenize(text) == tokenizer.tokenize(text)
    assert back.eos_token_id == tokenizer.eos_token_id


def test_what_is_no_plain_llama_is_refused_and_nothing_is_left(pocket, tmp_path):
    path = tmp_path / "no.gguf"
    with pytest.raises(ValueError, match="Q4_K"):
        gguf_file.write(*pocket, path, "Q4_K")
    model, tokenizer = load_pocket()
    add_lora(model, r=2, alpha=4)
    with pytest.raises(ValueError, match="merge"):
        gguf_file.write(model, tokenizer, path)
    with pytest.raises(ValueError, match="dequantize"):
        gguf_file.write(quantize_model(load_pocket()[0]), tokenizer, path)
    with pytest.raises(ValueError, match="merge"):
        gguf_file.write(load_pocket(tuned=True)[0], tokenizer, path)
    huge = load_pocket()[0]
    huge.model.layers[0].mlp.up_proj.weight.data[0, 0] = 1e6
    with pytest.raises(ValueError, match="65504"):
        gguf_file.write(huge, tokenizer, path)
    assert list(tmp_path.iterdir()) == []


def small(vocab):
    return LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, vocab_size=vocab,
                                        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64))


def test_a_byte_level_vocabulary_goes_with_its_merges_its_rule_and_its_template(tmp_path):
    """As SmolLM2's: the same tokens and merges as the tokenizer's own, and the same ids read back."""
    tokenizer = family_tokenizer("llama 3")
    model, path = small(len(tokenizer)), tmp_path / "bytes.gguf"
    with pytest.raises(ValueError, match='pre="smollm"'):
        gguf_file.write(model, tokenizer, path)
    assert list(tmp_path.iterdir()) == []
    gguf_file.write(model, tokenizer, path, pre="llama-bpe")
    fields = {name: field.contents() for name, field in GGUFReader(path).fields.items()}
    rules = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    assert fields["tokenizer.ggml.model"] == "gpt2" and fields["tokenizer.ggml.pre"] == "llama-bpe"
    assert fields["tokenizer.ggml.tokens"] == tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    assert [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]] == [list(pair) for pair in rules["merges"]]
    control = [n for n, kind in enumerate(fields["tokenizer.ggml.token_type"]) if kind == 3]
    assert control == sorted(tokenizer.added_tokens_decoder) and control
    assert fields["tokenizer.chat_template"] == tokenizer.chat_template
    assert fields["tokenizer.ggml.add_bos_token"] is False  # the template writes it
    back = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    for text in itertools.islice(world.documents(world.make_world().villagers, seed=9), 10):
        assert back.tokenize(text) == tokenizer.tokenize(text)


def test_byte_tokens_of_llama_2_are_told_as_bytes(tmp_path):
    words = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", "a"]
    tokens = Tokenizer(models.BPE({word: n for n, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    tokens.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    path = gguf_file.write(small(len(tokenizer)), tokenizer, tmp_path / "llama.gguf")
    fields = GGUFReader(path).fields
    kinds, tokens = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("token_type", "tokens"))
    assert [token for token, kind in zip(tokens, kinds, strict=True) if kind == 6] == [
        f"<0x{n:02X}>" for n in range(256)]
    assert fields["tokenizer.ggml.model"].contents() == "llama" and "tokenizer.chat_template" not in fields
