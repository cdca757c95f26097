"""Sphinx's settings for the decks; notebook_tools/slides.py writes their sources into build/ and calls it."""

from pathlib import Path

HERE = Path(__file__).parent

project = "From Bits to QLoRA"
language = "en"
extensions = ["myst_parser", "sphinx_revealjs", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 0
suppress_warnings = ["misc.highlighting_failure"]
root_doc = "index"

mathjax_path = "tex-svg.js"  # one file, copied to _static/: no network
revealjs_static_path = [str(HERE / "static")]
revealjs_html_theme = "revealjs-simple"
revealjs_style_theme = "deck.css"
revealjs_js_files = ["theme.js"]
revealjs_script_plugins = [
    {"name": "RevealHighlight", "src": "revealjs/plugin/highlight/highlight.js"},
    {"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"},
]
revealjs_script_conf = {
    "width": 960, "height": 700, "margin": 0.03, "center": False, "hash": True, "slideNumber": "c/t", "controls": True,
    "transition": "none", "backgroundTransition": "none", "pdfSeparateFragments": False, "defaultTiming": 120,
}
