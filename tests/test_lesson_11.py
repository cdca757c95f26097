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

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "11_merge_evaluate_share.ipynb"
KEY = "hf_" + "notarealone" * 3


def script(until: str = "Exercises") -> str:
    """The code cells before the markdown heading `until`, as one program."""
    return "\n".join(source.program(NOTEBOOK, until))


@pytest.fixture(scope="module")
def done(tmp_path_factory, checkpoint) -> tuple[Path, str, str]:
    """The folder in which it ran, its output, and what it wrote to stderr."""
    folder = tmp_path_factory.mktemp("lesson")
    guanaco = standins.write_guanaco(folder / "guanaco", 40)
    settings = {**os.environ, "COURSE_RUNS": str(folder / "runs"), "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg",
                "HF_DATASETS_CACHE": str(folder / "datasets"), "COURSE_TIER": "llama-2-7b", "HF_TOKEN": KEY,
                "COURSE_MODEL": str(checkpoint), "COURSE_DATASET": str(guanaco)}
    ran = subprocess.run([sys.executable, "-c", script()], env=settings, cwd=folder, text=True, capture_output=True,
                         timeout=280)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, ran.stdout, ran.stderr


def test_the_same_cells_merge_a_checkpoint_in_llama_2s_layout(done):
    _, out, _ = done
    for fact in ("codes of the 4-bit merge equal PEFT's and bitsandbytes': True",
                 "dequant(W) + ΔW equals PEFT's merge: True", "reloaded logits are equal, bit for bit: True",
                 "the merged file holds 2 bytes per weight: True", "names a folder of this machine: True",
                 "base: NousResearch/Llama-2-7b-hf", "notes.txt holds what looks like a token",
                 "Dry run: ", "Nothing was sent."):
        assert fact in out


def test_what_would_be_published_is_whole_and_names_nothing_private(done, checkpoint):
    folder, _, _ = done
    outbox = folder / "runs" / "11-llama-2-7b" / "outbox"
    settings = json.loads((outbox / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == standins.LLAMA and settings["revision"] == standins.LLAMA_REVISION
    assert len(load_file(outbox / "adapter_model.safetensors")) == 2 * 7 * 2
    card = (outbox / "README.md").read_text()
    assert f"base_model: {standins.LLAMA}" in card and re.search(r"\| original \| \d\.?\d* ?", card)
    for file in outbox.iterdir():
        for private in (folder, checkpoint):
            assert str(private).encode() not in file.read_bytes(), f"{file.name} names a folder of this machine"
    assert not list(outbox.rglob("*.bin"))


def test_the_token_is_shown_and_written_nowhere(done):
    folder, out, err = done
    assert KEY not in out + err
    for file in (folder / "runs").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes()
