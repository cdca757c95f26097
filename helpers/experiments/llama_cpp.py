"""What llama.cpp answers from the GGUF files that `helpers.finale.gguf_file` writes, beside transformers' answers.

The pocket Llama, tuned and merged, is asked about villagers of whom it saw no question, SmolLM2 what users might ask.
Both programs get the same text and read the same file, in float16 and in Q8_0; both answer greedily. llama.cpp comes as
the package `xllamacpp`, which the course does not need otherwise: pip install xllamacpp, then
`python -m helpers.experiments llama_cpp`. It takes some minutes.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import experiments
from helpers.experiments import laptop as sweeps
from helpers.finale import chat, gguf_file, laptop
from helpers.pocket import evaluate, load_pocket, world

NAME, KINDS, TOKENS = "llama_cpp", ("F16", "Q8_0"), 32
ASKED = ("What is the capital of France?", "Name three colours.", "Why is the sky blue?", "What do bees make?",
         "Write a sentence about the sea.", "How many days has a week?", "What is a prime number?",
         "Give me a tip for better sleep.", "Who wrote Hamlet?", "Translate 'good morning' into Spanish.",
         "What is photosynthesis?", "Is a tomato a fruit?")


@dataclass(frozen=True)
class Ground:
    """A model, its tokenizer, the texts that it goes on from, the tokens that end an answer, and `pre` of a GGUF."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: Sequence[str]
    stop: Sequence[int]
    pre: str | None = None


def pocket() -> Ground:
    """The tuned pocket Llama, one question to each of 24 villagers whom its training rows do not name."""
    model, tokenizer = load_pocket(tuned=True)
    people = world.make_world().held_out[:24]
    rows = [world.questions([person], seed=1)[n % 4] for n, person in enumerate(people)]
    return Ground(model.merge_and_unload(), tokenizer, [world.instruct(row["prompt"]) for row in rows],
                  [tokenizer.eos_token_id])


def smollm2() -> Ground:
    """SmolLM2 in float32, and ASKED in its template."""
    model, tokenizer = sweeps.load()
    prompts = [tokenizer.decode(chat.prompt_ids(tokenizer, [{"role": "user", "content": text}])) for text in ASKED]
    return Ground(model, tokenizer, prompts, chat.stop_ids(tokenizer, model.generation_config), "smollm")


GROUNDS = {"pocket Llama": pocket, "SmolLM2": smollm2}


def by_transformers(path: Path, ground: Ground) -> list[str]:
    """What transformers answers from a GGUF."""
    ids = [ground.tokenizer(prompt, add_special_tokens=not ground.pre)["input_ids"] for prompt in ground.prompts]
    return [text for text, _ in evaluate.write_on(gguf_file.read(path), ground.tokenizer, ids, ground.stop, TOKENS)]


def by_llama_cpp(path: Path, ground: Ground) -> list[str]:
    """What llama.cpp answers from a GGUF: it cuts the text into tokens by what stands in the file."""
    package = importlib.import_module("xllamacpp")
    params = package.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.sampling.temp = str(path), 256, 1, 0.0
    server = package.Server(params)
    return [server.handle_completions({"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "top_k": 1})
            ["choices"][0]["text"].strip() for prompt in ground.prompts]


def same(record: dict, model: str, kind: str) -> tuple[int, int]:
    """To how many questions the two gave the same answer, of how many. Raises ValueError for what was not asked."""
    found = [p["transformers"] == p["llama.cpp"] for p in record["points"] if (p["case"], p["kind"]) == (model, kind)]
    if not found:
        raise ValueError(f"no answers of {model!r} in {kind!r} in the record")
    return sum(found), len(found)


def run(report: Callable[[str], None] = print) -> None:
    """Ask what the record lacks. Raises HubError without SmolLM2, ModuleNotFoundError without xllamacpp."""
    record = experiments.read(NAME)
    known = {(point["case"], point["kind"]) for point in record["points"]}
    for name, load in GROUNDS.items():
        missing = [kind for kind in KINDS if (name, kind) not in known]
        if not missing:
            continue
        ground = load()
        with tempfile.TemporaryDirectory() as folder:
            for kind in missing:
                path = gguf_file.write(ground.model, ground.tokenizer, Path(folder) / f"{kind}.gguf", kind,
                                       pre=ground.pre)
                rows = zip(ground.prompts, by_transformers(path, ground), by_llama_cpp(path, ground), strict=True)
                record["points"] += [{"case": name, "kind": kind, "prompt": prompt, "transformers": theirs,
                                      "llama.cpp": its} for prompt, theirs, its in rows]
                record["origin"] = f"{laptop.MODEL}, {laptop.source().revision}"
                record["made_with"] = {package: importlib.metadata.version(package)
                                       for package in ("torch", "transformers", "gguf", "xllamacpp")}
                experiments.write(NAME, record)
                report(f"{name}, {kind}: {same(record, name, kind)}")
