"""A certificate that HAProxy refuses: the one before stays, and it is tried again after a while."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.api.certificates import Certificate
from aks_inference_runtime.api.errors import OperationFailed
from aks_inference_runtime.router.listener import AGAIN_S, Listener
from aks_inference_runtime.router.tls import Tls

OLD, NEW, NEWER = (Certificate(f"chain of {name}\n", f"key of {name}\n") for name in ("old", "new", "newer"))


class Admin:
    """HAProxy's socket, which refuses while it is told to."""

    def __init__(self) -> None:
        self.refuses = True
        self.tries = 0
        self.aborted = 0

    async def must(self, commands: Sequence[str], accept: Sequence[str] = ()) -> None:
        if commands[0].startswith("set ssl cert"):
            self.tries += 1
            if self.refuses:
                raise OperationFailed("no room")

    async def run(self, command: str) -> str:
        self.aborted += command.startswith("abort")
        return ""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tls.pem"
    path.write_text(OLD.pem)
    return path


async def test_it_is_tried_again_and_said_once(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    admin: Any = Admin()
    listener = Listener(file, lambda: admin, lambda: False, tls=Tls(443), clock=lambda: now[0])
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await listener.declare(NEW, ())
            await listener.again()
        assert (admin.tries, file.read_text()) == (1, OLD.pem)
        now[0] += AGAIN_S - 1
        await listener.again()
        assert admin.tries == 1
        for tries in (2, 3):
            now[0] += AGAIN_S
            await listener.again()
            assert (admin.tries, admin.aborted) == (tries, tries)
    assert [record.getMessage() for record in caplog.records] == [
        "the certificate stays as it was, and is tried every 60 s: no room"
    ]
    assert "key of" not in caplog.text
    admin.refuses = False
    now[0] += AGAIN_S
    await listener.again()
    assert file.read_text() == NEW.pem
    now[0] += 10 * AGAIN_S
    await listener.again()
    assert admin.tries == 4


async def test_another_one_takes_its_place_at_once(file: Path) -> None:
    now = [0.0]
    admin: Any = Admin()
    listener = Listener(file, lambda: admin, lambda: False, tls=Tls(443), clock=lambda: now[0])
    await listener.declare(NEW, ())
    admin.refuses = False
    await listener.declare(NEWER, ())
    assert file.read_text() == NEWER.pem
    now[0] += 2 * AGAIN_S
    await listener.again()
    assert file.read_text() == NEWER.pem, "the refused one is forgotten"
    admin.refuses = True
    await listener.declare(NEW, ())
    await listener.declare(None, ())
    now[0] += 2 * AGAIN_S
    await listener.again()
    assert file.read_text() == NEWER.pem, "nothing is declared any more"


async def test_without_tls_there_is_nothing_to_do(tmp_path: Path) -> None:
    def none() -> Any:
        raise AssertionError("nobody is asked")

    listener = Listener(tmp_path / "none.pem", none, lambda: False, tls=None)
    listener.prepare()
    await listener.declare(NEW, [("127.0.0.1", 1)])
    await listener.again()
    await listener.restarted()
    assert list(tmp_path.iterdir()) == []
