"""Values that nothing can hold: too long, too deep, with characters that no text may have: findings, no exceptions."""

import shutil
import subprocess
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aks_inference.aks_cluster.spec import plan_cluster
from aks_inference.findings import Casing, Severity, show_path, show_value
from aks_inference.local_cluster.spec import haproxy_findings, plan_local
from aks_inference.registered_model.spec import plan_model
from aks_inference.sendable import unsendable
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.endpoint import (
    LONGEST_MS,
    LONGEST_S,
    MOST,
    MOST_QUEUED,
    EndpointVersion,
    Probe,
    Requests,
)
from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.api.haproxy import check_haproxy
from aks_inference_runtime.router.model import VersionRoute
from aks_inference_runtime.router.routes import BACKSTOP_MS, queue_timeout_ms, route
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.scoring.server import worker_timeout_s

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'
SCRIPT = {"entry_script": "score.py"}
HAPROXYS_LONGEST_MS = 2**31 - 1
SELECTS_LONGEST_S = (2**63 - 1) // 10**9


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"x": value}
    return value


def errors(**declared: Any) -> list[str]:
    _, findings = plan_service("service", {"target": TARGET, "inference_config": SCRIPT, **declared})
    return [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("name", "most", "beyond"),
    [
        ("scoring_timeout_ms", LONGEST_MS, "is more than the router's timers hold; use 1 to 1,036,800,000 (12 days)"),
        ("max_request_wait_time", LONGEST_MS, "is more than the router's timers hold; use 1 to 1,036,800,000"),
        ("cold_start_timeout_ms", LONGEST_MS, "is more than the router's timers hold; use 1 to 1,036,800,000"),
        ("period_seconds", LONGEST_S, "is more than the timers of a replica hold; use 1 to 1,036,800 (12 days)"),
        ("initial_delay_seconds", LONGEST_S, "is more than the timers of a replica hold; use 1 to 1,036,800"),
        ("timeout_seconds", LONGEST_S, "is more than the timers of a replica hold; use 1 to 1,036,800"),
        ("failure_threshold", MOST, "is more than Kubernetes counts"),
        ("max_queued_requests", MOST_QUEUED, "is more than one router holds; use 0 to 10,000"),
        ("num_replicas", MOST, "is more than Kubernetes counts"),
        ("replica_max_concurrent_requests", 1_000, "is as many processes of the scoring server in one replica"),
    ],
)
def test_at_and_beyond_the_longest(name: str, most: int, beyond: str) -> None:
    assert errors(**{name: most}) == []
    (found,) = errors(**{name: most + 1})
    assert found.startswith(f"{name} = {most + 1}: ")
    assert beyond in found
    for value in (10**30, float(2**70)):
        (found,) = errors(**{name: value})
        assert "is more than" in found


def test_a_container_of_ones_own_takes_more_at_once() -> None:
    found = errors(replica_max_concurrent_requests=10_000, custom_image={"image": "host/own:1"})
    assert not [text for text in found if text.startswith("replica_max_concurrent_requests")]


def test_the_router_cuts_what_came_from_elsewhere() -> None:
    endless = Requests(scoring_timeout_ms=10**12, max_request_wait_time=10**12, cold_start_timeout_ms=10**12)
    for to_zero in (False, True):
        version = VersionRoute(name="one", traffic=10_000, requests=endless, replicas=(), scaled_to_zero=to_zero)
        assert queue_timeout_ms(version) == LONGEST_MS
        _, _, backstop, *_ = route(version, Slot(0, 0)).split("|")
        assert int(backstop) <= HAPROXYS_LONGEST_MS


def test_the_longest_that_is_accepted_fits_the_timers() -> None:
    assert 2 * LONGEST_MS + BACKSTOP_MS <= HAPROXYS_LONGEST_MS
    probe = Probe(period_seconds=LONGEST_S, initial_delay_seconds=LONGEST_S, failure_threshold=MOST)
    version = EndpointVersion.model_construct(requests=Requests(), liveness_probe=probe)
    assert LONGEST_S < worker_timeout_s(version) <= SELECTS_LONGEST_S


@pytest.mark.parametrize("argument", ["service_name", "tags", "num_replicas", "inference_config", "target", "port"])
def test_a_value_that_nests_too_deep_is_a_finding(argument: str) -> None:
    assert errors(**{argument: nested(5_000)})


@pytest.mark.parametrize("argument", ["inference_config", "inference_config_file", "deployment_config"])
@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "a" * 5_000, "a" * 1_000_000, "[" * 100])
def test_paths_that_are_none(argument: str, path: str) -> None:
    declared: dict[str, Any] = {argument: path} | ({"inference_config": None} if argument.endswith("file") else {})
    found = errors(**declared)
    assert found
    for text in found:
        assert text.encode()
        assert "\0" not in text
        assert len(text) < 5_000


