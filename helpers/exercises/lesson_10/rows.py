"""From rows of a data set to what the loss sees."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.finale.chat import to_messages


def _matched(pattern: str, flags: int = re.DOTALL) -> Callable[[str], list[dict[str, str]]]:
    """A solution by a regular expression with two groups, question and answer."""
    return lambda text: [{"role": role, "content": part.strip()} for pair in re.findall(pattern, text, flags)
                         for role, part in zip(("user", "assistant"), pair, strict=True)]


def _row(rng: random.Random) -> tuple[str]:
    texts = ("Is x[0] < 2?", "Show\n\na loop", "if a > b:\n    return s", "No", "Sets  and\ttests",
             "[1, 2]", "<b>Tea</b>")
    row = "".join(f"<s>[INST] {rng.choice(texts)} [/INST] {rng.choice(texts)} </s>" for _ in range(rng.randint(1, 4)))
    return (row + rng.choice(("", "<s>[INST] Why? [/INST] </s>", "<s>[INST] Why? [/INST] So it is")),)


ONE = "<s>[INST] Who bakes? [/INST] Ada bakes. </s>"
TO_MESSAGES = Exercise(10, to_messages, "★★★ From a string to a conversation · 12 min", """
The rows of mlabonne/guanaco-llama2-1k are Llama-2's chat form, already flattened into one string:
`<s>[INST] question [/INST] answer </s>`, and one such piece after the other where the talk has several turns. A
trainer that is to learn from the answers alone wants messages:
`[{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]`. Take the string apart.

