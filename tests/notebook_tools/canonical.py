"""One form for a notebook file, so that a diff shows what changed and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDS = {  # what a tag asks of the editors: JupyterLab folds the code or the section, Colab shows the code as a form
    "hide-input": {"cellView": "form", "jupyter": {"source_hidden": True}},
    "digression": {"jp-MarkdownHeadingCollapsed": True},
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"  # a random model id, which no reader can open


def canonical(notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook in canonical form: 4.5, fixed metadata, tags with their folds, stable ids, merged streams.

    Execution counts become 1..n over the code cells that were executed; a cell without one keeps None.
    """
    cells, ids, count = [], set(), 0
    for cell in notebook.cells:
        source = cell.source.rstrip()
        new = {"cell_type": cell.cell_type, "id": _cell_id(cell, source, ids), "metadata": {}, "source": source}
        if tags := sorted(set(cell.metadata.get("tags", []))):
            folds = {key: value for tag in tags for key, value in FOLDS.get(tag, {}).items()}
            new["metadata"] = {**folds, "tags": tags}
        if cell.cell_type == "code":
            executed = cell.get("execution_count") is not None
            count += executed
            new["execution_count"] = count if executed else None
            new["outputs"] = [_output(o, new["execution_count"]) for o in _merge_streams(cell.outputs)]
        elif cell.get("attachments"):
            new["attachments"] = cell.attachments
        cells.append(new)
    return nbformat.from_dict({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})


def text(notebook: NotebookNode) -> str:
    """The canonical form as the text of a file."""
    node = canonical(notebook)
    nbformat.validate(node)
    return nbformat.writes(node).rstrip("\n") + "\n"


def is_canonical(path: Path) -> bool:
    """Whether the file is what `text` would write."""
    return path.read_text(encoding="utf-8") == text(nbformat.read(path, as_version=4))


def _cell_id(cell: NotebookNode, source: str, taken: set[str]) -> str:
    """The cell's own id; where there is none, or it is taken, one made from the source."""
    wanted = cell.get("id") or hashlib.sha256(source.encode()).hexdigest()[:8]
    new, n = wanted, 2
    while new in taken:
        new, n = f"{wanted[:60]}-{n}", n + 1
    taken.add(new)
    return new


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Neighbouring pieces of the same stream become one: how they were cut is a matter of time."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == last.output_type == "stream" and output.name == last.name:
            last["text"] += output.text
        else:
            merged.append(nbformat.from_dict(dict(output)))
    return merged


def _output(output: NotebookNode, count: int | None) -> dict:
    """An output without what differs from run to run."""
    kind = output.output_type
    if kind == "stream":
        return {"output_type": kind, "name": output.name, "text": output.text}
    if kind == "error":
        return {"output_type": kind, "ename": output.ename, "evalue": output.evalue, "traceback": output.traceback}
    data = {mime: value for mime, value in output.data.items() if mime != WIDGET_VIEW}
    if "image/png" in data:
        data["image/png"] = "".join(data["image/png"].split())
    new = {"output_type": kind, "data": data, "metadata": dict(output.get("metadata", {}))}
    if kind == "execute_result":
        new["execution_count"] = count
    return new
