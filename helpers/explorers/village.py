"""The explorer of lesson 00: the same question to a base model and to a tuned one."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers import plots
from helpers.explorers.frame import Explorer
from helpers.pocket.evaluate import complete
from helpers.pocket.world import ATTRIBUTES, QUESTIONS, World, instruct


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, question: str, max_new_tokens: int = 40) -> str:
    """What the model writes after `[INST] question [/INST]`, greedily; ` …` at the end if it did not stop by itself."""
    ((text, stopped),) = complete(model, tokenizer, [instruct(question)], max_new_tokens)
    return text if stopped else text + " …"


class VillageExplorer(Explorer):
    """Ask a base model and a tuned one the same question, side by side. Made by `ask_the_village`.

    `question`, `truth` (what the world says; "" for a question of your own), `answers` ({"base": …, "tuned": …}; empty
    where nothing could be asked) and `message` (what was wrong, or "") hold what is shown.
    """

    LONGEST = 200  # characters of a question, each a token at worst: with 40 new ones they fit the pocket Llama's 256

    def __init__(self, base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World,
                 offered: int = 20) -> None:
        self.base, self.tuned, self.tokenizer = base, tuned, tokenizer
        self.people = {villager.name: villager for villager in world.villagers}
        names = [villager.name for villager in world.held_out[:offered]]
        if not names:
            raise ValueError("world.held_out is empty: make_world(population=2) is the smallest village")
        style = {"description_width": "5em"}
        self.villager = widgets.Dropdown(options=names, description="Villager", style=style)
        self.attribute = widgets.Dropdown(options=[(QUESTIONS[a][0].format(n="…"), a) for a in ATTRIBUTES],
                                          description="Question", style=style)
        self.own = widgets.Text(description="Or ask", placeholder="your own question, then Enter", style=style,
                                continuous_update=False, layout={"width": "95%"})
        self.shown = widgets.HTML()
        self.ui = widgets.VBox([widgets.HBox([self.villager, self.attribute]), self.own, self.shown])
        self.text = "Choose a villager and a question here, in JupyterLab or Colab; or from Python as in the next cell."
        self._listening = True
        self.villager.observe(self._chosen, "value")
        self.attribute.observe(self._chosen, "value")
        self.own.observe(self._asked, "value")
        self.choose()

    def choose(self, villager: str | None = None, attribute: str | None = None) -> None:
        """Ask about a villager (a full name) and an attribute (town, trade, pet or food); None keeps what is chosen."""
        if villager is not None and villager not in self.people:
            return self._refuse(f"Nobody in the village is called {villager!r}. Try {self.villager.options[0]}.")
        if attribute is not None and attribute not in ATTRIBUTES:
            return self._refuse(f"Nobody has a {attribute!r} here. Ask for {', '.join(ATTRIBUTES)}.")
        self._listening = False
        try:
            if villager is not None and villager not in self.villager.options:
                self.villager.options = (*self.villager.options, villager)
            self.villager.value = villager or self.villager.value
            self.attribute.value = attribute or self.attribute.value
            self.own.value = ""
        finally:
            self._listening = True
        person, about = self.people[self.villager.value], self.attribute.value
        self._ask(person.fill(QUESTIONS[about][0]), f"{person.name}: {getattr(person, about)}")

    def ask(self, question: str) -> None:
        """Ask a question in your own words. One that names no villager is asked all the same, with a warning."""
        question = " ".join(str(question).split())
        if not question:
            return self._refuse("That question is empty. Write one, or choose a villager above.")
        if len(question) > self.LONGEST:
            return self._refuse(f"That question has {len(question)} characters; {self.LONGEST} fit. Ask a shorter one.")
        known = any(name in question for name in self.people)
        self._ask(question, "", "" if known else "This names nobody from the village: whatever comes now is made up.")

    def _ask(self, question: str, truth: str, message: str = "") -> None:
        self.question, self.truth, self.message = question, truth, message
        self.answers = {"base": answer(self.base, self.tokenizer, question),
                        "tuned": answer(self.tuned, self.tokenizer, question)}
        self._render()

    def _refuse(self, message: str) -> None:
        self.question, self.truth, self.message, self.answers = "", "", message, {}
        self._render()

    def _chosen(self, change: Any) -> None:
        if self._listening:
            self.choose()

    def _asked(self, change: Any) -> None:
        if self._listening:
            self.ask(change["new"])

    def _render(self) -> None:
        """Colours come from the page, light or dark: only a half-transparent grey and two accents are set."""
        parts = [f'<p style="margin:4px 0">⚠ {html.escape(self.message)}</p>'] if self.message else []
        if self.answers:
            parts.append(f'<p style="margin:4px 0"><b>{html.escape(self.question)}</b></p>')
            parts.append('<div style="display:flex;gap:12px">')
            for who, title, accent in (("base", "The base model writes on", plots.FROZEN),
                                       ("tuned", "The tuned model answers", plots.TRAINED)):
                parts.append(
                    f'<div class="village-{who}" style="flex:1;padding:8px 12px;line-height:1.4;overflow-wrap:anywhere;'
                    f'background:rgba(127,127,127,.12);border-left:4px solid {accent}">'
                    f"<small>{title}</small><br>{html.escape(self.answers[who])}</div>")
            parts.append("</div>")
        if self.truth:
            parts.append(f'<p style="margin:4px 0"><small>The truth: {html.escape(self.truth)}</small></p>')
        self.shown.value = f'<div class="village" aria-live="polite">{"".join(parts)}</div>'


def ask_the_village(base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
                    world: World) -> VillageExplorer:
    """The explorer of lesson 00: pick a held-out villager and a question, compare the base model and the tuned one.

        explorer = ask_the_village(base, tuned, tokenizer, make_world())
        explorer                                             # shows it
        explorer.choose(villager="Ivo Quill", attribute="pet")
        explorer.answers                                     # {"base": "…", "tuned": "…"}
    """
    return VillageExplorer(base, tuned, tokenizer, world)
