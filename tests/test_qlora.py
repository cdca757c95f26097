"""QLoRA's layer against bitsandbytes and PEFT; its gradient; what it keeps, saves and loads; and every error."""

import copy
import gc

import bitsandbytes
import bitsandbytes.functional as bnb
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from twins import linear4bit, our_weights, peft_weights, same_start, with_bitsandbytes, with_peft

from helpers.codebooks import FP4_BNB, NF4, integer, normal_float
from helpers.lora import LoRALinear, add_lora, lora_layers, merge, trainable_parameters
from helpers.qlora import FrozenMatmul, NF4Linear, quantize_model, read_bitsandbytes
from helpers.quantization import QuantizedTensor, quantize

CODEBOOKS = {"nf4": NF4, "fp4": FP4_BNB, "nf3": normal_float(3), "nf2": normal_float(2), "int3": integer(3),
             "int2": integer(2), "int8": integer(8), "one bit": torch.tensor([-1.0, 1.0])}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def batch():
    return torch.randint(4, 768, (4, 24), generator=torch.Generator().manual_seed(1))


def backward(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """The loss of a language model on a batch, its gradients left in the parameters; returns the logits."""
    output = model(input_ids=batch, labels=batch)
    output.loss.backward()
    return output.logits.detach()


def linear(k: int = 64, d: int = 96, bias: bool = False, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(k, d, bias=bias)


# Against bitsandbytes and PEFT


@pytest.mark.parametrize("double_quant, alpha", [(True, 16), (False, 16), (True, 12)])
def test_pocket_llama_equals_bitsandbytes_and_peft(pocket, batch, double_quant, alpha):
    ours = add_lora(quantize_model(copy.deepcopy(pocket), double_quant=double_quant), r=8, alpha=alpha)
    theirs = with_peft(with_bitsandbytes(copy.deepcopy(pocket), double_quant), 8, alpha)
    same_start(theirs, ours, trained=True)
    mine, other = our_weights(ours), peft_weights(theirs)
    assert mine.keys() == other.keys() and len(mine) == 2 * 28
    assert trainable_parameters(ours) == theirs.get_nb_trainable_parameters() == trainable_parameters(theirs)
    a, b = backward(ours.train(), batch), backward(theirs.train(), batch)
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()  # of logits up to 20
    assert all((mine[name].grad - other[name].grad).abs().max() <= 1e-5 for name in mine)
    assert all(mine[name].grad.abs().max() > 1e-3 for name in mine)


def same_codes(a: NF4Linear, b: NF4Linear) -> bool:
    """Whether two layers hold the same weight: codes, levels and scales, bit for bit."""
    one, other = a.quantized, b.quantized
    pairs = ((one.codes, other.codes), (one.codebook, other.codebook), (one.absmax, other.absmax))
    return one.block_size == other.block_size and all(torch.equal(mine, theirs) for mine, theirs in pairs)


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("k, d, bias", [(64, 96, True), (192, 40, False), (130, 33, False), (7, 9, True), (1, 1, True)])
def test_holds_the_codes_that_bitsandbytes_holds(k, d, bias, double_quant):
    plain = linear(k, d, bias)
    theirs = linear4bit(plain, double_quant)
    read = NF4Linear.from_bitsandbytes(theirs)
    assert same_codes(NF4Linear.from_linear(plain, double_quant=double_quant), read)
    assert not same_codes(NF4Linear.from_linear(linear(k, d, bias, seed=1), double_quant=double_quant), read)
    assert same_codes(NF4Linear.from_linear(plain, double_quant=not double_quant), read) == (k * d <= 64)  # one block
    x = torch.randn(5, k)
    if k % 64 == 0:  # elsewhere its dequantization is wrong
        assert (read(x) - theirs(x)).abs().max() <= 1e-6
    assert read.stored.packed.data_ptr() == theirs.weight.data_ptr()  # no copy


def test_reads_fp4_and_other_block_sizes():
    plain = linear(256, 64)
    for quant_type, block_size in (("fp4", 64), ("nf4", 128), ("fp4", 256)):
        theirs = linear4bit(plain, quant_type=quant_type, block_size=block_size)
        weight = bnb.dequantize_4bit(theirs.weight, theirs.weight.quant_state)
        assert torch.equal(NF4Linear.from_bitsandbytes(theirs).quantized.dequantize(), weight)


def test_gradients_after_an_evaluation_are_those_without(pocket, batch):
    for quantized in (quantize_model, with_unguarded_bitsandbytes):
        results = []
        for evaluates in (True, False):
            torch.manual_seed(0)
            model = add_lora(quantized(copy.deepcopy(pocket)))
            if evaluates:
                model.eval().generate(batch[:1], max_new_tokens=3, do_sample=False, pad_token_id=3)
            backward(model.train(), batch)
            results.append([p.grad for p in our_weights(model).values()])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def with_unguarded_bitsandbytes(model: nn.Module) -> nn.Module:
    """As bitsandbytes makes it: on a CPU with AVX512-BF16 it would repack its codes when it evaluates."""
    for module in with_bitsandbytes(model).modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = bnb.has_avx512bf16()
    return model


# The gradient


@pytest.mark.parametrize("double_quant", [True, False])
@pytest.mark.parametrize("shape", [(8, 12), (5, 7), (1, 3), (20, 3)])
def test_gradcheck_in_float64(shape, double_quant):
    quantized = quantize(torch.randn(shape, dtype=torch.float64), block_size=16, double_quant=double_quant)
    x = torch.randn(2, 3, shape[1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: FrozenMatmul.apply(x, quantized), x)
    assert torch.autograd.gradgradcheck(lambda x: FrozenMatmul.apply(x, quantized), x)


def test_gradcheck_of_the_whole_layer_in_float64():
    layer = LoRALinear(NF4Linear.from_linear(linear(13, 9, bias=True).double()).double(), r=3)
    nn.init.normal_(layer.B)
    x = torch.randn(4, 13, dtype=torch.float64, requires_grad=True)
    assert layer.A.dtype == torch.float64

    def output(x: torch.Tensor, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"A": A, "B": B}, x)

    assert torch.autograd.gradcheck(output, (x, layer.A, layer.B))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from([1, 3, 16, 64, 100, None]),
       st.sampled_from(sorted(CODEBOOKS)), st.booleans(), st.booleans())
def test_is_the_product_with_the_dequantized_weight(k, d, block_size, codebook, double_quant, bias):
    plain = linear(k, d, bias, seed=k)
    layer = NF4Linear.from_linear(plain, block_size, double_quant, CODEBOOKS[codebook])
    weight = quantize(plain.weight, CODEBOOKS[codebook], block_size, double_quant).dequantize()
    assert torch.equal(layer.quantized.dequantize(), weight)
    x, gradient = torch.randn(2, 5, k, requires_grad=True), torch.randn(2, 5, d)
    y = layer(x)
    y.backward(gradient)
    assert torch.allclose(y, F.linear(x, weight, plain.bias), atol=1e-5)
    assert torch.allclose(x.grad, gradient @ weight, atol=1e-5)
    assert all(not p.requires_grad for p in layer.parameters())
    assert torch.equal(layer.to_linear().weight, weight) and trainable_parameters(layer)[1] == k * d + bias * d


def test_nothing_is_kept_for_the_backward_pass():
    layer, saved = NF4Linear.from_linear(linear(48, 40)), []
    x = torch.randn(3, 48, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        y = layer(x)
    dense = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.numel() == 48 * 40]
    assert saved == [] and dense == []
    y.sum().backward()
    assert torch.allclose(x.grad, layer.quantized.dequantize().sum(0).expand(3, -1), atol=1e-6)


def test_checkpointing_changes_no_gradient():
    layer = LoRALinear(NF4Linear.from_linear(linear()), r=4)
    nn.init.normal_(layer.B)
    grads = []
    for run in (lambda x: layer(x), lambda x: checkpoint(layer, x, use_reentrant=False)):
        layer.zero_grad()
        run(torch.linspace(-1, 1, 128).view(2, 64)).square().sum().backward()
        grads.append((layer.A.grad.clone(), layer.B.grad.clone()))
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


# What is stored


@pytest.mark.parametrize("double_quant", [True, False])
def test_a_file_gives_the_same_model_back(pocket, batch, tmp_path, double_quant):
    model = add_lora(quantize_model(copy.deepcopy(pocket), double_quant=double_quant))
    save_file(model.state_dict(), tmp_path / "model.safetensors")  # refuses tensors that share memory
    torch.manual_seed(7)
    other = copy.deepcopy(pocket)
    for p in other.parameters():
        p.data.normal_()
    other = add_lora(quantize_model(other, double_quant=double_quant))
    with torch.no_grad():
        assert not torch.equal(other(batch).logits, model(batch).logits)
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        assert torch.equal(other(batch).logits, model(batch).logits)
    linears = sum(layer.base.out_features * layer.base.in_features for _, layer in lora_layers(model))
    bits = 8 * sum(layer.base.quantized.nbytes for _, layer in lora_layers(model)) / linears
    assert bits == pytest.approx(4.127 if double_quant else 4.5, abs=0.005)
    tables = sum(b.nbytes for name, b in model.named_buffers() if name.endswith("codebook"))
    held = sum(b.nbytes for name, b in model.named_buffers() if ".stored." in name)
    assert held == bits * linears / 8 + tables


def test_state_of_another_layer_does_not_load():
    state = NF4Linear.from_linear(linear()).state_dict()
    for other in (NF4Linear.from_linear(linear(), 32), NF4Linear.from_linear(linear(), double_quant=False),
                  NF4Linear.from_linear(linear(), codebook=normal_float(3)), NF4Linear.from_linear(linear(64, 97))):
        with pytest.raises(RuntimeError, match="stored"):
            other.load_state_dict(state)


@pytest.mark.parametrize("cast", [nn.Module.half, nn.Module.bfloat16, nn.Module.double, lambda m: m.to(torch.float16)])
def test_casting_a_model_leaves_codes_and_scales(cast):
    layer = NF4Linear.from_linear(linear(bias=True))
    cast(moved := copy.deepcopy(layer))
    assert moved.bias.dtype != torch.float32
    assert torch.equal(moved.quantized.dequantize(), layer.quantized.dequantize())
    x = torch.randn(3, 64, dtype=moved.bias.dtype)
    assert moved(x).dtype == x.dtype
    assert (moved(x).float() - layer(x.float())).abs().max() <= 0.02
    for there in (copy.deepcopy(layer).to("meta"), copy.deepcopy(layer).to("meta", torch.float16)):
        assert {(b.device.type, b.dtype) for b in there.buffers()} == {("meta", torch.uint8), ("meta", torch.float32)}
        back = there.to_empty(device="cpu")
        assert [(b.device.type, b.shape) for b in back.buffers()] == [("cpu", b.shape) for b in layer.buffers()]
    stored = copy.deepcopy(layer).stored.to_empty(device="meta", recurse=False)
    assert stored.packed.is_meta and not stored.scales.packed.is_meta


@pytest.mark.parametrize("compute_dtype", [None, torch.bfloat16])
def test_compute_dtype_and_autocast(compute_dtype):
    layer = NF4Linear.from_linear(linear(bias=True), compute_dtype=compute_dtype)
    x = torch.randn(3, 64, requires_grad=True)
    weight = layer.quantized.dequantize()
    in_bf16 = F.linear(x.bfloat16(), weight.bfloat16()) + layer.bias.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute_dtype is None):
        y = layer(x)
    assert y.dtype == torch.float32
    assert torch.equal(y, in_bf16.float())
    y.sum().backward()
    assert torch.allclose(x.grad, weight.sum(0).expand(3, -1), atol=0.05)


