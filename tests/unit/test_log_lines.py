"""Lines of logs on the command line: parts, order, which replicas."""

import asyncio
import json
from collections.abc import AsyncIterator

from aks_inference_runtime.api.status import EndpointStatus, ReplicaState, ReplicaStatus, ServiceState, VersionStatus
from aks_inference_runtime.cli.loglines import LogLine, newest, parsed, whose

RAW = (
    "a/r1 before any time",
    "a/r1 2026-11-21 10:00:01,500 I [1] azmlinfsrv - first",
    "a/r1 printed",
    "a/r1 2026-11-21 10:00:03,000 I [1] azmlinfsrv - last",
    "a/r2 [2026-11-21 10:00:02 +0000] [2] [INFO] between",
)


def lines() -> list[LogLine]:
    async def source() -> AsyncIterator[str]:
        for line in RAW:
            yield line

    async def collect() -> list[LogLine]:
        return [line async for line in parsed(source())]

    return asyncio.run(collect())


def test_parts() -> None:
    told = json.loads(lines()[2].text(as_json=True))
    assert told == {"version": "a", "replica": "r1", "time": "2026-11-21T10:00:01.500000", "line": "printed"}
    assert lines()[0].time is None
    assert [line.text(as_json=False) for line in lines()] == list(RAW)


def test_the_last_lines_of_all_in_order_of_time() -> None:
    texts = [line.line.rpartition(" ")[2] for line in newest(lines(), 3)]
    assert texts == ["printed", "between", "last"]
    assert newest(lines(), 0) == []
    assert len(newest(lines(), 9)) == len(RAW)


def test_gone_replicas_of_a_healthy_version_are_left_out() -> None:
    def status(state: ServiceState) -> EndpointStatus:
        there = ReplicaStatus(id="r2", state=ReplicaState.READY)
        return EndpointStatus.model_construct(versions=(VersionStatus(name="a", state=state, replicas=(there,)),))

    assert [line.replica for line in lines() if whose(status(ServiceState.HEALTHY))(line)] == ["r2"]
    assert len([line for line in lines() if whose(status(ServiceState.FAILED))(line)]) == len(RAW)
    assert len([line for line in lines() if whose(None)(line)]) == len(RAW)
