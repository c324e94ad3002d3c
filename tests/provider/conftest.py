"""The plugin as the engine sees it: a process, its gRPC protocol, and a stand-in for the engine's side.

The supervisor has a stand-in too, on a real Unix socket with the real wire objects, so that a test decides what a
deployment does. Tests against the real one are in `test_provider_end_to_end.py`.
"""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from aiohttp import web
from pulumi.runtime.proto import (
    engine_pb2_grpc,
    provider_pb2,
    provider_pb2_grpc,
    resource_pb2_grpc,
)

from aks_inference_runtime.api.supervisor import (
    SupervisorRecord,
)
from provider_harness import FakeEngine, FakeMonitor, Harness, Values, partly, property_errors
from provider_stack import Stack
from provider_standin import StandIn, application

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def values() -> type[Values]:
    return Values


@pytest.fixture
def errors_of() -> Callable[[grpc.RpcError], dict[str, str]]:
    return property_errors


@pytest.fixture
def left_by() -> Callable[[grpc.RpcError], provider_pb2.ErrorResourceInitFailed | None]:
    return partly


@pytest.fixture(scope="session")
def start_plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Harness]]:
    """Starts a plugin; `command` for another than this checkout's."""
    running: list[tuple[subprocess.Popen[str], grpc.Server]] = []

    def start(command: list[str] | None = None, env: Mapping[str, str] | None = None) -> Harness:
        engine, monitor = FakeEngine(), FakeMonitor()
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
        engine_pb2_grpc.add_EngineServicer_to_server(engine, server)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        errors = tmp_path_factory.mktemp("plugin") / "stderr"
        with errors.open("w") as stderr:
            process = subprocess.Popen(
                [*(command or [sys.executable, str(ROOT / "provider")]), address],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=dict(env) if env is not None else None,
            )
        running.append((process, server))
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip().isdigit(), f"no port on stdout: {line!r}\n{errors.read_text()}"
        stub = provider_pb2_grpc.ResourceProviderStub(grpc.insecure_channel(f"127.0.0.1:{line.strip()}"))
        stub.Handshake(provider_pb2.ProviderHandshakeRequest(engine_address=address), timeout=20)
        stub.Configure(provider_pb2.ConfigureRequest(acceptSecrets=True, acceptResources=True), timeout=20)
        return Harness(process, stub, engine, monitor, address, errors)

    yield start
    for process, server in running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        server.stop(0).wait()


@pytest.fixture(scope="session")
def shared_plugin(start_plugin: Callable[..., Harness]) -> Harness:
    return start_plugin()


@pytest.fixture
def plugin(shared_plugin: Harness) -> Harness:
    """The plugin of the session, with an engine that has seen nothing yet."""
    shared_plugin.engine.logs.clear()
    shared_plugin.monitor.registered.clear()
    shared_plugin.monitor.outputs.clear()
    shared_plugin.monitor.ids.clear()
    shared_plugin.monitor.preview = False
    return shared_plugin


@pytest.fixture
def supervisor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    """A stand-in that answers on the socket that `supervisor.json` names."""
    directory = tmp_path_factory.mktemp("state")
    run = tmp_path_factory.mktemp("run")
    stand_in = StandIn(directory, run / "api.sock")
    record = SupervisorRecord(settings=stand_in.settings(), run_directory=str(run))
    (directory / "supervisor.json").write_text(record.model_dump_json(by_alias=True))
    started = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        runner = web.AppRunner(application(stand_in))
        await runner.setup()
        await web.UnixSite(runner, str(stand_in.socket)).start()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(ended.set))
        started.set()
        await ended.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    yield stand_in
    stop[0]()
    thread.join(10)


@pytest.fixture
def make_stack(tmp_path: Path) -> Callable[[str], Stack]:
    """A stack of a program."""
    return lambda program: Stack(tmp_path, program)


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"one")
    return path
