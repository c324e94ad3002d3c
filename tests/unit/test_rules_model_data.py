"""Model data collection: the rules, and what the replicas are told."""

import json
from pathlib import Path
from typing import Any

import pytest

from aks_inference.aks_cluster.capacity import services_of
from aks_inference.findings import Casing, Finding, Severity
from aks_inference.rollout.spec import plan_rollout
from aks_inference.service.data_pods import package_name, package_object
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.replicas import Replica, deployment
from aks_inference.service.spec import plan_service
from aks_inference_runtime.api.endpoint import EndpointVersion, ModelData
from aks_inference_runtime.api.replica import model_data_script
from aks_inference_runtime.api.target import KubernetesTarget, LocalTarget, format_target
from aks_inference_runtime.kubernetes.quantities import quantity
from aks_inference_runtime.local.template import template_of
from aks_inference_runtime.scoring.server import MODEL_DATA_SCRIPT, collecting

LOCAL = format_target(LocalTarget(name="local", state_directory="/tmp/state"))
CLUSTER = format_target(KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1"))
COLLECTS = "from azureml.monitoring import ModelDataCollector\ndef init(): pass\ndef run(data): return data\n"
BLOBS = "az://account/modeldata"
ON: dict[str, Any] = {"collect_model_data": True, "model_data_store": BLOBS}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("import helper\ndef init(): pass\ndef run(data): return data\n")
    (tmp_path / "code" / "helper.py").write_text(COLLECTS)
    (tmp_path / "plain.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(target: str = CLUSTER, **arguments: Any) -> tuple[EndpointPlan | None, list[Finding]]:
    image = {} if target == LOCAL or "custom_image" in arguments else {"image": "scoring:1"}
    config = {} if "custom_image" in arguments else {"inference_config": CODE}
    return plan_service("svc", {"target": target, **config, **image, **arguments})


CODE = {"entry_script": "score.py", "source_directory": "code"}


def version_of(target: str = CLUSTER, **arguments: Any) -> EndpointVersion:
    made, findings = plan(target, **arguments)
    assert made is not None, findings
    return made.versions[0].version


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (
        CLUSTER,
        {"collect_model_data": True},
        "model_data_store: is required with collect_model_data: in Azure ML it was",
    ),
    (LOCAL, {"collect_model_data": True}, "model_data_store: is required with collect_model_data"),
    (
        CLUSTER,
        {**ON, "model_data_store": "/data"},
        "model_data_store = \"/data\": '/data' is not in Blob Storage; write",
    ),
    (CLUSTER, {**ON, "model_data_store": "az://A/b"}, "model_data_store = \"az://A/b\": 'A' is not a storage account"),
    (LOCAL, ON, f'model_data_store = "{BLOBS}": is for a Kubernetes target; give a folder of this machine'),
    (LOCAL, {**ON, "model_data_store": "oci://r/x"}, 'model_data_store = "oci://r/x": is no folder'),
    (CLUSTER, {**ON, "model_data_workspace": "one"}, 'model_data_workspace = "one": is not <subscription>/<resource'),
    (CLUSTER, {**ON, "model_data_store": 5}, "model_data_store = 5: must be a text"),
    (
        CLUSTER,
        {**ON, "custom_image": {"image": "i:1", "port": 80, "score_path": "/"}},
        "collect_model_data = true: has no effect with custom_image: its container has no entry script that collects",
    ),
]


@pytest.mark.parametrize(("target", "arguments", "said"), WRONG)
def test_a_broken_rule(target: str, arguments: dict[str, Any], said: str) -> None:
    made, findings = plan(target, **arguments)
    assert made is None
    texts = [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]
    assert [text.startswith(said) for text in texts] == [True], texts


WARNED: list[tuple[dict[str, Any], str]] = [
    ({"model_data_store": BLOBS}, f'model_data_store = "{BLOBS}": has no effect without collect_model_data'),
    ({"model_data_workspace": "a/b/c"}, 'model_data_workspace = "a/b/c": has no effect without collect_model_data'),
    (
        {**ON, "inference_config": {"entry_script": "plain.py"}},
        "collect_model_data = true: has nothing to collect: no script imports azureml.monitoring",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), WARNED)
def test_a_warning(arguments: dict[str, Any], said: str) -> None:
    made, findings = plan(**arguments)
    assert made is not None
    assert [f.text(Casing.SNAKE).startswith(said) for f in findings] == [True]


def test_a_deployment_configuration_switches_it_on() -> None:
    config = {"computeType": "aks", "dataCollection": {"storageEnabled": True}}
    made, findings = plan(deployment_config=config)
    assert made is None
    assert "model_data_store: is required" in findings[0].text(Casing.SNAKE)
    version = version_of(deployment_config=config, model_data_store=BLOBS)
    assert version.model_data == ModelData(store=BLOBS)


def test_what_replicas_are_told_of_it(here: Path) -> None:
    given = {"collect_model_data": True, "model_data_store": "data", "model_data_workspace": "s/g/w"}
    version = version_of(LOCAL, **given)
    assert version.model_data == ModelData(store=str(here / "data"), workspace="s/g/w")
    assert collecting(version, {"PYTHONPATH": "/own"}, MODEL_DATA_SCRIPT) == {
        "PYTHONPATH": f"{MODEL_DATA_SCRIPT}:/own",
        "AML_MODEL_DC_STORAGE_ENABLED": "true",
        "AKS_INFERENCE_MODEL_DATA": str(here / "data"),
        "AKS_INFERENCE_MODEL_DATA_WORKSPACE": "s/g/w",
    }
    off = version_of(LOCAL)
    assert off.model_data == ModelData()
    off_told = {"PYTHONPATH": str(MODEL_DATA_SCRIPT), "AML_MODEL_DC_STORAGE_ENABLED": "false"}
    assert collecting(off, {}, MODEL_DATA_SCRIPT) == off_told
    plain = version_of(LOCAL, inference_config={"entry_script": "plain.py"})
    assert plain.model_data is None
    assert collecting(plain, {}, MODEL_DATA_SCRIPT) == {}
    assert len({template_of(each, "e") for each in (version, off, off.model_copy(update={"model_data": None}))}) == 3


def test_each_version_of_a_rollout_has_its_own() -> None:
    versions = [
        {"version_name": "one", "inference_config": CODE, "image": "i:1", "traffic_percentile": 100, **ON},
        {"version_name": "two", "inference_config": CODE, "image": "i:1"},
    ]
    rolled, findings = plan_rollout("roll", {"target": CLUSTER, "versions": versions})
    assert rolled is not None, findings
    assert [v.version.model_data for v in rolled.versions] == [ModelData(store=BLOBS), ModelData()]


def pod(version: EndpointVersion, secret: str | None = None) -> dict[str, Any]:
    target = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1")
    made, findings = plan(**ON, **({"model_secret_name": secret} if secret else {}))
    assert made is not None, findings
    spec: dict[str, Any] = deployment(Replica("svc", "default", version, target, made.versions[0].placing))["spec"]
    found: dict[str, Any] = spec["template"]["spec"]
    return found


def test_a_pod_that_collects() -> None:
    found = pod(version_of(**ON), "access")
    shipping, gate = found["initContainers"]
    assert (shipping["name"], shipping["restartPolicy"], shipping["image"], gate["name"]) == (
        "model-data",
        "Always",
        "runtime:1",
        "gate",
    )
    assert json.loads(shipping["command"][-1]) == {
        "credentials": "/access",
        "spool": "/var/aks-inference/model-data",
        "store": BLOBS,
    }
    scoring = found["containers"][0]
    told = {each["name"]: each["value"] for each in scoring["env"]}
    assert told["PYTHONPATH"] == "/opt/aks-inference/model-data"
    assert told["AKS_INFERENCE_MODEL_DATA"] == "/var/aks-inference/model-data"
    assert told["AKS_INFERENCE_MODEL_DATA_SPOOL"] == told["AML_MODEL_DC_STORAGE_ENABLED"] == "true"
    volumes = {each["name"]: each for each in found["volumes"]}
    for container in (shipping, scoring):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
    assert "model-data-access" not in {mount["name"] for mount in scoring["volumeMounts"]}
    items = volumes["model-data-package"]["configMap"]["items"]
    package = package_object("svc-default", "default", {})
    assert (
        volumes["model-data-package"]["configMap"]["name"] == package["metadata"]["name"] == package_name("svc-default")
    )
    assert {item["path"]: package["data"][item["key"]] for item in items} == {
        name: path.read_text() for name, path in model_data_script().items()
    }


@pytest.mark.parametrize("arguments", [{}, ON, {"inference_config": {"entry_script": "plain.py"}}])
def test_what_is_fitted_on_nodes_is_what_the_pod_asks_for(arguments: dict[str, Any]) -> None:
    made, findings = plan(**arguments, cpu_cores=1, memory_gb=2)
    assert made is not None, findings
    (service,) = services_of("svc", made)
    found = pod(made.versions[0].version)
    asked = [one["resources"]["requests"] for one in (*found["initContainers"], *found["containers"])]
    assert service.workload.each.cpu_m == round(1000 * sum(quantity(one["cpu"]) for one in asked))
    assert service.workload.each.memory_mib == sum(quantity(one["memory"]) for one in asked) / 2**20


def test_a_pod_whose_script_would_collect_has_the_package_alone() -> None:
    found = pod(version_of())
    assert [each["name"] for each in found["initContainers"]] == ["gate"]
    assert {"model-data-package"} == {each["name"] for each in found["volumes"] if "data" in each["name"]}
    plain = pod(version_of(inference_config={"entry_script": "plain.py"}))
    assert not [each["name"] for each in plain["volumes"] if "data" in each["name"]]
