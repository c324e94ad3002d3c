"""Makes the checkout's virtual environment from the lock file; does nothing when it is up to date.

Runs with the system's Python (3.11 or newer) and nothing but the standard library. Prints the interpreter's path;
what it does meanwhile is on stderr. It may be stopped at any time: the next run goes on from there.
"""

import contextlib
import fcntl
import hashlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / "bin" / "python"
STAMP = ENVIRONMENT / ".lock-digest"
LOCK = ROOT / ".venv.lock"
INPUTS = ("requirements.lock", "pyproject.toml")
STEPS = 3
# Without a terminal a line as often as this says that it is still alive; seconds.
PULSE_S = 10.0
STOP_LIMIT_S = 10
# Of a failure that has no name here, the last lines of pip say most.
TAIL = 15
MENDS = (
    (
        "No space left on device",
        "the disk is full; make room (about 1.5 GB are needed) and run it again",
    ),
    (
        "DO NOT MATCH THE HASHES",
        "the package index gives other files than requirements.lock names; use another index (PIP_INDEX_URL=…), "
        "or empty pip's cache (pip cache purge)",
    ),
    (
        r"Retrying \(|Connection(?:Error| refused)|NewConnectionError|ProxyError|SSLError|Temporary failure in name",
        "no package index can be reached; look at the network, or name an index with PIP_INDEX_URL=… and a proxy "
        "with HTTPS_PROXY=…, and run it again",
    ),
    (
        "No matching distribution found",
        "the package index lacks a package of requirements.lock; use a complete one (PIP_INDEX_URL=…)",
    ),
)


class SetupError(Exception):
    """Why the environment cannot be made, and what to do about it."""


