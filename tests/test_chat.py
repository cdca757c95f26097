"""Any chat template: labels against the marks of TRL's own training templates, and against a real SFTTrainer."""

import pytest
import torch
from datasets import Dataset
from families import FAMILIES, TEMPLATES, family_model, family_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from standins import write_llama2_tokenizer
from transformers import AutoTokenizer

from helpers.finale.chat import (
    LLAMA_2,
    ChatError,
    answers,
    encode,
    fitted,
    held_out_loss,
    prepare,
    prompt_ids,
    stop_ids,
    teaches_to_stop,
)
from helpers.finale.conversations import to_conversations
from helpers.pocket import WEIGHTS, evaluate, world

LESSON_10 = (  # what lesson 10 writes into the tokenizer
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + message.content + ' [/INST]' }}"
    "{% else %}{% generation %}{{ ' ' + message.content + ' ' + eos_token }}{% endgeneration %}{% endif %}{% endfor %}")


def talk(*contents, system=None):
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return ([{"role": "system", "content": system}] if system else []) + messages


ONE = talk("Who is there?", "A baker.")
TWO = talk("Who is there?", "A baker.", "What does she keep?", "She keeps a cat.")
TOLD = talk("Who is there?", "A baker.", "What?", "A cat.", system="Answer in one word.")


def by_marks(tokenizer, messages, template=None):
    """Ids and labels as transformers makes them from a template's generation marks."""
    out = tokenizer.apply_chat_template(messages, chat_template=template, return_dict=True,
                                        return_assistant_tokens_mask=True)
    labels = [i if mark else -100 for i, mark in zip(out["input_ids"], out["assistant_masks"], strict=True)]
    return {"input_ids": out["input_ids"], "labels": labels}


def taught(tokenizer, row):
    """The learnt text, one string a stretch of labels."""
    stretches, last = [], -100
    for label in row["labels"]:
        if label != -100:
            stretches = stretches + [[label]] if last == -100 else stretches[:-1] + [stretches[-1] + [label]]
        last = label
    return [tokenizer.decode(stretch) for stretch in stretches]


@pytest.fixture(scope="module")
def pocket_tokenizer():
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS)
    prepare(tokenizer)
    return tokenizer


# ---- labels

@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("messages", [ONE, TWO, TOLD], ids=["one", "two", "told"])
def test_only_the_assistant_is_learnt_and_its_end(name, messages):
    tokenizer = family_tokenizer(name)
    form = prepare(tokenizer)
    assert form.end == FAMILIES[name].end and form.system == FAMILIES[name].system and form.own
    row = encode(tokenizer, messages)
    spoken = [message["content"] for message in messages if message["role"] == "assistant"]
    texts = [text.replace("<think>\n\n</think>\n\n", "") for text in taught(tokenizer, row)]
    assert [text.strip() for text in texts] == [text + form.end for text in spoken]
    whole = tokenizer.decode(row["input_ids"])
    assert all(message["content"] in whole for message in messages)
    assert row["input_ids"].count(tokenizer.bos_token_id) == ("bos_token" in tokenizer.chat_template)
    assert teaches_to_stop(tokenizer, row)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("messages", [ONE, TWO, TOLD], ids=["one", "two", "told"])
def test_the_prompt_is_what_the_answer_was_learnt_after(name, messages):
    tokenizer = family_tokenizer(name)
    row, prompt = encode(tokenizer, messages), prompt_ids(tokenizer, messages)
    assert row["input_ids"][:len(prompt)] == prompt
    assert row["labels"][len(prompt) - 1] == -100 != row["labels"][len(prompt)]


@pytest.mark.parametrize("name", ["llama 3", "qwen 2.5", "gemma", "gemma 3", "phi 3"])
@pytest.mark.parametrize("messages", [ONE, TWO, TOLD], ids=["one", "two", "told"])
def test_labels_are_those_of_trls_training_templates(name, messages):
    """But for line breaks: some of TRL's learn one that stands in the prompt, or what follows the end."""
    tokenizer, end = family_tokenizer(name), FAMILIES[name].end
    template = (TEMPLATES / f"{FAMILIES[name].template}_training.jinja").read_text(encoding="utf-8")
    ours, theirs = encode(tokenizer, messages), by_marks(tokenizer, fitted(tokenizer, messages), template)
    assert ours["input_ids"] == theirs["input_ids"]
    assert taught(tokenizer, ours) == [text.lstrip().partition(end)[0] + end for text in taught(tokenizer, theirs)]


def test_the_pocket_tier_learns_what_lesson_10_has(pocket_tokenizer):
    rows = world.instruction_rows(world.make_world().taught)[:300]
    conversations = to_conversations(rows)
    marked = AutoTokenizer.from_pretrained(WEIGHTS)
    marked.chat_template = LESSON_10
    for row, messages in zip(rows, conversations, strict=True):
        ours = encode(pocket_tokenizer, messages)
        assert ours == by_marks(marked, messages)
        assert ours["input_ids"] == marked(row["text"], add_special_tokens=False)["input_ids"]


