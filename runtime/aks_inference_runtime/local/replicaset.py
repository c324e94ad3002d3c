"""The replicas of one template: as many as wanted, restarted with back-off, given up when they never start."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from aks_inference_runtime.api.endpoint import EndpointVersion, Resources
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.local import logs
from aks_inference_runtime.local.apps import CodeStore, build_app_root, builds, remove_unused, unchanged
from aks_inference_runtime.local.capacity import Machine, room, why_not
from aks_inference_runtime.local.environments import BuiltEnvironment, EnvironmentStore
from aks_inference_runtime.local.files import remove_tree
from aks_inference_runtime.local.models import ModelStore
from aks_inference_runtime.local.records import StatePaths
from aks_inference_runtime.local.replica import Replica, ReplicaPlan, start
from aks_inference_runtime.router.gate.settings import Reported
from aks_inference_runtime.scoring.server import INIT_EXIT_CODE, start_deadline_s

MAX_START_FAILURES = 3
"""In a row, before any replica of the template was ever ready: then it is given up (Failed)."""
FIRST_BACK_OFF_S = 0.5
MAX_BACK_OFF_S = 30.0
STEADY_S = 10.0
"""A replica that was ready that long and dies is replaced at once."""
LOST_DRAIN_S = 1.0
"""For the gate of a replica that died to answer those who waited for it."""
DRAIN_AGAIN_S = 1.0
"""After the router could not be told that a replica leaves (a full disk)."""
LOG_TAIL_LINES = 40
SLOW_START_S = 10.0
"""From then on a replica that is not ready yet is named, with what it said last: its init() may hang."""
MEMORY_S = 0.5
"""Between looks at the memory of replicas that have a limit."""
_log = logging.getLogger(__name__)


@dataclass
class Host:
    """What replica sets share: stores, the machine, who asks for how much, how to start and drain."""

    paths: StatePaths
    environments: EnvironmentStore
    models: ModelStore
    codes: CodeStore
    machine: Machine
    used: Callable[[], list[Resources]]
    starting: Callable[[], int]
    """Replicas on the whole machine that were started a moment ago and are not ready yet."""
    drain: Callable[[Replica, float], Coroutine[None, None, None]]
    """Takes a replica off the router and waits for its requests, at most so many seconds."""
    reported: Callable[[], Reported]
    """What gates tell of requests now."""

    def room(self, request: Resources) -> int:
        """How many more replicas fit."""
        return room(self.machine, self.used(), request)

    def busy_starting(self) -> bool:
        """Whether another start had better wait: many side by side are all ready late."""
        return self.starting() >= max(1, int(1.5 * self.machine.cpu_cores))


class ReplicaSet:
    """Replicas of one template of one version."""

    def __init__(
        self, endpoint: str, version: EndpointVersion, template: str, host: Host, changed: Callable[[], None]
    ) -> None:
        self.endpoint = endpoint
        self.version = version
        self.template = template
        self.replicas: dict[str, Replica] = {}
        self.failed = ""
        self.unschedulable = ""
        self.message = ""
        self.ever_ready = False
        self.troubled = False
        """A replica died, or did not start or answer, and none was ready since."""
        self._last_lost = ""
        self.restarts = 0
        self._host = host
        self._changed = changed
        self._failures = 0
        self._not_before = 0.0
        self._weighed = 0.0
        self._environment: BuiltEnvironment | None = None
        self._app_root: Path | None = None
        """Where the next replica finds code and models."""
        self._preparation: asyncio.Task[None] | None = None
        self._stopping: dict[str, asyncio.Task[None]] = {}

    @property
    def _base(self) -> Path:
        """The first of the folders in which its replicas find code and models."""
        return self._host.paths.apps / self.endpoint / self.version.name / self.template

    def serving(self) -> list[Replica]:
        """Those that are meant to take requests, ready or not yet."""
        return [replica for replica in self.replicas.values() if not replica.draining and not replica.dead]

    @property
    def ready(self) -> int:
        """How many take requests now."""
        return sum(replica.ready for replica in self.serving())

    @property
    def backing_off(self) -> bool:
        """Whether it waits before it starts the next one."""
        return time.monotonic() < self._not_before

    def trouble(self) -> str:
        """What a person should know of it while it does not serve as it should."""
        lost = self._last_lost if self.troubled else ""
        return self.failed or self.unschedulable or self.message or lost or self.slow_start()

    def slow_start(self) -> str:
        """Of the replica that has been starting for long: which, how long (in tens of seconds), what it said last."""
        now = time.monotonic()
        for replica in sorted(self.serving(), key=lambda replica: replica.started):
            seconds = now - replica.started
            if replica.ready_since is None and seconds >= SLOW_START_S:
                said = logs.tail(replica.record.log, 1)
                return (
                    f"replica {replica.id} has been starting for {seconds - seconds % 10:.0f} s and is given up after "
                    f"{start_deadline_s(self.version.liveness_probe):g} s; "
                    + (f"the last line of its log: {said[0].strip()[:300]}" if said else "it has logged nothing")
                )
        return ""

    def forgive(self) -> None:
        """Declared anew: what failed may be tried again."""
        self.failed = ""
        self._failures = 0
        self._not_before = 0.0

    def reconcile(self, wanted: int) -> None:
        """One step towards a number of replicas; returns at once, the rest happens in the background."""
        self.collect()
        self.ever_ready = self.ever_ready or self.ready > 0
        self.troubled = self.troubled and self.ready == 0 and wanted > 0
        serving = self.serving()
        for replica in sorted(serving, key=lambda r: (r.ready, -r.started))[: max(0, len(serving) - wanted)]:
            self._retire(replica)
        missing = wanted - len(serving)
        self.unschedulable = ""
        if missing <= 0 or self.failed or self.backing_off or not self.prepared():
            return
        if self._app_root is None or not unchanged(self._app_root):
            self._prepare()
            return
        for _ in range(missing):
            if self._host.room(self.version.resources) < 1:
                self.unschedulable = why_not(self._host.machine, self._host.used(), self.version.resources)
                return
            if self._host.busy_starting() or not self._start():
                return

    def abandon(self) -> None:
        """Nothing of it is wanted any more."""
        if self._preparation is not None:
            self._preparation.cancel()
        for folder in builds(self._base):
            remove_tree(folder)

    async def close(self, drain_s: float | None) -> None:
        """Ends all replicas, those that drain included; with None lets them go on by themselves."""
        if self._preparation is not None:
            self._preparation.cancel()
            await asyncio.gather(self._preparation, return_exceptions=True)
        if drain_s is None:
            for task in self._stopping.values():
                task.cancel()
            await asyncio.gather(*self._stopping.values(), return_exceptions=True)
            await asyncio.gather(*(replica.detach() for replica in self.replicas.values()))
            return
        for replica in list(self.replicas.values()):
            self._retire(replica, drain_s)
        if self._stopping:
            _, late = await asyncio.wait(self._stopping.values(), timeout=drain_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.gather(*(replica.stop(self._host.paths) for replica in list(self.replicas.values())))
        self.replicas.clear()

    def adopted(self, replica: Replica) -> None:
        """A replica that runs since before the supervisor's restart."""
        self.replicas[replica.id] = replica

    def prepared(self) -> bool:
        """Whether environment and app root are there; begins to make them if not."""
        environment, app_root = self._environment, self._app_root
        if environment is not None and environment.usable and app_root is not None and app_root.is_dir():
            return True
        self._prepare()
        return False

    def _prepare(self) -> None:
        if self._preparation is None:
            self._preparation = asyncio.create_task(self._preparing())

    async def _preparing(self) -> None:
        try:
            packages = self.version.environment.pip_packages
            self._environment = await self._host.environments.get(packages, self._tell)
            stores = self._host.models, self._host.codes
            self._app_root = await asyncio.to_thread(build_app_root, self._base, self.version, *stores)
            self.message = ""
        except (AksInferenceError, OSError) as error:
            self.failed = str(error)
        finally:
            self._preparation = None
            self._changed()

    def _tell(self, message: str) -> None:
        self.message = message

    def _start(self) -> bool:
        assert self._environment is not None  # noqa: S101 - reconcile asks prepared first
        assert self._app_root is not None  # noqa: S101 - as above
        plan = ReplicaPlan(self.endpoint, self.version, self.template, self._environment, self._app_root)
        try:
            replica = start(plan, self._host.paths, self._changed, self._host.reported)
        except (OSError, AksInferenceError) as error:
            self._failure(f"a replica cannot be started: {error}")
            return False
        self.replicas[replica.id] = replica
        folder = replica.record.log.parent
        logs.prune(folder, {path.stem for path in folder.glob("*.log") if path.stem in self.replicas})
        return True

    def collect(self) -> bool:
        """Looks after those that died, never started, or do not answer any more; whether there were any."""
        lost = len(self._stopping)
        probe = self.version.liveness_probe
        now = time.monotonic()
        self._weigh(now)
        for replica in list(self.replicas.values()):
            if replica.id in self._stopping:
                continue
            if not replica.dead and replica.ready_since is None and now - replica.started > start_deadline_s(probe):
                replica.reason = f"never healthy within {start_deadline_s(probe):g} s"
                self._failures = MAX_START_FAILURES
                self._lost(replica)
            elif replica.dead:
                self._lost(replica)
            elif replica.hung:
                replica.say("hung: no answer to what it was given, long after the scoring timeout")
                self._lost(replica)
            elif replica.unready_since and now - replica.unready_since > probe.period_seconds * probe.failure_threshold:
                replica.reason = "did not answer any more"
                self._lost(replica)
        return len(self._stopping) > lost

    def _weigh(self, now: float) -> None:
        """Ends replicas that use more memory than they may."""
        limit = self.version.resources.memory_gb_limit
        if limit is None or now - self._weighed < MEMORY_S:
            return
        self._weighed = now
        for replica in list(self.replicas.values()):
            if replica.dead or (used := replica.memory_gb(limit)) <= limit:
                continue
            replica.say(f"OOMKilled: it uses {used:.2f} GB of memory; memory_gb_limit is {limit:g}")
            if replica.id in self._stopping:
                replica.kill_server()
            else:
                self._lost(replica, steady=False)

    def _lost(self, replica: Replica, *, steady: bool = True) -> None:
        tail = "\n".join(logs.tail(replica.record.log, LOG_TAIL_LINES))
        reason = replica.reason
        if replica.exit_code == INIT_EXIT_CODE and replica.ready_since is None:
            reason += ": the entry script failed at import or in init()"
        _log.warning("replica %s: %s", replica.id, reason)
        self._stop(replica, None)
        self.restarts += 1
        self.troubled = True
        self._last_lost = f"replica {replica.id}: {reason}; another one is started"
        if steady and replica.ready_since is not None and time.monotonic() - replica.ready_since >= STEADY_S:
            self._failures = 0
            return
        self._failure(f"replica {replica.id}: {reason}\n{tail}")

    def _failure(self, text: str) -> None:
        self._failures += 1
        self.troubled = True
        self._not_before = time.monotonic() + min(MAX_BACK_OFF_S, FIRST_BACK_OFF_S * 2 ** (self._failures - 1))
        self.message = text
        if not self.ever_ready and self._failures >= MAX_START_FAILURES:
            self.failed = text

    def _retire(self, replica: Replica, drain_s: float | None = None) -> None:
        """Takes no new request; ends when it has finished those it has, or when none can be left."""
        if replica.id not in self._stopping:
            replica.draining = True
            requests = self.version.requests
            longest = (requests.scoring_timeout_ms + requests.max_request_wait_time) / 1_000 + 5
            self._stop(replica, longest if drain_s is None else drain_s)

    def _stop(self, replica: Replica, drain_s: float | None) -> None:
        async def end() -> None:
            seconds = LOST_DRAIN_S if drain_s is None else drain_s
            while not await self._drained(replica, seconds):  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(DRAIN_AGAIN_S)
            await replica.stop(self._host.paths)
            self.replicas.pop(replica.id, None)
            await asyncio.to_thread(remove_unused, self._base, self._used_roots())
            self._changed()

        if drain_s is None:
            replica.dead, replica.ready = True, False
            replica.kill_server()
        task = asyncio.create_task(end(), name=f"stop {replica.id}")
        self._stopping[replica.id] = task
        task.add_done_callback(lambda done: self._stopped(replica.id, done))
        self._changed()

    def _used_roots(self) -> set[Path]:
        used = {replica.record.app_root or self._base for replica in self.replicas.values()}
        return used if self._app_root is None else {*used, self._app_root}

    async def _drained(self, replica: Replica, seconds: float) -> bool:
        try:
            await self._host.drain(replica, seconds)
        except (AksInferenceError, OSError) as error:
            # The router still sends it requests, which would be lost.
            _log.warning("replica %s cannot leave yet: %s", replica.id, error)
            return False
        return True

    def _stopped(self, replica: str, task: "asyncio.Task[None]") -> None:
        self._stopping.pop(replica, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("replica %s could not be stopped in order", replica, exc_info=error)
