"""How often the agent of many endpoints and replicas looks at each of them."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from aks_inference_runtime.router import gates
from aks_inference_runtime.router.admin import BackendRow, ServerRow, Stat
from aks_inference_runtime.router.gate import GateStatus
from aks_inference_runtime.router.gates import GateWatch
from aks_inference_runtime.router.model import VersionKey
from aks_inference_runtime.router.observing import MOST_MOVED, MOST_SLOTS, MOVED_PART, moved_slots
from aks_inference_runtime.router.served import Served

ROW = ("0", "0", "7", "0", "0")


def stat(*, waiting: int | None = None, running: int | None = None, slots: int = 100) -> Stat:
    """Of slots that have nothing, but for one with a request that waits or runs."""
    names = [f"s{number}" for number in range(slots)]
    backends = {name: BackendRow(name, int(name == f"s{waiting}"), 7, 0, 0) for name in [*names, "hop1"]}
    servers = {name: (ServerRow(name, "r1", int(name == f"s{running}"), 1, "UP", 7),) for name in names[1:]}
    return Stat(backends, servers, dict.fromkeys(backends, ROW))


@pytest.mark.parametrize(
    ("before", "changed", "expected"),
    [
        (stat(), [], []),
        (stat(), ["s3", "s40", "hop1"], [3, 40]),
        (stat(waiting=0), [], [0]),
        (stat(running=99), ["s3"], [3, 99]),
        (stat(running=3), ["s3"], [3]),
        *(
            (stat(slots=slots), [f"s{number}" for number in range(most + more)], None if more else list(range(most)))
            for slots, most in ((50, MOST_SLOTS), (1_000, 1_001 // MOVED_PART), (4_000, MOST_MOVED))
            for more in (0, 1)
        ),
    ],
)
def test_of_many_slots_those_are_looked_at_that_moved(
    before: Stat, changed: list[str], expected: list[int] | None
) -> None:
    counts = {**before.counts, **dict.fromkeys(changed, ("0", "0", "8", "0", "0"))}
    assert moved_slots(before, counts) == expected


def test_versions_are_found_by_their_endpoint() -> None:
    served = Served()
    made: dict[VersionKey, Any] = {VersionKey(e, v): object() for e in "ab" for v in ("1", "2")}
    for key, version in made.items():
        served[key] = version
    assert served.of("a") == [made[VersionKey("a", "1")], made[VersionKey("a", "2")]]
    del served[VersionKey("a", "1")]
    assert served.of("a") == [made[VersionKey("a", "2")]]
    del served[VersionKey("a", "2")]
    assert (served.of("a"), len(served.of("b"))) == ([], 2)


async def test_of_thousands_of_gates_each_is_asked_less_often_until_a_request_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GateWatch, "_open", 3_600 * gates.MOST_QUESTIONS_PER_S)
    counts = {"max_concurrent": 1, "orphans": 0, "waiting": 0, "served_total": 0}
    running, asked, speaks = 0, 0, True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while line := await reader.readline():
            asked += json.loads(line).get("op") == "status"
            if speaks:
                status = GateStatus(replica_id="r1", port=0, ready=True, running=running, **counts)
                writer.write(status.model_dump_json(by_alias=True).encode() + b"\n")
        writer.close()

    async def act(_: str) -> None:
        pass

    async def until(condition: Any) -> None:
        async with asyncio.timeout(15):
            while not condition():
                await asyncio.sleep(0.005)

    server = await asyncio.start_unix_server(serve, str(tmp_path / "gate"))
    watch = GateWatch("r1", tmp_path / "gate", act)
    try:
        await watch.first(15)
        assert asked == 1
        running = 1
        watch.look_closely()
        # From now on as often as ever.
        await until(lambda: asked >= 5 and watch.status is not None and watch.status.running == 1)
        running = 0
        await until(lambda: watch.status is not None and watch.status.running == 0)
        # Silent before its next question is due: noticed because a request is on its way.
        speaks = False
        watch.look_closely()
        watch.look_closely()
        await until(lambda: watch.status is None)
    finally:
        await watch.close()
        server.close()
