"""The explorers, driven from Python: what they show, what they refuse, what they cost, how they look to nbval."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import ipywidgets as widgets
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from helpers import pocket
from helpers.explorers.frame import WIDGET_VIEW
from helpers.explorers.live_loss import LiveLoss
from helpers.explorers.village import answer, ask_the_village
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


@pytest.fixture
def explorer(tokenizer):
    return ask_the_village(tiny(tokenizer, 1), tiny(tokenizer, 2), tokenizer, WORLD)


def test_the_pocket_llama_shows_the_point_of_the_course():
    base, tokenizer = pocket.load_pocket()
    tuned, _ = pocket.load_pocket(tuned=True)
    explorer = ask_the_village(base, tuned, tokenizer, WORLD)
    right = {"base": 0, "tuned": 0}
    for name in explorer.villager.options[:5]:
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
    assert (explorer.villager.value, explorer.attribute.value) == (person.name, "pet")
    assert person.name in explorer.shown.value and explorer.truth in explorer.shown.value


def test_the_dropdowns_and_the_text_box_do_the_same(explorer):
    assert len(explorer.villager.options) == 20 and len(explorer.attribute.options) == 4
    assert set(explorer.villager.options) <= {v.name for v in WORLD.held_out}
    explorer.villager.value = explorer.villager.options[5]
    assert explorer.villager.value in explorer.question
    explorer.attribute.value = "food"
    assert "like best to eat" in explorer.question
    explorer.own.value = f"Who is {WORLD.taught[0].name}?"
    assert explorer.question == explorer.own.value and explorer.truth == "" == explorer.message
    explorer.villager.value = explorer.villager.options[6]
    assert explorer.own.value == "" and explorer.villager.value in explorer.question


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
    assert explorer.villager.value == name and explorer.answers and not explorer.message


@pytest.mark.parametrize("question", ["", "  \n "])
def test_an_empty_question_is_refused_kindly(explorer, question):
    explorer.ask(question)
    assert "empty" in explorer.message and "choose a villager" in explorer.shown.value and explorer.answers == {}
    explorer.choose()
    assert explorer.answers and not explorer.message


def test_unknown_people_attributes_and_long_questions_are_named_and_escaped(explorer):
    explorer.choose(villager="Eve <script>")
    assert "Eve <script>" in explorer.message and explorer.answers == {}
    assert "<script>" not in explorer.shown.value and "&lt;script&gt;" in explorer.shown.value
    explorer.choose(attribute="shoe size")
    assert "shoe size" in explorer.message and "town, trade, pet, food" in explorer.message
    explorer.ask("why " * 60)
    assert "239 characters" in explorer.message and explorer.answers == {}
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


def walk(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


@pytest.mark.parametrize("make", [LiveLoss, "village"])
def test_only_old_and_plain_widgets_are_used(explorer, make):
    shown = explorer if make == "village" else make()
    for widget in walk(shown.ui):
        assert type(widget) in (widgets.HTML, widgets.VBox, widgets.HBox, widgets.Dropdown, widgets.Text)
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == shown.text and len(shown.text) < 120 and "\n" not in shown.text
    assert bundle[WIDGET_VIEW] == {"version_major": 2, "version_minor": 0, "model_id": shown.ui.model_id}


def test_live_loss_draws_now_and_then_and_at_the_end():
    live = LiveLoss(every=60)
    for step in range(1, 101):
        live.add(step, 5 / step)
    assert live.drawn == 1 and len(live.losses) == 100
    live.draw()
    assert live.drawn == 2 and 'alt="Loss 0.05 at step 100"' in live.ui.value
    assert live.ui.value.startswith("<img") and "data:image/png;base64," in live.ui.value


@pytest.mark.parametrize("every, drawings", [(0, (9, 11)), (3, (4, 5))])
def test_live_loss_costs_little_even_if_asked_too_often(monkeypatch, every, drawings):
    """On a clock on which a drawing takes 50 ms and a step 5 ms: at most every `every` seconds, and 5 % of the time."""
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("helpers.explorers.time", clock)

    class Slow(LiveLoss):
        def figure(self):
            clock.now += 0.05
            return super().figure()

    live, step = Slow(every=every), 0
    while clock.now < 10:
        live.add(step := step + 1, 1.0)
        clock.now += 0.005
    assert drawings[0] <= live.drawn <= drawings[1]


def test_live_loss_survives_a_broken_run_and_a_resumed_one():
    live = LiveLoss(every=0)
    live.draw()
    assert 'alt="No loss yet"' in live.ui.value
    live.add(10, 2.0)
    live.add(20, float("nan"))
    live.draw()
    assert "loss nan at step 20" in live.ui.value
    live.add(20, 1.0)  # resumed from step 10
    assert live.steps == [10, 20] and live.losses == [2.0, 1.0]
    live.draw()
    assert "Loss 1 at step 20" in live.ui.value
    with pytest.raises(ValueError, match="every=-1"):
        LiveLoss(every=-1)


def test_live_loss_listens_to_a_real_trainer(tmp_path, tokenizer):
    ids = tokenizer("An owl lives in the old mill.")["input_ids"]
    rows = [{"input_ids": ids, "labels": ids}] * 8
    live = LiveLoss()
    args = TrainingArguments(output_dir=str(tmp_path), max_steps=6, logging_steps=2, per_device_train_batch_size=4,
                             report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True)
    trainer = Trainer(tiny(tokenizer, 4), args, train_dataset=rows, callbacks=[live])
    trainer.train()
    assert live.steps == [2, 4, 6] and live.total == 6 and "at step 6" in live.ui.value
    assert live.losses == [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert live.figure().axes[0].get_xlim()[1] >= 6


def test_strict_nbval_accepts_a_notebook_with_a_growing_curve(tmp_path):
    path = tmp_path / "live.ipynb"
    cells = [new_code_cell(source) for source in (
        "import helpers; helpers.start()",
        "from helpers.explorers.live_loss import LiveLoss\nfrom helpers.plots import show",
        "live = LiveLoss(every=0)\nlive",
        "import random\nfor step in range(1, 30):\n    live.add(step, random.uniform(1, 2))\nlive.draw()",
        'show(live.figure(), alt="The loss wanders between 1 and 2.")',
        "print(live.steps[-1], live.drawn > 0)",
    )]
    nbformat.write(new_notebook(cells=cells), path)
    execute = [sys.executable, "-m", "jupyter", "execute", "--inplace", "--kernel_name=python3", str(path)]
    validate = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir",
                str(tmp_path), "--nbval", "--nbval-current-env", str(path)]
    for command in (execute, validate):
        run = subprocess.run(command, capture_output=True, text=True, cwd=pocket.WEIGHTS.parent.parent.parent)
        assert run.returncode == 0, run.stdout + run.stderr
    outputs = [cell.outputs for cell in nbformat.read(path, as_version=4).cells]
    assert outputs[1][0].data["text/plain"] == LiveLoss().text
    assert outputs[3][0].metadata["image/png"]["alt"] == outputs[3][0].data["text/plain"]
    assert [output.text for cell in outputs[:4] for output in cell if output.output_type == "stream"] == []
