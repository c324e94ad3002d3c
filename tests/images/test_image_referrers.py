"""A registry of the distribution specification 1.1: referrers, and small blobs in one request."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.images import (
    Application,
    BuildSettings,
    Ensured,
    RegistryClient,
    RegistryPlace,
    ensure_service,
    read_environment,
)
from aks_inference_runtime.images.build.base import fetch_image
from aks_inference_runtime.images.build.sbom import SPDX_JSON
from aks_inference_runtime.images.environment.model import Platform
from aks_inference_runtime.images.errors import AccessDenied, RegistryError
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import Descriptor, sha256
from aks_inference_runtime.images.registry.upload import UploadSource


@pytest.fixture
async def proxy(referrers_registry: Any, proxy_before: Any, server: Any) -> Any:
    made = proxy_before(referrers_registry.host)
    made.host = await server(made.handle)
    return made


@pytest.fixture
def apply(push_base: Any, tmp_path: Path) -> Any:
    """Makes the image of a service whose script is given, in a repository of the test's own."""
    bases: dict[str, object] = {}

    async def made(client: RegistryClient, host: str, name: str, script: str) -> Ensured:
        if name not in bases:
            base = await push_base(client, f"{host}/{name}/base:1")
            bases[name] = str(base.reference).partition("@")[0]
        raw = {"docker": {"baseImage": bases[name]}, "python": {"userManagedDependencies": True}}
        source = tmp_path / "service"
        source.mkdir(exist_ok=True)
        (source / "score.py").write_text(script)
        place, settings = RegistryPlace.parse(f"{host}/{name}/env"), BuildSettings(cache=tmp_path / "cache")
        definition, application = read_environment(raw, Path()), Application("score.py", source)
        return (await ensure_service(client, definition, application, place, settings=settings))[1]

    return made


async def test_a_changed_script_costs_nine_requests(
    proxy: Any, quick: Callable[..., RegistryClient], apply: Any
) -> None:
    """Three look-ups, one question about the image of before, three blobs, the bill's manifest, the image's. Nobody
    asks for a list of what is attached, and none is written."""
    async with quick() as client:
        await apply(client, proxy.host, "nine", "one = 1\n")
        proxy.seen.clear()
        second = await apply(client, proxy.host, "nine", "two = 2\n")
        kinds = [method for method, _, _ in proxy.seen]
        assert sorted(kinds) == sorted(["HEAD"] * 4 + ["POST"] * 3 + ["PUT"] * 2)
        assert proxy.requests("PUT")[-1].endswith(f"/manifests/{second.image.tag}"), "the tag comes last"
        assert all("?digest=sha256:" in path for path in proxy.requests("POST"))
        image = await fetch_image(client, second.image, Platform())
        assert all([await client.has_blob(second.image, layer.digest) for layer in image.layers])
        (listed,) = await client.referrers(second.image, SPDX_JSON)
        bill = await client.manifest(second.image.at(listed.digest))
        assert bill is not None
        document = json.loads(await client.read_blob(second.image, bill.parts("layers")[0], 10**6))
        assert second.image.digest in {one["versionInfo"] for one in document["packages"]}
        assert not [tag for tag in await client.tags(proxy.host, "nine/env-services") if tag.startswith("sha256-")]


async def test_an_image_has_its_name_once_its_bill_is_attached(
    proxy: Any, quick: Callable[..., RegistryClient], apply: Any
) -> None:
    """The registry refuses what is attached: who applies again finds no image without it."""
    async with quick() as client:
        first = await apply(client, proxy.host, "name", "one = 1\n")
        put = "/v2/name/env-services/manifests/sha256:"
        proxy.fault = lambda request: (
            web.Response(status=400) if request.method == "PUT" and request.path.startswith(put) else None
        )
        with pytest.raises(RegistryError, match="answered 400"):
            await apply(client, proxy.host, "name", "two = 2\n")
        assert await client.tags(proxy.host, "name/env-services") == [first.image.tag]
        proxy.fault = lambda _request: None
        again = await apply(client, proxy.host, "name", "two = 2\n")
        assert again.built
        assert len(await client.referrers(again.image, SPDX_JSON)) == 1


