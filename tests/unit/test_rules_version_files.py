"""deploymentconfig.json of the versions of an endpoint: what is a version's own, and what it says of the endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest

from aks_inference.component import input_error
from aks_inference.findings import Casing
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.endpoint import EndpointPlan
from aks_inference_runtime.api.endpoint import AuthMode

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)


def write(name: str, content: object) -> str:
    Path(name).write_text(json.dumps(content))
    return name


def test_a_version_of_a_rollout_takes_its_own_file() -> None:
    content = {"computeType": "aksendpoint", "versionName": "ver-a", "trafficPercentile": 25, "numReplicas": 1}
    version = {"inference_config": {"entry_script": "src/score.py"}, "deployment_config": write("d.json", content)}
    made, findings = plan_rollout("endpoint", {"target": TARGET, "versions": [version]})
    assert findings == []
    assert made is not None
    assert made.endpoint.spec.versions[0].name == "ver-a"
    write("d.json", content | {"trafficPercentile": 101})
    _, findings = plan_rollout("endpoint", {"target": TARGET, "versions": [version]})
    assert [f.text(Casing.SNAKE) for f in findings] == [
        "d.json: trafficPercentile = 101: must be between 0 and 100; use 0 to 100 with up to two decimals"
    ]


def rollout(*contents: dict[str, Any], **more: Any) -> tuple[EndpointPlan | None, list[str]]:
    """An endpoint with a file for each version."""
    versions = []
    for letter, content in zip("abc", contents, strict=False):
        kind = {"computeType": "aksendpoint", "versionName": f"ver-{letter}", "numReplicas": 1}
        path = write(f"{letter}.json", kind | content)
        versions.append({"inference_config": {"entry_script": "src/score.py"}, "deployment_config": path})
    made, findings = plan_rollout("endpoint", {"target": TARGET, "versions": versions, **more})
    return made, [f.text(Casing.SNAKE) for f in findings]


def test_what_versions_share_may_stand_in_their_files() -> None:
    keys = {"keys": {"primaryKey": "first-key", "secondaryKey": "other-key"}, "namespace": "prod"}
    made, found = rollout(keys | {"authEnabled": True, "tokenAuthEnabled": False}, {"namespace": "prod"}, {})
    assert found == []
    assert made is not None
    assert (made.primary_key, made.secondary_key) == ("first-key", "other-key")
    assert made.endpoint.metadata.namespace == "prod"
    made, found = rollout({"authEnabled": False})
    assert made is not None
    assert made.endpoint.spec.auth is AuthMode.NONE


@pytest.mark.parametrize(
    ("contents", "more", "expected"),
    [
        ([{"namespace": "A"}], {}, ['a.json: namespace = "A": a name has']),
        ([{"authEnabled": "yes"}], {}, ['a.json: authEnabled = "yes": must be true or false']),
        (
            [{"authEnabled": True}],
            {"auth_enabled": False},
            ["auth_enabled: is also given in the deployment_config of versions[0]; give it once"],
        ),
        (
            [{"authEnabled": True}, {}, {"authEnabled": False}],
            {},
            ["c.json: authEnabled: is another value than that of versions[0]: an endpoint has one for all its"],
        ),
        (
            [{"keys": {"primaryKey": "hush-hush"}}, {"keys": {"primaryKey": "hush-too"}}],
            {},
            ["b.json: keys.primaryKey: is another value than that of versions[0]"],
        ),
        (
            [{"authEnabled": True, "tokenAuthEnabled": True}],
            {},
            ["a.json: tokenAuthEnabled = true: cannot be combined"],
        ),
    ],
)
def test_what_versions_share_is_said_once(
    contents: list[dict[str, Any]], more: dict[str, Any], expected: list[str]
) -> None:
    made, found = rollout(*contents, **more)
    assert made is None
    assert len(found) == len(expected), found
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))
    assert "hush" not in "".join(found)


def test_a_target_that_a_versions_file_names_must_be_the_one() -> None:
    content = {"computeType": "aks", "numReplicas": 1, "computeTargetName": "aks-1"}
    version = {"version_name": "ver-a", "inference_config": {"entry_script": "src/score.py"}}
    version |= {"deployment_config": write("d.json", content)}
    made, findings = plan_rollout("endpoint", {"target": TARGET, "versions": [version]})
    assert made is None
    assert [f.text(Casing.SNAKE).split(";")[0] for f in findings] == [
        'd.json: computeTargetName = "aks-1": names another cluster than target (local)'
    ]


def test_in_an_object_the_version_is_named() -> None:
    config = {"entry_script": "src/score.py"}
    versions: list[dict[str, Any]] = [
        {
            "version_name": f"ver-{letter}",
            "inference_config": config,
            "deployment_config": {"computeType": "aks", **more},
        }
        for letter, more in (
            ("a", {"authEnabled": True}),
            ("b", {"numReplica": 1, "gpuCores": 1, "authEnabled": False, "namespace": "N"}),
        )
    ]
    _, findings = plan_rollout("endpoint", {"target": TARGET, "versions": versions})
    said = sorted(f.text(Casing.CAMEL).partition(";")[0] for f in findings)
    assert said == [
        "versions[1].deploymentConfig: `numReplica` is not a key of computeType aks",
        "versions[1].deploymentConfig: authEnabled: is another value than that of versions[0]: an endpoint has one for "
        "all its versions",
        "versions[1].deploymentConfig: gpuCores = 1: is not supported on the local target yet",
        'versions[1].deploymentConfig: namespace = "N": a name has 1 to 63 characters: lower-case letters, digits '
        "and dashes, first and last not a dash",
    ]
    told = {
        one["reason"]: one["property_path"] for one in input_error("ControlledRolloutEndpoint", "e", findings).errors
    }
    assert set(told.values()) == {"versions[1].deploymentConfig"}
    assert any(reason.startswith("`numReplica` is not a key") for reason in told)
    assert any(reason.startswith('namespace: "N": a name has') for reason in told)
    write("d.json", {"computeType": "aks", "namespace": "N"})
    versions[0]["deployment_config"] = "d.json"
    _, findings = plan_rollout("endpoint", {"target": TARGET, "versions": versions[:1]})
    (one,) = input_error("ControlledRolloutEndpoint", "e", findings).errors
    assert one["property_path"] == "versions[0].deploymentConfig"
    assert one["reason"].startswith('d.json: namespace: "N": a name has')
