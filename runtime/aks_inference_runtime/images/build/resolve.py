"""From requirements to wheels for an image's interpreter: chosen by pip (and uv), kept by their digests.

The first choice for the same requirements and interpreter is kept: unpinned packages freeze at the first build, as with
Azure ML's images (reference: azureml-v1.md 6.3); `refresh` chooses anew.
"""

import asyncio
import hashlib
import importlib.util
import json
import os
import platform as machine
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from aks_inference_runtime.api.content import file_digest
from aks_inference_runtime.images.build.run import Progress, run_tool
from aks_inference_runtime.images.build.target import MACHINES, Target
from aks_inference_runtime.images.build.wheel import Wheel
from aks_inference_runtime.images.errors import BuildFailed

UV_GLIBC = ((2, 40), (2, 38), (2, 36), (2, 34), (2, 31), (2, 28), (2, 17))
"""C libraries that uv has a platform name for (`uv pip compile --python-platform`)."""


@dataclass(frozen=True)
class Kept:
    """One wheel of a kept choice."""

    filename: str
    sha256: str


async def resolve(
    requirements: Sequence[str],
    options: Sequence[str],
    target: Target,
    cache: Path,
    progress: Progress,
    refresh: bool = False,
) -> tuple[Wheel, ...]:
    """The wheels, sorted by name. Raises BuildFailed when a package has none for the interpreter."""
    if not requirements:
        return ()
    record = cache / "choices" / f"{_choice_key(requirements, options, target)}.json"
    kept = None if refresh else await asyncio.to_thread(_read, record, cache)
    if kept is not None:
        progress(f"{len(kept)} packages as chosen before")
        return kept
    with tempfile.TemporaryDirectory(prefix="aks-inference-") as folder:
        await _download(requirements, options, target, Path(folder), progress)
        return await asyncio.to_thread(_keep, Path(folder) / "wheels", record, cache)


async def _download(
    requirements: Sequence[str], options: Sequence[str], target: Target, folder: Path, progress: Progress
) -> None:
    listed = folder / "requirements.txt"
    await asyncio.to_thread(listed.write_text, "".join(f"{line}\n" for line in (*options, *requirements)), "utf-8")
    command = [*_pip(), "download", "--dest", str(folder / "wheels"), "--only-binary=:all:"]
    command += ["--implementation", "cp", "--python-version", target.python]
    command += ["--abi", target.tag, "--abi", "abi3", "--abi", "none", "--progress-bar", "off"]
    command += [f"--platform={name}" for name in target.pip_platforms]
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONUNBUFFERED": "1"}
    if not _markers_agree(target):
        listed = await _choose_with_uv(listed, target, folder, progress)
        command += ["--no-deps", "--require-hashes"]
    try:
        await run_tool([*command, "--requirement", str(listed)], progress, what="resolving packages", environment=quiet)
    except BuildFailed as error:
        hint = f"each package needs a wheel for Python {target.python} on {target.platform} with glibc "
        hint += f"{'.'.join(map(str, target.glibc))}: pin a version that has one, or choose a builder with a build tool"
        raise BuildFailed(f"{error}\n{hint}") from None


def _pip() -> list[str]:
    """This interpreter's, or the one that Python itself brings along: environments that uv makes have none."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    if (bundle := importlib.util.find_spec("ensurepip")) is not None and bundle.origin is not None:
        for wheel in sorted(Path(bundle.origin).parent.glob("_bundled/pip-*.whl")):
            # A wheel of pip runs as it is.
            return [sys.executable, str(wheel / "pip")]
    raise BuildFailed(
        f"packages are chosen by pip, and {sys.executable} has none: install it there (`uv pip install pip`, or "
        "Debian's python3-pip)"
    )


def _markers_agree(target: Target) -> bool:
    """pip judges environment markers by the Python that runs it."""
    here = (f"{sys.version_info.major}.{sys.version_info.minor}", sys.platform, machine.machine())
    return here == (target.python, "linux", MACHINES[target.platform.architecture])


async def _choose_with_uv(listed: Path, target: Target, folder: Path, progress: Progress) -> Path:
    """uv judges them by the target's."""
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        raise BuildFailed(
            f"the image has Python {target.python} on {target.platform}, and this is Python "
            f"{sys.version_info.major}.{sys.version_info.minor} on {sys.platform}/{machine.machine()}: "
            "install uv (`pip install uv`), which chooses packages for another interpreter"
        )
    glibc = next((one for one in UV_GLIBC if one <= target.glibc), UV_GLIBC[-1])
    name = f"{MACHINES[target.platform.architecture]}-manylinux_{glibc[0]}_{glibc[1]}"
    locked = folder / "locked.txt"
    command = [uv, "pip", "compile", "--quiet", "--python-version", target.python, "--python-platform", name]
    command += ["--only-binary", ":all:", "--generate-hashes", "--no-header", "--no-annotate"]
    # It needs no interpreter of the target's version: wheels alone are asked for.
    command += ["--python", sys.executable, "--no-python-downloads"]
    command += ["--no-index"] if os.environ.get("PIP_NO_INDEX", "0").lower() in {"1", "true", "yes", "on"} else []
    found_links = os.environ.get("PIP_FIND_LINKS")
    index = os.environ.get("PIP_INDEX_URL")
    environment = {key: value for key, value in (("UV_FIND_LINKS", found_links), ("UV_INDEX_URL", index)) if value}
    await run_tool(
        [*command, str(listed), "--output-file", str(locked)],
        progress,
        what="resolving packages",
        environment=environment,
    )
    return locked


def _choice_key(requirements: Sequence[str], options: Sequence[str], target: Target) -> str:
    content = {"pip": sorted(requirements), "options": list(options), "target": asdict(target)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _wheel_path(cache: Path, kept: Kept) -> Path:
    return cache / "wheels" / kept.sha256 / kept.filename


def _read(record: Path, cache: Path) -> tuple[Wheel, ...] | None:
    """A kept choice whose wheels are all still there."""
    try:
        kept = [Kept(**one) for one in json.loads(record.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    if not all(_wheel_path(cache, one).is_file() for one in kept):
        return None
    return tuple(_wheel(_wheel_path(cache, one), one.sha256) for one in kept)


def _keep(folder: Path, record: Path, cache: Path) -> tuple[Wheel, ...]:
    found = []
    for path in sorted(folder.iterdir()):
        kept = Kept(path.name, file_digest(path).removeprefix("sha256:"))
        place = _wheel_path(cache, kept)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{place.name}.{os.getpid()}.part")
        try:
            shutil.move(path, part)
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
        found.append((_wheel(place, kept.sha256), kept))
    found.sort(key=lambda pair: pair[0].name)
    record.parent.mkdir(parents=True, exist_ok=True)
    part = record.with_name(f"{record.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps([asdict(kept) for _, kept in found]), "utf-8")
        part.replace(record)
    finally:
        part.unlink(missing_ok=True)
    return tuple(wheel for wheel, _ in found)


def _wheel(path: Path, sha256: str) -> Wheel:
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise BuildFailed(f"{path.name} is not the name of a wheel: {error}") from None
    return Wheel(path, str(name), str(version), sha256)
