"""The image of a service: its environment's with the application's layer. All that can be done at once is."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aks_inference_runtime.api.disk import disk_errors
from aks_inference_runtime.api.errors import NotFound
from aks_inference_runtime.images.ahead import ahead, together
from aks_inference_runtime.images.build.application import (
    Application,
    Packed,
    application_image,
    application_layer,
    collect,
)
from aks_inference_runtime.images.build.assemble import Image
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.build.begun import Begun
from aks_inference_runtime.images.build.bill import attach_bill, send_bill
from aks_inference_runtime.images.build.choose import Builder
from aks_inference_runtime.images.build.publish import name_image, push_blobs
from aks_inference_runtime.images.build.records import Record, read_record
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.build.tarball import Layer
from aks_inference_runtime.images.ensure import BuildSettings, Ensured, ensure_image
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.last_time import last_found
from aks_inference_runtime.images.lookup import RegistryPlace
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor
from aks_inference_runtime.images.registry.transport import SMALL_BYTES
from aks_inference_runtime.images.registry.upload import UploadSource

SERVICES = "services"
"""Of images with an application; see RegistryPlace.beside."""
APPLICATION_BLOBS = 3
"""What an application adds: its layer, the image's configuration and its bill of materials."""


async def ensure_service(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    application: Application | Packed,
    workspace: RegistryPlace,
    shared: Sequence[RegistryPlace] = (),
    settings: BuildSettings | None = None,
    progress: Progress = lambda _line: None,
) -> tuple[Ensured, Ensured]:
    """The image of the environment and that of the service on it. What does not depend on the environment is done while
    that is looked for: files that cannot be taken are told before anything is built."""
    settings = settings or BuildSettings()
    cache = settings.cache
    begun = Begun(client, ImageReference(workspace.registry, workspace.beside(SERVICES)), cache, APPLICATION_BLOBS)
    found: asyncio.Future[Ensured] = asyncio.get_running_loop().create_future()

    async def environment() -> Ensured:
        there = await ensure_image(client, definition, workspace, shared, settings, progress)
        found.set_result(there)
        return there

    async def service() -> Ensured:
        ready = await _prepare(application, cache, begun)
        work = _Service(client, definition, workspace, cache, progress, begun, ready, found)
        # What is on its way anyway is made ready on the environment of last time, whose image seldom changes.
        expected = last_found(definition, workspace, shared, cache) if ready.sent and not settings.refresh else None
        if expected is not None:
            async with ahead(work.on(expected)) as early:
                if (await asyncio.shield(found)).image == expected:
                    # One that was gone is there again by now.
                    with contextlib.suppress(NotFound):
                        return await early
        return await work.on((await asyncio.shield(found)).image)

    with disk_errors(cache):
        async with begun:
            return await together(environment(), service())


@dataclass(frozen=True)
class _Ready:
    """An application, and its layer where packing it costs less than asking whether it is needed."""

    packed: Packed
    layer: Layer | None
    sent: bool = False
    """Whether it is on its way to the registry."""


async def _prepare(application: Application | Packed, cache: Path, begun: Begun) -> _Ready:
    ready = await asyncio.to_thread(_pack_small, application, cache)
    layer = ready.layer
    # Files that this machine has not packed before are hardly in the registry yet.
    if layer is None or not layer.is_new:
        return ready
    return replace(ready, sent=begun.send_early(layer.descriptor(), UploadSource.file(layer.path)))


def _pack_small(application: Application | Packed, cache: Path) -> _Ready:
    packed = collect(application) if isinstance(application, Application) else application
    return _Ready(packed, application_layer(packed, cache) if packed.size <= SMALL_BYTES else None)


class _AnotherOne(Exception):
    """The environment is not the one of last time; who began by that one knows it, too."""


@dataclass(frozen=True)
class _Service:
    """An application whose image is wanted."""

    client: RegistryClient
    definition: EnvironmentDefinition
    workspace: RegistryPlace
    cache: Path
    progress: Progress
    begun: Begun
    ready: _Ready
    found: "asyncio.Future[Ensured]"
    """Its environment."""

    async def on(self, environment: ImageReference) -> Ensured:
        """The image on that of an environment. Until this is `found` to be the one only small blobs are sent, which
        nobody sees. Raises _AnotherOne where it is not."""
        client, packed, layer = self.client, self.ready.packed, self.ready.layer
        target = application_reference(environment, packed, self.workspace)
        async with ahead(client.head(target)) as asked:
            # The environment was found or pushed a moment ago: it is read from disk where it was read before.
            base = await fetch_image(client, environment, self.definition.platform, self.cache)
            # What is on its way anyway is sent while the registry is asked whether it has the image.
            if not self.ready.sent and (there := await asked) is not None:
                return Ensured((await self._sure(environment)).key, target.at(there.digest), False)
            if layer is None:
                layer = await asyncio.to_thread(application_layer, packed, self.cache)
            image = application_image(base, packed, layer)
            record = read_record(target, base.manifest.digest, self.cache)
            async with ahead(self._held(environment, target, record)) as held:
                listed, pushed = await together(
                    self._described(image, environment, target, record, held, asked),
                    push_blobs(client, image, target, self.cache, self.progress, held, self.begun),
                )
            if (there := await asked) is not None:
                return Ensured((await self._sure(environment)).key, target.at(there.digest), False)
        key = (await self._sure(environment)).key
        # The tag comes last: who finds it asks for nothing else.
        await name_image(client, image, target, self.cache, self.progress, listed)
        kept = f"{pushed.kept_blobs} blobs were there"
        self.progress(f"application: pushed {pushed.sent_bytes / 1e6:.2f} MB; {kept}")
        return Ensured(key, target.at(image.digest), True, Builder.ASSEMBLE.value, pushed)

    async def _sure(self, environment: ImageReference) -> Ensured:
        # Shielded: who waits and is given up does not end it for the others.
        there = await asyncio.shield(self.found)
        if there.image != environment:
            raise _AnotherOne
        return there

    async def _held(self, environment: ImageReference, target: ImageReference, record: Record | None) -> bool:
        """Whether the recorded image is in the repository, with the base's layers: a registry keeps what its manifests
        name."""
        held = record is not None and await self.client.head(target.at(record.digest)) is not None
        if not held:
            # Now large blobs are sent.
            await self._sure(environment)
        return held

    async def _described(
        self,
        image: Image,
        environment: ImageReference,
        target: ImageReference,
        record: Record | None,
        held: "asyncio.Task[bool]",
        asked: "asyncio.Task[Descriptor | None]",
    ) -> bool | None:
        """Sends the bill of materials, and attaches it where the image is not there. Gives how: see `Record`."""
        client, told = self.client, record.listed if record is not None else None

        async def empty() -> None:
            # The bill of an image that is in the repository has it.
            if told is None or not await held:
                await client.push_empty(target)

        async with contextlib.AsyncExitStack() as stack:
            above = target.at(image.digest)
            listed = await stack.enter_async_context(ahead(client.listed(above))) if told else None
            sent = send_bill(client, environment, self.ready.packed, target, image.digest, self.cache, self.begun)
            bill, _ = await together(sent, empty())
            await self._sure(environment)
            if await asked is not None:
                return None
            return await attach_bill(client, target, image.manifest.descriptor(), bill, listed)


def application_reference(environment: ImageReference, packed: Packed, workspace: RegistryPlace) -> ImageReference:
    """Where the image of an application on an environment's image (with its digest) is, or will be. Pure."""
    below = (environment.digest or "").partition(":")[2][:16]
    return ImageReference(workspace.registry, workspace.beside(SERVICES), f"{below}-{packed.tag}")
