"""The hosted tests, the contributor's guide and `make mutants`: they name commands and files that exist."""

import ast
import re
from pathlib import Path

import mutants
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
SITE = yaml.safe_load((ROOT / ".github/workflows/site.yml").read_text(encoding="utf-8"))
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def commands(job: str) -> list[str]:
    return [step["run"] for step in WORKFLOW["jobs"][job]["steps"] if "run" in step]


@pytest.mark.parametrize("job", ["pinned", "newest"])
def test_every_python_on_every_system(job):
    matrix = WORKFLOW["jobs"][job]["strategy"]["matrix"]
    requires = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert matrix["python"] == [f"3.{minor}" for minor in range(int(requires[1]), int(requires[2]))]
    assert [name.split("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]


def test_hosted_tests_call_the_same_commands():
    assert commands("pinned") == ["make test PYTHON=python"]
    assert commands("newest") == ["make lock UPGRADE=--upgrade PYTHON=python", "make test WEEKLY=1 PYTHON=python"]
    assert "test" in TARGETS and "lock" in TARGETS


def test_newest_versions_weekly():
    schedule = WORKFLOW[True]["schedule"]  # YAML reads the key `on` as true
    assert len(schedule) == 1 and re.fullmatch(r"\d+ \d+ \* \* [0-6]", schedule[0]["cron"])
    assert "schedule" in WORKFLOW["jobs"]["newest"]["if"] and "!= 'schedule'" in WORKFLOW["jobs"]["pinned"]["if"]


def test_the_site_is_published_by_the_same_command_and_only_where_the_owner_wants_it():
    build, deploy = SITE["jobs"]["build"], SITE["jobs"]["deploy"]
    assert [step["run"] for step in build["steps"] if "run" in step] == ["make site PYTHON=python"]
    assert "site" in TARGETS
    assert build["steps"][-1]["with"]["path"] == "build/site"
    assert build["if"] == "vars.PAGES == 'on'" and deploy["needs"] == "build"
    assert SITE["permissions"] == {"contents": "read"} and set(deploy["permissions"]) == {"pages", "id-token"}


def test_the_guide_names_what_is_there():
    called = set(re.findall(r"`make ([a-z]+)|^ *make ([a-z]+) ", GUIDE, re.MULTILINE))
    called = {a or b for a, b in called}
    assert {"quick", "test", "exercise", "notebooks", "mutants"} <= called <= TARGETS, called - TARGETS
    for link in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_mutants_are_made_of_all_the_lessons_own_code_and_judged_by_tests_that_exist():
    mutated = {module for modules, _ in mutants.GROUPS for module in modules}
    own = {path.relative_to(ROOT).as_posix() for folder in ("helpers", "helpers/memory")
           for path in (ROOT / folder).glob("*.py")}
    assert own - mutated == {"helpers/__init__.py", "helpers/plots.py", "helpers/memory/__init__.py"}
    assert all((ROOT / module).is_file() for module in mutated)
    judges = {name for _, names in mutants.GROUPS for name in names}
    tests = "".join((ROOT / "tests" / name).read_text(encoding="utf-8") for name in judges)
    assert all(f"def {name}(" in tests for name in mutants.LONG)


def test_survivors_are_listed_by_functions_that_are_there():
    listed = mutants.survivors(mutants.SURVIVORS.read_text(encoding="utf-8"))
    assert set(listed) <= {module for modules, _ in mutants.GROUPS for module in modules}
    for module, lines in listed.items():
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if hasattr(node, "name")}
        there |= {f"{node.name}.{inner.name}" for node in tree.body if isinstance(node, ast.ClassDef)
                  for inner in node.body if isinstance(inner, ast.FunctionDef)}
        assert {line.partition(": ")[0] for line in lines} <= there, module


def test_a_mutant_is_named_by_what_it_changed():
    code = """
def x_f__mutmut_orig(x, n=1):
    return x + n

def x_f__mutmut_1(x, n=2):
    return x + n

class A:
    def xǁAǁg__mutmut_orig(self):
        return 1
    def xǁAǁg__mutmut_12(self):
        return 2
"""
    assert mutants.difference(code, "helpers.m.x_f__mutmut_1") == ("def f(x, n=1):", "f: def f(x, n=2):")
    assert mutants.difference(code, "helpers.m.xǁAǁg__mutmut_12") == ("return 1", "A.g: return 2")
    text = "# Title\n\n## m.py\n\nNobody sees it.\n\n    f: def f(x, n=2):\n\n## n.py\n\nNothing yet."
    assert mutants.survivors(text) == {"helpers/m.py": {"f: def f(x, n=2):"}, "helpers/n.py": set()}


def test_a_decorated_function_is_the_same_with_its_decorators_below():
    code = "\n".join(["class A:", "    @property", "    def half(self):", "        return 2", "",
                      "@first", "@second(", "    3)", "def f(x):", "    return x", "@staticmethod", "def g(): pass"])
    seen = []
    for text in (code, mutants.undecorated(code)):
        names = {"first": lambda f: lambda x: f(x) + 1, "second": lambda n: lambda f: lambda x: n * f(x)}
        exec(text, names)
        seen.append((names["A"]().half, names["f"](5)))
    assert seen == [(2, 16)] * 2
    assert "@property" not in mutants.undecorated(code) and "@staticmethod" in mutants.undecorated(code)
