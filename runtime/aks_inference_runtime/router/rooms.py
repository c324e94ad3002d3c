"""How many connections a HAProxy process has, and whom it keeps them for. Pure."""

from aks_inference_runtime.router.slots import Layout

MOST_CONNECTIONS = 20_000
"""A request that waits takes 23 KiB in a first process and 17 KiB where its queue is (measured), with TLS some tens of
KiB more: the 2 GiB that a router's pod may have hold that, and a further process's queue."""
SPARE_FILES = 1_000
LEAST_CONNECTIONS = 1_000
"""A process with many slots takes hundreds for itself."""


def connections(files: int | None) -> int:
    """Of a process that may open so many files (None: any number): each connection may need one to go on."""
    if files is None:
        return MOST_CONNECTIONS
    return max(LEAST_CONNECTIONS, min(MOST_CONNECTIONS, (files - SPARE_FILES) // 2))


def clients(of_all: int, layout: Layout) -> int:
    """Of the first process, for clients: it also gets back what other processes pass on, and is asked how it is."""
    return _beside(of_all, layout) * 4 // 5


def waiting(of_all: int, layout: Layout) -> int:
    """From so many on, what would have to wait is refused: the rest is for requests whose replicas are free. Less than
    `clients`, so that what waits at one router never takes all connections of another."""
    return _beside(of_all, layout) * 3 // 4


def kept(of_all: int) -> int:
    """Idle connections of a first process to another one: where thousands have waited, theirs would count there for
    seconds as if they still did."""
    return of_all // 40


def _beside(of_all: int, layout: Layout) -> int:
    """The place of each slot that is never free (`park.lua`) takes two."""
    return of_all - 2 * len(layout.timeouts_ms)
