"""Domain adaptation as the source documents have it, OPT-6.7B on wikitext-2; the same code on a CPU, on what ships.

    recipe = choose()                              # by this machine, or COURSE_DOMAIN=opt-6.7b
    folder = fetch(recipe)
    train_texts, held_out_texts = texts(recipe)

On a GPU of 8 GiB or more facebook/opt-6.7b in four bits (licence: for research only) reads wikitext-2-raw-v1. Elsewhere
the pocket Llama reads paragraphs of this course's own lessons, of which it knows as little as OPT of your files. The
weights of OPT-6.7B are published as pickles only: transformers reads them by `torch.load(weights_only=True)`, which
builds tensors and runs no code.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from helpers.finale.hub import find_token, hub_errors
from helpers.finale.machine import Machine, machine
from helpers.pocket import WEIGHTS
from helpers.pocket.evaluate import label_losses

# the rest of the repository are the same weights for TensorFlow and Flax
PICKLED = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json",
           "merges.txt", "pytorch_model*")
LESSONS = Path(__file__).resolve().parents[1] / "experiments"  # paragraphs of the lessons, kept for the records


@dataclass(frozen=True)
class Recipe:
    """One size of the run: `steps` optimizer steps of `batch` · `accumulation` blocks of `block` tokens.

    model: a hub id or a folder; dataset: a hub id, or None for the paragraphs that ship, `part` one of its
    configurations. revision and data_revision are commits. scored: blocks of held-out text that are scored.
    """

    name: str
    model: str
    revision: str | None
    dataset: str | None
    part: str | None
    data_revision: str | None
    block: int
    batch: int
    accumulation: int
    steps: int
    learning_rate: float
    r: int
    alpha: int
    checkpointing: bool
    optimizer: str
    scored: int


# opt-6.7b: rank and alpha of PEFT's own OPT-6.7B notebook, which adapts q and v only; here all linears, as QLoRA does.
# Its rate is QLoRA's for 7B; 400 blocks are a short run, for time. pocket: the best of 2e-3, 5e-3, 1e-2 and 2e-2 on the
# held-out blocks that are not scored, one seed each.
RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (
    Recipe("pocket", str(WEIGHTS), None, None, None, None, block=128, batch=8, accumulation=1, steps=60,
           learning_rate=1e-2, r=16, alpha=32, checkpointing=False, optimizer="adamw_torch", scored=48),
    Recipe("opt-6.7b", "facebook/opt-6.7b", "a45aa65bbeb77c1558bc99bedc6779195462dab0", "Salesforce/wikitext",
           "wikitext-2-raw-v1", "b08601e04326c79dfdd32d625aee71d232d685c3", block=512, batch=1, accumulation=4,
           steps=100, learning_rate=2e-4, r=16, alpha=32, checkpointing=True, optimizer="paged_adamw_8bit", scored=48),
)}


def choose(name: str | None = None, on: Machine | None = None) -> Recipe:
    """The recipe named, else the one in COURSE_DOMAIN, else by this machine's GPU. Raises ValueError for another name.

    8 GiB is arithmetic, not measured: 3.1 GiB of codes and scales, 0.4 of embeddings, adapters with gradients and
    optimizer states 0.4, a block's logits and their copy 0.3, activations and what the allocator leaves unused.
    """
    name = name or os.environ.get("COURSE_DOMAIN") or None
    if name is None:
        on = machine() if on is None else on
        name = "opt-6.7b" if on.gpu is not None and on.gpu_free >= 8 else "pocket"
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}: use one of {', '.join(RECIPES)} (argument or COURSE_DOMAIN)")
    return RECIPES[name]


def fetch(recipe: Recipe) -> Path:
    """The folder with the model's files; OPT-6.7B's 13.3 GB are downloaded the first time. Raises HubError."""
    if recipe.revision is None:
        return Path(recipe.model)
    return _snapshot(recipe.model, recipe.revision, PICKLED, "model")


def texts(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Documents to train on, and others to score on: articles of wikitext-2, or paragraphs of this course's lessons.

    Raises HubError where the data set can neither be found nor fetched.
    """
    if recipe.dataset is None:
        return tuple(path.read_text(encoding="utf-8").strip().split("\n\n")
                     for path in (LESSONS / "more_prose.md", LESSONS / "prose.md"))
    from pyarrow import parquet

    folder = _snapshot(recipe.dataset, recipe.data_revision, [f"{recipe.part}/*.parquet"], "dataset")
    return tuple(articles([line for file in sorted((folder / recipe.part).glob(f"{split}-*.parquet"))
                           for line in parquet.read_table(file).column("text").to_pylist()])
                 for split in ("train", "validation"))


def _snapshot(repo: str, revision: str | None, files: Sequence[str], repo_type: str) -> Path:
    from huggingface_hub import snapshot_download

    with hub_errors(repo):
        return Path(snapshot_download(repo, repo_type=repo_type, revision=revision, allow_patterns=list(files),
                                      token=find_token()))


def articles(lines: Sequence[str]) -> list[str]:
    """The lines of wikitext, joined to articles: each begins with its title, ` = Title = `, in a line of its own."""
    found: list[list[str]] = []
    for line in lines:
        if re.fullmatch(r" = [^=].* = \n", line) or not found:
            found.append([])
        found[-1].append(line)
    return [text for text in ("".join(part).strip() for part in found) if text]


def perplexity(model: PreTrainedModel, blocks: Sequence[Mapping[str, Sequence[int]]]) -> float:
    """exp(mean loss per token) of blocks with `input_ids` and `labels`. Raises ValueError for none."""
    if not blocks:
        raise ValueError("no blocks to score: the held-out text is shorter than one")
    losses, counts = label_losses(model, [row["input_ids"] for row in blocks], [row["labels"] for row in blocks])
    return math.exp(losses.sum().item() / counts.sum().item())
