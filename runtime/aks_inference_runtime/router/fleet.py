"""The router's HAProxy processes: the first, those with further slots, one per endpoint with a port of its own."""

import asyncio
import json
import logging
import re
import resource
from asyncio import CancelledError
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from aks_inference_runtime.api.errors import AksInferenceError, Conflict, OperationFailed
from aks_inference_runtime.router import config, rooms
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.generation import generation
from aks_inference_runtime.router.listener import begun
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.peers import OWNER_LAYOUT, Cluster
from aks_inference_runtime.router.process import HaproxyProcess, sockets_directory, write_private
from aks_inference_runtime.router.slots import MAX_PROCESSES, Layout, layout_for
from aks_inference_runtime.router.tls import Tls
from aks_inference_runtime.router.watchdog import Watchdog

FINISH_LOOK_S = 0.05
SILENT_S = 3.0
"""A process that runs and has answered nothing for so long is told of. A busy one answers within milliseconds."""
OURS = re.compile(
    r"(p|port-)\d+\.(cfg|json|starting|layout|routes|ready|retry|gone|answers|pem|log|admin|in|park|hold|again|lost)(\.1|\.new)?"
)
"""Names of files that this package makes in the router's directory."""

log = logging.getLogger(__name__)


def _layouts(directory: Path) -> list[Path]:
    return list(directory.glob("*.layout"))


async def end_left(directory: Path) -> None:
    """Ends what another agent has left that kept the sockets of its processes: there is nobody to share them with."""
    paths = Paths(directory, sockets_directory(directory))
    for layout in _layouts(directory):
        process = HaproxyProcess(paths, layout.stem, "")
        await process.attach()
        await process.stop()
        layout.unlink(missing_ok=True)


