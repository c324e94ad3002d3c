"""What a changed entry script costs at a real registry, and what happens when the records on disk are wrong."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.images import (
    Application,
    BuildSettings,
    Ensured,
    RegistryClient,
    RegistryPlace,
    ensure_application,
    ensure_image,
    read_environment,
)
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.environment.model import Platform

SERVICES = "aks-inference/services"


class Story:
    """One service whose script changes."""

    def __init__(self, client: RegistryClient, host: str, base: object, folder: Path) -> None:
        self.client = client
        self.place = RegistryPlace.parse(f"{host}/push/env")
        raw = {"docker": {"baseImage": str(base)}, "python": {"userManagedDependencies": True}}
        self.definition = read_environment(raw, Path())
        self.settings = BuildSettings(cache=folder / "cache")
        self.source = folder / "service"
        self.source.mkdir()

    async def apply(self, script: str) -> Ensured:
        (self.source / "score.py").write_text(script)
        made = await ensure_image(self.client, self.definition, self.place, settings=self.settings)
        application = Application("score.py", self.source)
        return await ensure_application(self.client, made, self.definition, application, self.place, self.settings)

    async def whole(self, service: Ensured) -> bool:
        """Whether the repository has all that the image's manifest names."""
        image = await fetch_image(self.client, service.image, Platform())
        return all([await self.client.has_blob(service.image, layer.digest) for layer in image.layers])


@pytest.fixture
def story(push_base: Any, tmp_path: Path) -> Any:
    async def begin(client: RegistryClient, host: str) -> Story:
        base = await push_base(client, f"{host}/push/base:1")
        tagged = str(base.reference).partition("@")[0]
        return Story(client, host, tagged, tmp_path)

    return begin


async def test_a_changed_script_costs_nine_requests(
    registry_with: Any, proxy_before: Any, server: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """Three look-ups, one question about the image of before, two blobs of two requests, the manifest."""
    proxy = proxy_before(registry_with({}).host)
    proxy.host = await server(proxy.handle)
    async with quick() as client:
        service = await story(client, proxy.host)
        await service.apply("one = 1\n")
        proxy.seen.clear()
        second = await service.apply("two = 2\n")
        kinds = [method for method, _, _ in proxy.seen]
        assert await service.whole(second)
    assert sorted(kinds) == sorted(["HEAD"] * 4 + ["POST", "PUT"] * 2 + ["PUT"])


async def test_an_image_of_before_that_is_gone_proves_nothing(
    registry_with: Any, quick: Callable[..., RegistryClient], story: Any
) -> None:
    """The repository is emptied: everything is sent again."""
    registry = registry_with({})
    async with quick() as client:
        service = await story(client, registry.host)
        await service.apply("one = 1\n")
        shutil.rmtree(registry.storage / "docker/registry/v2/repositories" / SERVICES)
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
        repository = registry.storage / "docker/registry/v2/repositories" / SERVICES
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
        for path in [*kept, *(service.settings.cache / "pushed").iterdir()]:
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
