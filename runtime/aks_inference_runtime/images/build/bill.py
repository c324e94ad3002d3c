"""The bill of materials of a service's image: made and sent beside the image, attached before that has its tag."""

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable
from pathlib import Path

from aks_inference_runtime.api.errors import AksInferenceError, OperationFailed
from aks_inference_runtime.images.build.application import Packed, PackedFile
from aks_inference_runtime.images.build.begun import Begun
from aks_inference_runtime.images.build.kept import write_whole
from aks_inference_runtime.images.build.sbom import SPDX_JSON, Below, File, below_application, service_spdx
from aks_inference_runtime.images.errors import RegistryError
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import BLOB_UNKNOWN, RegistryClient
from aks_inference_runtime.images.registry.manifest import Descriptor, Manifest, sha256
from aks_inference_runtime.images.registry.transport import SMALL_BYTES
from aks_inference_runtime.images.registry.upload import UploadSource

MAX_BILL = 16 * 1024 * 1024
"""Of an environment: thousands of packages. What is larger is none of ours."""


async def send_bill(
    client: RegistryClient,
    environment: ImageReference,
    packed: Packed,
    target: ImageReference,
    digest: str,
    cache: Path,
    begun: Begun,
) -> Descriptor:
    """The document of the image with this digest, as a blob of its repository. Raises OperationFailed for files that
    have changed meanwhile."""
    below = await environment_bill(client, environment, cache)

    def make() -> bytes:
        return service_spdx(digest, environment, _files(packed), below)

    content = make() if packed.size <= SMALL_BYTES else await asyncio.to_thread(make)
    blob, source = Descriptor(SPDX_JSON, sha256(content), len(content)), UploadSource.of(content)
    if blob.size <= SMALL_BYTES:
        await begun.push(blob, source)
    else:
        await client.push_blob(target, blob, source)
    return blob


async def attach_bill(
    client: RegistryClient,
    target: ImageReference,
    image: Descriptor,
    bill: Descriptor,
    listed: Awaitable[Manifest | None] | None,
) -> bool:
    """Attaches what `send_bill` has sent to an image. Gives whether it had to be listed (see `Record`)."""
    try:
        return (await client.attach_blob(target, image, bill, listed)).listed
    except RegistryError as error:
        if BLOB_UNKNOWN not in str(error):
            raise
    # Somebody removed the empty blob beside an image that is still listed.
    await client.push_empty(target)
    return (await client.attach_blob(target, image, bill)).listed


async def environment_bill(client: RegistryClient, environment: ImageReference, cache: Path) -> Below | None:
    """What is attached to an environment's image, kept on disk; None where there is nothing, or none that is ours."""
    path = _path(cache, environment.digest or "")
    with contextlib.suppress(OSError, ValueError):
        return below_application(path.read_bytes())
    with contextlib.suppress(AksInferenceError, ValueError):
        for listed in await client.referrers(environment, SPDX_JSON):
            manifest = await client.manifest(environment.at(listed.digest))
            if manifest is not None and (layers := manifest.parts("layers")):
                content = await client.read_blob(environment, layers[0], MAX_BILL)
                bill = below_application(content)
                await asyncio.to_thread(write_whole, path, content)
                return bill
    return None


def keep_bill(cache: Path, digest: str, content: bytes) -> None:
    """The document of an environment's image with this digest."""
    write_whole(_path(cache, digest), content)


def _path(cache: Path, digest: str) -> Path:
    return cache / "bills" / f"{digest.replace(':', '-')}.json"


def _files(packed: Packed) -> list[File]:
    root = packed.root.lstrip("/")
    return [_file(f"{root}/{name}", file) for name, file in sorted(packed.files.items())]


def _file(name: str, file: PackedFile) -> File:
    newer, older = hashlib.sha256(), hashlib.sha1(usedforsecurity=False)
    with file.path.open("rb") as opened:
        while piece := opened.read(SMALL_BYTES):
            newer.update(piece)
            older.update(piece)
    if f"sha256:{newer.hexdigest()}" != file.digest:
        raise OperationFailed(f"{file.path}: has changed since it was looked at; apply again when it rests")
    return File(name, newer.hexdigest(), older.hexdigest())
