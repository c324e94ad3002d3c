"""How the models of a version come into its pods: an init container fetches and compares them. Pure."""

import json
from dataclasses import dataclass
from typing import Any

from aks_inference.kubernetes import Manifest
from aks_inference.pods import RESTRICTED
from aks_inference_runtime.api.replica import APP_ROOT, CACHE_VOLUME, MODELS_CONTAINER, MODELS_ROOT
from aks_inference_runtime.api.target import KubernetesTarget

_CACHE = "/cache"
_ACCESS = "/access"
_READABLE = 0o440
"""By the group of the pod, whose containers have no other right to a Secret's files."""


@dataclass(frozen=True)
class Mounted:
    """A model that the node mounts; values may be known only later."""

    image: Any
    """With its digest: what is mounted is what was registered, compared by the node's runtime."""
    place: Any
    """`name/version`, below the folder of the models."""


@dataclass(frozen=True)
class Delivery:
    """The models of a version, as its pods are told; values may be known only later."""

    models: tuple[Any, ...]
    """JSON of each: name, version, store, digest."""
    directory: Any
    """AZUREML_MODEL_DIR."""
    secret: str | None = None
    """Of the namespace; with access to the stores."""
    mounted: tuple[Mounted, ...] = ()
    """Given: the pod mounts them all as images, and nothing is fetched."""


def volumes(delivery: Delivery, target: KubernetesTarget) -> list[Manifest]:
    """Of the pod."""
    if delivery.mounted:
        return [
            {"name": f"model-{index}", "image": {"reference": one.image, "pullPolicy": "IfNotPresent"}}
            for index, one in enumerate(delivery.mounted)
        ]
    found: list[Manifest] = [{"name": "models", "emptyDir": {}}]
    if delivery.secret is not None:
        secret = {"secretName": delivery.secret, "defaultMode": _READABLE}
        found.append({"name": "model-access", "secret": secret})
    if target.model_cache is not None:
        found.append({"name": CACHE_VOLUME, "hostPath": {"path": target.model_cache, "type": "DirectoryOrCreate"}})
    return found


def mounts(delivery: Delivery) -> list[Manifest]:
    """Of the scoring server: it reads what was compared, and changes nothing."""
    if not delivery.mounted:
        return [{"name": "models", "mountPath": MODELS_ROOT, "readOnly": True}]
    return [
        {"name": f"model-{index}", "mountPath": below_models(one.place), "readOnly": True}
        for index, one in enumerate(delivery.mounted)
    ]


def below_models(place: Any) -> Any:  # noqa: ANN401 - a text, or an output of one
    """A path in the folder of the models."""
    return f"{MODELS_ROOT}/{place}" if isinstance(place, str) else place.apply(lambda known: f"{MODELS_ROOT}/{known}")


def fetching(delivery: Delivery, target: KubernetesTarget) -> Manifest:
    """The init container. One argument a model: all in one would be too long for a thousand of them."""
    settings: dict[str, object] = {"models": [], "appRoot": APP_ROOT}
    mounts = [{"name": "models", "mountPath": MODELS_ROOT}, {"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108
    security = RESTRICTED
    if delivery.secret is not None:
        settings["credentials"] = _ACCESS
        mounts.append({"name": "model-access", "mountPath": _ACCESS, "readOnly": True})  # type: ignore[dict-item]
    if target.model_cache is not None:
        settings["cache"] = _CACHE
        mounts.append({"name": CACHE_VOLUME, "mountPath": _CACHE})
        # The kubelet makes the folder as root's own, and pods of several users share it.
        security = {**RESTRICTED, "runAsNonRoot": False, "runAsUser": 0}
    command = ["python", "-m", "aks_inference_runtime.models.delivery", json.dumps(settings, sort_keys=True)]
    return {
        "name": MODELS_CONTAINER,
        "image": target.image,
        "command": command,
        "args": list(delivery.models),
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": security,
        "volumeMounts": mounts,
    }
