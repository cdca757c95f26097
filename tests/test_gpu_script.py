"""The script that measures on a GPU, tried on a CPU with a model of two small layers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import standins
import torch

from helpers.finale import recorder

SCRIPT = Path(__file__).parent / "gpu" / "run.py"
sys.path.append(str(SCRIPT.parent))
import setups  # noqa: E402


def test_the_whole_script_measures_compares_and_says_what_the_weights_are(tmp_path):
    """Every job: the kernels, every setup, both lessons. One process for all but the lessons."""
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--tiny", "--checkpoint", str(tmp_path / "llama"), "--out", str(out),
               "--steps", "2", "--rows", "18"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in setups.SETUPS.keys() - {"cpu-random"}:
        record = recorder.read(out / f"llama-2-7b-{name}.json")
        assert record["model"]["weights"] == "random" and record["configuration"]["limit"] == setups.SETUPS[name].limit
        assert [line["step"] for line in record["steps"]] == [1, 2] and record["tokens_per_second"] > 0
        assert f"\n{name} " in done.stdout and f"--only {name} --steps 2" in record["configuration"]["command"]
    assert recorder.read(out / "llama-2-7b-lesson10.json")["configuration"]["rows"] == 1000
    assert not (out / "llama-2-7b-lesson11.json").exists(), "lesson 11 takes no record: this would be lesson 10's"
    assert "Dry run" in (out / "lesson11.log").read_text() and "3 times a's tokens/s" in done.stdout
    found = json.loads((out / "kernels.json").read_text())
    assert all(value for name, value in found.items() if name.startswith(("codes", "absmax", "dequantized")))
    assert all(value < 1e-5 for name, value in found.items() if name.startswith("relative"))
    assert len(found) == 2 + 9 + 4


def test_what_was_asked_is_read_off_the_figures():
    def measured(speed, memory):
        return SimpleNamespace(speed=speed, memory=memory * 2**30)

    found = {"a": measured(100, 8), "b": measured(900, 1), "c": measured(299, 8), "c1": measured(310, 8),
             "c2": measured(900, 8.1), "d8-512": measured(1, 7), "d8-1024": measured(1, 7.2), "d16-512": measured(1, 5)}
    assert setups.verdict(found) == ["3 times a's tokens/s in no more than its memory: c1 (3.1 times)",
                                     "on a card of 8 GB: d8-512"]
    assert setups.verdict({"a": found["a"], "c": found["c"]})[0].endswith("none") and setups.verdict({}) == []


def test_a_large_gpu_plays_a_small_one(monkeypatch):
    said, gib = [], 2**30
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (70 * gib, 80 * gib))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: 3 * gib)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", said.append)
    setups.limit_memory(100)
    assert said == [] and torch.cuda.mem_get_info() == (70 * gib, 80 * gib)
    setups.limit_memory(16)
    assert said == [0.2] and torch.cuda.mem_get_info() == (13 * gib, 16 * gib)


def test_rows_as_long_as_chats():
    lengths = sorted(len(row["text"]) for row in standins.guanaco_rows(60, characters=1600))
    assert 1300 < lengths[30] < 2200 and lengths[5] < 1000 and lengths[-5] > 3000
    assert max(len(row["text"]) for row in standins.guanaco_rows(60)) < 250


def test_a_job_that_fails_is_named(tmp_path):
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text("{}")
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path / "llama"), "--out", str(tmp_path / "out"),
               "--only", "a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1 and "a FAILED, see a.log" in done.stdout
    assert "lacks num_hidden_layers" in (tmp_path / "out" / "a.log").read_text()
