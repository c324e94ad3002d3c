"""What a lock file (PEP 751) has for an image's interpreter. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.markers import Environment
from packaging.pylock import (
    Package,
    PackageArchive,
    PackageWheel,
    Pylock,
    PylockSelectError,
    PylockValidationError,
)
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from aks_inference_runtime.images.build.hashes import Hashes
from aks_inference_runtime.images.build.target import MACHINES, Target
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.packages.download import Wanted


def of_lock(content: dict[str, Any], target: Target, hashes: Hashes) -> Iterator[Wanted]:
    """The wheels for the target; of a release's those that have a hash which is asked for. Raises BuildFailed."""
    tags = _tags(target)
    try:
        lock = Pylock.from_dict(_narrowed(content, hashes))
        for package, found in lock.select(environment=_markers(target), tags=tags):
            yield _wanted(package, found, frozenset(tags), target)
    except (PylockValidationError, PylockSelectError) as error:
        raise BuildFailed(f"resolving packages: {error}") from None


def _narrowed(content: dict[str, Any], hashes: Hashes) -> dict[str, Any]:
    packages = [_with_asked(one, hashes.of(str(one.get("name", "")))) for one in content.get("packages", ())]
    return {**content, "packages": packages}


def _with_asked(package: Mapping[str, Any], asked: Iterable[str]) -> Mapping[str, Any]:
    sha256 = {one.partition(":")[2] for one in asked if one.startswith("sha256:")}
    fit = [one for one in package.get("wheels", ()) if one.get("hashes", {}).get("sha256") in sha256]
    # Where none fits the comparison with what came says so.
    return {**package, "wheels": fit} if fit else package


def _wanted(package: Package, found: object, tags: frozenset[Tag], target: Target) -> Wanted:
    if not isinstance(found, PackageWheel | PackageArchive):
        raise BuildFailed(f"resolving packages: {package.name} comes as its source, which would have to be built")
    address = found.url or found.path or ""
    # Of an address without its query, which may be a signature.
    path = unquote(urlsplit(address).path) if found.url else address
    filename = found.filename if isinstance(found, PackageWheel) else path.rpartition("/")[2]
    try:
        name, _, _, made_for = parse_wheel_filename(filename)
    except InvalidWheelFilename as error:
        raise BuildFailed(f"resolving packages: {package.name}: {filename!r} is no wheel's name ({error})") from None
    if tags.isdisjoint(made_for) or name != canonicalize_name(package.name):
        raise BuildFailed(
            f"resolving packages: {filename} is no wheel of {package.name} for Python {target.python} on "
            f"{target.platform} with {target.libc}; give the address of one that is"
        )
    return Wanted(filename, address, found.hashes, found.size)


def _markers(target: Target) -> Environment:
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python}.0",
        "os_name": "posix",
        "platform_machine": MACHINES[target.platform.architecture],
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python}.0",
        "python_version": target.python,
        "sys_platform": "linux",
    }


def _tags(target: Target) -> Sequence[Tag]:
    version, platforms = tuple(map(int, target.python.split("."))), target.pip_platforms
    return [*cpython_tags(version, [target.tag], platforms), *compatible_tags(version, target.tag, platforms)]
