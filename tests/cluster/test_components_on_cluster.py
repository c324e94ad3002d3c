"""The components on a real control plane: InferenceRuntime, a service, a rollout; applied twice, changed, destroyed.

Nodes are kept by kwok, and the endpoints' status is written by the test: what runs in the pods is not under test here.
"""

import base64
import hashlib
import json
import threading
import time
from typing import Any

import pytest

from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.endpoint import API_VERSION
from testbed.project import Project
from testbed.reporter import Reporter

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import ControlledRolloutEndpoint, InferenceRuntime, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image="runtime:1", kubeconfig=told["kubeconfig"], namespace=told["runtime"], service_type="ClusterIP"
)
config = {"entry_script": "score.py", "source_directory": "code", "environment": {
    "environment_variables": {"PLAIN": "seen", "TOKEN": pulumi.Output.secret(told["token"])}}}
service = ModelWebService("churn", target=runtime, image="scoring:1", namespace=told["namespace"],
                          inference_config=config, **told["service"])
rollout = ControlledRolloutEndpoint("fraud", target=runtime.target, namespace=told["namespace"], versions=[
    {"version_name": "blue", "image": "scoring:1", "inference_config": config, "traffic_percentile": 90,
     "max_surge": "25%"},
    {"version_name": "green", "image": "scoring:2", "inference_config": config, "traffic_percentile": 10}])
