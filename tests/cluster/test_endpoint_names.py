"""The endpoint of a name is one resource's: another one, of this stack or another, is refused before it is applied."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aks_inference_provider.errors import ResourceFailed
from aks_inference_provider.progress import EngineLog, Progress
from aks_inference_provider.resources.base import Operation, State, Urn
from aks_inference_provider.resources.endpoint_name import EndpointName
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.crd import CRD_NAME, crd
from aks_inference_runtime.api.endpoint import API_VERSION, KIND
from aks_inference_runtime.api.kubernetes import DECLARER_ANNOTATION
from aks_inference_runtime.api.target import KubernetesTarget, format_target
from testbed.accounts import take_back, with_rights_of
from testbed.project import Project
from testbed.reporter import Reporter

SERVICE = "aks-inference:index:ModelWebService"
URN = Urn.parse(f"urn:pulumi:dev::shop::{SERVICE}$aks-inference:index:EndpointName::churn")
OWN = f"urn:pulumi:dev::shop::{SERVICE}::churn"
ONE = EndpointName()
OPERATION = Operation(URN, Progress(EngineLog(""), URN.text))
NOWHERE = "/nowhere/kubeconfig"
CODE = {"entryScript": "score.py", "digest": f"sha256:{'0' * 64}"}


def path(namespace: str, name: str = "") -> str:
    return f"/apis/{API_VERSION}/namespaces/{namespace}/scoringendpoints/{name}".rstrip("/")


@pytest.fixture
def named(cluster: Any, namespace: str) -> str:
    """The name of an endpoint that no other test has."""
    return f"churn-{namespace[-6:]}"


@pytest.fixture
def inputs(cluster: Any, namespace: str, named: str) -> dict[str, Any]:
    return {"name": named, "namespace": namespace, "kubeconfig": str(cluster.kubeconfig)}


@pytest.fixture
def there(cluster: Any, namespace: str, named: str) -> Callable[..., None]:
    """`there(mark)`: the endpoint is in the cluster; the mark says whose it is."""

    def make(mark: str | None) -> None:
        metadata = {"name": named, "annotations": {} if mark is None else {DECLARER_ANNOTATION: mark}}
        spec = {"versions": [{"name": "default", "isDefault": True, "code": CODE}]}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
        assert cluster.api.create(path(namespace), body).status == 201

    return make


@pytest.mark.parametrize("mark", [None, OWN])
async def test_its_own_or_nobodys_is_taken_over(inputs: dict[str, Any], there: Any, mark: str | None) -> None:
    there(mark)
    assert not (await ONE.check(URN, {}, inputs)).failures


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (
            f"urn:pulumi:prod::shop::{SERVICE}::churn",
            ["by ModelWebService 'churn' of the stack shop/prod", "there are new keys: kubectl -n "],
        ),
        (
            f"urn:pulumi:dev::shop::{SERVICE}::before",
            ["by ModelWebService 'before' of this stack", "aliases=[pulumi.Alias(name='before')]"],
        ),
        (
            "urn:pulumi:dev::shop::aks-inference:index:ControlledRolloutEndpoint::churn",
            ["aliases=['urn:pulumi:dev::shop::aks-inference:index:ControlledRolloutEndpoint::churn']"],
        ),
    ],
)
async def test_that_of_others_is_refused(
    inputs: dict[str, Any], namespace: str, there: Any, mark: str, said: list[str]
) -> None:
    """In its namespace and from any other: URLs have no namespace; where nothing begins nobody asks."""
    there(mark)
    for space in (namespace, "default"):
        ((where, why),) = (await ONE.check(URN, {}, {**inputs, "namespace": space})).failures
        assert where == "name"
        assert f"is served already, in namespace '{namespace}', " in why
        assert all(text in why for text in (*said, "choose another service_name")), why
    assert (await ONE.check(URN, {**inputs, "name": "another"}, inputs)).failures
    with pytest.raises(ResourceFailed) as refused:
        await ONE.create(OPERATION, inputs)
    assert str(refused.value) == f"name: {why}"
    with pytest.raises(ResourceFailed, match="is served already, in namespace"):
        await ONE.update(OPERATION, State("x", {**inputs, "name": "another"}, {}), inputs)
    assert not (await ONE.check(URN, inputs, inputs)).failures


async def test_a_cluster_that_cannot_be_asked_refuses_nothing_at_preview(inputs: dict[str, Any]) -> None:
    """Which says so; what is not known yet is looked up when it is made, as is what could not be."""
    checked = await ONE.check(URN, {}, {**inputs, "kubeconfig": UNKNOWN})
    assert not [*checked.failures, *checked.notes]
    checked = await ONE.check(URN, {}, {**inputs, "kubeconfig": NOWHERE})
    assert not checked.failures
    (note,) = checked.notes
    assert note.startswith(f"not looked up whether {inputs['name']!r} is served already: ")
    with pytest.raises(ResourceFailed, match="not known whether"):
        await ONE.create(OPERATION, {**inputs, "kubeconfig": NOWHERE})
    assert (await ONE.create(OPERATION, inputs)).id == URN.name
    found = await ONE.diff(State("x", inputs, inputs), {**inputs, "namespace": "another"})
    assert [one.replaces for one in found.properties.values()] == [False]


async def test_a_definition_that_is_new_is_waited_for(
    cluster: Any, defined_again: None, inputs: dict[str, Any], until: Callable[..., None]
) -> None:
    """As the runtime of the same program brings it: for a moment it is there and cannot be listed."""
    definition = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}"
    cluster.api.delete(definition)
    until(lambda: cluster.api.get(definition).status == 404)
    assert cluster.api.apply(definition, crd()).status == 201
    until(lambda: cluster.api.get(path(inputs["namespace"])).status != 404)
    assert (await ONE.create(OPERATION, inputs)).id == URN.name


async def test_who_may_not_see_all_namespaces_sees_its_own(
    cluster: Any, namespace: str, inputs: dict[str, Any], there: Any, tmp_path: Path
) -> None:
    there(f"urn:pulumi:prod::shop::{SERVICE}::churn")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "team"}}
    assert cluster.api.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", account).status == 201
    rights = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rule = {"apiGroups": ["aks-inference.dev"], "resources": ["scoringendpoints"], "verbs": ["get"]}
    assert cluster.api.create(f"{rights}/roles", {"metadata": {"name": "team"}, "rules": [rule]}).status == 201
    subject = {"kind": "ServiceAccount", "name": "team", "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "team"}
    binding = {"metadata": {"name": "team"}, "subjects": [subject], "roleRef": role}
    assert cluster.api.create(f"{rights}/rolebindings", binding).status == 201
    team = with_rights_of("team", cluster, namespace, tmp_path)
    try:
        (failure,) = (await ONE.check(URN, {}, {**inputs, "kubeconfig": str(team.kubeconfig)})).failures
    finally:
        take_back(cluster, namespace)
    assert "of the stack shop/prod" in failure.reason


PROGRAM = """
import json, pathlib
import pulumi
from aks_inference import ModelWebService

