"""Models of services on a Kubernetes cluster: where they may be kept, and what the pods are told of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from aks_inference.findings import Casing, Finding, Severity
from aks_inference.inference_runtime.spec import plan_runtime
from aks_inference.registered_model.spec import plan_model
from aks_inference.service.model_pods import Delivery
from aks_inference.service.models import read_models
from aks_inference.service.replicas import Replica, deployment
from aks_inference.targets import choose_target
from aks_inference_runtime.api.endpoint import Code, Container, EndpointVersion
from aks_inference_runtime.api.replica import model_directory
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target
from aks_inference_runtime.kubernetes.workloads import replica_pod
from aks_inference_runtime.models.delivery import read_settings

BARE = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1")
STORE = "oci://registry.example/models"
KEEPING = BARE.model_copy(update={"model_store": STORE})


def errors(findings: list[Finding]) -> list[str]:
    return [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("target", "model", "said"),
    [
        (BARE, "m:1", 'models[0] = "m:1": the target keeps no models'),
        (KEEPING, "m", 'models[0] = "m": is not a model id `name:version`'),
        (KEEPING, 3, "models[0]: an object of type int is not a model"),
        (KEEPING, "m:1", None),
        (LocalTarget(name="local", state_directory="/tmp/s"), "m:1", None),
    ],
)
def test_models_by_their_id(target: Any, model: Any, said: str | None) -> None:
    choice, _ = choose_target(format_target(target))
    uses, findings = read_models([model], choice)
    assert [text.startswith(said or "") for text in errors(findings)] == ([True] if said else [])
    if said is None:
        wanted = {"name": "m", "version": 1}
        assert [use.reference for use in uses] == [wanted if target is not KEEPING else {**wanted, "store": STORE}]


def test_a_model_registered_with_the_cluster_goes_into_its_store(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(b"m")
    declared = {"target": format_target(KEEPING), "model_path": str(tmp_path / "m.bin")}
    found, findings = plan_model("m", declared)
    assert errors(findings) == []
    assert found is not None
    assert (found.inputs["store"], found.target) == (STORE, None), (
        "the plugin sends it to the store, not to the cluster"
    )
    found, findings = plan_model("m", {**declared, "target": format_target(BARE)})
    assert found is None
    assert any(text.startswith("target: names a cluster that keeps no models") for text in errors(findings))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model_store": "s3://x"}, 'model_store = "s3://x": '),
        ({"model_store": "/srv/models"}, 'model_store = "/srv/models": is a folder of this machine'),
        ({"model_cache": "cache"}, 'model_cache = "cache": is no absolute folder of a node'),
        ({"model_cache": "/"}, 'model_cache = "/": is no absolute folder of a node'),
        ({"model_cache": "/var/../etc"}, 'model_cache = "/var/../etc": is no absolute folder of a node'),
    ],
)
def test_what_a_runtime_refuses(arguments: dict[str, Any], said: str) -> None:
    found, findings = plan_runtime("runtime", {"image": "i:1", **arguments})
    assert found is None
    assert any(text.startswith(said) for text in errors(findings)), errors(findings)


@pytest.mark.parametrize(
    ("given", "cache"), [(None, "/var/cache/aks-inference/models"), ("", None), ("/mnt/models", "/mnt/models")]
)
def test_the_cache_of_the_nodes(given: str | None, cache: str | None) -> None:
    found, _ = plan_runtime("runtime", {"image": "i:1", "model_cache": given, "model_store": "oci://registry.example"})
    assert found is not None
    assert found.target(None).model_cache == cache
    assert found.target(None).model_store == "oci://registry.example/aks-inference/models", "in its one form"


def pod(cache: str | None, secret: str | None, count: int = 2) -> dict[str, Any]:
    code = Code(source_directory="/nowhere", entry_script="score.py", digest="sha256:" + "0" * 64)
    version = EndpointVersion(name="blue", is_default=True, code=code, container=Container(image="scoring:1"))
    models = [{"name": f"m{n}", "version": n + 1, "store": STORE, "digest": "sha256:" + "1" * 64} for n in range(count)]
    told = tuple(json.dumps(model) for model in models)
    directory = model_directory([{"name": m["name"], "version": m["version"]} for m in models])
    target = KEEPING.model_copy(update={"model_cache": cache})
    replica = Replica("fraud", "default", version, target, delivery=Delivery(told, directory, secret))
    spec: dict[str, Any] = deployment(replica)["spec"]["template"]["spec"]
    return spec


@pytest.fixture(autouse=True)
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aks_inference.service.replicas.code_files", lambda code: {})


def test_the_init_container_understands_what_it_is_told() -> None:
    fetching, gate = pod("/mnt/models", "access")["initContainers"]
    assert gate["name"] == "gate", "after the models: nothing is answered from a pod that has none"
    assert fetching["command"][:3] == ["python", "-m", "aks_inference_runtime.models.delivery"]
    settings = read_settings([*fetching["command"][3:], *fetching["args"]])
    assert [(model.name, model.version, model.store) for model in settings.models] == [
        ("m0", 1, STORE),
        ("m1", 2, STORE),
    ]
    mounted = {mount["mountPath"]: mount for mount in fetching["volumeMounts"]}
    assert f"{settings.app_root}/azureml-models" in mounted
    assert settings.cache in mounted
    assert settings.credentials in mounted
    assert mounted[settings.credentials]["readOnly"] is True


def test_the_scoring_server_reads_and_has_no_access_to_the_store() -> None:
    found = pod("/mnt/models", "access")
    (scoring,) = found["containers"]
    (models,) = [mount for mount in scoring["volumeMounts"] if mount["mountPath"].endswith("azureml-models")]
    assert models["readOnly"] is True
    assert not {"model-access", "model-cache"} & {mount["name"] for mount in scoring["volumeMounts"]}
    told = {variable["name"]: variable["value"] for variable in scoring["env"]}
    assert told["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models"
    (secret,) = [volume["secret"] for volume in found["volumes"] if "secret" in volume]
    assert secret == {"secretName": "access", "defaultMode": 0o440}
    one = {v["name"]: v["value"] for v in pod(None, None, count=1)["containers"][0]["env"]}
    assert one["AZUREML_MODEL_DIR"] == "/var/azureml-app/azureml-models/m0/1"


def test_without_a_cache_nothing_of_the_host_and_nobody_is_root() -> None:
    found = pod(None, None)
    assert not any("hostPath" in volume for volume in found["volumes"])
    assert "runAsUser" not in found["initContainers"][0]["securityContext"]
    cached = pod("/mnt/models", None)["initContainers"][0]["securityContext"]
    assert cached["runAsUser"] == 0
    assert cached["capabilities"] == {"drop": ["ALL"]}
    assert cached["readOnlyRootFilesystem"] is True


def test_a_thousand_models_fit_the_command_line_and_the_object() -> None:
    """Linux takes 128 KiB an argument and 2 MiB in all; etcd 1.5 MiB an object."""
    found = pod(None, None, count=1_000)
    arguments = [*found["initContainers"][0]["command"], *found["initContainers"][0]["args"]]
    assert max(map(len, arguments)) < 2**17
    assert len(json.dumps(found)) < 2**20


def test_the_log_of_the_container_in_trouble_is_told() -> None:
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    labels = {"aks-inference.dev/endpoint": "fraud", "aks-inference.dev/version": "blue"}
    statuses = {
        "initContainerStatuses": [{"name": "models", "restartCount": 3, "state": waiting}],
        "containerStatuses": [
            {"name": "scoring", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}}
        ],
    }
    found = replica_pod({"metadata": {"namespace": "d", "name": "p", "labels": labels}, "spec": {}, "status": statuses})
    assert found is not None
    assert (found.troubled, found.given_up) == ("models", True)
