"""The engine's own provider for `kubernetes`, called as the engine does, against a real API server."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from pulumi.runtime.proto import provider_pb2 as pb

from embedded_engine.kubernetes import operations
from embedded_engine.kubernetes.provider import Servicer
from embedded_engine.values import from_struct, to_struct

TOKENS = {
    "ConfigMap": "kubernetes:core/v1:ConfigMap",
    "ClusterRole": "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole",
    "ScoringEndpoint": "kubernetes:aks-inference.dev/v1:ScoringEndpoint",
    "Widget": "kubernetes:versions.example.com/v1beta1:Widget",
    "Gadget": "kubernetes:lab.example.com/v1:Gadget",
}


class Aborted(Exception):
    """The call ended with an error."""


class Call:
    """Stands for gRPC's context."""

    async def abort(self, code: object, details: str, trailing_metadata: object = ()) -> NoReturn:
        raise Aborted(details)


class Provider:
    """Configured; objects are plain dictionaries."""

    def __init__(self) -> None:
        self.servicer, self.call, self.warned = Servicer(""), Call(), list[str]()

        async def warn(urn: str, message: str) -> None:
            self.warned.append(message)

        self.servicer._log.warn = warn  # type: ignore[method-assign]

    async def configure(self, **settings: str) -> None:
        await self.servicer.Configure(pb.ConfigureRequest(args=to_struct(settings)), self.call)

    async def check(self, inputs: dict[str, Any], olds: dict[str, Any] | None = None) -> dict[str, Any]:
        request = pb.CheckRequest(urn=urn(inputs), olds=to_struct(olds or {}), news=to_struct(inputs))
        answer = await self.servicer.Check(request, self.call)
        assert not answer.failures
        return from_struct(answer.inputs)

    async def diff(self, olds: dict[str, Any], news: dict[str, Any]) -> pb.DiffResponse:
        request = pb.DiffRequest(urn=urn(news), old_inputs=to_struct(olds), news=to_struct(news))
        return await self.servicer.Diff(request, self.call)

    async def create(self, inputs: dict[str, Any], *, preview: bool = False, timeout: float = 0) -> dict[str, Any]:
        given = to_struct(inputs)
        request = pb.CreateRequest(urn=urn(inputs), properties=given, preview=preview, timeout=timeout)
        return from_struct((await self.servicer.Create(request, self.call)).properties)

    async def read(self, identity: str, inputs: dict[str, Any]) -> pb.ReadResponse:
        given = to_struct(inputs)
        return await self.servicer.Read(
            pb.ReadRequest(urn=urn(inputs), id=identity, properties=given, inputs=given), self.call
        )

    async def delete(self, identity: str, inputs: dict[str, Any]) -> None:
        request = pb.DeleteRequest(urn=urn(inputs), id=identity, properties=to_struct(inputs))
        await self.servicer.Delete(request, self.call)


def urn(inputs: dict[str, Any]) -> str:
    return f"urn:pulumi:dev::tested::{TOKENS[inputs['kind']]}::one"


@pytest.fixture
async def provided(cluster: Any) -> AsyncIterator[Provider]:
    made = Provider()
    await made.configure(kubeconfig=str(cluster.kubeconfig), namespace="team")
    yield made
    await made.servicer.close()


def config_map(namespace: str | None, name: str = "words", **data: str) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "team-reader"},
    "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
}
GADGET = {"apiVersion": "lab.example.com/v1", "kind": "Gadget", "metadata": {"name": "one"}, "size": 3}


# -- namespaces


async def test_only_kinds_in_namespaces_get_the_usual_one(provided: Provider) -> None:
    assert (await provided.check(config_map(None)))["metadata"] == {"name": "words", "namespace": "team"}
    assert (await provided.check(config_map("own")))["metadata"]["namespace"] == "own"
    assert await provided.check(ROLE) == ROLE
    assert await provided.check(GADGET) == GADGET, "of a kind that is not there nobody knows"
    before = {**GADGET, "metadata": {"name": "one", "namespace": "room"}}
    assert (await provided.check(GADGET, before)) == before, "nor that it has left its namespace"


async def test_a_namespace_of_a_kind_without_any_means_nothing(provided: Provider) -> None:
    """States from before hold it."""
    before = {**ROLE, "metadata": {"name": "team-reader", "namespace": "team"}}
    for old, new in ((before, ROLE), (ROLE, before)):
        assert (await provided.diff(old, new)).changes == pb.DiffResponse.DIFF_NONE
    changed = await provided.diff(before, {**ROLE, "rules": []})
    assert (list(changed.diffs), list(changed.replaces)) == (["rules"], [])
    moved = {**ROLE, "metadata": {"name": "team-writer"}}
    assert list((await provided.diff(before, moved)).replaces) == ["metadata.name"]
    version = {**ROLE, "apiVersion": "rbac.authorization.k8s.io/v1beta1"}
    found = await provided.diff({**before, "apiVersion": version["apiVersion"]}, ROLE)
    assert (list(found.replaces), found.deleteBeforeReplace) == (["apiVersion"], True), "they are one object"


