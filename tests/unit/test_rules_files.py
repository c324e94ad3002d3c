"""inferenceconfig.json and deploymentconfig.json: taken as they are; what is wrong is named with its place."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from aks_inference.findings import Casing, Severity
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.inference import read_inference
from aks_inference.service.spec import plan_service

TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/tmp/state"}'
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"

SERIALIZED = {
    "name": "my-env",
    "version": None,
    "environmentVariables": {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"},
    "python": {
        "userManagedDependencies": False,
        "interpreterPath": "python",
        "condaDependenciesFile": None,
        "baseCondaEnvironment": None,
        "condaDependencies": {
            "name": "project_environment",
            "channels": ["anaconda", "conda-forge"],
            "dependencies": [f"python={HERE}", {"pip": ["azureml-defaults", "scikit-learn==1.9.0"]}],
        },
    },
    "docker": {
        "enabled": True,
        "baseImage": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:20251130.v1",
        "baseDockerfile": None,
        "sharedVolumes": True,
        "shmSize": "2g",
        "arguments": [],
        "baseImageRegistry": {"address": None, "username": None, "password": None, "registryIdentity": None},
        "platform": {"os": "Linux", "architecture": "amd64"},
    },
    "spark": {"repositories": [], "packages": [], "precachePackages": True},
    "databricks": {"mavenLibraries": [], "pypiLibraries": [], "rcranLibraries": [], "jarLibraries": []},
    "r": None,
    "inferencingStackVersion": "latest",
    "assetId": None,
}
"""An environment as the old SDK serialised it."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: object) -> str:
    Path(name).write_text(content if isinstance(content, str) else json.dumps(content))
    return name


def inference(content: object) -> list[str]:
    path = write("inferenceconfig.json", content)
    return [f.text(Casing.SNAKE) for f in read_inference(path, None)[1]]


