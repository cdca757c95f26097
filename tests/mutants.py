"""`make mutants`: break the code in thousands of small ways, one at a time. Does a test notice each?

mutmut makes the mutants and finds the tests that reach each, in a fresh clone of the last commit under build/. A module
is judged by its own tests, named below. Left as they are: what a `raise` says, sentences to return, docstrings, types,
numbers outside of functions. mutmut passes over decorated functions, so in the clone a decorator becomes a call below
the function. tests/survivors.md lists those that change nothing, each with its reason; they do not count. What survives
besides is printed, to be met by a test or to be listed there, and so is what is listed there and survives no longer.

The mutants themselves are run here: mutmut calls pytest anew for each, which takes seconds. One process imports
everything and collects the tests once; of it a child is made for each mutant, which runs the tests that reach it until
one fails: first the one that killed the latest mutant of that function, then the shortest. A quarter of a second each
where tests are short (the ladder's 1,325 took 338 s of CPU). SAMPLE=60 takes so many of each module, evenly spread.
CHILDREN=1 leaves a core for other work. Needs fork: not on Windows.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CLONE = ROOT / "build" / "mutants"
SURVIVORS = ROOT / "tests" / "survivors.md"
WANTED = 0.97  # of those that are not listed there
KILLED, SURVIVED, TIMEOUT = "killed", "survived", "timeout"
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
    "test_ten_million_values_are_those_of_ml_dtypes_bit_for_bit",
    "test_trace_is_a_real_step_and_the_forecast_comes_within_5_percent",
    "test_the_forecast_comes_within_5_percent_of_the_traced_step",
    "test_both_know_when_the_output_head_is_the_peak", "test_another_layer_takes_what_the_one_before_took")

CONFTEST = """

# A mutant's failure need not be made small, nor remembered; and what a cache holds would hide a mutant.
hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None,
                                     phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
hypothesis.settings.load_profile("mutants")


def pytest_runtest_setup():
    import mutants

    mutants.forget()
"""  # behind tests/conftest.py in the clone


caches: dict[int, list] = {}  # by the number of modules that are there


def forget() -> None:
    """Empty the caches of helpers/."""
    if len(sys.modules) not in caches:
        caches[len(sys.modules)] = [
            value for name, module in list(sys.modules.items()) if name.startswith("helpers")
            for value in list(vars(module).values()) if callable(getattr(value, "cache_clear", None))]
    for value in caches[len(sys.modules)]:
        value.cache_clear()


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
    with (clone / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(CONFTEST)


def mutate(clone: Path, modules: Sequence[str], tests: Sequence[str], sample: int = 0) -> dict[str, dict[str, str]]:
    """Run the mutants of each module, or `sample` of them: "killed", "timeout", "survived" or "no tests" for each."""
    shutil.rmtree(clone / "mutants", ignore_errors=True)
    (clone / "setup.cfg").write_text(configuration(modules, tests), encoding="utf-8")
    said = mutmut(clone, "run", "no such mutant").stdout  # makes them all, finds the tests of each, and then complains
    if not (clone / "mutants" / "mutmut-stats.json").is_file():
        raise SystemExit(f"mutmut failed on {', '.join(modules)}:\n{said[-5000:]}")
    made = {}
    for module in modules:
        names = list(json.loads((clone / "mutants" / f"{module}.meta").read_text())["exit_code_by_key"])
        few = 0 < sample < len(names)
        made[module] = [names[n * len(names) // sample] for n in range(sample)] if few else names
    found = execute(clone, tests, [name for names in made.values() for name in names])
    return {module: {name: found[name] for name in names} for module, names in made.items()}


def execute(clone: Path, tests: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """What becomes of each of these mutants, which stand in clone/mutants already."""
    (clone / "mutants" / "names.json").write_text(json.dumps(names))
    results = clone / "mutants" / "results.jsonl"
    results.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "tests/mutants.py", "--here", *(f"tests/{name}" for name in tests)],
                          cwd=clone / "mutants", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(clone / "mutants")})
    found = dict(map(json.loads, results.read_text().splitlines())) if results.is_file() else {}
    if set(found) != set(names):
        raise SystemExit(f"{len(found)} of {len(names)} mutants have run:\n{done.stdout[-5000:]}")
    return found


class Mutants:
    """A pytest plugin: in place of a run of the tests, a run of those that reach it for each mutant of names.json."""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        stats = json.loads(Path("mutmut-stats.json").read_text())
        reach, times = stats["tests_by_mangled_function_name"], stats["duration_by_test"]
        items, running = {item.nodeid: item for item in session.items}, {}
        free = int(os.environ.get("CHILDREN") or 2)
        gc.freeze()
        with open("results.jsonl", "w", encoding="utf-8") as results:
            for name in json.loads(Path("names.json").read_text()):
                chosen = sorted(set(reach.get(name.rpartition("__mutmut_")[0], ())) & set(items), key=times.get)
                if not chosen:
                    results.write(json.dumps([name, "no tests"]) + "\n")
                    continue
                while len(running) == free:
                    self.wait(running, results)
                last = self.killer(name).read_text() if self.killer(name).is_file() else None
                chosen.sort(key=lambda test, last=last: test != last)
                child = os.fork()
                if not child:
                    self.run(name, [items[test] for test in chosen], times)
                running[child] = name, time.monotonic() + 60 + 10 * sum(map(times.get, chosen))
            while running:
                self.wait(running, results)
        return True

    def killer(self, name: str) -> Path:
        """The file that names the test which killed the latest mutant of the same function."""
        return Path("killer-" + name.rpartition("__mutmut_")[0])

    def run(self, name: str, items: list[pytest.Item], times: dict[str, float]) -> None:
        """In the child: it ends with 0 if no test fails. A test may take five times as long as it did, and 5 s."""
        import resource

        os.setsid()
        os.environ["MUTANT_UNDER_TEST"] = name
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, resource.RLIM_INFINITY))
        failed = True
        with contextlib.suppress(BaseException):
            for item, after in zip(items, [*items[1:], None], strict=True):
                limit = int(time.process_time() + 6 + 5 * times[item.nodeid])
                resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
                parameters = item.callspec.params if hasattr(item, "callspec") else {}
                if set(item.fixturenames) == set(parameters) and {"parametrize"} >= {
                        mark.name for mark in item.iter_markers()}:  # nothing to set up: many times faster so
                    forget()
                    item.obj(**parameters)
                else:
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
                    assert not item.session.testsfailed
            failed = False
        if failed:
            self.killer(name).write_text(item.nodeid)
        os._exit(failed)

    def wait(self, running: dict[int, tuple[str, float]], results) -> None:
        """Until a child has ended, of itself or because it took too long."""
        while True:
            for child, (name, end) in list(running.items()):
                ended, status = os.waitpid(child, os.WNOHANG)
                late = not ended and time.monotonic() > end
                if late:
                    os.killpg(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                if ended or late:
                    with contextlib.suppress(ProcessLookupError):  # what it has started itself
                        os.killpg(child, signal.SIGKILL)
                    late = late or os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU
                    results.write(json.dumps([name, TIMEOUT if late else KILLED if status else SURVIVED]) + "\n")
                    results.flush()
                    del running[child]
                    return
            time.sleep(0.005)


def difference(code: str, name: str) -> tuple[str, str]:
    """What a mutant has changed: the line before, and after it, with its function's name: "encode: x = y - 1".

    code: the file in which mutmut keeps all mutants of a module, and the original.
    """
    function = name.rpartition(".")[2]
    mangled = function.rpartition("__mutmut_")[0]
    plain = mangled.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    one, other = (re.search(rf"^( *)def {re.escape(searched)}\(.*?(?=^\1?\S|\Z)", code, re.DOTALL | re.MULTILINE)[0]
                  .replace(searched, plain) for searched in (f"{mangled}__mutmut_orig", function))
    lines = list(difflib.unified_diff(one.splitlines(), other.splitlines(), n=0, lineterm=""))[2:]
    before, after = (next((line[1:].strip() for line in lines if line.startswith(sign)), "") for sign in "-+")
    return before, f"{plain}: {after}"


def survivors(text: str) -> dict[str, set[str]]:
    """Module -> the mutants that are listed in survivors.md, indented below a reason, as `difference` names them."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            lines = found.setdefault(f"helpers/{line[3:].strip()}", set())
        elif line.startswith("    "):
            lines.add(line.strip())
    return found


