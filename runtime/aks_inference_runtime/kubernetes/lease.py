"""Who leads: one holder of a Lease at a time. Times are one's own clock's; no two machines' clocks are compared."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from aks_inference_runtime.api.errors import AksInferenceError, Conflict, NotFound
from aks_inference_runtime.kubernetes.client import Api, Object

DURATION_S = 4.0
"""A lease that did not change for so long, as seen by one's own clock, is free."""
RENEW_S = 1.0
GIVE_UP_S = 3.0
"""A leader that could not renew for so long stops leading: before anybody else may begin."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """A lease as it was seen, and when that state of it was first seen."""

    version: str
    holder: str
    at: float


def free(seen: Seen, me: str, now: float) -> bool:
    """Whether the lease may be taken: it is one's own, given back, or was not renewed for its duration."""
    return seen.holder in (me, "") or now - seen.at >= DURATION_S


class Election:
    """One candidate."""

    def __init__(self, namespace: str, name: str, me: str, clock: Callable[[], float]) -> None:
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._name = name
        self._me = me
        self._clock = clock
        self._seen: Seen | None = None
        self._renewed: float | None = None
        self.changes = 0

    @property
    def leads(self) -> bool:
        """Whether this one leads now."""
        return self._renewed is not None and self._clock() - self._renewed < GIVE_UP_S

    async def run(self, api: Api) -> None:
        """Until cancelled; then the lease is given back."""
        try:
            while True:
                before = self.leads
                try:
                    await self.step(api)
                except AksInferenceError as error:
                    _log.warning("lease: %s", error)
                except Exception:  # noqa: BLE001 - what leads goes on until it could not renew for too long
                    _log.exception("the lease could not be read")
                if self.leads != before:
                    self.changes += 1
                    _log.info("%s leads: %s", self._me, self.leads)
                await asyncio.sleep(RENEW_S)
        finally:
            if self.leads:
                self._renewed = None
                await asyncio.shield(self._give_back(api))

    async def step(self, api: Api) -> None:
        """Looks, and takes or renews. Raises RuntimeUnavailable, OperationFailed."""
        began = self._clock()
        try:
            found = await api.get(self._path)
        except NotFound:
            try:
                await api.create(self._collection, self._body({}, 0))
                self._renewed = began
            except Conflict:
                self._renewed = None
            return
        version, spec = found["metadata"]["resourceVersion"], found.get("spec") or {}
        if self._seen is None or self._seen.version != version:
            self._seen = Seen(version, spec.get("holderIdentity") or "", self._clock())
        if not free(self._seen, self._me, self._clock()):
            self._renewed = None
            return
        taken = self._seen.holder != self._me
        try:
            await api.replace(self._path, self._body(found, int(spec.get("leaseTransitions") or 0) + taken))
            # From before the request on: it may have taken long.
            self._renewed = began
        except Conflict:
            self._renewed = None

    async def _give_back(self, api: Api) -> None:
        try:
            found = await api.get(self._path)
            if (found.get("spec") or {}).get("holderIdentity") == self._me:
                found["spec"]["holderIdentity"] = ""
                await api.replace(self._path, found)
        except AksInferenceError as error:
            _log.info("the lease is not given back, it ends by itself: %s", error)

    def _body(self, found: Object, transitions: int) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = dict(found.get("spec") or {})
        if spec.get("holderIdentity") != self._me:
            spec["acquireTime"] = now
        spec |= {
            "holderIdentity": self._me,
            "leaseDurationSeconds": int(DURATION_S),
            "renewTime": now,
            "leaseTransitions": transitions,
        }
        metadata = dict(found.get("metadata") or {"name": self._name})
        metadata.pop("managedFields", None)
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
