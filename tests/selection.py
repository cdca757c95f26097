"""Which tests `make quick` runs, and in which order the files start."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Files of more than about eight seconds, longest first: they start in this order, so that two processes end together,
# and `make quick` leaves out those that nobody changed. `pytest --durations=40` shows what belongs here.
SLOW = (
    "tests/test_lesson_10.py",
    "notebooks/10_fine_tuning_llama_2.ipynb",
    "notebooks/13_faster_longer_bigger.ipynb",
    "notebooks/12_three_ways_to_tune.ipynb",
    "notebooks/07_how_low_is_low_rank.ipynb",
    "notebooks/08_the_peft_family.ipynb",
    "notebooks/09_qlora_from_scratch.ipynb",
    "tests/test_pocket.py",
    "tests/test_parallel.py",
    "tests/test_gpu_script.py",
    "tests/test_laptop.py",  # unpacks SmolLM2, for the others below; meanwhile the other process is busy elsewhere
    "tests/test_browser.py",
    "tests/test_site.py",
    "notebooks/11_merge_evaluate_share.ipynb",
    "notebooks/14_four_bits_after_nf4.ipynb",
    "notebooks/15_your_own_fine_tune.ipynb",
    "notebooks/06_lora_from_scratch.ipynb",
    "notebooks/05_double_quantization.ipynb",
    "notebooks/04_nf4.ipynb",
    "notebooks/03_block_quantization.ipynb",
    "notebooks/02_absmax_quantization.ipynb",
    "notebooks/01_float_formats.ipynb",
    "notebooks/00_start_here.ipynb",
    "tests/test_slides.py",
    "tests/test_lesson_11.py",
    "tests/test_lesson_15.py",
    "tests/test_make.py",
    "tests/test_editions.py",
    "tests/test_notebook_tools.py",
    "tests/test_experiments.py",
    "tests/test_tuning.py",
    "tests/test_preferences.py",
    "tests/test_levers.py",
    "tests/test_laptop_ladders.py",
    "tests/test_laptop_records.py",
    "tests/test_laptop_tuning.py",
    "tests/test_domain.py",
    "tests/test_floats.py",
    "tests/test_exercises.py",
    "tests/test_corpus.py",
)

# What measures long records again, or guards what changes seldom, by the beginning of its node id: `make test WEEKLY=1`
# and the hosted tests of every Monday run it, and whoever names its file. So `make test` stays below 20 minutes.
WEEKLY = (
    "tests/test_gpu_script.py::test_the_whole_script", "tests/test_gpu_script.py::test_a_job_that_fails",
    "tests/test_laptop_ladders.py::test_first_steps_again", "tests/test_laptop_tuning.py::test_first_steps_again",
    "tests/test_editions.py::test_the_shortest_lesson", "tests/test_parallel.py::test_a_process_that_hangs",
    "tests/test_explorers_live_loss.py::test_strict_nbval", "tests/test_browser.py::test_in_lesson_00",
    "tests/test_lesson_10.py::test_a_killed_run",
    # what lesson 13's own cells do, and compare, in every run
    "tests/test_parallel.py::test_two_processes_are_one", "tests/test_parallel.py::test_a_killed_process_is_named",
    "tests/test_parallel.py::test_four_bit_layers_shard",
)


def weekly(nodeid: str, named: Iterable[str]) -> bool:
    """Whether a test is left to the weekly run: not if its file, or it, is among the arguments of pytest."""
    file = nodeid.split("::")[0]
    return nodeid.startswith(WEEKLY) and not any(file in name for name in named)


def changed() -> set[str]:
    """The files that differ from where this branch left main, committed or not, and new ones; empty without git."""
    base = next(filter(None, (_git("merge-base", "HEAD", main) for main in ("origin/main", "main"))), ["HEAD"])[0]
    return {*_git("diff", "--name-only", base), *_git("ls-files", "--others", "--exclude-standard")}


def left_out(name: str, changes: Iterable[str]) -> bool:
    """Whether `make quick` leaves out a file: unchanged notebooks, and slow tests of unchanged modules.

    A test file belongs to the module of its name: test_hub.py to helpers/finale/hub.py.
    """
    if name in changes or not (name.endswith(".ipynb") or name in SLOW):
        return False
    subject = Path(name).stem.removeprefix("test_")
    return subject not in {subject for change in changes for subject in _subjects(change)}


def lessons(changes: Iterable[str]) -> set[int] | None:
    """The lessons whose exercises changed; None where a change concerns all exercises, or none does."""
    changed = [change for change in changes if _subjects(change) == {"corpus", "exercises"}
               and change != "tests/corpus/judged.json"]  # which goes with the answers that were judged
    found = [re.match(r"(?:helpers/exercises|tests/corpus)/lesson_(\d\d)(?:/|\.py$)", change) for change in changed]
    return {int(match[1]) for match in found} if found and all(found) else None


def rank(name: str) -> int:
    """Where a file stands in the order."""
    return SLOW.index(name) if name in SLOW else len(SLOW)


def _subjects(change: str) -> set[str]:
    """helpers/pocket/train.py → pocket, train, pocket_train. The corpus belongs to all exercises."""
    path = Path(change)
    if path.parts[:2] in (("tests", "corpus"), ("helpers", "exercises")):
        return {"corpus", "exercises"}
    if path.parts[0] != "helpers" or path.suffix != ".py":
        return set()
    parts = path.with_suffix("").parts[1:]
    return {*parts, "_".join(parts)}


def _git(*arguments: str) -> list[str]:
    """The lines that git prints; none where it fails."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
