"""What a model and its training will hold in memory, by arithmetic: from a config alone, before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from functools import cache

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PretrainedConfig
from transformers.pytorch_utils import Conv1D

from helpers.memory.ledger import HELD, Ledger

TILE = (4096, 32_768)  # tokens, vocabulary: the piece of the logits that TRL 1.16 makes at a time
INPUTS = {"q_proj": "hidden", "k_proj": "hidden", "v_proj": "hidden", "o_proj": "attention",  # what a Llama's linears
          "gate_proj": "middle", "up_proj": "middle", "down_proj": "gated"}                    # read


# Source: the checkpoints' configs; Touvron et al. 2023 (arXiv 2302.13971, table 2, and 2307.09288, section 2.2).
LLAMAS: Mapping[str, PretrainedConfig] = {"GPT-2": GPT2Config()} | {
    name: LlamaConfig(hidden_size=hidden, intermediate_size=ff, num_hidden_layers=layers, num_attention_heads=heads,
                      num_key_value_heads=kv_heads, vocab_size=32_000)
    for name, hidden, ff, layers, heads, kv_heads in (
        ("Llama-2-7B", 4096, 11008, 32, 32, 32), ("Llama-2-13B", 5120, 13824, 40, 40, 40),
        ("LLaMA-33B", 6656, 17920, 60, 52, 52), ("LLaMA-65B", 8192, 22016, 80, 64, 64),
        ("Llama-2-70B", 8192, 28672, 80, 64, 8))}


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
              if targets == "all-linear" or name.rpartition(".")[2] in targets]
    if not chosen:
        known = sorted({name.rpartition(".")[2] for name in shapes})
        raise ValueError(f'targets={targets!r} match no linear layer: take "all-linear" or some of {known}')
    return sum(r * (out + into) for out, into in chosen)


def layer_activations(config: LlamaConfig, r: int, targets: str | Collection[str] = "all-linear",
                      dropout: bool = False, width: int = 2, gpu: bool = True, quantized: bool = True) -> int:
    """Bytes per token that one Llama layer with LoRA saves for the backward pass, its own input left out.

    width: bytes of a number in the model (2 for 16 bit, 4 for fp32); adapters are fp32. gpu: 16 bit means autocast
    there, under which adapters compute in 16 bit too (from copies of themselves, not counted here); on a CPU, without
    it, each makes an fp32 copy of its input. A mask of dropout takes 1 byte on a GPU and 4 on a CPU. quantized: under
    autocast PEFT's adapter copies its input beside a plain layer, not beside a 4-bit one. Every term is a tensor that
    autograd keeps; tests count them by `torch.autograd.graph.saved_tensors_hooks`.
    """
    h, f, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    head = getattr(config, "head_dim", None) or h // heads
    q, kv = heads * head, config.num_key_value_heads * head
    adapted = [name for name in INPUTS if targets == "all-linear" or name in targets]
    sizes = {name: {"down_proj": f, "o_proj": q}.get(name, h) for name in adapted}
    adapter = 2 if gpu and width < 4 else 4  # bytes of a number in the adapters' branch
    if dropout or (width < 4 and not (gpu and quantized)):  # each adapter has its own input
        inputs = sum(sizes.values())
    else:  # q, k, v share one, gate and up another; that of o is the output of attention, counted there
        inputs = sum({INPUTS[name]: n for name, n in sizes.items() if INPUTS[name] != "attention"}.values())
    norms = 4 * h * (2 if width < 4 else 1) + 2 * 4  # fp32 copies of their inputs; in fp32 the first is the layer's own
    attention = width * (2 * q + 2 * kv) + 4 * heads  # q, k, v, the output, and a float32 sum per head
    gate = 3 * width * f  # the gate before and after SiLU, and the up-projection
    masks = sum(sizes.values()) * (1 if gpu else 4) if dropout else 0
    return norms + attention + gate + adapter * (inputs + len(adapted) * r) + masks


def check_training(config: PretrainedConfig, batch: int, sequence: int) -> None:
    """Raises ValueError for batch or sequence below 1, and for a config that is no Llama's."""
    if batch < 1 or sequence < 1:
        raise ValueError(f"batch={batch}, sequence={sequence}: take 1 or more of each")
    if not hasattr(config, "num_key_value_heads"):
        raise ValueError(f"no forecast of activations for {config.model_type!r}: give a Llama-like config, "
                         "or ask forecast_weights")


