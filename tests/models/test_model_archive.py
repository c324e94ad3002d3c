"""Archives as they come from strangers."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aks_inference_runtime.models.errors import UnsafeArchive
from aks_inference_runtime.models.sources.archive import ArchiveLimits, is_archive, unpack

MEGABYTE = 1024 * 1024


def tar(path: Path, *entries: tuple[str, bytes | None, bytes], mode: str = "w:gz", link: str = "") -> Path:
    with tarfile.open(path, mode) as made:
        for name, content, kind in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            info.size = len(content or b"")
            made.addfile(info, io.BytesIO(content) if content else None)
    return path


def packed_zip(path: Path, entries: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            made.writestr(info, content)
    return path


ODD = {"a b/ü 漢.bin": b"1", "line\nbreak": b"2", "empty": b"", "deep/er/x": b"3"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_what_went_in_comes_out(tmp_path: Path, mode: str) -> None:
    archive = tmp_path / "model.any"
    if mode == "zip":
        packed_zip(archive, ODD)
    else:
        tar(archive, *((name, content, tarfile.REGTYPE) for name, content in ODD.items()), mode=mode)
    assert unpack(archive, tmp_path / "out") == len(ODD)
    found = {
        p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert found == ODD


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../evil", "leads outside"),
        ("a/../../evil", "leads outside"),
        ("/etc/evil", "leads outside"),
        ("C:evil", "leads outside"),
        ("..\\evil", "backslash"),
        ("x" * 256, "more than 255 bytes"),
    ],
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_path_that_leaves_the_folder(tmp_path: Path, name: str, said: str, kind: str) -> None:
    archive = tmp_path / "model"
    if kind == "tar":
        tar(archive, ("good", b"x", tarfile.REGTYPE), (name, b"x", tarfile.REGTYPE))
    else:
        packed_zip(archive, {"good": b"x", name: b"x"})
    with pytest.raises(UnsafeArchive, match=said):
        unpack(archive, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep" / "out").exists()
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar(tmp_path: Path, kind: bytes) -> None:
    archive = tar(tmp_path / "model.tgz", ("link", None, kind), link="/etc/passwd")
    with pytest.raises(UnsafeArchive, match="link or a device"):
        unpack(archive, tmp_path / "out")


def test_a_link_of_a_zip(tmp_path: Path) -> None:
    archive = packed_zip(tmp_path / "model.zip", {"link": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    with pytest.raises(UnsafeArchive, match="link or a device"):
        unpack(archive, tmp_path / "out")


def bomb_tar(path: Path) -> Path:
    return tar(path, ("zeros", bytes(96 * MEGABYTE), tarfile.REGTYPE))


def bomb_zip(path: Path) -> Path:
    return packed_zip(path, {"zeros": bytes(96 * MEGABYTE)})


def lying_zip(path: Path) -> Path:
    """Says that 96 MB are 10 bytes."""
    bomb_zip(path)
    raw = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        begin = raw.index(signature)
        raw[begin + at : begin + at + 4] = struct.pack("<I", 10)
    path.write_bytes(bytes(raw))
    return path


def header_bomb(path: Path) -> Path:
    """A PAX header of 64 MB, packed to 64 kB."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 64 * MEGABYTE
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            file.write(bytes(MEGABYTE))
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (bomb_tar, "200 times its size"),
        (bomb_zip, "200 times its size"),
        (lying_zip, "damaged"),
        (header_bomb, "header of 67,108,864 bytes"),
    ],
)
def test_bombs(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    archive = make(tmp_path / "model")
    with pytest.raises(UnsafeArchive, match=said):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_limits_of_the_caller(tmp_path: Path) -> None:
    archive = packed_zip(tmp_path / "m.zip", {str(n): os.urandom(1000) for n in range(20)})
    with pytest.raises(UnsafeArchive, match="more than 10 files"):
        unpack(archive, tmp_path / "a", ArchiveLimits(max_files=10))
    with pytest.raises(UnsafeArchive, match="more than 5,000 bytes"):
        unpack(archive, tmp_path / "b", ArchiveLimits(max_bytes=5_000))
    assert unpack(archive, tmp_path / "c") == 20


@pytest.mark.parametrize("kind", ["twice", "file and folder", "cut", "nothing", "no archive"])
def test_other_damage(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "m.tar"
    if kind == "twice":
        tar(archive, ("a", b"1", tarfile.REGTYPE), ("a", b"2", tarfile.REGTYPE), mode="w")
    elif kind == "file and folder":
        tar(archive, ("a", b"1", tarfile.REGTYPE), ("a/b", b"2", tarfile.REGTYPE), mode="w")
    elif kind == "cut":
        tar(archive, ("a", os.urandom(100_000), tarfile.REGTYPE))
        archive.write_bytes(archive.read_bytes()[:50_000])
    elif kind == "nothing":
        tar(archive, ("folder", None, tarfile.DIRTYPE), mode="w")
    else:
        archive.write_bytes(b"not at all an archive" * 100)
    with pytest.raises(UnsafeArchive):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_an_archive_that_breaks_off_is_one(tmp_path: Path, mode: str) -> None:
    """It is refused as a damaged one, not registered as a file."""
    whole = tar(tmp_path / "whole", ("a", os.urandom(5_000), tarfile.REGTYPE), mode=mode).read_bytes()
    for length in (20, 40, len(whole) // 2):
        archive = tmp_path / "cut"
        archive.write_bytes(whole[:length])
        if is_archive(archive):
            with pytest.raises(UnsafeArchive, match="cut: is damaged"):
                unpack(archive, tmp_path / "out")
    plain = tmp_path / "plain"
    plain.write_bytes(b"<html>")
    assert not is_archive(plain)
