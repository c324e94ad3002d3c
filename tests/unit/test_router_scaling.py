"""What the routers' scaling reads, writes and tells; its arguments, and what the preview says of them. Pure parts."""

import asyncio
import contextlib
import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aks_inference.findings import Casing
from aks_inference.inference_runtime.access import accounts
from aks_inference.inference_runtime.component import describe
from aks_inference.inference_runtime.spec import RuntimePlan, plan_runtime
from aks_inference.inference_runtime.workloads import workloads
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.autoscaler.routers import Decision, Figures, Size
from aks_inference_runtime.kubernetes import reports, vitals
from aks_inference_runtime.kubernetes.measures import routers_metrics
from aks_inference_runtime.kubernetes.reports import Report, Reports, RouterReport, Told, difference
from aks_inference_runtime.kubernetes.room import Node, PodNeed
from aks_inference_runtime.kubernetes.router_scaling import (
    RouterPlace,
    deployment_of,
    event,
    place_of,
    room_to_grow,
    rules_of,
)
from aks_inference_runtime.kubernetes.vitals import Vitals, summed, used
from aks_inference_runtime.router.paths import Paths
from aks_inference_runtime.router.peers import MAX_PEERS
from aks_inference_runtime.router.process import sockets_directory


def planned(**arguments: Any) -> tuple[RuntimePlan | None, list[str]]:
    plan, findings = plan_runtime("runtime", {"image": "r:1", **arguments})
    return plan, [finding.text(Casing.SNAKE) for finding in findings]


def made(**arguments: Any) -> RuntimePlan:
    plan, findings = planned(**arguments)
    assert plan is not None, findings
    return plan


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [
        ({}, Size(3, 250), Size(8, 2000)),
        ({"router_replicas": 12}, Size(12, 250), Size(12, 2000)),
        ({"router_cores": 2.5}, Size(3, 2500), Size(8, 2500)),
        ({"router_max_replicas": 3, "router_max_cores": 0.25}, Size(3, 250), Size(3, 250)),
        ({"cluster_purpose": "DevTest"}, Size(1, 250), Size(1, 250)),
        ({"cluster_purpose": "DevTest", "router_cores": 1, "router_max_cores": 1}, Size(1, 1000), Size(1, 1000)),
    ],
)
def test_bounds(arguments: dict[str, Any], least: Size, most: Size) -> None:
    rules = rules_of(made(**arguments).settings(None))
    assert (rules.least, rules.most) == (least, most)


def test_threshold_and_delay_reach_the_autoscaler() -> None:
    settings = made(router_latency_threshold_ms=5, router_scale_down_delay_seconds=60).settings(None)
    assert (rules_of(settings).threshold_ms, rules_of(settings).down_delay_s) == (5, 60)
    assert k8s.RuntimeSettings.model_validate(settings.to_wire()) == settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"router_max_replicas": 2}, "router_max_replicas = 2: is below the default of router_replicas = 3"),
        (
            {"router_replicas": 5, "router_max_replicas": 4},
            "router_max_replicas = 4: is below router_replicas = 5",
        ),
        ({"router_cores": 2, "router_max_cores": 1}, ": is below router_cores = 2"),
        ({"router_max_cores": 9}, "router_max_cores = 9: must be at most 8"),
        ({"router_max_replicas": MAX_PEERS + 1}, "must be at most 32"),
        ({"router_cores": 0}, "must be at least 0.1"),
        ({"router_latency_threshold_ms": 0}, "must be at least 0.5"),
        ({"router_scale_down_delay_seconds": 5}, "must be at least 30"),
        ({"cluster_purpose": "DevTest", "router_max_replicas": 2}, "DevTest has one router, which does not scale"),
        ({"cluster_purpose": "DevTest", "router_max_cores": 2}, "DevTest has one router, which does not scale"),
    ],
)
def test_broken_rules(arguments: dict[str, Any], said: str) -> None:
    plan, findings = planned(**arguments)
    assert plan is None
    assert len(findings) == 1
    assert said in findings[0]


def test_the_preview_says_the_bounds_and_what_they_may_ask_of_the_nodes() -> None:
    (line,) = [line for line in describe(made()) if "scale themselves" in line]
    assert "3 to 8 pods of 0.25 to 2 cores" in line
    assert "0.75 cores and 0.75 GiB at first" in line
    assert "16 cores and 2 GiB at most" in line
    assert "more than 3 ms" in line
    assert not any("scale themselves" in line for line in describe(made(cluster_purpose="DevTest")))


