"""Wheels from an index over real HTTP: logins, faults on the way, what stays of a fetch that broke off."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from wheel_index import Fault, WheelIndex, digest, fetched

from aks_inference_runtime.images.build.resolve import resolve
from aks_inference_runtime.images.build.target import Target
from aks_inference_runtime.images.errors import BuildFailed
from aks_inference_runtime.packages import download as fetching
from aks_inference_runtime.packages.download import NotFetched

DEADLINE_S = 20.0
TARGET = Target("3.11", "/usr/bin/python3.11", glibc=(2, 36))


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


async def test_the_choice_is_of_the_index_and_kept(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta", "1.0")
    make_wheel(index.folder, "beta", "1.1")
    make_wheel(index.folder, "alpha", requires=("beta>=1", "absent; python_version < '3.11'"))
    cache, lines = tmp_path / "cache", list[str]()
    wheels = await resolve(["alpha"], (), TARGET, cache, lines.append)
    assert [(one.name, one.version) for one in wheels] == [("alpha", "1.0"), ("beta", "1.1")]
    assert all(digest(one.path) == one.sha256 for one in wheels)
    # What is fetched is told, not the lock file that uv makes.
    assert lines[-1] == "fetching 2 packages"
    assert not any("alpha-1.0" in line for line in lines)
    index.asked.clear()
    assert await resolve(["alpha"], (), TARGET, cache, lines.append) == wheels
    # Of another choice those are fetched only that are not there.
    make_wheel(index.folder, "gamma", requires=("alpha",))
    assert len(await resolve(["gamma"], (), TARGET, cache, lines.append)) == 3
    assert set(index.asked) == {"gamma-1.0-py3-none-any.whl"}


async def test_the_wheel_that_fits_best(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    tags = [
        "cp311-cp311-manylinux_2_17_x86_64",
        "cp311-cp311-manylinux_2_40_x86_64",
        "cp310-cp310-manylinux_2_17_x86_64",
    ]
    for tag in (*tags, "cp38-abi3-manylinux2014_x86_64", "cp311-cp311-macosx_11_0_arm64", "py3-none-any"):
        make_wheel(index.folder, "beta", tag=tag)
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.path.name == f"beta-1.0-{tags[0]}.whl"


async def test_refreshed_choice_takes_what_is_new(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta", "1.0")
    cache = tmp_path / "cache"
    await resolve(["beta"], (), TARGET, cache, lambda _line: None)
    make_wheel(index.folder, "beta", "2.0")
    (kept,) = await resolve(["beta"], (), TARGET, cache, lambda _line: None)
    (new,) = await resolve(["beta"], (), TARGET, cache, lambda _line: None, refresh=True)
    assert (kept.version, new.version) == ("1.0", "2.0")


@pytest.mark.parametrize("faults", [[busy], [cut, cut], [other], [busy, cut, other]])
async def test_what_broke_off_is_asked_for_again(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, faults: list[Fault]
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
    index: WheelIndex, tmp_path: Path, make_wheel: Any, fault: Fault, text: str
) -> None:
    names = [make_wheel(index.folder, f"beta{n}").name for n in range(12)]
    index.faults = [fault] * 100
    with pytest.raises(NotFetched, match=rf"beta\d+-1\.0.*{text}"):
        await fetched(index, tmp_path, *(index.wanted(name) for name in names))
    assert list((tmp_path / "wheels").iterdir()) == []


async def test_more_than_was_told_is_not_taken(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    name = make_wheel(index.folder, "beta").name
    with pytest.raises(NotFetched, match=r"more than the 10 bytes that it should have came"):
        await fetched(index, tmp_path, index.wanted(name, size=10))
    assert list((tmp_path / "wheels").iterdir()) == []


async def test_a_silent_index_is_given_up(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
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


async def test_a_stopped_fetch_leaves_nothing(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
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


async def test_a_package_that_would_have_to_be_built(index: WheelIndex, tmp_path: Path) -> None:
    (index.folder / "beta-1.0.tar.gz").write_bytes(b"source")
    with pytest.raises(BuildFailed, match=r"(?s)beta==1.0 has no usable wheels.*needs a wheel for Python 3\.11"):
        await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)


async def test_a_project_that_one_happens_to_be_in_has_no_say(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index.folder, "beta")
    project = tmp_path / "project"
    project.mkdir()
    (project / "uv.toml").write_text("[pip]\nno-index = true\n")
    monkeypatch.chdir(project)
    assert len(await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)) == 1


async def test_a_constraint_holds(
    index: WheelIndex, tmp_path: Path, make_wheel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ("1.0", "2.0"):
        make_wheel(index.folder, "beta", version)
    (tmp_path / "c.txt").write_text("beta<2\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "c.txt"))
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.version == "1.0"


async def test_an_index_with_other_digests(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    make_wheel(index.folder, "beta")
    index.algorithm = "md5"
    (wheel,) = await resolve(["beta"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert digest(wheel.path) == wheel.sha256
    name = wheel.path.name
    with pytest.raises(NotFetched, match=r"with the digest md5:.*, not md5:0000, 4 times"):
        await fetched(index, tmp_path, index.wanted(name, digests={"md5": "0000"}))
    with pytest.raises(NotFetched, match=r"its digests are of unknown kinds \(crc\)"):
        await fetched(index, tmp_path, index.wanted(name, digests={"crc": "0000"}))


async def test_a_wheel_by_its_address(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    name = make_wheel(index.folder, "beta").name
    index.login = "me:hush"
    address = f"{index.url}/files/{name}".replace("http://", "http://me:hush@")
    (wheel,) = await resolve([f"beta @ {address}"], (), TARGET, tmp_path / "cache", lambda _line: None)
    assert wheel.path.name == name
    # A signed address: what follows the name belongs to no file.
    (signed,) = await resolve([f"beta @ {address}?sig=a%2Bb"], (), TARGET, tmp_path / "signed", lambda _line: None)
    assert signed.path.name == name
    lock = f"beta @ file://{index.folder / name}"
    (again,) = await resolve([lock], (), TARGET, tmp_path / "other", lambda _line: None)
    assert again.sha256 == wheel.sha256


async def test_a_release_that_is_newer_than_a_kept_page_is_found(
    index: WheelIndex, tmp_path: Path, make_wheel: Any
) -> None:
    index.page_headers = {"Cache-Control": "max-age=600"}
    for version in ("1.0", "2.0"):
        make_wheel(index.folder, "beta", version)
        (wheel,) = await resolve([f"beta=={version}"], (), TARGET, tmp_path / "cache", lambda _line: None)
        assert wheel.version == version


async def test_wheels_of_an_image_with_musl(index: WheelIndex, tmp_path: Path, make_wheel: Any) -> None:
    for tag in ("cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-musllinux_1_2_x86_64"):
        make_wheel(index.folder, "beta", tag=tag)
    make_wheel(index.folder, "gamma", tag="cp311-cp311-manylinux_2_17_x86_64")
    target = Target("3.11", "/usr/local/bin/python3.11", musl=True)
    (wheel,) = await resolve(["beta"], (), target, tmp_path / "cache", lambda _line: None)
    assert wheel.path.name == "beta-1.0-cp311-cp311-musllinux_1_2_x86_64.whl"
    with pytest.raises(BuildFailed, match=r"needs a wheel for Python 3\.11 on linux/amd64 with musl"):
        await resolve(["gamma"], (), target, tmp_path / "cache", lambda _line: None)
