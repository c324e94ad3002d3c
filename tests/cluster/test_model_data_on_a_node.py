"""Model data of services in pods of a real node: the script's rows in Blob Storage, also those of a pod that ends."""

import asyncio
import base64
import csv
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from bench.servers import of_tests

from aks_inference_runtime.api import kubernetes as k8s
from testbed.node import address
from testbed.project import Project

pytestmark = pytest.mark.long

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image=told["image"], kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest")
shared = {"target": runtime, "image": told["image"], "scoring_timeout_ms": 5000,
          "inference_config": {"entry_script": "score.py", "source_directory": "code"}}
services = {
    "unkept": ModelWebService("unkept", num_replicas=1, **shared),
    "kept": ModelWebService(
        "kept", num_replicas=2, collect_model_data=True, model_data_store=told["store"], model_data_workspace="s/g/w",
        model_secret_name="store-access", **shared),
}
for name, service in services.items():
    pulumi.export(name, {"key": service.primary_key, "state": service.state})
"""
SCRIPT = """
import json
from azureml.monitoring import ModelDataCollector
def init():
    global inputs, predictions
    inputs = ModelDataCollector("best", designation="inputs", feature_names=["number"])
    predictions = ModelDataCollector("best", designation="predictions", feature_names=["square"])
def run(data):
    number = json.loads(data)["number"]
    found = inputs.collect([number])
    predictions.collect(predictions.add_correlations([number * number], found))
    return {"collected": found is not None}
"""
SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Where pods reach it."""
    of_models = of_tests("models")
    with of_models.running_azurite(tmp_path_factory.mktemp("azurite"), address()) as running:
        yield running


@pytest.fixture(scope="module")
def served(node: Any, azurite: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, str]]:
    """The applied stack, and the router's address."""
    text = base64.b64encode(azurite.connection_string.encode()).decode()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "store-access"}}
    assert node.api.create(SECRETS, {**secret, "data": {"connection-string": text}}).status == 201
    project = Project(
        tmp_path_factory.mktemp("model-data"),
        PROGRAM,
        kubeconfig=str(node.kubeconfig),
        image=node.with_packages("azure-storage-blob"),
        store=f"az://{azurite.account}/modeldata/team",
    )
    (project.folder / "code" / "score.py").write_text(SCRIPT)
    project.up()
    service = node.api.get(f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}").body
    yield project, service["spec"]["clusterIP"]
    project.must("destroy", "--yes", "--stack", "dev")
    node.api.delete(f"{SECRETS}/store-access")
    assert node.api.get("/api/v1/pods").body["items"] == [], "nothing is left"


async def score(served: tuple[Project, str], name: str, numbers: range) -> list[bool]:
    project, host = served
    key = project.outputs()[name]["key"]
    collected = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session:
        for number in numbers:
            uri = f"http://{host}/api/v1/service/{name}/score"
            async with session.post(uri, json={"number": number}) as answer:
                assert answer.status == 200, await answer.text()
                collected.append((await answer.json(content_type=None))["collected"])
    return collected


def stored(azurite: Any, designation: str) -> list[dict[str, str]]:
    container = azurite.container("modeldata")
    begin = f"team/s/g/w/kept/best/default/{designation}/"
    names = list(container.list_blob_names(name_starts_with=begin))
    assert all(name.endswith("/data.csv") for name in names)
    texts = [container.download_blob(name).readall().decode() for name in names]
    return [row for text in texts for row in csv.DictReader(text.splitlines())]


async def eventually(azurite: Any, designation: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(await asyncio.to_thread(stored, azurite, designation)) < count:
        assert time.monotonic() < deadline, "rows are stored"
        await asyncio.sleep(0.5)


async def test_rows_of_all_replicas_reach_blob_storage(served: tuple[Project, str], azurite: Any) -> None:
    assert await score(served, "kept", range(40)) == [True] * 40
    await eventually(azurite, "predictions", 40)
    await eventually(azurite, "inputs", 40)
    inputs, predictions = stored(azurite, "inputs"), stored(azurite, "predictions")
    assert sorted(int(row["number"]) for row in inputs) == list(range(40))
    numbers = {row["$aml_dc_correlation_id"]: int(row["number"]) for row in inputs}
    assert {row["$aml_dc_correlation_id"]: int(row["square"]) ** 0.5 for row in predictions} == numbers


async def test_the_same_script_scores_where_nothing_is_collected(served: tuple[Project, str]) -> None:
    assert await score(served, "unkept", range(3)) == [False] * 3


async def test_what_a_pod_has_not_stored_when_it_ends_is_stored_then(
    served: tuple[Project, str], azurite: Any, node: Any
) -> None:
    chosen = {"labelSelector": f"{k8s.ENDPOINT_LABEL}=kept"}
    sent = 40
    for _ in range(5):
        assert await score(served, "kept", range(sent, sent + 20)) == [True] * 20
        sent += 20
        # Unless an ordinary round came just now; the next one is five seconds away then.
        if len(await asyncio.to_thread(stored, azurite, "inputs")) < sent:
            break
    else:
        pytest.fail("all rows are stored as soon as they are collected")
    removed = node.api.delete(PODS, **chosen)
    assert (removed.status, len(removed.body["items"])) == (200, 2)
    await eventually(azurite, "inputs", sent)
    assert sorted(int(row["number"]) for row in stored(azurite, "inputs")) == list(range(sent))
