"""Image volumes and a real API server: one without the feature is told at preview, one with it takes the pods."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.servers import of_tests

from aks_inference.service.model_pods import Delivery, Mounted
from aks_inference.service.replicas import Replica, deployment
from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources.base import Operation, Urn
from aks_inference_provider.resources.image_volumes import ImageVolumes
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.endpoint import Code, Container, EndpointVersion
from aks_inference_runtime.api.target import KubernetesTarget
from testbed import build
from testbed.api import Api
from testbed.control_plane import ControlPlane, fake_node
from testbed.project import Project
from testbed.reporter import Reporter

URN = Urn.parse("urn:pulumi:dev::shop::aks-inference:index:ImageVolumes::fraud-volumes")
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))
IMAGE = "registry.example/models/net@sha256:" + "1" * 64


PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import InferenceRuntime, ModelWebService, RegisteredModel

told = json.loads(pathlib.Path("told.json").read_text())
runtime = InferenceRuntime("runtime", image="runtime:1", kubeconfig=told["kubeconfig"], service_type="ClusterIP",
                           cluster_purpose="DevTest", model_store=told["store"], model_volumes=told["volumes"])
models = [RegisteredModel("price", target=runtime, model_path="model.bin", tags=told["tags"])]
service = ModelWebService("churn", target=runtime, image="scoring:1", models=models, model_secret_name="pull",
                          inference_config={"entry_script": "score.py", "source_directory": "code"})
pulumi.export("state", service.state)
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Callable[[Path], Project]]:
    """A program with a registry of its own, on a cluster by its kubeconfig."""
    images = of_tests("images")
    registry = images.start_registry(tmp_path)

    def make(kubeconfig: Path) -> Project:
        store = f"oci://{registry.host}/models"
        made = Project(tmp_path, PROGRAM, kubeconfig=str(kubeconfig), store=store, volumes=True, tags={})
        (made.folder / "model.bin").write_text("weights")
        return made

    yield make
    images.stop(registry)


@pytest.fixture(scope="module")
def with_volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    # As Kubernetes 1.35 has it by default.
    plane = ControlPlane(tmp_path_factory.mktemp("with-volumes"), gates=["ImageVolume"])
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


def add_node(api: Api, name: str, runtime: str) -> None:
    node: dict[str, Any] = fake_node(name)
    assert api.create("/api/v1/nodes", node).status == 201
    info = {"kubeletVersion": "v1.35.0", "containerRuntimeVersion": runtime}
    info |= dict.fromkeys(
        ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "operatingSystem", "architecture"), "x"
    )
    info["kubeProxyVersion"] = ""
    answer = api.merge(f"/api/v1/nodes/{name}/status", {"status": {"nodeInfo": info}})
    assert answer.status == 200, answer.message


async def test_a_server_without_the_feature_is_told_at_preview(cluster: Any) -> None:
    inputs = {"kubeconfig": str(cluster.kubeconfig)}
    checked = await ImageVolumes().check(URN, {}, inputs)
    (failure,) = checked.failures
    assert "its API server (v1." in failure.reason
    assert "turn the feature gate ImageVolume on" in failure.reason
    assert failure.reason.endswith("leave out model_volumes: models then come by an init container")
    with pytest.raises(ResourceFailed, match="takes no volumes of images"):
        await ImageVolumes().create(OPERATION, inputs)


async def test_nodes_that_mount_no_images_are_told(with_volumes: ControlPlane) -> None:
    api, inputs = Api(with_volumes.kubeconfig), {"kubeconfig": with_volumes.kubeconfig.read_text()}
    first = await ImageVolumes().check(URN, {}, inputs)
    assert (first.failures, list(first.notes)) == ((), []), "no nodes yet: nothing is known against it"
    assert (await ImageVolumes().create(OPERATION, inputs)).id == URN.name
    add_node(api, "old", "containerd://1.6.20")
    try:
        (failure,) = (await ImageVolumes().check(URN, {}, inputs)).failures
        assert "none of its nodes mounts images (old: its containerd is 1.6.20" in failure.reason
        add_node(api, "new", "containerd://2.1.0")
        checked = await ImageVolumes().check(URN, {}, inputs)
        assert checked.failures == ()
        assert "replicas on some nodes will not start" in checked.notes[0]
    finally:
        for name in ("old", "new"):
            api.delete(f"/api/v1/nodes/{name}")


def test_the_pods_are_taken_as_they_are(with_volumes: ControlPlane, cluster: Any) -> None:
    code = Code(source_directory="/nowhere", entry_script="score.py", digest="sha256:" + "0" * 64)
    version = EndpointVersion(name="blue", is_default=True, code=code, container=Container(image="scoring:1"))
    target = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1", model_volumes=True)
    mounted = (Mounted(IMAGE, "net/1"), Mounted(IMAGE, "other/12"))
    delivery = Delivery(("{}", "{}"), "/var/azureml-app/azureml-models", "pull", mounted)
    replica = Replica("fraud", "default", version, target, delivery=delivery, image="scoring:1")
    manifest = deployment(replica)
    path = "/apis/apps/v1/namespaces/default/deployments"
    taken = Api(with_volumes.kubeconfig).create(path, manifest, dryRun="All", fieldValidation="Strict")
    assert taken.status == 201, taken.message
    volumes = taken.body["spec"]["template"]["spec"]["volumes"]
    assert [one["image"]["reference"] for one in volumes if "image" in one] == [IMAGE, IMAGE]
    # What the look at a preview is for: a server without the feature says nothing.
    silent = cluster.api.create(path, manifest, dryRun="All", fieldValidation="Strict")
    assert silent.status == 201, silent.message
    dropped = [one for one in silent.body["spec"]["template"]["spec"]["volumes"] if one["name"].startswith("model-")]
    assert all("image" not in one for one in dropped)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"kubeconfig": UNKNOWN}, ""),
        ({"kubeconfig": "/nowhere/kubeconfig"}, "not looked up whether the cluster mounts images"),
    ],
)
async def test_a_cluster_that_is_not_there_refuses_nothing(inputs: dict[str, Any], said: str, tmp_path: Path) -> None:
    checked = await ImageVolumes().check(URN, {}, inputs)
    assert checked.failures == () or list(checked.failures) == []
    assert "".join(str(note) for note in checked.notes).startswith(said)


@pytest.mark.long
def test_a_preview_refuses_what_the_cluster_would_drop(cluster: Any, project: Callable[[Path], Project]) -> None:
    made = project(cluster.kubeconfig)
    with pytest.raises(AssertionError) as caught:
        made.must("preview", "--stack", "dev")
    shown = str(caught.value)
    assert "its API server (v1." in shown
    assert "takes no volumes of images" in shown
    made.told["volumes"] = False
    assert "ImageVolumes" not in made.must("preview", "--stack", "dev")


@pytest.mark.long
def test_a_service_whose_models_are_mounted(with_volumes: ControlPlane, project: Callable[[Path], Project]) -> None:
    """Applied twice, its model's facts changed, then fetched instead; destroyed. Nodes are kept by kwok."""
    if missing := build.missing((*build.CONTROL, *build.FAKE_NODES)):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    with_volumes.keep_fake_nodes()
    api, made = Api(with_volumes.kubeconfig), project(with_volumes.kubeconfig)
    assert api.create("/api/v1/nodes", fake_node("kept")).status == 201
    path = "/apis/apps/v1/namespaces/default/deployments/churn-default"

    def pod() -> dict[str, Any]:
        spec: dict[str, Any] = api.get(path).body["spec"]["template"]["spec"]
        return spec

    reporter = Reporter(api, "default")
    reporter.start()
    try:
        assert "ImageVolumes" in made.must("preview", "--stack", "dev")
        made.up()
        (volume,) = [one for one in pod()["volumes"] if "image" in one]
        store = made.told["store"].removeprefix("oci://")
        assert volume["image"]["reference"].startswith(f"{store}/price:files-v1@sha256:")
        assert pod()["imagePullSecrets"] == [{"name": "pull"}]
        assert [one["name"] for one in pod()["initContainers"]] == ["gate"]
        (mount,) = [one for one in pod()["containers"][0]["volumeMounts"] if one["name"] == "model-0"]
        assert mount["mountPath"] == "/var/azureml-app/azureml-models/price/1"
        before = api.get(path).body["metadata"]["generation"]
        again = made.up()
        assert " created" not in again
        assert " updated" not in again
        made.told["tags"] = {"stage": "production"}
        made.up()
        assert api.get(path).body["metadata"]["generation"] == before, "facts are no rollout"
        made.told["volumes"] = False
        made.up()
        assert [one["name"] for one in pod()["initContainers"]] == ["models", "gate"]
        assert not [one for one in pod()["volumes"] if "image" in one]
        made.must("destroy", "--yes", "--stack", "dev")
    finally:
        reporter.over.set()
        reporter.join()
