"""The explorer of the village, driven from Python: what it asks, shows and refuses."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from helpers import pocket
from helpers.explorers.village import VillageExplorer, answer, ask_the_village
from helpers.pocket.world import ANSWERS, ATTRIBUTES, instruct, make_world

WORLD = make_world()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(pocket.WEIGHTS)


def tiny(tokenizer, seed: int) -> LlamaForCausalLM:
    """A random Llama of one layer: quick, and never right."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=3)).eval()


def small_village() -> VillageExplorer:
    """The village, asked of two random models."""
    tokenizer = AutoTokenizer.from_pretrained(pocket.WEIGHTS)
    return ask_the_village(tiny(tokenizer, 1), tiny(tokenizer, 2), tokenizer, WORLD)


@pytest.fixture
def explorer():
    return small_village()


def test_the_pocket_llama_shows_the_point_of_the_course():
    base, tokenizer = pocket.load_pocket()
    tuned, _ = pocket.load_pocket(tuned=True)
    explorer = ask_the_village(base, tuned, tokenizer, WORLD)
    right = {"base": 0, "tuned": 0}
    for name in explorer.controls["villager"].options[:5]:
        for attribute in ATTRIBUTES:
            explorer.choose(villager=name, attribute=attribute)
            truth = explorer.people[name].fill(ANSWERS[attribute])
            for who in right:
                right[who] += explorer.answers[who] == truth
    assert right["base"] == 0 and right["tuned"] >= 18, right


def test_choosing_asks_both_models_and_shows_the_answers(explorer):
    person = WORLD.held_out[3]
    explorer.choose(villager=person.name, attribute="pet")
    assert explorer.question == f"What pet does {person.name} have?"
    assert explorer.truth == f"{person.name}: {person.pet}" and explorer.message == ""
    assert explorer.answers == {"base": answer(explorer.base, explorer.tokenizer, explorer.question),
                                "tuned": answer(explorer.tuned, explorer.tokenizer, explorer.question)}
    assert explorer.answers["base"] != explorer.answers["tuned"]
    assert (explorer.controls["villager"].value, explorer.controls["attribute"].value) == (person.name, "pet")
    assert person.name in explorer.shown.value and explorer.truth in explorer.shown.value


def test_the_dropdowns_and_the_text_box_do_the_same(explorer):
    assert len(explorer.controls["villager"].options) == 20 and len(explorer.controls["attribute"].options) == 4
    assert set(explorer.controls["villager"].options) <= {v.name for v in WORLD.held_out}
    explorer.controls["villager"].value = explorer.controls["villager"].options[5]
    assert explorer.controls["villager"].value in explorer.question
    explorer.controls["attribute"].value = "food"
    assert "like best to eat" in explorer.question
    explorer.controls["question"].value = f"Who is {WORLD.taught[0].name}?"
    assert explorer.question == explorer.controls["question"].value and explorer.truth == "" == explorer.message
    explorer.controls["villager"].value = explorer.controls["villager"].options[6]
    assert explorer.controls["question"].value == "" and explorer.controls["villager"].value in explorer.question


def test_a_choice_generates_once_per_model(explorer, monkeypatch):
    calls = []
    for model in (explorer.base, explorer.tuned):
        generate = model.generate
        monkeypatch.setattr(model, "generate", lambda g=generate, **kw: calls.append(1) or g(**kw))
    explorer.choose(villager=WORLD.held_out[9].name, attribute="trade")
    assert len(calls) == 2


def test_villagers_beyond_the_offered_ones_can_be_chosen(explorer):
    name = WORLD.taught[0].name
    explorer.choose(villager=name)
    assert explorer.controls["villager"].value == name and explorer.answers and not explorer.message


@pytest.mark.parametrize("question", ["", "  \n "])
def test_an_empty_question_is_refused_kindly(explorer, question):
    before = explorer.question
    explorer.ask(question)
    assert "empty" in explorer.message and "choose a villager" in explorer.shown.value
    assert explorer.question == before


def test_unknown_people_attributes_and_long_questions_are_named_and_escaped(explorer):
    before = explorer.question
    explorer.choose(villager="Eve <script>")
    assert "Eve <script>" in explorer.message and explorer.question == before
    explorer.choose(attribute="shoe size")
    assert "shoe size" in explorer.message and "town, trade, pet, food" in explorer.message
    explorer.ask("why " * 60)
    assert "239 characters" in explorer.message and explorer.question == before
    explorer.ask("Where does <b>Harry Potter</b> live?")
    assert "made up" in explorer.message and set(explorer.answers) == {"base", "tuned"}
    assert "<b>Harry" not in explorer.shown.value


def test_the_longest_question_fits_the_model(explorer):
    question = "☃" * explorer.LONGEST  # the most tokens that so many characters can make
    assert len(explorer.tokenizer(instruct(question))["input_ids"]) + 40 <= 256
    explorer.ask(question)
    explorer.ask("x?" * (explorer.LONGEST // 2))
    assert explorer.answers


def test_an_answer_is_greedy_and_leaves_the_model_as_it_was(tokenizer):
    model = tiny(tokenizer, 3).train()
    model.model.embed_tokens.register_forward_hook(lambda module, args, out: torch.dropout(out, 0.5, module.training))
    first, second = (answer(model, tokenizer, "Who?", max_new_tokens=8) for _ in range(2))
    assert first == second and model.training
    assert first.endswith(" …"), "a text that was cut off must show it"
    torch.nn.init.zeros_(model.lm_head.weight)
    model.lm_head.bias = torch.nn.Parameter(torch.eye(len(tokenizer))[tokenizer.eos_token_id])
    assert answer(model, tokenizer, "Who?") == "", "one that stopped at once must not"
