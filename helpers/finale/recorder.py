"""Recorded runs of lesson 10: what was measured, on what, with what; taken by a `Recorder`, drawn again by `replay`.

A record is a JSON file in `records/` that obeys its `schema.json`. Weights are "pretrained" or "random"; with random
ones memory and speed are real and the loss means nothing, and whatever shows such a record says so.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import platform
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from typing import Any

import torch
from matplotlib.figure import Figure
from transformers import TrainerCallback

from helpers import plots
from helpers.finale.tiers import Tier
from helpers.memory import GIB
from helpers.pocket import WEIGHTS

FOLDER = pathlib.Path(__file__).parent / "records"
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate")
MIB = 2**20


def hardware() -> dict[str, str | int | None]:
    """This machine: GPU (or CPU) with its memory and what torch may take of it, the driver, processor and cores."""
    import psutil

    cpu = platform.processor() or platform.machine()
    if (info := pathlib.Path("/proc/cpuinfo")).exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    found = {"device": cpu, "memory_bytes": psutil.virtual_memory().total, "driver": None, "cpu": cpu,
             "cores": os.cpu_count() or 1}
    if torch.cuda.is_available():
        version = pathlib.Path("/proc/driver/nvidia/version")
        driver = version.read_text().splitlines()[0].split("Module")[-1].split()[0] if version.is_file() else None
        total = torch.cuda.get_device_properties(0).total_memory
        part = torch.cuda.memory.get_per_process_memory_fraction()  # a smaller card may be played
        found |= {"device": torch.cuda.get_device_name(), "memory_bytes": total,
                  "memory_limit_bytes": int(part * total) if part < 1 else None,
                  "driver": f"{driver or 'unknown'}, CUDA {torch.version.cuda}"}
    return found


class Recorder(TrainerCallback):
    """Takes down a run: memory by phase, and loss, tokens and seconds at every log of the trainer.

        recorder = Recorder(tier)
        with recorder.phase("load"):
            model = load_base(path)
        trainer = SFTTrainer(..., callbacks=[recorder])
        with recorder.phase("train", forecast=bytes):
            trainer.train()
        record = recorder.finish(model=..., parameters=...)

    On a GPU a phase's memory is what torch allocated there, on a CPU what the process holds in RAM, sampled every
    twentieth of a second. That counts the interpreter, the libraries' data and what the allocator keeps for reuse:
    `before_bytes`, held when the phase began, says where it started. Mapped files are left out, since the system drops
    them when memory is wanted (a checkpoint is mapped whole while it is read); `resident_bytes` is the peak with them.
    """

    def __init__(self, tier: Tier, weights: str = "pretrained") -> None:
        self.tier, self.weights = tier, weights
        self.memory: list[dict[str, Any]] = []
        self.steps: list[dict[str, Any]] = []
        self._began = 0.0

    @contextmanager
    def phase(self, name: str, forecast: int | None = None) -> Iterator[None]:
        """Measure memory inside; `forecast` in bytes is kept beside it. A phase that raises leaves no entry."""
        gpu, began = torch.cuda.is_available(), time.perf_counter()
        if gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() if gpu else in_memory()[0]
        with highest_in_memory() as highest:
            yield
            if gpu:
                torch.cuda.synchronize()
        if gpu:
            entry = {"peak_bytes": torch.cuda.max_memory_allocated(), "held_bytes": torch.cuda.memory_allocated(),
                     "reserved_bytes": torch.cuda.max_memory_reserved()}
        else:
            peak, resident = highest()
            entry = {"peak_bytes": peak, "held_bytes": in_memory()[0], "reserved_bytes": None,
                     "resident_bytes": resident}
        self.memory.append({"phase": name, **entry, "forecast_bytes": forecast, "before_bytes": before,
                            "seconds": round(time.perf_counter() - began, 2)})

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock. A run that is resumed is recorded from there on."""
        self._began, self.steps = time.perf_counter(), []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Take down one line; `num_tokens` is TRL's count of what it has read, padding left out."""
        if logs and "loss" in logs:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.steps.append({"step": state.global_step, "loss": round(float(logs["loss"]), 5),
                               "seconds": round(time.perf_counter() - self._began, 4),
                               "tokens": int(logs.get("num_tokens", 0))})

    def finish(self, parameters: int, samples: Sequence[Mapping[str, str]] = (),
               scores: Mapping[str, Mapping[str, float]] | None = None, title: str = "") -> dict[str, Any]:
        """The record, checked. parameters: of the base model. Raises ValueError for what the schema forbids."""
        name = pathlib.Path(self.tier.model)
        kept = {key: value for key, value in asdict(self.tier).items() if key not in ("model", "revision", "size")}
        if kept["dataset"] and pathlib.Path(kept["dataset"]).is_absolute():
            kept["dataset"] = pathlib.Path(kept["dataset"]).name
        versions = {package: metadata.version(package) for package in PACKAGES if installed(package)}
        found = hardware()
        record = {
            "schema": 1, "title": title or f"{self.tier.name} on {found['device']}",
            "date": datetime.date.today().isoformat(), "hardware": found,
            "versions": {"python": platform.python_version(), **versions},
            "model": {"id": "pocket" if name == WEIGHTS else name.name if name.is_absolute() else str(name),
                      "revision": self.tier.revision, "parameters": parameters, "weights": self.weights},
            "configuration": kept, "steps": self.steps, "tokens_per_second": speed(self.steps), "memory": self.memory,
            "samples": [dict(sample) for sample in samples], "scores": {k: dict(v) for k, v in (scores or {}).items()},
        }
        check(record)
        return record