class Fleet:
    """Starts, finds, restarts and ends them."""

    def __init__(
        self,
        paths: Paths,
        host: str,
        port: int,
        binary: str,
        layout: Layout,
        cluster: Cluster | None = None,
        *,
        tokens: bool = False,
        tls: Tls | None = None,
    ) -> None:
        self.paths = paths
        self._tls = tls
        self._tokens = tokens
        self.cluster = cluster
        """Where several routers share the work: then the first process has no slots."""
        self.layouts: dict[int, Layout] = {}
        self.ports: dict[str, int] = {}
        self.port_problems: dict[str, str] = {}
        """Why an endpoint is not served at its own port, by endpoint."""
        self._wanted_ports: Mapping[str, int] = {}
        self._host = host
        self._port = port
        self._binary = binary
        self._first = layout if cluster is None else Layout(())
        self._processes: dict[str, HaproxyProcess] = {}
        self._finishing = False
        self._closed = False
        """The first process takes no connections of clients yet."""
        self._watching: asyncio.Task[None] | None = None
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        self._connections = rooms.connections(None if hard == resource.RLIM_INFINITY else hard)

    def admin(self, process: int) -> AdminSocket:
        """The runtime API of a process with slots."""
        return self._processes[f"p{process}"].admin

    def admins(self) -> Mapping[str, AdminSocket]:
        """Of all that run, by name."""
        return {name: process.admin for name, process in self._processes.items() if process.alive}

    def first(self) -> AdminSocket:
        """The runtime API of the process that clients reach."""
        return self.admin(0)

    def first_is_dead(self) -> bool:
        """Whether that process is to be started again: it will begin with its files."""
        return "p0" in self.dead()

    def pid(self, process: int) -> int | None:
        """Of a process with slots."""
        return self._processes[f"p{process}"].pid

    @property
    def permanent(self) -> int:
        """The processes with lower numbers stay when nothing uses their slots: others reach them."""
        return 1 if self.cluster is None else 2

    @property
    def further(self) -> frozenset[int]:
        """The processes with higher numbers that there are."""
        return frozenset(number for number in self.layouts if number >= self.permanent)

    def dead(self) -> list[str]:
        """Names of processes that should run and do not."""
        names = [name for name, process in self._processes.items() if not process.alive]
        return [name for name in names if not (self._finishing and name == "p0")]

    def problems(self, uses: Iterable[tuple[str, int]]) -> dict[str, str]:
        """What keeps endpoints from being served, by endpoint. `uses`: each with the processes that have its slots."""
        ways = {(endpoint, f"p{process}") for endpoint, process in uses}
        ways |= {(endpoint, "p0") for endpoint, _ in ways} | {(e, f"port-{port}") for e, port in self.ports.items()}
        # The first process last: it is everybody's way.
        silent = {endpoint: self._silent(name) for endpoint, name in sorted(ways, reverse=True) if self._silent(name)}
        return self.port_problems | silent

    def _silent(self, name: str) -> str:
        process = self._processes.get(name)
        if process is None or not process.alive or process.admin.silent_s < SILENT_S:
            return ""
        mend = "once that process ends, it is started anew"
        return f"the router does not answer (haproxy {name}, pid {process.pid}); {mend}"

    async def begin(self) -> bool:
        """Takes over what runs already (True), else starts the first process. Raises Conflict for a port in use."""
        if self.cluster is not None:
            self._watching = asyncio.create_task(Watchdog(self._processes.values).run())
        if await self._attach("p0"):
            for number in range(1, MAX_PROCESSES):
                if self._record(f"p{number}") is not None and not await self._attach(f"p{number}"):
                    await self._restart_recorded(f"p{number}")
            for name in [path.stem for path in _layouts(self.paths.directory) if path.stem.startswith("port-")]:
                if not await self._attach(name):
                    # Whoever has its port meanwhile holds nobody else up.
                    await self._end_recorded(name)
            return True
        for path in _layouts(self.paths.directory):
            # The first process is gone: whatever else is left belongs to nobody.
            await self._end_recorded(path.stem)
        for kind in ("routes", *config.HINTS):
            write_private(self.paths.directory / f"p0.{kind}", "")
        await self._start_slots(0, self._first)
        if self.cluster is not None:
            # Who knows no endpoint yet would answer 404; refused connections go to another router.
            await self.first().must([f"disable frontend {config.PUBLIC}"])
            self._closed = True
            for kind in ("routes", *config.HINTS):
                write_private(self.paths.directory / f"p1.{kind}", "")
            await self._start_slots(1, OWNER_LAYOUT)
        return False

    async def let_finish(self) -> None:
        """The first process takes no new connections; it ends when those that it has are over, idle ones at once."""
        self._finishing = True
        if (first := self._processes.get("p0")) is not None:
            first.let_finish()
        # Who asked before may have ended it meanwhile.
        while (first := self._processes.get("p0")) is not None and first.alive:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(FINISH_LOOK_S)

    async def add_slots(self, missing: Mapping[int, int]) -> None:
        """Starts a further process with slots for what is missing."""
        number = next((n for n in range(1, MAX_PROCESSES) if n not in self.layouts), None)
        if number is None:
            raise OperationFailed(f"more than {MAX_PROCESSES} router processes would be needed")
        for kind in config.HINTS:
            write_private(self.paths.directory / f"p{number}.{kind}", "")
        await self._start_slots(number, layout_for(missing, [self.layouts[other] for other in self.further]))

    async def end_slots(self, number: int) -> None:
        """Ends a further process that nothing uses."""
        await self._end(f"p{number}")
        del self.layouts[number]

    async def set_ports(self, wanted: Mapping[str, int]) -> None:
        """One process per endpoint with a port; others are ended. `port_problems` has what keeps one from starting.

        What is served is known by now: the first process takes connections.
        """
        if self._closed:
            await self.first().must([f"enable frontend {config.PUBLIC}"], accept=("already enabled",))
            self._closed = False
        self._wanted_ports = dict(wanted)
        for endpoint, port in list(self.ports.items()):
            if wanted.get(endpoint) != port:
                await self._end(f"port-{port}")
                del self.ports[endpoint]
        for endpoint in self.port_problems.keys() - wanted.keys():
            del self.port_problems[endpoint]
        await self.start_ports()

    async def start_ports(self) -> None:
        """Starts those that are wanted and could not be started."""
        for endpoint, port in self._wanted_ports.items():
            if endpoint not in self.ports:
                try:
                    await self._start_port(endpoint, port)
                except (AksInferenceError, OSError) as error:
                    self._note_port(endpoint, str(error))
                else:
                    self._note_port(endpoint, None)

    async def restart(self, name: str) -> None:
        """Starts a process anew, as it was."""
        endpoint = next((e for e, port in self.ports.items() if name == f"port-{port}"), None)
        try:
            await self._run(name, self._processes[name])
        except (AksInferenceError, OSError) as error:
            told = self._told(error, self._port if endpoint is None else self.ports[endpoint])
            if endpoint is not None:
                self._note_port(endpoint, str(told))
            raise told from None
        if endpoint is not None:
            self._note_port(endpoint, None)

    def _note_port(self, endpoint: str, problem: str | None) -> None:
        before = self.port_problems.pop(endpoint, None)
        if problem is not None:
            self.port_problems[endpoint] = f"not served at its own port: {problem}"
        if (now := self.port_problems.get(endpoint)) != before:
            log.warning("endpoint %s: %s", endpoint, now or "is served at its own port again")

    async def stop(self) -> None:
        """Ends all and removes their files."""
        self._end_watching()
        for name in list(self._processes):
            await self._end(name)
        self.layouts.clear()
        self.ports.clear()
        self._wanted_ports = {}
        if self.paths.directory.is_dir():
            for path in self.paths.directory.iterdir():
                if OURS.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def detach(self) -> None:
        """Lets all go on."""
        self._end_watching()
        for process in self._processes.values():
            process.forget()

    def _end_watching(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

    def rotate_logs(self) -> None:
        """Keeps the logs bounded."""
        for process in self._processes.values():
            process.rotate_log()

    async def _start_slots(self, number: int, layout: Layout) -> None:
        name = f"p{number}"
        self.layouts[number] = layout
        self._write_record(name, {"timeouts_ms": list(layout.timeouts_ms)})
        process = HaproxyProcess(self.paths, name, self._binary)
        try:
            await self._run(name, process)
        except (AksInferenceError, OSError, CancelledError) as error:
            del self.layouts[number]
            self._layout_file(name).unlink(missing_ok=True)
            raise self._told(error, self._port) from None
        self._processes[name] = process

    async def _start_port(self, endpoint: str, port: int) -> None:
        name = f"port-{port}"
        self.ports[endpoint] = port
        process = HaproxyProcess(self.paths, name, self._binary)
        try:
            self._write_record(name, {"endpoint": endpoint, "port": port})
            await self._run(name, process)
        except BaseException as error:  # noqa: BLE001 - an entry without a process would break every later round
            del self.ports[endpoint]
            self._layout_file(name).unlink(missing_ok=True)
            raise self._told(error, port) from None
        self._processes[name] = process

    def _told(self, error: BaseException, port: int) -> BaseException:
        if isinstance(error, Conflict):
            return Conflict(f"port {port} on {self._host} is in use by another process; end it or give another port")
        return error

    async def _run(self, name: str, process: HaproxyProcess) -> None:
        shared = self.cluster.sockets.values() if self.cluster is not None and name == "p0" else ()
        await process.start(self._config(name), tuple(shared))

    def _config(self, name: str) -> str:
        if name == "p0":
            return config.first_process(
                self.paths,
                self._host,
                self._port,
                self.layouts[0],
                self._connections,
                self.cluster and replace(self.cluster, further=self.further),
                tokens=self._tokens,
                tls=self._tls and begun(self._tls, self.paths.certificate),
            )
        if name.startswith("p") and name[1:].isdigit():
            number = int(name[1:])
            return config.further_process(self.paths, number, self.layouts[number], self._connections, self.cluster)
        port = int(name.removeprefix("port-"))
        endpoint = next(e for e, p in self.ports.items() if p == port)
        return config.port_process(self.paths, name, self._host, port, endpoint, self._port, self._connections)

    async def _attach(self, name: str) -> bool:
        record = self._record(name)
        process = HaproxyProcess(self.paths, name, self._binary)
        if record is None or not await process.attach():
            return False
        self._adopt(name, record)
        self._processes[name] = process
        return True

    async def _restart_recorded(self, name: str) -> None:
        record = self._record(name)
        if record is None:
            return
        self._adopt(name, record)
        process = self._processes[name] = HaproxyProcess(self.paths, name, self._binary)
        await process.attach()
        await process.stop()
        await self._run(name, process)

    def _adopt(self, name: str, record: Mapping[str, object]) -> None:
        match record:
            case {"timeouts_ms": list(timeouts)}:
                self.layouts[int(name[1:])] = Layout(tuple(timeouts))
            case {"endpoint": str(endpoint), "port": int(port)}:
                self.ports[endpoint] = port

    async def _end_recorded(self, name: str) -> None:
        process = HaproxyProcess(self.paths, name, self._binary)
        await process.attach()
        await process.stop()
        self._layout_file(name).unlink(missing_ok=True)

    async def _end(self, name: str) -> None:
        # Known until it is gone: who is cancelled meanwhile leaves it to the next round.
        await self._processes[name].stop()
        del self._processes[name]
        self._layout_file(name).unlink(missing_ok=True)
        for kind in ("routes", *config.HINTS, "log", "log.1"):
            (self.paths.directory / f"{name}.{kind}").unlink(missing_ok=True)

    def _layout_file(self, name: str) -> Path:
        return self.paths.directory / f"{name}.layout"

    def _write_record(self, name: str, record: Mapping[str, object]) -> None:
        write_private(self._layout_file(name), json.dumps({"format": generation(), **record}))

    def _record(self, name: str) -> dict[str, object] | None:
        try:
            record = json.loads(self._layout_file(name).read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("format") == generation() else None
