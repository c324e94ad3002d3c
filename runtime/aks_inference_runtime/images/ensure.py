"""From a definition to an image in the workspace's registry: looked up, else built once, pushed and described."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from aks_inference_runtime.api.disk import disk_errors
from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.images.build.acr import AzureBuild, build_in_azure
from aks_inference_runtime.images.build.assemble import environment_image, environment_layers
from aks_inference_runtime.images.build.base import fetch_image, find_target
from aks_inference_runtime.images.build.bill import keep_bill
from aks_inference_runtime.images.build.choose import NOT_AZURE, Builder, Choice, choose
from aks_inference_runtime.images.build.publish import Pushed, push_blobs
from aks_inference_runtime.images.build.resolve import resolve
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.build.sbom import SPDX_JSON, declared_packages, spdx, wheel_packages
from aks_inference_runtime.images.build.tools import ToolOptions, build_and_push
from aks_inference_runtime.images.build.wheel import Wheel
from aks_inference_runtime.images.claim import Patience, claimed
from aks_inference_runtime.images.environment.containerfile import python_version, with_default_base
from aks_inference_runtime.images.environment.key import base_references
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.last_time import look
from aks_inference_runtime.images.lookup import Lookup, RegistryPlace, find
from aks_inference_runtime.images.once import build_lock, cache_directory
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.credentials import CredentialStore
from aks_inference_runtime.packages.waiting import saying

NOTHING_SENT = Pushed(0, 0, 0)


@dataclass(frozen=True)
class BuildSettings:
    """How images are built."""

    builder: Builder = Builder.AUTO
    cache: Path = field(default_factory=cache_directory)
    refresh: bool = False
    """Optional. True: choose packages anew and build even when the image is there (Azure ML's `Environment.build`)."""
    tool: ToolOptions = field(default_factory=ToolOptions)
    credentials: CredentialStore = field(default_factory=CredentialStore)
    """Optional. For the build tools; the client has its own."""
    azure: AzureBuild | None = None
    """Optional. Who asks Azure to build. Default: nobody."""
    patience: Patience = field(default_factory=Patience)
    """Optional. With another machine that builds the same. Default: waits for it as long as it says that it builds."""

    def no_tasks(self, registry: str) -> str:
        """Why ACR Tasks cannot build for a registry; empty when they can."""
        return NOT_AZURE if self.azure is None else self.azure.cannot(registry)


@dataclass(frozen=True)
class Ensured:
    """An image that is there."""

    key: str
    image: ImageReference
    """With its digest."""
    built: bool
    builder: str | None = None
    """None when it was found."""
    pushed: Pushed = NOTHING_SENT
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For people."""
        return f"image built in {self.image.registry}" if self.built else f"image found in {self.image.registry}"


async def ensure_image(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    workspace: RegistryPlace,
    shared: Sequence[RegistryPlace] = (),
    settings: BuildSettings | None = None,
    progress: Progress = lambda _line: None,
) -> Ensured:
    """The image of a definition: found, or built and pushed to the workspace's registry. Two calls with the same key
    build once: in one process, on one machine, and on several where the registry takes the marks of `claim`. Else the
    one that comes second takes the first one's image."""
    settings = settings or BuildSettings()
    with disk_errors(settings.cache):
        return await _found_or_built(client, with_default_base(definition), workspace, shared, settings, progress)


async def _found_or_built(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    workspace: RegistryPlace,
    shared: Sequence[RegistryPlace],
    settings: BuildSettings,
    progress: Progress,
) -> Ensured:
    looked, base_pins, notes = await look(client, definition, workspace, shared, settings.cache)
    if looked.found is not None and not settings.refresh:
        return _found(looked, notes)
    choice = choose(definition, settings.builder, no_tasks=settings.no_tasks(workspace.registry))
    lock = f"{looked.key}-{workspace.registry.replace(':', '_')}-{workspace.repository.replace('/', '_')}"

    def waiting(who: str) -> None:
        progress(f"{looked.key[:12]} is being built on this machine by {who}; waiting for its end")

    async with build_lock(settings.cache / "locks", lock, waiting) as waited:
        if waited or not settings.refresh:
            looked = await find(client, definition, workspace, shared, base_pins)
            if looked.found is not None:
                return _found(looked, notes)
        if settings.refresh:
            return await _built(client, definition, workspace, looked, base_pins, notes, settings, choice, progress)
        target, locks = workspace.image(looked.key), settings.cache / "locks"
        async with claimed(client, target, locks, settings.patience, progress) as there:
            if there:
                looked = await find(client, definition, workspace, shared, base_pins)
                if looked.found is not None:
                    return _found(looked, notes)
            return await _built(client, definition, workspace, looked, base_pins, notes, settings, choice, progress)


async def _built(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    workspace: RegistryPlace,
    looked: Lookup,
    base_pins: dict[str, str],
    notes: tuple[str, ...],
    settings: BuildSettings,
    choice: Choice,
    progress: Progress,
) -> Ensured:
    progress(f"building {looked.key[:12]} with {choice.builder.value} ({choice.reason}): {looked.text}")
    if choice.builder == Builder.ASSEMBLE:
        return await _assemble(client, definition, workspace, looked, base_pins, settings, progress)
    target = workspace.image(looked.key)
    logins = settings.credentials.logins
    if choice.builder == Builder.ACR_TASKS and settings.azure is not None:
        azure, again = settings.azure, settings.refresh
        await build_in_azure(azure, definition, target, base_pins, logins, progress, refresh=again)
    else:
        options = replace(settings.tool, refresh=settings.refresh)
        await build_and_push(choice.builder, definition, target, base_pins, logins, options, progress)
    built = await client.head(target)
    if built is None:
        raise OperationFailed(f"{choice.builder.value} ended well, but {target} is not in the registry")
    bases = tuple(one.at(base_pins.get(str(one), one.digest or "")) for one in base_references(definition))
    document = spdx(built.digest, looked.key, bases, declared_packages(definition))
    await client.attach(target, built, SPDX_JSON, document)
    keep_bill(settings.cache, built.digest, document)
    return Ensured(looked.key, target.at(built.digest), True, choice.builder.value, NOTHING_SENT, notes)


def _found(looked: Lookup, notes: tuple[str, ...]) -> Ensured:
    assert looked.found is not None  # noqa: S101 - asked for by both callers
    return Ensured(looked.key, looked.found, False, notes=(*notes, *looked.notes))


async def _assemble(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    workspace: RegistryPlace,
    looked: Lookup,
    base_pins: dict[str, str],
    settings: BuildSettings,
    progress: Progress,
) -> Ensured:
    assert isinstance(definition.base, ImageReference)  # noqa: S101 - choose() gives our own builder nothing else
    reference = definition.base
    pinned = reference.at(base_pins[str(reference)]) if str(reference) in base_pins else reference
    cache = settings.cache
    # By its digest the registry was asked for it a moment ago; another's own words are believed as they are.
    base = await fetch_image(client, pinned, definition.platform, cache if str(reference) in base_pins else None)
    if definition.user_managed:
        wheels: tuple[Wheel, ...] = ()
        image = environment_image(base, (), looked.key)
    else:
        path = definition.interpreter_path if definition.interpreter_path.startswith("/") else None
        wanted = python_version(definition)
        target = await find_target(client, base, definition.platform, wanted, path, cache, progress)
        progress(f"choosing wheels for Python {target.python} on {target.platform}")
        wheels = await resolve(definition.pip, definition.pip_options, target, cache, progress, settings.refresh)
        progress(f"packing {len(wheels)} packages")
        async with saying(progress, lambda: "still packing"):
            layers = await environment_layers(base, wheels, target, cache)
        image = environment_image(base, layers, looked.key)
    tagged = workspace.image(looked.key)
    async with saying(progress, lambda: "still pushing"):
        pushed = await push_blobs(client, image, tagged, cache, progress)
    # Another machine may have been quicker: what is there under the key stays, as others may run it already.
    theirs = None if settings.refresh else await client.head(tagged)
    if theirs is not None and theirs.digest != image.digest:
        progress(f"{looked.key[:12]} was pushed by another machine meanwhile; taking that one")
        return Ensured(looked.key, tagged.at(theirs.digest), False, notes=looked.notes)
    await client.push_manifest(ImageReference(tagged.registry, tagged.repository, None, image.digest), image.manifest)
    document = spdx(image.digest, looked.key, (base.reference,), await asyncio.to_thread(wheel_packages, wheels))
    await client.attach(tagged, image.manifest.descriptor(), SPDX_JSON, document)
    keep_bill(cache, image.digest, document)
    # The tag comes last: who finds the key finds everything.
    await client.push_manifest(tagged, image.manifest)
    progress(f"pushed {pushed.sent_bytes / 1e6:.1f} MB in {pushed.sent_blobs} blobs; {pushed.kept_blobs} were there")
    return Ensured(looked.key, tagged.at(image.digest), True, Builder.ASSEMBLE.value, pushed, looked.notes)
