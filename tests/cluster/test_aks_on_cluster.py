"""One stack that makes an AKS cluster, with the runtime and a service on it: Azure's stand-in, a real API server.

Nodes are kwok's, and the endpoint's status is written by the test: what runs in pods is tested on a real node.
"""

import base64
import itertools
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.azure import DATA, AzureBed
from testbed.certificates import make_certificate
from testbed.project import Project, settings_of
from testbed.reporter import Balancer, Reporter
from testbed.vault import DEFINITION, VaultDriver

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
REMOTE = """
import json, os, pathlib
import pulumi

told = json.loads(pathlib.Path("told.json").read_text())

class Remote(pulumi.ComponentResource):
    def __init__(self, kind, name, inputs, *outputs):
        super().__init__(f"aks-inference:index:{kind}", name, inputs | dict.fromkeys(outputs), None, True)

cluster = Remote("AksInferenceCluster", "prod", {"location": "westeurope", "vmSize": told["cluster"]["vm_size"],
                 "network": {"plugin": "azure", "pluginMode": "overlay", "podCidr": "10.244.0.0/16"},
                 "runtime": {"image": "runtime:1", "namespace": told["runtime"]}}, "target")
service = Remote("ModelWebService", "churn", {"target": cluster.target, "image": "scoring:1",
                 "namespace": told["namespace"], "autoscaleEnabled": False, "numReplicas": 2,
                 "inferenceConfig": {"entryScript": "score.py", "sourceDirectory": os.path.abspath("code")}},
                 "scoringUri")
pulumi.export("uri", service.scoringUri)
"""
"""The same as programs in other languages have it: the plugin makes the components."""
NETWORK = {"plugin": "azure", "plugin_mode": "overlay", "pod_cidr": "10.244.0.0/16"}


@pytest.fixture
def aks(kept_nodes, cluster, defined_again, control_plane, namespace, tmp_path):
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


def statuses(cluster: Any, path: str, over: threading.Event) -> list[Any]:
    """What the deployment's status said, each once in a row, as long as it goes on."""
    found = []
    while not over.is_set():
        found.append(cluster.api.get(path).body["status"])
    return [status for status, _ in itertools.groupby(found)]


@pytest.mark.long
def test_a_new_cluster_and_its_service_in_another_language(cluster, aks, namespace):
    bed, project = aks
    (project.folder / "__main__.py").write_text(REMOTE)
    project.told["cluster"] |= {"vm_size": "Standard_D4s_v5"}
    project.up()
    assert project.outputs()["uri"] == "http://203.0.113.7/api/v1/service/churn/score"
    assert cluster.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/churn-default").status == 200
    shown = project.must("preview", "--json", "--stack", "dev")
    assert set(json.loads(shown[shown.index("{") :])["changeSummary"]) == {"same"}
    project.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/churn-default").status == 404
    assert not json.loads((bed.folder / "state.json").read_text())["resources"]


