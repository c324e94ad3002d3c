"""`aks-inference logs` on a cluster: the command as a process, a server that streams logs."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from looked_at import COMMAND, TOKEN, ApiServer, endpoint, pod, run, serving

from aks_inference_runtime.cli.cluster import CONNECTIONS, ClusterSource
from aks_inference_runtime.cli.cluster_logs import MOST_FOLLOWED
from aks_inference_runtime.cli.loglines import LogLine
from aks_inference_runtime.kubernetes.client import connected
from aks_inference_runtime.kubernetes.connection import Connection


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with serving(tmp_path) as made:
        yield made


async def test_logs_of_all_replicas_by_time(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn")]
    server.pods = [pod("churn-1"), pod("churn-2", ready=False, restarts=2), pod("other-1", "other")]
    server.logs = {
        ("churn-1", False): ["2026-01-01T00:00:01Z one", "2026-01-01T00:00:04Z four"],
        ("churn-2", False): ["2026-01-01T00:00:03Z three"],
        ("churn-2", True): ["2026-01-01T00:00:02Z died of this"],
    }
    (code, out, err), (_, last, _), (missing, _, told) = await asyncio.gather(
        run(tmp_path, "logs", "churn"),
        run(tmp_path, "--json", "logs", "churn", "--tail", "1"),
        run(tmp_path, "logs", "churn", "--replica", "none"),
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "blue/churn-1 one",
        "blue/churn-2 died of this",
        "blue/churn-2 three",
        "blue/churn-1 four",
    ]
    assert json.loads(last) == {
        "version": "blue", "replica": "churn-1", "time": "2026-01-01T00:00:04Z", "line": "four"
    }  # fmt: skip
    assert (missing, "endpoint churn has no replica none of version any" in told) == (3, True)


def held(name: str, *before: Any, scoring: Any = None) -> Any:
    """A pod whose scoring container waits for those that are run before."""
    made = pod(name, ready=False)
    made["status"] |= {
        "initContainerStatuses": list(before),
        "containerStatuses": [{"name": "scoring", "state": {"waiting": {"reason": "PodInitializing"}}}]
        if scoring is None
        else [scoring],
    }
    return made


async def test_logs_of_what_holds_a_replica_up(server: ApiServer, tmp_path: Path) -> None:
    """The fetch of its models, its gate, what ships its data; where none has begun, why."""
    done = {"name": "models", "state": {"terminated": {"exitCode": 0}}, "started": False, "ready": True}
    loops = {"waiting": {"reason": "CrashLoopBackOff"}}
    pulls = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    runs = {"name": "scoring", "state": {"running": {}}, "ready": True, "started": True}
    server.endpoints = [endpoint("churn")]
    server.pods = [
        held("fails", {"name": "models", "state": loops, "restartCount": 2, "started": False}),
        held("fetches", {"name": "models", "state": {"running": {}}, "started": False}),
        held("gated", done, {"name": "gate", "state": loops, "restartCount": 1, "started": False}),
        held("lost", {"name": "model-data", "state": loops, "restartCount": 4, "started": True}, scoring=runs),
        held("pulls", {"name": "models", "state": pulls}),
        held("waits", done, {"name": "gate", "state": {"running": {}}, "started": True}),
    ]
    server.pods.append(pod("nowhere", ready=False))
    server.pods[-1]["status"] = {
        "phase": "Pending",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
        ],
    }
    server.logs = {
        ("fails/models", True): ["2026-01-01T00:00:01Z 403 at the store"],
        ("fetches/models", False): ["2026-01-01T00:00:02Z 3 of 20 GB"],
        ("gated/gate", True): ["2026-01-01T00:00:03Z no such settings"],
        ("lost", False): ["2026-01-01T00:00:04Z scores"],
        ("lost/model-data", True): ["2026-01-01T00:00:05Z no right to write"],
    }
    code, out, err = await run(tmp_path, "logs", "churn")
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()[:3]) == [
        "blue/nowhere [scoring] has no log: 0/3 nodes: no GPU",
        "blue/pulls [models] has no log: ImagePullBackOff: no such image",
        "blue/waits [scoring] has no log: PodInitializing",
    ]
    assert out.splitlines()[3:] == [
        "blue/fails [models] 403 at the store",
        "blue/fetches [models] 3 of 20 GB",
        "blue/gated [gate] no such settings",
        "blue/lost scores",
        "blue/lost [model-data] no right to write",
    ]


async def test_logs_are_followed_also_of_replicas_that_come(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints, server.pods = [endpoint("churn")], [pod("churn-1")]
    server.logs = {("churn-1", False): ["2026-01-01T00:00:01Z first"], ("churn-2", False): ["2026-01-01T00:00:02Z new"]}
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "--kubeconfig", str(tmp_path / "kubeconfig"), "logs", "churn", "--follow"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"blue/churn-1 first\n"
            server.pods.append(pod("churn-2"))
            assert await process.stdout.readline() == b"blue/churn-2 new\n"
    finally:
        process.terminate()
        await process.wait()
    assert sorted(one for one in server.asked if one.startswith("churn")) == ["churn-1 true", "churn-2 true"]


async def test_a_replica_that_cannot_be_read_is_told_and_the_others_go_on(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn"), endpoint("away")]
    server.pods = [pod("churn-1"), pod("churn-2"), pod("churn-3"), pod("away-1", "away")]
    server.unread = {"churn-1": 502, "churn-2": 400, "away-1": 502}
    server.logs = {("churn-3", False): ["2026-01-01T00:00:01Z scores"]}
    (code, out, err), (none, _, said) = await asyncio.gather(
        run(tmp_path, "logs", "churn"), run(tmp_path, "logs", "away")
    )
    assert (code, out) == (0, "blue/churn-3 scores\n")
    for name in ("churn-1", "churn-2"):
        assert (
            f"warning: the log of blue/{name} cannot be read: /api/v1/namespaces/default/pods/{name}/log: no r" in err
        )
    assert (none, "error: /api/v1/namespaces/default/pods/away-1/log: no route to the node" in said) == (4, True)


async def test_only_replicas_of_the_endpoints_own_namespace(server: ApiServer, tmp_path: Path) -> None:
    server.endpoints = [endpoint("churn", "team-b"), endpoint("churn", "team-a", "2025-01-01T00:00:00Z")]
    server.pods = [pod("ours", namespace="team-a"), pod("theirs", namespace="team-b")]
    server.logs = {(name, False): [f"2026-01-01T00:00:01Z of {name}"] for name in ("ours", "theirs")}
    assert await run(tmp_path, "logs", "churn") == (0, "blue/ours of ours\n", "")
    assert {one for one in server.asked if one.startswith("pods")} == {"pods of team-a"}


def followed(server: ApiServer, missed: list[str]) -> AbstractAsyncContextManager[AsyncIterator[LogLine]]:
    @asynccontextmanager
    async def lines() -> AsyncIterator[AsyncIterator[LogLine]]:
        where = Connection(server.url, None, token=TOKEN)
        async with connected(where, CONNECTIONS) as api:
            source = ClusterSource(api, where)
            status = (await source.endpoint("churn")).status
            async with aclosing(source.logs(status, None, None, 10, True, False, missed.append)) as found:
                yield found

    return lines()


async def test_as_many_are_followed_as_there_are_up_to_a_bound(server: ApiServer) -> None:
    server.endpoints = [endpoint("churn")]
    server.pods = [pod(f"churn-{number}") for number in range(MOST_FOLLOWED + 3)]
    server.logs = {(one["metadata"]["name"], False): ["2026-01-01T00:00:01Z first"] for one in server.pods}
    missed: list[str] = []
    async with followed(server, missed) as lines, asyncio.timeout(60):
        found = {(await anext(lines)).replica for _ in range(MOST_FOLLOWED)}
        looks = len(server.asked)
        while not any(one.startswith("pods") for one in server.asked[looks:]):
            await asyncio.sleep(0.05)
    assert (len(found), server.followed) == (MOST_FOLLOWED, MOST_FOLLOWED)
    assert missed == [f"{MOST_FOLLOWED} replicas are followed at once, others as those end: name a --version"]


async def test_what_broke_off_is_told_once_and_followed_again(server: ApiServer) -> None:
    """Without a line twice, though the API server goes back to whole seconds."""
    server.endpoints, server.pods = [endpoint("churn")], [pod("churn-1"), pod("churn-2")]
    server.logs = {
        ("churn-1", False): ["2026-01-01T00:00:01.5Z one", "2026-01-01T00:00:01.6Z two"],
        ("churn-2", False): ["2026-01-01T00:00:01.5Z other"],
    }
    server.cut["churn-1"] = breaks = asyncio.Event()
    missed: list[str] = []
    async with followed(server, missed) as lines, asyncio.timeout(60):
        assert {(await anext(lines)).line for _ in range(3)} == {"one", "two", "other"}
        server.logs["churn-1", False].append("2026-01-01T00:00:01.7Z three")
        breaks.set()
        assert (await anext(lines)).line == "three"
    assert [one.partition(":")[0] for one in missed] == ["the log of blue/churn-1 cannot be read"]
