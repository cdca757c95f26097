"""What is published: which files stay at home, and whether the adapter holds anything."""

from __future__ import annotations

import random

import torch

from helpers.exercises.draws import integers, normal
from helpers.exercises.engine import Case, Exercise, Mistake


def leave_at_home(names: list[str]) -> list[str]:
    """Those of the file names that are pickles, in their order."""
    pickles = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
    return [name for name in names if name.lower().endswith(pickles)]


def _names(rng: random.Random) -> tuple[list[str]]:
    ends = ("bin", "pt", "pth", "pkl", "ckpt", "json", "md", "safetensors", "bin.gz")
    made = [f"{rng.choice(('a', 'b/Old', 'v1.2'))}{rng.choice('...-')}{rng.choice(ends)}" for _ in range(7)]
    return (rng.sample([*made, *map(str.upper, made), *map(str.title, made)], rng.randint(0, 9)),)


ENDS = "name.lower().endswith(pickles)"
LEAVE_AT_HOME = Exercise(11, leave_at_home, "★ What stays at home · 5 min", """
Somebody pushed the folder of a training run, and the hub put a warning on it: `training_args.bin` is a pickle
([transformers#28580](https://github.com/huggingface/transformers/issues/28580)). A pickle is a small program that runs
when it is opened; nobody can see from outside what it does. Return the names that must not go out: those that end in
`.bin`, `.pt`, `.pth`, `.pkl` or `.ckpt`, in any mixture of capitals and small letters.
""",
    cases=((["README.md", "rng_state.pth", "training_args.bin", "model.safetensors", "optimizer.pt"],),
           Case((["data.pkl", "model.ckpt", "tokenizer.json"],), about="`.pkl` and `.ckpt`"),
           Case((["WEIGHTS.BIN", "b.pt"],), about="a name in capitals"),
           Case((["Weights.Bin"],), about="a mixture of capitals and small letters"),
           Case((["model.bin.index.json", "notes.pt.md"],), about="an ending in the middle of a name"),
           Case((["script", "prompt", "cabin"],), about="a name that ends in the letters, without a dot"),
           Case((["bin", "a.ptx"],), about="a name without an ending, and an ending that only begins like one"),
           Case((["v1.2.pt"],), about="a name with two dots"), Case((["old/model.pt"],), about="a name in a folder"),
           Case(([".bin"],), about="a name that is nothing but the ending"),
           Case((["README.md"],), about="no pickle at all")),
    hints=('`name.endswith((".bin", ".pt"))` takes several endings at once, as a tuple.',
           "`name.lower()` first, so that `.BIN` counts too.", "A list comprehension over `names` keeps the order."),
    mistakes=(
        Mistake("Those are the files to publish. Asked for are the others.", ("if name", "if not name")),
        Mistake("Five endings are pickles: `.bin`, `.pt`, `.pth`, `.pkl`, `.ckpt`. Not all of them are looked for.",
                ('(".bin", ', '('), ('".pt", ', ''), ('".pth", ', ''), ('".pkl", ', ''), (', ".ckpt"', '')),
        Mistake("safetensors holds numbers and nothing else: that is what it was made for. Let it go out.",
                ('".ckpt"', '".ckpt", ".safetensors"')),
        Mistake("The ending decides, not whether `.pt` or `.bin` stands somewhere in the name.",
                (ENDS, "any(part in name.lower() for part in pickles)")),
        Mistake("Capitals make a difference here. They should make none: compare in lower case.", (".lower()", ""),
                (ENDS, "name.endswith((*pickles, *map(str.upper, pickles)))")),
        Mistake("The dot belongs to the ending: `script` ends in the letters pt, and is no pickle.",
                ("endswith(pickles)", "endswith(tuple(end[1:] for end in pickles))")),
    ),
    draw=_names,
    moral="`helpers.finale.sharing.pack` refuses them, and a folder with a token in it, before a byte is sent.")


def untrained_layers(state: dict[str, torch.Tensor]) -> list[str]:
    """Names, without `.lora_B.weight`, of the layers that never trained."""
    return [name.removesuffix(".lora_B.weight") for name, weight in state.items()
            if name.endswith(".lora_B.weight") and not weight.any()]