def forecast_training(config: LlamaConfig, r: int = 16, targets: str | Collection[str] = "all-linear", batch: int = 1,
                      sequence: int = 512, bits: int = 4, double_quant: bool = True, checkpointing: bool = True,
                      dropout: bool = False, optimizer_bytes: int = 8, dtype: torch.dtype = torch.bfloat16,
                      gpu: bool = True) -> Ledger:
    """What a training step of QLoRA (bits 2 to 4) or LoRA (16, 32) takes at its peak, in bytes.

    There all the time: weights, scales (with tables and offsets), fp32 adapters, their fp32 gradients, the optimizer's
    states (8 bytes a trained weight for Adam in 32 bit, 2 in 8 bit). activations: what waits for the backward pass,
    with checkpointing the input of every layer, else all that the layers save. workspace: the most that is at work at
    once, in a layer or in the output head as TRL computes it, a tile of logits at a time. Not counted: the allocator's
    rounding and CUDA's own memory. gpu: as in `layer_activations`, and a GPU's cheaper head. `trace` finds the same by
    taking the step.
    Raises ValueError for batch or sequence below 1, for a config that is no Llama's, and as `forecast_weights`.
    """
    check_training(config, batch, sequence)
    weights = forecast_weights(config, bits, double_quant, dtype=dtype)
    trained, tokens, layers = lora_weights(config, r, targets), batch * sequence, config.num_hidden_layers
    width = 4 if bits == 32 else dtype.itemsize
    copies = width * trained if gpu and width < 4 else 0  # of the adapters, by autocast
    layer = tokens * layer_activations(config, r, targets, dropout, width, gpu, bits <= 4) + copies // layers
    between = tokens * width * config.hidden_size  # goes from layer to layer; its gradient comes back
    if checkpointing:
        activations, forward, backward = layers * between, copies, layer
    else:  # of a layer's input, fp32 saves the tensor itself; in 16 bit its fp32 copy is among what the layer saves
        activations, forward, backward = layers * (layer + (between if width == 4 else 0)), 0, 0
    in_layer = _in_layer(config, tokens, width, bits, checkpointing, gpu)
    in_head = _in_head(config, tokens, width, gpu)
    return Ledger({
        "weights": weights["parameters"] + weights["codes"] + weights["buffers"],
        "scales": weights["absmax"] + weights["nested absmax"] + weights["codebooks"] + weights["offsets"],
        "adapters": 4 * trained, "gradients": 4 * trained, "optimizer": optimizer_bytes * trained,
        "activations": activations,
        "workspace": max(forward + max(in_layer[0], in_head[0]), backward + in_layer[1], in_head[1]),
    })


def _in_layer(config: LlamaConfig, tokens: int, width: int, bits: int, checkpointing: bool,
              gpu: bool) -> tuple[int, int]:
    """Bytes at work in one layer besides what it saves, in its forward and in its backward pass: the feed-forward part.

    Forward: the largest weight dequantized, from scales in fp32, and its output; with checkpointing, which saves none
    of them, its input and another two. Backward: besides a narrow gradient and the residual either that weight again
    with its product, or three wide gradients, from the adapter, the weight and both, in the place of the freed input of
    `down`; in fp32 the first if the adapter copies its input (see `layer_activations`).
    """
    narrow, wide = width * tokens * config.hidden_size, width * tokens * config.intermediate_size
    weight = config.hidden_size * config.intermediate_size if bits <= 4 else 0
    dequantized = width * weight + 4 * weight // 64
    copied = width < 4 and not (gpu and bits <= 4)
    gradients = 2 * wide + (4 * wide // width if copied else 0)
    passing = 2 * (wide + narrow) if checkpointing else narrow
    return dequantized + passing, max(dequantized + narrow, gradients) + 2 * narrow


def _in_head(config: LlamaConfig, tokens: int, width: int, gpu: bool) -> tuple[int, int]:
    """Bytes at work in the output head, forward and backward: TRL's tile of logits, its input in fp32, gradients.

    A GPU folds the tile in a Triton kernel, in place. PyTorch's operations, which a CPU takes, need it in fp32 seven
    times and a mask, or in 16 bit once more and the head's weight, in fp32.
    """
    h, rows, columns = tokens * config.hidden_size, min(tokens, TILE[0]), min(config.vocab_size, TILE[1])
    logits = rows * TILE[1] * width
    product = 4 * columns * (rows + config.hidden_size) if width < 4 else 0
    fold = 0 if gpu else max(rows * columns * (7 * 4 + 1), product)
    return logits + (4 + width) * h, logits + (8 + 2 * width) * h + fold
