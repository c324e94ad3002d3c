"""A version as the router serves it: its slots, its replicas' gates, their caps, its figures."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from aks_inference_runtime.router.caps import ReplicaView, SlotView, caps
from aks_inference_runtime.router.gates import GateWatch
from aks_inference_runtime.router.model import ReplicaTarget, VersionKey, VersionLoad, VersionRoute
from aks_inference_runtime.router.observing import Observations
from aks_inference_runtime.router.ownership import Epoch, Tenure
from aks_inference_runtime.router.peers import ONWARD
from aks_inference_runtime.router.readers import Held
from aks_inference_runtime.router.servers import Servers
from aks_inference_runtime.router.slots import Slot

MOST_PASSED_ON = 10_000
"""At once: all that wait."""
GRACE_SECONDS = 1.0
"""A slot is given up no sooner after the last request was sent to it: one may be on its way from another process."""


Sign = tuple[VersionRoute | None, tuple[Slot, ...], Tenure | None]
Act = Callable[["ServedVersion", str], Awaitable[None]]
"""What is done when the gate of a version's replica has changed, before that goes on."""


class Sums(NamedTuple):
    """What is asked of all gates of a version together."""

    news: int
    """As of when."""
    ready_replicas: int = 0
    """Replicas that may get requests, those whose slots are all taken included."""
    served_total: int = 0
    """Requests that the present replicas have finished."""
    highest_epoch: int = 0
    """Of all claims that the gates told of."""
    superseded_by: Epoch | None = None
    """The highest claim of another router above the own one, as the gates tell."""


