"""The parts of the provider for `kubernetes` that need no server: readiness, kubeconfigs, names, differences."""

import asyncio
import base64
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from embedded_engine import values
from embedded_engine.kubernetes import objects
from embedded_engine.kubernetes.credentials import Credentials
from embedded_engine.kubernetes.errors import KubeconfigError, KubernetesError
from embedded_engine.kubernetes.kubeconfig import connection
from embedded_engine.kubernetes.readiness import Stage, look, pod_trouble
from embedded_engine.plugins.find import Finder

READY, WAITING, FAILED = Stage.READY, Stage.WAITING, Stage.FAILED


def thing(kind: str, spec: Any = None, status: Any = None, generation: int = 1, **annotations: str) -> dict[str, Any]:
    metadata = {"name": "x", "generation": generation, "annotations": annotations}
    return {"kind": kind, "metadata": metadata, "spec": spec or {}, "status": status or {}}


def condition(kind: str, status: str = "True", **more: Any) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status, **more}]}


ROLLED = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}
SEEN = {"observedGeneration": 1}
LATE = condition("Progressing", "False", reason="ProgressDeadlineExceeded", message="too slow")
BALANCED = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}
TAKEN = condition("Ready", "False", reason="NameInUse", message="of another namespace")
LOOKS = [
    (thing("ConfigMap"), READY, ""),
    (thing("Deployment", {"replicas": 2}, ROLLED), READY, ""),
    (thing("Deployment", {"replicas": 2}, ROLLED, generation=2), WAITING, "not seen yet"),
    (thing("Deployment", {"replicas": 3}, ROLLED), WAITING, "2 of 3 replicas are of the new version"),
    (thing("Deployment", {"replicas": 2}, ROLLED | {"replicas": 3}), WAITING, "1 old replicas"),
    (thing("Deployment", {"replicas": 2}, ROLLED | {"availableReplicas": 1}), WAITING, "1 of 2 replicas are available"),
    (thing("Deployment", {"replicas": 2}, ROLLED | LATE), FAILED, "too slow"),
    (thing("Deployment", {"replicas": 0}, {"observedGeneration": 1}), READY, ""),
    (
        thing("StatefulSet", {"replicas": 1}, {"observedGeneration": 1, "readyReplicas": 1, "updatedReplicas": 1}),
        READY,
        "",
    ),
    (thing("StatefulSet", {"replicas": 2}, {"observedGeneration": 1, "readyReplicas": 1}), WAITING, "0 of 2"),
    (
        thing("DaemonSet", {}, {"observedGeneration": 1, "desiredNumberScheduled": 2, "numberAvailable": 2}),
        WAITING,
        "0 of 2",
    ),
    (thing("Pod", {}, {"phase": "Succeeded"}), READY, ""),
    (thing("Pod", {}, condition("Ready")), READY, ""),
    (thing("Pod", {}, condition("Ready", "False", reason="ContainersNotReady")), WAITING, "ContainersNotReady"),
    (thing("Job", {}, condition("Complete")), READY, ""),
    (thing("Job", {}, condition("Failed", reason="BackoffLimitExceeded", message="twice")), FAILED, "twice"),
    (thing("Job", {}, {"active": 1}), WAITING, "1 pods run"),
    (thing("Service", {"type": "ClusterIP"}), READY, ""),
    (thing("Service", {"type": "LoadBalancer"}), WAITING, "no address"),
    (thing("Service", {"type": "LoadBalancer"}, BALANCED), READY, ""),
    (thing("Namespace", {}, {"phase": "Active"}), READY, ""),
    (thing("CustomResourceDefinition", {}, condition("Established")), READY, ""),
    (thing("CustomResourceDefinition"), WAITING, "not known yet"),
    (thing("Any", {}, condition("Ready"), **{objects.WAIT_FOR: "condition=Ready"}), READY, ""),
    (thing("Any", {}, condition("Ready", "Unknown"), **{objects.WAIT_FOR: "condition=Ready"}), WAITING, "not True"),
    (thing("Any", {}, TAKEN, **{objects.WAIT_FOR: "condition=Ready"}), FAILED, "NameInUse: of another namespace"),
    (thing("Any", {}, condition("Held", "False"), **{objects.WAIT_FOR: "condition=Held=False"}), READY, ""),
    (
        thing(
            "Any", {}, condition("Ready", observedGeneration=1), generation=2, **{objects.WAIT_FOR: "condition=Ready"}
        ),
        WAITING,
        "not known for this change",
    ),
    (thing("Any", {}, {"phase": "Up"}, **{objects.WAIT_FOR: "jsonpath={.status.phase}=Up"}), READY, ""),
    (thing("Any", {}, {"phase": "Down"}, **{objects.WAIT_FOR: "jsonpath={.status.phase}=Up"}), WAITING, "Down"),
    (
        thing("Any", {}, condition("B"), **{objects.WAIT_FOR: json.dumps(["condition=A", "condition=B"])}),
        READY,
        "",
    ),
]


