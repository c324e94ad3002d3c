"""Components as programs in other languages reach them: Construct with camelCase inputs, over the real protocol."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from aks_inference_runtime.api.target import KubernetesTarget, format_target
from provider_harness import SERVED

Json = dict[str, Any]

PREFIX = "aks-inference:index:"
TARGET = 'aks-inference+local:{"name": "local", "port": 8890, "stateDirectory": "/state"}'
SCRIPT = "def init():\n    pass\n\n\ndef run(data):\n    return data\n"


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "score.py"
    path.write_text(SCRIPT)
    return str(path)


@pytest.fixture
def model_file(tmp_path: Path) -> str:
    path = tmp_path / "model.bin"
    path.write_bytes(b"weights")
    return str(path)


def service(script: str) -> Json:
    return {
        "target": TARGET,
        "models": ["m:1"],
        "inferenceConfig": {
            "entryScript": script,
            "environment": {"pipPackages": ["numpy"], "environmentVariables": {"MODE": "x"}},
        },
        "numReplicas": 2.0,
        "replicaMaxConcurrentRequests": 3.0,
        "tags": {"team": "a"},
        "description": "d",
        "primaryKey": "key-k1-long",
        "secondaryKey": "key-k2-long",
    }


def rollout(script: str) -> Json:
    config = {"entryScript": script}
    return {
        "target": TARGET,
        "versions": [
            {"versionName": "first", "trafficPercentile": 90.0, "models": ["m:1"], "inferenceConfig": config},
            {"versionName": "second", "trafficPercentile": 10.0, "models": ["m:2"], "inferenceConfig": config},
        ],
    }


def cluster() -> Json:
    return {
        "agentCount": 3.0,
        "vmSize": "Standard_D3_v2",
        "clusterPurpose": "FastProd",
        "location": "westeurope",
        "network": {"plugin": "kubenet", "podCidr": "10.244.0.0/16"},
        "systemPool": {"count": 2.0},
        "resourceGroupName": "rg",
        "tags": {"team": "a"},
    }


def valid(kind: str, script: str, model_file: str) -> Json:
    inputs: dict[str, Callable[[], Json]] = {
        "LocalInferenceCluster": lambda: {"port": 8899.0},
        "RegisteredModel": lambda: {"target": TARGET, "modelPath": model_file, "tags": {"a": "b"}},
        "ModelWebService": lambda: service(script),
        "ControlledRolloutEndpoint": lambda: rollout(script),
        "AksInferenceCluster": cluster,
        "InferenceRuntime": lambda: {"image": "runtime:1", "clusterPurpose": "DevTest", "serviceType": "ClusterIP"},
    }
    return inputs[kind]()


CHILDREN = {
    "LocalInferenceCluster": [PREFIX + "LocalRuntime"],
    "RegisteredModel": [PREFIX + "Model"],
    "ModelWebService": [PREFIX + "LocalEndpoint"],
    "ControlledRolloutEndpoint": [PREFIX + "LocalEndpoint"],
    "AksInferenceCluster": [
        "azure-native:managedidentity:UserAssignedIdentity",
        PREFIX + "ClusterGuard",
        "azure-native:containerservice:ManagedCluster",
        "azure-native:containerservice:AgentPool",
        PREFIX + "PoolDrain",
    ],
    "InferenceRuntime": [
        "pulumi:providers:kubernetes",
        *([PREFIX + "ClusterObject"] * 2),
        "kubernetes:core/v1:Namespace",
        "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition",
        *(
            [
                "kubernetes:core/v1:ServiceAccount",
                "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole",
                "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding",
                "kubernetes:rbac.authorization.k8s.io/v1:Role",
                "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding",
            ]
            * 2
        ),
        *(["kubernetes:networking.k8s.io/v1:NetworkPolicy"] * 2),
        "kubernetes:scheduling.k8s.io/v1:PriorityClass",
        *(["kubernetes:core/v1:ConfigMap"] * 2),
        *(["kubernetes:apps/v1:Deployment"] * 2),
        *(["kubernetes:core/v1:Service"] * 2),
        PREFIX + "EndpointKeys",
        "kubernetes:core/v1:Secret",
    ],
}
KINDS = list(CHILDREN)


def registered(plugin: Any, kind: str) -> Json:
    """The inputs of the one resource of a type."""
    found = [each for each in plugin.monitor.registered if each.type == PREFIX + kind]
    assert len(found) == 1, plugin.monitor.types()
    return dict(json_format.MessageToDict(found[0].object))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all leaves."""
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))
    else:
        yield path


