"""From a remote address to files on this machine, fetched once per revision."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images.registry import CredentialStore, RegistryClient, TransportOptions
from aks_inference_runtime.models.progress import Progress, silent
from aks_inference_runtime.models.sources import blob, mlflow, oci
from aks_inference_runtime.models.sources.address import Address, Scheme, parse_address
from aks_inference_runtime.models.sources.archive import ArchiveLimits, is_archive, unpack
from aks_inference_runtime.models.sources.cache import SourceCache
from aks_inference_runtime.models.sources.https import Web, WebOptions

_STEMS = (".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".tbz2", ".txz", ".tar", ".zip")


@dataclass(frozen=True)
class SourceSettings:
    """How sources are reached, and what is done with archives."""

    unpack: bool = False
    """Optional. True: a zip or tar stands for the files in it."""
    tracking_uri: str | None = None
    """Optional. Of the MLflow server. Default: `MLFLOW_TRACKING_URI`."""
    experiment: str | None = None
    """Optional. The experiment that a run must belong to."""
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    web: WebOptions = field(default_factory=WebOptions)
    registry: TransportOptions = field(default_factory=TransportOptions)
    cache: SourceCache = field(default_factory=SourceCache)


@dataclass(frozen=True)
class Revision:
    """What a source holds now, without its content."""

    text: str | None
    """Equal for equal contents; None where the source tells nothing to compare: then only its content does."""
    base_name: str
    size: int | None = None
    run_id: str | None = None
    experiment: str | None = None


@dataclass(frozen=True)
class Fetched:
    """Files on this machine."""

    path: Path
    """A file or folder, called as at its source."""
    revision: Revision


async def revision(text: str, settings: SourceSettings | None = None) -> Revision:
    """Asks a source what it holds; fetches nothing.

    Raises InvalidInput, NotFound, SourceUnavailable, StoreUnavailable, MissingPackage, the registry's errors.
    """
    settings = settings or SourceSettings()
    address = parse_address(text)
    suffix = " unpacked" if settings.unpack else ""
    match address.scheme:
        case Scheme.HTTPS:
            async with Web(settings.web) as web:
                found = await web.describe(text)
            known = found.revision
            return Revision(known and known + suffix, _stem(address.base_name, settings), found.size)
        case Scheme.BLOB:
            blobs = await asyncio.to_thread(blob.list_blobs, address)
            size = sum(one.size for one in blobs)
            return Revision(blob.blob_revision(blobs) + suffix, _stem(address.base_name, settings), size)
        case Scheme.OCI:
            async with RegistryClient(CredentialStore.from_docker(), settings.registry) as client:
                manifest = await oci.artifact(client, address)
            return Revision(manifest.digest, address.base_name, sum(part.size for part in manifest.parts("layers")))
        case _:
            artifact = await mlflow.describe(address, settings.tracking_uri, settings.experiment)
            name = _stem(artifact.base_name, settings)
            known = artifact.revision and artifact.revision + suffix
            return Revision(known, name, artifact.size, artifact.run_id, artifact.experiment)


async def fetch(
    text: str, settings: SourceSettings | None = None, progress: Progress = silent, known: Revision | None = None
) -> Fetched:
    """Brings the files of a source onto this machine, or finds them there.

    Args:
        text: Required. `https://…`, `az://account/container/path`, `oci://registry/repository:tag`,
            `runs:/RUN_ID/PATH`, `models:/NAME/VERSION` or `models:/NAME@ALIAS`.
        settings: Optional. Default: the machine's.
        progress: Optional. Default: tells nobody.
        known: Optional. What `revision` gave. Default: it is asked.

    Raises:
        As `revision`, and UnsafeArchive.
    """
    settings = settings or SourceSettings()
    address = parse_address(text)
    known = known or await revision(text, settings)
    # A source that tells no revision is fetched each time, under a name of its own.
    key = known.text or f"at {datetime.now(UTC).isoformat()}"
    name = known.base_name

    async def make(part: Path) -> None:
        await _Fetch(address, settings, part, name, progress).run()

    content = await settings.cache.get(f"{text} {settings.tracking_uri or ''}", key, make)
    return Fetched(content / name, known)


@dataclass(frozen=True)
class _Fetch:
    address: Address
    settings: SourceSettings
    part: Path
    name: str
    progress: Progress

    async def run(self) -> None:
        address = self.address
        called = address.place if address.scheme is Scheme.MLFLOW_MODEL else address.base_name
        raw = self.part / "raw" / called
        raw.parent.mkdir(exist_ok=True)
        await self._download(raw)
        await asyncio.to_thread(self._place, raw)

    async def _download(self, raw: Path) -> None:
        match self.address.scheme:
            case Scheme.HTTPS:
                async with Web(self.settings.web) as web:
                    await web.download(self.address.text, raw, self.progress)
            case Scheme.BLOB:
                blobs = await asyncio.to_thread(blob.list_blobs, self.address)
                await asyncio.to_thread(blob.download_blobs, self.address, blobs, raw, self.progress)
            case Scheme.OCI:
                async with RegistryClient(CredentialStore.from_docker(), self.settings.registry) as client:
                    manifest = await oci.artifact(client, self.address)
                    await oci.download_artifact(
                        client, self.address, manifest, raw, self.settings.limits, self.progress
                    )
            case _:
                await mlflow.download(self.address, self.settings.tracking_uri, raw.parent)

    def _place(self, raw: Path) -> None:
        content = self.part / "content"
        content.mkdir(exist_ok=True)
        place = content / self.name
        if self.settings.unpack and raw.is_file():
            if not is_archive(raw):
                raise InvalidInput(f"unpack: {raw.name} is neither a zip nor a tar; leave it out")
            unpack(raw, place, self.settings.limits)
            raw.unlink()
        else:
            raw.replace(place)


def _stem(name: str, settings: SourceSettings) -> str:
    """What an unpacked archive's folder is called."""
    suffix = next((suffix for suffix in _STEMS if name.lower().endswith(suffix)), "") if settings.unpack else ""
    return name[: -len(suffix)] or name if suffix else name
