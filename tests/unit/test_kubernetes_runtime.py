"""The pure parts of the runtime in a cluster: views, tenures, routes, leases, reports, states."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import EndpointSpec
from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, VERSION_LABEL
from aks_inference_runtime.kubernetes import objects, reports, routing, workloads
from aks_inference_runtime.kubernetes.lease import DURATION_S, Seen, free
from aks_inference_runtime.kubernetes.room import PodNeed
from aks_inference_runtime.kubernetes.sharing import Sharing, Told
from aks_inference_runtime.kubernetes.status import Facts, status_of
from aks_inference_runtime.kubernetes.words import SILENCE_S, Heard, View, Word, view
from aks_inference_runtime.observability.prometheus import family
from aks_inference_runtime.router.model import VersionKey, VersionLoad
from aks_inference_runtime.router.ownership import AWAY, Epoch, Phase, owner_of

CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}


def declared(name: str = "svc", *, created: str = "2026-01-01T00:00:00Z", **blue: Any) -> objects.Declared:
    versions = [{"name": "blue", "isDefault": True, "trafficPercentile": 90, "code": CODE, **blue}]
    versions.append({"name": "green", "trafficPercentile": 10, "code": CODE})
    spec = EndpointSpec.model_validate({"versions": versions})
    return objects.Declared("ns", name, f"uid-{created}", 3, created, spec)


def at_share(endpoint: objects.Declared, **percent: float) -> objects.Declared:
    """The versions that are not named get nothing."""
    versions = tuple(
        version.model_copy(update={"traffic_percentile": percent.get(version.name, 0.0)})
        for version in endpoint.spec.versions
    )
    return replace(endpoint, spec=endpoint.spec.model_copy(update={"versions": versions}))


def slice_of(version: str, *replicas: tuple[str, bool], endpoint: str = "svc") -> objects.Slice:
    found = objects.slice_of(
        {
            "metadata": {
                "namespace": "ns",
                "name": f"{endpoint}-{version}",
                "labels": {ENDPOINT_LABEL: endpoint, VERSION_LABEL: version},
            },
            "ports": [{"name": "gate", "port": 8891}, {"name": "gate-control", "port": 8892}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "targetRef": {"uid": uid}}
                for uid, ready in replicas
            ],
        }
    )
    assert found is not None
    return found


# --- words and views


def word(name: str, *candidates: str, leaving: bool = False, clock: int = 0) -> Word:
    return Word(router=name, clock=clock, candidates=candidates, leaving=leaving)


def test_a_silent_router_is_taken_for_dead_and_a_new_one_is_presumed_to_live() -> None:
    heard = {"b": Heard(word("b"), {}, 10.0), "c": Heard(word("c"), {}, 10.4)}
    seen = view("a", leaving=False, known={"b": 0, "c": 0, "d": 10.3}, heard=heard, now=10.01 + SILENCE_S)
    assert seen.live == {"a", "c", "d"}
    assert not seen.heard_all
    assert view("a", leaving=False, known={"d": 10.3}, heard={}, now=10.9).live == {"a"}


def test_who_leaves_owns_nothing_unless_all_leave() -> None:
    heard = {"b": Heard(word("b", leaving=True), {}, 1.0)}
    assert view("a", leaving=False, known={"b": 0}, heard=heard, now=1).candidates == {"a"}
    assert view("a", leaving=True, known={"b": 0}, heard=heard, now=1).candidates == {"a", "b"}


def seen(*others: Heard, me: str = "a") -> View:
    live = frozenset({me, *(h.word.router for h in others)})
    return View(live, live, {h.word.router: h for h in others})


def endpoint_of(owner: str) -> str:
    return next(name for n in range(100) if owner_of(name := f"e{n}", ["a", "b"]) == owner)


def test_tenures_follow_the_others_words() -> None:
    mine, its = endpoint_of("a"), endpoint_of("b")
    sharing = Sharing("a")
    other = Heard(word("b", "a", "b", clock=4), {mine: 4}, 0)
    parts = sharing.decide([mine, its], seen(other), {})
    assert parts[mine] == routing.Part(None, AWAY)  # b still holds it
    assert parts[its] == routing.Part("b", AWAY)
    parts = sharing.decide([mine, its], seen(Heard(word("b", "a", "b", clock=4), {}, 0)), {})
    assert parts[mine].tenure.epoch == Epoch(5, "a")
    assert sharing.held == {mine: 5}


def test_a_claim_above_the_own_one_is_respected_until_its_router_has_spoken() -> None:
    mine = endpoint_of("a")
    sharing = Sharing("a")
    quiet = seen(Heard(word("b", "a", "b"), {}, 0))
    sharing.decide([mine], quiet, {})
    told = {mine: Told(settled=True, highest=9, above=Epoch(9, "b"))}
    assert sharing.decide([mine], quiet, told)[mine].tenure == AWAY
    spoken = seen(Heard(word("b", "a", "b", clock=9), {}, 0))
    assert sharing.decide([mine], spoken, told)[mine].tenure.epoch == Epoch(10, "a")


def test_yields_until_nothing_waits_and_all_agree() -> None:
    its = endpoint_of("b")
    sharing = Sharing("a")
    alone = View(frozenset({"a"}), frozenset({"a"}))
    assert sharing.decide([its], alone, {})[its].tenure.phase is Phase.HOLDING
    waits, over = Told(settled=False, highest=1, above=None), Told(settled=True, highest=1, above=None)
    disagreeing = seen(Heard(word("b", "b"), {}, 0))
    agreeing = seen(Heard(word("b", "a", "b"), {}, 0))
    assert sharing.decide([its], disagreeing, {its: over})[its].tenure.phase is Phase.YIELDING
    assert sharing.decide([its], agreeing, {its: waits})[its] == routing.Part("b", sharing.tenures[its])
    assert sharing.decide([its], agreeing, {its: over})[its].tenure == AWAY


# --- objects and routes


def test_of_endpoints_with_one_name_the_oldest_is_served() -> None:
    old, new = declared(created="2026-01-01T00:00:00Z"), declared(created="2026-02-01T00:00:00Z")
    assert objects.served({"x/svc": new, "ns/svc": old}) == {"svc": old}


def test_digests_are_read_and_everything_else_is_left_out() -> None:
    good = "a" * 64
    data = base64.b64encode(f"{good.upper()}\nnonsense\n".encode()).decode()
    labelled = {"name": "s", "labels": {ENDPOINT_LABEL: "svc"}}
    found = objects.digests_of({"metadata": labelled, "data": {"digests": data}})
    assert found == objects.Digests("svc", frozenset({good}))
    assert objects.digests_of({"metadata": {"name": "s"}, "data": {"digests": data}}) is None
    assert objects.digests_of({"metadata": labelled, "data": {"tls.key": data}}) is None


def test_shares_change_only_when_all_versions_can_be_served() -> None:
    endpoint = declared()
    blue = routing.replicas_of([slice_of("blue", ("1", True))])
    both = routing.replicas_of([slice_of("blue", ("1", True)), slice_of("green", ("2", True))])
    before = EndpointSpec.model_validate({"versions": [{"name": "blue", "isDefault": True, "code": CODE}]})
    assert routing.next_spec(before, endpoint, blue) == before
    assert routing.next_spec(before, endpoint, both) == endpoint.spec
    fresh = routing.next_spec(None, endpoint, blue)
    made = routing.route(endpoint, fresh, blue, frozenset(), routing.Part(None, AWAY))
    assert {v.name: v.traffic for v in made.versions} == {"blue": 10_000, "green": 0}


def test_traffic_is_taken_off_a_version_that_is_dead() -> None:
    endpoint = declared()
    blue, green = (slice_of(name, (number, True)) for name, number in (("blue", "1"), ("green", "2")))
    only = {name: at_share(endpoint, **{name: 100.0}) for name in ("blue", "green")}
    of_green, of_blue = routing.replicas_of([green]), routing.replicas_of([blue])
    assert routing.next_spec(only["blue"].spec, only["green"], of_green) == only["green"].spec
    # One that was never ready gets nothing all the same.
    assert routing.next_spec(only["blue"].spec, only["green"], of_blue) == only["blue"].spec
    assert routing.next_spec(only["blue"].spec, only["green"], {}) == only["blue"].spec
    # A router that has just begun, and a third one that is not ready yet and gets nothing.
    assert routing.next_spec(None, only["green"], of_green) == only["green"].spec


def test_what_is_made_again_under_its_name_inherits_no_shares() -> None:
    endpoint, before = declared(), replace(at_share(declared(), blue=100.0), uid="u0")
    blue = routing.replicas_of([slice_of("blue", ("1", True))])
    green = routing.replicas_of([slice_of("green", ("2", True))])
    part = routing.Part(None, AWAY)
    routes = routing.Routes()
    routes.serve(before, blue, frozenset(), part)
    made = routes.serve(replace(endpoint, uid="u1"), green, frozenset(), part)
    assert {v.name: v.traffic for v in made.route.versions} == {"blue": 0, "green": 10_000}


def test_a_terminating_replica_takes_nothing_new() -> None:
    piece = slice_of("blue", ("1", True))
    (replica,) = piece.replicas
    leaving = replace(replica, terminating=True)
    found = routing.replicas_of([objects.Slice("ns", "svc", "blue", (leaving,))])
    made = routing.route(declared(), declared().spec, found, frozenset(), routing.Part(None, AWAY))
    (target,) = made.versions[0].replicas
    assert (target.ready, target.control) == (False, ("10.0.0.1", 8892))


def test_a_pod_that_has_another_address_is_another_replica_to_every_router() -> None:
    def ids(*addresses: str) -> list[str]:
        found = objects.slice_of(
            {
                "metadata": {"name": "svc-blue", "labels": {ENDPOINT_LABEL: "svc", VERSION_LABEL: "blue"}},
                "ports": [{"name": "gate", "port": 8891}],
                "endpoints": [{"addresses": [address], "targetRef": {"uid": "uid-1"}} for address in addresses],
            }
        )
        assert found is not None
        return [replica.id for replica in found.replicas]

    before, after = ids("10.0.0.1"), ids("10.0.0.2")
    assert before != after
    assert ids("10.0.0.1", "10.0.0.2") == before + after


# --- reports

KEYS = st.builds(VersionKey, st.sampled_from("ab"), st.sampled_from("xy"))
LOADS = st.dictionaries(KEYS, st.builds(VersionLoad, busy=st.integers(0, 3), queued=st.integers(0, 3)))


@given(st.lists(LOADS, min_size=1, max_size=6))
def test_what_is_merged_is_what_was_told(states: list[dict[VersionKey, VersionLoad]]) -> None:
    told: reports.Loads = {}
    heard: reports.Loads = {}
    for state in states:
        line = reports.difference(reports.Told(told), reports.Told(state))
        line = reports.Report.model_validate_json(line.model_dump_json(by_alias=True, exclude_defaults=True))
        heard, told = reports.merged(heard, line), state
        assert heard == state


# --- lease


@pytest.mark.parametrize(
    ("holder", "age", "may"), [("me", 0, True), ("", 0, True), ("other", 0, False), ("other", DURATION_S, True)]
)
def test_a_lease_is_free_by_ones_own_clock(holder: str, age: float, *, may: bool) -> None:
    assert free(Seen("1", holder, 100.0), "me", 100.0 + age) is may


# --- status


def pod(version: str = "blue", **changed: Any) -> workloads.ReplicaPod:
    usual: dict[str, Any] = {"ready": True, "version": ("ns", "svc", version)}
    return workloads.ReplicaPod("ns", "p", PodNeed("n", {}), **{**usual, **changed})


def work(version: str = "blue", **changed: Any) -> workloads.Workload:
    usual: dict[str, Any] = {"replicas": 1, "ready": 1, "updated": 1, "total": 1, "current": True, "overdue": False}
    return workloads.Workload("ns", f"svc-{version}", ("ns", "svc", version), need={}, **{**usual, **changed})


@pytest.mark.parametrize(
    ("blue", "deployment", "generation", "expected"),
    [
        (pod(), work(), 3, ("Healthy", "True", "Served")),
        (pod(), work(), 2, ("Transitioning", "False", "Transitioning")),
        (pod(), work(current=False), 3, ("Transitioning", "False", "Transitioning")),
        (pod(), work(total=2), 3, ("Transitioning", "False", "Transitioning")),
        (pod(ready=False), work(), 3, ("Transitioning", "False", "Transitioning")),
        (pod(ready=False, unschedulable="0/3 nodes fit"), work(), 3, ("Unschedulable", "False", "Unschedulable")),
        (pod(ready=False, trouble="CrashLoopBackOff", restarts=4), work(), 3, ("Failed", "False", "Failed")),
        (pod(ready=False, trouble="ErrImagePull: gone"), work(), 3, ("Failed", "False", "Failed")),
        (pod(ready=False), work(overdue=True), 3, ("Failed", "False", "Failed")),
    ],
)
def test_states(
    blue: workloads.ReplicaPod, deployment: workloads.Workload, generation: int, expected: tuple[str, str, str]
) -> None:
    green = ("ns", "svc", "green")
    pods = {("ns", "svc", "blue"): [blue], green: [pod("green")]}
    found = status_of(
        Facts(
            endpoint=declared(),
            name_in_use=False,
            workloads={deployment.version: deployment, green: work("green")},
            pods=pods,
            newest=pods,
            loads={},
            scaling={},
            served_generation=generation,
            log_tails={("ns", "svc", "blue"): "ValueError: no"},
            url="http://router",
            now="2026-01-01T00:00:00Z",
        )
    )
    (condition,) = found["conditions"]
    assert (found["state"], condition["status"], condition["reason"]) == expected
    assert found["scoringUri"] == "http://router/api/v1/service/svc/score"
    assert found["traffic"] == "blue 90, green 10"
    if expected[0] == "Failed":
        assert "ValueError: no" in condition["message"]
    if expected[0] == "Unschedulable":
        assert "0/3 nodes fit" in condition["message"]


@pytest.mark.parametrize(("seen", "known_s", "state"), [("new", 0.5, "Healthy"), ("old", 0.5, "Transitioning")])
def test_a_change_of_the_pods_alone_is_waited_for(seen: str, known_s: float, state: str) -> None:
    """Also while the Deployment is known only as it was before: its pods are ready, and are others."""
    green = ("ns", "svc", "green")
    blue = work(pod_template=seen)
    pods = {("ns", "svc", "blue"): [pod()], green: [pod("green")]}
    facts = Facts(
        endpoint=declared(podTemplate="new"),
        name_in_use=False,
        workloads={blue.version: blue, green: work("green")},
        pods=pods,
        newest=pods,
        loads={},
        scaling={},
        served_generation=3,
        log_tails={},
        url="http://router",
        now="2026-01-01T00:00:00Z",
        known_s=known_s,
    )
    assert status_of(facts)["state"] == state
    # A Deployment that never says so holds nothing up.
    assert status_of(replace(facts, known_s=60))["state"] == "Healthy"


def test_what_newer_releases_say_more_of_is_left_out() -> None:
    """Of different releases are routers among each other while they are replaced, and who declares."""
    said = {"router": "a", "clock": 1, "candidates": ["a"], "mood": "good"}
    assert Word.model_validate(said) == word("a", "a", clock=1)
    report = {"number": 1, "routingMs": 1, "cores": 1, "busiest": 1, "mood": "good"}
    assert reports.Report.model_validate({"router": report, "mood": "good"}).router is not None
    version = {"name": "blue", "isDefault": True, "code": {**CODE, "mood": "good"}, "mood": "good"}
    metadata = {"namespace": "ns", "name": "svc", "uid": "u", "generation": 1}
    found = objects.declared({"metadata": metadata, "spec": {"versions": [version], "mood": "good"}})
    assert found is not None
    assert found.spec == EndpointSpec.model_validate({"versions": [{"name": "blue", "isDefault": True, "code": CODE}]})


@pytest.mark.parametrize(
    ("status", "address"),
    [
        ({}, None),
        ({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}, "203.0.113.7"),
        ({"loadBalancer": {"ingress": [{"hostname": "b.example.com"}]}}, "b.example.com"),
    ],
)
def test_the_address_of_a_load_balancer(status: dict[str, Any], address: str | None) -> None:
    assert objects.balancer({"metadata": {"name": "r"}, "spec": {}, "status": status}) == address


# --- metrics


def test_labels_are_escaped() -> None:
    text = family("x", "gauge", "Help.", [({"a": 'b"\\\n'}, 1.5), ({}, 2)])
    assert text == '# HELP x Help.\n# TYPE x gauge\nx{a="b\\"\\\\\\n"} 1.5\nx 2\n'
    assert not family("x", "gauge", "Help.", [])
