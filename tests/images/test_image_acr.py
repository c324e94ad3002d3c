"""ACR Tasks as the builder: a real registry, a stand-in of Azure's API, buildah as its agent, and what goes wrong."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.azure.arm import AzureFailed, credentials_of
from aks_inference_runtime.images import (
    Builder,
    BuildSettings,
    CredentialStore,
    Login,
    RegistryClient,
    RegistryPlace,
    ensure_image,
    read_environment,
)
from aks_inference_runtime.images.build.acr import AzureBuild, build_in_azure
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.images.reference import ImageReference
from standin_tasks import REGISTRY, Failed, Run, Tasks

COMMAND = [sys.executable, "-c", "from aks_inference_runtime.images.cli import image_group; image_group()"]
CONDA = {"dependencies": ["python=3.11", "numpy"]}


@pytest.fixture
async def azure(registry: Any, server: Any) -> AsyncIterator[Tasks]:
    async def agent(_folder: Path, _run: Run) -> None:
        return

    tasks = Tasks(registry.host, agent)
    tasks.url = f"http://{await server(tasks.handle)}"
    yield tasks
    await tasks.end()


@pytest.fixture
def build(azure: Tasks) -> AzureBuild:
    return AzureBuild(credentials_of(azure.environment), REGISTRY, poll_s=0.02)


@pytest.fixture
def pushing(azure: Tasks, quick: Callable[..., RegistryClient], push_base: Any) -> Tasks:
    """Its agent pushes an image as the request names it."""

    async def agent(_folder: Path, run: Run) -> None:
        run.say("Step 1/1 : FROM somewhere", "Pushing image")
        async with quick() as client:
            await push_base(client, f"{azure.properties['loginServer']}/{run.request['imageNames'][0]}")

    azure.agent = agent
    return azure


def conda_on(base: object) -> Any:
    return read_environment({"docker": {"baseImage": str(base)}, "python": {"condaDependencies": CONDA}}, Path())


def settings(build: AzureBuild, tmp_path: Path, **more: Any) -> BuildSettings:
    return BuildSettings(Builder.ACR_TASKS, cache=tmp_path / "cache", azure=build, **more)


async def test_conda_packages_are_built_in_azure(
    registry: Any, quick: Any, push_base: Any, pushing: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    said: list[str] = []
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/base:1")
        where = RegistryPlace.parse(f"{registry.host}/acr/conda")
        definition = conda_on(base.reference)
        made = await ensure_image(client, definition, where, settings=settings(build, tmp_path), progress=said.append)
        listed = await client.referrers(made.image, SPDX_JSON)
        again = await ensure_image(client, definition, where, settings=settings(build, tmp_path))
    assert (made.built, made.builder, again.built) == (True, "acr-tasks", False)
    assert again.image == made.image
    assert len(listed) == 1
    (run,) = pushing.runs.values()
    assert run.request["imageNames"] == [f"acr/conda:{made.key}"]
    assert run.request["credentials"]["sourceRegistry"] == {"loginMode": "Default"}
    lines = "\n".join(said)
    assert "sending the build context" in lines
    assert "run cb1 of teamimages: queued" in lines
    assert "Pushing image" in said, "the log comes line by line, without what ends its lines"
    assert "successful after 1s" in said[-1]
    assert "sig=" not in lines


@pytest.mark.skipif(shutil.which("buildah") is None, reason="needs buildah")
async def test_a_dockerfile_with_a_context_is_built_for_real(
    registry: Any, quick: Any, push_base: Any, azure: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    """buildah stands for Azure's agent: what the archive holds is what is built."""

    async def agent(folder: Path, run: Run) -> None:
        image = f"{registry.host}/{run.request['imageNames'][0]}"
        storage = [f"--root={tmp_path}/root", f"--runroot={tmp_path}/run", "--storage-driver=vfs"]
        file = folder / run.request["dockerFilePath"]
        build_it = [
            "build",
            "--format",
            "oci",
            "--tls-verify=false",
            "--isolation=chroot",
            "-f",
            file,
            "-t",
            image,
            folder,
        ]
        for command in (
            build_it,
            ["push", "--tls-verify=false", image, f"docker://{image}"],
            ["rmi", "--all", "--force"],
        ):
            process = await asyncio.create_subprocess_exec(
                "buildah", *storage, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            out, _ = await process.communicate()
            run.say(*out.decode().splitlines())
            if process.returncode:
                raise Failed("buildah")

    azure.agent = agent
    context = tmp_path / "with space"
    (context / "data").mkdir(parents=True)
    (context / "data" / "ümlaut.txt").write_text("content")
    (context / ".amlignore").write_text("*.log\n")
    (context / "big.log").write_text("not sent")
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/real-base:1")
        (context / "Dockerfile").write_text(f"FROM {base.reference}\nCOPY data /data\n")
        raw = {"docker": {"buildContext": {"location": str(context)}}, "python": {"userManagedDependencies": True}}
        definition = read_environment(raw, Path())
        where = RegistryPlace.parse(f"{registry.host}/acr/real")
        made = await ensure_image(client, definition, where, settings=settings(build, tmp_path))
        manifest = await client.manifest(made.image)
    assert made.built
    assert len(manifest.parts("layers")) > 1
    (source,) = azure.sources.values()
    assert b"not sent" not in source


async def test_only_the_logins_of_bases_go_to_azure(
    registry: Any, registry_with: Any, quick: Any, push_base: Any, pushing: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    """In the request and nowhere else; a log that shows a password is shown without it."""
    other = registry_with({})
    inner = pushing.agent

    async def agent(folder: Path, run: Run) -> None:
        run.say("pip install --index-url https://u:base-password@index")
        await inner(folder, run)

    pushing.agent = agent
    store = CredentialStore({other.host: Login("user", "base-password"), "elsewhere.io": Login("me", "my-own-secret")})
    said: list[str] = []
    async with quick() as client:
        base = await push_base(client, f"{other.host}/base:1")
        definition = conda_on(base.reference)
        where = RegistryPlace.parse(f"{registry.host}/acr/logins")
        chosen = settings(build, tmp_path, credentials=store)
        await ensure_image(client, definition, where, settings=chosen, progress=said.append)
    (run,) = pushing.runs.values()
    given = run.request["credentials"]["customRegistries"]
    assert given == {
        other.host: {
            "userName": {"type": "Opaque", "value": "user"},
            "password": {"type": "Opaque", "value": "base-password"},
        }
    }
    assert "my-own-secret" not in json.dumps(run.request)
    assert not [line for line in said if "base-password" in line or "my-own-secret" in line]
    assert any("https://u:***@index" in line for line in said)
    (source,) = pushing.sources.values()
    assert b"base-password" not in source


async def test_a_registry_with_roles_by_repository_acts_as_the_caller(
    registry: Any, quick: Any, push_base: Any, pushing: Tasks, build: AzureBuild
) -> None:
    """It is found by its name here: without an id the subscription's registries are gone through, page by page."""
    pushing.properties["roleAssignmentMode"] = "AbacRepositoryPermissions"
    target = ImageReference.parse(f"{registry.host}/acr/abac:1")
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/base:1")
        named = replace(build, resource_id=None)
        await build_in_azure(named, conda_on(base.reference), target, {}, {}, lambda _line: None)
        assert await client.head(target) is not None
        nowhere = ImageReference.parse("nowhere.azurecr.io/a:1")
        with pytest.raises(AzureFailed, match=r"nowhere\.azurecr\.io is not in the subscription"):
            await build_in_azure(named, conda_on(base.reference), nowhere, {}, {}, lambda _line: None)
    (run,) = pushing.runs.values()
    assert run.request["credentials"]["sourceRegistry"] == {"identity": "[caller]"}


async def failing(
    registry: Any, quick: Any, push_base: Any, build: AzureBuild, tmp_path: Path, name: str
) -> tuple[Exception, list[str]]:
    said: list[str] = []
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/base:1")
        where = RegistryPlace.parse(f"{registry.host}/acr/{name}")
        with pytest.raises((BuildFailed, AzureFailed)) as caught:
            await ensure_image(
                client, conda_on(base.reference), where, settings=settings(build, tmp_path), progress=said.append
            )
    return caught.value, said


async def test_a_failed_run_ends_with_its_log(
    registry: Any, quick: Any, push_base: Any, azure: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    async def agent(_folder: Path, run: Run) -> None:
        run.say(*(f"line {number}" for number in range(100)))
        raise Failed("exit status 1")

    azure.agent = agent
    error, said = await failing(registry, quick, push_base, build, tmp_path, "failed")
    assert isinstance(error, BuildFailed)
    assert "run cb1 of teamimages: failed; the end of its log:" in str(error)
    assert "line 99" in str(error)
    assert "line 3\n" not in str(error)
    assert "line 3" in said


@pytest.mark.parametrize(
    ("where", "answer", "says"),
    [
        ("scheduleRun", (400, "TasksOperationsNotAllowed", "not permitted"), "choose another builder"),
        ("listBuildSourceUploadUrl", (403, "AuthorizationFailed", "no right"), "the role Contributor"),
        ("teamimages", (404, "ResourceNotFound", ""), "no such registry, or no right to see it"),
        ("cb1", (404, "RunNotFound", ""), "the run cb1 is gone"),
    ],
)
async def test_what_azure_refuses_is_told_with_the_mend(
    where: str,
    answer: tuple[int, str, str],
    says: str,
    registry: Any,
    quick: Any,
    push_base: Any,
    azure: Tasks,
    build: AzureBuild,
    tmp_path: Path,
) -> None:
    azure.refuse[where] = answer
    error, _ = await failing(registry, quick, push_base, build, tmp_path, "refused")
    assert says in str(error)
    assert "sig=" not in str(error)


async def test_the_id_of_another_registry_is_told(
    registry: Any, quick: Any, push_base: Any, azure: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    azure.properties["loginServer"] = "another.azurecr.io"
    error, _ = await failing(registry, quick, push_base, build, tmp_path, "another")
    assert f"is the registry another.azurecr.io, not {registry.host}" in str(error)
    assert not azure.runs


async def test_a_run_survives_lost_answers_and_ended_tokens(
    registry: Any, quick: Any, push_base: Any, pushing: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    inner, begun, go_on = pushing.agent, asyncio.Event(), asyncio.Event()

    async def agent(folder: Path, run: Run) -> None:
        begun.set()
        await go_on.wait()
        await inner(folder, run)

    pushing.agent = agent
    said: list[str] = []
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/base:1")
        where = RegistryPlace.parse(f"{registry.host}/acr/survives")
        work = asyncio.create_task(
            ensure_image(
                client, conda_on(base.reference), where, settings=settings(build, tmp_path), progress=said.append
            )
        )
        async with asyncio.timeout(20):
            await begun.wait()
            while not any("Obtained source" in line for line in said):
                await asyncio.sleep(0.01)
            pushing.forget_tokens()
            pushing.forget_signatures()
            pushing.lose["cb1"] = 3
            go_on.set()
            made = await work
    assert made.built
    assert said.count("Pushing image") == 1


async def test_a_log_that_cannot_be_read_fails_nothing(
    registry: Any, quick: Any, push_base: Any, pushing: Tasks, build: AzureBuild, tmp_path: Path
) -> None:
    pushing.log_status = 403
    said: list[str] = []
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/base:1")
        where = RegistryPlace.parse(f"{registry.host}/acr/no-log")
        made = await ensure_image(
            client, conda_on(base.reference), where, settings=settings(build, tmp_path), progress=said.append
        )
    assert made.built
    assert len([line for line in said if "its log cannot be read (status 403)" in line]) == 1


async def test_ctrl_c_cancels_the_run(
    registry: Any, quick: Any, push_base: Any, azure: Tasks, no_docker_login: Path, tmp_path: Path
) -> None:
    """The real command, interrupted while Azure builds: the run is cancelled, and no secret is shown."""
    begun = asyncio.Event()

    async def agent(_folder: Path, run: Run) -> None:
        run.say("Step 1/2 : RUN a long time")
        begun.set()
        await asyncio.Event().wait()

    azure.agent = agent
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/acr/base:1")
    file = tmp_path / "environment.json"
    file.write_text(json.dumps({"docker": {"baseImage": str(base.reference)}, "python": {"condaDependencies": CONDA}}))
    where = ["--registry", f"{registry.host}/acr/cancelled", "--builder", "acr-tasks", "--registry-id", REGISTRY]
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *["build", str(file), *where],
        env={**os.environ, **azure.environment, "PATH": os.environ["PATH"]},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            await begun.wait()
            process.send_signal(signal.SIGINT)
            out, wrong = await process.communicate()
            while azure.runs["cb1"].status != "Canceled":
                await asyncio.sleep(0.02)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert azure.runs["cb1"].asked == ["cancel"]
    assert process.returncode != 0
    assert b"run cb1: cancelled" in wrong
    assert b"Traceback" not in out + wrong
    assert b"the-secret" not in out + wrong
