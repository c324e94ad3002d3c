"""A program with components through the embedded engine and the plugin; the supervisor is the stand-in."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.api.supervisor import SupervisorRecord
from testbed.processes import free_ports

PROGRAM = """
import pulumi
from aks_inference import ControlledRolloutEndpoint, LocalInferenceCluster, ModelWebService, RegisteredModel

config = pulumi.Config()
share = config.get_float("share") or 0
cluster = LocalInferenceCluster("local", port=config.require_int("port"), state_directory=config.require("state"))
model = RegisteredModel("m", target=cluster, model_path="model.bin", tags={"a": config.get("tag") or "1"})
inference = {"entry_script": "score.py", "source_directory": "source"}
service = ModelWebService(
    "svc-one",
    target=cluster,
    models=[model],
    inference_config=inference,
    num_replicas=1,
    primary_key=config.get_secret("key"),
)
versions = [{"version_name": "first", "traffic_percentile": 100 - share}]
if share:
    versions.append({"version_name": "second", "traffic_percentile": share})
common = {"models": [model], "inference_config": inference, "num_replicas": 1}
ControlledRolloutEndpoint("roll", target=cluster, versions=[{**each, **common} for each in versions])
pulumi.export("uri", service.scoring_uri)
pulumi.export("key", service.primary_key)
pulumi.export("model", model.model_id)
"""


@pytest.fixture
def stack(make_stack: Callable[[str], Any], supervisor: Any) -> Any:
    made = make_stack(PROGRAM)
    # The usual one may be that of a real cluster just now.
    supervisor.port = free_ports(1)[0]
    kept = supervisor.directory / "supervisor.json"
    record = SupervisorRecord.model_validate_json(kept.read_text())
    kept.write_text(record.model_copy(update={"settings": supervisor.settings()}).model_dump_json(by_alias=True))
    made.configure(state=str(supervisor.directory), port=str(supervisor.port))
    return made


@pytest.fixture
def ended(stack: Any, supervisor: Any) -> Iterator[None]:
    """After what went wrong it can be destroyed."""
    yield
    stack.run("destroy", "--yes", "--skip-preview")
    assert supervisor.down in (None, {"remove": True})


def changed(preview: dict[str, Any]) -> dict[str, Any]:
    """Name → operation and property paths of what is not the same."""
    return {
        step["urn"].rsplit("::", 1)[-1]: (step["op"], sorted(step.get("detailedDiff") or {}))
        for step in preview["steps"]
        if step["op"] != "same" and "aks-inference:index:Local" in step["urn"].rsplit("$", 1)[-1]
    }


def test_the_life_of_a_stack(stack: Any, supervisor: Any) -> None:
    assert stack.preview()["changeSummary"] == {"create": 9}
    assert not supervisor.endpoints, "a preview touches nothing"
    stack.up()
    assert set(supervisor.endpoints) == {"svc-one", "roll"}
    assert stack.outputs() == {
        "uri": f"http://127.0.0.1:{supervisor.port}/api/v1/service/svc-one/score",
        "key": "generated-1",
        "model": "m:1",
    }

    # I9: the same again changes nothing.
    assert stack.preview()["changeSummary"] == {"same": 9}
    before = {name: generation for name, (_, generation) in supervisor.endpoints.items()}
    stack.up()
    assert {name: generation for name, (_, generation) in supervisor.endpoints.items()} == before

    # A second version at 10 %: exactly that.
    stack.configure(share="10")
    operation, paths = changed(stack.preview())["roll"]
    assert operation == "update"
    assert paths == [
        "effectiveTraffic.first",
        "effectiveTraffic.second",
        "endpoint.spec.versions[0].trafficPercentile",
        "endpoint.spec.versions[1]",
    ]
    stack.up()
    endpoint, _ = supervisor.endpoints["roll"]
    assert [(v.name, v.traffic_percentile) for v in endpoint.spec.versions] == [("first", 90), ("second", 10)]

    # Another file: a new version, which both endpoints follow.
    (stack.project / "model.bin").write_bytes(b"two")
    preview = stack.preview()
    assert set(changed(preview)) == {"roll", "svc-one"}
    assert changed(preview)["svc-one"][1] == ["endpoint.spec.versions[0].models[0].version"]
    stack.up()
    assert supervisor.endpoints["svc-one"][0].spec.versions[0].models[0].version == 2

    stack.run("destroy", "--yes", "--skip-preview")
    assert not supervisor.endpoints
    assert not supervisor.models
    assert supervisor.down == {"remove": True}


def test_keys_stay_secret(stack: Any, supervisor: Any) -> None:
    stack.run("config", "set", "--secret", "key", "very-secret-key")
    said = stack.run("preview", "--diff") + stack.up()
    assert supervisor.keys["svc-one"].primary_key == "very-secret-key"
    state = stack.run("stack", "export")
    for text in (said, state):
        assert "very-secret-key" not in text
        assert "generated-2" not in text
    stack.run("config", "set", "--secret", "key", "rotated-key")
    diff = stack.run("preview", "--diff")
    assert "primaryKey" in diff
    assert "rotated-key" not in diff
    stack.up()
    assert supervisor.keys["svc-one"].primary_key == "rotated-key"
    assert supervisor.keys["svc-one"].secondary_key == "generated-2"


@pytest.mark.usefixtures("ended")
def test_a_failed_deployment_leaves_the_others_and_is_tried_again(stack: Any, supervisor: Any) -> None:
    stack.up()
    supervisor.becomes = ServiceState.FAILED
    supervisor.message = "NameError in init"
    stack.configure(share="10")
    said = stack.up(code=1)
    assert "NameError in init" in said
    assert "Traceback" not in said
    supervisor.becomes = ServiceState.HEALTHY
    assert stack.preview()["changeSummary"] == {"same": 8, "update": 1}
    stack.up()


def test_mistakes_are_refused_together_and_nothing_is_touched(stack: Any, supervisor: Any) -> None:
    stack.program(
        PROGRAM.replace('"traffic_percentile": 100 - share', '"traffic_percentile": 130').replace(
            "num_replicas=1", "num_replica=1"
        )
    )
    said = stack.up(code=1)
    assert "num_replicas" in said
    assert "130" in said
    assert "Traceback" not in said
    assert not supervisor.endpoints
    assert not supervisor.models


def test_drift_is_found_and_put_right(stack: Any, supervisor: Any) -> None:
    stack.up()
    supervisor.delete_endpoint("svc-one")
    stack.run("refresh", "--yes")
    assert changed(stack.preview())["svc-one"][0] == "create"
    stack.up()
    assert "svc-one" in supervisor.endpoints


def interrupt(stack: Any, supervisor: Any, number: signal.Signals) -> tuple[int, str, list[psutil.Process]]:
    """An apply that gets a signal while both endpoints are on their way: its end, what it said, its processes."""
    supervisor.becomes = ServiceState.TRANSITIONING
    with stack.begin("up", "--yes", "--skip-preview") as running:
        try:
            deadline = time.monotonic() + 60
            while set(supervisor.endpoints) != {"roll", "svc-one"}:
                assert time.monotonic() < deadline
                assert running.poll() is None, running.communicate()
                time.sleep(0.05)
            children = psutil.Process(running.pid).children(recursive=True)
            running.send_signal(number)
            said, _ = running.communicate(timeout=30)
        finally:
            running.kill()
    supervisor.becomes = ServiceState.HEALTHY
    return running.returncode, said, children


@pytest.mark.usefixtures("ended")
def test_an_interrupted_apply_goes_on_with_the_next_one(stack: Any, supervisor: Any) -> None:
    code, said, _ = interrupt(stack, supervisor, signal.SIGINT)
    assert code != 0
    assert "Traceback" not in said
    state = json.loads(stack.run("stack", "export"))["deployment"]
    waited = [each for each in state["resources"] if each["type"] == "aks-inference:index:LocalEndpoint"]
    assert len(waited) == 2, "both are in the state: they are there"
    assert not state.get("pending_operations")
    stack.up()
    assert set(stack.preview()["changeSummary"]) == {"same"}


@pytest.mark.usefixtures("ended")
def test_a_killed_apply_goes_on_with_the_next_one(stack: Any, supervisor: Any) -> None:
    _, _, children = interrupt(stack, supervisor, signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert gone
    assert not alive, "the plugin ends with its engine"
    before = {name: generation for name, (_, generation) in supervisor.endpoints.items()}
    stack.up()
    assert {name: generation for name, (_, generation) in supervisor.endpoints.items()} == before, "created once"
    assert set(stack.preview()["changeSummary"]) == {"same"}


@pytest.fixture
def busy(supervisor: Any) -> Callable[[], None]:
    def hold() -> None:
        supervisor.becomes = ServiceState.TRANSITIONING

    return hold


@pytest.mark.long
def test_a_deployment_waits_as_long_as_the_program_says(stack: Any, supervisor: Any, busy: Callable[[], None]) -> None:
    stack.program(
        PROGRAM.replace(
            "from aks_inference import",
            "from aks_inference.resources import LocalEndpoint\nfrom aks_inference import",
        )
        + "endpoint = {'metadata': {'name': 'direct'}, 'spec': {'versions': [{'name': 'v', 'isDefault': True,"
        " 'code': {'entryScript': 's.py', 'digest': 'sha256:0'}}]}}\n"
        "LocalEndpoint('direct', {'target': cluster.target, 'endpoint': endpoint},"
        " pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create='1s')))\n"
    )
    stack.up()
    assert "direct" in supervisor.endpoints
    supervisor.delete_endpoint("direct")
    stack.run("refresh", "--yes")
    busy()
    assert "Transitioning after 1 s" in stack.up(code=1)
