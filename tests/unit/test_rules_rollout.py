"""ControlledRolloutEndpoint: versions, traffic, default and control."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aks_inference.findings import Casing, Severity
from aks_inference.machine import this_machine
from aks_inference.rollout.spec import VersionSpec, plan_rollout, version_rules
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.serving import describe
from aks_inference.values import read

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'
CONFIG = {"entry_script": "score.py"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def version(name: str = "ver-a", share: Any = None, **more: Any) -> dict[str, Any]:
    return {"version_name": name, "traffic_percentile": share, "inference_config": CONFIG, **more}


def plan(*versions: Any, **more: Any) -> tuple[EndpointPlan | None, list[str]]:
    made, findings = plan_rollout("endpoint", {"target": TARGET, "versions": list(versions), **more})
    return made, [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("versions", "traffic"),
    [
        # The source documents' worked examples.
        ([version("ver-a", 20)], {"ver-a": 100}),
        ([version("ver-a", 20), version("ver-b", 10)], {"ver-a": 90, "ver-b": 10}),
        ([version("ver-a", 20), version("ver-b", 40, is_default=True)], {"ver-a": 20, "ver-b": 80}),
        ([version("test", 10), version("prod", 30, is_default=True)], {"test": 10, "prod": 90}),
        ([version("ver-a")], {"ver-a": 100}),
        ([version("ver-a", 60), version("ver-b", 40)], {"ver-a": 60, "ver-b": 40}),
        (
            [version("ver-a", 0.01), version("ver-b", 33.33), version("ver-c")],
            {"ver-a": 66.67, "ver-b": 33.33, "ver-c": 0},
        ),
        (
            [version("ver-a", 33.3), version("ver-b", 33.3), version("ver-c", 33.4)],
            {"ver-a": 33.3, "ver-b": 33.3, "ver-c": 33.4},
        ),
    ],
)  # fmt: skip
def test_effective_traffic(versions: list[Any], traffic: dict[str, float]) -> None:
    made, errors = plan(*versions)
    assert errors == []
    assert made is not None
    assert made.traffic == traffic


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ("12.5", []),
        ("12.555", ["has more than two decimals"]),
        ("130", ["must be between 0 and 100"]),
        ("half", []),
        ("nan", []),
    ],
)
def test_a_number_given_as_text_gets_the_other_rules_at_once(share: str, expected: list[str]) -> None:
    _, errors = plan(version("ver-a", share), version("ver-b", 40, cpu_cores="0", num_replicas="-1"))
    said = "\n".join(errors)
    assert f'versions[0].traffic_percentile = "{share}": is text, not a number; give a number' in said
    assert 'versions[1].cpu_cores = "0": is text' in said
    assert "versions[1].cpu_cores = 0: must be above 0" in said
    assert 'versions[1].num_replicas = "-1": must be a whole number' in said
    assert "versions[1].num_replicas = -1: must be above 0" in said
    for rule in expected:
        assert rule in said


@pytest.mark.parametrize(("shares", "total"), [(("70", 60), "130"), (("90", "40.5"), "130.5"), (("60", 40), None)])
def test_shares_given_as_text_count_in_the_sum(shares: tuple[Any, Any], total: str | None) -> None:
    _, errors = plan(version("ver-a", shares[0]), version("ver-b", shares[1]))
    assert any(f"sum to {total}" in error for error in errors) == (total is not None)


def test_versions_that_differ_in_variables_alone_are_told_apart() -> None:
    def of(name: str, **variables: str) -> dict[str, Any]:
        config = {**CONFIG, "environment": {"environment_variables": variables}}
        return version(name, 10, inference_config=config)

    made, errors = plan(of("ver-a", MODE="fast", LEVEL="1"), of("ver-b", MODE="hush-hush", LEVEL="1"), of("ver-c"))
    assert errors == []
    assert made is not None
    runs = [line for line in describe(made, this_machine()) if " runs " in line]
    assert runs[0].endswith("; variables LEVEL, MODE (another value than in ver-b)")
    assert runs[1].endswith("; variables LEVEL, MODE (another value than in ver-a)")
    assert "variables" not in runs[2]
    assert "hush" not in "".join(runs)


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ([], "versions = []: is empty; declare one to six versions; to end an endpoint, remove it"),
        ([version(f"ver-{n}") for n in range(7)], "versions: 7 versions; an endpoint has at most 6: remove some"),
        ([version(), version()], "versions: 2 versions are named 'ver-a'; give each its own name"),
        (
            [version("ver-a", is_default=True), version("ver-b", is_default=True)],
            "versions: 2 versions are the default (ver-a, ver-b); one gets what no version has: set is_default",
        ),
        ([version(is_default=False)], "versions: no version is the default; set is_default on one, or leave it out"),
        (
            [version("ver-a", type="Control"), version("ver-b", is_control_version_type=True)],
            "versions: 2 versions are the control (ver-a, ver-b); an experiment has one: make the others Treatment",
        ),
        (
            [version("ver-a", 70), version("ver-b", 60)],
            "versions: the traffic percentiles sum to 130 (ver-a 70 + ver-b 60); at most 100",
        ),
        ([version("ver-a", 100), version("ver-b", 0.01)], "versions: the traffic percentiles sum to 100.01"),
        ([version("ver-a", -1)], "versions[0].traffic_percentile = -1: must be between 0 and 100"),
        ([version("ver-a", 100.5)], "versions[0].traffic_percentile = 100.5: must be between 0 and 100"),
        ([version("ver-a", 10.125)], "versions[0].traffic_percentile = 10.125: has more than two decimals"),
        ([version("ver-a", "10")], 'versions[0].traffic_percentile = "10": is text, not a number; give a number'),
        ([version("ver-a", float("nan"))], "versions[0].traffic_percentile = NaN: must be a finite number"),
        ([version("ver-a"), version("B")], 'versions[1].version_name = "B": a name has 3 to 32 characters'),
        ([version("v" * 33)], f'versions[0].version_name = "{"v" * 33}": a name has'),
        ([version(None)], "versions[0].version_name: is required"),
        ([version(type="control")], 'versions[0].type = "control": is not a type of version; use Control or Treatment'),
        (
            [version(type="Treatment", is_control_version_type=True)],
            'versions[0].type = "Treatment": contradicts is_control_version_type true; give one of them',
        ),
        (
            [version(type="Control", is_control_version_type=False)],
            'versions[0].type = "Control": contradicts is_control_version_type false',
        ),
        (["ver-a"], "versions[0]: an object of type str is not a version; write an object"),
        ([version(), version("ver-b", cpu_cores=0)], "versions[1].cpu_cores = 0: must be above 0"),
        ([version(), version("ver-b", num_replica=1)], "versions[1].num_replica: is not known here; did"),
        ([version(auth_enabled=False)], "versions[0].auth_enabled: is not known here"),
        ([version(blobfuse_enabled=True)], "versions[0].blobfuse_enabled: is not known here"),
        ([version(inference_config=None)], "versions[0].inference_config: is required"),
        ([version(inference_config={"entry_script": "no.py"})], 'versions[0].inference_config.entry_script = "no.py"'),
        ([version(gpu_cores=1)], "versions[0].gpu_cores = 1: is not supported on the local target yet"),
        ([version(models=["x"])], 'versions[0].models[0] = "x": is not a model id'),
    ],
)  # fmt: skip
def test_a_broken_rule(versions: list[Any], expected: str) -> None:
    made, errors = plan(*versions)
    assert made is None
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"endpoint_name": "X"}, 'endpoint_name = "X": a name has'),
        ({"auth_enabled": True, "token_auth_enabled": True}, "token_auth_enabled = true: cannot be combined"),
        ({"secondary_key": "other-key"}, "secondary_key: is given without primary_key"),
        ({"versions": {"a": 1}}, 'versions = {"a": 1}: must be a list'),
        ({"versions": None}, "versions: is required; add `versions`"),
        ({"target": None}, "target: is required"),
        ({"namespace": "N"}, 'namespace = "N"'),
        ({"num_replicas": 1}, "num_replicas: is not known here"),
    ],
)
def test_a_broken_rule_of_the_endpoint(more: dict[str, Any], expected: str) -> None:
    made, errors = plan(version(), **more)
    assert made is None
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)


def test_all_at_once() -> None:
    _, errors = plan(
        version("ver-a", 70, is_default=True, cpu_cores=-1),
        version("ver-a", 60, is_default=True, type="Control"),
        version("C", 1.234, type="Control"),
        endpoint_name="no",
    )
    assert len(errors) == 8


@pytest.mark.parametrize(
    ("flags", "default", "types"),
    [
        ([{}, {}], 0, [None, None]),
        ([{}, {"is_default": True}], 1, [None, None]),
        ([{"is_default": False}, {}], 0, [None, None]),
        ([{"type": "Control"}, {}], 0, ["Control", "Treatment"]),
        ([{}, {"is_control_version_type": True}], 0, ["Treatment", "Control"]),
        ([{"is_control_version_type": False}, {}], 0, [None, None]),
        ([{"type": "Treatment"}, {}], 0, ["Treatment", None]),
        ([{"type": "Control", "is_control_version_type": True}, {"type": "Treatment"}], 0, ["Control", "Treatment"]),
    ],
)
def test_default_and_type(flags: list[dict[str, Any]], default: int, types: list[str | None]) -> None:
    made, errors = plan(*(version(f"ver-{n}", **flag) for n, flag in enumerate(flags)))
    assert errors == []
    assert made is not None
    versions = made.endpoint.spec.versions
    assert [v.is_default for v in versions].index(True) == default
    assert sum(v.is_default for v in versions) == 1
    assert [v.type and v.type.value for v in versions] == types


def test_settings_belong_to_their_version() -> None:
    made, errors = plan(
        version("ver-a", 50, num_replicas=2, models=["m:1"], tags={"a": "1"}, description="first"),
        version("ver-b", 50, autoscale_enabled=True, autoscale_max_replicas=3, cpu_cores=0.3, properties={"p": "2"}),
        description="both",
        primary_key="first-key",
    )
    assert errors == []
    assert made is not None
    wire = made.wire()
    first, second = wire["spec"]["versions"]
    assert wire["spec"]["description"] == "both"
    assert (first["description"], first["tags"], first["models"]) == (
        "first",
        {"a": "1"},
        [{"name": "m", "version": 1}],
    )
    assert second["scaling"]["autoscaleMaxReplicas"] == 3
    assert (second["properties"], second["models"], second["resources"]["cpuCores"]) == ({"p": "2"}, [], 0.3)
    assert "primaryKey" not in str(wire)


SHARES = st.lists(st.decimals(min_value=0, max_value=60, places=2), min_size=1, max_size=6)


@given(SHARES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_sum_above_100_is_refused_and_else_everything_is_assigned(shares: list[Decimal]) -> None:
    reads = [
        read(VersionSpec, {"version_name": f"ver-{n}", "traffic_percentile": float(share)})
        for n, share in enumerate(shares)
    ]
    refused = [f for f in version_rules(len(reads), reads) if "sum to" in f.rule]
    assert bool(refused) is (sum(shares) > 100)


def test_queues_that_together_are_longer_than_a_router_holds() -> None:
    def warnings(*queues: int) -> list[str]:
        versions = [
            version(f"ver-{letter}", max_queued_requests=most) for letter, most in zip("abc", queues, strict=False)
        ]
        _, findings = plan_rollout("endpoint", {"target": TARGET, "versions": versions})
        return [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.WARNING and "waiting" in f.rule]

    assert warnings(5_000, 5_000) == []
    (said,) = warnings(5_000, 5_000, 1)
    assert said == (
        "versions: the versions may have 10,001 waiting requests; one router holds 10,000 of all together: "
        "lower some max_queued_requests: beyond it 429"
    )
