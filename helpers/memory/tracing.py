"""The real training step without its numbers: the libraries' own code on tensors that have a shape and no data.

Nothing here knows what a layer keeps. transformers, PEFT, bitsandbytes and TRL run as lesson 10 runs them, on PyTorch's
FakeTensors, and `Peak` counts what is alive after every operation: a second opinion on the ledger's arithmetic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from itertools import pairwise
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig

from helpers.memory.card import Card, as_on_a_gpu
from helpers.memory.forecast import check_training, lora_weights
from helpers.memory.ledger import Ledger
from helpers.memory.peak import Peak, quantization_tensors

ENTRIES = ("weights", "scales", "adapters", "gradients", "optimizer", "activations", "workspace")


class Trace(Ledger):
    """A ledger of the peak: its entries are those of `forecast_training`, its total the most that was alive at once.

    phases: the peak, in bytes, of "load", "forward", "backward" and "step" (clipping and the optimizer).
    """

    def __init__(self, entries: dict[str, int], phases: dict[str, int]) -> None:
        super().__init__(entries)
        self.phases = phases


@contextlib.contextmanager
def _fakes() -> Iterator[None]:
    """Tensors without data from here on. Where a library would read values, it gets what it would have found."""
    import bitsandbytes as bnb

    tables = {signed: bnb.functional.create_dynamic_map(signed) for signed in (True, False)}
    with (FakeTensorMode() as fake,
          mock.patch.dict(bnb.functional.name2qmap, clear=True),
          mock.patch.object(bnb.functional, "create_dynamic_map", lambda signed=True: fake.from_tensor(tables[signed])),
          mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None)):
        yield


def _skeleton(config: LlamaConfig, r: int, targets: str | Collection[str], bits: int, double_quant: bool,
              dropout: bool, dtype: torch.dtype) -> nn.Module:
    """The model with its adapters on the meta device, as lesson 10 makes it."""
    from peft import LoraConfig, get_peft_model
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        if bits == 4:
            model = replace_with_bnb_linear(model, ["lm_head"], BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double_quant,
                bnb_4bit_compute_dtype=dtype))
            model.is_loaded_in_4bit = True  # PEFT asks
        return get_peft_model(model, LoraConfig(
            r=r, target_modules=targets, lora_dropout=0.1 if dropout else 0.0, task_type="CAUSAL_LM"))


def _load(model: nn.Module, dtype: torch.dtype) -> None:
    """Put tensors without data in the place of those on meta, one after the other, the 4-bit ones by bitsandbytes."""
    import bitsandbytes as bnb

    made: dict[nn.Parameter, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, old in list(module.named_parameters(recurse=False)):
            if old not in made:
                new, state = torch.empty(old.shape, dtype=torch.float32 if old.requires_grad else dtype), None
                if isinstance(old, bnb.nn.Params4bit):
                    new, state = bnb.functional.quantize_4bit(
                        new, quant_type=old.quant_type, compress_statistics=old.compress_statistics)
                made[old] = nn.Parameter(new, requires_grad=old.requires_grad)
                if state is not None:
                    made[old].quant_state = state
            module.register_parameter(name, made[old])
        for name, old in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(old.shape, dtype=old.dtype))


def _optimizer(model: nn.Module, optimizer_bytes: int) -> torch.optim.Optimizer | None:
    """AdamW after its first step, which makes its states; the gradients stay, as between accumulated batches."""
    import bitsandbytes as bnb

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    if not optimizer_bytes:
        return None
    optimizer = (bnb.optim.AdamW if optimizer_bytes == 8 else bnb.optim.AdamW8bit)(trained)
    optimizer.step()
    return optimizer


def _kinds(model: nn.Module, optimizer: torch.optim.Optimizer | None, peak: Peak) -> dict[int | None, str]:
    """What the storages that are there before the step are for, by their numbers."""
    held: dict[str, list[torch.Tensor]] = {kind: [] for kind in ENTRIES}
    held["weights"] += model.buffers()
    for parameter in model.parameters():
        held["adapters" if parameter.requires_grad else "weights"].append(parameter)
        held["scales"] += quantization_tensors(parameter)
        held["gradients"] += [] if parameter.grad is None else [parameter.grad]
    for state in [] if optimizer is None else optimizer.state.values():
        held["optimizer"] += [part for part in state.values() if isinstance(part, torch.Tensor)]
    return {peak.add(tensor): kind for kind, tensors in held.items() for tensor in tensors}


def _step(model: nn.Module, optimizer: torch.optim.Optimizer | None, rows: torch.Tensor, autocast: torch.dtype | None,
          peak: Peak) -> dict[str, tuple[int, int]]:
    """One step as the trainer takes it; the events between which each of its phases lies.

    Written out, because the trainer's own loop asks for values: is the batch padded, how many labels, which accuracy?
    """
    marks = [len(peak.events)]
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        outputs = model(input_ids=rows, labels=rows, use_cache=False, fused_lm_head=True)
    loss = -outputs.log_probs.sum() / outputs.label_mask.sum().clamp(min=1)  # SFTTrainer.compute_loss
    del outputs
    marks.append(len(peak.events))
    loss.backward()
    marks.append(len(peak.events))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    nn.utils.clip_grad_norm_(trained, 1.0)
    if optimizer is not None:
        optimizer.step()
    marks.append(len(peak.events))
    return dict(zip(("forward", "backward", "step"), pairwise(marks), strict=True))


def trace(config: LlamaConfig, r: int = 16, targets: str | Collection[str] = "all-linear", batch: int = 1,
          sequence: int = 512, bits: int = 4, double_quant: bool = True, checkpointing: bool = True,
          dropout: bool = False, optimizer_bytes: int = 8, dtype: torch.dtype = torch.bfloat16,
          gpu: bool = True) -> Trace:
    """The peak of a training step, found by taking the step: every layer of any Llama-like config, without its data.

    What `forecast_training` adds up, with the same arguments, in a quarter of a second a layer and without a GPU. The
    step is a late one: the optimizer has its states, and gradients of an earlier batch wait to be added to. Rows are
    full: no padding, no packing. `.phases` has the peak of each phase.

    bits: 4 as NF4 by bitsandbytes, 16 or 32 not quantized. dropout: 0.1. optimizer_bytes: 8 for bitsandbytes' AdamW in
    32 bit (paged states count as long as they are on the card), 2 for its 8-bit AdamW, 0 for none. gpu: in 16 bit the
    model runs under autocast, as the trainer runs it there, and TRL's head in its Triton kernels; without, the way of a
    CPU, which knows no autocast in this course. On both a 4-bit product dequantizes its weight (see `peak`).

    Attention keeps no matrix, as in FlashAttention; a card before Ampere makes one for grouped queries (TinyLlama,
    70B), and then this is too little. Not seen: scratch memory within kernels (FlashAttention's backward pass adds up
    4 bytes a token and hidden number), the allocator's rounding, CUDA's own memory.
    Raises ValueError as `forecast_training`, and for bits and optimizer_bytes that no library has.
    """
    from trl.trainer.utils import add_fused_lm_head

    check_training(config, batch, sequence)
    lora_weights(config, r, targets)  # refuses a bad rank and bad targets
    if bits not in (4, 16, 32):
        raise ValueError(f"bits={bits}: take 4 as bitsandbytes stores them, or 16 or 32; forecast_training knows more")
    if optimizer_bytes not in (0, 2, 8):
        raise ValueError(f"optimizer_bytes={optimizer_bytes}: take 8 or 2 for AdamW in 32 or 8 bit, 0 for none")
    dtype = torch.float32 if bits == 32 else dtype
    model = _skeleton(config, r, targets, bits, double_quant, dropout, dtype)
    autocast = dtype if gpu and dtype.itemsize < 4 else None
    with _fakes(), as_on_a_gpu() if gpu else contextlib.nullcontext(), Card() if gpu else Peak() as peak:
        _load(model, dtype)
        spans = {"load": (0, len(peak.events))}
        add_fused_lm_head(model.get_base_model(), outputs=("log_probs", "entropy", "is_top1"))
        if checkpointing:
            model.enable_input_require_grads()
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)  # old name
            enable({"use_reentrant": False})
        model.train()
        optimizer = _optimizer(model, optimizer_bytes)
        kinds = _kinds(model, optimizer, peak)
        spans |= _step(model, optimizer, torch.zeros(batch, sequence, dtype=torch.long), autocast, peak)
    peaks = {phase: peak.highest(*span) for phase, span in spans.items()}
    waiting = peak.living(spans["forward"][1]) - peak.living(spans["forward"][0])
    entries = dict.fromkeys(ENTRIES, 0)
    for number in max(peaks.values(), key=lambda found: found[0])[1]:
        entries[kinds.get(number, "activations" if number in waiting else "workspace")] += peak.sizes[number]
    return Trace(entries, {phase: most for phase, (most, _) in peaks.items()})
