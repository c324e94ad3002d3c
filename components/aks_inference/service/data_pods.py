"""How model data leaves the pods of a version: a package for its scripts, a spool, and who ships it. Pure."""

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from aks_inference.kubernetes import Manifest, named
from aks_inference.pods import RESTRICTED
from aks_inference_runtime.api.endpoint import EndpointVersion
from aks_inference_runtime.api.replica import MODEL_DATA_SCRIPT, MODEL_DATA_SPOOL, model_data_script
from aks_inference_runtime.api.target import KubernetesTarget

_ACCESS = "/access"
_READABLE = 0o440
"""By the group of the pod, whose containers have no other right to a Secret's files."""


@lru_cache(maxsize=1)
def _texts() -> Mapping[str, str]:
    return {name: path.read_text("utf-8") for name, path in model_data_script().items()}


def _key(name: str) -> str:
    return name.replace("/", "-")


def package_name(workload: str) -> str:
    """Of the ConfigMap: another with each change. Reads the package."""
    digest = hashlib.sha256(json.dumps(_texts(), sort_keys=True).encode()).hexdigest()
    return f"{workload}-data-{digest[:10]}"


def package_object(workload: str, namespace: str, labels: Mapping[str, str]) -> Manifest:
    """The package that scripts import, as a ConfigMap: images of scoring servers do not have it."""
    data = {_key(name): text for name, text in _texts().items()}
    return named("v1", "ConfigMap", package_name(workload), namespace, labels=dict(labels), immutable=True, data=data)


def volumes(workload: str, version: EndpointVersion, secret: str | None) -> list[Manifest]:
    """Of the pod. `secret`: with access to the store."""
    if version.model_data is None:
        return []
    items = [{"key": _key(name), "path": name} for name in _texts()]
    found: list[Manifest] = [
        {"name": "model-data-package", "configMap": {"name": package_name(workload), "items": items}}
    ]
    if version.model_data.store is not None:
        # Without a limit of its own: the collectors keep to theirs, and a pod must not be evicted for it.
        found.append({"name": "model-data", "emptyDir": {}})
        if secret is not None:
            access = {"secretName": secret, "defaultMode": _READABLE}
            found.append({"name": "model-data-access", "secret": access})
    return found


def mounts(version: EndpointVersion) -> list[Manifest]:
    """Of the scoring server."""
    if version.model_data is None:
        return []
    found: list[Manifest] = [{"name": "model-data-package", "mountPath": MODEL_DATA_SCRIPT, "readOnly": True}]
    if version.model_data.store is not None:
        found.append({"name": "model-data", "mountPath": MODEL_DATA_SPOOL})
    return found


def shipping(version: EndpointVersion, target: KubernetesTarget, secret: str | None) -> list[Manifest]:
    """The sidecar: it starts before the scoring server and ends after it, with what that left."""
    if version.model_data is None or version.model_data.store is None:
        return []
    settings: dict[str, Any] = {"spool": MODEL_DATA_SPOOL, "store": version.model_data.store}
    mounted: list[Manifest] = [
        {"name": "model-data", "mountPath": MODEL_DATA_SPOOL},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if secret is not None:
        settings["credentials"] = _ACCESS
        mounted.append({"name": "model-data-access", "mountPath": _ACCESS, "readOnly": True})
    container = {
        "name": "model-data",
        "image": target.image,
        "command": ["python", "-m", "aks_inference_runtime.model_data", json.dumps(settings, sort_keys=True)],
        "restartPolicy": "Always",
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": RESTRICTED,
        "volumeMounts": mounted,
    }
    return [container]
