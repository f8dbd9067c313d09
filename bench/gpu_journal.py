"""Plugin of pytest: the result of each test in a file as soon as it is known, so that it outlives the run.

The file is that of the variable PAINN_FAST_JOURNAL, a line of JSON a test. Tests that passed in an earlier run, by the
same file, are left out.
"""

import json
import os
import time
from pathlib import Path

JOURNAL = Path(os.environ["PAINN_FAST_JOURNAL"])


def pytest_collection_modifyitems(config, items):
    lines = JOURNAL.read_text().splitlines() if JOURNAL.exists() else []
    results = {entry["test"]: entry["result"] for entry in map(json.loads, lines)}
    done = [item for item in items if results.get(item.nodeid) == "passed"]
    config.hook.pytest_deselected(items=done)
    items[:] = [item for item in items if results.get(item.nodeid) != "passed"]


def pytest_runtest_logreport(report):
    """In the process that the others report to, where there are others."""
    if "PYTEST_XDIST_WORKER" in os.environ or not (report.when == "call" or report.outcome != "passed"):
        return
    entry = {"test": report.nodeid, "result": report.outcome, "seconds": round(report.duration, 2)}
    if report.outcome != "passed":
        entry["message"] = report.longreprtext[-4000:]
    with JOURNAL.open("a") as file:
        file.write(json.dumps(entry | {"time": round(time.time(), 1)}) + "\n")
