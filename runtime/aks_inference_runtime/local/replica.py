"""One replica: the scoring server and its gate, two processes that live and die together."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.endpoint import EndpointVersion
from aks_inference_runtime.api.errors import OperationFailed, RuntimeUnavailable
from aks_inference_runtime.api.status import ReplicaState, ReplicaStatus
from aks_inference_runtime.local import limits
from aks_inference_runtime.local.environments import BuiltEnvironment
from aks_inference_runtime.local.files import write_wire
from aks_inference_runtime.local.process import REPLICA_VARIABLE, STATE_VARIABLE, ManagedProcess
from aks_inference_runtime.local.records import ReplicaRecord, StatePaths
from aks_inference_runtime.router.gate.address import Address
from aks_inference_runtime.router.gate.client import GateClient
from aks_inference_runtime.router.gate.settings import GateSettings, Reported
from aks_inference_runtime.router.model import ReplicaTarget
from aks_inference_runtime.scoring.server import MODEL_DATA_SCRIPT, collecting, command, variables

STARTING_POLL_S = 0.05
RUNNING_POLL_S = 0.25
STOP_GRACE_S = 5.0
GATE_GRACE_S = 2.0
HUNG_AFTER_S = 30.0
"""The scoring server ends a score a second after its timeout; a library that does not return may take longer."""
JUST_STARTED_S = 5.0
"""A start takes about a second of one core; what takes longer loads a model and must not hold up others."""
_BACKLOG = 2_048
_INHERITED = frozenset(
    {"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
)
"""Of the supervisor's variables those that a model may need; the others may hold secrets."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplicaPlan:
    """What a new replica runs."""

    endpoint: str
    version: EndpointVersion
    template: str
    environment: BuiltEnvironment
    app_root: Path


