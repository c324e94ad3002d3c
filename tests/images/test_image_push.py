"""What a changed entry script costs at a real registry, and what happens when the records on disk are wrong."""

import shutil
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from push_story import SERVICES, services_of

from aks_inference_runtime.images import (
    RegistryClient,
)
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.errors import RegistryError


async def test_a_changed_script_costs_fourteen_requests(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """Three look-ups, one question about the image of before, two blobs of two requests, the manifest. The bill of
    materials: a blob, its manifest, and the list that stands for referrers here, read before it is written."""
    proxy = proxy_before(registry_with({}).host)
    proxy.host = await server(proxy.handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        proxy.seen.clear()
        second = await service.apply("two = 2\n")
        kinds = [method for method, _, _ in proxy.seen]
        assert await service.whole(second)
    assert sorted(kinds) == sorted(["GET"] + ["HEAD"] * 4 + ["POST", "PUT"] * 3 + ["PUT"] * 3)


async def test_the_environment_of_last_time_that_is_gone_is_built_again(
    registry_with: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """Its image was removed, and this machine has lost what it kept of it."""
    registry = registry_with({})
    async with quick() as client:
        service = await story(client, registry.host)
        await service.apply("one = 1\n")
        await service.apply("two = 2\n")
        shutil.rmtree(services_of(registry).with_name("env"))
        shutil.rmtree(service.settings.cache / "blobs")
        third = await service.apply("three = 3\n")
        assert third.built
        assert await service.whole(third)


async def test_an_image_of_before_that_is_gone_proves_nothing(
    registry_with: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """The repository is emptied: everything is sent again."""
    registry = registry_with({})
    async with quick() as client:
        service = await story(client, registry.host)
        await service.apply("one = 1\n")
        shutil.rmtree(services_of(registry))
        second = await service.apply("two = 2\n")
        assert second.built
        assert await service.whole(second)


async def test_layers_that_are_gone_under_a_listed_image_are_sent_again(
    registry_with: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    registry = registry_with({})
    async with quick() as client:
        service = await story(client, registry.host)
        first = await service.apply("one = 1\n")
        repository = services_of(registry)
        shutil.rmtree(repository / "_layers")
        assert await client.head(first.image) is not None
        second = await service.apply("two = 2\n")
        assert await service.whole(second)


async def test_what_was_kept_and_changed_on_disk_is_fetched_again(
    registry_with: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    async with quick() as client:
        service = await story(client, registry_with({}).host)
        await service.apply("one = 1\n")
        kept = [path for path in (service.settings.cache / "blobs").iterdir() if path.stat().st_size < 100_000]
        assert kept
        for path in [*kept, *(service.settings.cache / "pushed").glob("*/*")]:
            path.write_bytes(b"\xff{}")
        second = await service.apply("two = 2\n")
        assert await service.whole(second)


async def test_another_refusal_of_the_manifest_is_told(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    proxy = proxy_before(registry_with({}).host)
    proxy.host = await server(proxy.handle)
    refused = {"errors": [{"code": "MANIFEST_INVALID", "message": "not here"}]}
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        put = f"/v2/{SERVICES}/manifests/"
        proxy.fault = lambda request: (
            web.json_response(refused, status=400) if request.method == "PUT" and request.path.startswith(put) else None
        )
        with pytest.raises(Exception, match="MANIFEST_INVALID: not here"):
            await service.apply("two = 2\n")


async def test_an_image_has_its_name_once_its_bill_of_materials_is_attached(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """The registry refuses what is attached: who applies again finds no image without it."""
    proxy = proxy_before(registry_with({}).host)
    proxy.host = await server(proxy.handle)
    put = f"/v2/{SERVICES}/manifests/sha256-"
    async with quick() as client:
        service = await story(client, proxy.host)
        proxy.fault = lambda request: (
            web.Response(status=400) if request.method == "PUT" and request.path.startswith(put) else None
        )
        with pytest.raises(RegistryError, match="answered 400"):
            await service.apply("one = 1\n")
        assert not [tag for tag in await client.tags(proxy.host, SERVICES) if not tag.startswith("sha256-")]
        proxy.fault = lambda _request: None
        again = await service.apply("one = 1\n")
        assert again.built
        assert proxy.requests("PUT")[-1] == f"/v2/{SERVICES}/manifests/{again.image.tag}"
        assert len(await client.referrers(again.image, SPDX_JSON)) == 1


async def test_what_others_have_attached_stays(
    registry_with: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """A tag that somebody removed comes back beside what is attached to its image, such as a signature."""
    registry = registry_with({})
    async with quick() as client:
        service = await story(client, registry.host)
        first = await service.apply("one = 1\n")
        subject = await client.head(first.image)
        assert subject is not None
        await client.attach(first.image, subject, "application/signature", b"signed")
        tags = services_of(registry) / "_manifests/tags"
        shutil.rmtree(tags / str(first.image.tag))
        second = await service.apply("one = 1\n")
        assert (second.built, second.image) == (True, first.image)
        kinds = {one.artifact_type for one in await client.referrers(second.image)}
        assert kinds == {"application/signature", SPDX_JSON}


async def test_a_base_that_moved_is_looked_up_anew(
    registry_with: Any, push_base: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    async with quick() as client:
        host = registry_with({}).host
        service = await story(client, host)
        first = await service.apply("one = 1\n")
        await push_base(client, f"{host}/push/base:1", {"etc/moved": b"yes"})
        second = await service.apply("one = 1\n")
        assert second.key != first.key
        assert second.built
        third = await service.apply("one = 1\n")
        assert (third.built, third.image) == (False, second.image)