The contents carry no markers and no white space at their ends; line breaks inside stay. Where the last question has no
answer, there is no assistant message either. A row that was cut short lacks its last `</s>`; its answer counts.
""",
    cases=((ONE,), Case((f"{ONE}<s>[INST] Where? [/INST] In Alderby. </s>",), about="a second turn"),
           Case(("<s>[INST] Who? [/INST] Ada keeps owls </s>",), about="an answer that ends in a letter of `</s>`"),
           Case(("<s>[INST] Is it Ada? [/INST] Yes. </s>",), about="a question that begins with a letter of `[INST]`"),
           Case(("<s>[INST] A loop? [/INST] for x in y:\n    print(x) </s>",), about="an answer of two lines"),
           Case(("<s>[INST] So:\n1 + 1? [/INST] Two. </s>",), about="a question of two lines"),
           Case(("<s>[INST] Who?\n [/INST] Ada.\n </s>",), about="a line break at the end of a content"),
           Case(("<s>[INST] Is 1 < x[0]? [/INST] 2 > 1. </s>",), about="a `<`, a `>` or a `[` in a content"),
           Case((f"{ONE}<s>[INST] Who is there? [/INST] </s>",), about="a last question without an answer"),
           Case((f"{ONE}<s>[INST] Where? [/INST] In Alder",), about="a row that was cut short, without a last `</s>`")),
    hints=('Every turn ends in `</s>`: `text.split("</s>")` gives the turns, and an empty string at the end.',
           'Within a turn, `turn.partition("[/INST]")` gives the question, the marker and the answer.',
           '`removeprefix("<s>")` takes a marker off as a whole; `strip("<s>")` takes off the letters <, s and >.'),
    mistakes=(
        Mistake("Markers are left in a content. The chat template writes them again: two `<s>` begin the row then.",
                ('.removeprefix("[INST]")', ""), ('.removeprefix("<s>")', ""),
                ('text.split("</s>")', 'text.split("<s>")')),
        Mistake("`strip` and its kin take a *set of characters* off: letters of the content that stand in the marker "
                "go as well. removeprefix, removesuffix and split take whole markers.",
                ("answer.strip()}", 'answer.strip("</s> ")}'), ('.removeprefix("[INST]")', '.strip("[INST] ")'),
                ('turn.strip().removeprefix("<s>")', "turn",
                 'question.strip().removeprefix("[INST]")', 'question.lstrip("<s>[INST] ")')),
        Mistake("Only one turn came out: a row may hold several.", ('"</s>")', '"</s>")[:1]'),
                ("    return messages", "        return messages")),
        Mistake("Two turns became one: a greedy `.*` runs on to the last marker. `.*?` stops at the next.",
                _matched(r"\[INST\](.*)\[/INST\](.*)</s>")),
        Mistake("All questions came first, then all answers: they alternate.",
                lambda text: sorted(to_messages(text), key=lambda m: m["role"] != "user")),
        Mistake("A turn of several lines got lost: `.` does not match a line break without re.DOTALL.",
                _matched(r"\[INST\](.*?)\[/INST\](.*?)(?:</s>|$)", 0)),
        Mistake("The pattern allows no `<` or `[` inside a content, and there is one.",
                _matched(r"\[INST\]([^\[]*)\[/INST\]([^<]*)")),
        Mistake("What stands behind the last `</s>` is an empty string: it is no turn.",
                ("question, _, answer", "question, answer", "partition", "split"), ("if question:", "if True:")),
    ),
    draw=_row,
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


def _padded(rng: random.Random) -> tuple[list[int], list[int], int]:
    left, real, right, pad = rng.randint(0, 3), rng.randint(2, 7), rng.randint(0, 3), rng.choice((0, 2))
    ids = [pad] * left + [rng.choice((1, 2, 11, 12, 21, 22)) for _ in range(real)] + [pad] * right
    return ids, [0] * left + [1] * real + [0] * right, rng.randint(0, real)


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
where `attention_mask` is 0; it may stand on either side, even on both. The prompt is the first `prompt_length` tokens
that are not padding.
""",
    cases=(([1, 11, 12, 21, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0], 3),  # <s>, a prompt, an answer, </s>, padding
           Case(([2, 2, 1, 11, 12, 21, 2], [0, 0, 1, 1, 1, 1, 1], 3), about="padding on the left"),
           Case(([2, 1, 11, 12, 21, 2, 2], [0, 1, 1, 1, 1, 1, 0], 3), about="padding on both sides"),
           Case(([1, 11, 21, 22, 2, 0, 0], [1, 1, 1, 1, 1, 0, 0], 2), about="padding of another id than 2"),
           Case(([1, 11, 21, 2, 22, 2], [1] * 6, 2), about="a `</s>` in the middle of the answer"),
           Case(([1, 2, 11, 21, 2], [1] * 5, 3), about="a `</s>` in the prompt"),
           Case(([21, 22, 2, 2], [1, 1, 1, 0], 0), about="a prompt of no token"),
           Case(([1, 11, 2, 2], [1, 1, 0, 0], 2), about="a prompt that fills the row")),
    hints=("Two different tokens have the id 2 here. What tells them apart?",
           "Ask `attention_mask`, never the id, whether a token is padding.",
           "Count the real tokens as you go: `seen += real`. Learn a token if it is real and `seen >= prompt_length`."),
    mistakes=(
        Mistake("The `</s>` behind the answer is masked as if it were padding: the model never learns to stop.",
                None, ("if real", "if token != 2")),
        Mistake("Padding stays in the labels: the model would learn to go on after `</s>`.", ("real and seen", "seen"),
                lambda ids, attention_mask, prompt_length: [-100] * prompt_length + ids[prompt_length:]),
        Mistake("The wrong part is masked: the prompt stays in the labels, and the answer is left out.", (">=", "<")),
        Mistake("The loss leaves out -100 alone; 0, for example, is the id of a token to learn.",
                ("-100)", "0)"), ("-100)", "-1)"), ("-100)", "100)"), ("-100)", "None)")),
        Mistake("The labels are shifted by one. The model does that itself: label i belongs to token i.",
                ("return labels", "return labels[1:] + [-100]"), ("return labels", "return [-100] + labels[:-1]")),
        Mistake("The labels must be as long as the ids: mask tokens, do not drop them.",
                ("return labels", "return [label for label in labels if label != -100]")),
        Mistake("The border lies one token off: `prompt_length` tokens are masked, no more and no fewer.",
                (">= prompt_length", "> prompt_length"), (">= prompt_length", ">= prompt_length - 1")),
        Mistake("With padding on the left the prompt does not begin at index 0: count real tokens.",
                ("seen += real", "seen += 1")),
        Mistake("Padding behind the answer moves the prompt as well: count only what stands before it.",
                lambda ids, mask, n: [t if m and i >= n + mask.count(0) else -100
                                      for i, (t, m) in enumerate(zip(ids, mask, strict=True))]),
    ),
    draw=_padded,
    moral="In the lesson the pad is `<unk>`, and a cell asserts that `</s>` is in the labels of every row.")
