"""etcd and an API server of this machine for measurements: no controllers, no nodes; objects say what is told.

The programs are those of the tests' bed (`PYTHONPATH=tests/cluster python -m testbed.build` builds them; minutes).
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness import ROOT, Missing

from aks_inference_runtime.api.crd import CRD_NAME, crd
from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.api.errors import AksInferenceError, Conflict
from aks_inference_runtime.api.kubernetes import (
    COMPONENT_LABEL,
    ENDPOINT_LABEL,
    PART_OF,
    PART_OF_LABEL,
    ROUTER_COMPONENT,
    VERSION_LABEL,
)
from aks_inference_runtime.kubernetes.client import Api, Object, connected
from aks_inference_runtime.kubernetes.connection import from_kubeconfig

sys.path.append(str(ROOT / "tests" / "cluster"))
from testbed import build
from testbed.control_plane import ControlPlane

NAMESPACE = "bench"
AT_ONCE = 40
"""Requests to the API server while objects are made."""
SETTLE_S = 20.0


@dataclass(frozen=True)
class Plane:
    """An API server that answers."""

    kubeconfig: Path
    api: Api
    server_pid: int
    """Of the API server."""

    async def make(self, path: str, bodies: Iterable[Object]) -> None:
        """Makes objects, many at once."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(body: Object) -> None:
            async with gate:
                await self.api.create(path, body)

        await asyncio.gather(*(one(body) for body in bodies))

    async def status(self, path: str, status: Object) -> None:
        """Writes an object's status."""
        await self.api.patch(f"{path}/status", {"status": status})


@asynccontextmanager
async def control_plane(folder: Path) -> AsyncIterator[Plane]:
    """Until the block ends. Raises Missing where the programs are not built."""
    if missing := build.missing(build.API):
        raise Missing(f"not built here: {', '.join(missing)} (PYTHONPATH=tests/cluster python -m testbed.build)")
    plane = ControlPlane(folder)
    try:
        await asyncio.to_thread(plane.start, control=False)
        async with connected(from_kubeconfig(plane.kubeconfig)) as api:
            await api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd())
            await api.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
            async with asyncio.timeout(SETTLE_S):
                while not await _established(api):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
            # No controller makes it, and pods want one.
            await api.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "default"}})
            (server,) = [one for one in plane.running if one.name == "kube-apiserver"]
            yield Plane(plane.kubeconfig, api, server.process.pid)
    finally:
        await asyncio.to_thread(plane.stop)


async def _established(api: Api) -> bool:
    try:
        found = await api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}")
        conditions = (found.get("status") or {}).get("conditions") or []
        ready = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
        return ready and await api.list(f"/apis/{API_VERSION}/scoringendpoints") is not None
    except (AksInferenceError, Conflict):
        return False


def of_version(endpoint: str) -> dict[str, str]:
    """Of what belongs to the one version of an endpoint."""
    return {ENDPOINT_LABEL: endpoint, VERSION_LABEL: "blue"}


def endpoint(name: str, **version: Any) -> Object:
    """A ScoringEndpoint of one version."""
    blue = {
        "name": "blue",
        "isDefault": True,
        "trafficPercentile": 100,
        "code": {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"},
        **version,
    }
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": {"versions": [blue]}}


CONTAINER = {"name": "scoring", "image": "none", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}


def deployment(endpoint_name: str, replicas: int) -> Object:
    """Of an endpoint's version."""
    return {
        "metadata": {"name": f"{endpoint_name}-blue", "labels": of_version(endpoint_name)},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": of_version(endpoint_name)},
            "template": {"metadata": {"labels": of_version(endpoint_name)}, "spec": {"containers": [CONTAINER]}},
        },
    }


def replica(endpoint_name: str, number: int, node: str) -> Object:
    """A replica's pod, bound to a node."""
    spec = {"containers": [CONTAINER], "nodeName": node, "automountServiceAccountToken": False}
    return {"metadata": {"name": f"{endpoint_name}-{number}", "labels": of_version(endpoint_name)}, "spec": spec}


def router_pod(name: str) -> Object:
    """A router's pod."""
    spec = {"containers": [{"name": "router", "image": "none"}], "automountServiceAccountToken": False}
    labels = {PART_OF_LABEL: PART_OF, COMPONENT_LABEL: ROUTER_COMPONENT}
    return {"metadata": {"name": name, "labels": labels}, "spec": spec}


def running(address: str) -> Object:
    """A pod's status."""
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }


def node(name: str) -> Object:
    """A node that holds many."""
    holds = {"cpu": "64", "memory": "512Gi", "pods": "500"}
    ready = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name}, "status": {"allocatable": holds, "capacity": holds, "conditions": ready}}
