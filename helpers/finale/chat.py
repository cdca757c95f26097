"""Conversations: from the rows of a data set to messages that a chat template takes."""

from __future__ import annotations


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
