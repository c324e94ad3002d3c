"""Objects in a cluster: resources of the package `kubernetes` by token and manifest, and the provider that they use.

The kubernetes SDK for Python is not needed for that; its plugin is (or the embedded engine's own provider).
"""

from typing import Any

import pulumi

from aks_inference.manifests import WAIT_FOR_READY, Manifest, logical, named

__all__ = ["WAIT_FOR_READY", "KubernetesObject", "KubernetesProvider", "Manifest", "logical", "named"]
KUBERNETES_VERSION = "4.34.2"
"""Of the plugin: server-side apply, waits by the annotation `pulumi.com/waitFor`."""


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
