"""The memory ledger: what a model, quantized or not, holds in memory, and what training it will take.

Bytes, each storage once. `forecast_weights` and `forecast_training` know only a config; `measure` looks at a model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from helpers.quantization import QuantizedTensor

GIB = 2**30
CARDS = (8, 12, 16, 24, 48, 80)  # GB of memory on the GPUs that people have
TILE = (4096, 32_768)  # tokens, vocabulary: the piece of the logits that TRL 1.16 makes at a time
HELD = ("parameters", "codes", "absmax", "nested absmax", "codebooks", "offsets", "buffers")
INPUTS = {"q_proj": "hidden", "k_proj": "hidden", "v_proj": "hidden", "o_proj": "attention",  # what a Llama's linears
          "gate_proj": "middle", "up_proj": "middle", "down_proj": "gated"}                    # read


def _llama(hidden: int, ff: int, layers: int, heads: int, kv_heads: int | None = None) -> LlamaConfig:
    return LlamaConfig(hidden_size=hidden, intermediate_size=ff, num_hidden_layers=layers, num_attention_heads=heads,
                       num_key_value_heads=kv_heads or heads, vocab_size=32_000)


# Source: the checkpoints' configs; Touvron et al. 2023 (arXiv 2302.13971, table 2, and 2307.09288, section 2.2).
LLAMAS: Mapping[str, PretrainedConfig] = {
    "GPT-2": GPT2Config(), "Llama-2-7B": _llama(4096, 11008, 32, 32), "Llama-2-13B": _llama(5120, 13824, 40, 40),
    "LLaMA-33B": _llama(6656, 17920, 60, 52), "LLaMA-65B": _llama(8192, 22016, 80, 64),
    "Llama-2-70B": _llama(8192, 28672, 80, 64, 8),
}


@dataclass(frozen=True)
class Ledger(Mapping[str, int]):
    """Bytes by what they are for, in order. A mapping from names to bytes, with `.total` and `.table()`."""

    entries: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def total(self) -> int:
        """The sum, in bytes."""
        return sum(self.entries.values())

    def table(self) -> str:
        """One line per entry that is not zero, and the sum, in bytes."""
        rows = [(name, count) for name, count in self.entries.items() if count] + [("total", self.total)]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {count:>19,}" for name, count in rows)

    def _repr_html_(self) -> str:
        cell = "<tr><td style='text-align:left'>{}</td><td>{:,}</td></tr>".format
        rows = "".join(cell(name, count) for name, count in self.entries.items() if count)
        return f"<table><tr><th></th><th>bytes</th></tr>{rows}{cell('<b>total</b>', self.total)}</table>"


def measure(model: nn.Module) -> Ledger:
    """Bytes that a model holds, by the kinds of HELD; tensors that share memory are counted once.

    Knows bitsandbytes' 4-bit weights, whose scales are no parameters and no buffers (`weight.quant_state`), and
    modules that hold a `QuantizedTensor` in the attribute `quantized`. Everything else is a parameter or a buffer.
    """
    entries, seen = dict.fromkeys(HELD, 0), set()

    def add(kind: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None and (storage := tensor.untyped_storage())._cdata not in seen:
            seen.add(storage._cdata)
            entries[kind] += storage.nbytes()

    for module in model.modules():
        if isinstance(quantized := getattr(module, "quantized", None), QuantizedTensor):
            nested = isinstance(quantized.scales, QuantizedTensor)
            add("codes", quantized.packed)
            add("codebooks", quantized.codebook)
            add("offsets", quantized.offset)
            add("absmax", quantized.scales.packed if nested else quantized.scales)
            add("nested absmax", quantized.scales.scales if nested else None)
            add("codebooks", quantized.scales.codebook if nested else None)
        for parameter in module.parameters(recurse=False):
            state = getattr(parameter, "quant_state", None)
            add("parameters" if state is None else "codes", parameter)
            if state is not None:
                add("absmax", state.absmax)
                add("codebooks", state.code)
                add("offsets", state.offset)
                add("nested absmax", state.state2.absmax if state.nested else None)
                add("codebooks", state.state2.code if state.nested else None)
    for module in model.modules():  # last: a buffer that belongs to a quantized tensor has been counted as that
        for buffer in module.buffers(recurse=False):
            add("buffers", buffer)
    return Ledger(entries)


def skeleton(config: PretrainedConfig) -> nn.Module:
    """The model of a config on the meta device: every name and shape, not one weight. Half a second for 70B."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@cache
