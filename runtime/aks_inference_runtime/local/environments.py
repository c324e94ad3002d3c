"""Python environments of scoring servers: built once per content, shared by all local clusters of a user."""

import asyncio
import contextlib
import fcntl
import json
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.local.built import BuiltEnvironment, cache_root, hash_of, read_built
from aks_inference_runtime.local.files import write_text
from aks_inference_runtime.local.install import install, run
from aks_inference_runtime.scoring.requirements import SERVER_PACKAGE, canonical

__all__ = ["BuiltEnvironment", "EnvironmentStore", "cache_root", "hash_of"]

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
            OperationFailed: the build broke; the text carries the tail of uv's output.
        """
        lines = canonical(packages)
        key = hash_of(packages)
        folder = self._root / key
        if found := read_built(key, folder):
            return found
        try:
            self._make_root()
            async with _locked(self._root / f"{key}.lock", progress) as lock:
                return read_built(key, folder) or await self._build(key, folder, lines, lock, progress)
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
        self, key: str, folder: Path, lines: Sequence[str], lock: int, progress: Callable[[str], None]
    ) -> BuiltEnvironment:
        # In its final place, since scripts carry absolute paths; the record, written last, says that it is whole.
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        try:
            progress(f"builds Python environment {key[:12]}")
            await install(folder, lines, self._root, lock, progress)
            python = str(folder / "bin" / "python")
            version = (await run([python, "-c", _ASK_VERSION], lambda _: None))[-1]
            write_text(folder / "environment.json", json.dumps({"serverVersion": version, "requirements": lines}))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
            raise
        return BuiltEnvironment(key, folder, version)


@contextlib.asynccontextmanager
async def _locked(path: Path, progress: Callable[[str], None]) -> AsyncIterator[int]:
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("waits for another build of the same Python environment")
                await asyncio.sleep(_LOCK_POLL_S)
        yield file.fileno()
