"""A program through the embedded engine and the plugin on the real runtime of this machine: replicas, router, keys."""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from aks_inference_runtime.local.keeper import end_keepers
from testbed.processes import free_ports

PROGRAM = """
import pulumi
from aks_inference import LocalInferenceCluster, ModelWebService, RegisteredModel

config = pulumi.Config()
cluster = LocalInferenceCluster(
    "local", port=config.require_int("port"), state_directory=config.require("state"),
    metrics_port=config.get_int("metrics") or None, state_webhook=config.get("hook") or None)
model = RegisteredModel("m", target=cluster, model_path="model.bin")
common = {"target": cluster, "models": [model], "num_replicas": 1}
service = ModelWebService("good", inference_config={"entry_script": "score.py", "source_directory": "source"}, **common)
if config.get_bool("broken"):
    inference = {"entry_script": "broken.py", "source_directory": "source"}
    ModelWebService("bad", inference_config=inference, **common)
pulumi.export("uri", service.scoring_uri)
pulumi.export("key", service.primary_key)
"""
SCRIPT = """
import os
from pathlib import Path


def init():
    global weights
    weights = (Path(os.environ["AZUREML_MODEL_DIR"]) / "model.bin").read_text()


def run(data):
    return {"weights": weights}
"""
BROKEN = "def init():\n    raise RuntimeError('no such tokenizer')\n\n\ndef run(data):\n    return data\n"


def score(outputs: dict[str, Any], key: str | None = None) -> tuple[int, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own http
        outputs["uri"], b"{}", {"Authorization": f"Bearer {key or outputs['key']}", "Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own http
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["x-aks-inference-reason"]


def of(directory: Path) -> list[psutil.Process]:
    """The processes that have to do with a state directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(directory) in argument for argument in process.info["cmdline"] or ()):
            found.append(process)
    return found


@pytest.fixture
def stack(make_stack: Callable[[str], Any], tmp_path: Path) -> Iterator[Any]:
    made = make_stack(PROGRAM)
    state = tmp_path / "runtime"
    (made.project / "source" / "score.py").write_text(SCRIPT)
    (made.project / "source" / "broken.py").write_text(BROKEN)
    made.state, made.port = state, free_ports(1)[0]
    made.configure(state=str(state), port=str(made.port))
    yield made
    made.run("destroy", "--yes", "--skip-preview")
    assert not state.exists(), "no file is left"
    deadline = time.monotonic() + 10
    while of(state) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not of(state), "no process is left"
    with socket.socket() as listener:
        # Closed connections of the test's own may linger; a listener would still be in the way.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", made.port))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_service_from_declaration_to_answer(stack: Any) -> None:
    stack.up()
    outputs = stack.outputs()
    assert outputs["uri"] == f"http://127.0.0.1:{stack.port}/api/v1/service/good/score", "what the preview had said"
    assert score(outputs) == (200, {"weights": "one"})
    assert score(outputs, "wrong") == (401, "auth")
    assert set(stack.preview()["changeSummary"]) == {"same"}

    # Another file: another version, served when the update has ended.
    (stack.project / "model.bin").write_text("two")
    stack.up()
    assert score(outputs) == (200, {"weights": "two"})

    # A supervisor that was killed with its keeper: seen by the preview, started again by the next up, nothing is lost.
    end_keepers(stack.state)
    os.kill(json.loads((stack.state / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    end_keepers(stack.state)
    assert score(outputs) == (200, {"weights": "two"}), "what it had started goes on"
    operations = {step["urn"].rsplit(":", 1)[-1]: step["op"] for step in stack.preview()["steps"]}
    assert operations["local"] == "update"
    stack.up()
    assert stack.outputs() == outputs, "the keys are the same"
    assert score(outputs) == (200, {"weights": "two"})

    # A script that throws in init: Failed with its log, and the other service is untouched.
    stack.configure(broken="true")
    said = stack.up(code=1)
    assert "no such tokenizer" in said
    assert score(outputs) == (200, {"weights": "two"})
    stack.configure(broken="false")
    stack.up()
    assert set(stack.preview()["changeSummary"]) == {"same"}


@pytest.mark.long
def test_generated_keys_survive_another_port_of_the_cluster(stack: Any) -> None:
    stack.up()
    before = stack.outputs()
    stack.port = free_ports(1)[0]
    stack.configure(port=str(stack.port))
    operations = {step["op"] for step in stack.preview()["steps"]}
    assert any("replace" in operation for operation in operations)
    stack.up()
    after = stack.outputs()
    assert f":{stack.port}/" in after["uri"]
    assert after["key"] == before["key"]
    assert score(after) == (200, {"weights": "one"})


@pytest.mark.long
def test_a_port_in_use_is_named(stack: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", stack.port))
        listener.listen()
        said = stack.up(code=1)
    assert str(stack.port) in said
    assert "Traceback" not in said
    assert "LocalEndpoint" not in stack.run("stack", "export")


def metrics(port: int) -> str | None:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.URLError:
        return None


@pytest.mark.long
def test_who_is_told_what_goes_on_is_changed_in_place(stack: Any) -> None:
    stack.up()
    outputs, port = stack.outputs(), free_ports(1)[0]
    served = {process.pid for process in of(stack.state)}
    stack.configure(metrics=str(port), hook="http://127.0.0.1:9/s3cret")
    preview = stack.preview()
    changed = {(step["urn"].rsplit(":", 1)[-1], step["op"]) for step in preview["steps"] if step["op"] != "same"}
    assert changed == {("local", "update")}
    assert "s3cret" not in json.dumps([step for step in preview["steps"] if "LocalRuntime" in step["urn"]])
    said = stack.up()
    assert "s3cret" not in said
    assert score(outputs) == (200, {"weights": "one"})
    assert 'aks_inference_answers_total{endpoint="good"' in (metrics(port) or "")
    assert served <= {process.pid for process in of(stack.state)}, "nothing was restarted"
    assert set(stack.preview()["changeSummary"]) == {"same"}
    # A port that somebody has is refused by the preview.
    with socket.create_server(("127.0.0.1", 0)) as held:
        stack.configure(metrics=str(held.getsockname()[1]))
        said = stack.up(code=1)
    assert "metricsPort" in said
    assert "is in use by process" in said
    stack.configure(metrics="0", hook="")
    stack.up()
    assert metrics(port) is None
    assert not (stack.state / "webhook").exists()
