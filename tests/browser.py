"""Real JupyterLab in real Chromium, for tests of explorers.

    import browser
    lab = browser.lab                                    # the fixture, for every test of the module

    def test_x(lab):
        page = lab.run(notebook)                         # a path or a NotebookNode; all cells run
        page.locator(".widget-dropdown select").first.select_option(index=3)
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import nbformat
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SETTINGS = {  # every cell is rendered, also far down; no news, no questions
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}


def chromium() -> str | None:
    """The path of a Chromium or Chrome, or None. CHROMIUM in the environment overrides the search."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("CHROMIUM") or next((path for path in map(shutil.which, names) if path), None)


class Lab:
    """A JupyterLab server with its own settings, and a browser that looks at it."""

    def __init__(self, folder: pathlib.Path, browser) -> None:
        self.folder, self.root, self.log = folder, folder / "root", folder / "server.log"
        self.root.mkdir()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "IPYTHON"))}
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
                     "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR"):
            env[name] = str(folder / name.lower())
        env |= {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        for name, content in SETTINGS.items():
            path = folder / "jupyterlab_settings_dir" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--ServerApp.port=0",
                   f"--ServerApp.root_dir={self.root}", "--LabApp.expose_app_in_browser=True"]
        if os.name == "posix" and os.geteuid() == 0:
            command.append("--allow-root")
        with self.log.open("w") as log:
            self.server = subprocess.Popen(command, env=env, cwd=self.root, stdout=log, stderr=log)
        self.url, self.token = self._address()
        self.page = browser.new_page(viewport={"width": 1200, "height": 1000})

    def _address(self, seconds: float = 180) -> tuple[str, str]:
        """The server's URL and token, as its log announces them."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.server.poll() is None:
            found = re.search(r"(http://127\.0\.0\.1:\d+/)lab\?token=(\w+)", self.log.read_text())
            if found:
                return found[1], found[2]
            time.sleep(0.2)
        self.close()
        raise RuntimeError(f"JupyterLab did not start in {seconds:g} s:\n{self.log.read_text()[-3000:]}")

    def run(self, notebook: pathlib.Path | nbformat.NotebookNode, name: str = "notebook.ipynb", seconds: float = 180):
        """Copy a notebook into the server's folder, open it, run all its cells to the end, return Playwright's page.

        Output that the file came with is dropped, so that what stands on the page was made there. AssertionError if a
        cell raises.
        """
        content = notebook if isinstance(notebook, nbformat.NotebookNode) else nbformat.read(notebook, as_version=4)
        for cell in content.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        content.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(content, self.root / name)
        self._shut_down_kernels()
        self.page.goto(f"{self.url}lab/tree/{name}?reset&token={self.token}", timeout=seconds * 1000)
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'",
            timeout=seconds * 1000)
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells')"
                           ".then(() => { window.cellsAreRun = true; }); }")
        self.page.wait_for_function("() => window.cellsAreRun === true", timeout=seconds * 1000)
        errors = self.page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
        assert not errors, f"{name} raised in JupyterLab:\n{errors[0]}"
        return self.page

    def _shut_down_kernels(self) -> None:
        """Each notebook starts in a kernel of its own."""
        header = {"Authorization": f"token {self.token}"}
        for session in self.page.request.get(f"{self.url}api/sessions", headers=header).json():
            self.page.request.delete(f"{self.url}api/sessions/{session['id']}", headers=header)

    def record(self, name: str) -> str:
        """Save a screenshot and say where it and the server's log are: for a failing test's report."""
        picture = self.folder / f"{name}.png"
        try:
            self.page.screenshot(path=picture)
        except Exception as error:  # the browser itself may be what failed
            picture = f"none ({type(error).__name__})"
        return f"screenshot: {picture}\nserver log: {self.log}\n{self.log.read_text()[-2000:]}"

    def close(self) -> None:
        """Stop the server, and with it its kernels."""
        self.server.terminate()
        try:
            self.server.wait(20)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()


@contextmanager
def launched() -> Iterator:
    """A headless Chromium of Playwright's; without one the test is skipped, and the end of the run says so."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    if path is None:
        reason = "NO BROWSER TEST: no Chromium found. Debian and Ubuntu: apt-get install chromium; or set CHROMIUM"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield opened
        finally:
            opened.close()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server and one browser for a module's tests."""
    with launched() as opened:
        lab = Lab(tmp_path_factory.mktemp("lab"), opened)
        try:
            yield lab
        finally:
            lab.close()


@pytest.fixture
def lab(started: Lab, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The module's `Lab`; if the test fails, a screenshot and the server's last words are printed into its report."""
    failed = request.session.testsfailed
    yield started
    if request.session.testsfailed > failed:
        print(started.record(re.sub(r"\W+", "_", request.node.name)))
