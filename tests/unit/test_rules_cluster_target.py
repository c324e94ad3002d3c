"""The rules of a service on a Kubernetes cluster."""

from pathlib import Path
from typing import Any

import pytest

from aks_inference.findings import Casing, Finding, Severity
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.placing import CODE_LIMIT_BYTES
from aks_inference.service.replicas import Replica, code_object, deployment, endpoint_object
from aks_inference.service.rollouts import PROGRESS_S, template_digest
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.endpoint import MOST
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target, parse_target

CLUSTER = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1")
TARGET = format_target(CLUSTER)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    return tmp_path


def plan(**arguments: Any) -> tuple[EndpointPlan | None, list[Finding]]:
    config = {"entry_script": "score.py", "source_directory": "code"}
    return plan_service("churn", {"target": TARGET, "image": "scoring:1", "inference_config": config, **arguments})


def planned(**arguments: Any) -> EndpointPlan:
    found, findings = plan(**arguments)
    assert found is not None, findings
    return found


def replica(**arguments: Any) -> Replica:
    found = planned(**arguments)
    (version,) = found.versions
    assert found.target.kubernetes is not None
    return Replica(found.name, "default", version.version, found.target.kubernetes, version.placing)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"image": None}, "image: is required on a Kubernetes target"),
    ({"models": ["m:1"]}, 'models[0] = "m:1": the target keeps no models'),
    ({"model_secret_name": "s"}, 'model_secret_name = "s": has no use'),
    ({"port": 6000}, "port = 6000: is only for the local target"),
    ({"container_port": 0}, "container_port = 0: must be at least 1"),
    ({"health_path": "health"}, 'health_path = "health": is no path'),
    ({"max_surge": "120%"}, 'max_surge = "120%": is no number of replicas and no percentage'),
    ({"max_surge": -1}, "max_surge = -1: is no number of replicas and no percentage"),
    ({"max_surge": 0}, "max_surge = 0: and max_unavailable are both 0"),
    ({"key_version": 0}, "key_version = 0: must be at least 1"),
    ({"key_version": 2, "auth_enabled": False}, "key_version = 2: has no use"),
    ({"namespace": "Bad"}, 'namespace = "Bad": a name has'),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_broken_rule(arguments: dict[str, Any], said: str) -> None:
    found, findings = plan(**arguments)
    assert found is None
    texts = [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]
    assert any(text.startswith(said) for text in texts), texts


@pytest.mark.parametrize(
    "arguments",
    [{"image": "i:1"}, {"container_port": 80}, {"max_surge": 1}, {"image_pull_secrets": ["s"]}, {"key_version": 1}],
)
def test_what_only_a_cluster_has_is_refused_on_this_machine(arguments: dict[str, Any], project: Path) -> None:
    target = format_target(LocalTarget(name="local", state_directory=str(project / "state")))
    found, findings = plan(**{"target": target, "image": None, **arguments})
    assert found is None
    (name,) = arguments
    assert any("is only for a Kubernetes target" in f.text(Casing.SNAKE) and f.path == (name,) for f in findings)


def test_a_score_that_outlasts_a_routers_end_is_a_warning(project: Path) -> None:
    """Also of a version of a rollout; on this machine no router is upgraded."""
    said = (
        "scoring_timeout_ms = 600001: is longer than a router waits for its requests: what scores for more than ten "
        "minutes may end with it; use 600,000 or less, or send again what an upgrade, a scale-down or a drain of the "
        "router ends"
    )
    found, findings = plan(scoring_timeout_ms=600_001)
    assert found is not None
    assert [(f.severity, f.text(Casing.SNAKE)) for f in findings] == [(Severity.WARNING, said)]
    assert plan(scoring_timeout_ms=600_000)[1] == []
    version = {"version_name": "a", "image": "scoring:1", "inference_config": {"entry_script": "code/score.py"}}
    _, findings = plan_rollout("churn", {"target": TARGET, "versions": [{**version, "scoring_timeout_ms": 600_001}]})
    assert [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.WARNING] == [f"versions[0].{said}"]
    local = format_target(LocalTarget(name="local", state_directory=str(project / "state")))
    found, findings = plan(target=local, image=None, scoring_timeout_ms=600_001)
    assert (found is not None, findings) == (True, [])


def test_large_code_is_refused_before_anything_is_sent(project: Path) -> None:
    (project / "code" / "weights.bin").write_bytes(b"0" * CODE_LIMIT_BYTES)
    found, findings = plan()
    assert found is None
    assert any("701 KiB" in f.rule or "700 KiB" in f.rule for f in findings)


def test_another_script_is_another_object(project: Path) -> None:
    before = code_object(replica())
    (project / "code" / "score.py").write_text("def init(): pass\ndef run(data): return 1\n")
    after = code_object(replica())
    assert before["immutable"] is True
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_a_script_alone_has_a_folder_of_its_own(project: Path) -> None:
    """A single file cannot be mounted beside what the image has there."""
    (project / "lone.py").write_text("def init(): pass\ndef run(data): return data\n")
    made = deployment(replica(inference_config={"entry_script": "lone.py"}))
    (scoring,) = made["spec"]["template"]["spec"]["containers"]
    told = {v["name"]: v["value"] for v in scoring["env"]}
    assert told["AZUREML_ENTRY_SCRIPT"] == "source/lone.py"
    assert scoring["command"][2] == "/var/azureml-app/source/lone.py"


