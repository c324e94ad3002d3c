"""Wheels from an index over real HTTP: logins, faults on the way, what stays of a fetch that broke off."""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.images.build.resolve import resolve
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.packages import download as fetching
from aks_inference_runtime.packages.download import NotFetched, Wanted, download
from aks_inference_runtime.packages.settings import PipSettings

DEADLINE_S = 20.0
TARGET = Target("3.11", "/usr/bin/python3.11", glibc=(2, 36))
Fault = Callable[[web.Request], Any]


@dataclass
class Index:
    """Files of a folder as an index has them."""

    folder: Path
    url: str = ""
    login: str | None = None
    """USER:PASSWORD that each request must have."""
    faults: list[Fault] = field(default_factory=list)
    """What becomes of the next requests for files, one each."""
    asked: list[str] = field(default_factory=list)
    redirect: str | None = None
    """Files are elsewhere."""
    authorizations: list[str | None] = field(default_factory=list)
    algorithm: str = "sha256"
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets go what waits."""

    async def page(self, request: web.Request) -> web.Response:
        self._judge(request)
        name = request.match_info["name"].replace("-", "_")
        found = [path for path in sorted(self.folder.iterdir()) if path.name.startswith(f"{name}-")]
        if not found:
            raise web.HTTPNotFound
        links = "".join(
            f'<a href="/files/{one.name}#{self.algorithm}={digest(one, self.algorithm)}">{one.name}</a>'
            for one in found
        )
        return web.Response(text=links, content_type="text/html")

    async def file(self, request: web.Request) -> web.StreamResponse:
        self.authorizations.append(request.headers.get("Authorization"))
        self._judge(request)
        name = request.match_info["name"]
        self.asked.append(name)
        if self.faults:
            return await self.faults.pop(0)(request)  # type: ignore[no-any-return]
        if self.redirect is not None:
            raise web.HTTPFound(f"{self.redirect}/files/{name}")
        return web.FileResponse(self.folder / name)

    def _judge(self, request: web.Request) -> None:
        if self.login is not None:
            expected = f"Basic {base64.b64encode(self.login.encode()).decode()}"
            if request.headers.get("Authorization") != expected:
                raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Basic"})

    def wanted(self, name: str, **more: Any) -> Wanted:
        """A file of it, as a lock file tells."""
        path = self.folder / name
        told = {"digests": {"sha256": digest(path)}, "size": path.stat().st_size, **more}
        return Wanted(name, f"{self.url}/files/{name}", **told)


def digest(path: Path, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[[], Any]]:
    """Makes indexes."""
    runners: list[tuple[web.AppRunner, Index]] = []

    async def make() -> Index:
        index = Index(tmp_path / f"index-{len(runners)}")
        index.folder.mkdir()
        app = web.Application()
        app.add_routes([web.get("/simple/{name}/", index.page), web.get("/files/{name}", index.file)])
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        index.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        runners.append((runner, index))
        return index

    yield make
    for runner, index in runners:
        index.over.set()
        await runner.cleanup()


@pytest.fixture
async def index(serve: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> Index:
    """One, which pip is told of."""
    made: Index = await serve()
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{made.url}/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return made


async def fetched(index: Index, tmp_path: Path, *wanted: Wanted, settings: PipSettings | None = None) -> list[str]:
    lines: list[str] = []
    own = settings or PipSettings(indexes=(f"{index.url}/simple",))
    return await download(wanted, tmp_path / "wheels", own, lines.append, wait_s=0.001)


async def cut(request: web.Request) -> web.StreamResponse:
    """The connection ends in the middle."""
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"half")
    assert request.transport is not None
    request.transport.abort()
    return answer


async def busy(_request: web.Request) -> web.Response:
    return web.Response(status=503)


async def other(_request: web.Request) -> web.Response:
    return web.Response(body=b"other bytes")


async def test_the_choice_is_of_the_index_and_kept(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta", "1.0")
    make_wheel(index.folder, "beta", "1.1")
    make_wheel(index.folder, "alpha", requires=("beta>=1", "absent; python_version < '3.11'"))
    cache, lines = tmp_path / "cache", list[str]()
    wheels = await resolve(["alpha"], (), TARGET, cache, lines.append)
    assert [(one.name, one.version) for one in wheels] == [("alpha", "1.0"), ("beta", "1.1")]
    assert all(digest(one.path) == one.sha256 for one in wheels)
    assert any("fetching 2 packages" in line for line in lines)
    index.asked.clear()
    assert await resolve(["alpha"], (), TARGET, cache, lines.append) == wheels
    # Of another choice those are fetched only that are not there.
    make_wheel(index.folder, "gamma", requires=("alpha",))
    assert len(await resolve(["gamma"], (), TARGET, cache, lines.append)) == 3
    assert set(index.asked) == {"gamma-1.0-py3-none-any.whl"}


async def test_the_wheel_that_fits_best(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    tags = [
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_40_x86_64",
        "cp310-cp310-manylinux_2_17_x86_64",
    ]
    for tag in (*tags, "cp38-abi3-manylinux2014_x86_64", "cp311-cp311-macosx_11_0_arm64", "py3-none-any"):
        make_wheel(index.folder, "beta", tag=tag)
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.path.name == f"beta-1.0-{tags[0]}.whl"


async def test_refreshed_choice_takes_what_is_new(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta", "1.0")
    cache = tmp_path / "cache"
    await resolve(["beta"], (), TARGET, cache, lambda _line: None)
    make_wheel(index.folder, "beta", "2.0")
    (kept,) = await resolve(["beta"], (), TARGET, cache, lambda _line: None)
    (new,) = await resolve(["beta"], (), TARGET, cache, lambda _line: None, refresh=True)
    assert (kept.version, new.version) == ("1.0", "2.0")


async def test_a_private_index(index: Index, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login in its address serves for its files, and is in no text."""
    make_wheel(index.folder, "beta")
    index.login, lines = "me:hush hush", list[str]()
    address = f"{index.url}/simple".replace("http://", "http://me:hush%20hush@")
    (wheel,) = await resolve(["beta"], (f"--index-url {address}",), TARGET, tmp_path / "cache", lines.append)
    assert wheel.name == "beta"
    with pytest.raises(BuildFailed) as refused:
        await resolve(["beta"], (), TARGET, tmp_path / "other", lines.append)
    assert "hush" not in "\n".join([*lines, str(refused.value)])


