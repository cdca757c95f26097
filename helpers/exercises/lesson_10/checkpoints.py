"""Going on where an interrupted training stopped."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.finale.checkpoints import newest_complete_checkpoint


def _folder(*names: str, about: str = "") -> Case:
    """A folder of these, each older on disk than the one before; of `…?` the state is missing, of `…!` cut short, of
    `…~` cut short inside a character, of `…}` behind an inner brace."""

    @contextmanager
    def made() -> Iterator[tuple[Path]]:
        with tempfile.TemporaryDirectory() as folder:
            for age, name in enumerate(names):
                path, state = Path(folder, name.rstrip("?!~}")), {"global_step": int(re.sub(r"\D", "", name) or 0)}
                path.mkdir()
                if "?" not in name:
                    (path / "trainer_state.json").write_text(json.dumps(state)[:9 if "!" in name else None])
                if name[-1] in "~}":
                    cut = '{"note": "é'.encode()[:-1] if "~" in name else b'{"global_step": 30, "log": {"loss": 1.5}'
                    (path / "trainer_state.json").write_bytes(cut)
                os.utime(path, (10**9 - age, 10**9 - age))
            yield (Path(folder),)

    said = ", ".join(names).replace("?", " without trainer_state.json").replace("!", " with half a trainer_state.json")
    said = said.replace("~", " with a trainer_state.json that ends inside a character")
    said = said.replace("}", " with a trainer_state.json that ends behind an inner brace")
    return Case(made, about, said or "an empty folder")


STEP, READ = 'int(path.name.removeprefix("checkpoint-"))', 'json.loads((path / "trainer_state.json").read_text())'
NEWEST_COMPLETE_CHECKPOINT = Exercise(
    10, newest_complete_checkpoint, "★★★ Spot the bug: the checkpoint that cannot be resumed · 10 min", """
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

Write it so that it returns the newest checkpoint, by its step, whose `trainer_state.json` is there and is valid JSON.
The folder exists, and may also hold other things, such as `checkpoint-best` or `tmp-checkpoint-1500`: pass them over.
Where nothing can be resumed, return None.
""",
    cases=(_folder("checkpoint-500", "checkpoint-1500", "checkpoint-20", "checkpoint-1000", "checkpoint-90"),
           _folder("checkpoint-30", "checkpoint-50", "checkpoint-40", "checkpoint-60?",
                   about="a newest one without `trainer_state.json`"),
           _folder("checkpoint-500", "checkpoint-1000!", about="a newest one whose `trainer_state.json` is cut short"),
           _folder("checkpoint-21", "checkpoint-24", "checkpoint-22", "checkpoint-30!", "checkpoint-40?",
                   about="two unfinished ones"),
           _folder("checkpoint-500", "checkpoint-best", about="`checkpoint-best`, a name without a step"),
           _folder("checkpoint-500", "tmp-checkpoint-1500", about="`tmp-checkpoint-1500`, which is no checkpoint"),
           _folder("checkpoint-500", "checkpoint-1500-old", about="`checkpoint-1500-old`, which is no checkpoint"),
           _folder("checkpoint-20", "checkpoint-30}", about="a `trainer_state.json` cut behind an inner brace"),
           _folder("checkpoint-500?", about="nothing that is whole"),
           _folder("checkpoint-20", "checkpoint-30~", about="a `trainer_state.json` cut inside a character"),
           _folder(about="an empty folder")),
    hints=("Sort by step as a number, newest first, and return the first folder that passes the test.",
           "`json.loads` raises ValueError on a file that was cut short; `read_text` raises OSError on a missing one.",
           "In the loop: `try:` to read and parse, `except (OSError, ValueError): continue`, then `return path`."),
    mistakes=(
        Mistake("The newest has no trainer_state.json: it was never finished. Pass it over.", None,
                ("(OSError, ValueError)", "ValueError")),
        Mistake('As text, "checkpoint-90" sorts behind "checkpoint-1500". Compare the steps as numbers.',
                (STEP, "path.name"), (STEP, 'path.name.removeprefix("checkpoint-")')),
        Mistake("The time stamps of files change when a folder is copied or restored: go by the step in the name.",
                (STEP, "path.stat().st_mtime")),
        Mistake("That is the oldest checkpoint: training would repeat most of its steps.", (", reverse=True", "")),
        Mistake("Return the checkpoint's Path, which the trainer can open: not its name, its step, or a file in it.",
                ("return path", "return path.name"), ("return path", f"return {STEP}"),
                ("return path", 'return path / "trainer_state.json"')),
        Mistake("The newest is unfinished, but an older one is whole: look at the next before giving up.",
                ("continue", "return None"), ("reverse=True)", "reverse=True)[:1]")),
        Mistake("trainer_state.json is there, but was cut short: it counts only where it parses as JSON.",
                (READ, '(path / "trainer_state.json").stat()'), ("(OSError, ValueError)", "OSError")),
    ),
    moral="Pass it to `trainer.train(resume_from_checkpoint=…)`; killed at any step, the run ends in the same adapter.")
