"""Network models and their combinations (aks-rules 1)."""

from collections.abc import Iterator
from datetime import date

from aks_inference.cluster_rules.kinds import NetworkKind, network_kind, parse_subnet_id, surge_nodes
from aks_inference.cluster_rules.model import Cluster, Network
from aks_inference.cluster_rules.rulebook import RuleFinding, error, warning
from aks_inference.facts import short_region
from aks_inference.findings import Path, Severity

VALUES = error(
    "1.1",
    "network plugin, mode, data plane and policy are words that AKS knows",
    "Spec 2025-09-01 ContainerServiceNetworkProfile",
)
PLUGIN_MODE = error(
    "1.1", "overlay and network mode only with plugin azure", "Spec 2025-09-01 ContainerServiceNetworkProfile"
)
KUBENET_RETIRES = warning("1.3", "kubenet ends on 31 March 2028", "Doc includes/kubenet-retirement.md")
KUBENET_LIMITS = error(
    "1.4",
    "kubenet: 400 nodes, Linux, no Azure policy, no Cilium",
    "Doc configure-kubenet.md 2026-04-16, use-network-policies.md",
)
KUBENET_IDENTITY = error(
    "1.5",
    "kubenet in an own subnet needs a user-assigned identity",
    "Doc configure-kubenet.md, managed-identity-overview.md",
)
KUBENET_ROUTES = error(
    "1.5",
    "kubenet with an own route table: the identity that is made gets its role there, too",
    "Doc configure-kubenet.md, managed-identity-overview.md",
)
KUBENET_PRIVATE_DNS = warning(
    "1.6", "private cluster, kubenet, own route table and own DNS together", "Doc private-clusters.md"
)
CILIUM = error(
    "1.7",
    "Cilium policy needs the Cilium data plane, that plugin azure and Linux",
    "Spec; Doc azure-cni-powered-by-cilium.md",
)
NPM_RETIRES = warning(
    "1.8",
    "Azure network policy manager: retirement and size",
    "Doc use-network-policies.md, includes/azure-network-policy-manager-linux-retirement.md",
)
OVERLAY_LIMITS = error(
    "1.9", "overlay: nodes, sizes and lengths of names", "Doc concepts-network-azure-cni-overlay.md 2026-07-31"
)
POD_SUBNET = error(
    "1.10",
    "pod subnet: apart from the node subnet, plugin azure, allocation mode",
    "Doc concepts-network-azure-cni-pod-subnet.md",
)
SUBNETS = error(
    "1.11",
    "one virtual network, in the cluster's region, node subnet not delegated",
    "Doc concepts-network-cni-overview.md 2026-07-10, create-node-pools.md",
)

KUBENET_ENDS = date(2028, 3, 31)
NPM_ENDS = date(2028, 9, 30)
KUBENET_NODES = 400
"""Routes in a route table of the user's."""
OVERLAY_NODES = 5000
NPM_NODES = 250
LABEL_LENGTH = 63
"""The names become node labels."""
STATIC_BLOCK_SINCE = (1, 28)

_WORDS: dict[str, tuple[str, ...]] = {
    "plugin": ("azure", "kubenet", "none"),
    "plugin_mode": ("overlay",),
    "dataplane": ("azure", "cilium"),
    "policy": ("none", "calico", "azure", "cilium"),
    "mode": ("transparent", "bridge"),
    "pod_ip_allocation": ("DynamicIndividual", "StaticBlock"),
}


def check_network(cluster: Cluster) -> Iterator[RuleFinding]:
    """All of section 1."""
    yield from _words(cluster.network)
    yield from _modes(cluster.network)
    if network_kind(cluster.network) is NetworkKind.KUBENET:
        yield from _kubenet(cluster)
    yield from _cilium(cluster)
    yield from _policy_manager(cluster)
    yield from _overlay(cluster)
    yield from _pod_subnet(cluster)
    yield from _subnets(cluster)


def most_nodes(cluster: Cluster) -> int:
    """At the autoscalers' maxima, while every pool is upgraded."""
    return sum(pool.most_nodes + surge_nodes(pool) for pool in cluster.pools)


