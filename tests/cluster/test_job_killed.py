"""The process that applies a job is killed while the job is under way: the cluster ends and removes it by itself.

A real control plane, whose pod finds no node. The longest times are made short in the process that is killed: what ends
the Job, and removes it, is what its manifest says, not that process.
"""

import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.jobs import manifests
from aks_inference_runtime.jobs.manifests import LABEL, Pod, manifest
from aks_inference_runtime.jobs.model import Job

APPLY = """
import asyncio, json, sys
from pathlib import Path
from aks_inference_runtime.jobs import manifests
from aks_inference_runtime.jobs.cluster import run_on_cluster
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.jobs.manifests import Pod
from aks_inference_runtime.jobs.model import Job
from aks_inference_runtime.kubernetes.client import connected

told = json.loads(sys.argv[1])
manifests._FETCH_S, manifests._KEPT_S = 1, 1

async def run():
    job = Job(told["id"], "train.py", "code", {}, Path(told["results"]), longest_s=25)
    async with connected(connection_of(told["kubeconfig"], None)) as api:
        pod = Pod("training:1", "keeper:1", told["namespace"])
        await run_on_cluster(api, job, pod, print, lambda line: print(line, flush=True))

asyncio.run(run())
"""


def test_what_the_cluster_is_told(tmp_path: Path) -> None:
    """Whatever becomes of the process: an end after the longest run and the fetching, and a removal after that."""
    spec = manifest(Job("j", "train.py", "code", {}, tmp_path, longest_s=3600), Pod("a", "b"))["spec"]
    assert spec["activeDeadlineSeconds"] == 3600 + manifests._FETCH_S
    assert spec["ttlSecondsAfterFinished"] == manifests._KEPT_S
    owner = manifests.owner({"metadata": {"name": "j", "uid": "u"}})
    secret = manifests.secret(Job("j", "train.py", "code", {}, tmp_path), Pod("a", "b"), "token", owner)
    assert secret["metadata"]["ownerReferences"] == [owner], "it goes with the Job"


@pytest.mark.long
def test_a_killed_apply_leaves_nothing(cluster: Any, namespace: str, until: Any, tmp_path: Path) -> None:
    name = f"job-{uuid.uuid4().hex[:8]}"
    told = {"id": name, "results": str(tmp_path), "kubeconfig": str(cluster.kubeconfig), "namespace": namespace}
    jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs/{name}"
    secret = f"/api/v1/namespaces/{namespace}/secrets/{name}"
    pods = f"/api/v1/namespaces/{namespace}/pods"
    process = subprocess.Popen(
        [sys.executable, "-c", APPLY, json.dumps(told)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("waits: "):
                break
        else:
            pytest.fail("the job never started:\n" + "".join(lines))
        assert cluster.api.get(jobs).status == 200
        assert cluster.api.get(secret).status == 200
    finally:
        process.kill()
        process.communicate()
    until(lambda: cluster.api.get(jobs).status == 404, 90)
    until(lambda: cluster.api.get(secret).status == 404, 90)
    until(lambda: not cluster.api.get(pods, labelSelector=f"{LABEL}={name}").body["items"], 90)
