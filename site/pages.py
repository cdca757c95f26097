"""`make site`: the course as pages that open from the file system, in build/site (or where the first argument says).

Reads the notebooks as they were committed and runs none of them. The sources are laid out in a folder of their own,
Sphinx builds them into another, and only a site without a warning takes the place of the one before.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import modules
import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
BADGE = re.compile(r"\[!\[([^\]]*)\]\(https://[^)]*\)\]\(([^)]*)\)")  # a link with an image from elsewhere
BESIDE = re.compile(r"\]\(\.\./([^)#]+)\)")  # a link to a file of the repository


class Broken(Exception):
    """A notebook that no page can be made of; the message says why and what to do."""


def main(target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".site-", dir=target.parent) as folder:
        source, out = Path(folder, "source"), Path(folder, "site")
        try:
            lay_out(source)
        except Broken as error:
            print(f"{error}\nNo site was built" + (f"; {target} is the one from before." if target.exists() else "."))
            return 1
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-c", HERE,
                   "-d", Path(folder, "doctrees"), source, out]
        if subprocess.run(command, env=environment).returncode:
            print("No site was built: mend what Sphinx says above. Its paths are those of notebooks/ and helpers/.")
            return 1
        shutil.rmtree(target, ignore_errors=True)
        out.rename(target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{len(list(target.rglob('*.html')))} pages, {size / 1e6:.1f} MB: open {target / 'index.html'}")
    return 0


def lay_out(source: Path) -> None:
    """Write Sphinx's sources: lessons, glossary, figures, a page for each module, the first page."""
    shutil.copytree(ROOT / "figures", source / "figures")
    (source / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "glossary.md", source / "notebooks")
    cards = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = read(path)
        cards.append(card(path, notebook))
        nbformat.write(page(notebook), source / "notebooks" / path.name)
    modules.write(source / "helpers")
    alt = re.search(r"!\[([^\]]*)\]\(figures/course.svg\)", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    lessons = "\n".join(["| Lesson | Time | Hardware |", "|---|---|---|", *cards])
    pages = "\n".join(f"notebooks/{path.stem}" for path in sorted((source / "notebooks").glob("*.ipynb")))
    text = (HERE / "index.md").read_text(encoding="utf-8")
    text = text.format(repository=REPOSITORY, course=alt, lessons=lessons, pages=pages)
    (source / "index.md").write_text(text, encoding="utf-8")


def read(path: Path) -> NotebookNode:
    """A notebook that was run to its end, or Broken."""
    name = path.relative_to(ROOT).as_posix()
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # JSON, encoding, the notebook's own schema
        raise Broken(f"{name} cannot be read as a notebook: {str(error).splitlines()[0]}\n"
                     f"`git restore {name}` brings back the one that was committed.") from error
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        raise Broken(f"{name} does not begin with a title: its first cell must be Markdown, `# 01 · Float formats`.")
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source and cell.execution_count is None:
            raise Broken(f"{name}: cell {cell.id} was not run, and a page shows what is stored. Run\n"
                         f"make notebooks NB={name}")
        if errors := [output for output in cell.get("outputs", []) if output.output_type == "error"]:
            raise Broken(f"{name}: cell {cell.id} ended in {errors[0].ename}: {errors[0].evalue}\nMend it, then run\n"
                         f"make notebooks NB={name}")
    return notebook


def card(path: Path, notebook: NotebookNode) -> str:
    """A lesson's row on the first page, out of its first cell."""
    first = notebook.cells[0].source
    title = first.splitlines()[0].removeprefix("# ")
    cells = [cell.strip() for cell in first.strip().splitlines()[-1].strip("| ").split(" | ")]
    time, hardware = (cells + ["", ""])[2:4]
    hardware = re.sub(r"\s*\([^)]*\)", "", hardware)
    return f"| [{title}](notebooks/{path.name}) | {time.partition(':')[0]} | {hardware} |"


def page(notebook: NotebookNode) -> NotebookNode:
    """The notebook as a page: buttons without images from elsewhere, links to pages, code of pictures folded."""
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.metadata["tags"], setup.source = ["hide-input"], f"# @title The set-up\n{setup.source}"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = BESIDE.sub(beside, BADGE.sub(r"[\1](\2){.button}", cell.source))
        elif "hide-input" in cell.metadata.get("tags", []):
            title, _, cell.source = cell.source.removeprefix("# @title ").partition("\n")
            cell.metadata["mystnb"] = {"code_prompt_show": f"Code: {title}", "code_prompt_hide": f"Code: {title}"}
    return notebook


def beside(found: re.Match[str]) -> str:
    """A link from notebooks/ to a file of the repository: its module's page, or the file where the course is hosted."""
    page = {path: name for name, path in modules.names().items()}.get(ROOT / found[1])
    return f"](../helpers/{page}.md)" if page else f"]({REPOSITORY}/blob/main/{found[1]})"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "build" / "site"))
