"""Lesson 11's own cells, run as a script on Llama-2's layout with what lesson 10 would have left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import standins
from notebook_tools import source
from safetensors.torch import load_file

from helpers.finale.checkpoints import open_run

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "11_merge_evaluate_share.ipynb"
KEY = "hf_" + "notarealone" * 3
FILES = "in_memory = False\nmerge_shards = told(merge_shards)"
TOLD = "def told(call):\n    return lambda *given: (print('from file to file:', *given[4:]), call(*given))[1]\n"


def script(until: str = "Exercises", files: bool = False) -> str:
    """The code cells before the markdown heading `until`, as a program; files: memory is short, each merge is told."""
    cells = source.program(NOTEBOOK, until)
    if files:
        at = next(n for n, cell in enumerate(cells) if cell.startswith("in_memory ="))
        cells.insert(at + 1, TOLD + FILES)
    return "\n".join(cells)


def finish_lesson_10(runs: Path, model: Path) -> Path:
    """The folder of a run that lesson 10 finished: an adapter of random A and B, and the recipe."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lora = LoraConfig(r=64, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), lora)
    run = open_run(runs / "10-llama-2-7b", {
        "model": str(model), "revision": None, "data": None, "learning_rate": 2e-4, "max_steps": -1,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 16})
    (run.folder / "checkpoint-7").mkdir()
    (run.folder / "checkpoint-7" / "trainer_state.json").write_text("{}")
    tuned.save_pretrained(run.adapter)
    return run.folder


def environment(folder: Path, checkpoint: Path, rows: Path) -> dict[str, str]:
    return {**os.environ, "COURSE_RUNS": str(folder / "runs"), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg",
            "HF_DATASETS_CACHE": str(folder / "datasets"), "COURSE_TIER": "llama-2-7b", "HF_TOKEN": KEY,
            "COURSE_MODEL": str(checkpoint), "COURSE_DATASET": str(rows)}


def run(code: str, folder: Path, settings: dict[str, str]) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env=settings, cwd=folder, text=True, capture_output=True,
                          timeout=280)


@pytest.fixture(scope="module")
def done(tmp_path_factory, checkpoint) -> tuple[Path, str, str]:
    """The folder in which it ran, its output, and what it wrote to stderr; the rows are messages, memory is short."""
    folder = tmp_path_factory.mktemp("lesson")
    rows = folder / "mine.jsonl"
    rows.write_text("\n".join(json.dumps({"messages": [
        {"role": "system", "content": "Be short."}, {"role": "user", "content": f"What is {n} and {n}?"},
        {"role": "assistant", "content": f"It is {2 * n}."}]}) for n in range(60)))
    finish_lesson_10(folder / "runs", checkpoint)
    ran = run(script(files=True) + "\nprint('SPLIT', [m[1]['content'] for m in held_out_set])", folder,
              environment(folder, checkpoint, rows))
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, ran.stdout, ran.stderr


def test_the_same_cells_merge_a_checkpoint_in_llama_2s_layout(done):
    _, out, _ = done
    for fact in ("rounded to 16 bits: equal to 100% of the merge's weights", "the merged file: 2.0 bytes a weight",
                 "base: a folder of this disk", "base: a local model", "the template came along: ",
                 "notes.txt holds what looks like a token", "Dry run: ", "Nothing was sent."):
        assert fact in out
    for same in (r"the 4-bit merge: ([\d,]+) of ([\d,]+) bytes of codes are PEFT's and bitsandbytes'",
                 r"logits that are equal, bit for bit: ([\d,]+) of ([\d,]+)"):
        equal, total = re.search(same, out).groups()
        assert equal == total


def test_short_of_memory_it_merges_from_file_to_file(done):
    folder, out, _ = done
    told = [line for line in out.splitlines() if line.startswith("from file to file:")]
    assert sorted(told)[-1].endswith("True") and len(told) == 5  # two judged, two compared with, one kept
    assert not (folder / "runs" / "11-llama-2-7b" / "merging").exists()


def test_the_held_out_rows_are_lesson_10s(done):
    from helpers.finale.conversations import split, to_conversations
    from helpers.finale.rows import read

    folder, out, _ = done
    (line,) = [line for line in out.splitlines() if line.startswith("SPLIT ")]
    assert line == f"SPLIT {[m[1]['content'] for m in split(to_conversations(read(folder / 'mine.jsonl')))[1]]}"


def test_nothing_is_counted_that_nobody_knows(done):
    folder, out, _ = done
    card = (folder / "runs" / "11-llama-2-7b" / "outbox" / "README.md").read_text()
    assert "answers that stop" in out and "exact" not in card
    assert "| route | loss | answers that stop |" in card and "Whether its answers are right was not checked" in card


def test_what_would_be_published_is_whole_and_names_nothing_private(done, checkpoint):
    folder, _, _ = done
    outbox = folder / "runs" / "11-llama-2-7b" / "outbox"
    settings = json.loads((outbox / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "a local model" and settings["revision"] is None
    assert len(load_file(outbox / "adapter_model.safetensors")) == 2 * 7 * 2
    card = (outbox / "README.md").read_text()
    assert "base_model:" not in card and "datasets:" not in card and standins.LLAMA not in card
    assert "license: other" in card  # what the folder's own README.md says
    assert "Data: local rows; 57 rows" in card and "r 64, α 16, 7 steps of 16 rows, learning rate 0.0002" in card
    assert re.search(r"\| original \| \d\.?\d* ?", card)
    for file in outbox.iterdir():
        for private in (folder, checkpoint):
            assert str(private).encode() not in file.read_bytes(), f"{file.name} names a folder of this machine"
    assert not list(outbox.rglob("*.bin")) and (outbox / "chat_template.jinja").is_file()


def test_the_token_is_shown_and_written_nowhere(done):
    folder, out, err = done
    assert KEY not in out + err
    for file in (folder / "runs").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()


def test_without_lesson_10s_adapter_it_stops_before_any_download(tmp_path, checkpoint, guanaco):
    ran = run(script("A base in two states"), tmp_path, environment(tmp_path, checkpoint, guanaco))
    assert ran.returncode != 0 and "no finished run of lesson 10" in ran.stderr
    assert "Remedy: run lesson 10 first" in ran.stderr


def test_bad_rows_of_ones_own_stop_it(tmp_path, checkpoint):
    rows = tmp_path / "mine.jsonl"
    rows.write_text('{"prompt": "Who?", "completion": "Me."}\n{"prompt": "Where?", "completion": ""}\n')
    finish_lesson_10(tmp_path / "runs", checkpoint)
    ran = run(script("A base in two states"), tmp_path, environment(tmp_path, checkpoint, rows))
    assert ran.returncode != 0 and "row 2: an answer is empty" in ran.stderr
