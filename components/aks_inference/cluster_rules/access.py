"""API server access, identities and who is let in (aks-rules 4 and 12)."""

import ipaddress
import re
from collections.abc import Iterator

from aks_inference.cluster_rules.addresses import parse_range, within
from aks_inference.cluster_rules.clouds import PUBLIC, cloud_of
from aks_inference.cluster_rules.kinds import ResourceId, parse_id
from aks_inference.cluster_rules.model import Access, Cluster
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning
from aks_inference.facts import region_named

_RANGES = "Doc api-server-authorized-ip-ranges.md 2026-08-03"
_PRIVATE = "Doc private-clusters.md 2026-08-05"
RANGES_PRIVATE = error("4a", "authorized ranges not with a private cluster", _RANGES)
RANGES_FORM = error("4b", "authorized ranges are networks, 200 at most", _RANGES)
RANGES_HOLD = error(
    "4c", "authorized ranges hold those from which the runtime is operated", "aks-rules 4; the runtime's operators"
)
RANGES_NODE_IPS = error("4d", "authorized ranges with node addresses need a prefix", _RANGES)
ZONE = error("4e", "private DNS zone: system, none or a zone of the right name", _PRIVATE)
ZONE_IDENTITY = error("4f", "an own private DNS zone needs a user-assigned identity", _PRIVATE)
SUBDOMAIN = error("4g", "subdomain only with an own zone, and instead of the DNS prefix", _PRIVATE)
ZONE_NONE = error("4h", "private DNS zone none needs the public name", _PRIVATE)
PRIVATE_ONLY = error("4i", "settings of private clusters on a public one", _PRIVATE)
ML_PUBLIC_NAME = warning(
    "4j",
    "Azure ML and a private cluster with a public name",
    "ML how-to-secure-kubernetes-inferencing-environment.md 2022-08-31",
)
ML_RANGES = warning("4l", "authorized ranges hold Azure ML's control plane", "ML v1/how-to-create-attach-kubernetes.md")
ZONE_SUBSCRIPTION = warning("4m", "private DNS zone in another subscription", _PRIVATE)
VNET_REGION = error("4k", "regions without API server VNet integration", "Doc api-server-vnet-integration.md")

RBAC = error("12a", "Azure RBAC needs Entra ID, in the subscription's tenant", "Doc entra-id-authorization.md")
LOCAL_ACCOUNTS = error("12b", "local accounts off only with Entra ID", "Spec 2025-09-01 disableLocalAccounts")
ML_ADMIN = warning(
    "12c",
    "Azure ML attaches with a local administrator",
    "Doc local-accounts.md; ML v1/how-to-create-attach-kubernetes.md",
)
WORKLOAD_IDENTITY = error(
    "12d", "workload identity needs the OIDC issuer", "Doc workload-identity-overview.md, use-oidc-issuer.md"
)
FEDERATED = error("12e", "20 federated credentials per identity", "Doc workload-identity-overview.md")
KUBELET_IDENTITY = error(
    "12f", "an own kubelet identity needs a user-assigned control plane", "Doc managed-identity-overview.md"
)
IDENTITY_REGION = error("12g", "regions without user-assigned identities", "Doc managed-identity-overview.md")

MOST_RANGES, MOST_RANGES_VNET = 200, 2000
NO_VNET_INTEGRATION = frozenset({"qatarcentral"})
NO_USER_ASSIGNED = frozenset({"usdodcentral", "usdodeast", "usgoviowa"})
MOST_FEDERATED = 20
_DNS_LABEL = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?")
"""A zone below the cluster zone has at most 32 characters."""


