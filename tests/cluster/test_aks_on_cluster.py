"""One stack that makes an AKS cluster, with the runtime and a service on it: Azure's stand-in, a real API server.

Nodes are kwok's, and the endpoint's status is written by the test: what runs in pods is tested on a real node.
"""

import json

import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.azure import DATA, AzureBed
from testbed.project import Project
from testbed.reporter import Balancer, Reporter

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no tables of Azure's API; AKS_INFERENCE_DATA names them")

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import AksInferenceCluster, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
cluster = AksInferenceCluster("prod", location="westeurope", runtime={"image": "runtime:1",
                              "namespace": told["runtime"]}, **told["cluster"])
service = ModelWebService("churn", target=cluster, image="scoring:1", namespace=told["namespace"],
                          inference_config={"entry_script": "score.py", "source_directory": "code"},
                          autoscale_enabled=False, num_replicas=2)
pulumi.export("uri", service.scoring_uri)
"""
NETWORK = {"plugin": "azure", "plugin_mode": "overlay", "pod_cidr": "10.244.0.0/16"}


@pytest.fixture
def aks(cluster, control_plane, kept_nodes, namespace, tmp_path):
    """Azure and a project on it."""
    bed = AzureBed(tmp_path, cluster.kubeconfig)
    runtime = f"runtime-{namespace[5:]}"
    standing_in = [Reporter(cluster.api, namespace), Balancer(cluster.api, runtime)]
    for one in standing_in:
        one.start()
    project = Project(tmp_path, PROGRAM, runtime=runtime, namespace=namespace, cluster={"network": NETWORK})
    project.environment |= bed.environment
    yield bed, project
    for one in standing_in:
        one.over.set()
        one.join()
    for kind in ("clusterroles", "clusterrolebindings"):
        for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
            cluster.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{runtime}:{name}")
    cluster.api.delete(f"/api/v1/namespaces/{runtime}")
    for node in cluster.api.get("/api/v1/nodes", labelSelector="kubernetes.azure.com/agentpool").body["items"]:
        cluster.api.delete(f"/api/v1/nodes/{node['metadata']['name']}")


def test_cluster_runtime_and_service_in_one_stack(cluster, aks, namespace):
    bed, project = aks
    calls = bed.sign_in()
    project.told["cluster"] |= {"vm_size": "Standard_D4s_v5", "access": {"entra_id": True, "local_accounts": False}}
    shown = project.must("preview", "--stack", "dev")
    assert "services on the nodes" in shown
    project.up()
    assert project.outputs()["uri"].endswith("/api/v1/service/churn/score")
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    (made,) = cluster.api.get(deployments).body["items"]
    assert made["metadata"]["name"] == "churn-default"
    # Signed in as Pulumi itself is, by nobody's hand, and nothing of it in the state.
    assert {line.split("--login ")[1] for line in calls.read_text().splitlines()} == {"azurecli"}
    state = project.must("stack", "export", "--stack", "dev")
    assert "BEGIN" not in state
    again = project.up()
    assert " updated" not in again
    assert " created" not in again
    project.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(deployments).body["items"] == []
    assert not json.loads((bed.folder / "state.json").read_text())["resources"]
