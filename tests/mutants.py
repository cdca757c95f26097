"""`make mutants`: break the code in thousands of small ways, one at a time. Does a test notice each?

mutmut makes the mutants and runs the tests that reach each, in a fresh clone of the last commit under build/. A module
is judged by its own tests, named below. Left as they are: what a `raise` says, sentences to return, docstrings, types,
numbers outside of functions. mutmut passes over decorated functions, so in the clone a decorator becomes a call below
the function. What survives is printed as a difference; tests/survivors.md says why the known ones may. All 7,000 take
hours on two cores; SAMPLE=60 takes so many of each module, evenly spread. CHILDREN=1 leaves a core for other work.
Needs fork: not on Windows.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLONE = ROOT / "build" / "mutants"
WANTED = 0.97
KILLED, TIMEOUT = (1, 3), (-24, 24, 36, 152, 255)  # exit codes, as mutmut reads them
GROUPS = (  # modules, and the tests that judge them
    (("helpers/lora.py", "helpers/adapters.py", "helpers/qlora.py"),
     ("test_lora.py", "test_adapters.py", "test_qlora.py")),
    (("helpers/quantization.py", "helpers/codebooks.py"), ("test_quantization.py", "test_codebooks.py")),
    (("helpers/low_rank.py",), ("test_explorers_ranks.py",)),
    (("helpers/floats.py",), ("test_floats.py",)),
    (("helpers/preferences.py",), ("test_preferences.py",)),
    (("helpers/microscaling.py", "helpers/ggml.py", "helpers/calibration.py"),
     ("test_microscaling.py", "test_ggml.py", "test_calibration.py")),
    (tuple(f"helpers/exercises/{name}.py" for name in ("ladder", "quantities", "places", "probes", "slips", "draws")),
     ("test_ladder.py", "test_places.py", "test_showing.py", "test_slips.py")),
    (tuple(f"helpers/exercises/{name}.py" for name in ("engine", "running", "compare")),
     ("test_exercise_engine.py", "test_showing.py")),
    (tuple(f"helpers/memory/{name}.py" for name in ("ledger", "forecast", "peak", "tracing", "card")),
     ("test_memory.py", "test_memory_trace.py")),
)
LONG = (  # of what these say, shorter tests say enough
    "test_nf4_equals_bitsandbytes_bit_for_bit_on_a_hundred_million_weights", "test_the_whole_of_llama_2_7b",
    "test_huge_answers_are_shown_short", "test_any_two_answers_can_be_set_side_by_side",
    "test_no_pair_of_answers_breaks_the_ladder", "test_a_factor_or_an_offset_that_is_named_is_there",
    "test_the_first_difference_is_shown", "test_a_stop_that_comes_as_the_function_ends_is_the_last",
    "test_ten_million_values_are_those_of_ml_dtypes_bit_for_bit")

SHORTEST_FIRST = """

def pytest_collection_modifyitems(items):
    import json
    try:
        times = json.loads(Path("mutmut-stats.json").read_text())["duration_by_test"]
    except OSError:  # they are being measured
        times = {}
    items.sort(key=lambda item: times.get(item.nodeid, 0.0))
"""  # most mutants die of the first test that calls them: behind the course's own conftest, in place of its order


def undecorated(code: str) -> str:
    """`code` with each function's decorators called below it: @cache above f becomes f = (cache)(f)."""
    lines = code.splitlines()
    functions = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):  # from below: the lines above keep their numbers
        wrappers = [ast.unparse(wrapper) for wrapper in node.decorator_list]
        if not wrappers or wrappers in (["staticmethod"], ["classmethod"]):  # these two mutmut knows
            continue
        value = node.name
        for wrapper in reversed(wrappers):
            value = f"({wrapper})({value})"
        lines.insert(node.end_lineno, " " * node.col_offset + f"{node.name} = {value}")
        del lines[node.decorator_list[0].lineno - 1:node.lineno - 1]
    return "\n".join(lines) + "\n"


