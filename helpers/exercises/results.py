"""What `check` said, kept for whoever wants to collect it: off unless COURSE_RESULTS names a file on this machine.

    COURSE_RESULTS=results.jsonl make lab

Each check of an exercise adds a line of JSON, and nothing else is kept or sent:

    {"lesson": 4, "exercise": "nf4_code", "status": "correct", "tries": 2, "time": "2026-03-01T09:30:00+00:00"}

`status` is a key of `engine.STATUSES`, `tries` counts this kernel's attempts at the exercise, an unchanged stub not
among them, and `time` is in UTC, to the second.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from datetime import UTC, datetime

from helpers.exercises.engine import Verdict

_tries: Counter[str] = Counter()


def keep(lesson: int, verdict: Verdict) -> None:
    """Append a verdict to the file, if one is named. A file that cannot be written is named in print, never raised."""
    _tries[verdict.name] += verdict.status != "unattempted"
    path = os.environ.get("COURSE_RESULTS", "")
    if not path:
        return
    line = json.dumps({"lesson": lesson, "exercise": verdict.name, "status": verdict.status,
                       "tries": _tries[verdict.name], "time": datetime.now(UTC).isoformat(timespec="seconds")})
    try:
        with open(os.path.expanduser(path), "a+b") as file:
            file.seek(0, os.SEEK_END)
            broken = file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"  # by a write that broke off
            file.write(b"\n" * bool(broken) + line.encode() + b"\n")  # one write, at the end: kernels mix no lines
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        print(f"COURSE_RESULTS={path}: {reason}. This result is not kept; give the path of a file that can be written.")