def _adapter(about: str = "", **columns: list[float]) -> Case:
    """An adapter of rank 1 with these B, and an A of ones."""
    state = {}
    for name, column in columns.items():
        state[f"layers.0.{name}.lora_A.weight"] = torch.ones(1, 2)
        state[f"layers.0.{name}.lora_B.weight"] = torch.tensor(column)[:, None]
    return Case((state,), about, ", ".join(f"{name}: B = {column}" for name, column in columns.items()))


def _random(rng: random.Random) -> tuple[dict[str, torch.Tensor]]:
    state = {}
    for n in range(rng.randint(1, 3)):
        r, name = rng.randint(1, 3), f"layers.{n}.{rng.choice(('query', 'value', 'o_proj'))}"
        state[f"{name}.lora_A.weight"] = normal(rng, r, 3)
        state[f"{name}.lora_B.weight"] = rng.randint(0, 1) * integers(rng, -1, 1, 2, r).float()
    return (state,)


UNTRAINED_LAYERS = Exercise(11, untrained_layers, "★★ Spot the bug: an adapter of nothing · 8 min", """
Early QLoRA scripts trained for hours and saved adapters with nothing in them
([qlora#38](https://github.com/artidoro/qlora/issues/38)). Somebody wants to notice it next time, before publishing:

```python
def untrained_layers(state):
    return [name for name, weight in state.items() if weight.numel() == 0]
```

It stays silent about an adapter that never trained: all tensors are there, of full size. Which of them tells, A or B?
Remember how LoRA begins: one of the two is zero everywhere. `state` is what an adapter's safetensors file holds:
`layers.0.q_proj.lora_A.weight`, `layers.0.q_proj.lora_B.weight` and so on. Return the names of the layers where that
one still is zero everywhere, without `.lora_B.weight`, in their order.
""",
    cases=(_adapter(q_proj=[0.5, -1.5], v_proj=[0.0, 0.0], up_proj=[0.0, 0.0]),
           _adapter("some zeros in a B that is not zero", q_proj=[0.0, 0.5, 0.0]),
           _adapter("a B whose sum is zero", q_proj=[0.5, -0.5]), _adapter("a B below zero", q_proj=[-0.5, 0.0]),
           _adapter("a B of equal numbers", q_proj=[0.5, 0.5]), _adapter("a B of tiny numbers", q_proj=[1e-12, -2e-12]),
           _adapter("`value`, a name that ends in letters of the suffix", value=[0.0, 0.0]),
           _adapter("names that are not in the order of the alphabet", up_proj=[0.0, 0.0], q_proj=[0.0, 0.0]),
           Case(({"layers.0.q.lora_A.weight": torch.ones(1, 2), "layers.0.v.lora_A.weight": torch.ones(1, 2),
                  "layers.0.q.lora_B.weight": torch.zeros(3, 1), "layers.0.v.lora_B.weight": torch.ones(3, 1)},),
                "all A before all B"),
           Case(({"layers.0.q.lora_A.weight": torch.ones(0, 2), "layers.0.q.lora_B.weight": torch.ones(3, 0)},),
                "tensors without elements, of rank 0")),
    hints=("A begins random and B begins at zero. Training moves both, so which of them is still as it began?",
           "`weight.any()` is True if one value is not zero.",
           "Go through `state.items()`, keep names that end in `.lora_B.weight`, and take that ending off."),
    mistakes=(
        Mistake("A layer that never trained is not empty: its A is random, as it began, and its B full of zeros.", None,
                ("lora_B", "lora_A")),
        Mistake("Take `.lora_B.weight` off: the layer is asked for.", ('.removesuffix(".lora_B.weight") for', " for"),
                ('removesuffix(".lora_B.weight") for', 'removesuffix(".weight") for')),
        Mistake("That is a part of the layer's name: `layers.0.` belongs to it.",
                ('name.removesuffix(".lora_B.weight")', 'name.split(".")[2]')),
        Mistake("`rstrip` takes a *set of characters* off, here the end of `value` too.", ("removesuffix", "rstrip")),
        Mistake("Those are the layers that did train. Asked for are the others.", ("not weight", "weight")),
        Mistake("Not all of them: some have a B with numbers in it.", (" and not weight.any()", "")),
        Mistake("Some numbers of this B are zero, but not all: the layer does change.",
                ("weight.any()", "weight.all()"), ("weight.any()", "weight[0].any()")),
    ),
    draw=_random,
    moral="Two seconds before publishing. The logits of the reloaded model say the same, and more.")
