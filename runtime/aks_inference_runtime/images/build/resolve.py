"""From requirements to wheels for an image's interpreter: chosen by uv, kept by their digests.

The first choice for the same requirements and interpreter is kept: unpinned packages freeze at the first build, as with
Azure ML's images (reference: azureml-v1.md 6.3); `refresh` chooses anew.
"""

import asyncio
import hashlib
import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from aks_inference_runtime.images.build.hashes import check_hashes, hashes_of
from aks_inference_runtime.images.build.kept import write_whole
from aks_inference_runtime.images.build.locked import of_lock
from aks_inference_runtime.images.build.run import Progress, run_tool
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.build.wheel import Wheel
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.packages.download import NotFetched, download
from aks_inference_runtime.packages.settings import PipSettings, machine_settings, with_options, without_secrets
from aks_inference_runtime.packages.uv import (
    NOT_CHOSEN,
    NoUv,
    mend,
    uv_logins,
    uv_program,
    uv_switches,
    uv_variables,
    with_newest,
)
from aks_inference_runtime.packages.waiting import saying

_NO_WHEEL = re.compile(r"wheel|Python\s+version")
WHEELS = "wheels"
"""Folder of the cache."""


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
    pip = with_options(machine_settings(os.environ, Path(sys.prefix)), options, os.environ)
    pip = replace(pip, logins=uv_logins(os.environ))
    hashes = hashes_of(requirements)
    lock = await _choose(requirements, pip, target, cache, progress, refresh)
    wanted = list(of_lock(lock, target, hashes))
    try:
        digests = await download(wanted, cache / WHEELS, pip, progress)
    except NotFetched as error:
        raise BuildFailed(f"fetching packages: {error}") from None
    chosen = (Kept(one.filename, sha256) for one, sha256 in zip(wanted, digests, strict=True))
    found = (_wheel(_wheel_path(cache, one), one.sha256) for one in chosen)
    wheels = tuple(sorted(found, key=lambda wheel: wheel.name))
    await asyncio.to_thread(check_hashes, hashes, wheels)
    await asyncio.to_thread(_keep, wheels, record)
    return wheels


async def _choose(
    requirements: Sequence[str], pip: PipSettings, target: Target, cache: Path, progress: Progress, refresh: bool
) -> dict[str, Any]:
    """A lock file. Raises BuildFailed."""
    try:
        command = [uv_program(), "pip", "compile", *uv_switches(pip), "--python-version", target.python]
    except NoUv as error:
        raise BuildFailed(str(error)) from None
    command += ["--python-platform", target.uv_platform, "--only-binary", ":all:", "--format", "pylock.toml"]
    # It needs no interpreter of the target's version: wheels alone are asked for.
    command += ["--no-header", "--python", sys.executable, "--no-python-downloads"]
    with tempfile.TemporaryDirectory(prefix="aks-inference-") as folder:
        listed, lock = Path(folder) / "requirements.txt", Path(folder) / "pylock.toml"
        listed.write_text("".join(f"{line}\n" for line in requirements), "utf-8")
        command += [str(listed), "--output-file", str(lock)]

        async def compile_with(*more: str) -> dict[str, Any]:
            said: list[str] = []
            async with saying(progress, lambda: "still choosing wheels"):
                # In a folder of its own: the project that this process happens to be in has no say.
                await run_tool(
                    [*command, *more],
                    said.append,
                    what="resolving packages",
                    environment=uv_variables(pip, cache, os.environ),
                    directory=Path(folder),
                    # It says the lock file there, too.
                    output=False,
                )
            # Of a failure the error tells it.
            for line in said:
                progress(without_secrets(line, pip))
            return tomllib.loads(lock.read_text("utf-8"))

        try:
            return await (compile_with("--refresh") if refresh else with_newest(compile_with))
        except BuildFailed as error:
            raise BuildFailed(f"{without_secrets(str(error), pip)}{_mend(str(error), target)}") from None


def _mend(said: str, target: Target) -> str:
    if NOT_CHOSEN in said and _NO_WHEEL.search(said):
        return (
            f"\neach package needs a wheel for Python {target.python} on {target.platform} with {target.libc}: pin a "
            "version that has one, or choose a builder with a build tool"
        )
    found = mend(said)
    return f"\n{found}" if found else ""


def _choice_key(requirements: Sequence[str], options: Sequence[str], target: Target) -> str:
    # Said only where it is so: choices that were kept before this was known stay.
    described = {name: value for name, value in asdict(target).items() if name != "musl" or value}
    content = {"pip": sorted(requirements), "options": list(options), "target": described}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _wheel_path(cache: Path, kept: Kept) -> Path:
    return cache / WHEELS / kept.sha256 / kept.filename


def _read(record: Path, cache: Path) -> tuple[Wheel, ...] | None:
    """A kept choice whose wheels are all still there."""
    try:
        kept = [Kept(**one) for one in json.loads(record.read_text("utf-8"))]
    except (OSError, ValueError, TypeError):
        return None
    if not all(_wheel_path(cache, one).is_file() for one in kept):
        return None
    return tuple(_wheel(_wheel_path(cache, one), one.sha256) for one in kept)


def _keep(wheels: Sequence[Wheel], record: Path) -> None:
    # Two environments that are built at once may have the same packages.
    write_whole(record, json.dumps([asdict(Kept(one.path.name, one.sha256)) for one in wheels]).encode())


def _wheel(path: Path, sha256: str) -> Wheel:
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
    except InvalidWheelFilename as error:
        raise BuildFailed(f"{path.name} is not the name of a wheel: {error}") from None
    return Wheel(path, str(name), str(version), sha256)
