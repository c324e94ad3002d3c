"""What is kept of a collection is taken from it a page at a time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.kubernetes.client import Expired
from aks_inference_runtime.kubernetes.informer import Informer


class Server:
    """Three pages of ten; then a watch that never tells anything."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.lists = 0
        self.watched: list[str] = []

    async def pages(self, path: str, labels: str, fields: str) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        self.lists += 1
        for number in range(3):
            if number == 2 and self.failures:
                raise self.failures.pop()
            names = [f"one-{number}-{n}" for n in range(10)]
            yield [{"metadata": {"name": name, "namespace": "ns"}, "much": [0] * 1_000} for name in names], "7"

    async def watch(self, path: str, version: str, labels: str, fields: str) -> AsyncIterator[tuple[str, Any]]:
        self.watched.append(version)
        await asyncio.Event().wait()
        yield "BOOKMARK", {}


@pytest.mark.parametrize("failure", [None, Expired("the page's token is too old"), RuntimeUnavailable("away")])
async def test_all_pages_are_read_and_a_failure_in_the_middle_keeps_nothing(failure: Exception | None) -> None:
    server = Server()
    server.failures = [failure] if failure is not None else []
    told: list[int] = []
    informer: Informer[str] = Informer(
        "/pods",
        lambda found: str(found["metadata"]["name"]),
        lambda: told.append(len(informer.items)),
        jitter=lambda: 0,
    )
    task = asyncio.create_task(informer.run(server))  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(20):
            await informer.first()
            while not server.watched:
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told == [30]
    assert server.lists == (1 if failure is None else 2)
    assert server.watched == ["7"]
    assert informer.items["ns/one-2-9"] == "one-2-9"


async def test_what_is_read_again_stays_the_same_object() -> None:
    informer: Informer[list[str]] = Informer("/pods", lambda found: [found["metadata"]["name"]], lambda: None)
    server: Any = Server()
    await informer._list(server)
    before, revision = dict(informer.items), informer.revision
    await informer._list(server)
    assert informer.revision == revision
    assert all(informer.items[name] is one for name, one in before.items())
