"""Predict, then run: the reader commits to a guess before the cell that answers.

    predict("bytes of NF4", guess=None)        # one cell: replace None by your guess
    ...                                        # the cells that find out
    outcome("bytes of NF4", model.nbytes)      # the answer next to the guess

Committed notebooks keep `guess=None`, so what they show does not depend on a reader. A guess may be a number, a truth
value or a word; a number within 10 % counts as right. Nothing is stored beyond this kernel and nothing is scored.
"""

from __future__ import annotations

import math
from numbers import Real

from helpers.exercises.display import Card

_guesses: dict[str, object] = {}


def predict(key: str, guess: object = None) -> Card:
    """Remember `guess` under `key` for `outcome`. None or `...` means no guess yet; a new guess replaces the old."""
    if guess is None or guess is ...:
        _guesses.pop(key, None)
        return Card("○", "No guess yet.", "Replace `None` by yours and run this cell; a wrong guess teaches the most.")
    _guesses[key] = guess
    return Card("?", "Your guess:", f"{_say(guess)}. Now run on.")


def outcome(key: str, truth: object) -> Card:
    """Set `truth` beside the guess made under `key`. Numbers are shown to 4 significant digits: pass stable values."""
    guess = _guesses.get(key)
    if guess is None:
        return Card("○", f"It is {_say(truth)}.", "")
    if _number(guess) and _number(truth):
        return _compare(guess, truth)
    right = str(guess).strip().casefold() == str(truth).strip().casefold()
    said = "you said so." if right else f"You said {_say(guess)}."
    return Card("✓" if right else "✗", f"It is {_say(truth)}" + (":" if right else "."), said)


def _compare(guess: Real, truth: Real) -> Card:
    title = f"It is {_say(truth)}."
    if guess == truth:
        return Card("✓", title, "Exactly your guess.")
    if truth and math.isfinite(truth) and abs(guess - truth) <= 0.1 * abs(truth):
        return Card("✓", title, f"You said {_say(guess)}: close enough.")
    if not (truth and guess) or math.isnan(truth) or math.isnan(guess) or (truth > 0) != (guess > 0):
        return Card("✗", title, f"You said {_say(guess)}.")
    factor = max(guess / truth, truth / guess)
    direction = "high" if abs(guess) > abs(truth) else "low"
    return Card("✗", title, f"You said {_say(guess)}: too {direction} by a factor of {_say(factor)}.")


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _say(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, Real):
        return str(value)
    whole = math.isfinite(value) and value == int(value)
    return f"{int(value):,}" if whole else f"{value:.4g}"
