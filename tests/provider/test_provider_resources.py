"""The custom resources over the real protocol, against a stand-in supervisor."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2

from aks_inference_runtime.api.status import ServiceState

Json = dict[str, Any]
SOME, NONE = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE


def kinds(diff: Any) -> dict[str, str]:
    return {path: provider_pb2.PropertyDiff.Kind.Name(each.kind) for path, each in diff.detailedDiff.items()}


def endpoint(name: str = "svc", *, auth: str = "key", **versions: float) -> Json:
    shares = versions or {"a": 100}
    return {
        "metadata": {"name": name},
        "spec": {
            "auth": auth,
            "versions": [
                {
                    "name": version,
                    "trafficPercentile": share,
                    "isDefault": index == 0,
                    "models": [{"name": "stored", "version": 1}],
                    "code": {"entryScript": "score.py", "sourceDirectory": "/src", "digest": "sha256:0"},
                }
                for index, (version, share) in enumerate(shares.items())
            ],
        },
    }


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"one")
    return path


def wait_for(condition: Callable[[], bool], limit_s: float = 15) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [leaf for key, each in inner for leaf in leaves(each, (*path, key))]


def put(value: Any, path: tuple[Any, ...], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], change)
    return copy


@pytest.mark.parametrize("kind", ["LocalRuntime", "Model", "LocalEndpoint"])
def test_each_leaf_in_each_form(plugin: Any, supervisor: Any, model_file: Path, values: Any, kind: str) -> None:
    given: Json = {
        "LocalRuntime": {"name": "local", "port": 9000.0, "stateDirectory": "/s", "haproxy": "/bin/haproxy"},
        "Model": {
            "target": supervisor.target, "name": "m", "path": str(model_file), "tags": {"a": "b"}, "description": "d",
            "properties": {"c": "d"}, "framework": "Onnx", "frameworkVersion": "1",
        },
        "LocalEndpoint": {
            "target": supervisor.target, "endpoint": endpoint(a=90, b=10), "primaryKey": "first-key",
            "secondaryKey": "other-key",
            "timeoutSeconds": 5.0,
        },
    }[kind]  # fmt: skip
    plain = plugin.check(kind, given).inputs
    known: dict[str, Callable[[Any], Any]] = {
        "output": values.output,
        "secret": values.secret,
        "secret output": lambda value: values.output(value, secret=True),
    }
    unknown: dict[str, Callable[[Any], Any]] = {
        "unknown": lambda _: values.UNKNOWN,
        "unknown output": lambda _: values.output(),
        "unknown secret": lambda _: values.secret(values.UNKNOWN),
    }
    for path in leaves(given):
        for form, make in {**known, **unknown}.items():
            checked = plugin.check(kind, put(given, path, make))
            assert not checked.failures, (path, form)
            diff = plugin.diff(kind, plain, checked.inputs, id=str(supervisor.directory))
            changed = [each for each in diff.detailedDiff if each.startswith(str(path[0]))]
            assert bool(changed) == (form in unknown), (path, form)
            outputs = plugin.create(kind, checked.inputs, preview=True).outputs
            assert values.plain(outputs[path[0]]) == values.plain(checked.inputs[path[0]]), (path, form)
            hidden = outputs[path[0]] != values.plain(outputs[path[0]])
            assert hidden == ("secret" in form or path[0] in ("primaryKey", "secondaryKey")), (path, form)


class TestLocalRuntime:
    def test_check_fills_in_the_defaults(self, plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        checked = plugin.check("LocalRuntime", {"name": "local"})
        assert not checked.failures
        assert checked.inputs["port"] == 8890
        assert checked.inputs["stateDirectory"].endswith("/aks-inference/proj-dev-local")

    def test_check_keeps_a_default_of_another_home(self, plugin: Any) -> None:
        old = "/home/other/.local/state/aks-inference/proj-dev-local"
        checked = plugin.check("LocalRuntime", {"name": "local"}, {"name": "local", "stateDirectory": old})
        assert checked.inputs["stateDirectory"] == old

    def test_check_says_everything_at_once(self, plugin: Any) -> None:
        news = {"nmae": "x", "port": 70_000, "stateDirectory": "here", "haproxy": 3}
        assert plugin.check("LocalRuntime", news).failures == {
            "nmae": "unknown property; did you mean 'name'?",
            "name": "is required: string (The cluster's name)",
            "port": "70000 is no port: 1 to 65535",
            "stateDirectory": "'here' is not absolute; give an absolute path",
            "haproxy": "must be a string, not 3",
        }

    def test_a_port_that_somebody_else_has_is_refused_before_anything_is_made(self, plugin: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            checked = plugin.check("LocalRuntime", {"name": "local", "port": port})
            assert set(checked.failures) == {"port"}
            assert f"{port} on 127.0.0.1 is in use by process {os.getpid()}" in checked.failures["port"]
            # Of a cluster that is there already the port is its own.
            assert not plugin.check("LocalRuntime", {"name": "local", "port": port}, checked.inputs).failures
        assert not plugin.check("LocalRuntime", {"name": "local", "port": port}).failures

    def test_a_port_that_it_is_to_move_to_is_looked_at_before_it_is_deleted(self, plugin: Any, tmp_path: Path) -> None:
        olds = {"name": "local", "port": 1, "stateDirectory": str(tmp_path), "running": True}
        held = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
        # A router of another cluster is in the way, too; the own one goes with the cluster.
        for argument, refused in (("elsewhere/public.cfg", True), (f"{tmp_path}/public.cfg", False)):
            listener = subprocess.Popen(
                [sys.executable, "-c", f"{held}; sys.stdin.read()", argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            with listener:
                assert listener.stdout is not None
                port = int(listener.stdout.readline())
                news = {key: value for key, value in olds.items() if key != "running"} | {"port": port}
                said = plugin.check("LocalRuntime", news, olds).failures
                listener.kill()
            assert set(said) == ({"port"} if refused else set())
            assert not refused or f"{port} on 127.0.0.1 is in use by process {listener.pid}" in said["port"]
            assert not plugin.check("LocalRuntime", news, olds).failures

    def test_the_preview_knows_every_output(self, plugin: Any) -> None:
        inputs = plugin.check("LocalRuntime", {"name": "local", "stateDirectory": "/s", "port": 9000}).inputs
        made = plugin.create("LocalRuntime", inputs, preview=True)
        assert made.outputs == {
            **inputs,
            "target": 'aks-inference+local:{"name": "local", "port": 9000, "stateDirectory": "/s"}',
            "url": "http://127.0.0.1:9000",
        }

    def test_secret_and_unknown_names_pass_through(self, plugin: Any, values: Any) -> None:
        inputs = {"name": values.secret("local"), "stateDirectory": "/s", "port": 9000}
        outputs = plugin.create("LocalRuntime", plugin.check("LocalRuntime", inputs).inputs, preview=True).outputs
        assert outputs["name"] == values.secret("local")
        assert outputs["target"]["value"].startswith("aks-inference+local:")
        assert outputs["url"] == "http://127.0.0.1:9000"
        inputs = plugin.check("LocalRuntime", {"name": values.UNKNOWN}).inputs
        assert inputs["stateDirectory"] == values.UNKNOWN
        assert plugin.create("LocalRuntime", inputs, preview=True).outputs["target"] == values.UNKNOWN

    @pytest.mark.parametrize(
        ("changed", "expected"),
        [
            ({"port": 9001}, {"port": "UPDATE_REPLACE"}),
            ({"stateDirectory": "/t"}, {"stateDirectory": "UPDATE_REPLACE"}),
            ({"name": "other"}, {"name": "UPDATE_REPLACE"}),
            ({"haproxy": "/usr/sbin/haproxy"}, {"haproxy": "ADD"}),
            ({}, {}),
        ],
    )
    def test_diff(self, plugin: Any, supervisor: Any, changed: Json, expected: Json) -> None:
        olds = {"name": "local", "port": 8890, "stateDirectory": str(supervisor.directory), "running": True}
        diff = plugin.diff("LocalRuntime", olds, {**olds, **changed}, id=str(supervisor.directory))
        assert kinds(diff) == expected
        assert diff.changes == (SOME if expected else NONE)
        assert diff.deleteBeforeReplace

    def test_one_that_does_not_run_is_started_by_the_next_up(self, plugin: Any, tmp_path: Path) -> None:
        olds = {"name": "local", "port": 8890, "stateDirectory": str(tmp_path), "running": True}
        diff = plugin.diff("LocalRuntime", olds, olds, id=str(tmp_path))
        assert kinds(diff) == {"running": "ADD"}, "by what the engine knows it runs: it would show `true => true`"
        assert not diff.detailedDiff["running"].inputDiff
        assert not diff.replaces
        refreshed = {**olds, "running": False}
        assert plugin.diff("LocalRuntime", refreshed, olds, id=str(tmp_path)).detailedDiff["running"].inputDiff

    def test_read(self, plugin: Any, supervisor: Any, tmp_path: Path) -> None:
        directory = str(supervisor.directory)
        read = plugin.read("LocalRuntime", directory, {}, {})
        assert dict(read.inputs) == {"name": "local", "port": 8890, "stateDirectory": directory, "running": True}
        assert read.properties["running"] is True
        assert read.properties["target"] == supervisor.target
        assert plugin.read("LocalRuntime", str(tmp_path / "none"), {"name": "local"}, {}).id == ""


class TestModel:
    def inputs(self, plugin: Any, supervisor: Any, path: Path, **more: Any) -> Json:
        checked = plugin.check("Model", {"target": supervisor.target, "name": "m", "path": str(path), **more})
        assert not checked.failures
        return dict(checked.inputs)

    def test_check_reads_the_files(self, plugin: Any, supervisor: Any, tmp_path: Path) -> None:
        folder = tmp_path / "net"
        (folder / "w").mkdir(parents=True)
        (folder / "w" / "1.bin").write_bytes(b"abc")
        (folder / "graph").write_bytes(b"")
        files = self.inputs(plugin, supervisor, folder)["files"]
        assert files == {
            "net/graph": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0",
            "net/w/1.bin": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 3",
        }
        chosen = self.inputs(plugin, supervisor, folder, childPaths=["w"])["files"]
        assert list(chosen) == ["net/w/1.bin"]

    def test_check_says_everything_at_once(self, plugin: Any) -> None:
        news = {
            "target": "somewhere",
            "name": "-x",
            "path": "/no/such/file",
            "tags": {"a.b": 1},
            "framework": "Keras",
            "childPaths": "w",
            "digest": "sha256:mine",
        }
        failures = plugin.check("Model", news).failures
        assert failures["target"].startswith("not a target: 'somewhere'")
        assert failures["name"].startswith("'-x' is no model name")
        assert failures['tags["a.b"]'] == "must be a string, not 1"
        assert failures["framework"].startswith("'Keras' is none of Custom,")
        assert failures["childPaths"] == "must be an array of strings, not a string"
        assert failures["digest"].startswith("unknown property; expected one of childPaths,")
        failures = plugin.check("Model", {**news, "childPaths": []}).failures
        assert failures["path"] == "/no/such/file does not exist; give an existing file or folder"

    def test_an_unknown_path_has_unknown_files(self, plugin: Any, supervisor: Any, values: Any) -> None:
        for unknown in (values.UNKNOWN, values.output(), values.output(secret=True)):
            checked = plugin.check("Model", {"target": values.UNKNOWN, "name": "m", "path": unknown})
            assert not checked.failures
            assert checked.inputs["files"] == checked.inputs["digest"] == values.UNKNOWN

    def test_versions(self, plugin: Any, supervisor: Any, model_file: Path, values: Any) -> None:
        olds = self.inputs(plugin, supervisor, model_file, tags={"a": "1"})
        assert plugin.create("Model", olds, preview=True).outputs["version"] == values.UNKNOWN
        made = plugin.create("Model", olds)
        assert made.id == f"{supervisor.directory}/models/m"
        assert made.outputs == {
            **olds,
            "version": 1,
            "modelId": "m:1",
            "createdTime": "2026-01-01T00:00:00Z",
            "versions": [1],
        }
        assert plugin.create("Model", olds).outputs == made.outputs, "the same again is the same version"

        news = self.inputs(plugin, supervisor, model_file, tags={"a": "2"})
        assert kinds(plugin.diff("Model", olds, news)) == {"tags.a": "UPDATE"}
        assert plugin.update("Model", made, olds, news, preview=True)["version"] == 1
        assert plugin.update("Model", made, olds, news)["version"] == 1

        model_file.write_bytes(b"two")
        news = self.inputs(plugin, supervisor, model_file)
        assert kinds(plugin.diff("Model", olds, news)) == {'files["model.pkl"]': "UPDATE", "tags": "DELETE"}
        assert plugin.update("Model", made, olds, news, preview=True)["version"] == values.UNKNOWN
        outputs = plugin.update("Model", made, olds, news)
        assert (outputs["version"], outputs["modelId"], outputs["versions"]) == (2, "m:2", [1, 2])

    def test_the_place_of_the_same_files_does_not_count(self, plugin: Any, supervisor: Any, tmp_path: Path) -> None:
        for folder in ("here", "there"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "model.pkl").write_bytes(b"one")
        olds = self.inputs(plugin, supervisor, tmp_path / "here" / "model.pkl")
        news = self.inputs(plugin, supervisor, tmp_path / "there" / "model.pkl")
        assert plugin.diff("Model", olds, news).changes == NONE

    def test_another_name_is_another_model(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        olds = self.inputs(plugin, supervisor, model_file)
        diff = plugin.diff("Model", olds, {**olds, "name": "n"})
        assert kinds(diff) == {"name": "UPDATE_REPLACE"}
        assert list(diff.replaces) == ["name"]
        assert not diff.deleteBeforeReplace

    def test_files_that_change_under_way_are_refused(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        inputs = self.inputs(plugin, supervisor, model_file)
        model_file.write_bytes(b"changed")
        with pytest.raises(grpc.RpcError, match="changed between the check and the upload"):
            plugin.create("Model", inputs)

    def test_delete_removes_what_is_unused(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        inputs = self.inputs(plugin, supervisor, model_file)
        made = plugin.create("Model", inputs)
        supervisor.used.add(("m", 1))
        plugin.delete("Model", made, inputs)
        assert ("m", 1) in supervisor.models
        assert "used by endpoint svc" in plugin.engine.logs[-1].message
        assert not plugin.engine.logs[-1].ephemeral
        supervisor.used.clear()
        plugin.delete("Model", made, inputs)
        assert not supervisor.models
        plugin.delete("Model", made, inputs)

    def test_read(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        inputs = self.inputs(plugin, supervisor, model_file)
        made = plugin.create("Model", inputs)
        assert plugin.read("Model", made.id, inputs, made.outputs).properties["version"] == 1
        imported = plugin.read("Model", made.id, {}, {})
        assert imported.inputs["target"] == supervisor.target
        assert imported.inputs["name"] == "m"
        supervisor.models.clear()
        assert plugin.read("Model", made.id, inputs, made.outputs).id == ""

    def test_a_cluster_that_is_gone(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        inputs = self.inputs(plugin, supervisor, model_file)
        made = plugin.create("Model", inputs)
        (supervisor.directory / "supervisor.json").unlink()
        with pytest.raises(grpc.RpcError, match="is gone; `pulumi refresh`"):
            plugin.create("Model", inputs)
        plugin.delete("Model", made, inputs)


class TestLocalEndpoint:
    def inputs(self, plugin: Any, supervisor: Any, value: Json | None = None, **more: Any) -> Json:
        checked = plugin.check("LocalEndpoint", {"target": supervisor.target, "endpoint": value or endpoint(), **more})
        assert not checked.failures
        return dict(checked.inputs)

    def test_check_fills_in_traffic_and_timeout(self, plugin: Any, supervisor: Any) -> None:
        inputs = self.inputs(plugin, supervisor, endpoint(a=80.5, b=9.25))
        assert inputs["effectiveTraffic"] == {"a": 90.75, "b": 9.25}
        assert inputs["timeoutSeconds"] == 600

    @pytest.mark.parametrize(
        ("change", "path", "reason"),
        [
            (("spec", {"port": 0}), "endpoint.spec.port", "greater than or equal to 1"),
            (("spec", {"prot": 80}), "endpoint.spec.prot", "did you mean 'port'?"),
            (("spec", {"auth": "basic"}), "endpoint.spec.auth", "'key'"),
            (("spec", {"port": "80"}), "endpoint.spec.port", "valid integer"),
            (("spec", {"port": True}), "endpoint.spec.port", "valid integer"),
            (("spec", {"versions": []}), "endpoint.spec.versions", "at least 1 item"),
            (("version", {"trafficPercentil": 1}), "endpoint.spec.versions[0].trafficPercentil", "'trafficPercentile'"),
            (("version", {"code": None}), "endpoint.spec.versions[0].code", ""),
            (("version", {"isDefault": False}), "endpoint.spec", "exactly one version must be the default"),
            (("version", {"scaling": {"autoscaleMinReplicas": 2.5}}),
             "endpoint.spec.versions[0].scaling.autoscaleMinReplicas", "valid integer"),
            (("version", {"trafficPercentile": 12.345}), "endpoint.spec.versions", "more than two decimals"),
        ],
    )  # fmt: skip
    def test_a_wrong_endpoint_is_refused(
        self, plugin: Any, supervisor: Any, change: Any, path: str, reason: str
    ) -> None:
        value = endpoint()
        place = value["spec"]["versions"][0] if change[0] == "version" else value["spec"]
        place.update(change[1])
        failures = plugin.check("LocalEndpoint", {"target": supervisor.target, "endpoint": value}).failures
        assert list(failures) == [path]
        assert reason in failures[path]

    def test_check_says_everything_at_once(self, plugin: Any) -> None:
        value = endpoint(a=80, b=50)
        news = {
            "target": "x",
            "endpoint": value,
            "primary_key": "k",
            "secondaryKey": "",
            "timeoutSeconds": 0,
            "effectiveTraffic": {"a": "80"},
        }
        failures = plugin.check("LocalEndpoint", news).failures
        assert set(failures) == {
            "target", "endpoint.spec", "primary_key", "secondaryKey", "timeoutSeconds", "effectiveTraffic.a",
        }  # fmt: skip
        assert "did you mean 'primaryKey'" in failures["primary_key"]
        assert "sum to 130" in failures["endpoint.spec"]

    def test_traffic_that_the_endpoint_does_not_have(self, plugin: Any, supervisor: Any) -> None:
        news = {"target": supervisor.target, "endpoint": endpoint(a=90, b=10), "effectiveTraffic": {"a": 100}}
        assert "the endpoint makes it" in plugin.check("LocalEndpoint", news).failures["effectiveTraffic"]

    def test_properties_never_change_once_set(self, plugin: Any, supervisor: Any) -> None:
        def declared(shared: Json, version: Json, name: str = "svc") -> Json:
            content = endpoint(name, a=90, b=10)
            content["spec"]["properties"] = shared
            content["spec"]["versions"][1]["properties"] = version
            return {"target": supervisor.target, "endpoint": content}

        olds = declared({"owner": "x"}, {"data": "1"})
        assert not plugin.check("LocalEndpoint", declared({"owner": "x", "more": "y"}, {"data": "1"}), olds).failures
        failures = plugin.check("LocalEndpoint", declared({}, {"data": "2"}), olds).failures
        assert set(failures) == {"endpoint.spec.properties.owner", "endpoint.spec.versions[1].properties.data"}
        assert "never change once set" in failures["endpoint.spec.versions[1].properties.data"]
        assert not plugin.check("LocalEndpoint", declared({}, {"data": "2"}, name="other"), olds).failures

    def test_keys_need_auth_by_key(self, plugin: Any, supervisor: Any) -> None:
        news = {"target": supervisor.target, "endpoint": endpoint(auth="none"), "primaryKey": "first-key"}
        assert list(plugin.check("LocalEndpoint", news).failures) == ["primaryKey"]

    @pytest.mark.parametrize("key", ["hush hush", "hüsh-hüsh", "hush-hu\nsh", "hush"])
    def test_a_key_known_only_late_is_refused_by_the_same_rule(
        self, plugin: Any, supervisor: Any, values: Any, key: str
    ) -> None:
        news = {"target": supervisor.target, "endpoint": endpoint(), "secondaryKey": values.secret(key)}
        failures = plugin.check("LocalEndpoint", news).failures
        assert list(failures) == ["secondaryKey"]
        assert key not in failures["secondaryKey"]
        assert "or leave it out to have one generated" in failures["secondaryKey"]

    def test_each_unknown_leaf_is_tolerated(self, plugin: Any, supervisor: Any, values: Any) -> None:
        value = endpoint(a=90, b=10)

        def places(inside: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
            inner = inside.items() if isinstance(inside, dict) else enumerate(inside)
            deeper = [(k, v) for k, v in inner if not isinstance(v, str | int | float | bool)]
            own = [(*path, k) for k, _ in (inside.items() if isinstance(inside, dict) else enumerate(inside))]
            return own + [each for k, v in deeper for each in places(v, (*path, k))]

        for path in places(value):
            for unknown in (values.UNKNOWN, values.output(), values.output(secret=True)):
                changed: Any = endpoint(a=90, b=10)
                place = changed
                for key in path[:-1]:
                    place = place[key]
                place[path[-1]] = unknown
                checked = plugin.check("LocalEndpoint", {"target": values.UNKNOWN, "endpoint": changed})
                assert not checked.failures, path
                diff = plugin.diff("LocalEndpoint", {"target": "t", "endpoint": value}, checked.inputs)
                assert diff.changes == SOME
                plugin.create("LocalEndpoint", checked.inputs, preview=True)

    def test_the_preview_knows_what_it_can(self, plugin: Any, supervisor: Any, values: Any) -> None:
        value = endpoint()
        value["spec"]["versions"][0]["models"][0]["version"] = values.UNKNOWN
        inputs = self.inputs(plugin, supervisor, value, primaryKey=values.secret("my-own-key"))
        outputs = plugin.create("LocalEndpoint", inputs, preview=True).outputs
        assert outputs["scoringUri"] == "http://127.0.0.1:8890/api/v1/service/svc/score"
        assert outputs["swaggerUri"] == "http://127.0.0.1:8890/api/v1/service/svc/swagger.json"
        assert outputs["primaryKey"] == values.secret("my-own-key")
        assert outputs["secondaryKey"] == values.secret(values.UNKNOWN)
        assert outputs["state"] == values.UNKNOWN

    def test_a_port_of_its_own_is_where_it_is_served(self, plugin: Any, supervisor: Any, values: Any) -> None:
        value = endpoint()
        for port, base in ((9001.0, "http://127.0.0.1:9001"), (values.UNKNOWN, None)):
            value["spec"]["port"] = port
            outputs = plugin.create("LocalEndpoint", self.inputs(plugin, supervisor, value), preview=True).outputs
            places = [outputs["scoringUri"], outputs["swaggerUri"]]
            assert places == ([f"{base}/score", f"{base}/swagger.json"] if base else [values.UNKNOWN] * 2)

    def test_life(self, plugin: Any, supervisor: Any, values: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100))
        made = plugin.create("LocalEndpoint", olds)
        assert made.id == f"{supervisor.directory}/endpoints/svc"
        assert made.outputs == {
            **olds,
            "scoringUri": "http://127.0.0.1:8890/api/v1/service/svc/score",
            "swaggerUri": "http://127.0.0.1:8890/api/v1/service/svc/swagger.json",
            "primaryKey": values.secret("generated-1"),
            "secondaryKey": values.secret("generated-2"),
            "state": "Healthy",
        }
        assert plugin.create("LocalEndpoint", olds).outputs == made.outputs, "a create is idempotent by its URN"
        assert supervisor.endpoints["svc"][1] == 1

        news = self.inputs(plugin, supervisor, endpoint(a=90, b=10))
        diff = plugin.diff("LocalEndpoint", olds, news)
        assert kinds(diff) == {
            "effectiveTraffic.a": "UPDATE",
            "effectiveTraffic.b": "ADD",
            "endpoint.spec.versions[0].trafficPercentile": "UPDATE",
            "endpoint.spec.versions[1]": "ADD",
        }
        assert not diff.replaces
        preview = plugin.update("LocalEndpoint", made, olds, news, preview=True)
        assert preview["primaryKey"] == values.secret("generated-1")
        outputs = plugin.update("LocalEndpoint", made, olds, news)
        assert outputs["primaryKey"] == values.secret("generated-1")

        read = plugin.read("LocalEndpoint", made.id, news, outputs)
        assert values.plain(_dict(read.inputs)) == values.plain(news), "what nobody changed has no drift"
        plugin.delete("LocalEndpoint", made, news)
        assert not supervisor.endpoints
        plugin.delete("LocalEndpoint", made, news)
        assert plugin.read("LocalEndpoint", made.id, news, outputs).id == ""

    def test_drift_is_read(self, plugin: Any, supervisor: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100, b=0))
        made = plugin.create("LocalEndpoint", olds)
        declared, generation = supervisor.endpoints["svc"]
        versions = tuple(
            v.model_copy(update={"traffic_percentile": share})
            for v, share in zip(declared.spec.versions, (50, 50), strict=True)
        )
        changed = declared.model_copy(update={"spec": declared.spec.model_copy(update={"versions": versions})})
        supervisor.endpoints["svc"] = (changed, generation + 1)
        read = plugin.read("LocalEndpoint", made.id, olds, made.outputs)
        inputs = _dict(read.inputs)
        assert inputs["effectiveTraffic"] == {"a": 50, "b": 50}
        assert inputs["endpoint"]["spec"]["versions"][1]["trafficPercentile"] == 50

    def test_what_a_killed_apply_left_is_a_difference(self, plugin: Any, supervisor: Any, values: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100), primaryKey=values.secret("my-own-key"))
        made = plugin.create("LocalEndpoint", olds)
        assert plugin.diff("LocalEndpoint", olds, olds, id=made.id).changes == NONE
        other = self.inputs(plugin, supervisor, endpoint(a=50, b=50), primaryKey=values.secret("another-key"))
        for news, away in (
            (other, {"endpoint.spec.versions": "ADD", "primaryKey": "ADD"}),
            (
                self.inputs(plugin, supervisor, endpoint(a=90), primaryKey=values.secret("my-own-key")),
                {"endpoint.spec.versions[0].trafficPercentile": "ADD"},
            ),
        ):
            plugin.update("LocalEndpoint", made, olds, news)
            plugin.engine.logs.clear()
            diff = plugin.diff("LocalEndpoint", olds, olds, id=made.id)
            assert kinds(diff) == away
            assert not diff.replaces
            plugin.update("LocalEndpoint", made, olds, olds, preview=True)
            (note,) = plugin.engine.logs
            assert all(path in note.message for path in away)
            assert "another-key" not in note.message
            plugin.update("LocalEndpoint", made, olds, olds)
            assert plugin.diff("LocalEndpoint", olds, olds, id=made.id).changes == NONE

    def test_one_that_the_supervisor_lost_comes_back_with_its_keys(
        self, plugin: Any, supervisor: Any, values: Any
    ) -> None:
        olds = self.inputs(plugin, supervisor, endpoint())
        made = plugin.create("LocalEndpoint", olds)
        before = {**made.outputs, "primaryKey": values.secret("known-to-clients")}
        supervisor.delete_endpoint("svc")
        assert kinds(plugin.diff("LocalEndpoint", olds, olds, id=made.id)) == {"endpoint": "ADD"}
        outputs = plugin.update("LocalEndpoint", type(made)(made.id, before), olds, olds)
        assert outputs["primaryKey"] == values.secret("known-to-clients")
        assert plugin.diff("LocalEndpoint", olds, olds, id=made.id).changes == NONE

    def test_keys_that_are_left_out_stay_and_the_preview_says_so(
        self, plugin: Any, supervisor: Any, values: Any
    ) -> None:
        given = {key: values.secret(f"my-{key}") for key in ("primaryKey", "secondaryKey")}
        olds = self.inputs(plugin, supervisor, endpoint(), **given)
        made = plugin.create("LocalEndpoint", olds)
        news = self.inputs(plugin, supervisor, endpoint())
        plugin.engine.logs.clear()
        assert plugin.update("LocalEndpoint", made, olds, news, preview=True)["primaryKey"] == given["primaryKey"]
        (note,) = plugin.engine.logs
        assert "primaryKey and secondaryKey: no longer given; the keys stay as they are" in note.message
        assert plugin.update("LocalEndpoint", made, olds, news)["secondaryKey"] == given["secondaryKey"]

    def test_secret_variables_stay_secret_where_drift_is_read(self, plugin: Any, supervisor: Any, values: Any) -> None:
        content = endpoint()
        content["spec"]["versions"][0]["environment"] = {"environmentVariables": {"TOKEN": values.secret("hush")}}
        olds = self.inputs(plugin, supervisor, content)
        made = plugin.create("LocalEndpoint", olds)
        declared, generation = supervisor.endpoints["svc"]
        changed = declared.model_copy(update={"spec": declared.spec.model_copy(update={"description": "other"})})
        supervisor.endpoints["svc"] = (changed, generation + 1)
        read = plugin.read("LocalEndpoint", made.id, olds, made.outputs)
        for found in (_dict(read.inputs), _dict(read.properties)):
            assert found["endpoint"]["spec"]["description"] == "other"
            variables = found["endpoint"]["spec"]["versions"][0]["environment"]["environmentVariables"]
            assert variables == values.secret({"TOKEN": "hush"})

    @pytest.mark.parametrize(
        ("old", "new", "replaces", "first"),
        [
            (endpoint("svc"), endpoint("other"), ["endpoint"], False),
            ({**endpoint("svc")}, {**endpoint("svc")}, [], True),
        ],
    )
    def test_another_name_is_another_endpoint(
        self, plugin: Any, supervisor: Any, old: Json, new: Json, replaces: list[str], first: bool
    ) -> None:
        diff = plugin.diff(
            "LocalEndpoint",
            {"target": supervisor.target, "endpoint": old},
            {"target": supervisor.target, "endpoint": new},
        )
        assert list(diff.replaces) == replaces
        assert diff.deleteBeforeReplace == first

    def test_ignored_changes(self, plugin: Any, supervisor: Any) -> None:
        olds = self.inputs(plugin, supervisor, endpoint(a=100, b=0))
        news = self.inputs(plugin, supervisor, endpoint(a=90, b=10))
        ignored = ("endpoint.spec.versions", "effectiveTraffic")
        assert plugin.diff("LocalEndpoint", olds, news, ignore=ignored).changes == NONE

    def test_a_failed_deployment_is_there_with_its_log(
        self, plugin: Any, supervisor: Any, left_by: Any, values: Any
    ) -> None:
        supervisor.becomes = ServiceState.FAILED
        supervisor.message = "score.py: ZeroDivisionError in init"
        inputs = self.inputs(plugin, supervisor)
        with pytest.raises(grpc.RpcError) as caught:
            plugin.create("LocalEndpoint", inputs)
        left = left_by(caught.value)
        assert left.id == f"{supervisor.directory}/endpoints/svc"
        assert "ZeroDivisionError in init" in left.reasons[0]
        assert left.properties["state"] == "Failed"
        assert _dict(left.properties)["primaryKey"] == values.secret("generated-1")
        assert "Traceback" not in left.reasons[0]
        supervisor.becomes = ServiceState.HEALTHY
        made = type("Made", (), {"id": left.id, "outputs": _dict(left.properties)})
        assert plugin.update("LocalEndpoint", made, inputs, inputs)["state"] == "Healthy"

    def test_a_deployment_that_takes_too_long(self, plugin: Any, supervisor: Any, left_by: Any) -> None:
        supervisor.becomes = ServiceState.TRANSITIONING
        with pytest.raises(grpc.RpcError, match=r"Transitioning after 0\.3 s") as caught:
            plugin.create("LocalEndpoint", self.inputs(plugin, supervisor), timeout=0.3)
        assert left_by(caught.value).properties["state"] == "Transitioning"
        with pytest.raises(grpc.RpcError, match=r"Transitioning after 0\.2 s"):
            plugin.create("LocalEndpoint", self.inputs(plugin, supervisor, timeoutSeconds=0.2))

    def test_progress_reaches_the_engine(self, plugin: Any, supervisor: Any) -> None:
        supervisor.message = "building the environment"
        plugin.create("LocalEndpoint", self.inputs(plugin, supervisor))
        messages = [(log.message, log.ephemeral, log.urn) for log in plugin.engine.logs]
        assert messages == [("Healthy, a 0/0 ready", True, plugin.urn("LocalEndpoint"))]

    def test_somebody_elses_endpoint_is_left_alone(self, plugin: Any, supervisor: Any) -> None:
        inputs = self.inputs(plugin, supervisor)
        made = plugin.create("LocalEndpoint", inputs)
        plugin_urn = plugin.urn
        try:
            plugin.urn = lambda kind, name="res": plugin_urn(kind, "another")
            with pytest.raises(grpc.RpcError, match=r"already served there, declared by urn:.*::res"):
                plugin.create("LocalEndpoint", inputs)
            plugin.delete("LocalEndpoint", made, inputs)
        finally:
            plugin.urn = plugin_urn
        assert "svc" in supervisor.endpoints

    def test_cancel_ends_a_wait(self, start_plugin: Any, supervisor: Any, left_by: Any) -> None:
        plugin = start_plugin()
        supervisor.becomes = ServiceState.TRANSITIONING
        inputs = self.inputs(plugin, supervisor)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(plugin.create, "LocalEndpoint", inputs)
            wait_for(lambda: supervisor.calls.count("GET /endpoints/svc") > 2)
            plugin.stub.Cancel(_empty())
            with pytest.raises(grpc.RpcError, match="cancelled while endpoint svc was Transitioning") as caught:
                waiting.result(10)
        assert left_by(caught.value).id.endswith("/endpoints/svc")

    def test_a_wait_holds_nobody_up(self, plugin: Any, supervisor: Any) -> None:
        supervisor.becomes = ServiceState.TRANSITIONING
        names = [f"svc-{index}" for index in range(8)]
        begun = threading.Barrier(len(names))

        def deploy(name: str) -> str:
            inputs = self.inputs(plugin, supervisor, endpoint(name))
            begun.wait(10)
            return str(plugin.create("LocalEndpoint", inputs).outputs["state"])

        with ThreadPoolExecutor(len(names)) as pool:
            waiting = [pool.submit(deploy, name) for name in names]
            wait_for(lambda: set(supervisor.endpoints) == set(names))
            assert not plugin.check("LocalRuntime", {"name": "local"}).failures
            supervisor.becomes = ServiceState.HEALTHY
            assert {each.result(20) for each in waiting} == {"Healthy"}


def _dict(message: Any) -> Json:
    from google.protobuf import json_format

    return dict(json_format.MessageToDict(message))


def _empty() -> Any:
    from google.protobuf import empty_pb2

    return empty_pb2.Empty()


class TestModelsThatAreNotThere:
    """A model that is named by its id must be stored, unless this deployment registers it."""

    path = "endpoint.spec.versions[0].models[0]"

    def news(self, supervisor: Any, name: str, version: Any = 1) -> Json:
        content = endpoint()
        content["spec"]["versions"][0]["models"] = [{"name": name, "version": version}]
        return {"target": supervisor.target, "endpoint": content}

    def test_is_refused_with_what_there_is(self, plugin: Any, supervisor: Any) -> None:
        said = plugin.check("LocalEndpoint", self.news(supervisor, "stored", 3)).failures
        assert list(said) == [self.path]
        assert "no model stored:3 is stored on the target (there is stored:1)" in said[self.path]
        assert "RegisteredModel" in said[self.path]
        assert (
            "did you mean stored?" in plugin.check("LocalEndpoint", self.news(supervisor, "store")).failures[self.path]
        )
        supervisor.has_stored = False
        assert "it has no models" in plugin.check("LocalEndpoint", self.news(supervisor, "zz")).failures[self.path]

    @pytest.mark.parametrize(
        ("component", "path"),
        [("ModelWebService", "models[0]"), ("ControlledRolloutEndpoint", "versions[0].models[0]")],
    )
    def test_has_the_path_of_the_component(self, plugin: Any, supervisor: Any, component: str, path: str) -> None:
        kinds_of = f"aks-inference:index:{component}$aks-inference:index:LocalEndpoint"
        news = json_format.ParseDict(self.news(supervisor, "store"), struct_pb2.Struct())
        urn = f"urn:pulumi:dev::proj::{kinds_of}::res"
        (failure,) = plugin.stub.Check(provider_pb2.CheckRequest(urn=urn, news=news)).failures
        assert failure.property == ""
        assert failure.reason.startswith(f"{path}: no model 'store' is stored on the target (did you mean stored?)")

    def test_one_that_this_deployment_registers_passes(self, plugin: Any, supervisor: Any, model_file: Path) -> None:
        news = self.news(supervisor, "fresh")
        assert plugin.check("LocalEndpoint", news).failures
        plugin.check("Model", {"target": supervisor.target, "name": "fresh", "path": str(model_file)})
        assert not plugin.check("LocalEndpoint", news).failures

    def test_what_is_not_known_or_was_there_before_is_not_asked_for(
        self, plugin: Any, supervisor: Any, values: Any
    ) -> None:
        assert not plugin.check("LocalEndpoint", self.news(supervisor, "late", values.UNKNOWN)).failures
        old = self.news(supervisor, "older")
        supervisor.calls.clear()
        assert not plugin.check("LocalEndpoint", old, old).failures
        assert supervisor.calls == [], "an unchanged program costs no call"

    def test_a_cluster_that_is_not_there_refuses_nothing(self, plugin: Any, supervisor: Any) -> None:
        (supervisor.directory / "supervisor.json").unlink()
        assert not plugin.check("LocalEndpoint", self.news(supervisor, "nomodel")).failures


class TestKeysThatStay:
    """Generated keys are what clients hold: neither a replacement nor an argument that goes changes them."""

    def inputs(self, supervisor: Any, **more: Any) -> Json:
        return {"target": supervisor.target, "endpoint": endpoint(), "timeoutSeconds": 5.0, **more}

    def test_a_replacement_has_the_keys_of_the_one_before(self, plugin: Any, supervisor: Any, values: Any) -> None:
        inputs = self.inputs(supervisor)
        made = plugin.create("LocalEndpoint", inputs)
        supervisor.keys["svc"] = supervisor.keys["svc"].model_copy(update={"primary_key": "of-the-first"})
        outputs = {**made.outputs, "primaryKey": values.secret("of-the-first")}
        olds = {**inputs, **outputs}
        moved = {**inputs, "target": values.UNKNOWN}
        answer = plugin.stub.Diff(
            provider_pb2.DiffRequest(
                id=made.id,
                urn=plugin.urn("LocalEndpoint"),
                olds=_struct(olds),
                old_inputs=_struct(inputs),
                news=_struct(moved),
            )
        )
        assert list(answer.replaces) == ["target"]
        plugin.delete("LocalEndpoint", made, inputs)
        assert supervisor.keys == {}, "nothing of them is left there"
        again = plugin.create("LocalEndpoint", inputs).outputs
        assert again["primaryKey"] == values.secret("of-the-first")
        assert again["secondaryKey"] == made.outputs["secondaryKey"]

    def test_a_key_that_is_given_counts_more(self, plugin: Any, supervisor: Any, values: Any) -> None:
        inputs = self.inputs(supervisor, primaryKey=values.secret("given-key"))
        assert plugin.create("LocalEndpoint", inputs).outputs["primaryKey"] == values.secret("given-key")

    def test_an_argument_that_goes_leaves_the_key(self, plugin: Any, supervisor: Any, values: Any) -> None:
        given = self.inputs(supervisor, primaryKey=values.secret("given-key"))
        made = plugin.create("LocalEndpoint", given)
        without = self.inputs(supervisor)
        assert plugin.update("LocalEndpoint", made, given, without, preview=True)["primaryKey"] == values.secret(
            "given-key"
        )
        assert plugin.update("LocalEndpoint", made, given, without)["primaryKey"] == values.secret("given-key")


def _struct(values: Json) -> struct_pb2.Struct:
    return json_format.ParseDict(values, struct_pb2.Struct())
