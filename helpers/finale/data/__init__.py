"""Rows that ship with lesson 15: 200 to train on, and 50 with faults in them, six kinds with the 8 to test on.

desk.jsonl: a note of two sentences about one of the villagers and a question, answered in one sentence of a fixed form.
Written for this course from its own world (helpers/pocket/world.py): nobody in them exists. Apache 2.0 like the code.
"""

from __future__ import annotations

from pathlib import Path

DESK, BROKEN, BROKEN_TEST = (Path(__file__).with_name(f"{name}.jsonl") for name in ("desk", "broken", "broken_test"))
