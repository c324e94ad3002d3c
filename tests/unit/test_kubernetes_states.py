"""States of endpoints are worked out when what they are made of has changed, and say in the end what is so."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.api.kubernetes import RuntimeSettings
from aks_inference_runtime.kubernetes import states
from aks_inference_runtime.kubernetes.informer import Informer
from aks_inference_runtime.kubernetes.objects import Declared
from aks_inference_runtime.kubernetes.reports import Reports
from aks_inference_runtime.kubernetes.room import PodNeed
from aks_inference_runtime.kubernetes.scaling import ClusterScaler
from aks_inference_runtime.kubernetes.states import FIGURES_S, MOST_FIGURES, Sources, States
from aks_inference_runtime.kubernetes.status import declared_with_status, status_of
from aks_inference_runtime.kubernetes.telling import Change
from aks_inference_runtime.kubernetes.workloads import ReplicaPod, Workload
from aks_inference_runtime.router.model import VersionKey, VersionLoad

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
BLUE = {"name": "blue", "isDefault": True, "code": CODE}
SPEC = EndpointSpec.model_validate({"versions": [BLUE]})


class Cluster:
    """What informers would know, and an API server that takes states."""

    def __init__(self, endpoints: int) -> None:
        self.now = 100.0
        self.url = "http://router"
        self.names = [f"svc-{number}" for number in range(endpoints)]
        known = [Informer("", lambda _: None, lambda: None) for _ in range(4)]
        self.sources = Sources(*known)  # type: ignore[arg-type]
        self.reports = Reports()
        self.loads: dict[VersionKey, VersionLoad] = {}
        self.generations: dict[str, int] = {}
        self.reports.load = lambda: self.loads  # type: ignore[method-assign]
        self.reports.served = lambda: lambda name: self.generations.get(name, 0)  # type: ignore[method-assign]
        self.scaling: dict[VersionKey, str] = {}
        self.leads = True
        self.changes: list[tuple[str | None, str]] = []
        """Of states, as they were told."""
        self.states = States(
            self.sources,
            self.reports,
            self.scaling,
            lambda: self.url,
            lambda: self.now,
            self,  # type: ignore[arg-type]
            lambda: self.leads,
        )
        self.written: dict[str, dict[str, Any]] = {}
        self.writings: Counter[str] = Counter()
        self.broken = False
        for name in self.names:
            version = ("ns", name, "blue")
            self.put(self.sources.endpoints, name, Declared("ns", name, f"uid-{name}", 1, "2026-01-01", SPEC))
            work = Workload("ns", name, version, 1, 1, 1, 1, current=True, overdue=False, need={})
            self.put(self.sources.deployments, name, work)
            self.put(self.sources.pods, name, ReplicaPod("ns", name, PodNeed("n", {}), version=version, ready=True))

    @staticmethod
    def put(informer: Informer[Any], name: str, found: Any) -> None:
        informer._items[name] = found
        informer._tell()

    @staticmethod
    def change(informer: Informer[Any], name: str, **fields: Any) -> None:
        Cluster.put(informer, name, replace(informer._items[name], **fields))

    async def tell(self, _: Any, change: Change) -> None:
        self.changes.append((change.before, change.after))

    async def apply(self, path: str, body: dict[str, Any], manager: str) -> None:
        if self.broken:
            raise OperationFailed("the API server is away")
        status = body["status"]
        (condition,) = status["conditions"]
        # Who reads a state knows by the same writing of which generation it is.
        assert status["state"]
        assert status["observedGeneration"] == condition["observedGeneration"] > 0
        self.written[body["metadata"]["name"]] = body["status"]
        self.writings[body["metadata"]["name"]] += 1

    def round(self, after_s: float = 0.5) -> None:
        self.now += after_s
        asyncio.run(self.states.write(self))  # type: ignore[arg-type]

    def busy(self, name: str, busy: int) -> None:
        self.loads = {**self.loads, VersionKey(name, "blue"): VersionLoad(busy, 0, 1)}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a state was worked out, by endpoint."""
    counts: Counter[str] = Counter()

    def counted(facts: Any) -> dict[str, Any]:
        counts[facts.endpoint.name] += 1
        return status_of(facts)

    monkeypatch.setattr(states, "status_of", counted)
    return counts