async def test_what_others_have_attached_stays(proxy: Any, quick: Callable[..., RegistryClient], apply: Any) -> None:
    async with quick() as client:
        first = await apply(client, proxy.host, "others", "one = 1\n")
        subject = await client.head(first.image)
        assert subject is not None
        for _ in range(2):
            await client.attach(first.image, subject, "application/signature", b"signed")
        kinds = [one.artifact_type for one in await client.referrers(first.image)]
        assert sorted(map(str, kinds)) == ["application/signature", SPDX_JSON]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("fault", ["cut-request:100", "lose-answer", "500", "429"])
async def test_a_small_blob_is_sent_again(
    proxy: Any, quick: Callable[..., RegistryClient], fault: str, known: bool
) -> None:
    """Whatever breaks: the blob is there once the call is over, and other clients read it. A registry that took one in
    one request before gets the next one so again."""
    target = ImageReference.parse(f"{proxy.host}/again-{known}/{fault[:3]}:1".lower())
    content = bytes(range(256)) * 100 + fault.encode()
    blob, faults = Descriptor("application/octet-stream", sha256(content), len(content)), [fault, fault]

    def once(request: web.Request) -> "str | web.Response | None":
        if request.method != "POST" or not faults:
            return None
        now = faults.pop()
        return web.Response(status=int(now)) if now.isdigit() else now

    async with quick() as client:
        if known:
            await client.push_empty(target)
            proxy.seen.clear()
        proxy.fault = once
        sent = await client.push_blob(target, blob, UploadSource.of(content), ask=False)
        assert (sent.bytes, sent.how) == (len(content), "sent")
        assert await client.read_blob(target, blob, 10**6) == content
        assert not faults
        assert ["?digest=" in path for path in proxy.requests("POST")][:2] == [True, False]
        assert len(proxy.requests("PUT")) == 1
        proxy.seen.clear()
        another = Descriptor("application/octet-stream", sha256(content[1:]), len(content) - 1)
        await client.push_blob(target, another, UploadSource.of(content[1:]), ask=False)
    assert ["?digest=" in path for path in proxy.requests("POST")] == [known]


@pytest.mark.parametrize("answer", [202, 400, 404, 405, 411, 415, 500, 501, 503, "cut-request:0"])
async def test_who_does_not_take_a_blob_in_one_request_is_asked_once(
    registry: Any, proxy_before: Any, server: Any, quick: Any, answer: int | str
) -> None:
    """docker-registry answers 202 and waits for the blob; others, or proxies before them, may refuse what they do not
    know, each time."""
    proxy = proxy_before(registry.host)
    proxy.host = await server(proxy.handle)
    proxy.fault = lambda request: (
        (web.Response(status=answer) if isinstance(answer, int) else answer)
        if answer != 202 and "?digest=" in request.path_qs and request.method == "POST"
        else None
    )
    target = ImageReference.parse(f"{proxy.host}/unknown/blob:1")
    async with quick() as client:
        for number in range(3):
            content = f"{answer} {number}".encode()
            blob = Descriptor("application/octet-stream", sha256(content), len(content))
            await client.push_blob(target, blob, UploadSource.of(content), ask=False)
            assert await client.read_blob(target, blob, 100) == content
    whole = [path for path in proxy.requests("POST") if "?digest=" in path]
    assert len(whole) == 1
    assert len(proxy.requests("POST")) == (3 if answer == 202 else 4)
    assert len(proxy.requests("PUT")) == 3
    assert quick.waited == []


async def test_who_keeps_what_came_with_the_question_gets_the_blob_anew(
    server: Any, quick: Callable[..., RegistryClient]
) -> None:
    """202 leaves open what became of the body: with the blob behind it, its digest is wrong."""
    content, uploads, log = b"small", list[bytearray](), list[tuple[str, int]]()
    blob = Descriptor("application/octet-stream", sha256(content), len(content))

    async def handle(request: web.Request) -> web.Response:
        if request.method == "POST":
            uploads.append(bytearray(await request.read()))
            answer = web.Response(status=202, headers={"Location": f"/v2/a/b/blobs/uploads/{len(uploads) - 1}"})
        else:
            uploads[-1] += await request.read()
            right = sha256(bytes(uploads[-1])) == request.query["digest"]
            answer = web.Response(status=201 if right else 400)
        log.append((request.method, answer.status))
        return answer

    async with quick() as client:
        target = ImageReference.parse(f"{await server(handle)}/a/b:1")
        for _ in range(2):
            sent = await client.push_blob(target, blob, UploadSource.of(content), ask=False)
            assert (sent.bytes, bytes(uploads[-1])) == (len(content), content)
    assert log == [("POST", 202), ("PUT", 400), *[("POST", 202), ("PUT", 201)] * 2]


