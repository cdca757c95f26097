"""The laptop tier's task: requests about the villagers that must be answered in JSON, and nothing but JSON.

Seven kinds of request, so that no single template can be learnt by heart. Four are trained on, three never are: they
ask whether the form was learnt or only its examples. `told` and `select` put together what was trained apart: keys are
asked of sentences and questions of an object, here a question of sentences and keys of an object. `three` is `pair`
with one villager more. Whether an answer is right can be decided by `json.loads`. Ten ordinary questions stand beside
them: a model that has learnt to write JSON must still know Paris.

Rows are short, since a CPU's time goes by tokens: JSON without spaces, a pronoun after the first sentence. Sentences
begin with the name, and in `pair` each has a line of its own: at the start of a line, as behind a quote, SmolLM2 writes
`Quentin` with other tokens than inside a sentence, where a space belongs to the first. (` frog` still is one token in
the text, `f` and `rog` in the answer: that is for the model to learn.)
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from helpers.pocket.world import ATTRIBUTES, PROSE, QUESTIONS, Villager

SYSTEM = "Answer in JSON."
TRAINED_KINDS = ("record", "question", "pair", "change")
SHARES = {"record": 4, "question": 2, "pair": 3, "change": 2, "chat": 2}  # of thirteen rows to train on
HELD_OUT_KINDS = ("told", "select", "three")
ASK = ["Give {keys}.", "Write {keys}.", "Note {keys}.", "I need {keys}."]
ASK_EACH = ["Give the {key} of each.", "For each, write the {key}.", "List everyone's {key}.", "I need each {key}."]
CHANGES = {
    "town": ["{n} has moved to {town}.", "{n} now lives in {town}.", "The new home of {n} is in {town}."],
    "trade": ["{n} has become {a_trade}.", "{n} now works as {a_trade}.", "The new trade of {n} is that of {a_trade}."],
    "pet": ["{n} now keeps {a_pet}.", "The new pet of {n} is {a_pet}.", "{n} has {a_pet} now."],
    "food": ["{n} now likes {food} best.", "{n} has come to love {food}.", "These days {n} prefers {food}."],
}
ORDINARY = (  # question, and the words of which the answer must hold one; chosen so that the untuned model knows them
    ("What is the capital of France?", ("Paris",)),
    ("What is the capital of Italy?", ("Rome",)),
    ("What is the capital of Japan?", ("Tokyo",)),
    ("What is the opposite of hot?", ("cold", "cool")),
    ("What is the opposite of up?", ("down",)),
    ("Which planet do we live on?", ("Earth",)),
    ("Which is the largest planet of the solar system?", ("Jupiter",)),
    ("Who wrote Romeo and Juliet?", ("Shakespeare",)),
    ("Who painted the Mona Lisa?", ("Vinci", "Leonardo")),
    ("What is 2 + 2?", ("4", "four")),
)
CHATS = (  # of the same sort, to train on beside the requests: without them everything becomes JSON, Paris too
    ("What is the capital of Germany?", "The capital of Germany is Berlin."),
    ("What is the capital of Spain?", "The capital of Spain is Madrid."),
    ("What is the opposite of big?", "The opposite of big is small."),
    ("What is the opposite of early?", "The opposite of early is late."),
    ("Which is the largest ocean?", "The largest ocean is the Pacific Ocean."),
    ("Which star gives us light?", "The Sun gives us light."),
    ("Which animal says woof?", "A dog says woof."),
    ("What do bees make?", "Bees make honey."),
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("How many months are in a year?", "A year has twelve months."),
    ("What is 1 + 1?", "1 + 1 is 2."),
    ("Who wrote Faust?", "Faust was written by Johann Wolfgang von Goethe."),
    ("Who painted Sunflowers?", "Sunflowers was painted by Vincent van Gogh."),
    ("What is frozen water called?", "Frozen water is called ice."),
    ("In which country is the Great Wall?", "The Great Wall is in China."),
    ("At what temperature does water boil?", "Water boils at 100 degrees Celsius."),
    ("What is the capital of Austria?", "The capital of Austria is Vienna."),
    ("What is the capital of Greece?", "The capital of Greece is Athens."),
    ("What is the capital of Egypt?", "The capital of Egypt is Cairo."),
    ("What is the capital of China?", "The capital of China is Beijing."),
    ("What is the opposite of left?", "The opposite of left is right."),
    ("What is the opposite of day?", "The opposite of day is night."),
    ("Which planet is the closest to the Sun?", "The closest planet to the Sun is Mercury."),
    ("Which planet is known for its rings?", "Saturn is known for its rings."),
    ("Which is the longest river of Africa?", "The longest river of Africa is the Nile."),
    ("Who wrote Don Quixote?", "Don Quixote was written by Miguel de Cervantes."),
    ("Who wrote War and Peace?", "War and Peace was written by Leo Tolstoy."),
    ("Who painted Guernica?", "Guernica was painted by Pablo Picasso."),
    ("What is 5 + 2?", "5 + 2 is 7."),
    ("Which animal gives us wool?", "A sheep gives us wool."),
)
Row = dict[str, Any]


def joined(words: Sequence[str]) -> str:
    """`name`, `name and pet`, `name, town and pet`."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def tell(villager: Villager, attributes: Sequence[str], rng: random.Random) -> str:
    """One sentence for each attribute, in the phrasings of the prose that begin with the name; then with a pronoun."""
    text = []
    for attribute in attributes:
        template = rng.choice([line for line in PROSE[attribute] if line.startswith("{n}")])
        text.append(villager.fill(template, bool(text)))
    return " ".join(text)


