"""What base images were the last time: the image is looked up by that while the registry is asked whether it is so."""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from aks_inference_runtime.images.ahead import ahead
from aks_inference_runtime.images.build.kept import write_whole
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
                return await early, found, notes
    else:
        found, notes = await pins(client, definition)
    for reference in references:
        if (digest := found.get(str(reference))) is not None:
            write_whole(_path(cache, reference), digest.encode())
    return await find(client, definition, workspace, shared, found), found, notes


def _read(cache: Path, references: Sequence[ImageReference]) -> dict[str, str]:
    found = {}
    for reference in references:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            found[str(reference)] = _path(cache, reference).read_text("ascii")
    return found


def _path(cache: Path, reference: ImageReference) -> Path:
    return cache / "bases" / f"{hashlib.sha256(str(reference).encode()).hexdigest()}.digest"
