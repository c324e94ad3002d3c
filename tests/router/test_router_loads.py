"""The figures of a version are worked out when something has changed, and are then what they would be anew."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aks_inference_runtime.api.endpoint import Requests
from aks_inference_runtime.router import gates
from aks_inference_runtime.router.admin import BackendRow, ServerRow, Stat
from aks_inference_runtime.router.gates import GateWatch
from aks_inference_runtime.router.links import Word
from aks_inference_runtime.router.model import ControlAddress, ReplicaTarget, VersionKey, VersionRoute
from aks_inference_runtime.router.observing import Observation
from aks_inference_runtime.router.ownership import AWAY, Epoch, Phase, Tenure
from aks_inference_runtime.router.slots import Slot
from aks_inference_runtime.router.versions import ServedVersion

SLOTS = (Slot(1, 0), Slot(1, 1))
NAMES = ("r0", "r1", "r2")
MINE, OTHERS = Epoch(1, "me"), Epoch(2, "other")
GATED = ReplicaTarget("r0", "", 1, ControlAddress("", 1))
HEARD = Word(ready=True, max_concurrent=1, running=1, orphans=0, waiting=0, served_total=0, claim=None)
small = st.integers(0, 2)
replicas = st.lists(
    st.builds(
        lambda name, gated, ready: ReplicaTarget(name, "", 1, ControlAddress("", 1) if gated else None, ready),
        st.sampled_from(NAMES),
        st.booleans(),
        st.booleans(),
    ),
    max_size=3,
    unique_by=lambda replica: replica.id,
)
words = st.builds(
    Word, st.booleans(), small.map(lambda n: n + 1), small, small, small, small, st.sampled_from([None, MINE, OTHERS])
)
rows = st.tuples(small, small, st.lists(st.tuples(st.sampled_from(NAMES), small), max_size=3, unique_by=lambda r: r[0]))
changes = st.one_of(
    st.tuples(st.just("declare"), replicas, st.sampled_from(SLOTS)),
    st.tuples(st.just("take"), st.sampled_from([None, AWAY, Tenure(Phase.HOLDING, MINE)])),
    st.tuples(st.just("withdraw")),
    st.tuples(st.just("left"), st.frozensets(st.sampled_from(["1-a", "1-b"]))),
    st.tuples(st.just("hear"), st.sampled_from(NAMES), words),
    st.tuples(st.just("lose"), st.sampled_from(NAMES)),
    st.tuples(st.just("forget"), st.sampled_from(NAMES)),
    st.tuples(st.just("refuse"), st.sampled_from(SLOTS), small),
    st.tuples(st.just("show"), st.sampled_from(SLOTS), rows),
    st.tuples(st.just("hide")),
)


def shown(slot: Slot, row: tuple[int, int, list[tuple[str, int]]]) -> Stat:
    queued, total, servers = row
    of_slot = tuple(ServerRow(slot.backend, name, current, 1, "UP", 0) for name, current in servers)
    return Stat({slot.backend: BackendRow(slot.backend, queued, total, 0, 0)}, {slot.backend: of_slot}, {})


@settings(deadline=None, max_examples=300)
@given(st.lists(changes, min_size=5, max_size=25))
@example([("declare", [GATED], SLOTS[0]), ("hear", "r0", HEARD), ("forget", "r0")])
def test_figures_are_those_of_now(steps: list[tuple[object, ...]]) -> None:
    async def act(_version: ServedVersion, _replica: str) -> None:
        pass

    async def run() -> None:
        version = ServedVersion(VersionKey("svc", "blue"), act)
        seen = {1: Observation(1, shown(SLOTS[0], (0, 0, [])).over(shown(SLOTS[1], (0, 0, []))), 0.0)}
        for step in steps:
            match step:
                case ("declare", list(found), Slot() as slot):
                    version.declare(VersionRoute("blue", 10_000, Requests(), tuple(found)), slot)
                case ("take", tenure):
                    version.take(tenure)  # type: ignore[arg-type]
                case ("withdraw",):
                    version.withdraw()
                case ("left", frozenset() as turns):
                    version.left(turns)
                case ("hear", str(name), Word() as word) if name in version._gates:
                    version._gates[name].take(word)
                case ("lose", str(name)) if name in version._gates:
                    await lost(version._gates[name])
                case ("forget", str(name)):
                    await version._forget_gate(name)
                case ("refuse", Slot() as slot, int(count)):
                    version.refused(slot, count)
                case ("show", Slot() as slot, row):
                    stat = shown(slot, row)  # type: ignore[arg-type]
                    before = seen.get(1)
                    seen[1] = Observation(1, stat if before is None else stat.over(before.stat), 0.0)
                    # The router is asked between its look and its round, too.
                    version.load(seen)
                    version._count(seen)
                case ("hide",):
                    seen.clear()
            if seen:
                seen[1] = replace(seen[1], at=seen[1].at + 1)
                assert version.load(seen) == version._load(seen)
            # What was said before must not stand where things look the same once more.
            assert version.load(seen) == version.load(dict(seen))
        await version.close()

    asyncio.run(run())


def lost(gate: GateWatch) -> Awaitable[None]:
    """Its connection has ended."""
    gate.over(well=True)
    return asyncio.sleep(0)


async def test_a_gate_that_was_never_heard_takes_no_figures_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a replica fetches its model: it has an address, and nobody listens there."""
    monkeypatch.setattr(gates, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(gates, "RETRY_SECONDS", 0.01)
    key = VersionKey("svc", "A")

    async def nothing(_: ServedVersion, __: str) -> None:
        pass

    version = ServedVersion(key, nothing)
    fetching = replace(GATED, id="r1", control=ControlAddress("127.0.0.1", 1))
    version.declare(VersionRoute("A", 10_000, Requests(), (GATED, fetching)), SLOTS[0])
    seen = {1: Observation(1, shown(SLOTS[0], (300, 301, [("r0", 1)])), 0.0)}
    try:
        version._gates["r0"].take(HEARD)
        assert version.load(seen) is None  # it may be about to speak
        async with asyncio.timeout(10):
            while (load := version.load(seen)) is None:
                await asyncio.sleep(0.01)
        assert (load.busy, load.queued) == (1, 300)
        # One that was heard may have anything in hand.
        version._gates["r0"].status = None
        version._note()
        assert version.load(seen) is None
    finally:
        await version.close()
