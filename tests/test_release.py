"""One address and one tag, in every place that names them; and what the setup cell does on Colab."""

import os
import re
import shutil
import subprocess
import sys
import types
from dataclasses import dataclass, replace

import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from notebook_tools import release, rules
from test_code_rules import tracked_files
from traitlets.config import Config

ROOT, COURSE = rules.ROOT, rules.COURSE
NEXT = ["9.8.7", "https://github.com/someone-else/a-course"]
RELEASED = replace(COURSE, version=NEXT[0], address=NEXT[1], released=True)


def contents(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def tree(tmp_path):
    """A copy of every file of the checkout."""
    for path in tracked_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path


def named(root):
    """The tags (or branches) and the addresses that the files of `root` name, from the notebooks to the citation."""
    texts = [(root / "README.md").read_text(encoding="utf-8")]
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        texts += [cells[0].source, next(cell.source for cell in cells if cell.cell_type == "code")]
    badges = re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+)/blob/([^/]+)/notebooks/", "\n".join(texts))
    setups = re.findall(r"git\+https://github\.com/([^@]+)@([^\"]+)\"", "\n".join(texts))
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    cited = (citation["repository-code"].removeprefix("https://github.com/"), f"v{citation['version']}")
    return set(badges), set(setups), cited


# The checkout, as it is.

def test_every_place_says_what_pyproject_says():
    assert release.changes(ROOT, COURSE) == {}


def test_badges_setup_cells_and_citation_name_the_same_tag():
    badges, setups, cited = named(ROOT)
    assert cited == (COURSE.slug, f"v{COURSE.version}")
    assert badges == {cited if COURSE.released else (COURSE.slug, "main")}
    assert setups == ({cited} if COURSE.released else set())


def test_the_setup_cell_is_short():
    for course in (replace(COURSE, released=False), RELEASED):
        assert len(course.setup.splitlines()) <= 6


# `make release`, on a copy.

def test_a_release_names_itself_everywhere(tree, capsys):
    assert release.main(NEXT, tree) == 0
    assert "git tag v9.8.7" in capsys.readouterr().out
    assert release.read(tree) == RELEASED
    tag = ("someone-else/a-course", "v9.8.7")
    assert named(tree) == ({tag}, {tag}, tag)
    old = re.compile(rb"github(\.com)?/" + re.escape(COURSE.slug).encode() + rb"\b")
    assert [name for name, text in contents(tree).items() if old.search(text)] == []

    done = contents(tree)
    changed = {name for name, text in done.items() if text != (ROOT / name).read_bytes()}
    assert changed == {"README.md", "CITATION.cff", "LICENSE-TEXT", "pyproject.toml",
                       *(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))}
    assert release.main(NEXT, tree) == 0 and contents(tree) == done  # once more changes nothing
    assert release.main(["9.10", COURSE.address], tree) == 0  # the next release starts from this one
    tag = (COURSE.slug, "v9.10")
    assert named(tree) == ({tag}, {tag}, tag)


def test_a_released_notebook_differs_in_its_badges_and_its_setup_cell_alone(tree):
    release.main(NEXT, tree)
    for path in sorted((tree / "notebooks").glob("*.ipynb")):
        old, new = (nbformat.read(root / "notebooks" / path.name, as_version=4) for root in (ROOT, tree))
        different = [i for i, (a, b) in enumerate(zip(old.cells, new.cells, strict=True)) if a != b]
        assert different == [0, 1] and new.cells[1].source == RELEASED.setup


@pytest.mark.parametrize("version, address, says", [
    ("", "", "VERSION"),
    ("", NEXT[1], "VERSION"),
    ("latest", NEXT[1], "PEP 440"),
    ("v0.2.0", NEXT[1], "write it 0.2.0"),
    ("0.2.0-rc1", NEXT[1], "write it 0.2.0rc1"),
    ("1!0.2", NEXT[1], "epoch"),
    ("0.2+mine", NEXT[1], "local"),
    ("0.2.0", "", "ADDRESS"),
    ("0.2.0", "https://github.com/owner", "ADDRESS"),
    ("0.2.0", "http://github.com/owner/name", "ADDRESS"),
    ("0.2.0", "https://gitlab.com/owner/name", "ADDRESS"),
    ("0.2.0", "https://github.com/owner/name/", "slash"),
    ("0.2.0", "https://github.com/owner/name.git", ".git"),
    ("0.2.0", "https://github.com/owner/name/tree/main", "ADDRESS"),
    ("0.2.0", "https://github.com/owner/na me", "ADDRESS"),
    ("0.2.0", 'https://github.com/owner/na"me', "ADDRESS"),
    ("0.2.0", "git@github.com:owner/name", "ADDRESS"),
])
def test_bad_input_changes_nothing_and_names_the_remedy(tree, capsys, version, address, says):
    before = contents(tree)
    assert release.main([version, address], tree) == 1
    assert contents(tree) == before
    told = capsys.readouterr().err
    assert told.startswith("Nothing changed.") and says in told.splitlines()[0] and "make release VERSION=" in told


