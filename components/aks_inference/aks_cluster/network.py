"""The network of a cluster: kubenet, or Azure CNI in a subnet (reference: aks-rules.md 1 and 2, azureml-v1.md 1.1)."""

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aks_inference.findings import Finding, Path, Severity
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
RESERVED = tuple(ipaddress.ip_network(r) for r in ("169.254.0.0/16", "172.30.0.0/16", "172.31.0.0/16", "192.0.2.0/24"))
"""Ranges that AKS uses itself (rule 2.6)."""
DEFAULT_SERVICE_CIDR = "10.0.0.0/16"
DEFAULT_POD_CIDR = "10.244.0.0/16"
LARGEST_SERVICE_PREFIX = 12
"""A service range must be smaller than /12 (rule 2.3)."""

Net = ipaddress.IPv4Network


class NetworkSpec(Spec):
    """The group, converted."""

    plugin: Text | None = None
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

    @property
    def in_subnet(self) -> bool:
        """Whether the nodes are in a subnet of the user's."""
        return self.subnet_id is not None or self.names is not None

    def profile(self) -> dict[str, Any]:
        """The networkProfile of the ManagedCluster. Plugin and balancer are always written: AKS's defaults move."""
        profile = {
            "networkPlugin": self.plugin,
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
    plugin = spec.plugin or ("azure" if spec.subnet_id is not None or spec.vnet_name else "kubenet")
    names = (spec.vnet_resourcegroup_name or "", spec.vnet_name, spec.subnet_name or "") if spec.vnet_name else None
    return Network(plugin, spec.subnet_id, names, spec.service_cidr, spec.dns_service_ip, spec.pod_cidr), findings


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
    if isinstance(spec.subnet_id, str) and not _is_subnet_id(spec.subnet_id):
        mend = "use /subscriptions/…/resourceGroups/…/providers/Microsoft.Network/virtualNetworks/…/subnets/…"
        yield Finding(("subnet_id",), "is not the id of a subnet", mend, spec.subnet_id)
    if len(named) == len(NAMES) or spec.subnet_id is not None:
        for name in ("service_cidr", "dns_service_ip"):
            if getattr(spec, name) is None:
                yield Finding((name,), "is required with a subnet", "for example 10.0.0.0/16 and 10.0.0.10")
    if spec.docker_bridge_cidr is not None:
        mend = "leave it out"
        rule = "has no effect: AKS has no such setting since containerd replaced Docker"
        yield Finding(("docker_bridge_cidr",), rule, mend, spec.docker_bridge_cidr, Severity.WARNING)
    if spec.plugin == "azure" and spec.pod_cidr is not None:
        rule = "has no effect with Azure CNI in a subnet: pods get addresses of the subnet"
        yield Finding(("pod_cidr",), rule, "leave it out, or use kubenet", spec.pod_cidr)
    yield from _address_rules(spec)


def _address_rules(spec: NetworkSpec) -> Iterator[Finding]:
    ranges: dict[str, Net] = {}
    for name in ("service_cidr", "pod_cidr", "docker_bridge_cidr"):
        text = getattr(spec, name)
        if text is None:
            continue
        found = _range(text, strict=name != "docker_bridge_cidr")
        if found is None:
            yield Finding((name,), "is not a range of IPv4 addresses", "write it like 10.0.0.0/16", text)
        else:
            ranges[name] = found
            yield from _reserved(name, found, text)
    service = ranges.get("service_cidr")
    if service is not None and service.prefixlen <= LARGEST_SERVICE_PREFIX:
        rule = f"is too large: at most /{LARGEST_SERVICE_PREFIX + 1}"
        yield Finding(("service_cidr",), rule, "for example 10.0.0.0/16", spec.service_cidr)
    yield from _overlaps(ranges)
    yield from _dns(spec, service or (Net(DEFAULT_SERVICE_CIDR) if spec.service_cidr is None else None))


def _reserved(name: str, found: Net, text: str) -> Iterator[Finding]:
    taken = [str(range_) for range_ in RESERVED if found.overlaps(range_)]
    if taken:
        rule = f"overlaps {' and '.join(taken)}, which AKS keeps for itself"
        yield Finding((name,), rule, "choose another range", text)


def _overlaps(ranges: Mapping[str, Net]) -> Iterator[Finding]:
    names = list(ranges)
    for index, name in enumerate(names):
        for other in names[:index]:
            if ranges[name].overlaps(ranges[other]):
                rule = f"overlaps @{other} {ranges[other]}"
                yield Finding((name,), rule, "choose ranges that share no address", str(ranges[name]))


def _dns(spec: NetworkSpec, service: Net | None) -> Iterator[Finding]:
    text = spec.dns_service_ip
    if text is None:
        return
    path = ("dns_service_ip",)
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        yield Finding(path, "is not an IPv4 address", "write it like 10.0.0.10", text)
        return
    if service is None:
        return
    mend = f"use for example {service.network_address + 10}"
    if address not in service:
        yield Finding(path, f"is out of the range of @service_cidr {service}", mend, text)
    elif address == service.network_address + 1:
        yield Finding(path, "is the first address of @service_cidr, which is Kubernetes' own", mend, text)


def _range(text: str, strict: bool) -> Net | None:
    try:
        return Net(text, strict=strict) if "/" in text else None
    except ValueError:
        return None


def _is_subnet_id(text: str) -> bool:
    parts = text.strip("/").split("/")
    words = ["subscriptions", "resourcegroups", "providers", "virtualnetworks", "subnets"]
    return len(parts) == 10 and [parts[i].lower() for i in (0, 2, 4, 6, 8)] == words and all(parts)


def _moved(finding: Finding, prefix: Mapping[str, Path]) -> Finding:
    path = (*prefix.get(str(finding.path[0]), ()), *finding.path)
    return Finding(path, finding.rule, finding.mend, finding.value, finding.severity)
