"""The engine's own provider for `kubernetes` when its kubeconfig means another namespace, or another cluster."""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pulumi.runtime.proto import provider_pb2 as pb

from aks_inference_runtime.api.kubernetes import ROUTER_NAME
from embedded_engine.kubernetes.provider import Servicer
from embedded_engine.values import UNKNOWN, to_struct
from testbed import build
from testbed.api import Api
from testbed.control_plane import ControlPlane, fake_node
from testbed.project import Project

PROGRAM = """
import json, pathlib
import pulumi

class Provider(pulumi.ProviderResource):
    def __init__(self, name, **settings):
        super().__init__("kubernetes", name, settings)

class Object(pulumi.CustomResource):
    def __init__(self, name, manifest, opts):
        version = manifest["apiVersion"]
        group = version if "/" in version else f"core/{version}"
        super().__init__(f"kubernetes:{group}:{manifest['kind']}", name, manifest, opts)

told = json.loads(pathlib.Path("told.json").read_text())
cluster = Provider("cluster", **told["settings"])
for name, manifest in told["objects"].items():
    Object(name, manifest, pulumi.ResourceOptions(provider=cluster))
"""
Rewritten = Callable[..., Path]


@pytest.fixture
def rewritten(cluster: Any, tmp_path: Path) -> Rewritten:
    """Another kubeconfig for the cluster, with `context`, `cluster` and `user` changed; None takes away."""

    def write(**parts: dict[str, Any]) -> Path:
        if cluster.kubeconfig.suffix != ".kubeconfig":
            pytest.skip("the given kubeconfig is not changed")
        content = json.loads(cluster.kubeconfig.read_text())
        for part, changes in parts.items():
            (entry,) = content[f"{part}s"]
            entry[part] = {key: value for key, value in {**entry[part], **changes}.items() if value is not None}
        path = tmp_path / f"{uuid.uuid4().hex[:8]}.kubeconfig"
        path.write_text(json.dumps(content))
        return path

    return write


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Another cluster."""
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    plane = ControlPlane(tmp_path_factory.mktemp("second-plane"))
    try:
        plane.start(control=False)
        yield plane
    finally:
        plane.stop()


def project(folder: Path, kubeconfig: Path, **objects: dict[str, Any]) -> Project:
    return Project(folder, PROGRAM, settings={"kubeconfig": str(kubeconfig)}, objects=objects)


def words() -> tuple[str, dict[str, Any]]:
    """A path and what is there."""
    name = f"words-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "namespace": "default"}
    path = f"/api/v1/namespaces/default/configmaps/{name}"
    return path, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"one": "1"}}


@pytest.mark.long
def test_a_context_that_names_a_namespace_takes_nothing_away(
    cluster: Any, rewritten: Rewritten, tmp_path: Path
) -> None:
    name = f"reader-{uuid.uuid4().hex[:8]}"
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    path = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"
    one = project(tmp_path / "project", cluster.kubeconfig, role=role)
    one.up()
    made = cluster.api.get(path).body["metadata"]["uid"]
    one.told["settings"] = {"kubeconfig": str(rewritten(context={"namespace": "default-of-a-team"}))}
    for command in ("up", "refresh", "up"):
        said = one.must(command, "--yes", "--stack", "dev")
        assert "replace" not in said
        assert cluster.api.get(path).body["metadata"].get("uid") == made
    one.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(path).status == 404


@pytest.mark.long
def test_another_cluster_gets_what_is_declared(
    cluster: Any, second: ControlPlane, rewritten: Rewritten, tmp_path: Path
) -> None:
    path, manifest = words()
    here, there = cluster.api, Api(second.kubeconfig)
    one = project(tmp_path / "project", cluster.kubeconfig, words=manifest)
    one.up()
    made = here.get(path).body["metadata"]["uid"]

    one.told["settings"] = {"kubeconfig": str(rewritten())}
    assert "replace" not in one.up(), "a kubeconfig that is moved"
    assert here.get(path).body["metadata"]["uid"] == made

    one.told["settings"] = {"kubeconfig": str(second.kubeconfig)}
    assert "2 to replace" in one.must("preview", "--stack", "dev")
    assert (here.get(path).status, there.get(path).status) == (200, 404)
    one.up()
    assert (here.get(path).status, there.get(path).status) == (404, 200)
    assert "replace" not in one.up()
    one.must("destroy", "--yes", "--stack", "dev")
    assert there.get(path).status == 404


@pytest.mark.long
def test_a_cluster_that_is_gone_is_left_when_somebody_says_so(cluster: Any, tmp_path: Path) -> None:
    if missing := build.missing(build.API):
        pytest.skip(f"not built here: {', '.join(missing)} (python -m testbed.build; minutes)")
    path, manifest = words()
    plane = ControlPlane(tmp_path / "plane")
    try:
        plane.start(control=False)
        one = project(tmp_path / "project", plane.kubeconfig, words=manifest)
        one.up()
    finally:
        plane.stop()
    one.told["settings"] = {"kubeconfig": str(cluster.kubeconfig)}
    with pytest.raises(AssertionError, match="if that cluster is gone: PULUMI_K8S_DELETE_UNREACHABLE=true"):
        one.up()
    assert cluster.api.get(path).status == 200, "what is declared is there"
    one.environment["PULUMI_K8S_DELETE_UNREACHABLE"] = "true"
    assert "taken for gone" in one.up()
    del one.environment["PULUMI_K8S_DELETE_UNREACHABLE"]
    assert "replace" not in one.up()
    one.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(path).status == 404


RUNTIME = """
import json, pathlib
from aks_inference import InferenceRuntime

