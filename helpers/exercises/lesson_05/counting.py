"""Counting what a 4-bit model holds: its weights, and the bytes that are no parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def four_bit(out: int, into: int, storage: torch.dtype = torch.uint8, nested: bool = True) -> torch.nn.Module:
    """A bitsandbytes linear layer without a bias, quantized."""
    import bitsandbytes as bnb

    layer = bnb.nn.Linear4bit(into, out, bias=False, device="meta")
    values = torch.randn(out, into, generator=torch.Generator().manual_seed(0))
    layer.weight = bnb.nn.Params4bit(values, requires_grad=False, quant_type="nf4", quant_storage=storage,
                                     compress_statistics=nested)
    return layer.to("cpu")


def with_model(make: Callable[[], torch.nn.Module]) -> Callable:
    """The arguments of a case: the model, made when it is asked for (bitsandbytes takes a while to import)."""
    @contextmanager
    def arguments() -> Iterator[tuple]:
        yield (make(),)
    return arguments


def count_weights(model: torch.nn.Module) -> int:
    """How many weights the model has, packed or not; a shared tensor counts once."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else state.shape.numel()
    return total


def _elements(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _by_dtype(model: torch.nn.Module) -> int:
    return sum(p.numel() * (2 if p.dtype == torch.uint8 else 1) for p in model.parameters())


def _by_bytes(model: torch.nn.Module) -> int:
    return sum(p.nbytes * 2 if hasattr(p, "quant_state") else p.numel() for p in model.parameters())


def _every_name(model: torch.nn.Module) -> int:
    return sum(p.quant_state.shape.numel() if hasattr(p, "quant_state") else p.numel()
               for _, p in model.named_parameters(remove_duplicate=False))


def _linears_only(model: torch.nn.Module) -> int:
    return sum(p.quant_state.shape.numel() for p in model.parameters() if hasattr(p, "quant_state"))


def mixed() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Embedding(10, 64), four_bit(64, 64), torch.nn.LayerNorm(64))


def tied() -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Embedding(10, 8), torch.nn.Linear(8, 10, bias=False))
    model[1].weight = model[0].weight
    return model


COUNT_WEIGHTS = Exercise(5, count_weights, "★★ Spot the bug: half the parameters are gone · 8 min", """
Loaded in 4 bit, Llama-2-7B suddenly has 3.5 billion parameters; people asked where the others went
([transformers#25978](https://github.com/huggingface/transformers/issues/25978),
[bitsandbytes#834](https://github.com/bitsandbytes-foundation/bitsandbytes/issues/834)). They counted like this:

```python
def count_weights(model):
    return sum(parameter.numel() for parameter in model.parameters())
```

Count the weights as they were before quantization. Mind that codes are not always stored as bytes
(`bnb_4bit_quant_storage`), and that a number of weights may be odd. A 4-bit parameter has a `quant_state`, and that
remembers a `shape`.
""",
    cases=(
        Case(with_model(mixed), shown="an embedding (10, 64), a 4-bit linear (64, 64), a LayerNorm"),
        Case(with_model(lambda: four_bit(64, 64, torch.bfloat16)), shown="a 4-bit linear (64, 64) whose codes are stored as bfloat16"),
        Case(with_model(lambda: four_bit(33, 5)), shown="a 4-bit linear (33, 5)"),
        Case(with_model(tied), shown="an embedding and a head that share one tensor (10, 8)"),
    ),
    hints=(
        "Which of the parameters are packed? `hasattr(parameter, \"quant_state\")` tells.",
        "The packed tensor has shape (bytes, 1). What the weight's shape was stands in `parameter.quant_state.shape`.",
        "`parameter.quant_state.shape.numel()` for a packed one, `parameter.numel()` for any other; then the sum.",
    ),
    mistakes=(
        Mistake("Those are elements of storage: a byte holds two weights. Ask `quant_state` for the shape."),
        Mistake("Now the embedding and the norm are doubled as well: they are not packed.",
                lambda model: 2 * _elements(model)),
        Mistake("Only the packed weights are counted; embedding and norm are missing.",
                _linears_only),
        Mistake("Codes may be stored as bfloat16, four to an element: the dtype does not tell what is packed, nor "
                "how many fit.",
                _by_dtype),
        Mistake("165 weights take 83 bytes, and one nibble stays empty: twice the bytes is one too many.",
                _by_bytes),
        Mistake("One tensor, two names: it is one set of weights. `model.parameters()` gives it once.",
                _every_name),
    ),
    tolerance=0.0,
    moral="transformers' own `model.num_parameters()` doubles the bytes: right for every real model, whose sizes are "
          "even.")
