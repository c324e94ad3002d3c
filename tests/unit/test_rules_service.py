"""ModelWebService: each rule with a value that breaks it, and one beside it that does not."""

from pathlib import Path
from typing import Any

import pulumi
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference.findings import Casing, Severity
from aks_inference.machine import Machine
from aks_inference.names import SERVICE
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.serving import too_big
from aks_inference.service.settings import VersionSettings
from aks_inference.service.spec import plan_service
from aks_inference.values import read
from aks_inference_runtime.api.endpoint import AuthMode

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'
KUBERNETES = 'aks-inference+kubernetes:{"name": "prod", "clusterPurpose": "FastProd", "gpu": false}'
SCALE: dict[str, Any] = {"autoscale_enabled": True}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(name: str = "service", **declared: Any) -> tuple[EndpointPlan | None, list[str], list[str]]:
    """Plan, errors, warnings."""
    arguments = {"target": TARGET, "inference_config": {"entry_script": "score.py"}, **declared}
    made, findings = plan_service(name, {k: v for k, v in arguments.items() if v is not None})
    errors = [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]
    return made, errors, [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.WARNING]


def test_the_documented_defaults() -> None:
    made, errors, warnings = plan()
    assert (errors, warnings) == ([], [])
    assert made is not None
    (version,) = made.endpoint.spec.versions
    assert version.resources.model_dump() == {
        "cpu_cores": 0.1, "cpu_cores_limit": None, "memory_gb": 0.5, "memory_gb_limit": None, "gpu_cores": 0,
    }  # fmt: skip
    assert version.scaling.model_dump() == {
        "autoscale_enabled": True, "num_replicas": None, "autoscale_min_replicas": 1, "autoscale_max_replicas": 10,
        "autoscale_refresh_seconds": 1, "autoscale_target_utilization": 70, "autoscale_scale_down_delay_seconds": 60,
    }  # fmt: skip
    assert version.requests.model_dump() == {
        "scoring_timeout_ms": 60_000, "replica_max_concurrent_requests": 1, "max_request_wait_time": 500,
        "max_queued_requests": 1_000, "cold_start_timeout_ms": 60_000,
    }  # fmt: skip
    assert version.liveness_probe.model_dump() == {
        "period_seconds": 10, "initial_delay_seconds": 310, "timeout_seconds": 2, "success_threshold": 1,
        "failure_threshold": 3,
    }  # fmt: skip
    assert made.endpoint.spec.auth is AuthMode.KEY
    assert made.traffic == {"default": 100.0}


POSITIVE = [
    "cpu_cores", "cpu_cores_limit", "memory_gb", "memory_gb_limit", "num_replicas", "scoring_timeout_ms",
    "replica_max_concurrent_requests", "max_request_wait_time", "period_seconds", "initial_delay_seconds",
    "timeout_seconds", "success_threshold", "failure_threshold", "cold_start_timeout_ms",
]  # fmt: skip
WHOLE = [name for name in POSITIVE if not name.startswith(("cpu", "memory"))]


@pytest.mark.parametrize("name", POSITIVE)
@pytest.mark.parametrize("value", [0, -1])
def test_above_zero(name: str, value: int) -> None:
    made, errors, _ = plan(**{name: value})
    assert made is None
    assert [e for e in errors if e.startswith(f"{name} = {value}: must be above 0; use")]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [2.5, True, "2", [1], float("nan")])
def test_whole_numbers(name: str, value: object) -> None:
    _, errors, _ = plan(**{name: value})
    assert len(errors) == 1
    assert errors[0].startswith(f"{name} = ")
    assert "must be a whole number" in errors[0]


