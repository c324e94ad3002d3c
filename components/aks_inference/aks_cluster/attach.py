"""Attaching a cluster that exists (azureml-v1.md 1.4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aks_inference.aks_cluster.groups import DEFAULT_MINUTES
from aks_inference.aks_cluster.purpose import Purpose
from aks_inference.cluster_rules.ids import GROUP, SUBSCRIPTION, is_group, is_guid
from aks_inference.cluster_rules.kinds import parse_id
from aks_inference.findings import Finding

NAMES = frozenset(
    {
        "cluster_purpose",
        "resource_id",
        "resource_group",
        "cluster_name",
        "subscription_id",
        "load_balancer_type",
        "load_balancer_subnet",
        "ssl_cname",
        "ssl_cert_pem_file",
        "ssl_key_pem_file",
        "leaf_domain_label",
        "overwrite_existing_domain",
        "minimum_tls_version",
        "ssl_key_vault_secret_id",
        "ssl_key_vault_id",
        "vcpus_per_node",
        "runtime",
        "create_timeout_minutes",
        "update_timeout_minutes",
        "delete_timeout_minutes",
    }
)
"""Arguments that an attached cluster has; all others are settings of a new one."""
_KIND = "Microsoft.ContainerService/managedClusters"
_FORM = f"/subscriptions/…/resourceGroups/…/providers/{_KIND}/…"


@dataclass(frozen=True)
class AttachPlan:
    """The cluster to attach."""

    purpose: Purpose
    resource_id: str | None
    resource_group: str | None
    cluster_name: str | None
    subscription_id: str | None
    vcpus_per_node: int | None
    runtime: Mapping[str, Any] | None = None
    """Arguments of the InferenceRuntime."""
    leaf_domain_label: str | None = None
    ssl_key_vault_secret_id: str | None = None
    ssl_key_vault_id: Any = None
    """A text or an output of one."""
    create_timeout_minutes: int = DEFAULT_MINUTES
    update_timeout_minutes: int = DEFAULT_MINUTES
    delete_timeout_minutes: int = DEFAULT_MINUTES

    @property
    def key(self) -> tuple[str, ...]:
        """Equal for the same cluster, said in the same way; Azure does not tell letter case apart."""
        parts = (self.resource_id, self.subscription_id, self.resource_group, self.cluster_name)
        return tuple((part or "").lower() for part in parts)

    @property
    def subscription(self) -> str | None:
        """The cluster's subscription, where it is said."""
        return self.resource_id.split("/")[2] if self.resource_id else self.subscription_id

    @property
    def name(self) -> str:
        """The cluster's name."""
        return self.cluster_name or (self.resource_id or "").rsplit("/", 1)[-1]


def attaches(declared: Mapping[str, Any]) -> bool:
    """Whether the arguments ask for an existing cluster."""
    return any(declared.get(name) is not None for name in ("resource_id", "resource_group"))


def attach_rules(declared: Mapping[str, Any]) -> Iterator[Finding]:
    """What the arguments must be together. `declared`: those that were given."""
    resource_id, group, name = (declared.get(key) for key in ("resource_id", "resource_group", "cluster_name"))
    if resource_id is not None:
        for other, value in (("resource_group", group), ("cluster_name", name)):
            if value is not None:
                rule = "is given beside @resource_id, which says it already"
                yield Finding((other,), rule, "give the id, or group and name", value)
        yield from _id(str(resource_id))
    elif name is None:
        yield Finding(("cluster_name",), "is needed with @resource_group to attach a cluster", "give both")
    for other in declared:
        if other not in NAMES:
            rule = "is a setting of a new cluster, and an attached one keeps its own"
            mend = "leave it out, or leave out @resource_id and @resource_group"
            yield Finding((other,), rule, mend, declared[other])
    yield from _names(declared.get("subscription_id"), group)


def _names(subscription: object, group: object) -> Iterator[Finding]:
    if isinstance(subscription, str) and not is_guid(subscription):
        mend = "write it as `az account show --query id` does"
        yield SUBSCRIPTION.broken(("subscription_id",), subscription, "is no GUID", mend)
    if isinstance(group, str) and not is_group(group):
        rule = "is no name of a resource group"
        yield GROUP.broken(("resource_group",), group, rule, "write the group's name, not its id")


def _id(text: str) -> Iterator[Finding]:
    parsed = parse_id(text)
    if parsed is None or text.endswith("/"):
        yield Finding(("resource_id",), "is not the resource id of an AKS cluster", f"write {_FORM}", text)
    elif (kind := f"{parsed.provider}/{'/'.join(kind for kind, _ in parsed.names)}").lower() != _KIND.lower():
        rule = f"is the id of a {kind}, not of an AKS cluster"
        yield Finding(("resource_id",), rule, f"write {_FORM}", text)
