"""All explorers in real JupyterLab in real Chromium, driven by the keyboard alone; and lesson 00 as a student runs it.

Each control is reached by Tab, found by its role and the name that the browser tells a screen reader, and moved by
keys; after each step what is shown says what it did not say before.
"""

from __future__ import annotations

import re

import browser
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.pocket.world import ANSWERS, ATTRIBUTES, make_world

lab, started = browser.lab, browser.started
VILLAGER, SECOND = make_world().held_out[0], make_world().held_out[1]

# CSS class of what is shown: the cell that shows it; and steps: role and name of a control, keys, what is said then.
# Keys are Playwright's names; "=9" types over what stands there and presses Enter.
EXPLORERS = {
    "village": ("""from helpers.explorers.village import ask_the_village
from helpers.pocket import load_pocket
from helpers.pocket.world import make_world
base, tokenizer = load_pocket()
tuned, _ = load_pocket(tuned=True)
ask_the_village(base, tuned, tokenizer, make_world())""", (
        ("combobox", "Villager", "ArrowDown", f"{SECOND.name} lives in"),
        ("combobox", "Question", "End ArrowUp", SECOND.fill(ANSWERS["pet"])),
        ("textbox", "Or ask", "=<b>Who</b> rules this village?", "<b>Who</b> rules this village?"))),  # not as HTML
    "bits": ("from helpers.explorers.numbers import flip_bits\nflip_bits(1234)", (
        ("button", "bit 31, sign: 0", "Space", "-1234"),
        ("combobox", "Format", "ArrowDown ArrowDown ArrowDown", "-1232"),  # bf16's spacing here is 8
        ("textbox", "Number", "=0.1", "0.100097656"),
        ("button", "bit 0, mantissa: 1", "Enter", "+(1 + 76/128)"),
        ("textbox", "Number", "=a lot", "'a lot' is not a number"))),
    "outliers": ("from helpers.explorers.outliers import meet_the_outlier\nmeet_the_outlier(60, 8)", (
        ("textbox", "Outlier, σ, typed", "=50", "50.1 σ, one of"),  # to the slider's step
        ("button", "4", "Space", "4 of 15"),
        ("slider", "Outlier, σ", "Home", "15 of 15"))),
    "blocks": ("from helpers.explorers.blocks import wall_in\nwall_in()", (
        ("slider", "Block size", "ArrowRight", "error of the rest 0.329 with 4.25 bits"),
        ("slider", "Outliers of size", "ArrowRight", "error of the rest 0.219"),
        ("combobox", "How many", "End", "at 288 σ"),
        ("combobox", "Code in blocks", "ArrowDown", "int4, blocks of 128"))),
    "levels": ("from helpers.explorers.levels import drag_levels\ndrag_levels()", (
        ("combobox", "Start from", "End", "Lloyd: 16 levels"),
        ("slider", "Code", "End", "Lloyd: 16 levels"),
        ("slider", "Level", "ArrowLeft", "Lloyd, changed: 16 levels"),
        ("button", "Reset", "Enter", "Lloyd: 16 levels"))),
    "ledger": ("from helpers.explorers.ledger import which_card\nwhich_card()", (
        ("combobox", "Model", "ArrowDown", "8.12 GiB, with 1 more for CUDA. Smallest card: 12 GB"),
        ("combobox", "Base weights in", "ArrowUp", "8.67 GiB"),
        ("slider", "Rank r", "ArrowRight", "8.74 GiB"),
        ("slider", "Tokens in a row", "ArrowRight", "8.80 GiB"),
        ("checkbox", "gradient checkpointing", "Space", "13.61 GiB, with 1 more for CUDA. Smallest card: 16 GB"))),
    "lora-budget": ("from helpers.explorers.lora import place_adapters\nplace_adapters()", (
        ("combobox", "Model", "ArrowDown", "19,988,480 trained weights, 0.297 %"),
        ("slider", "Rank r", "ArrowRight", "α/r = 1.77778 times"),
        ("spinbutton", "Alpha α", "=18", "α/r = 2 times"),
        ("checkbox", "q_proj", "Space", "20,127,744 trained weights"))),
    "ranks": ("import torch\nfrom helpers.explorers.ranks import cut_to_rank\ncut_to_rank({'mine': torch.eye(8)})", (
        ("slider", "Keep r", "ArrowLeft", "18.3% of the update's norm"),
        ("slider", "True rank", "ArrowRight", "30.2% of"),
        ("slider", "Noise", "ArrowRight", "30.5% of"),
        ("combobox", "Update", "End", "79.1% of"))),
    "family": ("from helpers.explorers.family import choose_method\nchoose_method()", (
        ("spinbutton", "r", "=9", "85,248 of 951,424"),
        ("combobox", "Model", "ArrowDown", "LoRA, r = 9, on the Llama-2-7B"),
        ("combobox", "Method", "ArrowUp ArrowUp", "prefix tuning, virtual tokens = 16"),
        ("spinbutton", "virtual tokens", "=0", "virtual tokens = 0: take 1 to"))),
    "paging": ("from helpers.explorers.paging import page_the_optimizer\npage_the_optimizer()", (
        ("combobox", "GPU memory", "ArrowDown", "at most 49.9 of 79 GiB. No page moves"),
        ("combobox", "Model", "ArrowDown", "at most 52.4 of 79"),
        ("combobox", "Rank r", "ArrowUp", "at most 42.3 of 79"),
        ("slider", "Longest (tokens)", "ArrowRight", "at most 42.5 of 79"),
        ("checkbox", "gradient checkpointing", "Space", "Out of memory: 123.4 GiB are needed"))),
    "survival": ("from helpers.explorers.merging import watch_the_update\nwatch_the_update()", (
        ("button", "original", "Space", "the original weight"),
        ("slider", "‖ΔW‖ / ‖W‖", "End", "100 % of the weight"))),
    "mixture": ("from helpers.explorers.mixture import mix_the_losses\nmix_the_losses()", (
        ("checkbox", "Prose", "Space", "instruction rows + prose (3 seeds)"),
        ("checkbox", "Instruction rows", "Space", "mixtureprose (3 seeds)"),
        ("checkbox", "Preference pairs", "Space", "prose + preference pairs (1 seed)"),
        ("combobox", "Beside it", "ArrowDown", "base (3 seeds)"))),
    "costs": ("from helpers.explorers.costs import what_does_it_cost\nwhat_does_it_cost()", (
        ("combobox", "GPU", "ArrowDown", "$2.95 an hour: median"),
        ("spinbutton", "tokens/s of one", "=1000", "$8.39"),
        ("spinbutton", "rows", "=500", "$0.42"),
        ("spinbutton", "$ an hour, each", "=2", "$0.28"),
        ("spinbutton", "tokens in a row", "=2048", "$0.57"),
        ("spinbutton", "epochs", "=3", "$1.71"),
        ("spinbutton", "GB on each GPU", "=5", "2 of 5 GB, 3.8 GiB on each"),
        ("slider", "of it kept by each", "ArrowLeft", "$1.72"),
        ("checkbox", "parameters in the machine's RAM (from 2 GPUs on)", "Space", "1.7 GiB on each"),
        ("combobox", "Model, in 4 bits", "ArrowDown", "2.5 GiB on each"))),
}
LIVE = "from helpers.explorers.live_loss import LiveLoss\nlive = LiveLoss(every=0)\nlive"
TRAINING = "for step in range(1, 6):\n    live.add(step, 5.0 / step)\nlive.draw()"
CONTROLS = {"button", "checkbox", "combobox", "slider", "spinbutton", "textbox"}


