"""What the loss sees of a row."""

from __future__ import annotations

import random

from helpers.exercises.engine import Case, Exercise, Mistake
from helpers.finale.chat import mask_labels


def _padded(rng: random.Random) -> tuple[list[int], list[int], int]:
    left, real, right, pad = rng.randint(0, 3), rng.randint(2, 7), rng.randint(0, 3), rng.choice((0, 2))
    ids = [pad] * left + [rng.choice((1, 2, 11, 12, 21, 22)) for _ in range(real)] + [pad] * right
    return ids, [0] * left + [1] * real + [0] * right, rng.randint(0, real)


MASK_LABELS = Exercise(10, mask_labels, "★★ Build: labels that know where to stop · 8 min", """
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
    moral="In the lesson padding has a token of its own, and a cell counts the rows whose labels hold the end.")