@pytest.mark.parametrize(
    ("cores", "asks", "limit", "files"),
    [
        (None, "256Mi", "2Gi", "64Mi"),
        (3.9, "256Mi", "2Gi", "64Mi"),
        (4, "384Mi", "4Gi", "128Mi"),
        (8, "640Mi", "8Gi", "256Mi"),
    ],
)
def test_lanes_that_may_come_have_room(cores: float | None, asks: str, limit: str, files: str) -> None:
    plan = made(router_max_cores=cores)
    objects = {m["metadata"]["name"]: m for m in workloads(plan) if m["kind"] == "Deployment"}
    pod = objects[k8s.ROUTER_NAME]["spec"]["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert (resources["requests"]["memory"], resources["limits"]["memory"]) == (asks, limit)
    assert [v["emptyDir"]["sizeLimit"] for v in pod["volumes"] if v["name"] == "run"] == [files]
    other = objects[k8s.AUTOSCALER_NAME]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert other["limits"]["memory"] == "1Gi"


@pytest.mark.parametrize("arguments", [{}, {"cluster_purpose": "DevTest"}, {"router_max_replicas": 3}])
def test_no_apply_says_how_many_routers_there_are(arguments: dict[str, Any]) -> None:
    found = {m["metadata"]["name"]: m["spec"] for m in workloads(made(**arguments)) if m["kind"] == "Deployment"}
    assert "replicas" not in found[k8s.ROUTER_NAME]
    assert "replicas" in found[k8s.AUTOSCALER_NAME]


def test_a_budget_where_there_may_be_several_and_the_cores_of_a_new_pod() -> None:
    objects = {(m["kind"], m["metadata"]["name"]): m for m in workloads(made(router_replicas=1, router_cores=0.5))}
    assert ("PodDisruptionBudget", k8s.ROUTER_NAME) in objects
    (container,) = objects["Deployment", k8s.ROUTER_NAME]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "256Mi"}


def test_the_autoscaler_may_resize_pods_of_its_own_namespace_alone() -> None:
    roles = {(m["kind"], m["metadata"]["name"]): m.get("rules") for m in accounts(made())}
    own = [r for r in roles["Role", k8s.AUTOSCALER_NAME] if "pods/resize" in r["resources"]]
    assert [rule["verbs"] for rule in own] == [["patch"]]
    wide = roles["ClusterRole", f"{k8s.RUNTIME_NAMESPACE}:{k8s.AUTOSCALER_NAME}"]
    assert not any("resize" in resource for rule in wide for resource in rule["resources"])


# --- objects


def pod(cpu: str | None = "250m", **more: Any) -> dict[str, Any]:
    resources = {} if cpu is None else {"requests": {"cpu": cpu}}
    return {
        "metadata": {"name": "router-0", **more.pop("metadata", {})},
        "spec": {"nodeName": "node-0", "containers": [{"name": "router", "resources": resources}]},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}], **more},
    }


