"""The image of a service: its environment's with the application's layer. All that can be done at once is."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aks_inference_runtime.api.disk import disk_errors
from aks_inference_runtime.images.ahead import ahead, together
from aks_inference_runtime.images.build.application import (
    Application,
    Packed,
    application_image,
    application_layer,
    collect,
)
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.build.begun import Begun
from aks_inference_runtime.images.build.bill import send_bill
from aks_inference_runtime.images.build.choose import Builder
from aks_inference_runtime.images.build.publish import name_image, push_on_environment
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.build.tarball import Layer
from aks_inference_runtime.images.ensure import BuildSettings, Ensured, ensure_image
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.lookup import RegistryPlace
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
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
    with disk_errors(cache):
        async with begun:
            made = ensure_image(client, definition, workspace, shared, settings, progress)
            there, ready = await together(made, _prepare(application, cache, begun))
            return there, await _on_environment(client, there, definition, ready, workspace, cache, progress, begun)


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


async def _on_environment(
    client: RegistryClient,
    environment: Ensured,
    definition: EnvironmentDefinition,
    ready: _Ready,
    workspace: RegistryPlace,
    cache: Path,
    progress: Progress,
    begun: Begun,
) -> Ensured:
    packed = ready.packed
    target = application_reference(environment.image, packed, workspace)
    async with ahead(client.head(target)) as asked:
        # The environment was found or pushed a moment ago: it is read from disk where it was read before.
        base = await fetch_image(client, environment.image, definition.platform, cache)
        # What is on its way anyway is sent while the registry is asked whether it has the image.
        if not ready.sent and (there := await asked) is not None:
            return Ensured(environment.key, target.at(there.digest), False)
        layer = ready.layer
        if layer is None:
            layer = await asyncio.to_thread(application_layer, packed, cache)
        image = application_image(base, packed, layer)
        pushed, bill = await together(
            push_on_environment(client, image, target, cache, progress, begun),
            send_bill(client, environment.image, packed, target, image.digest, cache, begun),
        )
        if (there := await asked) is not None:
            return Ensured(environment.key, target.at(there.digest), False)
    await client.attach_blob(target, image.manifest.descriptor(), bill)
    # The tag comes last: who finds it asks for nothing else.
    await name_image(client, image, target, cache, progress)
    progress(f"application: pushed {pushed.sent_bytes / 1e6:.2f} MB; {pushed.kept_blobs} blobs were there")
    return Ensured(environment.key, target.at(image.digest), True, Builder.ASSEMBLE.value, pushed)


def application_reference(environment: ImageReference, packed: Packed, workspace: RegistryPlace) -> ImageReference:
    """Where the image of an application on an environment's image (with its digest) is, or will be. Pure."""
    below = (environment.digest or "").partition(":")[2][:16]
    return ImageReference(workspace.registry, workspace.beside(SERVICES), f"{below}-{packed.tag}")
