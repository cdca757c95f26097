"""A look at the data before training: how long, what is cut, what is there twice, what stands on both sides."""

from __future__ import annotations

import html
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from helpers.finale.chat import Conversation, encode, first_question, teaches_to_stop
from helpers.plots import BLUE, ORANGE, STYLE


@dataclass(frozen=True)
class Look:
    """The figures of `look`.

    lengths: tokens of every training row, uncut, in the order of the rows. cut: training rows longer than max_length.
    stopping: rows that still teach to stop. silent: rows of which no label is left; TRL leaves them out. repeated:
    training rows that are there before. overlap: held-out rows whose first question is trained on. Both by `words`.
    """

    lengths: tuple[int, ...]
    max_length: int
    held_out: int
    cut: int
    stopping: int
    silent: int
    repeated: int
    overlap: int

    def rows(self) -> list[tuple[str, str]]:
        count, share = len(self.lengths), lambda part, whole: f"{part:,} ({part / max(whole, 1):.0%})"
        return [("rows to train on", f"{count:,}"), ("rows held out", f"{self.held_out:,}"),
                ("tokens in a row: median", f"{statistics.median(self.lengths):,.0f}"),
                ("90 % have at most", f"{self.most(0.9):,}"), ("the longest", f"{max(self.lengths):,}"),
                (f"rows cut at max_length = {self.max_length:,}", share(self.cut, count)),
                ("rows that then teach to stop", share(self.stopping, count)),
                ("rows without any label left", share(self.silent, count)),
                ("rows that are there twice", share(self.repeated, count)),
                ("held-out rows whose question is trained on", share(self.overlap, self.held_out))]

    def most(self, part: float) -> int:
        """The length that this part of the rows does not exceed."""
        ordered = sorted(self.lengths)
        return ordered[max(0, math.ceil(part * len(ordered)) - 1)]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:{width}}  {value}" for name, value in self.rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = "<tr><td style='text-align:left'>{}</td><td>{}</td></tr>".format
        return f"<table>{''.join(cell(html.escape(name), value) for name, value in self.rows())}</table>"

    @property
    def alt(self) -> str:
        """What `figure` shows, in words."""
        count = len(self.lengths)
        return (f"Histogram of the tokens in a row: half of the {count:,} training rows have at most "
                f"{statistics.median(self.lengths):,.0f}, the longest {max(self.lengths):,}. A line marks max_length "
                f"at {self.max_length:,}; {self.cut / count:.0%} of the rows lie beyond it and lose their end.")

    def figure(self) -> Figure:
        """Histogram of the lengths; orange is what max_length cuts."""
        with mpl.rc_context(STYLE):
            fig = Figure(figsize=(7.2, 2.6))
            ax = fig.add_subplot(xlabel="tokens in a row", ylabel="rows")
            longest = max(*self.lengths, self.max_length)
            width = self.max_length / max(1, round(40 * self.max_length / longest))  # the line is the edge of a bar
            edges = [width * n for n in range(math.ceil(longest / width) + 1)]
            kept = [n for n in self.lengths if n <= self.max_length]
            lost = [n for n in self.lengths if n > self.max_length]
            ax.hist([kept, lost], bins=edges, stacked=True, color=[BLUE, ORANGE], label=["whole", "cut"])
            ax.axvline(self.max_length, color=ORANGE, linestyle="--")
            ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
            right = self.max_length > 0.6 * longest
            ax.annotate(f"max_length {self.max_length:,}", (self.max_length, 0.9), (-6 if right else 6, 0),
                        xycoords=("data", "axes fraction"), textcoords="offset points", ha="right" if right else "left")
            if lost:
                ax.legend(loc="center right")
        return fig


def look(train: Sequence[Conversation], held_out: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase,
         max_length: int) -> Look:
    """Count what training on these conversations would see, cut after max_length tokens.

    Raises ValueError without a training row, ChatError as `encode`.
    """
    if not train:
        raise ValueError("no row to train on: read some first")
    whole = [encode(tokenizer, messages) for messages in train]
    rows = [{name: row[name][:max_length] for name in row} for row in whole]
    asked = {words(first_question(messages)) for messages in train}
    seen = Counter(turns(messages) for messages in train)
    return Look(tuple(len(row["input_ids"]) for row in whole), max_length, len(held_out),
                cut=sum(len(row["input_ids"]) > max_length for row in whole),
                stopping=sum(teaches_to_stop(tokenizer, row) for row in rows),
                silent=sum(set(row["labels"]) <= {-100} for row in rows),
                repeated=sum(seen.values()) - len(seen),
                overlap=sum(words(first_question(messages)) in asked for messages in held_out))


def words(text: str) -> str:
    """Words and digits alone, without case: what makes two questions the same. A text of signs stays as it is."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def turns(messages: Conversation) -> tuple[tuple[str, str], ...]:
    """Who said which `words`, in order: what makes two rows the same."""
    return tuple((message["role"], words(message["content"])) for message in messages)
