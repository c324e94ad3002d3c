"""Pods that a namespace does not allow: what the API server and its controllers really say of them."""

from typing import Any

import pytest

from aks_inference_runtime.api.kubernetes import ENDPOINT_LABEL, VERSION_LABEL
from aks_inference_runtime.kubernetes.workloads import workload


def test_a_cache_on_the_host_where_that_is_forbidden(cluster: Any, namespace: str, until: Any) -> None:
    if not cluster.has_controllers:
        pytest.skip("no controllers here: Deployments do not become pods")
    enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    body = {"apiVersion": "v1", "kind": "Namespace", **enforced}
    assert cluster.api.apply(f"/api/v1/namespaces/{namespace}", body).status == 200
    labels = {ENDPOINT_LABEL: "churn", VERSION_LABEL: "default"}
    pod = {
        "containers": [{"name": "scoring", "image": "i:1"}],
        "volumes": [{"name": "model-cache", "hostPath": {"path": "/var/cache/x"}}],
    }
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    made = cluster.api.create(path, {"metadata": {"name": "churn-default", "labels": labels}, "spec": spec})
    assert made.status == 201, made.message

    def refused() -> bool:
        found = workload(cluster.api.get(f"{path}/churn-default").body)
        return found is not None and bool(found.refused)

    until(refused, 60)
    found = workload(cluster.api.get(f"{path}/churn-default").body)
    assert found is not None
    assert found.forbidden
    assert "hostPath" in found.refused
    assert found.refused.endswith('give the runtime model_cache "": each pod then fetches its own models')