class Replica:
    """A running replica as the supervisor sees it."""

    def __init__(
        self,
        record: ReplicaRecord,
        server: ManagedProcess,
        gate: ManagedProcess,
        changed: Callable[[], None],
        reported: Callable[[], Reported],
        told: Reported | None,
    ) -> None:
        """`reported`: what its gate is to tell of requests; `told`: what it was told to; None: that is not known."""
        self.record = record
        self.id = record.id
        self.ready = False
        self.draining = False
        self.dead = False
        self.hung = False
        """Nothing that it was given comes back, long after the scoring timeout."""
        self.heard = False
        """Its gate has answered once, so that its address can be told."""
        self.running = 0
        self.started = time.monotonic()
        self.ready_since: float | None = None
        self.unready_since: float | None = None
        self.reason = ""
        self._server = server
        self._gate = gate
        self._changed = changed
        self._reported = reported
        self._told = told
        self._wake = asyncio.Event()
        self._watch = asyncio.create_task(self._watching(), name=f"watch {self.id}")

    @property
    def exit_code(self) -> int | None:
        """Of the scoring server, where it is known."""
        return self._server.exit_code

    @property
    def just_started(self) -> bool:
        """Whether it was started a moment ago and is not ready yet."""
        young = time.monotonic() - self.started < JUST_STARTED_S
        return self.ready_since is None and young and not self.dead

    def target(self) -> ReplicaTarget | None:
        """As the router is told, until its processes are gone; None until its gate has answered."""
        if not self.heard:
            return None
        return ReplicaTarget(
            id=self.id,
            host="",
            port=0,
            control=self.record.control,
            ready=self.ready and not self.draining and not self.dead,
            path=gate_socket(self.record),
        )

    def status(self, restarts: int) -> ReplicaStatus:
        """As it is reported, with how many of its kind were replaced so far."""
        if self.draining:
            state = ReplicaState.DRAINING
        elif self.ready:
            state = ReplicaState.READY
        else:
            state = ReplicaState.STARTING if self.ready_since is None else ReplicaState.UNREADY
        return ReplicaStatus(
            id=self.id,
            state=state,
            restarts=restarts,
            address=str(gate_socket(self.record)) if self.heard else "",
            reason=self.reason,
        )

    async def stop(self, paths: StatePaths) -> None:
        """Ends both processes and removes what belongs to it, the log excepted."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        self.dead = True
        await self._server.stop(STOP_GRACE_S)
        # After the server: the gate still has to tell those who waited for it.
        await self._gate.stop(GATE_GRACE_S)
        remove_files(self.record, paths)

    def memory_gb(self, enough_gb: float) -> float:
        """What the scoring server's processes use; exact above `enough_gb`."""
        return limits.memory_gb(self._server.pid, enough_gb)

    def say(self, reason: str) -> None:
        """Why it ends: in its state, and in its log."""
        self.reason = reason
        with contextlib.suppress(OSError), self.record.log.open("a") as log:
            log.write(f"{reason}\n")

    def kill_server(self) -> None:
        """Ends what is left of the scoring server; the gate then answers for it."""
        self._server.signal(signal.SIGKILL)

    async def detach(self) -> None:
        """Stops looking at it; it goes on."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)

    async def _watching(self) -> None:
        client = GateClient(self.record.control)
        with _exit_events((self._server.pid, self._gate.pid), self._wake):
            while True:
                self._wake.clear()
                if not self._both_alive():
                    break
                await self._look(client)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RUNNING_POLL_S if self.ready else STARTING_POLL_S):
                        await self._wake.wait()
        self.dead, self.ready = True, False
        self._changed()

    def _both_alive(self) -> bool:
        if not self._server.alive():
            code = self._server.exit_code
            self.reason = "the scoring server ended" + ("" if code is None else f" with exit code {code}")
            return False
        if not self._gate.alive():
            self.reason = "its gate ended"
            return False
        return True

    async def _look(self, client: GateClient) -> None:
        try:
            status = await client.status()
        except RuntimeUnavailable:
            ready, heard = False, self.heard  # a gate that starts has no socket yet
        else:
            ready, heard = status.ready, True
            self.running = status.running
            if status.hung and not self.hung:
                self.hung = True
                self._changed()
            await self._tell(client)
        if (ready, heard) == (self.ready, self.heard):
            return
        now = time.monotonic()
        self.ready, self.heard = ready, heard
        if ready:
            self.ready_since = self.ready_since or now
            self.unready_since = None
        elif self.ready_since is not None:
            self.unready_since = self.unready_since or now
        self._changed()

    async def _tell(self, client: GateClient) -> None:
        wanted = self._reported()
        if wanted == self._told:
            return
        try:
            await client.report(wanted)
        except RuntimeUnavailable:
            return  # the next look tries again
        except OperationFailed as error:
            # A gate of an earlier release, which tells nobody; the replica after this one does as it is told.
            if wanted.access_log or wanted.otlp_endpoint is not None:
                _log.warning("%s", error)
        self._told = wanted


def start(
    plan: ReplicaPlan, paths: StatePaths, changed: Callable[[], None], reported: Callable[[], Reported]
) -> Replica:
    """Starts both processes. Raises OSError or OperationFailed (the record cannot be written)."""
    number = secrets.token_hex(5)
    replica = f"{plan.version.name}-{number}"
    folder = paths.logs / plan.endpoint / plan.version.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = ReplicaRecord(
        id=replica,
        endpoint=plan.endpoint,
        version=plan.version.name,
        template=plan.template,
        control=paths.run / f"{number}.sock",
        log=folder / f"{replica}.log",
        app_root=plan.app_root,
    )
    # Before the processes: whatever happens next, the record or their mark leads to them.
    write_wire(record_path(paths, replica), record, then="")
    server = gate = None
    told = reported()
    try:
        with Address(server_socket(record)).listen(_BACKLOG) as listener:
            server = _start_server(plan, record, paths, listener)
            gate = _start_gate(plan, record, paths, told)
        record = record.model_copy(
            update={
                "server_pid": server.pid,
                "server_mark": server.mark,
                "gate_pid": gate.pid,
                "gate_mark": gate.mark,
            }
        )
        write_wire(record_path(paths, replica), record, then="")
    except BaseException:
        for process in (server, gate):
            if process is not None:
                process.signal(signal.SIGKILL)
                process.alive()
        remove_files(record, paths)
        raise
    return Replica(record, server, gate, changed, reported, told)


def adopt(record: ReplicaRecord, changed: Callable[[], None], reported: Callable[[], Reported]) -> Replica | None:
    """The replica of a record when both of its processes still run."""
    server = ManagedProcess(record.server_pid, record.server_mark)
    gate = ManagedProcess(record.gate_pid, record.gate_mark)
    if not (server.alive() and gate.alive()):
        return None
    return Replica(record, server, gate, changed, reported, None)


def record_path(paths: StatePaths, replica: str) -> Path:
    """The record's file."""
    return paths.replicas / f"{replica}.json"