def test_places() -> None:
    assert place_of(pod()) == RouterPlace("router-0", "10.0.0.1", "node-0", 250, ready=True, waits="")
    assert place_of(pod(metadata={"deletionTimestamp": "x"})) is None
    assert place_of(pod(phase="Failed")) is None
    bare = place_of(pod(None, conditions=[]))
    assert bare is not None
    assert (bare.cpu_m, bare.ready) == (0, False)
    waiting = {"type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "no cpu"}
    held = place_of(pod(conditions=[waiting]))
    assert held is not None
    assert held.waits == "Deferred: no cpu"


def test_a_deployment_that_says_nothing_has_one_pod() -> None:
    found = {"metadata": {"uid": "u"}, "spec": {"template": {"spec": pod()["spec"]}}}
    assert deployment_of(found).replicas == 1
    assert deployment_of(found).need["cpu"] == 0.25
    assert deployment_of(found).selector == {}
    found["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/os": "linux"}
    assert deployment_of(found).selector == {"kubernetes.io/os": "linux"}


def test_all_pods_of_a_node_share_what_is_free_there() -> None:
    nodes = [Node(f"node-{n}", "", {"cpu": 4.0}, schedulable=True) for n in range(2)]
    needs = [PodNeed("node-0", {"cpu": 3.0}), PodNeed("node-1", {"cpu": 1.0}), PodNeed("", {"cpu": 9.0})]
    one, two, other = (RouterPlace(f"r{n}", "", f"node-{n // 2}", 250, ready=True, waits="") for n in range(3))
    assert room_to_grow([one, two, other], nodes, needs) == 750
    assert room_to_grow([other], nodes, needs) == 3250
    assert room_to_grow([RouterPlace("x", "", "gone", 250, ready=True, waits="")], nodes, needs) == 250
    assert room_to_grow([], nodes, needs) == 0
    nowhere = RouterPlace("new", "", "", 250, ready=False, waits="")
    assert room_to_grow([one, two, other, nowhere], nodes, needs) == 750


def test_a_change_is_told_as_an_event_of_the_deployment() -> None:
    decision = Decision(Size(3, 500), "routing takes 9 ms, more than 3 for 10 s")
    told = event("autoscaler-0", "ns", "uid", Size(3, 250), decision, datetime(2026, 1, 1, tzinfo=UTC))
    assert told["reason"] == "MoreCores"
    assert told["note"] == "3 pods of 0.25 cores → 3 pods of 0.5 cores: routing takes 9 ms, more than 3 for 10 s"
    assert told["regarding"]["name"] == k8s.ROUTER_NAME
    metrics = routers_metrics(decision, {"MoreCores": 2})
    assert "aks_inference_wanted_routers 3\n" in metrics
    assert "aks_inference_wanted_router_cores 0.5\n" in metrics
    assert 'aks_inference_router_scalings_total{direction="MoreCores"} 2' in metrics
    assert routers_metrics(None, {}) == ""


# --- figures


def test_routing_is_the_way_through_both_processes() -> None:
    assert summed({"p0": [0.001, 0.002, 0.1], "p1": [0.003], "p2": [0.004, 0.006], "p3": []}) == pytest.approx(7)
    assert summed({"p0": [0.001]}) == pytest.approx(1)
    assert summed({"p1": [0.001]}) is None, "the first process is being started"


def test_cpu_counts_only_processes_that_were_there_before() -> None:
    cores, busiest = used({1: 10.0, 2: 5.0, 3: 7.0}, {1: 11.0, 2: 6.5, 4: 99.0}, own=1, elapsed_s=2)
    assert cores == pytest.approx(0.5 + 0.75)
    assert busiest == pytest.approx(0.75)
    assert used({}, {1: 3.0}, own=1, elapsed_s=1) == (0, 0)


def test_a_line_has_figures_only_when_they_are_new() -> None:
    line = difference(Told(), Told())
    assert "router" not in line.model_dump_json(by_alias=True, exclude_defaults=True)
    told = line.model_copy(update={"router": RouterReport(number=1, routing_ms=0.5, cores=0.1, busiest=0.05)})
    assert Report.model_validate_json(told.model_dump_json(by_alias=True, exclude_defaults=True)) == told


async def test_a_process_that_is_silent_is_told_before_the_figures_are_too_old() -> None:
    assert vitals.LONGEST_S + vitals.ASK_S + reports.REPORT_S < reports.FIGURES_STALE_S

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"2.8\n")
        writer.close()

    async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with contextlib.AsyncExitStack() as servers:
        # A socket's path is short.
        lane = Path(servers.enter_context(tempfile.TemporaryDirectory(prefix="aksv-")))
        found = Paths(lane, sockets_directory(lane))
        for name, serve in (("p0", answer), ("p1", stay_silent)):
            await servers.enter_async_context(await asyncio.start_unix_server(serve, found.socket(name, "admin")))
            (lane / f"{name}.json").write_text(json.dumps({"pid": os.getpid()}))
        measuring = Vitals(lambda: [lane])
        running = asyncio.create_task(measuring.run())
        async with asyncio.timeout(30):
            while (told := measuring.report) is None or told.number < 2:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert told.routing_ms >= 1_000 * vitals.LONGEST_S


def test_figures_grow_old() -> None:
    async def ask() -> tuple[Figures | None, Figures | None, Figures | None]:
        heard = Reports()
        now = asyncio.get_running_loop().time()
        heard._figures = {"a": (Figures(1, 2, 0.5), now), "b": (Figures(1, 2, 0.5), now - reports.FIGURES_STALE_S - 1)}
        return heard.figures("a"), heard.figures("b"), heard.figures("c")

    assert asyncio.run(ask()) == (Figures(1, 2, 0.5), None, None)