def _beyond(cluster: Cluster, limit: int) -> Severity:
    """Without surge the nodes are refused; with it, an upgrade is."""
    return Severity.ERROR if sum(pool.most_nodes for pool in cluster.pools) > limit else Severity.WARNING


def _words(network: Network) -> Iterator[RuleFinding]:
    for name, known in _WORDS.items():
        value = getattr(network, name)
        if value is not None and value not in known:
            close = {word.lower(): word for word in known}.get(str(value).lower())
            mend = f'write "{close}"' if close else f"use one of {', '.join(known)}, or leave it out"
            yield VALUES.broken((*network.path, name), value, "is not known to AKS", mend)


def _modes(network: Network) -> Iterator[RuleFinding]:
    if network.plugin_mode == "overlay" and network.plugin not in {None, "azure"}:
        yield PLUGIN_MODE.broken(
            (*network.path, "plugin_mode"),
            network.plugin_mode,
            f'goes only with @plugin "azure", and @plugin is "{network.plugin}"',
            'write @plugin "azure", or leave out @plugin_mode',
        )
    if network.mode == "bridge":
        yield PLUGIN_MODE.broken(
            (*network.path, "mode"), network.mode, "is no longer supported", 'write "transparent", or leave it out'
        )
    elif network.mode is not None and network.plugin not in {None, "azure"}:
        yield PLUGIN_MODE.broken(
            (*network.path, "mode"),
            network.mode,
            f'goes only with @plugin "azure", and @plugin is "{network.plugin}"',
            "leave out @mode",
        )


def _kubenet(cluster: Cluster) -> Iterator[RuleFinding]:
    network, plugin = cluster.network, (*cluster.network.path, "plugin")
    ended = cluster.today is not None and cluster.today > KUBENET_ENDS
    yield KUBENET_RETIRES.broken(
        plugin,
        "kubenet",
        f"AKS {'ended' if ended else 'ends'} support of kubenet on {KUBENET_ENDS}",
        'use @plugin "azure" with @plugin_mode "overlay"; an existing cluster can be moved in place',
        Severity.ERROR if ended and not cluster.existing else None,
    )
    nodes = most_nodes(cluster)
    if nodes > KUBENET_NODES:
        yield KUBENET_LIMITS.broken(
            plugin,
            "kubenet",
            f"holds at most {KUBENET_NODES} nodes (routes of a table), and the pools may have {nodes} with surge",
            'use @plugin "azure" with @plugin_mode "overlay", or smaller pools',
            _beyond(cluster, KUBENET_NODES),
        )
    if network.policy in {"azure", "cilium"}:
        yield KUBENET_LIMITS.broken(
            (*network.path, "policy"),
            network.policy,
            'does not work with @plugin "kubenet"',
            'use @policy "calico" or "none", or @plugin "azure"',
        )
    if network.dataplane == "cilium":
        yield KUBENET_LIMITS.broken(
            (*network.path, "dataplane"), "cilium", 'does not work with @plugin "kubenet"', 'use @plugin "azure"'
        )
    if network.subnet is not None and not cluster.identity.user_assigned:
        yield KUBENET_IDENTITY.broken(
            (*cluster.identity.path, "system_assigned"),
            True,
            "kubenet in @subnet_id needs an identity that has its role before the cluster is created, "
            "and a system-assigned one gets it only after",
            "use a user-assigned identity (the default)",
        )
    own_routes = network.subnet is not None and network.own_route_table
    if own_routes and network.route_table_id is None and cluster.identity.made:
        yield KUBENET_ROUTES.broken(
            (*network.path, "own_route_table"),
            True,
            "needs @route_table_id: the cluster's identity is made here, and must be given its role at the table first",
            "give the table's resource id, or `identity.identity_id` with rights at it",
        )
    if cluster.access.private_cluster and network.own_route_table and network.dns_servers:
        yield KUBENET_PRIVATE_DNS.broken(
            plugin,
            "kubenet",
            "with @private_cluster, an own route table and @dns_servers the creation fails until the route table "
            "of the node resource group is associated with the subnet",
            'use @plugin "azure" with @plugin_mode "overlay", or associate it during the creation',
        )


