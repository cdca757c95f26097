"""The script that measures on a GPU, tried on a CPU with a model of two small layers."""

import json
import subprocess
import sys
from pathlib import Path

from helpers.finale import recorder

SCRIPT = Path(__file__).parent / "gpu" / "run.py"


def test_the_script_measures_compares_and_says_what_the_weights_are(tmp_path):
    command = [sys.executable, str(SCRIPT), "--tiny", "--checkpoint", str(tmp_path / "llama"), "--out",
               str(tmp_path / "out"), "--steps", "2", "--only", "kernels", "d8-512"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    record = recorder.read(tmp_path / "out" / "llama-2-7b-d8-512.json")
    assert record["model"]["weights"] == "random" and record["configuration"]["limit"] == 7.0
    assert [line["step"] for line in record["steps"]] == [1, 2] and record["tokens_per_second"] > 0
    assert "d8-512" in done.stdout and "tokens/s" in done.stdout
    found = json.loads((tmp_path / "out" / "kernels.json").read_text())
    assert all(value for name, value in found.items() if name.startswith(("codes", "absmax", "dequantized")))
    assert all(value < 1e-5 for name, value in found.items() if name.startswith("relative"))
    assert len(found) == 2 + 9 + 4


def test_a_job_that_fails_is_named(tmp_path):
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama" / "config.json").write_text("{}")
    command = [sys.executable, str(SCRIPT), "--checkpoint", str(tmp_path / "llama"), "--out", str(tmp_path / "out"),
               "--only", "a"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1 and "a FAILED, see a.log" in done.stdout
    assert "lacks num_hidden_layers" in (tmp_path / "out" / "a.log").read_text()
