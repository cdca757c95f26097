"""The decks: what slides/NN.yml marks, what the notes say and how long; each in a browser without a network."""

from __future__ import annotations

import re

import browser
import nbformat
import pytest
from notebook_tools import decks, slides, spoken

from helpers.exercises import registry

LESSONS = decks.lessons()
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")
SIZE = (960, 700)
# The same figure as the answer, about something else: a hundred additions, scales of 32 bits, 95 %, 20 vectors.
COINCIDENCES = {("01", "100"), ("05", "32"), ("06", "95"), ("08", "20")}
LOOK = """() => {
  const slide = Reveal.getCurrentSlide(), edge = slide.getBoundingClientRect(), scale = edge.width / 960, found = [];
  const title = slide.querySelector('h1, h2').innerText;
  if (slide.scrollHeight > 700) found.push(`${title}: ${slide.scrollHeight} px high`);
  for (const part of slide.querySelectorAll('*')) {
    if (part.closest('aside') || part.closest('svg') || part.closest('mjx-assistive-mml')) continue;
    const box = part.getBoundingClientRect();
    if ((box.bottom - edge.top) / scale > 701 || (box.right - edge.left) / scale > 961)
      found.push(`${title}: <${part.tagName}> ends at ${Math.round((box.right - edge.left) / scale)}, `
                 + `${Math.round((box.bottom - edge.top) / scale)}`);
    const own = [...part.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (own && parseFloat(getComputedStyle(part).fontSize) < 20) found.push(`${title}: small type: ${part.innerText}`);
    if (part.tagName === 'IMG' && !(part.alt.trim() && part.naturalWidth > 0 && box.height / scale > 100))
      found.push(`${title}: image ${part.src}, alt '${part.alt}', ${Math.round(box.height / scale)} px high`);
  }
  for (const formula of slide.querySelectorAll('mjx-container svg')) {
    const end = Math.round((formula.getBoundingClientRect().right - edge.left) / scale);
    if (end > 961 || formula.querySelector('[data-mml-node="merror"], [fill="red"]'))
      found.push(`${title}: a formula ends at ${end}, or has a word that MathJax does not know`);
  }
  return found;
}"""
CONTRAST = """() => {
  const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(x => { x /= 255;
    return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('.slides h1, .slides h2, .slides p, .slides li')].map(part => {
    const ink = light(getComputedStyle(part).color);
    return (Math.max(ink, paper) + .05) / (Math.min(ink, paper) + .05); }).concat(paper < .2 ? [] : [0]);
}"""


@pytest.fixture(scope="module", params=LESSONS, ids=lambda path: path.name[:2])
def deck(request: pytest.FixtureRequest) -> decks.Deck:
    return decks.read(request.param)


def shown(slide: decks.Slide, deck: decks.Deck) -> str:
    """All words that stand on a slide."""
    spec, cell = slide.spec, slide.cell
    words = [slide.title, slide.body, spec.get("text", "")]
    show = spec.get("show", {"reveal": "output", "proof": "output"}.get(slide.kind, ""))
    if show == "output":
        words.append(slides._lines("\n".join(decks.outputs(cell, "text")) or " ", spec))
    if slide.kind == "reveal" and show != "nothing":
        words += decks.outputs(cell, "outcome")
    drawn = [cell] * (show == "picture" or (slide.kind == "picture" and not show)) + [
        other for other in deck.notebook.cells if other.id == spec.get("beside")]
    return "\n".join([*words, *(alt for other in drawn for alt in decks.outputs(other, "alt"))])


def test_every_deck_file_has_its_lesson_and_every_lesson_its_deck():
    files = {path.stem for path in decks.FOLDER.glob("*.yml")}
    assert files == {path.name[:2] for path in LESSONS}, "a deck file without a notebook"
    assert files == {path.name[:2] for path in (decks.ROOT / "notebooks").glob("*.ipynb")}, (
        "a lesson without a deck: write slides/NN.yml, as notebook_tools/decks.py says")


def test_a_deck_has_12_to_20_slides_of_every_kind(deck):
    assert 12 <= len(deck.slides) <= 20
    kinds = {slide.kind for slide in deck.slides}
    asked = any(cell.source.startswith("predict(") for cell in deck.notebook.cells)
    assert {"picture", "proof", "recap"} | ({"predict", "reveal"} if asked else set()) <= kinds
    assert kinds & {"question", "before"}
    titles = [slide.title for slide in deck.slides]
    assert all(titles) and len(set(titles)) == len(titles)


