"""The rules of tokens in place of keys."""

from pathlib import Path
from typing import Any

import pulumi
import pytest

from aks_inference.findings import Casing, Finding, Severity
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.spec import plan_service
from aks_inference.service.tokens import issuer_region
from aks_inference_runtime.api.endpoint import AuthMode
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target

LOCAL = format_target(LocalTarget(name="local", state_directory="/tmp/state"))
CLUSTER = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1", location="West Europe")
ISSUER = "https://login.microsoftonline.com/tenant/v2.0"
GOOD: dict[str, Any] = {"token_auth_enabled": True, "token_issuer": ISSUER, "token_audiences": ["app"]}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)


def plan(**arguments: Any) -> tuple[EndpointPlan | None, list[Finding]]:
    return plan_service("svc", {"target": LOCAL, "inference_config": {"entry_script": "score.py"}, **arguments})


def texts(findings: list[Finding], severity: Severity = Severity.ERROR) -> list[str]:
    return [f.text(Casing.SNAKE) for f in findings if f.severity is severity]


@pytest.mark.parametrize("target", [LOCAL, format_target(CLUSTER)], ids=["local", "cluster"])
def test_a_service_with_tokens(target: str) -> None:
    image = {} if target == LOCAL else {"image": "scoring:1"}
    made, findings = plan(**GOOD, target=target, token_jwks_uri="https://keys.example/jwks", **image)
    assert made is not None, findings
    assert texts(findings, Severity.WARNING) == []
    spec = made.wire()["spec"]
    assert spec["auth"] == AuthMode.TOKEN
    assert spec["token"] == {"issuer": ISSUER, "audiences": ["app"], "jwksUri": "https://keys.example/jwks"}


def test_a_rollout_with_tokens_from_a_deployment_file() -> None:
    version = {"version_name": "one", "inference_config": {"entry_script": "score.py"}}
    made, findings = plan_rollout("roll", {"target": LOCAL, "versions": [version], **GOOD})
    assert made is not None, findings
    assert made.endpoint.spec.token is not None
    config = {"computeType": "aks", "tokenAuthEnabled": True}
    rest = {name: value for name, value in GOOD.items() if name != "token_auth_enabled"}
    made, findings = plan(deployment_config=config, **rest)
    assert made is not None, findings
    assert made.endpoint.spec.auth is AuthMode.TOKEN


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"token_auth_enabled": True},
        [
            "token_issuer: is required with token_auth_enabled",
            "token_audiences: is required with token_auth_enabled: a",
        ],
    ),
    ({**GOOD, "token_audiences": []}, ["token_audiences: is required with token_auth_enabled: a token that"]),
    ({**GOOD, "token_audiences": ["a", "a"]}, ["token_audiences: a is given 2 times; give it once"]),
    ({**GOOD, "token_audiences": ["a", ""]}, ['token_audiences[1] = "": is empty, or begins or ends']),
    ({**GOOD, "token_audiences": "app"}, ['token_audiences = "app": must be a list']),
    ({**GOOD, "token_issuer": "tenant"}, ['token_issuer = "tenant": is no https address; write it as']),
    ({**GOOD, "token_issuer": 5}, ["token_issuer = 5: must be a text or an output of one"]),
    ({**GOOD, "token_issuer": "https://user:pw@issuer.example"}, ["token_issuer: is no https address"]),
    ({**GOOD, "token_issuer": "https://issuer.example:nan"}, ["token_issuer = "]),
    ({**GOOD, "token_issuer": "http://issuer.example"}, ['token_issuer = "http://issuer.example": is fetched without']),
    ({**GOOD, "token_jwks_uri": "file:///etc/keys"}, ['token_jwks_uri = "file:///etc/keys": is no https address']),
    ({**GOOD, "auth_enabled": True}, ["token_auth_enabled = true: cannot be combined with auth_enabled true"]),
    ({**GOOD, "primary_key": "first-key"}, ["primary_key: has no use: keys are switched off"]),
    ({"token_issuer": ISSUER}, ["token_issuer: has no effect without token_auth_enabled; add token_auth_enabled true"]),
    ({"auth_enabled": False, "token_audiences": ["a"]}, ["token_audiences: has no effect without token_auth_enabled"]),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_broken_rule(arguments: dict[str, Any], said: list[str]) -> None:
    made, findings = plan(**arguments)
    assert made is None
    found = texts(findings)
    assert len(found) == len(said), found
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True)), found


def test_an_issuer_of_this_machine_needs_no_tls() -> None:
    made, findings = plan(**{**GOOD, "token_issuer": "http://127.0.0.1:8080"})
    assert made is not None, findings


@pytest.mark.parametrize(
    ("issuer", "said"),
    [
        ("https://eastus.oic.prod-aks.azure.com/tenant/id/", "token_issuer = "),
        ("https://westeurope.oic.prod-aks.azure.com/tenant/id/", None),
        (ISSUER, None),
    ],
)
def test_an_issuer_in_another_region_is_a_warning(issuer: str, said: str | None) -> None:
    made, findings = plan(**{**GOOD, "token_issuer": issuer}, target=format_target(CLUSTER), image="scoring:1")
    assert made is not None, findings
    warned = texts(findings, Severity.WARNING)
    assert len(warned) == (said is not None)
    assert said is None or (warned[0].startswith(said) and "is in East US, the cluster in West Europe" in warned[0])


def test_regions_of_issuers() -> None:
    assert (found := issuer_region("https://login-eastus2.example.com")) is not None
    assert found.name == "eastus2"
    assert issuer_region("https://example.com/eastus") is None
    assert issuer_region("no address") is None


async def test_what_another_resource_gives() -> None:
    """An app registration's client id is an output: the rest is still checked, and the object has it in its place."""
    client = pulumi.Output.from_input("client-id")
    made, findings = plan(**{**GOOD, "token_audiences": [client, "other"]})
    assert made is not None, findings
    token = made.wire()["spec"]["token"]
    assert (token["issuer"], token["audiences"]) == (ISSUER, [client, "other"])
    made, findings = plan(**{**GOOD, "token_audiences": [client], "token_issuer": "tenant"})
    assert made is None
