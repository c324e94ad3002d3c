"""Who is told what goes on in a local cluster: rules of the arguments, what is told of states, the metrics. Pure."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference.findings import Casing
from aks_inference.local_cluster.spec import plan_local
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.status import EndpointStatus, EndpointView, ServiceState, VersionStatus
from aks_inference_runtime.autoscaler.policy import Decision
from aks_inference_runtime.autoscaler.tally import Tally
from aks_inference_runtime.local.telling import Seen, look
from aks_inference_runtime.observability.gates import gate_metrics
from aks_inference_runtime.observability.versions import answer_samples, decision_metrics, load_metrics
from aks_inference_runtime.router.answers import AnswerKey
from aks_inference_runtime.router.gate.telemetry import BOUNDS_S, Request, Telemetry
from aks_inference_runtime.router.model import VersionKey, VersionLoad

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}
STATES = st.sampled_from([str(state) for state in ServiceState])
LOOKS = st.lists(st.dictionaries(st.sampled_from("abc"), STATES, max_size=3), max_size=12)


def test_nothing_is_told_by_default() -> None:
    plan, findings = plan_local({})
    assert plan is not None, findings
    assert (plan.webhook, plan.otlp_endpoint, plan.access_log, plan.metrics_port) == (None, None, False, None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"state_webhook": "hooks/s3cret"}, ["state_webhook: is no web address; begin it with https://"]),
        ({"state_webhook": 7}, ["state_webhook: must be a text or an output of one; write a text"]),
        (
            {"otlp_endpoint": "collector:4318"},
            ['otlp_endpoint = "collector:4318": is no web address; begin it with http:// or https://'],
        ),
        ({"trace_ratio": 0.5}, ["trace_ratio = 0.5: has no effect without otlp_endpoint; add otlp_endpoint"]),
        ({"otlp_endpoint": "http://c", "trace_ratio": 2}, ["trace_ratio = 2: must be at most 1; use 0 to 1"]),
        ({"port": 9000, "metrics_port": 9000}, ["metrics_port = 9000: is the router's own port; choose another port"]),
        (
            {"metrics_port": 70_000, "access_log": "yes"},
            ['access_log = "yes": must be', "metrics_port = 70000: must be at most 65535; use a port from 1 to 65,535"],
        ),
    ],
)
def test_broken_rules(arguments: dict[str, Any], said: list[str]) -> None:
    plan, findings = plan_local(arguments)
    assert plan is None
    texts = sorted(finding.text(Casing.SNAKE) for finding in findings)
    assert len(texts) == len(said)
    for text, begins in zip(texts, said, strict=True):
        assert text.startswith(begins)
    assert "s3cret" not in "".join(texts)


def view(name: str, state: str, message: str = "", of_version: str = "") -> EndpointView:
    version = {"name": "a", "code": CODE, "isDefault": True, "trafficPercentile": 100}
    endpoint = ScoringEndpoint.model_validate({"metadata": {"name": name}, "spec": {"versions": [version]}})
    versions = (VersionStatus(name="a", state=ServiceState(state), message=of_version),)
    status = EndpointStatus(
        name=name, state=ServiceState(state), generation=3, message=message, scoring_uri="http://s", versions=versions
    )
    return EndpointView(endpoint=endpoint, status=status)


def test_what_is_told() -> None:
    seen, changes = look(Seen({"svc": "Healthy"}, {"svc": "Healthy"}), [view("svc", "Failed", message="no")], AT)
    assert changes == []
    seen, (change,) = look(seen, [view("svc", "Failed", message="the disk is full")], AT)
    assert change.hook() == {
        "text": "endpoint default/svc: Healthy → Failed: the disk is full",
        "endpoint": "svc",
        "namespace": "default",
        "generation": 3,
        "before": "Healthy",
        "state": "Failed",
        "message": "the disk is full",
        "scoringUri": "http://s",
        "time": "2026-01-02T03:04:05.000+00:00",
    }
    assert look(seen, [view("svc", "Failed")], AT)[1] == []
    # A new one, in words of its version; and a former one that is gone is forgotten.
    seen, _ = look(seen, [view("new", "Unhealthy")], AT)
    seen, (change,) = look(seen, [view("new", "Unhealthy")], AT)
    assert (change.before, change.after, set(seen.told)) == (None, "Unhealthy", {"new"})


def test_a_version_says_why() -> None:
    seen = Seen({}, {"svc": "Unhealthy"})
    _, (change,) = look(seen, [view("svc", "Unhealthy", of_version="replica a-1: its gate ended")], AT)
    assert change.message == "a: replica a-1: its gate ended"


@given(LOOKS)
def test_each_lasting_state_is_told_once_and_in_order(looks: list[dict[str, str]]) -> None:
    seen, told = Seen({}, {}), []
    for states in looks:
        seen, changes = look(seen, [view(name, state) for name, state in states.items()], AT)
        for change in changes:
            assert states[change.name] == change.after != change.before
        told += changes
    for name in "abc":
        steady = [
            now.get(name) if now.get(name) == before.get(name) or name not in now else "changing"
            for before, now in zip([{}, *looks], looks, strict=False)
        ]
        wanted, last = [], None
        for state in steady:
            if state == "changing":
                continue
            if state is not None and state != last:
                wanted.append(state)
            last = state
        assert [change.after for change in told if change.name == name] == wanted


def counted(*answers: tuple[int, str, float | None]) -> Telemetry:
    telemetry = Telemetry({})
    for code, reason, served_s in answers:
        telemetry.answered(Request(b"id", b"POST", b"/score", 0.25), code, reason, served_s, 0.0)
    return telemetry


def test_one_text_for_router_autoscaler_and_gates() -> None:
    key = VersionKey("svc", "a")
    gates = [
        ({"endpoint": "svc", "version": "a", "replica": "a-1"}, counted((200, "", 0.02), (200, "", 0.5)).figures()),
        ({"endpoint": "svc", "version": "a", "replica": "a-2"}, counted((502, "replica-lost", 70.0)).figures(4)),
    ]
    tally = Tally()
    for present, wanted in ((1, 3), (3, 3), (3, 1)):
        tally.add(key, present, Decision(wanted, "so"))
    text = (
        load_metrics({key: VersionLoad(busy=2, queued=1, ready_replicas=3, requests_total=9, rejected_total=1)})
        + gate_metrics(gates, answer_samples({AnswerKey("svc", "", 401, "auth"): 5}))
        + decision_metrics(tally.decisions, tally.decided)
    )
    lines = text.splitlines()
    told = [line.split(" ")[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(told)) == len(told), "each family once, its samples together"
    assert 'aks_inference_answers_total{endpoint="svc",version="",code="401",reason="auth"} 5' in lines
    assert 'aks_inference_answers_total{endpoint="svc",version="a",replica="a-1",code="200",reason=""} 2' in lines
    assert 'aks_inference_service_seconds_bucket{endpoint="svc",version="a",replica="a-1",le="0.025"} 1' in lines
    assert 'aks_inference_service_seconds_bucket{endpoint="svc",version="a",replica="a-2",le="60.0"} 0' in lines
    assert 'aks_inference_service_seconds_bucket{endpoint="svc",version="a",replica="a-2",le="+Inf"} 1' in lines
    assert 'aks_inference_queue_wait_seconds_sum{endpoint="svc",version="a",replica="a-1"} 0.5' in lines
    assert 'aks_inference_log_lines_lost_total{endpoint="svc",version="a",replica="a-2"} 4' in lines
    assert 'aks_inference_busy{endpoint="svc",version="a"} 2' in lines
    assert 'aks_inference_wanted_replicas{endpoint="svc",version="a"} 1' in lines
    for direction in ("up", "hold", "down"):
        assert f'aks_inference_decisions_total{{endpoint="svc",version="a",direction="{direction}"}} 1' in lines
    assert len(gates[0][1].served.counts) == len(BOUNDS_S) + 1
    tally.forget("svc")
    assert decision_metrics(tally.decisions, tally.decided) == ""
    assert gate_metrics([]) == ""
