"""The explorers of Part I in JupyterLab in Chromium: a control is moved, and what stands on the page changes."""

from __future__ import annotations

import browser
import pytest
from nbformat.v4 import new_code_cell, new_notebook

lab, started = browser.lab, browser.started

# CSS class of what is shown: the cell that shows it.
EXPLORERS = {
    "bits": "from helpers.explorers.numbers import flip_bits\nflip_bits(1234)",
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
