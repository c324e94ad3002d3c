"""The custom resources of a cluster and its models over the real protocol, against a stand-in supervisor."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from aks_inference_runtime.api.supervisor import LocalSettings, SupervisorRecord
from provider_inputs import NONE, SOME, Json, endpoint, kinds, leaves, put


@pytest.mark.parametrize("kind", ["LocalRuntime", "Model", "LocalEndpoint"])
def test_each_leaf_in_each_form(plugin: Any, supervisor: Any, model_file: Path, values: Any, kind: str) -> None:
    given: Json = {
        "LocalRuntime": {
            "name": "local", "port": 9000.0, "stateDirectory": "/s", "haproxy": "/bin/haproxy",
            "stateWebhook": "https://hooks/a", "otlpEndpoint": "http://c:4318", "traceRatio": 0.5, "accessLog": True,
        },
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
            assert hidden == ("secret" in form or path[0] in ("primaryKey", "secondaryKey", "stateWebhook")), (
                path,
                form,
            )


class TestLocalRuntime:
    def test_check_fills_in_the_defaults(self, plugin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        # It has the port already: whoever else serves on this machine has no part in this.
        checked = plugin.check("LocalRuntime", {"name": "local"}, {"name": "local", "port": 8890})
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

    def test_who_is_told_what_is_checked(self, plugin: Any) -> None:
        news = {
            "name": "local", "port": 9000, "metricsPort": 9000, "stateWebhook": "hooks/s3cret",
            "otlpEndpoint": "c:4318", "traceRatio": 2, "accessLog": "yes",
        }  # fmt: skip
        assert plugin.check("LocalRuntime", news, {"name": "local", "port": 9000}).failures == {
            "metricsPort": "9000 is the router's own port; give another",
            "stateWebhook": "is no web address; begin it with http:// or https://",
            "otlpEndpoint": "is no web address; begin it with http:// or https://",
            "traceRatio": "2 is no share: 0 to 1",
            "accessLog": "must be a boolean, not a string",
        }
        with socket.create_server(("127.0.0.1", 0)) as listener:
            taken = {"name": "local", "port": 9000, "metricsPort": listener.getsockname()[1]}
            said = plugin.check("LocalRuntime", taken, {"name": "local", "port": 9000}).failures
            assert f"is in use by process {os.getpid()}" in said["metricsPort"]
            # The own supervisor has it.
            assert not plugin.check("LocalRuntime", taken, taken).failures

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

    def test_a_port_of_another_local_cluster_is_told_at_preview(self, plugin: Any, tmp_path: Path) -> None:
        run, theirs = tmp_path / "run", tmp_path / "theirs"
        (run / "router").mkdir(parents=True)
        run.chmod(0o700)
        (run / "state-directory").write_text(str(theirs))
        held = "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
        router = subprocess.Popen(
            [sys.executable, "-c", f"{held}; sys.stdin.read()", f"{run}/router/p0.cfg", f"{theirs}/mark"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with router:
            assert router.stdout is not None
            port = int(router.stdout.readline())
            try:
                other = {"name": "local", "port": port, "stateDirectory": str(tmp_path / "mine")}
                said = plugin.check("LocalRuntime", other).failures
                assert said["port"].startswith(f"{port} on 127.0.0.1 is that of another local cluster of yours")
                assert str(theirs) in said["port"]
                assert "aliases" not in said["port"], "nothing is known of that cluster"
                settings = LocalSettings(name="former", state_directory=str(theirs), port=port)
                theirs.mkdir(mode=0o700)
                record = SupervisorRecord(settings=settings, run_directory=str(run))
                (theirs / "supervisor.json").write_text(record.model_dump_json(by_alias=True))
                said = plugin.check("LocalRuntime", other).failures
                assert said["port"].endswith('aliases=[pulumi.Alias(name="former")]: it then replaces it')
                # Its own, for which there is no state yet; and that which is replaced by one in another folder.
                own = {**other, "stateDirectory": str(theirs)}
                said = plugin.check("LocalRuntime", own).failures
                assert said["stateDirectory"].startswith(f'{theirs} is that of the local cluster "former"')
                assert said["stateDirectory"].endswith('aliases=[pulumi.Alias(name="former")]: it then replaces it')
                assert not plugin.check("LocalRuntime", {**own, "name": "former"}).failures
                olds = {**other, "stateDirectory": str(theirs), "running": True}
                assert not plugin.check("LocalRuntime", other, olds).failures
                assert not plugin.check("LocalRuntime", other).failures
            finally:
                router.kill()

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
        inputs = plugin.check("LocalRuntime", {"name": values.UNKNOWN, "port": 9000}).inputs
        assert inputs["stateDirectory"] == values.UNKNOWN
        assert plugin.create("LocalRuntime", inputs, preview=True).outputs["target"] == values.UNKNOWN

    @pytest.mark.parametrize(
        ("changed", "expected"),
        [
            ({"port": 9001}, {"port": "UPDATE_REPLACE"}),
            ({"stateDirectory": "/t"}, {"stateDirectory": "UPDATE_REPLACE"}),
            ({"name": "other"}, {"name": "UPDATE_REPLACE"}),
            ({"haproxy": "/usr/sbin/haproxy"}, {"haproxy": "ADD"}),
            ({"stateWebhook": "https://h", "accessLog": True}, {"stateWebhook": "ADD", "accessLog": "ADD"}),
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
