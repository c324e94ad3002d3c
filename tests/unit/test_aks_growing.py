"""Pools that Azure enlarges are told to the autoscaler: replicas are wanted for nodes that are still to come."""

from datetime import date
from typing import Any

import pulumi
import pytest

from aks_inference.aks_cluster.spec import ClusterPlan, plan_cluster
from aks_inference.inference_runtime.spec import plan_runtime
from aks_inference.inference_runtime.workloads import _settings

TODAY = date(2026, 11, 21)
POOLS = [
    {"name": "cpu", "vm_size": "Standard_D4s_v5", "autoscale": True, "min_count": 3, "max_count": 9},
    {"name": "fixed", "vm_size": "Standard_D4s_v5", "count": 2},
    {"name": "spare", "vm_size": "Standard_D4s_v5", "autoscale": True, "min_count": 1, "max_count": 4, "spot": True},
]


def test_those_that_services_run_on() -> None:
    plan, _ = plan_cluster("prod", {"pools": POOLS, "location": "westeurope"}, TODAY)
    assert isinstance(plan, ClusterPlan)
    # Spot pools too: the autoscaler counts them for the versions that may run there.
    assert plan.growing == {plan.pools[0].azure_name: 9, plan.pools[2].azure_name: 4}


def test_the_runtimes_settings() -> None:
    plan, findings = plan_runtime("r", {"image": "i:1", "autoscaled_pools": {"cpu1a2b": 9.0}})
    assert plan is not None, findings
    assert plan.settings(None).autoscaled_pools == {"cpu1a2b": 9}


async def test_those_of_an_attached_cluster_are_known_once_it_is_looked_up() -> None:
    late = pulumi.Output.from_input({"cpu": 9.0})
    plan, findings = plan_runtime("r", {"image": "i:1", "autoscaled_pools": late})
    assert plan is not None, findings
    assert plan.settings(None, {"cpu": 9.0}).autoscaled_pools == {"cpu": 9}  # type: ignore[dict-item]
    settings = _settings(plan)
    assert isinstance(settings, pulumi.Output)
    assert '"autoscaledPools": {"cpu": 9}' in str(await settings.future())


@pytest.mark.parametrize("pools", [{"cpu": 0}, {"cpu": "many"}, ["cpu"]])
def test_what_is_no_number_of_nodes(pools: Any) -> None:
    plan, findings = plan_runtime("r", {"image": "i:1", "autoscaled_pools": pools})
    assert plan is None
    assert [finding.path[0] for finding in findings] == ["autoscaled_pools"]
