"""Lesson 10's own cells, run as a script: on Llama-2's layout, from an offline hub cache, and killed in the middle."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import families
import standins
from notebook_tools import source
from safetensors.torch import load_file

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "10_fine_tuning_llama_2.ipynb"
TIER_CELL = "tier = choose_tier()"


def script(until: str, tier: dict, quick: bool = False) -> str:
    """The code cells before the markdown heading `until`, as one program, with some fields of the tier replaced.

    quick leaves out what the model says before the training: nothing later depends on it.
    """
    lines = []
    for cell in source.program(NOTEBOOK, until):
        lines.append(cell.replace(TIER_CELL, f"{TIER_CELL}\nimport dataclasses\n"
                                  f"tier = dataclasses.replace(tier, **{tier!r})"))
        if quick and "from helpers.pocket import evaluate" in cell:
            lines.append("chat.answers = lambda model, tokenizer, asked, most: [('', False)] * len(asked)\n"
                         "chat.held_out_loss = lambda model, rows: (1.0, 1)\n"
                         "evaluate.recall = evaluate.perplexity = lambda *given: 1.0")
    code = "\n".join(lines)
    assert "dataclasses.replace" in code
    return code


def same_logits(out: str) -> bool:
    """Whether all logits of the reloaded adapter equal the trained one's, by what the lesson printed."""
    equal, total = re.search(r"logits that are equal, bit for bit: ([\d,]+) of ([\d,]+)", out).groups()
    return equal == total


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "COURSE_RUNS": str(tmp_path / "runs"), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg",
            "HF_DATASETS_CACHE": str(tmp_path / "datasets"), **more}


def run(code: str, folder: Path, **more: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environment(folder, **more), cwd=folder, text=True,
                          capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_same_cells_train_a_checkpoint_in_llama_2s_layout(tmp_path, checkpoint, guanaco):
    out = run(script("Exercises", {"max_length": 64, "accumulation": 4, "save_steps": 2}), tmp_path,
              COURSE_TIER="llama-2-7b", COURSE_MODEL=str(checkpoint), COURSE_DATASET=str(guanaco))
    for fact in ("Preflight of the llama-2-7b tier: ready", "starting at step 0",
                 "rows teach to stop with <unk> for padding", "rows with two <s> in front: 0",
                 "labels that differ: 0 of", "trained outside of the adapter: 0", "rows that teach the question: 0",
                 "held-out questions that are trained on: 0", "by hand and by the libraries: less than",
                 "adapter off: perplexity 1.000 times"):
        assert fact in out
    assert same_logits(out)
    (folder,) = (tmp_path / "runs" / "10-llama-2-7b").iterdir()
    assert len(load_file(folder / "adapter" / "adapter_model.safetensors")) == 2 * 7 * 2  # A and B, 7 linears, 2 layers
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["r"] == 64


def test_the_same_cells_load_by_name_and_pinned_revision(tmp_path, checkpoint, guanaco):
    cache = tmp_path / "hub"
    standins.fill_hub_cache(cache, standins.LLAMA, standins.LLAMA_REVISION, checkpoint)
    standins.fill_hub_cache(cache, standins.GUANACO, standins.GUANACO_REVISION, guanaco, repo_type="dataset")
    out = run(script("Step 7", {}) + "\nprint(path, model.config.vocab_size, len(train_rows), report.dataset.revision)",
              tmp_path, COURSE_TIER="llama-2-7b", HF_HUB_CACHE=str(cache))
    assert out.splitlines()[-1].split() == [
        str(cache / "models--NousResearch--Llama-2-7b-hf" / "snapshots" / standins.LLAMA_REVISION), "32000", "20",
        standins.GUANACO_REVISION]
    assert "<s>[INST]" in out


def wait_for(process: subprocess.Popen, what: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not list(what.parent.glob(what.name)):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, f"{what} did not appear in {seconds} s"
        time.sleep(0.005)


def test_a_killed_run_ends_with_the_same_adapter(tmp_path):
    """Killed before its first checkpoint, while one is being written, and between two."""
    short = {"max_steps": 16, "save_steps": 4, "dropout": 0.05, "batch": 8}
    code = script("Prove it", short, quick=True)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert "starting at step 0" in run(code, whole, COURSE_TIER="pocket")
    folder = killed / "runs" / "10-pocket" / "run-001"
    settings = environment(killed, COURSE_TIER="pocket")
    for sign, patience in (("recipe.json", 0.0), ("checkpoint-8", 0.0), ("checkpoint-12", 0.2)):
        process = subprocess.Popen([sys.executable, "-c", code], env=settings, cwd=killed,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(process, folder / sign)
        time.sleep(patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (folder / "adapter").exists()
    out = run(code, killed, COURSE_TIER="pocket")
    assert "resuming" in out
    assert [path.name for path in folder.parent.iterdir()] == ["run-001"]
    first, second = (load_file(base / "runs" / "10-pocket" / "run-001" / "adapter" / "adapter_model.safetensors")
                     for base in (whole, killed))
    assert first.keys() == second.keys()
    assert all(bool((first[name] == second[name]).all()) for name in first)


def own_rows(path: Path, **changed: object) -> Path:
    """Fifty rows of messages with a system message; `changed` replaces fields of the seventh."""
    rows = [{"messages": [{"role": "system", "content": "Answer in one word."},
                          {"role": "user", "content": f"What is {n} and {n}?"},
                          {"role": "assistant", "content": str(2 * n)}]} for n in range(50)]
    rows[6] |= changed
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_own_rows_with_system_messages_train_for_a_lectures_few_steps(tmp_path):
    rows = own_rows(tmp_path / "mine.jsonl")
    out = run(script("Prove it", {"batch": 4}), tmp_path, COURSE_TIER="pocket", COURSE_DATASET=str(rows),
              COURSE_STEPS="2")
    assert "50 of 50 rows can be trained on" in out and "47 to train on, 3 held out" in out
    assert "rows that teach to stop: 100%" in out and "held-out loss" in out and "exact match" not in out
    (folder,) = (tmp_path / "runs" / "10-pocket").iterdir()
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((folder / "recipe.json").read_text())["max_steps"] == 2


def test_a_bad_row_of_ones_own_is_told_and_nothing_is_trained(tmp_path):
    rows = own_rows(tmp_path / "mine.jsonl", messages=[{"role": "user", "content": "Alone?"}])
    done = subprocess.run([sys.executable, "-c", script("Step 4", {})], cwd=tmp_path, text=True, capture_output=True,
                          env=environment(tmp_path, COURSE_TIER="pocket", COURSE_DATASET=str(rows)), timeout=120)
    assert done.returncode == 1 and "RowsError" in done.stderr and "row 7: has no answer" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_own_chat_model_of_another_family_trains_with_its_own_template(tmp_path):
    """Gemma's template refuses system messages; these rows have one."""
    model = families.write_family("gemma", tmp_path / "model")
    out = run(script("If it is interrupted", {"batch": 4}), tmp_path, COURSE_TIER="small", COURSE_MODEL=str(model),
              COURSE_DATASET=str(own_rows(tmp_path / "mine.jsonl")), COURSE_STEPS="2")
    assert "chat template: its own" in out and "an answer ends with: <end_of_turn>" in out
    assert "rows that teach to stop: 100%" in out and "by hand and by the libraries: less than" in out
