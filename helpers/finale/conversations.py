"""From the rows of a data set to conversations, and into two parts: to train on, and held out.

Three shapes of rows are understood:

    {"text": "<s>[INST] Who is there? [/INST] A baker. </s>"}
    {"prompt": "Who is there?", "completion": "A baker."}
    {"messages": [{"role": "user", "content": "Who is there?"}, {"role": "assistant", "content": "A baker."}]}

A row that cannot be trained on is never repaired by a guess: it is told by its number, with the reason.
"""

from __future__ import annotations

import html
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from helpers.finale.chat import Conversation, first_question
from helpers.finale.rows import SHOWN, RowsError

SHAPES = (("messages",), ("prompt", "completion"), ("text",))  # the one that most rows have; then the first
REMEDY = ("Correct or delete these rows in your file and run the cell again. A row has one of three shapes: text "
          '("<s>[INST] question [/INST] answer </s>"), prompt and completion, or messages '
          '([{"role": "user", "content": …}, {"role": "assistant", "content": …}], a system message first).')


@dataclass(frozen=True)
class Conversations(Sequence[Conversation]):
    """The good rows of a data set as lists of messages, and beside them the bad ones.

    bad: (row number from 1, why). unanswered: numbers of good rows whose last question had no answer; it was left out.
    """

    good: tuple[Conversation, ...]
    bad: tuple[tuple[int, str], ...] = ()
    unanswered: tuple[int, ...] = ()

    def __getitem__(self, index):
        return self.good[index]

    def __len__(self) -> int:
        return len(self.good)

    def __str__(self) -> str:
        total = len(self.good) + len(self.bad)
        cut = f"; in {len(self.unanswered):,} a last question without an answer is left out" if self.unanswered else ""
        return f"{len(self.good):,} of {total:,} rows can be trained on{cut}"

    __repr__ = __str__

    def table(self, shown: int = SHOWN) -> str:
        """The summary, then the first bad rows with their numbers and reasons, then a count of the rest."""
        lines = [str(self), *(f"row {row}: {why}" for row, why in self.bad[:shown])]
        return "\n".join(lines + ([f"and {len(self.bad) - shown:,} more"] if len(self.bad) > shown else []))

    def _repr_html_(self) -> str:
        summary, *lines = [html.escape(line) for line in self.table().split("\n")]
        cell = "<td style='text-align:left'>{}</td>".format
        body = "".join(f"<tr>{''.join(cell(part) for part in line.split(': ', 1))}</tr>" for line in lines)
        return f"<p>{summary}</p>" + (f"<table>{body}</table>" if body else "")

    def raise_if_bad(self) -> None:
        """Raise RowsError, naming the first ten bad rows and counting the rest, unless every row is good."""
        if self.bad or not self.good:
            raise RowsError(f"Nothing was trained. {self.table()}\nRemedy: {REMEDY}")


