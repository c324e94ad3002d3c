"""Changed states: the event, the webhook, and what the component declares for them and for the Prometheus operator."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference.findings import Casing
from aks_inference.inference_runtime.monitoring import monitoring, rules
from aks_inference.inference_runtime.spec import plan_runtime
from aks_inference.inference_runtime.workloads import workloads
from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.kubernetes.telling import Change, Teller
from aks_inference_runtime.observability import changes

CHANGE = Change(
    namespace="team-a",
    name="churn",
    uid="uid-1",
    generation=3,
    before="Healthy",
    after="Failed",
    message="blue: no such model file",
    scoring_uri="http://r/score",
    at=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
)


class Api:
    """Takes events."""

    def __init__(self, refuses: bool = False) -> None:
        self.created: list[tuple[str, Any]] = []
        self.refuses = refuses

    async def create(self, path: str, body: Any) -> Any:
        if self.refuses:
            raise OperationFailed("forbidden")
        self.created.append((path, body))
        return body


@pytest.fixture
async def hook() -> AsyncIterator[tuple[str, list[Any], list[int]]]:
    """A webhook: its address, what it got, and with which statuses it answers (then 200)."""
    got: list[Any] = []
    statuses: list[int] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response(status=statuses.pop(0) if statuses else 200)

    app = web.Application()
    app.router.add_post("/hook/secret", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook/secret", got, statuses
    await runner.cleanup()


async def test_an_event_and_a_webhook(tmp_path: Path, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, got, statuses = hook
    monkeypatch.setattr(changes, "PAUSES_S", (0.01, 0.01, 0.01))
    statuses += [500, 429]
    file = tmp_path / "url"
    file.write_text(f"{url}\n")
    api: Any = Api()
    await Teller("autoscaler-0", file).tell(api, CHANGE)
    ((path, event),) = api.created
    assert path == "/apis/events.k8s.io/v1/namespaces/team-a/events"
    assert (event["reason"], event["type"], event["eventTime"]) == ("Failed", "Warning", "2026-01-02T03:04:05.678901Z")
    assert event["note"] == "Failed (was Healthy): blue: no such model file"
    assert event["regarding"]["uid"] == "uid-1"
    # Twice refused, then taken.
    assert len(got) == 3
    assert got[-1] == {
        "text": "endpoint team-a/churn: Healthy → Failed: blue: no such model file",
        "endpoint": "churn",
        "namespace": "team-a",
        "generation": 3,
        "before": "Healthy",
        "state": "Failed",
        "message": "blue: no such model file",
        "scoringUri": "http://r/score",
        "time": "2026-01-02T03:04:05.678+00:00",
    }


async def test_the_newest_state_is_told_last_and_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PAUSES_S", (0.01, 0.01))
    file = tmp_path / "url"
    file.write_text("http://hook")
    told: list[tuple[str, str]] = []
    under_way = most = 0
    refusing, full, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def post(_: str, body: Any) -> str:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        told.append((body["endpoint"], body["state"]))
        if body["state"] == "Failed":
            refusing.set()
        if under_way == changes.MOST_AT_ONCE:
            full.set()
        await go_on.wait()
        under_way -= 1
        return "status 500" if body["state"] == "Failed" else ""

    monkeypatch.setattr(changes, "_post", post)
    hook = changes.Hook(file)
    first = asyncio.create_task(hook.tell(CHANGE))
    await refusing.wait()
    # What was tried first is tried no more: the state is another one by now, twice.
    await hook.tell(replace(CHANGE, after="Transitioning"))
    await hook.tell(replace(CHANGE, after="Healthy"))
    others = [
        asyncio.create_task(hook.tell(replace(CHANGE, name=f"other-{number}", after="Healthy"))) for number in range(20)
    ]
    async with asyncio.timeout(20):
        await full.wait()
        go_on.set()
        await asyncio.gather(first, *others)
    assert [state for name, state in told if name == "churn"] == ["Failed", "Healthy"]
    assert len(told) == 22
    assert most == changes.MOST_AT_ONCE
    # Nothing is kept of what is told.
    assert hook._newest == {}


async def test_what_cannot_be_told_holds_nothing_up(
    tmp_path: Path, hook: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, _, statuses = hook
    monkeypatch.setattr(changes, "PAUSES_S", (0.01,))
    statuses += [500, 500]
    file = tmp_path / "url"
    file.write_text(url)
    await Teller("a", file).tell(Api(refuses=True), CHANGE)  # type: ignore[arg-type]
    assert "the webhook was not told of team-a/churn: status 500" in caplog.text
    assert "no event for team-a/churn: forbidden" in caplog.text
    assert "secret" not in caplog.text
    api: Any = Api()
    await asyncio.gather(*(Teller("a", one).tell(api, CHANGE) for one in (None, tmp_path / "none", tmp_path)))
    assert len(api.created) == 3


def test_a_long_note_is_cut() -> None:
    event = replace(CHANGE, message="x" * 5_000, before=None, after="Healthy").event("a")
    assert (len(event["note"]), event["type"]) == (1_024, "Normal")
    assert event["note"].startswith("Healthy (is new): xxx")


def test_what_is_declared() -> None:
    plan, findings = plan_runtime(
        "r", {"image": "i:1", "state_webhook": "https://hooks/secret", "prometheus_operator": True}
    )
    assert plan is not None, findings
    mounting = [
        m["metadata"]["name"]
        for m in workloads(plan)
        if m["kind"] == "Deployment" and "aks-inference-webhook" in str(m)
    ]
    assert mounting == ["aks-inference-autoscaler"]
    assert "hooks/secret" not in str(list(workloads(plan)))
    found = {(m["kind"], m["metadata"]["name"]): m for m in monitoring("space", operator=plan.prometheus_operator)}
    assert found["PrometheusRule", "aks-inference-alerts"]["spec"] == rules()
    monitors = {name: m["spec"] for (kind, name), m in found.items() if kind == "PodMonitor"}
    assert {m["podMetricsEndpoints"][0]["port"] for m in monitors.values()} == {"agent", "gate-ready"}
    assert monitors["aks-inference-replicas"]["namespaceSelector"] == {"any": True}
    for monitor in monitors.values():
        # Of the labels that the operator sets (namespace, container, pod, job, endpoint) ours have the last one, too.
        assert monitor["podMetricsEndpoints"][0]["relabelings"] == [{"action": "labeldrop", "regex": "endpoint"}]
    assert not any(m["kind"] in ("PodMonitor", "PrometheusRule") for m in monitoring("space"))


def test_a_webhook_is_an_address_and_a_secret() -> None:
    plan, findings = plan_runtime("r", {"image": "i:1", "state_webhook": "hooks/secret"})
    assert plan is None
    assert [f.text(Casing.SNAKE) for f in findings] == ["state_webhook: is no web address; begin it with https://"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"otlp_endpoint": "collector:4318"},
            'otlp_endpoint = "collector:4318": is no web address; begin it with http',
        ),
        ({"trace_ratio": 0.5}, "trace_ratio = 0.5: has no effect without otlp_endpoint; add otlp_endpoint"),
        ({"otlp_endpoint": "http://c", "trace_ratio": 2}, "trace_ratio = 2: must be at most 1"),
    ],
)
def test_broken_rules_of_traces(arguments: dict[str, Any], said: str) -> None:
    plan, findings = plan_runtime("r", {"image": "i:1", **arguments})
    assert plan is None
    (text,) = [f.text(Casing.SNAKE) for f in findings]
    assert text.startswith(said)


def test_gates_are_told_where_traces_go() -> None:
    plan, findings = plan_runtime("r", {"image": "i:1", "otlp_endpoint": "http://c:4318"})
    assert plan is not None, findings
    assert (plan.target().otlp_endpoint, plan.target().trace_ratio) == ("http://c:4318", 0.1)
