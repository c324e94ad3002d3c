"""The file backend: `.pulumi/stacks/<project>/<stack>.json` under a folder, laid out as the pulumi CLI's own."""

import contextlib
import dataclasses
import datetime
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from embedded_engine.backend.checkpoint import Checkpoint, empty_checkpoint, parse_checkpoint
from embedded_engine.backend.files import Writer, write_all, write_atomically
from embedded_engine.backend.lock import StackLock, list_locks
from embedded_engine.errors import StackNotFoundError, StateError, StateWriteError, UsageError

ORGANIZATION = "organization"
_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,100}")


@dataclasses.dataclass(frozen=True, order=True)
class StackName:
    """A stack of a project. The file backend has one organization, which the CLI calls `organization`."""

    project: str
    stack: str

    def __str__(self) -> str:
        return f"{ORGANIZATION}/{self.project}/{self.stack}"


def parse_stack_name(text: str, project: str | None) -> StackName:
    """`stack`, `project/stack` or `organization/project/stack`. Raises `UsageError`."""
    parts = text.split("/")
    if len(parts) == 3 and parts[0] == ORGANIZATION:
        parts = parts[1:]
    if len(parts) == 2 and parts[0] == ORGANIZATION and project is not None:
        parts = parts[1:]
    if len(parts) == 1 and project is not None:
        parts = [project, *parts]
    if len(parts) != 2:
        raise UsageError(f"stack name {text!r}: `<stack>` or `{ORGANIZATION}/<project>/<stack>` is needed")
    if not all(_NAME.fullmatch(part) for part in parts):
        raise UsageError(f"stack name {text!r}: 1 to 100 letters, digits, `_`, `.` and `-` are needed in each part")
    return StackName(*parts)


def backend_folder(environment: Mapping[str, str], project_url: str, home: Path) -> Path:
    """The folder of the backend: PULUMI_BACKEND_URL, or the project's `backend.url`, or the home folder.

    Raises `UsageError` for every kind of backend but `file://`.
    """
    url = environment.get("PULUMI_BACKEND_URL") or project_url or "file://~"
    if not url.startswith("file://"):
        raise UsageError(f"backend {url!r} is not supported: this engine has the `file://<folder>` backend only")
    location = urllib.parse.unquote(url.removeprefix("file://").partition("?")[0])
    if location == "~" or location.startswith("~/"):
        return home / location[2:]
    return Path(location or "/").absolute()


class FileBackend:
    """The stacks under one folder. `writer` is how bytes get into a file."""

    def __init__(self, folder: Path, writer: Writer = write_all) -> None:
        self.root = folder / ".pulumi"
        self._writer = writer

    @property
    def url(self) -> str:
        return f"file://{self.root.parent}"

    def path(self, name: StackName) -> Path:
        return self.root / "stacks" / name.project / f"{name.stack}.json"

    def exists(self, name: StackName) -> bool:
        return self.path(name).exists()

    def list(self, project: str | None) -> list[StackName]:
        folder = self.root / "stacks"
        projects = [project] if project else sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        return [
            StackName(found, file.name.removesuffix(".json"))
            for found in projects
            for file in sorted((folder / found).glob("*.json"))
        ]

    def create(self, name: StackName) -> None:
        """Raises `StateError` where the stack exists."""
        if self.exists(name):
            raise StateError(f"stack '{name}' already exists")
        meta = self.root / "meta.yaml"
        if not meta.exists():
            write_atomically(meta, b"version: 1\n", writer=self._writer)
        write_atomically(self.path(name), empty_checkpoint(str(name)), writer=self._writer)

    def read(self, name: StackName) -> Checkpoint:
        path = self.path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            compressed = [p for p in (path.with_name(f"{path.name}{e}") for e in (".gz", ".zst")) if p.exists()]
            if compressed:
                raise StateError(f"{compressed[0]}: compressed state is not supported") from None
            raise StackNotFoundError(
                f"no stack named '{name.stack}' found in {self.url} for {name.project}; `stack init` makes one"
            ) from None
        except OSError as error:
            raise StateError(f"{path} could not be read: {error.strerror or error}") from None
        return parse_checkpoint(content, path)

    def write(self, name: StackName, content: bytes) -> None:
        """Replaces the stack's state; the one before is kept beside it as `.bak`. Raises `StateWriteError`."""
        path = self.path(name)
        write_atomically(path, content, path.with_name(f"{path.name}.bak"), self._writer)

    def sweep(self, name: StackName) -> None:
        """Removes what writers that were killed left half done. Only for the holder of the stack's lock."""
        path = self.path(name)
        for left in path.parent.glob(f"{path.name}.*tmp"):
            left.unlink(missing_ok=True)

    def remove(self, name: StackName) -> None:
        path = self.path(name)
        try:
            for extra in (".bak", ""):
                path.with_name(f"{path.name}{extra}").unlink(missing_ok=True)
            self._guard(name).unlink(missing_ok=True)
        except OSError as error:
            raise StateWriteError(f"{path} could not be removed: {error.strerror or error}") from error
        for folder in (path.parent, self._lock_folder(name), self._lock_folder(name).parent):
            # Only empty ones go.
            with contextlib.suppress(OSError):
                folder.rmdir()

    def modified(self, name: StackName) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.path(name).stat().st_mtime, datetime.UTC)

    def lock(self, name: StackName, tell: Callable[[str], None]) -> StackLock:
        return StackLock(self._lock_folder(name), self._guard(name), tell)

    def is_locked(self, name: StackName) -> bool:
        return bool(list_locks(self._lock_folder(name)))

    def cancel(self, name: StackName) -> int:
        """Removes every lock of the stack; returns how many there were."""
        locks = list_locks(self._lock_folder(name))
        for path in locks:
            path.unlink(missing_ok=True)
        return len(locks)

    def _lock_folder(self, name: StackName) -> Path:
        return self.root / "locks" / ORGANIZATION / name.project / name.stack

    def _guard(self, name: StackName) -> Path:
        # Not among the locks: the CLI takes every file there for one.
        return self.root / "embedded-engine" / f"{name.project}{os.sep}{name.stack}.guard"