told = json.loads(pathlib.Path("told.json").read_text())
InferenceRuntime("runtime", image="runtime:1", kubeconfig=told["kubeconfig"], namespace=told["runtime"],
                 service_type="ClusterIP", cluster_purpose="DevTest")
"""


@pytest.mark.long
def test_a_runtime_moves_to_another_cluster(cluster: Any, fake_nodes: list[str], tmp_path: Path) -> None:
    """Namespace and definition stay where they were, as its records of them say."""
    plane, runtime = ControlPlane(tmp_path / "plane"), f"runtime-{uuid.uuid4().hex[:8]}"
    deployments = f"/apis/apps/v1/namespaces/{runtime}/deployments"
    binding = f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{runtime}:{ROUTER_NAME}"
    one = Project(tmp_path / "project", RUNTIME, kubeconfig=str(cluster.kubeconfig), runtime=runtime)
    try:
        plane.start()
        plane.keep_fake_nodes()
        there = Api(plane.kubeconfig)
        assert there.create("/api/v1/nodes", fake_node("fake", zone="0")).status == 201
        one.up()
        one.told["kubeconfig"] = str(plane.kubeconfig)
        assert f"this is another cluster: /api/v1/namespaces/{runtime} stays in the one before" in one.up()
        assert [len(api.get(deployments).body["items"]) for api in (cluster.api, there)] == [0, 2]
        assert [api.get(binding).status for api in (cluster.api, there)] == [404, 200]
        assert [api.get(f"/api/v1/namespaces/{runtime}").status for api in (cluster.api, there)] == [200, 200]
        assert "replace" not in one.up()
        one.must("destroy", "--yes", "--stack", "dev")
        assert there.get(f"/api/v1/namespaces/{runtime}").status == 404
    finally:
        plane.stop()
        cluster.api.delete(f"/api/v1/namespaces/{runtime}")


class Aborted(Exception):
    """The call ended with an error."""


class Call:
    """Stands for gRPC's context."""

    async def abort(self, code: object, details: str) -> NoReturn:
        raise Aborted(details)


async def replaced(old: dict[str, Any], new: dict[str, Any], warned: list[str] | None = None) -> list[str]:
    """The settings for which all is made anew."""
    servicer = Servicer("")

    async def warn(urn: str, message: str) -> None:
        (warned if warned is not None else []).append(message)

    servicer._log.warn = warn  # type: ignore[method-assign]
    request = pb.DiffRequest(old_inputs=to_struct(old), olds=to_struct(old), news=to_struct(new))
    answer = await servicer.DiffConfig(request, Call())
    assert answer.changes == (pb.DiffResponse.DIFF_NONE if old == new else pb.DiffResponse.DIFF_SOME)
    return list(answer.replaces)


async def test_another_way_to_the_same_cluster(cluster: Any, rewritten: Rewritten, second: ControlPlane) -> None:
    old = {"kubeconfig": str(cluster.kubeconfig)}
    unverified = {"insecure-skip-tls-verify": True, "certificate-authority-data": None}
    port = cluster.server.rpartition(":")[2]
    ways = {
        "as text": cluster.kubeconfig.read_text(),
        "with other credentials": str(rewritten(user={"client-key-data": None, "token": "other"})),
        "by another address": str(rewritten(cluster={"server": f"https://localhost:{port}", **unverified})),
        "not there any more": "/nowhere/kubeconfig",
        "not known yet": UNKNOWN,
    }
    for what, kubeconfig in ways.items():
        for before, after in ((old, {"kubeconfig": kubeconfig}), ({"kubeconfig": kubeconfig}, old)):
            assert await replaced(before, after) == [], what
    assert await replaced(old, {**old, "namespace": "team"}) == []
    assert await replaced(old, {"kubeconfig": str(second.kubeconfig)}) == ["kubeconfig"]


async def test_another_context_of_one_kubeconfig(cluster: Any, second: ControlPlane, tmp_path: Path) -> None:
    both = json.loads(second.kubeconfig.read_text())
    for kind, content in json.loads(cluster.kubeconfig.read_text()).items():
        if isinstance(content, list):
            both[kind] += [{**entry, "name": "first"} for entry in content]
    (first,) = [entry["context"] for entry in both["contexts"] if entry["name"] == "first"]
    first |= {"cluster": "first", "user": "first"}
    (tmp_path / "both").write_text(json.dumps(both))
    given = {"kubeconfig": str(tmp_path / "both"), "context": "first"}
    assert await replaced(given, {**given, "context": "test-bed"}) == ["context"]
    assert await replaced({"kubeconfig": str(cluster.kubeconfig)}, given) == []


