"""Changes of a cluster that AKS refuses to make in place: said at preview, unless the cluster is made anew."""

from typing import Any

import pytest

from aks_inference_provider.resources.aks_changes import crowded, refusals, steps_left_out
from aks_inference_provider.resources.aks_guard import ClusterGuard
from aks_inference_provider.resources.base import Urn

PRIVATE, INTEGRATED = "access.privateCluster", "access.vnetIntegration"
COST = {"lowest": 1.0, "highest": 1.0, "complete": True}


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({PRIVATE: False}, {PRIVATE: True}, "changes from false to true, and AKS does that only with API server VNet"),
        ({PRIVATE: True}, {PRIVATE: False}, "changes from true to false"),
        ({PRIVATE: False, INTEGRATED: False}, {PRIVATE: True, INTEGRATED: True}, "in an apply of its own"),
        ({INTEGRATED: True}, {INTEGRATED: False}, "never turns it off again; keep it [2.15]"),
        ({"access.entraId": True}, {"access.entraId": False}, "never turns it off again; keep it [12a]"),
        ({"security.oidcIssuer": True}, {"security.oidcIssuer": False}, "keep it, or leave it out [12d]"),
        ({"kubernetesVersion": "1.36"}, {"kubernetesVersion": "1.35"}, "goes back from 1.36 to 1.35"),
        ({"kubernetesVersion": "1.35.4"}, {"kubernetesVersion": "1.35.2"}, "goes back from 1.35.4 to 1.35.2"),
        ({"kubernetesVersion": "1.36.1"}, {"kubernetesVersion": "1.35"}, "goes back"),
    ],
)
def test_what_is_refused(before: dict[str, Any], after: dict[str, Any], says: str) -> None:
    (reason,) = refusals(before, after)
    assert says in reason


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({PRIVATE: False, INTEGRATED: True}, {PRIVATE: True, INTEGRATED: True}),
        ({PRIVATE: False, INTEGRATED: False}, {PRIVATE: False, INTEGRATED: True}),
        ({"access.entraId": False}, {"access.entraId": True}),
        # What is left out stays as it is.
        ({"security.oidcIssuer": True}, {}),
        ({"kubernetesVersion": "1.35"}, {"kubernetesVersion": "1.36"}),
        ({"kubernetesVersion": "1.35.4"}, {"kubernetesVersion": "1.35"}),
        ({"kubernetesVersion": "1.35"}, {"kubernetesVersion": "1.35.2"}),
        ({"kubernetesVersion": "1.35"}, {}),
        # Recorded by an earlier version.
        (None, {PRIVATE: True}),
        ({}, {PRIVATE: True}),
    ],
)
def test_what_is_not(before: Any, after: Any) -> None:
    assert list(refusals(before, after)) == []


def test_minors_that_are_left_out_are_told() -> None:
    (told,) = steps_left_out({"kubernetesVersion": "1.33.2"}, {"kubernetesVersion": "1.36"})
    assert "apply 1.34, 1.35 first" in told
    assert list(steps_left_out({"kubernetesVersion": "1.35"}, {"kubernetesVersion": "1.36.1"})) == []


def room(available: int, **pools: int) -> dict[str, Any]:
    return {"network.podCidr": {"range": "10.244.0.0/16", "available": available, "pools": pools}}


@pytest.mark.parametrize(
    ("before", "after", "crowds"),
    [
        (room(1000, system=10, cpuaaaa=600), room(1000, system=10, cpubbbb=600), True),
        (room(1000, system=10, cpuaaaa=300), room(1000, system=10, cpubbbb=600), False),
        # The same pool grows; one that is only taken away needs nothing more.
        (room(1000, system=10, cpuaaaa=600), room(1000, system=10, cpuaaaa=900), False),
        # What does not fit in itself is said by the rule.
        (room(1000, system=10, cpuaaaa=600), room(1000, system=10, cpubbbb=1600), False),
        ({}, room(1000, cpubbbb=600), False),
        (None, room(1000, cpubbbb=600), False),
    ],
)
def test_room_while_one_pool_takes_the_place_of_another(before: Any, after: Any, crowds: bool) -> None:
    found = list(crowded(before, after))
    assert bool(found) == crowds
    if crowds:
        assert "cpuaaaa goes once its successor is there" in found[0]
        assert "need 1,210 addresses of the 1,000 of 10.244.0.0/16" in found[0]


async def test_the_guard_says_it_unless_the_cluster_is_made_anew() -> None:
    urn = Urn.parse("urn:pulumi:dev::p::aks-inference:index:AksInferenceCluster$aks-inference:index:ClusterGuard::prod")
    olds = {"fixed": {"location": "a"}, "oneWay": {PRIVATE: False, "kubernetesVersion": "1.33"}, "cost": COST}
    changed = {**olds, "oneWay": {PRIVATE: True, "kubernetesVersion": "1.36"}}
    checked = await ClusterGuard().check(urn, olds, changed)
    assert [failure.path for failure in checked.failures] == ["oneWay"]
    assert any("1.34, 1.35 first" in note for note in checked.notes)
    anew = {**changed, "fixed": {"location": "b"}}
    (failure,) = (await ClusterGuard().check(urn, olds, anew)).failures
    assert failure.path == "allowReplacement"
    assert not (await ClusterGuard().check(urn, olds, {**anew, "allowReplacement": True})).failures
    assert not (await ClusterGuard().check(urn, olds, olds)).failures
