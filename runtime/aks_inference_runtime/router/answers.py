"""What HAProxy answers itself, by status and reason: counted in a map of its own, on the way of errors only.

| key | value |
| --- | --- |
| `<fingerprint of the endpoint>/<slot>/<status>/<reason>` | how often since the process began |

Requests that are answered by a replica never come by here: their gate counts them, and logs each. Of these a line is
logged for each look at the map, with their number: whoever sends many of them does not fill the log.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.admin import AdminSocket
from aks_inference_runtime.router.config import ANSWERS
from aks_inference_runtime.router.model import EndpointRoute, VersionKey
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.routes import fingerprint
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.router.versions import ServedVersion

LOOK_SECONDS = 2.0
"""Between looks: who gets its slot meanwhile gets what was counted for the one before, and a process that dies takes
what came since with it."""


_log = logging.getLogger(__name__)


class AnswerKey(NamedTuple):
    """What is counted."""

    endpoint: str
    """Empty: none, or one that is gone."""
    version: str
    """Empty: refused before one was drawn."""
    code: int
    reason: str


class Answers:
    """Totals over all processes, since the agent began; those that HAProxy had by then included."""

    def __init__(self, paths: Paths, admin_of: Callable[[int], AdminSocket]) -> None:
        self.totals: Counter[AnswerKey] = Counter()
        self._paths = paths
        self._admin_of = admin_of
        self._seen: dict[int, Mapping[str, str]] = {}
        self._next = 0.0
        self._endpoints: dict[str, str] = {}
        """By fingerprint."""
        self._prints: dict[str, str] = {}

    def declare(self, endpoints: Mapping[str, EndpointRoute | None]) -> None:
        """Whose fingerprints are whose; None: it is gone. All others have what they had."""
        for name, endpoint in endpoints.items():
            if name in self._prints:
                self._endpoints.pop(self._prints.pop(name), None)
            if endpoint is not None:
                self._prints[name] = fingerprint(endpoint)
                self._endpoints[self._prints[name]] = name

    async def count(self, processes: Iterable[int], versions: Iterable[ServedVersion]) -> None:
        """Looks, if it is time."""
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        slots = {slot: version.key for version in versions for slot in version.slots}
        there = {"", *self._prints, *(key.endpoint for key in slots.values())}
        for gone in [key for key in self.totals if key.endpoint not in there]:
            del self.totals[gone]
        for process in processes:
            try:
                found = await self._admin_of(process).show_map(self._paths.directory / f"p{process}.{ANSWERS}")
            except RuntimeUnavailable:
                continue
            before = self._seen.get(process, {})
            self._seen[process] = found
            for key, text in found.items():
                new = int(text) - int(before.get(key, 0))
                # Less than before: the process is another one.
                if (count := new if new >= 0 else int(text)) and (whose := _read(process, key, self._endpoints, slots)):
                    self.totals[whose] += count
                    _log.info("%s", json.dumps({**whose._asdict(), "count": count}))


def _read(process: int, key: str, endpoints: Mapping[str, str], slots: Mapping[Slot, VersionKey]) -> AnswerKey | None:
    fingerprint, slot, code, reason = key.split("/", 3)
    if not code.isdigit():
        return None
    version = slots.get(Slot(process, int(slot[1:]))) if slot[:1] == "s" and slot[1:].isdigit() else None
    if version is not None:
        return AnswerKey(version.endpoint, version.version, int(code), reason)
    return AnswerKey(endpoints.get(fingerprint, ""), "", int(code), reason)
