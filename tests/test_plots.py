"""The style, `show` and its alternative text on its way to the reader, and the loss curve."""

from __future__ import annotations

import base64
import io
import re
import struct

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from matplotlib import font_manager
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_notebook, new_output

from helpers import plots
from helpers.drawings import canvas


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
    with pytest.raises(ValueError, match="alt="):
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


@pytest.mark.parametrize("ink", [plots.INK, plots.GREY, plots.FROZEN, canvas.DARK_ORANGE])
@pytest.mark.parametrize("ground", [plots.PAPER, canvas.PALE_BLUE, canvas.PALE_ORANGE, canvas.PALE_GREY])
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
        with pytest.raises(ValueError, match=f"{loss} at step 2"):
            plots.loss_curve([1, 2], [1.0, loss])
    with pytest.raises(ValueError, match="2 steps.*1 loss"):
        plots.loss_curve([1, 2], [1.0])


def test_no_gridline_goes_through_a_number(style):
    """Words in the axes have a rim of paper, and a legend a ground of paper, where a grid is."""
    fig = plt.Figure(layout="none")
    ax = fig.add_axes((0.1, 0.1, 0.8, 0.8), xlim=(0, 1), ylim=(0, 1), yticks=[0.5])
    text = ax.text(0.5, 0.5, "0.1234", ha="center", va="center")
    with_grid = fig_pixels(fig).astype(int)
    left, right = (round(x) for x in text.get_window_extent().intervalx)
    ax.grid(visible=False)
    struck = abs(with_grid - fig_pixels(fig)).max(axis=(0, 2)) > 8  # columns of pixels in which the grid shows
    assert struck[left - 20:left - 5].all() and struck[right + 5:right + 20].all()
    assert not struck[left + 1:right - 1].any()
    ground = ax.legend(ax.plot([0, 1], [0, 1]), ["a line"]).get_frame()
    assert ground.get_visible() and mpl.colors.same_color(ground.get_facecolor()[:3], plots.PAPER)


def test_words_that_need_no_rim_get_none(style):
    fig = plt.Figure()
    ax, bare = fig.subplots(1, 2)
    bare.grid(visible=False)
    light, boxed = ax.text(0, 0, "1", color="white"), ax.text(0, 1, "2", bbox={"facecolor": "white"})
    free, dark = bare.text(0, 0, "3"), ax.text(1, 1, "4")
    plots.rim_words(fig)
    assert [len(text.get_path_effects()) for text in (light, boxed, free, dark)] == [0, 0, 0, 1]


@pytest.mark.parametrize("weight", ["normal", "bold"])
def test_every_weight_of_the_font_exists(style, weight):
    """A weight that a font lacks falls back to another font."""
    (family,) = mpl.rcParams["font.family"]
    found = font_manager.findfont(font_manager.FontProperties(family=family, weight=weight), fallback_to_default=False)
    assert ("Bold" in found) == (weight == "bold") and "DejaVuSans" in found
    assert mpl.rcParams["axes.titleweight"] in ("normal", "bold")


@pytest.mark.parametrize("loss", [1e-5, 0.01, 0.33, 1.0, 3.2, 9.99, 4000.0])
def test_a_flat_loss_curve_still_has_a_tick_in_plain_digits(style, loss):
    (ax,) = plots.loss_curve([1, 2], [loss, loss]).axes
    low, high = ax.get_ylim()
    ticks = [label.get_text().replace("−", "-") for label in ax.get_yticklabels()
             if low <= label.get_position()[1] <= high]
    assert ticks and all(low <= float(tick) <= high for tick in ticks)


def test_a_heat_map_keeps_its_colours_through_the_palette(style):
    fig, ax = plt.subplots()
    image = ax.imshow(np.linspace(0, 1, 256).reshape(16, 16), interpolation="nearest")
    fig.colorbar(image)
    fig.set_layout_engine("none")  # or each drawing moves a little
    as_drawn = io.BytesIO()
    fig.savefig(as_drawn, format="png")
    before = (plt.imread(io.BytesIO(as_drawn.getvalue())) * 255).round()
    assert np.abs(fig_pixels(fig) - before).max() <= 8, "of 255: as an eye cannot see"
    plt.close(fig)
