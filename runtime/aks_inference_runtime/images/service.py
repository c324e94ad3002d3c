"""The image that pods run from: an environment, and an application on it; looked up, then made if it is missing."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aks_inference_runtime.api.errors import AksInferenceError, NotFound, OperationFailed
from aks_inference_runtime.images.build.application import Packed
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.ensure import BuildSettings, Ensured, ensure_image
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.errors import AccessDenied
from aks_inference_runtime.images.lookup import Lookup, RegistryPlace, ask_bases, bases_of, find
from aks_inference_runtime.images.of_service import application_reference, ensure_service
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor


@dataclass(frozen=True)
class Wanted:
    """What pods need, and where it belongs."""

    definition: EnvironmentDefinition
    workspace: RegistryPlace
    shared: tuple[RegistryPlace, ...] = ()
    packed: Packed | None = None
    """The application's files; None: the environment alone."""
    alias: ImageReference | None = None
    """A name of its own that the image also has, made of its content: where that is there, all is."""

    @property
    def offline_key(self) -> str:
        """The key of the environment by what is written, whatever the base images' digests are now."""
        return image_key(self.definition)


@dataclass(frozen=True)
class Found:
    """What the registries say."""

    lookup: Lookup
    """Of the environment."""
    image: ImageReference | None = None
    """With its digest, where the whole is there."""
    pinned: bool = True
    """Whether all base images' digests were known: the key stands for them."""
    closed: tuple[tuple[ImageReference, AccessDenied], ...] = ()
    """Base images that we may not read, where it is to be built, with their registry's words."""

    @property
    def text(self) -> str:
        """For people."""
        if self.lookup.found is None or self.image is not None:
            return self.lookup.text
        return f"environment {self.lookup.text}, will add the application's files"


async def look_up(client: RegistryClient, wanted: Wanted) -> Found:
    """Asks, builds nothing. Raises the workspace registry's error."""
    if wanted.alias is not None and (named := await client.head(wanted.alias)) is not None:
        image = wanted.alias.at(named.digest)
        return Found(Lookup(wanted.offline_key, wanted.definition.package_count, image, named), image)
    bases = await ask_bases(client, bases_of(wanted.definition, pinned=False))
    looked = await find(client, wanted.definition, wanted.workspace, wanted.shared, bases.pins)
    looked = replace(looked, notes=(*bases.notes, *looked.notes))
    pinned = not bases.notes
    if looked.found is None:
        more = await ask_bases(client, bases_of(wanted.definition, pinned=True))
        return Found(looked, None, pinned, (*bases.closed, *more.closed))
    if wanted.alias is not None:
        return Found(looked, None, pinned)
    if wanted.packed is None:
        return Found(looked, looked.found, pinned)
    target = application_reference(looked.found, wanted.packed, wanted.workspace)
    there = await client.head(target)
    return Found(looked, target.at(there.digest) if there else None, pinned)


async def ensure(client: RegistryClient, wanted: Wanted, settings: BuildSettings, progress: Progress) -> Ensured:
    """Finds or builds all of it. Raises BuildFailed with the end of the log, and the registry's errors."""
    alias, definition, workspace = wanted.alias, wanted.definition, wanted.workspace
    if alias is not None and (named := await client.head(alias)) is not None:
        await _described(client, wanted, alias, named)
        return Ensured(wanted.offline_key, alias.at(named.digest), False)
    if wanted.packed is None:
        made = await ensure_image(client, definition, workspace, wanted.shared, settings, progress)
    else:
        packed, shared = wanted.packed, wanted.shared
        _, made = await ensure_service(client, definition, packed, workspace, shared, settings, progress)
    return made if alias is None else await _also(client, made, alias)


async def _also(client: RegistryClient, made: Ensured, alias: ImageReference) -> Ensured:
    """The image under another name of the same registry, with what is attached to it."""
    manifest = await client.manifest(made.image)
    if manifest is None:
        raise NotFound(f"{made.image} was there and is gone: somebody cleans the registry up; apply again")
    if alias.repository != made.image.repository:
        await _mount(client, (manifest.part("config"), *manifest.parts("layers")), made.image, alias)
        await _describe(client, made.image, alias, manifest.descriptor())
    # The name comes last: who finds it asks for nothing else.
    await client.push_manifest(alias, manifest)
    return replace(made, image=alias.at(manifest.digest))


async def _describe(
    client: RegistryClient, image: ImageReference, alias: ImageReference, described: Descriptor
) -> None:
    """Attaches the bills of materials of an image to the same one in another repository."""
    for listed in await client.referrers(image, SPDX_JSON):
        bill = await client.manifest(image.at(listed.digest))
        layers = bill.parts("layers") if bill else ()
        await _mount(client, layers, image, alias)
        await client.push_empty(alias)
        for layer in layers:
            await client.attach_blob(alias, described, layer)


async def _described(client: RegistryClient, wanted: Wanted, alias: ImageReference, named: Descriptor) -> None:
    """A name that was there before bills of materials were gets that of its image, where the image still has one."""
    with contextlib.suppress(AksInferenceError):
        if await client.referrers(alias.at(named.digest), SPDX_JSON):
            return
        looked = await find(client, wanted.definition, wanted.workspace)
        if looked.found is None:
            return
        image = looked.found
        if wanted.packed is not None:
            image = application_reference(looked.found, wanted.packed, wanted.workspace)
        there = await client.head(image)
        if there is not None and there.digest == named.digest and image.repository != alias.repository:
            await _describe(client, image.at(there.digest), alias, named)


async def _mount(
    client: RegistryClient, blobs: Sequence[Descriptor], there: ImageReference, here: ImageReference
) -> None:
    """Makes blobs of one repository blobs of another one."""
    for blob in blobs:
        if not await client.has_blob(here, blob.digest) and not await client.mount(here, blob.digest, there.repository):
            raise OperationFailed(f"{here.registry} does not mount {blob.digest} from {there.repository}")
