"""Application Insights: the rules, and what reaches the scoring server."""

from pathlib import Path
from typing import Any

import pulumi
import pytest

from aks_inference.findings import Casing, Finding, Severity
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.insights import instrumentation_key
from aks_inference.service.replicas import Replica, deployment
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.endpoint import EndpointVersion
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target
from aks_inference_runtime.scoring.server import variables

LOCAL = format_target(LocalTarget(name="local", state_directory="/tmp/state"))
CLUSTER = format_target(KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1"))
KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"
STRING = f"InstrumentationKey={KEY};IngestionEndpoint=https://westeurope-5.in.applicationinsights.azure.com/"
GOOD: dict[str, Any] = {"enable_app_insights": True, "app_insights_connection_string": STRING}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)


def plan(target: str = LOCAL, **arguments: Any) -> tuple[EndpointPlan | None, list[Finding]]:
    image = {} if target == LOCAL else {"image": "scoring:1"}
    config = {"entry_script": "score.py", "source_directory": "code"}
    return plan_service("svc", {"target": target, "inference_config": config, **image, **arguments})


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"enable_app_insights": True}, "app_insights_connection_string: is required with enable_app_insights; give the"),
    ({"app_insights_connection_string": STRING}, "app_insights_connection_string: has no effect without enable_app"),
    (
        {**GOOD, "app_insights_connection_string": "InstrumentationKey=hush-hush"},
        "app_insights_connection_string: has no InstrumentationKey=<GUID>; copy it from",
    ),
    ({**GOOD, "app_insights_connection_string": 5}, "app_insights_connection_string: must be a text or an output"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_broken_rule(arguments: dict[str, Any], said: str) -> None:
    made, findings = plan(**arguments)
    assert made is None
    (text,) = [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]
    assert text.startswith(said)
    assert "hush-hush" not in text


def test_another_cloud_is_a_warning() -> None:
    other = f"InstrumentationKey={KEY};IngestionEndpoint=https://usgovvirginia-1.in.applicationinsights.azure.us/"
    made, findings = plan(**{**GOOD, "app_insights_connection_string": other})
    assert made is not None
    assert ["is of another cloud" in f.rule for f in findings] == [True]


def test_keys() -> None:
    assert instrumentation_key(STRING) == KEY
    assert instrumentation_key(f" {KEY.upper()}\n") == KEY
    assert instrumentation_key(f"ingestionendpoint=https://a; instrumentationkey = {KEY}") == KEY


async def test_the_key_is_a_secret_on_its_way() -> None:
    made, findings = plan(**GOOD)
    assert made is not None, findings
    variables_on_wire = made.wire()["spec"]["versions"][0]["environment"]["environmentVariables"]
    assert variables_on_wire["AML_APP_INSIGHTS_ENABLED"] == "true"
    assert isinstance(variables_on_wire["AML_APP_INSIGHTS_KEY"], pulumi.Output)
    version = {"version_name": "one", "inference_config": {"entry_script": "code/score.py"}}
    rolled, findings = plan_rollout("roll", {"target": LOCAL, "versions": [version], **GOOD})
    assert rolled is not None, findings
    assert list(rolled.versions[0].late_variables) == ["AML_APP_INSIGHTS_KEY"]


def test_on_a_cluster_the_key_comes_from_a_secret() -> None:
    made, findings = plan(CLUSTER, **GOOD)
    assert made is not None, findings
    (version,) = made.versions
    assert made.target.kubernetes is not None
    hidden = tuple(version.late_variables)
    replica = Replica("svc", "default", version.version, made.target.kubernetes, version.placing, hidden)
    text = str(deployment(replica))
    assert KEY not in text
    (scoring,) = [c for c in deployment(replica)["spec"]["template"]["spec"]["containers"] if c["name"] == "scoring"]
    told = {one["name"]: one for one in scoring["env"]}
    assert told["AML_APP_INSIGHTS_ENABLED"]["value"] == "true"
    assert "AML_APP_INSIGHTS_KEY" not in told
    assert scoring["envFrom"] == [{"secretRef": {"name": replica.environment_name}}]


@pytest.mark.parametrize(("given", "told"), [({}, "false"), ({"AML_APP_INSIGHTS_ENABLED": "true"}, "true")])
def test_the_server_is_told(given: dict[str, str], told: str) -> None:
    code = {"entry_script": "score.py", "digest": "sha256:0"}
    version = EndpointVersion.model_validate(
        {"name": "blue", "code": code, "environment": {"environment_variables": given}}
    )
    assert variables("svc", version, Path("/app"))["AML_APP_INSIGHTS_ENABLED"] == told


async def test_a_string_that_is_known_later_becomes_a_secret() -> None:
    """Another component's output need not be one."""
    given = pulumi.Output.from_input(STRING)
    assert not await given.is_secret()
    plan, _ = plan_service(
        "svc",
        {
            "target": LOCAL,
            "inference_config": {"source_directory": "code", "entry_script": "score.py"},
            "enable_app_insights": True,
            "app_insights_connection_string": given,
        },
    )
    assert plan is not None
    key = plan.versions[0].late_variables["AML_APP_INSIGHTS_KEY"]
    assert (await key.future(), await key.is_secret()) == (KEY, True)
    bad, _ = plan_service(
        "svc",
        {
            "target": LOCAL,
            "inference_config": {"source_directory": "code", "entry_script": "score.py"},
            "enable_app_insights": True,
            "app_insights_connection_string": pulumi.Output.from_input("nothing"),
        },
    )
    assert bad is not None
    with pytest.raises(pulumi.RunError, match="app_insights_connection_string: has no InstrumentationKey"):
        await bad.versions[0].late_variables["AML_APP_INSIGHTS_KEY"].future()
