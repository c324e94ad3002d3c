"""An AKS cluster that others use is attached, serves, and is left: what came goes, nothing else changes.

Azure's stand-in with a real API server behind it; nodes are kwok's, and the test writes the endpoint's status.
"""

import base64
import copy
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from aks_inference_provider.resources.aks_attached import HOLDER_TAG
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.crd import CRD_NAME
from testbed.azure import DATA, TODAY, AzureBed
from testbed.certificates import make_certificate
from testbed.project import Project
from testbed.reporter import Balancer, Reporter

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not DATA.is_dir(), reason="no tables of Azure's API; AKS_INFERENCE_DATA names them"),
]

ID = (
    "/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg"
    "/providers/Microsoft.ContainerService/managedClusters/shared"
)
BODY = {
    "location": "northeurope",
    "tags": {"team": "a"},
    "identity": {"type": "SystemAssigned"},
    "sku": {"name": "Base", "tier": "Standard"},
    "properties": {
        "dnsPrefix": "shared",
        "kubernetesVersion": "1.35",
        "networkProfile": {"networkPlugin": "azure", "networkPluginMode": "overlay", "loadBalancerSku": "standard"},
        "agentPoolProfiles": [
            {
                "name": "system",
                "mode": "System",
                "count": 3,
                "vmSize": "Standard_D4s_v5",
                "enableAutoScaling": True,
                "minCount": 3,
                "maxCount": 7,
            }
        ],
    },
}
PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import AksInferenceCluster, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
cluster = AksInferenceCluster("prod", resource_id=told["id"],
                              runtime={"image": "runtime:1", "namespace": told["runtime"]}, **told["tls"])
service = ModelWebService("churn", target=cluster, image="scoring:1", namespace=told["namespace"],
                          inference_config={"entry_script": "score.py", "source_directory": "code"},
                          autoscale_enabled=False, num_replicas=2)
pulumi.export("uri", service.scoring_uri)
"""
CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}"
SETTLED_S = 120
UNCOUNTED = frozenset({"events", "componentstatuses"})
RENEWED = frozenset({"leases"})
"""Written all the time by whoever holds them."""
Objects = dict[tuple[str, str, str], Any]


def collections(api: Any) -> Iterator[str]:
    """Paths of everything that can be listed, in each group's preferred version."""
    groups = [group["preferredVersion"]["groupVersion"] for group in api.get("/apis").body["groups"]]
    for root in ("/api/v1", *(f"/apis/{one}" for one in groups)):
        for resource in api.get(root).body.get("resources", ()):
            if "list" in resource["verbs"] and "/" not in resource["name"] and resource["name"] not in UNCOUNTED:
                yield f"{root}/{resource['name']}"


def everything(api: Any) -> Objects:
    """Every object of the cluster, without what is written by itself."""
    found = {}
    for path in collections(api):
        # The list of a definition that goes this moment is no list.
        for item in api.get(path).body.get("items") or ():
            metadata = item["metadata"]
            found[path, metadata.get("namespace", ""), metadata["name"]] = _kept(path.rpartition("/")[2], item)
    return found


def _kept(kind: str, item: dict[str, Any]) -> Any:
    metadata = item["metadata"]
    if kind in RENEWED:
        return metadata["uid"]
    names = ["uid", "labels", "ownerReferences", "finalizers", "deletionTimestamp"]
    if kind != "nodes":
        names += ["annotations", "generation"]
    bare = {key: value for key, value in item.items() if key not in ("metadata", "status")}
    return copy.deepcopy({**bare, "metadata": {name: metadata.get(name) for name in names}})


def settled(api: Any) -> Objects:
    """Once nothing changes any more, and nothing that another test left is on its way out."""
    deadline, before = time.monotonic() + SETTLED_S, everything(api)
    while (now := everything(api)) != before or going(now):
        assert time.monotonic() < deadline, sorted(unlike(before, now) | going(now))
        before = now
    return now


def going(found: Objects) -> set[tuple[str, str, str]]:
    """What is deleted and still there."""
    return {key for key, one in found.items() if isinstance(one, dict) and one["metadata"]["deletionTimestamp"]}


def unlike(one: Objects, other: Objects) -> set[tuple[str, str, str]]:
    """Of both, what the other does not have, or has otherwise."""
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def as_it_was(api: Any, before: Objects) -> None:
    """Waits for it."""
    deadline = time.monotonic() + SETTLED_S
    while left := unlike(before, everything(api)):
        assert time.monotonic() < deadline, sorted(left)
        time.sleep(0.2)


