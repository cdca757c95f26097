"""What all explorers keep to: shown as text too, labelled, deaf while they follow, never thrown by an odd value.

What each of them computes is tested in a file of its own.
"""

from __future__ import annotations

import base64
import functools
import html
import inspect
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns
from test_explorers_mixture import mixture
from test_explorers_village import small_village

from helpers import plots
from helpers.explorers.blocks import wall_in
from helpers.explorers.checks import number, one_of, said, whole
from helpers.explorers.costs import what_does_it_cost
from helpers.explorers.family import choose_method
from helpers.explorers.frame import WIDGET_VIEW, Explorer
from helpers.explorers.ledger import which_card
from helpers.explorers.levels import drag_levels
from helpers.explorers.live_loss import LiveLoss
from helpers.explorers.lora import place_adapters
from helpers.explorers.merging import watch_the_update
from helpers.explorers.numbers import flip_bits
from helpers.explorers.outliers import meet_the_outlier
from helpers.explorers.paging import page_the_optimizer
from helpers.explorers.ranks import cut_to_rank
from helpers.explorers.still import settings as settings_of
from helpers.floats import BF16, FP4_E2M1, FP16
from helpers.pocket.world import make_world

NAN, HELD_OUT = float("nan"), make_world().held_out


class Case(NamedTuple):
    make: Callable[[], Explorer]
    good: dict[str, object]  # what may be set, control by control or from Python at once
    bad: list[dict[str, object]]  # what may not
    method: str = "set"


