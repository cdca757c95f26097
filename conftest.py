"""Before any test or notebook kernel starts: the settings under which the committed outputs were made."""

import matplotlib
from notebook_tools import environment

environment.apply()
matplotlib.use("Agg")  # for the tests themselves; a notebook's kernel chooses its own


def pytest_terminal_summary(terminalreporter):
    """What was left out, and why: a skipped test must not look like one that passed."""
    skipped = {(report.nodeid, report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr))
               for report in terminalreporter.stats.get("skipped", [])}
    for name, reason in sorted(skipped):
        terminalreporter.write_line(f"LEFT OUT {name}: {reason.removeprefix('Skipped: ')}", yellow=True, bold=True)