@pytest.mark.parametrize(
    ("arguments", "limits"),
    [
        ({}, None),
        ({"cpu_cores": 0.5, "cpu_cores_limit": 1.5}, {"cpu": "1500m"}),
        ({"memory_gb": 1, "memory_gb_limit": 2.5}, {"memory": "2560Mi"}),
        ({"gpu_cores": 2}, {"nvidia.com/gpu": "2"}),
    ],
)
def test_resources(arguments: dict[str, Any], limits: dict[str, str] | None) -> None:
    gpu = "gpu_cores" in arguments
    pod = deployment(replica(**arguments))["spec"]["template"]["spec"]
    (scoring,) = pod["containers"]
    assert scoring["resources"].get("limits") == limits
    # Pools with GPUs keep all others away.
    assert {one["key"] for one in pod.get("tolerations", ())} == ({"sku", "nvidia.com/gpu"} if gpu else set())
    assert set(scoring["resources"]["requests"]) == {"cpu", "memory"}


@pytest.mark.parametrize(
    ("arguments", "borne"),
    [
        ({}, set()),
        ({"spot": False}, set()),
        ({"spot": True}, {"kubernetes.azure.com/scalesetpriority"}),
        ({"spot": True, "gpu_cores": 1}, {"kubernetes.azure.com/scalesetpriority", "sku", "nvidia.com/gpu"}),
    ],
)
def test_spot_nodes(arguments: dict[str, Any], borne: set[str]) -> None:
    pod = deployment(replica(**arguments))["spec"]["template"]["spec"]
    assert {one["key"] for one in pod.get("tolerations", ())} == borne


@pytest.mark.parametrize(("timeout_ms", "grace"), [(60_000, 90), (600_000, 630), (1, 31)])
def test_a_pods_end_waits_for_the_longest_score(timeout_ms: int, grace: int) -> None:
    pod = deployment(replica(scoring_timeout_ms=timeout_ms, max_request_wait_time=1))["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == grace


def test_a_service_account_brings_workload_identity() -> None:
    made = deployment(replica(service_account_name="reader"))["spec"]["template"]
    assert made["spec"]["serviceAccountName"] == "reader"
    assert made["spec"]["automountServiceAccountToken"] is True
    assert made["metadata"]["labels"]["azure.workload.identity/use"] == "true"
    assert deployment(replica())["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_nothing_of_this_machine_is_in_the_endpoint(project: Path) -> None:
    found = planned()
    spec = endpoint_object("churn", "default", found.wire(), 60, {})["spec"]
    assert str(project) not in str(spec)
    assert spec["versions"][0]["code"]["sourceDirectory"] == "code"


def test_a_target_with_a_kubeconfig_reads_back_and_is_not_shown_when_it_is_wrong() -> None:
    full = CLUSTER.model_copy(update={"kubeconfig": "apiVersion: v1\nclusters: []", "context": "c"})
    assert parse_target(format_target(full)) == full
    assert "apiVersion" not in repr(full)
    broken = format_target(full).replace('"name"', '"nome"')
    found, findings = plan(target=broken)
    assert found is None
    assert not any("clusters" in f.text(Casing.SNAKE) for f in findings)


def test_the_gate_sends_traces_where_the_runtime_says() -> None:
    target = CLUSTER.model_copy(update={"otlp_endpoint": "http://c:4318", "trace_ratio": 0.5})
    for given, told in ((CLUSTER, False), (target, True)):
        made = replica(target=format_target(given))
        text = str(deployment(made)["spec"]["template"]["spec"]["initContainers"])
        assert ('"otlpEndpoint": "http://c:4318"' in text) is told
        assert ('"traceRatio": 0.5' in text) is told


@pytest.mark.parametrize(
    "changed",
    [
        {"service_account_name": "reader"},
        {"image_pull_secrets": ["other"]},
        {"spot": True},
        {"image": "scoring:2"},
        {
            "inference_config": {
                "entry_script": "score.py",
                "source_directory": "code",
                "environment": {"environment_variables": {"LEVEL": "2"}},
            }
        },
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_change_of_the_pods_alone_is_another_digest(changed: dict[str, Any]) -> None:
    assert template_digest(deployment(replica())) == template_digest(deployment(replica()))
    assert template_digest(deployment(replica())) != template_digest(deployment(replica(**changed)))


def test_a_slow_start_is_no_failure() -> None:
    """A liveness probe that leaves a replica hours leaves them to its rollout, too; the wait is longer than that."""
    slow = {"initial_delay_seconds": 7_200, "period_seconds": 60, "failure_threshold": 10}
    assert deployment(replica(**slow))["spec"]["progressDeadlineSeconds"] == PROGRESS_S + 7_800
    longest = deployment(replica(period_seconds=10**6, failure_threshold=10**6))
    assert longest["spec"]["progressDeadlineSeconds"] == MOST, "a number of 32 bits"
