"""What an autoscaler tells of what it wants, and asks again, as it comes to lead and stops leading."""

import asyncio
from typing import Any

import pytest

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.kubernetes import RuntimeSettings
from aks_inference_runtime.autoscaler.policy import Decision
from aks_inference_runtime.kubernetes import router_scaling
from aks_inference_runtime.kubernetes.measures import autoscaler_metrics
from aks_inference_runtime.kubernetes.objects import Declared
from aks_inference_runtime.kubernetes.router_scaling import RouterScaler
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.workloads import OtherScaler, Workload
from aks_inference_runtime.router.model import VersionKey

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
FIXED = {"autoscaleEnabled": False, "numReplicas": 3}


class Cluster:
    """A scaler with two endpoints, one by need and one of a fixed number."""

    def __init__(self) -> None:
        self.leads = True
        self.scaler = ClusterScaler(RuntimeSettings(), lambda: self.leads, lambda: 0.0)
        for informer in self.scaler._informers():
            informer._listed.set()
        for name, scaling in (("need", {}), ("fixed", FIXED)):
            version = {"name": "blue", "isDefault": True, "code": CODE, "scaling": scaling}
            spec = EndpointSpec.model_validate({"versions": [version]})
            self.scaler.endpoints._items[name] = Declared("ns", name, f"uid-{name}", 1, "2026-01-01", spec)
            work = Workload("ns", name, ("ns", name, "blue"), 3, 1, 1, 1, current=True, overdue=False, need={})
            self.scaler.workloads._items[name] = work
        self.scaler.scale(VersionKey("need", "blue"), Decision(3, "3 needed"))
        self.scaler._write_fixed()

    def wanted(self) -> dict[str, int]:
        self.scaler._forget()
        tally = self.scaler.tally
        lines = autoscaler_metrics(self.leads, tally.decisions, 0, tally.decided).splitlines()
        told = [line for line in lines if line.startswith("aks_inference_wanted_replicas{")]
        return {line.split('"')[1]: int(line.rpartition(" ")[2]) for line in told}


def test_what_is_wanted_is_told_by_who_leads_and_of_what_there_is() -> None:
    cluster = Cluster()
    assert cluster.wanted() == {"need": 3, "fixed": 3}
    cluster.scaler.others._take(
        "ADDED",
        {
            "metadata": {"namespace": "ns", "name": "hpa"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "need"}},
        },
    )
    assert OtherScaler("ns", "hpa", "need") in cluster.scaler.others.items.values()
    assert cluster.wanted() == {"fixed": 3}, "another one scales it"
    cluster.scaler.endpoints._items.pop("fixed")
    cluster.scaler.endpoints._tell()
    assert cluster.wanted() == {}
    assert set(cluster.scaler._last_scaling) == {("need", "blue")}


def test_who_does_not_lead_any_more_wants_nothing() -> None:
    cluster = Cluster()
    cluster.leads = False
    assert cluster.wanted() == {}
    cluster.leads = True
    assert cluster.wanted() == {}, "until it decides anew"


async def test_each_leader_asks_whether_pods_can_be_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster may have been upgraded meanwhile."""
    monkeypatch.setattr(router_scaling, "LOOK_S", 0.001)
    leads, asked = True, asyncio.Event()
    scaler = RouterScaler(RuntimeSettings(), Nodes(), lambda _: None, lambda: leads, lambda: 0.0)

    async def quiet(_: Any) -> None:
        """All is listed."""

    for informer in (scaler.deployment, scaler.places):
        informer.run = quiet  # type: ignore[method-assign]
        informer._listed.set()
    container = {"name": "router", "resources": {}}
    made = {"metadata": {"uid": "u"}, "spec": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}
    scaler.deployment._items["d"] = router_scaling.deployment_of(made)

    class Server:
        async def get(self, _: str) -> dict[str, Any]:
            asked.set()
            return {}

        async def apply(self, *_: Any) -> None:
            """Takes it."""

    api: Any = Server()
    running = asyncio.create_task(scaler.run(api))
    async with asyncio.timeout(20):
        await asked.wait()
        leads = False
        while scaler.decision is not None or scaler._resizable is not None:
            await asyncio.sleep(0.001)
        asked.clear()
        leads = True
        await asked.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Nodes:
    """None."""

    def there(self) -> list[Any]:
        return []

    def needs(self) -> list[Any]:
        return []

    def room_for(self, *_: Any) -> int:
        return 0

    def other_scaler(self, *_: str) -> None:
        return None
