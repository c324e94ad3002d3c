"""The distribution API as far as images need it: manifests, blobs, tags by name, referrers."""

import asyncio
import contextlib
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self
from urllib.parse import urlencode, urljoin

from aks_inference_runtime.images.errors import AccessDenied, DigestMismatch, RegistryError, RegistryUnavailable
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.backoff import RETRIED_STATUS
from aks_inference_runtime.images.registry.credentials import CredentialStore
from aks_inference_runtime.images.registry.manifest import (
    EMPTY_JSON,
    MANIFEST_TYPES,
    OCI_INDEX,
    Attached,
    Descriptor,
    Manifest,
    artifact_manifest,
    index_manifest,
    sha256,
)
from aks_inference_runtime.images.registry.transport import NETWORK_ERRORS, Transport, TransportOptions, refusal
from aks_inference_runtime.images.registry.upload import Sent, UploadSource, open_upload, upload

_PIECE = 256 * 1024


@dataclass(frozen=True)
class Place:
    """A repository in a registry, and what is asked of it."""

    host: str
    repository: str
    actions: str = "pull"

    @property
    def scope(self) -> str:
        """The scope of a token (distribution specification, "Token authentication")."""
        return f"repository:{self.repository}:{self.actions}"


class RegistryClient:
    """Talks to registries; an async context manager. Safe for many tasks of one loop."""

    def __init__(self, credentials: CredentialStore | None = None, options: TransportOptions | None = None) -> None:
        self._transport = Transport(credentials or CredentialStore(), options or TransportOptions())

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    async def head(self, reference: ImageReference) -> Descriptor | None:
        """Type, digest and size of a manifest; None when it is not there."""
        place = _pull(reference)
        answer = await self._transport.request(
            "HEAD",
            self._manifest_url(reference),
            host=place.host,
            scope=place.scope,
            headers=_accept(),
            expected=_FOUND,
        )
        if answer.status == 404:
            return None
        digest, length = answer.headers.get("Docker-Content-Digest"), answer.headers.get("Content-Length")
        if digest and length:
            return Descriptor(answer.headers.get("Content-Type", ""), digest, int(length))
        # Both headers are only recommended: without them the manifest itself tells.
        manifest = await self.manifest(reference)
        return manifest.descriptor() if manifest else None

    async def manifest(self, reference: ImageReference) -> Manifest | None:
        """A manifest, its digest checked; None when it is not there."""
        place = _pull(reference)
        answer = await self._transport.request(
            "GET", self._manifest_url(reference), host=place.host, scope=place.scope, headers=_accept(), expected=_FOUND
        )
        if answer.status == 404:
            return None
        kind = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        manifest = Manifest(kind, answer.body)
        kind = str(manifest.data.get("mediaType") or kind)
        return Manifest(kind, answer.body).check(reference.digest)

    async def has_blob(self, reference: ImageReference, digest: str) -> bool:
        """Whether a repository holds a blob."""
        place = _pull(reference)
        answer = await self._transport.request(
            "HEAD", self._url(place, "blobs", digest), host=place.host, scope=place.scope, expected=_FOUND
        )
        return answer.status == 200

    async def read_blob(self, reference: ImageReference, blob: Descriptor, limit: int) -> bytes:
        """A small blob (a config), whole and checked. Raises RegistryError beyond `limit` bytes."""
        if blob.size > limit:
            raise RegistryError(f"{reference}: {blob.digest} has {blob.size} bytes, more than {limit}")
        return b"".join([part async for part in self.stream_blob(reference, blob)])

    async def stream_blob(self, reference: ImageReference, blob: Descriptor) -> AsyncIterator[bytes]:
        """A blob in pieces; continued where it broke off. Raises DigestMismatch at the end, never hands out more bytes
        than the descriptor says."""
        place = _pull(reference)
        digest, got, failures = hashlib.sha256(), 0, 0
        while got < blob.size:
            before = got
            async for piece in self._from(place, blob, got):
                if isinstance(piece, str):
                    failures = failures + 1 if got == before else 1
                    await self._transport.pause(failures, None, piece)
                    break
                got += len(piece)
                if got > blob.size:
                    raise DigestMismatch(f"{reference}: {blob.digest} is longer than {blob.size} bytes")
                digest.update(piece)
                yield piece
        if f"sha256:{digest.hexdigest()}" != blob.digest:
            raise DigestMismatch(f"{reference}: asked for {blob.digest}, got sha256:{digest.hexdigest()}")

    async def _from(self, place: Place, blob: Descriptor, offset: int) -> AsyncIterator[bytes | str]:
        """Pieces from an offset; a text at the end says why it broke off."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        url = self._url(place, "blobs", blob.digest)
        got = 0
        try:
            async with self._transport.once(
                "GET", url, host=place.host, scope=place.scope, headers=headers
            ) as response:
                if response.status in RETRIED_STATUS:
                    yield str(await refusal(response, "GET", place.host))
                    return
                if response.status not in {200, 206}:
                    raise await refusal(response, "GET", place.host)
                skip = offset if response.status == 200 else 0
                async for piece in response.content.iter_chunked(_PIECE):
                    dropped = min(skip, len(piece))
                    skip -= dropped
                    if len(piece) > dropped:
                        got += len(piece) - dropped
                        yield piece[dropped:]
        except NETWORK_ERRORS as error:
            yield f"{place.host}: {blob.digest} broke off ({type(error).__name__})"
            return
        if offset + got < blob.size:
            yield f"{place.host}: {blob.digest} ended early"

    async def download(self, reference: ImageReference, blob: Descriptor, path: Path) -> None:
        """A blob into a file, which appears only whole."""
        part = path.with_name(f"{path.name}.{id(blob):x}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                async for piece in self.stream_blob(reference, blob):
                    await asyncio.to_thread(_write, file, piece)
                file.truncate(blob.size)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    async def mount(self, target: ImageReference, digest: str, repository: str) -> bool:
        """Takes a blob over from another repository of the same registry; False where that does not work."""
        if repository == target.repository:
            return False
        place = _push(target)
        url = self._uploads(place) + "?" + urlencode({"mount": digest, "from": repository})
        scope = f"{place.scope} repository:{repository}:pull"
        try:
            answer = await self._transport.request(
                "POST", url, host=place.host, scope=scope, expected=frozenset({201, 202}), body=b""
            )
        except AccessDenied:
            return False  # no right to pull there: the blob is sent
        if answer.status == 202 and "Location" in answer.headers:
            # The registry opened an upload instead; a session that stays open would keep its place there.
            await self._cancel(urljoin(url, answer.headers["Location"]), place, scope)
        return answer.status == 201

    async def _cancel(self, url: str, place: Place, scope: str) -> None:
        with contextlib.suppress(RegistryError, RegistryUnavailable):
            await self._transport.request(
                "DELETE", url, host=place.host, scope=scope, expected=frozenset({204, 202, 404, 405}), retried=False
            )

    async def push_blob(
        self,
        target: ImageReference,
        blob: Descriptor,
        source: UploadSource,
        *,
        ask: bool = True,
        opened: str | None = None,
    ) -> Sent:
        """Sends a blob unless the repository has it; without `ask` it is sent in any case. `opened`: an upload that
        `open_upload` began."""
        if ask and await self.has_blob(target, blob.digest):
            return Sent(0, "there")
        place = _push(target)
        return await upload(self._transport, place.host, place.scope, self._uploads(place), blob, source, opened)

    async def open_upload(self, target: ImageReference) -> str:
        """Begins an upload to a repository before it is known of what: one way less when it is."""
        place = _push(target)
        return await open_upload(self._transport, place.host, place.scope, self._uploads(place))

    async def cancel_upload(self, target: ImageReference, opened: str) -> None:
        """Gives up an upload that was begun; a registry that does not take that back forgets it by itself."""
        place = _push(target)
        await self._cancel(opened, place, place.scope)

    def _uploads(self, place: Place) -> str:
        return f"{self._transport.origin(place.host)}/v2/{place.repository}/blobs/uploads/"

    async def push_manifest(self, target: ImageReference, manifest: Manifest) -> Descriptor:
        """Puts a manifest or an index under the tag or digest of the reference."""
        answer = await self._put_patiently(target, manifest)
        said = answer.get("Docker-Content-Digest")
        if said and said != manifest.digest:
            raise DigestMismatch(f"{target}: sent {manifest.digest}, the registry says {said}")
        return manifest.descriptor()

    async def _put_patiently(self, target: ImageReference, manifest: Manifest) -> dict[str, str]:
        """What the manifest names was sent before; a registry may see it a moment later, above all while another
        client sends the same."""
        failures = 0
        while True:
            try:
                return await self._put(target, manifest)
            except RegistryError as error:
                failures += 1
                if BLOB_UNKNOWN not in str(error) or failures == _UNKNOWN_TRIES:
                    raise
                await self._transport.pause(failures, None, str(error))

    async def _put(self, target: ImageReference, manifest: Manifest) -> dict[str, str]:
        place = _push(target)
        answer = await self._transport.request(
            "PUT",
            self._manifest_url(target),
            host=place.host,
            scope=place.scope,
            headers={"Content-Type": manifest.media_type},
            body=manifest.content,
            expected=frozenset({200, 201, 202}),
        )
        return dict(answer.headers)

    async def referrers(self, subject: ImageReference, artifact_type: str | None = None) -> tuple[Descriptor, ...]:
        """What is attached to a manifest; `subject` with its digest."""
        index = await self._referrers_index(subject)
        found = index.parts("manifests") if index else ()
        return tuple(one for one in found if artifact_type is None or one.artifact_type == artifact_type)

    async def _referrers_index(self, subject: ImageReference) -> Manifest | None:
        place = _pull(subject)
        url = self._url(place, "referrers", subject.digest or "")
        answer = await self._transport.request(
            "GET", url, host=place.host, scope=place.scope, expected=frozenset({200, 400, 404, 405})
        )
        if answer.status == 200 and answer.headers.get("Content-Type", "").startswith(OCI_INDEX):
            return Manifest(OCI_INDEX, answer.body)
        return await self.listed(subject)

    async def attach(self, subject: ImageReference, to: Descriptor, artifact_type: str, content: bytes) -> Descriptor:
        """Attaches a content to a manifest. Attaching the same twice changes nothing."""
        layer = Descriptor(artifact_type, sha256(content), len(content))
        await asyncio.gather(self.push_empty(subject), self.push_blob(subject, layer, UploadSource.of(content)))
        return (await self.attach_blob(subject, to, layer)).entry

    async def push_empty(self, target: ImageReference) -> Sent:
        """The configuration of what is attached."""
        empty = Descriptor("application/octet-stream", sha256(EMPTY_JSON), len(EMPTY_JSON))
        return await self.push_blob(target, empty, UploadSource.of(EMPTY_JSON))

    async def attach_blob(
        self,
        subject: ImageReference,
        to: Descriptor,
        layer: Descriptor,
        listed: Awaitable[Manifest | None] | None = None,
    ) -> Attached:
        """Attaches a blob, of the type that it names, which is there as the empty one is; for a registry without
        referrers by the tag that the specification names ("Referrers Tag Schema"). `listed`: the answer of `listed`,
        where it was asked for before."""
        artifact_type = layer.media_type
        artifact = artifact_manifest(artifact_type, layer, to)
        target = ImageReference(subject.registry, subject.repository, None, artifact.digest)
        headers = await self._put_patiently(target, artifact)
        found = artifact.descriptor()
        entry = Descriptor(found.media_type, found.digest, found.size, artifact_type=artifact_type)
        by_tag = not any(name.lower() == "oci-subject" for name in headers)
        if by_tag:
            below = subject.at(to.digest)
            present = await (listed or self.listed(below))
            others = present.parts("manifests") if present else ()
            if entry.digest not in {one.digest for one in others}:
                listing = index_manifest(tuple(one.to_json() for one in (*others, entry)))
                await self.push_manifest(_fallback_tag(below), listing)
        return Attached(entry, by_tag)

    async def listed(self, subject: ImageReference) -> Manifest | None:
        """What stands for the referrers of a manifest (`subject` with its digest) where the registry has none."""
        return await self.manifest(_fallback_tag(subject))

    async def tags(self, registry: str, repository: str) -> list[str]:
        """All tags of a repository, sorted; empty where it is not there."""
        found = await self._listed(Place(_api_host(registry), repository), f"/v2/{repository}/tags/list", "tags")
        return sorted(found or ())

    async def repositories(self, registry: str) -> list[str] | None:
        """All repositories of a registry, sorted; None where it lists none (Docker Hub, tokens without that right)."""
        place = Place(_api_host(registry), "catalog")
        try:
            found = await self._listed(place, "/v2/_catalog", "repositories", "registry:catalog:*")
        except AccessDenied:
            return None
        return None if found is None else sorted(found)

    async def _listed(self, place: Place, path: str, key: str, scope: str | None = None) -> list[str] | None:
        url: str | None = urljoin(self._transport.origin(place.host), f"{path}?n=1000")
        found: list[str] = []
        while url is not None:
            answer = await self._transport.request(
                "GET", url, host=place.host, scope=scope or place.scope, expected=frozenset({200, 404, 405})
            )
            if answer.status != 200:
                return None
            try:
                found += json.loads(answer.body).get(key) or ()
            except (ValueError, AttributeError):
                raise RegistryError(f"{place.host}: {path} answered something that is no list") from None
            following = re.match(r"<([^>]+)>", answer.headers.get("Link", ""))
            url = urljoin(url, following[1]) if following else None
        return found

    async def delete_manifest(self, reference: ImageReference) -> bool:
        """Removes a manifest by its digest, with all its tags; False where the registry removes nothing."""
        place = Place(reference.api_host, reference.repository, "delete,pull")
        answer = await self._transport.request(
            "DELETE",
            self._url(place, "manifests", reference.digest or ""),
            host=place.host,
            scope=place.scope,
            expected=frozenset({200, 202, 404, 405}),
        )
        return answer.status != 405

    def _url(self, place: Place, kind: str, name: str) -> str:
        return f"{self._transport.origin(place.host)}/v2/{place.repository}/{kind}/{name}"

    def _manifest_url(self, reference: ImageReference) -> str:
        return self._url(_pull(reference), "manifests", reference.target)


_FOUND = frozenset({200, 404})
BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
"""The code of an error: a manifest names a blob that the repository does not have."""
_UNKNOWN_TRIES = 4


def _accept() -> dict[str, str]:
    return {"Accept": ", ".join(MANIFEST_TYPES)}


def _api_host(registry: str) -> str:
    return ImageReference(registry, "x").api_host


def _pull(reference: ImageReference) -> Place:
    return Place(reference.api_host, reference.repository)


def _push(reference: ImageReference) -> Place:
    return Place(reference.api_host, reference.repository, "pull,push")


def _write(file: BinaryIO, piece: bytes) -> None:
    """Zeros are left out: where nothing was written is a hole, and a sparse file stays one."""
    if piece.count(0) < len(piece):
        file.write(piece)
    else:
        file.seek(len(piece), os.SEEK_CUR)


def _fallback_tag(subject: ImageReference) -> ImageReference:
    return ImageReference(subject.registry, subject.repository, (subject.digest or "").replace(":", "-", 1))