def test_the_minutes_are_those_of_the_card(deck):
    read, tasks = deck.card
    assert abs(deck.minutes / read - 1) <= 0.1, f"{deck.minutes} minutes, the card says {read}"
    assert 0 <= tasks - sum(slides.task_minutes(s, deck) for s in deck.slides if s.kind in ("build", "exercises")) < 5


def test_a_prediction_comes_before_its_reveal_and_nothing_gives_it_away(deck):
    for number, slide in enumerate(deck.slides):
        if slide.kind == "predict":
            assert deck.slides[number + 1].kind in ("reveal", "build", "picture"), slide.title
        for answer in decks.outputs(slide.cell, "outcome") if slide.kind == "reveal" else ():
            if len(answer) < 2 or not answer[0].isdigit() or (deck.name[:2], answer) in COINCIDENCES:
                continue  # a digit stands on many a slide, a word in the question itself
            for earlier in deck.slides[2:number]:
                assert answer not in NUMBER.findall(shown(earlier, deck)), f"{earlier.title} gives away {answer}"


def test_the_notes_of_a_prediction_name_wrong_answers(deck):
    for number, slide in enumerate(deck.slides):
        if slide.kind != "predict":
            continue
        reveal = next(s for s in deck.slides[number:] if s.kind == "reveal")
        (true,) = decks.outputs(reveal.cell, "outcome") or [""]
        wrong = [line.partition(":")[0].strip() for line in slide.spec["expect"]]
        assert wrong and true not in wrong, slide.title
        offered = re.findall(r"\b([a-c])\) ", slide.title)
        assert len(wrong) + 1 >= len(offered), f"{slide.title}: a wrong option without a note"
        assert all(line in dict(slide.notes)["Wrong answers to expect"] for line in slide.spec["expect"])


def test_the_notes_of_an_exercise_name_its_mistakes(deck):
    lesson, told = int(deck.name[:2]), {}
    for slide in deck.slides:
        notes = slides.notes_html(slide, deck)
        for name, texts in slide.notes:
            if name.startswith("Mistakes to expect in "):
                task = registry.exercises()[name.split()[-1]]
                assert texts == [spoken.plain(m.says) for m in task.mistakes[:3]] and len(texts) == 3
                assert all(slides._inline(text) in notes for text in texts)
                told[task.name] = told.get(task.name, 0) + 1
    assert told == {name: 1 for name, task in registry.exercises().items() if task.lesson == lesson}


def test_the_figures_on_slides_stand_in_the_notebook(deck):
    cells = deck.notebook.cells
    texts = [cell.source for cell in cells] + [text for cell in cells for kind in ("text", "outcome", "alt")
                                               for text in decks.outputs(cell, kind)]
    known = {number.rstrip(",") for text in texts for number in NUMBER.findall(text)}
    for slide in deck.slides:
        words = f"{slide.title} {slide.spec.get('text', '')}"
        unknown = {number.rstrip(",") for number in NUMBER.findall(words)} - known
        assert not unknown, f"{slide.title}: {unknown} stand nowhere in the lesson"


def test_the_first_notes_say_where_a_gpu_is_needed(deck):
    told = [str(n) for n, slide in enumerate(deck.slides, start=1) if "gpu" in slide.spec]
    notes = slides.notes_html(deck.slides[0], deck)
    assert (f"the notes of slide{'s' * (len(told) > 1)} {', '.join(told)} say" in notes) == bool(told)
    assert not any("further below" in slides.notes_html(slide, deck) for slide in deck.slides)


def test_the_minutes_of_a_line_stay_with_its_last_word():
    assert slides._unbroken("they come back · 6 min") == "they come back\u00a0·\u00a06\u00a0min"


def test_what_is_written_wrongly_is_named():
    path = LESSONS[0]
    known = [cell.id for cell in nbformat.read(path, 4).cells]
    for specs, words in (([{"proof": "nowhere", "title": "T"}], "no cell of the notebook has the id nowhere"),
                         ([{"proof": known[9], "titel": "T"}], "fields of title"),
                         ([{"proof": known[9]}, {"proof": known[7]}], "stands before it"),
                         ([{"proof": known[1]}], "stands outside of the lesson")):
        with pytest.raises(ValueError, match=words):
            decks.read(path, specs)
    with pytest.raises(ValueError, match="no deck of 99: slides/ has 00, 01"):
        slides.build(names=["99"])


