"""The resource Image against a real registry: said at preview, built once, found again, rebuilt when it is gone."""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from stub_index import StubIndex

from aks_inference_provider.resources.base import Operation, State, Urn
from aks_inference_provider.resources.image import Image
from aks_inference_provider.wire import UNKNOWN
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.images import CredentialStore, Login
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.own import runtime_environment, runtime_image, runtime_package
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry import Silence
from aks_inference_runtime.packages import lookup
from testbed.registry import HTPASSWD, PASSWORD, USER

URN = Urn("urn", "dev", "proj", "aks-inference:index:Image", "one")


class Said:
    """What the engine was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __getattr__(self, _name: str) -> Callable[[str], None]:
        return self.lines.append


@pytest.fixture
def operation() -> Operation:
    return Operation(URN, Said())  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "service"
    source.mkdir()
    (source / "score.py").write_text("def init(): ...\ndef run(data): return data\n")
    return source


@pytest.fixture
async def given(
    registry: Any,
    quick: Any,
    push_base: Any,
    wheelhouse: Path,
    make_wheel: Any,
    no_docker_login: Path,
    folder: Path,
    request: pytest.FixtureRequest,
) -> Mapping[str, Any]:
    """Inputs of a service's image, in repositories of the test's own."""
    make_wheel(wheelhouse, "alpha")
    make_wheel(wheelhouse, "azureml-inference-server-http", "1.5.1")
    name = request.node.name.replace("_", "-").partition("[")[0]
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/{name}/base:1")
    return {
        "registry": f"{registry.host}/{name}/environments",
        "environment": {"docker": {"baseImage": str(base.reference)}, "pipPackages": ["alpha"]},
        "scoringServer": True,
        "entryScript": "score.py",
        "sourceDirectory": str(folder),
    }


async def checked(news: Mapping[str, Any], olds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    got = await Image().check(URN, olds or {}, news)
    assert not got.failures, got.failures
    return dict(got.inputs)


async def made(operation: Operation, inputs: Mapping[str, Any]) -> State:
    created = await Image().create(operation, inputs)
    return State(created.id, inputs, {**inputs, **created.computed})


async def delete_manifest(image: str) -> None:
    reference = ImageReference.parse(image)
    uri = f"http://{reference.registry}/v2/{reference.repository}/manifests/{reference.digest}"
    async with aiohttp.ClientSession() as session, session.delete(uri) as answer:
        assert answer.status == 202


async def test_built_once_and_found_again(given: Any, operation: Operation, folder: Path) -> None:
    image = Image()
    inputs = await checked(given)
    assert inputs["found"] == ""
    (note,) = await image.notes(inputs, None)
    assert note == "will build: about 2 packages; application: 1 file, 43 bytes"
    assert image.preview(inputs, None) == {"image": UNKNOWN}
    state = await made(operation, inputs)
    again = await checked(given, inputs)
    assert not (await image.diff(state, again)).properties
    assert image.preview(again, state) == {"image": state.outputs["image"]}
    # Another stack with the same content finds it, and knows it at preview.
    other = await checked(given)
    assert image.preview(other, None)["image"] == other["found"] == state.outputs["image"]
    assert (await image.notes(other, None))[0].startswith(f"image found in {given['registry'].partition('/')[0]}")
    assert (await made(operation, other)).outputs["image"] == state.outputs["image"]
    assert await image.read(operation, state) == state


async def test_another_script_keeps_the_environment(given: Any, operation: Operation, folder: Path) -> None:
    image = Image()
    state = await made(operation, await checked(given))
    (folder / "score.py").write_text("def init(): ...\ndef run(data): return [data]\n")
    news = await checked(given, state.inputs)
    assert set((await image.diff(state, news)).properties) == {"content"}
    assert (await image.notes(news, state))[0].startswith("environment image found in ")
    operation.progress.lines.clear()  # type: ignore[attr-defined]
    computed = await image.update(operation, state, news)
    assert computed["image"] != state.outputs["image"]
    assert not [line for line in operation.progress.lines if "choosing wheels" in line]  # type: ignore[attr-defined]


async def test_one_that_is_gone_is_made_again(given: Any, operation: Operation) -> None:
    image = Image()
    state = await made(operation, await checked(given))
    await delete_manifest(str(state.outputs["image"]))
    assert await image.read(operation, state) is None
    news = await checked(given, state.inputs)
    diff = await image.diff(state, news)
    assert {path: each.of_input for path, each in diff.properties.items()} == {"image": False}
    assert (await image.update(operation, state, news))["image"] == state.outputs["image"], "the same bytes again"


async def test_a_registry_that_is_away_refuses_nothing_and_changes_nothing(
    given: Any, operation: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await made(operation, await checked(given))
    monkeypatch.setattr("aks_inference_provider.resources.image.LOOKS", Silence(0.0))
    got = await Image().check(URN, state.inputs, given)
    assert not got.failures
    assert "not known whether the image is there" in got.notes[0]
    assert not (await Image().diff(state, got.inputs)).properties


async def test_a_registry_that_never_answers_is_waited_for_once_by_all_services(
    given: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aks_inference_provider.resources.image.LOOKS", Silence(0.2, 600))
    over, asked = asyncio.Event(), []

    async def silent(request: web.Request) -> web.Response:
        asked.append(request.path)
        await over.wait()
        return web.Response(status=503)

    news = {**given, "registry": f"{await server(silent)}/away/environments"}
    try:
        first = await Image().check(URN, {}, news)
        before = len(asked)
        others = [await Image().check(URN, {}, news) for _ in range(3)]
        notes = await Image().notes(first.inputs, None)
    finally:
        over.set()
    for one in (first, *others):
        assert not one.failures
        assert "not known whether the image is there" in one.notes[0]
        assert "no answer within 0.2 s" in one.notes[0]
    assert "no answer within 0.2 s" in notes[0]
    assert before == len(asked) == 1


async def test_a_login_that_the_registry_refuses_is_an_error_where_something_has_to_be_made(
    given: Any, operation: Operation, registry_with: Any, tmp_path: Path
) -> None:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    private = registry_with({"auth": {"htpasswd": {"realm": "work", "path": str(tmp_path / "htpasswd")}}})
    news = {**given, "registry": f"{private.host}/team/environments"}
    wrong = {**news, "username": USER, "password": "not-this-one"}
    (failure,) = (await Image().check(URN, {}, wrong)).failures
    assert failure.path == "username"
    assert failure.reason.startswith(f"{private.host}: the login of {USER!r} does not do")
    assert f"docker login {private.host}" in failure.reason
    assert "not-this-one" not in failure.reason
    # What is not known yet may do; and the machine's own login, once the same program has given it its role.
    for tried in ({**wrong, "password": UNKNOWN}, news):
        got = await Image().check(URN, {}, tried)
        assert not got.failures
        assert "not known whether the image is there" in got.notes[0]
    state = await made(operation, await checked({**news, "username": USER, "password": PASSWORD}))
    # What was made stays as it is, so that nothing is asked of the registry.
    same = await Image().check(URN, state.inputs, wrong)
    assert not same.failures
    assert "not known whether the image is there" in same.notes[0]
    other = {**wrong, "environment": {**given["environment"], "pipPackages": ["alpha==1.0"]}}
    assert [one.path for one in (await Image().check(URN, state.inputs, other)).failures] == ["username"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"environment": None}, "environment: is required, or runtime"),
    ({"runtime": True}, "environment: is given beside runtime"),
    ({"builder": "kaniko"}, "builder: 'kaniko' is none of auto"),
    ({"username": "me"}, "username: needs password"),
    ({"entryScript": "none.py"}, "entryScript: 'none.py' is not in"),
    ({"environment": {"pipPackages": ["not a requirement"]}}, "environment.pipPackages[0]: "),
    ({"environment": {"dockre": {}}}, "environment.dockre: is not known here"),
]


@pytest.mark.parametrize(("change", "expected"), WRONG)
async def test_what_is_refused(given: Any, change: dict[str, Any], expected: str) -> None:
    got = await Image().check(URN, {}, {k: v for k, v in {**given, **change}.items() if v is not None})
    texts = [f"{failure.path}: {failure.reason}" for failure in got.failures]
    assert any(text.startswith(expected) for text in texts), texts


async def test_a_builder_that_is_not_there_is_said_at_preview(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    docker = {**given["environment"]["docker"], "extraDockerFileSteps": "RUN true"}
    news = {**given, "environment": {**given["environment"], "docker": docker}}
    (failure,) = (await Image().check(URN, {}, news)).failures
    assert (failure.path, "needs a build tool" in failure.reason) == ("builder", True)


async def test_packages_that_no_index_has_are_said_at_preview(
    given: Any, operation: Operation, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    index = StubIndex()
    request.addfinalizer(index.close)
    monkeypatch.delenv("AKS_INFERENCE_PACKAGE_CHECK")
    for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    index.add("alpha", "alpha-1.0-py3-none-any.whl")
    index.add("azureml-inference-server-http", "azureml_inference_server_http-1.5.1-cp399-cp399-win_amd64.whl")
    wanted = {**given["environment"], "pipPackages": ["alpha>1", "other ; python_version < '3'", "y @ https://x/y.whl"]}
    got = await Image().check(URN, {}, {**given, "environment": wanted})
    (failure,) = got.failures
    assert failure.path == "environment"
    assert failure.reason == f"'alpha>1': no release meets >1 at {index.host}; the newest is 1.0; use alpha==1.0"
    # What is known needs no index; what is not known and cannot be asked is said.
    index.close()
    got = await Image().check(URN, {}, given)
    assert not got.failures
    assert not got.notes
    lookup._silent.clear()
    got = await Image().check(URN, {}, {**given, "environment": {**wanted, "pipPackages": ["beta"]}})
    assert not got.failures
    assert got.notes == [f"not checked whether beta is to be had ({index.host} cannot be reached (Connection refused))"]


async def test_a_base_of_a_private_registry(
    given: Any,
    operation: Operation,
    registry_with: Any,
    quick: Any,
    push_base: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its login is for that registry alone; a wrong one is told, and shown nowhere."""
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    private = registry_with({"auth": {"htpasswd": {"realm": "base", "path": str(tmp_path / "htpasswd")}}})
    async with quick(CredentialStore({private.host: Login(USER, PASSWORD)})) as client:
        base = await push_base(client, f"{private.host}/base:1")
    environment = {**given["environment"], "docker": {"baseImage": str(base.reference).partition("@")[0]}}
    login = {"address": private.host, "username": USER, "password": PASSWORD}
    news = {**given, "environment": environment}
    for wrong, path, said in (
        ({**login, "password": "not-this-one"}, "baseLogin", f"the login of {USER!r} does not do"),
        (None, "environment", "no login is known"),
    ):
        tried = {**news, **({"baseLogin": wrong} if wrong else {})}
        # At preview, before anything is made; and at apply, where the preview was skipped or could not ask.
        got = await Image().check(URN, {}, tried)
        (failure,) = got.failures
        assert failure.path == path
        assert f"the base image {private.host}/base:1 cannot be read: {private.host}: {said}" in failure.reason
        with pytest.raises(AksInferenceError, match=said) as caught:
            await Image().create(operation, got.inputs)
        assert private.host in str(caught.value)
        assert "not-this-one" not in str(caught.value) + failure.reason
    # A build tool may have rights of its own where nobody gives a login; with one it has no other.
    program = tmp_path / "podman"
    program.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool = {**news, "builder": "podman"}
    assert not (await Image().check(URN, {}, tool)).failures
    wrong = {**login, "password": "not-this-one"}
    assert [one.path for one in (await Image().check(URN, {}, {**tool, "baseLogin": wrong})).failures] == ["baseLogin"]
    inputs = await checked({**news, "baseLogin": login})
    state = await made(operation, inputs)
    assert state.outputs["image"].startswith(given["registry"].partition("/")[0])
    again = await checked({**news, "baseLogin": login})
    assert again["found"] == state.outputs["image"], "known at preview, with its digest"


