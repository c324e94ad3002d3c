"""Which pages may call an endpoint, and whether it is asked a second time: rules and what is declared."""

from pathlib import Path
from typing import Any

import pytest

from aks_inference.findings import Casing
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.endpoint import MAX_ORIGINS
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target

CLUSTER = format_target(KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1"))
LOCAL = format_target(LocalTarget(name="dev", state_directory="/nowhere"))


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")


def plan(target: str = CLUSTER, **arguments: Any) -> tuple[Any, list[str]]:
    image = {"image": "scoring:1"} if target == CLUSTER else {}
    declared = {"target": target, "inference_config": {"entry_script": "score.py"}, **image, **arguments}
    found, findings = plan_service("churn", declared)
    return found, [finding.text(Casing.SNAKE) for finding in findings]


BAD = [
    (["*"], 'cors_origins[0] = "*": would let any page call the endpoint; name each origin'),
    (["null"], 'cors_origins[0] = "null": is what pages without an origin send'),
    (["https://a.example/"], "did you mean `https://a.example`?"),
    (["HTTPS://A.example"], "did you mean `https://a.example`?"),
    (["https://a.example/app"], "is no exact origin"),
    (["a.example"], "write each as browsers send it"),
    (["https://*.example"], "is no exact origin"),
    (["https://a.example#x"], "is no exact origin"),
    (["https://a.example\nhttps://b.example"], "is no exact origin"),
    (["https://a.example", "https://a.example"], "cors_origins[1]"),
    ([f"https://a{n}.example" for n in range(MAX_ORIGINS + 1)], f"there is room for {MAX_ORIGINS}"),
    ("https://a.example", "must be a list"),
]


@pytest.mark.parametrize(("origins", "text"), BAD, ids=[str(n) for n in range(len(BAD))])
def test_origins_that_are_refused(origins: Any, text: str) -> None:
    made, found = plan(cors_origins=origins)
    assert made is None
    assert len(found) == 1, found
    assert text in found[0]


@pytest.mark.parametrize("target", [CLUSTER, LOCAL])
def test_origins_reach_the_endpoint(target: str) -> None:
    origins = ["https://app.example.com", "http://localhost:3000", "http://[::1]:8080"]
    made, found = plan(target, cors_origins=origins)
    assert made is not None, found
    assert made.endpoint.spec.cors_origins == tuple(origins)


def test_a_second_try_can_be_forbidden_on_a_cluster() -> None:
    made, found = plan(retry_lost_requests=False)
    assert made is not None, found
    assert made.wire()["spec"]["retryLostRequests"] is False
    made, found = plan()
    assert made.endpoint.spec.retry_lost_requests is True
    made, found = plan(LOCAL, retry_lost_requests=False)
    assert made is None
    assert found[0].startswith("retry_lost_requests = false: is only for a Kubernetes target")