def test_quantize_model_takes_all_linears_but_the_head(pocket):
    model = quantize_model(copy.deepcopy(pocket))
    kinds = {name: type(module) for name, module in model.named_modules() if hasattr(module, "in_features")}
    assert [name for name, kind in kinds.items() if kind is not NF4Linear] == ["lm_head"] and len(kinds) == 29
    assert trainable_parameters(model)[1] == 951_424
    assert torch.equal(model.model.embed_tokens.weight, pocket.model.embed_tokens.weight)
    name = "model.layers.2.mlp.up_proj"
    assert model.get_submodule(name).name == name
    held = model.get_submodule(name).quantized
    assert type(held) is QuantizedTensor and type(held.scales) is QuantizedTensor and held.block_size == 64
    some = quantize_model(copy.deepcopy(pocket), skip=["lm_head", "mlp.down_proj"])
    assert sum(isinstance(module, NF4Linear) for module in some.modules()) == 24
    assert isinstance(quantize_model(copy.deepcopy(pocket), skip=()).lm_head, NF4Linear)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_layer_remembers_the_dtype_that_was_quantized(dtype):
    plain = linear(256, 64, bias=True).to(dtype)
    theirs = linear4bit(plain)
    for layer in (NF4Linear.from_linear(plain), NF4Linear.from_bitsandbytes(theirs)):
        held = layer.quantized
        assert (held.dtype, held.scales.dtype, held.shape) == (dtype, torch.float32, (64, 256))
        state = torch.get_rng_state()
        back = layer.to_linear()
        assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn only to be overwritten
        assert torch.equal(back.weight, held.dequantize()) and back.weight.dtype == dtype
        assert back.bias is layer.bias and not any(p.requires_grad for p in back.parameters())
        assert (back.in_features, back.out_features) == (256, 64)


