"""The style, `show` and its alternative text on its way to the reader, and the drawings of figures/."""

from __future__ import annotations

import base64
import io
import pathlib
import re
import struct
import subprocess
import sys
import textwrap

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers import drawings, plots

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def style():
    with mpl.rc_context():
        plots.use_style()
        yield


def shown(fig, alt):
    """What `show` sends to the notebook: its data and its metadata."""
    InteractiveShell.instance()
    with capture_output() as captured:
        plots.show(fig, alt=alt)
    (output,) = captured.outputs
    return output.data, output.metadata


def test_show_displays_a_png_with_its_alternative_text(style):
    fig, ax = plt.subplots()
    ax.plot([1, 2, 3])
    data, metadata = shown(fig, 'A line that "rises"\n    from 1 to 3.')
    assert set(data) == {"image/png", "text/plain"}
    assert data["text/plain"] == metadata["image/png"]["alt"] == 'A line that "rises" from 1 to 3.'
    image = base64.b64decode(data["image/png"])
    assert image.startswith(b"\x89PNG") and b"Software" not in image and b"tEXt" not in image
    width, height = struct.unpack(">II", image[16:24])
    assert width == 720 and height == 340 and len(image) < 40_000
    assert not plt.get_fignums(), "show closes the figure, or the notebook would show it twice"


@pytest.mark.parametrize("alt", ["", "  \n", None])
def test_show_insists_on_a_text(alt):
    with pytest.raises(ValueError, match="describe in a sentence"):
        plots.show(plt.Figure(), alt=alt)


def test_the_text_reaches_the_img_tag_of_nbconvert(style):
    """With the template "classic"; the default of nbconvert 7.17, "lab", has no alt for outputs."""
    data, metadata = shown(plots.loss_curve([1, 2], [2.0, 1.0]), 'Loss "falls" from 2 to <1.')
    cell = new_code_cell("show(fig)", outputs=[new_output("display_data", data, metadata=metadata)])
    exporter = HTMLExporter(template_name="classic")
    body, _ = exporter.from_notebook_node(new_notebook(cells=[cell]))
    (tag,) = re.findall(r"<img[^>]*>", body)
    assert re.search(r"""alt=(["'])Loss (&quot;|&#34;|")falls(&quot;|&#34;|") from 2 to (&lt;|<)1\.\1""", tag)
    nbformat.validate(new_notebook(cells=[cell]))


def test_the_same_figure_is_the_same_file(style):
    first, second = (plots.png(plots.loss_curve(range(50), np.linspace(5, 0.1, 50))) for _ in range(2))
    assert first == second


def test_the_background_is_opaque_and_light_and_the_words_are_legible(style):
    fig, ax = plt.subplots()
    image = fig_pixels(fig)
    assert (image[..., 3] == 255).all() and image[0, 0, :3].min() >= 240
    sizes = [mpl.rcParams[key] for key in mpl.rcParams if key.endswith(("labelsize", "titlesize", "legend.fontsize"))
             and isinstance(mpl.rcParams[key], float)] + [mpl.rcParams["font.size"]]
    assert min(sizes) >= 10
    plt.close(fig)


def fig_pixels(fig) -> np.ndarray:
    """The figure as uint8 (height, width, 4)."""
    return (plt.imread(io.BytesIO(plots.png(fig))) * 255).round().astype(np.uint8)


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2.1, 0 for black to 1 for white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("ink", [plots.INK, plots.GREY, plots.FROZEN, drawings.DARK_ORANGE])
@pytest.mark.parametrize("ground", [plots.PAPER, drawings.PALE_BLUE, drawings.PALE_ORANGE, drawings.PALE_GREY])
def test_words_stand_out_from_their_ground(ink, ground):
    light, dark = sorted((luminance(ink), luminance(ground)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.1


def test_a_loss_curve_shows_its_data_and_refuses_what_it_cannot_show(style):
    fig = plots.loss_curve([10, 20, 30], [3.0, 1.0, 0.5], total=100)
    (ax,) = fig.axes
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[10, 3], [20, 1], [30, 0.5]])
    assert ax.get_xlim()[1] >= 100 and ax.get_yscale() == "log" and ax.texts[0].get_text() == "0.5"
    plots.png(plots.loss_curve([], []))
    for loss in (float("nan"), float("inf"), 0.0, -1.0):
        with pytest.raises(ValueError, match="at step 2: .*lower the learning rate"):
            plots.loss_curve([1, 2], [1.0, loss])
    with pytest.raises(ValueError, match="2 steps but 1 losses"):
        plots.loss_curve([1, 2], [1.0])


@pytest.mark.parametrize("loss", [1e-5, 0.01, 0.33, 1.0, 3.2, 9.99, 4000.0])
def test_a_flat_loss_curve_still_has_a_tick(style, loss):
    (ax,) = plots.loss_curve([1, 2], [loss, loss]).axes
    low, high = ax.get_ylim()
    assert [tick for tick in ax.get_yticks() if low <= tick <= high]


