"""Everything that needs a GPU, by one command: lessons 10 and 11 on Llama-2-7B's tier, the setups, the kernels.

    python tests/gpu/run.py --checkpoint /scratch/llama --out measured

The checkpoint is Llama-2-7B's, or is made there with random weights N(0, 0.02): then memory and speed are real, losses
mean nothing, and every record says so. Each job runs in a process of its own and writes into --out; one that fails is
reported and the rest goes on. `--tiny` takes a model of two small layers, to try the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "gpu")]

LESSONS = {"lesson10": "10_fine_tuning_llama_2", "lesson11": "11_merge_evaluate_share"}
RANDOM = "random-weights"  # the folder's file that marks a made-up checkpoint


def lesson(name: str, checkpoint: Path, out: Path, rows: int) -> None:
    """A lesson's own cells on this checkpoint, as one program; its run's record is copied to `out`."""
    import standins
    from notebook_tools import source

    data = standins.write_guanaco(out / "guanaco", rows)
    code = "\n".join(source.program(ROOT / "notebooks" / f"{LESSONS[name]}.ipynb", "Exercises"))
    weights = "random" if (checkpoint / RANDOM).exists() else "pretrained"
    environment = {**os.environ, "COURSE_TIER": "llama-2-7b", "COURSE_MODEL": str(checkpoint),
                   "COURSE_WEIGHTS": weights, "COURSE_DATASET": str(data), "COURSE_RUNS": str(out / "runs"),
                   "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg", "PYTHONPATH": os.pathsep.join(sys.path[:3])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=out)
    for record in (out / "runs").rglob("record.json"):
        (out / f"llama-2-7b-{name}.json").write_text(record.read_text())


def job(name: str, checkpoint: Path, out: Path, rows: int, steps: int) -> None:
    """One job by name, in this process."""
    import helpers

    helpers.start()
    if name in LESSONS:
        return lesson(name, checkpoint, out, rows)
    import setups

    if name == "kernels":
        (out / "kernels.json").write_text(json.dumps(setups.kernels(), indent=1) + "\n")
    else:
        weights = "random" if (checkpoint / RANDOM).exists() else "pretrained"
        setups.measure(setups.SETUPS[name], checkpoint, out, weights, steps)


def table(out: Path) -> str:
    """What the records in `out` say, a line each; memory in GiB."""
    import setups

    from helpers.finale import recorder

    lines = [f"{'':10}{'tokens/s':>10}{'peak':>8}{'reserved':>10}{'forecast':>10}{'off by':>8}{'load':>7}{'held':>7}"]
    for path in sorted(out.glob("llama-2-7b-*.json")):
        d = setups.describe(recorder.read(path))
        off = f"{d.forecast / d.peak - 1:+.1%}" if d.forecast else ""
        lines.append(f"{path.stem.removeprefix('llama-2-7b-'):10}{d.speed:10,.0f}{d.peak / 2**30:8.2f}"
                     f"{(d.reserved or 0) / 2**30:10.2f}{(d.forecast or 0) / 2**30:10.2f}{off:>8}"
                     f"{d.load / 2**30:7.2f}{d.held / 2**30:7.2f}")
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
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--job", choices=known, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    checkpoint, out = arguments.checkpoint.absolute(), arguments.out.absolute()
    if arguments.job:
        job(arguments.job, checkpoint, out, arguments.rows, arguments.steps)
        return 0
    out.mkdir(parents=True, exist_ok=True)
    if not (checkpoint / "config.json").exists():
        standins.write_llama2_checkpoint(checkpoint, whole=not arguments.tiny)
        (checkpoint / RANDOM).write_text("Weights drawn from N(0, 0.02).\n")
    failed = []
    for name in arguments.only:
        command = [sys.executable, __file__, "--checkpoint", str(checkpoint), "--out", str(out), "--job", name,
                   "--rows", str(arguments.rows), "--steps", str(arguments.steps)]
        with (out / f"{name}.log").open("w") as log:
            hidden = {"CUDA_VISIBLE_DEVICES": ""} if name in setups.SETUPS and setups.SETUPS[name].cpu else {}
            done = subprocess.run(command, stdout=log, stderr=log, check=False, env={**os.environ, **hidden})
        print(name, "done" if done.returncode == 0 else f"FAILED, see {name}.log", flush=True)
        failed += [name] * (done.returncode != 0)
    print(table(out))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