def others(api: Any, namespace: str) -> None:
    """What other people have on the cluster: beside the service, in a namespace of their own, and cluster-wide."""
    theirs = f"{namespace}-theirs"
    labels = {"app": "theirs", "app.kubernetes.io/part-of": "aks-inference"}
    pod = {"containers": [{"name": "a", "image": "theirs:1"}]}
    deployment = {
        "metadata": {"name": "churn", "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "theirs"}},
            "template": {"metadata": {"labels": {"app": "theirs"}}, "spec": pod},
        },
    }
    assert api.create("/api/v1/namespaces", {"metadata": {"name": theirs, "labels": labels}}).status == 201
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": theirs}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": theirs}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    definition = {
        "metadata": {"name": f"widgets.{theirs}.example.com"},
        "spec": {
            "group": f"{theirs}.example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    made = [
        (f"{rbac}/clusterroles", {"metadata": {"name": theirs, "labels": labels}, "rules": rules}),
        (f"{rbac}/clusterrolebindings", {"metadata": {"name": theirs}, "subjects": [subject], "roleRef": role}),
        ("/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": {"name": theirs}, "value": 5}),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition),
    ]
    for place in (namespace, theirs):
        root = f"namespaces/{place}"
        service = {"metadata": {"name": "churn"}, "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}}
        # The names are near those of the service's own objects.
        made += [
            (f"/apis/apps/v1/{root}/deployments", deployment),
            (f"/api/v1/{root}/services", service),
            (f"/api/v1/{root}/configmaps", {"metadata": {"name": "churn-default"}, "data": {"a": "b"}}),
            (f"/api/v1/{root}/secrets", {"metadata": {"name": "churn-keys"}, "stringData": {"a": "b"}}),
            (f"/api/v1/{root}/persistentvolumeclaims", {"metadata": {"name": "data"}, "spec": claim}),
            (
                f"/apis/networking.k8s.io/v1/{root}/networkpolicies",
                {"metadata": {"name": "theirs"}, "spec": {"podSelector": {}, "policyTypes": ["Egress"]}},
            ),
            (f"{rbac}/{root}/roles", {"metadata": {"name": "aks-inference-router"}, "rules": rules}),
        ]
    for path, body in made:
        answer = api.create(path, body)
        assert answer.status == 201, (path, answer.message)


@pytest.fixture
def shared(kept_nodes, cluster, defined_again, control_plane, namespace, tmp_path):
    """A cluster in Azure that somebody made and uses, and a project that will attach it."""
    from standin_arm import Azure
    from standin_bodies import Tables
    from standin_http import ArmServer

    api, theirs = cluster.api, f"{namespace}-theirs"
    api.delete(CRD)
    bed = AzureBed(tmp_path, cluster.kubeconfig)
    azure, tables = Azure(bed.folder, DATA, date.fromisoformat(TODAY)), Tables(DATA / "arm")
    group = tables.kind("azure-native:resources:ResourceGroup")
    azure.put(group, ID.split("/providers/", maxsplit=1)[0], {"location": "northeurope"})
    azure.put(tables.kind("azure-native:containerservice:ManagedCluster"), ID, BODY)
    runtime = f"runtime-{namespace[5:]}"
    standing_in = [Reporter(api, namespace), Balancer(api, runtime)]
    project = Project(tmp_path, PROGRAM, runtime=runtime, namespace=namespace, id=ID, tls={})
    with ArmServer(azure) as server:
        project.environment |= bed.environment | server.environment
        for one in standing_in:
            one.start()
        yield azure, project
        for one in standing_in:
            one.over.set()
            one.join()
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    for path in (
        f"/api/v1/namespaces/{theirs}",
        f"/api/v1/namespaces/{runtime}",
        f"{rbac}/clusterroles/{theirs}",
        f"{rbac}/clusterrolebindings/{theirs}",
        f"/apis/scheduling.k8s.io/v1/priorityclasses/{theirs}",
        f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{theirs}.example.com",
    ):
        api.delete(path)
    for node in api.get("/api/v1/nodes", labelSelector="kubernetes.azure.com/agentpool").body["items"]:
        api.delete(f"/api/v1/nodes/{node['metadata']['name']}")


def test_what_came_goes_and_nothing_else(cluster, shared, namespace, until):
    azure, project = shared
    api = cluster.api
    until(lambda: api.get(CRD).status == 404)
    others(api, namespace)
    pods = f"/api/v1/namespaces/{namespace}-theirs/pods"
    until(lambda: [pod["status"]["phase"] for pod in api.get(pods).body["items"]] == ["Running"] * 2)
    before, body = settled(api), azure.get(ID)

    project.up()
    assert azure.get(ID)["tags"] == {"team": "a", HOLDER_TAG: "t/dev/prod"}
    attached = settled(api)
    assert ("/apis/apps/v1/deployments", namespace, "churn-default") in attached
    root = f"namespaces/{project.told['runtime']}"
    told = [api.get(path).body["items"] for path in (f"/api/v1/{root}/configmaps", f"/apis/apps/v1/{root}/deployments")]
    assert '"autoscaledPools": {"system": 7}' in str(told), "its autoscaler will bring nodes"
    # Serving beside them changes nothing of theirs.
    assert not unlike(before, {key: one for key, one in attached.items() if key in before})
    came = attached.keys() - before.keys()
    assert len(came) > 20, sorted(came)

    # A namespace goes with all that is in it, after the command has ended.
    project.must("destroy", "--yes", "--stack", "dev")
    as_it_was(api, before)
    assert azure.get(ID)["tags"] == {"team": "a"}
    assert {**azure.get(ID), "tags": {}} == {**body, "tags": {}}

    # Whoever comes next finds it free. Other settings of TLS are an update: what serves stays.
    project.up()
    assert project.outputs()["uri"]
    routers = f"/apis/apps/v1/namespaces/{project.told['runtime']}/deployments/{k8s.ROUTER_NAME}"
    router = api.get(routers).body["metadata"]["uid"]
    for host in ("scoring.example.com", "other.example.com"):
        for name, content in zip(("chain.pem", "key.pem"), make_certificate(host), strict=True):
            (project.folder / name).write_bytes(content)
        project.told["tls"] = {"ssl_cname": host, "ssl_cert_pem_file": "chain.pem", "ssl_key_pem_file": "key.pem"}
        shown = project.up()
        assert "replace" not in shown
        assert "deleted" not in shown
        assert api.get(routers).body["metadata"]["uid"] == router
        assert azure.get(ID)["tags"] == {"team": "a", HOLDER_TAG: "t/dev/prod"}
    secret = api.get(f"/api/v1/namespaces/{project.told['runtime']}/secrets/{k8s.TLS_NAME}").body["data"]
    assert base64.b64decode(secret["tls.crt"]) == (project.folder / "chain.pem").read_bytes()
    project.must("destroy", "--yes", "--stack", "dev")
    as_it_was(api, before)
