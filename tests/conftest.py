"""For all tests."""

import signal
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent

# A shell starts its background jobs with Ctrl-C ignored, and every process that they start inherits that: tests that
# press Ctrl-C would press in vain. A handler here is the default again in what is started.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Two workers take whole areas, the long ones first: what an area starts once is started once. An area that is not
# here comes last.
AREAS = (
    "router",
    "local",
    "quickstart",
    "cluster",
    "system",
    "azure",
    "engine",
    "models",
    "provider",
    "images",
    "unit",
    "components",
    "corpus",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker; elsewhere the order stays."""
    if not hasattr(config, "workerinput"):
        return
    areas = {item: item.path.relative_to(FOLDER).parts[0] for item in items}
    places = {area: place for place, area in enumerate(AREAS)}
    items.sort(key=lambda item: places.get(areas[item], len(places)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(areas[item]))
