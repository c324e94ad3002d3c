"""Changes of an endpoint's state, told to others: a Kubernetes event, and a webhook where there is one."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.kubernetes.client import Api
from aks_inference_runtime.observability.changes import Hook, StateChange

REPORTER = "aks-inference.dev/autoscaler"
LONGEST_NOTE = 1_024
"""Of an event, as events.k8s.io/v1 has it."""
_GOOD = frozenset({ServiceState.HEALTHY, ServiceState.TRANSITIONING})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Change(StateChange):
    """The same of an object in a cluster."""

    uid: str

    def event(self, instance: str) -> dict[str, Any]:
        """As events.k8s.io/v1 has it. `instance`: the pod that tells."""
        came = f"was {self.before}" if self.before else "is new"
        note = f"{self.after} ({came}){f': {self.message}' if self.message else ''}"
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self.name}-", "namespace": self.namespace},
            "eventTime": self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "action": "StateChanged",
            "reason": self.after,
            "type": "Normal" if self.after in _GOOD else "Warning",
            "note": note if len(note) <= LONGEST_NOTE else f"{note[: LONGEST_NOTE - 1]}…",
            "reportingController": REPORTER,
            "reportingInstance": instance,
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": self.name,
                "namespace": self.namespace,
                "uid": self.uid,
            },
        }


class Teller:
    """Tells changes; one that cannot be told is logged, and holds nothing up."""

    def __init__(self, instance: str, webhook: Path | None = None) -> None:
        """`webhook`: the file with its address."""
        self._instance = instance
        self._hook = Hook(webhook)

    async def tell(self, api: Api, change: Change) -> None:
        """Both ways."""
        await asyncio.gather(self._event(api, change), self._hook.tell(change))

    async def _event(self, api: Api, change: Change) -> None:
        try:
            await api.create(
                f"/apis/events.k8s.io/v1/namespaces/{change.namespace}/events", change.event(self._instance)
            )
        except AksInferenceError as error:
            _log.warning("no event for %s/%s: %s", change.namespace, change.name, error)