class Progress:
    """One line a step with the time that it took; on a terminal the line of the present step counts."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._started = time.monotonic()
        self._step, self._title, self._begun, self._shown = 0, "", 0.0, 0.0

    def say(self, text: str) -> None:
        """A line of its own."""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def begin(self, title: str) -> None:
        """The next step."""
        self._step += 1
        self._title = f"  {self._step}/{STEPS} {title}"
        self._begun = self._shown = time.monotonic()
        if self._terminal:
            self._draw("")
        else:
            self.say(f"{self._title} …")

    def pulse(self, detail: str) -> None:
        """How far the step is; may be called as often as one likes."""
        now = time.monotonic()
        if now - self._shown >= (1.0 if self._terminal else PULSE_S):
            self._shown = now
            if self._terminal:
                self._draw(f": {detail}, {now - self._begun:.0f} s")
            else:
                self.say(f"      {detail}, {now - self._begun:.0f} s")

    def end(self) -> None:
        """The step is done."""
        text = f"{self._title}: {time.monotonic() - self._begun:.0f} s"
        if self._terminal:
            self._draw(text[len(self._title) :] + "\n")
        else:
            self.say(text)

    def close(self, text: str) -> None:
        """All is done, or nothing more is."""
        self.say(f"{text} {time.monotonic() - self._started:.0f} s")

    def _draw(self, text: str) -> None:
        # Cut, so that the line can be drawn over: one that wraps is two.
        width = shutil.get_terminal_size().columns - 1
        end = "\n" if text.endswith("\n") else ""
        self._stream.write(f"\r\x1b[K{(self._title + text.rstrip())[:width]}{end}")
        self._stream.flush()


class Pip:
    """What pip's output says of how far it is."""

    def __init__(self) -> None:
        pinned = re.findall(r"^[\w.-]+==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
        self._total, self._fetched, self._installing = len(pinned), 0, False
        self._trouble = False
        self.lines: list[str] = []

    def heard(self, line: str) -> None:
        """One line of its output."""
        self.lines.append(line)
        if line.startswith("Ignoring "):
            self._total -= 1
        elif line.startswith(("Collecting ", "Requirement already satisfied")):
            self._fetched, self._trouble = self._fetched + 1, False
        self._trouble = self._trouble or "Retrying (" in line
        self._installing = self._installing or line.startswith("Installing collected packages")

    def __str__(self) -> str:
        if self._trouble:
            return "the package index does not answer, trying again"
        if self._installing:
            made = len(list(ENVIRONMENT.glob("lib/*/site-packages/*.dist-info")))
            return f"{min(made, self._total)} of {self._total} installed"
        return f"{self._fetched} of {self._total} fetched"

    def failure(self, status: int) -> SetupError:
        """Why it ended with this status."""
        text = "\n".join(self.lines)
        for pattern, mend in MENDS:
            if re.search(pattern, text):
                return SetupError(mend)
        return SetupError("\n".join([*self.lines[-TAIL:], f"pip ended with {status}"]))


def digest() -> str:
    """What the environment was made from: the lock, the project file and the interpreter."""
    content = hashlib.sha256(sys.version.encode())
    for name in INPUTS:
        content.update((ROOT / name).read_bytes())
    return content.hexdigest()


@contextlib.contextmanager
def alone(progress: Progress) -> Iterator[int]:
    """Two commands started at once make one environment. Gives the lock's descriptor."""
    with LOCK.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("waiting for another set-up of this checkout")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


def pip(progress: Progress, lock: int, *arguments: str) -> None:
    """Runs pip in the environment. Raises `SetupError`."""
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--progress-bar=off"]
    # A user's PIP_* index settings are meant and stay; only what would change what is installed where is left out.
    left_out = ("PIP_TARGET", "PIP_PREFIX", "PIP_USER", "PIP_QUIET")
    environment = {k: v for k, v in os.environ.items() if k not in left_out}
    # It keeps the lock as long as it runs, also where this process is killed: nobody else begins beside it.
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=(lock,),
    )
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    said, output = Pip(), process.stdout
    assert output is not None  # noqa: S101 - asked for above

    def read() -> None:
        for line in output:
            heard.put(line.rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while reader.is_alive() or not heard.empty():
            with contextlib.suppress(queue.Empty):
                said.heard(heard.get(timeout=0.2))
            progress.pulse(str(said))
        status = process.wait()
    except BaseException:
        stop(process)
        raise
    if status:
        raise said.failure(status)


def stop(process: "subprocess.Popen[str]") -> None:
    """Ends pip, kindly at first: it takes back what it has half done."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def whole() -> bool:
    """Whether there is an environment of this Python in which pip works; one that was stopped on the way has no pip."""
    command = [str(PYTHON), "-c", "import sys, pip; print(sys.version)"]
    if not PYTHON.exists():
        return False
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() == sys.version


def remove_halves() -> None:
    """A package whose installation was cut has no RECORD yet, and pip would take it for installed."""
    for folder in ENVIRONMENT.glob("lib/*/site-packages/*.dist-info"):
        if not (folder / "RECORD").exists():
            shutil.rmtree(folder)


def make(progress: Progress, lock: int, wanted: str) -> None:
    """Brings the environment to what is wanted. Raises `SetupError`."""
    progress.say("setting up .venv, once (a minute or two)")
    # From here on it is not what it was: a lock file that is put back must not find its old stamp.
    STAMP.unlink(missing_ok=True)
    progress.begin(f"virtual environment, Python {sys.version.split()[0]}")
    if not whole():
        try:
            venv.EnvBuilder(with_pip=True, clear=ENVIRONMENT.exists()).create(ENVIRONMENT)
        except subprocess.CalledProcessError as error:
            raise SetupError(f"venv failed: {error}; on Debian: apt-get install python3-venv") from None
    remove_halves()
    progress.end()
    progress.begin("packages of requirements.lock")
    pip(progress, lock, "--require-hashes", "-r", "requirements.lock")
    progress.end()
    progress.begin("this checkout")
    pip(progress, lock, "--no-deps", "--no-build-isolation", "--editable", ".")
    progress.end()
    STAMP.write_text(wanted)
    progress.close("set up in")


def main() -> None:
    """Brings the environment up to date."""
    wanted = digest()
    progress = Progress(sys.stderr)
    if not STAMP.exists() or STAMP.read_text() != wanted:
        with alone(progress) as lock:
            # Another may have made it meanwhile.
            if not STAMP.exists() or STAMP.read_text() != wanted:
                make(progress, lock, wanted)
    print(PYTHON)


def interrupted(_number: int, _frame: "FrameType | None") -> NoReturn:
    """A request to end is as good as Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this file by hand may have an older one
        sys.exit(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    signal.signal(signal.SIGTERM, interrupted)
    # On a terminal the present step's line is still open.
    lead = "\n" if sys.stderr.isatty() else ""
    try:
        main()
    except KeyboardInterrupt:
        print(f"{lead}set-up stopped; the next run goes on from here", file=sys.stderr)
        sys.exit(130)
    except (SetupError, OSError) as error:
        sys.exit(f"{lead}set-up failed: {error}")
