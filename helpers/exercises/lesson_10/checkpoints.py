"""Going on where an interrupted training stopped."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.finale.checkpoints import newest_complete_checkpoint


def _folder(*names: str, half: str = "", broken: str = "") -> Callable[[], AbstractContextManager[tuple[Path]]]:
    """A folder holding these checkpoints, each older on disk than the one before; `half` lacks its trainer_state.json,
    that of `broken` is cut short."""

    @contextmanager
    def made() -> Iterator[tuple[Path]]:
        with tempfile.TemporaryDirectory() as folder:
            for age, name in enumerate(names):
                path = Path(folder, name)
                path.mkdir()
                (path / "adapter_model.safetensors").write_bytes(b"weights")
                if name not in half.split():
                    whole = json.dumps({"global_step": age, "log_history": []})
                    (path / "trainer_state.json").write_text(whole[: 9 if name in broken.split() else None])
                os.utime(path, (10**9 - age, 10**9 - age))
            yield (Path(folder),)

    return made


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if re.search(r"^checkpoint-(\d+)$", path.name)]


def _whole(path: Path) -> bool:
    try:
        return bool(json.loads((path / "trainer_state.json").read_text()))
    except (OSError, ValueError):
        return False


def _best(folder: Path, key: Callable[[Path], object], choose: Callable = max) -> Path | None:
    return choose(filter(_whole, _numbered(folder)), key=key, default=None)


def _is(name: str) -> Callable[[Path], bool]:
    return lambda got: got.name == name


NEWEST_COMPLETE_CHECKPOINT = Exercise(10, newest_complete_checkpoint, "★★★ Spot the bug: the checkpoint that cannot be resumed · 10 min", """
A trainer saves `checkpoint-500`, `checkpoint-1000`, … and writes `trainer_state.json` towards the end of each. When a
run is killed while it saves, the newest folder is there, but that file is missing or cut short, and resuming fails
([transformers#35782](https://github.com/huggingface/transformers/issues/35782)). This is how transformers looks for
the last checkpoint, shortened:

```python
import re

def newest_complete_checkpoint(folder):
    found = [path for path in folder.iterdir() if re.search(r"^checkpoint-(\\d+)$", path.name)]
    return max(found, key=lambda path: int(path.name.split("-")[1])) if found else None
```

Write it so that it returns the newest checkpoint, by its step, whose `trainer_state.json` is there and is valid JSON. A
folder may also hold other things, such as `checkpoint-best`. Where nothing can be resumed, return None.
""",
    cases=(
        Case(_folder("checkpoint-500", "checkpoint-1000", "checkpoint-200", "checkpoint-900"), shown="a folder with checkpoint-200, -500, -900 and -1000"),
        Case(_folder("checkpoint-500", "checkpoint-1000", half="checkpoint-1000"), shown="checkpoint-500, and checkpoint-1000 without a trainer_state.json"),
        Case(_folder("checkpoint-500", "checkpoint-1000", broken="checkpoint-1000"), shown="checkpoint-500, and checkpoint-1000 whose trainer_state.json is cut short"),
        Case(_folder("checkpoint-best", "checkpoint-500"), shown="checkpoint-500 and checkpoint-best"),
        Case(_folder(), shown="an empty folder"),
        Case(_folder("checkpoint-500", half="checkpoint-500"), shown="only checkpoint-500, without a trainer_state.json"),
    ),
    hints=(
        "Sort by step as a number, newest first, and return the first folder that passes the test.",
        "`json.loads` raises ValueError on a file that was cut short; `read_text` raises OSError on a missing one.",
        "In the loop: `try:` to read and parse, `except (OSError, ValueError): continue`, then `return path`.",
    ),
    mistakes=(
        Mistake("checkpoint-1000 has no trainer_state.json: it was never finished. Pass it over.",
                None,
                lambda folder: next(p for p in sorted(_numbered(folder), key=_step, reverse=True)
                if json.loads((p / "trainer_state.json").read_text()))),
        Mistake('As text, "checkpoint-900" sorts behind "checkpoint-1000". Compare the steps as numbers.',
                lambda folder: _best(folder, lambda path: path.name)),
        Mistake("The time stamps of files change when a folder is copied or restored: go by the step in the name.",
                lambda folder: _best(folder, lambda path: path.stat().st_mtime)),
        Mistake("That is the oldest checkpoint: training would repeat most of its steps.",
                lambda folder: _best(folder, _step, min)),
        Mistake("Return the checkpoint's Path, which the trainer can open, not its name or number.",
                lambda folder: max(filter(_whole, _numbered(folder)), key=_step).name),
        Mistake("The newest is unfinished, but checkpoint-500 is whole: look at the next before giving up.",
                lambda folder: p if _whole(p := max(_numbered(folder), key=_step)) else None),
        Mistake("trainer_state.json is there, but was cut short: it counts only where it parses as JSON.",
                lambda folder: max((p for p in _numbered(folder) if (p / "trainer_state.json").exists()), key=_step)),
        Mistake("`checkpoint-best` has no step: keep only names that end in a number.",
                lambda folder: max(filter(_whole, folder.glob("checkpoint-*")), key=_step)),
        Mistake("There is nothing to resume from here: return None, and training starts at the beginning.",
                lambda folder: max(filter(_whole, _numbered(folder)), key=_step),
                lambda folder: _best(folder, _step) or folder),
    ),
    tolerance=0.0,
    moral="Pass it to `trainer.train(resume_from_checkpoint=…)`; killed at any step, the run ends in the same adapter.")
# general: lambda folder: folder
