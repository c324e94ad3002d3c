"""Kinds of objects that an argument asks for and that somebody else brings to a cluster. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aks_inference.inference_runtime.monitoring import operated
from aks_inference.inference_runtime.spec import RuntimePlan
from aks_inference.inference_runtime.tls import tls_objects
from aks_inference.manifests import Manifest


@dataclass(frozen=True)
class Need:
    """What the cluster must have."""

    argument: str
    kinds: tuple[str, ...]
    """`group/version/kind` of each."""
    brings: str


def needs(plan: RuntimePlan) -> Iterator[Need]:
    """One for each argument that asks for such kinds."""
    if plan.tls is not None and plan.tls.acme_server is not None:
        yield Need("acme_server", _kinds(tls_objects(plan.tls, plan.namespace)), "cert-manager 1.12 or newer")
    if plan.tls is not None and plan.tls.vault is not None:
        brings = "the Secrets Store CSI driver (AKS: the add-on for Key Vault)"
        yield Need("ssl_key_vault_secret_id", _kinds(tls_objects(plan.tls, plan.namespace)), brings)
    if plan.prometheus_operator:
        yield Need("prometheus_operator", _kinds(operated(plan.namespace)), "the Prometheus operator")


def _kinds(manifests: Iterable[Manifest]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f"{one['apiVersion']}/{one['kind']}" for one in manifests))
