"""Looking an image up: the workspace's registry, then the shared ones in order; nothing is built here."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.images.environment.containerfile import with_default_base
from aks_inference_runtime.images.environment.key import base_references, image_key
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.errors import AccessDenied
from aks_inference_runtime.images.reference import ImageReference, repository_of
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor

OURS = "aks-inference"
DEFAULT_REPOSITORY = f"{OURS}/environments"
BASIC_NOTE = (
    "the registry is of the Basic tier, the slowest to pull from: large images start later on new nodes; "
    "Standard or Premium shortens it"
)


@dataclass(frozen=True)
class RegistryPlace:
    """A registry and the repository in it that holds environments, tagged by their keys."""

    registry: str
    repository: str = DEFAULT_REPOSITORY
    tier: str | None = None
    """`Basic`, `Standard` or `Premium` where it is known (Azure Container Registry)."""

    @staticmethod
    def parse(text: str, tier: str | None = None) -> "RegistryPlace":
        """Reads `host` or `host/repository`. Raises InvalidInput."""
        return RegistryPlace(*repository_of(text, DEFAULT_REPOSITORY), tier)

    def beside(self, name: str) -> str:
        """The repository of other images: `aks-inference/<name>`, or `<repository>-<name>` where one was named.

        Many registries let one write only below names of one's own.
        """
        return f"{OURS}/{name}" if self.repository == DEFAULT_REPOSITORY else f"{self.repository}-{name}"

    def image(self, tag: str) -> ImageReference:
        """The image under a tag."""
        return ImageReference(self.registry, self.repository, tag)


@dataclass(frozen=True)
class Lookup:
    """What is known about an environment's image before anything is built."""

    key: str
    package_count: int
    found: ImageReference | None = None
    """The image, with its digest."""
    descriptor: Descriptor | None = None
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """For people: where it was found, or what will be built."""
        if self.found is not None:
            return f"image found in {self.found.registry}"
        plural = "" if self.package_count == 1 else "s"
        return f"will build: about {self.package_count} package{plural}"


@dataclass(frozen=True)
class Bases:
    """What registries say of base images."""

    pins: dict[str, str]
    """Digests, by reference."""
    notes: tuple[str, ...] = ()
    """On those that could not be asked for."""
    closed: tuple[tuple[ImageReference, AccessDenied], ...] = ()
    """Those that we may not read, with their registry's words."""


async def ask_bases(client: RegistryClient, references: Sequence[ImageReference]) -> Bases:
    """Asks for each, all at once."""
    answers = await asyncio.gather(*(_head(client, one) for one in references))
    pins, notes, closed = {}, [], []
    for reference, answer in zip(references, answers, strict=True):
        if isinstance(answer, Descriptor):
            pins[str(reference)] = answer.digest
            continue
        why = answer or "it is not there"
        notes.append(f"base image {reference}: counts by its tag, its digest is not known ({why})")
        if isinstance(answer, AccessDenied):
            closed.append((reference, answer))
    return Bases(pins, tuple(notes), tuple(closed))


async def pins(client: RegistryClient, definition: EnvironmentDefinition) -> tuple[dict[str, str], tuple[str, ...]]:
    """Digests of the base images that have none, by reference, and notes on those that could not be asked for."""
    found = await ask_bases(client, bases_of(definition, pinned=False))
    return found.pins, found.notes


def bases_of(definition: EnvironmentDefinition, *, pinned: bool) -> list[ImageReference]:
    """The base images that are named by their digests, or those that are not."""
    return [one for one in base_references(with_default_base(definition)) if (one.digest is not None) is pinned]


async def find(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    workspace: RegistryPlace,
    shared: Sequence[RegistryPlace] = (),
    base_pins: dict[str, str] | None = None,
) -> Lookup:
    """Looks the image of a definition up. Raises the registry's error for the workspace's own registry; a shared one
    that does not answer is only noted."""
    definition = with_default_base(definition)
    notes: tuple[str, ...] = ()
    if base_pins is None:
        base_pins, notes = await pins(client, definition)
    result = Lookup(image_key(definition, base_pins), definition.package_count, notes=notes)
    for place in (workspace, *shared):
        reference = place.image(result.key)
        try:
            descriptor = await client.head(reference)
        except AksInferenceError as error:
            if place is workspace:
                raise
            result = replace(result, notes=(*result.notes, f"shared registry {place.registry}: skipped ({error})"))
            continue
        if descriptor is not None:
            note = (BASIC_NOTE,) if (place.tier or "").lower() == "basic" else ()
            found = reference.at(descriptor.digest)
            return replace(result, found=found, descriptor=descriptor, notes=(*result.notes, *note))
    return result


async def find_all(
    client: RegistryClient,
    definitions: Sequence[EnvironmentDefinition],
    workspace: RegistryPlace,
    shared: Sequence[RegistryPlace] = (),
) -> tuple[Lookup, ...]:
    """Looks many up: each base and each key is asked for once. In the order of the definitions."""
    filled = [with_default_base(one) for one in definitions]
    bases = {reference for one in filled for reference in base_references(one) if reference.digest is None}
    representative = [EnvironmentDefinition(base=reference) for reference in sorted(bases, key=str)]
    got = await asyncio.gather(*(pins(client, one) for one in representative))
    known = {key: digest for digests, _ in got for key, digest in digests.items()}
    unknown = tuple(note for _, notes in got for note in notes)
    by_key = {image_key(one, known): one for one in filled}
    looked = await asyncio.gather(*(find(client, one, workspace, shared, known) for one in by_key.values()))
    by_result = {one.key: replace(one, notes=(*unknown, *one.notes)) for one in looked}
    return tuple(by_result[image_key(one, known)] for one in filled)


async def _head(client: RegistryClient, reference: ImageReference) -> Descriptor | AksInferenceError | None:
    try:
        return await client.head(reference)
    except AksInferenceError as error:
        return error
