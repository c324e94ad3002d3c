"""The set-up that `./quickstart` and `./test` begin with, on a small checkout with a package index of its own."""

import base64
import hashlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "checkout-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        info = "checkout-1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: checkout\\nVersion: 1\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "checkout"
version = "1"
"""


def make_wheel(folder: Path) -> Path:
    """A package `tiny` of one module."""
    path = folder / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    files = {
        "tiny.py": "here = True\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        checksum = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={checksum},{len(text)}\n"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(name, text)
    return path


class Checkout:
    """A folder with the tools, a lock of one package, and an index that answers when it is let."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tools").mkdir(parents=True)
        for name in ("bootstrap.py", "python"):
            shutil.copy(ROOT / "tools" / name, folder / "tools" / name)
        self.wheel = make_wheel(folder)
        checksum = hashlib.sha256(self.wheel.read_bytes()).hexdigest()
        (folder / "requirements.lock").write_text(f"tiny==1.0 --hash=sha256:{checksum}\n")
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "backend.py").write_text(BACKEND)
        self.asked, self.open = threading.Event(), threading.Event()
        self.open.set()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.index = f"http://127.0.0.1:{self.server.server_address[1]}/simple"
        self.started: list[subprocess.Popen[str]] = []

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        checkout = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                checkout.asked.set()
                checkout.open.wait(LIMIT_S)
                name = checkout.wheel.name
                wheel = self.path.endswith(".whl")
                body = checkout.wheel.read_bytes() if wheel else f'<a href="/{name}">{name}</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream" if wheel else "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        kept |= {"PYTHON": sys.executable, "PIP_INDEX_URL": self.index, "PIP_NO_CACHE_DIR": "1", "PIP_RETRIES": "1"}
        process = subprocess.Popen(
            ["sh", str(self.folder / "tools" / "python"), *(arguments or ("-c", "import tiny; print(tiny.here)"))],
            env=kept | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, **environment: str) -> tuple[int, str, str]:
        process = self.start(**environment)
        out, err = process.communicate(timeout=LIMIT_S)
        return process.returncode, out, err

    def close(self) -> None:
        self.open.set()
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path / "checkout")
    yield made
    made.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_each_step_is_told_once_and_what_is_there_is_told_not_at_all(checkout: Checkout) -> None:
    code, out, err = checkout.run()
    assert (code, out) == (0, "True\n"), err
    lines = err.splitlines()
    assert lines[0] == "setting up .venv, once (a minute or two)"
    assert [line.split(":")[0] for line in lines if line.startswith("  ") and line.endswith(" s")] == [
        f"  1/3 virtual environment, Python {sys.version.split()[0]}",
        "  2/3 packages of requirements.lock",
        "  3/3 this checkout",
    ]
    assert lines[-1].startswith("set up in ")
    assert checkout.run() == (0, "True\n", "")
    # As a kill in the middle of an installation leaves it.
    (package,) = (checkout.folder / ".venv/lib").glob("*/site-packages/tiny.py")
    package.unlink()
    (package.parent / "tiny-1.0.dist-info" / "RECORD").unlink()
    (checkout.folder / ".venv" / ".lock-digest").unlink()
    code, out, err = checkout.run()
    assert (code, out) == (0, "True\n"), err


@pytest.mark.parametrize(
    ("sign", "place"),
    [
        (signal.SIGKILL, "environment"),
        (signal.SIGINT, "packages"),
        pytest.param(signal.SIGTERM, "packages", marks=pytest.mark.long),
    ],
)
def test_stopped_anywhere_the_next_run_goes_on(checkout: Checkout, sign: signal.Signals, place: str) -> None:
    checkout.open.clear()
    process = checkout.start()
    if place == "packages":
        assert checkout.asked.wait(LIMIT_S)
    else:
        until((checkout.folder / ".venv" / "bin" / "python").exists)
    # As a terminal does it: to all of them.
    os.killpg(process.pid, sign)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode != 0
    assert "Traceback" not in err
    if sign == signal.SIGINT:
        assert "set-up stopped; the next run goes on from here" in err
    assert not (checkout.folder / ".venv" / ".lock-digest").exists()
    checkout.open.set()
    code, out, err = checkout.run()
    assert (code, out) == (0, "True\n"), err


def test_two_at_once_wait_for_each_other(checkout: Checkout) -> None:
    checkout.open.clear()
    first = checkout.start()
    assert checkout.asked.wait(LIMIT_S)
    second = checkout.start()
    assert second.stderr is not None
    assert second.stderr.readline() == "waiting for another set-up of this checkout\n"
    checkout.open.set()
    for process in (first, second):
        out, err = process.communicate(timeout=LIMIT_S)
        assert (process.returncode, out) == (0, "True\n"), err
    assert "1/3" not in err


def test_an_index_that_is_not_there_or_wrong_is_told_with_the_mend(checkout: Checkout) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        code, _, err = checkout.run(PIP_INDEX_URL=f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
    assert code == 1
    assert err.splitlines()[-1].startswith("set-up failed: no package index can be reached; look at the network, or")
    assert "PIP_INDEX_URL" in err
    lock = checkout.folder / "requirements.lock"
    lock.write_text(lock.read_text().partition("sha256:")[0] + "sha256:" + "0" * 64 + "\n")
    code, _, err = checkout.run()
    assert code == 1
    assert "set-up failed: the package index gives other files than requirements.lock names" in err
    assert "Traceback" not in err


def test_a_python_that_is_too_old_is_named_in_one_line(tmp_path: Path) -> None:
    made = tmp_path / "bin"
    made.mkdir()
    old = made / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    old.chmod(0o755)
    for tool in ("sh", "dirname", "head"):
        (made / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        [str(made / "sh"), str(ROOT / "tools" / "python"), "-V"],
        env={"PATH": str(made)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Python 3.11 or newer with venv is needed")
    assert "python3 (Python 3.9.2)" in done.stderr