async def test_what_moves_to_another_namespace_is_made_anew_first(provided: Provider) -> None:
    found = await provided.diff(config_map("one"), config_map("two"))
    assert (list(found.replaces), found.deleteBeforeReplace) == (["metadata.namespace"], False)


# -- on its way out

HELD = "example.com/held"


def held(cluster: Any, path: str) -> None:
    """Deleted, and kept by a finalizer."""
    assert cluster.api.merge(path, {"metadata": {"finalizers": [HELD]}}).status == 200
    assert cluster.api.delete(path).status == 200
    assert cluster.api.get(path).body["metadata"]["deletionTimestamp"]


@pytest.mark.parametrize("immutable", [False, True], ids=["takes what is applied", "refuses it"])
async def test_what_is_on_its_way_out_is_waited_for_and_made_anew(
    provided: Provider, cluster: Any, namespace: str, immutable: bool
) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/words"
    before = config_map(namespace, one="1") | {"immutable": immutable}
    first = (await provided.create(before))["metadata"]["uid"]
    held(cluster, path)
    said = []

    def tell(message: str) -> None:
        said.append(message)
        cluster.api.merge(path, {"metadata": {"finalizers": None}})

    inputs = config_map(namespace, one="2")
    live = await operations.apply_anew(provided.servicer.client, inputs, "one", 60, tell)
    assert said[:1] == ["is being deleted"]
    assert cluster.api.get(path).body["metadata"]["uid"] == live["metadata"]["uid"] != first
    assert cluster.api.get(path).body["data"] == {"one": "2"}