@pytest.mark.parametrize(("live", "stage", "said"), LOOKS, ids=range(len(LOOKS)))
def test_whether_it_is_ready(live: dict[str, Any], stage: Stage, said: str) -> None:
    found = look(live)
    assert found.stage is stage
    assert said in found.message


@pytest.mark.parametrize("asked", ["Ready", "condition=", "[", "path={.x}"])
def test_a_wait_that_cannot_be_read(asked: str) -> None:
    with pytest.raises(KubernetesError, match="waitFor"):
        look(thing("Any", **{objects.WAIT_FOR: asked}))


def test_what_keeps_pods_from_being_ready() -> None:
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    pods = [
        {"metadata": {"name": "a"}, "status": {"containerStatuses": [{"name": "main", **waiting}]}},
        {"metadata": {"name": "b"}, "status": condition("PodScheduled", "False", message="0/1 nodes are available")},
        {"metadata": {"name": "c"}, "status": {}},
    ]
    assert pod_trouble(pods) == "pod a: main: ErrImagePull: no such image\npod b: 0/1 nodes are available"


# -- kubeconfigs


def kubeconfig(user: dict[str, Any] | None = None, **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
            {"name": "two", "context": {"cluster": "d"}},
        ],
        "clusters": [
            {"name": "c", "cluster": {"server": "https://one.example.com", **cluster}},
            {"name": "d", "cluster": {"server": "https://two.example.com"}},
        ],
        "users": [{"name": "u", "user": user or {}}],
    }


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_kubeconfig_as_text_and_as_path(tmp_path: Path) -> None:
    text = json.dumps(kubeconfig({"token": "t0ken-text"}))
    (tmp_path / "config").write_text(text)
    for given in (text, str(tmp_path / "config")):
        found = connection(given, None, None, {})
        assert (found.server, found.namespace, found.token) == ("https://one.example.com", "team", "t0ken-text")
        assert "t0ken-text" not in repr(found)
    assert connection(text, "two", None, {}).server == "https://two.example.com"
    assert connection(text, None, "d", {}).server == "https://two.example.com"
    assert connection(None, None, None, {"KUBECONFIG": str(tmp_path / "config")}).namespace == "team"


def test_files_beside_a_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("authority")
    (tmp_path / "token").write_text("first\n")
    content = kubeconfig({"tokenFile": "token"}, **{"certificate-authority": "ca.pem"})
    (tmp_path / "config").write_text(json.dumps(content))
    found = connection(str(tmp_path / "config"), None, None, {})
    assert found.authority == "authority"
    assert found.token_file == tmp_path / "token"


