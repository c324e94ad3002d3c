"""A router, its HAProxy, gates and stub replicas, all real: what the state machines of the router change and look at.

Everything runs on an event loop of its own; a state machine's steps are ordinary functions.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from router_requests import SCORING_MS, Asked

from aks_inference_runtime.api.endpoint import AuthMode, Requests
from aks_inference_runtime.api.errors import AksInferenceError
from aks_inference_runtime.router.model import EndpointRoute, RouterState, VersionKey, VersionRoute

VERSIONS = ("A", "B")
SLOW_MS = 2_000
FLAP_S = 0.05
"""Half of a period: readiness flaps at 10 Hz."""
SETTLES_S = 30.0
ORDER_SENT_S, ORDER_BEGAN_S = 0.1, 0.25
"""Two requests are in order by when they were sent, and out of order by when they began, from these differences on."""


@dataclass(eq=False)
class Member:
    """A replica: a gate and a stub, which come and go together."""

    replica: Any
    version: str
    cap: int
    ready: bool = True
    """As it is declared."""
    shaken: bool = False
    """Its address comes and goes."""

    @property
    def id(self) -> str:
        return str(self.replica.id)


class World:
    """What runs, what was asked, and what must hold."""

    def __init__(self, bed: Any) -> None:
        self.bed = bed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.members: list[Member] = []
        self.asked: list[Asked] = []
        self.shares = {"A": 10_000, "B": 0}
        self.wait_ms, self.most_queued = 5_000, 1_000
        self.killed_slots = 0
        """Of replicas that died with what they had."""
        self._router: Any = None
        self._open: dict[Asked, asyncio.Task[None]] = {}
        self._flaps: dict[Member, asyncio.Task[None]] = {}
        self._flapped: list[asyncio.Future[None]] = []
        self._began: dict[str, float] = {}

    def do(self, work: Coroutine[Any, Any, Any], seconds: float = 60) -> Any:
        """Runs something there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def of(self, version: str) -> list[Member]:
        """A version's replicas."""
        return [member for member in self.members if member.version == version]

    # --- begin and end

    async def begin(self) -> None:
        """Two replicas of A (limits 1 and 2), one of B, as declared at first; nothing was asked yet."""
        if self._router is None:
            connector = aiohttp.TCPConnector(limit=0, force_close=True)
            self.bed.session = aiohttp.ClientSession(connector=connector)
            self._router = await self.bed.router()
        self.shares = {"A": 10_000, "B": 0}
        self.wait_ms, self.most_queued = 5_000, 1_000
        wanted = [("A", 1), ("A", 2), ("B", 1)]
        have = {version: len(self.of(version)) for version in VERSIONS}
        missing = [(version, cap) for version, cap in wanted if version not in have or not have[version]]
        await asyncio.gather(*(self._start(version, cap) for version, cap in missing))
        await self.apply()
        self.asked.clear()
        self._began.clear()
        self.killed_slots = 0
        for member in self.members:
            await self._stub(member, "/_reset")

    async def settle(self) -> None:
        """Flapping ends, all is answered, and whoever asks then is served."""
        await asyncio.gather(*self._flaps.values())
        while self._flapped:
            self._flapped.pop().result()
        async with asyncio.timeout(SETTLES_S):
            while self._open:
                await asyncio.gather(*self._open.values())
        self.wait_ms = 5_000
        await self.apply()
        for version in VERSIONS:
            if self.of(version):
                async with asyncio.timeout(SETTLES_S):
                    while (await self.bed.ask(x_aks_inference_version=version)).status != 200:
                        await asyncio.sleep(0.05)
        for member in self.members:
            await self._look(member)

    def close(self) -> None:
        """All of it."""
        try:
            self.do(self.bed.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    # --- what changes

    async def add(self, version: str, cap: int) -> None:
        """One more replica."""
        await self._start(version, cap)
        await self.apply()

    async def remove(self, member: Member) -> None:
        """As a supervisor does: it is told to finish, and ends when nothing is left."""
        await self._end_flap(member)
        member.ready = False
        await self.apply()
        assert await self._router.drained(member.id, SETTLES_S), f"{member.id} still has requests"
        self.members.remove(member)
        await self.apply()
        await self._end(member)

    async def kill(self, member: Member, *, gate: bool) -> None:
        """Its stub dies, and the gate tells; or its gate dies, and the stub is ended with it."""
        await self._end_flap(member)
        self._disturb(replica=True)
        self.killed_slots += member.cap
        await self._look(member)
        process = member.replica.gate if gate else member.replica.stub
        process.kill()
        await asyncio.to_thread(process.wait)
        self.members.remove(member)
        await self.apply()
        await self._end(member)

    async def kill_router(self) -> None:
        """HAProxy; its agent starts it again."""
        self._disturb(router=True)
        pid = self.bed.haproxy_pid()
        os.kill(pid, 9)
        async with asyncio.timeout(SETTLES_S):
            while self.bed.haproxy_pid() == pid:
                await asyncio.sleep(0.01)

    async def another_agent(self) -> None:
        """The agent ends, HAProxy goes on, and the next agent takes over."""
        await asyncio.gather(*self._flaps.values())
        await self._router.detach()
        self._router = await self.bed.router()
        await self.apply()

    def flap(self, member: Member, times: int, *, address: bool) -> None:
        """Its declared readiness, or the address of its stub, comes and goes at 10 Hz for a while."""
        if member not in self._flaps:
            work = self._shake(member, times) if address else self._flap(member, times)
            task = self._flaps[member] = self._loop.create_task(work)
            task.add_done_callback(lambda _: self._flaps.pop(member))
            task.add_done_callback(self._flapped.append)

    async def change(self, **settings: Any) -> None:
        """Of `shares`, `wait_ms`, `most_queued`."""
        for name, value in settings.items():
            setattr(self, name, value)
        await self.apply()

    async def apply(self) -> None:
        """Declares what there is."""
        self._note(self._open)
        await self._router.apply(self._state())
        self._note(self._open)

    # --- asking

    async def ask(self, count: int, version: str | None, sleep_ms: int) -> None:
        """So many at once."""
        for _ in range(count):
            one = Asked(f"q{len(self.asked)}", version, time.time(), sleep_ms / 1_000)
            self.asked.append(one)
            self._note([one])
            self._open[one] = asyncio.create_task(self._one(one))
        there = [one for one in self.asked if one in self._open or one.left]
        work_s = sum(one.sleep_s for one in there)
        for one in self._open:
            # Which of those that are sent at once comes first is nobody's promise.
            one.beside, one.beside_s = max(one.beside, len(there) - 1), max(one.beside_s, work_s - one.sleep_s)

    async def leave(self, count: int) -> None:
        """The clients of so many of those that have no answer go."""
        for one, task in list(self._open.items())[:count]:
            one.left = True
            del self._open[one]
            task.cancel()
        await asyncio.sleep(0)

    async def load(self, version: str) -> Any:
        """As the router reports it; None: not known now."""
        return self._router.load().get(VersionKey("svc", version))

    async def _one(self, one: Asked) -> None:
        headers = {"x_id": one.id, "x_sleep_ms": str(round(1_000 * one.sleep_s))}
        if one.version:
            headers["x_aks_inference_version"] = one.version
        try:
            async with asyncio.timeout(SETTLES_S):
                while True:
                    try:
                        one.answer = await self.bed.ask(timeout=SETTLES_S, **headers)
                        break
                    except aiohttp.ClientConnectorError:
                        # Nothing was sent: HAProxy is being started again.
                        await asyncio.sleep(0.02)
        except (aiohttp.ClientError, TimeoutError) as error:
            one.error = repr(error)
        except asyncio.CancelledError:
            if not one.left:
                raise
        finally:
            one.answered = time.time()
            self._open.pop(one, None)

    # --- what must hold

    async def limits(self) -> None:
        """I1, as the replicas counted."""
        await asyncio.gather(*(self._look(member) for member in self.members))

    def check(self) -> None:
        """I2 to I4 and I6 of all that was asked."""
        for one in self.asked:
            one.check()
        lost = [one.id for one in self.asked if one.answer is not None and one.answer.status == 502]
        assert len(lost) <= self.killed_slots, f"{len(lost)} lost, {self.killed_slots} were at replicas that died"
        for version in VERSIONS:
            self._in_order([one for one in self.asked if one.answer is not None and one.answer.version == version])

    def _in_order(self, asked: Sequence[Asked]) -> None:
        """First come, first served: of those that nothing disturbed."""
        begun = [(one.sent, self._began[one.id]) for one in asked if one.calm and one.id in self._began]
        latest, latest_sent = 0.0, 0.0
        for sent, began in sorted(begun):
            if sent - latest_sent > ORDER_SENT_S:
                assert began > latest - ORDER_BEGAN_S, f"overtook one that was sent {sent - latest_sent:.2f} s before"
            if began > latest:
                latest, latest_sent = began, sent

    # --- within

    def _state(self) -> RouterState:
        requests = Requests(
            max_request_wait_time=self.wait_ms, max_queued_requests=self.most_queued, scoring_timeout_ms=SCORING_MS
        )
        routes = tuple(
            VersionRoute(name, share, requests, tuple(m.replica.target(ready=m.ready) for m in self.of(name)))
            for name, share in self.shares.items()
        )
        return RouterState({"svc": EndpointRoute("svc", AuthMode.NONE, frozenset(), routes)})

    def _note(self, asked: Iterable[Asked]) -> None:
        slots = {version: sum(m.cap for m in self.of(version) if not m.shaken) for version in VERSIONS}
        for one in asked:
            one.waits_s.add(self.wait_ms / 1_000)
            one.queues.add(self.most_queued)
            one.shared |= {name for name, share in self.shares.items() if share}
            one.slots = min(one.slots, *(slots[name] for name in ({one.version} if one.version else one.shared)))
            one.calm = one.calm and not any(member.shaken for member in self.members)

    def _disturb(self, *, replica: bool = False, router: bool = False) -> None:
        for one in self._open:
            one.calm = False
            one.replica_died = one.replica_died or replica
            one.router_died = one.router_died or router

    async def _flap(self, member: Member, times: int) -> None:
        try:
            for _ in range(times):
                member.ready = not member.ready
                await self.apply()
                await asyncio.sleep(FLAP_S)
        finally:
            member.ready = True
            await self.apply()

    async def _shake(self, member: Member, times: int) -> None:
        path = self.bed.directory / f"{member.id}.app"
        away = path.with_suffix(".away")
        member.shaken = True
        self._note(self._open)
        try:
            for _ in range(times):
                path.rename(away)
                await asyncio.sleep(FLAP_S)
                away.rename(path)
                await asyncio.sleep(FLAP_S)
        finally:
            with contextlib.suppress(FileNotFoundError):
                away.rename(path)
            # Who asks from now on may still meet a gate that doubts its replica.
            await self.bed.until(lambda: self._gate_ready(member))
            member.shaken = False

    async def _gate_ready(self, member: Member) -> bool:
        with contextlib.suppress(AksInferenceError):
            return bool((await member.replica.status()).ready)
        return False

    async def _end_flap(self, member: Member) -> None:
        if (task := self._flaps.get(member)) is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _start(self, version: str, cap: int) -> None:
        settings = {"scoringTimeoutMs": SCORING_MS, "queueTimeoutMs": 5_000}
        self.members.append(Member(await self.bed.replica(version, cap=cap, **settings), version, cap))

    async def _end(self, member: Member) -> None:
        if member.replica.stub.poll() is None:
            await self._look(member)
        for process in (member.replica.gate, member.replica.stub):
            process.kill()
            await asyncio.to_thread(process.wait)

    async def _look(self, member: Member) -> None:
        stats = await self._stub(member, "/_stats")
        assert stats["most"] <= member.cap, f"{member.id}: {stats['most']} at once, the limit is {member.cap}"
        self._began |= {name: at for name, at in stats["began"] if name and name not in self._began}

    async def _stub(self, member: Member, path: str) -> Any:
        url = f"http://127.0.0.1:{member.replica.port}{path}"
        async with self.bed.session.get(url, timeout=aiohttp.ClientTimeout(20)) as answer:
            return await answer.json(content_type=None) if path == "/_stats" else await answer.read()
