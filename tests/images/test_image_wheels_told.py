"""What is told of choosing and fetching wheels: that it goes on, and once what to do where it fails."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from wheel_index import WheelIndex

from aks_inference_runtime.images import BuildSettings, RegistryClient, RegistryPlace, ensure_image, read_environment
from aks_inference_runtime.images.build.resolve import resolve
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.packages import waiting
from aks_inference_runtime.packages.download import download
from aks_inference_runtime.packages.settings import PipSettings

TARGET = Target("3.11", "/usr/bin/python3.11", glibc=(2, 36))
DEADLINE_S = 20.0


class Lines(list[str]):
    """Opens the way once one with a text is there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text, self.there = text, asyncio.Event()

    def append(self, line: str) -> None:
        super().append(line)
        if self._text in line:
            self.there.set()


@pytest.fixture
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SAY_S", 0.01)


@pytest.mark.usefixtures("_often")
async def test_a_long_fetch_tells_how_far_it_is(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    name = make_wheel(index.folder, "beta").name
    lines = Lines("0.3 of 0.6 MB fetched, 0 s")

    async def halting(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "600000"})
        await answer.prepare(request)
        await answer.write(bytes(300_000))
        await asyncio.wait_for(lines.there.wait(), DEADLINE_S)
        assert request.transport is not None
        request.transport.abort()
        return answer

    index.faults = [halting]
    wanted = index.wanted(name, size=600_000)
    settings = PipSettings(indexes=(f"{index.url}/simple",))
    async with asyncio.timeout(DEADLINE_S):
        await download([wanted], tmp_path / "wheels", settings, lines.append, wait_s=0.001)
    assert lines.there.is_set()


@pytest.mark.usefixtures("_often")
async def test_a_slow_index_is_told_while_wheels_are_chosen(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index.folder, "beta")
    lines = Lines("still choosing wheels, 0 s")
    page = index.page

    async def waits(request: web.Request) -> web.Response:
        await lines.there.wait()
        return await page(request)

    app = web.Application()
    app.add_routes([web.get("/simple/{name}/", waits), web.get("/files/{name}", index.file)])
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{runner.addresses[0][1]}/simple")
        async with asyncio.timeout(DEADLINE_S):
            (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lines.append)
    finally:
        await runner.cleanup()
    assert wheel.name == "beta"


@pytest.mark.usefixtures("_often")
async def test_a_long_push_tells_that_it_goes_on(
    proxy: Any, index: WheelIndex, quick: Callable[..., RegistryClient], push_base: Any, make_wheel: Any, tmp_path: Path
) -> None:
    make_wheel(index.folder, "beta")
    lines = Lines("still pushing, 0 s")

    def busy(_request: web.Request) -> web.Response | None:
        refused = "packing 1 packages" in lines and not lines.there.is_set()
        return web.Response(status=503) if refused else None

    async with quick(tries=100_000) as client:
        base = await push_base(client, f"{proxy.host}/slow/base:1")
        proxy.fault = busy
        definition = read_environment({"docker": {"baseImage": str(base.reference)}, "pipPackages": ["beta"]}, tmp_path)
        place, settings = RegistryPlace.parse(f"{proxy.host}/slow/env"), BuildSettings(cache=tmp_path / "cache")
        async with asyncio.timeout(DEADLINE_S):
            await ensure_image(client, definition, place, settings=settings, progress=lines.append)
    assert lines.there.is_set()


async def test_requirements_that_contradict_each_other(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    """No build tool helps, and what uv says is in the error alone."""
    make_wheel(index.folder, "alpha", requires=("beta>=2",))
    make_wheel(index.folder, "beta", "1.0")
    make_wheel(index.folder, "beta", "2.0")
    lines: list[str] = []
    with pytest.raises(BuildFailed, match=r"(?s)alpha.*beta.*change a version, or leave one out$") as refused:
        await resolve(["alpha", "beta<2"], (), TARGET, tmp_path / "cache", lines.append)
    assert "build tool" not in str(refused.value)
    assert lines == []


async def test_a_release_for_other_interpreters(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta", tag="cp312-cp312-manylinux_2_17_x86_64")
    with pytest.raises(BuildFailed, match=r"each package needs a wheel for Python 3\.11 on .*build tool$"):
        await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)


@pytest.mark.parametrize(
    ("status", "mend"), [(503, "correct the address, such as PIP_INDEX_URL"), (403, "give the login in the index's")]
)
async def test_an_index_that_does_not_serve(
    index: WheelIndex,
    tmp_path: Path,
    make_wheel: Any,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    mend: str,
) -> None:
    wheel = make_wheel(index.folder, "beta")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")

    async def refused(_request: web.Request) -> web.Response:
        return web.Response(status=status)

    index.faults = [refused] * 10
    with pytest.raises(BuildFailed, match=rf"(?s){status}.*{mend}"):
        await resolve([f"beta @ {index.url}/files/{wheel.name}"], (), TARGET, tmp_path / "cache", lambda _line: None)