@given(st.integers(1, 10**6))
def test_whole_numbers_may_come_as_floats(value: int) -> None:
    got = read(VersionSettings, {"scoring_timeout_ms": float(value)})
    assert (got.spec.scoring_timeout_ms, got.findings) == (value, ())
    assert isinstance(got.spec.scoring_timeout_ms, int)


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"cpu_cores": 2, "cpu_cores_limit": 1}, "cpu_cores_limit = 1: is below cpu_cores 2"),
        ({"memory_gb_limit": 0.05}, "memory_gb_limit = 0.05: is below memory_gb 0.5"),
        (
            {"cpu_cores_limit": 1.5},
            "cpu_cores_limit = 1.5: cannot be held to: the local target holds a replica to whole cores only; use a "
            "whole number, or leave it out; a Kubernetes target takes any",
        ),
        ({"memory_gb": 2, "memory_gb_limit": 1.5}, "memory_gb_limit = 1.5: is below memory_gb 2"),
        ({"gpu_cores": 1}, "gpu_cores = 1: is not supported on the local target yet"),
        ({"gpu_cores": 0.5}, "gpu_cores = 0.5: must be a whole number"),
        ({"gpu_cores": -1}, "gpu_cores = -1: must be at least 0"),
        ({**SCALE, "num_replicas": 2}, "autoscale_enabled = true: cannot be combined with num_replicas 2"),
        ({"autoscale_enabled": False}, "num_replicas: is required when autoscale_enabled is false"),
        ({"autoscale_min_replicas": 2}, "autoscale_min_replicas = 2: has no effect without autoscale_enabled"),
        ({"autoscale_max_replicas": 2}, "autoscale_max_replicas = 2: has no effect without autoscale_enabled"),
        ({"autoscale_refresh_seconds": 2}, "autoscale_refresh_seconds = 2: has no effect without autoscale_enabled"),
        ({"autoscale_target_utilization": 50}, "autoscale_target_utilization = 50: has no effect without"),
        (
            {"num_replicas": 3, "autoscale_enabled": False, "autoscale_max_replicas": 4},
            "autoscale_max_replicas = 4: has no effect without autoscale_enabled",
        ),
        ({**SCALE, "autoscale_min_replicas": 20}, "autoscale_min_replicas = 20: is above autoscale_max_replicas 10 ("),
        (
            {**SCALE, "autoscale_min_replicas": 3, "autoscale_max_replicas": 2},
            "autoscale_min_replicas = 3: is above autoscale_max_replicas 2; lower it to 2, or raise the maximum",
        ),
        ({**SCALE, "autoscale_min_replicas": -1}, "autoscale_min_replicas = -1: must be at least 0"),
        (
            {**SCALE, "autoscale_min_replicas": 0},
            "autoscale_min_replicas = 0: must be above 0, as in Azure ML, unless scale_to_zero is true; use 1 or more",
        ),
        ({**SCALE, "autoscale_min_replicas": 0, "scale_to_zero": False}, "autoscale_min_replicas = 0: must be above 0"),
        (
            {**SCALE, "autoscale_min_replicas": 2, "scale_to_zero": True},
            "scale_to_zero = true: cannot be combined with autoscale_min_replicas 2; leave out one of them",
        ),
        ({"num_replicas": 2, "scale_to_zero": True}, "scale_to_zero = true: has no effect without autoscale_enabled"),
        ({**SCALE, "autoscale_max_replicas": 0}, "autoscale_max_replicas = 0: must be above 0"),
        ({**SCALE, "autoscale_target_utilization": 150}, "autoscale_target_utilization = 150: must be at most"),
        ({**SCALE, "autoscale_refresh_seconds": 0}, "autoscale_refresh_seconds = 0: must be above 0"),
        ({"auth_enabled": True, "token_auth_enabled": True}, "token_auth_enabled = true: cannot be combined with"),
        ({"secondary_key": "other-key"}, "secondary_key: is given without primary_key; give both, or neither"),
        (
            {"primary_key": "first-key", "secondary_key": "first-key"},
            "secondary_key: is the same as the primary one: no key could be changed while the other one is in use; "
            "give another one",
        ),
        ({"primary_key": ""}, "primary_key: is empty, or has spaces or"),
        ({"primary_key": "a b"}, "primary_key: is empty, or has spaces or"),
        ({"primary_key": "ä"}, "primary_key: is empty, or has spaces or"),
        ({"primary_key": "a\nb"}, "primary_key: is empty, or has spaces or"),
        ({"primary_key": "short-7"}, "primary_key: is shorter than 8 characters and easily guessed; give a longer one"),
        ({"primary_key": "k" * 4_097}, "primary_key: is longer than 4,096 characters: no request could carry it; give"),
        ({"primary_key": 7}, "primary_key: must be a text or an output of one"),
        ({"primary_key": "first-key", "auth_enabled": False}, "primary_key: has no use: keys are switched off"),
        ({"namespace": "Prod"}, 'namespace = "Prod": a name has 1 to 63 characters'),
        ({"namespace": "prod\n"}, 'namespace = "prod\\n": a name has 1 to 63 characters'),
        ({"namespace": "-prod"}, 'namespace = "-prod": a name has'),
        ({"namespace": "n" * 64}, "namespace = "),
        ({"compute_target_name": "aks-1"}, 'compute_target_name = "aks-1": names another cluster than target (local)'),
        ({"port": 0}, "port = 0: must be at least 1; use a port from 1 to 65,535"),
        ({"port": 65_536}, "port = 65536: must be at most 65535"),
        ({"port": 8890}, "port = 8890: is the port of the cluster itself"),
        ({"blobfuse_enabled": "yes"}, 'blobfuse_enabled = "yes": must be true or false'),
        ({"tags": {"a": 1}}, "tags.a = 1: must be a text"),
        ({"tags": "a"}, 'tags = "a": must be an object'),
        ({"properties": {"a": None}}, "properties.a = null: must be a text"),
        ({"service_name": "ab"}, 'service_name = "ab": a name has 3 to 32 characters'),
        ({"cpu_core": 1}, "cpu_core: is not known here; did you mean `cpu_cores`?"),
        ({"models": "m:1"}, 'models = "m:1": must be a list'),
        ({"target": "somewhere"}, "target: not a target: 'somewhere'"),
        ({"target": 5}, "target: an object of type int is not a target; pass a cluster component or its"),
        ({"target": KUBERNETES}, "target: names a cluster without the inference runtime"),
        ({"target": None}, "target: is required"),
        ({"inference_config": None}, "inference_config: is required: without an entry script a service has"),
        ({"models": ["ridge"]}, 'models[0] = "ridge": is not a model id `name:version`'),
        ({"models": ["ridge:0"]}, 'models[0] = "ridge:0": is not a model id'),
        ({"models": ["ridge:1", "ridge:1"]}, "models: ridge:1 is given 2 times; give it once"),
        ({"models": [3]}, "models[0]: an object of type int is not a model"),
        ({"models": [f"m:{n}" for n in range(1, 1_002)]}, "models: 1,001 models; one deployment takes at most 1,000"),
    ],
)  # fmt: skip
def test_a_broken_rule(declared: dict[str, Any], expected: str) -> None:
    made, errors, _ = plan(**declared)
    assert made is None
    assert [e for e in errors if e.startswith(expected)], errors
    assert len(errors) == 1