def configuration(modules: Sequence[str], tests: Sequence[str]) -> str:
    """What mutmut reads from setup.cfg."""
    names = [f"tests/{name}" for name in tests]
    lists = {
        "source_paths": ["helpers"], "only_mutate": modules, "also_copy": ["conftest.py"],
        "do_not_mutate_patterns": [r"\braise ", r'\breturn "[A-Z]\w* '], "pytest_add_cli_args_test_selection": names,
        "pytest_add_cli_args": ["-o", "addopts=", *(f"-pno:{name}" for name in ("nbval", "xdist", "cacheprovider")),
                                *(f"--deselect={file}::{name}" for file in names for name in LONG)],
    }
    text = "".join(f"{key} =\n" + "".join(f"    {value}\n" for value in values) for key, values in lists.items())
    return f"[mutmut]\n{text}process_isolation = forkserver\n"  # torch does not outlive a plain fork


def prepare(clone: Path) -> None:
    """The last commit as a clone of its own, where mutmut finds no other settings."""
    shutil.rmtree(clone, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for module in (module for modules, _ in GROUPS for module in modules):
        path = clone / module
        path.write_text(undecorated(path.read_text(encoding="utf-8")), encoding="utf-8")
    with (clone / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(SHORTEST_FIRST)


def mutate(clone: Path, modules: Sequence[str], tests: Sequence[str], sample: int = 0) -> dict[str, dict[str, int]]:
    """Run the mutants of each module, or `sample` of them: the exit code of each one's tests."""
    shutil.rmtree(clone / "mutants", ignore_errors=True)
    (clone / "setup.cfg").write_text(configuration(modules, tests), encoding="utf-8")
    chosen = []
    if sample:
        mutmut(clone, "run", "no such mutant")  # makes them all, finds the tests that reach each, and then complains
        for made in map(list, codes(clone, modules).values()):
            chosen += [made[n * len(made) // sample] for n in range(sample)] if sample < len(made) else made
    done = mutmut(clone, "run", "--max-children", os.environ.get("CHILDREN") or "2", *chosen)
    found = {module: {name: code for name, code in given.items() if not chosen or name in chosen}
             for module, given in codes(clone, modules).items()}
    if done.returncode or any(None in given.values() for given in found.values()):
        raise SystemExit(f"mutmut failed on {', '.join(modules)}:\n{done.stdout[-5000:]}")
    return found


def codes(clone: Path, modules: Sequence[str]) -> dict[str, dict[str, int]]:
    """What mutmut has written down: for each module the mutants' names and exit codes, None before they have run."""
    return {module: json.loads((clone / "mutants" / f"{module}.meta").read_text())["exit_code_by_key"]
            for module in modules}


def mutmut(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).with_name("mutmut"), *arguments], cwd=clone, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main(asked: list[str], sample: int) -> None:
    known = {module for modules, _ in GROUPS for module in modules}
    if unknown := sorted(set(asked) - known):
        raise SystemExit(f"{unknown[0]} is not among {', '.join(sorted(known))}")
    prepare(CLONE)
    print(f"{'module':34}{'mutants':>8}{'killed':>8}{'timeouts':>9}{'survived':>9}{'share':>8}")
    low, differences = [], []
    for group, tests in GROUPS:
        modules = [module for module in group if not asked or module in asked]
        for module, found in (mutate(CLONE, modules, tests, sample) if modules else {}).items():
            killed = sum(code in KILLED for code in found.values())
            timeouts = sum(code in TIMEOUT for code in found.values())
            share = (killed + timeouts) / max(1, len(found))
            survivors = [name for name, code in found.items() if code not in KILLED + TIMEOUT]
            print(f"{module:34}{len(found):8}{killed:8}{timeouts:9}{len(survivors):9}{share:8.1%}", flush=True)
            low += [module] if share < WANTED else []
            differences += [mutmut(CLONE, "show", name).stdout for name in survivors]
    print("", *differences, sep="\n")
    if low:
        raise SystemExit(f"Below {WANTED:.0%}: {', '.join(low)}")


if __name__ == "__main__":
    main(sys.argv[1:], int(os.environ.get("SAMPLE") or 0))
