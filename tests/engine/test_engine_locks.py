"""One process at a time on a stack, also when one of them was killed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded_engine.backend.lock import StackLock, is_dead, read_holder, this_process
from embedded_engine.errors import LockedError

LIMIT_S = 30
# Takes the lock, says so, and keeps it until its standard input ends.
HOLD = """
import sys
from pathlib import Path
from embedded_engine.backend.lock import StackLock
from embedded_engine.errors import LockedError
folder, guard = map(Path, sys.argv[1:3])
sys.stdin.readline()
try:
    with StackLock(folder, guard, lambda text: print("told", text, flush=True)):
        print("held", flush=True)
        sys.stdin.read()
except LockedError as error:
    print("refused", error, flush=True)
"""


class Holders:
    """Processes that want the lock of one folder."""

    def __init__(self, folder: Path) -> None:
        self.locks, self.guard = folder / "locks", folder / "guard"
        self.started: list[subprocess.Popen[str]] = []

    def start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(self.locks), str(self.guard)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def lock(self, told: list[str] | None = None) -> StackLock:
        return StackLock(self.locks, self.guard, (told if told is not None else []).append)


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[Holders]:
    made = Holders(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def test_of_many_at_once_exactly_one_wins(holders: Holders) -> None:
    rivals = [holders.start() for _ in range(6)]
    for process in rivals:
        go(process)
    answers = [answer(process) for process in rivals]
    assert sorted(text.split()[0] for text in answers) == ["held", *["refused"] * 5]
    winner = rivals[[text.startswith("held") for text in answers].index(True)]
    for text in answers:
        assert text.startswith("held") or "currently locked by 1 lock(s)" in text
    winner.communicate(timeout=LIMIT_S)
    assert list(holders.locks.iterdir()) == []


def test_the_holder_is_named(holders: Holders) -> None:
    process = holders.start()
    go(process)
    assert answer(process) == "held\n"
    with pytest.raises(LockedError) as raised:
        holders.lock().acquire()
    here = this_process()
    assert f"{here.username}@{here.hostname} (pid {process.pid})" in str(raised.value)
    process.communicate(timeout=LIMIT_S)
    with holders.lock():
        pass


def test_the_lock_of_a_killed_process_is_told_and_broken(holders: Holders) -> None:
    process = holders.start()
    go(process)
    assert answer(process) == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait(LIMIT_S)
    assert len(list(holders.locks.iterdir())) == 1
    told: list[str] = []
    with holders.lock(told):
        assert len(list(holders.locks.iterdir())) == 1
    assert f"(pid {process.pid})" in told[0]
    assert list(holders.locks.iterdir()) == []


def test_a_stopped_process_still_holds_its_lock(holders: Holders) -> None:
    process = holders.start()
    go(process)
    assert answer(process) == "held\n"
    process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(LockedError):
            holders.lock().acquire()
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, False),
        ({"namespace": "", "boot": ""}, False),
        ({"hostname": "elsewhere", "pid": 2**22 + 1}, False),
        ({"boot": "before the last start"}, True),
        ({"namespace": "pid:[1]", "pid": 2**22 + 1}, False),
        ({"pid": 2**22 + 1}, True),
        # The process id now belongs to a process that began later.
        ({"timestamp": "2001-01-01T00:00:00Z"}, True),
        ({"timestamp": "2001-01-01T00:00:00.123456789+02:00"}, True),
        ({"timestamp": "soon"}, False),
    ],
)
def test_who_counts_as_dead(changes: dict[str, object], dead: bool) -> None:
    here = this_process()
    assert is_dead(dataclasses.replace(here, **changes), here) is dead  # type: ignore[arg-type]


def test_a_zombie_holds_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        if f"{process.pid} (" in (status := Path(f"/proc/{process.pid}/stat").read_text()) and ") Z" in status:
            break
        time.sleep(0.01)
    here = this_process()
    assert is_dead(dataclasses.replace(here, pid=process.pid), here)
    process.wait()


def test_a_lock_of_the_cli_is_respected(holders: Holders) -> None:
    holders.locks.mkdir()
    content = {"pid": os.getpid(), "username": "cli", "hostname": this_process().hostname}
    lock = holders.locks / "0c5f.json"
    lock.write_text(json.dumps({**content, "timestamp": this_process().timestamp}))
    with pytest.raises(LockedError, match="cli@"):
        holders.lock().acquire()
    assert [p.name for p in holders.locks.iterdir()] == ["0c5f.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', "null"])
def test_a_lock_that_cannot_be_read_is_not_broken(holders: Holders, text: str) -> None:
    holders.locks.mkdir()
    lock = holders.locks / "damaged.json"
    lock.write_text(text)
    assert read_holder(lock) is None
    with pytest.raises(LockedError, match="cannot be read"):
        holders.lock().acquire()
    assert lock.exists()
