"""A namespace or the definition that was in the cluster before the runtime: told, used, and left as it was."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources.base import Caution, Operation, State, Urn
from aks_inference_provider.resources.cluster_object import CRD, DEFINITION, NAMESPACE, ClusterObject, pulumis
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api import kubernetes as k8s
from aks_inference_runtime.api.crd import CRD_NAME, crd
from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from testbed.project import Project

URN = Urn.parse("urn:pulumi:dev::shop::aks-inference:index:ClusterObject::runtime-found-namespace")
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))
MANAGER = "pulumi-kubernetes-0123abcd"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
ONE = ClusterObject()


@pytest.fixture
def inputs(cluster: Any, namespace: str) -> dict[str, Any]:
    """Of the namespace's record."""
    return {"kind": NAMESPACE, "namespace": namespace, "kubeconfig": str(cluster.kubeconfig)}


def space(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def applied(cluster: Any) -> list[str]:
    """By the stacks of other tests, which may be there still."""
    return pulumis(cluster.api.get(DEFINITION).body)


def remembered(live: dict[str, Any]) -> dict[str, Any]:
    """What an object is, for whoever has it."""
    metadata = {name: live["metadata"].get(name) for name in ("uid", "labels", "annotations", "finalizers")}
    managers = sorted(one["manager"] for one in live["metadata"]["managedFields"])
    return copy.deepcopy({"metadata": metadata, "spec": live.get("spec"), "managers": managers})


async def test_what_is_there_is_told_used_and_let_go(cluster: Any, namespace: str, inputs: dict[str, Any]) -> None:
    path, definition = f"/api/v1/namespaces/{namespace}", {**inputs, "kind": CRD}
    assert cluster.api.merge(path, {"metadata": {"labels": {"team": "a"}}}).status == 200
    before = {one: remembered(cluster.api.get(one).body) for one in (path, DEFINITION)}
    (own,), (shared,) = await ONE.notes(inputs, None), await ONE.notes(definition, None)
    assert isinstance(own, Caution)
    assert own.startswith(f"namespace: '{namespace}' is in the cluster already (since 20")
    assert "labels team=a): its pods are held to Pod Security restricted" in own
    assert isinstance(shared, Caution)
    assert shared.startswith(f"the definition {CRD_NAME} is in the cluster already (since 20")
    assert re.search(r"; applied by (\S+, )*test[);]", shared)
    states = []
    for given, name, managers in ((inputs, namespace, []), (definition, CRD_NAME, applied(cluster))):
        made = await ONE.create(OPERATION, given)
        assert made.id == name
        assert (made.computed["found"], made.computed["managers"]) == (True, managers)
        states.append(State(made.id, given, {**given, **made.computed}))
    # As Pulumi applies it.
    assert cluster.api.apply(path, space(namespace), MANAGER).status == 200
    assert cluster.api.apply(DEFINITION, crd(), MANAGER).status == 200
    assert cluster.api.get(path).body["metadata"]["labels"].items() >= RESTRICTED.items()
    # As the autoscaler and cert-manager leave it, beside what is not the runtime's.
    secrets, leases = f"{path}/secrets", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    for name in (k8s.ISSUED_TLS_NAME, k8s.ACME_ACCOUNT_NAME, "theirs"):
        assert cluster.api.create(secrets, {"metadata": {"name": name}}).status == 201
    assert cluster.api.create(leases, {"metadata": {"name": k8s.AUTOSCALER_NAME}}).status == 201
    for state in states:
        assert await ONE.notes(state.inputs, state) == [], "told once"
        await ONE.delete(OPERATION, state)
    assert {one: remembered(cluster.api.get(one).body) for one in before} == before
    left = [one["metadata"]["name"] for path in (secrets, leases) for one in cluster.api.get(path).body["items"]]
    assert left == ["theirs"]


async def test_what_another_stack_applied_stays_applied(cluster: Any, namespace: str, inputs: dict[str, Any]) -> None:
    path, theirs = f"/api/v1/namespaces/{namespace}", "pulumi-kubernetes-99999999"
    assert cluster.api.apply(path, space(namespace), theirs).status == 200
    made = await ONE.create(OPERATION, inputs)
    assert made.computed["managers"] == [theirs]
    before = remembered(cluster.api.get(path).body)
    assert cluster.api.apply(path, space(namespace), MANAGER).status == 200
    await ONE.delete(OPERATION, State(made.id, inputs, {**inputs, **made.computed}))
    assert remembered(cluster.api.get(path).body) == before


@pytest.mark.long
async def test_what_was_not_there_goes(cluster: Any, defined_again: None, inputs: dict[str, Any], until: Any) -> None:
    inputs["namespace"] += "-new"
    path = f"/api/v1/namespaces/{inputs['namespace']}"
    cluster.api.delete(DEFINITION)
    until(lambda: cluster.api.get(DEFINITION).status == 404)
    for one, body, given in (
        (path, space(inputs["namespace"]), inputs),
        (DEFINITION, crd(), {**inputs, "kind": CRD}),
    ):
        assert await ONE.notes(given, None) == []
        made = await ONE.create(OPERATION, given)
        assert not made.computed["found"]
        assert cluster.api.apply(one, body, MANAGER).status == 201
        state = State(made.id, given, {**given, **made.computed})
        if cluster.has_controllers:
            # Who empties what goes.
            await ONE.delete(OPERATION, state)
            assert cluster.api.get(one).status == 404
            await ONE.delete(OPERATION, state)


async def test_others_keep_their_endpoints(
    cluster: Any, defined_again: None, namespace: str, inputs: dict[str, Any]
) -> None:
    version = {
        "name": "blue",
        "isDefault": True,
        "trafficPercentile": 100,
        "code": {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"},
    }
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "theirs"}, "spec": {"versions": [version]}}
    where = f"/apis/{API_VERSION}/namespaces/{namespace}/scoringendpoints"
    assert cluster.api.create(where, body).status == 201
    for kind, path in ((CRD, DEFINITION), (NAMESPACE, f"/api/v1/namespaces/{namespace}")):
        given = {**inputs, "kind": kind}
        await ONE.delete(OPERATION, State(CRD_NAME, given, {**given, "found": False, "managers": []}))
        assert cluster.api.get(f"{where}/theirs").status == 200
        assert not cluster.api.get(path).body["metadata"].get("deletionTimestamp")


