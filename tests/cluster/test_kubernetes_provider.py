"""The engine's own provider for `kubernetes` against a real API server, under an unmodified program."""

import base64
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import json
import pathlib
import pulumi

class Provider(pulumi.ProviderResource):
    def __init__(self, name, **settings):
        super().__init__("kubernetes", name, settings)

class Object(pulumi.CustomResource):
    def __init__(self, name, manifest, opts):
        version = manifest["apiVersion"]
        group = version if "/" in version else f"core/{version}"
        super().__init__(f"kubernetes:{group}:{manifest['kind']}", name, manifest, opts)

def secret(value):
    if isinstance(value, dict):
        return pulumi.Output.secret(value["SECRET"]) if "SECRET" in value else {k: secret(v) for k, v in value.items()}
    return value

cluster = Provider("cluster", kubeconfig=pulumi.Config().require("kubeconfig"))
last = None
for name, manifest in json.loads(pathlib.Path("objects.json").read_text()).items():
    last = Object(name, secret(manifest), pulumi.ResourceOptions(provider=cluster, depends_on=[last] if last else []))
"""
SALT = "v1:fXzlv8jotfE=:v1:ieTyVVKSWX0nl+mJ:Aumk86Qp7BmQSzDPsNQtmY07dL08bg=="
"""Of the passphrase "x"."""


class Stack:
    """A stack whose program declares the manifests of a file."""

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        self.folder = folder
        for name in ("app", "state", "home"):
            (folder / name).mkdir()
        app = folder / "app"
        (app / "Pulumi.yaml").write_text("name: tested\nruntime: python\n")
        (app / "__main__.py").write_text(PROGRAM)
        (app / "Pulumi.dev.yaml").write_text(
            f"encryptionsalt: {SALT}\nconfig:\n  tested:kubeconfig: {json.dumps(str(kubeconfig))}\n"
        )
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PULUMI_")}
        self.environment = {
            **kept,
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.must("stack", "init", "dev")

    def declare(self, **objects: dict[str, Any]) -> None:
        (self.folder / "app" / "objects.json").write_text(json.dumps(objects))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "embedded_engine", *arguments],
            cwd=self.folder / "app",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def must(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fails(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self) -> str:
        return self.must("up", "--yes", "--stack", "dev")

    @property
    def state_text(self) -> str:
        (file,) = (self.folder / "state").glob(".pulumi/stacks/**/dev.json")
        return file.read_text()


@pytest.fixture
def stack(cluster, tmp_path):
    return Stack(tmp_path, cluster.kubeconfig)


def config_map(namespace: str, name: str = "words", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data}


def deployment(namespace: str, **annotations: str) -> dict[str, Any]:
    labels = {"app": "sleeper"}
    container = {"name": "main", "image": "sleeper:1", "resources": {"requests": {"cpu": "0.5", "memory": "1000Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "sleeper", "namespace": namespace, "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def test_previewed_applied_changed_and_removed(stack, cluster, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps/words"
    stack.declare(words=config_map(namespace, one="1"))
    assert "create" in stack.must("preview", "--stack", "dev")
    assert cluster.api.get(path).status == 404, "a preview makes nothing"
    stack.up()
    made = cluster.api.get(path).body
    assert made["data"] == {"one": "1"}
    assert "3 unchanged" in stack.up(), "the same program again changes nothing (I9)"
    assert cluster.api.get(path).body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    stack.declare(words=config_map(namespace, one="1", two="2"))
    shown = stack.must("preview", "--diff", "--stack", "dev")
    assert "two" in shown
    assert "1 to update" in shown
    stack.up()
    assert cluster.api.get(path).body["data"] == {"one": "1", "two": "2"}
    stack.declare(words=config_map(namespace, two="2"))
    stack.up()
    assert cluster.api.get(path).body["data"] == {"two": "2"}, "a field that is not declared any more goes"

    stack.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(path).status == 404


def test_the_server_refuses_at_preview(stack, cluster, namespace):
    """I7: what the API server would refuse, the preview refuses, with the server's words."""
    wrong = {
        "apiVersion": "aks-inference.dev/v1",
        "kind": "ScoringEndpoint",
        "metadata": {"name": "churn", "namespace": namespace},
        "spec": {"versions": [{"name": "blue", "code": {"entryScript": "s.py", "digest": "d"}}]},
    }
    misspelt = config_map(namespace, one="1") | {"dota": {}}
    stack.declare(wrong=wrong)
    assert "exactly one version must be the default" in stack.fails("preview", "--stack", "dev")
    stack.declare(misspelt=misspelt)
    assert "dota" in stack.fails("up", "--yes", "--stack", "dev")


