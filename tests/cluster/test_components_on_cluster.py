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
    "environment_variables": {"PLAIN": "seen", "TOKEN": pulumi.Output.secret("hidden-token-value")}}}
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
    yield Project(tmp_path, PROGRAM, kubeconfig=str(cluster.kubeconfig), runtime=runtime, namespace=namespace)
    reporter.over.set()
    reporter.join()
    for kind in ("clusterroles", "clusterrolebindings"):
        for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
            cluster.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{runtime}:{name}")
    cluster.api.delete(f"/api/v1/namespaces/{runtime}")


def versions_of(api: Any, *paths: str) -> dict[str, str]:
    """Resource versions of everything that nobody else writes."""
    found = {}
    for path in paths:
        for item in api.get(path).body["items"]:
            found[f"{path}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
    return found


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
    keys = [outputs["primary"], outputs["secondary"]]
    secret = api.get(f"/api/v1/namespaces/{runtime}/secrets/{k8s.keys_secret_name('churn')}").body
    digests = base64.b64decode(secret["data"][k8s.KEYS_FIELD]).decode().split()
    assert sorted(digests) == sorted(hashlib.sha256(key.encode()).hexdigest() for key in keys)
    everything = json.dumps([objects, secret])
    assert not any(key in everything for key in keys), "keys never reach the cluster"
    assert outputs["uri"] == "http://router/api/v1/service/churn/score"
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
