"""Models as image volumes: what nodes can mount, what the rules say, and the pods that mount them."""

from typing import Any

import pytest

from aks_inference.aks_cluster.groups import ClusterRuntimeSpec
from aks_inference.aks_cluster.scoring_address import _volume_rules
from aks_inference.findings import Casing, Finding, Severity
from aks_inference.inference_runtime.spec import plan_runtime
from aks_inference.service.model_pods import Delivery, Mounted
from aks_inference.service.models import ModelUse
from aks_inference.service.placing import Placing
from aks_inference.service.replicas import Replica, deployment
from aks_inference.service.stored import MOST_MOUNTED, can_mount
from aks_inference_runtime.api.endpoint import Code, Container, EndpointVersion
from aks_inference_runtime.api.target import KubernetesTarget
from aks_inference_runtime.kubernetes.image_volumes import judge, node_problem

STORE = "oci://registry.example/models"
IMAGE = "registry.example/models/net@sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("kubelet", "runtime", "said"),
    [
        ("v1.35.1", "containerd://2.1.4", ""),
        ("v1.34.4", "containerd://1.6.20", "its containerd is 1.6.20, and mounts images from 2.1 on"),
        ("v1.33.0", "containerd://2.0.5", "its containerd is 2.0.5"),
        ("v1.33.0", "cri-o://1.30.9", "its cri-o is 1.30.9, and mounts images from 1.31 on"),
        ("v1.33.0", "cri-o://1.33.0", ""),
        ("v1.30.2", "containerd://2.1.0", "its kubelet is v1.30.2"),
        ("v1.36.0-rc.1", "other://7", ""),
        ("", "", ""),
    ],
)
def test_what_a_node_can_mount(kubelet: str, runtime: str, said: str) -> None:
    assert node_problem(kubelet, runtime).startswith(said)
    assert bool(node_problem(kubelet, runtime)) is bool(said)


def node(name: str, runtime: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "status": {"nodeInfo": {"kubeletVersion": "v1.35.0", "containerRuntimeVersion": runtime}},
    }


def test_some_nodes_are_a_note_and_all_of_them_a_refusal() -> None:
    old, new = [node(f"n{number}", "containerd://1.7.0") for number in range(5)], node("new", "containerd://2.1.0")
    assert judge([]) == ("", ())
    assert judge([new]) == ("", ())
    refused, notes = judge([*old, new])
    assert refused == ""
    assert notes[0].startswith("replicas on some nodes will not start")
    assert notes[0].endswith("and 2 more")
    refused, notes = judge(old)
    assert refused.startswith("none of its nodes mounts images (n0: its containerd is 1.7.0")
    assert notes == ()


def errors(findings: list[Finding]) -> list[str]:
    return [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model_volumes": True, "model_store": STORE}, ""),
        ({"model_volumes": True}, ""),
        (
            {"model_volumes": True, "model_store": "az://account/models"},
            "model_volumes: mounts models of reg",
        ),
        ({"model_volumes": "perhaps"}, 'model_volumes = "perhaps"'),
    ],
)
def test_the_rules_of_a_runtime(arguments: dict[str, Any], said: str) -> None:
    found, findings = plan_runtime("runtime", {"image": "i:1", **arguments})
    if said:
        assert found is None
        assert errors(findings)[0].startswith(said)
    else:
        assert found is not None
        assert found.target(None).model_volumes


@pytest.mark.parametrize(
    ("version", "volumes", "refused"),
    [("1.34", True, True), ("1.34.2", True, True), ("1.35", True, False), (None, True, False), ("1.34", None, False)],
)
def test_a_version_of_aks_without_them(version: str | None, volumes: bool | None, refused: bool) -> None:
    class Given:
        kubernetes_version = version

    found = list(_volume_rules(Given(), ClusterRuntimeSpec(model_volumes=volumes)))  # type: ignore[arg-type]
    assert bool(found) is refused


@pytest.mark.parametrize(
    ("stores", "can"),
    [
        ((), False),
        ((STORE,), True),
        ((STORE, "oci://other.example/m"), True),
        ((STORE, "az://account/models"), False),
        ((None,), False),
        ((STORE,) * MOST_MOUNTED, True),
        ((STORE,) * (MOST_MOUNTED + 1), False),
    ],
)
def test_a_version_mounts_all_its_models_or_none(stores: tuple[str | None, ...], can: bool) -> None:
    uses = [ModelUse({"name": f"m{n}", "version": 1}, "m", store) for n, store in enumerate(stores)]
    assert can_mount(uses) is can


def pod(secret: str | None = None, pulls: tuple[str, ...] = ()) -> dict[str, Any]:
    code = Code(source_directory="/nowhere", entry_script="score.py", digest="sha256:" + "0" * 64)
    version = EndpointVersion(name="blue", is_default=True, code=code, container=Container(image="scoring:1"))
    target = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1", model_volumes=True)
    mounted = (Mounted(IMAGE, "net/1"), Mounted(IMAGE, "other/12"))
    delivery = Delivery(("{}", "{}"), "/var/azureml-app/azureml-models", secret, mounted)
    replica = Replica("fraud", "default", version, target, Placing(pull_secrets=pulls), delivery=delivery)
    spec: dict[str, Any] = deployment(replica)["spec"]["template"]["spec"]
    return spec


def test_pods_mount_each_version_where_the_script_looks() -> None:
    spec = pod()
    assert [container["name"] for container in spec["initContainers"]] == ["gate"], "nothing is fetched"
    volumes = [volume for volume in spec["volumes"] if "image" in volume]
    assert volumes == [
        {"name": f"model-{n}", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}} for n in range(2)
    ]
    assert not any("hostPath" in volume for volume in spec["volumes"])
    mounts = {mount["name"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["model-0"]["mountPath"] == "/var/azureml-app/azureml-models/net/1"
    assert mounts["model-1"]["mountPath"] == "/var/azureml-app/azureml-models/other/12"
    assert mounts["model-0"]["readOnly"] is True
    variables = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    assert variables["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models"
    assert "imagePullSecrets" not in spec


def test_the_node_pulls_with_the_secret_of_the_models() -> None:
    assert pod(secret="models")["imagePullSecrets"] == [{"name": "models"}]
    assert pod("models", ("models", "images"))["imagePullSecrets"] == [{"name": "models"}, {"name": "images"}]
