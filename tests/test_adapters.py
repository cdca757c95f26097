"""Bottleneck adapters: their size, their place in a Llama layer, their start; training only chosen parts."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from helpers.adapters import BottleneckAdapter, add_bottlenecks, train_only
from helpers.lora import add_lora, trainable_parameters
from helpers.qlora import quantize_model


@pytest.fixture
def batch():
    return torch.randint(4, 768, (2, 16), generator=torch.Generator().manual_seed(1))


def adapters(model: nn.Module) -> list[BottleneckAdapter]:
    return [module for module in model.modules() if isinstance(module, BottleneckAdapter)]


def stirred(model: nn.Module) -> nn.Module:
    """Adapters as if they had been trained."""
    torch.manual_seed(0)
    for adapter in adapters(model):
        nn.init.normal_(adapter.up.weight, std=0.1)
        nn.init.normal_(adapter.up.bias, std=0.1)
    return model


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.data())
def test_size_start_and_formula(d, data):
    m = data.draw(st.integers(1, d))
    adapter = BottleneckAdapter(d, m, dtype=torch.float64)
    assert trainable_parameters(adapter) == (2 * m * d + d + m,) * 2
    x = torch.randn(2, 3, d, dtype=torch.float64)
    assert torch.equal(adapter(x), x)
    stirred(adapter)
    narrow = F.gelu(x @ adapter.down.weight.T + adapter.down.bias)
    assert torch.allclose(adapter(x), x + narrow @ adapter.up.weight.T + adapter.up.bias)


def test_two_in_each_layer_and_nothing_else_is_trained(pocket, batch):
    model = add_bottlenecks(copy.deepcopy(pocket), m=8)
    assert len(adapters(model)) == 2 * 4
    assert trainable_parameters(model)[0] == 2 * 4 * (2 * 8 * 128 + 128 + 8)
    with torch.no_grad():
        assert torch.equal(model(batch).logits, pocket(batch).logits)
    model(input_ids=batch, labels=batch).loss.backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
    assert all(adapter.up.weight.grad.abs().max() > 0 for adapter in adapters(model))


def test_they_stand_before_the_residual_additions(pocket):
    plain = pocket.model.layers[1]
    layer = stirred(add_bottlenecks(copy.deepcopy(pocket), m=8)).model.layers[1]
    first, second = adapters(layer)
    assert isinstance(plain, LlamaDecoderLayer)
    x = torch.randn(1, 6, 128)
    rotation = pocket.model.rotary_emb(x, torch.arange(6)[None])
    with torch.no_grad():
        h = x + first(plain.self_attn(plain.input_layernorm(x), position_embeddings=rotation, attention_mask=None)[0])
        expected = h + second(plain.mlp(plain.post_attention_layernorm(h)))
        assert torch.allclose(layer(x, position_embeddings=rotation, attention_mask=None), expected, atol=1e-5)
        assert not torch.allclose(plain(x, position_embeddings=rotation, attention_mask=None), expected, atol=1e-1)


def test_on_16_bit_and_on_quantized_bases(pocket, batch):
    for base in (copy.deepcopy(pocket).to(torch.bfloat16), quantize_model(copy.deepcopy(pocket))):
        model = stirred(add_bottlenecks(base, m=4))
        assert {p.dtype for a in adapters(model) for p in a.parameters()} == {torch.float32}
        output = model(input_ids=batch, labels=batch)
        output.loss.backward()
        assert output.logits.dtype == base.lm_head.weight.dtype
        assert all(a.down.weight.grad.abs().max() > 0 for a in adapters(model))


def test_they_are_made_where_their_base_is_and_as_wide(pocket):
    alone = BottleneckAdapter(6, 2, device=torch.device("meta"), dtype=torch.float64)
    inside = add_bottlenecks(copy.deepcopy(pocket).double().to("meta"), m=4)
    for adapter in (alone, *adapters(inside)):
        assert {(p.device.type, p.dtype) for p in adapter.parameters()} == {("meta", torch.float64)}


@pytest.mark.parametrize("names, count", [
    ("lm_head", 768 * 128), (["lm_head", "embed_tokens"], 2 * 768 * 128), ("norm", 128),
    ("layers.3.self_attn", 4 * 128**2), (["input_layernorm", "layers.0.input_layernorm"], 4 * 128)])
def test_train_only(pocket, batch, names, count):
    model = train_only(copy.deepcopy(pocket), names)
    assert trainable_parameters(model) == (count, 951_424)
    model(input_ids=batch, labels=batch).loss.backward()
    assert sum(p.numel() for p in model.parameters() if p.grad is not None) == count
    assert trainable_parameters(train_only(model, "norm"))[0] == 128  # and back


class Codes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.uint8), requires_grad=False)


@pytest.mark.parametrize("wrong, says", [
    (lambda model: add_bottlenecks(model, 0), "m=0 .*128"),
    (lambda model: add_bottlenecks(model, 129), r"m=129 "),
    (lambda model: add_bottlenecks(model, 2.0), "m=2.0"),
    (lambda model: add_bottlenecks(add_bottlenecks(model, 2), 2), r"layers.0.self_attn.o_proj.*Sequential"),
    (lambda model: add_bottlenecks(add_lora(model), 2), r"o_proj.*LoRALinear"),
    (lambda model: add_bottlenecks(nn.Linear(3, 3), 2), r"self_attn.o_proj.*Llama"),
    (lambda model: BottleneckAdapter(4, 2)(torch.ones(2, 5)), r"\(2, 5\).*4"),
    (lambda model: BottleneckAdapter(4, 2)(torch.ones(2, 4).int()), "torch.int32"),
    (lambda model: train_only(model, ["lm_head", "classifier"]), r"'classifier'.*'embed_tokens'"),
    (lambda model: train_only(model, "lm"), "'lm'"),
    (lambda model: train_only(Codes(), "weight"), "weight.*uint8.*add_lora"),
])
def test_errors_say_what_to_do(pocket, wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(copy.deepcopy(pocket))


def test_a_refused_call_changes_nothing(pocket):
    model = copy.deepcopy(pocket)
    for wrong in (lambda: add_bottlenecks(model, 0), lambda: train_only(model, ["lm_head", "nothing"])):
        with pytest.raises(ValueError):
            wrong()
    assert not adapters(model) and all(p.requires_grad for p in model.parameters())
