"""Services without an entry script through the embedded engine and the plugin: what is refused, one that answers."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.processes import free_ports

PROGRAM = """
import pulumi
from aks_inference import LocalInferenceCluster, ModelWebService, RegisteredModel

config = pulumi.Config()
cluster = LocalInferenceCluster("local", port=config.require_int("port"), state_directory=config.require("state"))
model = RegisteredModel(
    "line",
    target=cluster,
    model_path="model.joblib",
    model_framework=config.get("framework"),
    model_framework_version=config.get("version"),
    resource_configuration={"cpu": 0.25, "memory_in_gb": 0.75},
)
more = [RegisteredModel("more", target=cluster, model_path="model.joblib", model_framework="Onnx")]
models = [model, *more[: config.get_int("more") or 0]]
service = ModelWebService("line", target=cluster, models=models, num_replicas=1)
pulumi.export("uri", service.scoring_uri)
pulumi.export("key", service.primary_key)
"""


@pytest.fixture
def stack(make_stack: Callable[[str], Any], tmp_path: Path) -> Any:
    made = make_stack(PROGRAM)
    (port,) = free_ports(1)
    (made.project / "model.joblib").write_bytes(b"not looked at by a preview")
    made.configure(state=str(tmp_path / "runtime"), port=str(port))
    return made


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "'line' names no framework"),
        ({"framework": "PyTorch"}, "'line' is of PyTorch"),
        ({"framework": "Onnx", "more": "1"}, "it has 2 models"),
    ],
)
def test_what_needs_an_entry_script(stack: Any, settings: dict[str, str], said: str) -> None:
    stack.configure(**settings)
    text = stack.run("preview", code=1)
    assert said in text
    assert "ScikitLearn, Onnx, TensorFlow or Multi" in text


def test_a_version_that_no_package_has(stack: Any) -> None:
    """Its text would be part of what pip is asked for."""
    stack.configure(framework="ScikitLearn", version="1.9; more")
    text = stack.run("preview", code=1)
    assert "has the version that 'line' names, and '1.9; more' is none: give its model_framework_version" in text


@pytest.fixture
def running(stack: Any) -> Iterator[Any]:
    yield stack
    stack.run("destroy", "--yes", "--skip-preview")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_model_alone_is_served(running: Any) -> None:
    joblib = pytest.importorskip("joblib")
    linear_model = pytest.importorskip("sklearn.linear_model")
    sklearn = pytest.importorskip("sklearn")
    joblib.dump(linear_model.LinearRegression().fit([[0.0], [1.0]], [1.0, 3.0]), running.project / "model.joblib")
    running.configure(framework="ScikitLearn", version=sklearn.__version__)
    running.up()
    outputs = running.outputs()
    headers = {"Authorization": f"Bearer {outputs['key']}", "Content-Type": "application/json"}
    request = urllib.request.Request(outputs["uri"], b'{"data": [[4.0]]}', headers)  # noqa: S310 - our own http
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own http
        assert json.load(answer) == pytest.approx([9.0])
    assert set(running.preview()["changeSummary"]) == {"same"}
