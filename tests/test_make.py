"""`make lab` for real, in the environment at hand; and what make says and leaves behind when installing cannot work."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from notebook_tools import rules

ROOT = rules.ROOT
MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed here")


def fetch(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.geturl(), answer.read().decode()


@pytest.fixture
def lab(tmp_path):
    """`make lab` on a busy port without a display: the port, what it printed, and its address. Ended afterwards."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {"HOME": str(tmp_path), "BROWSER": "false"}
    printed = tmp_path / "printed"
    with socket.create_server(("127.0.0.1", 0)) as busy, printed.open("w") as out:
        port = busy.getsockname()[1]
        command = [MAKE, f"VENV={sys.prefix}", f"PORT={port}", "-o", f"{sys.prefix}/.installed", "lab"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT,
                                   stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            for _ in range(300):
                found = re.search(r"http://\S+?:\d+/lab/\S*\?token=\w+", printed.read_text())
                if found or process.poll() is not None:
                    break
                time.sleep(0.1)
            yield port, printed.read_text(), found and found[0]
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=20)


def test_lab_opens_lesson_00_on_the_next_free_port(lab):
    busy, printed, url = lab
    assert url, printed
    address, token = re.fullmatch(r"(http://[^/]+)/lab/tree/00_start_here.ipynb\?token=(\w+)", url).groups()
    assert int(address.rsplit(":", 1)[1]) != busy
    if sys.platform.startswith("linux"):
        assert "No display here" in printed

    assert '"appName": "JupyterLab"' in re.sub(r'":\s*"', '": "', fetch(url)[1])
    there = json.loads(fetch(f"{address}/api/contents?token={token}")[1])
    assert sorted(item["name"] for item in there["content"] if item["type"] == "notebook") == \
        sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    with pytest.raises(urllib.error.HTTPError, match="403"):
        fetch(f"{address}/api/contents")  # Jupyter's own token guards it

    setting = f"{address}/lab/api/settings/@jupyterlab/apputils-extension:notification?token={token}"
    defaults = json.loads(fetch(setting)[1])["schema"]["properties"]
    assert defaults["fetchNews"]["default"] == "false" and defaults["checkForUpdates"]["default"] is False


@pytest.fixture
def checkout(tmp_path):
    """A folder with the Makefile alone and a requirement that no index can meet."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").write_text("this-package-does-not-exist==1\n")
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def call(folder, *arguments, **environment):
    return subprocess.run([MAKE, *arguments], cwd=folder, env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=120)


def test_without_a_python_make_names_the_remedy(checkout):
    done = call(checkout, "lab", PATH=str(checkout))
    assert done.returncode != 0
    assert "No Python 3.11, 3.12 or 3.13" in done.stdout and "PYTHON=" in done.stdout
    assert not (checkout / ".venv").exists()


def test_a_failed_installation_leaves_no_stamp_and_is_taken_up_again(checkout):
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python3.11")  # as left by a Python that was removed: the environment is made again
    for n, made in enumerate([True, False]):
        done = call(checkout, "lab", f"PYTHON={sys.executable}", PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        assert done.returncode != 0 and "pip" in done.stderr, n
        assert ("Making .venv" in done.stdout) == made, n  # the second call keeps what the first one made
        assert python.exists() and not (checkout / ".venv" / ".installed").exists(), n