def gate_path(paths: StatePaths, replica: str) -> Path:
    """The file with the gate's settings."""
    return paths.replicas / f"{replica}.gate"


def record_number(record: ReplicaRecord) -> int:
    """The random number in its id."""
    return int(record.control.stem, 16)


def gate_socket(record: ReplicaRecord) -> Path:
    """Where the gate takes requests."""
    return record.control.with_suffix(".in")


def server_socket(record: ReplicaRecord) -> Path:
    """Where the scoring server takes them from the gate."""
    return record.control.with_suffix(".app")


def remove_files(record: ReplicaRecord, paths: StatePaths) -> None:
    """All files of a replica but its log."""
    sockets = (record.control, gate_socket(record), server_socket(record))
    for path in (*sockets, gate_path(paths, record.id), record_path(paths, record.id)):
        path.unlink(missing_ok=True)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a replica gets of the supervisor's environment."""
    return {name: value for name, value in environment.items() if name in _INHERITED or name.startswith("LC_")}


def _marks(record: ReplicaRecord, paths: StatePaths) -> dict[str, str]:
    return {STATE_VARIABLE: str(paths.root), REPLICA_VARIABLE: record.id}


def _start_server(
    plan: ReplicaPlan, record: ReplicaRecord, paths: StatePaths, listener: socket.socket
) -> ManagedProcess:
    # The socket is bound here and handed on: who connects while the server starts waits instead of being refused, and
    # the address is gone with the last of its processes.
    descriptor = listener.fileno()
    told = variables(plan.endpoint, plan.version, plan.app_root, plan.environment.server_version)
    environment = (
        inherited(os.environ)
        | told
        | collecting(plan.version, told, MODEL_DATA_SCRIPT)
        | {"VIRTUAL_ENV": str(plan.environment.folder)}
        | _marks(record, paths)
    )
    environment["PATH"] = f"{plan.environment.folder / 'bin'}{os.pathsep}{environment.get('PATH', os.defpath)}"
    arguments = command(plan.environment.python, f"fd://{descriptor}", plan.version)
    with limits.cores(plan.version.resources.cpu_cores_limit, record_number(record)):
        return ManagedProcess.start(arguments, environment, plan.app_root, record.log, (descriptor,))


def _start_gate(plan: ReplicaPlan, record: ReplicaRecord, paths: StatePaths, told: Reported) -> ManagedProcess:
    settings = GateSettings(
        **told.model_dump(),
        replica_id=record.id,
        endpoint=plan.endpoint,
        version=plan.version.name,
        listen_path=gate_socket(record),
        upstream_path=server_socket(record),
        max_concurrent=plan.version.requests.replica_max_concurrent_requests,
        scoring_timeout_ms=plan.version.requests.scoring_timeout_ms,
        queue_timeout_ms=plan.version.requests.max_request_wait_time,
        hung_after_ms=round(HUNG_AFTER_S * 1_000),
        control=record.control,
    )
    path = gate_path(paths, record.id)
    write_wire(path, settings, then="")
    arguments = [sys.executable, "-P", "-m", "aks_inference_runtime.router.gate", str(path)]
    return ManagedProcess.start(arguments, inherited(os.environ) | _marks(record, paths), paths.root, record.log)


@contextlib.contextmanager
def _exit_events(pids: tuple[int, ...], wake: asyncio.Event) -> Iterator[None]:
    """Sets the event as soon as one of the processes ends, where the system can tell (Linux)."""
    loop = asyncio.get_running_loop()
    descriptors: list[int] = []
    try:
        if hasattr(os, "pidfd_open"):
            for pid in pids:
                with contextlib.suppress(OSError):
                    descriptor = os.pidfd_open(pid)
                    descriptors.append(descriptor)
                    loop.add_reader(descriptor, _ended, loop, descriptor, wake)
        yield
    finally:
        for descriptor in descriptors:
            loop.remove_reader(descriptor)
            os.close(descriptor)


def _ended(loop: asyncio.AbstractEventLoop, descriptor: int, wake: asyncio.Event) -> None:
    loop.remove_reader(descriptor)  # it stays readable for ever
    wake.set()
