"""What was found the last time: the next step is begun by that while the registry is asked whether it is still so."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.ahead import ahead
from aks_inference_runtime.images.build.kept import write_whole
from aks_inference_runtime.images.environment.containerfile import with_default_base
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.lookup import Lookup, RegistryPlace, bases_of, find, pins
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient


async def look(
    client: RegistryClient,
    definition: EnvironmentDefinition,
    workspace: RegistryPlace,
    shared: Sequence[RegistryPlace],
    cache: Path,
) -> tuple[Lookup, dict[str, str], tuple[str, ...]]:
    """The look-up, the digests of the base images that have none, and notes on those that could not be asked for.
    Raises the workspace registry's error."""
    references = bases_of(definition, pinned=False)
    last = _read(cache, references)
    if last and len(last) == len(references):
        async with ahead(find(client, definition, workspace, shared, last)) as early:
            found, notes = await pins(client, definition)
            if found == last:
                looked = await early
                _keep_found(cache, looked, workspace, shared)
                return looked, found, notes
    else:
        found, notes = await pins(client, definition)
    for reference in references:
        if (digest := found.get(str(reference))) is not None:
            write_whole(_path(cache, reference), digest.encode())
    looked = await find(client, definition, workspace, shared, found)
    _keep_found(cache, looked, workspace, shared)
    return looked, found, notes


def last_found(
    definition: EnvironmentDefinition, workspace: RegistryPlace, shared: Sequence[RegistryPlace], cache: Path
) -> ImageReference | None:
    """The image that was found for a definition last, with its digest; None where none was. Asks no registry."""
    definition = with_default_base(definition)
    if not isinstance(definition.base, ImageReference):
        return None  # to read what else an image is made from costs more than to ask
    references = bases_of(definition, pinned=False)
    last = _read(cache, references)
    if len(last) < len(references):
        return None
    path = _path_found(cache, image_key(definition, last), workspace, shared)
    with contextlib.suppress(OSError, UnicodeDecodeError, InvalidInput):
        found = ImageReference.parse(path.read_text("ascii"))
        return found if found.digest is not None else None
    return None


def _keep_found(cache: Path, looked: Lookup, workspace: RegistryPlace, shared: Sequence[RegistryPlace]) -> None:
    if looked.found is None:
        return
    path, content = _path_found(cache, looked.key, workspace, shared), str(looked.found).encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    write_whole(path, content)


def _path_found(cache: Path, key: str, workspace: RegistryPlace, shared: Sequence[RegistryPlace]) -> Path:
    places = [key, *(f"{one.registry}/{one.repository}" for one in (workspace, *shared))]
    return cache / "found" / hashlib.sha256("\n".join(places).encode()).hexdigest()


def _read(cache: Path, references: Sequence[ImageReference]) -> dict[str, str]:
    found = {}
    for reference in references:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[str(reference)] = _path(cache, reference).read_text("ascii")
    return found


def _path(cache: Path, reference: ImageReference) -> Path:
    return cache / "bases" / f"{hashlib.sha256(str(reference).encode()).hexdigest()}.digest"
