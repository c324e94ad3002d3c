"""Targets of programs in other languages: what Construct brings of `${cluster.target}`, at preview and at apply."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from pulumi.runtime.proto import provider_pb2

from aks_inference_runtime.api.target import KubernetesTarget, format_target
from provider_harness import SERVED

Json = dict[str, Any]
PREFIX = "aks-inference:index:"
KUBECONFIG = "apiVersion: v1"


@pytest.fixture
def service(tmp_path: Path) -> Json:
    script = tmp_path / "score.py"
    script.write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    return {"inferenceConfig": {"entryScript": str(script)}, "image": "scoring:1", "primaryKey": "key-k1-long"}


def on_cluster(**more: Any) -> str:
    return format_target(KubernetesTarget(name="prod", namespace="system", image="runtime:1", **more))


@pytest.mark.parametrize("preview", [True, False])
@pytest.mark.parametrize("form", ["secret", "secret output"])
def test_a_secret_target_is_known(plugin: Any, service: Json, values: Any, preview: bool, form: str) -> None:
    """As `${cluster.target}` of a cluster with a kubeconfig arrives once the cluster is there."""
    text = on_cluster(kubeconfig=KUBECONFIG)
    target = values.secret(text) if form == "secret" else values.output(text, secret=True)
    plugin.construct("ModelWebService", {**service, "target": target}, name="churn", preview=preview)
    assert sorted(plugin.monitor.types()[1:]) == sorted(["pulumi:providers:kubernetes", *SERVED])
    made = {each.type: json_format.MessageToDict(each.object) for each in plugin.monitor.registered}
    looking = ("pulumi:providers:kubernetes", PREFIX + "EndpointName")
    assert [made[one]["kubeconfig"] for one in looking] == [values.secret(KUBECONFIG)] * 2
    for each in plugin.monitor.registered:
        if each.type not in (PREFIX + "ModelWebService", *looking):
            assert KUBECONFIG not in json.dumps(json_format.MessageToDict(each.object)), each.type


def test_what_is_wrong_on_a_secret_target_is_said_at_preview_without_the_secret(
    plugin: Any, service: Json, values: Any, errors_of: Any
) -> None:
    bare = KubernetesTarget(name="prod", kubeconfig=KUBECONFIG)
    del service["image"]
    for text in (format_target(bare), f"no-target {KUBECONFIG}"):
        with pytest.raises(grpc.RpcError) as caught:
            plugin.construct("ModelWebService", {**service, "target": values.secret(text)}, preview=True)
        found = errors_of(caught.value)
        assert set(found) == {"target"}
        assert KUBECONFIG not in str(caught.value.details()) + str(found)


def test_a_new_cluster_and_its_service_as_a_program_in_node_declares_them(plugin: Any, tmp_path: Path) -> None:
    """Recorded requests: at preview the target is unknown, as the kubeconfig is, and named by what it comes from."""
    (tmp_path / "score.py").write_text("def init():\n    pass\n\n\ndef run(data):\n    return data\n")
    text = (Path(__file__).parent / "recorded" / "new-cluster-and-service.json").read_text()
    for word, value in (("MONITOR", plugin.engine_address), ("SOURCE", str(tmp_path)), ("KUBECONFIG", KUBECONFIG)):
        text = text.replace(word, value)
    recorded = json.loads(text)
    azure_id = "/subscriptions/1/resourceGroups/g/providers/Microsoft.ContainerService/managedClusters/prod"
    plugin.monitor.ids["azure-native:containerservice:ManagedCluster"] = azure_id
    seen = []
    for phase in ("preview", "apply"):
        plugin.monitor.registered.clear()
        cluster, service = (json_format.ParseDict(each, provider_pb2.ConstructRequest()) for each in recorded[phase])
        assert ("value" in recorded[phase][1]["inputs"]["target"]) == (phase == "apply")
        plugin.construct_as(cluster)
        plugin.construct_as(service)
        whose = f"urn:pulumi:dev::proj::{PREFIX}ModelWebService::churn"
        own = [each for each in plugin.monitor.registered if each.parent == whose]
        assert sorted(each.type for each in own) == SERVED
        providers = {each.provider.rpartition("::")[0] for each in own if each.type.startswith("kubernetes:")}
        assert providers == {"urn:pulumi:dev::proj::pulumi:providers:kubernetes::prod"}, "that of the cluster"
        for each in own:
            if each.type.startswith("kubernetes:"):
                assert any("CustomResourceDefinition" in urn for urn in each.dependencies), "what it runs on goes last"
        seen.append(sorted((each.type, each.name) for each in own))
    assert seen[0] == seen[1]


def test_the_hosts_of_a_service_are_told(plugin: Any, service: Json) -> None:
    """The cluster and its list of hosts are made before its services are heard of."""
    del service["primaryKey"]
    given = {**service, "image": "acme.azurecr.io/churn:1", "target": on_cluster(), "tokenAuthEnabled": True}
    issuer = {"tokenIssuer": "https://login.example.com/v2", "tokenAudiences": ["churn"]}
    plugin.construct("ModelWebService", {**given, **issuer}, name="churn", preview=True)
    (told,) = [log.message for log in plugin.engine.logs if "hosts that it needs" in log.message]
    assert "images from acme.azurecr.io; tokens of login.example.com" in told


def runtime_urn(name: str) -> str:
    return f"urn:pulumi:dev::proj::{PREFIX}InferenceRuntime::{name}"


def test_the_last_of_the_clusters_that_a_target_comes_from_is_meant(plugin: Any, service: Json, values: Any) -> None:
    """A kubeconfig may come from another cluster of the same program."""
    kubeconfig = {"image": "runtime:1", "kubeconfig": values.output(secret=True)}
    for name in ("first", "second", "third"):
        plugin.construct("InferenceRuntime", kubeconfig, name=name, preview=True)
    plugin.monitor.registered.clear()
    depends = {"target": [runtime_urn("second"), runtime_urn("first"), "urn:pulumi:dev::proj::a:b:C::d"]}
    given = {**service, "target": values.output(secret=True)}
    plugin.construct("ModelWebService", given, name="churn", preview=True, depends=depends)
    providers = {each.provider for each in plugin.monitor.registered if each.type.startswith("kubernetes:")}
    assert {each.rpartition("::")[0].rpartition("::")[2] for each in providers} == {"second"}


def test_a_known_text_decides_where_it_names_another_cluster(plugin: Any, service: Json, values: Any) -> None:
    plugin.construct("InferenceRuntime", {"image": "runtime:1"}, name="staging")
    plugin.monitor.registered.clear()
    given = {**service, "target": values.output(on_cluster(), secret=True)}
    plugin.construct("ModelWebService", given, name="churn", depends={"target": [runtime_urn("staging")]})
    assert plugin.monitor.types().count("pulumi:providers:kubernetes") == 1, "one of its own"


def test_services_are_fitted_on_the_pools_of_their_cluster(
    plugin: Any, service: Json, values: Any, errors_of: Any
) -> None:
    inputs = {"location": "westeurope", "vmSize": "Standard_D4s_v5", "runtime": {"image": "runtime:1"}}
    plugin.construct("AksInferenceCluster", inputs, name="prod", preview=True)
    depends = {"target": [f"urn:pulumi:dev::proj::{PREFIX}AksInferenceCluster::prod"]}
    given = {**service, "target": values.output(secret=True), "autoscaleEnabled": False, "cpuCores": 2.0}
    plugin.construct("ModelWebService", given | {"numReplicas": 2.0}, name="one", preview=True, depends=depends)
    plugin.monitor.registered.clear()
    with pytest.raises(grpc.RpcError) as caught:
        plugin.construct("ModelWebService", given | {"numReplicas": 9.0}, name="two", preview=True, depends=depends)
    (reason,) = errors_of(caught.value).values()
    assert "cannot fit on the nodes of prod" in reason
    assert not plugin.monitor.registered
