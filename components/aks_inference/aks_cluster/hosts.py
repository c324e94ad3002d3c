"""The hosts that a declared cluster needs, with the stack's own names as far as they are known."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from aks_inference.aks_cluster.spec import ClusterPlan
from aks_inference.cluster_rules import Phase, RequiredHost, StackNames, cloud_of, required_hosts
from aks_inference.cluster_rules.kinds import parse_id
from aks_inference.values import is_late


def registry_host(registry_id: str, location: str | None) -> str | None:
    """The login server of a registry's id."""
    parsed = parse_id(registry_id)
    return f"{parsed.name.lower()}.{cloud_of(location).registry}" if parsed else None


def hosts_of(plan: ClusterPlan, registry_ids: Iterable[Any], api_server: str | None = None) -> tuple[RequiredHost, ...]:
    """All of them. Ids that are known only later are left out."""
    location = plan.cluster.location
    known = (registry_host(one, location) for one in registry_ids if isinstance(one, str))
    names = StackNames(
        api_server=api_server,
        registries=tuple(host for host in known if host),
        scoring_host=plan.spec.ssl_cname,
        dns_servers=plan.network.spec.dns_servers,
        acme=plan.spec.leaf_domain_label is not None,
    )
    return required_hosts(plan.cluster, names)


def host_map(hosts: Sequence[RequiredHost]) -> dict[str, str]:
    """`host:port` → when, by whom, and what fails without it."""
    return {
        f"{one.host}:{one.port}": f"{', '.join(one.phases)}; from {', '.join(one.source_of_traffic)}; "
        f"without it: {one.without_it}"
        for one in hosts
    }


def host_line(plan: ClusterPlan) -> str:
    """One line for the preview."""
    hosts = hosts_of(plan, [one for one in plan.spec.registry_ids if not is_late(one)])
    first = Counter(one.phases[0] for one in hosts)
    parts = ", ".join(f"{first[phase]} from {phase} on" for phase in Phase if first[phase])
    return f"required hosts: {len(hosts)} ({parts}); the output required_hosts and `aks-inference doctor` list them"
