"""What is wrong with rows, each fault with the numbers of its rows and what to do, before anything is trained.

    rows = read("mine.jsonl", strict=False)
    found = examine(rows, tokenizer=tokenizer, max_length=512)
    print(found)                         # every fault, by row number
    found.raise_if_bad(accept=())        # or accept=("long",): seen, and wanted all the same
    found.train, found.held_out          # conversations

Nothing is changed, and no file is written to: a fault is named, the file is yours to mend.
"""

from __future__ import annotations

import html
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from helpers.finale.chat import Conversation, encode, first_question
from helpers.finale.conversations import Conversations, split, to_conversations
from helpers.finale.look import turns, words
from helpers.finale.rows import RowsError

REMEDIES = {
    "row": "Mend these rows in your file, or delete them: they cannot be trained on.",
    "roles": "What is asked belongs to user (or prompt), what is answered to assistant (or completion): swap them.",
    "unanswered": "Write the answer, or delete the question: as it stands, the row is trained on without its end.",
    "encoding": "Letters came in by another encoding than they went out. Export the file again as UTF-8.",
    "long": "Split or shorten these rows, or raise max_length to {longest} (memory grows with it): cut, they teach the "
            "beginning of an answer and no end.",
    "twice": "Keep one of each: what is there twice is learnt twice as hard.",
    "leak": "Take these rows out of the ones held out (or out of the training): the model will have seen the question.",
}
# What comes of reading UTF-8 as Windows-1252: é becomes Ã©, „ becomes â€ž, a smiley ðŸ˜€. Ä and Å stand before closing
# quotes in good German and Swedish: there they count only before signs that follow no letter.
GARBLED = re.compile("[ÂÃ][\u0080-\u00bf‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ€]|[ÄÅ][\u0080-\u009f¡-¿]|"
                     "â[€‚„][\u0080-\u00bf\u0152-\u2122]|ðŸ..")


@dataclass(frozen=True)
class Fault:
    """kind: a key of REMEDIES. part: "train" or "test", the file meant. rows: their numbers, from 1. what: in words."""

    kind: str
    part: str
    rows: tuple[int, ...]
    what: str
    remedy: str

    @property
    def place(self) -> str:
        """`train rows 3, 7 to 9`: the first twenty, then a count."""
        spans: list[list[int]] = []
        for row in self.rows:
            if spans and row == spans[-1][1] + 1:
                spans[-1][1] = row
            else:
                spans.append([row, row])
        told = [f"{a}" if a == b else f"{a} to {b}" if b > a + 1 else f"{a}, {b}" for a, b in spans[:20]]
        more = f" and {sum(b - a + 1 for a, b in spans[20:])} more" if len(spans) > 20 else ""
        return f"{self.part} row{'s' * (len(self.rows) > 1)} {', '.join(told)}{more}"