def test_what_cannot_change_is_replaced(stack, cluster, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps/words"
    stack.declare(words=config_map(namespace, one="1") | {"immutable": True})
    stack.up()
    first = cluster.api.get(path).body["metadata"]["uid"]
    stack.declare(words=config_map(namespace, one="2") | {"immutable": True})
    assert "1 to replace" in stack.must("preview", "--stack", "dev")
    stack.up()
    second = cluster.api.get(path).body
    assert second["data"] == {"one": "2"}
    assert second["metadata"]["uid"] != first


@pytest.mark.long
def test_a_field_that_only_the_server_knows_to_be_fixed(stack, cluster, namespace):
    """A volume claim can grow, and nothing else of it can change."""
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "disk", "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    stack.declare(disk=claim)
    stack.up()
    stack.declare(disk=claim | {"spec": claim["spec"] | {"volumeMode": "Block"}})
    assert "1 to replace" in stack.must("preview", "--stack", "dev")


@pytest.mark.long
def test_a_definition_its_object_a_namespace_and_what_is_in_it_in_one_run(stack, bare_cluster):
    group = "lab.example.com"
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "listKind": "GadgetList"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"size": {"type": "integer"}},
                        }
                    },
                }
            ],
        },
    }
    room = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "room"}}
    gadget = {
        "apiVersion": f"{group}/v1",
        "kind": "Gadget",
        "metadata": {"name": "one", "namespace": "room"},
        "size": 3,
    }
    stack.declare(definition=definition, room=room, gadget=gadget, words=config_map("room", one="1"))
    assert "6 to create" in stack.must("preview", "--stack", "dev")
    stack.up()
    assert bare_cluster.api.get(f"/apis/{group}/v1/namespaces/room/gadgets/one").body["size"] == 3
    assert "6 unchanged" in stack.up()
    if bare_cluster.has_controllers:
        # Without a controller manager nothing ends a namespace.
        stack.must("destroy", "--yes", "--stack", "dev")
        assert bare_cluster.api.get("/api/v1/namespaces/room").status == 404


@pytest.mark.long
def test_waits_until_ready_and_says_what_is_missing(stack, cluster, namespace):
    """A Deployment that no node takes: told with the scheduler's words, kept, and tried again by the next run."""
    if not cluster.has_controllers:
        pytest.skip("needs a controller manager and a scheduler (python -m testbed.build)")
    stack.declare(sleeper=deployment(namespace, **{"pulumi.com/timeoutSeconds": "4"}))
    said = stack.fails("up", "--yes", "--stack", "dev")
    assert "not ready after 4 s" in said
    assert "nodes are available" in said or "no nodes available" in said
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/sleeper"
    assert cluster.api.get(path).status == 200
    stack.declare(sleeper=deployment(namespace, **{"pulumi.com/skipAwait": "true"}))
    stack.up()
    assert "3 unchanged" in stack.up()
    stack.must("destroy", "--yes", "--stack", "dev")
    assert cluster.api.get(path).status == 404


