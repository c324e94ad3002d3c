"""The file backend: whole files, backups, a full disk, damaged and newer states."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from embedded_engine.backend import FileBackend, StackName, backend_folder, parse_stack_name
from embedded_engine.backend.checkpoint import empty_checkpoint, parse_checkpoint
from embedded_engine.backend.files import write_all, write_atomically
from embedded_engine.errors import StackNotFoundError, StateError, StateWriteError, UsageError

NAME = StackName("tested", "dev")


def failing_after(count: int, error: int) -> Any:
    """A disk that takes that many bytes and then fails."""

    def write(descriptor: int, content: bytes) -> None:
        write_all(descriptor, content[:count])
        raise OSError(error, os.strerror(error))

    return write


def test_a_file_is_replaced_and_the_old_one_kept(tmp_path: Path) -> None:
    path, backup = tmp_path / "x.json", tmp_path / "x.json.bak"
    for content in (b"one", b"two", b"three"):
        write_atomically(path, content, backup)
    assert (path.read_bytes(), backup.read_bytes()) == (b"three", b"two")
    assert {p.name for p in tmp_path.iterdir()} == {"x.json", "x.json.bak"}
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize(("error", "says"), [(errno.ENOSPC, "no room is left"), (errno.EIO, "Input/output error")])
def test_a_disk_that_fails_leaves_the_old_state_whole(tmp_path: Path, count: int, error: int, says: str) -> None:
    path, backup = tmp_path / "x.json", tmp_path / "x.json.bak"
    write_atomically(path, b"older", backup)
    write_atomically(path, b"old", backup)
    with pytest.raises(StateWriteError) as raised:
        write_atomically(path, b"new", backup, failing_after(count, error))
    assert says in str(raised.value)
    assert "is whole" in str(raised.value)
    assert (path.read_bytes(), backup.read_bytes()) == (b"old", b"older")
    assert {p.name for p in tmp_path.iterdir()} == {"x.json", "x.json.bak"}


def test_a_new_file_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StateWriteError):
        write_atomically(tmp_path / "x", b"new", writer=failing_after(1, errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path)
    backend.create(NAME)
    path = backend.path(NAME)
    for left in ("dev.json.123.tmp", "dev.json.bak.123.tmp"):
        path.with_name(left).write_text("half")
    backend.sweep(NAME)
    assert [p.name for p in path.parent.iterdir()] == ["dev.json"]


def test_stacks_are_created_listed_and_removed(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path)
    other = StackName("another", "prod")
    for name in (NAME, other):
        backend.create(name)
    assert backend.list(None) == [other, NAME]
    assert backend.list("tested") == [NAME]
    assert (tmp_path / ".pulumi" / "meta.yaml").read_text() == "version: 1\n"
    with pytest.raises(StateError, match="already exists"):
        backend.create(NAME)
    backend.remove(NAME)
    assert not (tmp_path / ".pulumi" / "stacks" / "tested").exists()
    with pytest.raises(StackNotFoundError, match="no stack named 'dev'"):
        backend.read(NAME)


GOOD = json.dumps({"version": 3, "checkpoint": {"stack": "s", "latest": {"manifest": {}}}})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (GOOD[: len(GOOD) // 2].encode(), "not JSON"),
        (GOOD.encode()[:10] + b"\xff\xfe" + GOOD.encode()[10:], "not JSON"),
        (b"\x00" * 512, "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (b"[]", "holds no checkpoint"),
        (b"{}", "holds no checkpoint"),
        (b'{"version": 3, "checkpoint": {"latest": 5}}', "`latest` is no deployment"),
        (b'{"version": 3, "checkpoint": {"latest": {"resources": [1, {"urn": 5}]}}}', "must be an object, not int"),
        (b'{"version": 3, "checkpoint": {"latest": {"resources": [{"urn": 5}]}}}', "`urn` must be a string, not int"),
        (
            b'{"version": 3, "checkpoint": {"latest": {"secrets_providers": 5}}}',
            "`secrets_providers` must be an object",
        ),
        (b'{"version": 3, "features": 5, "checkpoint": {}}', "features that this engine does not know: 5"),
        (b'{"version": "3", "checkpoint": {}}', "its version is '3'"),
        (b'{"version": true, "checkpoint": {}}', "its version is True"),
        (b'{"version": 4, "checkpoint": {}}', "newer than this engine knows"),
        (b'{"version": 99, "checkpoint": {}}', "newer than this engine knows"),
        (b'{"version": 2, "checkpoint": {}}', "reads only version 3"),
        (b'{"version": 3, "features": ["hooks"], "checkpoint": {}}', "features that this engine does not know: hooks"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(StateError) as raised:
        parse_checkpoint(text, Path("dev.json"))
    assert says in str(raised.value)
    assert "dev.json" in str(raised.value)


def test_a_stack_that_was_never_updated_has_no_deployment() -> None:
    assert parse_checkpoint(empty_checkpoint(str(NAME)), Path("dev.json")).deployment is None


def test_compressed_state_is_refused_by_name(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path)
    path = backend.path(NAME)
    path.parent.mkdir(parents=True)
    path.with_name("dev.json.gz").write_bytes(b"x")
    with pytest.raises(StateError, match="compressed state is not supported"):
        backend.read(NAME)


@pytest.mark.parametrize(
    ("text", "project", "name"),
    [
        ("dev", "tested", NAME),
        ("organization/tested/dev", None, NAME),
        ("organization/tested/dev", "another", NAME),
        ("tested/dev", None, NAME),
        ("organization/dev", "tested", NAME),
    ],
)
def test_stack_names(text: str, project: str | None, name: StackName) -> None:
    assert parse_stack_name(text, project) == name


@pytest.mark.parametrize("text", ["", "a b", "../x", "a/b/c/d", "other/tested/dev", "x" * 101, "a/", "dev\n"])
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="stack name"):
        parse_stack_name(text, "tested")


@pytest.mark.parametrize(
    ("environment", "url", "folder"),
    [
        ({"PULUMI_BACKEND_URL": "file:///a/b"}, "", "/a/b"),
        ({"PULUMI_BACKEND_URL": "file:///a%20b?metadata=skip"}, "", "/a b"),
        ({"PULUMI_BACKEND_URL": "file://~/x"}, "", "/home/me/x"),
        ({}, "file:///p", "/p"),
        ({}, "", "/home/me"),
    ],
)
def test_where_the_backend_is(environment: dict[str, str], url: str, folder: str) -> None:
    assert backend_folder(environment, url, Path("/home/me")) == Path(folder)


@pytest.mark.parametrize("url", ["s3://bucket", "https://api.pulumi.com", "azblob://x"])
def test_other_backends_are_refused_by_name(url: str) -> None:
    with pytest.raises(UsageError, match="is not supported"):
        backend_folder({"PULUMI_BACKEND_URL": url}, "", Path("/home/me"))