async def test_without_the_right_it_is_not_tried_in_two_requests(
    proxy: Any, quick: Callable[..., RegistryClient]
) -> None:
    """Nor does it say anything of what the registry takes."""
    target, content = ImageReference.parse(f"{proxy.host}/denied/blob:1"), b"denied"
    blob = Descriptor("application/octet-stream", sha256(content), len(content))
    async with quick() as client:
        proxy.fault = lambda _request: web.Response(status=403)
        with pytest.raises(AccessDenied):
            await client.push_blob(target, blob, UploadSource.of(content), ask=False)
        proxy.fault = lambda _request: None
        await client.push_blob(target, blob, UploadSource.of(content), ask=False)
    assert ["?digest=" in path for path in proxy.requests("POST")] == [True, True]
    assert not proxy.requests("PUT")


async def test_wrong_bytes_are_refused(referrers_registry: Any, quick: Callable[..., RegistryClient]) -> None:
    """It answers 500 to them in one request: that passes by itself elsewhere."""
    target = ImageReference.parse(f"{referrers_registry.host}/wrong/blob:1")
    async with quick() as client:
        await client.push_empty(target)
        with pytest.raises(RegistryError, match="DIGEST_INVALID"):
            await client.push_blob(
                target, Descriptor("application/octet-stream", sha256(b"right"), 5), UploadSource.of(b"wrong")
            )
        assert not await client.has_blob(target, sha256(b"right"))


@pytest.mark.parametrize("content", [b"", b"1"])
async def test_the_smallest_blobs(proxy: Any, quick: Callable[..., RegistryClient], content: bytes) -> None:
    target = ImageReference.parse(f"{proxy.host}/smallest/blob:1")
    blob = Descriptor("application/octet-stream", sha256(content), len(content))
    async with quick() as client:
        await client.push_blob(target, blob, UploadSource.of(content))
        assert await client.has_blob(target, blob.digest)
    assert len(proxy.requests("POST")) == 1
    assert not proxy.requests("PUT")


@pytest.mark.parametrize("whole", [True, False])
async def test_an_upload_goes_on_where_a_redirect_led(
    server: Any, quick: Callable[..., RegistryClient], whole: bool
) -> None:
    """The blob goes with the redirected question, and what that host says of itself is about that host."""
    content, taken = b"elsewhere", list[bytes]()

    async def elsewhere(request: web.Request) -> web.Response:
        body = await request.read()
        if request.method == "POST" and not whole:
            return web.Response(status=202, headers={"Location": "/an/upload?with=state"})
        taken.append(body)
        return web.Response(status=201)

    there = await server(elsewhere)

    async def front(request: web.Request) -> web.Response:
        assert request.method == "POST"
        return web.Response(status=307, headers={"Location": f"http://{there}{request.path_qs}"})

    async with quick() as client:
        target = ImageReference.parse(f"{await server(front)}/a/b:1")
        blob = Descriptor("application/octet-stream", sha256(content), len(content))
        await client.push_blob(target, blob, UploadSource.of(content), ask=False)
    assert taken == [content]


async def test_what_is_not_needed_after_all_leaves_no_open_upload(
    proxy: Any, quick: Callable[..., RegistryClient], apply: Any
) -> None:
    """The same script on a machine that has sent before: the image is there."""
    async with quick() as client:
        first = await apply(client, proxy.host, "same", "one = 1\n")
        proxy.seen.clear()
        second = await apply(client, proxy.host, "same", "one = 1\n")
    assert (second.built, second.image) == (False, first.image)
    assert {method for method, _, _ in proxy.seen} == {"HEAD"}


async def test_two_at_once_make_one_image(proxy: Any, quick: Callable[..., RegistryClient], apply: Any) -> None:
    async with quick() as client:
        await apply(client, proxy.host, "twice", "one = 1\n")
        one, other = await asyncio.gather(*(apply(client, proxy.host, "twice", "two = 2\n") for _ in range(2)))
        assert one.image == other.image
        assert len(await client.referrers(one.image, SPDX_JSON)) == 1