@pytest.mark.parametrize(
    "declared",
    [
        {"num_replicas": 3},
        {"num_replicas": 3.0},
        {"num_replicas": 3, "autoscale_enabled": False},
        {**SCALE, "autoscale_min_replicas": 0, "scale_to_zero": True, "autoscale_max_replicas": 20},
        {**SCALE, "scale_to_zero": True},
        {"num_replicas": 2, "scale_to_zero": False},
        {**SCALE, "autoscale_min_replicas": 10},
        {"cpu_cores": 1, "cpu_cores_limit": 1, "memory_gb": 1, "memory_gb_limit": 2},
        {"auth_enabled": False},
        {"auth_enabled": False, "token_auth_enabled": False},
        {"primary_key": "first-key", "secondary_key": "other-key"},
        {"primary_key": "k" * 4_096},
        {"blobfuse_enabled": True},
        {"blobfuse_enabled": False},
        {"namespace": "n" * 63},
        {"compute_target_name": "local"},
        {"models": ["ridge:1", "ridge:2"]},
        {"models": [f"m:{n}" for n in range(1, 1_001)]},
        {"service_name": "a--b"},
        {"port": 8123},
        {"description": None, "tags": None},
        {"cpuCores": 0.2},
    ],
)
def test_what_is_accepted(declared: dict[str, Any]) -> None:
    made, errors, _ = plan(**declared)
    assert (made is not None, errors) == (True, [])


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("abc", True), ("a" * 32, True), ("a1-b", True), ("a--b", True), ("ab", False), ("a" * 33, False),
        ("1abc", False), ("-abc", False), ("abc-", False), ("aBc", False), ("a_c", False), ("ünï", False),
        ("abc\n", False), ("", False),
    ],
)  # fmt: skip
def test_names_of_services(name: str, right: bool) -> None:
    assert (not list(SERVICE.check(("service_name",), name))) is right