CASES = {
    "numbers": Case(lambda: flip_bits(200, BF16), {"fmt": FP16, "x": "1.5"},
                    [{"x": "twelve"}, {"x": True}, {"fmt": "fp17"}, {"x": NAN, "fmt": FP4_E2M1}]),
    "bits": Case(lambda: flip_bits(200, BF16), {"bit": 3}, [{"bit": 16}, {"bit": -1}, {"bit": 1.0}], "flip"),
    "outliers": Case(lambda: meet_the_outlier(20, 8), {"outlier": 30.0, "bits": 3},
                     [{"bits": 9}, {"bits": 1}, {"bits": 4.0}, {"outlier": 0}, {"outlier": 1e9}, {"outlier": NAN}]),
    "blocks": Case(wall_in, {"magnitude": 12, "block_size": 16, "outliers": 256, "code": "int4"},
                   [{"magnitude": 50}, {"block_size": 0}, {"outliers": NAN}, {"code": "NF5"}]),
    "levels": Case(drag_levels, {"code": 12, "level": 0.5}, [
        {"code": code, "level": level} for code, level in ((16, .1), (-1, .1), (3.5, .1), (3, NAN), (3, "x"))], "move"),
    "codebooks": Case(drag_levels, {"start": "Lloyd"}, [{"start": "nf5"}], "reset"),
    "ledger": Case(which_card, {"model": "LLaMA-33B", "stored": "bf16", "rank": 64, "sequence": 1024,
                                "checkpointing": False},
                   [{"model": "GPT-2"}, {"stored": 4}, {"rank": 0}, {"rank": 257}, {"rank": 2.5}, {"sequence": 127},
                    {"rank": 8, "sequence": 8193}, {"checkpointing": 1}]),
    "costs": Case(what_does_it_cost, {"model": "Llama-2-70B", "gpu": "H100", "memory": 40, "price": 2.0, "speed": 300.0,
                                      "kept": 0.5, "rows": 500, "length": 2048, "epochs": 3, "offload": True},
                  [{"model": "GPT-2"}, {"gpu": "T4"}, {"memory": 3}, {"price": -1}, {"speed": NAN}, {"kept": 0},
                   {"rows": 0}, {"length": 2.5}, {"epochs": 101}, {"offload": 1}, {"rows": 8, "price": "2"}]),
    "lora": Case(place_adapters, {"model": "Llama-2-7B", "rank": 64, "alpha": 32},
                 [{"model": "GPT-5"}, {"rank": 0}, {"rank": 65}, {"alpha": 0}, {"alpha": float("inf")}, {"alpha": "16"},
                  {"layers": []}, {"layers": "q_proj"}, {"layers": ["q_proj", "lm_head"]}, {"layers": [3]},
                  {"rank": 8, "alpha": -1}]),
    "family": Case(lambda: choose_method("bottleneck adapter", 32),
                   {"method": "prompt tuning", "size": 20, "model": "Llama-2-7B"},
                   [{"method": "LoRA", "size": 5000}, {"method": "LoRA", "size": 0}, {"size": 2.5}, {"method": "BERT"},
                    {"method": "prompt tuning", "size": 5000}, {"model": "GPT-2"}]),
    "paging": Case(page_the_optimizer, {"model": "Llama-2-7B", "memory": 8, "r": 8, "longest": 4096,
                                        "checkpointing": False},
                   [{"model": "GPT-2"}, {"memory": 7}, {"longest": 127}, {"longest": 4097}, {"longest": 512, "r": 3},
                    {"checkpointing": "yes"}]),
    "ranks": Case(cut_to_rank, {"true_rank": 9, "noise": 0.5, "r": 7},
                  [{"update": "none"}, {"r": 0}, {"r": 65}, {"true_rank": 65}, {"noise": -1}, {"noise": NAN},
                   {"true_rank": 9, "r": 99}]),
    "mixture": Case(mixture, {"prose": True, "preference": True, "beside": "domain"},
                    [{"prose": 1}, {"beside": "nobody"}, {"instruction": False, "prose": True, "preference": True}]),
    "merging": Case(lambda: watch_the_update(size=0.1), {"size": 0.02, "start": "original"},
                    [{"size": 0}, {"size": 2.0}, {"size": NAN}, {"size": 0.2, "start": "elsewhere"}]),
    "village": Case(small_village, {"villager": HELD_OUT[5].name, "attribute": "pet"},
                    [{"villager": "Eve"}, {"attribute": "shoe size"}], "choose"),
    "questions": Case(small_village, {"question": f"Who is {HELD_OUT[2].name}?"}, [], "ask"),
}
PLAIN = (widgets.HTML, widgets.VBox, widgets.HBox, widgets.Dropdown, widgets.Text, widgets.IntSlider, widgets.IntText,
         widgets.FloatSlider, widgets.FloatLogSlider, widgets.SelectionSlider, widgets.FloatText, widgets.Checkbox,
         widgets.ToggleButton, widgets.ToggleButtons, widgets.Button)  # the core of ipywidgets 7.7
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.integers(), max_size=2),
    st.sampled_from([10**400, -10**5000, np.int64(4), np.float64("nan"), np.float32(3), np.bool_(True), np.arange(3),
                     np.array("NF4"), torch.tensor(8), torch.tensor(0.5), torch.tensor(torch.inf), torch.ones(2), 1j,
                     torch.tensor(True), b"1", {}, object(), Decimal("NaN"), ["q_proj"], "Lloyd", "\ud800", BF16,
                     "Llama-2-7B", "NF4", "planted", "DoRA", "pet", "nan", "1e400", FP4_E2M1]))


@pytest.fixture(params=CASES)
def case(request) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="module")
def made() -> Callable[[Callable[[], Explorer]], Explorer]:
    """The explorer of a case, the same one each time: what spoils it must show in what is asked next."""
    return functools.cache(lambda make: make())


def state(explorer: Explorer) -> dict[str, object]:
    """Everything that is shown or set, as text, without the message."""
    values = {name: repr(control.value) for name, control in explorer.controls.items() if hasattr(control, "value")}
    return {"report": explorer.report(), "shown": re.sub("<p[^>]*>⚠.*?</p>", "", explorer.shown.value, flags=re.DOTALL),
            **values, **{name: repr(getattr(explorer, name)) for name in explorer.may_be}}


