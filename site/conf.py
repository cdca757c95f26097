"""Sphinx's settings for the course's site. pages.py lays out the sources, calls Sphinx and says what went wrong."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

from docutils import nodes
from myst_nb.core.render import NbElementRenderer
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "From Bits to QLoRA"
author = PROJECT["authors"][0]["name"]
copyright = "the From Bits to QLoRA authors · text and figures CC BY 4.0, code Apache 2.0"  # noqa: A001
release = PROJECT["version"]
language = "en"
extensions = ["myst_nb", "sphinx.ext.mathjax"]

nb_execution_mode = "off"  # the committed outputs are what is shown
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "attrs_inline", "colon_fence", "strikethrough"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

suppress_warnings = ["ref.python"]  # two classes named Card: a signature need not say which

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_use_index = False
html_domain_indices = False
html_copy_source = False
html_search_scorer = str(Path(__file__).with_name("scorer.js"))
html_show_search_summary = False  # it reads other pages, which a browser forbids to a page from the file system
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"

# One file: formulas as SVG, no fonts to fetch, and MathML beside them for screen readers.
MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
mathjax_path = "tex-svg.js"
mathjax3_config = {"options": {"enableMenu": False}}
html_static_path += [str(MATHJAX / mathjax_path)]


def with_alt(render):
    """myst-nb copies width and height from an output's metadata; the figure's alternative text stands there, too."""
    def rendered(self, data):
        images = render(self, data)
        if alt := data.output_metadata.get(data.mime_type, {}).get("alt"):
            images[0]["alt"] = alt
        return images
    return rendered


def fold_digressions(app: Sphinx, doctree: nodes.document) -> None:
    for section in list(doctree.findall(nodes.section)):
        if section[0].astext().startswith("Digression:"):
            fold = '<details class="digression"><summary>Read this digression</summary>'
            section[1:] = [nodes.raw("", fold, format="html"), *section[1:], nodes.raw("", "</details>", format="html")]


def setup(app: Sphinx) -> None:
    NbElementRenderer.render_image = with_alt(NbElementRenderer.render_image)
    app.connect("doctree-read", fold_digressions)
