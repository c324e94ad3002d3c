"""Where a service runs, as one flat string that any Pulumi language can pass on."""

import json
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

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


class RegistrySettings(Wire):
    """Where images are looked up and built to, and how."""

    server: str
    """`host` or `host/repository`."""
    shared_registries: tuple[str, ...] = ()
    tier: str | None = None
    username: str | None = None
    password: str | None = Field(None, repr=False)
    """Secret."""
    ca_file: str | None = None
    plain_http: bool = False
    base_image: str | None = None
    """Of images that name none."""
    builder: str | None = None
    resource_id: str | None = None
    """Of an Azure registry, for ACR Tasks."""
    build_arguments: tuple[str, ...] = ()


class KubernetesTarget(Wire):
    """A Kubernetes cluster: an InferenceRuntime, or an AksInferenceCluster."""

    kind: Literal["kubernetes"] = "kubernetes"
    name: str
    cluster_purpose: str = "FastProd"
    gpu: bool = False
    namespace: str | None = None
    """Of the inference runtime; None: there is none on it yet."""
    image: str | None = None
    """Of the runtime: the gates beside the replicas run from it."""
    kubeconfig: str | None = Field(None, repr=False)
    """Secret. Content or path; None: the one of the environment."""
    context: str | None = None
    otlp_endpoint: str | None = None
    """OpenTelemetry collector of the requests' traces; None: nothing is traced."""
    trace_ratio: float = 0.1
    """Of the requests whose caller does not decide it."""
    location: str | None = None
    """Azure region, where that is known."""
    model_store: str | None = None
    """Address of the store that keeps the models of the target; None: each model names its own."""
    model_cache: str | None = None
    """Folder of each node that its replicas fetch models into; None: each pod fetches its own."""
    model_volumes: bool = False
    """Whether models in registries are mounted as images, in place of being fetched."""
    registry: RegistrySettings | None = None
    """Where images of its services are looked up and built to; None: every service names its own image."""


Target = LocalTarget | KubernetesTarget

_SCHEMES: dict[str, TypeAdapter[Target]] = {
    LOCAL_SCHEME: TypeAdapter(LocalTarget),
    KUBERNETES_SCHEME: TypeAdapter(KubernetesTarget),
}


def format_target(target: Target) -> str:
    """The string form: the scheme and the fields as JSON with sorted keys."""
    scheme = LOCAL_SCHEME if isinstance(target, LocalTarget) else KUBERNETES_SCHEME
    fields = {key: value for key, value in target.to_wire().items() if key != "kind"}
    return scheme + json.dumps(fields, sort_keys=True)


def parse_target(text: str) -> Target:
    """The target that a string names. Raises InvalidInput."""
    for scheme, adapter in _SCHEMES.items():
        if text.startswith(scheme):
            try:
                return adapter.validate_json(text[len(scheme) :])
            except ValidationError as error:
                # Not the text: it may hold a kubeconfig.
                raise InvalidInput(f"not a target: {scheme}…: {error.errors()[0]['msg']}") from None
    raise InvalidInput(f"not a target: {text!r}")