def in_memory() -> tuple[int, int]:
    """Bytes of RAM that this process holds now: its own (the same as all but on Linux), and all, with mapped files."""
    import psutil

    info = psutil.Process().memory_info()
    return info.rss - getattr(info, "shared", 0), info.rss


@contextmanager
def highest_in_memory(every: float = 0.05) -> Iterator[Callable[[], tuple[int, int]]]:
    """Watch `in_memory` from a thread, at this interval in seconds; what it gives returns the highest seen so far."""
    peak, done = in_memory(), threading.Event()

    def look() -> tuple[int, int]:
        nonlocal peak
        now = in_memory()
        peak = max(peak[0], now[0]), max(peak[1], now[1])
        return peak

    def watch() -> None:
        while not done.wait(every):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield look
    finally:
        done.set()
        watcher.join()


def installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


def speed(steps: Sequence[Mapping[str, float]]) -> float:
    """Median tokens per second between logs; the first interval, a warm-up, is left out where there are others."""
    starts = [{"tokens": 0, "seconds": 0.0}, *steps]
    rates = [(b["tokens"] - a["tokens"]) / (b["seconds"] - a["seconds"])
             for a, b in zip(starts, steps, strict=False) if b["seconds"] > a["seconds"]]
    return round(statistics.median(rates[1:] or rates), 2) if rates else 0.0


def check(record: Any) -> None:
    """Raise ValueError, naming the place and what is wrong there, unless `record` obeys schema.json."""
    import jsonschema

    schema = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(record), key=lambda e: list(e.absolute_path))
    if errors:
        where = "/".join(str(part) for part in errors[0].absolute_path) or "the record"
        raise ValueError(f"{where}: {errors[0].message}; record the run again, or see {FOLDER.name}/schema.json")
    steps = [line["step"] for line in record["steps"]]
    if steps != sorted(set(steps)):
        raise ValueError(f"steps: {steps[:8]} … do not rise; record the run again")