def test_llama_2s_tokenizer_with_two_turns_and_a_system_message(tmp_path):
    write_llama2_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    form = prepare(tokenizer)
    assert (form.own, form.pad, form.end, form.system) == (False, "<unk>", "</s>", True)
    assert tokenizer.chat_template == LLAMA_2
    assert encode(tokenizer, TWO) == by_marks(tokenizer, TWO, LESSON_10)
    assert encode(tokenizer, TOLD) == by_marks(tokenizer, TOLD)
    text = ("<s>[INST] <<SYS>>\nAnswer in one word.\n<</SYS>>\n\nWho is there? [/INST] A baker. </s>"
            "<s>[INST] What? [/INST] A cat. </s>")
    assert tokenizer.apply_chat_template(TOLD, tokenize=False) == text
    assert to_conversations([{"text": text}])[0] == TOLD
    prompt = prompt_ids(tokenizer, TOLD)  # this tokenizer would put a second <s> in front
    assert encode(tokenizer, TOLD)["input_ids"][:len(prompt)] == prompt and prompt[:2].count(1) == 1


def test_gemma_gets_the_system_message_in_its_first_question():
    tokenizer = family_tokenizer("gemma")
    assert "first question" in str(prepare(tokenizer))
    assert fitted(tokenizer, TOLD)[0] == {"role": "user", "content": "Answer in one word.\n\nWho is there?"}
    assert "Answer in one word.\n\nWho is there?" in tokenizer.decode(prompt_ids(tokenizer, TOLD))
    assert "first question" not in str(prepare(family_tokenizer("qwen 3")))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=6))
def test_any_text_gives_labels_or_says_why(name, texts):
    """Whatever is said: the labels are tokens of the row, and the answers stand in them."""
    tokenizer = family_tokenizer(name)
    messages = talk(*texts[:len(texts) // 2 * 2])
    try:
        row = encode(tokenizer, messages)
    except ChatError:
        assert name == "qwen 3" or any(mark in text for text in texts for mark in FAMILIES[name].specials)
        return
    assert all(label in (-100, i) for i, label in zip(row["input_ids"], row["labels"], strict=True))
    stretches = taught(tokenizer, row)
    assert len(stretches) == len(messages) // 2 and all(text.endswith(FAMILIES[name].end) for text in stretches)


# ---- templates that rewrite

def test_a_template_that_cuts_thinking_out_is_refused():
    tokenizer = family_tokenizer("qwen 3")
    with pytest.raises(ChatError, match="message 2 as it was given.*<think>"):
        encode(tokenizer, talk("Who?", "<think>Hm.</think>A baker.", "What?", "A cat."))


@pytest.mark.parametrize("template, why", [
    ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", "no end token"),
    ("{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' and loop.last %}{{ eos_token }}{% endif %}"
     "{% endfor %}", r"no <\|im_end\|> after the answer in message 2"),
    ("{{ messages | length }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}", "another prompt"),
    ("{{ raise_exception('no chat') }}", "no chat"),
    ("{% for m in messages %}{{ m.content | upper + eos_token }}{% endfor %}", "does not write an answer"),
])
def test_templates_that_cannot_be_trained_on(template, why):
    tokenizer = family_tokenizer("qwen 2.5")
    tokenizer.chat_template = template
    with pytest.raises(ChatError, match=why):
        encode(tokenizer, TWO)


def test_without_a_template_it_says_prepare():
    tokenizer = family_tokenizer("mistral")
    tokenizer.chat_template = None
    with pytest.raises(ChatError, match="prepare"):
        encode(tokenizer, ONE)


# ---- padding and stopping

@pytest.mark.parametrize("name, pad", [
    ("llama 3", "<|reserved_special_token_0|>"), ("mistral", "<unk>"), ("qwen 2.5", "<|endoftext|>"),
    ("qwen 2.5 base", "<|fim_pad|>"), ("gemma", "<pad>"), ("phi 3", "<unk>")])
def test_padding_ends_nothing(name, pad):
    tokenizer = family_tokenizer(name)
    assert prepare(tokenizer).pad == tokenizer.pad_token == pad
    assert tokenizer.pad_token_id not in stop_ids(tokenizer)


def test_no_token_to_spare():
    tokenizer = family_tokenizer("mistral")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = LLAMA_2.replace("eos_token", "'<unk>'")
    with pytest.raises(ChatError, match="set tokenizer.pad_token"):
        prepare(tokenizer)


def test_every_token_that_stops():
    tokenizer, model = family_tokenizer("llama 3"), family_model("llama 3")
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 7]
    names = tokenizer.convert_tokens_to_ids(["<|end_of_text|>", "<|eot_id|>"])
    assert stop_ids(tokenizer) == sorted(names)
    assert stop_ids(tokenizer, model.generation_config) == sorted([*names, 7])


def test_cut_rows_do_not_teach_to_stop():
    tokenizer = family_tokenizer("gemma")
    whole = encode(tokenizer, ONE)
    cut = encode(tokenizer, ONE, len(whole["input_ids"]) - 2)  # the line break and the end
    assert teaches_to_stop(tokenizer, whole) and not teaches_to_stop(tokenizer, cut)
    assert cut == {name: ids[:-2] for name, ids in whole.items()}


# ---- through TRL

@pytest.mark.parametrize("name", ["llama 3", "gemma"])
def test_sfttrainer_takes_the_rows_as_they_are(name, tmp_path):
    from trl import SFTConfig, SFTTrainer

    tokenizer = family_tokenizer(name)
    prepare(tokenizer)
    conversations = [ONE, TWO, TOLD, talk("What " * 40, "A cat.")]
    length = len(encode(tokenizer, TWO)["input_ids"]) - 3
    rows = [encode(tokenizer, messages) for messages in conversations]
    config = SFTConfig(output_dir=str(tmp_path), max_length=length, max_steps=1, per_device_train_batch_size=4,
                       report_to="none", disable_tqdm=True, use_cpu=True, bf16=False, logging_steps=1)
    trainer = SFTTrainer(model=family_model(name), args=config, train_dataset=Dataset.from_list(rows),
                         processing_class=tokenizer)
    ours = [encode(tokenizer, messages, length) for messages in conversations[:3]]  # the fourth has no label left
    theirs = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in trainer.train_dataset]
    assert theirs == ours
    batch = trainer.data_collator(theirs)
    assert [[x for x in labels if x != -100] for labels in batch["labels"].tolist()] == [
        [x for x in row["labels"] if x != -100] for row in ours]
    before, tokens = held_out_loss(trainer.model, ours)
    trainer.train()
    (log,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert log["loss"] == pytest.approx(before, abs=2e-3)
    assert tokens == sum(label != -100 for row in ours for label in row["labels"][1:])


# ---- what it answers, and how well it predicts

def test_answers_do_not_depend_on_the_batch():
    tokenizer, model = family_tokenizer("llama 3"), family_model("llama 3")
    prepare(tokenizer)
    conversations = [ONE, TWO, TOLD, talk("What does she keep, and who lives in Dunmere?", "A cat.")]
    together = answers(model, tokenizer, conversations, max_new_tokens=8)
    alone = [answers(model, tokenizer, [messages[:-1]], max_new_tokens=8)[0] for messages in conversations]
    assert together == alone == answers(model, tokenizer, conversations, max_new_tokens=8, budget=1)


def test_answers_stop_at_the_templates_end():
    """A model that always says <|eot_id|>, which is not its eos."""
    tokenizer, model = family_tokenizer("llama 3"), family_model("llama 3")
    prepare(tokenizer)
    say(model, tokenizer.convert_tokens_to_ids("<|eot_id|>"))
    assert answers(model, tokenizer, [ONE, TWO], max_new_tokens=5) == [("", True)] * 2
    say(model, tokenizer.convert_tokens_to_ids("a"))
    assert answers(model, tokenizer, [ONE], max_new_tokens=5) == [("aaaaa", False)]


def say(model, token):
    """Let the head prefer one token, whatever the hidden state: its weights become the last norm's constant output."""
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(len(model.lm_head.weight)))
        model.lm_head.bias[token] = 1