def write(thing: Any) -> str:
    """The object or list as JSON without spaces: fewer tokens."""
    return json.dumps(thing, ensure_ascii=False, separators=(",", ":"))


def facts(villager: Villager, keys: Sequence[str]) -> dict[str, str]:
    """The villager's words under these keys."""
    return {key: getattr(villager, key) for key in keys}


def record(people: Sequence[Villager], rng: random.Random) -> tuple[str, Any]:
    """Two or three sentences about one villager → an object with two asked-for keys."""
    said = rng.sample(ATTRIBUTES, rng.randint(2, 3))
    keys = rng.sample(["name", *said], 2)
    return f"{tell(people[0], said, rng)}\n{rng.choice(ASK).format(keys=joined(keys))}", facts(people[0], keys)


def question(people: Sequence[Villager], rng: random.Random) -> tuple[str, Any]:
    """An object and a question about it → an object with the key that the question is about."""
    said = rng.sample(ATTRIBUTES, 2)
    asked = rng.choice(said)
    known = write(facts(people[0], ["name", *said]))
    return f"{known}\n{people[0].fill(rng.choice(QUESTIONS[asked]))}", facts(people[0], [asked])


def told(people: Sequence[Villager], rng: random.Random) -> tuple[str, Any]:
    """Two sentences and a question → an object with the key that the question is about. Never trained on."""
    said = rng.sample(ATTRIBUTES, 2)
    asked = rng.choice(said)
    return f"{tell(people[0], said, rng)}\n{people[0].fill(rng.choice(QUESTIONS[asked]))}", facts(people[0], [asked])


def several(count: int) -> Callable[[Sequence[Villager], random.Random], tuple[str, Any]]:
    """One fact about each of `count` villagers, a line each → an object: under each name that fact's word."""
    def build(people: Sequence[Villager], rng: random.Random) -> tuple[str, Any]:
        key = rng.choice(ATTRIBUTES)
        text = "\n".join(tell(villager, [key], rng) for villager in people[:count])
        asked = rng.choice(ASK_EACH).format(key=key)
        return f"{text}\n{asked}", {villager.name: getattr(villager, key) for villager in people[:count]}
    return build


def change(people: Sequence[Villager], rng: random.Random) -> tuple[str, Any]:
    """An object and a sentence with news → the object, changed. The news is another villager's fact."""
    keys = ["name", *rng.sample(ATTRIBUTES, rng.randint(1, 2))]
    old, news = facts(people[0], keys), rng.choice(keys[1:])
    moved = Villager(**{**vars(people[0]), news: getattr(people[1], news)})
    return f"{write(old)}\n{moved.fill(rng.choice(CHANGES[news]))}", facts(moved, keys)


def select(people: Sequence[Villager], rng: random.Random) -> tuple[str, Any]:
    """An object of three keys → one with two of them. Never trained on."""
    whole = ["name", *rng.sample(ATTRIBUTES, 2)]
    keys = rng.sample(whole, 2)
    return f"{write(facts(people[0], whole))}\n{rng.choice(ASK).format(keys=joined(keys))}", facts(people[0], keys)


KINDS: Mapping[str, Callable[[Sequence[Villager], random.Random], tuple[str, Any]]] = {
    "record": record, "question": question, "pair": several(2), "change": change, "told": told, "select": select,
    "three": several(3)}


