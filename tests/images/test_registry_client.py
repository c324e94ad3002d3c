"""The client against a real registry, directly and with faults between."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.images.errors import DigestMismatch, RegistryError, RegistryUnavailable
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import Descriptor, index_manifest, sha256
from aks_inference_runtime.images.registry.upload import UploadSource

CHUNK = 512 * 1024
BLOB = "application/octet-stream"


def described(content: bytes) -> Descriptor:
    return Descriptor(BLOB, sha256(content), len(content))


def at(host: str, repository: str, tag: str = "one") -> ImageReference:
    return ImageReference(host, repository, tag)


@pytest.mark.parametrize("size", [0, 1, 1000, CHUNK, CHUNK + 1, 2 * CHUNK + 17])
async def test_blob_comes_back_as_it_was_sent(registry: Any, quick: Any, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    reference = at(registry.host, f"blobs/s{size}")
    file = tmp_path / "blob"
    file.write_bytes(content)
    async with quick() as client:
        first = await client.push_blob(reference, described(content), UploadSource.file(file))
        second = await client.push_blob(reference, described(content), UploadSource.file(file))
        got = await client.read_blob(reference, described(content), size)
    assert (first.how, first.bytes) == ("sent", size)
    assert (second.how, second.bytes) == ("there", 0)
    assert got == content


async def test_manifest_and_index_by_tag_and_digest(registry: Any, quick: Any, push_base: Any) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/manifests/one:1")
        head = await client.head(base.reference)
        assert head is not None
        assert head.digest == base.reference.digest
        index = index_manifest(({**head.to_json(), "platform": {"os": "linux", "architecture": "amd64"}},))
        await client.push_manifest(at(registry.host, "manifests/one", "index"), index)
        got = await client.manifest(at(registry.host, "manifests/one", "index"))
        assert got == index
        assert got.is_index
        assert await client.head(at(registry.host, "manifests/one", "missing")) is None
        assert await client.manifest(at(registry.host, "manifests/none", "missing")) is None


async def test_mount_sends_nothing(proxy: Any, quick: Any) -> None:
    content = os.urandom(5000)
    async with quick() as client:
        await client.push_blob(at(proxy.host, "mount/from"), described(content), UploadSource.of(content))
        before = proxy.body_bytes
        assert await client.mount(at(proxy.host, "mount/to"), sha256(content), "mount/from")
        assert await client.has_blob(at(proxy.host, "mount/to"), sha256(content))
        assert not await client.mount(at(proxy.host, "mount/to"), sha256(b"unknown"), "mount/from")
    assert proxy.body_bytes == before


def times(number: int, action: str | web.Response, method: str, part: str = "") -> Callable[[web.Request], object]:
    """A fault for the first requests of a kind."""
    left = Counter({"left": number})

    def fault(request: web.Request) -> object:
        if request.method == method and part in request.path and left["left"] > 0:
            left["left"] -= 1
            if isinstance(action, web.Response):
                return web.Response(status=action.status, headers=action.headers, text=action.text)
            return action
        return None

    return fault


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


FAULTS = {
    "500 opening": ("POST", 3, web.Response(status=500)),
    "429 opening": ("POST", 2, web.Response(status=429, headers={"Retry-After": "7"})),
    "503 in a chunk": ("PATCH", 2, web.Response(status=503)),
    "reset in a chunk": ("PATCH", 2, "cut-request:300000"),
    "reset at a chunk's start": ("PATCH", 1, "cut-request:0"),
    "answer of a chunk lost": ("PATCH", 1, "lose-answer"),
    "reset while closing": ("PUT", 1, "cut-request:10"),
    "answer of closing lost": ("PUT", 1, "lose-answer"),
    "502 asking where it stands": ("GET", 1, web.Response(status=502)),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_upload_survives(proxy: Any, quick: Any, name: str) -> None:
    method, number, action = FAULTS[name]
    content = os.urandom(2 * CHUNK + 1000)
    reference = at(proxy.host, f"faults/{name.replace(' ', '-').replace(chr(39), '')}")
    faults = [times(number, action, method)]
    if method == "GET":
        faults.append(times(1, "cut-request:100", "PATCH"))
    proxy.fault = lambda request: next((hit for one in faults if (hit := one(request)) is not None), None)
    async with quick() as client:
        await client.push_blob(reference, described(content), UploadSource.of(content))
        assert await client.read_blob(reference, described(content), len(content)) == content
    if isinstance(action, web.Response) and action.status == 429:
        assert quick.waited[:2] == [7.0, 7.0]


async def test_upload_continues_with_the_next_chunk(proxy: Any, quick: Any) -> None:
    content = os.urandom(3 * CHUNK)
    patches = Counter({"seen": 0})

    def second(request: web.Request) -> object:
        patches["seen"] += request.method == "PATCH"
        return "cut-request:0" if request.method == "PATCH" and patches["seen"] == 2 else None

    proxy.fault = second
    async with quick() as client:
        sent = await client.push_blob(at(proxy.host, "resume/one"), described(content), UploadSource.of(content))
    assert sent.bytes == len(content)
    assert len(proxy.requests("POST")) == 1, "one upload, continued"


async def test_upload_continues_within_a_chunk(server: Any, quick: Any) -> None:
    """docker-registry 2.8 cancels an upload that broke within a chunk; a registry may keep what it has, as this one."""
    content = os.urandom(2 * CHUNK)
    kept = bytearray()
    log: list[str] = []

    async def keeping(request: web.Request) -> web.Response:
        log.append(request.method)
        there = {"Location": "/v2/a/b/blobs/uploads/1", "Range": f"0-{max(len(kept) - 1, 0)}"}
        if request.method == "POST":
            return web.Response(status=202, headers=there)
        if request.method == "GET":
            return web.Response(status=204, headers=there)
        if request.method == "HEAD":
            return web.Response(status=404)
        begin = int(request.headers.get("Content-Range", f"{len(kept)}-").partition("-")[0])
        if begin != len(kept):
            return web.Response(status=416)
        body = await request.read()
        if log.count("PATCH") == 1 and request.method == "PATCH":
            kept.extend(body[:100_000])
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        kept.extend(body)
        there["Range"] = f"0-{len(kept) - 1}"
        return web.Response(status=201 if request.method == "PUT" else 202, headers=there)

    host = await server(keeping)
    async with quick() as client:
        sent = await client.push_blob(at(host, "a/b"), described(content), UploadSource.of(content))
    assert bytes(kept) == content
    assert sent.bytes == len(content)
    assert log.count("POST") == 1


async def test_upload_begins_anew_when_the_registry_forgot_it(proxy: Any, quick: Any, registry: Any) -> None:
    content = os.urandom(2 * CHUNK)
    forgotten = times(1, web.Response(status=404, text='{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'), "PATCH")
    proxy.fault = forgotten
    async with quick() as client:
        await client.push_blob(at(proxy.host, "resume/two"), described(content), UploadSource.of(content))
        assert await client.has_blob(at(registry.host, "resume/two"), sha256(content))
    assert len(proxy.requests("POST")) == 2


async def test_registry_refuses_wrong_bytes(registry: Any, quick: Any) -> None:
    wrong = Descriptor(BLOB, sha256(b"right"), 5)
    async with quick() as client:
        with pytest.raises(RegistryError, match="DIGEST_INVALID"):
            await client.push_blob(at(registry.host, "wrong/one"), wrong, UploadSource.of(b"wrong"))


@pytest.mark.parametrize("cut", [0, 1000, 600_000])
async def test_download_continues_where_it_broke_off(proxy: Any, quick: Any, tmp_path: Path, cut: int) -> None:
    content = os.urandom(1_000_000)
    reference = at(proxy.host, f"download/c{cut}")
    async with quick() as client:
        await client.push_blob(reference, described(content), UploadSource.of(content))
        proxy.fault = times(1, f"cut-answer:{cut}", "GET", "/blobs/")
        await client.download(reference, described(content), tmp_path / "blob")
    assert await asyncio.to_thread((tmp_path / "blob").read_bytes) == content
    assert names(tmp_path) == ["blob"]


async def test_download_with_wrong_bytes_leaves_nothing(proxy: Any, quick: Any, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    reference = at(proxy.host, "download/wrong")
    async with quick() as client:
        await client.push_blob(reference, described(content), UploadSource.of(content))
        proxy.fault = lambda request: "corrupt" if request.method == "GET" else None
        with pytest.raises(DigestMismatch):
            await client.download(reference, described(content), tmp_path / "blob")
        assert names(tmp_path) == []


async def test_manifest_with_wrong_bytes_is_refused(proxy: Any, quick: Any, push_base: Any) -> None:
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/wrong/manifest:1")
        proxy.fault = lambda request: web.Response(body=b"{}", content_type="application/json")
        with pytest.raises(DigestMismatch, match=str(base.reference.digest)):
            await client.manifest(base.reference)


async def test_endless_failure_is_given_up(proxy: Any, quick: Any) -> None:
    proxy.fault = lambda _request: web.Response(status=503, headers={"Retry-After": "1"})
    async with quick(tries=4) as client:
        with pytest.raises(RegistryUnavailable, match=r"503.*gave up after 4 tries"):
            await client.head(at(proxy.host, "never/there"))
    assert len(proxy.seen) == 4


async def test_registry_that_is_not_there(quick: Any) -> None:
    async with quick(tries=2) as client:
        with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:1: HEAD failed"):
            await client.head(at("127.0.0.1:1", "a/b"))


async def test_too_long_a_wish_is_given_up_at_once(proxy: Any, quick: Any) -> None:
    proxy.fault = lambda _request: web.Response(status=429, headers={"Retry-After": "3600"})
    async with quick() as client:
        with pytest.raises(RegistryUnavailable, match="429"):
            await client.head(at(proxy.host, "never/there"))
    assert quick.waited == []


async def test_body_without_end_is_refused(server: Any, quick: Any) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(65536))
        except ConnectionError:
            return response

    host = await server(endless)
    async with quick() as client:
        with pytest.raises(RegistryError, match="more than 4194304 bytes"):
            await client.manifest(at(host, "a/b"))


async def test_referrers_are_listed_once(registry: Any, quick: Any, push_base: Any) -> None:
    async with quick() as client:
        base = await push_base(client, f"{registry.host}/referrers/one:1")
        subject = await client.head(base.reference)
        assert subject is not None
        for _ in range(2):
            attached = await client.attach(base.reference, subject, "application/spdx+json", b'{"a":1}')
        other = await client.attach(base.reference, subject, "application/other", b'{"a":1}')
        found = await client.referrers(base.reference)
        assert {one.digest for one in found} == {attached.digest, other.digest}
        assert len(found) == 2
        assert [one.digest for one in await client.referrers(base.reference, "application/other")] == [other.digest]


async def test_redirect_gets_no_credentials(server: Any, quick: Any, registry: Any) -> None:
    """Registries send blob readers to a storage of another host, which must not see the login."""
    from aks_inference_runtime.images import CredentialStore, Login

    seen: list[str | None] = []

    async def storage(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=b"content")

    storage_host = await server(storage)

    async def front(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.Response(status=307, headers={"Location": f"http://{storage_host}/blob"})

    host = await server(front)
    async with quick(CredentialStore({host: Login("user", "secret")})) as client:
        assert await client.read_blob(at(host, "a/b"), described(b"content"), 100) == b"content"
    assert seen == [None]
