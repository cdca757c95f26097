"""Counting what a 4-bit model holds: its weights, and the bytes that are no parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from helpers.exercises.engine import Case, Exercise, Mistake


def four_bit(out: int, into: int, storage: torch.dtype = torch.uint8, nested: bool = True) -> nn.Module:
    """A bitsandbytes linear layer without a bias, quantized."""
    import bitsandbytes as bnb  # takes a while

    layer = bnb.nn.Linear4bit(into, out, bias=False, device="meta")
    values = torch.randn(out, into, generator=torch.Generator().manual_seed(0))
    layer.weight = bnb.nn.Params4bit(values, requires_grad=False, quant_type="nf4", quant_storage=storage,
                                     compress_statistics=nested)
    return layer.to("cpu")


def case(shown: str, make: Callable[[], nn.Module], about: str = "") -> Case:
    """A case whose one argument is made when it is asked for."""
    @contextmanager
    def arguments() -> Iterator[tuple]:
        yield (make(),)
    return Case(arguments, about, shown)


def count_weights(model: torch.nn.Module) -> int:
    """How many weights the model has, packed or not; a shared tensor counts once."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else state.shape.numel()
    return total


def _mixed() -> nn.Module:
    return nn.Sequential(nn.Embedding(10, 60), four_bit(60, 60), nn.LayerNorm(60))


def _experts() -> nn.Module:
    model = four_bit(24, 64)
    model.weight.quant_state.shape = torch.Size((3, 8, 64))
    return model


def _tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 10, bias=False))
    model[1].weight = model[0].weight
    return model


COUNT_WEIGHTS = Exercise(5, count_weights, "★★ Spot the bug: half the parameters are gone · 7 min", """
Loaded in 4 bit, Llama-2-7B suddenly has 3.5 billion parameters; people asked where the others went
([transformers#25978](https://github.com/huggingface/transformers/issues/25978),
[bitsandbytes#834](https://github.com/bitsandbytes-foundation/bitsandbytes/issues/834)). They counted like this:

```python
def count_weights(model):
    return sum(parameter.numel() for parameter in model.parameters())
```

Count the weights as they were before quantization. Mind that codes are not always stored as bytes
(`bnb_4bit_quant_storage`), and that a number of weights may be odd. A 4-bit parameter has a `quant_state`, and that
remembers a `shape`. A parameter that two modules share counts once.
""",
    cases=(case("a 4-bit linear (60, 32)", lambda: four_bit(60, 32)),
           case("an embedding (10, 60), a 4-bit linear (60, 60), a LayerNorm with weight and bias", _mixed,
                "parameters that are not packed"),
           case("a 4-bit linear (64, 64) stored as bfloat16", lambda: four_bit(64, 64, torch.bfloat16),
                "codes that are not stored as bytes"),
           case("a 4-bit linear (33, 5)", lambda: four_bit(33, 5), "an odd number of weights"),
           case("an embedding and a head that share one tensor (10, 8)", _tied, "one tensor under two names"),
           case("a batch norm of 3, whose running mean, variance and counter are buffers", lambda: nn.BatchNorm1d(3),
                "buffers, which are no parameters"),
           case("three 4-bit experts (8, 64) in one tensor", _experts, "a packed tensor of three dimensions"),
           case("two linears (4, 6) on the meta device", lambda: nn.Sequential(*(
               nn.Linear(4, 6, device="meta") for _ in range(2))), "weights without memory")),
    hints=("Which of the parameters are packed? `hasattr(parameter, \"quant_state\")` tells.",
           "The packed tensor has shape (bytes, 1). The weight's own shape stands in `parameter.quant_state.shape`.",
           "`parameter.quant_state.shape.numel()` for a packed one, `parameter.numel()` for any other; then the sum."),
    mistakes=(
        Mistake("Those are elements of storage: a byte holds two weights."),
        Mistake("Embedding and norm are doubled as well: they are not packed.",
                lambda model: 2 * sum(p.numel() for p in model.parameters())),
        Mistake("Only the packed weights are counted.", ("parameter.numel() if state is None", "0 if state is None")),
        Mistake("Codes may be stored as bfloat16, four to an element: the dtype does not tell what is packed.",
                ("state.shape.numel()", "parameter.numel() * 2", "state is None", "parameter.dtype != torch.uint8")),
        Mistake("Two to an element holds for bytes only: a bfloat16 has room for four codes.",
                ("state.shape.numel()", "parameter.numel() * 2")),
        Mistake("An odd number of weights leaves half a byte empty: twice the bytes is one too many.",
                ("state.shape.numel()", "parameter.nbytes * 2")),
        Mistake("One tensor with two names is one set of weights, counted twice here.",
                ("model.parameters()", "[p for _, p in model.named_parameters(remove_duplicate=False)]")),
        Mistake("Biases are parameters too: a norm has one.",
                ("model.parameters()", "[p for n, p in model.named_parameters() if 'bias' not in n]")),
        Mistake("A frozen parameter is a weight as well: 4-bit ones never require a gradient.",
                ("model.parameters()", "[p for p in model.parameters() if p.requires_grad]")),
    ),
    moral="transformers' own `model.num_parameters()` doubles the bytes: right for every real model, whose sizes are "
          "even.")


