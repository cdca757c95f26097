"""The explorer of lesson 00: the same question to a base model and to a tuned one."""

from __future__ import annotations

import html

import ipywidgets as widgets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import plots
from helpers.explorers.checks import said
from helpers.explorers.frame import WIDE, Explorer, box, line, tag
from helpers.pocket.evaluate import complete
from helpers.pocket.world import ATTRIBUTES, QUESTIONS, World, instruct


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, max_new_tokens: int = 40) -> str:
    """What the model writes after `[INST] question [/INST]`, greedily; ` …` at the end if it did not stop by itself."""
    ((text, stopped),) = complete(model, tokenizer, [instruct(question)], max_new_tokens)
    return text if stopped else text + " …"


class VillageExplorer(Explorer):
    """Ask a base model and a tuned one the same question, side by side.

        explorer = ask_the_village(base, tuned, tokenizer, make_world())
        explorer                                             # shows it
        explorer.choose(villager="Ivo Quill", attribute="pet")
        explorer.answers                                     # {"base": "…", "tuned": "…"}

    `question`, `truth` (what the world says; "" for a question of your own) and `answers` ({"base": …, "tuned": …})
    hold what is shown.
    """

    text = "Choose a villager and a question here, in JupyterLab or Colab; or from Python as in the next cell."
    css, label_width = "village", "5em"
    LONGEST = 200  # characters of a question, each a token at worst: with 40 new ones they fit the pocket Llama's 256

    def __init__(self, base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World,
                 offered: int = 20) -> None:
        self.base, self.tuned, self.tokenizer = base, tuned, tokenizer
        self.people = {villager.name: villager for villager in world.villagers}
        names = [villager.name for villager in world.held_out[:offered]]
        if not names:
            raise ValueError("world.held_out is empty: make_world(population=2) is the smallest village")
        self.villager, self.attribute = names[0], ATTRIBUTES[0]
        self._build({"villager": widgets.Dropdown(options=names, description="Villager"),
                     "attribute": widgets.Dropdown(options=[(QUESTIONS[a][0].format(n="…"), a) for a in ATTRIBUTES],
                                                   description="Question")},
                    {"question": widgets.Text(description="Or ask", placeholder="your own question, then Enter",
                                              continuous_update=False, layout=WIDE)})
        self._listen(self.controls["villager"], lambda name: self.choose(villager=name))
        self._listen(self.controls["attribute"], lambda name: self.choose(attribute=name))
        self._listen(self.controls["question"], self.ask)
        self.choose()

    def choose(self, villager: str | None = None, attribute: str | None = None) -> None:
        """Ask about a villager (a full name) and an attribute (town, trade, pet or food); None keeps what is chosen."""
        def act() -> None:
            name = self.villager if villager is None else villager
            about = self.attribute if attribute is None else attribute
            if not isinstance(name, str) or name not in self.people:
                raise ValueError(f"Nobody in the village is called {said(name)}. Try {self.villager}.")
            if not isinstance(about, str) or about not in ATTRIBUTES:
                raise ValueError(f"Nobody has a {said(about)} here. Ask for {', '.join(ATTRIBUTES)}.")
            self.villager, self.attribute = name, about
            person = self.people[name]
            self._ask(person.fill(QUESTIONS[about][0]), f"{name}: {getattr(person, about)}")
            with self.quiet():
                self.controls["question"].value = ""
        self._answer(act)

    def ask(self, question: str) -> None:
        """Ask a question in your own words. One that names no villager is asked all the same, with a warning."""
        def act() -> str:
            text = " ".join(question.split()) if isinstance(question, str) else ""
            text = text.encode("utf-8", "replace").decode()  # half a character, a lone surrogate, becomes "?"
            if not text:
                raise ValueError("That question is empty. Write one, or choose a villager above.")
            if len(text) > self.LONGEST:
                raise ValueError(f"That question has {len(text)} characters; {self.LONGEST} fit. Ask a shorter one.")
            self._ask(text, truth="")
            known = any(name in text for name in self.people)
            return "" if known else "This names nobody from the village: whatever comes now is made up."
        self._answer(act)

    def _ask(self, question: str, truth: str) -> None:
        self.question, self.truth = question, truth
        self.answers = {"base": answer(self.base, self.tokenizer, question),
                        "tuned": answer(self.tuned, self.tokenizer, question)}

    def _follow(self) -> None:
        villager = self.controls["villager"]
        if self.villager not in villager.options:
            villager.options = (*villager.options, self.villager)
        villager.value, self.controls["attribute"].value = self.villager, self.attribute

    def _body(self) -> str:
        answers = "".join(
            f'<div class="village-{who}" style="flex:1;overflow-wrap:anywhere;{box(accent)}">'
            f"<small>{title}</small><br>{html.escape(self.answers[who])}</div>"
            for who, title, accent in (("base", "The base model writes on", plots.FROZEN),
                                       ("tuned", "The tuned model answers", plots.TRAINED)))
        return (line(tag("b", html.escape(self.question))) + tag("div", answers, style="display:flex;gap:12px")
                + (line(tag("small", f"The truth: {html.escape(self.truth)}")) if self.truth else ""))


ask_the_village = VillageExplorer
