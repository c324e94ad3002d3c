"""Builders of one image on several machines, which share nothing but the registry: their caches are apart."""

import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aks_inference_runtime.images import BuildSettings, RegistryClient, RegistryPlace, ensure_image, read_environment
from aks_inference_runtime.images.claim import BEAT, BEGAN, HOLDER, SUFFIX, Mark, Patience, claimed, given_up, in_words
from aks_inference_runtime.images.ensure import Ensured
from aks_inference_runtime.images.environment.key import image_key
from aks_inference_runtime.images.reference import ImageReference
from aks_inference_runtime.images.registry.manifest import (
    EMPTY_JSON,
    OCI_EMPTY,
    Descriptor,
    Manifest,
    image_manifest,
    sha256,
)
from aks_inference_runtime.images.registry.upload import UploadSource

QUICK = Patience(poll_s=0.05, beat_s=0.1, stale_s=120)
"""Who does not die in a test is never taken for dead."""
COMMAND = [sys.executable, "-c", "from aks_inference_runtime.images.cli import image_group; image_group()"]


@pytest.fixture
async def wanted(
    proxy: Any, quick: Callable[..., RegistryClient], push_base: Any, wheelhouse: Path, make_wheel: Any, request: Any
) -> tuple[RegistryPlace, dict[str, Any]]:
    """Where the image belongs, and its environment."""
    make_wheel(wheelhouse, "gamma", files={"gamma/data.bin": os.urandom(1_500_000)})
    name = request.node.name.replace("_", "-").partition("[")[0]
    async with quick() as client:
        base = await push_base(client, f"{proxy.host}/{name}/base:1")
    return RegistryPlace.parse(f"{proxy.host}/{name}/env"), {
        "docker": {"baseImage": str(base.reference)},
        "pipPackages": ["gamma"],
    }


async def on_machines(
    client: RegistryClient, wanted: tuple[RegistryPlace, dict[str, Any]], folders: list[Path], said: list[str]
) -> list[Ensured]:
    place, environment = wanted
    definition = read_environment(environment, Path())
    return await asyncio.gather(
        *(
            ensure_image(client, definition, place, (), BuildSettings(cache=folder, patience=QUICK), said.append)
            for folder in folders
        )
    )


@pytest.fixture
def mark_of_another() -> Callable[..., Any]:
    """Writes one, and gives the image that it stands for."""

    async def write(
        client: RegistryClient, wanted: tuple[RegistryPlace, dict[str, Any]], beat: str, **more: str
    ) -> ImageReference:
        place, environment = wanted
        target = place.image(image_key(read_environment(environment, Path())))
        mark = place.image(f"{target.tag}{SUFFIX}")
        empty = Descriptor(OCI_EMPTY, sha256(EMPTY_JSON), len(EMPTY_JSON))
        await client.push_blob(mark, empty, UploadSource.of(EMPTY_JSON))
        said = {HOLDER: "id-another\nname", BEAT: beat, **more}
        await client.push_manifest(mark, image_manifest(empty, (), said))
        return target

    return write


async def marks(client: RegistryClient, place: RegistryPlace) -> list[str]:
    return [tag for tag in await client.tags(place.registry, place.repository) if tag.endswith(SUFFIX)]


async def test_several_machines_build_once(
    quick: Callable[..., RegistryClient], wanted: Any, tmp_path: Path, proxy: Any
) -> None:
    said: list[str] = []
    async with quick() as client:
        made = await on_machines(client, wanted, [tmp_path / name for name in "abc"], said)
        left = await marks(client, wanted[0])
    assert sorted(one.built for one in made) == [False, False, True]
    assert len({one.image for one in made}) == 1
    assert sum(f"is being built by another machine ({platform.node()}) since" in line for line in said) >= 2
    assert left == []


