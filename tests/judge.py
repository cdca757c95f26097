"""How well the exercises diagnose answers that nobody registered: `python tests/judge.py` prints the figures by lesson.

Each wrong answer of tests/corpus is judged once, by a person, from the card that it gets: "names" if the text names
the slip, "points" if it is true and points to the place but leaves the slip to be found, "misses" if it is useless or
misleading. The judgement is kept in tests/corpus/judged.json together with the text that was judged; where the text
changes, the judgement is void and has to be made again. By now every answer of the corpus has been read while the
cards were mended, so that the figures tell how well the cards do for these. What they do for others only new answers
tell: those of corpus/third.py were judged before anything was mended for them, and keep that judgement as `first`.
`--open` prints the cards without a valid judgement (`--open scale_rows`: of one exercise), and those of right answers
that are refused; `--write FILE` takes judgements from a JSON file {key: judgement}, seconds each. Without either
every answer is judged: minutes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import corpus

from helpers.exercises import registry
from helpers.exercises.engine import Verdict, examine

RECORD = Path(corpus.__file__).with_name("judged.json")
JUDGEMENTS = ("names", "points", "misses")
FIRST = (*JUDGEMENTS, "accepted")  # the wrong answer was taken for a right one


def answers() -> dict[str, corpus.Answer]:
    """Every answer of the corpus by its key, "exercise/wrong 3"."""
    for module in pkgutil.iter_modules(corpus.__path__):
        importlib.import_module(f"corpus.{module.name}")
    keyed, count = {}, Counter()
    for answer in corpus.ANSWERS:
        kind = "right" if answer.right else "wrong"
        count[answer.exercise, kind] += 1
        keyed[f"{answer.exercise}/{kind} {count[answer.exercise, kind]}"] = answer
    return keyed


def verdict(answer: corpus.Answer) -> Verdict:
    """What the engine says to this answer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return examine(registry.exercises()[answer.exercise], answer.function)


def said(card: Verdict) -> str:
    """What is judged: the text of the card, without the values beside it."""
    return card.text if card.status != "correct" else "ACCEPTED"


def judged() -> dict[str, dict[str, str]]:
    """Key -> {"said": the text that was judged, "judgement": one of JUDGEMENTS}."""
    return json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}


def figures(record: dict[str, dict[str, str]]) -> dict[int, Counter]:
    """By lesson: how many wrong answers got each judgement."""
    table: dict[int, Counter] = defaultdict(Counter)
    for key, entry in record.items():
        table[registry.exercises()[key.split("/")[0]].lesson][entry["judgement"]] += 1
    return table


def first_seen(record: dict[str, dict[str, str]]) -> Counter:
    """How many answers got each of FIRST before anything was mended for them."""
    return Counter(entry["first"] for entry in record.values() if "first" in entry)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", nargs="?", const="", metavar="EXERCISE")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    keyed, record = answers(), judged()
    if arguments.open and arguments.open not in registry.exercises():
        raise SystemExit(f"no exercise is called {arguments.open!r}")
    if arguments.write:
        for key, judgement in json.loads(arguments.write.read_text(encoding="utf-8")).items():
            if key not in keyed or judgement not in JUDGEMENTS:
                raise SystemExit(f"{key}: {judgement!r}: no such answer, or none of {', '.join(JUDGEMENTS)}")
            record[key] = record.get(key, {}) | {"said": said(verdict(keyed[key])), "judgement": judgement}
        record = {key: record[key] for key in keyed if key in record}
        RECORD.write_text(json.dumps(record, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    asked = {key: verdict(answer) for key, answer in keyed.items() if arguments.open in (None, "", answer.exercise)
             and not (answer.right and arguments.open is None)}
    cards = {key: card for key, card in asked.items() if not keyed[key].right}
    if arguments.open is not None:
        for key, card in asked.items():
            if card.status != "correct" if keyed[key].right else record.get(key, {}).get("said") != said(card):
                print(f"--- {key}\n{'right' if keyed[key].right else 'slip'}: {keyed[key].says}\nrung: {card.rung}\n"
                      f"{card!r}\n")
        return
    valid = {key: entry for key, entry in record.items() if key in cards and entry["said"] == said(cards[key])}
    total: Counter = Counter()
    for lesson, counts in sorted(figures(valid).items()):
        total += counts
        print(f"{lesson:02d}  " + "  ".join(f"{name} {counts[name]:3d}" for name in JUDGEMENTS))
    print("all " + "  ".join(f"{name} {total[name]:3d}" for name in JUDGEMENTS)
          + f"  not judged {len(cards) - len(valid)}, accepted {sum(c.status == 'correct' for c in cards.values())}")
    first = first_seen(record)
    print(f"of {first.total()} new ones, when first seen: " + ", ".join(f"{name} {first[name]}" for name in FIRST))


if __name__ == "__main__":
    main()
