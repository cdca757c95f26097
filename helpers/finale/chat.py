"""Conversations: from the rows of a data set to messages that a chat template takes."""

from __future__ import annotations

# SmolLM2-Instruct's own template, with the assistant's part marked for the loss: its words and the end token, not the
# line break after it. Whoever gives no system message gets the one that the model was tuned with.
CHATML = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

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
