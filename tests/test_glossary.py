"""The glossary: its form, and that each term is defined in the lesson that it names and not used before."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, writes
from notebook_tools import glossary

ENTRIES = glossary.entries()
LESSONS = glossary.lessons()


def test_the_glossary_is_a_list_from_a_to_z():
    terms = [entry.term for entry in ENTRIES]
    assert 60 <= len(terms) <= 100 and len(set(terms)) == len(terms)
    assert terms == sorted(terms, key=str.casefold), "from A to Z, capitals or not"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_an_entry_is_one_or_two_plain_sentences_and_a_lesson(entry):
    assert (glossary.FILE.parent / entry.file).is_file() and entry.file.startswith(entry.lesson + "_")
    sentences = re.split(r"(?<=[.?!])\s+", entry.text)
    assert 1 <= len(sentences) <= 2 and entry.text.endswith(".") and len(entry.text) <= 220


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_a_term_is_defined_where_it_first_appears(entry):
    problems = glossary.problems(entry, LESSONS)
    assert not problems, "\n".join(problems)


def test_the_readme_leads_to_it():
    assert "(notebooks/glossary.md)" in (glossary.release.ROOT / "README.md").read_text(encoding="utf-8")


# The rules can say no.

def problems(term, text, **lessons):
    entry = glossary.Entry(term, "04", "04_nf4.ipynb", text)
    return glossary.problems(entry, {name[1:]: [(n, f"id{n}", cell) for n, cell in enumerate(cells)]
                                     for name, cells in lessons.items()})


@pytest.mark.parametrize("text", [
    "A **codebook** is a table.", "Two *codebooks* are tables.", "It is called a **sorted codebook** here.",
    "## A codebook", "## Codebooks: which is best?", "A **Codebook** is a table."])
def test_what_defines_a_term(text):
    assert problems("codebook", "A table.", l03=["# x", "y"], l04=["# z", text]) == []


@pytest.mark.parametrize("text", [
    "A codebook is a table.", "**Which codebook is best?**", "### ★ The codebook · 5 min", "### Digression: a codebook",
    "A **codebooklet** is small.", "A **bcodebook**", ""])
def test_what_does_not(text):
    (problem,) = problems("codebook", "A table.", l04=["# z", text])
    assert problem == "codebook: lesson 04 must set it in **bold** where it says what it is"


@pytest.mark.parametrize("text, early", [
    ("We take a codebook.", True), ("Codebooks are used.", True), ("A **codebook** is a table.", True),
    ("We take a codebook (lesson 04).", False), ("Codebooks are the next lesson's.", False), ("We take books.", False),
    ("One codebook, of lesson 04. And a codebook again.", False)])
def test_a_term_may_not_be_used_before_but_for_a_lesson_that_says_where_it_comes(text, early):
    found = problems("codebook", "A table.", l00=["codebook", "codebook"], l03=["# codebook", text],
                     l04=["**codebook**"])
    assert len(found) == early
    assert not early or "In lesson 03, cell 1 (id1): " in found[0] and "(lesson 04) behind it" in found[0]


def test_a_verb_has_more_forms_than_a_noun():
    assert problems("clip", "To cut.", l04=["**Clipping** is to cut."]) == []
    assert problems("merge", "To add.", l04=["It is **merged**."]) == []
    assert problems("rank", "A number.", l03=["", "The ranking is luck."], l04=["**rank**"]) == []
    assert problems("alpha, α", "A number.", l04=["The **α** of LoRA."]) == []


def test_code_tables_formulas_and_the_outlook_are_no_prose(tmp_path):
    cells = ["# T\n\nreal 1",
             "a `code` b\n\n```python\nfence\n```\n\n| table | cell |\n|---|---|\n\n$$ math $$ and $inline$",
             "[words](address.ipynb) and **In QLoRA:** here",
             "## You can now\n\nreal 2\n\n## Sources\n\nsource\n\n## Next\n\noutlook"]
    path = tmp_path / "01_x.ipynb"
    path.write_text(writes(new_notebook(cells=[*map(new_markdown_cell, cells), new_code_cell("coded = 1")])))
    text = "\n".join(text for _, _, text in glossary.prose(path))
    assert all(word in text for word in ("real 1", "real 2", "words", "here", "You can now"))
    others = ("code", "fence", "table", "math", "inline", "address", "QLoRA", "source", "outlook")
    assert not any(word in text for word in others)


@pytest.mark.parametrize("line", ["- **x**: a thing.", "- x ([01](01_x.ipynb)): a thing.", "- **x** (01): a thing."])
def test_a_line_that_is_no_entry_is_refused(line):
    with pytest.raises(ValueError, match="no entry"):
        glossary.entries(f"# Glossary\n\n{line}\n")
