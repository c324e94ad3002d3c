"""Names of the cluster and what belongs to it (aks-rules 6)."""

import re
from collections.abc import Iterator

from aks_inference.cluster_rules.model import Cluster
from aks_inference.cluster_rules.rulebook import Rule, RuleFinding, error, warning
from aks_inference.facts import region_named, short_region

CLUSTER_NAME = error("6b", "cluster name", "Spec 2025-09-01; PSRule Azure.AKS.Name")
DNS_PREFIX = error("6c", "DNS prefix", "PSRule Azure.AKS.DNSPrefix; aka.ms/aks-naming-rules")
NODE_GROUP = error("6d", "name of the node resource group", "aka.ms/aks-naming-rules")
ADMIN_NAME = error("6e", "administrator's name", "Spec 2025-09-01 linuxProfile")
REGION = warning("6f", "region is known", "subscription locations of 2026-04-02, AzureLocation.cs")
REGION_DIFFERS = warning(
    "6g", "registry and storage in the cluster's region", "aks-rules 15 (inferred); egress between regions is paid"
)

NODE_GROUP_LENGTH = 80

_FORMS: tuple[tuple[str, Rule, re.Pattern[str], str, str], ...] = (
    (
        "name",
        CLUSTER_NAME,
        re.compile(r"[a-zA-Z0-9]([-_a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"),
        "must be 1 to 63 letters, digits, hyphens and underscores, a letter or digit at both ends",
        "scoring-cluster",
    ),
    (
        "dns_prefix",
        DNS_PREFIX,
        re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,52}[a-zA-Z0-9])?"),
        "must be 1 to 54 letters, digits and hyphens, a letter or digit at both ends",
        "scoring",
    ),
    (
        "admin_username",
        ADMIN_NAME,
        re.compile(r"[A-Za-z][-A-Za-z0-9_]*"),
        "must begin with a letter and hold letters, digits, hyphens and underscores",
        "azureuser",
    ),
    (
        "node_resource_group",
        NODE_GROUP,
        re.compile(r"[-\w.()]{0,79}[-\w()]"),
        "must be 1 to 80 letters, digits, hyphens, underscores, brackets and periods, without a period at the end",
        "scoring-nodes",
    ),
)


def check_names(cluster: Cluster) -> Iterator[RuleFinding]:
    """All findings about names; those of pools are in `pools`."""
    for field, rule, form, says, example in _FORMS:
        value: str | None = getattr(cluster, field)
        if value is not None and not form.fullmatch(value):
            yield rule.broken((*cluster.path, field), value, says, f'for example "{example}"')
    yield from _default_group(cluster)
    yield from _regions(cluster)


def _default_group(cluster: Cluster) -> Iterator[RuleFinding]:
    group, name, location = cluster.resource_group, cluster.name, cluster.location
    if cluster.node_resource_group is not None:
        if group is not None and cluster.node_resource_group.lower() == group.lower():
            yield NODE_GROUP.broken(
                (*cluster.path, "node_resource_group"),
                cluster.node_resource_group,
                "is @resource_group itself; AKS creates this group, so it must not exist",
                "give another name, or leave it out",
            )
        return
    if group is None or name is None or location is None:
        return
    default = f"MC_{group}_{name}_{location.replace(' ', '').lower()}"
    if len(default) > NODE_GROUP_LENGTH:
        yield NODE_GROUP.broken(
            (*cluster.path, "node_resource_group"),
            None,
            f"the default name {default} has {len(default)} characters, and {NODE_GROUP_LENGTH} are allowed",
            "give a shorter name here",
        )


def _regions(cluster: Cluster) -> Iterator[RuleFinding]:
    if cluster.location is None:
        return
    if region_named(cluster.location) is None:
        yield REGION.broken(
            (*cluster.path, "location"),
            cluster.location,
            "is not in the list of regions of 2026-07",
            "check the spelling",
        )
    here = short_region(cluster.location)
    for what, there in cluster.related_locations:
        if short_region(there) != here:
            yield REGION_DIFFERS.broken(
                (*cluster.path, "location"),
                cluster.location,
                f"the {what} is in {there}: images and models come from another region, slower and at a price",
                f"use a {what} in {here}",
            )
