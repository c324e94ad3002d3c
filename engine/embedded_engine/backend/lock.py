"""One process at a time works on a stack. The lock files are those of the pulumi CLI, so each respects the other's.

The CLI writes its lock and then looks whether there are others, so that of two which start at once both may give up.
Here the look and the write happen under a file lock of the kernel's: of several of our own exactly one wins.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import getpass
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from embedded_engine.backend.files import write_atomically
from embedded_engine.errors import LockedError, StateWriteError
from embedded_engine.wirejson import dumps

# A process counts as the holder if it began before its lock was written; clocks and ticks differ by less than this.
_START_SLACK_S = 2.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock. `namespace` and `boot` tell whether its process id means anything here; the CLI has neither."""

    pid: int
    username: str
    hostname: str
    timestamp: str
    namespace: str = ""
    boot: str = ""

    def __str__(self) -> str:
        return f"{self.username}@{self.hostname} (pid {self.pid}) at {self.timestamp}"

    def to_wire(self) -> dict[str, object]:
        return {
            "pid": self.pid,
            "username": self.username,
            "hostname": self.hostname,
            "timestamp": self.timestamp,
            "pidNamespace": self.namespace,
            "bootId": self.boot,
        }


def this_process() -> Holder:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        # A container's user need not have a name.
        user = str(os.getuid())
    now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
    return Holder(os.getpid(), user, socket.gethostname(), now, _pid_namespace(), _boot())


def read_holder(path: Path) -> Holder | None:
    """The holder that the file names; None where it is gone or says nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Holder(
            pid=int(content["pid"]),
            username=str(content.get("username", "?")),
            hostname=str(content.get("hostname", "")),
            timestamp=str(content.get("timestamp", "")),
            namespace=str(content.get("pidNamespace", "")),
            boot=str(content.get("bootId", "")),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def is_dead(holder: Holder, here: Holder) -> bool:
    """Whether the holder certainly runs no more: it was of this machine, and its process is gone."""
    if holder.hostname != here.hostname:
        return False
    if holder.boot and holder.boot != here.boot:
        return True
    if holder.namespace and holder.namespace != here.namespace:
        return False
    try:
        process = psutil.Process(holder.pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        began = process.create_time()
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    try:
        written = datetime.datetime.fromisoformat(holder.timestamp).timestamp()
    except ValueError:
        return False
    return began > written + _START_SLACK_S


class StackLock:
    """The lock of one stack. `tell` gets a sentence for each lock of a dead process that is broken.

    Use it as a context manager; `acquire` raises `LockedError` naming every holder that lives.
    """

    def __init__(self, folder: Path, guard: Path, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._guard = guard
        self._tell = tell
        self._own = folder / f"{uuid.uuid4()}.json"

    def __enter__(self) -> "StackLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        here = this_process()
        with self._guarded():
            self._refuse_if_held(here)
            write_atomically(self._own, dumps(here.to_wire()).encode())
            try:
                # The CLI does not know the guard: it may have written between our look and our write.
                self._refuse_if_held(here)
            except LockedError:
                self.release()
                raise

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._own.unlink(missing_ok=True)

    def _refuse_if_held(self, here: Holder) -> None:
        living: list[str] = []
        for path in self.others():
            holder = read_holder(path)
            if holder is None:
                if path.exists():
                    living.append(f"{path}: by an unknown process (the file cannot be read)")
            elif is_dead(holder, here):
                path.unlink(missing_ok=True)
                self._tell(f"broke the lock of {holder}: that process is gone")
            else:
                living.append(f"{path}: created by {holder}")
        if living:
            raise LockedError(
                f"the stack is currently locked by {len(living)} lock(s). Either wait for the other process(es) to end "
                "or delete the lock file with `cancel`.\n  " + "\n  ".join(living)
            )

    def others(self) -> list[Path]:
        return [path for path in list_locks(self._folder) if path != self._own]

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            self._guard.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._guard, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StateWriteError(f"{self._guard} could not be written: {error.strerror or error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def list_locks(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json")) if folder.is_dir() else []


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