# general: lambda model: 1


def hidden_bytes(weight: torch.nn.Parameter) -> int:
    """Bytes that belong to a 4-bit weight besides its codes: the whole `quant_state`."""
    state = weight.quant_state
    tensors = [state.absmax, state.code]
    if state.nested:
        tensors += [state.offset, state.state2.absmax, state.state2.code]
    return sum(tensor.nbytes for tensor in tensors)


def _parts(weight: torch.nn.Parameter, *left_out: str) -> int:
    state = weight.quant_state
    nested = {"offset": state.offset, "nested absmax": state.state2.absmax, "nested code": state.state2.code} \
        if state.nested else {}
    parts = {"absmax": state.absmax, "code": state.code, **nested}
    return sum(tensor.nbytes for name, tensor in parts.items() if name not in left_out)


def _elements_hidden(weight: torch.nn.Parameter) -> int:
    state = weight.quant_state
    nested = [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
    return sum(tensor.numel() for tensor in [state.absmax, state.code, *nested])


def _as_floats(weight: torch.nn.Parameter) -> int:
    return 4 * _elements_hidden(weight)


HIDDEN_BYTES = Exercise(5, hidden_bytes, "★★ What the footprint leaves out · 8 min", """
`get_memory_footprint()` sees a 4-bit weight's codes and nothing else. Count the rest: all tensors of its `quant_state`,
in bytes. Without double quantization those are `absmax` and the codebook `code`. With it (`state.nested`), `absmax`
holds one-byte codes, and there are `offset` and a second state, `state2`, with an `absmax` and a `code` of its own.
""",
    cases=(
        Case(with_model(lambda: four_bit(128, 64, nested=False).weight), shown="a 4-bit weight (128, 64), not nested"),
        Case(with_model(lambda: four_bit(320, 128).weight), shown="a 4-bit weight (320, 128), nested"),
    ),
    hints=(
        "A tensor's bytes are `tensor.nbytes`: elements times the size of one.",
        "Collect the tensors in a list: `[state.absmax, state.code]`, and three more if `state.nested`.",
        "The three are `state.offset`, `state.state2.absmax` and `state.state2.code`; sum the `nbytes` of all.",
    ),
    mistakes=(
        Mistake("Without double quantization there is no `state2` and no offset: ask `state.nested` first.",
                lambda weight: weight.quant_state.state2.absmax.nbytes),
        Mistake("Elements, not bytes: a float32 takes four.",
                _elements_hidden),
        Mistake("The codes themselves are in it: those the footprint has already.",
                lambda weight: hidden_bytes(weight) + weight.nbytes),
        Mistake("The 16 levels in `state.code` take 64 bytes too: bitsandbytes keeps them with every layer.",
                lambda weight: _parts(weight, "code", "nested code")),
        Mistake("Four bytes for everything; but nested, absmax holds one-byte codes. Ask for `nbytes`.",
                _as_floats),
        Mistake("Only the outer state. If `state.nested`, the scales have a scale of their own in `state2`.",
                lambda weight: _parts(weight, "offset", "nested absmax", "nested code")),
        Mistake("Four bytes short: the mean that was subtracted, `state.offset`.",
                lambda weight: _parts(weight, "offset")),
        Mistake("1,024 bytes short: the 256 levels of the second codebook, `state.state2.code`.",
                lambda weight: _parts(weight, "nested code")),
    ),
    tolerance=0.0,
    moral="Sum it over the model and add the footprint: that is the ledger's total.")
# general: lambda weight: 0
