"""Starting, ending, and what happens when processes of the router are lost."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
from pathlib import Path

import aiohttp
import psutil
import pytest

from aks_inference_runtime.api.errors import Conflict, InvalidInput
from aks_inference_runtime.router import admin, config, fleet
from aks_inference_runtime.router.binary import find_haproxy
from aks_inference_runtime.router.model import RouterState
from aks_inference_runtime.router.process import HaproxyProcess


async def test_a_port_in_use_is_named(bed):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        bed.port = holder.getsockname()[1]
        router = await bed.router(start=False)
        with pytest.raises(Conflict, match=f"port {bed.port} on 127.0.0.1 is in use"):
            await router.start()
    await router.stop()
    assert not (bed.directory / "router").exists()


@pytest.mark.parametrize("folder", ["a b", "it's", 'say "x"', "a,b", "a;b#c$d", "back\\slash", "a(b)]c%d"])
async def test_any_folder_will_do(bed, make_state, unused_port, folder, monkeypatch):
    """Of the state (configuration, maps, sockets) and of the checkout (its Lua files)."""
    copy = bed.directory / folder / "checkout" / "config.py"
    copy.parent.mkdir(parents=True)
    for lua in Path(config.__file__).parent.glob("*.lua"):
        shutil.copyfile(lua, copy.with_name(lua.name))
    monkeypatch.setattr(config, "__file__", str(copy))
    replica = await bed.replica()
    home = bed.directory
    bed.directory = home / folder
    try:
        router = await bed.router()
        # A deadline that no slot is prepared for, and a port: three processes.
        state = make_state({"A": (10_000, [replica])}, keys=("k",), port=unused_port, max_request_wait_time=1_234)
        await router.apply(state)
        assert (await bed.ask(key="k")).status == 200
        assert (await bed.ask()).reason == "auth"
        assert (await bed.ask(key="k", port=unused_port, path="/score")).status == 200
        await router.apply(make_state({"A": (10_000, [])}))
        gone = await bed.ask()
        assert (gone.status, gone.reason, gone.headers["retry-after"]) == (503, "no-replica", "1")
        # The next agent reads the map, and the process starts again from its files.
        await router.detach()
        router = await bed.router()
        await router.apply(make_state({"A": (10_000, [replica])}))
        assert (await bed.ask()).status == 200
    finally:
        bed.directory = home


async def test_two_routers_never_share_a_port(bed, make_state):
    """HAProxy would let two processes of one user bind the same port and share its connections in silence."""
    await bed.router()
    other = type(bed.routers[0])(bed.directory / "other", port=bed.port)
    with pytest.raises(Conflict):
        await other.start()
    await other.stop()


async def test_a_port_of_an_endpoint_in_use_leaves_the_rest_served(bed, make_state):
    replica = await bed.replica()
    router = await bed.router()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        await router.apply(make_state({"A": (10_000, [replica])}, port=port))
        assert f"port {port} on 127.0.0.1 is in use" in router.problems()["svc"]
        assert (await bed.ask()).status == 200

    async def served() -> bool:
        return not router.problems()

    await bed.until(served)
    assert (await bed.ask(port=port, path="/score")).status == 200


@pytest.mark.parametrize("first_process", ["runs", "lost"])
async def test_a_port_that_was_taken_while_no_agent_was_there(bed, make_state, unused_port, first_process):
    """It holds up nobody but its endpoint, and that one only at this port."""
    replica = await bed.replica()
    state = make_state({"A": (10_000, [replica])}, port=unused_port)
    first = await bed.router()
    await first.apply(state)
    await bed.routers.pop().detach()
    for name in ("p0", f"port-{unused_port}") if first_process == "lost" else (f"port-{unused_port}",):
        pid = bed.haproxy_pid(name)
        os.kill(pid, signal.SIGKILL)
        # This process started it, and reaps it.
        os.waitpid(pid, 0)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", unused_port))
        stranger.listen()
        router = await bed.router()
        await router.apply(state)
        assert f"port {unused_port} on 127.0.0.1 is in use" in router.problems()["svc"]
        assert (await bed.ask()).status == 200
        assert router.load()
        await router.apply(make_state({"A": (10_000, [replica])}))
        assert router.problems() == {}
        await router.apply(state)

    async def served() -> bool:
        return not router.problems()

    await bed.until(served)
    assert (await bed.ask(port=unused_port, path="/score")).status == 200


async def test_nothing_is_left(bed, make_state, unused_port):
    replica = await bed.replica()
    router = await bed.router()
    # A deadline that no slot is prepared for, and a port: three processes.
    await router.apply(make_state({"A": (10_000, [replica])}, port=unused_port, max_request_wait_time=1_234))
    pids = [bed.haproxy_pid(name) for name in ("p0", "p1", f"port-{unused_port}")]
    assert (await bed.ask(port=unused_port, path="/score")).status == 200
    await router.stop()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not (bed.directory / "router").exists()


@pytest.mark.parametrize("victim", ["p1", "port"])
async def test_every_process_is_restarted(bed, make_state, unused_port, victim):
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, port=unused_port, max_request_wait_time=1_234))
    name = f"port-{unused_port}" if victim == "port" else victim
    pid = bed.haproxy_pid(name)
    os.kill(pid, signal.SIGKILL)

    async def back() -> bool:
        return bed.haproxy_pid(name) != pid

    await bed.until(back)
    assert (await bed.ask(port=unused_port, path="/score")).status == 200


async def test_haproxy_lost_while_no_agent_is_there(bed, make_state):
    """The next agent starts a new one, with the caps that are left."""
    replica = await bed.replica()
    state = make_state({"A": (10_000, [replica])}, keys=("one",), max_request_wait_time=10_000)
    first = await bed.router()
    await first.apply(state)
    long = asyncio.create_task(bed.ask(key="one", x_sleep_ms="1500"))
    await bed.counts(first, busy=1)
    await bed.routers.pop().detach()
    os.kill(bed.haproxy_pid(), signal.SIGKILL)
    router = await bed.router()
    await router.apply(state)
    assert (await bed.ask(key="one")).status == 200
    await asyncio.gather(long, return_exceptions=True)
    assert (await replica.stats())["most"] == 1


async def test_files_are_the_owners_alone_and_hold_no_key(bed, make_state):
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, keys=("a-secret-key",)))
    assert (await bed.ask(key="a-secret-key")).status == 200
    assert (await bed.ask(key="another-guess")).status == 401
    folder = bed.directory / "router"
    assert folder.stat().st_mode & 0o077 == 0
    for path in folder.iterdir():
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            assert b"a-secret-key" not in path.read_bytes()
            assert b"another-guess" not in path.read_bytes()


async def test_the_log_is_bounded(bed):
    router = await bed.router()
    log = bed.directory / "router" / "p0.log"
    with log.open("ab") as file:
        file.write(b"x" * 5_000_000)
    router._fleet.rotate_logs()
    assert log.stat().st_size < 100_000
    assert log.with_suffix(".log.1").stat().st_size <= 4 * 1024 * 1024


async def test_a_damaged_memory_is_no_obstacle(bed, make_state):
    replica = await bed.replica()
    first = await bed.router()
    state = make_state({"A": (10_000, [replica])})
    await first.apply(state)
    await bed.routers.pop().detach()
    (bed.directory / "router" / "slots.json").write_text('[["x"')
    router = await bed.router()
    await router.apply(state)
    assert (await bed.ask()).status == 200


async def test_a_long_directory_gets_short_sockets(bed, make_state):
    bed.directory = bed.directory / ("d" * 90)
    bed.directory.mkdir()
    router = await bed.router()
    await router.apply(RouterState())
    sockets = router._sockets
    assert sockets != bed.directory / "router"
    assert (await bed.ask()).status == 404
    await router.stop()
    assert not sockets.exists()
    parent, bed.directory = bed.directory, bed.directory.parent
    assert list(parent.iterdir()) == []


async def test_processes_of_another_version_are_started_anew(bed, make_state, monkeypatch):
    """They would not understand what this one writes into their maps."""
    state = make_state({"A": (10_000, [await bed.replica()])})
    first = await bed.router()
    await first.apply(state)
    pid = bed.haproxy_pid()
    await bed.routers.pop().detach()
    monkeypatch.setattr(fleet, "generation", lambda: "later")
    router = await bed.router()
    assert not psutil.pid_exists(pid)
    await router.apply(state)
    assert (await bed.ask()).status == 200


@pytest.mark.parametrize("name", ["p0", pytest.param("p1", marks=pytest.mark.long)])
async def test_a_hung_haproxy_is_ended_by_the_next_agent(bed, make_state, monkeypatch, name):
    """It would keep the port."""
    monkeypatch.setattr(admin, "COMMAND_SECONDS", 0.3)
    replica = await bed.replica()
    state = make_state({"A": (10_000, [replica])}, max_request_wait_time=1_234)
    first = await bed.router()
    await first.apply(state)
    pid = bed.haproxy_pid(name)
    await bed.routers.pop().detach()
    os.kill(pid, signal.SIGSTOP)
    router = await bed.router()
    assert bed.haproxy_pid(name) != pid
    assert not psutil.pid_exists(pid)
    await router.apply(state)
    assert (await bed.ask()).status == 200


async def test_what_was_withdrawn_while_no_agent_was_there_finishes(bed, make_state):
    replica = await bed.replica()
    first = await bed.router()
    await first.apply(make_state({"A": (10_000, [replica])}))
    long = asyncio.create_task(bed.ask(x_sleep_ms="1500"))
    await bed.counts(first, busy=1)
    await bed.routers.pop().detach()
    router = await bed.router()
    await router.apply(RouterState())
    assert not await router.drained(replica.id, 0.2)
    assert await router.drained(replica.id, 10)
    assert (await long).status == 200
    assert (await bed.ask()).status == 404


async def test_processes_that_nothing_uses_end(bed, make_state):
    """However often a waiting time changes to one that no slot is prepared for."""
    replica = await bed.replica()
    router = await bed.router()
    for milliseconds in (1_234, 1_235, 1_236, 1_237):
        await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=milliseconds))
        assert (await bed.ask()).status == 200

        async def settled() -> bool:
            return len(router._servers.occupied()) == 1

        await bed.until(settled)
    # The one in use, and the one before it.
    assert len(router._fleet.layouts) <= 3
    assert len(list((bed.directory / "router").glob("p*.layout"))) <= 3


async def test_a_moved_clock_does_not_hide_a_running_haproxy(bed, make_state, monkeypatch):
    """The next agent takes it over: a second one would find the port in use."""
    replica = await bed.replica()
    first = await bed.router()
    await first.apply(make_state({"A": (10_000, [replica])}))
    pid = bed.haproxy_pid()
    await bed.routers.pop().detach()
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created(self) + 3_600)
    await bed.router()
    assert bed.haproxy_pid() == pid
    assert (await bed.ask()).status == 200


async def test_one_process_that_cannot_start_holds_nothing_else_up(bed, make_state, unused_port, caplog):
    replica = await bed.replica()
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [replica])}, port=unused_port))
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        pid = bed.haproxy_pid(f"port-{unused_port}")
        # Nobody restarts it before the port is taken.
        async with router._lock:
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(5):
                while "port-" + str(unused_port) not in router._fleet.dead():
                    await asyncio.sleep(0.01)
            holder.bind(("127.0.0.1", unused_port))
            holder.listen()

        async def tried() -> bool:
            return f"haproxy (port-{unused_port}) could not be started again" in caplog.text

        await bed.until(tried)
        os.kill(bed.haproxy_pid(), signal.SIGKILL)

        async def served() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                return (await bed.ask(timeout=5)).status == 200
            return False

        await bed.until(served)
        assert router.load()

    async def back() -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return (await bed.ask(port=unused_port, path="/score", timeout=5)).status == 200
        return False

    await bed.until(back)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\necho 'HAProxy version 2.6.1'\n", "at least 2.8"),
        ("#!/bin/sh\necho 'HAProxy version 3.0.1'\n", "without Lua"),
        ("#!/bin/sh\nexit 3\n", "does not run"),
        ("#!/bin/sh\nexit 0\n", "is no HAProxy"),
        ("", "does not run"),
    ],
)
def test_an_haproxy_that_does_not_serve(tmp_path: Path, script, said):
    binary = tmp_path / "haproxy"
    if script:
        binary.write_text(script)
        binary.chmod(0o755)
    with pytest.raises(InvalidInput, match=said):
        find_haproxy(str(binary))


async def test_a_round_that_is_given_up_while_a_process_ends(bed, make_state, unused_port, monkeypatch):
    router = await bed.router()
    await router.apply(make_state({"A": (10_000, [])}, port=unused_port))
    ending = asyncio.Event()

    async def never_ends(_: HaproxyProcess) -> None:
        ending.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr(HaproxyProcess, "stop", never_ends)
        given_up = asyncio.create_task(router.apply(RouterState()))
        await ending.wait()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
    await router.apply(RouterState())
    with pytest.raises(aiohttp.ClientConnectorError):
        await bed.ask(path="/score", port=unused_port)


async def test_who_asks_before_the_router_knows_its_endpoints_is_not_told_that_there_are_none(bed, make_state):
    """As when HAProxy and its agent start anew together, while clients go on."""
    replica = await bed.replica("A")
    router = await bed.router()
    early = [asyncio.create_task(bed.ask()) for _ in range(3)]
    unknown = asyncio.create_task(bed.ask("other"))
    assert (await bed.ask(method="GET", path="/")).status == 200
    await router.apply(make_state({"A": (10_000, [replica])}, max_request_wait_time=10_000))
    assert {answer.status for answer in await asyncio.gather(*early)} == {200}
    assert ((await unknown).status, (await unknown).reason) == (404, "not-found")