async def test_a_password_of_the_keyring(
    index: Index, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index.folder, "beta")
    index.login = "me:kept"
    program = tmp_path / "bin" / "keyring"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = get ] && [ "$3" = me ] && echo kept\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_KEYRING_PROVIDER", "subprocess")
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple".replace("http://", "http://me@"))
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.name == "beta"


async def test_a_login_goes_to_no_other_place(
    index: Index, serve: Callable[[], Any], tmp_path: Path, make_wheel: Any
) -> None:
    make_wheel(index.folder, "beta")
    elsewhere: Index = await serve()
    make_wheel(elsewhere.folder, "beta")
    index.login, index.redirect = "me:hush", elsewhere.url
    settings = PipSettings(indexes=(f"{index.url}/simple".replace("http://", "http://me:hush@"),))
    await fetched(index, tmp_path, index.wanted("beta-1.0-py3-none-any.whl"), settings=settings)
    assert elsewhere.authorizations == [None]


@pytest.mark.parametrize("faults", [[busy], [cut, cut], [other], [busy, cut, other]])
async def test_what_broke_off_is_asked_for_again(
    index: Index, tmp_path: Path, make_wheel: Any, faults: list[Fault]
) -> None:
    name = make_wheel(index.folder, "beta").name
    index.faults = [*faults]
    one = index.wanted(name)
    (sha256,) = await fetched(index, tmp_path, one)
    assert digest(one.place(tmp_path / "wheels", sha256)) == sha256 == one.digests["sha256"]
    assert len(index.asked) == len(faults) + 1


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (busy, r"answered 503, 4 times"),
        (cut, r"broke off .*, 4 times"),
        (other, r"gave 11 bytes with the digest sha256:.*, not sha256:.*, 4 times"),
    ],
)
async def test_what_cannot_be_had_ends_all(
    index: Index, tmp_path: Path, make_wheel: Any, fault: Fault, text: str
) -> None:
    names = [make_wheel(index.folder, f"beta{n}").name for n in range(12)]
    index.faults = [fault] * 100
    with pytest.raises(NotFetched, match=rf"beta\d+-1\.0.*{text}"):
        await fetched(index, tmp_path, *(index.wanted(name) for name in names))
    assert list((tmp_path / "wheels").iterdir()) == []


