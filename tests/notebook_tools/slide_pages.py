"""The pages beside the decks: the notes of each, to read on paper or a second screen, and the list of all."""

from __future__ import annotations

import html
import re
from pathlib import Path

from notebook_tools import decks
from notebook_tools.decks import Deck

SECTION = re.compile(r'<section [^>]*data-state="[^>]*>\n(.*?)<aside class="notes">(.*?)</aside>', re.DOTALL)
HOW = ("The minutes hold for {} words a minute, time to look and answer, and for the cells: ▶ says where one is run, "
       "or looked at, in the notebook.")
KEYS = """<p>In a deck: the arrow keys turn the slides, <b>S</b> opens the speaker's view with notes and clock, <b>F</b>
fills the screen, <b>O</b> shows all slides.
<code>?dark</code> or <code>?light</code> behind the address chooses the colours, <code>?print-pdf</code> prints.</p>"""
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<link rel="stylesheet" href="_static/deck.css"><script src="_static/theme.js"></script>{head}</head>
<body class="page">{content}</body></html>
"""


def notes_page(deck: Deck, folder: Path) -> None:
    """NAME_notes.html: every slide beside its notes. RuntimeError if Sphinx's page lacks some."""
    page = (folder / f"{deck.name}.html").read_text(encoding="utf-8")
    shown = SECTION.findall(page)
    if len(shown) != len(deck.slides):
        raise RuntimeError(f"{deck.name}: {len(shown)} of {len(deck.slides)} slides are in Sphinx's page")
    articles = []
    for number, (slide, (visible, notes)) in enumerate(zip(deck.slides, shown, strict=True), start=1):
        visible = re.sub(r"<h[12]>.*?</h[12]>", "", visible, flags=re.DOTALL)
        articles.append(f"<article><header>{number} · {slide.kind}</header><div class='shown'>"
                        f"<h2>{html.escape(slide.title)}</h2>{visible}</div><div class='notes'>{notes}</div></article>")
    read, tasks = deck.card
    title = f"{html.escape(deck.title)}: notes"
    first = (f"<h1>{title}</h1><p>{len(deck.slides)} slides, {decks.half(deck.minutes)} minutes, and {tasks} for the "
             f"exercises (the card says {read} + {tasks}). {HOW.format(decks.WORDS_A_MINUTE)}</p>"
             f"<p class='no-print'><a href='{deck.name}.html'>The slides</a> · <a href='index.html'>All decks</a></p>")
    math = '<script src="_static/tex-svg.js" defer></script>' if "tex-svg.js" in page else ""
    text = PAGE.format(title=title, head=math, content=first + "".join(articles))
    (folder / f"{deck.name}_notes.html").write_text(text, encoding="utf-8")


def index(found: list[Deck], folder: Path) -> None:
    """The list of decks."""
    rows = "".join(f"<tr><td>{deck.name[:2]}</td><td><a href='{deck.name}.html'>{html.escape(deck.title)}</a></td>"
                   f"<td>{len(deck.slides)} slides</td><td>{decks.half(deck.minutes)} + {deck.card[1]} min</td>"
                   f"<td><a href='{deck.name}_notes.html'>notes</a></td></tr>" for deck in found)
    title = "From Bits to QLoRA: decks"
    text = PAGE.format(title=title, head="", content=f"<h1>{title}</h1><table>{rows}</table>{KEYS}")
    (folder / "index.html").write_text(text, encoding="utf-8")