@pytest.mark.parametrize("name, cut", [
    ("CITATION.cff", "repository-code"), ("LICENSE-TEXT", ", CC BY"), ("README.md", f"version {COURSE.version}"),
    ("notebooks/03_block_quantization.ipynb", "from helpers import start"),
    ("notebooks/03_block_quantization.ipynb", "img.shields.io"),
])
def test_a_missing_place_is_an_error_and_changes_nothing(tree, capsys, name, cut):
    path = tree / name
    path.write_text(path.read_text(encoding="utf-8").replace(cut, "gone"), encoding="utf-8")
    before = contents(tree)
    assert release.main(NEXT, tree) == 1 and name in capsys.readouterr().err
    assert contents(tree) == before


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed here")
def test_make_release(tree):
    def make(*arguments):
        command = ["make", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed", "release", *arguments]
        return subprocess.run(command, cwd=tree, env=alone, capture_output=True, text=True)

    alone = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL", "PYTHONPATH")}
    bad = make("VERSION=0.2.0", "ADDRESS=owner/name")
    assert bad.returncode != 0 and "ADDRESS='owner/name'" in bad.stderr and release.read(tree) == COURSE
    assert make(f"VERSION={NEXT[0]}", f"ADDRESS={NEXT[1]}").returncode == 0 and release.read(tree) == RELEASED


# The setup cell, run by IPython with a stand-in for pip.

@dataclass
class Done:
    """What a cell did: the lines that %pip was given, the calls of helpers.start(), and its error, if any."""

    installed: list
    started: list
    error: Exception | None = None


@pytest.fixture
def run(monkeypatch, tmp_path, tree):
    """Runs the setup cell of a release in a folder of a clone (None: in an empty folder), on Colab or elsewhere."""
    empty = tmp_path.parent / f"{tmp_path.name}-empty"
    empty.mkdir()
    monkeypatch.setenv("IPYTHONDIR", str(empty))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # which a shell replaces

    def run(course, where, colab=True):
        done = Done([], [])
        helpers = types.SimpleNamespace(start=lambda: done.started.append("helpers"))
        monkeypatch.setitem(sys.modules, "helpers", helpers)
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.chdir(empty if where is None else tree / where)
        shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        shell.register_magic_function(done.installed.append, "line", "pip")
        done.error = shell.run_cell(course.setup).error_in_exec
        return done

    return run


@pytest.mark.parametrize("course", [replace(COURSE, released=False), RELEASED], ids=["unreleased", "released"])
@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_in_a_clone_colab_installs_the_clone(run, tree, course, folder):
    done = run(course, folder)
    assert done == Done([f'install -q "{tree}"'], ["helpers"])


def test_without_a_clone_colab_installs_the_release(run):
    done = run(RELEASED, None)
    wanted = "from-bits-to-qlora @ git+https://github.com/someone-else/a-course@v9.8.7"
    assert done == Done([f'install -q "{wanted}"'], ["helpers"])


def test_without_clone_and_release_the_cell_says_what_to_do(run):
    done = run(replace(COURSE, released=False), None)
    assert done == Done([], [], done.error) and isinstance(done.error, AssertionError)
    told = str(done.error)
    assert f"!git clone {COURSE.address} " in told and f"%cd {COURSE.slug.split('/')[1]}/notebooks" in told


@pytest.mark.parametrize("course", [replace(COURSE, released=False), RELEASED], ids=["unreleased", "released"])
def test_elsewhere_nothing_is_installed(run, course):
    done = run(course, None, colab=False)
    assert done == Done([], ["helpers"])
