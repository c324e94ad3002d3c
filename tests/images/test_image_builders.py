"""Builders of one image: what breaks, who is quicker, who waits, who is killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.api.errors import InvalidInput
from aks_inference_runtime.images import (
    BuildSettings,
    RegistryClient,
    RegistryPlace,
    ensure_image,
    find,
    read_environment,
)
from aks_inference_runtime.images.environment.model import EnvironmentDefinition
from aks_inference_runtime.images.errors import RegistryUnavailable
from aks_inference_runtime.images.once import build_lock

COMMAND = [sys.executable, "-c", "from aks_inference_runtime.images.cli import image_group; image_group()"]


def environment(base: object, *packages: str, **more: object) -> EnvironmentDefinition:
    return read_environment({"docker": {"baseImage": str(base)}, "pipPackages": list(packages), **more}, Path())


def place(host: str, name: str) -> RegistryPlace:
    return RegistryPlace.parse(f"{host}/{name}")


@pytest.fixture
def packages(wheelhouse: Path, make_wheel: Callable[..., Path]) -> Path:
    """`alpha` needs `beta`; `gamma` is large enough for a layer of its own."""
    make_wheel(wheelhouse, "alpha", requires=("beta>=1",), scripts={"alpha": "alpha:main"})
    make_wheel(wheelhouse, "beta")
    make_wheel(wheelhouse, "gamma", files={"gamma/data.bin": os.urandom(1_500_000)})
    return wheelhouse


async def test_tag_appears_last_and_a_broken_push_is_taken_up(
    proxy: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, tmp_path: Path
) -> None:
    settings = BuildSettings(cache=tmp_path / "cache")
    async with quick(tries=2) as client:
        base = await push_base(client, f"{proxy.host}/broken/base:1")
        definition = environment(base.reference, "gamma")
        where = place(proxy.host, "broken/env")

        def no_manifest(request: web.Request) -> web.Response | None:
            return web.Response(status=500) if request.method == "PUT" and "/manifests/" in request.path else None

        proxy.fault = no_manifest
        with pytest.raises(RegistryUnavailable):
            await ensure_image(client, definition, where, settings=settings)
        proxy.fault = lambda _request: None
        assert (await find(client, definition, where)).found is None
        before = proxy.body_bytes
        made = await ensure_image(client, definition, where, settings=settings)
        assert made.built
        assert proxy.body_bytes - before < 10_000, "the layers were there"


async def test_another_machine_was_quicker(
    proxy: Any, quick: Callable[..., RegistryClient], push_base: Any, packages: Any, make_wheel: Any, tmp_path: Path
) -> None:
    """Two caches are two machines: they share no lock, only the registry, and this one takes no marks."""
    proxy.fault = lambda request: web.Response(status=403) if "-building" in request.path else None
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/race/base:1")
        definition = environment(base.reference, "gamma")
        where = place(proxy.host, "race/env")
        progress: list[str] = []
        results = await asyncio.gather(
            *(
                ensure_image(
                    client, definition, where, settings=BuildSettings(cache=tmp_path / name), progress=progress.append
                )
                for name in ("one", "two")
            )
        )
    assert results[0].image == results[1].image


def build_process(host: str, base: object, folder: Path, cache: Path) -> "subprocess.Popen[str]":
    file = folder / "environment.json"
    file.write_text(json.dumps({"docker": {"baseImage": str(base)}, "pipPackages": ["gamma", "alpha"]}))
    command = [*COMMAND, "build", str(file), "--registry", f"{host}/once/env", "--json"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


async def test_two_processes_at_once_build_once(
    proxy: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    tmp_path: Path,
    no_docker_login: Path,
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/once/base:1")
    running = [build_process(proxy.host, base.reference, tmp_path, tmp_path / "cache") for _ in range(2)]
    try:
        outputs = await asyncio.gather(*(asyncio.to_thread(one.communicate, timeout=60) for one in running))
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0, 0], outputs
    results = [json.loads(output) for output, _ in outputs]
    assert sorted(one["built"] for one in results) == [False, True]
    assert results[0]["image"] == results[1]["image"]


async def test_who_is_waited_for_on_this_machine(tmp_path: Path) -> None:
    told, waits = list[str](), asyncio.Event()

    def says(who: str) -> None:
        told.append(who)
        waits.set()

    async def second() -> bool:
        async with build_lock(tmp_path, "key", says) as waited:
            return waited

    async with build_lock(tmp_path, "key", says) as first:
        waiting = asyncio.create_task(second())
        await asyncio.wait_for(waits.wait(), 30)
    assert (first, await asyncio.wait_for(waiting, 30)) == (False, True)
    (who,) = told
    assert re.fullmatch(rf"process {os.getpid()} since \d\d:\d\d:\d\d UTC", who)


async def test_killed_builder_holds_nobody_up(
    proxy: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    packages: Any,
    tmp_path: Path,
    no_docker_login: Path,
    wait_until: Any,
) -> None:
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/once/base:2")
    sending: list[str] = []

    def hold(request: web.Request) -> str | None:
        if request.method == "PUT":
            sending.append(request.path)
            return "cut-request:0"
        return None

    proxy.fault = hold
    first = build_process(proxy.host, base.reference, tmp_path, tmp_path / "cache")
    try:
        await asyncio.to_thread(wait_until, lambda: bool(sending), "the first builder sends")
    finally:
        first.send_signal(signal.SIGKILL)
        await asyncio.to_thread(first.communicate)
    proxy.fault = lambda _request: None
    second = build_process(proxy.host, base.reference, tmp_path, tmp_path / "cache")
    try:
        output, errors = await asyncio.to_thread(second.communicate, timeout=60)
    finally:
        second.kill()
    assert second.returncode == 0, errors
    assert json.loads(output)["built"]


async def test_builder_must_fit(
    registry: Any, quick: Callable[..., RegistryClient], packages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = environment("python:3.11", docker={"baseImage": "127.0.0.1:1/a:1", "extraDockerFileSteps": "RUN true"})
    monkeypatch.setenv("PATH", str(tmp_path))
    async with quick(tries=1) as client:
        with pytest.raises(
            InvalidInput, match="needs a build tool, as it has Docker steps of its own, and none is there"
        ):
            await ensure_image(client, definition, place(registry.host, "fit/env"))