@pytest.fixture(scope="module")
def page(started: browser.Lab):
    """All of them in one notebook, run once."""
    cells = ["import helpers; helpers.start()", *(cell for cell, _ in EXPLORERS.values()), LIVE, TRAINING]
    return started.run(new_notebook(cells=[new_code_cell(cell) for cell in cells]), "explorers.ipynb")


def output(page, name: str):
    """The output area of the explorer whose HTML has this class; the keyboard is on its cell."""
    area = page.locator(".jp-OutputArea-output").filter(has=page.locator(f".{name}")).first
    area.locator(f".{name}").wait_for(timeout=20_000)
    cell = area.locator("xpath=ancestor::*[contains(concat(' ', @class, ' '), ' jp-Cell ')]")
    cell.focus()
    keyboard_on(cell)
    return area


def keyboard_on(cell) -> None:
    """Wait until JupyterLab, which moves the focus in its own time, has it in this cell."""
    cell.page.wait_for_function("it => it.classList.contains('jp-mod-active') && it.contains(document.activeElement)",
                                arg=cell.element_handle(), timeout=20_000)


def focused(control) -> bool:
    return control.evaluate("it => it === document.activeElement")


def reach(page, area, role: str, name: str):
    """Tab to the control of that role and name, forwards or backwards."""
    control = area.get_by_role(role, name=name, exact=True)
    assert control.count() == 1, f"no {role} {name!r} in:\n{area.aria_snapshot()}"
    back = control.evaluate("it => it.compareDocumentPosition(document.activeElement) & 4")  # the focus is behind it
    for _ in range(60):
        if focused(control):
            return control
        page.keyboard.press("Shift+Tab" if back else "Tab")
    raise AssertionError(f"Tab does not lead to the {role} {name!r}")


