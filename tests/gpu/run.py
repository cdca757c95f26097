"""Everything that needs a GPU, by one command: lessons 10 and 11 on Llama-2-7B's tier, the setups, the kernels.

    python tests/gpu/run.py --checkpoint /scratch/llama --out measured

The checkpoint is Llama-2-7B's, or is made there with random weights N(0, 0.02): then memory and speed are real, losses
mean nothing, and every record says so. Each job runs in a process of its own and writes into --out; one that fails is
reported and the rest goes on. The lessons see a GPU of 16 GB, however large it is (--card), and rows as long as chats.
`--tiny` takes a model of two small layers, to try the script where there is no GPU. One step on a CPU, which takes
minutes and 8 GB of memory, is left out unless asked for: `--only cpu-random --steps 1`.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "gpu")]

LESSONS = {"lesson10": "10_fine_tuning_llama_2", "lesson11": "11_merge_evaluate_share"}
CHARACTERS = 1600  # of a row in the middle, like a chat of guanaco-llama2-1k: 300 to 500 tokens
TINY = """import dataclasses
from helpers.finale import tiers
from helpers.pocket import evaluate
evaluate.DOCUMENTS = 8  # 32,000 logits a token, on a CPU
tiers.TIERS = {name: dataclasses.replace(tier, accumulation=2, max_length=64) for name, tier in tiers.TIERS.items()}
"""
RANDOM = "random-weights"  # the folder's file that marks a made-up checkpoint


def lesson(name: str, settings: argparse.Namespace) -> None:
    """A lesson's own cells on this checkpoint, as one program; the record of its newest run is copied to --out."""
    import standins
    from notebook_tools import source

    checkpoint, out = settings.checkpoint, settings.out
    data = standins.write_guanaco(out / "guanaco", settings.rows, characters=0 if settings.tiny else CHARACTERS)
    first, *cells = source.program(ROOT / "notebooks" / f"{LESSONS[name]}.ipynb", "Exercises")
    limits = f"import setups; setups.limit_memory({settings.card})" if settings.card else ""
    if settings.tiny:
        limits = TINY
    weights = "random" if (checkpoint / RANDOM).exists() else "pretrained"
    environment = {**os.environ, "COURSE_TIER": "llama-2-7b", "COURSE_MODEL": str(checkpoint),
                   "COURSE_WEIGHTS": weights, "COURSE_DATASET": str(data), "COURSE_RUNS": str(out / "runs"),
                   "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(sys.path[:3])}
    done = subprocess.run([sys.executable, "-c", "\n".join([first, limits, *cells])], env=environment, cwd=out,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}, see above")
    records = sorted((out / "runs").glob(f"{name.removeprefix('lesson')}-*/run-*/record.json"))
    if records:  # lesson 11 takes none
        (out / f"llama-2-7b-{name}.json").write_text(records[-1].read_text())


def job(name: str, settings: argparse.Namespace) -> None:
    """One job by name, in this process."""
    import helpers

    helpers.start()
    if name in LESSONS:
        return lesson(name, settings)
    import setups

    if name == "kernels":
        (settings.out / "kernels.json").write_text(json.dumps(setups.kernels(), indent=1) + "\n")
    else:
        weights = "random" if (settings.checkpoint / RANDOM).exists() else "pretrained"
        setup = setups.SETUPS[name]
        if settings.tiny:
            setup = dataclasses.replace(setup, length=64)
        setups.measure(setup, settings.checkpoint, settings.out, weights, settings.steps)


def run(name: str, settings: argparse.Namespace) -> bool:
    """Run a job into its log, in a process of its own (all in this one where they are tiny); whether it succeeded."""
    import setups

    with (settings.out / f"{name}.log").open("w") as log:
        if settings.tiny:
            try:
                with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                    job(name, settings)
            except Exception:
                traceback.print_exc(file=log)
                return False
            return True
        command = [sys.executable, __file__, "--checkpoint", str(settings.checkpoint), "--out", str(settings.out),
                   "--job", name, "--rows", str(settings.rows), "--steps", str(settings.steps),
                   "--card", str(settings.card)]
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if name in setups.SETUPS and setups.SETUPS[name].cpu else {}
        return subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **hidden}).returncode == 0


def table(out: Path) -> str:
    """What the records in `out` say, a line each, memory in GiB; below, what was asked of them."""
    import setups

    from helpers.finale import recorder

    lines = [f"{'':12}{'tokens/s':>10}{'peak':>8}{'reserved':>10}{'forecast':>10}{'off by':>8}{'load':>7}{'held':>7}"]
    found = {path.stem.removeprefix("llama-2-7b-"): setups.describe(recorder.read(path))
             for path in sorted(out.glob("llama-2-7b-*.json"))}
    for name, d in found.items():
        off = f"{d.forecast / d.peak - 1:+.1%}" if d.forecast else ""
        lines.append(f"{name:12}{d.speed:10,.4g}{d.peak / 2**30:8.2f}"
                     f"{(d.reserved or 0) / 2**30:10.2f}{(d.forecast or 0) / 2**30:10.2f}{off:>8}"
                     f"{d.load / 2**30:7.2f}{d.held / 2**30:7.2f}")
    lines += setups.verdict(found)
    if (out / "kernels.json").exists():
        lines.append((out / "kernels.json").read_text())
    return "\n".join(lines)


def main() -> int:
    """Run the jobs one after the other; 1 if one of them failed."""
    import setups
    import standins

    known = ["kernels", *setups.SETUPS, *LESSONS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=known, default=[n for n in known if n != setups.ON_A_CPU.name])
    parser.add_argument("--rows", type=int, default=200, help="conversations for the lessons")
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps for each setup")
    parser.add_argument("--card", type=float, default=setups.CARDS["16"], help="GiB of GPU the lessons see, 0: all")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--job", choices=known, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    settings.checkpoint, settings.out = settings.checkpoint.absolute(), settings.out.absolute()
    if settings.job:
        job(settings.job, settings)
        return 0
    settings.out.mkdir(parents=True, exist_ok=True)
    if not (settings.checkpoint / "config.json").exists():
        standins.write_llama2_checkpoint(settings.checkpoint, whole=not settings.tiny)
        (settings.checkpoint / RANDOM).write_text("Weights drawn from N(0, 0.02).\n")
    failed = []
    for name in settings.only:
        good = run(name, settings)
        print(name, "done" if good else f"FAILED, see {name}.log", flush=True)
        failed += [name] * (not good)
    print(table(settings.out))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
