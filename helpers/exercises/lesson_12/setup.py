"""What a run that calls itself QLoRA may lack, and does not say."""

from __future__ import annotations

import random

import torch

from helpers.exercises.engine import Case, Exercise, Mistake


def what_is_missing(model: torch.nn.Module, row: dict[str, list[int]]) -> list[str]:
    """What a LoRA run lacks, of "adapter", "frozen base" and "labels", in this order."""
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    missing = []
    if not any("lora_" in name for name in trained):
        missing.append("adapter")
    if any("lora_" not in name for name in trained):
        missing.append("frozen base")
    if all(label == -100 for label in row.get("labels", [])):
        missing.append("labels")
    return missing


def _model(base: bool, adapter: bool | None, norm: bool | None = None) -> torch.nn.Module:
    """Layers of a model; base, adapter and norm say whether they are trained. adapter None: there is none."""
    layer = torch.nn.ModuleDict({"base_layer": torch.nn.Linear(2, 2, bias=False)})
    if adapter is not None:
        layer.update({"lora_A": torch.nn.Linear(2, 1, bias=False), "lora_B": torch.nn.Linear(1, 2, bias=False)})
    model = torch.nn.ModuleDict({"q_proj": layer, "norm": torch.nn.LayerNorm(2)})
    for name, weight in model.named_parameters():
        torch.nn.init.ones_(weight)
        part = adapter if "lora_" in name else base if norm is None or "norm" not in name else norm
        weight.requires_grad_(bool(part))
    return model


def _biased() -> torch.nn.Module:
    model = _model(False, True)
    model.norm.bias.requires_grad_(True)
    return model


def _drawn(rng: random.Random) -> tuple:
    row = {"input_ids": [5, 6, 2]} | rng.choice(({}, {"labels": [-100, 6, 2]}, {"labels": [-100] * 3}))
    return _model(rng.random() < 0.4, rng.choice((None, True, True, False)), rng.choice((None, True, False))), row


ROW, ADAPTER = {"input_ids": [5, 6, 2], "labels": [-100, 6, 2]}, 'not any("lora_" in name for name in trained)'
BASE = 'any("lora_" not in name for name in trained)'
LABELS = 'all(label == -100 for label in row.get("labels", []))'
WHAT_IS_MISSING = Exercise(12, what_is_missing, "★★ Spot the bug: QLoRA without LoRA · 5 min", """
A script for OPT-6.7B loads it in four bits, writes a `LoraConfig`, and passes the *model* to the trainer: nobody called
`get_peft_model`. Its rows have `input_ids` and no `labels`. With luck there is an error
([unsloth#241](https://github.com/unslothai/unsloth/issues/241): "maybe you forgot to call FastLanguage.get_peft_model";
[transformers#34392](https://github.com/huggingface/transformers/issues/34392): "you need to provide `labels`"). In a
training loop of one's own there is none, and a look like this one is content:

```python
def what_is_missing(model, row):
    return [] if any(weight.requires_grad for weight in model.parameters()) else ["adapter"]
```

Norms and embeddings are not in four bits: they are trained, unless frozen. Return what is missing, in this order:
`"adapter"` if no weight of an adapter is trained (their names hold `lora_`), `"frozen base"` if any other weight is,
`"labels"` if the row has no label to learn: no `"labels"`, or only -100.
""",
    cases=((_model(False, True), ROW),
           Case((_model(True, None), ROW), about="no adapter, and everything is trained"),
           Case((_model(False, None), ROW), about="no adapter, and nothing is trained"),
           Case((_model(False, True), {"input_ids": [5, 6, 2, 0], "labels": [-100, 6, 2, -100]}),
                about="a row with padding behind its answer"),
           Case((_model(False, True), {"input_ids": [5, 6, 2]}), about="a row without labels"),
           Case((_model(False, True), {"input_ids": [5, 6], "labels": [-100, -100]}), about="labels that are all -100"),
           Case((_model(False, False), ROW), about="an adapter that is frozen too"),
           Case((_model(True, True), ROW), about="an adapter beside a base that is trained"),
           Case((_model(False, True, norm=True), ROW), about="a base of which only the norm is trained"),
           Case((_biased(), ROW), about="a base of which only a bias is trained"),
           Case((_model(True, None), {"input_ids": [5]}), about="nothing as it should be")),
    draw=_drawn,
    hints=("`model.named_parameters()` gives names and weights; of each, `requires_grad` says whether it is trained.",
           "Make the list of names that are trained. Is one with `lora_` among them? Is one without?",
           "`row.get(\"labels\", [])` is [] where there are none, and `all` of nothing is True."),
    mistakes=(
        Mistake("Something is trained, but not an adapter: norms and embeddings will do for that. And a row may lack "
                "its labels.", None),
        Mistake("A frozen adapter learns nothing: ask whether it is trained, not whether it is there.",
                (ADAPTER, 'not any("lora_" in name for name, _ in model.named_parameters())')),
        Mistake("That anything at all is trained does not mean that an adapter is.", (ADAPTER, "not trained")),
        Mistake("Beside the adapter a part of the base is trained: look at every weight that is not an adapter's.",
                (BASE, 'trained and all("lora_" not in name for name in trained)'),
                (BASE, 'any("base_layer" in name for name in trained)'),
                (BASE, 'all(p.requires_grad for name, p in model.named_parameters() if "lora_" not in name)')),
        Mistake("An adapter has two matrices, lora_A and lora_B: both belong to it.",
                (BASE, 'any("lora_A" not in name for name in trained)')),
        Mistake("Labels that are all -100 teach as little as none.",
                (LABELS, 'not row.get("labels")'), (LABELS, '"labels" not in row')),
        Mistake("Only the last label was looked at: padding behind an answer has -100, and that is no fault.",
                (LABELS, 'row.get("labels", [-100])[-1] == -100'),
                (LABELS, '"labels" in row and row["labels"][-1] == -100')),
        Mistake("A weight's name begins with its layer's; `lora_` stands further back in it.",
                ('"lora_" in name', 'name.startswith("lora_")', '"lora_" not in name',
                 'not name.startswith("lora_")')),
        Mistake("One -100 is no fault: prompts have it. Missing are labels only where nothing else is there.",
                (LABELS, 'any(label == -100 for label in row.get("labels", [-100]))')),
        Mistake("A row without `labels` went through: no label at all is none to learn from.",
                (LABELS, '"labels" in row and all(label == -100 for label in row["labels"])')),
        Mistake("Only the first thing that is missing is named: several may be.",
                ("return missing", "return missing[:1]")),
        Mistake("The order is adapter, frozen base, labels.", ("return missing", "return missing[::-1]")),
        Mistake("That is the list of what is in order.",
                (ADAPTER, 'any("lora_" in name for name in trained)', BASE,
                 'all("lora_" in name for name in trained)', LABELS,
                 'any(label != -100 for label in row.get("labels", []))')),
    ),
    moral="`model.print_trainable_parameters()` and one look at a batch's labels take a second.")