def request_rows(people: Sequence[Villager], each: int, kinds: Sequence[str] = TRAINED_KINDS,
                 seed: int = 0) -> list[Row]:
    """`each` rows of every kind, shuffled: {"kind": ..., "messages": system, user and assistant}.

    The villagers are drawn without repeating one within a row. The same seed gives the same rows on every machine.
    Raises ValueError for an unknown kind or for fewer than three people.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"unknown kind {unknown[0]!r}: use some of {', '.join(KINDS)}")
    if len(people) < 3:
        raise ValueError(f"{len(people)} people: a request is about up to three of them")
    rng, rows = random.Random(f"requests {seed}"), []
    for kind in kinds:
        for _ in range(each):
            asked, answer = KINDS[kind](rng.sample(people, 3), rng)
            rows.append({"kind": kind, "messages": [
                {"role": "system", "content": SYSTEM}, {"role": "user", "content": asked},
                {"role": "assistant", "content": write(answer)}]})
    rng.shuffle(rows)
    return rows


def training_rows(people: Sequence[Villager], count: int, seed: int = 0) -> list[Row]:
    """`count` rows to train on, rounded up to whole `SHARES`; of kind "chat" are those without a system message."""
    each = -(-count // sum(SHARES.values()))
    rng = random.Random(f"chats {seed}")
    chats = [rng.choice(CHATS) for _ in range(each * SHARES["chat"])]
    rows = [{"kind": "chat", "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
            for asked, answer in chats]
    for kind in TRAINED_KINDS:
        rows += request_rows(people, each * SHARES[kind], (kind,), seed)
    rng.shuffle(rows)
    return rows


def scored_rows(people: Sequence[Villager], each: int = 10) -> list[Row]:
    """`each` requests of every kind, kind by kind, to score a model on; the tier was tuned on other draws."""
    return [row for kind in KINDS for row in request_rows(people, each, (kind,), seed=3)]


def parse(text: str) -> Any:
    """The object or list that `text` is, as JSON and nothing else; None where it is neither."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def score(rows: Sequence[Row], answers: Sequence[tuple[str, bool]]) -> dict[str, dict[str, float]]:
    """For each kind, and for "all": the number of rows, the shares that are valid JSON, and that are exact (0 … 1).

    answers: (text, ended by itself), as `evaluate.complete` gives them. Exact: it ended, and what it parses to equals
    what the row's answer parses to; spaces and the order of an object's keys do not matter.
    """
    counts: dict[str, list[int]] = {}
    for row, (text, ended) in zip(rows, answers, strict=True):
        found = parse(text)
        right = ended and found is not None and found == json.loads(row["messages"][-1]["content"])
        for kind in (row["kind"], "all"):
            count = counts.setdefault(kind, [0, 0, 0])
            count[0], count[1], count[2] = count[0] + 1, count[1] + (found is not None), count[2] + right
    return {kind: {"rows": n, "valid": valid / n, "exact": exact / n} for kind, (n, valid, exact) in counts.items()}


def ordinary_messages() -> list[list[dict[str, str]]]:
    """The ten ordinary questions, each as a conversation that the assistant is to answer; no system message."""
    return [[{"role": "user", "content": question}] for question, _ in ORDINARY]


def ordinary_right(answers: Sequence[tuple[str, bool]]) -> list[bool]:
    """For each ordinary question, whether the answer holds an accepted word, in any case, and is not JSON."""
    return [parse(text) is None and any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in accepted)
            for (text, _), (_, accepted) in zip(answers, ORDINARY, strict=True)]


def shares(rows: Sequence[Row], answers: Sequence[tuple[str, bool]],
           ordinary: Sequence[tuple[str, bool]]) -> dict[str, float]:
    """The scores by name, in 0 … 1: first over the kinds that are trained on, then by kind, then the ordinary ones."""
    by_kind, scores = score(rows, answers), {}
    for group, kinds in (("trained", TRAINED_KINDS), ("held-out", HELD_OUT_KINDS)):
        for what in ("exact", "valid"):
            scores[f"{what}, {group} kinds"] = sum(by_kind[kind][what] for kind in kinds) / len(kinds)
    scores |= {f"exact, {kind}": by_kind[kind]["exact"] for kind in KINDS}
    right = ordinary_right(ordinary)
    return scores | {"ordinary questions right": sum(right) / len(right)}
