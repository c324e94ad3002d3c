"""Why the containers of a pod are not made: a volume, a Secret, a network that is not there.

No status of the pod says it, only the events of its kubelet; they are asked for where a pod takes its time.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.kubernetes.client import Object
from aks_inference_runtime.kubernetes.workloads import ReplicaPod, VersionId

PATIENCE_S = 5.0
"""A pod whose containers are not made for so long may be stuck. The kubelet tries again and tells every few seconds."""
AGAIN_S = 10.0
"""Between two questions about one version."""
MOST = 2
"""Questions in one round: a thousand versions that start together are no thousand questions."""
_BEFORE = frozenset({"FailedScheduling"})
"""Of the time before the pod had its node."""
_log = logging.getLogger(__name__)


class Lists(Protocol):
    """Of the API server's client."""

    async def list(self, path: str, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """Raises AksInferenceError."""


class Creating:
    """What is told of versions whose newest pods are being made."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: in seconds."""
        self.words: dict[VersionId, str] = {}
        """Why it takes so long, as far as that was told."""
        self._clock = clock
        self._due: dict[VersionId, float] = {}

    async def look(self, api: Lists, waiting: Mapping[VersionId, ReplicaPod]) -> None:
        """One round; `waiting`: by version one of these pods. Those are asked about that have waited longest for it."""
        for kept in (self._due, self.words):
            for over in kept.keys() - waiting.keys():
                del kept[over]
        now = self._clock()
        for version in waiting:
            self._due.setdefault(version, now + PATIENCE_S)
        due = sorted((at, version) for version, at in self._due.items() if at <= now)[:MOST]
        await asyncio.gather(*(self._ask(api, version, waiting[version]) for _, version in due))

    async def _ask(self, api: Lists, version: VersionId, pod: ReplicaPod) -> None:
        self._due[version] = self._clock() + AGAIN_S
        path = f"/apis/events.k8s.io/v1/namespaces/{pod.namespace}/events"
        try:
            found, _ = await api.list(path, fields=f"regarding.kind=Pod,regarding.name={pod.name},type=Warning")
        except AksInferenceError as error:
            _log.info("no events of %s: %s", pod.name, error)
            return
        if words := newest_words(found):
            self.words[version] = words


def newest_words(events: Iterable[Object]) -> str:
    """Reason and note of the event that was told last; empty: there is none."""
    told = [event for event in events if event.get("reason") not in _BEFORE]
    last = max(told, key=_at, default=None)
    return f"{last.get('reason', '')}: {last.get('note', '')}".strip(": \n") if last else ""


def _at(event: Object) -> str:
    """RFC 3339, to the second: a kubelet's events have no more."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("eventTime"))
    return next((at for at in times if at), event["metadata"].get("creationTimestamp") or "")[:19]
