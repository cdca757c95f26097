"""Conversations for any chat model: messages, its template, the labels, what it answers and how well it predicts.

    print(prepare(tokenizer))                       # a template if it has none, a padding token of its own
    row = encode(tokenizer, messages, 512)          # {"input_ids", "labels"}: SFTTrainer takes such rows as they are
    answers(model, tokenizer, conversations)        # [(text, ended by itself), …]

Only what the assistant says is learnt, and the token that ends it. Where that stands is found in the text that the
template writes, so that no template needs marks for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import jinja2
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.pocket.evaluate import BUDGET, label_losses, write_on

Conversation = list[dict[str, str]]
Encoded = dict[str, list[int]]

# Llama-2's form, for a tokenizer without a template of its own: the pocket Llama's and Llama-2-7b-hf's. The `<s>` comes
# from here, so the text is tokenized without special tokens. Source: Touvron et al. 2023 (arXiv 2307.09288); the rows
# of guanaco-llama2-1k have the spaces.
LLAMA_2 = (
    "{% for message in messages %}{% if message.role == 'system' %}{% elif message.role == 'user' %}"
    "{{ bos_token + '[INST] ' }}{% if loop.index0 == 1 and messages[0].role == 'system' %}"
    "{{ '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' }}{% endif %}{{ message.content + ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + message.content + ' ' + eos_token }}{% endgeneration %}{% endif %}{% endfor %}")


def first_question(messages: Conversation) -> str:
    """The first question, without regard to case and spaces: what two rows are compared by."""
    question = next((message["content"] for message in messages if message["role"] == "user"), "")
    return " ".join(question.casefold().split())


class ChatError(ValueError):
    """A chat template, or a conversation under it, that cannot be trained on; the message says why and what to do."""


@dataclass(frozen=True)
class Form:
    """How a tokenizer writes conversations, as `prepare` found it.

    own: its own template, else Llama-2's. system: whether the template takes a system message; if not, its text goes in
    front of the first question. end: the token that ends an answer. pad: the padding token.
    """

    own: bool
    system: bool
    end: str
    pad: str

    def __str__(self) -> str:
        system = "as such" if self.system else "in front of the first question (the template takes none)"
        return (f"chat template: {'its own' if self.own else 'Llama-2, [INST] … [/INST]'}\nsystem message: {system}\n"
                f"an answer ends with: {self.end}\npadding: {self.pad}")

    __repr__ = __str__


def prepare(tokenizer: PreTrainedTokenizerBase) -> Form:
    """Give the tokenizer what training needs, in place: a chat template and a padding token that ends nothing.

    Its own template stays; without one it gets LLAMA_2. A padding token that is missing, or that also ends an answer,
    is replaced by `<unk>` (Llama-2), or by a token that was reserved for such use. Raises ChatError if there is none,
    or if the template writes no token after an answer.
    """
    own = tokenizer.chat_template is not None
    if not own:
        tokenizer.chat_template = LLAMA_2
    shape, stops = _shape(tokenizer), stop_ids(tokenizer)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in stops:
        tokenizer.pad_token = _spare(tokenizer, stops)
    return Form(own, shape.system, shape.end, tokenizer.pad_token)


def _spare(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> str:
    """A special token that no text contains: named for padding, else unknown, else reserved or unused."""
    special = {str(token): i for i, token in sorted(tokenizer.added_tokens_decoder.items())
               if token.special and i not in stops and i != tokenizer.bos_token_id}
    named = [name for name in special if "pad" in name.lower()]
    unknown = [name for name in special if name == tokenizer.unk_token]
    reserved = [name for name in special if "reserved" in name or "unused" in name or name == "<|endoftext|>"]
    for name in (*named, *unknown, *reserved):
        return name
    raise ChatError("no token is free for padding: set tokenizer.pad_token to one that no text contains and that does "
                    f"not end an answer; the special tokens are {', '.join(special) or 'none'}")


def stop_ids(tokenizer: PreTrainedTokenizerBase, generation_config: object | None = None) -> list[int]:
    """The tokens that end an answer: the tokenizer's and the generation config's eos, and the template's own.

    The last is `<|im_end|>`, `<end_of_turn>`, `<|eot_id|>` …: whatever the template writes after an answer.
    """
    configured = getattr(generation_config, "eos_token_id", None)
    ids = [tokenizer.eos_token_id, *(configured if isinstance(configured, list | tuple) else [configured]),
           tokenizer.convert_tokens_to_ids(_shape(tokenizer).end)]
    return sorted({i for i in ids if i is not None})


@dataclass(frozen=True)
class _Shape:
    system: bool
    end: str


def _shape(tokenizer: PreTrainedTokenizerBase) -> _Shape:
    """What a template does with a system message and after an answer, found by trying; once per template."""
    if tokenizer.chat_template is None:
        raise ChatError("the tokenizer has no chat template: call prepare(tokenizer) first")
    return _tried(tokenizer, tokenizer.get_chat_template())


@lru_cache(maxsize=16)
def _tried(tokenizer: PreTrainedTokenizerBase, template: str) -> _Shape:
    del template  # part of the key: a tokenizer's template can be replaced
    talk = [{"role": role, "content": f"{role}-{n}"} for n in (1, 2) for role in ("user", "assistant")]
    try:
        _, found, after = _render(tokenizer, talk[:2]).partition("assistant-1")
    except jinja2.TemplateError as error:
        raise ChatError(f"the chat template refuses a question and an answer: {error}") from error
    if not found:
        raise ChatError("the chat template does not write an answer as it is given: give the tokenizer another one")
    specials = sorted({str(token) for token in tokenizer.added_tokens_decoder.values()}, key=len, reverse=True)
    end = next((token for token in specials if after.lstrip().startswith(token)), None)
    if end is None:
        raise ChatError(f"the chat template writes no end token after an answer, but {after[:20]!r}: the model could "
                        "not learn to stop. Give the tokenizer another chat_template, as helpers.finale.chat.LLAMA_2.")
    spoken = [{"role": "system", "content": "system-0"}, *talk]
    try:
        whole = _render(tokenizer, spoken)
        first = _render(tokenizer, spoken[:2], prompt=True)
    except jinja2.TemplateError:
        return _Shape(False, end)
    return _Shape("system-0" in first and whole.startswith(first), end)


def _render(tokenizer: PreTrainedTokenizerBase, messages: Conversation, prompt: bool = False) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)


def fitted(tokenizer: PreTrainedTokenizerBase, messages: Conversation) -> Conversation:
    """The messages as the template takes them: where it takes no system message, that goes into the first question."""
    if _shape(tokenizer).system or messages[0]["role"] != "system":
        return messages
    system, question, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{question['content']}"}, *rest]


def encode(tokenizer: PreTrainedTokenizerBase, messages: Conversation, max_length: int | None = None) -> Encoded:
    """{"input_ids", "labels"} of a conversation: labels are -100 but on the assistant's tokens and each answer's end.

    Cut after max_length tokens, as TRL does. Rows of this kind are what `SFTTrainer` takes as tokenized already:
    labels that are there stay as they are (leave `assistant_only_loss` at False: it asks for messages).

    Each answer is looked for behind the prompt that the model will see when it has to answer: the template applied to
    all before it. A token that begins in the prompt and ends in the answer counts as the answer's. Raises ChatError
    where the template rewrites: a prompt that is no beginning of the whole, an answer that does not stand there as it
    was given (templates cut `<think>` out), no end token behind it.
    """
    messages = fitted(tokenizer, messages)
    whole = _written(tokenizer, messages)
    encoding = tokenizer(whole, add_special_tokens=False)
    ids = encoding["input_ids"]
    labels = [-100] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = _span(tokenizer, messages, turn, whole)
            first, last = encoding.char_to_token(start), encoding.char_to_token(end - 1)
            labels[first:last + 1] = ids[first:last + 1]
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def mask_labels(
    ids: list[int], attention_mask: list[int], prompt_length: int
) -> list[int]:
    """For each token its id, or -100 where it is padding or belongs to the prompt."""
    labels, seen = [], 0
    for token, real in zip(ids, attention_mask, strict=True):
        labels.append(token if real and seen >= prompt_length else -100)
        seen += real
    return labels


def _written(tokenizer: PreTrainedTokenizerBase, messages: Conversation, prompt: bool = False) -> str:
    try:
        return _render(tokenizer, messages, prompt)
    except jinja2.TemplateError as error:
        raise ChatError(f"the chat template refuses the conversation: {error}") from error


def _span(tokenizer: PreTrainedTokenizerBase, messages: Conversation, turn: int, whole: str) -> tuple[int, int]:
    """Where, in the whole text, the answer of a turn begins and ends, its end token inside."""
    end, answer = _shape(tokenizer).end, messages[turn]["content"].strip()
    prompt = _written(tokenizer, messages[:turn], prompt=True)
    if not whole.startswith(prompt):
        raise ChatError(f"the chat template writes what stands before message {turn + 1} differently once the answer "
                        "follows, so the model would be trained on another prompt than it will see. Keep one question "
                        "and one answer a row, or give the tokenizer another chat_template.")
    found = whole.find(answer, len(prompt))
    if found < 0 or end in whole[len(prompt):found]:
        raise ChatError(f"the chat template does not write the answer in message {turn + 1} as it was given: "
                        f"{answer[:40]!r}. If it cuts out <think> … </think>, take that out of your rows.")
    stop = found + len(answer)
    stop += len(whole[stop:]) - len(whole[stop:].lstrip())
    if not whole.startswith(end, stop):
        raise ChatError(f"the chat template writes no {end} after the answer in message {turn + 1}: the model could "
                        "not learn to stop there. Keep one question and one answer a row, or another chat_template.")
    return len(prompt), stop + len(end)


def teaches_to_stop(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Sequence[int]]) -> bool:
    """Whether an end is among the row's labels. A row with one answer loses it when it is cut."""
    return not set(stop_ids(tokenizer)).isdisjoint(row["labels"])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Conversation) -> list[int]:
    """The tokens of a conversation up to where the model has to answer its last question."""
    last = max((n for n, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise ChatError("a conversation without a question has nothing to answer")
    text = _written(tokenizer, fitted(tokenizer, messages[:last + 1]), prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, conversations: Sequence[Conversation],
            max_new_tokens: int = 256, budget: int = BUDGET) -> list[tuple[str, bool]]:
    """What the model answers (greedily) to each conversation's last question, and whether it ended by itself.

    An answer that already stands after that question is not shown to it. Batches are as large as `budget` bytes of KV
    cache allow (Llama-2-7B keeps half a MiB a token).
    """
    ids = [prompt_ids(tokenizer, messages) for messages in conversations]
    return write_on(model, tokenizer, ids, stop_ids(tokenizer, model.generation_config), max_new_tokens, budget)


def held_out_loss(model: PreTrainedModel, encoded: Sequence[Encoded],
                  budget: int = BUDGET) -> tuple[float, int]:
    """(mean loss in nats per label token, number of label tokens) of rows as `encode` gives them.

    A batch's logits take at most `budget` bytes. Raises ValueError if no row has a label.
    """
    losses, counts = label_losses(model, [row["input_ids"] for row in encoded], [row["labels"] for row in encoded],
                                  budget)
    if not counts.sum():
        raise ValueError("no row has a label: max_length cut all answers away, or there are no rows")
    return losses.sum().item() / counts.sum().item(), int(counts.sum())
