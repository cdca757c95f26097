"""`make pins`: does every pin of requirements.txt have a wheel for each Python and system that the course promises?

pip answers, by a dry run for a foreign target. It evaluates environment markers for the machine it runs on, so they
are evaluated here, for the target, and left out. A current pip with fast-deps reads a wheel's metadata by range
requests and downloads no wheel (torch alone is hundreds of megabytes). Needs the network: no part of `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
OWN_INDEXES = ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = {
    "Linux x86_64": (
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "os_name": "posix"},
        ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_26_x86_64", "manylinux_2_24_x86_64",
         "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_12_x86_64", "manylinux_2_5_x86_64"]),
    "macOS arm64": (
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
        ["macosx_14_0_arm64"]),
    "Windows amd64": (
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
        ["win_amd64"]),
}


def pins(text: str) -> list[Requirement]:
    """The requirements of a requirements.txt that has one of them a line."""
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def wanted(requirements: list[Requirement], python: str, system: dict[str, str]) -> list[str]:
    """The pins that apply to the target, without their markers."""
    environment = {"implementation_name": "cpython", "platform_python_implementation": "CPython", "extra": "",
                   "python_version": python, "python_full_version": f"{python}.0", **system}
    return [f"{r.name}{r.specifier}" for r in requirements if r.marker is None or r.marker.evaluate(environment)]


def dry_run(pip: list[str], names: list[str], python: str, platforms: list[str], target: str) -> str:
    """What pip has against installing `names` there; "" if nothing."""
    command = [*pip, "install", "--dry-run", "--quiet", "--no-deps", "--only-binary=:all:", "--use-feature=fast-deps",
               "--no-cache-dir", "--implementation=cp", f"--python-version={python}", f"--target={target}",
               *[f"--platform={platform}" for platform in platforms], *names]
    # Wheels that lie on this machine's disk, and indexes that only it knows, prove nothing about another machine.
    environment = {key: value for key, value in os.environ.items() if key not in OWN_INDEXES}
    done = subprocess.run(command, capture_output=True, text=True, env={**environment, "PIP_CONFIG_FILE": os.devnull})
    return "" if done.returncode == 0 else done.stderr.strip() or f"pip ended with {done.returncode}"


def main() -> int:
    requirements = pins((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    missing = 0
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder, "Scripts" if os.name == "nt" else "bin", "python")), "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", "--upgrade", "pip"], check=True)
        for name, (system, platforms) in SYSTEMS.items():
            for python in PYTHONS:
                names = wanted(requirements, python, system)
                faults = []
                if dry_run(pip, names, python, platforms, folder):  # then one by one, to name all of them
                    faults = [(n, e) for n in names if (e := dry_run(pip, [n], python, platforms, folder))]
                missing += len(faults)
                found = len(names) - len(faults)
                print(f"{name}, Python {python}: {found} of {len(names)} pins have a wheel", flush=True)
                for pin, error in faults:
                    print(f"  {pin}: {error.splitlines()[-1]}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