def names() -> list[str]:
    """The committed records, by name, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.json") if path.stem != "schema")


def read(record: str | pathlib.Path) -> dict[str, Any]:
    """A committed record by name, or one from a file, checked. Raises ValueError for an unknown or a broken one."""
    path = FOLDER / f"{record}.json" if isinstance(record, str) and record in names() else pathlib.Path(record)
    if not path.is_file():
        raise ValueError(f"no record {str(record)!r}: take one of {', '.join(names()) or '(none yet)'}, or a file")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON ({error}): record the run again") from error
    check(found)
    return found


def write(record: Mapping[str, Any], path: pathlib.Path) -> pathlib.Path:
    """Check a record and write it: to a file beside `path` first, so that a file of this name is always whole."""
    check(record)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return part.replace(path)


def describe(record: Mapping[str, Any]) -> str:
    """The record in sentences: what ran where, and its figures. Also the alternative text of its picture."""
    model, steps, rate = record["model"], record["steps"], record["tokens_per_second"]
    unit, name = (GIB, "GiB") if record["memory"][-1]["peak_bytes"] >= GIB else (MIB, "MiB")
    speed_found = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    parts = [f"Recorded on {record['date']}: {record['title']}. {model['parameters']:,} parameters, {model['weights']} "
             f"weights. {speed_found} tokens per second."]
    for phase in record["memory"]:
        forecast = phase.get("forecast_bytes")
        parts.append(f"Peak memory in phase {phase['phase']}: {phase['peak_bytes'] / unit:,.2f} {name}"
                     + (f", forecast {forecast / unit:,.2f}." if forecast else "."))
    losses = ", ".join(f"{line['loss']:.3g} at step {line['step']}" for line in steps[::max(1, len(steps) - 1)])
    parts.append(f"Loss {losses}" + ("; the weights were random, so it means nothing."
                                     if model["weights"] == "random" else "."))
    for score, value in record["scores"].items():
        parts.append(f"{score}: {value['before']:.1%} before, {value['after']:.1%} after.")
    return " ".join(parts)


def replay(record: Mapping[str, Any]) -> Figure:
    """Lesson 10's charts from a record, labelled as recorded: the loss, memory by phase, scores before and after."""
    import matplotlib as mpl

    check(record)
    random = record["model"]["weights"] == "random"
    with mpl.rc_context(plots.STYLE):
        fig = Figure(figsize=(7.2, 3.4))
        axes = fig.subplots(1, 3 if record["scores"] else 2, width_ratios=[2, 1.4, 0.8][:3 if record["scores"] else 2])
        fig.suptitle(f"Recorded, {record['date']}: {record['title']}" + (", random weights" if random else ""),
                     fontsize=11, x=0.01, ha="left", weight="bold")
        steps, losses = zip(*((line["step"], line["loss"]) for line in record["steps"]), strict=True)
        axes[0].plot(steps, losses, color=plots.GREY if random else plots.TRAINED, marker="o" * (len(steps) == 1))
        axes[0].set(yscale="linear" if random else "log", xlabel="optimizer step", ylabel="loss (nats per token)")
        if random:
            axes[0].text(0.5, 0.75, "random weights:\nmeans nothing", transform=axes[0].transAxes, ha="center",
                         color=plots.INK)
        unit, name = (GIB, "GiB") if record["memory"][-1]["peak_bytes"] >= GIB else (MIB, "MiB")
        for place, phase in enumerate(record["memory"]):
            axes[1].bar(place, phase["peak_bytes"] / unit, color=plots.SKY)
            axes[1].bar(place, phase["held_bytes"] / unit, color=plots.FROZEN)
            if phase.get("forecast_bytes"):
                axes[1].plot([place - 0.45, place + 0.45], [phase["forecast_bytes"] / unit] * 2, color=plots.INK,
                             linestyle="--")
        axes[1].set_xticks(range(len(record["memory"])), [phase["phase"] for phase in record["memory"]])
        axes[1].set_ylabel(f"{name}: peak (light), held (dark)")
        if record["scores"]:
            score, value = next(iter(record["scores"].items()))
            axes[2].bar(["before", "after"], [100 * value["before"], 100 * value["after"]],
                        color=[plots.GREY, plots.TRAINED])
            axes[2].set(ylim=(0, 100), ylabel=f"{score} (%)")
    return fig