def test_dtype_and_name_reach_the_layer_however_it_is_made():
    plain, how = linear(), {"compute_dtype": torch.bfloat16, "name": "up"}
    made = [NF4Linear.from_linear(plain, **how), NF4Linear.from_bitsandbytes(linear4bit(plain), **how),
            NF4Linear(quantize(plain.weight), **how),
            quantize_model(nn.ModuleDict({"up": plain}), compute_dtype=torch.bfloat16)["up"]]
    assert [(layer.compute_dtype, layer.name) for layer in made] == [(torch.bfloat16, "up")] * 4


def test_a_dequantized_base_takes_the_merge():
    model = add_lora(quantize_model(nn.Sequential(linear(), linear(96, 8))))
    for _, layer in lora_layers(model):
        nn.init.normal_(layer.B)
        layer.base = layer.base.to_linear()
    x = torch.randn(3, 64)
    before = model(x)
    assert torch.allclose(merge(model)(x), before, atol=1e-3)


# Errors: the layer is named, and the remedy


def poisoned() -> nn.Module:
    model = nn.Sequential(linear(), linear(96, 8))
    model[1].weight.data[3, 4] = torch.nan
    return model


def evaluated() -> nn.Module:
    """A layer that bitsandbytes has repacked, or says so."""
    layer = linear4bit(linear()).eval()
    with torch.no_grad():
        layer(torch.ones(1, 64))
    layer.weight.quant_state.packing_format_for_cpu = True  # on any CPU
    return layer


