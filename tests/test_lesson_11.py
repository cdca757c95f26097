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

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
TEN, ELEVEN = NOTEBOOKS / "10_fine_tuning_llama_2.ipynb", NOTEBOOKS / "11_merge_evaluate_share.ipynb"
KEY = "hf_" + "notarealone" * 3


def run(notebook: Path, until: str, settings: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    """The code cells of a lesson before the markdown heading `until`, as one program."""
    code = "\n".join(source.program(notebook, until))
    return subprocess.run([sys.executable, "-c", code], env=settings, cwd=folder, text=True, capture_output=True,
                          timeout=280)


@pytest.fixture(scope="module")
def done(tmp_path_factory, checkpoint) -> tuple[Path, str, str]:
    """The folder in which it ran, its output, and what it wrote to stderr."""
    folder = tmp_path_factory.mktemp("lesson")
    guanaco = standins.write_guanaco(folder / "guanaco", 40)
    settings = {**os.environ, "COURSE_RUNS": str(folder / "runs"), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg",
                "HF_DATASETS_CACHE": str(folder / "datasets"), "COURSE_TIER": "llama-2-7b", "HF_TOKEN": KEY,
                "COURSE_MODEL": str(checkpoint), "COURSE_DATASET": str(guanaco), "COURSE_STEPS": "3"}
    early = run(ELEVEN, "One weight", settings, folder)
    assert early.returncode == 1 and "run lesson 10 first" in early.stderr  # and nothing was trained in its place
    ten = run(TEN, "Prove it", settings, folder)
    assert ten.returncode == 0, ten.stderr[-3000:]
    ran = run(ELEVEN, "Exercises", settings, folder)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, ran.stdout, ran.stderr


def test_the_same_cells_merge_a_checkpoint_in_llama_2s_layout(done):
    _, out, _ = done
    for fact in ("codes of the 4-bit merge equal PEFT's and bitsandbytes': True",
                 "dequant(W) + ΔW, rounded to 16 bits: 100% of the merge's weights",
                 "reloaded logits are equal, bit for bit: True",
                 "the merged file: 2.0 bytes a weight", "names a folder of this machine: True",
                 "base: a local model", "licence of the base: ",
                 "notes.txt holds what looks like a token",
                 "Dry run: ", "Nothing was sent."):
        assert fact in out


def test_what_would_be_published_is_whole_and_names_nothing_private(done, checkpoint):
    folder, _, _ = done
    outbox = folder / "runs" / "11-llama-2-7b" / "outbox"
    settings = json.loads((outbox / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "a local model" and settings["revision"] is None
    assert len(load_file(outbox / "adapter_model.safetensors")) == 2 * 7 * 2
    card = (outbox / "README.md").read_text()
    assert "base_model:" not in card and standins.LLAMA not in card and "local rows" in card  # nothing made up
    assert re.search(r"\| original \| \d\.?\d* ?", card) and "answers that stop" in card and "exact match" not in card
    assert (outbox / "chat_template.jinja").is_file()
    for file in outbox.iterdir():
        for private in (folder, checkpoint):
            assert str(private).encode() not in file.read_bytes(), f"{file.name} names a folder of this machine"
    assert not list(outbox.rglob("*.bin"))


def test_the_token_is_shown_and_written_nowhere(done):
    folder, out, err = done
    assert KEY not in out + err
    for file in (folder / "runs").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
