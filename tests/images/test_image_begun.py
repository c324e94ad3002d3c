"""What is sent before it is known whether it is needed, when those who wait for it are given up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.images import RegistryClient
from aks_inference_runtime.images.build.begun import Begun
from aks_inference_runtime.images.build.records import Record, write_record
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import Descriptor, sha256
from aks_inference_runtime.images.registry.upload import UploadSource

CONTENT = b"a small layer"
BLOB, SOURCE = Descriptor("application/octet-stream", sha256(CONTENT), len(CONTENT)), UploadSource.of(CONTENT)


@dataclass
class Held:
    """A registry that answers no upload before it may."""

    target: ImageReference
    seen: list[str]
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    may: asyncio.Event = field(default_factory=asyncio.Event)


@pytest.fixture
async def held(referrers_registry: Any, proxy_before: Any, server: Any) -> AsyncIterator[Held]:
    proxy = proxy_before(referrers_registry.host)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            one.asked.set()
            await one.may.wait()
        return await proxy.handle(request)  # type: ignore[no-any-return]

    one = Held(ImageReference.parse(f"{await server(handle)}/begun/services:1"), proxy.seen)
    yield one
    one.may.set()


@pytest.fixture
def begin(held: Held, tmp_path: Path) -> Callable[[RegistryClient], Begun]:
    write_record(held.target, "sha256:base", tmp_path, Record("sha256:before"))
    return lambda client: Begun(client, held.target, tmp_path, 2)


class FirstError(Exception):
    """What the caller shall hear of."""


async def give_up_a_waiter(begun: Begun, held: Held) -> None:
    waiter = asyncio.create_task(begun.push(BLOB, SOURCE))
    await held.asked.wait()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert waiter.cancelled()


async def test_who_is_given_up_leaves_it_to_who_comes_after(
    held: Held, begin: Callable[[RegistryClient], Begun], quick: Callable[..., RegistryClient]
) -> None:
    """As when the environment turns out to be another one than last time: the layer is the same on both."""
    async with asyncio.timeout(30), quick() as client:
        async with begin(client) as begun:
            assert begun.send_early(BLOB, SOURCE)
            await give_up_a_waiter(begun, held)
            held.may.set()
            assert (await begun.push(BLOB, SOURCE)).how == "sent"
        assert await client.read_blob(held.target, BLOB, 100) == CONTENT
    assert [method for method, _, _ in held.seen] == ["POST", "GET"]


async def test_the_error_is_what_is_told_and_waits_for_no_answer(
    held: Held, begin: Callable[[RegistryClient], Begun], quick: Callable[..., RegistryClient]
) -> None:
    async with asyncio.timeout(30), quick() as client:

        async def fail() -> None:
            async with begin(client) as begun:
                begun.send_early(BLOB, SOURCE)
                await give_up_a_waiter(begun, held)
                raise FirstError

        with pytest.raises(FirstError):
            await fail()
    assert not held.may.is_set()


async def test_what_nobody_waits_for_any_more_is_sent_to_its_end(
    held: Held, begin: Callable[[RegistryClient], Begun], quick: Callable[..., RegistryClient]
) -> None:
    async with asyncio.timeout(30), quick() as client:
        async with begin(client) as begun:
            begun.send_early(BLOB, SOURCE)
            await give_up_a_waiter(begun, held)
            held.may.set()
        assert await client.has_blob(held.target, BLOB.digest)


@pytest.mark.parametrize("whole", [True, False])
async def test_what_the_loop_has_ended_hides_no_error(
    held: Held,
    begin: Callable[[RegistryClient], Begun],
    quick: Callable[..., RegistryClient],
    monkeypatch: pytest.MonkeyPatch,
    whole: bool,
) -> None:
    """`asyncio.run` ends all tasks of a loop at once: what was begun may be over before who began it."""
    monkeypatch.setattr("aks_inference_runtime.images.registry.upload._wholly", {held.target.api_host: whole})
    async with asyncio.timeout(30), quick() as client:
        before = asyncio.all_tasks()

        async def fail() -> None:
            async with begin(client) as begun:
                begun.send_early(BLOB, SOURCE)
                under_way = asyncio.all_tasks() - before
                assert len(under_way) == (1 if whole else 3)
                await held.asked.wait()
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)
                raise FirstError

        with pytest.raises(FirstError):
            await fail()


async def test_a_file_that_vanishes_is_an_error_of_the_build(
    held: Held, begin: Callable[[RegistryClient], Begun], quick: Callable[..., RegistryClient], tmp_path: Path
) -> None:
    gone = UploadSource.file(tmp_path / "gone")
    async with asyncio.timeout(30), quick() as client:
        held.may.set()
        async with begin(client) as begun:
            begun.send_early(BLOB, gone)
            # Who comes for it hears why.
            with pytest.raises(OperationFailed, match=r"gone: cannot be sent \(No such file .*\); apply again"):
                await begun.push(BLOB, gone)
        async with begin(client) as begun:
            # And nobody may come for it.
            begun.send_early(BLOB, gone)