async def test_a_token_that_is_replaced_in_place(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("first\n")
    text = json.dumps(kubeconfig({"tokenFile": str(tmp_path / "token")}))
    credentials = Credentials(connection(text, None, None, {}))
    assert await credentials.headers() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second\n")
    assert await credentials.headers() == {"Authorization": "Bearer second"}


async def test_a_plugin_of_a_kubeconfig(tmp_path: Path) -> None:
    """As kubelogin: asked once, until what it printed expires or is not taken."""
    plugin = tmp_path / "login"
    plugin.write_text(
        f"#!{sys.executable}\nimport json, os, pathlib\n"
        f"count = pathlib.Path({str(tmp_path / 'count')!r})\n"
        "calls = int(count.read_text()) + 1 if count.exists() else 1\n"
        "count.write_text(str(calls))\n"
        "assert json.loads(os.environ['KUBERNETES_EXEC_INFO'])['kind'] == 'ExecCredential'\n"
        "print(json.dumps({'status': {'token': os.environ['FLAVOUR'] + str(calls)}}))\n"
    )
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    user = {"exec": {"command": str(plugin), "env": [{"name": "FLAVOUR", "value": "tok"}]}}
    credentials = Credentials(connection(json.dumps(kubeconfig(user)), None, None, {}))
    assert await credentials.headers() == {"Authorization": "Bearer tok1"}
    assert await credentials.headers() == {"Authorization": "Bearer tok1"}
    credentials.forget()
    assert await credentials.headers() == {"Authorization": "Bearer tok2"}


async def test_a_plugin_that_nobody_waits_for_any_more_is_ended(tmp_path: Path) -> None:
    plugin, begun = tmp_path / "login", tmp_path / "begun"
    os.mkfifo(begun)
    plugin.write_text(f"#!/bin/sh\necho $$ > {begun}\nexec sleep 600\n")
    plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
    credentials = Credentials(connection(json.dumps(kubeconfig({"exec": {"command": str(plugin)}})), None, None, {}))
    asked = asyncio.create_task(credentials.headers())
    process = int(await asyncio.to_thread(begun.read_text))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize(
    ("command", "said"),
    [("/nowhere/login", "cannot be run"), ("false", "ended with 1"), ("true", "printed no ExecCredential")],
)
async def test_a_plugin_that_fails(command: str, said: str) -> None:
    user = {"exec": {"command": command, "installHint": "get it"}}
    credentials = Credentials(connection(json.dumps(kubeconfig(user)), None, None, {}))
    with pytest.raises(KubeconfigError, match=said):
        await credentials.headers()


WRONG = [
    ("a: [", "is not YAML"),
    ("x: 1\ny: 2", "names no cluster"),
    (json.dumps(kubeconfig() | {"current-context": "three"}), "no context 'three'; there are: one, two"),
    (json.dumps(kubeconfig(server="one")), "no server"),
    (json.dumps(kubeconfig({"exec": {"args": []}})) + "\n", "no server|names no command"),
    (json.dumps(kubeconfig(**{"certificate-authority-data": "%"})), "is not base64"),
    ("/nowhere/config", "cannot be read"),
]


@pytest.mark.parametrize(("given", "said"), WRONG, ids=range(len(WRONG)))
def test_a_kubeconfig_that_cannot_be_used(given: str, said: str) -> None:
    text = given if given.startswith("/") else f"{given}\n"
    with pytest.raises(KubeconfigError, match=said):
        connection(text, None, None, {})


# -- manifests

URN = "urn:pulumi:dev::proj::kubernetes:apps/v1:Deployment::Web"


def test_names_are_made_once_and_stay() -> None:
    first = objects.completed(URN, {}, {"spec": {}}, "", b"seed")
    assert first["metadata"]["name"].startswith("web-")
    assert (first["apiVersion"], first["kind"]) == ("apps/v1", "Deployment")
    again = objects.completed(URN, first, {"spec": {"replicas": 2}}, "", b"other")
    assert again["metadata"]["name"] == first["metadata"]["name"]
    given = objects.completed(URN, first, {"metadata": {"name": "mine"}}, "team", b"seed")
    assert given["metadata"] == {"name": "mine", "namespace": "team"}


@pytest.mark.parametrize(
    "token",
    ["kubernetes:helm.sh/v3:Release", "kubernetes:kustomize:Directory", "kubernetes:yaml:ConfigFile",
     "kubernetes:apps/v1:DeploymentPatch", "kubernetes:apps/v1:DeploymentList"],
)  # fmt: skip
def test_what_needs_the_official_plugin(token: str) -> None:
    with pytest.raises(KubernetesError, match="official plugin"):
        objects.of_token(token)


OLD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web"},
    "spec": {"selector": {"matchLabels": {"app": "web"}}, "replicas": 1},
}


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({"spec": OLD["spec"] | {"replicas": 2}}, []),
        ({"spec": OLD["spec"] | {"selector": {"matchLabels": {"app": "site"}}}}, ["spec.selector"]),
        ({"metadata": {"name": "site"}}, ["metadata.name"]),
        ({"metadata": {"name": "web", "namespace": "default"}}, []),
        ({"metadata": {"name": "web", "namespace": "team"}}, ["metadata.namespace"]),
        ({"kind": "StatefulSet"}, ["kind"]),
    ],
)
def test_what_cannot_change(change: dict[str, Any], paths: list[str]) -> None:
    assert objects.unchangeable(OLD, OLD | change) == paths


def test_differences_name_the_leaves() -> None:
    old = {"a": 1, "list": [1, 2], "data": {"x.y": "1"}, "gone": True}
    new = {"a": 2, "list": [1], "data": {"x.y": "2"}, "added": {"deep": 1}}
    assert dict(objects.differences(old, new)) == {
        "a": "update",
        "list[1]": "delete",
        'data["x.y"]': "update",
        "gone": "delete",
        "added": "add",
    }


def test_drift_is_what_an_apply_would_change() -> None:
    inputs = {"spec": {"cpu": "0.5", "image": "a:1", "key": values.secret("k")}}
    wanted = {"spec": {"cpu": "500m", "image": "a:1", "key": "k", "default": 1}}
    live = {"spec": {"cpu": "500m", "image": "a:2", "key": "k", "default": 1}}
    assert objects.drifted(inputs, wanted, live)["spec"] == {**inputs["spec"], "image": "a:2"}
    live["spec"]["key"] = "other"
    assert objects.drifted(inputs, wanted, live)["spec"]["key"] == values.secret("other")


def test_the_data_of_a_secret_is_secret_whoever_forgot_to_say_so() -> None:
    live = {"kind": "Secret", "metadata": {"name": "s", "managedFields": []}, "data": {"k": "dmFsdWU="}}
    found = objects.outputs(live, {"apiVersion": "v1", "stringData": {"k": "value"}}, "manager")
    assert values.is_secret(found["data"])
    assert "managedFields" not in found["metadata"]


# -- which plugin


def test_the_official_plugin_comes_first(tmp_path: Path) -> None:
    finder = Finder(environment={"PATH": str(tmp_path), "PULUMI_HOME": str(tmp_path / "home")})
    assert finder.find("kubernetes", "4.34.2").command[1:] == ("-m", "embedded_engine.kubernetes")
    official = tmp_path / "pulumi-resource-kubernetes"
    official.write_text("#!/bin/sh\n")
    official.chmod(0o755)
    assert finder.find("kubernetes", "4.34.2").command == (str(official),)