def test_a_round_is_about_what_has_changed(made: Counter[str]) -> None:
    cluster = Cluster(60)
    for _ in range(8):
        cluster.round()
    made.clear()
    cluster.round()
    assert not made
    cluster.change(cluster.sources.pods, "svc-7", ready=False)
    cluster.round()
    assert set(made) == {"svc-7"}
    assert cluster.written["svc-7"]["versions"][0]["replicasReady"] == 0
    assert cluster.writings["svc-8"] == 1


def test_another_address_of_the_router_is_another_state_of_all() -> None:
    cluster = Cluster(3)
    cluster.round()
    cluster.url = "http://203.0.113.7"
    cluster.round()
    uris = {status["scoringUri"] for status in cluster.written.values()}
    assert uris == {f"http://203.0.113.7/api/v1/service/{name}/score" for name in cluster.names}


def test_figures_wait_for_their_turn_and_some_have_it_in_a_round(made: Counter[str]) -> None:
    cluster = Cluster(60)
    for _ in range(8):
        cluster.round()
    made.clear()
    before = cluster.writings.total()
    for number in range(1, 40):
        for name in cluster.names:
            cluster.busy(name, number)
        cluster.round()
        assert made.total() <= number * MOST_FIGURES
    assert cluster.writings.total() - before == made.total()
    # Each has its turn, the oldest first: none a second time while another one waits.
    assert set(made.values()) == {made.total() // len(cluster.names)}


def test_what_could_not_be_written_is_written_later() -> None:
    cluster = Cluster(1)
    cluster.round()
    cluster.change(cluster.sources.pods, "svc-0", ready=False)
    cluster.broken = True
    cluster.round()
    cluster.broken = False
    assert cluster.written["svc-0"]["versions"][0]["replicasReady"] == 1
    cluster.round()
    assert cluster.written["svc-0"]["versions"][0]["replicasReady"] == 0


def test_an_endpoint_without_a_state_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(3)
    odd = SPEC.versions[0].model_copy(update={"traffic_percentile": 48.305})
    cluster.change(cluster.sources.endpoints, "svc-0", spec=SPEC.model_copy(update={"versions": (odd,)}))
    for _ in range(4):
        cluster.round()
    assert cluster.written["svc-2"]["versions"][0]["replicasReady"] == 1
    (condition,) = cluster.written["svc-0"]["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "Failed")
    assert "48.305 has more than two decimals" in cluster.written["svc-0"]["message"]
    assert cluster.writings["svc-0"] == 1
    assert len([record for record in caplog.records if "has no state" in record.message]) == 1
    cluster.change(cluster.sources.endpoints, "svc-0", spec=SPEC, generation=2)
    cluster.round()
    assert cluster.written["svc-0"]["versions"][0]["replicasReady"] == 1


def test_an_endpoint_that_cannot_be_read_is_told_so_once() -> None:
    """As one that passes an older definition's rules."""
    cluster = Cluster(0)
    scaler = ClusterScaler(RuntimeSettings(), lambda: True, lambda: cluster.now)
    cluster.states = scaler._states
    metadata = {"name": "odd", "namespace": "ns", "uid": "uid", "generation": 4}
    odd = {"metadata": metadata, "spec": {"versions": [{**BLUE, "scaling": {"autoscaleMinReplicas": 11}}]}}
    scaler.endpoints._take("ADDED", odd)
    cluster.broken = True
    cluster.round()
    cluster.broken = False
    cluster.round()
    cluster.round()
    status = cluster.written["odd"]
    (condition,) = status["conditions"]
    assert (status["state"], condition["status"], condition["reason"]) == ("Failed", "False", "Failed")
    assert condition["observedGeneration"] == 4
    assert "versions.0.scaling: Value error, autoscaleMinReplicas 11 is above" in condition["message"]
    scaler.endpoints._take("MODIFIED", {**odd, "status": status})
    cluster.round()
    assert cluster.writings["odd"] == 1
    scaler.endpoints._take("MODIFIED", {"metadata": {**metadata, "generation": 5}, "spec": {"versions": [BLUE]}})
    cluster.round()
    assert cluster.written["odd"]["observedGeneration"] == 5
    assert cluster.written["odd"]["versions"]


@pytest.mark.parametrize(
    ("overdue", "of_the_pod", "read"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"unschedulable": "0/3 nodes"}, False),
        (False, {"trouble": "ErrImagePull: x"}, True),
    ],
)
def test_whose_log_is_read(overdue: bool, of_the_pod: dict[str, Any], read: bool) -> None:
    """Also of one whose init() hangs: nothing of it ever crashes."""
    cluster = Cluster(1)
    cluster.change(cluster.sources.pods, "svc-0", ready=False, **of_the_pod)
    cluster.change(cluster.sources.deployments, "svc-0", overdue=overdue, ready=0)
    assert bool(cluster.states._by_version().bad) is read
    cluster.change(cluster.sources.pods, "svc-0", ready=True, **of_the_pod)
    assert not cluster.states._by_version().bad