async def test_an_alias_is_enough(given: Any, operation: Operation, registry: Any, quick: Any) -> None:
    """The runtime's image has a name made of its content, known before it is built; who finds that builds nothing."""
    host = registry.host
    alias = f"{host}/aks-inference/own:{given['registry'].split('/')[1]}"
    inputs = await checked({**given, "alias": alias})
    assert inputs["found"] == ""
    state = await made(operation, inputs)
    assert str(state.outputs["image"]).startswith(f"{alias}@sha256:")
    async with quick() as client:
        (bill,) = await client.referrers(ImageReference.parse(str(state.outputs["image"])))
    assert bill.artifact_type == SPDX_JSON, "the bill of materials is where the image is used from"
    other = await checked({**given, "alias": alias})
    assert other["found"] == state.outputs["image"]
    assert not (await Image().diff(state, other)).properties
    # One from before bills of materials were: who makes the resource again adds it.
    async with quick() as client:
        reference = ImageReference.parse(str(state.outputs["image"]))
        tag = (reference.digest or "").replace(":", "-")
        listing = ImageReference(reference.registry, reference.repository, tag)
        listed = await client.head(listing)
        assert listed is not None
        for digest in (listed.digest, bill.digest):
            assert await client.delete_manifest(listing.at(digest))
        assert await client.referrers(reference) == ()
    await made(operation, other)
    async with quick() as client:
        assert [one.digest for one in await client.referrers(reference)] == [bill.digest]


