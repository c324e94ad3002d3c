"""The rules of AKS as pure functions: a declared cluster in, findings out; its cost and its capacity.

Nothing here asks Azure or the clock. The model names Azure's own words; see `model.Cluster`. Its hosts are in `hosts`,
which is named where it is needed: who checks a cluster does not load it.
"""

from aks_inference.cluster_rules.budget import AddressNeed, address_needs
from aks_inference.cluster_rules.capacity import Resources, allocatable, for_workloads
from aks_inference.cluster_rules.check import NOT_CHECKED, all_rules, check_cluster
from aks_inference.cluster_rules.clouds import CloudNames, cloud_of
from aks_inference.cluster_rules.cost import Cost, CostChange, cost_change, monthly_cost
from aks_inference.cluster_rules.fitting import FitReport, Service, fit_services
from aks_inference.cluster_rules.model import (
    Access,
    Cluster,
    Egress,
    Identity,
    Network,
    Pool,
    Security,
    Subnet,
    Tls,
)
from aks_inference.cluster_rules.packing import NodeGroup, Packing, Pending, Verdict, Workload, pack
from aks_inference.cluster_rules.relocate import relocate
from aks_inference.cluster_rules.rulebook import Rule, RuleFinding
from aks_inference.cluster_rules.versions import supported_minors

__all__ = [
    "NOT_CHECKED",
    "Access",
    "AddressNeed",
    "CloudNames",
    "Cluster",
    "Cost",
    "CostChange",
    "Egress",
    "FitReport",
    "Identity",
    "Network",
    "NodeGroup",
    "Packing",
    "Pending",
    "Pool",
    "Resources",
    "Rule",
    "RuleFinding",
    "Security",
    "Service",
    "Subnet",
    "Tls",
    "Verdict",
    "Workload",
    "address_needs",
    "all_rules",
    "allocatable",
    "check_cluster",
    "cloud_of",
    "cost_change",
    "fit_services",
    "for_workloads",
    "monthly_cost",
    "pack",
    "relocate",
    "supported_minors",
]
