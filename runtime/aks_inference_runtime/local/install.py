"""A Python environment and its packages, made by uv as `python -m venv` and pip would make them."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.output import lines_of
from aks_inference_runtime.local.files import write_text
from aks_inference_runtime.packages.settings import machine_settings, other_options, with_options, without_secrets
from aks_inference_runtime.packages.uv import mend, uv_program, uv_switches, uv_variables, with_newest
from aks_inference_runtime.packages.waiting import saying

TAIL_LINES = 30
_STEPS = {"Downloading": "fetches", "Building": "builds"}


async def install(folder: Path, lines: Sequence[str], cache: Path, lock: int, progress: Callable[[str], None]) -> None:
    """Into a folder that is not there yet. Raises OperationFailed.

    Args:
        folder: Required. The environment.
        lines: Required. Canonical requirement lines, with options of a requirements file.
        cache: Required. The folder that uv keeps its cache in, unless it is told another.
        lock: Required. Descriptor that stays open as long as anything works on the environment.
        progress: Required. Called with what the build does now.
    """
    uv = uv_program()
    options = [line for line in lines if line.startswith("-")]
    requirements = [line for line in lines if not line.startswith("-")]
    pip = with_options(machine_settings(os.environ, Path(sys.prefix)), options, os.environ)
    variables = uv_variables(pip, cache, os.environ)
    await _make(uv, folder, variables, lock, progress)
    listed = folder / "requirements.txt"
    write_text(listed, "".join(f"{line}\n" for line in (*pip.builds, *other_options(options), *requirements)))
    command = [uv, "pip", "install", "--python", str(folder / "bin" / "python"), *uv_switches(pip)]
    # No byte code: the first server writes that of what it imports, a third of the work for all there is.
    command += ["--requirements", str(listed), *_refreshed(requirements)]

    last = "chooses packages"

    def told(said: str) -> None:
        nonlocal last
        last = without_secrets(said, pip)
        progress(last)

    async def asked(*more: str) -> None:
        try:
            async with saying(progress, lambda: last):
                await run([*command, *more], told, os.environ | variables, lock)
        except OperationFailed as error:
            raise OperationFailed(without_secrets(str(error), pip)) from None

    await with_newest(asked)


async def _make(
    uv: str, folder: Path, variables: Mapping[str, str], lock: int, progress: Callable[[str], None]
) -> None:
    """The environment of this Python, with what `python -m venv` brings; nobody's settings are for that."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    plain |= {name: variables[name] for name in ("UV_CACHE_DIR", "UV_NO_PROGRESS", "NO_COLOR")}
    make = [uv, "venv", "--no-config", "--no-project", "--no-python-downloads", "--python", sys.executable]
    await run([*make, str(folder)], progress, plain, lock)
    if seeds := _seeds():
        bring = [uv, "pip", "install", "--quiet", "--no-config", "--no-index", "--no-deps"]
        await run([*bring, "--python", str(folder / "bin" / "python"), *seeds], progress, plain, lock)


def _seeds() -> list[str]:
    """Wheels of pip, and of setuptools before Python 3.12, which scripts may take for granted."""
    bundled = find_spec("ensurepip")
    places = [sysconfig.get_config_var("WHEEL_PKG_DIR")]
    places += [Path(bundled.origin).with_name("_bundled")] if bundled and bundled.origin else []
    names = ("pip", "setuptools") if sys.version_info < (3, 12) else ("pip",)
    found = {
        name: str(path)
        for place in places
        if place
        for name in names
        for path in sorted(Path(place).glob(f"{name}-*-py3-none-any.whl"))
    }
    return list(found.values())


def _refreshed(requirements: Sequence[str]) -> list[str]:
    """Folders are built anew, as by pip: uv would keep what it built as long as their project files are the same."""
    parsed = map(Requirement, requirements)
    return [part for one in parsed if (one.url or "").startswith("file:") for part in ("--refresh-package", one.name)]


async def run(
    command: Sequence[str],
    progress: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
    lock: int | None = None,
) -> list[str]:
    """Runs it to its end; its last lines. Raises OperationFailed with them."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        # The project that this process happens to be in has no say.
        cwd="/",
        # Of a killed build it may go on for a while: the next one waits.
        pass_fds=() if lock is None else (lock,),
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - PIPE above
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        async for written in lines_of(process.stdout):
            if line := written.strip():
                tail.append(line)
                if said := _short(line):
                    progress(said)
        code = await process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    if code != 0:
        text = "\n".join(tail)
        found = mend(text)
        lines = (f"the Python environment could not be built (exit code {code})", text, *([found] if found else []))
        raise OperationFailed("\n".join(lines))
    return list(tail)


def _short(line: str) -> str | None:
    """What a person wants to see of a line of uv's. None: as said last."""
    words = line.split()
    if words[:1] == ["Resolved"] and len(words) > 1:
        return f"installs {words[1]} packages"
    if len(words) > 1 and (step := _STEPS.get(words[0])):
        return " ".join((step, words[1], *(words[2:] if words[0] == "Downloading" else ())))
    return None
