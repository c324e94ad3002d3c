"""The doctor as Jobs in a cluster: one with the nodes' own network, others with that of pods, where those run."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aks_inference_runtime.api.kubernetes import LINUX_NODES
from aks_inference_runtime.doctor import Target

NAME = "aks-inference-doctor"
_SECONDS = 300
_FOLDER = "/etc/aks-inference-doctor"


@dataclass(frozen=True)
class Place:
    """Where hosts are to be reached from."""

    suffix: str
    """Of the Job's name."""
    namespace: str
    targets: tuple[Target, ...]
    host_network: bool = False
    """The network of the node. Pod Security allows it in namespaces of the level `privileged` alone, which is what one
    without labels is."""


def jobs(places: Iterable[Place], image: str) -> dict[str, Any]:
    """A List of ConfigMaps and Jobs. `image`: the runtime's."""
    items = []
    for place in places:
        if not place.targets:
            continue
        listed = json.dumps([asdict(target) for target in place.targets])
        metadata = {
            "name": f"{NAME}-{place.suffix}",
            "namespace": place.namespace,
            "labels": {"app.kubernetes.io/name": NAME},
        }
        items += [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"targets.json": listed}},
            _job(metadata, image, place.host_network),
        ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _job(metadata: Mapping[str, Any], image: str, host_network: bool) -> dict[str, Any]:
    container = {
        "name": "doctor",
        "image": image,
        "command": ["python", "-m", "aks_inference_runtime.doctor", "--file", f"{_FOLDER}/targets.json"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "targets", "mountPath": _FOLDER, "readOnly": True}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "hostNetwork": host_network,
        "nodeSelector": LINUX_NODES,
        # With the container's own: what the level `restricted` asks for, which the runtime's namespace has.
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        # Names as pods resolve them are those of the cluster's DNS; nodes ask that of the virtual network.
        "dnsPolicy": "Default" if host_network else "ClusterFirst",
        "containers": [container],
        "volumes": [{"name": "targets", "configMap": {"name": metadata["name"]}}],
    }
    # A failed check is an answer, not a reason to try again.
    spec = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": _SECONDS,
        "ttlSecondsAfterFinished": 3600,
        "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": dict(metadata), "spec": spec}