def _cilium(cluster: Cluster) -> Iterator[RuleFinding]:
    network = cluster.network
    if network.policy == "cilium" and network.dataplane != "cilium" and network.plugin != "kubenet":
        yield CILIUM.broken(
            (*network.path, "policy"),
            "cilium",
            f'needs @dataplane "cilium", and @dataplane is {_shown(network.dataplane)}',
            'write @dataplane "cilium", or another @policy',
        )
    if network.dataplane != "cilium":
        return
    if network.plugin == "none":
        yield CILIUM.broken(
            (*network.path, "dataplane"),
            "cilium",
            'goes only with @plugin "azure", and @plugin is "none"',
            'write @plugin "azure"; an own Cilium is installed with @plugin "none" and without @dataplane',
        )
    if network.policy in {"azure", "calico"}:
        yield CILIUM.broken(
            (*network.path, "policy"),
            network.policy,
            'does not work with @dataplane "cilium"',
            'write @policy "cilium", or leave out @dataplane',
        )
    for pool in cluster.pools:
        if pool.os_type == "Windows":
            yield CILIUM.broken(
                (*pool.path, "os_type"),
                "Windows",
                'the pool cannot be in a cluster with @dataplane "cilium", which is Linux only',
                "use Linux",
            )


def _policy_manager(cluster: Cluster) -> Iterator[RuleFinding]:
    if cluster.network.policy != "azure" or network_kind(cluster.network) is NetworkKind.KUBENET:
        return
    path = (*cluster.network.path, "policy")
    ended = cluster.today is not None and cluster.today > NPM_ENDS
    yield NPM_RETIRES.broken(
        path,
        "azure",
        f"Azure network policy manager {'ended' if ended else 'ends'} for Linux on {NPM_ENDS}",
        'use @policy "cilium" with @dataplane "cilium"',
    )
    if (nodes := most_nodes(cluster)) > NPM_NODES:
        yield NPM_RETIRES.broken(
            path,
            "azure",
            f"is supported up to {NPM_NODES} nodes, and the pools may have {nodes} with surge",
            'use @policy "cilium" with @dataplane "cilium", or "calico"',
        )


def _overlay(cluster: Cluster) -> Iterator[RuleFinding]:
    network = cluster.network
    if network_kind(network) is not NetworkKind.OVERLAY:
        return
    if (nodes := most_nodes(cluster)) > OVERLAY_NODES:
        yield OVERLAY_LIMITS.broken(
            (*network.path, "plugin_mode"),
            "overlay",
            f"holds at most {OVERLAY_NODES} nodes, and the pools may have {nodes} with surge",
            "use smaller pools or several clusters",
            _beyond(cluster, OVERLAY_NODES),
        )
    for pool in cluster.pools:
        size = (pool.vm_size or "").lower()
        if size.startswith("standard_dc") and size.endswith("s_v2"):
            yield OVERLAY_LIMITS.broken(
                (*pool.path, "vm_size"),
                pool.vm_size,
                'the DCsv2 sizes do not work with @plugin_mode "overlay"',
                "use a DCsv3 size, or another network model",
            )
    subnet = parse_subnet_id(network.subnet.id) if network.subnet else None
    if subnet is not None:
        named = {"subnet": subnet.name, "virtual network": subnet.names[0][1], "resource group": subnet.group}
        for what, name in named.items():
            if len(name) > LABEL_LENGTH:
                yield OVERLAY_LIMITS.broken(
                    (*network.path, "subnet_id"),
                    name,
                    f"the {what}'s name has {len(name)} characters; overlay makes node labels of it: {LABEL_LENGTH}",
                    f"use a {what} with a shorter name",
                )