@dataclass(frozen=True)
class Examined:
    """What `examine` found: the conversations to train on and to hold out, without rows that cannot be read; faults."""

    train: tuple[Conversation, ...]
    held_out: tuple[Conversation, ...]
    faults: tuple[Fault, ...]
    total: int

    def __str__(self) -> str:
        head = f"{self.total:,} rows: {len(self.train):,} to train on, {len(self.held_out):,} held out; "
        count = f"{len(self.faults)} fault{'s' * (len(self.faults) != 1)}" if self.faults else "no fault"
        return "\n".join([head + count, *(f"[{f.kind}] {f.place}: {f.what}\n    {f.remedy}" for f in self.faults)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>{}</td>".format
        rows = ((fault.kind, fault.place, fault.what, fault.remedy) for fault in self.faults)
        body = "".join(f"<tr>{''.join(cell(html.escape(text)) for text in row)}</tr>" for row in rows)
        return f"<p>{html.escape(str(self).splitlines()[0])}</p>" + (f"<table>{body}</table>" if body else "")

    def raise_if_bad(self, accept: Iterable[str] = ()) -> None:
        """Raise RowsError with every fault whose kind is not in `accept`; ValueError for a kind that there is not."""
        accept = set(accept)
        if unknown := sorted(accept - REMEDIES.keys()):
            raise ValueError(f"accept has {unknown[0]!r}: use some of {', '.join(REMEDIES)}")
        open_ = tuple(fault for fault in self.faults if fault.kind not in accept)
        if not self.train or not self.held_out:
            raise RowsError(f"Nothing was trained: no row is left to train on, or none to hold out.\n{self}")
        if open_:
            kinds = ", ".join(dict.fromkeys(f'"{fault.kind}"' for fault in open_))
            raise RowsError(f"Nothing was trained, and no file was changed. {replace(self, faults=open_)}\nMend the "
                            "file and run this again; what you have seen and want all the same goes into accept, here "
                            f"{kinds}.")


def examine(rows: Sequence[Any], test_rows: Sequence[Any] | None = None, *, tokenizer: PreTrainedTokenizerBase,
            max_length: int, share: float = 0.1, seed: int = 0) -> Examined:
    """Look for faults in rows (as `read` gives them) and in the test's; without these a `share` is held out.

    Named are rows that cannot be read, roles that look swapped, last questions without an answer, letters of another
    encoding, rows longer than max_length tokens, rows that are there twice, and held-out rows whose question is trained
    on: questions are compared by their words and digits alone; swapped roles are told by what the other rows look like,
    so not where most rows are swapped, nor where question and answer look alike. Raises RowsError where no row has a
    shape that is known, ChatError as `encode`.
    """
    train, numbers, faults = _readable(rows, "train")
    if test_rows is None:
        kept, held = split(train, share, seed) if len(train) > 1 else (list(train), [])
        tested, test_part = {id(talk): numbers[id(talk)] for talk in held}, "train"
    else:
        kept, (held, tested, more), test_part = list(train), _readable(test_rows, "test"), "test"
        faults += more
    taught = [("train", numbers[id(talk)], talk) for talk in kept]
    tests = [(test_part, tested[id(talk)], talk) for talk in held]
    faults += _encoding(taught + tests) + _swapped(taught + tests) + _long(taught + tests, tokenizer, max_length)
    faults += _twice(taught) + _leaks(taught, tests)
    order = list(REMEDIES)
    return Examined(tuple(kept), tuple(held), tuple(sorted(faults, key=lambda fault: order.index(fault.kind))),
                    len(rows) + len(test_rows or ()))


Place = tuple[str, int, Conversation]


def _readable(rows: Sequence[Any], part: str) -> tuple[Conversations, dict[int, int], list[Fault]]:
    """The conversations, the row number of each by its identity, and what is wrong with rows as they are read."""
    found = to_conversations(rows)
    bad = dict(found.bad)
    numbers = dict(zip(map(id, found), (n for n in range(1, len(rows) + 1) if n not in bad), strict=True))
    faults = []
    for why in dict.fromkeys(bad.values()):
        kind = "encoding" if "UTF-8" in why else "roles" if "begins with an answer" in why else "row"
        faults += _grouped(kind, [(part, row) for row, reason in found.bad if reason == why], why)
    faults += _grouped("unanswered", [(part, row) for row in found.unanswered],
                       "a last question without an answer is left out")
    return found, numbers, faults


def _grouped(kind: str, places: Iterable[tuple[str, int]], what: str, remedy: str = "") -> list[Fault]:
    """A fault for each file that has such rows."""
    parts = defaultdict(list)
    for part, number in places:
        parts[part].append(number)
    return [Fault(kind, part, tuple(sorted(rows)), what, remedy or REMEDIES[kind]) for part, rows in parts.items()]


def ungarbled(text: str) -> str:
    """The text with what was UTF-8 read as Windows-1252 put right: `CafÃ©` becomes `Café`. All else stays."""
    def right(found: re.Match[str]) -> str:
        data = b"".join(bytes([ord(c)]) if ord(c) < 256 else c.encode("cp1252", "replace") for c in found[0])
        return data.decode("utf-8", "replace") if "\ufffd" not in data.decode("utf-8", "replace") else found[0]
    return GARBLED.sub(right, text)


def _encoding(places: Sequence[Place]) -> list[Fault]:
    garbled, lost, example = [], [], ""
    for part, number, talk in places:
        text = "\n".join(message["content"] for message in talk)
        if "\ufffd" in text:
            lost.append((part, number))
        elif (right := ungarbled(text)) != text:
            garbled.append((part, number))
            if not example:
                word = next(a for a, b in zip(text.split(), right.split(), strict=False) if a != b)[:30]
                example = f"; {word} was {ungarbled(word)}"
    return _grouped("encoding", garbled, "letters were UTF-8, and were read as Windows-1252" + example) + _grouped(
        "encoding", lost, "letters are lost: a mark (U+FFFD) stands in their place")


def _swapped(places: Sequence[Place]) -> list[Fault]:
    """Rows whose first question reads like the others' answers, and their answer like the questions.

    By triples of letters: naive Bayes, the row itself left out. What was found is turned round, and all is asked again,
    until nothing changes: many swapped rows blur what a question looks like.
    """
    pairs = [[Counter(_triples(next(message["content"] for message in talk if message["role"] == role)))
              for role in ("user", "assistant")] for _, _, talk in places]
    turned, found = set(), set()
    for _ in range(5):
        asked, said = Counter(), Counter()
        for n, (question, answer) in enumerate(pairs):
            (said if n in turned else asked).update(question)
            (asked if n in turned else said).update(answer)
        sums, kinds = (asked.total(), said.total()), len(asked | said)
        found = set()
        for n, (question, answer) in enumerate(pairs):
            mine = (answer, question) if n in turned else (question, answer)  # in asked, in said
            rest = [kinds + size - own.total() for size, own in zip(sums, mine, strict=True)]
            score = 0.0  # nats by which swapped is likelier than as it stands
            for text, sign in ((question, 1), (answer, -1)):
                for triple, count in text.items():
                    as_asked, as_said = asked[triple] - mine[0][triple] + 1, said[triple] - mine[1][triple] + 1
                    score += sign * count * math.log(as_said * rest[0] / as_asked / rest[1])
            if score > max(9.0, 0.09 * (question.total() + answer.total())):
                found.add(n)
        if found == turned:
            break
        turned = found
    return _grouped("roles", [places[n][:2] for n in sorted(found)],
                    "the question reads like an answer of the other rows, the answer like a question")


def _triples(text: str) -> Iterable[str]:
    text = f" {' '.join(text.casefold().split())} "[:1000]
    return (text[n:n + 3] for n in range(len(text) - 2))


def _long(places: Sequence[Place], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Fault]:
    lengths = {(part, number): len(encode(tokenizer, talk)["input_ids"]) for part, number, talk in places}
    over = [place for place, length in lengths.items() if length > max_length]
    longest = max(lengths.values(), default=0)
    what = f"longer than max_length = {max_length}: {len(over)} of {len(lengths)} rows lose their end"
    return _grouped("long", over, what, REMEDIES["long"].format(longest=longest))


def _twice(places: Sequence[Place]) -> list[Fault]:
    texts, prompts = defaultdict(list), defaultdict(list)
    for _, number, talk in places:
        row = turns(talk)
        texts[row].append(number)
        prompts[row[:-1]].append((row[-1], number))
    same = sorted(n for numbers in texts.values() for n in numbers[1:])
    differ = sorted(n for group in prompts.values() if len({answer for answer, _ in group}) > 1 for _, n in group)
    again = [("train", n) for n in same]
    return _grouped("twice", again, "there before, word for word") + _grouped(
        "twice", [("train", n) for n in differ], "the same question with another answer",
        "Decide which answer is right, and keep that one.")


def _leaks(train: Sequence[Place], held_out: Sequence[Place]) -> list[Fault]:
    asked = {words(first_question(talk)): number for _, number, talk in reversed(train)}
    found = [(part, number, asked[question]) for part, number, talk in held_out
             if (question := words(first_question(talk))) in asked]
    pairs = ", ".join(f"{number} asks what train row {source} asks" for _, number, source in found[:3])
    more = " …" * (len(found) > 3)
    return _grouped("leak", [place[:2] for place in found], f"held out, and trained on: {pairs}{more}")
