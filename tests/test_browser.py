"""An explorer in JupyterLab in Chromium: a student changes a dropdown, and the answer on the page changes."""

from __future__ import annotations

import pathlib

import browser
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from helpers.pocket.world import ANSWERS, ATTRIBUTES, make_world

lab, started = browser.lab, browser.started
LESSONS = [path for path in sorted((browser.ROOT / "notebooks").glob("*.ipynb"))
           if "ask_the_village(" in path.read_text(encoding="utf-8")]

SMALL = new_notebook(cells=[new_code_cell(source) for source in (
    """import helpers; helpers.start()
from helpers.explorers.live_loss import LiveLoss
from helpers.explorers.village import ask_the_village
from helpers.pocket import load_pocket
from helpers.pocket.world import make_world""",
    """base, tokenizer = load_pocket()
tuned, _ = load_pocket(tuned=True)""",
    "explorer = ask_the_village(base, tuned, tokenizer, make_world())\nexplorer",
    "live = LiveLoss(every=0)\nlive",
    "for step in range(1, 6):\n    live.add(step, 5.0 / step)\nlive.draw()",
)])


@pytest.mark.parametrize("notebook", [SMALL, *LESSONS], ids=["small", *(path.stem for path in LESSONS)])
def test_a_dropdown_changes_the_answer(lab: browser.Lab, notebook: NotebookNode | pathlib.Path) -> None:
    page = lab.run(notebook)
    output = page.locator(".jp-OutputArea-output").filter(has=page.locator(".village")).first
    output.locator(".village").wait_for(timeout=20_000)
    villager = make_world().held_out[7]
    before = output.locator(".village-tuned").inner_text()

    output.locator(".widget-dropdown select").nth(0).select_option(label=villager.name)
    output.locator(".widget-dropdown select").nth(1).select_option(index=ATTRIBUTES.index("pet"))
    output.get_by_text(f"The truth: {villager.name}: {villager.pet}").wait_for(timeout=20_000)
    after = output.locator(".village-tuned").inner_text()
    assert after != before and villager.fill(ANSWERS["pet"]) in after

    own = output.locator(".widget-text input")
    own.fill("<b>Who</b> rules this village?")
    own.press("Enter")
    output.get_by_text("This names nobody from the village").wait_for(timeout=20_000)
    output.get_by_text("<b>Who</b> rules this village?").wait_for(timeout=20_000)  # as written, not as HTML


def test_a_checkbox_is_ticked_by_its_label_and_the_keyboard_and_the_mixture_changes(lab: browser.Lab) -> None:
    shown = "from helpers.explorers.mixture import mix_the_losses\nmix_the_losses()"
    page = lab.run(new_notebook(cells=[new_code_cell("import helpers; helpers.start()"), new_code_cell(shown)]))
    output = page.locator(".jp-OutputArea-output").filter(has=page.locator(".mixture")).first
    output.locator(".mixture svg").wait_for(timeout=20_000)
    assert output.get_by_text("prose (").count() == 0
    for label in ("Instruction rows", "Prose"):
        box = output.get_by_label(label, exact=True)
        if box.is_checked() != (label == "Prose"):
            box.focus()
            page.keyboard.press("Space")
    output.get_by_text("prose (").wait_for(timeout=20_000)


def test_the_live_loss_is_drawn_in_the_page(lab: browser.Lab) -> None:
    page = lab.run(new_notebook(cells=[SMALL.cells[0], *SMALL.cells[3:]]))
    page.locator('.jp-OutputArea-output img[alt="Loss 1 at step 5"]').wait_for(timeout=20_000)
