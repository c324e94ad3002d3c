"""The base image: its manifest for the platform, its configuration, and the interpreter in it."""

import asyncio
import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.errors import InvalidInput, NotFound
from aks_inference_runtime.images.build.kept import keep, read_kept
from aks_inference_runtime.images.build.run import Progress
from aks_inference_runtime.images.build.target import (
    DEFAULT_GLIBC,
    INTERPRETER,
    Target,
    choose_interpreter,
    glibc_of,
    has_musl,
)
from aks_inference_runtime.images.environment.model import Platform
from aks_inference_runtime.images.errors import BuildFailed, RegistryError
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.client import RegistryClient
from aks_inference_runtime.images.registry.manifest import LAYER_AS_OCI, Descriptor, Manifest

MAX_CONFIG = 4 * 1024 * 1024
OS_RELEASE = frozenset({"etc/os-release", "usr/lib/os-release"})
_MAX_OS_RELEASE = 64 * 1024


@dataclass(frozen=True)
class BaseImage:
    """An image that layers are put on."""

    reference: ImageReference
    """With the digest of the manifest for the platform."""
    manifest: Manifest
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]
    """With OCI's media types."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that the image sets."""
        return dict(item.partition("=")[::2] for item in (self.config.get("config") or {}).get("Env") or ())


async def fetch_image(
    client: RegistryClient, reference: ImageReference, platform: Platform, cache: Path | None = None
) -> BaseImage:
    """An image of a platform. Raises NotFound when it is not there or not for the platform.

    With `cache` an image named by its digest is read from disk where it was read before: give it only for an image
    that the registry has just been asked for.
    """
    manifest = await _manifest(client, reference, cache)
    if manifest is None:
        raise NotFound(f"the image {reference} does not exist; name another, or push it there")
    if manifest.is_index:
        chosen = _of_platform(manifest, platform)
        if chosen is None:
            raise NotFound(f"the image {reference} is not made for {platform}; name another base or platform")
        manifest = await _manifest(client, reference.at(chosen), cache)
        if manifest is None:
            raise NotFound(f"the image {reference} lacks the manifest {chosen} that its index names")
    pinned = reference.at(manifest.digest)
    described = manifest.part("config")
    content = read_kept(cache, described.digest)
    if content is None:
        content = await client.read_blob(pinned, described, MAX_CONFIG)
        keep(cache, content)
    try:
        config = json.loads(content)
    except ValueError:
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("rootfs"), dict):
        raise RegistryError(f"the image {reference} has a configuration that is none")
    _check_platform(reference, config, platform)
    layers = manifest.parts("layers")
    if len(layers) != len(config["rootfs"].get("diff_ids") or ()):
        raise RegistryError(f"the image {reference} names {len(layers)} layers and another number of contents")
    return BaseImage(pinned, manifest, config, tuple(_as_oci(layer) for layer in layers))


async def _manifest(client: RegistryClient, reference: ImageReference, cache: Path | None) -> Manifest | None:
    content = read_kept(cache, reference.digest) if reference.digest else None
    if content is not None and (kind := _own_type(content)):
        return Manifest(kind, content)
    manifest = await client.manifest(reference)
    # One that does not name its own type would have to be asked for again.
    if manifest is not None and _own_type(manifest.content):
        keep(cache, manifest.content)
    return manifest


def _own_type(content: bytes) -> str:
    return str(Manifest("", content).data.get("mediaType") or "")


async def find_target(
    client: RegistryClient,
    base: BaseImage,
    platform: Platform,
    wanted: str | None,
    interpreter: str | None,
    cache: Path,
    progress: Progress,
) -> Target:
    """The interpreter in the base: as given, as official Python images say, else as their files show.

    `wanted`: the version that the definition names; `interpreter`: an absolute path in the image.
    """
    said = base.environment.get("PYTHON_VERSION")
    named = INTERPRETER.search(interpreter) if interpreter else None
    minor = ".".join((wanted or (named[2] if named else None) or said or "").split(".")[:2])
    if said and base.reference.repository == "library/python" and not _of_alpine(base):
        found = ".".join(said.split(".")[:2])
        if wanted and found != minor:
            raise _no_python(base, wanted)
        return Target(found, interpreter or f"/usr/local/bin/python{found}", platform)
    contents = await _contents(client, base, cache, progress)
    chosen = choose_interpreter(contents.paths, wanted)
    if interpreter and minor:
        return Target(minor, interpreter, platform, contents.glibc, contents.musl)
    if chosen is None:
        raise _no_python(base, wanted)
    return Target(chosen[1], interpreter or chosen[0], platform, contents.glibc, contents.musl)