def service(**declared: Any) -> tuple[EndpointPlan | None, list[str]]:
    config = {"entry_script": "score.py", "source_directory": "src"}
    arguments = {"target": TARGET, "inference_config": config, **declared}
    made, findings = plan_service("service", arguments)
    return made, [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


def test_packages_that_no_version_is() -> None:
    """The local target tells it at preview, as an image does; which of a clone's packages it is, too."""
    minimal = {"entryScript": "score.py", "sourceDirectory": "src"}
    (wrong,) = inference({**minimal, "environment": {"pipPackages": ["numpy==1.26.4", "NumPy>=2", "--pre"]}})
    assert "environment.pipPackages: asks for" in wrong
    assert "numpy==1.26.4" in wrong
    assert "no version is both; keep one of them" in wrong
    cloned = {"cloneOf": "AzureML-ScikitLearn", "pipPackages": ["azureml-defaults==1.0", "azureml-defaults==2.0"]}
    assert any("no version is both" in one for one in inference({**minimal, "environment": cloned}))
    fits = ["numpy==2.1.0", "numpy>=2", "scipy==1.0 ; python_version < '3'", "scipy>=1.11"]
    assert inference({**minimal, "environment": {"pipPackages": fits}}) == []


def test_the_minimal_form_and_a_serialised_environment() -> None:
    minimal = {"entryScript": "score.py", "sourceDirectory": "src"}
    assert inference(minimal) == []
    assert inference({**minimal, "environment": SERIALIZED}) == []
    got, _ = read_inference("inferenceconfig.json", None)
    assert got is not None
    environment = got.environment.environment
    assert environment.pip_packages == ("azureml-defaults", "scikit-learn==1.9.0")
    assert environment.environment_variables == {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"}
    assert environment.name == "my-env"
    assert got.environment.notes[0].startswith("base image mcr.microsoft.com/azureml/openmpi")


def test_package_indexes_may_be_named() -> None:
    packages = ["--extra-index-url https://example.invalid/simple", "--pre", "numpy"]
    config = {"entryScript": "score.py", "sourceDirectory": "src", "environment": {"pipPackages": packages}}
    assert inference(config) == []


def test_a_byte_order_mark_is_no_obstacle() -> None:
    Path("bom.json").write_text("\ufeff" + json.dumps({"entryScript": "score.py", "sourceDirectory": "src"}))
    assert read_inference("bom.json", None)[1] == []


BAD_INFERENCE: list[tuple[dict[str, Any], str]] = [
    ({"entryScrpt": "x"}, ": entryScrpt: is not known here; did you mean `entryScript`?"),
    ({"entryScript": "gone.py"}, ': entryScript = "gone.py": does not exist'),
    ({"entryScript": None}, ": entryScript: is required"),
    ({"sourceDirectory": "gone"}, ': sourceDirectory = "gone": does not exist'),
    ({"runtime": "spark-py"}, ': runtime = "spark-py": the local target has the runtime python only'),
    ({"enableGpu": True}, ": enableGpu: the local target runs processes"),
    ({"baseImage": "x"}, ": baseImage: the local target runs processes"),
    ({"cudaVersion": "10.0"}, ": cudaVersion: the local target"),
    ({"extraDockerFileSteps": "x"}, ": extraDockerFileSteps: the local target"),
    ({"extraDockerfileSteps": "x"}, ": extraDockerFileSteps: the local target"),
    ({"condaFile": "gone.yml"}, ': condaFile = "gone.yml": does not exist'),
    ({"condaFile": "a.yml", "environment": {}}, ': condaFile = "a.yml": cannot be combined with environment'),
    ({"environment": {"nme": "x"}}, ": environment.nme: is not known here; did you mean `name`?"),
    ({"environment": {"name": "AzureML-None"}}, ': environment.name = "AzureML-None": is not a curated environment'),
    (
        {"environment": {"name": "AzureML-Minimal", "pipPackages": ["a"]}},
        ': environment.name = "AzureML-Minimal": begins with a reserved',
    ),
    ({"environment": {"cloneOf": "none"}}, ': environment.cloneOf = "none": is not a curated environment'),
    ({"environment": {"python": {"userManagedDependencies": True}}}, ": environment.python.userManagedDependencies: "),
    ({"environment": {"python": {"interpreterPath": "/opt/py"}}}, ': environment.python.interpreterPath = "/opt/py"'),
    ({"environment": {"python": {"condaDependenciesFile": "no.yml"}}}, ": environment.python.condaDependenciesFile = "),
    ({"environment": {"python": {"channels": []}}}, ": environment.python.channels: is not known here"),
    ({"environment": {"docker": {"baseImage": "mine:1"}}}, ': environment.docker.baseImage = "mine:1": the local'),
    (
        {"environment": {"docker": {"baseImage": "mcr.microsoft.com/azureml/openmpi-cuda11:1"}}},
        ": environment.docker.baseImage = ",
    ),
    ({"environment": {"docker": {"baseDockerfile": "FROM x"}}}, ": environment.docker.baseDockerfile: the local"),
    ({"environment": {"docker": {"arguments": ["--gpus"]}}}, ": environment.docker.arguments: the local"),
    (
        {"environment": {"docker": {"baseImageRegistry": {"address": "x"}}}},
        ": environment.docker.baseImageRegistry: the local",
    ),
    ({"environment": {"spark": {"packages": [{"group": "g"}]}}}, ": environment.spark: asks for Spark packages"),
    ({"environment": {"databricks": {"jarLibraries": ["x"]}}}, ": environment.databricks: asks for Databricks"),
    ({"environment": {"databricks": {"jarLibrary": ["x"]}}}, ": environment.databricks.jarLibrary: is not known here"),
    ({"environment": {"spark": {"package": []}}}, ": environment.spark.package: is not known here; did you mean `pack"),
    ({"environment": {"r": {"rVersion": "4"}}}, ": environment.r: asks for R packages"),
    ({"environment": {"docker": {"platform": {"os": "Windows"}}}}, ': environment.docker.platform.os = "Windows": is'),
    ({"environment": {"docker": {"platform": {"arch": "x"}}}}, ": environment.docker.platform.arch: is not known here"),
    ({"environment": {"pipPackages": ["-r x.txt"]}}, ': environment.pipPackages[0] = "-r x.txt": is not an option for'),
    ({"environment": {"pipPackages": ["sci kit"]}}, ': environment.pipPackages[0] = "sci kit": is not a requirement'),
    ({"environment": {"environmentVariables": {"A": 1}}}, ": environment.environmentVariables.A = 1: must be a text"),
    (
        {"environment": {"environmentVariables": {"WORKER_COUNT": "4"}}},
        ": environment.environmentVariables.WORKER_COUNT: is set by the runtime; leave it out; use replicaMax",
    ),
    (
        {"environment": {"environmentVariables": {"A=B": "4"}}},
        ": environment.environmentVariables.A=B: is not the name",
    ),
    (
        {"environment": {"python": {"condaDependencies": {"dependencies": ["numpy=1.2"]}}}},
        ': environment.python.condaDependencies.dependencies[0] = "numpy=1.2": is a conda package; the local target '
        "installs packages of pip only: move it under pip, for example numpy==1.2",
    ),
    (
        {"environment": {"python": {"condaDependencies": {"dependencies": ["python=3.6.2"]}}}},
        ': environment.python.condaDependencies.dependencies[0] = "python=3.6.2": Python 3.6.2; the local target runs',
    ),
    (
        {"environment": {"python": {"condaDependencies": {"dependencies": [{"pip": ["x y"]}]}}}},
        ': environment.python.condaDependencies.dependencies[0].pip[0] = "x y": is not a requirement',
    ),
    (
        {"environment": {"python": {"condaDependencies": {"dependencies": [7]}}}},
        ": environment.python.condaDependencies.dependencies[0] = 7: is neither",
    ),
]


@pytest.mark.parametrize(("change", "expected"), BAD_INFERENCE)
def test_a_wrong_inferenceconfig(change: dict[str, Any], expected: str) -> None:
    Path("a.yml").write_text("dependencies: []")
    found = inference({"entryScript": "score.py", "sourceDirectory": "src", **change})
    assert len(found) == 1, found
    assert found[0].startswith(f"inferenceconfig.json{expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "is not JSON: line 1"),
        ("[]", "is not a JSON object"),
        ('{"a": ' + "9" * 5000 + "}", "holds a number of more digits than are read"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_read(content: str | None, expected: str) -> None:
    if content is not None:
        write("x.json", content)
    for arguments in (("x.json", None), (None, "x.json")):
        made, found = read_inference(*arguments)
        assert made is None
        assert expected in found[0].text(Casing.SNAKE)


def test_a_folder_in_place_of_a_file() -> None:
    _, found = read_inference("src", None)
    assert found[0].text(Casing.SNAKE).startswith('inference_config = "src": cannot be read (Is a directory: ')


def test_either_the_object_or_the_file() -> None:
    _, found = read_inference({"entry_script": "score.py"}, "x.json")
    assert found[0].text(Casing.SNAKE).startswith('inference_config_file = "x.json": is given beside inference_config')


def test_a_conda_file_of_before_environments() -> None:
    Path("src/env.yml").write_text(f"name: x\ndependencies:\n- python={HERE}\n- pip\n- pip:\n  - numpy>=2\n")
    config = {"entryScript": "score.py", "sourceDirectory": "src", "runtime": "python", "condaFile": "env.yml"}
    assert inference(config) == []
    got, _ = read_inference("inferenceconfig.json", None)
    assert got is not None
    assert got.environment.environment.pip_packages == ("numpy>=2",)
    Path("src/env.yml").write_text("dependencies: [")
    assert "is not YAML" in inference(config)[0]
    Path("src/env.yml").write_text("- a")
    assert "is not a conda definition" in inference(config)[0]


AKS = {
    "computeType": "AKS",
    "autoScaler": {
        "autoscaleEnabled": True, "minReplicas": 2, "maxReplicas": 4, "refreshPeriodInSeconds": 2,
        "targetUtilization": 60,
    },
    "dataCollection": {"storageEnabled": False},
    "authEnabled": True,
    "tokenAuthEnabled": False,
    "containerResourceRequirements": {"cpu": 0.2, "cpuLimit": 1, "memoryInGB": 0.4, "memoryInGBLimit": 1},
    "gpuCores": 0,
    "appInsightsEnabled": False,
    "scoringTimeoutMs": 1000,
    "maxConcurrentRequestsPerContainer": 2,
    "maxQueueWaitMs": 100,
    "numReplicas": None,
    "keys": {"primaryKey": "first-key", "secondaryKey": "second-key"},
    "livenessProbeRequirements": {
        "periodSeconds": 11, "initialDelaySeconds": 12, "timeoutSeconds": 3, "successThreshold": 2,
        "failureThreshold": 4,
    },
    "namespace": "prod",
    "computeTargetName": "local",
}  # fmt: skip


def test_every_key_of_an_aks_deploymentconfig() -> None:
    made, errors = service(deployment_config=write("deploymentconfig.json", AKS))
    assert errors == []
    assert made is not None
    (version,) = made.endpoint.spec.versions
    assert version.scaling.model_dump(exclude={"num_replicas", "autoscale_scale_down_delay_seconds"}) == {
        "autoscale_enabled": True, "autoscale_min_replicas": 2, "autoscale_max_replicas": 4,
        "autoscale_refresh_seconds": 2, "autoscale_target_utilization": 60,
    }  # fmt: skip
    assert version.resources.model_dump() == {
        "cpu_cores": 0.2, "cpu_cores_limit": 1, "memory_gb": 0.4, "memory_gb_limit": 1, "gpu_cores": 0,
    }  # fmt: skip
    assert version.requests.model_dump(exclude={"max_queued_requests", "cold_start_timeout_ms"}) == {
        "scoring_timeout_ms": 1000, "replica_max_concurrent_requests": 2, "max_request_wait_time": 100,
    }  # fmt: skip
    assert list(version.liveness_probe.model_dump().values()) == [11, 12, 3, 2, 4]
    assert (made.primary_key, made.secondary_key, made.endpoint.metadata.namespace) == (
        "first-key",
        "second-key",
        "prod",
    )


def test_a_local_deploymentconfig() -> None:
    made, errors = service(deployment_config={"computeType": "local", "port": 8123})
    assert errors == []
    assert made is not None
    assert made.endpoint.spec.port == 8123


BAD_DEPLOYMENT: list[tuple[dict[str, Any], str]] = [
    ({"computeType": None}, "d.json: computeType: is required; add aks or local"),
    ({"computeType": "aci"}, 'd.json: computeType = "aci": Azure Container Instances are not supported yet'),
    ({"computeType": "ACI", "dnsNameLabel": "x"}, 'd.json: computeType = "ACI": Azure Container Instances'),
    ({"computeType": "kubernetes"}, 'd.json: computeType = "kubernetes": is not a compute type; use aks or local'),
    ({"computeType": "aksendpoint"}, 'd.json: computeType = "aksendpoint": belongs to a ControlledRolloutEndpoint'),
    ({"numReplica": 1}, "d.json: `numReplica` is not a key of computeType aks; did you mean `numReplicas`?"),
    ({"port": 80}, "d.json: `port` is not a key of computeType aks; it belongs to local"),
    ({"trafficPercentile": 80}, "d.json: `trafficPercentile` is not a key of computeType aks; it belongs to aksend"),
    ({"autoScaler": {"minReplica": 1}}, "d.json: autoScaler: `minReplica` is not a key of computeType aks; did you"),
    ({"autoScaler": 3}, "d.json: autoScaler = 3: must be an object"),
    ({"containerResourceRequirements": {"cpu": 0}}, "d.json: containerResourceRequirements.cpu = 0: must be above 0"),
    ({"containerResourceRequirements": {"gpu": 1}}, "d.json: containerResourceRequirements: `gpu` is not a key"),
    ({"gpuCores": 1}, "d.json: gpuCores = 1: is not supported on the local target yet"),
    ({"autoScaler": {"minReplicas": 2}}, "d.json: autoScaler.minReplicas = 2: has no effect without autoscale_enabled"),
    ({"dataCollection": {"storageEnabled": True}}, "model_data_store: is required with collect_model_data"),
    ({"keys": {"secondaryKey": "hush-hush"}}, "d.json: keys.secondaryKey: is given without primary_key"),
    ({"numReplicas": 0}, "d.json: numReplicas = 0: must be above 0; use 1 or more; leave it out to scale"),
    ({"numReplicas": "3"}, 'd.json: numReplicas = "3": must be a whole number'),
    ({"namespace": "A"}, 'd.json: namespace = "A": a name has'),
    ({"computeTargetName": "aks-1"}, 'd.json: computeTargetName = "aks-1": names another cluster than target'),
]


@pytest.mark.parametrize(("content", "expected"), BAD_DEPLOYMENT)
def test_a_wrong_deploymentconfig(content: dict[str, Any], expected: str) -> None:
    made, errors = service(deployment_config=write("d.json", {"computeType": "aks", **content}))
    assert made is None
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)


def test_a_setting_in_the_file_and_as_an_argument() -> None:
    content = {"computeType": "aks", "containerResourceRequirements": {"cpu": 0.2}, "numReplicas": 1}
    _, errors = service(deployment_config=write("d.json", content), cpu_cores=0.3)
    assert errors == ["cpu_cores: is also given in d.json: containerResourceRequirements.cpu; give it once"]


def test_keys_of_a_file_are_never_shown() -> None:
    for keys in ("hush", ["hush"], {"primaryKey": 5, "secondaryKey": ["hush"]}, {"primaryKey": "hush hush"}):
        made, errors = service(deployment_config=write("d.json", {"computeType": "aks", "keys": keys}))
        assert made is None
        assert errors
        assert "hush" not in "".join(errors)


def test_a_path_that_is_not_there() -> None:
    _, errors = service(deployment_config="gone.json")
    assert errors[0].startswith('deployment_config = "gone.json": does not exist')


@pytest.mark.parametrize("spelling", ["deployment_config", "deploymentConfig"])
def test_a_file_counts_whichever_way_its_argument_is_spelled(spelling: str) -> None:
    made, errors = service(**{spelling: {"computeType": "aks", "numReplicas": 3}})
    assert errors == []
    assert made is not None
    assert made.endpoint.spec.versions[0].scaling.num_replicas == 3
    _, errors = service(**{spelling: {"computeType": "aks", "numReplica": 3}})
    assert errors[0].startswith("deployment_config: `numReplica` is not a key")
    _, errors = service(cpuCores=0.3, **{spelling: {"computeType": "aks", "containerResourceRequirements": {"cpu": 1}}})
    assert errors == ["cpu_cores: is also given in deployment_config: containerResourceRequirements.cpu; give it once"]
    _, errors = service(cpuCores=0.3, cpu_cores=0.3)
    assert errors == ["cpu_cores: is given twice: as `cpuCores` and `cpu_cores`; give it once"]


def test_probe_settings_without_effect_are_told() -> None:
    probe = {"successThreshold": 2, "timeoutSeconds": 5}
    content = {"computeType": "aks", "livenessProbeRequirements": probe}
    config = {"entry_script": "src/score.py"}
    arguments = {"target": TARGET, "inference_config": config, "deployment_config": write("d.json", content)}
    made, findings = plan_service("service", arguments)
    assert made is not None
    assert {f.severity for f in findings} == {Severity.WARNING}
    assert [f.text(Casing.SNAKE).split(": has")[0] for f in findings] == [
        "d.json: livenessProbeRequirements.successThreshold = 2",
        "d.json: livenessProbeRequirements.timeoutSeconds = 5",
    ]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ({"deployment_config": {"computeType": "aks", 5: 1}}, "deployment_config: `5` is not a key of computeType aks"),
        ({"deployment_config": {"computeType": "aks", "keys": {5: 1}}}, "deployment_config: keys: `5` is not a key of"),
        ({"inference_config": {"entry_script": "src/score.py", 5: 1}}, "inference_config.5: is not known here; known"),
        ({"tags": {5: "x"}}, "tags[5]"),
    ],
)
def test_a_name_that_is_no_text(declared: dict[str, Any], expected: str) -> None:
    _, errors = service(**declared)
    assert len(errors) == 1, errors
    assert errors[0].startswith(expected)
