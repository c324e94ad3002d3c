"""Changes of an endpoint's state, told to others: a Kubernetes event, and a webhook where there is one."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.kubernetes.client import Api

REPORTER = "aks-inference.dev/autoscaler"
LONGEST_NOTE = 1_024
"""Of an event, as events.k8s.io/v1 has it."""
ATTEMPT_S = 5.0
PAUSES_S = (1.0, 4.0, 16.0)
"""Between attempts to reach the webhook; after the last one the change is not told."""
_GOOD = frozenset({ServiceState.HEALTHY, ServiceState.TRANSITIONING})
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Change:
    """An endpoint's state is another one."""

    namespace: str
    name: str
    uid: str
    generation: int
    before: str | None
    """None: it is new."""
    after: str
    message: str
    scoring_uri: str
    at: datetime

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

    def hook(self) -> dict[str, Any]:
        """What the webhook gets. `text` is what chat systems show."""
        came = f"{self.before} → " if self.before else ""
        why = f": {self.message}" if self.message else ""
        return {
            "text": f"endpoint {self.namespace}/{self.name}: {came}{self.after}{why}",
            "endpoint": self.name,
            "namespace": self.namespace,
            "generation": self.generation,
            "before": self.before,
            "state": self.after,
            "message": self.message,
            "scoringUri": self.scoring_uri,
            "time": self.at.astimezone(UTC).isoformat(timespec="milliseconds"),
        }


class Teller:
    """Tells changes; one that cannot be told is logged, and holds nothing up."""

    def __init__(self, instance: str, webhook: Path | None = None) -> None:
        """`webhook`: the file with its address, a secret; read for each change, so that a new one counts at once."""
        self._instance = instance
        self._webhook = webhook

    async def tell(self, api: Api, change: Change) -> None:
        """Both ways."""
        await asyncio.gather(self._event(api, change), self._hook(change))

    async def _event(self, api: Api, change: Change) -> None:
        try:
            await api.create(
                f"/apis/events.k8s.io/v1/namespaces/{change.namespace}/events", change.event(self._instance)
            )
        except AksInferenceError as error:
            _log.warning("no event for %s/%s: %s", change.namespace, change.name, error)

    async def _hook(self, change: Change) -> None:
        url = self._address()
        if url is None:
            return
        problem = ""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ATTEMPT_S)) as session:
            for pause in (*PAUSES_S, None):
                problem = await _post(session, url, change.hook())
                if not problem or pause is None:
                    break
                await asyncio.sleep(pause)
        if problem:
            # Its address is a secret: whoever has it may write there.
            _log.warning("the webhook was not told of %s/%s: %s", change.namespace, change.name, problem)

    def _address(self) -> str | None:
        if self._webhook is None:
            return None
        try:
            return self._webhook.read_text().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("the webhook's address cannot be read: %s", type(error).__name__)
            return None


async def _post(session: aiohttp.ClientSession, url: str, body: Mapping[str, Any]) -> str:
    """Nothing, or what went wrong."""
    try:
        async with session.post(url, json=body) as answer:
            return "" if answer.status < 300 else f"status {answer.status}"
    except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
        return type(error).__name__
