"""What a replica may use of the machine, and who may reach it."""

import os
import stat
import subprocess
import sys
from typing import Any

import aiohttp
import psutil
import pytest

from aks_inference_runtime.api.status import ServiceState
from aks_inference_runtime.local import limits

GREEDY = """
import json, os
kept = []

def init():
    pass

def run(data):
    for _ in range(json.loads(data).get("megabytes", 0)):
        kept.append(os.urandom(1024) * 1024)
    return {"cores": sorted(os.sched_getaffinity(0)), "answer": ANSWER, "pid": os.getpid()}
"""


async def test_a_replica_above_its_memory_is_ended_and_started_again(local: Any, score: Any) -> None:
    await local.launch()
    resources = {"cpu_cores": 0.1, "memory_gb": 0.1, "memory_gb_limit": 0.3}
    status = await local.deploy(local.declared("svc", script=GREEDY, resources=resources))
    first = status.versions[0].replicas[0].id
    key = await local.key("svc")
    async with aiohttp.ClientSession() as session:
        code, _, body = await score(session, status, key)
        assert code == 200
        await score(session, status, key, {"megabytes": 400})
        # One or more: the autoscaler may have answered the request that waited meanwhile.
        status = await local.until(
            "svc", lambda s: s.versions[0].replicas_ready and first not in {r.id for r in s.versions[0].replicas}
        )
        code, _, after = await score(session, status, key)
        assert code == 200
        assert after["pid"] != body["pid"]
    log = next(local.state.glob(f"logs/svc/ver-a/{first}.log")).read_text()
    assert "OOMKilled: it uses 0." in log
    assert "memory_gb_limit is 0.3" in log
    assert "OOMKilled" in (local.state / "supervisor.log").read_text()


@pytest.mark.long
async def test_a_replica_that_needs_more_from_the_start_is_given_up(local: Any) -> None:
    await local.launch()
    script = (
        "import os\nkept = []\ndef init():\n    kept.append(os.urandom(200_000_000))\n    import time; time.sleep(60)\n"
    )
    submission = local.declared(
        "svc",
        script=script + "def run(data):\n    return ANSWER\n",
        resources={"cpu_cores": 0.1, "memory_gb": 0.1, "memory_gb_limit": 0.15},
    )
    await local.client.put_endpoint(submission)
    status = await local.until("svc", lambda s: s.state is ServiceState.FAILED, 90)
    assert "OOMKilled" in status.versions[0].message


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core cannot be shared out")
async def test_a_replica_runs_on_as_many_cores_as_it_may(local: Any, score: Any) -> None:
    await local.launch()
    resources = {"cpu_cores": 0.1, "cpu_cores_limit": 1, "memory_gb": 0.1}
    status = await local.deploy(local.declared("svc", script=GREEDY, resources=resources))
    async with aiohttp.ClientSession() as session:
        code, _, body = await score(session, status, await local.key("svc"))
    assert code == 200
    assert len(body["cores"]) == 1
    assert len(os.sched_getaffinity(0)) > 1


async def test_nothing_but_the_router_listens(local: Any) -> None:
    """Any user of the machine can connect to a port: what has no key has none. Sockets are the owner's alone."""
    await local.launch()
    await local.deploy(local.declared("svc", scaling={"autoscale_enabled": False, "num_replicas": 2}))
    listening = set()
    for process in local.processes():
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add(connection.laddr.port)
    assert listening == {local.settings.port}
    assert stat.S_IMODE(local.run_directory.stat().st_mode) == 0o700
    sockets = [path for path in local.run_directory.rglob("*") if path.is_socket()]
    assert len([path for path in sockets if path.parent == local.run_directory and path.suffix in (".in", ".app")]) == 4
    for path in sockets:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0
        assert len(os.fsencode(path)) < 100
    submission = local.declared("svc", scaling={"autoscale_enabled": False, "num_replicas": 1})
    await local.deploy(submission)
    await local.until("svc", lambda s: len(s.versions[0].replicas) == 1)
    left = [path for path in local.run_directory.iterdir() if path.suffix in (".in", ".app")]
    assert len(left) == 2


def test_memory_counts_what_processes_share_once() -> None:
    script = (
        "import os, time\nkept = os.urandom(64 * 1024 * 1024)\n"
        "for _ in range(3):\n    if os.fork() == 0:\n        time.sleep(60)\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        cheap, exact = limits.memory_gb(process.pid, 100), limits.memory_gb(process.pid, 0)
        assert cheap > 0.24
        assert 0.06 < exact < 0.12
    finally:
        os.killpg(process.pid, 9)
        process.communicate()
    assert limits.memory_gb(process.pid, 0) == 0


@pytest.mark.parametrize(
    ("limit", "count"), [(None, None), (1, 1), (0.5, None), (1_000, None)], ids=["none", "one", "a fraction", "all"]
)
def test_cores(limit: float | None, count: int | None) -> None:
    before = os.sched_getaffinity(0)
    for number in range(3):
        with limits.cores(limit, number):
            inside = os.sched_getaffinity(0)
        assert len(inside) == (count or len(before))
        assert os.sched_getaffinity(0) == before
