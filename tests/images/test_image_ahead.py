"""What is sent before it is known that it is needed: on its way early, taken back, begun anew."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from push_story import SERVICES, services_of

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images import (
    BuildSettings,
    RegistryClient,
    RegistryPlace,
    read_environment,
)
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.environment.model import Platform
from aks_inference_runtime.images.last_time import look
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import Descriptor


async def test_new_files_are_on_their_way_before_the_environment_is_known(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """The registry says what the base is once it has the layer; and whether it has the image once it has all blobs."""
    proxy = proxy_before(registry_with({}).host)
    sent: list[str] = []
    layer, both, second = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if second.is_set() and request.method == "HEAD":
            if "/push/base/" in request.path:
                await layer.wait()
            elif f"/{SERVICES}/manifests/" in request.path and "sha256:" not in request.path:
                await both.wait()
        answer = await proxy.handle(request)
        if second.is_set() and request.method == "PUT" and "/uploads/" in request.path:
            sent.append(request.path)
            layer.set()
            if len(sent) == 3:
                both.set()
        return answer  # type: ignore[no-any-return]

    proxy.host = await server(handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        second.set()
        async with asyncio.timeout(30):
            made = await service.apply("two = 2\n")
        assert made.built
        assert await service.whole(made)


async def test_what_was_made_ready_on_another_environment_gets_no_name(
    registry_with: Any, push_base: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """Script and base change at once: the image is on the new base, and nothing is said of one on the old."""
    async with quick() as client:
        host = registry_with({}).host
        service = await story(client, host)
        await service.apply("one = 1\n")
        first = await service.apply("two = 2\n")
        base = await push_base(client, f"{host}/push/base:1", {"etc/moved": b"yes"})
        before = set(await client.tags(host, SERVICES))
        second = await service.apply("three = 3\n")
        image = await fetch_image(client, second.image, Platform())
        new = set(await client.tags(host, SERVICES)) - before
        assert await service.whole(second)
        assert len(await client.referrers(second.image, SPDX_JSON)) == 1
    assert base.layer.digest in {layer.digest for layer in image.layers}
    assert second.key != first.key
    assert new == {second.image.tag, str(second.image.digest).replace(":", "-")}


async def test_a_layer_on_its_way_is_waited_for_on_the_new_environment_too(
    registry_with: Any, proxy_before: Any, server: Any, push_base: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """Its upload is answered once the image is looked for on the second of two environments."""
    proxy = proxy_before(registry_with({}).host)
    tags: set[str] = set()
    third, looked_for = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if third.is_set() and request.path.startswith(f"/v2/{SERVICES}/"):
            if request.method == "HEAD" and "sha256:" not in request.path:
                tags.add(request.path)
                if len(tags) == 2:
                    looked_for.set()
            if "/uploads/" in request.path:
                await looked_for.wait()
        return await proxy.handle(request)  # type: ignore[no-any-return]

    proxy.host = await server(handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        await service.apply("two = 2\n")
        await push_base(client, f"{proxy.host}/push/base:1", {"etc/moved": b"yes"})
        third.set()
        async with asyncio.timeout(30):
            made = await service.apply("three = 3\n")
        assert made.built
        assert await service.whole(made)


async def test_what_was_begun_and_not_needed_is_taken_back(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """The same script again on a machine that has sent before: the image is there, and no upload stays open."""
    registry = registry_with({})
    proxy = proxy_before(registry.host)
    proxy.host = await server(proxy.handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        first = await service.apply("one = 1\n")
        proxy.seen.clear()
        again = await service.apply("one = 1\n")
        kinds = Counter(method for method, _, _ in proxy.seen)
    assert (first.built, again.built, again.image) == (True, False, first.image)
    assert kinds["POST"] == kinds["DELETE"] == 3
    assert kinds["PUT"] == 0
    open_ones = services_of(registry) / "_uploads"
    assert not list(open_ones.glob("*/data"))


async def test_what_was_begun_without_an_answer_holds_no_error_up(
    registry_with: Any,
    proxy_before: Any,
    server: Any,
    quick: Callable[..., RegistryClient],
    story: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = proxy_before(registry_with({}).host)
    over, asked = asyncio.Event(), asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if asked.is_set() or (request.method == "POST" and proxy.fault is not original):
            asked.set()
            await over.wait()
            return web.Response(status=503)
        return await proxy.handle(request)  # type: ignore[no-any-return]

    original = proxy.fault
    proxy.host = await server(handle)
    monkeypatch.setattr("aks_inference_runtime.images.build.begun.TAKE_BACK_S", 600.0)
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        proxy.fault = lambda _request: None
        (service.source / ".amlignore").write_text("score.py\n")
        try:
            async with asyncio.timeout(30):
                with pytest.raises(InvalidInput, match="is ignored by"):
                    await service.apply("two = 2\n")
        finally:
            over.set()


async def test_who_has_never_sent_an_image_begins_nothing(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any, tmp_path: Path
) -> None:
    """A reader may have no right to write: where the image is there, it is not even tried."""
    proxy = proxy_before(registry_with({}).host)
    proxy.host = await server(proxy.handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        first = await service.apply("one = 1\n")
        proxy.seen.clear()
        service.settings = BuildSettings(cache=tmp_path / "another")
        again = await service.apply("one = 1\n")
        assert again.image == first.image
    assert {method for method, _, _ in proxy.seen} <= {"GET", "HEAD"}


@pytest.mark.parametrize(("method", "status"), [("POST", 403), ("PUT", 404), ("PUT", 500), ("PUT", 400), ("PUT", 403)])
async def test_an_upload_that_came_to_nothing_is_begun_anew(
    method: str,
    status: int,
    registry_with: Any,
    proxy_before: Any,
    server: Any,
    quick: Callable[..., RegistryClient],
    story: Any,
) -> None:
    """Refused when it was begun; forgotten before it was used, broken off there; its signed address too old."""
    proxy = proxy_before(registry_with({}).host)
    proxy.host = await server(proxy.handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        proxy.seen.clear()
        refused: list[str] = []

        def fault(request: web.Request) -> web.Response | None:
            if request.method != method or "/blobs/uploads/" not in request.path or len(refused) == 3:
                return None
            # What is begun anew for a blob is taken.
            what = request.query.get("digest") or request.path + str(len(refused))
            if what in refused:
                return None
            refused.append(what)
            return web.json_response({"errors": []}, status=status)

        proxy.fault = fault
        second = await service.apply("two = 2\n")
        assert len(refused) == 3
        assert await service.whole(second)


async def test_who_cancels_while_the_early_look_ends_is_heard(tmp_path: Path) -> None:
    """By the base of last time it was looked up early, and in vain: its end is not taken for our own."""
    ending, over = asyncio.Event(), asyncio.Event()

    class Slow:
        """Answers as a registry whose base moves each time; to end a look-up of an image takes it a while."""

        digests = itertools.count()

        async def head(self, reference: ImageReference) -> Descriptor | None:
            if reference.repository == "base":
                await asyncio.sleep(0)
                return Descriptor("", f"sha256:{next(self.digests):064}", 1)
            if next(self.digests) == 1:
                return None
            try:
                await asyncio.Event().wait()
            finally:
                ending.set()
                await over.wait()
            return None

    definition = read_environment({"docker": {"baseImage": "localhost/base:1"}}, Path())
    place = RegistryPlace.parse("localhost/images")
    client: Any = Slow()
    await look(client, definition, place, (), tmp_path)
    task = asyncio.create_task(look(client, definition, place, (), tmp_path))
    async with asyncio.timeout(10):
        await ending.wait()
    task.cancel()
    over.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


async def test_files_that_cannot_be_taken_are_told_while_the_environment_is_looked_for(
    registry_with: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """The registry of the environments does not answer: what is wrong with the files is told all the same."""
    over = asyncio.Event()

    async def silent(_request: web.Request) -> web.Response:
        await over.wait()
        return web.Response(status=503)

    async with quick() as client:
        service = await story(client, registry_with({}).host)
        service.place = RegistryPlace.parse(f"{await server(silent)}/push/env")
        (service.source / ".amlignore").write_text("score.py\n")
        try:
            with pytest.raises(InvalidInput, match=r"'score\.py' is ignored by"):
                await service.apply("one = 1\n")
        finally:
            over.set()
