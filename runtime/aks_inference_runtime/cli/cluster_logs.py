"""Logs of replicas on a cluster: which containers have one, and many read at once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from aks_inference_runtime.api.errors import AksInferenceError, NotFound, RuntimeUnavailable
from aks_inference_runtime.cli.loglines import LogLine
from aks_inference_runtime.kubernetes.client import Api, Object
from aks_inference_runtime.kubernetes.workloads import replica_pod

CONTAINER = "scoring"
_STATUSES = ("initContainerStatuses", "containerStatuses")
LOOK_S = 2.0
"""Between looks for new replicas while their logs are followed."""
MOST_FOLLOWED = 200
"""At once, each on a connection of its own: below the 256 open files that macOS lets a process have."""
MOST_WAITING = 10_000
"""Lines that may wait for who reads: a reader that is slower holds the streams up."""

Key = tuple[str, str, int, str]


@dataclass(frozen=True)
class Log:
    """Of a replica's container; or why a replica has none."""

    namespace: str
    name: str
    version: str
    container: str = CONTAINER
    restarts: int = 0
    unwell: bool = False
    waits: str = ""
    """Why no container of it has begun."""

    @property
    def path(self) -> str:
        """Where it is read."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/log"

    @property
    def key(self) -> Key:
        """Another one after each restart."""
        return self.name, self.container, self.restarts, self.waits

    def line(self, raw: str) -> LogLine:
        """With the container's name where it is not the one that scores."""
        time, _, line = raw.partition(" ")
        return LogLine(
            self.version, self.name, time, line if self.container == CONTAINER else f"[{self.container}] {line}"
        )


def logs_of(found: Object, version: str) -> list[Log]:
    """Of the container that scores, and of the one that holds it up: the gate, what fetches models or ships data."""
    status = found.get("status") or {}
    containers = {c["name"]: c for kind in _STATUSES for c in status.get(kind) or ()}
    pod = replica_pod(found)
    held = next((name for name, c in containers.items() if name != CONTAINER and _holds_up(c)), CONTAINER)
    troubled = pod.troubled if pod is not None and pod.trouble else held
    here = (str(found["metadata"]["namespace"]), str(found["metadata"]["name"]), version)
    logs = [
        Log(*here, name, int(containers[name].get("restartCount") or 0), not containers[name].get("ready"))
        for name in dict.fromkeys((CONTAINER, troubled))
        if name in containers and _began(containers[name])
    ]
    if logs:
        return logs
    waiting = (containers.get(troubled, {}).get("state") or {}).get("waiting") or {}
    why = (pod.unschedulable or pod.trouble if pod is not None else "") or waiting.get("reason") or "no container yet"
    return [Log(*here, troubled, waits=why)]


def _began(container: Object) -> bool:
    return (container.get("state") or {}).get("waiting") is None or bool(container.get("restartCount"))


def _holds_up(container: Object) -> bool:
    """One of those that are run before: neither through with it nor, as a sidecar, started."""
    ended = (container.get("state") or {}).get("terminated")
    return not container.get("started") if ended is None else ended.get("exitCode") != 0


class Streams:
    """The logs of several replicas, read at once."""

    def __init__(self, api: Api, tail: int, follow: bool, missed: Callable[[str], None]) -> None:
        """`missed`: is told of what cannot be read while the others go on."""
        self._api, self._tail, self._follow, self._missed = api, tail, follow, missed
        self._told: asyncio.Queue[LogLine | AksInferenceError | None] = asyncio.Queue(MOST_WAITING)
        """None: one of the readers has ended."""
        self._readers: dict[Key, asyncio.Task[None]] = {}
        self._failed: dict[Key, AksInferenceError] = {}
        """Until it can be read again."""
        self._last: dict[Key, str] = {}
        """When the last line was written that was passed on."""
        self._watch: asyncio.Task[None] | None = None
        self._open = 0
        self._any = self._full = False

    def begin(self, one: Log, *, ended: bool = False) -> None:
        """Reads a log, once, and again where it broke off; `ended`: also of its container before the last restart."""
        before = self._readers.get(one.key)
        if before is not None and not (before.done() and one.key in self._failed):
            return
        if self._follow and self._open >= MOST_FOLLOWED:
            if not self._full:
                self._missed(f"{MOST_FOLLOWED} replicas are followed at once, others as those end: name a --version")
            self._full = True
            return
        # What a container writes that started while it is followed is new as a whole.
        again = any(key[:2] == one.key[:2] and key != one.key and not key[3] for key in self._readers)
        tail = None if again else self._tail
        self._readers[one.key] = asyncio.create_task(self._read(one, tail, ended and one.restarts > 0))
        self._open += 1

    def watch(self, look: Callable[[], Awaitable[Sequence[Log]]]) -> None:
        """Reads those that come, too."""
        self._watch = asyncio.create_task(self._look(look))

    async def lines(self) -> AsyncIterator[LogLine]:
        """Until all have ended; while it is watched for new ones, without an end. Raises where none can be read."""
        while self._open or self._watch is not None:
            told = await self._told.get()
            if isinstance(told, AksInferenceError):
                raise told
            if told is not None:
                yield told
                continue
            self._open -= 1
            if not self._open and not self._any and self._failed:
                raise next(iter(self._failed.values()))

    async def close(self) -> None:
        """Ends all."""
        tasks = [*self._readers.values(), *([self._watch] if self._watch is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, look: Callable[[], Awaitable[Sequence[Log]]]) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for one in await look():
                    self.begin(one)
            except RuntimeUnavailable:
                continue  # what is read goes on
            except AksInferenceError as error:
                await self._told.put(error)

    async def _read(self, one: Log, tail: int | None, ended: bool) -> None:
        query = {"container": one.container, "timestamps": "true"}
        if since := self._last.get(one.key):
            query["sinceTime"] = since
        elif tail is not None:
            query["tailLines"] = str(tail)
        try:
            if one.waits:
                self._any = True
                line = f"[{one.container}] has no log: {one.waits}"
                await self._told.put(LogLine(one.version, one.name, None, line))
            else:
                if ended:
                    # The kubelet keeps the log of a container that ended for a while only.
                    with contextlib.suppress(AksInferenceError):
                        await self._pass_on(one, {**query, "previous": "true"})
                await self._pass_on(one, {**query, "follow": "true"} if self._follow else query, since)
                self._well(one)
        except NotFound:
            self._failed.pop(one.key, None)  # gone meanwhile
        except AksInferenceError as error:
            if one.key not in self._failed:
                self._missed(f"the log of {one.version}/{one.name} cannot be read: {error}")
            self._failed[one.key] = error
        await self._told.put(None)

    async def _pass_on(self, one: Log, query: Mapping[str, str], since: str | None = None) -> None:
        """`since`: the API server takes whole seconds, so that what was passed on comes again."""
        async with aclosing(self._api.lines(one.path, **query)) as lines:
            async for raw in lines:
                line = one.line(raw)
                if since is None or (line.time or "") > since:
                    await self._told.put(line)
                    self._last[one.key] = line.time or ""
                self._well(one)

    def _well(self, one: Log) -> None:
        self._any = True
        self._failed.pop(one.key, None)