def test_all_findings_at_once_and_rules_between_right_fields_still_count() -> None:
    _, errors, _ = plan(
        cpu_cores=-1, memory_gb=2, memory_gb_limit=1, autoscale_enabled=False, namespace="X", primary_key=5,
        inference_config={"entry_script": "gone.py"}, models=["x"],
    )  # fmt: skip
    starts = (
        "cpu_cores",
        "memory_gb_limit",
        "num_replicas",
        "namespace",
        "primary_key",
        "inference_config.entry",
        "mod",
    )
    assert len(errors) == len(starts)
    for start in starts:
        assert any(error.startswith(start) for error in errors), (start, errors)


def test_a_replica_that_the_machine_can_never_hold() -> None:
    made, _, _ = plan(cpu_cores=3, memory_gb=9)
    assert made is not None
    assert [f.text(Casing.SNAKE) for f in too_big(made, Machine(cores=2, memory_gb=8), in_versions=False)] == [
        "cpu_cores = 3: this machine has 2 cores: Unschedulable; use 2 or less",
        "memory_gb = 9: this machine has 8.0 GB: Unschedulable; use 8.0 or less",
    ]
    (told, _) = too_big(made, Machine(cores=2, memory_gb=8), in_versions=True)
    assert told.text(Casing.SNAKE).startswith("versions[0].cpu_cores = 3: ")
    assert not list(too_big(made, Machine(cores=3, memory_gb=9), in_versions=False))


def test_a_key_is_never_shown() -> None:
    _, errors, _ = plan(primary_key="hush hush\n", secondary_key=["hush"])
    assert errors
    assert "hush" not in "".join(errors)


def test_camel_case_for_other_languages() -> None:
    _, findings = plan_service("service", {"target": TARGET, "cpu_cores": 2, "cpu_cores_limit": 1})
    texts = [f.text(Casing.CAMEL) for f in findings]
    assert texts[0] == "cpuCoresLimit = 1: is below cpuCores 2; use 2 or more, or lower cpuCores"


def test_a_wait_longer_than_the_score_is_a_warning() -> None:
    made, errors, warnings = plan(max_request_wait_time=70_000)
    assert made is not None
    assert errors == []
    assert warnings[0].startswith("max_request_wait_time = 70000: is longer than scoring_timeout_ms 60000")


def test_notes_about_what_has_no_effect_here() -> None:
    made, _, _ = plan(blobfuse_enabled=False, namespace="prod", cpu_cores_limit=1, memory_gb_limit=2)
    assert made is not None
    assert [note.split(":")[0] for note in made.notes] == [
        "@blobfuse_enabled",
        "namespace prod",
    ]


async def test_outputs_are_for_texts_of_other_resources_only() -> None:
    late = pulumi.Output.from_input("x")
    made, errors, _ = plan(primary_key=late, description=late, tags={"a": late}, target=late, models=[late])
    assert errors == []
    assert made is not None
    assert made.wire()["spec"]["tags"] == {"a": late}
    _, errors, _ = plan(num_replicas=late, namespace=late, inference_config=late)
    assert sorted(errors) == [
        "inference_config: must be known at preview; give entry_script, source_directory and environment",
        "namespace: must be known at preview, not an output of a resource; give a plain value",
        "num_replicas: must be known at preview, not an output of a resource; give a plain value",
    ]
