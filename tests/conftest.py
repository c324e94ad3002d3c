"""For all tests."""

import compileall
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import run_results
from xdist.scheduler import LoadScopeScheduling

from testbed import left_over

# A shell starts its background jobs with Ctrl-C ignored, and every process that they start inherits that: tests that
# press Ctrl-C would press in vain. A handler here is the default again in what is started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Programs of tests name packages freely, also where no index can be reached. Tests of the look-up turn it on.
os.environ["AKS_INFERENCE_PACKAGE_CHECK"] = "off"

# Two workers take whole areas, the long ones first: what an area starts once is started once. An area that is not
# here comes last.
AREAS = (
    "node",
    "quickstart",
    "router",
    "cluster",
    "local",
    "system",
    "azure",
    "engine",
    "jobs",
    "models",
    "provider",
    "images",
    "components",
    "corpus",
    "unit",
)

STARTED = pytest.StashKey[float]()
WATCH = pytest.StashKey[left_over.Watch]()

TOGETHER = {"quickstart": "node"}
"""Areas that one worker runs one after the other: a checkout has one quickstart at a time, and both run it."""

PACKAGES = ("components", "engine", "provider", "runtime")

ON_A_NODE = ("_on_a_node.py::", "test_contract.py::")
"""Of the cluster's tests those that a real node runs: a machine has one at a time."""


def area(nodeid: str) -> str:
    """The folder of tests that a test is in: `tests/router/test_gate.py::test_http_1_0_and_head` → `router`; those of
    the cluster that need a real node are an area of their own, `node`."""
    if nodeid.startswith("tests/cluster/") and any(name in nodeid for name in ON_A_NODE):
        return "node"
    return nodeid.split("/")[1]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker; elsewhere the order stays."""
    if hasattr(config, "workerinput"):
        places = {name: place for place, name in enumerate(AREAS)}
        items.sort(key=lambda item: places.get(area(item.nodeid), len(places)))


class ByArea(LoadScopeScheduling):
    """Whole areas, in their order; last, file by file, what starts nothing that others could use, so that both workers
    end together."""

    def _split_scope(self, nodeid: str) -> str:
        if area(nodeid) == AREAS[-1]:
            return nodeid.partition("::")[0]
        return TOGETHER.get(area(nodeid), area(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByArea:
    config.option.loadscopereorder = False
    return ByArea(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--results", type=Path, help="write what the run came to as JSON into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STARTED] = time.monotonic()
    if not hasattr(config, "workerinput"):
        config.stash[WATCH] = left_over.Watch()
        # With PYTHONDONTWRITEBYTECODE each of thousands of processes would compile them anew.
        if sys.dont_write_bytecode:
            for package in PACKAGES:
                compileall.compile_dir(config.rootpath / package, quiet=2)


@pytest.fixture(scope="session", autouse=True)
def _folders_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    left_over.claim(tmp_path_factory.getbasetemp())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Says what tests have left running."""
    if WATCH in config.stash:
        for each in config.stash[WATCH].end():
            print(f"left running by a test, and ended: {each}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    # What failed and then passed is a defect of a test or of the code, too: its reason would else be lost.
    for report in terminalreporter.stats.get("rerun", ()):
        terminalreporter.section(f"ran again: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
    if path := config.getoption("--results"):
        run_results.write(path, terminalreporter.stats, time.monotonic() - config.stash[STARTED], area)