def _pod_subnet(cluster: Cluster) -> Iterator[RuleFinding]:
    network = cluster.network
    path: Path = (*network.path, "pod_subnet_id")
    if network.pod_subnet is None:
        if network.pod_ip_allocation is not None:
            yield POD_SUBNET.broken(
                (*network.path, "pod_ip_allocation"),
                network.pod_ip_allocation,
                "goes only with @pod_subnet_id, which is not given",
                "give @pod_subnet_id, or leave it out",
            )
        return
    if network.subnet is None:
        yield POD_SUBNET.broken(
            path, network.pod_subnet.id, "needs a subnet for the nodes, and @subnet_id is not given", "give @subnet_id"
        )
    elif network.subnet.id.lower() == network.pod_subnet.id.lower():
        yield POD_SUBNET.broken(
            path,
            network.pod_subnet.id,
            "is the same subnet as @subnet_id; pods need one of their own",
            "name another subnet of the same virtual network",
        )
    if network.plugin not in {None, "azure"} or network.plugin_mode == "overlay":
        other = f'@plugin "{network.plugin}"' if network.plugin not in {None, "azure"} else '@plugin_mode "overlay"'
        yield POD_SUBNET.broken(
            path,
            network.pod_subnet.id,
            f"does not go with {other}, whose pods have no subnet",
            'leave out @pod_subnet_id, or write @plugin "azure" without @plugin_mode',
        )
    elif network.plugin is None:
        yield POD_SUBNET.broken(
            path, network.pod_subnet.id, 'needs @plugin "azure", and @plugin is not given', 'write @plugin "azure"'
        )
    version = tuple(map(int, (cluster.kubernetes_version or "").split(".")[:2])) if _is_version(cluster) else None
    if network.pod_ip_allocation == "StaticBlock" and version is not None and version < STATIC_BLOCK_SINCE:
        yield POD_SUBNET.broken(
            (*network.path, "pod_ip_allocation"),
            "StaticBlock",
            f"needs Kubernetes 1.28 or later, and @kubernetes_version is {cluster.kubernetes_version}",
            "use a later version, or DynamicIndividual",
        )


def _subnets(cluster: Cluster) -> Iterator[RuleFinding]:
    network = cluster.network
    given = [((*network.path, "subnet_id"), network.subnet.id)] if network.subnet else []
    given += [((*network.path, "pod_subnet_id"), network.pod_subnet.id)] if network.pod_subnet else []
    given += [((*pool.path, "subnet_id"), pool.subnet_id) for pool in cluster.pools if pool.subnet_id]
    given += [((*pool.path, "pod_subnet_id"), pool.pod_subnet_id) for pool in cluster.pools if pool.pod_subnet_id]
    first: tuple[str, str] | None = None
    for path, subnet_id in given:
        parsed = parse_subnet_id(subnet_id)
        if parsed is None:
            yield SUBNETS.broken(
                path,
                subnet_id,
                "is not the resource id of a subnet",
                "write /subscriptions/…/resourceGroups/…/providers/Microsoft.Network/virtualNetworks/…/subnets/…",
            )
            continue
        network_of = subnet_id.lower().rsplit("/subnets/", 1)[0]
        if first is None:
            first = (network_of, parsed.names[0][1])
        elif first[0] != network_of:
            yield SUBNETS.broken(
                path,
                subnet_id,
                f'lies in the virtual network "{parsed.names[0][1]}", and the others in "{first[1]}"; '
                "all pools of a cluster share one",
                f'name a subnet of "{first[1]}"',
            )
    if network.subnet is None:
        return
    parsed, subscription = parse_subnet_id(network.subnet.id), cluster.subscription_id
    if parsed is not None and subscription is not None and parsed.subscription.lower() != subscription.lower():
        yield SUBNETS.broken(
            (*network.path, "subnet_id"),
            network.subnet.id,
            f"lies in the subscription {parsed.subscription}, and the cluster is made in {subscription}",
            "use a virtual network of the cluster's subscription",
        )
    for delegation in network.subnet.delegations or ():
        yield SUBNETS.broken(
            (*network.path, "subnet_id"),
            network.subnet.id,
            f"is delegated to {delegation}; a node subnet may not be delegated",
            "remove the delegation, or name another subnet",
        )
    region, location = network.subnet.region, cluster.location
    if region and location and short_region(region) != short_region(location):
        yield SUBNETS.broken(
            (*network.path, "subnet_id"),
            network.subnet.id,
            f"lies in {region}, and @location is {location}; the network must be in the cluster's region",
            f"use a virtual network in {location}, or @location {region}",
        )


def _is_version(cluster: Cluster) -> bool:
    parts = (cluster.kubernetes_version or "").split(".")
    return len(parts) >= 2 and all(part.isdigit() for part in parts)


def _shown(value: str | None) -> str:
    return "not given" if value is None else f'"{value}"'