def test_a_file_that_nests_too_deep(here: Path) -> None:
    (here / "d.json").write_text("[" * 200_000)
    assert errors(deployment_config="d.json") == [
        'deployment_config = "d.json": nests deeper than any configuration; mend the file'
    ]


@pytest.mark.parametrize("path", ["a\0b", "a\ud800b", "a" * 5_000])
def test_conda_files_that_are_none(path: str) -> None:
    for inference in (
        {**SCRIPT, "conda_file": path, "runtime": "python"},
        {**SCRIPT, "environment": {"python": {"conda_dependencies_file": path}}},
    ):
        assert "does not exist" in " ".join(errors(inference_config=inference))


@pytest.mark.parametrize("text", ["name: 2024-13-45", "name: " + "9" * 5_000, "[" * 3_000])
def test_a_conda_file_that_yaml_chokes_on(here: Path, text: str) -> None:
    (here / "c.yml").write_text(text)
    (found,) = errors(inference_config={**SCRIPT, "conda_file": "c.yml", "runtime": "python"})
    assert ": is not YAML: " in found


def test_a_package_that_nests_too_deep() -> None:
    dependencies = {"dependencies": ["python", {"pip": [nested(5_000)]}]}
    (found,) = errors(inference_config={**SCRIPT, "environment": {"python": {"conda_dependencies": dependencies}}})
    assert "must be a text" in found


@pytest.mark.parametrize(
    "given",
    [
        {"pools": [{"name": "cpu", "vm_size": "Standard_D4s_v5", "count": 10**400}]},
        {"pools": [{"name": "cpu", "vm_size": "Standard_D4s_v5", "count": 10**400, "max_surge": "33%"}]},
        {"vm_size": "a\ud800"},
        {"network": {"subnet_id": "a\ud800"}},
    ],
)
def test_clusters_that_cannot_be(given: dict[str, Any]) -> None:
    declared = {"cluster_purpose": "DevTest", **given}
    _, findings = plan_cluster("cluster", declared, date(2026, 11, 21))
    assert [*findings, *unsendable(declared)]


def test_a_key_that_stands_twice_in_a_file(here: Path) -> None:
    (here / "d.json").write_text('{"computeType": "aks", "numReplicas": 1, "autoScaler": {}, "numReplicas": 3}')
    assert errors(deployment_config="d.json") == [
        'deployment_config = "d.json": holds `numReplicas` twice in one object; give it once'
    ]


def test_a_script_without_a_name(here: Path) -> None:
    (here / "source").mkdir()
    for inference in ({"entry_script": ""}, {"entry_script": "", "source_directory": "source"}):
        (found,) = errors(inference_config=inference)
        assert found.startswith('inference_config.entry_script = "": does not exist')


@pytest.mark.parametrize("path", ["m" * 300, "m" * 5_000, "m\0m", "m\ud800"])
def test_models_and_folders_that_cannot_be(path: str) -> None:
    _, findings = plan_model("model", {"target": TARGET, "model_path": path})
    assert [f.path for f in findings] == [("model_path",)]
    assert findings[0].text(Casing.SNAKE).encode()


@pytest.mark.parametrize("inference", [{"entry_script": "e" * 300}, {**SCRIPT, "source_directory": "s" * 5_000}])
def test_code_that_cannot_be(inference: dict[str, str]) -> None:
    assert "does not exist" in errors(inference_config=inference)[0]


def test_a_state_directory_that_cannot_be() -> None:
    _, findings = plan_local({"state_directory": "s" * 5_000})
    (found,) = findings
    assert found.text(Casing.SNAKE).endswith("cannot be looked at: File name too long; give another folder")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("", "is empty; give a folder, or leave it out for the default one"),
        (" ", "is empty; give a folder"),
        ("score.py", "is not a folder; give a folder"),
        ("score.py/x", "cannot be made: {here}/score.py is not a folder; give another folder"),
        ("/dev/null/x", "cannot be made: /dev/null is not a folder; give another folder"),
        ("/proc", "is the kernel's own; give a folder of your own"),
        ("/proc/x/y", "cannot be made: /proc cannot be written; give another folder"),
        (".", "holds other files (score.py); destroying the cluster removes its state directory: give an empty or a"),
        ("nowhere", "is a link that leads nowhere; remove the link, or give another folder"),
        ("~nobody-of-this-name/x", "begins with a user that is not known here; give another folder"),
    ],
)
def test_a_state_directory_that_no_cluster_can_have(here: Path, place: str, said: str) -> None:
    if place == "nowhere":
        (here / place).symlink_to(here / "gone")
    before = sorted(here.rglob("*"))
    _, findings = plan_local({"state_directory": place})
    (found,) = findings
    assert found.text(Casing.SNAKE).startswith(f'state_directory = "{place}": {said.format(here=here)}')
    assert sorted(here.rglob("*")) == before