def check_access(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of sections 4 and 12."""
    yield from _ranges(cluster)
    yield from _operators(cluster.access)
    if cluster.access.private_cluster:
        yield from _private(cluster)
    else:
        yield from _public(cluster.access)
    if cluster.access.vnet_integration and cluster.region in NO_VNET_INTEGRATION:
        yield VNET_REGION.broken(
            (*cluster.access.path, "vnet_integration"), True, f"is not offered in {cluster.location}", "turn it off"
        )
    yield from _people(cluster)
    yield from _identities(cluster)


def _ranges(cluster: Cluster) -> Iterator[RuleFinding]:
    access = cluster.access
    path, texts = (*access.path, "authorized_ip_ranges"), access.authorized_ip_ranges
    if not texts:
        return
    if access.private_cluster:
        yield RANGES_PRIVATE.broken(
            path,
            list(texts),
            "does not go with @private_cluster, whose API server has no public address",
            "leave out one of them",
        )
    most = MOST_RANGES_VNET if access.vnet_integration else MOST_RANGES
    if len(texts) > most:
        yield RANGES_FORM.broken(path, len(texts), f"at most {most:,} ranges are allowed", "join neighbouring ranges")
    good = []
    for index, text in enumerate(texts):
        parsed = _network_of(text)
        if parsed is None:
            yield RANGES_FORM.broken(
                (*path, index), text, "is not an IPv4 range", "write address/length: 203.0.113.0/24"
            )
        elif text.partition("/")[0] != str(parsed.network_address):
            yield RANGES_FORM.broken(
                (*path, index), text, "does not begin at the network's first address", f"write {parsed}"
            )
        else:
            good.append(parsed)
    missing = [
        text
        for text in access.operator_ip_ranges
        if (wanted := _network_of(text)) is not None and not any(within(wanted, allowed) for allowed in good)
    ]
    if missing and len(good) == len(texts):
        yield RANGES_HOLD.broken(
            path,
            list(texts),
            f"do not hold @operator_ip_ranges {', '.join(missing)}, from which the runtime is deployed and operated",
            f"add {', '.join(missing)}",
        )
    if cluster.azure_ml:
        region = region_named(cluster.location) if cluster.location else None
        where = " and ".join(filter(None, [region.name, region.paired_region])) if region else "the workspace's region"
        yield ML_RANGES.broken(
            path,
            list(texts),
            f"must also hold the addresses of Azure ML's control plane (service tag AzureMachineLearning) in {where}",
            "add them, or the attachment fails",
        )
    for pool in cluster.pools:
        if pool.node_public_ip and pool.node_public_ip_prefix_id is None:
            yield RANGES_NODE_IPS.broken(
                (*pool.path, "node_public_ip"),
                True,
                "with @authorized_ip_ranges the nodes' addresses must come from a prefix that is let in",
                "give @node_public_ip_prefix_id and add its range to @authorized_ip_ranges",
            )


def _operators(access: Access) -> Iterator[RuleFinding]:
    for index, text in enumerate(access.operator_ip_ranges):
        if _network_of(text) is None:
            yield RANGES_FORM.broken(
                (*access.path, "operator_ip_ranges", index),
                text,
                "is not an IPv4 range",
                "write address/length: 203.0.113.0/24",
            )


def _private(cluster: Cluster) -> Iterator[RuleFinding]:
    access = cluster.access
    path, zone = (*access.path, "private_dns_zone"), access.private_dns_zone
    own = zone is not None and zone not in {"system", "none"}
    if own:
        yield from _own_zone(cluster, str(zone))
    if own and not cluster.identity.user_assigned:
        yield ZONE_IDENTITY.broken(
            path,
            zone,
            "needs a user-assigned identity with rights on the zone, and the cluster's is system-assigned",
            "use a user-assigned identity (the default)",
        )
    if access.fqdn_subdomain is not None:
        where = (*access.path, "fqdn_subdomain")
        if not own:
            yield SUBDOMAIN.broken(
                where,
                access.fqdn_subdomain,
                f'goes only with an own @private_dns_zone, which is "{zone or "system"}"',
                "give the resource id of a zone, or leave it out",
            )
        if not _DNS_LABEL.fullmatch(access.fqdn_subdomain):
            yield SUBDOMAIN.broken(
                where,
                access.fqdn_subdomain,
                "must be 1 to 63 letters, digits and hyphens, a letter or digit at both ends",
                'for example "scoring"',
            )
        if cluster.dns_prefix is not None:
            yield SUBDOMAIN.broken(
                where,
                access.fqdn_subdomain,
                f'stands instead of @dns_prefix, which is "{cluster.dns_prefix}"',
                "leave out one of them",
            )
    if zone == "none" and access.public_fqdn is False:
        yield ZONE_NONE.broken(
            path,
            zone,
            "with @public_fqdn false the API server would have no name at all",
            'turn on @public_fqdn, or use "system"',
        )
    if cluster.azure_ml and access.public_fqdn is not False:
        yield ML_PUBLIC_NAME.broken(
            (*access.path, "public_fqdn"),
            access.public_fqdn,
            "Azure ML does not support a private cluster with a public name",
            "write @public_fqdn false",
        )


def _own_zone(cluster: Cluster, zone: str) -> Iterator[RuleFinding]:
    path, parsed = (*cluster.access.path, "private_dns_zone"), parse_id(zone)
    if parsed is None or not _is_zone(parsed):
        yield ZONE.broken(
            path,
            zone,
            'is neither "system" nor "none" nor the resource id of a private DNS zone',
            "write /subscriptions/…/resourceGroups/…/providers/Microsoft.Network/privateDnsZones/…",
        )
        return
    subscription = cluster.subscription_id
    if subscription is not None and parsed.subscription.lower() != subscription.lower():
        yield ZONE_SUBSCRIPTION.broken(
            path,
            zone,
            f"lies in the subscription {parsed.subscription}, and the cluster is made in {subscription}",
            "register Microsoft.ContainerService in both",
        )
    word = "private" if cluster.access.vnet_integration else "privatelink"
    region = cluster.region
    if region is None or cloud_of(region) is not PUBLIC:
        return  # the forms of other clouds are not documented
    wanted = f"{word}.{region}.azmk8s.io"
    name = parsed.name.lower()
    sub, _, rest = name.partition(".")
    if name != wanted and not (rest == wanted and _LABEL.fullmatch(sub)):
        yield ZONE.broken(
            path,
            zone,
            f"the zone is named {parsed.name}; for a cluster in @location {cluster.location} it must be "
            f"{wanted} or <name>.{wanted}",
            f"use a zone named {wanted}",
        )


def _is_zone(parsed: ResourceId) -> bool:
    return parsed.provider.lower() == "microsoft.network" and parsed.names[0][0].lower() == "privatednszones"


def _public(access: Access) -> Iterator[RuleFinding]:
    for name, value in (
        ("private_dns_zone", access.private_dns_zone),
        ("fqdn_subdomain", access.fqdn_subdomain),
        ("public_fqdn", access.public_fqdn),
    ):
        if value is not None:
            yield PRIVATE_ONLY.broken(
                (*access.path, name),
                value,
                "goes only with @private_cluster, which is off",
                "turn it on, or leave it out",
            )


def _people(cluster: Cluster) -> Iterator[RuleFinding]:
    access = cluster.access
    if access.azure_rbac and not access.entra_id:
        yield RBAC.broken((*access.path, "azure_rbac"), True, "needs @entra_id, which is off", "turn on @entra_id")
    tenant, other = access.tenant_id, access.subscription_tenant_id
    if access.azure_rbac and access.entra_id and tenant and other and tenant.lower() != other.lower():
        yield RBAC.broken(
            (*access.path, "tenant_id"),
            tenant,
            f"with @azure_rbac it must be the subscription's tenant, {other}",
            "leave it out",
        )
    if not access.local_accounts and not access.entra_id:
        yield LOCAL_ACCOUNTS.broken(
            (*access.path, "local_accounts"), False, "nobody could sign in: @entra_id is off too", "turn on @entra_id"
        )
    elif not access.local_accounts and cluster.azure_ml:
        yield ML_ADMIN.broken(
            (*access.path, "local_accounts"),
            False,
            "Azure ML attaches a cluster with its administrator's credential, which is then off",
            "leave local accounts on until the cluster is attached",
        )


def _identities(cluster: Cluster) -> Iterator[RuleFinding]:
    security, identity = cluster.security, cluster.identity
    if security.workload_identity and security.oidc_issuer is False:
        yield WORKLOAD_IDENTITY.broken(
            (*security.path, "workload_identity"), True, "needs @oidc_issuer, which is off", "turn on @oidc_issuer"
        )
    if identity.federated_credentials > MOST_FEDERATED:
        yield FEDERATED.broken(
            (*security.path, "workload_identity"),
            None,
            f"{identity.federated_credentials} namespaces and service accounts would trust one identity, which holds "
            f"{MOST_FEDERATED}",
            "use several identities",
        )
    if identity.own_kubelet_identity and not identity.user_assigned:
        yield KUBELET_IDENTITY.broken(
            (*identity.path, "kubelet_identity_id"),
            None,
            "needs a user-assigned identity for the control plane as well",
            "use a user-assigned identity (the default)",
        )
    if identity.user_assigned and cluster.region in NO_USER_ASSIGNED:
        yield IDENTITY_REGION.broken(
            (*cluster.path, "location"),
            cluster.location,
            "has no user-assigned identities for AKS",
            "use another region, or a system-assigned identity",
        )


def _network_of(text: str) -> ipaddress.IPv4Network | None:
    """`203.0.113.7` or `203.0.113.0/24` as a network; None when it is neither."""
    parsed = parse_range(text if "/" in text else f"{text}/32")
    return parsed if isinstance(parsed, ipaddress.IPv4Network) else None
