"""Markdown as somebody reads it aloud: no tables, folded answers, links, code fences or LaTeX."""

from __future__ import annotations

import re

DROPPED = (r"<details>.*?</details>", r"```.*?```", r"^\|.*$", r"^#{1,6} .*$", r"!\[[^\]]*\]\([^)]*\)", r"<[^>\n]+>")
TEX = ((r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"(\1)/(\2)"),
       (r"\\(?:text|mathrm|operatorname)\s*\{([^{}]*)\}", r"\1"),
       (r"\\sqrt\s*\{([^{}]*)\}", r"√(\1)"), (r"\\(?:left|right|,|;|quad|displaystyle|big|Big)\b|\\[,;!]", " "),
       (r"\\cdot|\\times", "·"), (r"\\approx", "≈"), (r"\\le\b|\\leq\b", "≤"), (r"\\ge\b|\\geq\b", "≥"),
       (r"\\sum", "Σ"), (r"\\alpha", "α"), (r"\\beta", "β"), (r"\\sigma", "σ"), (r"\\phi|\\varphi", "φ"),
       (r"\\Delta", "Δ"), (r"\\partial", "∂"), (r"\\lVert|\\rVert|\\\|", "‖"), (r"\\top", "T"), (r"\\log", "log"),
       (r"\\in\b", "∈"), (r"\\dots|\\ldots|\\cdots", "…"), (r"\\[a-zA-Z]+", " "), (r"[{}]", ""))


def plain(markdown: str) -> str:
    """The words of a piece of Markdown, paragraph by paragraph; `code` and **bold** lose their marks."""
    for pattern in DROPPED:
        markdown = re.sub(pattern, "", markdown, flags=re.MULTILINE | (re.DOTALL if ".*?" in pattern else 0))
    markdown = re.sub(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", lambda m: tex(m[1] or m[2]), markdown, flags=re.DOTALL)
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
    return re.sub(r"\((\w+)\)/\((\w+)\)", r"\1/\2", " ".join(formula.split()))
