"""What the measurements of the router share: processes, the machine's description, results as files."""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aks_inference_runtime.api.errors import RuntimeUnavailable
from aks_inference_runtime.router.binary import find_haproxy
from aks_inference_runtime.router.gate import GateClient
from aks_inference_runtime.router.model import ReplicaTarget

ROOT = Path(__file__).resolve().parents[1]
STUB = ROOT / "tests" / "router" / "stub_replica.py"
RESULTS = ROOT / "bench" / "results"


class Missing(Exception):
    """What the measurement needs is not on this machine."""


def machine() -> dict[str, Any]:
    """Where it was measured."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory[1]) / 1024**2, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def versions(*packages: str) -> dict[str, str]:
    """Of Python, HAProxy and these packages."""
    said = subprocess.run([find_haproxy(), "-v"], capture_output=True, text=True, check=True).stdout
    found = {"python": platform.python_version(), "haproxy": said.split()[2]}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes bench/results/<name>-<date>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{time.strftime('%Y-%m-%d')}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def progress(text: str) -> None:
    """For who waits: on standard error, with the time of day."""
    print(time.strftime("%H:%M:%S"), text, file=sys.stderr, flush=True)


def run_bench(
    name: str,
    about: str,
    measure: Callable[..., Awaitable[dict[str, Any]]],
    table: Callable[[dict[str, Any]], str],
    *,
    rounds: bool = False,
) -> None:
    """What `bench/run NAME` does: measures, saves a full run, prints a table or one JSON object.

    `rounds`: it can be ended after some minutes, and goes on from there when it is run again (`left` in the result says
    that it is not through), or be so many of each of what it is about.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="within 50 s")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    if rounds:
        parser.add_argument("--minutes", type=float, help="ends after a round; the next run goes on from there")
        parser.add_argument("--each", type=int, help="so many of each, in quick succession")
    arguments = parser.parse_args()

    async def measured() -> dict[str, Any]:
        more = {"minutes": arguments.minutes, "each": arguments.each} if rounds else {}
        return await measure(quick=arguments.quick, **more)

    # Who ends it by a signal, as `timeout` does, ends what it has started, too: as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = asyncio.run(measured())
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Missing as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    if not result.get("quick", arguments.quick) and not result.get("left"):
        save(name, result)
    print(json.dumps(result) if arguments.json else table(result))


@dataclass
class Stub:
    """A stub model server, with its gate if it has one."""

    id: str
    port: int
    target: ReplicaTarget | None = None

    async def ask(self, path: str) -> bytes:
        """Of its own paths: `/_stats`, `/_reset`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
        writer.write(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())
        head = await reader.readuntil(b"\r\n\r\n")
        data = await reader.readexactly(int(head.rpartition(b"content-length: ")[2]))
        writer.close()
        return data


@dataclass
class Bench:
    """A folder and processes that go when the measurement ends."""

    directory: Path
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)

    def start(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """A process that ends with the measurement."""
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options
        process = subprocess.Popen(command, **options)
        self.processes.append(process)
        return process

    async def stub(self, name: str, *, sleep_ms: float) -> Stub:
        """A stub model server."""
        process = self.start(sys.executable, str(STUB), "--sleep-ms", str(sleep_ms), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        return Stub(name, int(await asyncio.to_thread(process.stdout.readline)))

    async def gate(self, name: str, port: int, **settings: Any) -> ReplicaTarget:
        """A gate in front of a server."""
        control = self.directory / f"{name}.gate"
        address = self.directory / f"{name}.in"
        path = self.directory / f"{name}.json"
        told = {"replicaId": name, "version": "A", "upstreamPort": port, "control": str(control)}
        path.write_text(json.dumps({**told, "listenPath": str(address), **settings}))
        self.start(sys.executable, "-m", "aks_inference_runtime.router.gate", str(path))
        async with asyncio.timeout(20):
            while True:
                with suppress(RuntimeUnavailable):
                    status = await GateClient(control).status()
                    if status.ready:
                        return ReplicaTarget(name, "", 0, control, path=address)
                await asyncio.sleep(0.02)


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """The folder and the processes of one measurement."""
    made = Bench(Path(tempfile.mkdtemp(prefix="aksb-")))
    try:
        yield made
    finally:
        for process in made.processes:
            process.terminate()
        for process in made.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(made.directory, ignore_errors=True)


async def listening(port: int, seconds: float = 10) -> None:
    """Waits until something listens."""
    async with asyncio.timeout(seconds):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
