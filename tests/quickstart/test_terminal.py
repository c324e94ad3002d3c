"""The quickstart on a terminal: lines as they come, colours or NO_COLOR, Ctrl-C, a window that closes."""

import codecs
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from left_running import running_under

ROOT = Path(__file__).resolve().parents[2]
STACK_FILE = ROOT / "Pulumi.quickstart.yaml"
LIMIT_S = 200
CTRL_C = b"\x03"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# As a shell starts what runs in the foreground of its terminal: a session whose controlling terminal this is.
# What a shell started with `nohup` ignores, its children ignore: not so those of a terminal.
START = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A pseudo terminal with a program in its foreground."""

    def __init__(self, *command: str, **environment: str) -> None:
        self._master, slave = pty.openpty()
        kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, *command],
                cwd=ROOT,
                env=kept | {"TERM": "xterm-256color"} | environment,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                start_new_session=True,
            )
        finally:
            os.close(slave)
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read_on(self) -> bool:
        """Waits for more; whether there was any: a terminal that nobody has open any more ends with an error."""
        try:
            if not select.select([self._master], [], [], LIMIT_S)[0]:
                return False
            data = os.read(self._master, 65_536)
        except OSError:
            return False
        self.text += self._decoder.decode(data)
        return bool(data)

    def until(self, pattern: str) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            assert self.read_on(), self.text

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def hang_up(self) -> None:
        os.close(self._master)
        self._master = -1

    def ended(self) -> int:
        """Reads what still comes, to the end."""
        while self._master >= 0 and self.read_on():
            pass
        return self.process.wait(LIMIT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self._master >= 0:
            os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[type[Terminal]]:
    """Ends what a test started."""
    made: list[Terminal] = []

    class Kept(Terminal):
        def __init__(self, *command: str, **environment: str) -> None:
            super().__init__(*command, **environment)
            made.append(self)

    yield Kept
    for one in made:
        one.close()


@pytest.mark.parametrize("no_color", [False, True], ids=["colours", "NO_COLOR"])
def test_help_is_for_people(terminal: type[Terminal], no_color: bool) -> None:
    shown = terminal(str(ROOT / "quickstart"), "--help", **({"NO_COLOR": "1"} if no_color else {}))
    assert shown.ended() == 0
    assert "--keep" in shown.text
    assert not no_color or not COLOUR.search(shown.text)


@pytest.mark.long
@pytest.mark.parametrize(
    ("no_color", "moment"),
    [(False, r"LocalRuntime\s+local created"), (True, "scoring 1000 rows")],
    ids=["while it is applied", "NO_COLOR, while requests are under way"],
)
def test_ctrl_c_at_a_terminal_leaves_nothing(
    terminal: type[Terminal], tmp_path: Path, no_color: bool, moment: str
) -> None:
    settings = {"TMPDIR": str(tmp_path)} | ({"NO_COLOR": "1"} if no_color else {})
    shown = terminal(str(ROOT / "quickstart"), **settings)
    # Each is there while the next is still to come: nothing is held back.
    for heading in ("1. Train two models", "2. Preview the stack", "3. Apply it on this machine"):
        shown.until(re.escape(heading))
    shown.until(moment)
    assert shown.process.poll() is None
    shown.press(CTRL_C)
    assert shown.ended() == 130, shown.text
    assert "cleaning up …" in shown.text
    assert shown.text.rstrip().endswith("quickstart: stopped")
    assert "Traceback" not in shown.text
    assert bool(re.search(r"\x1b\[1m\s*1\. Train", shown.text)) is not no_color
    assert bool(COLOUR.search(shown.text)) is not no_color
    assert list(tmp_path.iterdir()) == []
    assert running_under(tmp_path) == {}
    assert not STACK_FILE.exists()


@pytest.mark.long
def test_a_terminal_that_closes_leaves_nothing(terminal: type[Terminal], tmp_path: Path) -> None:
    shown = terminal(str(ROOT / "quickstart"), TMPDIR=str(tmp_path))
    shown.until(r"LocalRuntime\s+local created")
    shown.hang_up()
    assert shown.ended() == 130
    assert list(tmp_path.iterdir()) == []
    assert running_under(tmp_path) == {}
    assert not STACK_FILE.exists()


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["for people", "JSON"])
def test_a_reader_who_has_enough_leaves_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As with `| head -1`: it ends in a sentence at most, and all that was made goes."""
    story = subprocess.Popen(
        [str(ROOT / "quickstart"), *options],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert story.stdout is not None
        assert story.stdout.readline() is not None
        story.stdout.close()
        assert story.stderr is not None
        said = story.stderr.read()
        assert story.wait(LIMIT_S) in (1, 141), said
    finally:
        story.kill()
        story.wait()
        if story.stderr is not None:
            story.stderr.close()
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    assert list(tmp_path.iterdir()) == []
    assert running_under(tmp_path) == {}
    assert not STACK_FILE.exists()
