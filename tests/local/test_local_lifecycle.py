"""Versions that come and go, scale to zero, stops and starts, with the real router under load."""

import asyncio
import os
import signal
from typing import Any

import aiohttp
import pytest

from aks_inference_runtime.api.client import EndpointSubmission
from aks_inference_runtime.api.endpoint import ScoringEndpoint
from aks_inference_runtime.api.errors import Conflict, NotFound
from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.local.process import kill_all


def two_versions(local: Any, b_traffic: float | None, **spec: Any) -> EndpointSubmission:
    """Version A, and B with a share; None: without B."""
    a, b = (local.declared("svc", n).endpoint.spec.versions[0].model_dump() for n in (1, 2))
    versions = [a | {"traffic_percentile": 100 - (b_traffic or 0)}]
    if b_traffic is not None:
        versions.append(b | {"name": "ver-b", "is_default": False, "traffic_percentile": b_traffic})
    return EndpointSubmission(
        endpoint=ScoringEndpoint.model_validate({"metadata": {"name": "svc"}, "spec": {"versions": versions, **spec}})
    )


@pytest.mark.long
async def test_a_version_comes_takes_over_and_goes_under_load(local: Any, clients: Any) -> None:
    await local.launch()
    status = await local.deploy(two_versions(local, None))
    async with clients(status, await local.key("svc"), 2) as load:
        await load.at_least(20)
        assert set(load.answers) == {1}
        await local.deploy(two_versions(local, 50))
        load.answers.clear()
        await load.at_least(100)
        assert set(load.answers) == {1, 2}
        await local.deploy(two_versions(local, 100))
        load.answers.clear()
        await load.at_least(20)
        await local.deploy(two_versions(local, None))
        await load.at_least(20)
    assert set(load.seen) == {(200, None)}
    done = await local.status("svc")
    assert [v.name for v in done.versions] == ["ver-a"]
    async with asyncio.timeout(20):
        while [*local.state.glob("replicas/ver-b-*.json"), *local.state.glob("apps/svc/ver-b/*")]:
            await asyncio.sleep(0.05)


async def test_nothing_of_a_failed_version_reaches_a_request(local: Any, clients: Any) -> None:
    await local.launch()
    status = await local.deploy(two_versions(local, None))
    bad = local.declared("bad", script="def init():\n    raise OSError('no')\ndef run(d):\n    pass\n")
    bad_code = bad.endpoint.spec.versions[0].code
    both = two_versions(local, 50).endpoint
    versions = (both.spec.versions[0], both.spec.versions[1].model_copy(update={"code": bad_code}))
    broken = both.model_copy(update={"spec": both.spec.model_copy(update={"versions": versions})})
    async with clients(status, await local.key("svc"), 2) as load:
        await local.client.put_endpoint(EndpointSubmission(endpoint=broken))
        failed = await local.until("svc", lambda s: s.state is ServiceState.FAILED)
        await load.at_least(50)
        # Back to what was: nothing is left of it.
        await local.deploy(two_versions(local, None))
    assert set(load.seen) == {(200, None)}
    assert set(load.answers) == {1}
    assert [v.state for v in failed.versions] == [ServiceState.HEALTHY, ServiceState.FAILED] or [
        v.state for v in failed.versions
    ] == [ServiceState.TRANSITIONING, ServiceState.FAILED]


HELD = """
import os, pathlib
def init(): ...
def run(data):
    here = pathlib.Path(__file__).parent
    files = [path for path in here.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return sorted(path.relative_to(here).as_posix() for path in files)
"""


async def test_ignored_files_neither_travel_nor_make_another_version(local: Any, score: Any) -> None:
    await local.launch()
    source = local.root / "source-svc-1"
    (source / "data").mkdir(parents=True)
    (source / ".gitignore").write_text("data/\n*.csv\n")
    # The one that counts does not travel itself: then the other one must not count where the files arrive.
    (source / ".amlignore").write_text("data/\n.amlignore\n")
    (source / "data" / "large").write_text("x")
    (source / "rows.csv").write_text("1")
    status = await local.deploy(local.declared("svc", script=HELD))
    async with aiohttp.ClientSession() as session:
        answer = await score(session, status, await local.key("svc"))
    assert answer == (200, None, [".gitignore", "rows.csv", "score.py"])
    (source / "data" / "large").write_text("another")
    assert (await local.deploy(local.declared("svc", script=HELD))).generation == status.generation