@pytest.mark.long
def test_an_endpoint_is_waited_for_by_its_condition(stack, cluster, namespace, until):
    """`pulumi.com/waitFor: condition=Ready`; a condition of an older generation does not count."""
    endpoint = {
        "apiVersion": "aks-inference.dev/v1",
        "kind": "ScoringEndpoint",
        "metadata": {
            "name": "churn",
            "namespace": namespace,
            "annotations": {"pulumi.com/waitFor": "condition=Ready", "pulumi.com/timeoutSeconds": "120"},
        },
        "spec": {"versions": [{"name": "blue", "isDefault": True, "code": {"entryScript": "s.py", "digest": "d"}}]},
    }
    path = f"/apis/aks-inference.dev/v1/namespaces/{namespace}/scoringendpoints/churn"

    def report(status: str, reason: str, message: str = "") -> None:
        until(lambda: cluster.api.get(path).status == 200, seconds=120)
        condition = {"type": "Ready", "status": status, "reason": reason, "message": message}
        stamped = condition | {"lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}
        body = {k: endpoint[k] for k in ("apiVersion", "kind")} | {"status": {"conditions": [stamped]}}
        cluster.api.apply(f"{path}/status", body, manager="runtime")

    stack.declare(churn=endpoint)
    reporter = threading.Thread(target=report, args=("False", "Failed", "ImportError: no module named numpi"))
    reporter.start()
    said = stack.fails("up", "--yes", "--stack", "dev")
    reporter.join()
    assert "ImportError: no module named numpi" in said, "a failure that does not mend itself is not waited out"
    report("True", "Healthy")
    stack.up()
    assert "3 unchanged" in stack.up()


@pytest.mark.long
def test_drift_is_seen_and_mended(stack, cluster, namespace):
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/sleeper"
    stack.declare(sleeper=deployment(namespace, **{"pulumi.com/skipAwait": "true"}))
    stack.up()
    stack.must("refresh", "--yes", "--stack", "dev")
    assert "3 unchanged" in stack.up(), "defaults and other spellings of a quantity are no drift"
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "sleeper:2"}]}}}}
    cluster.api.call("PATCH", path, patch, "application/strategic-merge-patch+json", fieldManager="somebody")
    shown = stack.must("refresh", "--yes", "--stack", "dev")
    assert "updated" in shown
    conflict = stack.fails("preview", "--diff", "--stack", "dev")
    assert '"sleeper:2" => "sleeper:1"' in conflict
    assert "somebody" in conflict, "a field that another manager changed is not taken in silence"
    assert "pulumi.com/patchForce" in conflict
    stack.declare(sleeper=deployment(namespace, **{"pulumi.com/skipAwait": "true", "pulumi.com/patchForce": "true"}))
    stack.up()
    containers = cluster.api.get(path).body["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "sleeper:1"
    cluster.api.delete(path)
    stack.must("refresh", "--yes", "--stack", "dev")
    stack.up()
    assert cluster.api.get(path).status == 200, "what was deleted is made again"


@pytest.mark.long
def test_replicas_that_nobody_declares_are_left_alone(stack, cluster, namespace):
    """The autoscaler owns the scale: no apply, and no change of the template, sets it back."""
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/sleeper"
    waitless = {"pulumi.com/skipAwait": "true"}
    stack.declare(sleeper=deployment(namespace, **waitless))
    stack.up()
    cluster.api.merge(f"{path}/scale", {"spec": {"replicas": 5}}, fieldManager="autoscaler")
    assert "3 unchanged" in stack.up()
    stack.declare(sleeper=deployment(namespace, **waitless, note="changed"))
    stack.up()
    assert cluster.api.get(path).body["spec"]["replicas"] == 5
    stack.must("refresh", "--yes", "--stack", "dev")
    assert "3 unchanged" in stack.up()


def test_secrets_stay_secret(stack, cluster, namespace):
    hidden = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": namespace},
        "stringData": {"open": {"SECRET": "hush-hush-value"}, "plain": "not-marked-value"},
    }
    stack.declare(keys=hidden)
    shown = (
        stack.up() + stack.must("stack", "export", "--stack", "dev") + stack.must("preview", "--diff", "--stack", "dev")
    )
    for value in ("hush-hush-value", "not-marked-value"):
        encoded = base64.b64encode(value.encode()).decode()
        assert encoded not in shown + stack.state_text, "the data of a Secret is secret, whoever forgot to say so"
    assert "hush-hush-value" not in shown + stack.state_text
    stored = cluster.api.get(f"/api/v1/namespaces/{namespace}/secrets/keys").body["data"]["open"]
    assert base64.b64decode(stored) == b"hush-hush-value"
    assert "3 unchanged" in stack.up()


def test_what_it_does_not_have_it_refuses_by_name(stack):
    stack.declare(chart={"apiVersion": "helm.sh/v3", "kind": "Release", "metadata": {"name": "nginx"}})
    assert "official plugin" in stack.fails("preview", "--stack", "dev")


def test_a_server_that_is_not_there(stack, namespace, cluster, tmp_path):
    config = json.loads(cluster.kubeconfig.read_text()) if cluster.kubeconfig.suffix == ".kubeconfig" else None
    if config is None:
        pytest.skip("the given kubeconfig is not changed")
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    (tmp_path / "other").write_text(json.dumps(config))
    stack.must("config", "set", "--stack", "dev", "kubeconfig", str(tmp_path / "other"))
    stack.declare(words=config_map(namespace, one="1"))
    assert "https://127.0.0.1:1 does not answer" in stack.fails("preview", "--stack", "dev")