@pytest.mark.parametrize("wrong, says", [
    (lambda: NF4Linear(quantize(torch.ones(2, 3, 4))), r"^QuantizedLinear: .*\(2, 3, 4\)"),
    (lambda: NF4Linear.from_linear(linear(), block_size=0), r"block_size=0"),
    (lambda: quantize_model(nn.Sequential(linear()), block_size=-1), "0.*block_size=-1"),
    (lambda: quantize_model(poisoned()), "1.*nan_to_num"),
    (lambda: quantize_model(quantize_model(nn.Sequential(linear()))), "0.*quantized"),
    (lambda: quantize_model(with_bitsandbytes(nn.Sequential(linear()))), "0.*from_bitsandbytes"),
    (lambda: quantize_model(add_lora(nn.Sequential(linear()))), "0.*add_lora"),
    (lambda: quantize_model(nn.Sequential(nn.ReLU())), "Sequential"),
    (lambda: quantize_model(nn.Sequential(linear()), skip="0"), "Sequential.*'0'"),
    (lambda: quantize_model(nn.Sequential(linear()))(torch.ones(2, 65)), r"0.*\(2, 65\).*64"),
    (lambda: NF4Linear.from_linear(linear())(torch.ones(2, 64).long()), "NF4Linear.*torch.int64"),
    (lambda: NF4Linear.from_bitsandbytes(bitsandbytes.nn.Linear4bit(4, 4)), "NF4Linear.*Linear4bit"),
    (lambda: read_bitsandbytes(linear()), "^Linear4bit: a Linear without"),
    (lambda: NF4Linear.from_bitsandbytes(evaluated()), "^NF4Linear: a Linear4bit with repacked"),
    (lambda: NF4Linear.from_linear(linear())(torch.ones(2, 65)), "^NF4Linear: x"),
    (lambda: LoRALinear(evaluated()), "^LoRALinear.*repacked"),
    (lambda: merge(add_lora(quantize_model(nn.Sequential(linear())))), "0.*NF4Linear.*to_linear"),
    (lambda: add_lora(quantize_model(nn.Sequential(linear())), r=65), "0.*r=65.*96 x 64"),
])
def test_errors_name_the_layer_and_the_remedy(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong()