async def test_what_does_not_go_is_told(provided: Provider, cluster: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/words"
    inputs = config_map(namespace, one="1")
    await provided.create(inputs)
    held(cluster, path)
    try:
        with pytest.raises(Aborted, match=rf"{namespace}/words is not gone after 0.2 s; it waits for {HELD}"):
            await provided.create(inputs, timeout=0.2)
    finally:
        cluster.api.merge(path, {"metadata": {"finalizers": None}})


async def test_what_is_refused_for_itself_is_refused(provided: Provider, namespace: str) -> None:
    """Nothing is waited for where nothing goes."""
    await provided.create(config_map(namespace, one="1") | {"immutable": True})
    with pytest.raises(Aborted, match="immutable"):
        await provided.create(config_map(namespace, one="2") | {"immutable": True})


# -- definitions


async def test_with_its_definition_an_object_is_gone(provided: Provider) -> None:
    found = await provided.read("room/one", GADGET)
    assert found == pb.ReadResponse()


WIDGETS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.versions.example.com"


def widgets(**served: bool) -> dict[str, Any]:
    """A definition; the last version is stored."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    names = {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"}
    versions = [
        {"name": name, "served": is_served, "storage": name == [*served][-1], "schema": schema}
        for name, is_served in served.items()
    ]
    spec = {"group": "versions.example.com", "scope": "Namespaced", "names": names, "versions": versions}
    kind = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    return {**kind, "metadata": {"name": WIDGETS.rpartition("/")[2]}, "spec": spec}


async def test_a_version_that_a_definition_serves_no_longer(
    provided: Provider, cluster: Any, namespace: str, until: Any
) -> None:
    """The object is there all the same, under the other version; with the definition it goes."""
    metadata = {"name": "one", "namespace": namespace}
    widget = {"apiVersion": "versions.example.com/v1beta1", "kind": "Widget", "metadata": metadata}
    path = f"/apis/versions.example.com/v1/namespaces/{namespace}/widgets/one"
    later = Provider()
    await later.configure(kubeconfig=str(cluster.kubeconfig))
    try:
        assert cluster.api.apply(WIDGETS, widgets(v1beta1=True, v1=True)).status == 201
        until(lambda: cluster.api.get("/apis/versions.example.com/v1beta1").status == 200)
        await provided.create(widget)
        assert cluster.api.apply(WIDGETS, widgets(v1beta1=False, v1=True)).status == 200
        until(lambda: cluster.api.get("/apis/versions.example.com/v1beta1").status == 404)
        with pytest.raises(Aborted, match=r"has no kind Widget in versions\.example\.com/v1beta1"):
            await later.read(f"{namespace}/one", widget)
        await later.delete(f"{namespace}/one", widget)
        assert cluster.api.get(path).status == 404
    finally:
        cluster.api.delete(WIDGETS)
    until(lambda: cluster.api.get("/apis/versions.example.com").status == 404)
    assert await later.read(f"{namespace}/one", widget) == pb.ReadResponse()
    await later.delete(f"{namespace}/one", widget)
    await later.servicer.close()


async def nothing_is_gone(server: str, kubeconfig: dict[str, Any], path: Path) -> None:
    """Where everything is asked of `server`."""
    for one in kubeconfig["clusters"]:
        one["cluster"]["server"] = server
    path.write_text(json.dumps(kubeconfig))
    lost = Provider()
    await lost.configure(kubeconfig=str(path))
    try:
        for inputs in (endpoint("team"), config_map("team")):
            for call in (lost.read, lost.delete):
                with pytest.raises(Aborted, match=f"has no kind {inputs['kind']}"):
                    await call("team/one", inputs)
    finally:
        await lost.servicer.close()


async def test_a_path_at_which_there_is_no_api_server(cluster: Any, tmp_path: Path) -> None:
    given = yaml.safe_load(cluster.kubeconfig.read_text())
    await nothing_is_gone(f"{cluster.server}/nowhere", given, tmp_path / "kubeconfig")


async def test_a_page_for_people_in_place_of_the_api_server(cluster: Any, tmp_path: Path) -> None:
    """A proxy that wants somebody to sign in."""

    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n<html/>")
        await writer.drain()
        writer.close()

    given = yaml.safe_load(cluster.kubeconfig.read_text())
    async with await asyncio.start_server(page, "127.0.0.1", 0) as server:
        address = "http://{}:{}".format(*server.sockets[0].getsockname())
        await nothing_is_gone(address, given, tmp_path / "kubeconfig")


def endpoint(namespace: str, **spec: Any) -> dict[str, Any]:
    version = {"name": "blue", "isDefault": True, "code": {"entryScript": "s.py", "digest": "d"}}
    return {
        "apiVersion": "aks-inference.dev/v1",
        "kind": "ScoringEndpoint",
        "metadata": {"name": "churn", "namespace": namespace},
        "spec": {"versions": [version], **spec},
    }


@pytest.fixture
def patches(provided: Provider, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is sent to the server to be applied."""
    client, sent = provided.servicer.client, list[str]()
    once = client._once

    async def counted(method: str, path: str, *rest: Any) -> Any:
        if method == "PATCH":
            sent.append(path)
        return await once(method, path, *rest)

    monkeypatch.setattr(client, "_once", counted)
    return sent


async def test_a_field_of_a_definition_that_is_still_to_come(
    provided: Provider, namespace: str, patches: list[str]
) -> None:
    """As a kind that is still to come; when it is applied the server has the last word, at once."""
    novel = endpoint(namespace, novel=1)
    shown = await provided.create(novel, preview=True)
    assert shown["spec"]["novel"] == 1
    (warning,) = provided.warned
    assert "the definition of ScoringEndpoint in the cluster does not have the field .spec.novel;" in warning
    assert len(patches) == 1, "it is not asked again, as if it were busy"
    with pytest.raises(Aborted, match=r"\.spec\.novel: field not declared in schema"):
        await provided.create(novel)
    assert len(patches) == 2


async def test_a_field_of_the_wrong_type_is_refused_in_a_preview(
    provided: Provider, namespace: str, patches: list[str]
) -> None:
    with pytest.raises(Aborted, match="expected"):
        await provided.create(endpoint(namespace, versions=1), preview=True)
    assert len(patches) == 1


async def test_a_field_that_a_kind_of_the_server_does_not_have(provided: Provider, namespace: str) -> None:
    with pytest.raises(Aborted, match="dota"):
        await provided.create(config_map(namespace) | {"dota": {}}, preview=True)
    assert not provided.warned


async def test_a_state_with_a_field_that_the_definition_lost(provided: Provider, namespace: str, cluster: Any) -> None:
    await provided.create(endpoint(namespace))
    inputs = endpoint(namespace, novel=1)
    found = await provided.read(f"{namespace}/churn", inputs)
    assert from_struct(found.inputs)["spec"]["versions"] == inputs["spec"]["versions"]
    assert "novel" not in from_struct(found.properties)["spec"]


# -- fields of others


async def test_whose_fields_it_does_not_take(provided: Provider, cluster: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/words"
    assert cluster.api.apply(path, config_map(namespace, one="1", two="2"), "somebody").status == 201
    mine = config_map(namespace, one="a", two="b")
    with pytest.raises(Aborted) as refused:
        await provided.create(mine)
    said = str(refused.value)
    assert '"somebody" has set .data.one, .data.two: set them to the declared values with kubectl' in said
    assert "remove that manager's fields" in said
    assert 'on an object that you declare yourself the annotation pulumi.com/patchForce: "true" takes them over' in said
    mine["metadata"]["annotations"] = {"pulumi.com/patchForce": "true"}
    await provided.create(mine)
    assert cluster.api.get(path).body["data"] == {"one": "a", "two": "b"}
