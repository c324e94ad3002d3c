"""A scoring server in a pod of a real node that hangs: its port takes connections, and nothing comes back."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api import kubernetes as k8s
from testbed.project import Project

pytestmark = pytest.mark.long

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image=told["image"], kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest")
service = ModelWebService(
    "stuck", target=runtime, image=told["image"], num_replicas=1, scoring_timeout_ms=1000, max_request_wait_time=5000,
    period_seconds=1, initial_delay_seconds=5,
    inference_config={"entry_script": "score.py", "source_directory": "code"})
pulumi.export("stuck", {"key": service.primary_key, "state": service.state})
"""
SCRIPT = """
def init():
    pass
def run(data):
    return {"scored": True}
"""
PODS = "/api/v1/namespaces/default/pods"
AGAIN_S = 150.0
"""Its second of scoring, thirty more, three looks, ten seconds to end and a new start."""


def scoring(node: Any) -> dict[str, Any]:
    """The state of the one scoring container."""
    (pod,) = node.api.get(PODS, labelSelector=f"{k8s.ENDPOINT_LABEL}=stuck").body["items"]
    (state,) = pod["status"]["containerStatuses"]
    return dict(state)


async def score(address: str, key: str) -> tuple[int, str]:
    uri = f"http://{address}/api/v1/service/stuck/score"
    asked = {"json": {}, "headers": {"Authorization": f"Bearer {key}"}, "timeout": aiohttp.ClientTimeout(30)}
    async with aiohttp.ClientSession() as session, session.post(uri, **asked) as answer:
        return answer.status, answer.headers.get("x-aks-inference-reason", "")


async def test_it_is_started_again_by_what_its_gate_tells_the_kubelet(node: Any, tmp_path: Any) -> None:
    project = Project(tmp_path, PROGRAM, kubeconfig=str(node.kubeconfig), image=node.image)
    (project.folder / "code" / "score.py").write_text(SCRIPT)
    project.up()
    try:
        key = project.outputs()["stuck"]["key"]
        router = f"/api/v1/namespaces/{k8s.RUNTIME_NAMESPACE}/services/{k8s.ROUTER_NAME}"
        address = node.api.get(router).body["spec"]["clusterIP"]
        assert await score(address, key) == (200, "")
        before = scoring(node)
        task = before["containerID"].removeprefix("containerd://")
        await asyncio.to_thread(node.bed.ctr, "tasks", "kill", "--all", "--signal", "SIGSTOP", task)
        assert await score(address, key) == (504, "scoring-timeout")
        deadline = time.monotonic() + AGAIN_S
        while (now := scoring(node))["restartCount"] == before["restartCount"] or not now["ready"]:
            assert time.monotonic() < deadline, now
            await asyncio.sleep(0.5)
        assert now["containerID"] != before["containerID"]
        while (answer := await score(address, key)) != (200, ""):
            assert time.monotonic() < deadline, answer
    finally:
        project.must("destroy", "--yes", "--stack", "dev")