def as_told(endpoint: Declared, status: dict[str, Any]) -> dict[str, Any]:
    """As the API server tells of it once the status was written."""
    metadata = {name: getattr(endpoint, name) for name in ("namespace", "name", "uid", "generation")}
    return {"metadata": metadata, "spec": {"versions": [BLUE]}, "status": status}


def test_the_state_says_why_routers_do_not_serve_what_is_declared() -> None:
    cluster = Cluster(2)
    why: dict[str, str] = {}
    cluster.reports.unserved = lambda: why  # type: ignore[method-assign]
    cluster.round(10)
    assert cluster.written["svc-0"]["message"] == "the routers do not serve this generation yet"
    why = {"svc-0": "version blue: no queue can be had for it"}
    cluster.round()
    told = cluster.written["svc-0"]
    assert (told["state"], told["message"]) == ("Transitioning", "version blue: no queue can be had for it")
    assert told["conditions"][0]["message"] == told["message"]
    why, cluster.generations = {}, {"svc-0": 1}
    cluster.round()
    assert (cluster.written["svc-0"]["state"], cluster.written["svc-0"]["message"]) == ("Healthy", "")
    assert cluster.writings == {"svc-0": 3, "svc-1": 1}


def test_the_state_says_that_https_waits_for_its_certificate() -> None:
    cluster = Cluster(1)
    cluster.generations = {"svc-0": 1}
    waits = "https waits for its certificate"
    cluster.reports.waits = lambda: waits  # type: ignore[method-assign]
    cluster.round(10)
    assert (cluster.written["svc-0"]["state"], cluster.written["svc-0"]["message"]) == ("Healthy", waits)
    waits = ""
    cluster.round()
    assert (cluster.written["svc-0"]["state"], cluster.written["svc-0"]["message"]) == ("Healthy", "")


def test_figures_that_are_told_back_change_nothing_of_what_is_known() -> None:
    cluster = Cluster(1)
    cluster.generations = {"svc-0": 1}
    cluster.round(10)
    known = Informer("", declared_with_status, lambda: None, again=declared_with_status)
    told = as_told(cluster.sources.endpoints.items["svc-0"], cluster.written["svc-0"])
    known._take("ADDED", told)
    (first,) = known.items.values()
    version = {**told["status"]["versions"][0], "busy": 9, "queued": 3, "utilization": 70.0, "lastScaling": "9: x"}
    known._take("MODIFIED", {**told, "status": {**told["status"], "versions": [version]}})
    assert (known.revision, *known.items.values()) == (1, first)
    known._take("MODIFIED", {**told, "status": {**told["status"], "state": "Failed"}})
    (failed,) = known.items.values()
    assert failed.status is not None
    assert failed.status["state"] == "Failed"
    assert failed.spec is first.spec, "the declaration is not read again"
    changed = {**told, "metadata": {**told["metadata"], "generation": 2}, "spec": {"versions": [{**BLUE, "name": "b"}]}}
    known._take("MODIFIED", changed)
    assert [v.name for one in known.items.values() for v in one.spec.versions] == ["b"]


def test_who_leads_again_tells_of_what_another_one_wrote_meanwhile() -> None:
    cluster = Cluster(1)
    cluster.generations = {"svc-0": 1}
    cluster.round(10)
    assert cluster.changes == [(None, "Healthy")]
    cluster.leads = False
    cluster.round()
    failed = cluster.written["svc-0"] | {"state": "Failed"}
    cluster.change(cluster.sources.endpoints, "svc-0", status=failed)
    cluster.leads = True
    cluster.round()
    assert cluster.changes[1:] == [("Failed", "Healthy")]
    # The other one told of this change; here the state before is still known as it was.
    cluster.leads = False
    cluster.round()
    cluster.change(cluster.sources.endpoints, "svc-0", status=failed)
    cluster.change(cluster.sources.pods, "svc-0", ready=False)
    cluster.change(cluster.sources.deployments, "svc-0", ready=0, refused="a webhook denied the request")
    cluster.leads = True
    cluster.round()
    assert cluster.written["svc-0"]["state"] == "Failed"
    assert cluster.changes[2:] == []


