"""Two real processes on CPUs: equal to one with all the rows; killed, named and resumed; sharded in four bits."""

import json
import subprocess
import sys

import psutil
import pytest
from safetensors.torch import load_file

from helpers.parallel import CONFIGS, launch
from helpers.parallel.launch import ProcessDied, command

TRAIN = "helpers.parallel.train"


def largest_difference(one, other):
    """Between two folders' last checkpoints, adapters only."""
    one, other = (load_file(max(folder.glob("step-*.safetensors"))) for folder in (one, other))
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one if not name.startswith("exp_"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def two(folder):
    """A run of two processes, started by the file for two CPUs."""
    run = launch.launch(TRAIN, folder / "two", "--steps", 8, config=CONFIGS / "two_cpus.yaml")
    assert run.text.splitlines()[0] == "2 processes on cpu, from step 0"
    return folder / "two"


def test_two_processes_are_one_with_all_the_rows(folder, two):
    launch.launch(TRAIN, folder / "one", "--steps", 8, processes=1)
    launch.launch(TRAIN, folder / "means", "--steps", 8, "--mean-of-means")
    assert largest_difference(folder / "one", two) < 1e-6
    assert largest_difference(folder / "one", folder / "means") > 1e-3


def test_a_killed_process_is_named_and_the_run_resumes(folder, two):
    with pytest.raises(ProcessDied, match="Process 1 was killed by SIGKILL; the others were stopped") as died:
        launch.launch(TRAIN, folder / "killed", "--steps", 8, kill=(1, "step 5"))
    assert (died.value.rank, died.value.code) == (1, -9) and died.value.waited < 60
    assert [path.name for path in (folder / "killed").iterdir()] == ["step-00004.safetensors"]
    run = launch.launch(TRAIN, folder / "killed", "--steps", 8)
    assert run.text.splitlines()[:2] == ["2 processes on cpu, from step 4", "step 5"]
    assert largest_difference(folder / "killed", two) == 0


def test_a_process_that_hangs_is_not_waited_for_any_longer_than_asked(folder, monkeypatch):
    monkeypatch.setattr(psutil.Process, "kill", psutil.Process.suspend)
    with pytest.raises(ProcessDied, match="Process 0 ended with exit code 1; the others were stopped"):
        launch.launch(TRAIN, folder / "hung", "--patience", 6, kill=(1, "step 3"))


def test_four_bit_layers_shard():
    report = json.loads(launch.launch("helpers.parallel.shard").text)
    assert report["processes"] == 2 and report["logits differ by"] == 0 and report["gradients differ by"] < 1e-6
    for kind in ("codes", "adapters", "rest"):
        assert report["each"][kind] == report["whole"][kind] / 2
    assert report["each"]["scales"] == report["whole"]["scales"] > 0, "no parameters: every process keeps them all"
    assert report["gradients"]["all"] == report["gradients"]["adapters"] == 56


def test_accelerates_cpu_flag_starts_one_process_and_does_not_say_so(tmp_path):
    """Why `command` does not use it: accelerate#2741. If this fails, accelerate has learnt it: use it, and tell it."""
    (tmp_path / "count.py").write_text("import os\nprint('world', os.environ.get('WORLD_SIZE', 1))\n")
    done = subprocess.run([sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
                           str(tmp_path / "count.py")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout == "world 1\n" and "process" not in done.stderr.lower()


def test_an_exception_is_shown_with_its_process(tmp_path):
    (tmp_path / "fails.py").write_text("import os\nassert os.environ['RANK'] == '0', 'one is wrong'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(ProcessDied, match="Process 1 ended with exit code 1.*\n.*AssertionError: one is wrong"):
            launch.launch("fails")


def test_a_run_that_hangs_is_stopped_and_nothing_is_left(tmp_path):
    (tmp_path / "hangs.py").write_text(
        "import os, pathlib, time\npathlib.Path(os.environ['HERE'], os.environ['RANK']).write_text(str(os.getpid()))\n"
        "time.sleep(600)\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        patch.setenv("HERE", str(tmp_path))
        with pytest.raises(TimeoutError, match="hangs was stopped after 12 s"):
            launch.launch("hangs", timeout=12)
    for rank in "01":
        pid = int((tmp_path / rank).read_text())
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_the_command_is_accelerates_own():
    assert command("m", "a", 1, processes=1) == [sys.executable, "-m", "m", "a", "1"]
    several = command("m", processes=3)
    assert several[1:6] == ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "3"]
    assert several[-2:] == ["-m", "m"] and several[several.index("--main_process_port") + 1] == "0"
    assert command("m", config=CONFIGS / "x.yaml")[3:5] == ["--config_file", str(CONFIGS / "x.yaml")]


REPORT = """{}
Failures:
[1]:
  rank      : {} (local_rank: 0)
  exitcode  : {} (pid: 7)
Root Cause (first observed failure):
[0]:
  rank      : {} (local_rank: 1)
  exitcode  : {} (pid: 8)
"""


@pytest.mark.parametrize("said, others, cause, expected", [
    ("Connection closed by peer", (0, -15), (1, -9), ("Process 1 was killed by SIGKILL", 1, -9)),
    ("Connection reset by peer", (1, -9), (0, 1), ("Process 1 was killed by SIGKILL", 1, -9)),  # at the same time
    ("Timed out waiting", (1, -9), (0, 1), ("Process 0 ended with exit code 1", 0, 1)),  # killed by torchrun
    ("ValueError: x", (1, -15), (0, 1), ("Process 0 ended with exit code 1", 0, 1)),
])
def test_who_was_first(said, others, cause, expected):
    assert launch._first(REPORT.format(said, *others, *cause)) == expected
    assert launch._first("no module named x") == ("The run failed", None, None)