def test_the_cache_and_the_logits_stay_below_the_budget(monkeypatch):
    tokenizer, model = family_tokenizer("qwen 3"), family_model("qwen 3")  # heads of 16, not 32 / 4
    assert evaluate.kept_bytes(model) == 2 * 2 * 2 * 16 * 4
    sizes, generate = [], model.generate
    monkeypatch.setattr(model, "generate", lambda **more: (sizes.append(more["input_ids"].shape), generate(**more))[1])
    budget = 60_000 + 3 * 8 * len(tokenizer)
    answers(model, tokenizer, [ONE] * 6, max_new_tokens=8, budget=budget)
    cost = [rows * ((length + 8) * evaluate.kept_bytes(model) + 8 * len(tokenizer)) for rows, length in sizes]
    assert sum(rows for rows, _ in sizes) == 6 and 1 < max(rows for rows, _ in sizes) and max(cost) <= budget


def test_held_out_loss_is_the_models_own_and_its_logits_are_bounded():
    tokenizer, model = family_tokenizer("mistral"), family_model("mistral")
    rows = [encode(tokenizer, messages) for messages in [ONE, TWO, TWO, ONE, ONE]]
    losses, counts = [], []
    for row in rows:
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        losses.append(model(input_ids=ids, labels=labels).loss.item())
        counts.append(int((labels != -100).sum()))
    expected = sum(x * n for x, n in zip(losses, counts, strict=True)) / sum(counts)
    budget = 2 * 4 * len(rows[0]["input_ids"]) * len(tokenizer) + 100
    seen = []
    hook = model.lm_head.register_forward_hook(lambda module, given, logits: seen.append(logits.nbytes))
    mean, tokens = held_out_loss(model, rows, budget)
    hook.remove()
    assert (mean, tokens) == (pytest.approx(expected, rel=1e-5), sum(counts))
    one_long = 4 * len(rows[1]["input_ids"]) * len(tokenizer)
    assert len(seen) == 4 and max(seen) <= max(budget, one_long)
    assert held_out_loss(model, rows)[0] == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="no row has a label"):
        held_out_loss(model, [{"input_ids": [1, 2], "labels": [-100, -100]}])