async def test_a_cluster_that_does_not_answer(cluster: Any, rewritten: Rewritten, second: ControlPlane) -> None:
    """By its certificate authority; at the same address another authority may be a new one of the same cluster."""
    new = {"kubeconfig": str(cluster.kubeconfig)}
    nowhere = "https://127.0.0.1:1"
    (authority,) = [one["cluster"] for one in json.loads(second.kubeconfig.read_text())["clusters"]]
    other = {"certificate-authority-data": authority["certificate-authority-data"]}
    warned: list[str] = []
    assert await replaced({"kubeconfig": str(rewritten(cluster={"server": nowhere}))}, new, warned) == []
    assert not warned
    gone = {"kubeconfig": str(rewritten(cluster={"server": nowhere, **other}))}
    assert await replaced(gone, new, warned) == ["kubeconfig"]
    assert not warned
    assert await replaced({"kubeconfig": str(rewritten(cluster=other))}, new, warned) == []
    assert "if it was made anew, `up --refresh` applies everything there" in warned[0]


def proxied(kubeconfig: Path, authority: Path, path: Path) -> Path:
    """The same user at another address of the cluster, with another certificate authority."""
    content = json.loads(kubeconfig.read_text())
    (entry,), (other,) = content["clusters"], json.loads(authority.read_text())["clusters"]
    port = entry["cluster"]["server"].rpartition(":")[2]
    entry["cluster"] = {**other["cluster"], "server": f"https://localhost:{port}", "insecure-skip-tls-verify": True}
    path.write_text(json.dumps(content))
    return path


async def test_clusters_that_do_not_say_which_they_are(cluster: Any, second: ControlPlane, tmp_path: Path) -> None:
    """Taken for two, one that is the same would lose what serves there."""
    nobody = second.write_kubeconfig(tmp_path / "nobody", "nobody", "nobody", ())
    known, hidden = {"kubeconfig": str(cluster.kubeconfig)}, {"kubeconfig": str(nobody)}
    proxy = {"kubeconfig": str(proxied(nobody, cluster.kubeconfig, tmp_path / "proxied"))}
    for old, new in ((known, hidden), (hidden, known), (hidden, proxy)):
        warned: list[str] = []
        assert await replaced(old, new, warned) == []
        (warning,) = warned
        assert "they are taken for one; let both of them read the namespace kube-system" in warning
    assert await replaced({"kubeconfig": str(second.kubeconfig)}, hidden) == []


@pytest.mark.parametrize("how", ["setting", "context"])
async def test_a_user_of_one_namespace(
    cluster: Any, second: ControlPlane, namespace: str, tmp_path: Path, until: Any, how: str
) -> None:
    """Whose uid tells, too."""
    there = Api(second.kubeconfig)
    assert there.create("/api/v1/namespaces", {"metadata": {"name": namespace}}).status == 201
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]
    bound = {
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "own"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": namespace}],
    }
    for plural, content in (("roles", {"rules": rules}), ("rolebindings", bound)):
        path = f"/apis/{group}/v1/namespaces/{namespace}/{plural}"
        assert there.create(path, {"metadata": {"name": "own"}, **content}).status == 201
    user = second.write_kubeconfig(tmp_path / "user", "user", namespace, ())
    if how == "context":
        content = json.loads(user.read_text())
        content["contexts"][0]["context"]["namespace"] = namespace
        user.write_text(json.dumps(content))
    proxy = proxied(user, cluster.kubeconfig, tmp_path / "proxied")
    more = {"namespace": namespace} if how == "setting" else {}
    known = {"kubeconfig": str(cluster.kubeconfig)}
    warned: list[str] = []
    # The API server hears of rights a moment later.
    until(lambda: Api(user).get(f"/api/v1/namespaces/{namespace}").status == 200)
    assert await replaced({"kubeconfig": str(user), **more}, {"kubeconfig": str(proxy), **more}, warned) == []
    assert await replaced({**known, **more}, {"kubeconfig": str(user), **more}, warned) == ["kubeconfig"]
    assert not warned


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_busy_server_is_one_that_does_not_answer(cluster: Any, rewritten: Rewritten, status: str) -> None:
    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    known, warned = {"kubeconfig": str(cluster.kubeconfig)}, list[str]()
    async with await asyncio.start_server(busy, "127.0.0.1", 0) as server:
        address = "http://{}:{}".format(*server.sockets[0].getsockname())
        same = rewritten(cluster={"server": address})
        other = rewritten(cluster={"server": address, "certificate-authority-data": None})
        assert await replaced({"kubeconfig": str(same)}, known, warned) == []
        assert await replaced({"kubeconfig": str(other)}, known, warned) == ["kubeconfig"]
    assert not warned