def mutmut(clone: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([Path(sys.executable).with_name("mutmut"), *arguments], cwd=clone, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def main(asked: list[str], sample: int) -> None:
    known = {module for modules, _ in GROUPS for module in modules}
    if unknown := sorted(set(asked) - known):
        raise SystemExit(f"{unknown[0]} is not among {', '.join(sorted(known))}")
    prepare(CLONE)
    print(f"{'module':34}{'mutants':>8}{'equal':>7}{'killed':>8}{'timeouts':>9}{'survived':>9}{'share':>8}")
    listed, low, said = survivors(SURVIVORS.read_text(encoding="utf-8")), [], []
    for group, tests in GROUPS:
        modules = [module for module in group if not asked or module in asked]
        for module, found in (mutate(CLONE, modules, tests, sample) if modules else {}).items():
            code, ends = (CLONE / "mutants" / module).read_text(encoding="utf-8"), list(found.values())
            alive = [difference(code, name) for name, end in found.items() if end not in (KILLED, TIMEOUT)]
            known = listed.get(module, set())
            new = [(before, after) for before, after in alive if after not in known]
            equal = len(alive) - len(new)
            share = 1 - len(new) / max(1, len(found) - equal)
            print(f"{module:34}{len(found):8}{equal:7}{ends.count(KILLED):8}{ends.count(TIMEOUT):9}{len(new):9}"
                  f"{share:8.1%}", flush=True)
            low += [module] if share < WANTED else []
            said += [f"## {module.removeprefix('helpers/')}"] if new else []
            said += [f"{before}\n    {after}" for before, after in new]
            if not sample and (gone := sorted(known - {after for _, after in alive})):
                said += [f"{module}: listed, and no longer alive:", *(f"    {line}" for line in gone)]
    print("", *said, sep="\n")
    if low:
        raise SystemExit(f"Below {WANTED:.0%}: {', '.join(low)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        without = [f"-pno:{name}" for name in ("nbval", "xdist", "cacheprovider")]
        left = [f"--deselect={file}::{name}" for file in sys.argv[2:] for name in LONG]
        sys.exit(pytest.main(["-o", "addopts=", "--capture=sys", "-q", *without, *left, *sys.argv[2:]], [Mutants()]))
    main(sys.argv[1:], int(os.environ.get("SAMPLE") or 0))
