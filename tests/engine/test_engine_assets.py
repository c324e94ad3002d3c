"""Hashes of assets and archives: those that the pulumi CLI makes of the same content."""

import tarfile
from pathlib import Path
from typing import Any

import pytest

from embedded_engine.deploy.assets import AssetError, hashed
from embedded_engine.values import ARCHIVE, ASSET, SECRET, SIGNATURE

# As recorded with the CLI 3.260 (scenario `assets`).
FILE_HASH = "bffc61ff16a681ec509e5f20b56017cc17c75f9e9f98bd44450e493acfaf0f71"
FOLDER_HASH = "ba76ada568b3081ad316319542a564a90207093930fc6a077e4a4cfca73cf731"
BOTH_HASH = "90453c0ea4c9bd06b1b8ddc54eb2df4e156227bc788e031a83ca68d7864a2103"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "file.txt").write_text("hello from a file\n")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "one.txt").write_text("one\n")
    (tmp_path / "folder" / "sub" / "two.txt").write_text("two\n")
    return tmp_path


def asset(**fields: Any) -> dict[str, Any]:
    return {SIGNATURE: ASSET, **fields}


def archive(**fields: Any) -> dict[str, Any]:
    return {SIGNATURE: ARCHIVE, **fields}


def hash_of(value: dict[str, Any], folder: Path) -> str:
    return str(hashed({"v": value}, folder)["v"]["hash"])


def test_the_clis_hashes(folder: Path) -> None:
    assert hash_of(asset(path="file.txt"), folder) == FILE_HASH
    assert hash_of(archive(path="folder"), folder) == FOLDER_HASH
    both = archive(assets={"x.txt": asset(text="x"), "sub": archive(path="folder")})
    assert hash_of(both, folder) == BOTH_HASH


def test_hashes_are_found_wherever_they_stand(folder: Path) -> None:
    value = {"deep": [{SIGNATURE: SECRET, "value": {"a": asset(text="inline")}}], "plain": 1}
    found = hashed(value, folder)
    assert len(found["deep"][0]["value"]["a"]["hash"]) == 64
    assert "hash" not in value["deep"][0]["value"]["a"]
    unchanged = {"plain": [1, {"x": None}]}
    assert hashed(unchanged, folder) is unchanged


def test_content_counts_and_time_does_not(folder: Path) -> None:
    before = hash_of(archive(path="folder"), folder)
    (folder / "folder" / "one.txt").touch()
    assert hash_of(archive(path="folder"), folder) == before
    (folder / "folder" / "one.txt").write_text("uno\n")
    assert hash_of(archive(path="folder"), folder) != before


@pytest.mark.parametrize("name", ["n" * 99, "n" * 100, "n" * 101, "ü.txt", "deep/" * 30 + "f"])
def test_names_at_and_beyond_the_limit(folder: Path, name: str) -> None:
    assert len(hash_of(archive(assets={name: asset(text="x")}), folder)) == 64


def test_an_archive_file_is_hashed_as_it_is(folder: Path) -> None:
    with tarfile.open(folder / "a.tar", "w") as tar:
        tar.add(folder / "folder", "folder")
    first = hash_of(archive(path="a.tar"), folder)
    assert first == hash_of(asset(path="a.tar"), folder)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (asset(path="nope.txt"), "nope.txt: No such file"),
        (archive(path="nope"), "nope: no such folder"),
        (archive(path="file.txt"), "not a folder and not one of .tar"),
        (asset(uri="ftp://host/x"), "begins with http, https or file"),
        (asset(path="folder"), "folder: Is a directory"),
    ],
)
def test_what_cannot_be_read_is_said(folder: Path, value: dict[str, Any], said: str) -> None:
    with pytest.raises(AssetError, match=said):
        hashed({"v": value}, folder)