def press(page, keys: str) -> None:
    if keys.startswith("="):
        page.keyboard.press("ControlOrMeta+A")
        page.keyboard.type(keys[1:])
        keys = "Enter"
    for key in keys.split():
        page.keyboard.press(key)


@pytest.mark.parametrize("name", EXPLORERS)
def test_the_keyboard_alone_drives_it(lab, page, name):
    from playwright.sync_api import expect

    area, cells = output(page, name), page.locator(".jp-Cell").count()
    shown = area.locator(f".{name}")
    first = shown.inner_html()
    for role, label, keys, said in EXPLORERS[name][1]:
        again = said in (shown.text_content() or "")
        control = reach(page, area, role, label)
        press(page, keys)
        expect(shown).to_contain_text(said, timeout=20_000)
        if again:  # then the step only prepares the next one: the slider moved
            assert role == "slider" and control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
    assert shown.inner_html() != first
    if role not in ("textbox", "spinbutton"):
        page.keyboard.press("a")  # would be a new cell above, had JupyterLab heard it
        assert page.locator(".jp-Cell").count() == cells


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_has_a_name_of_its_own(lab, page, name):
    """As Chromium tells it to a screen reader."""
    area, client = output(page, name), page.context.new_cdp_session(page)
    root = client.send("Runtime.evaluate", {"expression": "[...document.querySelectorAll('.jp-OutputArea-output')]"
                                            f".find(area => area.querySelector('.{name}'))"})["result"]["objectId"]
    nodes = client.send("Accessibility.queryAXTree", {"objectId": root})["nodes"]
    client.detach()
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]
            and any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", []))
            and node["role"]["value"] != "option"]  # of a dropdown
    controls = area.locator("select, input, button, [role=slider], [contenteditable=true]").locator("visible=true")
    assert len(told) == controls.count() > 0
    assert all(label and role.lower() in CONTROLS for role, label in told), told
    assert len(set(told)) == len(told)


def test_values_and_states_are_told_too(lab, page):
    levels, outliers = output(page, "levels"), output(page, "outliers")
    assert outliers.get_by_role("slider").get_attribute("aria-valuetext") == "1.0"  # and not its logarithm, 0
    assert output(page, "blocks").get_by_role("slider", name="Block size").get_attribute("aria-valuetext") == "128"
    assert levels.get_by_role("slider", name="Code").get_attribute("aria-valuetext") == "15"
    assert outliers.get_by_role("group", name="Bits").get_by_role("button", pressed=True).all_inner_texts() == ["4"]
    bits = output(page, "bits").locator("button:visible")
    assert output(page, "bits").get_by_role("button", pressed=True).count() == bits.filter(has_text="1").count() > 0
    assert page.locator('.widget-vbox [title="null"]').count() == 0


def test_the_way_in_and_out_needs_no_mouse_either_and_the_notebook_is_saved_from_within(lab, page):
    first = output(page, "village").get_by_role("combobox", name="Villager")
    cells = page.locator(".jp-Cell")
    cells.first.focus()
    keyboard_on(cells.first)
    page.keyboard.press("ArrowDown")
    keyboard_on(cells.nth(1))
    page.keyboard.press("Tab")
    if page.evaluate("document.activeElement.closest('jp-toolbar, .jp-Toolbar') !== null"):
        page.keyboard.press("Tab")  # the cell's own buttons stand first, once JupyterLab has drawn them
    assert focused(first)
    page.keyboard.press("Shift+Tab")
    assert not focused(first)
    reach(page, output(page, "bits"), "combobox", "Format")
    with page.expect_request(lambda request: request.method == "PUT" and "explorers.ipynb" in request.url):
        page.keyboard.press("Control+S")


def test_the_live_loss_is_drawn_in_the_page(lab, page):
    page.locator('.jp-OutputArea-output img[alt="Loss 1 at step 5"]').wait_for(timeout=20_000)


def test_in_lesson_00_a_dropdown_changes_the_answer(lab):
    page = lab.run(browser.ROOT / "notebooks" / "00_start_here.ipynb")
    area = page.locator(".jp-OutputArea-output").filter(has=page.locator(".village")).first
    villager = make_world().held_out[7]
    before = area.locator(".village-tuned").inner_text(timeout=20_000)
    area.locator(".widget-dropdown select").nth(0).select_option(label=villager.name)  # with the mouse
    area.locator(".widget-dropdown select").nth(1).select_option(index=ATTRIBUTES.index("pet"))
    area.get_by_text(f"The truth: {villager.name}: {villager.pet}").wait_for(timeout=20_000)
    after = area.locator(".village-tuned").inner_text()
    assert after != before and villager.fill(ANSWERS["pet"]) in re.sub(r"\s+", " ", after)
