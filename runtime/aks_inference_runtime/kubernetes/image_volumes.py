"""Whether a cluster mounts OCI images as volumes: what its API server takes, and what its nodes can mount.

Kubernetes has them since 1.31 behind the feature gate `ImageVolume`, which is on by default since 1.35 (KEP-4639);
containerd mounts them since 2.1, CRI-O since 1.31.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.kubernetes.client import Api

FIRST_KUBELET = (1, 31)
BY_DEFAULT = (1, 35)
RUNTIMES = {"containerd": (2, 1), "cri-o": (1, 31)}
"""The first version of each runtime that mounts images."""
MEND = "leave out @model_volumes: models then come by an init container"
_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_NAMED = 3
_PROBE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"generateName": "aks-inference-image-volumes-"},
    "spec": {
        "selector": {"matchLabels": {"app": "aks-inference-image-volumes"}},
        "template": {
            "metadata": {"labels": {"app": "aks-inference-image-volumes"}},
            "spec": {
                "containers": [
                    {"name": "one", "image": "none", "volumeMounts": [{"name": "model", "mountPath": "/model"}]}
                ],
                "volumes": [{"name": "model", "image": {"reference": "none", "pullPolicy": "IfNotPresent"}}],
            },
        },
    },
}
"""Only ever sent as a dry run."""


@dataclass(frozen=True)
class Support:
    """What a cluster says of volumes of images."""

    refused: str = ""
    """Why no pod will get one; empty where some will."""
    notes: tuple[str, ...] = ()


async def look(api: Api) -> Support:
    """Asks the API server and looks at the nodes; what one has no right to see is a note."""
    notes: list[str] = []
    try:
        version = str((await api.get("/version")).get("gitVersion") or "")
        made = await api.create("/apis/apps/v1/namespaces/default/deployments?dryRun=All", _PROBE)
        # Without the feature such volumes are dropped in silence, with their mounts.
        kept = made["spec"]["template"]["spec"].get("volumes") or ()
        if not any("image" in volume for volume in kept):
            return Support(f"its API server ({version}) takes no volumes of images: {_since(version)}")
    except AksInferenceError as error:
        notes.append(f"whether the API server takes volumes of images was not looked up: {error}")
    try:
        nodes, _ = await api.list("/api/v1/nodes")
    except AksInferenceError as error:
        return Support(notes=(*notes, f"whether the nodes mount images was not looked up: {error}"))
    refused, more = judge(nodes)
    return Support(refused, (*notes, *more))


def judge(nodes: Sequence[Mapping[str, Any]]) -> tuple[str, tuple[str, ...]]:
    """Why no node mounts images, and what is to be said of some. Pure."""
    unfit = dict(_unfit(nodes))
    if not unfit:
        return "", ()
    shown = "; ".join(f"{name}: {why}" for name, why in list(unfit.items())[:_NAMED])
    rest = f"; and {len(unfit) - _NAMED} more" if len(unfit) > _NAMED else ""
    if len(unfit) == len(nodes):
        return f"none of its nodes mounts images ({shown}{rest})", ()
    return "", (f"replicas on some nodes will not start, as these mount no images: {shown}{rest}",)


def _unfit(nodes: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        info = (node.get("status") or {}).get("nodeInfo") or {}
        if why := node_problem(str(info.get("kubeletVersion")), str(info.get("containerRuntimeVersion"))):
            yield str((node.get("metadata") or {}).get("name")), why


def node_problem(kubelet: str, runtime: str) -> str:
    """Why a node mounts no images, by what it says of itself; empty where it does, or is not known. Pure."""
    numbers = _numbers(kubelet)
    if numbers is not None and numbers < FIRST_KUBELET:
        return f"its kubelet is {kubelet}, and mounts images from 1.31 on"
    name, _, version = runtime.partition("://")
    wanted, numbers = RUNTIMES.get(name), _numbers(version)
    if wanted is not None and numbers is not None and numbers < wanted:
        return f"its {name} is {version}, and mounts images from {wanted[0]}.{wanted[1]} on"
    return ""


def _since(version: str) -> str:
    numbers = _numbers(version)
    if numbers is not None and numbers < FIRST_KUBELET:
        return "Kubernetes has them from 1.31 on, by default from 1.35"
    return "turn the feature gate ImageVolume on (its own and the kubelets'), or use Kubernetes 1.35, which has it on"


def _numbers(version: str) -> tuple[int, int] | None:
    found = _VERSION.match(version)
    return (int(found[1]), int(found[2])) if found else None
