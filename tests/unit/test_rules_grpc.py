"""Containers that speak gRPC: the rules of their arguments, and what pods, endpoint, routes and status say of them."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from aks_inference.findings import Casing, Finding, Severity
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.replicas import Replica, deployment
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.endpoint import AuthMode, EndpointSpec, Protocol, Requests
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.target import KubernetesTarget, format_target
from aks_inference_runtime.cli.scoring import score_once
from aks_inference_runtime.kubernetes.objects import Declared
from aks_inference_runtime.kubernetes.routing import Part, route
from aks_inference_runtime.kubernetes.status import Facts, status_of
from aks_inference_runtime.router import routes
from aks_inference_runtime.router.gate.settings import GateSettings
from aks_inference_runtime.router.model import EndpointRoute, VersionKey, VersionRoute
from aks_inference_runtime.router.ownership import AWAY
from aks_inference_runtime.router.slots import Slot

CLUSTER = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1")
TARGET = format_target(CLUSTER)
HTTP = {"image": "vllm:1", "port": 8000, "score_path": "/v1/completions"}
GRPC = {"image": "triton:1", "port": 8001, "protocol": "grpc"}


def texts(findings: list[Finding], severity: Severity = Severity.ERROR) -> list[str]:
    return [f.text(Casing.SNAKE) for f in findings if f.severity is severity]


def plan(**arguments: Any) -> tuple[EndpointPlan | None, list[Finding]]:
    return plan_service("churn", {"target": TARGET, **arguments})


def planned(**custom: Any) -> EndpointPlan:
    found, findings = plan(custom_image={**GRPC, **custom})
    assert found is not None, texts(findings)
    return found


WRONG: list[tuple[dict[str, Any], str]] = [
    ({**GRPC, "protocol": "grpcs"}, "custom_image.protocol = \"grpcs\": must be one of 'http' or 'grpc'"),
    ({**GRPC, "protocol": 1}, "custom_image.protocol = 1: must be one of 'http' or 'grpc'"),
    (
        {**GRPC, "score_path": "/score"},
        'custom_image.score_path = "/score": has no use with protocol "grpc": calls name their methods; leave it out',
    ),
    ({**GRPC, "swagger_path": "/s"}, 'custom_image.swagger_path = "/s": has no use with protocol "grpc"'),
    ({**GRPC, "health_path": "/h"}, 'custom_image.health_path = "/h": cannot be asked for at port 8001'),
    ({**GRPC, "health_path": "/h", "health_port": 8001}, 'custom_image.health_path = "/h": cannot be asked for at'),
    ({**GRPC, "health_path": "h", "health_port": 8002}, 'custom_image.health_path = "h": is no path'),
    ({"image": "i:1", "protocol": "grpc"}, "custom_image.port: is required; add `port`"),
    ({"image": "i:1", "port": 1}, "custom_image.score_path: is required; add `score_path`"),
]


@pytest.mark.parametrize(("custom", "said"), WRONG)
def test_a_broken_rule(custom: dict[str, Any], said: str) -> None:
    found, findings = plan(custom_image=custom)
    assert found is None
    assert len(texts(findings)) == 1, texts(findings)
    assert texts(findings)[0].replace("`@", "`").startswith(said), texts(findings)


def test_several_mistakes_come_together() -> None:
    _, findings = plan(custom_image={**GRPC, "score_path": "/a", "swagger_path": "/b", "health_path": "/c"})
    assert len(texts(findings)) == 3


def test_what_has_no_use_for_calls() -> None:
    found, findings = plan(custom_image=GRPC, cors_origins=["https://a.example"])
    assert found is None
    assert texts(findings)[0].startswith("cors_origins = ")
    assert "pages of browsers cannot speak" in texts(findings)[0]
    found, findings = plan(custom_image=GRPC, retry_lost_requests=True)
    assert found is not None
    assert texts(findings, Severity.WARNING)[0].startswith("retry_lost_requests = true: has no effect with gRPC")
    assert not plan(custom_image=GRPC, retry_lost_requests=False)[1]


def test_versions_of_an_endpoint_speak_the_same() -> None:
    def version(name: str, custom: dict[str, Any]) -> dict[str, Any]:
        return {"version_name": name, "traffic_percentile": 50, "custom_image": custom}

    made, findings = plan_rollout(
        "roll", {"target": TARGET, "versions": [version("ver-a", GRPC), version("ver-b", HTTP)]}
    )
    assert made is None
    assert texts(findings) == [
        "versions: speak gRPC (ver-a) and HTTP (ver-b): a caller of one address speaks one; "
        "give each protocol an endpoint of its own"
    ]
    made, findings = plan_rollout(
        "roll", {"target": TARGET, "versions": [version("ver-a", GRPC), version("ver-b", GRPC)]}
    )
    assert made is not None, texts(findings)
    wire = made.endpoint.spec.model_dump(mode="json", by_alias=True)
    assert EndpointSpec.model_validate(wire).protocol is Protocol.GRPC
    wire["versions"][0]["container"]["protocol"] = "http"
    with pytest.raises(ValidationError, match="all versions must speak the same protocol"):
        EndpointSpec.model_validate(wire)


def told_to_the_gate(**custom: Any) -> dict[str, Any]:
    found, findings = plan(custom_image=custom)
    assert found is not None, texts(findings)
    (version,) = found.versions
    replica = Replica(found.name, "default", version.version, CLUSTER, version.placing, custom=version.image.custom)
    gate = deployment(replica)["spec"]["template"]["spec"]["initContainers"][0]
    told: dict[str, Any] = json.loads(gate["env"][0]["value"])
    GateSettings.model_validate({**told, "replicaId": "r", "control": "/c"})
    return told


PATHS = {"protocol", "scorePath", "swaggerPath", "healthPath", "healthPort", "healthProtocol"}


@pytest.mark.parametrize(
    ("custom", "told"),
    [
        (GRPC, {"protocol": "grpc", "healthProtocol": "grpc"}),
        ({**GRPC, "health_port": 9}, {"protocol": "grpc", "healthProtocol": "grpc", "healthPort": 9}),
        ({**GRPC, "health_path": "/h", "health_port": 9}, {"protocol": "grpc", "healthPath": "/h", "healthPort": 9}),
        # Nothing else than before there was a protocol: no pod is rolled out anew.
        (HTTP, {"scorePath": "/v1/completions", "swaggerPath": "/swagger.json", "healthPath": "/"}),
        (
            {**HTTP, "protocol": "http", "health_path": "/h"},
            {"scorePath": "/v1/completions", "swaggerPath": "/swagger.json", "healthPath": "/h"},
        ),
    ],
)
def test_the_gate_of_a_pod(custom: dict[str, Any], told: dict[str, Any]) -> None:
    found = told_to_the_gate(**custom)
    assert {name: value for name, value in found.items() if name in PATHS} == told
    assert found["upstreamPort"] == custom["port"]


def declared() -> Declared:
    spec = planned().endpoint.spec
    return Declared("ns", "churn", "uid", 3, "2026-01-01T00:00:00Z", spec)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://10.0.0.1", "grpc://10.0.0.1:80/churn"),
        ("https://models.example", "grpcs://models.example:443/churn"),
        ("https://models.example:8443", "grpcs://models.example:8443/churn"),
        ("http://[fd00::1]", "grpc://[fd00::1]:80/churn"),
    ],
)
def test_where_calls_go(url: str, expected: str) -> None:
    found = status_of(
        Facts(
            endpoint=declared(),
            name_in_use=False,
            workloads={},
            pods={},
            newest={},
            loads={},
            scaling={},
            served_generation=3,
            log_tails={},
            url=url,
            now="2026-01-01T00:00:00Z",
        )
    )
    assert (found["scoringUri"], found["swaggerUri"]) == (expected, "")


def test_routers_know_it() -> None:
    endpoint = declared()
    assert route(endpoint, endpoint.spec, {}, frozenset(), Part(None, AWAY)).grpc


def test_the_table_of_an_endpoint_that_takes_calls() -> None:
    versions = (VersionRoute("A", 10_000, Requests()),)
    endpoint = EndpointRoute("svc", AuthMode.NONE, frozenset(), versions, grpc=True)
    slots = {VersionKey("svc", "A"): Slot(0, 3)}
    path = "/api/v1/service/svc/score"
    table = routes.entries(endpoint, slots)
    assert table["grpc/svc"] == path
    assert table[f"{path}?@A"] == "s3|s3|62500|1000|A|rpc|once"
    assert routes.owner_entries(endpoint, slots, 0)[f"{path}?@A"].endswith("|A|rpc|once")
    elsewhere = replace(endpoint, owner="b")
    assert routes.entries(elsewhere, {}, {"b": 2})[f"{path}?@A"] == "peer2||||A|rpc|once"
    # One that takes requests is no address of calls.
    table = routes.entries(replace(endpoint, grpc=False), slots)
    assert "grpc/svc" not in table
    assert not table[f"{path}?@A"].endswith("once")


def test_the_command_says_who_can_call_it() -> None:
    endpoint = planned().endpoint
    status = SimpleNamespace(scoring_uri="grpc://10.0.0.1:80/churn", versions=())

    class Source:
        async def endpoint(self, name: str) -> Any:
            return SimpleNamespace(endpoint=endpoint, status=status)

    with pytest.raises(InvalidInput, match=r"speaks gRPC: call grpc://10.0.0.1:80 with its own client, and the meta"):
        asyncio.run(score_once(Source(), "churn", b"{}", None, None, 1))  # type: ignore[arg-type]
