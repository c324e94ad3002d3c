"""Where a service runs, as one flat string that any Pulumi language can pass on."""

import json
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from aks_inference_runtime.api.base import Wire
from aks_inference_runtime.api.errors import InvalidInput

LOCAL_SCHEME = "aks-inference+local:"
KUBERNETES_SCHEME = "aks-inference+kubernetes:"


class LocalTarget(Wire):
    """The runtime on this machine."""

    kind: Literal["local"] = "local"
    name: str
    state_directory: str
    """Absolute; holds the supervisor's socket, models, logs and keys."""
    port: int = 8890


class KubernetesTarget(Wire):
    """An AksInferenceCluster; services on it need the runtime on Kubernetes."""

    kind: Literal["kubernetes"] = "kubernetes"
    name: str
    cluster_purpose: str = "FastProd"
    gpu: bool = False


Target = LocalTarget | KubernetesTarget

_SCHEMES: dict[str, TypeAdapter[Target]] = {
    LOCAL_SCHEME: TypeAdapter(LocalTarget),
    KUBERNETES_SCHEME: TypeAdapter(KubernetesTarget),
}


def format_target(target: Target) -> str:
    """The string form: the scheme and the fields as JSON with sorted keys."""
    scheme = LOCAL_SCHEME if isinstance(target, LocalTarget) else KUBERNETES_SCHEME
    return scheme + json.dumps(target.model_dump(mode="json", by_alias=True, exclude={"kind"}), sort_keys=True)


def parse_target(text: str) -> Target:
    """The target that a string names. Raises InvalidInput."""
    for scheme, adapter in _SCHEMES.items():
        if text.startswith(scheme):
            try:
                return adapter.validate_json(text[len(scheme) :])
            except ValidationError as error:
                raise InvalidInput(f"not a target: {text!r}: {error.errors()[0]['msg']}") from None
    raise InvalidInput(f"not a target: {text!r}; pass the `target` output of a cluster component")
