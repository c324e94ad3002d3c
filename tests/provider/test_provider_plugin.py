"""The plugin as a process: its start, its schema, what it says about itself, and where it can be put."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

import aks_inference
from aks_inference_provider.schema import snapshot

ROOT = Path(__file__).resolve().parents[2]
CUSTOM = (
    "LocalEndpoint",
    "LocalRuntime",
    "Model",
    "ClusterGuard",
    "AttachedCluster",
    "PoolDrain",
    "ClusterObject",
    "ClusterKinds",
    "PlainPort",
    "EndpointKeys",
    "EndpointName",
    "Image",
    "StoredModels",
    "ImageVolumes",
    "TrainingRun",
)


def schema_of(plugin: Any) -> dict[str, Any]:
    return dict(json.loads(plugin.stub.GetSchema(provider_pb2.GetSchemaRequest(version=0)).schema))


def test_stdout_has_the_port_and_nothing_else() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "provider"), "127.0.0.1:1", "--logtostderr"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        process.terminate()
        assert process.stdout.read() == ""
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_an_import_prints_goes_to_stderr() -> None:
    code = (
        "import aks_inference_provider.plugin as p, aks_inference_provider.host as h\n"
        "h.make_host = lambda make=h.make_host: (print('noise', flush=True), make())[1]\n"
        "p.main(['127.0.0.1:1'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = process.stdout.readline()
        process.terminate()
        rest, errors = process.communicate(timeout=20)
    assert port.strip().isdigit()
    assert rest == ""
    assert "noise" in errors


def test_the_version_is_the_packages(plugin: Any) -> None:
    version = metadata.version("pulumi-aks-inference")
    assert plugin.stub.GetPluginInfo(empty_pb2.Empty()).version == version
    assert schema_of(plugin)["version"] == version


def test_the_schema_is_the_snapshot(plugin: Any) -> None:
    kept = (ROOT / "provider" / "schema.json").read_text()
    assert snapshot() == kept, "python -m aks_inference_provider.schema > provider/schema.json"
    assert schema_of(plugin) == json.loads(kept)


def test_the_schema_is_whole(plugin: Any) -> None:
    schema = schema_of(plugin)
    resources = schema["resources"]
    for name in CUSTOM:
        assert not resources[f"aks-inference:index:{name}"].get("isComponent")
    for component in aks_inference.COMPONENTS:
        assert resources[f"aks-inference:index:{component.__name__}"]["isComponent"]
    assert len(resources) == len(CUSTOM) + len(aks_inference.COMPONENTS)

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    known = {f"#/types/{token}" for token in schema["types"]} | {"pulumi.json#/Any"}
    assert set(references(resources)) | set(references(schema["types"])) <= known
    for token, resource in resources.items():
        assert resource["description"], token
        assert set(resource["requiredInputs"]) <= set(resource["inputProperties"])
        assert set(resource["required"]) <= set(resource["properties"])
        for name, prop in {**resource["inputProperties"], **resource["properties"]}.items():
            assert prop.get("description"), (token, name)
    keys = resources["aks-inference:index:LocalEndpoint"]["properties"]
    assert keys["primaryKey"]["secret"]
    assert keys["secondaryKey"]["secret"]


def test_every_input_says_whether_it_is_required(plugin: Any) -> None:
    for token, resource in schema_of(plugin)["resources"].items():
        for name, prop in resource["inputProperties"].items():
            first = prop["description"].split()[0]
            assert first in ("Required.", "Optional.", "Conditional."), (token, name)
            assert (first == "Required.") == (name in resource["requiredInputs"]), (token, name)


def test_settings_are_refused(plugin: Any) -> None:
    news = _struct({"version": "1.0.0", "region": "westeurope", "__internal": {}})
    answer = plugin.stub.CheckConfig(provider_pb2.CheckRequest(urn="urn:x", news=news))
    assert [(each.property, each.reason) for each in answer.failures] == [("region", "unknown property; none is known")]
    diff = plugin.stub.DiffConfig(provider_pb2.DiffRequest(urn="urn:x", news=news))
    assert diff.changes == provider_pb2.DiffResponse.DIFF_NONE


def test_an_unknown_resource_is_named(plugin: Any) -> None:
    with pytest.raises(grpc.RpcError, match="no custom resource 'aks-inference:index:Nope'; there are aks-inference:"):
        plugin.check("Nope", {})


def test_an_unknown_component_is_named(plugin: Any) -> None:
    with pytest.raises(grpc.RpcError, match="no component 'aks-inference:index:Nope'; there are") as caught:
        plugin.construct("Nope", {})
    assert "Traceback" not in caught.value.details()


def test_nothing_else_is_said_on_stderr(plugin: Any) -> None:
    assert "Traceback" not in plugin.errors.read_text()


def test_the_console_script_is_a_plugin(start_plugin: Callable[..., Any]) -> None:
    script = Path(sys.executable).parent / "pulumi-resource-aks-inference"
    plugin = start_plugin([str(script)])
    assert schema_of(plugin)["name"] == "aks-inference"


# -- a clone ----------------------------------------------------------------------------------------------------------


def plugin_python(folder: Path) -> Path:
    """The interpreter that the CLI runs a plugin folder with: `virtualenv` is relative to the folder."""
    runtime = yaml.safe_load((folder / "PulumiPlugin.yaml").read_text())["runtime"]
    assert runtime["name"] == "python"
    assert runtime["options"]["toolchain"] == "pip"
    return Path(os.path.normpath(folder / runtime["options"]["virtualenv"])) / "bin" / "python"


@pytest.fixture
def clone() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), f"{folder}/repository"], check=True)
        yield Path(folder) / "repository"


def constructs(plugin: Any) -> None:
    assert schema_of(plugin)["name"] == "aks-inference"
    plugin.construct("LocalInferenceCluster", {"port": 8899}, preview=True)
    assert plugin.monitor.types() == ["aks-inference:index:LocalInferenceCluster", "aks-inference:index:LocalRuntime"]


def test_a_clone_is_a_plugin(clone: Path, start_plugin: Callable[..., Any]) -> None:
    """With the dependencies of this environment, and the clone's own code."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(clone / ".venv")], check=True)
    site = next((clone / ".venv" / "lib").glob("python*/site-packages"))
    here = next((Path(sys.prefix) / "lib").glob("python*/site-packages"))
    (site / "clone.pth").write_text("".join(f"{each}\n" for each in (clone / "components", clone / "runtime", here)))
    plugin = start_plugin([str(plugin_python(clone / "provider")), str(clone / "provider")])
    constructs(plugin)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_clone_installs_itself(clone: Path, start_plugin: Callable[..., Any]) -> None:
    """What `pulumi package add <repository>//provider` does: a virtual environment, then requirements.txt in it."""
    python = plugin_python(clone / "provider")
    subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
    subprocess.run(
        [str(python), "-m", "pip", "install", "-q", "-r", "requirements.txt"], cwd=clone / "provider", check=True
    )
    constructs(start_plugin([str(python), str(clone / "provider")]))


def _struct(values: dict[str, Any]) -> Any:
    from google.protobuf import json_format, struct_pb2

    return json_format.ParseDict(values, struct_pb2.Struct())
