"""A disk that fills up while an image is built: no half a layer is kept, and with room the same build goes on."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_disks import SmallDisks

from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.images import (
    Application,
    BuildSettings,
    RegistryClient,
    RegistryPlace,
    ensure_image,
    ensure_service,
    read_environment,
)

MB = 1024 * 1024


@pytest.fixture
def disk() -> Iterator[Path]:
    """A file system of 8 MB."""
    disks, place = SmallDisks(), Path(tempfile.mkdtemp(prefix="small-disk-"))
    try:
        disks.mount(place, 8 * 1024)
        yield place
    finally:
        disks.unmount()
        place.rmdir()


def parts(disk: Path) -> list[Path]:
    return [path for path in disk.rglob("*") if path.is_file() and ".part" in path.name]


@pytest.mark.long
async def test_a_full_disk_is_said_and_nothing_half_stays(
    registry: Any,
    quick: Callable[..., RegistryClient],
    push_base: Any,
    wheelhouse: Path,
    make_wheel: Callable[..., Path],
    tmp_path: Path,
    disk: Path,
) -> None:
    make_wheel(wheelhouse, "gamma", files={"gamma/data.bin": os.urandom(MB)})
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "score.py").write_text("def init(): ...\n")
    (tmp_path / "service" / "large.bin").write_bytes(os.urandom(MB))
    ballast, settings = disk / "ballast", BuildSettings(cache=disk / "cache")
    place = RegistryPlace.parse(f"{registry.host}/full/env")
    application = Application("score.py", tmp_path / "service")

    def leave(room: int) -> None:
        ballast.unlink(missing_ok=True)
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write_bytes(bytes(free - room))

    async with quick() as client:
        base = await push_base(client, f"{registry.host}/full/base:1", {"large": os.urandom(MB)})
        raw = {"docker": {"baseImage": str(base.reference)}, "pipPackages": ["gamma"]}
        definition = read_environment(raw, tmp_path)
        said = []
        # The base's layer, the wheel, the layer that is made of it: one after the other there is no room for.
        for room in (MB // 2, MB + MB // 2, MB + MB // 2):
            leave(room)
            with pytest.raises(OperationFailed) as caught:
                await ensure_image(client, definition, place, settings=settings)
            said.append(str(caught.value))
            assert parts(disk) == []
            assert await client.head(place.image("latest")) is None
        other = [text for text in said if "the disk is full: make room and apply again" not in text]
        assert not other, "\n".join(other)
        ballast.unlink()
        made = await ensure_image(client, definition, place, settings=settings)
        leave(MB // 2)
        with pytest.raises(OperationFailed, match="the disk is full: make room and apply again"):
            await ensure_service(client, definition, application, place, settings=settings)
        assert parts(disk) == []
        ballast.unlink()
        _, service = await ensure_service(client, definition, application, place, settings=settings)
    assert made.built
    assert service.built