def replaced(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], change)
    return copy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preview", [True, False])
def test_a_component_registers_its_children(
    plugin: Any, kind: str, preview: bool, script: str, model_file: str
) -> None:
    inputs = valid(kind, script, model_file)
    answer = plugin.construct(kind, inputs, preview=preview)
    assert answer.urn == f"urn:pulumi:dev::proj::{PREFIX}{kind}::{kind.lower()}"
    first, *children = plugin.monitor.types()
    assert first == PREFIX + kind
    # What needs nothing of each other comes in any order.
    assert sorted(children) == sorted(CHILDREN[kind])
    parent, *own = plugin.monitor.registered
    assert {child.parent for child in own} == {answer.urn}
    assert all(child.version for child in own), "a child asks for a plugin of one version"
    assert set(inputs) <= set(parent.object.fields), "inputs show in diffs"


def test_the_same_inputs_register_the_same(plugin: Any, script: str) -> None:
    seen = []
    for _ in range(2):
        plugin.monitor.registered.clear()
        plugin.construct("ControlledRolloutEndpoint", rollout(script))
        seen.append([(each.type, each.name, registered(plugin, "LocalEndpoint")) for each in plugin.monitor.registered])
    assert seen[0] == seen[1]


def test_what_a_service_declares(plugin: Any, script: str, values: Any) -> None:
    plugin.construct("ModelWebService", service(script), name="my-service")
    inputs = registered(plugin, "LocalEndpoint")
    assert inputs["target"] == TARGET
    assert inputs["effectiveTraffic"] == {version["name"]: 100 for version in inputs["endpoint"]["spec"]["versions"]}
    assert inputs["primaryKey"] == values.secret("key-k1-long")
    endpoint = inputs["endpoint"]
    assert endpoint["metadata"]["name"] == "my-service"
    version = endpoint["spec"]["versions"][0]
    assert version["models"] == [{"name": "m", "version": 1}]
    assert version["requests"]["replicaMaxConcurrentRequests"] == 3
    assert version["scaling"]["numReplicas"] == 2
    assert not plugin.check("LocalEndpoint", inputs).failures, "what a component makes, the resource accepts"


def test_what_a_service_on_a_cluster_declares(plugin: Any, script: str, values: Any) -> None:
    """By the target's text alone, as programs in other languages have it."""
    target = KubernetesTarget(name="prod", namespace="system", image="runtime:1", kubeconfig="/secret/config")
    inputs = {**service(script), "target": format_target(target), "image": "scoring:1"}
    del inputs["models"]
    plugin.construct("ModelWebService", inputs, name="my-service", preview=True)
    assert sorted(plugin.monitor.types()[1:]) == sorted(["pulumi:providers:kubernetes", *SERVED])
    made = {each.type: json_format.MessageToDict(each.object) for each in plugin.monitor.registered}
    assert made["pulumi:providers:kubernetes"]["kubeconfig"] == values.secret("/secret/config")
    deployment = made["kubernetes:apps/v1:Deployment"]
    assert "replicas" not in deployment["spec"], "the scale is the autoscaler's"
    (version,) = made["kubernetes:aks-inference.dev/v1:ScoringEndpoint"]["spec"]["versions"]
    assert version["scaling"]["numReplicas"] == 2
    assert version["container"]["image"] == "scoring:1"
    assert made[PREFIX + "EndpointKeys"]["primaryKey"] == values.secret("key-k1-long")


def test_names_are_unique_among_the_components_of_a_deployment(plugin: Any, script: str, errors_of: Any) -> None:
    plugin.construct("ModelWebService", {**service(script), "serviceName": "taken"}, name="first")
    plugin.construct("ModelWebService", {**service(script), "serviceName": "taken"}, name="first")
    with pytest.raises(grpc.RpcError) as error:
        plugin.construct("ModelWebService", {**service(script), "serviceName": "taken"}, name="second")
    assert errors_of(error.value) == {
        "serviceName": "\"taken\": is also the name of ModelWebService 'first' on this target; choose another name"
    }