def hidden_bytes(weight: torch.nn.Parameter) -> int:
    """Bytes that belong to a 4-bit weight besides its codes: the whole `quant_state`."""
    state = weight.quant_state
    tensors = [state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sum(tensor.nbytes for tensor in tensors)


HIDDEN_BYTES = Exercise(5, hidden_bytes, "★★ Build: what the footprint leaves out · 6 min", """
`get_memory_footprint()` sees a 4-bit weight's codes and nothing else. Count the rest: all tensors of its `quant_state`,
in bytes. Without double quantization those are `absmax` and the codebook `code`. With it (`state.nested`), `absmax`
holds one-byte codes, and there are `offset` and a second state, `state2`, with an `absmax` and a `code` of its own.
""",
    cases=(case("a 4-bit weight (130, 64), not nested", lambda: four_bit(130, 64, nested=False).weight),
           case("a 4-bit weight (72, 64), nested", lambda: four_bit(72, 64).weight, "quantized scales"),
           case("a 4-bit weight (320, 128), nested", lambda: four_bit(320, 128).weight, "more than one nested block")),
    hints=("A tensor's bytes are `tensor.nbytes`: elements times the size of one.",
           "Collect the tensors in a list: `[state.absmax, state.code]`, and three more if `state.nested`.",
           "The three are `state.offset`, `state.state2.absmax` and `state.state2.code`; sum the `nbytes` of all."),
    mistakes=(
        Mistake("Without double quantization there is no `state2`.", ("if state.nested", "if True")),
        Mistake("Those are elements, not bytes.", ("nbytes", "numel()")),
        Mistake("The weight's codes are in it: those the footprint has already.", ("return", "return weight.nbytes +")),
        Mistake("Those are the codes' own bytes, which the footprint has already.", lambda weight: weight.nbytes),
        Mistake("The 16 levels in `state.code` take 64 bytes too: bitsandbytes keeps them with every layer.",
                ("[state.absmax, state.code]", "[state.absmax]"),
                ("[state.absmax, state.code]", "[state.absmax]", ", state.state2.code]", "]")),
        Mistake("Nothing else than the codebooks is counted: the scales are missing.",
                ("[state.absmax, state.code]", "[state.code]", "state.state2.absmax, ", "")),
        Mistake("Four bytes for everything, but nested, absmax holds one-byte codes.",
                ("tensor.nbytes", "4 * tensor.numel()")),
        Mistake("Only the outer state. Nested scales have scales of their own.", ("if state.nested", "if False")),
        Mistake("Four bytes short: the mean that was subtracted.", ("state.offset, ", "")),
        Mistake("The second codebook's 256 levels are missing, 1,024 bytes.", (", state.state2.code", "")),
        Mistake("The scales of the scales are missing, four bytes for every 256.", ("state.state2.absmax, ", "")),
    ),
    moral="Sum it over the model and add the footprint: that is the ledger's total.")
