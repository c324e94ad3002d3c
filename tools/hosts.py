"""Writes docs/required-hosts.md: the hosts that clusters need, by cloud and feature.

python tools/hosts.py [--check]
"""

import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from aks_inference.aks_cluster.hosts import hosts_of
from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.cluster_rules.hosts import Phase, RequiredHost

PAGE = Path(__file__).resolve().parent.parent / "docs" / "required-hosts.md"
TODAY = date(2026, 11, 21)
REGISTRY = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.ContainerRegistry/registries/myregistry"
WORKSPACE = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.OperationalInsights/workspaces/logs"
MONITOR = "/subscriptions/1/resourceGroups/rg/providers/Microsoft.Monitor/accounts/metrics"
FEATURES: dict[str, dict[str, object]] = {
    "a GPU pool": {"vm_size": "Standard_NC4as_T4_v3", "agent_count": 4},
    "Azure Policy": {"security": {"azure_policy": True}},
    "Container insights": {"security": {"container_insights": True, "log_analytics_workspace_id": WORKSPACE}},
    "managed Prometheus": {"security": {"managed_prometheus": True, "azure_monitor_workspace_id": MONITOR}},
    "Defender": {"security": {"defender": True, "log_analytics_workspace_id": WORKSPACE}},
    "workload identity": {"security": {"workload_identity": True}},
    "the Key Vault driver": {"security": {"key_vault_secrets": True}},
    "own DNS servers": {"network": {"dns_servers": ["10.1.0.4"]}},
}
CLOUDS = {"Azure": "westeurope", "Azure US Government": "usgovvirginia", "Azure China": "chinanorth3"}
HEAD = """# Hosts that must resolve and be reachable

For a cluster with the registry `myregistry`, in one region of each cloud; what a feature adds follows. A stack's own
list, with its names filled in, is the output `requiredHosts` of AksInferenceCluster; `aks-inference doctor FILE` goes
through it from the machine that it runs on, `aks-inference doctor FILE --list` prints it. `*.` stands for every name
under it (a firewall's rule), `<…>` for what is known after the creation. A private cloud's own names are given to
`aks_inference.cluster_rules.required_hosts` as `CloudNames`. Written by `tools/hosts.py`.
"""


def main() -> None:
    """Writes the page; with --check only compares."""
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text("utf-8") == page() else "docs/required-hosts.md is old: run tools/hosts.py")
    PAGE.write_text(page(), "utf-8")


def page() -> str:
    """The page."""
    parts = [HEAD]
    for cloud, region in CLOUDS.items():
        base = hosts({}, region)
        parts.append(f"## {cloud} ({region})\n\n{table(base)}")
        for feature, arguments in FEATURES.items():
            known = {(one.host, one.port) for one in base}
            more = [one for one in hosts(arguments, region) if (one.host, one.port) not in known]
            if more:
                parts.append(f"### With {feature}\n\n{table(more)}")
    return "\n".join(parts)


def hosts(arguments: dict[str, object], region: str) -> tuple[RequiredHost, ...]:
    """Of a cluster with these arguments."""
    declared = {"location": region, "vm_size": "Standard_D4s_v5", "registry_ids": [REGISTRY], **arguments}
    plan, findings = plan_cluster("prod", declared, TODAY)
    assert isinstance(plan, ClusterPlan), findings  # noqa: S101 - the table above is right
    return hosts_of(plan, plan.spec.registry_ids)


def table(found: tuple[RequiredHost, ...] | list[RequiredHost]) -> str:
    """By phase."""
    return "\n".join([*_rows(found), ""])


def _rows(found: tuple[RequiredHost, ...] | list[RequiredHost]) -> Iterator[str]:
    yield "| host | port | from phase | who needs it | for | without it |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for one in sorted(found, key=lambda each: (list(Phase).index(each.phases[0]), each.host, each.port)):
        need = "" if one.required else " (recommended)"
        phases, who = ", ".join(one.phases), ", ".join(one.source_of_traffic)
        cells = (f"`{one.host}`{need}", str(one.port), phases, who, one.needed_for, one.without_it)
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
