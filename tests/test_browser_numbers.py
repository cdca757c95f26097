"""The explorers of Part I in JupyterLab in Chromium: a control is moved, and what stands on the page changes."""

from __future__ import annotations

import browser
import pytest
from nbformat.v4 import new_code_cell, new_notebook

lab, started = browser.lab, browser.started

# CSS class of what is shown: the cell that shows it.
EXPLORERS = {
    "bits": "from helpers.explorers.numbers import flip_bits\nflip_bits(1234)",
    "outliers": "from helpers.explorers.outliers import meet_the_outlier\nmeet_the_outlier(60, 8)",
    "blocks": "from helpers.explorers.blocks import wall_in\nwall_in()",
    "levels": "from helpers.explorers.levels import drag_levels\ndrag_levels()",
    "ledger": "from helpers.explorers.ledger import which_card\nwhich_card()",
}


@pytest.fixture(scope="module")
def page(started: browser.Lab):
    """All of them in one notebook, run once."""
    cells = ["import helpers; helpers.start()", *EXPLORERS.values()]
    return started.run(new_notebook(cells=[new_code_cell(cell) for cell in cells]), "numbers.ipynb")


def output(page, name: str):
    """The output area of the explorer whose HTML has this class."""
    area = page.locator(".jp-OutputArea-output").filter(has=page.locator(f".{name}")).first
    area.locator(f".{name}").wait_for(timeout=20_000)
    return area


def test_bits_are_flipped(lab, page):
    area = output(page, "bits")
    assert "1234" in area.locator(".bits").inner_text()
    area.locator("button").nth(0).click()  # the sign
    area.get_by_text("-1234", exact=True).wait_for(timeout=20_000)
    area.locator(".widget-dropdown select").select_option(label="bf16")
    area.get_by_text("-1232", exact=True).wait_for(timeout=20_000)  # bf16's spacing here is 8
    assert area.locator("button:visible").count() == 16
    number = area.locator(".widget-text input")
    number.fill("a lot")
    number.press("Enter")
    area.get_by_text("'a lot' is not a number").wait_for(timeout=20_000)


def test_an_outlier_wastes_fewer_codes_where_there_are_fewer(lab, page):
    area = output(page, "outliers")
    assert "60 σ, one of" in area.locator(".outliers").inner_text()  # and not as the slider rounds it
    assert "19 of 255" in area.locator(".outliers").inner_text()
    area.locator("button", has_text="4").first.click()
    area.get_by_text("of 15").first.wait_for(timeout=20_000)


def test_blocks_wall_an_outlier_in(lab, page):
    area = output(page, "blocks")
    assert "at 113 σ" in area.locator(".blocks").inner_text()
    area.locator(".widget-dropdown select").last.select_option(label="int4")
    area.get_by_text("int4, blocks of 64").first.wait_for(timeout=20_000)


def test_levels_are_chosen_and_moved(lab, page):
    area = output(page, "levels")
    assert "NF4: 16 levels" in area.locator(".levels").inner_text()
    area.locator(".widget-dropdown select").first.select_option(label="Lloyd")
    area.get_by_text("Lloyd: 16 levels").first.wait_for(timeout=20_000)
    handle = area.locator(".noUi-handle, .ui-slider-handle, [role=slider]").last
    handle.focus()
    handle.press("ArrowLeft")
    area.get_by_text("changed: 16 levels").first.wait_for(timeout=20_000)


def test_the_ledger_names_the_card(lab, page):
    area = output(page, "ledger")
    area.locator(".widget-dropdown select").nth(0).select_option(label="LLaMA-65B")
    area.get_by_text("Smallest card: 48 GB").first.wait_for(timeout=20_000)
    area.locator(".widget-dropdown select").nth(1).select_option(label="fp32")
    area.get_by_text("No single card of 80 GB").first.wait_for(timeout=20_000)
