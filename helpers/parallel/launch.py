"""Starting a script in several processes from a notebook or a test, and saying plainly how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
QUIET = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
         "--num_cpu_threads_per_process", "1")
FAILED = re.compile(r"rank\s*: (\d+) \(local_rank: \d+\)\s+\S*\s*exitcode\s*: (-?\d+)")


@dataclass(frozen=True)
class Run:
    """A run that came to its end: what its processes printed, and the seconds that it took."""

    text: str
    seconds: float


class ProcessDied(RuntimeError):
    """A process of a run ended badly, and the others were stopped.

    rank and code: which, and its exit code (-9: killed by signal 9), None where that could not be read. log: all that
    was written to stderr. waited: seconds from a kill that was asked for to this error.
    """

    def __init__(self, message: str, rank: int | None, code: int | None, log: str, waited: float) -> None:
        super().__init__(message)
        self.rank, self.code, self.log, self.waited = rank, code, log, waited


def command(module: str, *arguments: object, processes: int = 2, config: Path | None = None) -> list[str]:
    """The command that starts a module of this course, `helpers.parallel.train`, in so many processes.

    One process needs no launcher. config: a file for `accelerate launch --config_file`, in place of the number.
    """
    script = ["-m", module, *map(str, arguments)]
    if processes == 1 and not config:
        return [sys.executable, *script]
    how = ("--config_file", str(config)) if config else ("--multi_gpu", "--num_processes", str(processes), *QUIET)
    return [sys.executable, "-m", "accelerate.commands.launch", *how, *script]


def launch(module: str, *arguments: object, processes: int = 2, cpu: bool = True, timeout: float = 120,
           config: Path | None = None, kill: tuple[int, str] | None = None) -> Run:
    """Run `command` to its end. Nothing of it is left running, however it ends.

    cpu: on CPUs, one thread each, by gloo; else on GPUs. kill: (rank, words): kill that process when a line with these
    words is printed. Raises ProcessDied where a process fails, TimeoutError after `timeout` seconds.
    """
    begun = killed = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command(module, *arguments, processes=processes, config=config),
                                   env=_environment(cpu), stdout=subprocess.PIPE, stderr=errors, text=True)
        expired = threading.Event()
        late = threading.Timer(timeout, lambda: (expired.set(), _stop(process)))
        late.start()
        lines, victim = [], None
        try:
            for line in process.stdout:
                lines.append(line)
                if kill and not victim:  # found beforehand: the kill itself shall take no time
                    victim = _of_rank(process, kill[0])
                if kill and kill[1] in line:
                    victim.kill()
                    kill, killed = None, time.monotonic()
            process.wait()
        finally:
            late.cancel()
            _stop(process)
        errors.seek(0)
        log = errors.read().decode(errors="replace")
    now = time.monotonic()
    if expired.is_set():
        raise TimeoutError(f"{module} was stopped after {timeout:g} s.\n{_last(log)}")
    if process.returncode:
        who, rank, code = _first(log)
        raise ProcessDied(f"{who}; the others were stopped.\n{_last(log)}", rank, code, log, now - killed)
    return Run("".join(lines), now - begun)


def _environment(cpu: bool) -> dict[str, str]:
    """What the processes find: one thread each, this course's code, no progress bars."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1",
            "TOKENIZERS_PARALLELISM": "false", **({"ACCELERATE_USE_CPU": "true"} if cpu else {}),
            **({"USE_LIBUV": "0"} if sys.platform == "win32" else {})}  # torch for Windows is built without it


def _first(log: str) -> tuple[str, int | None, int | None]:
    """Who failed first, in words, as rank and as exit code: torchrun also lists those that it stopped itself.

    Where a process lost its connection to another, it is the other that counts, though it may be noticed later.
    """
    others, _, cause = log.partition("Root Cause")
    failed = [(int(rank), int(code)) for rank, code in FAILED.findall(cause) + FAILED.findall(others)]
    if not failed:
        return "The run failed", None, None
    killed = [found for found in failed if found[1] < 0 and found[1] != -signal.SIGTERM]
    rank, code = killed[0] if killed and "by peer" in log else failed[0]
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"Process {rank} {how}", rank, code


def _last(log: str, count: int = 2) -> str:
    """The last errors that the processes wrote, or the last lines."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [line for line in lines if re.search(r"(Error|Exception)\b.*: ", line) and "ChildFailed" not in line]
    return "\n".join((said or lines)[-count:])


def _of_rank(process: subprocess.Popen, rank: int) -> psutil.Process:
    """The process of that rank among the launcher's children."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.environ().get("RANK") == str(rank):
            return child
    raise ValueError(f"no process of rank {rank} is running")


def _stop(process: subprocess.Popen) -> None:
    """End the launcher and everything that it started."""
    try:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
