"""The rules of registries, custom images and environments that become images; and the pods that run from them."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from aks_inference.findings import Casing, Finding, Severity
from aks_inference.inference_runtime.spec import plan_runtime
from aks_inference.service.endpoint import EndpointPlan
from aks_inference.service.replicas import Replica, deployment
from aks_inference.service.spec import plan_service
from aks_inference.values import SECRETS
from aks_inference_runtime.api.target import (
    KubernetesTarget,
    LocalTarget,
    RegistrySettings,
    format_target,
    parse_target,
)

REGISTRY = RegistrySettings(server="registry.example", username="me", password="secret-word")
CLUSTER = KubernetesTarget(name="prod", namespace="aks-inference-system", image="runtime:1", registry=REGISTRY)
TARGET = format_target(CLUSTER)
CONFIG = {"entry_script": "score.py", "source_directory": "code"}
CUSTOM = {"image": "vllm:1", "port": 8000, "score_path": "/v1/completions"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text("def init(): pass\ndef run(data): return data\n")
    return tmp_path


def plan(**arguments: Any) -> tuple[EndpointPlan | None, list[Finding]]:
    return plan_service("churn", {"target": TARGET, **arguments})


def planned(**arguments: Any) -> EndpointPlan:
    found, findings = plan(**arguments)
    assert found is not None, findings
    return found


def camel(value: Any) -> Any:
    return {to_camel(key): camel(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def environment(**keys: Any) -> dict[str, Any]:
    return {"inference_config": {**CONFIG, "environment": keys}}


def errors(findings: list[Finding]) -> list[str]:
    return [f.text(Casing.SNAKE) for f in findings if f.severity is Severity.ERROR]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "inference_config"),
    (environment(dockr={}), "inference_config.environment.dockr: "),
    (environment(docker={"base_image": "A B"}), "inference_config.environment.docker.base_image: 'A B'"),
    (environment(pip_packages=["not a requirement"]), "inference_config.environment.pip_packages[0]: "),
    (environment(environment_variables={"WORKER_COUNT": "2"}), "inference_config.environment.environment_variables"),
    ({"inference_config": {**CONFIG, "enable_gpu": True}}, "inference_config.enable_gpu: is no part of an image"),
    ({"inference_config": {**CONFIG, "base_image": "a:1", "environment": {}}}, "inference_config.base_image"),
    ({"custom_image": CUSTOM, "inference_config": CONFIG}, "inference_config: cannot be combined with custom_image"),
    ({"custom_image": CUSTOM, "image": "i:1"}, "image: cannot be combined with custom_image"),
    ({"custom_image": {"image": "vllm:1"}}, "custom_image.port: is required"),
    ({"custom_image": {**CUSTOM, "score_path": "score"}}, 'custom_image.score_path = "score": is no path'),
    ({"custom_image": {**CUSTOM, "image": "A B"}}, 'custom_image.image = "A B": is not '),
    ({"custom_image": {**CUSTOM, "shm_size": "much"}}, 'custom_image.shm_size = "much": is not a size'),
    (environment(docker={"shm_size": "0g"}), 'inference_config.environment.docker.shm_size = "0g": is not a size'),
    (environment(docker={"shm_size": 2}), "inference_config.environment.docker.shm_size = 2: must be a text"),
    (environment(docker={"arguments": ["--init"]}), "inference_config.environment.docker.arguments = ["),
    ({"custom_image": {**CUSTOM, "user": 0}}, "custom_image.user = 0: must be at least 1"),
    ({"custom_image": {**CUSTOM, "prot": 1}}, "custom_image.prot: is not known here; did you mean `port`?"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_a_broken_rule(arguments: dict[str, Any], said: str) -> None:
    found, findings = plan(**arguments)
    assert found is None
    assert any(text.startswith(said) for text in errors(findings)), errors(findings)


def test_without_a_registry_the_image_is_asked_for() -> None:
    bare = format_target(CLUSTER.model_copy(update={"registry": None}))
    found, findings = plan(target=bare, inference_config=CONFIG)
    assert found is None
    assert errors(findings)[0].startswith("image: is required on a Kubernetes target without a registry; add image")
    assert plan(target=bare, custom_image=CUSTOM)[0] is not None


def test_an_ignored_script_is_refused(project: Path) -> None:
    (project / "code" / ".amlignore").write_text("score.py\n")
    found, findings = plan(inference_config=CONFIG)
    assert found is None
    assert "is ignored by .amlignore" in errors(findings)[0]


@pytest.mark.parametrize("file", ["", "inferenceconfig.json"])
def test_limits_of_folders_are_raised_in_the_program_or_its_file(project: Path, file: str) -> None:
    (project / "code" / "large").write_bytes(bytes(3_000_000))
    (project / "context").mkdir()
    (project / "context" / "Dockerfile").write_text("FROM base:1\n")

    def given(**limits: int) -> dict[str, Any]:
        docker = {"build_context": {"location_type": "local", "location": str(project / "context")}}
        config = {**CONFIG, "environment": {"docker": docker}, **limits}
        if not file:
            return {"inference_config": config}
        (project / file).write_text(json.dumps(camel(config)))
        return {"inference_config_file": file}

    found, findings = plan(**given(max_mb=2, max_files=1))
    assert found is None
    (size, files) = errors(findings)
    assert "holds 2.9 MB, more than 2.0 MB: largest are large (2.9 MB), score.py" in size
    assert size.endswith(", or raise max_mb")
    assert files.endswith(", or raise max_files")
    content = planned(**given(max_mb=4, max_files=3)).versions[0].image.content
    assert content is not None
    assert (content["maxMb"], content["maxFiles"]) == (4, 3)
    content = planned(**given()).versions[0].image.content
    assert content is not None
    assert not {"maxMb", "maxFiles"} & set(content), "Azure ML's limits hold"
    assert "must be at least 1" in errors(plan(**given(max_mb=0))[1])[0]


def test_what_becomes_an_image() -> None:
    docker = {"base_image": "base:1", "base_image_registry": {"address": "r", "username": "u", "password": "hidden"}}
    keys = environment(pip_packages=["a"], docker=docker, environment_variables={"LEVEL": 3})
    (version,) = planned(**keys).versions
    content = version.image.content
    assert content is not None
    assert content["environment"] == {"pipPackages": ["a"], "docker": {"baseImage": "base:1"}}
    assert content["baseLogin"]["password"] == "hidden"
    assert (content["scoringServer"], content["entryScript"]) == (True, "score.py")
    assert version.version.environment.environment_variables == {"LEVEL": "3"}, "of the replicas, not of the image"


@pytest.mark.parametrize("keys", [{"name": "AzureML-ScikitLearn"}, {"clone_of": "AzureML-ScikitLearn"}])
def test_curated_environments(keys: dict[str, Any], project: Path) -> None:
    local = format_target(LocalTarget(name="local", state_directory=str(project)))
    for target in (TARGET, local):
        (version,) = planned(target=target, **environment(**keys)).versions
        assert "scikit-learn==1.9.1" in version.version.environment.pip_packages


def test_older_keys_mean_an_environment(project: Path) -> None:
    (project / "code" / "steps").write_text("RUN true")
    older = {**CONFIG, "base_image": "base:1", "extra_docker_file_steps": "steps"}
    (version,) = planned(inference_config=older).versions
    assert version.image.content is not None
    docker = version.image.content["environment"]["docker"]
    assert docker == {"baseImage": "base:1", "extraDockerFileSteps": "RUN true"}


def pod_of(image: object = None, **arguments: Any) -> dict[str, Any]:
    found = planned(**arguments)
    (version,) = found.versions
    run = version.image
    replica = Replica(
        found.name,
        "default",
        version.version,
        CLUSTER,
        version.placing,
        image=image,
        custom=run.custom,
        shared_memory=run.shared_memory,
    )
    pod: dict[str, Any] = deployment(replica)["spec"]["template"]["spec"]
    return pod


def test_a_built_image_has_the_code() -> None:
    pod = pod_of("registry.example/s@sha256:1", inference_config=CONFIG)
    (scoring,) = pod["containers"]
    assert scoring["image"] == "registry.example/s@sha256:1"
    assert [volume["name"] for volume in pod["volumes"]] == ["run", "tmp"]
    assert [mount["name"] for mount in scoring["volumeMounts"]] == ["tmp"]
    assert scoring["workingDir"] == "/var/azureml-app/code"
    (alone,) = pod_of("i", inference_config={"entry_script": "code/score.py"})["containers"]
    assert alone["command"][2] == "/var/azureml-app/score.py"
    assert alone["workingDir"] == "/var/azureml-app"


def test_a_custom_image_in_a_pod() -> None:
    more = {"command": ["serve"], "arguments": ["--fast"], "user": 1000, "writable": True}
    pod = pod_of(custom_image={**CUSTOM, **more, "environment_variables": {"A": "1"}})
    (container,) = pod["containers"]
    assert (container["image"], container["command"], container["args"]) == ("vllm:1", ["serve"], ["--fast"])
    assert container["env"] == [{"name": "A", "value": "1"}]
    security = container["securityContext"]
    assert (security["runAsUser"], security["readOnlyRootFilesystem"]) == (1000, False)
    assert security["allowPrivilegeEscalation"] is False
    gate = pod["initContainers"][0]["env"][0]["value"]
    assert '"scorePath": "/v1/completions"' in gate
    assert '"upstreamPort": 8000' in gate


@pytest.mark.parametrize(
    ("arguments", "megabytes"),
    [
        ({"custom_image": {**CUSTOM, "shm_size": "2g"}}, 2048),
        ({"custom_image": CUSTOM}, None),
        (environment(docker={"shm_size": "64 MB"}), 64),
        (environment(docker={"shmSize": "1.5Gb", "arguments": []}), 1536),
        (environment(docker={"shm_size": "1048577"}), 2),
        ({**environment(docker={"shm_size": "512m"}), "image": "given:1"}, 512),
        (environment(), None),
    ],
)
def test_shared_memory(arguments: dict[str, Any], megabytes: int | None) -> None:
    pod = pod_of(**arguments)
    found = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]
    assert found == ([] if megabytes is None else [{"medium": "Memory", "sizeLimit": f"{megabytes}Mi"}])
    (container,) = pod["containers"]
    assert ({"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]) is (megabytes is not None)


def test_the_registry_travels_with_the_target_and_its_password_is_not_shown() -> None:
    read = parse_target(TARGET)
    assert isinstance(read, KubernetesTarget)
    assert read.registry == REGISTRY
    assert "secret-word" not in repr(read)


REGISTRIES = "providers/Microsoft.ContainerRegistry/registries"
WRONG_REGISTRY: list[tuple[dict[str, Any], str]] = [
    ({}, "registry.server: is required"),
    ({"server": "https://x y"}, 'registry.server = "https://x y": is not a registry'),
    ({"server": "r", "tier": "Gold"}, 'registry.tier = "Gold": is not known; use Basic'),
    ({"server": "r", "builder": "kaniko"}, 'registry.builder = "kaniko": is not known'),
    ({"server": "r", "username": "me"}, "registry.password: is missing"),
    ({"server": "r", "shared_registries": ["a b"]}, 'registry.shared_registries[0] = "a b": is not a registry'),
    ({"server": "r", "base_image": "A B"}, 'registry.base_image = "A B": is not'),
    (
        {"server": "r", "builder": "acr-tasks"},
        'registry.builder = "acr-tasks": builds in a registry of Azure\'s, and server is none (…azurecr.io); choose',
    ),
    ({"server": "a.azurecr.io", "resource_id": "/x"}, 'registry.resource_id = "/x": is not the id of a registry'),
]


@pytest.mark.parametrize(("registry", "said"), WRONG_REGISTRY)
def test_a_wrong_registry(registry: dict[str, Any], said: str) -> None:
    found, findings = plan_runtime("runtime", {"registry": registry})
    assert found is None
    assert any(text.startswith(said) for text in errors(findings)), errors(findings)


@pytest.mark.parametrize(
    "registry",
    [
        {"server": "team.azurecr.io/environments", "builder": "acr-tasks"},
        {
            "server": "images.example",
            "builder": "acr-tasks",
            "resource_id": f"/subscriptions/s/resourceGroups/g/{REGISTRIES}/teamimages",
        },
    ],
)
def test_a_registry_that_azure_builds_in(registry: dict[str, Any]) -> None:
    found, findings = plan_runtime("runtime", {"registry": registry})
    assert found is not None, findings


def test_the_runtime_needs_an_image_or_a_registry() -> None:
    found, findings = plan_runtime("runtime", {})
    assert found is None
    assert errors(findings)[0].startswith("image: is required, or registry")
    found, findings = plan_runtime("runtime", {"registry": {"server": "registry.example"}})
    assert found is not None, findings
    assert found.image.startswith("registry.example/aks-inference/runtime:")
    assert found.builds
    given, _ = plan_runtime("runtime", {"image": "mine:1", "registry": {"server": "registry.example"}})
    assert given is not None
    assert (given.image, given.builds) == ("mine:1", False)


def test_passwords_are_secret_among_a_components_inputs() -> None:
    assert "password" in SECRETS
