"""Cores of routers on a real node: changed by the kubelet in place, no container is started again."""

import uuid
from typing import Any

import pytest

from aks_inference_runtime.api.kubernetes import ROUTER_NAME, RuntimeSettings
from testbed.node import NAME
from testbed.router_scaling import QUICK, SLOW, Told, deployment, holds, scaling

pytestmark = pytest.mark.long


async def test_cores_change_while_the_container_runs(node: Any) -> None:
    namespace, told = f"resize-{uuid.uuid4().hex[:8]}", Told(NAME)
    pods = f"/api/v1/namespaces/{namespace}/pods"
    assert node.api.create("/api/v1/namespaces", {"metadata": {"name": namespace}}).status == 201

    def running() -> dict[str, Any]:
        found = node.api.get(pods).body["items"]
        return dict((found[0]["status"].get("containerStatuses") or [{}])[0]) if found else {}

    def granted() -> str:
        """As the kubelet says that it is in force."""
        return str(((running().get("resources") or {}).get("requests") or {}).get("cpu"))

    container = {
        "name": "router",
        "image": node.image,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", "import signal; signal.pause()"],
        "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    }
    pod = {"containers": [container], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    try:
        made = node.api.create(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment(1, pod))
        assert made.status == 201, made.message
        await holds("it runs", lambda: running().get("ready") is True, 90)
        before = running()
        settings = RuntimeSettings(
            namespace=namespace,
            router_min_cores=0.1,
            router_max_cores=0.4,
            router_scale_up_delay_s=1,
            router_scale_down_delay_s=3,
        )
        async with scaling(node.kubeconfig, settings, told) as scaler:
            told.figures = SLOW
            await holds("all that it may have", lambda: granted() == "400m", 90, lambda: (scaler.decision, running()))
            assert scaler.changes["MoreCores"] == 2
            told.figures = QUICK
            await holds("what it had", lambda: granted() == "100m", 90, lambda: (scaler.decision, running()))
        after = running()
        assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
        found = node.api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{ROUTER_NAME}").body
        assert found["spec"]["replicas"] == 1
    finally:
        node.api.delete(f"/api/v1/namespaces/{namespace}")
        await holds("nothing is left", lambda: not node.api.get(pods).body["items"], 60)
