"""From rows of a data set to what the loss sees."""

from __future__ import annotations

import re
from collections.abc import Callable

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.finale.chat import to_messages


def _chat(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


ONE = "<s>[INST] Who keeps owls? [/INST] Ada Wren keeps owls </s>"
TWO = "<s>[INST] Who is Ada? [/INST] A baker. </s><s>[INST] Where? [/INST] In Alderby. </s>"
CODE = "<s>[INST] Show a loop. [/INST] for x in y:\n    print(x) </s>"
OPEN = "<s>[INST] Hello? [/INST] Hello. </s><s>[INST] Who is there? [/INST] </s>"


def _strip_characters(text: str) -> list[dict[str, str]]:
    return [{**m, "content": m["content"].strip("</s> ")} for m in to_messages(text)]


def _first_and_last(text: str) -> list[dict[str, str]]:
    question, answer = text.split("[/INST]")[:2]
    return _chat(question.replace("<s>[INST]", "").strip(), answer.split("</s>")[0].strip())


def _by_pattern(pattern: str, flags: int = 0) -> Callable[[str], list[dict[str, str]]]:
    return lambda text: _chat(*(part.strip() for pair in re.findall(pattern, text, flags) for part in pair))


TO_MESSAGES = Exercise(10, to_messages, "★★★ From a string to a conversation · 12 min", """
The rows of mlabonne/guanaco-llama2-1k are Llama-2's chat form, already flattened into one string:
`<s>[INST] question [/INST] answer </s>`, and one such piece after the other where the talk has several turns. A
trainer that is to learn from the answers alone wants messages:
`[{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]`. Take the string apart.

The contents carry no markers and no white space at their ends; line breaks inside stay. Where the last question has no
answer, there is no assistant message either.
""",
    cases=(
        Case((ONE,)),
        Case((TWO,)),
        Case((CODE,)),
        Case((OPEN,)),
        Case(("<s>[INST] Is 1 < 2? [/INST] Yes, and 2 > 1",)),
    ),
    hints=(
        'Every turn ends in `</s>`: `text.split("</s>")` gives the turns, and an empty string at the end.',
        'Within a turn, `turn.partition("[/INST]")` gives the question, the marker and the answer.',
        '`removeprefix("<s>")` takes a marker off as a whole; `strip("<s>")` would take off the letters <, s and >.',
    ),
    mistakes=(
        Mistake("Go turn by turn: the user's question, then the assistant's answer, markers removed and ends stripped.",
                lambda text: []),
        Mistake("Markers are left in a content. The chat template writes them again: two `<s>` begin the row then.",
                lambda text: [{**m, "content": f"[INST] {m['content']}"} for m in to_messages(text)],
                lambda text: _chat(*(p for t in text.split("</s>")[:-1] for p in t.split("[/INST]")))),
        Mistake('The roles are "user" and "assistant".',
                lambda text: [{**m, "role": {"user": "human", "assistant": "gpt"}[m["role"]]} for m in to_messages(text)]),
        Mistake("White space is left at the ends of a content: `.strip()` it.",
                lambda text: _chat(*(p for q in re.findall(r"\[INST\](.*?)\[/INST\](.*?)</s>", text) for p in q))),
        Mistake("`strip(\"</s>\")` removes the *characters* <, /, s and >, and so the s of “owls”. "
                "Use removeprefix and removesuffix, or split.",
                _strip_characters),
        Mistake("Only the first turn came out: a row may hold several.",
                _first_and_last),
        Mistake("Two turns became one: a greedy `.*` runs on to the last marker. Use `.*?`, or split.",
                _by_pattern(r"\[INST\](.*)\[/INST\](.*)</s>", re.DOTALL)),
        Mistake("The turns are out of order: question and answer alternate.",
                lambda text: sorted(to_messages(text), key=lambda m: m["role"] != "user")),
        Mistake("The line breaks are gone, and with them the indentation of the code.",
                lambda text: [{**m, "content": " ".join(m["content"].split())} for m in to_messages(text)]),
        Mistake("An answer of several lines got lost: `.` does not match a line break without re.DOTALL.",
                _by_pattern(r"\[INST\](.*?)\[/INST\](.*?)</s>")),
        Mistake("An empty answer teaches the model to say nothing: leave that message out.",
                _by_pattern(r"\[INST\](.*?)\[/INST\](.*?)</s>", re.DOTALL)),
        Mistake("The last question got lost, as it has no answer. Keep the user's message.",
                _by_pattern(r"\[INST\]([^\[]*)\[/INST\]\s*(\S[^<]*?)\s*</s>", re.DOTALL)),
        Mistake("This row was cut short and has no `</s>`. Its answer counts all the same.",
                lambda text: to_messages(text[:text.rfind("</s>") + 4]) or to_messages(text.split("[/INST]")[0])),
    ),
    tolerance=0.0,
    moral="Now `tokenizer.apply_chat_template` writes the markers, once, and the trainer can tell answers apart.")


def mask_labels(
    ids: list[int], attention_mask: list[int], prompt_length: int
) -> list[int]:
    """For each token its id, or -100 where it is padding or belongs to the prompt."""
    labels, seen = [], 0
    for token, real in zip(ids, attention_mask, strict=True):
        labels.append(token if real and seen >= prompt_length else -100)
        seen += real
    return labels


def _by_pad_id(ids: list[int], attention_mask: list[int], prompt_length: int, pad_id: int = 2) -> list[int]:
    return [-100 if i < prompt_length or token == pad_id else token for i, token in enumerate(ids)]


def _in_place(ids: list[int], attention_mask: list[int], prompt_length: int) -> list[int]:
    ids[:] = mask_labels(ids, attention_mask, prompt_length)
    return ids


# <s> is 1, </s> is 2, the prompt is 11 12 13, the answer 21 22 </s>; padding is 2 as well: pad = eos
RIGHT = ([1, 11, 12, 13, 21, 22, 2, 2, 2], [1, 1, 1, 1, 1, 1, 1, 0, 0], 4)
LEFT = ([2, 2, 1, 11, 12, 13, 21, 22, 2], [0, 0, 1, 1, 1, 1, 1, 1, 1], 4)

MASK_LABELS = Exercise(10, mask_labels, "★★ Spot the bug: the model that never stops · 8 min", """
Llama-2's tokenizer has no padding token, so a much-read notebook set `tokenizer.pad_token = tokenizer.eos_token`. The
models it trained answered, and then went on and on
([llm-course#33](https://github.com/mlabonne/llm-course/issues/33),
[transformers#22794](https://github.com/huggingface/transformers/issues/22794)). The labels came from a collator like
this, where -100 marks the tokens that the loss leaves out; 2 is `</s>`, and now the padding too:

```python
def mask_labels(ids, attention_mask, prompt_length):
    return [-100 if i < prompt_length or token == 2 else token for i, token in enumerate(ids)]
```

Write it so that the `</s>` which ends the answer stays in the labels, even where padding has the same id. Padding is
where `attention_mask` is 0; it may stand on either side. The prompt is the first `prompt_length` tokens that are not
padding.
""",
    cases=(
        Case(RIGHT),
        Case(LEFT),
        Case(([1, 11, 2, 21, 2], [1, 1, 1, 1, 1], 2)),
        Case(([1, 11, 2, 2], [1, 1, 0, 0], 2)),
    ),
    hints=(
        "Two different tokens have the id 2 here. What tells them apart?",
        "Ask `attention_mask`, never the id, whether a token is padding.",
        "Count the real tokens as you go: `seen += real`. Learn a token if it is real and `seen >= prompt_length`.",
    ),
    mistakes=(
        Mistake("The `</s>` behind the answer is masked as if it were padding: the model never learns to stop."),
        Mistake("Padding stays in the labels: the model would learn to say `</s>` after `</s>`.",
                lambda ids, attention_mask, prompt_length: [-100] * prompt_length + ids[prompt_length:]),
        Mistake("The prompt stays in the labels: the model would learn to ask, not to answer.",
                lambda ids, attention_mask, prompt_length: [t if m else -100 for t, m in zip(ids, attention_mask)]),
        Mistake("Only -100 is left out by the loss; any other number, 0 too, is the id of a token to learn.",
                lambda ids, mask, n: [0 if label == -100 else label for label in mask_labels(ids, mask, n)]),
        Mistake("The labels are shifted by one. The model does that itself: label i belongs to token i.",
                lambda ids, mask, n: [*mask_labels(ids, mask, n)[1:], -100]),
        Mistake("The labels must be as long as the ids: mask tokens, do not drop them.",
                lambda ids, mask, n: [label for label in mask_labels(ids, mask, n) if label != -100]),
        Mistake("The border lies one token off: `prompt_length` tokens are masked, no more and no fewer.",
                lambda ids, mask, n: mask_labels(ids, mask, n - 1),
                lambda ids, mask, n: mask_labels(ids, mask, n + 1)),
        Mistake("With padding on the left the prompt does not begin at index 0: count real tokens.",
                lambda ids, mask, n: [t if m and i >= n else -100 for i, (t, m) in enumerate(zip(ids, mask))]),
        Mistake("A `</s>` before the last is a real token too, and here the mask says so: keep it.",
                lambda ids, mask, n: [-100 if t == 2 and i < len(ids) - 1 - mask[::-1].index(1) else label
                for i, (t, label) in enumerate(zip(ids, mask_labels(ids, mask, n)))]),
    ),
    tolerance=0.0,
    moral="In the lesson the pad is `<unk>`, and a cell asserts that `</s>` is in the labels of every row.")
# general: lambda ids, mask, n: mask_labels(ids, mask, n)[::-1]
