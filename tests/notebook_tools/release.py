"""The course's address and release. They stand in pyproject.toml; `make release` brings every other place to the same.

    python -m notebook_tools.release 0.2.0 https://github.com/owner/name

The places: the notebooks' setup cells and badges, README.md, CITATION.cff, LICENSE-TEXT. Until the first release
([tool.course] released = false) badges point to the branch main, and the setup cell installs from a clone only.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
from packaging.version import InvalidVersion, Version

from notebook_tools import canonical

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"https://github\.com/[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9_.-]{1,100}")
BADGE = r"(https://(?:colab\.research\.google\.com/github|github\.com)/)[^/\s)]+/[^/\s)]+/blob/[^/\s)]+/(?=notebooks/)"


@dataclass(frozen=True)
class Release:
    """What pyproject.toml says: the package's name, its version, the repository's address, and whether a tag exists."""

    name: str
    version: str
    address: str
    released: bool

    @property
    def ref(self) -> str:
        """Where links point: the release's tag, or the branch main as long as there is none."""
        return f"v{self.version}" if self.released else "main"

    @property
    def slug(self) -> str:
        """`owner/name`."""
        return self.address.removeprefix("https://github.com/")

    @property
    def setup(self) -> str:
        """The setup cell. On Colab it installs the clone that the notebook stands in, else the release, if any."""
        if self.released:
            otherwise = f'course += ["{self.name} @ git+{self.address}@{self.ref}"]'
        else:
            otherwise = (f'assert course, "no release yet: run  !git clone {self.address}  '
                         f'and  %cd {self.slug.split("/")[1]}/notebooks  in cells above"')
        return f"""\
import pathlib, sys
if "google.colab" in sys.modules:  # install the course: the clone around this notebook, or a release
    course = [str(p) for p in pathlib.Path("_").absolute().parents if (p / "helpers/pocket").is_dir()]
    {otherwise}
    %pip install -q "{{course[0]}}"
from helpers import start; start()"""

    def badges(self, notebook: str) -> list[str]:
        """The two badges that the notebook of this file name carries in its first cell, as Markdown."""
        place = f"{self.slug}/blob/{self.ref}/notebooks/{notebook}"
        return [
            f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{place})",
            f"[![View on GitHub](https://img.shields.io/badge/view-on%20GitHub-24292f)](https://github.com/{place})",
        ]


def read(root: Path = ROOT) -> Release:
    """The release that the pyproject.toml in `root` names."""
    told = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    project = told["project"]
    return Release(project["name"], project["version"], project["urls"]["Repository"],
                   told["tool"]["course"]["released"])


def check(version: str, address: str) -> None:
    """ValueError for what cannot be a release's version (PEP 440, in its normal form) or a repository's address."""
    try:
        normal = str(Version(version))
    except InvalidVersion:
        raise ValueError(f"VERSION={version!r} is not a version of PEP 440: write it like 0.2.0 or 1.0.0rc1") from None
    if version != normal:
        raise ValueError(f"VERSION={version!r} is not in its normal form: write it {normal}")
    if not re.fullmatch(r"[0-9a-z.]+", version):
        raise ValueError(f"VERSION={version!r} has an epoch or a local part: write it like 0.2.0")
    if not ADDRESS.fullmatch(address) or address.endswith((".git", "/.", "/..")):
        raise ValueError(f"ADDRESS={address!r} is not a repository's address: write it like "
                         "https://github.com/owner/name, without .git or a slash at the end")


def changes(root: Path, release: Release) -> dict[Path, str]:
    """Every file below `root` that does not say what `release` says yet, with the text that it should have.

    Nothing is written. ValueError where a file lacks a place that should name the release.
    """
    texts = {
        "pyproject.toml": [(r'^version = ".*"$', f'version = "{release.version}"'),
                           (r'^Repository = ".*"$', f'Repository = "{release.address}"'),
                           (r"^released = \w+", f"released = {str(release.released).lower()}")],
        "CITATION.cff": [(r"^version: .*$", f'version: "{release.version}"'),  # without quotes YAML reads 1.10 as 1.1
                         (r"^repository-code: .*$", f"repository-code: {release.address}")],
        "LICENSE-TEXT": [(r"https://github\.com/\S+, CC BY", f"{release.address}, CC BY")],
        "README.md": [(BADGE, rf"\g<1>{release.slug}/blob/{release.ref}/"),
                      (r"version \S+,\nhttps://\S+$", f"version {release.version},\n{release.address}")],
    }
    new = {root / name: _replaced(root / name, places) for name, places in texts.items()}
    new |= {path: _notebook(path, release) for path in sorted((root / "notebooks").glob("*.ipynb"))}
    return {path: text for path, text in new.items() if text != path.read_text(encoding="utf-8")}


def _replaced(path: Path, places: list[tuple[str, str]]) -> str:
    text = path.read_text(encoding="utf-8")
    for pattern, new in places:
        text, found = re.subn(pattern, new, text, flags=re.MULTILINE)
        if not found:
            raise ValueError(f"{path} has no place for the release: nothing in it looks like {pattern}")
    return text


def _notebook(path: Path, release: Release) -> str:
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]
    first.source = re.sub(BADGE, rf"\g<1>{release.slug}/blob/{release.ref}/", first.source)
    setup = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if setup is None or "from helpers import start" not in setup.source:
        raise ValueError(f"{path}: the first code cell is not the setup cell")
    if not all(badge in first.source for badge in release.badges(path.name)):
        raise ValueError(f"{path}: the first cell lacks a badge, which should be one of {release.badges(path.name)}")
    setup.source = release.setup
    return canonical.text(notebook)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """`make release`: set version and address everywhere and say what to do next; on bad input change nothing."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        version, address = given if len(given) == 2 else ("", "")
        check(version, address)
        new = changes(root, replace(read(root), version=version, address=address, released=True))
    except ValueError as error:
        print(f"Nothing changed. {error}\nUsage: make release VERSION=0.2.0 ADDRESS=https://github.com/owner/name",
              file=sys.stderr)
        return 1
    for path, text in new.items():
        path.write_text(text, encoding="utf-8", newline="\n")
        print(path.relative_to(root))
    print(f"{len(new)} files changed. Next: make test, commit, git tag v{version}, then push the commit and the tag.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
