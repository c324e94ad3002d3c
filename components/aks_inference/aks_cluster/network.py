"""The network of a cluster: kubenet, or Azure CNI in a subnet, said flat or in a group (azureml-v1.md 1.1).

What the values must be is the business of `aks_inference.cluster_rules`; here is which of them go together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aks_inference.findings import Finding, Path
from aks_inference.values import Leaf, Spec, Text, read

FLAT = (
    "vnet_resourcegroup_name",
    "vnet_name",
    "subnet_name",
    "service_cidr",
    "dns_service_ip",
    "docker_bridge_cidr",
)
"""Azure ML's six values."""
NAMES = FLAT[:3]


class NetworkSpec(Spec):
    """The group, converted."""

    plugin: Text | None = None
    plugin_mode: Text | None = None
    subnet_id: Leaf | None = None
    vnet_resourcegroup_name: Text | None = None
    vnet_name: Text | None = None
    subnet_name: Text | None = None
    service_cidr: Text | None = None
    dns_service_ip: Text | None = None
    docker_bridge_cidr: Text | None = None
    pod_cidr: Text | None = None


@dataclass(frozen=True)
class Network:
    """The network that the cluster will have."""

    plugin: str
    subnet_id: Any = None
    names: tuple[str, str, str] | None = None
    """Resource group, virtual network and subnet, where no id is given."""
    service_cidr: str | None = None
    dns_service_ip: str | None = None
    pod_cidr: str | None = None
    docker_bridge_cidr: str | None = None
    plugin_mode: str | None = None
    places: Mapping[Path, Path] = field(default_factory=dict)
    """Where the user wrote what the rules call `network.<name>`."""

    @property
    def in_subnet(self) -> bool:
        """Whether the nodes are in a subnet of the user's."""
        return self.subnet_id is not None or self.names is not None

    def profile(self) -> dict[str, Any]:
        """The networkProfile of the ManagedCluster. Plugin and balancer are always written: AKS's defaults move."""
        profile = {
            "networkPlugin": self.plugin,
            "networkPluginMode": self.plugin_mode,
            "loadBalancerSku": "standard",
            "outboundType": "loadBalancer",
            "serviceCidr": self.service_cidr,
            "dnsServiceIP": self.dns_service_ip,
            "podCidr": self.pod_cidr,
        }
        return {key: value for key, value in profile.items() if value is not None}


def plan_network(flat: Mapping[str, object], group: Mapping[str, object] | None) -> tuple[Network, list[Finding]]:
    """The network from Azure ML's flat arguments or the group. Findings carry whole paths."""
    got = read(NetworkSpec, {**(group or {})})
    inside: Path = ("network",)
    findings = [Finding((*inside, *f.path), f.rule, f.mend, f.value, f.severity) for f in got.findings]
    both = [name for name in FLAT if flat.get(name) is not None and getattr(got.spec, name) is not None]
    for name in both:
        findings.append(Finding((name,), f"is also given as network.@{name}", "give it once", flat[name]))
    given = {name: flat.get(name) for name in FLAT if flat.get(name) is not None}
    spec = got.spec.model_copy(update={name: value for name, value in given.items() if name not in both})
    flat_style = bool(given) and group is None
    prefix = {name: () if flat_style or name in given else inside for name in NetworkSpec.model_fields}
    findings += (_moved(finding, prefix) for finding in network_rules(spec))
    azure = spec.subnet_id is not None or spec.vnet_name or spec.plugin_mode
    plugin = spec.plugin or ("azure" if azure else "kubenet")
    names = (spec.vnet_resourcegroup_name or "", spec.vnet_name, spec.subnet_name or "") if spec.vnet_name else None
    network = Network(
        plugin,
        spec.subnet_id,
        names,
        spec.service_cidr,
        spec.dns_service_ip,
        spec.pod_cidr,
        spec.docker_bridge_cidr,
        spec.plugin_mode,
        {("network", name): (*place, name) for name, place in prefix.items()},
    )
    return network, findings


def network_rules(spec: NetworkSpec) -> Iterator[Finding]:
    """The rules of a network; paths relative to it."""
    if spec.plugin not in (None, "kubenet", "azure"):
        yield Finding(("plugin",), "is not a network plugin", "use kubenet or azure", spec.plugin)
    named = [name for name in NAMES if getattr(spec, name) is not None]
    if named and spec.subnet_id is not None:
        yield Finding(("subnet_id",), f"is given beside @{named[0]}", "give the id or the three names")
    elif named and len(named) < len(NAMES):
        missing = " and ".join(f"@{name}" for name in NAMES if name not in named)
        rule = f"{missing} missing: a subnet needs " + ", ".join(f"@{name}" for name in FLAT[:5])
        yield Finding((named[0],), rule, "give all of them or none", getattr(spec, named[0]))
    if len(named) == len(NAMES) or spec.subnet_id is not None:
        for name in ("service_cidr", "dns_service_ip"):
            if getattr(spec, name) is None:
                yield Finding((name,), "is required with a subnet", "for example 10.0.0.0/16 and 10.0.0.10")


def _moved(finding: Finding, prefix: Mapping[str, Path]) -> Finding:
    path = (*prefix.get(str(finding.path[0]), ()), *finding.path)
    return Finding(path, finding.rule, finding.mend, finding.value, finding.severity)
