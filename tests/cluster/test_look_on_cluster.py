"""What `aks-inference` tells of a cluster, read from a real API server."""

import asyncio
from typing import Any

from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.cli.cluster import ClusterSource, connection
from aks_inference_runtime.kubernetes.client import connected

PATH = f"/apis/{API_VERSION}/namespaces/{{}}/scoringendpoints"


async def test_an_endpoint_as_the_api_server_has_it(cluster: Any, namespace: str) -> None:
    version = {
        "name": "blue",
        "isDefault": True,
        "trafficPercentile": 100,
        "code": {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"},
    }
    token = {"issuer": "https://issuer.example", "audiences": ["a"]}
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "churn"}}
    spec = {"versions": [version], "auth": "token", "token": token}
    made = await asyncio.to_thread(cluster.api.create, PATH.format(namespace), {**body, "spec": spec})
    assert made.status == 201, made.message
    where = connection(cluster.kubeconfig, None)
    async with connected(where) as api:
        source = ClusterSource(api, where, namespace)
        (view,) = await source.endpoints()
        assert (view.endpoint.spec.auth, view.status.state, view.status.versions) == ("token", "Transitioning", ())
        told = {"name": "blue", "state": "Healthy", "traffic": 100, "replicasDesired": 1, "replicasReady": 1, "busy": 1}
        status = {"state": "Healthy", "scoringUri": "http://r/score", "replicas": "1/1", "versions": [told]}
        condition = {"type": "Ready", "status": "True", "reason": "Served", "observedGeneration": 1}
        condition["lastTransitionTime"] = "2026-01-01T00:00:00Z"
        status["conditions"] = [condition]
        path = f"{PATH.format(namespace)}/churn/status"
        answer = await asyncio.to_thread(cluster.api.apply, path, {**body, "status": status})
        assert answer.status == 200, answer.message
        done = await source.wait("churn", 30, lambda _: None)
        assert (done.generation, done.observed_generation, done.scoring_uri) == (1, 1, "http://r/score")
        assert [(v.name, v.busy, v.replicas) for v in done.versions] == [("blue", 1, ())]