async def test_more_than_was_told_is_not_taken(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    name = make_wheel(index.folder, "beta").name
    with pytest.raises(NotFetched, match=r"more than the 10 bytes that it should have came"):
        await fetched(index, tmp_path, index.wanted(name, size=10))
    assert list((tmp_path / "wheels").iterdir()) == []


async def test_a_silent_index_is_given_up(
    index: Index, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_wheel(index.folder, "beta").name
    monkeypatch.setattr(fetching, "_SILENT_S", 0.05)

    async def silent(_request: web.Request) -> web.Response:
        await index.over.wait()
        return web.Response()

    index.faults = [silent] * 10
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(NotFetched, match=r"was silent for 0\.05 s, 4 times"):
            await fetched(index, tmp_path, index.wanted(name))


async def test_a_stopped_fetch_leaves_nothing(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    name, begun = make_wheel(index.folder, "beta").name, asyncio.Event()

    async def waiting(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b"half")
        begun.set()
        await index.over.wait()
        return answer

    index.faults = [waiting]
    task = asyncio.create_task(fetched(index, tmp_path, index.wanted(name)))
    async with asyncio.timeout(DEADLINE_S):
        await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((tmp_path / "wheels").iterdir()) == []


async def test_a_package_that_would_have_to_be_built(index: Index, tmp_path: Path) -> None:
    (index.folder / "beta-1.0.tar.gz").write_bytes(b"source")
    with pytest.raises(BuildFailed, match=r"(?s)beta==1.0 has no usable wheels.*needs a wheel for Python 3\.11"):
        await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)


async def test_a_project_that_one_happens_to_be_in_has_no_say(
    index: Index, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index.folder, "beta")
    project = tmp_path / "project"
    project.mkdir()
    (project / "uv.toml").write_text("[pip]\nno-index = true\n")
    monkeypatch.chdir(project)
    assert len(await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)) == 1


async def test_a_constraint_holds(
    index: Index, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.0", "2.0"):
        make_wheel(index.folder, "beta", version)
    (tmp_path / "c.txt").write_text("beta<2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "c.txt"))
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.version == "1.0"


async def test_an_index_with_other_digests(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta")
    index.algorithm = "md5"
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert digest(wheel.path) == wheel.sha256
    name = wheel.path.name
    with pytest.raises(NotFetched, match=r"with the digest md5:.*, not md5:0000, 4 times"):
        await fetched(index, tmp_path, index.wanted(name, digests={"md5": "0000"}))
    with pytest.raises(NotFetched, match=r"its digests are of unknown kinds \(crc\)"):
        await fetched(index, tmp_path, index.wanted(name, digests={"crc": "0000"}))


async def test_a_wheel_by_its_address(index: Index, tmp_path: Path, make_wheel: Any) -> None:
    name = make_wheel(index.folder, "beta").name
    index.login = "me:hush"
    address = f"{index.url}/files/{name}".replace("http://", "http://me:hush@")
    (wheel,) = await resolve([f"beta @ {address}"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.path.name == name
    lock = f"beta @ file://{index.folder / name}"
    (again,) = await resolve([lock], (), TARGET, tmp_path / "other", lambda _line: None)
    assert again.sha256 == wheel.sha256