class ServedVersion:
    """One version, from its first declaration until its last request has gone."""

    def __init__(self, key: VersionKey, act: Act, slots: Iterable[Slot] = ()) -> None:
        self.key = key
        self.route: VersionRoute | None = None
        self.slots: list[Slot] = list(slots)
        """Oldest first; the last is where new requests go."""
        self.replicas: dict[str, ReplicaTarget] = {}
        """Those declared; of a withdrawn version those that it had."""
        self.tenure: Tenure | None = None
        """Among several routers: what this one may do with the replicas."""
        self._act = partial(act, self)
        self._gates: dict[str, GateWatch] = {}
        self._leaving: dict[str, ReplicaTarget] = {}
        """No more declared, still with requests."""
        self._retired: dict[Slot, float] = {}
        self._seen: dict[Slot, tuple[int, int]] = {}
        self._left: frozenset[str] = frozenset()
        self.requests_total = 0
        self.rejected_total = 0
        self._news = 0
        """Grows with all that `load` is made of, but what HAProxy shows."""
        self._noted = self._note
        self._sums = Sums(0)
        self._told: tuple[object, VersionLoad | None] = None, None
        """What `load` said last, and of what."""
        self._settled: object = None
        """What `reconcile` saw last, if it leaves nothing to do."""
        self._refused: dict[Slot, int] = {}

    def _note(self) -> None:
        self._news += 1

    @property
    def sign(self) -> Sign:
        """What it is declared to be, where, and what this router may do."""
        return self.route, tuple(self.slots), self.tenure

    def has_requests(self, seen: Observations) -> bool:
        """Whether some wait, or run."""
        return any(slot.process in seen and seen[slot.process].stat.has_requests(slot.backend) for slot in self.slots)

    @property
    def moving(self) -> bool:
        """Whether it should be looked at often."""
        return len(self.slots) > 1 or (self.route is None and bool(self.slots)) or bool(self._leaving)

    @property
    def over(self) -> bool:
        """Withdrawn and without anything left in HAProxy."""
        return self.route is None and not self.slots

    # --- declared

    def declare(self, route: VersionRoute, slot: Slot) -> None:
        """What it is from now on, and where new requests go."""
        if route is self.route and self.slots[-1:] == [slot]:
            return  # of a thousand few are others
        self._note()
        self.route = route
        if slot in self.slots:
            self.slots.remove(slot)
        self.slots.append(slot)
        self._retire(self.slots[:-1])
        declared = {replica.id: replica for replica in route.replicas}
        for replica_id, replica in self.replicas.items():
            if replica_id not in declared:
                self._leaving[replica_id] = replica
        for replica_id in declared:
            self._leaving.pop(replica_id, None)
        self.replicas = declared
        for replica in declared.values():
            if replica.control is not None and replica.id not in self._gates:
                self._gates[replica.id] = GateWatch(replica.id, replica.control, self._act, self._epoch, self._noted)
                self._gates[replica.id].tell_gone(self._left)

    def take(self, tenure: Tenure | None) -> None:
        """Among several routers: what this one may do with the replicas from now on."""
        if tenure != self.tenure:
            self.tenure = tenure
            self._note()
        for gate in self._gates.values():
            gate.claim(self._epoch)

    @property
    def _epoch(self) -> Epoch | None:
        return self.tenure.epoch if self.tenure is not None else None

    def withdraw(self) -> None:
        """No new requests come; those that wait are still served."""
        if self.route is not None:
            self.route = None
            self._note()
            self._retire(self.slots)

    def _retire(self, slots: Iterable[Slot]) -> None:
        now = asyncio.get_running_loop().time()
        for slot in slots:
            self._retired[slot] = now

    async def heard(self, timeout_s: float) -> None:
        """Waits until every ready replica's gate has been heard, for a while."""
        ready = [replica.id for replica in self.replicas.values() if replica.ready]
        await asyncio.gather(*(self._gates[name].first(timeout_s) for name in ready if name in self._gates))

    def watch_closely(self, seen: Observations) -> None:
        """Asks the gates for their figures where requests are under way."""
        if self.has_requests(seen):
            for gate in self._gates.values():
                gate.look_closely()

    def left(self, turns: frozenset[str]) -> None:
        """These wait, and their clients have left: the replicas need not see them."""
        if turns != self._left:
            self._left = turns
            self._note()
            for gate in self._gates.values():
                gate.tell_gone(turns)

    async def close(self) -> None:
        """Lets the gates go."""
        for gate in self._gates.values():
            await gate.close()
        self._gates.clear()

    # --- kept

    async def reconcile(self, seen: Observations, servers: Servers) -> None:
        """Counts, caps, departures, emptied slots. Nothing where all is as it was and there is nothing to wait for."""
        if self._settled == self._all(seen, servers):
            return
        self._settled = None
        self._count(seen)
        before = self._all(seen, servers)
        for replica_id in (*self.replicas, *self._leaving):
            await self.reconcile_replica(replica_id, seen, servers)
            if (gate := self._gates.get(replica_id)) is not None and gate.lost:
                await self._give_up(replica_id, seen, servers)
        for slot in self.slots:
            for replica_id in tuple(servers.of(slot)):
                gone = replica_id not in self.replicas and not self._current(slot, seen).get(replica_id)
                if gone:
                    await servers.set_cap(slot, replica_id, "", 0, gated=False)
                    await servers.remove(slot, replica_id)
        for replica_id in tuple(self._leaving):
            if not any(replica_id in servers.of(slot) for slot in self.slots):
                del self._leaving[replica_id]
                await self._forget_gate(replica_id)
        for slot in tuple(self.slots):
            if (slot != self.slots[-1] or self.route is None) and await self._emptied(slot, seen, servers):
                self.slots.remove(slot)
        if (
            not self.moving
            and self._all_heard
            and not any(servers.of(slot).keys() - self.replicas for slot in self.slots)
        ):
            # What has changed meanwhile has its turn.
            self._settled = before

    def _all(self, seen: Observations, servers: Servers) -> tuple[object, ...]:
        """Another one whenever `reconcile` may have something to do."""
        return servers.surprises, len(seen), *self._now(seen)

    @property
    def _all_heard(self) -> bool:
        """Otherwise time matters: see `GateWatch.unheard` and `lost`."""
        return all(gate.status is not None for gate in self._gates.values())

    async def pass_on(self, address: Path, seen: Observations, servers: Servers) -> None:
        """Sends what waits here on to whoever owns the endpoint now."""
        for slot in self.slots:
            if self._queued(slot, seen):
                await servers.set_cap(slot, ONWARD, str(address), MOST_PASSED_ON, gated=False)

    async def reconcile_replica(self, replica_id: str, seen: Observations, servers: Servers) -> None:
        """One replica's caps in all slots."""
        replica = self.replicas.get(replica_id) or self._leaving.get(replica_id)
        if replica is None or not self.slots:
            return
        gate = self._gates.get(replica_id)
        if gate is not None and gate.unheard and replica.ready and replica_id in self.replicas:
            # A new agent leaves the caps as they are until it hears the gate.
            return
        views = [SlotView(slot, self._queued(slot, seen), self._current(slot, seen)) for slot in self.slots]
        wanted = caps(replica_id, self._view(replica_id, views), views)
        # First what goes down: a replica is never counted in two slots at once.
        for slot, cap in sorted(wanted.items(), key=lambda item: item[1]):
            await servers.set_cap(slot, replica_id, replica.address, cap, gated=replica.control is not None)

    async def _give_up(self, replica_id: str, seen: Observations, servers: Servers) -> None:
        """What a lost replica has is sent elsewhere, or answered 502: HAProxy would wait for its own timeout."""
        for slot in self.slots:
            if self._current(slot, seen).get(replica_id):
                await servers.cut(slot, replica_id)

    def _view(self, replica_id: str, views: list[SlotView]) -> ReplicaView:
        replica = self.replicas.get(replica_id)
        withdrawn = self.route is None and not any(view.queued for view in views)
        away = self.tenure is not None and not self.tenure.uses_replicas
        if replica is None or not replica.ready or withdrawn or away:
            return ReplicaView(usable=False, limit=0, orphans=0)
        if replica.control is None:
            limit = self.route.requests.replica_max_concurrent_requests if self.route is not None else 1
            return ReplicaView(usable=True, limit=limit, orphans=0)
        gate = self._gates.get(replica_id)
        status = gate.status if gate is not None and gate.granted else None
        if status is None or not status.ready:
            return ReplicaView(usable=False, limit=0, orphans=0)
        return ReplicaView(usable=True, limit=status.max_concurrent, orphans=status.orphans)

    async def _emptied(self, slot: Slot, seen: Observations, servers: Servers) -> bool:
        """Takes the servers out of a slot that nobody waits in; True when none is left."""
        observation = seen.get(slot.process)
        if observation is None or observation.at < self._retired.get(slot, 0.0) + GRACE_SECONDS:
            return False
        if self._queued(slot, seen) or any(self._current(slot, seen).values()):
            return False
        if any(servers.of(slot).values()):
            return False
        for replica_id in tuple(servers.of(slot)):
            if not await servers.remove(slot, replica_id):
                return False
        self._seen.pop(slot, None)
        self._retired.pop(slot, None)
        return True

    async def _forget_gate(self, replica_id: str) -> None:
        gate = self._gates.pop(replica_id, None)
        if gate is not None:
            self._note()
            await gate.close()

    # --- seen

    def uses(self, replica_id: str, seen: Observations, servers: Servers) -> bool:
        """Whether the replica has, or may still get, requests of this version."""
        gate = self._gates.get(replica_id)
        if gate is not None and gate.status is not None and (gate.status.running or gate.status.waiting):
            return True
        return any(servers.of(slot).get(replica_id) or self._current(slot, seen).get(replica_id) for slot in self.slots)

    @property
    def sums(self) -> Sums:
        """Of ten thousand gates few have news: added up only then."""
        if self._sums.news != self._news:
            heard = [gate.status for gate in self._gates.values() if gate.status is not None]
            claims = [claim for gate in self._gates.values() if (claim := gate.superseded_by) is not None]
            self._sums = Sums(
                self._news,
                sum(self._view(replica_id, []).usable for replica_id in self.replicas) if self.route else 0,
                sum(status.served_total for status in heard),
                max((gate.epoch for gate in self._gates.values()), default=0),
                max(claims, default=None),
            )
        return self._sums

    def queued(self, seen: Observations) -> int:
        """Requests that wait, without those whose clients have left."""
        return max(0, sum(self._queued(slot, seen) for slot in self.slots) - len(self._left))

    def held(self, seen: Observations) -> Iterable[Held]:
        """What HAProxy holds of replicas whose gates have nothing of it any more."""
        for slot in self.slots:
            rows = seen[slot.process].stat.servers.get(slot.backend, ()) if slot.process in seen else ()
            for row in rows:
                if not row.current:
                    continue
                gate = self._gates.get(row.name)
                status = gate.status if gate is not None else None
                if status is not None and status.running + status.waiting == status.orphans:
                    yield Held(slot, row.name, row.total)

    def load(self, seen: Observations) -> VersionLoad | None:
        """The figures; None when a part of them is not known."""
        if any(slot.process not in seen for slot in self.slots):
            return None
        # Of a thousand versions it is asked ten times a second, and few have changed. What is not known may become
        # known by time alone: see `GateWatch.never_heard`.
        now = self._now(seen)
        if self._told[0] != now or self._told[1] is None:
            self._told = now, self._load(seen)
        return self._told[1]

    def _now(self, seen: Observations) -> tuple[object, ...]:
        """Another one whenever something has changed here, or in what HAProxy shows of it."""
        stats = [(slot.backend, seen[slot.process].stat) for slot in self.slots if slot.process in seen]
        return self._news, *((stat.backends.get(name), stat.servers.get(name)) for name, stat in stats)

    def _load(self, seen: Observations) -> VersionLoad | None:
        untold = []
        """Replicas of which HAProxy alone can tell."""
        for replica in self.replicas.values():
            gate = self._gates.get(replica.id)
            if replica.control is None or (gate is not None and gate.never_heard):
                untold.append(replica.id)
            elif replica.ready and (gate is None or gate.status is None):
                # One that was heard and is silent now may have anything in hand.
                return None
        statuses = [gate.status for gate in self._gates.values() if gate.status is not None]
        busy = sum(status.running for status in statuses)
        busy += sum(self._current(slot, seen).get(replica_id, 0) for slot in self.slots for replica_id in untold)
        return VersionLoad(
            busy=busy,
            queued=self.queued(seen) + sum(status.waiting for status in statuses),
            ready_replicas=self.sums.ready_replicas,
            requests_total=self.requests_total,
            rejected_total=self.rejected_total,
        )

    def _count(self, seen: Observations) -> None:
        """Adds what came since the last look; a restarted process counts from zero."""
        for slot in self.slots:
            row = seen[slot.process].stat.backends.get(slot.backend) if slot.process in seen else None
            if row is None:
                continue
            total, rejected = row.total, row.denied + row.failed
            before = self._seen.get(slot)
            self._seen[slot] = (total, rejected)
            if before is None or before == (total, rejected):
                continue
            self._note()
            self.requests_total += total - before[0] if total >= before[0] else total
            self.rejected_total += rejected - before[1] if rejected >= before[1] else rejected

    def refused(self, slot: Slot, count: int) -> None:
        """So many large bodies a slot has refused since its process began; they are not among the denied."""
        before = self._refused.get(slot)
        self._refused[slot] = count
        if before is not None and before != count:
            self._note()
            self.rejected_total += count - before if count >= before else count

    @staticmethod
    def _queued(slot: Slot, seen: Observations) -> int:
        observation = seen.get(slot.process)
        row = observation.stat.backends.get(slot.backend) if observation is not None else None
        return row.queued if row is not None else 0

    @staticmethod
    def _current(slot: Slot, seen: Observations) -> dict[str, int]:
        observation = seen.get(slot.process)
        rows = observation.stat.servers.get(slot.backend, ()) if observation is not None else ()
        return {row.name: row.current for row in rows}
