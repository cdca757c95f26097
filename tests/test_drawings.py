"""The drawings of figures/: drawn as committed, legible, and their alternative texts true wherever they stand."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure

from helpers import drawings
from helpers.drawings import overview
from helpers.drawings.blocks import COLUMNS
from helpers.drawings.canvas import DRAWINGS
from helpers.explorers import moving
from helpers.floats import FP32

ROOT = Path(__file__).resolve().parent.parent
ALT = {**drawings.ALT, moving.FILE.name: moving.ALT}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The folder that `make figures` fills; a warning is an error."""
    folder = tmp_path_factory.mktemp("figures")
    code = f"import pathlib; from helpers.drawings import draw_all; draw_all(pathlib.Path({str(folder)!r}))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    return folder


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return {name: draw() for name, draw in DRAWINGS.items()}


def numbers_apart(svg: str) -> tuple[str, np.ndarray]:
    """The drawing without its numbers and hashed names, and its numbers: another CPU may differ in a last digit."""
    svg = re.sub(r"\b[mpc][0-9a-f]{10}\b", "ID", svg)
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    return re.sub(number, "N", svg), np.array([float(n) for n in re.findall(number, svg)])


@pytest.mark.parametrize("name", drawings.ALT)
def test_the_committed_drawings_are_what_the_code_draws(files, figures, tmp_path, name):
    drawn, committed = (files / name).read_text(), (ROOT / "figures" / name).read_text()
    drawings.save(figures[name], tmp_path / name)
    assert drawn == (tmp_path / name).read_text(), "the same drawing must be the same file"
    (shape, values), (committed_shape, committed_values) = numbers_apart(drawn), numbers_apart(committed)
    assert shape == committed_shape, f"figures/{name} is out of date: run `make figures`"
    np.testing.assert_allclose(values, committed_values, atol=0.02, err_msg=f"figures/{name}: run `make figures`")
    assert "<text" not in drawn and "<dc:date>" not in drawn and len(drawn) < 150_000


def test_figures_holds_the_drawings_and_nothing_else(files):
    there = sorted(path.name for path in (ROOT / "figures").iterdir())
    assert there == sorted(ALT) and sorted(drawings.ALT) == sorted(path.name for path in files.iterdir())


@pytest.mark.parametrize("name", drawings.ALT)
def test_words_in_a_drawing_do_not_overlap_each_other_or_leave_it(figures, name):
    fig = figures[name]
    words = [(text.get_text(), text.get_window_extent()) for text in fig.axes[0].texts]
    assert all(text.get_fontsize() >= 10 for text in fig.axes[0].texts)
    for i, (word, extent) in enumerate(words):
        assert 5 <= extent.x0 < extent.x1 <= fig.bbox.width - 5, word
        assert 5 <= extent.y0 < extent.y1 <= fig.bbox.height - 5, word
        for other, box in words[i + 1:]:
            assert not extent.overlaps(box), f"{word!r} and {other!r}"


def numbers(text: str) -> set[str]:
    """The numbers of a text, as they are written; a dash of any kind is a minus."""
    text = text.replace("Llama-2-7B", "").replace("e+", "e").replace("−", "-")
    return set(re.findall(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e\d+)?", text))


# Numbers that an alternative text says and the drawing shows without writing them.
UNWRITTEN = {
    "blocks.svg": {str(COLUMNS)},
    "formats.svg": {str(FP32.mantissa_bits)},
    "levers.svg": {f"{overview.training_bytes()['Full fine-tuning']['optimizer'] / 1e9:.1f}"},
}


@pytest.mark.parametrize("name", drawings.ALT)
def test_every_number_of_an_alternative_text_is_in_the_drawing(figures, name):
    """The drawing computes its numbers; the text beside it is typed by hand."""
    written = numbers(" ".join(text.get_text() for text in figures[name].axes[0].texts))
    assert numbers(drawings.ALT[name]) - written == UNWRITTEN.get(name, set())


def test_the_levers_are_arithmetic():
    total = {name: sum(parts.values()) for name, parts in overview.training_bytes().items()}
    assert overview.LINEARS + overview.OTHERS == 6_738_415_616
    assert total["Full fine-tuning"] == 12 * 6_738_415_616
    assert total["Shrink: NF4"] / 2**30 == pytest.approx(3.60, abs=0.005)  # with a bf16 embedding and head
    assert total["Both: QLoRA"] - total["Shrink: NF4"] == 12 * 39_976_960
    shapes = [(4096, 4096)] * 4 + [(4096, 11008)] * 3
    assert overview.LORA_R16 == 32 * 16 * sum(d + k for d, k in shapes)
    assert overview.LINEARS == 32 * sum(d * k for d, k in shapes)


def test_the_map_lists_the_lessons_that_exist():
    drawn = {line[:2]: line[4:] for lessons in overview.PARTS.values() for line in lessons}
    assert list(drawn) == [f"{n:02d}" for n in range(1, 16)]
    for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        title = nbformat.read(path, as_version=4).cells[0].source.splitlines()[0]
        assert path.name[:2] == "00" or drawn[path.name[:2]].rstrip(".") in title, f"{path.name}: {title}"


def documents() -> list[tuple[str, str]]:
    """(name, markdown) of the README and of every notebook's text cells."""
    readme = ROOT / "README.md"
    found = [(readme.name, readme.read_text(encoding="utf-8"))] if readme.exists() else []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        found.append((path.name, "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")))
    return found


def wrong_embeddings(markdown: str) -> list[str]:
    """What is wrong with the drawings that this markdown embeds: another text than ALT's, or no such drawing."""
    faults = []
    for alt, name in re.findall(r"!\[([^\]]*)\]\((?:[^)\s]*/)?figures/([\w.-]+\.svg)[^)]*\)", markdown):
        if ALT.get(name) != alt:
            faults.append(f"{name}: write ![{ALT.get(name, 'no such drawing')}]")
    for tag in re.findall(r"<img[^>]*figures/[\w.-]+\.svg[^>]*>", markdown):
        name = re.search(r"figures/([\w.-]+\.svg)", tag)[1]
        if f'alt="{ALT.get(name)}"' not in tag:
            faults.append(f"{name}: write alt=\"{ALT.get(name, 'no such drawing')}\"")
    return faults


def test_every_embedded_drawing_has_its_alternative_text():
    faults = {name: wrong_embeddings(markdown) for name, markdown in documents()}
    assert not any(faults.values()), textwrap.indent(str(faults), "  ")


def test_a_wrong_embedding_is_noticed():
    right = f"![{drawings.ALT['qlora.svg']}](../figures/qlora.svg)"
    assert not wrong_embeddings(right)
    assert wrong_embeddings("![QLoRA](../figures/qlora.svg)")
    assert wrong_embeddings("![](figures/course.svg)")
    assert wrong_embeddings(right.replace("qlora.svg)", "qlora2.svg)"))
    assert wrong_embeddings('<img src="figures/course.svg" width="800">')


@pytest.mark.parametrize("alt", ALT.values())
def test_alternative_texts_can_stand_in_markdown(alt):
    assert not set('[]"\n<>') & set(alt) and alt.endswith(".")
