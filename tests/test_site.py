"""The site: built once from the committed notebooks, then read in Chromium from the file system, without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import browser
import modules
import nbformat
import pages
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

ROOT = browser.ROOT
LESSONS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
SETTLE = """async () => {
  await window.MathJax?.startup?.promise;
  document.querySelectorAll("details").forEach(fold => fold.open = true);
  await new Promise(requestAnimationFrame);
}"""
WIDE = """() => {  // the page itself, or a box around all of its text that scrolls or cuts off
  const boxes = [document.documentElement];
  for (let box = document.querySelector("article"); box; box = box.parentElement)
    if (getComputedStyle(box).overflowX !== "visible") boxes.push(box);
  return boxes.filter(box => box.scrollWidth > box.clientWidth).map(box => box.outerHTML.slice(0, 80));
}"""
BROKEN = "[...document.images].filter(image => image.loading !== 'lazy' && !image.naturalWidth).map(image => image.src)"
# Of the same tokens in the same kind of box, which are most of a lesson's elements, one stays to be judged.
FEW_TOKENS = """() => {
  const kept = new Set();
  for (const token of [...document.querySelectorAll(".highlight span[class], .sig span[class]")].reverse()) {
    const kind = token.className + token.closest(".highlight, .sig").parentElement.className;
    if (token.childElementCount === 0 && kept.has(kind)) token.replaceWith(token.textContent);
    kept.add(kind);
  }
}"""
# Contrast depends on colours, size and weight alone: of texts that share them, in both themes, one stays to be judged.
FEW_TEXTS = """() => {
  const kept = new Set(), texts = [...document.body.querySelectorAll("*")].filter(element =>
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const looks = texts.map(() => "");
  for (const theme of ["light", "dark"]) {
    document.body.dataset.theme = theme;
    texts.forEach((element, i) => {
      const style = getComputedStyle(element);
      looks[i] += [style.color, style.fontSize, style.fontWeight].join();
      for (let behind = element; behind; behind = behind.parentElement) {
        const {backgroundColor, opacity} = getComputedStyle(behind);
        if (backgroundColor !== "rgba(0, 0, 0, 0)" || opacity !== "1") looks[i] += backgroundColor + opacity;
        if (backgroundColor.startsWith("rgb(")) break;
      }
    });
  }
  texts.forEach((element, i) => {
    if (!kept.has(looks[i])) return kept.add(looks[i]);
    for (const node of [...element.childNodes]) if (node.nodeType === 3) node.remove();
    for (let empty = element; !empty.textContent.trim() && !empty.querySelector("img, svg, input, button");) {
      const above = empty.parentElement;
      empty.remove();
      empty = above;
    }
  });
}"""
RUN = """async ([theme, options]) => {
  document.body.dataset.theme = theme;
  const found = await axe.run(document, {resultTypes: ["violations"], preload: false, ...options});
  return found.violations.filter(rule => ["serious", "critical"].includes(rule.impact)).flatMap(rule =>
    rule.nodes.map(node => `${theme}: ${rule.id}: ${node.target}: ${node.html.slice(0, 120)}: ${node.failureSummary}`));
}"""


class Page(HTMLParser):
    """What a page points to and shows: ids, links (from `a`), resources, images."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.resources, self.images, self.texts = set(), [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "img":
            self.images.append(found)
        if tag in ("img", "script", "iframe", "source", "video") and found.get("src"):
            self.resources.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.resources.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, in a folder whose name has a space."""
    target = tmp_path_factory.mktemp("the site") / "site"
    done = subprocess.run([sys.executable, ROOT / "site" / "pages.py", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


@pytest.fixture(scope="module")
def tab(site: Path) -> Iterator:
    """A page of Chromium that writes down in `heard` what asks for the network and what the console complains of."""
    with browser.launched() as chromium:
        page = chromium.new_page(viewport={"width": 1200, "height": 900})
        page.heard = []

        def refuse(route) -> None:
            page.heard.append(f"asks for {route.request.url}")
            route.abort()

        page.route(re.compile("^(?!file:|data:)"), refuse)
        page.on("console", lambda line: page.heard.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: page.heard.append(f"script: {error}"))
        yield page


def test_every_lesson_the_glossary_and_every_module_has_a_page_and_no_solution_has(site, parsed):
    there = {path.relative_to(site).with_suffix("").as_posix() for path in parsed}
    assert there == {"index", "search", "notebooks/glossary", "helpers/index",
                     *(f"notebooks/{name}" for name in LESSONS), *(f"helpers/{name}" for name in modules.names())}
    assert {"helpers.lora", "helpers.memory", "helpers.finale.tiers"} <= set(modules.names())
    assert not [name for name in there if "lesson_" in name]
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < 20e6


def test_no_link_leads_to_nothing_and_nothing_comes_from_elsewhere(site, parsed):
    for path, page in parsed.items():
        for address in page.resources + page.links:
            parts = urlsplit(address)
            if parts.scheme or address.startswith("//"):
                assert address in page.links or parts.scheme == "data", f"{path.name} fetches {address}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), f"{path.name} leads to {address}"
            if parts.fragment and target in parsed:
                assert unquote(parts.fragment) in parsed[target].ids, f"{path.name} leads to {address}"


def test_every_image_says_what_it_shows(parsed):
    assert all((image.get("alt") or "").strip() for page in parsed.values() for image in page.images)


@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_has_all_its_figures_with_their_words_its_way_to_colab_and_its_neighbours(site, parsed, name):
    path = site / "notebooks" / f"{name}.html"
    page, text = parsed[path], path.read_text(encoding="utf-8")
    outputs = [output for cell in nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
               for output in cell.get("outputs", [])]
    told = [output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.get("data", {})]
    assert [image["alt"] for image in page.images if image["src"].startswith("../_images/")] == told
    assert any(link.startswith("https://colab.research.google.com/github/") for link in page.links)
    at = LESSONS.index(name)
    assert all(f"{other}.html" in page.links for other in LESSONS[max(0, at - 1):at + 2] if other != name)
    assert text.count('<details class="digression">') == text.count("<h3>Digression:")
    assert "<summary" in text and "<details open" not in text


def test_every_page_reads_without_a_network_in_both_themes_and_on_a_phone(site, parsed, tab):
    module_pages = [site / "helpers" / f"{name}.html" for name in modules.names()]
    for path in sorted(parsed.keys() - set(module_pages) - {site / "search.html"}):
        look_at(tab, path)
        judge(tab, path)
    articles = []
    for path in module_pages:
        look_at(tab, path)
        articles.append(tab.locator("article").inner_html())
    tab.evaluate("(all) => { document.querySelector('article').innerHTML = all }", "\n".join(articles))
    tab.evaluate("dispatchEvent(new Event('resize'))")
    judge(tab, path)  # the modules' pages have one frame, and are judged in it together


def look_at(tab, path: Path) -> None:
    """Load a page, unfold it, and demand quiet, whole images and, on a phone, no scrolling sideways."""
    tab.heard.clear()
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.goto(path.as_uri())
    tab.evaluate(SETTLE)
    assert not tab.evaluate(WIDE), f"{path.name} scrolls sideways at 360 pixels"
    assert not (tab.heard + tab.evaluate(BROKEN)), path.name


def judge(tab, path: Path) -> None:
    """No serious fault by axe, which looks at contrast in both themes; scrollers can be reached by the keyboard."""
    tab.evaluate(FEW_TOKENS)
    tab.evaluate(AXE)
    faults = tab.evaluate(RUN, ["light", {"rules": {"color-contrast": {"enabled": False}}}])
    tab.set_viewport_size({"width": 1200, "height": 900})
    tab.evaluate(FEW_TEXTS)
    for theme in ("light", "dark"):
        faults += tab.evaluate(RUN, [theme, {"runOnly": ["color-contrast"]}])
    assert not faults, f"{path.name}: {len(faults)} faults\n" + "\n".join(faults[:10])


def test_a_word_is_found(site, tab):
    tab.goto((site / "index.html").as_uri())
    tab.get_by_role("textbox").or_(tab.get_by_role("searchbox")).first.fill("nibble")
    tab.keyboard.press("Enter")
    tab.locator("#search-results li a[href*='03_block_quantization.html']").first.wait_for(timeout=20_000)
    tab.evaluate(AXE)
    assert not [fault for theme in ("light", "dark") for fault in tab.evaluate(RUN, [theme, {}])]


def test_lessons_come_before_the_modules_of_the_same_word(site, tab):
    tab.goto((site / "search.html").as_uri() + "?q=outlier")
    tab.locator("#search-results li a").nth(5).wait_for(timeout=20_000)
    found = tab.locator("#search-results li a").evaluate_all("links => links.map(link => link.href)")
    of_lessons = ["/notebooks/" in link for link in found]
    assert of_lessons == sorted(of_lessons, reverse=True) and len(set(of_lessons)) == 2


def test_on_a_phone_nothing_of_a_lessons_card_or_of_what_it_printed_is_out_of_view(site, tab):
    for path in sorted((site / "notebooks").glob("1*.html")):
        for width in (360, 1200):
            tab.set_viewport_size({"width": width, "height": 800})
            tab.goto(path.as_uri())
            tab.evaluate(SETTLE)
            boxes = ".output.stream pre" + ", p:has(> a.button) + .table-wrapper" * (width == 360)
            hidden = tab.locator(boxes).evaluate_all(
                "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.innerText)")
            assert not hidden, f"{path.name} at {width} pixels"


def test_the_first_page_says_what_a_lesson_runs_on():
    path, card = ROOT / "notebooks" / "10_x.ipynb", "# 10 · X\n\n| a | b | c | d |\n|---|---|---|---|\n"
    first = new_markdown_cell(card + "| b | n | 80 minutes: 45 and 35 | any laptop (pocket); a GPU (Llama-2-7B) |")
    row = pages.card(path, new_notebook(cells=[first]))
    assert row == "| [10 · X](notebooks/10_x.ipynb) | 80 minutes | any laptop; a GPU |"


def test_a_notebook_that_makes_no_page_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "01_x.ipynb"
    title, error = new_markdown_cell("# 01 · X"), new_output("error", ename="ValueError", evalue="no", traceback=[])
    for cells, said in (([], "does not begin with a title"), ([title, new_code_cell("1")], "was not run"),
                        ([title, new_code_cell("1", execution_count=1, outputs=[error])], "ended in ValueError: no")):
        nbformat.write(new_notebook(cells=cells), path)
        with pytest.raises(pages.Broken, match=f"notebooks/01_x.ipynb.*{said}"):
            pages.read(path)
    path.write_text(json.dumps({"cells": []})[:-1], encoding="utf-8")
    with pytest.raises(pages.Broken, match="notebooks/01_x.ipynb cannot be read as a notebook(.|\n)*git restore"):
        pages.read(path)


def test_a_broken_notebook_leaves_the_site_of_before(tmp_path, monkeypatch, capsys):
    def broken(source):
        raise pages.Broken("notebooks/01_x.ipynb is broken")

    monkeypatch.setattr(pages, "lay_out", broken)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("before")
    assert pages.main(tmp_path / "site") == 1
    assert "01_x.ipynb is broken" in capsys.readouterr().out
    assert os.listdir(tmp_path) == ["site"] and (tmp_path / "site" / "index.html").read_text() == "before"