def numbers_apart(svg: str) -> tuple[str, np.ndarray]:
    """The drawing without its numbers and hashed names, and its numbers: another CPU may differ in a last digit."""
    svg = re.sub(r"\b[mpc][0-9a-f]{10}\b", "ID", svg)
    number = r"-?\d+\.?\d*(?:e-?\d+)?"
    return re.sub(number, "N", svg), np.array([float(n) for n in re.findall(number, svg)])


@pytest.mark.parametrize("name", plots.ALT)
def test_the_committed_drawings_are_what_the_code_draws(tmp_path, name):
    drawn = {path.name: path.read_text() for path in drawings.draw_all(tmp_path / "a")}[name]
    again = {path.name: path.read_text() for path in drawings.draw_all(tmp_path / "b")}[name]
    assert drawn == again, "the same drawing must be the same file"
    committed = (ROOT / "figures" / name).read_text()
    (shape, values), (committed_shape, committed_values) = numbers_apart(drawn), numbers_apart(committed)
    assert shape == committed_shape, f"figures/{name} is out of date: run `make figures`"
    np.testing.assert_allclose(values, committed_values, atol=0.02, err_msg=f"figures/{name}: run `make figures`")
    assert "<text" not in drawn and "<dc:date>" not in drawn and len(drawn) < 150_000


@pytest.mark.parametrize("name", plots.ALT)
def test_words_in_a_drawing_do_not_overlap_each_other_or_leave_it(name):
    fig = getattr(drawings, name.removesuffix(".svg"))()
    fig.canvas.draw()
    words = [(text.get_text(), text.get_window_extent()) for text in fig.axes[0].texts]
    assert all(text.get_fontsize() >= 10 for text in fig.axes[0].texts)
    for i, (word, extent) in enumerate(words):
        assert 5 <= extent.x0 < extent.x1 <= fig.bbox.width - 5, word
        assert 5 <= extent.y0 < extent.y1 <= fig.bbox.height - 5, word
        for other, box in words[i + 1:]:
            assert not extent.overlaps(box), f"{word!r} and {other!r}"


def test_drawing_works_as_a_command_without_warnings(tmp_path):
    code = f"import pathlib; from helpers.drawings import draw_all; draw_all(pathlib.Path({str(tmp_path)!r}))"
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and not run.stderr, run.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(plots.ALT)


def test_the_levers_are_arithmetic():
    total = {name: sum(parts.values()) for name, parts in drawings.training_bytes().items()}
    assert drawings.LINEARS + drawings.OTHERS == 6_738_415_616
    assert total["Full fine-tuning"] == 12 * 6_738_415_616
    assert total["Shrink: NF4"] / 2**30 == pytest.approx(3.60, abs=0.005)  # with a bf16 embedding and head
    assert total["Both: QLoRA"] - total["Shrink: NF4"] == 12 * 39_976_960
    shapes = [(4096, 4096)] * 4 + [(4096, 11008)] * 3
    assert drawings.LORA_R16 == 32 * 16 * sum(d + k for d, k in shapes)
    assert drawings.LINEARS == 32 * sum(d * k for d, k in shapes)
    for value in total.values():
        assert f"{value / 1e9:.1f} GB" in plots.ALT["levers.svg"]


def test_the_map_lists_the_lessons_that_exist():
    drawn = {line[:2]: line[4:] for lessons in drawings.PARTS.values() for line in lessons}
    assert list(drawn) == [f"{n:02d}" for n in range(1, 14)]
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
        if plots.ALT.get(name) != alt:
            faults.append(f"{name}: write ![{plots.ALT.get(name, 'no such drawing')}]")
    for tag in re.findall(r"<img[^>]*figures/[\w.-]+\.svg[^>]*>", markdown):
        name = re.search(r"figures/([\w.-]+\.svg)", tag)[1]
        if f'alt="{plots.ALT.get(name)}"' not in tag:
            faults.append(f"{name}: write alt=\"{plots.ALT.get(name, 'no such drawing')}\"")
    return faults


def test_every_embedded_drawing_has_its_alternative_text():
    faults = {name: wrong_embeddings(markdown) for name, markdown in documents()}
    assert not any(faults.values()), textwrap.indent(str(faults), "  ")


def test_a_wrong_embedding_is_noticed():
    right = f"![{plots.ALT['qlora.svg']}](../figures/qlora.svg)"
    assert not wrong_embeddings(right)
    assert wrong_embeddings("![QLoRA](../figures/qlora.svg)")
    assert wrong_embeddings("![](figures/course.svg)")
    assert wrong_embeddings(right.replace("qlora.svg)", "qlora2.svg)"))
    assert wrong_embeddings('<img src="figures/course.svg" width="800">')


@pytest.mark.parametrize("alt", plots.ALT.values())
def test_alternative_texts_can_stand_in_markdown(alt):
    assert not set('[]"\n<>') & set(alt) and 80 < len(alt) < 600 and alt.endswith(".")