async def test_limits_that_nothing_keeps(given: Any, folder: Path) -> None:
    got = await Image().check(URN, {}, {**given, "maxMb": 0, "maxFiles": -2})
    assert [one.path for one in got.failures] == ["maxMb", "maxFiles"]
    assert "-2 is below 1" in got.failures[1].reason
    (folder / "more.py").write_text("")
    got = await Image().check(URN, {}, {**given, "maxFiles": 1})
    (failure,) = got.failures
    assert failure.path == "sourceDirectory"
    assert failure.reason.endswith("or raise maxFiles")


async def test_a_build_context_that_cannot_be_built_from_is_told_at_preview(given: Any, tmp_path: Path) -> None:
    """One beyond its limits, unless they are raised, and one that is elsewhere."""
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {given['environment']['docker']['baseImage']}\n")
    (context / "weights").write_bytes(bytes(1_500_000))
    docker = {"buildContext": {"locationType": "local", "location": str(context)}}
    news = {**given, "environment": {**given["environment"], "docker": docker}, "builder": "buildah"}
    got = await Image().check(URN, {}, {**news, "maxMb": 1, "maxFiles": 1})
    at = "environment.docker.buildContext.location"
    assert [one.path for one in got.failures if one.path == at] == [at, at]
    assert "largest are weights (1.4 MB), Dockerfile" in got.failures[-2].reason
    elsewhere = {"buildContext": {"locationType": "git", "location": "https://git.example/a.git"}}
    got = await Image().check(URN, {}, {**news, "environment": {"docker": elsewhere}})
    assert [one.reason.partition("; ")[2] for one in got.failures if one.path == at] == ["fetch it and name the folder"]
    raised = await Image().check(URN, {}, {**news, "maxMb": 2, "maxFiles": 2})
    assert not [one for one in raised.failures if one.path == at]


def test_the_runtimes_image_is_named_by_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = runtime_environment()["pipPackages"]
    assert not [one for one in wanted if one.startswith("pulumi")]
    assert [one for one in wanted if one.startswith("aiohttp==")]
    assert [one for one in wanted if one.startswith("azure-storage-blob")]
    name = runtime_image("registry.example")
    assert (name.registry, name.repository) == ("registry.example", "aks-inference/runtime")
    assert runtime_image("ghcr.io/team/models").repository == "team/models-runtime"
    assert name.tag is not None
    assert name.tag.endswith(runtime_package().tag)
    monkeypatch.setattr("aks_inference_runtime.images.own.runtime_package", lambda: SimpleNamespace(tag="other"))
    assert runtime_image("registry.example") != name