def to_conversations(rows: Iterable[Any]) -> Conversations:
    """The rows as conversations: a system message if there is one, then user and assistant in turn, an answer last.

    prompt and completion may be strings or lists of messages; messages may be a list, or a string of JSON (in a CSV
    file). An empty system message is none. Raises RowsError if no row has the columns of one of the three shapes.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(str(key) for row in rows if isinstance(row, dict) for key in row))
    counts = {shape: sum(isinstance(row, dict) and set(shape) <= row.keys() for row in rows) for shape in SHAPES}
    shape = max(counts, key=counts.get)
    if not counts[shape]:
        found = f"the columns {', '.join(columns[:20])}" if columns else "no columns"
        raise RowsError(f"The rows have {found}. Wanted is one of three shapes: text; prompt and completion; messages."
                        f"\nRemedy: rename your columns. {REMEDY.split('again. ')[1]}")
    good, bad, unanswered = [], [], []
    for number, row in enumerate(rows, 1):
        try:
            conversation, left_out = _conversation(row, shape)
        except _Bad as why:
            bad.append((number, str(why)))
        else:
            good.append(conversation)
            unanswered += [number] * left_out
    return Conversations(tuple(good), tuple(bad), tuple(unanswered))


def to_messages(text: str) -> list[dict[str, str]]:
    """A row `<s>[INST] … [/INST] … </s>…` as a list of {"role": …, "content": …}."""
    messages = []
    for turn in text.split("</s>"):
        question, _, answer = turn.strip().removeprefix("<s>").partition("[/INST]")
        question = question.strip().removeprefix("[INST]").strip()
        if question:
            messages.append({"role": "user", "content": question})
        if answer.strip():
            messages.append({"role": "assistant", "content": answer.strip()})
    return messages


class _Bad(Exception):
    """Why a row cannot be trained on."""


def _conversation(row: Any, shape: tuple[str, ...]) -> tuple[Conversation, bool]:
    """The messages of a row, and whether a last question without an answer was left out. Raises _Bad."""
    if not isinstance(row, dict):
        raise _Bad(f"is {_kind(row)}, not an object with columns")
    for column in shape:
        if row.get(column) is None:
            raise _Bad(f"has no {column}")
    if shape == ("text",):
        return _checked(_from_text(row["text"]))
    if shape == ("prompt", "completion"):
        return _checked(_part(row["prompt"], "user", "prompt") + _part(row["completion"], "assistant", "completion"))
    messages = row["messages"]
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError):
            raise _Bad("messages is a string that is not JSON") from None
    return _checked(_part(messages, None, "messages"))


def _part(value: Any, role: str | None, name: str) -> list[Any]:
    if isinstance(value, str) and role:
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise _Bad(f"{name} is {_kind(value)}, not {'a string or ' if role else ''}a list of messages")
    return value


def _from_text(text: Any) -> list[Any]:
    if not isinstance(text, str):
        raise _Bad(f"text is {_kind(text)}, not a string")
    if "[INST]" not in text or "[/INST]" not in text:
        raise _Bad("text has no [INST] … [/INST] around the question")
    messages = to_messages(text)
    if any(mark in message["content"] for message in messages for mark in ("[INST]", "[/INST]")):
        raise _Bad("text has [INST] and [/INST] out of order, or no </s> between two turns")
    told, end, question = messages[0]["content"].partition("<</SYS>>") if messages else ("", "", "")
    if end and told.startswith("<<SYS>>"):  # Llama-2's place for a system message
        system = {"role": "system", "content": told.removeprefix("<<SYS>>").strip()}
        messages = [system, {"role": "user", "content": question.strip()}, *messages[1:]]
    return messages


def _checked(messages: list[Any]) -> tuple[Conversation, bool]:
    """The messages with role and content only, in a legal order. Raises _Bad with the first reason found."""
    turns: Conversation = []
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise _Bad("a message is not an object with role and content")
        role, content = message["role"], message["content"]
        if role not in ("system", "user", "assistant"):
            raise _Bad(f"unknown role {str(role)[:30]!r}: use system, user, assistant")
        if not isinstance(content, str):
            raise _Bad(f"the content of a message ({role}) is {_kind(content)}, not a string")
        if not content.isascii() and any("\udc80" <= letter <= "\udcff" for letter in content):  # see rows.read
            raise _Bad(f"the content of a message ({role}) is not in UTF-8")
        if not content.isascii() and any("\ud800" <= letter <= "\udfff" for letter in content):
            raise _Bad(f"the content of a message ({role}) holds half a character (a lone surrogate)")
        if role == "system" and not content.strip():
            continue
        if not content.strip():
            raise _Bad("a question is empty" if role == "user" else "an answer is empty")
        turns.append({"role": role, "content": content})
    roles = [turn["role"] for turn in turns]
    if "system" in roles[1:]:
        raise _Bad("the system message does not stand first")
    spoken = roles[roles[:1] == ["system"]:]
    if not spoken:
        raise _Bad("has no question and no answer")
    if spoken[0] == "assistant":
        raise _Bad("begins with an answer, before any question")
    if any(one == other for one, other in zip(spoken, spoken[1:], strict=False)):
        raise _Bad("two messages of one role follow each other")
    if "assistant" not in spoken:
        raise _Bad("has no answer")
    left_out = spoken[-1] == "user"
    return (turns[:-1] if left_out else turns), left_out


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list",
             dict: "an object", type(None): "empty"}
    return names.get(type(value), type(value).__name__)


# ---- two parts

def split(conversations: Sequence[Conversation], share: float = 0.05, seed: int = 0,
          ) -> tuple[list[Conversation], list[Conversation]]:
    """(to train on, held out): at least `share` of the rows are held out, and no first question is on both sides.

    Questions are compared without regard to case and spaces. The order of the rows stays. Raises ValueError for a share
    outside 0 … 1, RowsError if all rows ask the same question.
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: take a part between 0 and 1, as 0.05")
    asked = [first_question(conversation) for conversation in conversations]
    counts = Counter(asked)
    questions = list(counts)
    if len(questions) < 2:
        raise RowsError(f"{len(asked)} rows ask {len(questions)} different first questions: with two or more, some can "
                        "be held out.")
    random.Random(seed).shuffle(questions)
    questions.sort(key=lambda question: counts[question] > max(1, share * len(asked)))  # a frequent one comes last
    held_out, count = set(), 0
    for question in questions[:-1]:
        if count >= share * len(asked):
            break
        held_out.add(question)
        count += counts[question]
    parts = ([], [])
    for question, conversation in zip(asked, conversations, strict=True):
        parts[question in held_out].append(conversation)
    return parts
