"""One HAProxy process: started in a session of its own, found again by a later agent, watched, ended."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Collection
from hashlib import sha256
from pathlib import Path

import psutil

from aks_inference_runtime.api.errors import Conflict, OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.process import is_running, process_mark
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.paths import Paths

START_SECONDS = 10.0
STOP_SECONDS = 5.0
LOG_BYTES = 4 * 1024 * 1024
"""A log that is larger is copied to `<log>.1` and begun anew."""
TAIL_BYTES = 2_000
SOCKET_PATH_BYTES = 100
"""The system's limit is 108 with the final zero."""


_let_go: list[subprocess.Popen[bytes]] = []
"""Children that go on without their agent; kept so that they are reaped when they end while this process lives."""


class HaproxyProcess:
    """Its record (`<name>.json`) says which process it is: pid and mark, so that a reused pid is no mistake.

    Until it answers the record is `<name>.starting`: an agent that dies meanwhile leaves a process that the next one
    finds, and ends.
    """

    def __init__(self, paths: Paths, name: str, binary: str) -> None:
        self.name = name
        self.admin = AdminSocket(paths.socket(name, "admin"))
        self._paths = paths
        self._binary = binary
        self._process: psutil.Process | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        if self._child is not None:
            return self._child.poll() is None
        return self._process is not None and _runs(self._process)

    @property
    def pid(self) -> int | None:
        """Its process id, if it was started."""
        return self._process.pid if self._process is not None else None

    async def attach(self) -> bool:
        """Takes over the process that the record names, if it still runs and answers.

        One that runs without an answer can still be ended by `stop`.
        """
        self._process = _recorded(self._paths.record(self.name))
        if self._process is None:
            self._process = _recorded(self._paths.starting(self.name))
            return False
        try:
            await self.admin.run("show info")
        except (OSError, RuntimeUnavailable):
            return False
        return True

    async def start(self, config: str, files: Collection[int] = ()) -> None:
        """Starts it and returns once it answers. Raises Conflict for an address in use, else OperationFailed.

        `files`: numbers of open files that it is given.
        """
        path = self._paths.config(self.name)
        write_private(path, config)
        log = self._paths.log(self.name)
        begin = log.stat().st_size if log.exists() else 0
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as output:
            self._child = subprocess.Popen(  # noqa: ASYNC220 - must outlive this loop; starting is short
                [self._binary, "-db", "-f", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=tuple(files),
                cwd=self._paths.directory,
                env={"PATH": os.environ.get("PATH", "")},
            )
        try:
            record = {"pid": self._child.pid, "mark": process_mark(self._child.pid)}
            write_private(self._paths.starting(self.name), json.dumps(record))
            await self._answers(log, begin)
        except BaseException:
            await self.stop()
            raise
        self._process = psutil.Process(self._child.pid)
        self._paths.starting(self.name).replace(self._paths.record(self.name))

    async def stop(self) -> None:
        """Ends it; no request is spared."""
        process = self._process
        if self._child is not None and self._child.poll() is None:
            process = psutil.Process(self._child.pid)
        if process is not None and _runs(process):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                if await self._gone(process):
                    break
        if self._child is not None:
            self._child.wait()
        self._process = self._child = None
        for path in (self._paths.record(self.name), self._paths.starting(self.name), self._paths.config(self.name)):
            path.unlink(missing_ok=True)
        for kind in ("admin", "in", "park", "hold", "again", "lost"):
            self._paths.socket(self.name, kind).unlink(missing_ok=True)

    def let_finish(self) -> None:
        """It ends by itself once its connections are over."""
        if self._process is not None and _runs(self._process):
            self._process.send_signal(signal.SIGUSR1)

    def forget(self) -> None:
        """Lets go of it: it goes on."""
        if self._child is not None:
            _let_go.append(self._child)
        self._child = None

    def rotate_log(self) -> None:
        """Keeps the log bounded. HAProxy writes with O_APPEND, so that it goes on at the new beginning."""
        log = self._paths.log(self.name)
        with contextlib.suppress(OSError):
            if log.stat().st_size > LOG_BYTES:
                log.with_suffix(".log.1").write_bytes(log.read_bytes()[-LOG_BYTES:])
                os.truncate(log, 0)

    async def _answers(self, log: Path, begin: int) -> None:
        assert self._child is not None  # noqa: S101 - just started
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        while self._child.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                raise OperationFailed(f"haproxy ({self.name}) does not answer within {START_SECONDS:g} s")
            with contextlib.suppress(RuntimeUnavailable):
                if f"Pid: {self._child.pid}" in await self.admin.run("show info"):
                    return
            await asyncio.sleep(0.01)
        said = _tail(log, begin)
        if "Address already in use" in said:
            raise Conflict(said)
        raise OperationFailed(f"haproxy ({self.name}) did not start: {said}")

    async def _gone(self, process: psutil.Process) -> bool:
        deadline = asyncio.get_running_loop().time() + STOP_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            if self._child is not None:
                self._child.poll()
            for child in _let_go:
                child.poll()
            if not _runs(process):
                return True
            await asyncio.sleep(0.01)
        return False


def _tail(log: Path, begin: int) -> str:
    return log.read_bytes()[begin:][-TAIL_BYTES:].decode(errors="replace").strip()


def _recorded(record: Path) -> psutil.Process | None:
    """The process that a record names, if it still runs."""
    try:
        told = json.loads(record.read_bytes())
        process = psutil.Process(int(told["pid"]))
        return process if is_running(process.pid, str(told["mark"])) else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, for the owner only."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def sockets_directory(directory: Path) -> Path:
    """A directory for sockets whose paths keep within the system's limit, and which HAProxy takes as they are."""
    if (
        not set(",$") & set(str(directory))
        and len(os.fsencode(directory / "port-65535.admin.1234567.tmp")) <= SOCKET_PATH_BYTES
    ):
        return directory
    digest = sha256(os.fsencode(directory.absolute())).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"aks-inference-{os.getuid()}-{digest}"