@pytest.mark.long
def test_a_certificate_in_a_key_vault(cluster, aks, namespace, until):
    bed, project = aks
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{DEFINITION['metadata']['name']}"
    assert cluster.api.apply(crd, DEFINITION).status in (200, 201)
    runtime, keys = (
        project.told["runtime"],
        "/subscriptions/s/resourceGroups/k/providers/Microsoft.KeyVault/vaults/keys",
    )
    resources = f"/apis/secrets-store.csi.x-k8s.io/v1/namespaces/{runtime}/secretproviderclasses"
    until(lambda: cluster.api.get(resources).status == 200)
    secret = f"/api/v1/namespaces/{runtime}/secrets/{k8s.VAULT_TLS_NAME}"
    served = lambda: base64.b64decode(cluster.api.get(secret).body.get("data", {}).get("tls.crt", ""))  # noqa: E731
    project.told["cluster"] |= {"vm_size": "Standard_D4s_v5"}
    project.up()
    addon = "azureKeyvaultSecretsProvider"

    # TLS from the vault is an update: the add-on, its identity's role, what the driver is asked for.
    project.told["cluster"] |= {
        "ssl_cname": "scoring.example.com",
        "ssl_key_vault_secret_id": "https://keys.vault.azure.net/certificates/scoring",
        "ssl_key_vault_id": keys,
    }
    shown = project.must("preview", "--stack", "dev")
    assert "the Key Vault add-on's identity gets Key Vault Secrets User" in shown
    assert "replace" not in shown
    vault = {("keys", "scoring"): make_certificate("scoring.example.com")}
    stable = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{bed.cluster_id().lower()}/{addon}"))
    driver = VaultDriver(cluster.api, runtime, stable[::-1], vault)
    driver.start()
    try:
        project.up()
        until(lambda: served() == vault["keys", "scoring"][0])
        state = json.loads((bed.folder / "state.json").read_text())["resources"]
        ((scope, role),) = [
            (key.partition("/providers/microsoft.authorization/")[0], one["body"]["properties"])
            for key, one in state.items()
            if one["type"].endswith("roleAssignments") and key.startswith(keys.lower())
        ]
        assert scope == f"{keys}/secrets/scoring".lower()
        assert role["principalId"] == stable
        assert role["roleDefinitionId"].endswith("4633458b-17de-408a-b874-0445c86b69e6")
        assert settings_of(cluster.api, runtime).tls_secrets[0] == k8s.VAULT_TLS_NAME
        again = project.up()
        assert " updated" not in again
        assert " created" not in again

        # Renewed in the vault: nothing is applied, and nothing of it is in the state.
        vault["keys", "scoring"] = make_certificate("scoring.example.com")
        until(lambda: served() == vault["keys", "scoring"][0])
        assert not driver.refused
        line = vault["keys", "scoring"][1].decode().splitlines()[1]
        assert line not in project.must("stack", "export", "--stack", "dev", "--show-secrets")

        # Without TLS again: the Secret goes with its pod.
        for name in ("ssl_cname", "ssl_key_vault_secret_id", "ssl_key_vault_id"):
            del project.told["cluster"][name]
        project.up()
        until(lambda: cluster.api.get(secret).status == 404)
        assert cluster.api.get(resources).body["items"] == []
        project.must("destroy", "--yes", "--stack", "dev")
        assert not json.loads((bed.folder / "state.json").read_text())["resources"]
    finally:
        driver.over.set()
        driver.join()
        cluster.api.delete(crd)


def test_cluster_runtime_and_service_in_one_stack(cluster, aks, namespace):
    bed, project = aks
    project.told["cluster"] |= {"vm_size": "Standard_D4s_v5"}
    project.must("up", "--yes", "--skip-preview", "--stack", "dev")
    assert project.outputs()["uri"] == "http://203.0.113.7/api/v1/service/churn/score"
    (made,) = cluster.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments").body["items"]
    assert made["metadata"]["name"] == "churn-default"
    assert [line.rpartition("/")[2] for line in bed.log()][-1].startswith("agentPools infer")


@pytest.mark.long
def test_the_life_of_a_cluster_with_entra_id(cluster, aks, namespace, until):
    bed, project = aks
    calls = bed.sign_in()
    project.told["cluster"] |= {"vm_size": "Standard_D4s_v5", "access": {"entra_id": True, "local_accounts": False}}
    shown = project.must("preview", "--stack", "dev")
    assert "services on the nodes" in shown
    project.up()
    # Signed in as Pulumi itself is, by nobody's hand, and nothing of it in the state.
    assert {line.split("--login ")[1] for line in calls.read_text().splitlines()} == {"azurecli"}
    assert "BEGIN" not in project.must("stack", "export", "--stack", "dev")
    again = project.up()
    assert " updated" not in again
    assert " created" not in again

    # Another size: new pool, then its services, then the old pool goes; no replica is missed.
    before = len(bed.log())
    project.told["cluster"]["vm_size"] = "Standard_D8s_v5"
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    # The autoscaler's work.
    cluster.api.merge(f"{deployments}/churn-default/scale", {"spec": {"replicas": 2}})
    until(lambda: cluster.api.get(f"{deployments}/churn-default").body["status"].get("availableReplicas") == 2)
    over = threading.Event()
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(statuses, cluster, f"{deployments}/churn-default", over)
        try:
            shown = project.up()
        finally:
            over.set()
    # One more for a moment where a replica moves before its old one goes.
    seen = watching.result()
    assert min(status.get("availableReplicas", 0) for status in seen) == 2, seen
    assert [line.split()[0] for line in bed.log()[before:]] == ["PUT", "DELETE"]
    place = f"/api/v1/namespaces/{namespace}/pods"
    nodes = {pod["spec"]["nodeName"].split("-")[1] for pod in cluster.api.get(place).body["items"]}
    (old,) = [line.split()[-1] for line in bed.log()[before:] if line.startswith("DELETE")]
    assert old not in nodes
    again = project.up()
    assert " updated" not in again
    assert " created" not in again

    project.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(deployments).body["items"] == []
    assert not json.loads((bed.folder / "state.json").read_text())["resources"]
