"""LoRA against PEFT: outputs, gradients, whole fine-tunes; merging, switching, counting; and every error."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig
from twins import linear4bit, our_weights, peft_weights, same_start, with_peft

from helpers.lora import (
    LoRALinear,
    adapter_state,
    add_lora,
    delta,
    disabled,
    ends_with,
    find_targets,
    load_adapter_state,
    lora_layers,
    merge,
    remove_lora,
    trainable_parameters,
    unmerge,
)

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# r, alpha, dropout, rslora
SETTINGS = [(r, 16, 0.0, False) for r in (1, 2, 3, 4, 8, 16, 32, 64)] + [
    (8, 1, 0.0, False), (8, 8, 0.0, False), (6, 7.5, 0.0, False), (64, 16, 0.0, True), (3, 16, 0.0, True),
    (1, 16, 0.1, False), (8, 16, 0.05, False), (16, 32, 0.5, False), (64, 16, 0.1, True)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return torch.randint(4, 768, (4, 24), generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two linear layers and a head, wide enough for r = 64."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.up, self.down, self.lm_head = nn.Linear(64, 96), nn.Linear(96, 64, bias=False), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lm_head(x + self.down(torch.tanh(self.up(x))))


def gradients(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The loss of a language model on a batch, its gradients left in the parameters; returns the logits."""
    model.train()
    output = model(input_ids=batch, labels=batch)
    output.loss.backward()
    return output.logits.detach()


