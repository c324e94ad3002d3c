"""Objects in a cluster: resources of the package `kubernetes` by token and manifest, and the provider that they use.

The kubernetes SDK for Python is not needed for that; its plugin is (or the embedded engine's own provider).
"""

from collections.abc import Mapping
from typing import Any

import pulumi

KUBERNETES_VERSION = "4.34.2"
"""Of the plugin: server-side apply, waits by the annotation `pulumi.com/waitFor`."""
WAIT_FOR_READY = {"pulumi.com/waitFor": "condition=Ready"}
Manifest = dict[str, Any]


class KubernetesProvider(pulumi.ProviderResource):
    """The provider of one cluster."""

    def __init__(
        self, name: str, kubeconfig: object, context: str | None, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        """`kubeconfig`: a text or an output of one, kept secret; None: that of the environment."""
        settings = {
            "kubeconfig": None if kubeconfig is None else pulumi.Output.secret(kubeconfig),
            "context": context,
        }
        pinned = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=KUBERNETES_VERSION), opts)
        super().__init__("kubernetes", name, {k: v for k, v in settings.items() if v is not None}, pinned)


class KubernetesObject(pulumi.CustomResource):
    """One object."""

    def __init__(self, name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> None:
        """`manifest`: as for the API server; outputs may stand in it."""
        version, kind = manifest["apiVersion"], manifest["kind"]
        group = version if "/" in version else f"core/{version}"
        pinned = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version=KUBERNETES_VERSION), opts)
        # The status must be named to be resolved.
        super().__init__(f"kubernetes:{group}:{kind}", name, {"status": None, **manifest}, pinned)

    @property
    def status(self) -> pulumi.Output[Any]:
        """As it was when the object was ready."""
        value: pulumi.Output[Any] = pulumi.get(self, "status")
        return value


def named(api_version: str, kind: str, name: str, namespace: str | None, **more: Any) -> Manifest:  # noqa: ANN401 - JSON
    """A manifest with its metadata; `labels` and `annotations` go there, the rest beside it."""
    metadata: Manifest = {"name": name}
    if namespace is not None:
        metadata["namespace"] = namespace
    for key in ("labels", "annotations"):
        if found := more.pop(key, None):
            metadata[key] = dict(found)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}


def logical(manifest: Mapping[str, Any]) -> str:
    """A short name for a manifest among the others of a component."""
    return f"{manifest['kind'].lower()}-{manifest['metadata']['name']}"
