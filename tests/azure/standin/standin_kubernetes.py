"""The Kubernetes side of a cluster: its kubeconfig, and the nodes of its pools on the test bed's API server.

The setting `kubeconfig` of the stand-in names the test bed's; without it there is nothing behind a cluster. Nodes are
kwok's. A pool that is deleted takes its nodes, and what runs on them, at once: Azure does not drain them.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SERVER_ID = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""Of AKS's Entra application, the same for all clusters."""
HOLDS = {"cpu": "16", "memory": "64Gi", "pods": "110"}
CLUSTER = "Microsoft.ContainerService/managedClusters"


def kubeconfig(cluster: Mapping[str, Any], behind: Path | None, form: str) -> str:
    """What listClusterUserCredential gives. With Entra ID nothing in it is a password."""
    properties = cluster["properties"]
    if behind is None:
        server: dict[str, Any] = {"server": f"https://{properties['fqdn']}"}
        user: dict[str, Any] = {"token": "of-nobody"}
    else:
        config = json.loads(behind.read_text())
        server, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    if properties.get("aadProfile"):
        user = _entra(properties["aadProfile"], form)
    name = cluster["name"]
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"clusterUser_{name}"}}],
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": f"clusterUser_{name}", "user": user}],
    }
    return base64.b64encode(json.dumps(whole).encode()).decode()


def _entra(profile: Mapping[str, Any], form: str) -> dict[str, Any]:
    tenant = profile.get("tenantID", "tenant")
    if form != "exec":
        return {"auth-provider": {"name": "azure", "config": {"apiserver-id": SERVER_ID, "tenant-id": tenant}}}
    words = ["get-token", "--environment", "AzurePublicCloud", "--server-id", SERVER_ID, "--tenant-id", tenant]
    command = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": "kubelogin", "env": None}
    return {"exec": {**command, "args": [*words, "--login", "devicecode"], "provideClusterInfo": False}}


def keep_nodes(behind: Path, resources: Mapping[str, Any]) -> None:
    """Makes the API server's nodes those of all pools."""
    from testbed.api import Api

    api = Api(behind)
    wanted = {name: node for pool in _pools(resources) for name, node in _nodes(*pool)}
    there = {node["metadata"]["name"]: node for node in api.get("/api/v1/nodes").body["items"]}
    for name, node in wanted.items():
        if name not in there:
            answer = api.create("/api/v1/nodes", node)
            assert answer.status == 201, answer.message
    for name, node in there.items():
        if name in wanted or "kubernetes.azure.com/agentpool" not in (node["metadata"].get("labels") or {}):
            continue
        api.delete(f"/api/v1/nodes/{name}")
        for pod in api.get("/api/v1/pods", fieldSelector=f"spec.nodeName={name}").body["items"]:
            where = pod["metadata"]
            api.delete(f"/api/v1/namespaces/{where['namespace']}/pods/{where['name']}", gracePeriodSeconds="0")


def _pools(resources: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    found = []
    for key, one in resources.items():
        properties = one["body"].get("properties") or {}
        if one["type"] == CLUSTER:
            name = key.rsplit("/", 1)[-1]
            found += [(name, str(pool["name"]), pool) for pool in properties["agentPoolProfiles"]]
        elif one["type"] == f"{CLUSTER}/agentPools":
            found.append((key.split("/")[8], key.rsplit("/", 1)[-1], properties))
    return found


def _nodes(cluster: str, pool: str, body: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    labels = {
        "agentpool": pool,
        "kubernetes.azure.com/agentpool": pool,
        "kubernetes.io/os": str(body.get("osType", "Linux")).lower(),
        "kubernetes.azure.com/mode": str(body.get("mode", "User")).lower(),
        "topology.kubernetes.io/zone": "1",
        **(body.get("nodeLabels") or {}),
    }
    taints = [_taint(text) for text in body.get("nodeTaints") or ()]
    names = [f"aks-{pool}-{cluster}-vmss{index:06}" for index in range(int(body.get("count") or 0))]
    return [
        (
            name,
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": name,
                    "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
                    "labels": {"kubernetes.io/hostname": name, **labels},
                },
                "spec": {"taints": taints},
                "status": {"allocatable": HOLDS, "capacity": HOLDS},
            },
        )
        for name in names
    ]


def _taint(text: str) -> dict[str, str]:
    pair, _, effect = text.partition(":")
    key, _, value = pair.partition("=")
    return {"key": key, "value": value, "effect": effect}
