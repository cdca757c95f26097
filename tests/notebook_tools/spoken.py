"""Markdown as somebody reads it aloud: no tables, folded answers, links, code fences or LaTeX."""

from __future__ import annotations

import re

DROPPED = (r"<details>.*?</details>", r"```.*?```", r"^\|.*$", r"^#{1,6} .*$", r"!\[[^\]]*\]\([^)]*\)",
           r"</?(?:i|b|br|sub|sup|summary|details)\b[^>\n]*>")  # not `<s>`
FORMULA = r"\$\$(.+?)\$\$|\$(?=\S)([^$\n]+)(?<=\S)\$(?!\d)"  # but not $1 and $2
TEX = ((r"\\(?:text|mathrm|mathbb|operatorname)\s*\{([^{}]*)\}", r"\1"), (r"([_^])\{(\\?\w+)\}", r"\1\2"),
       (r"([_^])\{(?:\\,)?([^{}]*)\}", r"\1(\2)"), (r"\\frac\s*(\d)", r"\\frac{\1}"),
       (r"(\\frac\{\d\})(\d)", r"\1{\2}"), (r"\\t?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)"),
       (r"\\hat (\w)", "\\1\u0302"), (r"\\(max|min)(?![a-z])", r"\1"), (r"\\pi(?![a-z])", "π"), (r"\\delta", "δ"),
       (r"\\sqrt\s*\{([^{}]*)\}", r"√(\1)"), (r"\\(?:left|right|,|;|quad|displaystyle|big|Big)\b|\\[,;!]", " "),
       (r"\\cdot|\\times", "·"), (r"\\approx", "≈"), (r"\\le\b|\\leq\b", "≤"), (r"\\ge\b|\\geq\b", "≥"),
       (r"\\sum", "Σ"), (r"\\alpha", "α"), (r"\\beta", "β"), (r"\\sigma", "σ"), (r"\\phi|\\varphi", "φ"),
       (r"\\Delta", "Δ"), (r"\\partial", "∂"), (r"\\lVert|\\rVert|\\\|", "‖"), (r"\\top", "T"), (r"\\log", "log"),
       (r"\\in\b", "∈"), (r"\\dots|\\ldots|\\cdots", "…"), (r"\\[a-zA-Z]+", " "), (r"[{}]", ""))


def plain(markdown: str) -> str:
    """The words of a piece of Markdown, paragraph by paragraph; `code` and **bold** lose their marks."""
    for pattern in DROPPED:
        markdown = re.sub(pattern, "", markdown, flags=re.MULTILINE | (re.DOTALL if ".*?" in pattern else 0))
    markdown = re.sub(FORMULA, lambda found: tex(found[1] or found[2]), markdown, flags=re.DOTALL)
    markdown = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", markdown)
    markdown = re.sub(r"\*\*(.+?)\*\*", r"\1", markdown, flags=re.DOTALL)
    markdown = re.sub(r"(?<![\w*])\*(?=\S)(.+?)(?<=\S)\*(?![\w*])", r"\1", markdown)
    markdown = re.sub(r"`+([^`]+)`+", r"\1", markdown)
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=(?:- |\d+\. ))", markdown)]
    return "\n\n".join(part for part in paragraphs if part)


def tex(formula: str) -> str:
    """A formula on one line, in plain characters."""
    for pattern, new in TEX:
        formula = re.sub(pattern, new, formula)
    return re.sub(r"(?<!\w)\((\w+)\)/", r"\1/", re.sub(r"/\((\d+|\w)\)", r"/\1", " ".join(formula.split())))