@pytest.mark.parametrize("preview", [True, False])
def test_a_known_target_that_is_an_output_is_judged_like_a_text(
    plugin: Any, script: str, values: Any, errors_of: Any, preview: bool
) -> None:
    """The form in which `${cluster.target}` arrives: its text is known in the preview, too."""
    inputs = {**service(script), "target": values.output(TARGET), "serviceName": "same", "port": 9001.0}
    plugin.construct("ModelWebService", inputs, name="one", preview=preview)
    assert values.plain(registered(plugin, "LocalEndpoint")["target"]) == TARGET
    with pytest.raises(grpc.RpcError) as error:
        plugin.construct("ModelWebService", inputs, name="other", preview=preview)
    assert set(errors_of(error.value)) == {"serviceName", "port"}
    aks = 'aks-inference+kubernetes:{"name": "prod", "clusterPurpose": "FastProd", "gpu": false}'
    with pytest.raises(grpc.RpcError) as error:
        plugin.construct("ModelWebService", {**inputs, "target": values.output(aks)}, name="third", preview=preview)
    assert set(errors_of(error.value)) == {"target"}


def test_what_an_aks_cluster_is_for_others_is_known_in_the_preview(plugin: Any, values: Any) -> None:
    """So that a service on it is judged before the cluster is made; it waits for the cluster all the same."""
    answer = plugin.construct("AksInferenceCluster", cluster(), preview=True)
    state = json_format.MessageToDict(answer.state)
    assert values.plain(state["target"]).startswith("aks-inference+kubernetes:")
    assert any("ManagedCluster" in urn for urn in answer.stateDependencies["target"].urns)


def test_what_a_rollout_declares(plugin: Any, script: str) -> None:
    plugin.construct("ControlledRolloutEndpoint", rollout(script))
    inputs = registered(plugin, "LocalEndpoint")
    assert inputs["effectiveTraffic"] == {"first": 90, "second": 10}
    assert not plugin.check("LocalEndpoint", inputs).failures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preview", [True, False])
def test_each_leaf_in_each_form(
    plugin: Any, kind: str, preview: bool, script: str, model_file: str, values: Any, errors_of: Any
) -> None:
    """A leaf that may be an output is taken; one that must be plain is refused by name: nothing crashes, nothing is
    dropped, no secret gets out."""
    inputs = valid(kind, script, model_file)
    forms: dict[str, Callable[[Any], Any]] = {
        "output": values.output,
        "secret output": lambda value: values.output(value, secret=True),
        "secret": values.secret,
    }
    if preview:
        forms |= {"unknown output": lambda _: values.output(), "unknown": lambda _: values.UNKNOWN}
    for path in places(inputs):
        for form, make in forms.items():
            plugin.monitor.registered.clear()
            changed = replaced(inputs, path, make)
            error = _refusal(plugin, kind, changed, preview)
            if error is not None:
                found = errors_of(error)
                assert found, (path, form, error.details())
                assert all(str(path[0]) in place for place in found), (path, form, found)
                assert not plugin.monitor.registered, (path, form)
                continue
            assert plugin.monitor.registered, (path, form)
            if "secret" in form:
                said = " ".join(log.message for log in plugin.engine.logs)
                assert path[-1] not in ("primaryKey", "secondaryKey") or "key-k1-long" not in said
                shown = _parent_input(plugin, path[0])
                assert values.plain(shown) != shown, ("still a secret", path, form)


def _refusal(plugin: Any, kind: str, inputs: Json, preview: bool) -> grpc.RpcError | None:
    try:
        plugin.construct(kind, inputs, preview=preview)
    except grpc.RpcError as error:
        return error
    return None


def _parent_input(plugin: Any, name: str) -> Any:
    return json_format.MessageToDict(plugin.monitor.registered[0].object)[name]


