"""pyproject.toml, requirements.txt, environment.yml, the README and CITATION.cff tell the same story."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import check_pins
import nbformat
import pytest
import yaml
from notebook_tools import rules
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT, PROJECT = rules.ROOT, rules.PROJECT
TEXT = (ROOT / "requirements.txt").read_text(encoding="utf-8")
PINS = {canonicalize_name(pin.name): pin for pin in check_pins.pins(TEXT)}
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["optional-dependencies"]
EVERYTHING = [Requirement(text) for group in (PROJECT["dependencies"], EXTRAS["lab"], EXTRAS["test"]) for text in group]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("wanted", EVERYTHING, ids=lambda wanted: wanted.name)
def test_dependency_is_pinned_within_its_range(wanted):
    pin = PINS[canonicalize_name(wanted.name)]
    assert pin.marker is None
    assert wanted.specifier.contains(version(pin))


def version(pin):
    (clause,) = pin.specifier
    assert clause.operator == "==" and "*" not in clause.version, f"{pin} is not an exact pin"
    return clause.version


def test_pins_are_exact_and_one_a_package():
    assert len(PINS) == len(check_pins.pins(TEXT))
    for pin in PINS.values():
        version(pin)


def test_pins_name_no_index_and_no_cuda():
    assert "://" not in TEXT and "--" not in TEXT
    assert not [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_environment_here_is_the_pinned_one():
    here = {name: metadata.version(name) for name in ("torch", "transformers", "trl", "peft", "bitsandbytes", "numpy")}
    assert {name: found.split("+")[0] for name, found in here.items()} == {name: version(PINS[name]) for name in here}


def test_conda_environment_is_python_pip_the_pins_and_this_package():
    python, pip, packages = ENVIRONMENT["dependencies"]
    assert python == f"python{PROJECT['requires-python']}"
    assert pip == "pip" and packages == {"pip": ["-r requirements.txt", "-e ."]}


def test_markers_are_evaluated_for_the_target():
    both = [Requirement("a==1 ; sys_platform == 'win32'"), Requirement("b==2 ; python_full_version < '3.12'")]
    windows, linux = check_pins.SYSTEMS["Windows amd64"][0], check_pins.SYSTEMS["Linux x86_64"][0]
    assert check_pins.wanted(both, "3.11", windows) == ["a==1", "b==2"]
    assert check_pins.wanted(both, "3.13", linux) == []


def test_make_help_lists_every_target():
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "help"], cwd=ROOT, env=alone, check=True, capture_output=True, text=True)
    listed = done.stdout.splitlines()
    assert [line.split()[1] for line in listed] == TARGETS
    assert all(line.startswith("make ") and len(line.split()) > 2 and len(line) < 120 for line in listed)


def lessons(readme):
    """The notebooks that the table of lessons links to, in its order."""
    return re.findall(r"^\|[^|]*\[[^\]]+\]\(notebooks/([^)]+\.ipynb)\)", readme, re.MULTILINE)


def test_readme_lists_the_lessons_that_exist():
    there = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert there and lessons(README) == there


@pytest.mark.parametrize("name", lessons(README))
def test_readme_row_has_title_time_and_colab_badge(name):
    (row,) = [line for line in README.splitlines() if f"(notebooks/{name})" in line and line.startswith("|")]
    first = nbformat.read(ROOT / "notebooks" / name, as_version=4).cells[0].source
    assert re.search(r"\[([^\]]+)\]\(notebooks/", row)[1] in first.splitlines()[0]
    assert re.search(r"\| (\d+) \+ (\d+) min \|", row).groups() == re.search(  # as on the lesson's card
        r"(\d+) to read and run, (\d+) for", first).groups()
    assert rules.COURSE.badges(name)[0] in row


def test_readme_names_the_commands_and_shows_the_picture():
    assert "make lab" in README and "make test" in README
    pictures = re.findall(r"!\[([^\]]+)\]\((figures/[^)]+)\)", README)
    assert pictures and all((ROOT / path).is_file() for _, path in pictures)


def test_readme_links_to_files_that_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert links and [link for link in links if not (ROOT / link).exists()] == []


def test_readme_hardware_is_what_the_tiers_say():
    from helpers.finale.tiers import TIERS

    for name in ("small", "llama-2-7b"):
        (row,) = [line for line in README.splitlines() if line.startswith(f"| `{name}`")]
        needs = TIERS[name].needs()
        assert f"{needs.gpu:.1f} GiB needed" in row and f"{needs.ram:.1f} GiB |" in row
        assert f"{needs.download / 1e9:.1f} GB |" in row
    (row,) = [line for line in README.splitlines() if line.startswith("| `laptop`")]
    needs = TIERS["laptop"].needs(gpu=False)
    assert f"{needs.ram:.1f} GiB |" in row and f"{needs.download / 1e9:.1f} GB |" in row
    assert TIERS["pocket"].needs(gpu=False).ram < 4


def test_readme_has_every_variable_that_a_reader_may_set():
    files = [path for suffix in ("py", "ipynb") for folder in ("helpers", "notebooks")
             for path in (ROOT / folder).rglob(f"*.{suffix}") if ".ipynb_checkpoints" not in path.parts]
    read = {name for path in files for name in
            re.findall(r'environ(?:\.get\(|\[)\\?"(COURSE_[A-Z]+)', path.read_text(encoding="utf-8"))}
    assert read - {"COURSE_WEIGHTS"} == set(re.findall(r"^\| `(COURSE_[A-Z]+)` \|", README, re.MULTILINE)), (
        "the table under Settings; COURSE_WEIGHTS is for tests/gpu/run.py")


def test_readme_lists_the_modules_in_the_order_that_import_linter_holds():
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    told = re.search(r"^helpers/ (.+?)^figures/", README, re.MULTILINE | re.DOTALL)[1]
    files, folders = told.split("  pocket/")[0], re.findall(r"^  (\w+)/", told, re.MULTILINE)
    layers = [set(layer.split(" : ")) for layer in reversed(layers)]
    names = [name for name in re.findall(r"\w+", files) if name in set.union(*layers)] + folders
    for layer in layers:
        assert set(names[:len(layer)]) == layer
        names = names[len(layer):]
    assert names == []


def test_wheel_has_every_module_and_the_weights(tmp_path):
    """What Colab installs: built from the checkout, without the network."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
                    f"--wheel-dir={tmp_path}", str(copied(tmp_path / "source"))], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / "helpers").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}
    assert here - inside == set()
    assert {name.split("/")[0] for name in inside} == {"helpers", wheel.name.split("-py3")[0] + ".dist-info"}


def copied(folder):
    """The files of the package in a folder of their own, so that building leaves nothing in the checkout."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    return folder