def _census(kind: type[PretrainedConfig], fields: str) -> tuple[int, int, dict[str, tuple[int, int]]]:
    """Of the model of a config, given as its class and JSON: parameters, bytes of buffers, `linear_shapes`."""
    model = skeleton(kind.from_dict(json.loads(fields)))
    return (sum(p.numel() for p in model.parameters()), sum(b.nbytes for b in model.buffers()), linear_shapes(model))


def census(config: PretrainedConfig) -> tuple[int, int, dict[str, tuple[int, int]]]:
    """Parameters, bytes of buffers, and name -> (out, in) of the linears of a config's model; counted once."""
    return _census(type(config), config.to_json_string())


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Name -> (out, in) of every linear layer but the output head: what 4-bit loading quantizes.

    GPT-2's `Conv1D` counts: it is a linear layer that keeps its weight transposed.
    """
    head = model.get_output_embeddings()
    return {name: (m.out_features, m.in_features) if isinstance(m, nn.Linear) else tuple(m.weight.shape[::-1])
            for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}


def forecast_weights(config: PretrainedConfig, bits: int = 4, double_quant: bool = True, block_size: int = 64,
                     dtype: torch.dtype = torch.bfloat16) -> Ledger:
    """What `measure` will find in a model of this config, loaded with its linear layers in `bits` bits.

    bits 2 to 4 as bitsandbytes stores 4: packed codes, an absmax per block, a codebook of 2**bits levels per layer;
    double_quant: 8-bit absmax with a float32 per 256 of them, a table of 256 levels and an offset. 16 or 32: nothing is
    quantized, and every weight takes that many bits. dtype: of the weights that stay (embedding, head, norms, biases).
    Raises ValueError for other bits and a block size below 1.
    """
    if bits not in (2, 3, 4, 16, 32):
        raise ValueError(f"bits={bits}: take 2, 3 or 4 for quantized linears, 16 or 32 for plain ones")
    if block_size < 1:
        raise ValueError(f"block_size={block_size}: take 1 or more")
    (every, buffers, shapes), entries = census(config), dict.fromkeys(HELD, 0)
    entries["buffers"] = buffers
    if bits > 4:
        return Ledger({**entries, "parameters": every * bits // 8})
    sizes = [out * into for out, into in shapes.values()]
    blocks = [math.ceil(size / block_size) for size in sizes]
    entries["parameters"] = (every - sum(sizes)) * dtype.itemsize
    entries["codes"] = sum(math.ceil(size * bits / 8) for size in sizes)
    entries["absmax"] = sum(blocks) * (1 if double_quant else 4)
    entries["codebooks"] = len(sizes) * 4 * (2**bits + (256 if double_quant else 0))
    if double_quant:
        entries["nested absmax"] = 4 * sum(math.ceil(count / 256) for count in blocks)
        entries["offsets"] = 4 * len(sizes)
    return Ledger(entries)


def lora_weights(config: PretrainedConfig, r: int, targets: str | Collection[str] = "all-linear") -> int:
    """How many weights LoRA trains: r · (in + out) for each target. targets: "all-linear" or endings of names.

    Raises ValueError for r below 1 and for targets that match nothing.
    """
    if r < 1:
        raise ValueError(f"r={r}: a rank is 1 or more")
    shapes = census(config)[2]
    chosen = [shape for name, shape in shapes.items()
              if targets == "all-linear" or name.rsplit(".", 1)[-1] in targets]
    if not chosen:
        known = sorted({name.rsplit(".", 1)[-1] for name in shapes})
        raise ValueError(f'targets={targets!r} match no linear layer: take "all-linear" or some of {known}')
    return sum(r * (out + into) for out, into in chosen)


def layer_activations(config: LlamaConfig, r: int, targets: str | Collection[str] = "all-linear",
                      dropout: bool = False, width: int = 2, gpu: bool = True) -> int:
    """Bytes per token that one Llama layer with LoRA saves for the backward pass, its own input left out.

    width: bytes of a number in the model (2 for 16 bit, 4 for fp32); adapters are fp32. gpu: a mask of dropout takes
    1 byte there and 4 on a CPU. Every term is a tensor that autograd keeps; tests count them by
    `torch.autograd.graph.saved_tensors_hooks`.
    """
    h, f, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or h // heads
    q, kv = heads * head, config.num_key_value_heads * head
    adapted = [name for name in INPUTS if targets == "all-linear" or name in targets]
    sizes = [{"down_proj": f, "o_proj": q}.get(name, h) for name in adapted]
    if width < 4:  # the model computes in 16 bit: both norms and every adapter make an fp32 copy of their input
        norms, inputs = 2 * 4 * h, 4 * sum(sizes)
    elif dropout:  # each adapter has its own input
        norms, inputs = 4 * h, 4 * sum(sizes)
    else:  # q, k, v share one, gate and up another; that of o is the output of attention, counted there
        norms, inputs = 4 * h, 4 * sum({INPUTS[name]: n for name, n in zip(adapted, sizes, strict=True)
                                        if INPUTS[name] != "attention"}.values())
    attention = width * (2 * q + 2 * kv) + 4 * heads  # q, k, v, the output, and a float32 sum per head
    gate = 3 * width * f  # the gate before and after SiLU, and the up-projection
    masks = sum(sizes) * (1 if gpu else 4) if dropout else 0
    return norms + 2 * 4 + attention + gate + inputs + masks + len(adapted) * 4 * r


def forecast_training(config: LlamaConfig, r: int = 16, targets: str | Collection[str] = "all-linear", batch: int = 1,
                      sequence: int = 512, bits: int = 4, double_quant: bool = True, checkpointing: bool = True,
                      dropout: bool = False, optimizer_bytes: int = 8, dtype: torch.dtype = torch.bfloat16,
                      gpu: bool = True) -> Ledger:
    """What a training step of QLoRA (bits 2 to 4) or LoRA (16, 32) takes at its peak, in bytes.

    There all the time: weights, scales (with tables and offsets), fp32 adapters, their fp32 gradients, the optimizer's
    states (8 bytes a trained weight for Adam in 32 bit, 2 in 8 bit). activations: what waits for the backward pass,
    with checkpointing the input of every layer, else all that the layers save. workspace: the most that is at work at
    once, either a layer (with checkpointing what it saves anew, and the gradients of its feed-forward part, or its
    largest weight dequantized) or the output head as TRL computes it, a tile of logits at a time. Not counted: the
    allocator's rounding and CUDA's own memory. gpu: as in `layer_activations`; a CPU also needs the tile in fp32, seven
    times, and a mask.
    Raises ValueError for batch or sequence below 1, for a config that is no Llama's, and as `forecast_weights`.
    """
    if batch < 1 or sequence < 1:
        raise ValueError(f"batch={batch}, sequence={sequence}: take 1 or more of each")
    if not hasattr(config, "num_key_value_heads"):
        raise ValueError(f"no forecast of activations for {config.model_type!r}: give a Llama-like config, "
                         "or ask forecast_weights")
    weights = forecast_weights(config, bits, double_quant, dtype=dtype)
    trained, tokens, layers = lora_weights(config, r, targets), batch * sequence, config.num_hidden_layers
    width = 4 if bits == 32 else dtype.itemsize
    h, f, vocab = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = tokens * layer_activations(config, r, targets, dropout, width, gpu)
    dequantized = h * f * width if bits <= 4 else 0
    at_work = max((5 + 2 * width) * f * tokens, dequantized + 3 * f * tokens) + (layer if checkpointing else 0)
    tile = min(tokens, TILE[0])
    head = tile * TILE[1] * width + tokens * h * (8 + 2 * width) + (0 if gpu else tile * min(vocab, TILE[1]) * 29)
    return Ledger({
        "weights": weights["parameters"] + weights["codes"] + weights["buffers"],
        "scales": weights["absmax"] + weights["nested absmax"] + weights["codebooks"] + weights["offsets"],
        "adapters": 4 * trained, "gradients": 4 * trained, "optimizer": optimizer_bytes * trained,
        "activations": layers * (tokens * width * h + (0 if checkpointing else layer)),
        "workspace": max(at_work, head),
    })


def smallest_card(bytes_needed: int, cards: Collection[int] = CARDS) -> int | None:
    """The smallest of `cards` (GB as they are sold, of 2**30 bytes) that holds so many bytes; None if none does.

    A gibibyte is set aside for CUDA itself and the allocator's gaps (assumed, not measured).
    """
    return next((card for card in sorted(cards) if bytes_needed <= (card - 1) * GIB), None)