def furthest(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest absolute difference between tensors of the same name."""
    assert ours.keys() == theirs.keys() and ours
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


# Against PEFT


@pytest.mark.parametrize("r, alpha, dropout, rslora", SETTINGS)
def test_equals_peft_in_forward_gradients_and_after_twenty_steps(r, alpha, dropout, rslora):
    targets = ["up", "down"]
    peft = with_peft(Net(), r, alpha, dropout, rslora, targets)
    ours = add_lora(Net(), r, alpha, dropout, targets, rslora)
    same_start(peft, ours)
    mine, theirs = our_weights(ours), peft_weights(peft)
    assert len(mine) == 4
    pairs = [(model, torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3))
             for model in (ours, peft)]
    generator = torch.Generator().manual_seed(2)
    for step in range(20):
        x, y = torch.randn(32, 64, generator=generator), torch.randint(10, (32,), generator=generator)
        outputs = []
        for model, optimizer in pairs:
            torch.manual_seed(step)  # of the dropout
            model.train()
            outputs.append(model(x))
            optimizer.zero_grad()
            nn.functional.cross_entropy(outputs[-1], y).backward()
        assert (outputs[0] - outputs[1]).abs().max() <= 1e-6, step
        for name in mine:
            assert (mine[name].grad - theirs[name].grad).abs().max() <= 1e-6, (step, name)
        for _, optimizer in pairs:
            optimizer.step()
    assert furthest(mine, theirs) <= 1e-6
    assert all(mine[name].abs().max() > 0 for name in mine)  # B has moved


@pytest.mark.parametrize("r", [1, 8, 64])
def test_pocket_llama_equals_peft(pocket, batch, r):
    peft, ours = with_peft(copy.deepcopy(pocket), r, 16), add_lora(copy.deepcopy(pocket), r, 16)
    same_start(peft, ours, trained=True)
    assert (gradients(ours, batch) - gradients(peft, batch)).abs().max() <= 1e-5  # logits of 10 and more
    mine, theirs = our_weights(ours), peft_weights(peft)
    assert mine.keys() == theirs.keys() and len(mine) == 2 * 28  # the same layers, not the head
    assert furthest({n: p.grad for n, p in mine.items()}, {n: p.grad for n, p in theirs.items()}) <= 1e-6
    assert trainable_parameters(ours) == peft.get_nb_trainable_parameters()


def test_16_bit_base_equals_peft(pocket, batch):
    peft = with_peft(copy.deepcopy(pocket).to(torch.bfloat16), 8, 16)
    ours = add_lora(copy.deepcopy(pocket).to(torch.bfloat16), 8, 16)
    same_start(peft, ours, trained=True)
    mine, theirs = our_weights(ours), peft_weights(peft)
    assert {p.dtype for p in mine.values()} == {p.dtype for p in theirs.values()} == {torch.float32}
    a, b = gradients(ours, batch), gradients(peft, batch)
    assert a.dtype == torch.bfloat16
    assert (a - b).abs().max() <= 0.02 * b.abs().max()
    for name in mine:
        assert (mine[name].grad - theirs[name].grad).norm() <= 0.02 * theirs[name].grad.norm(), name


def test_dropout_draws_the_same_masks_as_peft(pocket, batch):
    peft, ours = with_peft(copy.deepcopy(pocket), 8, 16, 0.3), add_lora(copy.deepcopy(pocket), 8, 16, 0.3)
    same_start(peft, ours, trained=True)
    logits = []
    for model in (ours, peft):
        torch.manual_seed(5)
        logits.append(gradients(model, batch))
    assert (logits[0] - logits[1]).abs().max() <= 1e-5
    assert (logits[0] - gradients(ours, batch)).abs().max() > 1e-3  # another mask, another output


def test_a_is_drawn_as_peft_draws_it():
    torch.manual_seed(0)
    a = LoRALinear(nn.Linear(400, 300), r=256).A
    assert a.abs().max() <= 1 / math.sqrt(400)
    assert a.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.01)  # of a uniform distribution
    assert a.mean().abs() < 1e-3


# What LoRA is


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 33), st.integers(1, 33), st.data())
def test_output_is_that_of_the_summed_weight(d, k, data):
    r = data.draw(st.integers(1, min(d, k)))
    alpha, seed = data.draw(st.floats(0.1, 100)), data.draw(st.integers(0, 99))
    torch.manual_seed(seed)
    layer = LoRALinear(nn.Linear(k, d, bias=seed % 2 == 0).double(), r, alpha)
    nn.init.normal_(layer.B)
    x = torch.randn(2, 3, k, dtype=torch.float64)
    dense = layer.base.weight + alpha / r * layer.B @ layer.A
    assert torch.allclose(layer(x), nn.functional.linear(x, dense, layer.base.bias), rtol=1e-10, atol=1e-10)
    assert torch.linalg.matrix_rank(delta(layer)) <= r


def test_begins_as_the_base_and_trains_nothing_else(pocket, batch):
    model = copy.deepcopy(pocket)
    frozen = {name: p.clone() for name, p in model.named_parameters()}
    add_lora(model, dropout=0.5)
    with torch.no_grad():
        assert torch.equal(model.train()(batch).logits, pocket(batch).logits)  # whatever the dropout: B is zero
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    gradients(model, batch)
    optimizer.step()
    remove_lora(model)
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_gradients_after_an_evaluation_are_those_without(pocket, batch):
    results = []
    for evaluates in (True, False):
        torch.manual_seed(0)
        model = add_lora(copy.deepcopy(pocket))
        if evaluates:
            model.eval().generate(batch[:1], max_new_tokens=3, do_sample=False, pad_token_id=3)
        gradients(model, batch)
        results.append([p.grad for p in our_weights(model).values()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def trained(model: nn.Module, seed: int = 0) -> nn.Module:
    """B as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            layer.B.copy_(torch.randn(layer.B.shape, generator=generator) * 0.05)
    return model


@torch.no_grad()
def logits(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model.eval()(batch).logits


def test_merge_answers_as_before_and_unmerge_goes_back(pocket, batch):
    model = trained(add_lora(copy.deepcopy(pocket), r=4))
    before, weights = logits(model, batch), [layer.base.weight.clone() for _, layer in lora_layers(model)]
    assert (before - logits(pocket, batch)).abs().max() > 0.1
    assert merge(model) is model
    assert (logits(model, batch) - before).abs().max() <= 1e-4 * before.abs().max()
    for (_, layer), weight in zip(lora_layers(model), weights, strict=True):
        assert torch.equal(layer.base.weight, weight + delta(layer))
    unmerge(model)
    assert (logits(model, batch) - before).abs().max() <= 1e-4 * before.abs().max()
    for (_, layer), weight in zip(lora_layers(model), weights, strict=True):
        assert (layer.base.weight - weight).abs().max() <= 1e-6
    plain = remove_lora(merge(model))
    assert not list(lora_layers(plain))
    assert (logits(plain, batch) - before).abs().max() <= 1e-4 * before.abs().max()


def test_merging_into_16_bits_rounds_once():
    layer = trained(nn.Sequential(LoRALinear(nn.Linear(32, 32).to(torch.bfloat16))))[0]
    exact = layer.base.weight.float() + delta(layer)
    merge(nn.Sequential(layer))
    assert torch.equal(layer.base.weight, exact.to(torch.bfloat16))


def test_disabled_gives_the_base_and_comes_back(pocket, batch):
    model = trained(add_lora(copy.deepcopy(pocket)))
    before = logits(model, batch)
    with disabled(model):
        assert torch.equal(logits(model, batch), logits(pocket, batch))
        with disabled(model):
            pass
        assert torch.equal(logits(model, batch), logits(pocket, batch))  # the inner one did not switch it on
    assert torch.equal(logits(model, batch), before)
    with pytest.raises(KeyError), disabled(model):
        raise KeyError
    assert torch.equal(logits(model, batch), before)


def test_two_adapters_on_one_base_survive_a_file(pocket, batch, tmp_path):
    model, expected = add_lora(copy.deepcopy(pocket), r=4), []
    for seed in (1, 2):
        trained(model, seed)
        expected.append(logits(model, batch))
        save_file(adapter_state(model), tmp_path / f"{seed}.safetensors")
    assert not torch.equal(*expected)
    assert (tmp_path / "1.safetensors").stat().st_size < 4 * trainable_parameters(model)[0] + 10_000
    other = add_lora(copy.deepcopy(pocket), r=4)
    for seed in (1, 2, 1):
        load_adapter_state(other, load_file(tmp_path / f"{seed}.safetensors"))
        assert torch.equal(logits(other, batch), expected[seed - 1])


def test_state_is_a_copy():
    model = add_lora(Net())
    state = adapter_state(model)
    trained(model)
    assert all((state[f"{name}.B"] == 0).all() for name, _ in lora_layers(model))


def test_defaults_are_rank_8_and_a_scale_of_2():
    """alpha 16 over r 8: in a layer by itself, and in a whole model."""
    alone = LoRALinear(nn.Linear(16, 12))
    inside = [layer for _, layer in lora_layers(add_lora(Net()))]
    for layer in (alone, *inside):
        assert layer.A.shape[0] == layer.B.shape[1] == 8 and layer.scaling == 2 and layer.dropout.p == 0


def test_targets():
    net = Net()
    assert find_targets(net) == ["up", "down", "lm_head"]  # only a transformers model tells which is the head
    assert find_targets(net, ["down"]) == find_targets(net, "down") == ["down"]
    assert ends_with("model.layers.0.mlp.up_proj", "up_proj") and ends_with("a.mlp.up_proj", ["x", "mlp.up_proj"])
    assert not ends_with("model.layers.0.mlp.up_proj", "proj")


def test_targets_of_the_pocket_llama(pocket):
    for targets, count in (("all-linear", 28), (ATTENTION, 16), ("q_proj", 4), (["q_proj", "v_proj"], 8),
                           (["lm_head"], 1)):
        assert len(find_targets(pocket, targets)) == count, targets


@pytest.mark.parametrize("r, targets, count", [
    (8, "all-linear", 19_988_480), (16, "all-linear", 39_976_960), (64, "all-linear", 159_907_840),
    (8, ["q_proj", "v_proj"], 4_194_304), (64, ["q_proj", "v_proj"], 33_554_432)])
def test_llama_2_7b_trains_as_many_as_it_should(r, targets, count):
    config = LlamaConfig(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
                         vocab_size=32_000)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert trainable_parameters(add_lora(model, r, target_modules=targets)) == (count, 6_738_415_616 + count)


def test_one_layer_of_the_paper_trains_0_78_percent():
    layer = LoRALinear(nn.Linear(4096, 4096, bias=False, device="meta"), r=16)
    assert trainable_parameters(layer) == (131_072, 16_777_216 + 131_072)


# dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_adapters_of_a_16_bit_base_are_float32_and_the_output_is_not(dtype):
    layer = LoRALinear(nn.Linear(16, 8).to(dtype), r=2)
    y = layer(torch.randn(3, 16).to(dtype))
    y.float().sum().backward()
    assert (layer.A.dtype, layer.B.dtype, layer.B.grad.dtype, y.dtype) == (torch.float32,) * 3 + (dtype,)


def test_autocast_may_mix():
    layer = LoRALinear(nn.Linear(16, 8).to(torch.bfloat16), r=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(torch.randn(3, 16))
    y.sum().backward()
    assert layer.B.grad.abs().max() > 0


# Errors: the layer is named, and the remedy


def broken_state(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**adapter_state(add_lora(Net(), r=4)), **changes}


@pytest.mark.parametrize("wrong, says", [
    (lambda net: add_lora(net, r=0), "up.*r=0.*64"),
    (lambda net: add_lora(net, r=-3), r"r=-3"),
    (lambda net: add_lora(net, r=65, target_modules=["up", "down"]), "up.*r=65.*96 x 64"),
    (lambda net: add_lora(net, r=11), "lm_head.*r=11.*10"),
    (lambda net: add_lora(net, r=2.0), "r=2.0"),
    (lambda net: add_lora(net, alpha=0), "up.*alpha=0"),
    (lambda net: add_lora(net, alpha=math.nan), r"alpha=nan"),
    (lambda net: add_lora(net, target_modules=["up", "q_proj"]), r"'q_proj'.*'down', 'lm_head', 'up'"),
    (lambda net: add_lora(net, target_modules=[]), r"\[\].*Net"),
    (lambda net: add_lora(nn.Sequential(nn.ReLU())), "Sequential"),
    (lambda net: add_lora(nn.Linear(3, 3)), "Linear"),
    (lambda net: add_lora(add_lora(net)), "up.*remove_lora"),
    (lambda net: LoRALinear(nn.ReLU()), "ReLU"),
    (lambda net: LoRALinear(LoRALinear(nn.Linear(8, 8))), "LoRALinear"),
    (lambda net: LoRALinear(nn.AdaptiveLogSoftmaxWithLoss(8, 9, [3])), "AdaptiveLogSoftmax"),  # in_features alone
    (lambda net: LoRALinear(nn.Linear(8, 8), r=9), "^LoRALinear: r=9"),
    (lambda net: LoRALinear(nn.Linear(8, 8))(torch.ones(3)), r"^LoRALinear: x.*\(3,\)"),
    (lambda net: add_lora(nn.Sequential(net), target_modules="q_proj"), r"\['down', 'lm_head', 'up'\]"),
    (lambda net: merge(net), "Net.*add_lora"),
    (lambda net: merge(merge(add_lora(net))), "up.*unmerge"),
    (lambda net: unmerge(add_lora(net)), r"up.*merge\(model\)"),
    (lambda net: disabled(merge(add_lora(net))).__enter__(), "up.*unmerge"),
    (lambda net: disabled(net).__enter__(), "Net.*LoRALinear"),
    (lambda net: adapter_state(net), "Net.*LoRALinear"),
    (lambda net: remove_lora(net), "Net.*LoRALinear"),
    (lambda net: merge(nn.Sequential(LoRALinear(linear4bit(nn.Linear(64, 64))))), "0.*Linear4bit.*to_linear"),
    (lambda net: add_lora(net, r=4)(torch.randn(2, 63)), r"up.*\(2, 63\).*64"),
    (lambda net: add_lora(net, r=4)(torch.randn(())), r"up.*\(\)"),
    (lambda net: add_lora(net, r=4)(torch.randn(2, 64).half()), "up.*torch.float16.*torch.float32"),
    (lambda net: add_lora(net.bfloat16(), r=4)(torch.randn(2, 64)), "up.*float32.*bfloat16.*autocast"),
    (lambda net: add_lora(net, r=4)(torch.ones(2, 64, dtype=torch.int64)), "up.*torch.int64"),
    (lambda net: load_adapter_state(add_lora(net, r=8), broken_state()), r"up.A.*\(8, 64\).*\(4, 64\)"),
    (lambda net: load_adapter_state(add_lora(net, r=4), broken_state(other=torch.ones(1))), "other.*target_modules"),
    (lambda net: load_adapter_state(merge(add_lora(net, r=4)), broken_state()), "up.*unmerge"),
])
def test_errors_name_the_layer_and_the_remedy(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(Net())


def test_a_refused_call_changes_nothing():
    net = Net()
    for arguments in ({"r": 11}, {"target_modules": ["up", "nothing"]}, {"alpha": -1}):
        with pytest.raises(ValueError):
            add_lora(net, **arguments)
    assert not list(lora_layers(net)) and all(p.requires_grad for p in net.parameters())
    add_lora(net, r=4)
    trained(net)
    next(lora_layers(net))[1].merged = True  # one of three
    weights = [layer.base.weight.clone() for _, layer in lora_layers(net)]
    for function in (merge, unmerge):
        with pytest.raises(ValueError):
            function(net)
    assert all(torch.equal(layer.base.weight, w) for (_, layer), w in zip(lora_layers(net), weights, strict=True))