@pytest.fixture
def routed(cluster: Any) -> Iterator[Callable[..., None]]:
    """`routed(namespace, mark)`: there is a runtime, as Pulumi applies it; the mark says of which stack."""
    made = []

    def make(namespace: str, mark: str | None = None, manager: str = MANAGER) -> None:
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{k8s.ROUTER_NAME}"
        labels = {"matchLabels": {"app": "router"}}
        template = {"metadata": {"labels": {"app": "router"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}
        annotations = {} if mark is None else {k8s.STACK_ANNOTATION: mark}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": k8s.ROUTER_NAME, "annotations": annotations},
            "spec": {"replicas": 0, "selector": labels, "template": template},
        }
        assert cluster.api.apply(path, body, manager).status in (200, 201)
        made.append(path)

    yield make
    for path in made:
        cluster.api.delete(path)


@pytest.mark.parametrize("mark", [None, "shop/dev"])
async def test_a_runtime_of_this_stack_is_this_ones(
    inputs: dict[str, Any], routed: Callable[..., None], mark: str | None
) -> None:
    """Of a stack without a record, too: as it removed namespace and definition, it does."""
    routed(inputs["namespace"], mark)
    for kind in (NAMESPACE, CRD):
        given = {**inputs, "kind": kind}
        assert not (await ONE.check(URN, {}, given)).failures
        assert await ONE.notes(given, None) == []
        assert not (await ONE.create(OPERATION, given)).computed["found"]


async def test_a_runtime_of_another_stack_is_refused(
    cluster: Any, inputs: dict[str, Any], routed: Callable[..., None]
) -> None:
    """In its namespace and in any other; where nothing begins nobody asks."""
    routed(inputs["namespace"], "shop/prod")
    ((path, why),) = (await ONE.check(URN, {}, inputs)).failures
    assert path == "namespace"
    assert "has the inference runtime of the stack shop/prod" in why
    assert f"{k8s.STACK_ANNOTATION}=shop/dev" in why, "the mend where that stack is gone"
    assert (await ONE.create(OPERATION, inputs)).computed["found"]
    beside = {**inputs, "namespace": f"{inputs['namespace']}-beside"}
    ((path, why),) = (await ONE.check(URN, {}, beside)).failures
    assert path == "namespace"
    assert f"one is in namespace '{inputs['namespace']}' (of the stack shop/prod)" in why
    assert not (await ONE.check(URN, inputs, inputs)).failures
    assert not (await ONE.check(URN, {}, {**beside, "kubeconfig": UNKNOWN})).failures
    assert not (await ONE.check(URN, {}, {**beside, "kubeconfig": "/nowhere/kubeconfig"})).failures


async def test_a_runtime_moves_to_another_namespace(
    cluster: Any, inputs: dict[str, Any], routed: Callable[..., None], until: Callable[..., None]
) -> None:
    """The one that goes in the same apply is none beside it; nor is what goes with its namespace."""
    routed(inputs["namespace"], "shop/dev")
    moved = {**inputs, "namespace": f"{inputs['namespace']}-moved"}
    assert not (await ONE.check(URN, inputs, moved)).failures
    assert (await ONE.check(URN, {}, moved)).failures, "a second one of the same stack"
    cluster.api.delete(f"/api/v1/namespaces/{inputs['namespace']}")
    assert not (await ONE.check(URN, {}, moved)).failures


async def test_a_namespace_with_keys_of_others_stays(cluster: Any, inputs: dict[str, Any]) -> None:
    """A later runtime would answer 401 to who has such a key, until that stack is applied anew."""
    path = f"/api/v1/namespaces/{inputs['namespace']}"
    for name, labels in (("theirs-key-digests", {k8s.ENDPOINT_LABEL: "theirs"}), (k8s.ISSUED_TLS_NAME, {})):
        assert cluster.api.create(f"{path}/secrets", {"metadata": {"name": name, "labels": labels}}).status == 201
    state = State(inputs["namespace"], inputs, {**inputs, "found": False, "managers": []})
    await ONE.delete(OPERATION, state)
    assert not cluster.api.get(path).body["metadata"].get("deletionTimestamp")
    assert [one["metadata"]["name"] for one in cluster.api.get(f"{path}/secrets").body["items"]] == [
        "theirs-key-digests"
    ]


async def test_a_cluster_that_is_not_there(inputs: dict[str, Any]) -> None:
    unknown = {**inputs, "kubeconfig": UNKNOWN}
    nowhere = {**inputs, "kubeconfig": "/nowhere/kubeconfig"}
    assert [await ONE.notes(one, None) for one in (unknown, nowhere)] == [[], []]
    assert not (await ONE.check(URN, {}, unknown)).failures
    assert not (await ONE.check(URN, {}, nowhere)).failures
    with pytest.raises(ResourceFailed, match="not known what is in the cluster already"):
        await ONE.create(OPERATION, nowhere)
    with pytest.raises(ResourceFailed, match="if the cluster is gone: pulumi state delete"):
        await ONE.delete(OPERATION, State("x", nowhere, {"found": False, "managers": []}))


async def test_what_is_another_record(inputs: dict[str, Any]) -> None:
    """Never for another way to a cluster: what was made would be removed under a runtime that serves."""

    async def replaced(kind: str, **more: Any) -> bool:
        old = {**inputs, "kind": kind}
        found = await ONE.diff(State("x", old, old), {**old, **more})
        assert found.properties or not more
        return any(one.replaces for one in found.properties.values())

    assert await replaced(NAMESPACE, namespace="other")
    assert not await replaced(CRD, namespace="other"), "there is one definition"
    for kind in (NAMESPACE, CRD):
        assert not await replaced(kind)
        assert not await replaced(kind, kubeconfig="/nowhere/kubeconfig")


async def test_another_way_to_the_cluster(cluster: Any, inputs: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "kubeconfig"
    other.write_text(cluster.kubeconfig.read_text())
    kept = {"found": False, "managers": [], "cluster": (await ONE.create(OPERATION, inputs)).computed["cluster"]}
    new = {**inputs, "kubeconfig": str(other)}
    assert await ONE.update(OPERATION, State("x", inputs, {**inputs, **kept}), new) == kept
    elsewhere = {**kept, "cluster": "another"}
    assert await ONE.update(OPERATION, State("x", inputs, {**inputs, **elsewhere}), inputs) == elsewhere
    assert (await ONE.update(OPERATION, State("x", inputs, {**inputs, **elsewhere}), new))["found"]


PROGRAM = """
import json, pathlib
from aks_inference import InferenceRuntime

told = json.loads(pathlib.Path("told.json").read_text())
InferenceRuntime("runtime", image="runtime:1", kubeconfig=told["kubeconfig"], namespace=told["runtime"],
                 service_type="ClusterIP", cluster_purpose="DevTest")
"""


@pytest.fixture
def project(cluster: Any, fake_nodes: list[str], namespace: str, tmp_path: Path) -> Iterator[Project]:
    runtime = f"runtime-{namespace[5:]}"
    yield Project(tmp_path, PROGRAM, kubeconfig=str(cluster.kubeconfig), runtime=runtime)
    for kind in ("clusterroles", "clusterrolebindings"):
        for name in (k8s.ROUTER_NAME, k8s.AUTOSCALER_NAME):
            cluster.api.delete(f"/apis/rbac.authorization.k8s.io/v1/{kind}/{runtime}:{name}")
    cluster.api.delete(f"/api/v1/namespaces/{runtime}")


@pytest.mark.long
def test_a_runtime_in_a_namespace_of_others(cluster: Any, project: Project) -> None:
    path = f"/api/v1/namespaces/{project.told['runtime']}"
    labels = {"team": "a"}
    body = {"metadata": {"name": project.told["runtime"], "labels": labels, "annotations": {"owner": "b"}}}
    assert cluster.api.create("/api/v1/namespaces", body).status == 201
    assert cluster.api.create(f"{path}/configmaps", {"metadata": {"name": "theirs"}, "data": {"a": "b"}}).status == 201
    places = (path, DEFINITION, f"{path}/configmaps/theirs")
    before = {one: remembered(cluster.api.get(one).body) for one in places}
    shown = project.must("preview", "--stack", "dev")
    assert f"namespace: '{project.told['runtime']}' is in the cluster already" in shown
    assert f"the definition {CRD_NAME} is in the cluster already" in shown
    project.up()
    assert cluster.api.get(path).body["metadata"]["labels"].items() >= {**labels, **RESTRICTED}.items()
    again = project.up()
    assert " updated" not in again
    assert " created" not in again
    assert "is in the cluster already" not in again
    project.must("destroy", "--yes", "--stack", "dev")
    assert {one: remembered(cluster.api.get(one).body) for one in places} == before
    assert cluster.api.get(f"/apis/apps/v1/namespaces/{project.told['runtime']}/deployments").body["items"] == []


@pytest.mark.long
def test_a_stack_from_before_records_were_kept(
    cluster: Any, defined_again: None, project: Project, until: Callable[..., None]
) -> None:
    """It is taken over without a replacement, and destroy removes what it always did."""
    cluster.api.delete(DEFINITION)
    until(lambda: cluster.api.get(DEFINITION).status == 404)
    project.up()
    path = f"/api/v1/namespaces/{project.told['runtime']}"
    there = {one: cluster.api.get(one).body["metadata"]["uid"] for one in (path, DEFINITION)}
    (state,) = (project.folder.parent / "state").rglob("dev.json")
    kept = json.loads(state.read_text())
    resources = kept["checkpoint"]["latest"]["resources"]
    records = {one["urn"] for one in resources if one["type"].endswith(":ClusterObject")}
    assert len(records) == 2
    resources[:] = [one for one in resources if one["urn"] not in records]
    for one in resources:
        one.pop("retainOnDelete", None)
        one["dependencies"] = [urn for urn in one.get("dependencies") or () if urn not in records]
        for urns in (one.get("propertyDependencies") or {}).values():
            urns[:] = [urn for urn in urns if urn not in records]
    state.write_text(json.dumps(kept))
    shown = project.up()
    assert "replace" not in shown
    assert "is in the cluster already" not in shown
    assert {one: cluster.api.get(one).body["metadata"]["uid"] for one in there} == there
    project.must("destroy", "--yes", "--stack", "dev")
    assert [cluster.api.get(one).status for one in there] == [404, 404]