pulumi.export("uri", service.scoring_uri)
pulumi.export("state", service.state)
pulumi.export("primary", service.primary_key)
pulumi.export("secondary", service.secondary_key)
"""


@pytest.fixture
def project(cluster, fake_nodes, namespace, tmp_path):
    runtime = f"runtime-{namespace[5:]}"
    reporter = Reporter(cluster.api, namespace)
    reporter.start()
    told = {"runtime": runtime, "namespace": namespace, "token": "hidden-token-value"}
    yield Project(tmp_path, PROGRAM, kubeconfig=str(cluster.kubeconfig), **told)
    reporter.over.set()
    reporter.join()
    for kind in ("clusterroles", "clusterrolebindings"):
        for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
            cluster.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{runtime}:{name}")
    cluster.api.delete(f"/apis/scheduling.k8s.io/v1/priorityclasses/{runtime}-runtime")
    cluster.api.delete(f"/api/v1/namespaces/{runtime}")


def versions_of(api: Any, *paths: str) -> dict[str, str]:
    """Resource versions of everything that nobody else writes."""
    found = {}
    for path in paths:
        for item in api.get(path).body["items"]:
            found[f"{path}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


def secret_of(deployment: dict[str, Any]) -> str:
    """The Secret with the variables of its pods."""
    (scoring,) = deployment["spec"]["template"]["spec"]["containers"]
    (found,) = scoring["envFrom"]
    return found["secretRef"]["name"]


@pytest.mark.long
def test_secret_variables_and_a_namespace_change(cluster, project, namespace):
    """Another value is another Secret and another endpoint; another namespace takes the endpoint along."""
    api = cluster.api
    project.up()

    def now(space=namespace):
        deployment = api.get(f"/apis/apps/v1/namespaces/{space}/deployments/churn-default").body
        name = secret_of(deployment)
        secret = api.get(f"/api/v1/namespaces/{space}/secrets/{name}").body
        endpoint = api.get(f"/apis/{API_VERSION}/namespaces/{space}/scoringendpoints/churn").body
        return name, secret, endpoint

    name, secret, endpoint = now()
    assert secret["immutable"] is True
    assert base64.b64decode(secret["data"]["TOKEN"]).decode() == "hidden-token-value"
    said = json.dumps([endpoint, api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments").body])
    for text in ("hidden-token-value", json.dumps({"TOKEN": "hidden-token-value"})):
        assert hashlib.sha256(text.encode()).hexdigest()[:10] not in said, "nobody tries values until one fits"
    assert " updated" not in project.up()

    # The pods are others: the endpoint waits for them
    project.told["token"] = "another-token-value"
    project.up()
    changed, secret, after = now()
    assert changed != name
    assert base64.b64decode(secret["data"]["TOKEN"]).decode() == "another-token-value"
    assert after["metadata"]["generation"] == endpoint["metadata"]["generation"] + 1
    assert api.get(f"/api/v1/namespaces/{namespace}/secrets/{name}").status == 404
    # And back, as after a change that failed
    project.told["token"] = "hidden-token-value"
    project.up()
    assert now()[0] == name
    assert now()[1]["data"]

    # The older of two endpoints of one name is served: it goes before the other comes
    other = f"{namespace}-other"
    assert api.create("/api/v1/namespaces", {"metadata": {"name": other}}).status == 201
    reporter = Reporter(api, other)
    reporter.start()
    try:
        project.told["namespace"] = other
        shown = project.must("preview", "--stack", "dev")
        assert "replace" in shown
        project.up()
        left, moved = (f"/apis/{API_VERSION}/namespaces/{space}/scoringendpoints" for space in (namespace, other))
        assert api.get(left).body["items"] == []
        assert {item["metadata"]["name"] for item in api.get(moved).body["items"]} == {"churn", "fraud"}
        assert now(other)[0] == name
        project.must("destroy", "--yes", "--stack", "dev")
    finally:
        reporter.over.set()
        reporter.join()
        api.delete(f"/api/v1/namespaces/{other}")


@pytest.mark.long
def test_the_whole_life(cluster, project, namespace, until):
    api, runtime = cluster.api, project.told["runtime"]
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    maps = f"/api/v1/namespaces/{namespace}/configmaps"
    endpoints = f"/apis/{API_VERSION}/namespaces/{namespace}/scoringendpoints"
    shown = project.must("preview", "--stack", "dev")
    assert "inference runtime runtime, purpose FastProd" in shown
    assert api.get(f"/api/v1/namespaces/{runtime}").status == 404
    begun = time.monotonic()
    project.up()
    assert time.monotonic() - begun < 120

    # What runs
    router = api.get(f"/apis/apps/v1/namespaces/{runtime}/deployments/{k8s.ROUTER_NAME}").body
    assert router["status"]["readyReplicas"] == 1, "as many as nobody said: the autoscaler does not run here"
    made = {d["metadata"]["name"]: d for d in api.get(deployments).body["items"]}
    assert set(made) == {"churn-default", "fraud-blue", "fraud-green"}
    assert made["fraud-blue"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}
    pod = made["churn-default"]["spec"]["template"]["spec"]
    budgets = api.get(f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets").body["items"]
    assert {b["metadata"]["name"] for b in budgets} == set(made), "a drain takes one after the other"
    budget = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/churn-default"
    # Also of the only one
    until(lambda: api.get(budget).body["status"].get("disruptionsAllowed") == 1)
    (gate,), (scoring,) = pod["initContainers"], pod["containers"]
    assert gate["restartPolicy"] == "Always", "a sidecar: there before and after the scoring server"
    assert "readinessProbe" in gate
    assert "readinessProbe" not in scoring
    assert scoring["livenessProbe"]["initialDelaySeconds"] == 310
    assert scoring["livenessProbe"]["httpGet"]["path"] == k8s.REPLICA_LIVENESS_PATH
    assert pod["terminationGracePeriodSeconds"] > 60
    (used, *_) = pod["volumes"]
    paths = {item["path"] for item in used["configMap"]["items"]}
    assert paths == {"score.py", "inner/data file.json"}

    # Routers hear of replicas by their slices
    slices = api.get(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices").body["items"]
    assert {s["metadata"]["labels"][k8s.VERSION_LABEL] for s in slices} == {"default", "blue", "green"}

    # Secrets stay where they belong
    objects = json.dumps([api.get(deployments).body, api.get(endpoints).body])
    for text in ("hidden-token-value", base64.b64encode(b"hidden-token-value").decode()):
        assert text not in objects
    outputs = project.outputs()
    assert api.get(f"/apis/scheduling.k8s.io/v1/priorityclasses/{runtime}-runtime").body["value"] > 0
    keys = [outputs["primary"], outputs["secondary"]]
    secret = api.get(f"/api/v1/namespaces/{runtime}/secrets/{k8s.keys_secret_name('churn')}").body
    digests = base64.b64decode(secret["data"][k8s.KEYS_FIELD]).decode().split()
    assert sorted(digests) == sorted(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    everything = json.dumps([objects, secret])
    assert not any(key in everything for key in keys), "keys never reach the cluster"
    assert outputs["uri"] == f"http://{k8s.ROUTER_NAME}.{runtime}.svc/api/v1/service/churn/score"
    assert outputs["state"] == "Healthy"

    # The same again changes nothing (I9); the autoscaler's number stays (I4)
    api.merge(f"{deployments}/churn-default/scale", {"spec": {"replicas": 5}}, fieldManager="autoscaler")
    quiet = (maps, endpoints, f"/api/v1/namespaces/{runtime}/secrets", f"/api/v1/namespaces/{namespace}/services")
    before = versions_of(api, *quiet)
    again = project.up()
    assert " updated" not in again
    assert " created" not in again
    assert versions_of(api, *quiet) == before

    # From autoscaling to a fixed number and back: never fewer than there were
    lowest = [5]
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            lowest.append(api.get(f"{deployments}/churn-default").body["spec"]["replicas"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = next(
        m["metadata"]["name"] for m in api.get(maps).body["items"] if m["metadata"]["name"].startswith("churn-")
    )
    project.told["service"] = {"num_replicas": 5, "key_version": 2}
    (project.folder / "code" / "score.py").write_text("def init(): pass\ndef run(data): return [data]\n")
    project.up()
    project.told["service"] = {"key_version": 2}
    project.up()
    watching.set()
    watcher.join()
    assert min(lowest) == 5

    # Keys change over: the old primary key is good as the secondary one
    rotated = project.outputs()
    assert rotated["secondary"] == outputs["primary"]
    assert rotated["primary"] not in keys
    # The code's old copy is gone, the new one in use
    assert api.get(f"{maps}/{code}").status == 404
    (used, *_) = api.get(f"{deployments}/churn-default").body["spec"]["template"]["spec"]["volumes"]
    assert api.get(f"{maps}/{used['configMap']['name']}").status == 200

    project.must("destroy", "--yes", "--stack", "dev")
    assert api.get(deployments).body["items"] == []
    assert api.get(f"/api/v1/namespaces/{runtime}").status == 404
    until(lambda: api.get(f"/api/v1/namespaces/{namespace}/pods").body["items"] == [])
