"""The addresses of services follow their runtime's: at the preview, and without a change of the endpoint."""

from collections.abc import Iterator
from typing import Any

import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.project import Project
from testbed.reporter import Reporter

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime("runtime", image="runtime:1", kubeconfig=told["kubeconfig"], namespace=told["runtime"],
                           service_type="ClusterIP", **told["more"])
service = ModelWebService("churn", target=runtime, image="scoring:1", namespace=told["namespace"],
                          inference_config={"entry_script": "score.py", "source_directory": "code"})
pulumi.export("uri", service.scoring_uri)
"""


@pytest.fixture
def project(
    cluster: Any, fake_nodes: list[str], defined_again: None, namespace: str, tmp_path: Any
) -> Iterator[Project]:
    runtime = f"runtime-{namespace[5:]}"
    reporter = Reporter(cluster.api, namespace)
    reporter.start()
    told = {"runtime": runtime, "namespace": namespace, "more": {}}
    project = Project(tmp_path, PROGRAM, kubeconfig=str(cluster.kubeconfig), **told)
    yield project
    project.must("destroy", "--yes", "--stack", "dev")
    reporter.over.set()
    reporter.join()


@pytest.mark.long
def test_addresses_follow_the_runtime(project: Project) -> None:
    path = "/api/v1/service/churn/score"
    project.up()
    inside = f"http://{k8s.ROUTER_NAME}.{project.told['runtime']}.svc{path}"
    assert project.outputs()["uri"] == inside
    project.told["more"] = {"url": "https://models.example"}
    shown = project.must("preview", "--diff", "--stack", "dev")
    assert f'"{inside}" => "https://models.example{path}"' in shown
    project.up()
    assert project.outputs()["uri"] == f"https://models.example{path}"
    assert " updated" not in project.up()