def test_who_stops_leading_in_the_middle_of_a_round_forgets_as_well() -> None:
    cluster = Cluster(1)
    cluster.generations = {"svc-0": 1}
    cluster.round(10)
    words = iter((True, False))
    cluster.states._leads = lambda: next(words)
    cluster.change(cluster.sources.pods, "svc-0", ready=False)
    cluster.round()
    assert cluster.states._statuses == {}
    assert cluster.writings["svc-0"] == 1


def test_no_generation_is_told_the_state_of_the_one_before() -> None:
    """What failed is declared anew: what is known of its pods is of before for a while."""
    cluster = Cluster(1)
    cluster.change(cluster.sources.pods, "svc-0", ready=False)
    cluster.change(cluster.sources.deployments, "svc-0", ready=0, refused="a webhook denied the request")
    cluster.round()
    cluster.round(10)
    assert (cluster.written["svc-0"]["state"], cluster.written["svc-0"]["observedGeneration"]) == ("Failed", 1)
    cluster.change(cluster.sources.endpoints, "svc-0", generation=2, status=cluster.written["svc-0"])
    cluster.round()
    assert (cluster.written["svc-0"]["state"], cluster.written["svc-0"]["observedGeneration"]) == ("Transitioning", 2)


names = st.sampled_from(["svc-0", "svc-1"])
changes = st.one_of(
    st.tuples(st.just("busy"), names, st.integers(0, 2)),
    st.tuples(st.just("pod"), names, st.booleans(), st.sampled_from(["", "CrashLoopBackOff: x"])),
    st.tuples(st.just("work"), names, st.integers(1, 2), st.booleans()),
    st.tuples(st.just("served"), names, st.integers(0, 2)),
    st.tuples(st.just("declared"), names, st.integers(1, 2)),
    st.tuples(st.just("told back"), names),
    st.tuples(st.just("gone"), names),
    st.tuples(st.just("broken"), st.booleans()),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(changes, st.sampled_from([0.1, 0.5, 3.0])), max_size=20))
def test_in_the_end_what_is_written_is_so(steps: list[tuple[tuple[Any, ...], float]]) -> None:
    cluster = Cluster(2)
    sources = cluster.sources
    for step, after_s in steps:
        name = step[1]
        match step:
            case ("busy", _, number):
                cluster.busy(name, number)
                cluster.scaling[VersionKey(name, "blue")] = f"{number + 1}: needed"
            case ("pod", _, ready, trouble):
                cluster.change(sources.pods, name, ready=ready, trouble=trouble)
            case ("work", _, replicas, current):
                cluster.change(sources.deployments, name, replicas=replicas, current=current)
            case ("served", _, generation):
                cluster.generations = {**cluster.generations, name: generation}
            case ("declared", _, generation) if name in sources.endpoints._items:
                cluster.change(sources.endpoints, name, generation=generation)
            case ("told back", _) if name in sources.endpoints._items and name in cluster.written:
                told = declared_with_status(as_told(sources.endpoints._items[name], cluster.written[name]))
                assert told is not None
                cluster.change(sources.endpoints, name, status=told.status)
            case ("gone", _):
                sources.endpoints._items.pop(name, None)
                sources.endpoints._tell()
            case ("broken", broken):
                cluster.broken = broken
        cluster.round(after_s)
    cluster.broken = False
    for _ in range(3):
        cluster.round(FIGURES_S + 0.1)
    anew = Cluster(2)
    anew.sources, anew.now = sources, cluster.now
    anew.states = States(sources, cluster.reports, cluster.scaling, lambda: anew.url, lambda: anew.now, None)
    for _ in range(2):
        anew.round(FIGURES_S + 0.1)
    for endpoint in sources.endpoints._items.values():
        assert cluster.written[endpoint.name]["observedGeneration"] == endpoint.generation
        assert without_times(cluster.written[endpoint.name]) == without_times(anew.written[endpoint.name])


def without_times(status: dict[str, Any]) -> dict[str, Any]:
    conditions = [{k: v for k, v in c.items() if k != "lastTransitionTime"} for c in status["conditions"]]
    return {**status, "conditions": conditions}