async def test_a_registry_that_takes_no_marks(
    quick: Callable[..., RegistryClient], wanted: Any, tmp_path: Path, proxy: Any
) -> None:
    """Then several build, and all run the image that was there first."""

    def refuse(request: web.Request) -> web.Response | None:
        return web.Response(status=403) if request.method == "PUT" and SUFFIX in request.path else None

    proxy.fault = refuse
    said: list[str] = []
    async with quick() as client:
        made = await on_machines(client, wanted, [tmp_path / name for name in "ab"], said)
    assert len({one.image for one in made}) == 1
    assert not [line for line in said if "waiting" in line]


async def test_a_registry_that_deletes_nothing(
    quick: Callable[..., RegistryClient], wanted: Any, tmp_path: Path, proxy: Any
) -> None:
    """The mark that stays says that it was given back: nobody waits for it."""
    proxy.fault = lambda request: web.Response(status=405) if request.method == "DELETE" else None
    target = wanted[0].image("some-key")
    told: list[str] = []
    async with quick() as client:
        for name in ("a", "b"):
            async with claimed(client, target, tmp_path / name, QUICK, told.append) as there:
                assert not there
        assert await marks(client, wanted[0]) == [f"some-key{SUFFIX}"]
    assert told == []


async def test_a_machine_that_died(
    quick: Callable[..., RegistryClient], wanted: Any, mark_of_another: Callable[..., Any], tmp_path: Path
) -> None:
    told: list[str] = []
    async with quick() as client:
        began = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
        target = await mark_of_another(client, wanted, "1", **{BEGAN: began.isoformat()})
        patience = Patience(poll_s=0.05, beat_s=60, stale_s=0.3, tell_s=0.1)
        async with asyncio.timeout(60), claimed(client, target, tmp_path, patience, told.append) as there:
            assert not there
    what = (target.tag or "")[:12]
    assert told[0] == (
        f"{what} is being built by another machine (anothername) since 09:30:00 UTC; waiting for it, "
        "until 0 s after its last sign of life, for 2 h in all at most"
    )
    assert told[-1].startswith(f"{what}: anothername has said nothing for ")
    assert told[-1].endswith("; it is built here")
    assert all(f"{what}: waiting for anothername for " in line for line in told[1:-1])


async def test_a_machine_that_died_yesterday(
    quick: Callable[..., RegistryClient], wanted: Any, mark_of_another: Callable[..., Any], tmp_path: Path
) -> None:
    """Its mark tells, so nobody waits for it at all."""
    told: list[str] = []
    last = datetime.now(UTC) - timedelta(days=1)
    async with quick() as client:
        target = await mark_of_another(client, wanted, last.isoformat())
        patience = Patience(poll_s=600, beat_s=60, stale_s=600)
        async with asyncio.timeout(60), claimed(client, target, tmp_path, patience, told.append) as there:
            assert not there
    assert told == [
        f"{(target.tag or '')[:12]}: anothername has said nothing since {last:%Y-%m-%d %H:%M:%S} UTC; it is built here"
    ]


async def test_a_machine_that_hangs(
    quick: Callable[..., RegistryClient], wanted: Any, mark_of_another: Callable[..., Any], tmp_path: Path
) -> None:
    """It says that it builds, and never comes to an end: others wait no longer than a build can take."""
    patience, told = Patience(poll_s=0.05, beat_s=60, stale_s=120, longest_s=0.5), list[str]()
    async with quick() as client:
        target = await mark_of_another(client, wanted, "0")

        async def beats() -> None:
            number = 0
            while True:
                number += 1
                await mark_of_another(client, wanted, str(number))
                await asyncio.sleep(2)

        other = asyncio.create_task(beats())
        try:
            async with asyncio.timeout(60), claimed(client, target, tmp_path, patience, told.append) as there:
                assert not there
        finally:
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
    assert "anothername has not built it in " in told[-1]


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("silent_s", "waited_s", "beat_s", "reason"),
    [
        (0, 0, None, None),
        (40, 7200, 340, None),
        (41, 41, None, "vm-1 has said nothing for 41 s"),
        (0, 7201, 0, "vm-1 has not built it in 2 h"),
        (0, 0, 341, "vm-1 has said nothing since 2026-11-22 11:54:19 UTC"),
        (0, 0, -86_400, None),
    ],
)
def test_who_is_given_up(silent_s: float, waited_s: float, beat_s: float | None, reason: str | None) -> None:
    """`beat_s`: how old its last word is by our clock; one that is ahead says nothing."""
    beat = None if beat_s is None else NOW - timedelta(seconds=beat_s)
    assert given_up(Mark("d", "id-vm-1", None, beat), silent_s, waited_s, NOW, Patience()) == reason


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (7200, "2 h")])
def test_durations(seconds: float, text: str) -> None:
    assert in_words(seconds) == text


