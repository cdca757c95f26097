"""What is published: which files stay at home, and whether the adapter holds anything."""

from __future__ import annotations

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def leave_at_home(names: list[str]) -> list[str]:
    """Those of the file names that are pickles, in their order."""
    pickles = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
    return [name for name in names if name.lower().endswith(pickles)]


def _by_word(names: list[str]) -> list[str]:
    return [name for name in names if any(word in name for word in (".bin", ".pt", ".pth", ".pkl", ".ckpt"))]


def _ending(*endings: str, lower: bool = True) -> object:
    return lambda names: [name for name in names if (name.lower() if lower else name).endswith(endings)]


CHECKPOINT = ["README.md", "adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "rng_state.pth",
              "scheduler.pt", "tokenizer.json", "training_args.bin"]
STRANGE = ["weights.BIN", "notes.pt.md", "old/model.ckpt", "data.pkl", "binary.json", "model.bin.index.json"]

LEAVE_AT_HOME = Exercise(11, leave_at_home, "★ What stays at home · 5 min", """
Somebody pushed the folder of a training run, and the hub put a warning on it: `training_args.bin` is a pickle
([transformers#28580](https://github.com/huggingface/transformers/issues/28580)). A pickle is a small program that runs
when it is opened; nobody can see from outside what it does. Return the names that must not go out: those that end in
`.bin`, `.pt`, `.pth`, `.pkl` or `.ckpt`, in capitals too.
""",
    cases=(
        Case((CHECKPOINT,)),
        Case((STRANGE,)),
        Case((["README.md"],)),
    ),
    hints=("`name.endswith((\".bin\", \".pt\"))` takes several endings at once, as a tuple.",
    "`name.lower()` first, so that `.BIN` counts too.",
    "A list comprehension over `names` keeps the order."),
    mistakes=(
        Mistake("Those are the files to publish. Asked for are the others.",
                lambda names: [n for n in names if n not in leave_at_home(names)]),
        Mistake("`.bin` is one ending of five: the optimizer's `.pt` is a pickle too.",
                _ending(".bin")),
        Mistake("`rng_state.pth` is a pickle as well.",
                _ending(".bin", ".pt", ".pkl", ".ckpt")),
        Mistake("safetensors holds numbers and nothing else: that is what it was made for. Let it go out.",
                _ending(".bin", ".pt", ".pth", ".pkl", ".ckpt", ".safetensors")),
        Mistake("The ending decides, not whether `.pt` or `.bin` stands somewhere in the name.",
                _by_word),
        Mistake("`weights.BIN` is a pickle too. Compare in lower case.",
                _ending(".bin", ".pt", ".pth", ".pkl", ".ckpt", lower=False)),
        Mistake("Nothing here is a pickle: return an empty list.",
                lambda names: leave_at_home(names) or names),
    ),
    tolerance=0.0,
    moral="`helpers.finale.sharing.pack` refuses them, and a folder with a token in it, before a byte is sent.")
# general: lambda names: sorted(leave_at_home(names), reverse=True)


def untrained_layers(state: dict[str, torch.Tensor]) -> list[str]:
    """Names, without `.lora_B.weight`, of the layers whose update is nothing."""
    return [name.removesuffix(".lora_B.weight") for name, weight in state.items()
            if name.endswith(".lora_B.weight") and not weight.any()]


def _state(**trained: bool) -> dict[str, torch.Tensor]:
    """A for every layer, B that is zero where `trained` is False."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, moved in trained.items():
        state[f"layers.0.{name}.lora_A.weight"] = torch.randn(2, 4, generator=generator)
        state[f"layers.0.{name}.lora_B.weight"] = torch.randn(3, 2, generator=generator) * moved
    return state


def _partly() -> dict[str, torch.Tensor]:
    state = _state(q_proj=True, v_proj=False)
    state["layers.0.q_proj.lora_B.weight"][0] = 0
    state["layers.0.q_proj.lora_B.weight"][1] = torch.tensor([1.0, -1.0])
    state["layers.0.q_proj.lora_B.weight"][2] = 0
    return state


def _published(state: dict[str, torch.Tensor]) -> list[str]:
    return [name for name, weight in state.items() if weight.numel() == 0]


UNTRAINED_LAYERS = Exercise(11, untrained_layers, "★★ Spot the bug: an adapter of nothing · 8 min", """
Early QLoRA scripts trained for hours and saved adapters with nothing in them
([qlora#38](https://github.com/artidoro/qlora/issues/38)). Somebody wants to notice it next time, before publishing:

```python
def untrained_layers(state):
    return [name for name, weight in state.items() if weight.numel() == 0]
```

It stays silent about an adapter that never trained: all tensors are there, of full size. Which of them tells, A or B?
Remember how LoRA begins. `state` is what an adapter's safetensors file holds: `layers.0.q_proj.lora_A.weight`,
`layers.0.q_proj.lora_B.weight` and so on. Return the names of the layers that change nothing, without
`.lora_B.weight`, in their order.
""",
    cases=(
        Case((_state(q_proj=True, v_proj=False, up_proj=False),), shown="q_proj trained, v_proj and up_proj with B = 0"),
        Case((_partly(),), shown="q_proj with a B of some zeros whose sum is zero, v_proj with B = 0"),
        Case((_state(q_proj=True),), shown="q_proj trained"),
    ),
    hints=("A begins random and B begins at zero. Training moves both, so which of them is still as it began?",
    "`weight.any()` is True if one value is not zero.",
    'Go through `state.items()`, keep names that end in `.lora_B.weight`, and take that ending off.'),
    mistakes=(
        Mistake("A layer that never trained is not empty: its B is there and full of zeros.",
                None,
                lambda state: [n.removesuffix(".lora_A.weight") for n, w in state.items()
                if n.endswith("lora_A.weight") and not w.any()]),
        Mistake("Take `.lora_B.weight` off: the layer is asked for. `name.removesuffix(…)` does it.",
                lambda state: [n + ".lora_B.weight" for n in untrained_layers(state)]),
        Mistake("Those are the layers that did train. Asked for are the others.",
                lambda state: [n.removesuffix(".lora_B.weight") for n, w in state.items()
                if n.endswith("lora_B.weight") and w.any()]),
        Mistake("Not all of them: q_proj has a B with numbers in it.",
                lambda state: [n.removesuffix(".lora_B.weight") for n in state if n.endswith("lora_B.weight")]),
        Mistake("B of q_proj has zeros, and its sum is zero, but some values are not: the layer does change. Ask "
                "whether *any* value is not zero.",
                lambda state: [n.removesuffix(".lora_B.weight") for n, w in state.items()
                if n.endswith("lora_B.weight") and w.sum() == 0],
                lambda state: [n.removesuffix(".lora_B.weight") for n, w in state.items()
                if n.endswith("lora_B.weight") and not w.all()]),
    ),
    tolerance=0.0,
    moral="Two seconds before publishing. The logits of the reloaded model say the same, and more.")
# general: lambda state: untrained_layers(state)[::-1]
