"""The doctor as Jobs in a cluster: one with the nodes' own network, one with that of pods."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from aks_inference_runtime.doctor import Target

NAME = "aks-inference-doctor"
_SECONDS = 300
_FOLDER = "/etc/aks-inference-doctor"


def jobs(nodes: Iterable[Target], pods: Iterable[Target], image: str, namespace: str) -> dict[str, Any]:
    """A List of ConfigMaps and Jobs. `nodes`: what nodes must reach; `pods`: what pods of the namespace must."""
    items = []
    for suffix, targets, host_network in (("nodes", nodes, True), ("pods", pods, False)):
        listed = [asdict(target) for target in targets]
        if not listed:
            continue
        metadata = {"name": f"{NAME}-{suffix}", "namespace": namespace, "labels": {"app.kubernetes.io/name": NAME}}
        items += [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": metadata,
                "data": {"targets.json": json.dumps(listed)},
            },
            _job(metadata, image, host_network),
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