def _of_alpine(base: BaseImage) -> bool:
    return any("apk add" in str(one.get("created_by")) for one in base.config.get("history") or ())


def _no_python(base: BaseImage, wanted: str | None) -> BuildFailed:
    what = f"Python {wanted}" if wanted else "Python 3 (a file bin/python3.N)"
    return BuildFailed(
        f"the base image {base.reference} has no {what}; name a base with it, another version, or a builder with a "
        "build tool"
    )


@dataclass(frozen=True)
class Contents:
    """What the files of an image say about its interpreter."""

    paths: tuple[str, ...]
    glibc: tuple[int, int] = DEFAULT_GLIBC
    musl: bool = False


async def _contents(client: RegistryClient, base: BaseImage, cache: Path, progress: Progress) -> Contents:
    """Kept by the manifest's digest: a base's layers are read once."""
    record = cache / "bases" / f"{base.manifest.digest.partition(':')[2]}.json"
    try:
        raw = json.loads(record.read_text("utf-8"))
        return Contents(tuple(raw["paths"]), (raw["glibc"][0], raw["glibc"][1]), bool(raw["musl"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass  # not read yet, or half written
    paths: list[str] = []
    release: str | None = None
    for layer in base.layers:
        progress(f"reading the base image's layer {layer.digest[:19]} ({layer.size / 1e6:.1f} MB)")
        path = await base_layer(client, base, layer, cache)
        more, found = await asyncio.to_thread(_scan, path, base)
        paths += more
        release = found or release
    interpreters = tuple(sorted({path for path in paths if "bin/python3." in path}))
    contents = Contents(interpreters, glibc_of(paths, release), has_musl(paths))
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(asdict(contents)), "utf-8")
    return contents


async def base_layer(client: RegistryClient, base: BaseImage, layer: Descriptor, cache: Path) -> Path:
    """A layer of the base on disk."""
    path = cache / "blobs" / layer.digest.replace(":", "-")
    if not path.is_file() or path.stat().st_size != layer.size:
        await client.download(base.reference, layer, path)
    return path


def _scan(path: Path, base: BaseImage) -> tuple[list[str], str | None]:
    paths: list[str] = []
    release = None
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                name = member.name.removeprefix("./").lstrip("/")
                if member.isfile() or member.issym() or member.islnk():
                    paths.append(name)
                if name in OS_RELEASE and member.isfile() and member.size <= _MAX_OS_RELEASE:
                    file = tar.extractfile(member)
                    release = file.read().decode("utf-8", "replace") if file else release
    except (tarfile.TarError, EOFError, OSError) as error:
        raise BuildFailed(
            f"a layer of {base.reference} cannot be read ({error}); name the interpreter's path"
        ) from None
    return paths, release


def _of_platform(index: Manifest, platform: Platform) -> str | None:
    for entry in index.data.get("manifests") or ():
        made_for = entry.get("platform") or {}
        if made_for.get("os") == platform.os and made_for.get("architecture") == platform.architecture:
            return str(entry.get("digest"))
    return None


def _check_platform(reference: ImageReference, config: Mapping[str, Any], platform: Platform) -> None:
    made_for = f"{config.get('os')}/{config.get('architecture')}"
    if made_for != str(platform):
        raise InvalidInput(f"the image {reference} is made for {made_for}, not for {platform}; change one of the two")


def _as_oci(layer: Descriptor) -> Descriptor:
    return Descriptor(LAYER_AS_OCI.get(layer.media_type, layer.media_type), layer.digest, layer.size)