def test_a_state_directory_that_a_cluster_can_have(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here))
    (here / "empty").mkdir()
    for name, file in (("begun", "supervisor.log"), ("own", "supervisor.json")):
        (here / name).mkdir()
        (here / name / file).write_text("{}")
    (here / "own" / "router").mkdir()
    before = sorted(here.rglob("*"))
    for folder in ("new", "new/deep", "empty", "begun", "own", "~/new", "a\nb"):
        plan, findings = plan_local({"state_directory": folder})
        assert plan is not None, findings
        assert plan.state_directory == str(here / folder.removeprefix("~/"))
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("haproxy", "said"),
    [
        ("", 'haproxy = "": does not exist'),
        ("score.py", 'haproxy = "score.py": is not a program'),
        ("true", "haproxy: {true} is no HAProxy: `-vv` shows no version of it"),
        ("false", "haproxy: {false} does not run: it ended with 1"),
    ],
)
def test_what_is_no_haproxy(haproxy: str, said: str) -> None:
    paths = {name: shutil.which(name) for name in ("true", "false")}
    plan, findings = plan_local({"haproxy": haproxy})
    (found,) = haproxy_findings(plan) if plan else findings
    mend = "give the path of an haproxy binary, 2.8 or newer"
    assert found.text(Casing.SNAKE) == f"{said.format(**paths)}; {mend}"


def test_a_document_that_is_looked_at_runs_nothing(here: Path) -> None:
    program = here / "program"
    program.write_text(f"#!/bin/sh\ntouch {here}/ran\n")
    program.chmod(0o755)
    plan, _ = plan_local({"haproxy": str(program)})
    assert plan is not None
    assert not (here / "ran").exists()
    assert len(haproxy_findings(plan)) == 1
    assert (here / "ran").exists()


def test_a_binary_that_never_says_its_version_is_ended(here: Path) -> None:
    silent = here / "silent"
    silent.write_text(f"#!/bin/sh\necho $$ > {here}/pid\nsleep 600 & echo $! >> {here}/pid\nwait\n")
    silent.chmod(0o755)
    with pytest.raises(InvalidInput, match="did not say its version within 1 s"):
        check_haproxy(str(silent), timeout_s=1)
    for pid in (here / "pid").read_text().split():
        for _ in range(1_000):
            if not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE:
                break
            time.sleep(0.01)
        else:
            pytest.fail(f"{pid} is still there")


@pytest.mark.parametrize("name", ["", "A=B", "A B", "É", "1A", "..", ".", "A\nB"])
def test_what_is_not_the_name_of_a_variable(name: str) -> None:
    (found,) = errors(inference_config={**SCRIPT, "environment": {"environment_variables": {name: "x"}}})
    assert ": is not the name of a variable; use letters, digits and _" in found


@pytest.mark.parametrize("name", ["A", "_a1", "my.var-1", ".A"])
def test_what_is_the_name_of_a_variable(name: str) -> None:
    assert errors(inference_config={**SCRIPT, "environment": {"environment_variables": {name: "x"}}}) == []


def test_a_variable_as_long_as_a_process_can_be_given() -> None:
    most = 128 * 1024 - len("V=") - 1
    subprocess.run(["true"], env={"V": "x" * most}, check=True)
    with pytest.raises(OSError, match="too long"):
        subprocess.run(["true"], env={"V": "x" * (most + 1)}, check=True)

    def told(value: str) -> list[str]:
        return errors(inference_config={**SCRIPT, "environment": {"environment_variables": {"V": value}}})

    assert told("x" * most) == []
    assert told("x" * (most + 1)) == [
        "inference_config.environment.environment_variables.V: has 131,073 bytes with its name; Linux gives a process "
        "at most 131,072 in one variable: put the content into a file beside the script, and its name here"
    ]
    assert len(told("ü" * (most // 2 + 1))) == 1, "bytes, not characters"


def test_texts_that_nobody_takes_are_found_wherever_they_stand() -> None:
    declared = {
        "description": "half \ud800 of one",
        "tags": {"a": "good ü 🎉", "b": "\0"},
        "inference_config": {"environment": {"pip_packages": ["fine", "\udfff"]}},
        "primary_key": "key\0",
    }
    texts = [finding.text(Casing.SNAKE) for finding in unsendable(declared)]
    assert [text.split(":")[0] for text in texts] == [
        "description",
        "tags.b",
        "inference_config.environment.pip_packages[1]",
        "primary_key",
    ]
    assert "lone surrogate" in texts[0]
    assert "NUL" in texts[1]
    assert "key\0" not in texts[3]


def test_what_holds_itself_is_looked_at_once_in_a_while() -> None:
    ring: list[Any] = ["fine"]
    ring.append(ring)
    assert list(unsendable({"models": ring})) == []


@given(st.text() | st.text(st.characters(categories=("Cs",))) | st.recursive(st.text(), st.lists, max_leaves=5))
def test_whatever_is_shown_can_be_sent(value: Any) -> None:
    assert "\0" not in show_value(value)
    show_value(value).encode()
    show_path((str(value),), Casing.SNAKE).encode()