@pytest.mark.parametrize(
    ("kind", "path", "wrong", "right"),
    [
        ("LocalInferenceCluster", (), "prot", "port"),
        ("RegisteredModel", (), "modelPaht", "modelPath"),
        ("AksInferenceCluster", (), "agentCounts", "agentCount"),
        ("AksInferenceCluster", ("network",), "podCdir", "podCidr"),
        ("AksInferenceCluster", ("systemPool",), "vmsize", "vmSize"),
        ("ModelWebService", (), "autoscaleEnable", "autoscaleEnabled"),
        ("ModelWebService", (), "num_replica", "numReplicas"),
        ("ModelWebService", ("inferenceConfig",), "entryScrip", "entryScript"),
        ("ModelWebService", ("inferenceConfig", "environment"), "pipPackage", "pipPackages"),
        ("ControlledRolloutEndpoint", (), "version", "versions"),
        ("ControlledRolloutEndpoint", ("versions", 1), "trafficPercent", "trafficPercentile"),
        ("ControlledRolloutEndpoint", ("versions", 0, "inferenceConfig"), "sourceDir", "sourceDirectory"),
    ],
)
def test_a_misspelt_name(
    plugin: Any,
    kind: str,
    path: tuple[Any, ...],
    wrong: str,
    right: str,
    script: str,
    model_file: str,
    errors_of: Any,
) -> None:
    inputs = replaced(valid(kind, script, model_file), path, lambda value: {**value, wrong: "x"})
    with pytest.raises(grpc.RpcError) as caught:
        plugin.construct(kind, inputs, preview=True)
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in (*path, wrong)).lstrip(".")
    found = errors_of(caught.value)
    assert right in found.get(where, ""), (where, found)
    assert not plugin.monitor.registered
    assert "Traceback" not in caught.value.details()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_all_that_is_wrong_at_once(plugin: Any, script: str, errors_of: Any) -> None:
    inputs = rollout(script)
    inputs["versions"][0] |= {"trafficPercentile": 80.0, "cpuCore": 1.0}
    inputs["versions"][1] |= {"trafficPercentile": 50.0, "numReplicas": 2.5, "versionName": "X"}
    inputs["tagz"] = {}
    del inputs["target"]
    with pytest.raises(grpc.RpcError) as caught:
        plugin.construct("ControlledRolloutEndpoint", inputs, preview=True)
    found = errors_of(caught.value)
    assert {
        "target",
        "tagz",
        "versions[0].cpuCore",
        "versions[1].numReplicas",
        "versions[1].versionName",
    } <= set(found), found
    assert "130" in json.dumps(found)
    assert not plugin.monitor.registered


@pytest.mark.parametrize("form", ["output", "unknown", "secret"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("ModelWebService", "inferenceConfig"),
        ("ControlledRolloutEndpoint", "versions"),
        ("RegisteredModel", "tags"),
        ("AksInferenceCluster", "network"),
    ],
)
def test_a_container_that_is_an_output_is_refused(
    plugin: Any, kind: str, name: str, form: str, script: str, model_file: str, values: Any, errors_of: Any
) -> None:
    inputs = valid(kind, script, model_file)
    make = {"output": values.output, "unknown": lambda _: values.output(), "secret": values.secret}[form]
    inputs[name] = make(inputs[name])
    with pytest.raises(grpc.RpcError) as caught:
        plugin.construct(kind, inputs, preview=True)
    assert any(place.startswith(name) for place in errors_of(caught.value)), errors_of(caught.value)
    assert not plugin.monitor.registered


def test_constructs_at_the_same_time_do_not_mix(plugin: Any, script: str) -> None:
    def construct(index: int) -> str:
        inputs = {**service(script), "description": f"number {index}", "cpuCores": 0.01, "memoryGb": 0.01}
        return str(plugin.construct("ModelWebService", inputs, name=f"together-{index}", preview=True).urn)

    with ThreadPoolExecutor(12) as pool:
        urns = list(pool.map(construct, range(24)))
    assert urns == [f"urn:pulumi:dev::proj::{PREFIX}ModelWebService::together-{index}" for index in range(24)]
    children = {each.name: each for each in plugin.monitor.registered if each.type == PREFIX + "LocalEndpoint"}
    assert len(children) == 24
    for index in range(24):
        child = children[f"together-{index}"]
        assert child.parent == urns[index]
        assert f'"number {index}"' in json.dumps(json_format.MessageToDict(child.object))
