"""Resource ids that the arguments name, and the names of their parts (aks-rules 6)."""

import re
from collections.abc import Iterator

from aks_inference.cluster_rules.kinds import parse_id
from aks_inference.cluster_rules.model import Cluster
from aks_inference.cluster_rules.rulebook import RuleFinding, error
from aks_inference.findings import Verbatim

ID = error("6h", "ids are those of resources of their kind", "Spec 2025-09-01 (arm-id); Doc ARM resource ids")
SUBSCRIPTION = error("6i", "a subscription is named by its GUID", "Doc ARM resource ids")
GROUP = error("6j", "name of the resource group", "Doc ARM resource-name-rules.md")
TAGS = error("6k", "tags: 50 at most, their lengths and characters", "Doc ARM tag-resources.md")

MOST_TAGS, LONGEST_TAG_NAME, LONGEST_TAG_VALUE = 50, 512, 256
NOT_IN_TAG_NAMES = "<>%&\\?/"
KINDS = {
    "registry": "Microsoft.ContainerRegistry/registries",
    "user-assigned identity": "Microsoft.ManagedIdentity/userAssignedIdentities",
    "Log Analytics workspace": "Microsoft.OperationalInsights/workspaces",
    "workspace of Azure Monitor": "Microsoft.Monitor/accounts",
    "route table": "Microsoft.Network/routeTables",
    "public address": "Microsoft.Network/publicIPAddresses",
    "public address prefix": "Microsoft.Network/publicIPPrefixes",
    "Key Vault": "Microsoft.KeyVault/vaults",
}
"""What an argument names, in words → its provider and type."""
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_GROUP = re.compile(r"[-\w.()]{0,89}[-\w()]")


def check_ids(cluster: Cluster) -> Iterator[RuleFinding]:
    """All findings about ids."""
    for path, kind, text in cluster.ids:
        wanted, parsed = KINDS[kind], parse_id(text)
        form = f"write /subscriptions/…/resourceGroups/…/providers/{wanted}/…"
        if parsed is None:
            yield ID.broken(path, text, f"is not the resource id of a {kind}", form)
        elif (found := f"{parsed.provider}/{'/'.join(kind for kind, _ in parsed.names)}").lower() != wanted.lower():
            yield ID.broken(path, text, f"is the id of a {found}, not of a {kind}", form)
    subscription, group = cluster.subscription_id, cluster.resource_group
    if subscription is not None and not is_guid(subscription):
        path = (*cluster.path, "subscription_id")
        yield SUBSCRIPTION.broken(path, subscription, "is no GUID", "write it as `az account show --query id` does")
    if group is not None and not is_group(group):
        yield GROUP.broken(
            (*cluster.path, "resource_group_name"),
            group,
            "must be 1 to 90 letters, digits, hyphens, underscores, brackets and periods, without a period at the end",
            'for example "scoring"',
        )
    yield from _tags(cluster)


def _tags(cluster: Cluster) -> Iterator[RuleFinding]:
    if len(cluster.tags) > MOST_TAGS:
        says = f"a resource has at most {MOST_TAGS} tags"
        yield TAGS.broken((*cluster.path, "tags"), len(cluster.tags), says, "leave some out")
    for name, value in cluster.tags:
        path = (*cluster.path, "tags", Verbatim(name))
        if not 0 < len(name) <= LONGEST_TAG_NAME or any(char in NOT_IN_TAG_NAMES for char in name):
            says = f"a tag's name has 1 to {LONGEST_TAG_NAME} characters, none of {NOT_IN_TAG_NAMES}"
            yield TAGS.broken(path, None, says, "rename it")
        if isinstance(value, str) and len(value) > LONGEST_TAG_VALUE:
            says = f"a tag's value has at most {LONGEST_TAG_VALUE} characters, and this one {len(value)}"
            yield TAGS.broken(path, None, says, "shorten it")


def is_guid(text: str) -> bool:
    """Whether it is a GUID."""
    return _GUID.fullmatch(text) is not None


def is_group(text: str) -> bool:
    """Whether a resource group can have the name."""
    return _GROUP.fullmatch(text) is not None
