"""An OCI registry as a store: a version is an image whose layers are the files, so that a pod can mount it.

`<repository>/<name>:v<version>`; each file is one uncompressed tar layer of its own, the same bytes for the same file,
which the registry keeps once. The record stands in the image's configuration as a label. A registry has no compare-and-
swap: the number that two machines give to two contents at the same moment is settled by reading it back.
"""

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Collection
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from aks_inference_runtime.api.content import file_digest
from aks_inference_runtime.api.errors import InvalidInput, NotFound, OperationFailed
from aks_inference_runtime.api.status import ModelRecord
from aks_inference_runtime.images.once import build_lock, cache_directory
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import CredentialStore, RegistryClient, TransportOptions
from aks_inference_runtime.images.registry.manifest import (
    OCI_CONFIG,
    Descriptor,
    Manifest,
    image_manifest,
    json_bytes,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource
from aks_inference_runtime.models.copying import CheckedFile, disk_errors
from aks_inference_runtime.models.errors import ContentMismatch
from aks_inference_runtime.models.progress import Progress, Reached, silent
from aks_inference_runtime.models.registry_identity import with_identity
from aks_inference_runtime.models.stores.file_layer import LAYER, FileLayer, describe_layer, push_files
from aks_inference_runtime.models.stores.store import Upload, amended, refuse_used, same_version

LABEL = "dev.aks-inference.model"
CONTENT = "dev.aks-inference.content"
"""Annotation of a layer: the digest of the file in it."""
USER = "application/vnd.aks-inference.model.user.v1+json"
FILES = "files-v"
"""Tag of the image of a version's files alone, before its number."""
TOMBSTONE = "dev.aks-inference.deleted"
PARALLEL = 4
MAX_CONFIG = 4 * 1024 * 1024
_PLAIN = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_VERSION = re.compile(r"v([1-9]\d*)")


class OciStore:
    """Safe for several processes of a machine; see the module about several machines."""

    def __init__(
        self,
        registry: str,
        repository: str,
        credentials: CredentialStore | None = None,
        options: TransportOptions | None = None,
    ) -> None:
        self._registry, self._repository = registry, repository
        self._credentials, self._options = credentials, options

    @property
    def address(self) -> str:
        """`oci://registry/repository`."""
        return f"oci://{self._registry}/{self._repository}"

    async def names(self) -> list[str]:
        """See ModelStore. Raises InvalidInput where the registry does not list its repositories."""
        async with self._client() as client:
            repositories = await client.repositories(self._registry)
            if repositories is None:
                raise InvalidInput(f"{self.address}: this registry lists no repositories; name the model")
            inside = [one for one in repositories if one.startswith(f"{self._repository}/")]
            found = [await self._all(client, one) for one in inside]
        return sorted({record.name for records in found for record in records})

    async def versions(self, name: str) -> list[ModelRecord]:
        """See ModelStore."""
        async with self._client() as client:
            return await self._all(client, self._place(name))

    async def present(self, name: str, digests: Collection[str]) -> set[str]:
        """See ModelStore. What earlier versions of the name hold."""
        return {digest for record in await self.versions(name) for digest in record.files.values()} & set(digests)

    async def put(self, upload: Upload, progress: Progress = silent) -> ModelRecord:
        """See ModelStore."""
        place = self._place(upload.name)
        lock = hashlib.sha256(f"{self.address} {upload.name}".encode()).hexdigest()[:32]
        async with build_lock(cache_directory() / "locks", f"model-{lock}"), self._client() as client:
            records = await self._all(client, place)
            found = same_version(records, upload)
            if found is not None:
                newer = amended(found, upload.facts)
                if newer != found:
                    old = await self._manifest(client, place, found.version)
                    await self._write(client, place, newer, old.parts("layers"))
                return newer
            layers = await self._send(client, place, upload, progress)
            while True:
                tags = await client.tags(self._registry, place)
                numbers = [int(match[1]) for tag in tags if (match := _VERSION.fullmatch(tag))]
                created = datetime.now(UTC).isoformat(timespec="seconds")
                record = upload.record(max(numbers, default=0) + 1, created)
                written = await self._write(client, place, record, layers)
                now = await client.head(self._reference(place, record.version))
                if now is not None and now.digest == written:
                    return record

    async def fetch(self, record: ModelRecord, target: Path, progress: Progress = silent) -> None:
        """See ModelStore."""
        place = self._place(record.name)
        room, reached = asyncio.Semaphore(PARALLEL), Reached(record.size_bytes, progress)
        async with self._client() as client:
            manifest = await self._manifest(client, place, record.version)
            layers = {layer.annotations.get(CONTENT): layer for layer in manifest.parts("layers")}

            async def one(name: str, digest: str) -> None:
                size = record.file_sizes[name]
                if digest not in layers:
                    raise ContentMismatch(f"{self.address}: {record.model_id} has no layer with {name}")
                async with room:
                    await self._file(
                        client, place, layers[digest], target / name, digest, size, partial(reached.tell, name)
                    )
                reached.tell(name, size)

            try:
                async with asyncio.TaskGroup() as group:
                    for name, digest in record.files.items():
                        group.create_task(one(name, digest))
            except BaseExceptionGroup as errors:
                # One reason is enough: the others mostly follow from it.
                raise errors.exceptions[0] from None

    async def delete(self, name: str, version: int) -> None:
        """See ModelStore. The registry's own clean-up frees the space."""
        place = self._place(name)
        async with self._client() as client:
            manifest = await self._manifest(client, place, version)
            refuse_used(name, version, await self._users(client, place, version))
            # The tag stays, on an empty image: its number was given.
            await self._tag(client, place, version, {TOMBSTONE: "true"}, ())
            files = await client.manifest(ImageReference(self._registry, place, f"{FILES}{version}"))
            if files is not None:
                # The index, then what it names.
                for one in (files.descriptor(), *files.parts("manifests")):
                    await client.delete_manifest(self._reference(place, version).at(one.digest))
            if not await client.delete_manifest(self._reference(place, version).at(manifest.digest)):
                raise OperationFailed(
                    f"{self.address}: {name}:{version} is deleted, but the registry keeps its layers: it removes no "
                    f"manifests; allow it there to free the space"
                )

    async def mountable(self, record: ModelRecord) -> ImageReference:
        """An image of the version's files alone, with its digest: what pods mount. Made where it is not there yet.

        It says nothing else of the model: facts that change leave it as it is. Raises as `fetch`.
        """
        place = self._place(record.name)
        async with self._client() as client:
            manifest = await self._manifest(client, place, record.version)
            layers = manifest.parts("layers")
            if {layer.annotations.get(CONTENT) for layer in layers} != set(record.files.values()):
                raise ContentMismatch(f"{self.address}: {record.model_id} is not made of the files of its record")
            target = ImageReference(self._registry, place, f"{FILES}{record.version}")
            return target.at(await push_files(client, target, layers))

    async def users(self, name: str, version: int) -> list[str]:
        """See ModelStore."""
        place = self._place(name)
        async with self._client() as client:
            await self._manifest(client, place, version)
            return await self._users(client, place, version)

    async def use(self, name: str, version: int, by: str) -> None:
        """See ModelStore."""
        place = self._place(name)
        async with self._client() as client:
            await self._manifest(client, place, version)
            reference, content, manifest = self._mark(place, version, by)
            await client.push_blob(reference, manifest.part("config"), UploadSource.of(content))
            await client.push_manifest(reference, manifest)

    async def release(self, name: str, version: int, by: str) -> None:
        """See ModelStore."""
        reference, _, manifest = self._mark(self._place(name), version, by)
        async with self._client() as client:
            await client.delete_manifest(reference.at(manifest.digest))

    # --- inside

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[RegistryClient]:
        logins = self._credentials
        if logins is None:
            logins = await asyncio.to_thread(CredentialStore.from_docker)
        credentials = await with_identity(logins, self._registry)
        async with RegistryClient(credentials, self._options) as client:
            yield client

    def _place(self, name: str) -> str:
        """The repository of a model. Names that a repository cannot have get one by their hash."""
        if _PLAIN.fullmatch(name) and len(name) <= 128:
            return f"{self._repository}/{name}"
        return f"{self._repository}/x-{hashlib.sha256(name.encode()).hexdigest()[:32]}"

    def _reference(self, place: str, version: int) -> ImageReference:
        return ImageReference(self._registry, place, f"v{version}")

    async def _all(self, client: RegistryClient, place: str) -> list[ModelRecord]:
        tags = await client.tags(self._registry, place)
        numbers = sorted(int(match[1]) for tag in tags if (match := _VERSION.fullmatch(tag)))
        found = await asyncio.gather(*(self._record(client, place, number) for number in numbers))
        return [record for record in found if record is not None]

    async def _record(self, client: RegistryClient, place: str, version: int) -> ModelRecord | None:
        reference = self._reference(place, version)
        manifest = await client.manifest(reference)
        if manifest is None:
            return None
        raw = await client.read_blob(reference, manifest.part("config"), MAX_CONFIG)
        try:
            labels = json.loads(raw).get("config", {}).get("Labels", {})
            return ModelRecord.model_validate_json(labels[LABEL]) if TOMBSTONE not in labels else None
        except (ValueError, KeyError, AttributeError, ValidationError):
            raise InvalidInput(f"oci://{reference}: is no model of this package; use another repository") from None

    async def _manifest(self, client: RegistryClient, place: str, version: int) -> Manifest:
        manifest = await client.manifest(self._reference(place, version))
        if manifest is None or not manifest.parts("layers"):
            present = ", ".join(str(r.version) for r in await self._all(client, place)) or "none"
            name = place.rpartition("/")[2]
            raise NotFound(f"no model {name}:{version} in {self.address} (versions: {present})")
        return manifest

    async def _send(
        self, client: RegistryClient, place: str, upload: Upload, progress: Progress
    ) -> tuple[Descriptor, ...]:
        """The layers, sent in parallel; contents that the repository has are not sent again."""
        room = asyncio.Semaphore(PARALLEL)
        reached = Reached(sum(file.size for file in upload.files.values()), progress)
        target = ImageReference(self._registry, place, "v1")

        async def one(name: str) -> Descriptor:
            file = upload.files[name]
            async with room:
                layer = FileLayer(name, file.path, file.size)
                found = await asyncio.to_thread(describe_layer, layer)
                if found.content != file.digest:
                    raise ContentMismatch(f"{file.path}: has changed since it was looked at; apply again when it rests")
                descriptor = Descriptor(LAYER, found.digest, layer.length, {CONTENT: file.digest})

                def read(offset: int, length: int) -> bytes:
                    reached.tell(name, min(offset, file.size))
                    return layer.read(offset, length)

                await client.push_blob(target, descriptor, UploadSource(read))
            reached.tell(name, file.size)
            return descriptor

        return tuple(await asyncio.gather(*(one(name) for name in sorted(upload.files))))

    async def _write(
        self, client: RegistryClient, place: str, record: ModelRecord, layers: tuple[Descriptor, ...]
    ) -> str:
        text = json.dumps(record.to_wire(), sort_keys=True, ensure_ascii=False)
        return await self._tag(client, place, record.version, {LABEL: text}, layers)

    async def _tag(
        self,
        client: RegistryClient,
        place: str,
        version: int,
        labels: dict[str, str],
        layers: tuple[Descriptor, ...],
    ) -> str:
        reference = self._reference(place, version)
        config = json_bytes(
            {
                # Files have no platform, but who mounts an image asks for its own.
                "architecture": "amd64",
                "os": "linux",
                "config": {"Labels": labels},
                # Uncompressed layers: the digest of the content is that of the layer.
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
            }
        )
        described = Descriptor(OCI_CONFIG, sha256(config), len(config))
        await client.push_blob(reference, described, UploadSource.of(config))
        manifest = image_manifest(described, layers)
        await client.push_manifest(reference, manifest)
        return manifest.digest

    async def _file(
        self,
        client: RegistryClient,
        place: str,
        layer: Descriptor,
        path: Path,
        digest: str,
        size: int,
        reached: Callable[[int], None],
    ) -> None:
        if await asyncio.to_thread(_has, path, digest):
            return
        begin = layer.size - FileLayer.padded(size)
        if begin <= 0 or begin % 512:
            raise ContentMismatch(f"{path.name}: its layer has not the length of its file")
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with CheckedFile(path, digest) as file:
                at = 0
                # The tar's header stands before the file, blanks behind it: no disk has to hold the layer as well.
                async for piece in client.stream_blob(ImageReference(self._registry, place, "v1"), layer):
                    if inside := piece[max(begin - at, 0) : max(begin + size - at, 0)]:
                        await asyncio.to_thread(file.write, inside)
                    at += len(piece)
                    reached(min(max(at - begin, 0), size))
                await asyncio.to_thread(file.finish, f"{self.address}: {layer.digest} holds another {path.name}")

    async def _users(self, client: RegistryClient, place: str, version: int) -> list[str]:
        tags = await client.tags(self._registry, place)
        marks = [tag for tag in tags if tag.startswith(f"u{version}-")]
        found = []
        for tag in marks:
            reference = ImageReference(self._registry, place, tag)
            manifest = await client.manifest(reference)
            if manifest is not None:
                raw = json.loads(await client.read_blob(reference, manifest.part("config"), MAX_CONFIG))
                found.append(str(raw["by"]))
        return sorted(found)

    def _mark(self, place: str, version: int, by: str) -> tuple[ImageReference, bytes, Manifest]:
        """Where the mark of a user is, its content, and its manifest. A tag of its own: it outlives changed facts."""
        content = json_bytes({"by": by, "version": version})
        manifest = image_manifest(Descriptor(USER, sha256(content), len(content)), ())
        return ImageReference(self._registry, place, f"u{version}-{sha256(content)[7:39]}"), content, manifest


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and file_digest(path) == digest
