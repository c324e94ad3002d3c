"""The routers' scaler beside a test: what its tests have in common."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
from yarl import URL

from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    ROUTER_NAME,
    RuntimeSettings,
)
from aks_inference_runtime.autoscaler.routers import Figures
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.connection import from_kubeconfig
from aks_inference_runtime.kubernetes.room import Amounts, Node, PodNeed
from aks_inference_runtime.kubernetes.router_scaling import RouterScaler

LABELS = {PART_OF_LABEL: PART_OF, COMPONENT_LABEL: ROUTER_COMPONENT}
QUICK, SLOW = Figures(0.4, 0.02, 0.02), Figures(9.0, 4.0, 0.5)


class Told:
    """What the scaler is told instead of by routers and nodes."""

    def __init__(self, node: str, cores: float = 32) -> None:
        self.figures: Figures | None = None
        self.hpa: str | None = None
        self.places = 10
        self._node = Node(node, "", {"cpu": cores}, schedulable=True)

    def there(self) -> list[Node]:
        return [self._node]

    def needs(self) -> list[PodNeed]:
        return []

    def room_for(self, need: Amounts, selector: Mapping[str, str]) -> int:
        return self.places

    def other_scaler(self, namespace: str, name: str) -> str | None:
        return self.hpa


@contextlib.asynccontextmanager
async def scaling(kubeconfig: Path, settings: RuntimeSettings, told: Told) -> AsyncIterator[RouterScaler]:
    """A scaler that leads, until the block ends."""
    scaler = RouterScaler(settings, told, lambda _: told.figures, lambda: True, time.monotonic, "autoscaler-0")
    where = from_kubeconfig(kubeconfig)
    async with connected(where) as api:
        working = asyncio.create_task(scaler.run(api))
        try:
            yield scaler
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    # TLS says goodbye in its own time, and a loop that ends before leaves sockets behind.
    port = URL(where.server).port
    await holds("connections are closed", lambda: not any(c.raddr and c.raddr.port == port for c in _connections()))


def _connections() -> list[Any]:
    return list(psutil.Process().net_connections("tcp"))


def deployment(replicas: int | None, pod: dict[str, Any]) -> dict[str, Any]:
    """Of routers."""
    spec = {"selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": pod}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": ROUTER_NAME, "labels": LABELS},
        "spec": spec | ({} if replicas is None else {"replicas": replicas}),
    }


async def holds(what: str, condition: Callable[[], bool], seconds: float = 30, tell: Callable[[], Any] = str) -> None:
    """Waits for it."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; {tell()}"
        await asyncio.sleep(0.05)
