"""A training job on a real node: its image built, its log, its results, a failing script; nothing is left of it."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from aks_inference_runtime.jobs.cluster import run_on_cluster
from aks_inference_runtime.jobs.connect import connection_of
from aks_inference_runtime.jobs.manifests import LABEL, Pod
from aks_inference_runtime.jobs.model import Job, JobFailed
from aks_inference_runtime.kubernetes.client import connected
from testbed.images import ImageRegistry
from testbed.project import Project

pytestmark = pytest.mark.long

PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, RegisteredModel, TrainingJob

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime(
    "runtime", image=told["image"], registry={"server": told["registry"], "base_image": told["base"]},
    kubeconfig=told["kubeconfig"], service_type="ClusterIP", cluster_purpose="DevTest")
job = TrainingJob("ridge", target=runtime, entry_script="score.py", source_directory="code",
                  arguments=told["arguments"],
                  environment={"pip_packages": ["humanize==4.12.3"], "environment_variables": {"ALPHA": "0.5"},
                               "docker": {"shm_size": "96m"}})
model = RegisteredModel("ridge", store=told["store"], model_path="model.txt", job_outputs=job)
pulumi.export("outputs", job.outputs_path)
pulumi.export("model", model.model_id)
"""
TRAIN = """
import humanize, os, pathlib, sys
print("trains with", os.environ["ALPHA"], humanize.intcomma(12345), *sys.argv[1:], flush=True)
shared = os.statvfs("/dev/shm")
print("shared memory:", shared.f_blocks * shared.f_frsize, flush=True)
pathlib.Path("outputs/inner").mkdir(parents=True)
pathlib.Path("outputs/model.txt").write_text(" ".join(sys.argv[1:]))
pathlib.Path("outputs/inner/large.bin").write_bytes(bytes(3_000_000))
if "fail" in sys.argv:
    raise RuntimeError("no such column")
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    running = ImageRegistry(tmp_path_factory.mktemp("job-registry"))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def project(node, registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    made = Project(
        folder,
        PROGRAM,
        kubeconfig=str(node.kubeconfig),
        image=node.image,
        registry=registry.host,
        base=registry.push_base(),
        store=str(folder / "store"),
        arguments=["--rate", "0.1"],
    )
    made.environment["XDG_CACHE_HOME"] = str(folder / "cache")
    made.write(TRAIN)
    yield made
    made.must("destroy", "--yes", "--stack", "dev")


def left(node) -> list[str]:
    """Of jobs."""
    found = []
    for path in ("/apis/batch/v1/namespaces/default/jobs", "/api/v1/namespaces/default/pods"):
        found += node.api.get(path, labelSelector=LABEL).body["items"]
    found += node.api.get("/api/v1/namespaces/default/secrets", labelSelector=LABEL).body["items"]
    return [one["metadata"]["name"] for one in found]


def test_a_job_feeds_a_model(node, project):
    shown = project.up()
    assert "trains with 0.5 12,345 --rate 0.1" in shown
    assert f"shared memory: {96 * 2**20}" in shown
    told = project.outputs()
    assert told["model"] == "ridge:1"
    outputs = Path(told["outputs"])
    assert (outputs / "model.txt").read_text() == "--rate 0.1"
    assert (outputs / "inner" / "large.bin").stat().st_size == 3_000_000
    assert "trains with" in (outputs.parent / "log.txt").read_text()
    assert left(node) == []
    assert "trains with" not in project.up(), "the same program is no other run"


def test_a_failing_script_fails_the_update_and_leaves_nothing(node, project):
    project.told["arguments"] = ["fail"]
    with pytest.raises(AssertionError, match=r"(?s)ended with code 1.*no such column"):
        project.up()
    assert left(node) == []
    project.told["arguments"] = ["--rate", "0.1"]


async def test_cancelled(node, tmp_path):
    """The image has no such project: how the run ends does not matter, only that nothing of it is left."""
    said: list[str] = []
    pod = Pod(node.image, node.image)
    async with connected(connection_of(str(node.kubeconfig), None)) as api:
        job = Job("cancelled-1", "none.py", "none", {}, tmp_path / "results")
        task = asyncio.create_task(run_on_cluster(api, job, pod, said.append, said.append))
        while not said:
            await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert left(node) == []
        with pytest.raises(JobFailed, match="No such file"):
            await run_on_cluster(api, replace(job, run_id="failed-1"), pod, said.append, said.append)
    assert left(node) == []
