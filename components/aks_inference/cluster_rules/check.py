"""All rules of a cluster together."""

from collections.abc import Callable, Iterator
from types import ModuleType

from aks_inference.cluster_rules import (
    access,
    addons,
    autoscaling,
    budget,
    egress,
    ids,
    names,
    network,
    nodes,
    pools,
    ranges,
    tls,
    versions,
)
from aks_inference.cluster_rules.model import Cluster
from aks_inference.cluster_rules.rulebook import Rule, RuleFinding
from aks_inference.findings import Severity

Check = Callable[[Cluster], Iterator[RuleFinding]]

_MODULES: tuple[ModuleType, ...] = (
    names,
    ids,
    network,
    ranges,
    budget,
    egress,
    access,
    pools,
    nodes,
    autoscaling,
    versions,
    addons,
    tls,
)
_CHECKS: tuple[Check, ...] = (
    names.check_names,
    ids.check_ids,
    network.check_network,
    ranges.check_ranges,
    budget.check_budget,
    egress.check_egress,
    access.check_access,
    pools.check_pools,
    nodes.check_nodes,
    autoscaling.check_autoscaling,
    versions.check_versions,
    addons.check_addons,
    tls.check_tls,
)

NOT_CHECKED: dict[str, str] = {
    "1.2": "a fact about defaults: the component always writes plugin and mode",
    "1.12": "not an argument: the component makes the role assignments, for every subnet that pools name",
    "1.13": "security groups of the user's subnet are not read; the connectivity check finds what they close",
    "2.16": "about later changes: replacement is decided by the provider",
    "5": "a list, not a rule: `required_hosts`",
    "14": "a formula, not a rule: `capacity`, `packing` and `fitting`",
    "15": "times and limits of the API, met while it is called",
    "16": "replacement is decided by the provider, which sees the old state",
}
"""Numbers of the reference that are no check here, and why."""


def check_cluster(cluster: Cluster) -> tuple[RuleFinding, ...]:
    """Everything that is wrong, errors first; within them in the order of the rules."""
    found = [finding for check in _CHECKS for finding in check(cluster)]
    return tuple(sorted(found, key=lambda finding: finding.severity is not Severity.ERROR))


def all_rules() -> tuple[Rule, ...]:
    """Every rule that is checked, by module: for the generated table."""
    return tuple(value for module in _MODULES for value in vars(module).values() if isinstance(value, Rule))
