"""`aks-inference image key | find | build`: what people and pipelines see."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aks_inference.service.spec import plan_service
from aks_inference_provider.resources.image_inputs import wanted_of
from aks_inference_runtime.api.target import KubernetesTarget, RegistrySettings, format_target
from aks_inference_runtime.images import RegistryClient
from aks_inference_runtime.images.cli import image_group
from aks_inference_runtime.images.registry.backoff import Backoff


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(image_group, [str(one) for one in arguments], input=stdin)


@pytest.fixture
def requirements(tmp_path: Path, wheelhouse: Path, make_wheel: Callable[..., Path], no_docker_login: Path) -> Path:
    make_wheel(wheelhouse, "alpha")
    make_wheel(wheelhouse, "azureml-inference-server-http", "1.5.1")
    file = tmp_path / "requirements.txt"
    file.write_text("alpha\n")
    return file


def test_key_without_a_registry(requirements: Path) -> None:
    text = run("key", requirements, "--offline")
    assert text.exit_code == 0, text.output
    as_json = json.loads(run("key", requirements, "--offline", "--json").stdout)
    assert as_json["key"] == text.stdout.strip()
    assert (as_json["packages"], as_json["notes"]) == (1, [])
    assert len(as_json["key"]) == 64


def test_curated_name(no_docker_login: Path) -> None:
    assert run("key", "AzureML-Minimal", "--offline").exit_code == 0
    missing = run("key", "AzureML-Missing", "--offline")
    assert missing.exit_code == 1
    assert "is neither a file nor a curated environment; those are AzureML-" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_find_build_find(
    registry: Any, quick: Callable[..., RegistryClient], push_base: Any, requirements: Path
) -> None:
    import asyncio

    async def push() -> str:
        async with quick() as client:
            return str((await push_base(client, f"{registry.host}/cli/base:1")).reference)

    environment = requirements.parent / "environment.json"
    environment.write_text(json.dumps({"docker": {"baseImage": asyncio.run(push())}, "pipPackages": ["alpha"]}))
    where = ("--registry", f"{registry.host}/cli/env")
    before = run("find", environment, *where)
    assert (before.exit_code, before.stdout.strip()) == (3, "will build: about 1 package")
    source = requirements.parent / "source"
    source.mkdir()
    (source / "score.py").write_text("")
    built = run("build", environment, *where, "--json", "--source-directory", source, "--entry-script", "score.py")
    assert built.exit_code == 0, built.output
    answer = json.loads(built.stdout)
    assert (answer["built"], answer["builder"], answer["service"]["built"]) == (True, "assemble", True)
    assert "building" in built.stderr
    after = run("find", environment, *where, "--json", "--scoring-server")
    assert json.loads(after.stdout)["found"] == answer["image"], "a service has it"
    assert after.exit_code == 0
    again = run("build", environment, *where, "--scoring-server")
    assert again.stdout.startswith(f"image found in {registry.host}: ")


@pytest.mark.parametrize("form", ["environment", "conda", "older"])
def test_a_pipeline_has_the_key_of_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_docker_login: Path, form: str
) -> None:
    """What it builds ahead is what a service finds: with the scoring server, on the base image of the registry."""
    monkeypatch.chdir(tmp_path)
    code = tmp_path / "code"
    code.mkdir()
    (code / "score.py").write_text("def init(): ...\ndef run(data): ...\n")
    (code / "conda.yml").write_text("dependencies: [python=3.11, {pip: [alpha]}]\n")
    config: dict[str, Any] = {"entryScript": "score.py", "sourceDirectory": "code", "maxFiles": 10}
    config |= {
        "environment": {"environment": {"pipPackages": ["alpha"]}},
        "conda": {"environment": {"python": {"condaDependenciesFile": "conda.yml"}}},
        "older": {"condaFile": "conda.yml"},
    }[form]
    (tmp_path / "inferenceconfig.json").write_text(json.dumps(config))
    registry = RegistrySettings(server="registry.example", base_image="registry.example/base:1")
    cluster = KubernetesTarget(name="prod", namespace="default", image="runtime:1", registry=registry)
    declared = {"target": format_target(cluster), "inference_config_file": "inferenceconfig.json"}
    plan, findings = plan_service("churn", declared)
    assert plan is not None, findings
    content = plan.versions[0].image.content
    assert content is not None
    wanted = wanted_of({"registry": registry.server, "baseImage": registry.base_image, **content})
    base = ("--base-image", registry.base_image)
    assert run("key", "inferenceconfig.json", "--offline", *base).stdout.strip() == wanted.offline_key
    assert run("key", "inferenceconfig.json", "--offline").stdout.strip() != wanted.offline_key


BAD = [
    (("find", "{file}", "--registry", "http://a"), "is not a registry"),
    (("find", "{file}", "--registry", "127.0.0.1:1", "--username", "u"), "--password-stdin"),
    (("build", "{file}", "--registry", "127.0.0.1:1", "--source-directory", "{folder}"), "needs --entry-script"),
    (("build", "{file}", "--registry", "127.0.0.1:1", "--builder", "magic"), "is not one of"),
    (("find", "{file}", "--registry", "127.0.0.1:1", "--registry-tier", "gold"), "is not one of"),
    (("key", "{file}.missing"), "cannot be read"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_arguments(requirements: Path, arguments: tuple[str, ...], said: str) -> None:
    filled = [one.format(file=requirements, folder=requirements.parent) for one in arguments]
    result = run(*filled)
    assert result.exit_code in {1, 2}
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_a_registry_that_is_asked_again_is_told(requirements: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take minutes until it is given up."""
    monkeypatch.setattr(Backoff, "wait_s", lambda _self, failures, *_: 0.0 if failures < 3 else None)
    result = run("find", requirements, "--registry", "127.0.0.1:1", "--shared", "127.0.0.1:1")
    assert result.stderr.count("127.0.0.1:1: HEAD failed (") == 3
    assert "; next try in 0.0 s" in result.stderr
    assert "; gave up after 3 tries" in result.stderr


def test_password_comes_by_standard_input(registry: Any, requirements: Path) -> None:
    where = (
        "--registry",
        f"{registry.host}/cli/none",
        "--username",
        "u",
        "--password-stdin",
        "--plain-http",
        registry.host,
    )
    requirements.write_text("")
    (requirements.parent / "e.json").write_text(
        json.dumps(
            {"docker": {"baseImage": f"{registry.host}/cli/absent:1"}, "python": {"userManagedDependencies": True}}
        )
    )
    result = run("find", requirements.parent / "e.json", *where, stdin="secret\n")
    assert result.exit_code == 3, result.output
    assert "secret" not in result.output