async def test_scaled_to_zero_and_woken_by_a_request(local: Any, clients: Any) -> None:
    await local.launch()
    scaling = {"autoscale_min_replicas": 0, "autoscale_scale_down_delay_seconds": 1}
    status = await local.deploy(local.declared("svc", scaling=scaling))
    assert (status.state, status.versions[0].replicas_desired) == (ServiceState.HEALTHY, 0)
    async with clients(status, await local.key("svc"), 1) as load:
        await load.at_least(3)
    assert set(load.seen) == {(200, None)}
    again = await local.until("svc", lambda s: not s.versions[0].replicas)
    assert again.state is ServiceState.HEALTHY


async def test_who_comes_while_the_first_replica_starts_waits_for_it_too(local: Any, score: Any) -> None:
    """The short waiting time counts again once there is a replica."""
    await local.launch()
    slow = "import time\n\ndef init():\n    time.sleep(4)\n\ndef run(data):\n    return ANSWER\n"
    status = await local.deploy(
        local.declared(
            "svc",
            script=slow,
            scaling={"autoscale_min_replicas": 0, "autoscale_max_replicas": 1},
            requests={"max_request_wait_time": 500, "cold_start_timeout_ms": 60_000},
        )
    )
    key = await local.key("svc")
    async with aiohttp.ClientSession() as session:
        asked = [asyncio.create_task(score(session, status, key))]
        woken = await local.until("svc", lambda s: s.versions[0].replicas)
        assert woken.state is ServiceState.TRANSITIONING, "it starts; nothing is wrong"
        # Before and after the router knows that a replica is wanted, until it is there: it starts for four seconds.
        while not (await local.status("svc")).versions[0].replicas_ready:
            asked.append(asyncio.create_task(score(session, status, key)))
            await asyncio.sleep(0.3)
        assert {(await task)[0] for task in asked} == {200}
        assert len(asked) > 2


async def test_a_deleted_endpoint_finishes_what_is_under_way(local: Any, score: Any) -> None:
    await local.launch()
    status = await local.deploy(local.declared("svc"))
    key = await local.key("svc")
    async with aiohttp.ClientSession() as session:
        running = asyncio.create_task(score(session, status, key, {"sleep": 4}))
        await local.until("svc", lambda s: s.versions[0].busy == 1)
        deleting = asyncio.create_task(local.client.delete_endpoint("svc"))
        await local.until("svc", lambda s: s.message == "is being deleted")
        with pytest.raises(Conflict, match="being deleted"):
            await local.client.put_endpoint(local.declared("svc"))
        async with asyncio.timeout(3):
            while (await score(session, status, "wrong"))[0] == 401:
                await asyncio.sleep(0.02)
        assert not deleting.done()
        assert (await score(session, status, key))[0] == 404
        assert (await running)[0] == 200
        await deleting
    with pytest.raises(NotFound):
        await local.client.get_endpoint("svc")


@pytest.mark.parametrize("how", [pytest.param("shutdown", marks=pytest.mark.long), "power", "terminate"])
async def test_what_is_declared_comes_back(local: Any, score: Any, how: str) -> None:
    info = await local.launch()
    status = await local.deploy(local.declared("svc"))
    key = await local.key("svc")
    if how == "shutdown":
        await local.client.shutdown(remove=False)
        assert local.processes() == []
        assert local.state.exists()
    elif how == "power":
        kill_all(local.processes())
    else:
        os.kill(info.pid, signal.SIGTERM)
        async with asyncio.timeout(10):
            while (local.run_directory / "api.sock").exists():
                await asyncio.sleep(0.02)
        async with aiohttp.ClientSession() as session:
            assert (await score(session, status, key))[0] == 200
    await local.launch()
    await local.until("svc", lambda s: s.state is ServiceState.HEALTHY and s.versions[0].replicas_ready == 1)
    async with aiohttp.ClientSession() as session:
        assert (await score(session, status, key))[:2] == (200, None)


async def test_a_build_that_a_killed_supervisor_left_is_ended(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(local.root / "cache"))
    info = await local.launch()
    await local.client.put_endpoint(local.declared("svc"))
    await local.until("svc", lambda s: "environment" in s.versions[0].message)
    local.kill_supervisor(info.pid)
    builds = [p for p in local.processes() if (p.pid != info.pid and "venv" in p.cmdline()) or "pip" in p.cmdline()]
    await local.launch()
    assert not any(build.is_running() and build.status() != "zombie" for build in builds)
