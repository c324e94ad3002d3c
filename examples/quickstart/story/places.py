"""Where the story happens: this machine, or a Kubernetes cluster. What differs between them, and nothing else."""

import asyncio
import json
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from aks_inference_runtime.api.crd import CRD_NAME
from aks_inference_runtime.api.errors import AksInferenceError, NotFound
from aks_inference_runtime.api.kubernetes import PART_OF, PART_OF_LABEL, ROUTER_NAME, RUNTIME_NAMESPACE
from aks_inference_runtime.cli.cluster import connection
from aks_inference_runtime.kubernetes.client import Api, connected
from engine import StoryError
from leftovers import alive, children_of, listens, processes_of

REACH_S = 3.0
_COMMAND = str(Path(sys.executable).parent / "aks-inference")
"""A person's shell need not know the environment."""
_KINDS = (
    "/api/v1/pods",
    "/api/v1/services",
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/apis/apps/v1/deployments",
    "/apis/networking.k8s.io/v1/networkpolicies",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
)
_NAMED = (
    f"/api/v1/namespaces/{RUNTIME_NAMESPACE}",
    f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}",
)


class Place(Protocol):
    """A target, as the steps see it."""

    @property
    def name(self) -> str:
        """In a sentence: `on this machine`."""

    @property
    def what(self) -> str:
        """That serve there: `processes`."""

    @property
    def configuration(self) -> dict[str, str]:
        """Of the program."""

    async def status(self) -> list[dict[str, Any]]:
        """What `aks-inference status --json` says of all endpoints."""

    async def address(self, uri: str) -> str:
        """A scoring URI as it is reached from here."""

    async def serving(self) -> int:
        """How many of them serve now; remembered where that tells later what is left."""

    async def left(self) -> dict[str, int]:
        """What is still there of them, and of everything else, by kind."""

    def hints(self) -> Iterator[tuple[str, str]]:
        """What to type next, when everything is kept."""


@dataclass
class ThisMachine:
    """The local target. Its files are below `work`."""

    work: Path
    port: int
    known: dict[int, float] = field(default_factory=dict)
    name: str = "on this machine"
    what: str = "processes"

    @property
    def state(self) -> Path:
        """The cluster's state directory."""
        return self.work / "runtime"

    @property
    def configuration(self) -> dict[str, str]:
        """Of the program."""
        return {"stateDirectory": str(self.state), "port": str(self.port)}

    async def status(self) -> list[dict[str, Any]]:
        """See `Place`."""
        return await _status("--state-directory", str(self.state))

    async def address(self, uri: str) -> str:
        """As it is."""
        return uri

    async def serving(self) -> int:
        """Processes."""
        self.known = children_of(processes_of(self.work))
        return len(self.known)

    async def left(self) -> dict[str, int]:
        """See `Place`."""
        return {
            "processes": len(alive(self.known)) + len(processes_of(self.work)),
            "ports": int(listens(self.port)),
            "files": sum(1 for _ in self.state.rglob("*")),
        }

    def hints(self) -> Iterator[tuple[str, str]]:
        """See `Place`."""
        yield "look", shlex.join([_COMMAND, "--state-directory", str(self.state), "status"])
        yield "keys", str(self.state / "keys")


@dataclass
class OnKubernetes:
    """A cluster that a kubeconfig reaches. Images and models are in a registry."""

    kubeconfig: Path
    context: str | None
    registry: str
    image: str | None
    base_image: str | None
    secret: str | None
    service_type: str
    what: str = "pods"

    @property
    def name(self) -> str:
        """See `Place`."""
        return f"on the cluster of {self.kubeconfig.name}{f' ({self.context})' if self.context else ''}"

    @property
    def configuration(self) -> dict[str, str]:
        """Of the program."""
        given = {
            "kubeconfig": str(self.kubeconfig),
            "context": self.context,
            "registry": self.registry,
            "image": self.image,
            "baseImage": self.base_image,
            "secret": self.secret,
            "serviceType": self.service_type,
        }
        return {"target": "kubernetes", **{name: value for name, value in given.items() if value is not None}}

    async def status(self) -> list[dict[str, Any]]:
        """See `Place`."""
        context = ["--context", self.context] if self.context else []
        return await _status("--kubeconfig", str(self.kubeconfig), *context)

    async def address(self, uri: str) -> str:
        """The first of the router's addresses that answers from here: as told, balancer, node's port, cluster IP."""
        parts = urlsplit(uri)
        tried = []
        async with self._api() as api:
            service = await api.get(f"/api/v1/namespaces/{RUNTIME_NAMESPACE}/services/{ROUTER_NAME}")
            nodes, _ = await api.list("/api/v1/nodes")
        for place in [parts.netloc, *_addresses(service, nodes)]:
            tried.append(place)
            if await asyncio.to_thread(_reached, place):
                return urlunsplit(parts._replace(netloc=place))
        raise StoryError(
            f"the router cannot be reached from here: tried {', '.join(tried)}; choose another --service-type"
        )

    async def check(self) -> None:
        """Raises StoryError where the cluster does not answer, or has a runtime already."""
        try:
            async with self._api() as api:
                for path in _NAMED:
                    if await _there(api, path):
                        raise StoryError(f"{path.rpartition('/')[2]} is on the cluster already: it has a runtime")
        except AksInferenceError as error:
            raise StoryError(str(error)) from None

    async def serving(self) -> int:
        """Pods."""
        return (await self._count())["pods"]

    async def left(self) -> dict[str, int]:
        """See `Place`."""
        found = await self._count()
        async with self._api() as api:
            found["definitions and namespaces"] = sum([await _there(api, path) for path in _NAMED])
        return found

    def hints(self) -> Iterator[tuple[str, str]]:
        """See `Place`."""
        context = ["--context", self.context] if self.context else []
        yield "look", shlex.join([_COMMAND, "--kubeconfig", str(self.kubeconfig), *context, "status"])

    def _api(self) -> Any:  # noqa: ANN401 - a context manager of the client
        return connected(connection(self.kubeconfig, self.context))

    async def _count(self) -> dict[str, int]:
        counts = {}
        async with self._api() as api:
            for path in _KINDS:
                items, _ = await api.list(path, f"{PART_OF_LABEL}={PART_OF}")
                counts[path.rpartition("/")[2]] = len(items)
        return counts


def _addresses(service: Mapping[str, Any], nodes: list[dict[str, Any]]) -> Iterator[str]:
    spec = service["spec"]
    (port, *_) = spec["ports"]
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    for entry in balancer.get("ingress") or ():
        yield f"{entry.get('ip') or entry.get('hostname')}:{port['port']}"
    for node in nodes if port.get("nodePort") else ():
        for address in node["status"].get("addresses") or ():
            if address["type"] in ("InternalIP", "ExternalIP"):
                yield f"{address['address']}:{port['nodePort']}"
    if spec.get("clusterIP") not in (None, "", "None"):
        yield f"{spec['clusterIP']}:{port['port']}"


def _reached(place: str) -> bool:
    split = urlsplit(f"//{place}")
    try:
        with socket.create_connection((split.hostname or "", split.port or 80), REACH_S):
            return True
    except OSError:
        return False


async def _there(api: Api, path: str) -> bool:
    try:
        await api.get(path)
    except NotFound:
        return False
    return True


async def _status(*where: str) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        _COMMAND,
        *where,
        "status",
        "--json",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await process.communicate()
    if process.returncode:
        raise StoryError(f"aks-inference status ended with {process.returncode}: {complaint.decode()}")
    return list(json.loads(output)["endpoints"])