@pytest.mark.parametrize(("markdown", "said"), [
    ("See [the *note*](https://x.y/z) on **blocks**:\n\n| a | b |\n|---|---|\n| 1 | 2 |", "See the note on blocks:"),
    ("<details><summary>Q</summary>\nA</details>\n\nUse `numel()`.", "Use numel()."),
    (r"With $$ \frac{1}{2}\left(a + b\right) $$ in 2 * 3 * 4.", "With 1/2 (a + b ) in 2 * 3 * 4."),
    (r"$\frac{W}{\lVert W \rVert_{\text{row}}} 2^{\,e - p} \frac1{2n}$ before `<s>`",
     "W/(‖ W ‖_row) 2^(e - p) 1/(2n) before <s>"),
    ("$0.91 in place of $1.40", "$0.91 in place of $1.40"), ("- one\n- two", "- one\n\n- two"),
    ("```python\nx = 1\n```\nAfter.", "After.")])
def test_markdown_is_said_without_its_marks(markdown, said):
    assert spoken.plain(markdown) == said


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return folder, slides.build(folder / "decks")


@pytest.fixture(scope="module")
def context():
    with browser.launched() as opened:
        offline = opened.new_context(viewport={"width": SIZE[0], "height": SIZE[1]})
        offline.set_offline(True)
        yield offline


@pytest.fixture
def page(context):
    """A page that counts what goes wrong: `page.wrong`."""
    page, page.wrong = context.new_page(), []
    return watched(page)


def watched(page, wrong=None):
    page.wrong = [] if wrong is None else wrong
    page.on("console", lambda said: said.type in ("error", "warning") and page.wrong.append(said.text))
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith(("file:", "data:", "blob:", "about:"))
            or page.wrong.append(f"asked for {asked.url}"))
    page.on("requestfailed", lambda asked: page.wrong.append(f"not found: {asked.url}"))
    return page


def test_every_slide_fits_can_be_read_and_needs_no_network(built, page):
    for deck in built[1]:
        page.goto(f"file://{built[0]}/decks/{deck.name}.html?light&margin=0")
        page.wait_for_function("Reveal.isReady() && [...document.images].every(image => image.complete)")
        page.evaluate("window.MathJax?.startup?.promise")
        assert page.evaluate("Reveal.getTotalSlides()") == len(deck.slides)
        found = []
        for number in range(len(deck.slides)):
            page.evaluate(f"Reveal.slide({number})")
            found += page.evaluate(LOOK)
        assert not found and not page.wrong, (deck.name, found, page.wrong)
    page.close()


def test_the_dark_deck_can_be_read(built, page):
    page.goto(f"file://{built[0]}/decks/{built[1][0].name}.html?dark")
    assert min(page.evaluate(CONTRAST)) > 4.5
    page.close()


def test_the_speaker_view_opens_with_the_notes(built, page, context):
    deck = built[1][0]
    page.goto(f"file://{built[0]}/decks/{deck.name}.html#/1")
    page.wait_for_function("Reveal.isReady()")
    with context.expect_page() as opened:
        page.keyboard.press("s")
    speaker = watched(opened.value)
    wanted = slides.clock(deck.slides[1], deck)
    notes = speaker.locator(".speaker-controls-notes .value").filter(has_text=wanted)
    notes.wait_for(timeout=30_000)
    assert deck.slides[1].spec["ask"][:20] in notes.inner_text()
    assert not page.wrong and not speaker.wrong
    speaker.close()
    page.close()


def test_the_notes_pages_and_the_list(built, page):
    folder, made = built
    for deck in made:
        page.goto(f"file://{folder}/decks/{deck.name}_notes.html")
        assert page.locator("article").count() == len(deck.slides)
    page.goto(f"file://{folder}/decks/index.html")
    links = page.eval_on_selector_all("a", "links => links.map(link => link.href)")
    assert len(links) == 2 * len(made) and not page.wrong
    for link in links:
        assert (folder / "decks" / link.rsplit("/", 1)[1]).is_file()
    size = sum(path.stat().st_size for path in (folder / "decks").rglob("*") if path.is_file())
    assert size < 8e6
    page.close()