told = json.loads(pathlib.Path("told.json").read_text())
aliases = [pulumi.Alias(name=name) for name in told["aliases"]]
ModelWebService(told["resource"], target=told["target"], service_name=told["name"], namespace=told["namespace"],
                image="scoring:1", inference_config={"entry_script": "score.py", "source_directory": "code"},
                opts=pulumi.ResourceOptions(aliases=aliases))
"""


@pytest.fixture
def project(
    cluster: Any, fake_nodes: list[str], namespace: str, named: str, tmp_path: Path
) -> Iterator[Callable[[str], Project]]:
    """`project(name)`: one of a service by that name in the test's namespace."""
    reporter = Reporter(cluster.api, namespace)
    reporter.start()
    where = KubernetesTarget(name="bed", namespace=namespace, image="runtime:1", kubeconfig=str(cluster.kubeconfig))

    def make(resource: str) -> Project:
        (folder := tmp_path / resource).mkdir()
        told = {"target": format_target(where), "namespace": namespace, "name": named, "aliases": []}
        made = Project(folder, PROGRAM, resource=resource, **told)
        (made.folder / "Pulumi.yaml").write_text(
            (made.folder / "Pulumi.yaml").read_text().replace('"name": "t"', f'"name": "{resource}"')
        )
        made.must("stack", "init", "dev")
        return made

    yield make
    reporter.over.set()
    reporter.join()


@pytest.mark.long
def test_a_renamed_resource_and_another_stack(
    cluster: Any, project: Callable[[str], Project], namespace: str, named: str
) -> None:
    one, other = project("one"), project("other")
    one.up()
    live = cluster.api.get(path(namespace, named)).body
    mark = f"urn:pulumi:dev::one::{SERVICE}::one"
    assert live["metadata"]["annotations"][DECLARER_ANNOTATION] == mark
    assert " updated" not in one.up()

    with pytest.raises(AssertionError, match="of the stack one/dev"):
        other.must("preview", "--stack", "dev")
    with pytest.raises(AssertionError, match="of the stack one/dev"):
        other.must("up", "--yes", "--skip-preview", "--stack", "dev")
    other.must("destroy", "--yes", "--stack", "dev")
    one.told["resource"] = "renamed"
    with pytest.raises(AssertionError, match=r"aliases=\[pulumi.Alias\(name='one'\)\]"):
        one.must("preview", "--stack", "dev")
    assert cluster.api.get(path(namespace, named)).body["metadata"]["uid"] == live["metadata"]["uid"]

    one.told["aliases"] = ["one"]
    one.up()
    renamed = cluster.api.get(path(namespace, named)).body["metadata"]
    assert renamed["annotations"][DECLARER_ANNOTATION] == f"urn:pulumi:dev::one::{SERVICE}::renamed"
    assert (renamed["uid"], renamed["generation"]) == (live["metadata"]["uid"], live["metadata"]["generation"])
    one.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(path(namespace, named)).status == 404