@pytest.mark.long
async def test_a_machine_that_lives(
    quick: Callable[..., RegistryClient], wanted: Any, mark_of_another: Callable[..., Any], tmp_path: Path
) -> None:
    """It is waited for as long as it says that it builds, and then as long as one that died."""
    patience, told, over = Patience(poll_s=0.1, beat_s=60, stale_s=4), asyncio.Event(), asyncio.Event()

    def says(_line: str) -> None:
        told.set()

    async with quick() as client:
        target = await mark_of_another(client, wanted, "0")

        async def beats() -> None:
            number = 0
            while not over.is_set():
                number += 1
                await mark_of_another(client, wanted, str(number))
                await asyncio.sleep(0.1)

        async def waits() -> float:
            async with claimed(client, target, tmp_path, patience, says):
                return asyncio.get_running_loop().time()

        other, waiting = asyncio.create_task(beats()), asyncio.create_task(waits())
        await told.wait()
        done, _ = await asyncio.wait([waiting], timeout=3 * patience.stale_s)
        assert not done
        over.set()
        await other
        died = asyncio.get_running_loop().time()
        assert await asyncio.wait_for(waiting, 60) - died > patience.stale_s / 2


async def test_a_mark_of_this_machine_holds_nobody_up(
    quick: Callable[..., RegistryClient], wanted: Any, tmp_path: Path
) -> None:
    """Its process died: who asks holds the lock of the key."""
    target, told = wanted[0].image("some-key"), list[str]()
    patience = Patience(poll_s=60, beat_s=60, stale_s=600)
    async with quick() as client:
        killed = claimed(client, target, tmp_path, patience, told.append)
        await killed.__aenter__()
        async with asyncio.timeout(30), claimed(client, target, tmp_path, patience, told.append):
            pass
        await killed.__aexit__(None, None, None)
    assert told == []


@pytest.mark.long
async def test_processes_with_caches_of_their_own(wanted: Any, tmp_path: Path, no_docker_login: Path) -> None:
    """As two stacks in two pipelines do it."""
    place, environment = wanted
    file = tmp_path / "environment.json"
    file.write_text(json.dumps(environment))
    command = [*COMMAND, "build", str(file), "--registry", f"{place.registry}/{place.repository}", "--json"]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / f"machine-{number}")},
        )
        for number in range(3)
    ]
    try:
        outputs = await asyncio.gather(*(asyncio.to_thread(one.communicate, timeout=120) for one in running))
    finally:
        for one in running:
            one.kill()
    assert [one.returncode for one in running] == [0, 0, 0], outputs
    results = [json.loads(output) for output, _ in outputs]
    assert sorted(one["built"] for one in results) == [False, False, True]
    assert len({one["image"] for one in results}) == 1


async def test_a_mark_is_gone_though_a_beat_was_on_its_way(
    quick: Callable[..., RegistryClient], wanted: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, answered = asyncio.Event(), asyncio.Event()
    async with quick() as client:
        push = client.push_manifest

        async def slowly(reference: ImageReference, manifest: Manifest) -> Descriptor:
            pushed = await push(reference, manifest)
            if beats:
                arrived.set()
                await answered.wait()
            return pushed

        beats = False
        monkeypatch.setattr(client, "push_manifest", slowly)
        place, environment = wanted
        target = place.image(image_key(read_environment(environment, Path())))
        async with claimed(client, target, tmp_path, QUICK, lambda _: None):
            beats = True
            await arrived.wait()
            asyncio.get_running_loop().call_later(0.05, answered.set)
        assert await marks(client, place) == []