def walk(widget: widgets.Widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


class Page(HTMLParser):
    """The elements of some HTML, which must be closed as they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


MAKERS = [*dict.fromkeys(case.make for case in CASES.values()), LiveLoss]


@pytest.mark.parametrize("make", MAKERS)
def test_where_no_widget_can_be_shown_it_is_a_line_of_text_or_stands_still(make, monkeypatch):
    explorer = make()
    view = {"version_major": 2, "version_minor": 0, "model_id": explorer.ui.model_id}
    assert explorer._repr_mimebundle_() == {
        "text/plain": explorer.text, "text/html": explorer.still(), WIDGET_VIEW: view}
    assert 40 < len(explorer.text) < 120 and "\n" not in explorer.text and "JupyterLab" in explorer.text
    monkeypatch.setitem(sys.modules, "google.colab", None)
    assert set(explorer._repr_mimebundle_()) == {"text/plain", WIDGET_VIEW}


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d[\d.,]*\d|\d", text))


@pytest.mark.parametrize("name", CASES)
def test_the_still_frame_says_what_the_report_says_without_what_a_sanitizer_drops(name):
    make, good, _, method = CASES[name]
    explorer = make()
    at_first = explorer.still()
    getattr(explorer, method)(**good)
    still = explorer.still()
    assert still != at_first == make().still() and explorer.text in still
    page = Page(still)
    assert {tag for tag, _ in page.seen} <= {"b", "br", "div", "img", "p", "pre", "small", "span", "table", "td", "th",
                                             "tr"}, "GitHub and JupyterLab let these through"
    assert not re.search(r"<script|<style|\bon\w+=|currentColor", still)
    said = html.unescape(re.sub("<[^>]*>", " ", still)) + " ".join(look.get("alt", "") for _, look in page.seen)
    assert numbers(explorer.report()) - {"0.00"} <= numbers(said)  # what takes no memory stands in no legend
    for _, look in page.seen:
        kind, _, file = look.get("src", "").partition(";base64,")
        if kind == "data:image/svg+xml":
            drawing = ElementTree.fromstring(base64.b64decode(file))
            first = drawing.find("{http://www.w3.org/2000/svg}rect").attrib
            assert look["alt"] and drawing.attrib["color"] == plots.INK and 1 <= float(drawing.attrib["width"]) <= 800
            if len(drawing) > 1:  # more than a bar or a square of a legend: it has paper of its own
                sides = [first[side] for side in ("x", "y", "width", "height")]
                assert first["fill"] == plots.PAPER and drawing.attrib["viewBox"].split() == sides


@pytest.mark.parametrize("name, said, unsaid", [
    ("blocks", ["Block size: 64", "Outliers of size: 48 σ", "How many: 64", "Code in blocks: NF4"], []),
    ("ledger", ["Model: Llama-2-7B", "Rank r: 16", "gradient checkpointing: yes"], []),
    ("lora", ["q_proj: yes", "down_proj: yes", "Alpha α: 16"], []),
    ("merging", ["‖ΔW‖ / ‖W‖: 0.1", "Added to: dequantized"], []),
    ("levels", ["Start from: NF4", "Code: 8", "Level: 0.07958"], ["Reset"]),
    ("mixture", ["Instruction rows: yes", "Prose: no", "Beside it: nothing"], []),
    ("village", [f"Villager: {HELD_OUT[0].name}"], ["Or ask"]),
    ("bits", ["Number: 200", "Format: bf16"], ["0: ", "1: "])])
def test_the_settings_stand_in_words_beside_the_still_frame(name, said, unsaid):
    (words, *_) = re.findall("<p>(.*?)</p>", CASES[name].make().still())
    told = html.unescape(words).split(" · ")
    assert set(said) <= set(told) and not any(line.startswith(word) for word in unsaid for line in told)


def test_a_setting_that_cannot_be_moved_is_not_told():
    explorer = choose_method("bottleneck adapter", 32)
    assert "32" in dict(settings_of(explorer.ui)).values()
    explorer.set(method="head only")
    assert len(dict(settings_of(explorer.ui))) == 2


def test_the_still_loss_is_the_curve_so_far():
    live = LiveLoss(every=0)
    assert "<img" not in live.still() and "will appear" in live.still()
    live.add(3, 1.5)
    assert 'alt="Loss 1.5 at step 3"' in live.still()


def test_strict_nbval_compares_the_words_of_a_still_frame_and_not_its_pixels(request):
    patterns = get_sanitize_patterns(Path(request.config.option.nbval_sanitize_with).read_text())

    def compared(explorer: Explorer) -> str:
        return functools.reduce(lambda text, pair: re.sub(*pair, text), patterns, explorer.still())

    first, drawn_otherwise, other_words = wall_in(), wall_in(), wall_in(magnitude=96)
    drawn_otherwise.shown.value = drawn_otherwise.shown.value.replace("base64,iVBOR", "base64,iWBOR")
    assert first.still() != drawn_otherwise.still() and compared(first) == compared(drawn_otherwise)
    assert len(compared(first)) < 3000 and compared(first) != compared(other_words)


def test_still_frames_survive_jupyterlabs_and_nbconverts_html():
    """nbconvert takes text/html before text/plain; JupyterLab ranks the widget at -10, text/html at 50."""
    explorer = wall_in()
    data = {key: value for key, value in explorer._repr_mimebundle_().items() if key != WIDGET_VIEW}
    cell = new_code_cell("wall_in()", outputs=[new_output("execute_result", data, execution_count=1)])
    body, _ = HTMLExporter().from_notebook_node(new_notebook(cells=[cell]))
    assert f'alt="{html.escape(re.findall("alt=.(.*?). style", explorer.still())[0], quote=False)}"' in body
    assert "Block size: 64 · " in body and "error of the rest" in body


def test_it_is_made_of_old_and_plain_widgets_with_labels_and_reads_on_light_and_dark_pages(case):
    explorer = case.make()
    for widget in walk(explorer.ui):
        assert type(widget) in PLAIN
        if not isinstance(widget, widgets.HTML | widgets.Box):
            assert widget.description and (widget.description not in "01" or "bit" in widget.tooltip)
    (_, outer), *inner = Page(explorer.shown.value).seen
    assert outer["class"] == explorer.css and outer["aria-live"] == "polite" and "rgba(127,127,127" in outer["style"]
    for tag, look in inner:
        assert tag != "svg" or look["role"] == "img" and look["aria-label"]
        assert tag != "img" or len(look["alt"]) > 20
        assert tag != "text" or look["fill"] == "currentColor"
        assert not re.search(r"(?<![-\w])color:", look.get("style", ""))


@pytest.mark.parametrize("name", [name for name in CASES if name != "bits"])  # its toggles have a test of their own
def test_controls_set_it_and_follow_it_and_are_not_heard_then(name, monkeypatch):
    make, good, _, method = CASES[name]
    by_hand, by_python, answers = make(), make(), []
    before = by_hand.shown.value
    for explorer in (by_hand, by_python):
        monkeypatch.setattr(explorer, "_answer", lambda act, e=explorer: answers.append(e) or type(e)._answer(e, act))
    for control, value in good.items():
        by_hand.controls[control].value = value
    getattr(by_python, method)(**good)
    assert by_hand.shown.value == by_python.shown.value != before and by_hand.report() == by_python.report()
    assert answers == [by_hand] * len(good) + [by_python]
    assert name == "questions" or state(by_hand) == state(by_python)


@pytest.mark.parametrize("name, bad", [(name, bad) for name, case in CASES.items() for bad in case.bad])
def test_what_is_refused_is_named_in_the_widget_and_to_python_and_changes_nothing(name, bad, made, capsys):
    make, good, _, method = CASES[name]
    explorer = made(make)
    before = state(explorer)
    getattr(explorer, method)(**bad)
    assert explorer.message and capsys.readouterr().out == explorer.message + "\n"
    assert "⚠" in explorer.shown.value and state(explorer) == before
    with explorer.quiet():  # as if a control had asked
        getattr(explorer, method)(**bad)
    assert explorer.message and capsys.readouterr().out == ""
    getattr(explorer, method)(**good)
    assert explorer.message == "" == capsys.readouterr().out and "⚠" not in explorer.shown.value


def test_what_a_control_asks_is_refused_there(capsys):
    for make, name, value, words in ((flip_bits, "x", "a lot", "'a lot' is not a number"),
                                     (place_adapters, "alpha", -1.0, "alpha=-1.0"),
                                     (choose_method, "size", 0, "r = 0"), (small_village, "question", " ", "empty")):
        explorer = make()
        explorer.controls[name].value = value
        assert words in explorer.message and "⚠" in explorer.shown.value
    assert capsys.readouterr().out == ""


def test_a_refused_start_is_named_and_something_shown():
    for explorer in (flip_bits("x"), meet_the_outlier(0), wall_in(-1), drag_levels("x"), which_card("x"),
                     place_adapters("x"), choose_method("x"), page_the_optimizer("x"), cut_to_rank(r=0),
                     watch_the_update(size=9)):
        assert explorer.message and "⚠" in explorer.shown.value and len(explorer.report()) > 80


def test_a_slider_that_rounds_its_own_value_sets_nothing():
    """JupyterLab's sliders write back what they show, rounded to their step, when they first appear."""
    for make, name, rounded, moved in ((drag_levels, "level", 0.08, 0.081), (meet_the_outlier, "outlier", 4.01, 4.1),
                                       (which_card, "sequence", 500, 640)):
        explorer = make()
        before = explorer.report()
        explorer.controls[name].value = rounded
        assert explorer.report() == before
        explorer.controls[name].value = moved
        assert explorer.report() != before


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_odd_value_is_thrown_or_spoils_what_is_shown(case, made, data):
    explorer = made(case.make)
    method, before = getattr(explorer, case.method), state(explorer)
    kinds = {name: type(getattr(explorer, name)) for name in explorer.may_be}
    assert method(**{name: data.draw(ODD, label=name) for name in inspect.signature(method).parameters}) is None
    remark = re.search("stops at|made up", explorer.message)
    assert explorer.message == "" or remark or state(explorer) == before
    assert {name: type(getattr(explorer, name)) for name in explorer.may_be} == kinds
    assert all(explorer.controls[name].value == getattr(explorer, name)
               for name in explorer.may_be if name in explorer.controls)
    Page(explorer.shown.value)


@pytest.mark.parametrize("name", CASES)
def test_what_is_asked_is_shown_as_text_and_not_as_html(name):
    make, good, _, method = CASES[name]
    explorer = make()
    getattr(explorer, method)(**{**good, next(iter(good)): "<i>&"})
    assert "<i>&" in explorer.message + getattr(explorer, "question", "")
    assert "&lt;i&gt;&amp;" in explorer.shown.value and "<i>" not in explorer.shown.value


@pytest.mark.parametrize("check, good, bad", [
    (whole(1, 8), [(1, 1), (8, 8), (np.int64(4), 4), (torch.tensor(5), 5)],
     [0, 9, True, 2.0, "2", None, [2], np.array([2]), np.bool_(True), torch.tensor(True), torch.ones(2), 10**5000]),
    (number(0.5, 2), [(0.5, 0.5), (1, 1.0), (np.float32(2), 2.0), (torch.tensor(1.5), 1.5)],
     [0, 2.1, NAN, float("inf"), True, "1", None, [1], 1j, -10**400]),
    (one_of((1, 64, "NF4")), [(64, 64), (64.0, 64), (np.str_("NF4"), "NF4"), (torch.tensor(1), 1)],
     [2, True, "nf4", None, [64], NAN, torch.ones(2), {}]),
    (one_of((True, False)), [(True, True), (np.bool_(False), False)], [1, 0, "True", None]),
])
def test_checks(check, good, bad):
    for value, wanted in good:
        assert check("it", value) == wanted and type(check("it", value)) is type(wanted)
    for value in bad:
        with pytest.raises(ValueError, match="^it="):
            check("it", value)


def test_a_value_in_a_message_is_short():
    assert said("<b>") == "'<b>'" and len(said("x" * 999)) == 80 and "\n" not in said(np.eye(3))
    assert said(10**5000) == "a int too long to write"
