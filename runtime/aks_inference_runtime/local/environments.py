"""Python environments of scoring servers: built once per content, shared by all local clusters of a user."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.output import lines_of
from aks_inference_runtime.local.built import BuiltEnvironment, cache_root, hash_of, read_built
from aks_inference_runtime.local.files import write_text
from aks_inference_runtime.scoring.requirements import SERVER_PACKAGE, canonical

__all__ = ["BuiltEnvironment", "EnvironmentStore", "cache_root", "hash_of"]

TAIL_LINES = 30
_LOCK_POLL_S = 0.2
_ASK_VERSION = f"import importlib.metadata as m; print(m.version({SERVER_PACKAGE!r}))"


class EnvironmentStore:
    """Builds what is missing or lost its Python; two builds of one content, also by two supervisors, happen once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def get(self, packages: Sequence[str], progress: Callable[[str], None]) -> BuiltEnvironment:
        """The environment, built if need be.

        Args:
            packages: Required. Requirement lines.
            progress: Required. Called with what the build does now.

        Raises:
            InvalidInput: a line is no requirement.
            OperationFailed: the build broke; the text carries the tail of pip's output.
        """
        lines = canonical(packages)
        key = hash_of(packages)
        folder = self._root / key
        if found := read_built(key, folder):
            return found
        try:
            self._make_root()
            async with _locked(self._root / f"{key}.lock", progress):
                return read_built(key, folder) or await self._build(key, folder, lines, progress)
        except OSError as error:
            raise OperationFailed(f"environment {key}: {error.strerror or error} ({error.filename})") from None

    def _make_root(self) -> None:
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperationFailed(
                f"{self._root} cannot be made: {error.strerror or error} ({error.filename}); the Python environments "
                f"of scoring servers are kept there. Make it writable, or start the supervisor anew with "
                f"XDG_CACHE_HOME set to another folder (an absolute path)"
            ) from None

    async def _build(
        self, key: str, folder: Path, lines: Sequence[str], progress: Callable[[str], None]
    ) -> BuiltEnvironment:
        # In its final place, since scripts carry absolute paths; the record, written last, says that it is whole.
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            progress(f"builds Python environment {key[:12]}")
            await _run([sys.executable, "-m", "venv", str(folder)], progress)
            requirements = folder / "requirements.txt"
            write_text(requirements, "\n".join(lines) + "\n")
            python = str(folder / "bin" / "python")
            install = [python, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
            await _run([*install, "-r", str(requirements)], progress)
            version = (await _run([python, "-c", _ASK_VERSION], lambda _: None))[-1]
            write_text(folder / "environment.json", json.dumps({"serverVersion": version, "requirements": lines}))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
            raise
        return BuiltEnvironment(key, folder, version)


@contextlib.asynccontextmanager
async def _locked(path: Path, progress: Callable[[str], None]) -> AsyncIterator[None]:
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waits for another build of the same Python environment")
                await asyncio.sleep(_LOCK_POLL_S)
        yield


async def _run(command: Sequence[str], progress: Callable[[str], None]) -> list[str]:
    """Runs it to its end; its last lines. Raises OperationFailed with them."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
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
        raise OperationFailed(f"the Python environment could not be built (exit code {code})\n{text}")
    return list(tail)


def _short(line: str) -> str | None:
    """What a person wants to see of a line of pip's: the package, not the file. None: as said last."""
    words = line.split()
    if words[:1] == ["Collecting"] and len(words) > 1:
        return f"collects {words[1]}"
    if words[:2] == ["Installing", "collected"]:
        return f"installs {max(0, len(words) - 3)} packages"
    return None
