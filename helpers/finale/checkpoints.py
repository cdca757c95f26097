"""Training runs on disk: a folder for each, and where to go on after an interruption."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Run:
    """A run's folder, and the checkpoint to resume from (None: start at step 0)."""

    folder: Path
    checkpoint: Path | None

    @property
    def adapter(self) -> Path:
        """Where the finished adapter is saved. While it is missing, the run counts as unfinished."""
        return self.folder / "adapter"


def home(drive: Path = Path("/content/drive/MyDrive")) -> Path:
    """Where runs are kept: COURSE_RUNS, else Google Drive if Colab has it mounted, else the folder `runs` here.

    Colab's own disk goes with its machine.
    """
    if chosen := os.environ.get("COURSE_RUNS"):
        return Path(chosen)
    return drive / "from-bits-to-qlora" if drive.is_dir() else Path("runs")


def newest_complete_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the highest step whose trainer_state.json is whole, or None."""
    checkpoints = [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for path in sorted(checkpoints, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):  # not written, or cut short
            continue
        return path
    return None


def open_run(root: Path, recipe: dict) -> Run:
    """The newest run below `root` if it is unfinished and has the same recipe; otherwise a new, empty one.

    recipe: what the run depends on (model, data, rates, seed), as JSON. A finished run is never touched again, and a
    run with another recipe is left as it is, so nothing that was trained is ever lost.
    """
    text = json.dumps(recipe, indent=1, sort_keys=True, default=str)
    runs = sorted(root.glob("run-*"), key=lambda path: (len(path.name), path.name))
    if runs and not Run(runs[-1], None).adapter.exists() and (runs[-1] / "recipe.json").is_file():
        if (runs[-1] / "recipe.json").read_text() == text:
            return Run(runs[-1], newest_complete_checkpoint(runs[-1]))
    number = int(runs[-1].name.removeprefix("run-")) + 1 if runs else 1
    folder = root / f"run-{number:03d}"
    folder.mkdir(parents=True)
    (folder / "recipe.json").write_text(text)
    return Run(folder, None)


def newest_finished(root: Path, made_of: dict) -> Path | None:
    """The folder of the newest finished run below `root` whose recipe holds all of `made_of`, or None."""
    wanted = json.loads(json.dumps(made_of, default=str))
    for adapter in sorted(root.glob("run-*/adapter"), key=lambda path: (len(path.parent.name), path), reverse=True):
        try:
            recipe = json.loads((adapter.parent / "recipe.json").read_text())
        except (OSError, ValueError):  # not of this course's making
            continue
        if wanted.items() <= recipe.items():
            return adapter.parent
    return None
